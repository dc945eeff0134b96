"""Mutants of what the balancer decides."""

from collections.abc import Iterator
from contextlib import contextmanager

from balancer.dispatcher import Dispatcher
from balancer.inputs import Inputs
from balancer.ledger import Ledger
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.codec import pack, replace, unpack
from common.messages import Pair, Reported
from common.model import State, Verdict
from tests.simulation.mutants.patching import patched


@contextmanager
def no_attempt_fence() -> Iterator[None]:
    """Any outcome of a job is taken for that of its current attempt."""

    def current(ledger: Ledger, entry: Entry, reported: Reported) -> bool:
        return True

    with patched(Ledger, "current", current):
        yield


@contextmanager
def outcome_overwrites_outcome() -> Iterator[None]:
    """An outcome that comes for a job that has ended is recorded, too: the last one counts."""
    settle = Dispatcher._settle

    def settle_again(dispatcher: Dispatcher, node: Node, pair: Pair, now: float) -> None:
        ended = dispatcher._history.find(pair.ticket)
        if ended is not None:
            reported = unpack(Reported, pair.record)
            outcome = reported.outcome
            state = State.SUCCEEDED if outcome.verdict is Verdict.SUCCEEDED else State.FAILED
            last = replace(
                ended,
                state=state,
                reason=outcome.reason,
                attempt=reported.attempt,
                node=node.record.name,
                exit=outcome.exit,
                seconds=outcome.seconds,
                stdout_bytes=outcome.stdout_bytes,
                stderr_bytes=outcome.stderr_bytes,
            )
            dispatcher._history.record(pair.ticket, last, pair.output)
        settle(dispatcher, node, pair, now)

    with patched(Dispatcher, "_settle", settle_again):
        yield


@contextmanager
def attempt_counter_in_memory() -> Iterator[None]:
    """How many attempts a job has had is not on disk: after a restart the one that it is at is the first."""

    def packed(entry: Entry) -> bytes:
        return pack(replace(entry.record, attempt=min(entry.record.attempt, 1)))

    with patched(Entry, "packed", property(packed)):
        yield


@contextmanager
def running_jobs_not_recovered_at_boot() -> Iterator[None]:
    """A balancer that starts does not look who has which lease."""

    def leased(ledger: Ledger) -> list[Entry]:
        return []

    with patched(Ledger, "leased", leased):
        yield


@contextmanager
def rescue_decided_from_a_stale_snapshot() -> Iterator[None]:
    """Who is silent is found out at one poll, and is given up at the next without another look."""
    silent = Roster.silent

    def silent_a_poll_ago(roster: Roster, now: float, timeout_s: float) -> list[Node]:
        decided = decided_by.pop(roster, [])
        decided_by[roster] = silent(roster, now, timeout_s)
        return [node for node in decided if not node.lost]

    decided_by: dict[Roster, list[Node]] = {}
    with patched(Roster, "silent", silent_a_poll_ago):
        yield


@contextmanager
def no_silence_time_out() -> Iterator[None]:
    """A node is waited for, for ever."""

    def silent(roster: Roster, now: float, timeout_s: float) -> list[Node]:
        return []

    with patched(Roster, "silent", silent):
        yield


@contextmanager
def input_gathered_once_for_all() -> Iterator[None]:
    """What the first job was given that takes an input, every other one is given, too."""
    gather = Inputs.gather

    def gather_once(inputs: Inputs, ticket: str) -> bytes:
        if inputs not in gathered:
            gathered[inputs] = gather(inputs, ticket)
        return gathered[inputs]

    gathered: dict[Inputs, bytes] = {}
    with patched(Inputs, "gather", gather_once):
        yield


@contextmanager
def inputs_not_kept() -> Iterator[None]:
    """What a live job wants may be forgotten, and expires."""

    def want(inputs: Inputs, ticket: str) -> None:
        pass

    with patched(Inputs, "want", want):
        yield
