"""Mutants: each broken promise is noticed, at a seed that is known to notice it, and at that seed only because of it.

`make mutants` looks for each from the first seed on.
"""

from typing import Final

import pytest

from tests.simulation import story
from tests.simulation.mutants import MUTANTS, caught_at

SEARCHED_MAX: Final = 200

KNOWN: Final = {
    "acknowledge before commit": 0,
    "no fsync": 1,
    "no attempt fence": 19,
    "outcome overwrites outcome": 9,
    "outbox dropped on send": 1,
    "attempt counter in memory": 0,
    "no key dedupe": 2,
    "running jobs not recovered at boot": 0,
    "ticket sequence in memory": 0,
    "rescue decided from a stale snapshot": 35,
    "no silence time out": 14,
    "dispatch sent before commit": 13,
    "follow up lost when the waiter is cancelled": 17,
    "no farewell before a planned stop": 11,
    "input gathered once for all": 4,
    "inputs not kept": 170,
}


def test_a_seed_is_known_for_every_mutant() -> None:
    assert KNOWN.keys() == MUTANTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught(name: str) -> None:
    """What a seed draws changes with the drawing, and what it finds with the code. Then another seed has to find it,
    and is told of, so that it can be written down here."""
    seed = caught_at(name, [KNOWN[name], *range(SEARCHED_MAX)])
    assert seed is not None, f"'{name}' is not caught within {SEARCHED_MAX} seeds"
    if seed != KNOWN[name]:
        print(f"'{name}' is not caught at seed {KNOWN[name]} any more, but at seed {seed}")
    assert story.tell(seed).violation is None, f"seed {seed} goes wrong without '{name}', too"
    assert MUTANTS[name].__doc__, "what is broken?"
