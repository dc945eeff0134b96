"""Looks for each mutant until it is found: `make mutants`. Fails where one is not within SEEDS_MAX seeds."""

import sys

from tests.simulation import pool
from tests.simulation.mutants import MUTANTS, SEEDS_MAX, caught_at


def main() -> int:
    missed = 0
    for name in MUTANTS:
        seed = caught_at(name, range(SEEDS_MAX), pool.told)
        missed += seed is None
        print(
            f"{name} {f'not caught within {SEEDS_MAX} seeds' if seed is None else f'caught at seed {seed}'}", flush=True
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
