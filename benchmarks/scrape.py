"""How long a scrape takes with a million jobs in the queue, and whom it keeps waiting: `python -m benchmarks.scrape`.

A whole balancer's machine with its jobs at rest on a store of its own, asked as the HTTP side asks it. Bars: 100 ms for
a scrape, and no step of the machine longer than that.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from balancer.dispatcher import Dispatcher, Periods
from balancer.placement import Level
from common.codec import pack
from common.events import Inquired, Knocked, Received, StoreLevel
from common.limits import GIB
from common.memory import Memory
from common.messages import Hello, Holdings, Inquiry, Jobs, Submission
from common.model import Job
from common.runtime.driver import Step
from common.runtime.metrics import balancer_families, exposition
from common.runtime.store import Store
from common.runtime.tally import Tally

BATCH: Final = 5000
SCRAPES: Final = 50
PERIODS: Final = Periods(
    eager=True, round_s=5.0, jobs_per_round_max=30, result_s=3.0, info_s=1.0, node_timeout_s=1e9, backlog_max=1000,
    retention_s=86400.0,
)  # fmt: skip


class Balancer:
    """The machine on a store, without sockets."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(directory, 16 * GIB)
        self.machine = Dispatcher(Memory(self._store), PERIODS, Level(), nodes_max=10, chance=random.Random(1))
        self.machine.restore(time.monotonic(), time.time())
        self.tally = Tally(time.time, self.machine.census)
        hello = Hello(1, "id", "boot", "aaaaaa", "n1", 0, ("sh",), "0", b"")
        self.step(Knocked(1, hello))
        self.step(Received(1, [Holdings()], time.time()))

    def step(self, event: object) -> list[object]:
        effects = self.machine.handle((event,), time.monotonic())
        self._store.commit(effects.writes)
        self.machine.committed()
        self.tally(Step((event,), effects, 0.0, time.monotonic()))
        return list(effects.actions)

    def submit(self, first: int, count: int) -> None:
        job = pack(Job("sh", "true", submitted_wall=time.time(), group="g"))
        items = tuple(Submission(f"aaaaaa-{number}", job) for number in range(first, first + count))
        self.step(Received(1, [Jobs(items)], time.time()))

    def scrape(self) -> tuple[float, float]:
        """Seconds of the whole, and of the step, in which nobody else is served."""
        began = time.perf_counter()
        (reply,) = self.step(Inquired((Inquiry(-1, "figures"),), time.time()))
        stepped = time.perf_counter()
        exposition(balancer_families(msgspec.json.decode(reply.reply), self.tally, 16 * GIB))  # type: ignore[attr-defined]
        return time.perf_counter() - began, stepped - began

    def close(self) -> None:
        self._store.close()


def main() -> None:
    line = argparse.ArgumentParser(description=__doc__)
    line.add_argument("--jobs", type=int, default=1_000_000)
    jobs = line.parse_args().jobs
    with tempfile.TemporaryDirectory() as directory:
        balancer = Balancer(Path(directory))
        balancer.step(StoreLevel(0.1, False, time.time()))
        for first in range(1, jobs + 1, BATCH):
            balancer.submit(first, min(BATCH, jobs + 1 - first))
        taken = [balancer.scrape() for _ in range(SCRAPES)]
        balancer.close()
    for name, seconds in zip(("scrape", "of it in the machine"), zip(*taken, strict=True), strict=True):
        print(f"{name}: median {statistics.median(seconds) * 1000:.2f} ms, longest {max(seconds) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
