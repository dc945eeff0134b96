#!/usr/bin/env python3
"""A parameter sweep: one array of jobs, a value of the parameter for each, and all results in one table.

JOBYARD_URL=tcp://node1:9000 python 03_parameter_sweep.py

How long do customers wait at a till, if it is busy for 10, 20, … 90 % of the time? Each element of the array simulates
one of these, four at once. The program travels as the jobs' standard input, so that nothing has to be installed.
"""

from jobyard import Client, Status

LOADS = range(10, 100, 10)  # in percent
SIMULATION = b"""
import random, sys
load = int(sys.argv[1]) / 100
chance = random.Random(7)
free_at = now = waited = 0.0
for customer in range(50_000):
    now += chance.expovariate(load)
    begins = max(now, free_at)
    waited += begins - now
    free_at = begins + chance.expovariate(1)
print(waited / 50_000)
"""


def main() -> None:
    with Client() as yard:
        sweep = yard.submit("exec", "python3 - {}", body=SIMULATION, array="10-90:10%4", name="waiting", timeout_s=600)
        elements = {f"{sweep}_{load}": load for load in LOADS}
        waited: dict[int, float] = {}
        for status in yard.wait_all(elements):
            waited[elements[status.ticket]] = mean_wait(yard, status)
    for load in LOADS:
        bar = "#" * round(4 * waited[load])
        print(f"busy {load} %: {waited[load]:6.3f} {bar}")


def mean_wait(yard: Client, status: Status) -> float:
    outcome = yard.result(status.ticket)
    if not outcome.succeeded:
        raise SystemExit(f"{status.ticket} {outcome.state}: {outcome.reason}\n{outcome.stderr.decode()}")
    return float(outcome.stdout)


if __name__ == "__main__":
    main()
