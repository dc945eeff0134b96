"""The executors alone, beside `concurrent.futures.ProcessPoolExecutor`: the same calls, the same number of workers.

    python -m benchmarks.calls [CALLS] [SLOTS] [REPEATS]

No cluster, no store and no protocol: only the node's handle, its spawner and warm workers. Both sides take turns in one
run, so that a busy machine slows both; processor time for each call is told beside the rate, and hardly moves with it.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import sqrt
from pathlib import Path
from typing import Final

import attrs
import trio

from benchmarks.processes import family, processor_s
from node.backlog import AHEAD_MAX
from node.executors import Over, Returned, Start, Word
from node.executors.handle import Executors

KIB: Final = 1024
ENVIRONMENT: Final = (("JOBYARD_ATTEMPT", "1"), ("JOBYARD_NODE", "benchmark"))


@attrs.frozen
class Turn:
    """One side's calls: how long they took, and the processor time of the three kinds of process."""

    seconds: float
    ours_s: float
    spawner_s: float
    workers_s: float


class Caller:
    """Gives calls to the executors, and more whenever some are over."""

    def __init__(self, directory: str, slots: int) -> None:
        self._slots = slots
        self.executors = Executors(
            scratch_root=Path(directory) / "scratch",
            owner="benchmark",
            output_bytes_max=64 * KIB,
            report=self._report,
            slots=slots,
        )
        self._given = self._over = self._count = 0
        self._done = trio.Event()

    async def call(self, count: int) -> None:
        self._count, self._over, self._done = self._given + count, 0, trio.Event()
        self._wanted = count
        self._give(self._slots + AHEAD_MAX)
        await self._done.wait()

    def _give(self, count: int) -> None:
        count = min(count, self._count - self._given)
        numbers = range(self._given + 1, self._given + count + 1)
        self._given += count
        self.executors.submit([_start(f"bench-{number}") for number in numbers])

    def _report(self, news: Sequence[Word]) -> None:
        if back := [_start(word.ticket, word.attempt) for word in news if isinstance(word, Returned)]:
            self.executors.submit(back)  # a worker was starting meanwhile
        over = [word for word in news if isinstance(word, Over)]
        assert all(word.output == b"2.0\n" for word in over), over
        self._over += len(over)
        if self._over == self._wanted:
            self._done.set()
        elif over:
            self._give(len(over))


def _start(ticket: str, attempt: int = 1) -> Start:
    return Start(ticket, attempt, "py", "math:sqrt [4]", env=(("JOBYARD_TICKET", ticket), *ENVIRONMENT))


async def through_executors(caller: Caller, count: int) -> Turn:
    spawner = caller.executors.spawner_pid
    assert spawner is not None
    before = _used(spawner)
    began = time.perf_counter()
    await caller.call(count)
    seconds = time.perf_counter() - began
    return Turn(seconds, *(after - earlier for after, earlier in zip(_used(spawner), before, strict=True)))


def _used(spawner: int) -> tuple[float, float, float]:
    times, both = os.times(), processor_s([spawner])
    workers = processor_s(pid for pid in family(spawner) if pid != spawner)
    return times.user + times.system, both - workers, workers


def through_a_pool(pool: ProcessPoolExecutor, count: int) -> Turn:
    times, workers = os.times(), processor_s(pool._processes)
    began = time.perf_counter()
    for future in [pool.submit(sqrt, 4) for _ in range(count)]:
        assert future.result() == 2.0
    seconds, after = time.perf_counter() - began, os.times()
    ours = after.user + after.system - times.user - times.system
    return Turn(seconds, ours, 0.0, processor_s(pool._processes) - workers)


async def compare(count: int, slots: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as directory, ProcessPoolExecutor(slots) as pool:
        through_a_pool(pool, 100)
        caller = Caller(directory, slots)
        async with caller.executors.running():
            await caller.call(100)
            turns = [(await through_executors(caller, count), through_a_pool(pool, count)) for _ in range(repeats)]
    for name, side in zip(("executors", "pool"), zip(*turns, strict=True), strict=True):
        tell(name, side, count)
    ratio = statistics.median(pool.seconds / ours.seconds for ours, pool in turns)
    print(f"executors / pool: {ratio:.2f}")


def tell(name: str, side: Sequence[Turn], count: int) -> None:
    rate = statistics.median(count / turn.seconds for turn in side)
    parts = zip(*(attrs.astuple(turn)[1:] for turn in side), strict=True)
    ours, spawner, workers = (statistics.median(part) / count * 1e6 for part in parts)
    print(f"{name:10} {rate:8.0f} calls/s; µs of processor for each: caller {ours:.0f}, spawner {spawner:.0f}, "
          f"workers {workers:.0f}, together {ours + spawner + workers:.0f}")  # fmt: skip


def main(calls: str = "5000", slots: str = "2", repeats: str = "5") -> None:
    trio.run(compare, int(calls), int(slots), int(repeats))


if __name__ == "__main__":
    main(*sys.argv[1:])
