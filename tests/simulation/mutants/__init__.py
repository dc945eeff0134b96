"""Mutants: sixteen ways to break a promise that the simulation must find, each a patch of the code that is shipped.

A rule without a mutant is a wish: were the auditor asleep, or the stories too tame, nobody would notice. A mutant that
is not found within SEEDS_MAX seeds means that one of the two is so, and is never answered with a story of its own.

    mutants.tell(("no fsync", 17))  # the story of seed 17 in a world in which nothing is synced
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeAlias

from tests.simulation import story
from tests.simulation.mutants import balancers, disks, nodes
from tests.simulation.story import Verdict

Mutant: TypeAlias = Callable[[], AbstractContextManager[None]]
Telling: TypeAlias = Callable[[Callable[[tuple[str, int]], Verdict], Sequence[tuple[str, int]]], Iterable[Verdict]]

SEEDS_MAX: Final = 1000
_MISFIT: Final = ("TypeError", "AttributeError", "NameError", "NotAnAttrsClassError")

MUTANTS: Final[Mapping[str, Mutant]] = {
    mutant.__name__.replace("_", " "): mutant
    for mutant in (
        disks.acknowledge_before_commit,
        disks.no_fsync,
        balancers.no_attempt_fence,
        balancers.outcome_overwrites_outcome,
        nodes.outbox_dropped_on_send,
        balancers.attempt_counter_in_memory,
        disks.no_key_dedupe,
        balancers.running_jobs_not_recovered_at_boot,
        nodes.ticket_sequence_in_memory,
        balancers.rescue_decided_from_a_stale_snapshot,
        balancers.no_silence_time_out,
        disks.dispatch_sent_before_commit,
        disks.follow_up_lost_when_the_waiter_is_cancelled,
        nodes.no_farewell_before_a_planned_stop,
        balancers.input_gathered_once_for_all,
        balancers.inputs_not_kept,
    )
}


def tell(which: tuple[str, int]) -> Verdict:
    """The story of a seed, with a mutant."""
    name, seed = which
    with MUTANTS[name]():
        return story.tell(seed)


def caught_at(name: str, seeds: Iterable[int], told: Telling = map) -> int | None:
    """The first of these seeds with whose story the mutant is found; None where it is with none of them. One that does
    not fit the code any more is not found: it dies of itself."""
    for verdict in told(tell, [(name, seed) for seed in seeds]):
        if verdict.violation is not None:
            assert not verdict.violation.startswith(_MISFIT), f"'{name}' does not fit the code: {verdict.violation}"
            return verdict.seed
    return None
