#!/usr/bin/env python3
"""Python functions on all nodes, as `concurrent.futures` has them: how many primes are there below a number?

JOBYARD_URL=tcp://node1:9000 python 08_executor_map.py 1000000

`primes_between` need not be installed where it runs: functions of a script travel as they are. Small calls are worth
while together: each job gets `chunksize` of them. (pip install 'jobyard[call]')
"""

import sys

from jobyard.futures import JobyardExecutor

SPAN = 10_000


def primes_between(start: int, stop: int) -> int:
    """How many there are from `start` on, and below `stop`."""
    found = 0
    for number in range(max(start, 2), stop):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    return found


def main(below: int) -> None:
    starts = range(0, below, SPAN)
    stops = [min(start + SPAN, below) for start in starts]
    with JobyardExecutor(timeout_s=600, retries=1) as executor:
        counts = executor.map(primes_between, starts, stops, chunksize=4)
        print(f"{sum(counts):,} primes below {below:,}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
