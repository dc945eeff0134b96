"""What the peers that are Python libraries have in common: tasks are functions, and calling one's `send` queues it.

Subclasses say how a task is sent, how its result is fetched, and how many results there are.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import Failed
from benchmarks.systems.system import System, Work, by_threads, each, fill_in_chunks, task_of, until_done

RESULT_S_MAX: Final = 30.0
CHUNK: Final = 1000


class Library(System):
    """See the module."""

    def send(self, task: str, *arguments: object) -> Any:
        """Queues one call; what it returns is for `fetch`."""
        raise NotImplementedError

    def fetch(self, sent: Any) -> Any:
        """Waits for the result of one call, as fast as the library can."""
        raise NotImplementedError

    def send_many(self, count: int) -> None:
        """Queues so many calls of `root`."""
        for _ in range(count):
            self.send("root")

    def forget(self) -> None:
        """Drops the results that nobody will read, so that counting them stays cheap."""

    def unsynced(self) -> AbstractContextManager[object]:
        """While it lasts, queueing need not be durable: it is not what is measured then."""
        return nullcontext()

    def wait_for_workers(self) -> None:
        """Returns when a call has ended, this one or one that was queued before: then they are there."""
        before = self.done()
        self.send("root")
        until_done(self.done, before + 1)

    def restart(self, directory: Path, workers: int) -> float:
        return each([lambda: self.start(directory, workers)])[0]  # which waits for the end of a call

    # --- taking jobs in ------------------------------------------------------------------------------------------

    def submit(self, count: int, clients: int) -> float:
        return by_threads(clients, count, lambda: lambda: self.send("root"))

    def submit_each(self, count: int) -> list[float]:
        return each([lambda: self.send("root")] * count)

    # --- having them done ----------------------------------------------------------------------------------------

    def end_to_end(self, work: Work, count: int) -> float:
        return self._run([(task_of(work),)] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        return self._run([("sleep", duration) for duration in durations])

    def _run(self, calls: Sequence[tuple[Any, ...]]) -> float:
        self.forget()
        before = self.done()
        started = time.perf_counter()
        for call in calls:
            self.send(*call)
        until_done(self.done, before + len(calls))
        return time.perf_counter() - started

    def round_trips(self, work: Work, count: int) -> list[float]:
        return each([lambda: self.fetch(self.send(task_of(work)))] * count)

    # --- a long queue --------------------------------------------------------------------------------------------

    def hold(self, directory: Path, workers: int) -> None:
        self.forget()
        super().hold(directory, workers)

    def send_gate(self, begun: Path, opened: Path) -> None:
        self.send("gate", str(begun), str(opened))

    def fill(self, count: int, seconds_max: float) -> int:
        with self.unsynced():
            return fill_in_chunks(self.send_many, count, seconds_max, CHUNK)


def poll(get: Callable[[], Any], poll_s: float = 0.0002) -> Any:
    """What `get` returns once it is not None."""
    ends_at = time.monotonic() + RESULT_S_MAX
    for _ in itertools.count():
        if (value := get()) is not None:
            return value
        if time.monotonic() > ends_at:
            break
        time.sleep(poll_s)
    raise Failed(f"no result in {RESULT_S_MAX:g} s")
