"""How far a test goes: the figure of `make test`, or the longer one of `make soak`.

    CYCLES = reach("KILL_CYCLES", 20, soak=100)

The variable says it for one test, JOBYARD_SOAK=1 for all of them. A test with a reach has a time limit that grows
with it, and prints the seed of what it has drawn, which `<NAME>_SEED` takes again.
"""

import os
import random


def reach(variable: str, usual: int, *, soak: int) -> int:
    """How many times, images or seconds."""
    said = os.environ.get(variable)
    if said is not None:
        return int(said)
    return soak if os.environ.get("JOBYARD_SOAK") == "1" else usual


def seed(variable: str) -> int:
    """The seed that is asked for, or any; told, so that it can be asked for again."""
    drawn = int(os.environ.get(variable) or random.randrange(2**32))
    print(f"{variable}={drawn}")
    return drawn
