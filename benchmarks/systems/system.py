"""What every system under measurement can be asked, with one meaning for all; what one cannot do, it says.

A system runs in a driver process of its own (`driver.py`), which starts its servers and workers on loopback, in a
fresh directory, with as many workers as it is told (two, or none), and stops them by their ids. Seconds are counted
in here, around the calls that a user would make, so that the conversation with the driver costs nothing.

Standard library only: the peers' drivers run in the peers' environment.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from benchmarks.processes import Child, Failed, wait_until

Work: TypeAlias = Literal["sleep", "py", "exec"]
"""`sleep`: nothing, in a slot; `py`: a Python call whose result is wanted; `exec`: the command true."""

PATIENCE_S: Final = 300.0  # the asker has a shorter one
CLIENTS_START_S: Final = 30.0
GATES_MAX: Final = 12
GATE_S_MAX: Final = 2.0
POLL_S: Final = 0.005  # how often a counter is asked for the end
LOOKS_TO_SPARE: Final = 4


class Unsupported(Exception):
    """It is not made for this; the text says why."""


def task_of(work: Work) -> str:
    """The function of `tasks.py` that is this work for a Python worker; Unsupported where there is none."""
    if work == "sleep":
        raise Unsupported("to occupy a worker it runs a Python call")
    return {"py": "root", "exec": "command"}[work]


class System:
    """One way to have jobs done. Subclasses implement what they can; `catalogue.py` tells what they need."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def version(self) -> str:
        raise NotImplementedError

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self, directory: Path, workers: int) -> None:
        """Ready to take jobs when it returns; a directory that it has used before brings back what was queued."""
        raise NotImplementedError

    def stop(self) -> None:
        while self._children:
            self._children.pop().stop()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        while self._children:
            self._children.pop().kill()

    def restart(self, directory: Path, workers: int) -> float:
        """After `kill`: seconds until it runs again, from the same directory, and one of the queued jobs has ended."""
        started = time.perf_counter()
        self.start(directory, workers)
        self.fill(1, 10.0)  # in case none was queued
        until_done(self.done, 1)  # counted from its start
        return time.perf_counter() - started

    def roots(self) -> list[int]:
        """The processes that, with their descendants, are the system; its clients are not."""
        return [child.pid for child in self._children]

    # --- taking jobs in ------------------------------------------------------------------------------------------

    def submit(self, count: int, clients: int) -> float:
        """Seconds until so many jobs are acknowledged. One client uses one connection and does not wait in between
        where the system allows that; several wait each for every answer."""
        raise Unsupported("it acknowledges nothing that is on disk")

    def submit_each(self, count: int) -> list[float]:
        """Seconds that each of so many submissions takes, one after the other."""
        raise Unsupported("it acknowledges nothing that is on disk")

    def submit_bulk(self, count: int) -> float:
        """Seconds for so many jobs in as few calls as it has for that."""
        raise Unsupported("it has no call for many jobs")

    # --- having them done ----------------------------------------------------------------------------------------

    def end_to_end(self, work: Work, count: int) -> float:
        """Seconds from the first submission until every job has ended, seen by the cheapest means it has."""
        raise Unsupported(f"it has no {work}")

    def round_trips(self, work: Work, count: int) -> list[float]:
        """Seconds of so many jobs, each submitted when the result of the one before is there."""
        raise Unsupported("a job is not submitted to it while it runs")

    def makespan(self, durations: Sequence[float]) -> float:
        """Seconds until jobs that last so long, submitted in this order, have all ended."""
        raise Unsupported("it has no way to say how long a job lasts")

    # --- a long queue --------------------------------------------------------------------------------------------

    def hold(self, directory: Path, workers: int) -> None:
        """Occupies every worker until `release`. One may take two jobs before the other has any: so gates are sent
        until enough are begun, and those that come later find themselves opened."""
        self._opened = directory / "gates-opened"
        self._opened.unlink(missing_ok=True)
        begun = [directory / f"gate-{number}" for number in range(GATES_MAX)]
        for path in begun:
            path.unlink(missing_ok=True)
        for number, path in enumerate(begun):
            self.send_gate(path, self._opened)
            held = partial(_exist, begun, min(workers, number + 1))
            try:
                wait_until(held, GATE_S_MAX, "holding a worker")
            except Failed:
                continue
            if _exist(begun, workers):
                return
        raise Failed(f"{GATES_MAX} gates did not occupy {workers} workers")

    def release(self) -> None:
        self._opened.touch()

    def send_gate(self, begun: Path, opened: Path) -> None:
        """Queues a job that makes the first file, and ends when the second is there."""
        raise Unsupported("its queue does not outlive it")

    def fill(self, count: int, seconds_max: float) -> int:
        """Queues jobs that do nothing; returns how many there are when all are, or when the time is over."""
        raise Unsupported("its queue does not outlive it")

    def drain(self, count: int, seconds_max: float) -> dict[str, float]:
        """Lets the workers go. `done` is how many of so many queued jobs had ended when all had, or the time was over;
        `seen` is how many of them ended in `seconds`, from the first that was seen on, and before the last was seen:
        neither the opening of the gates nor the wait between two looks counts."""
        before = self.done()
        started = time.perf_counter()
        self.release()
        looks: list[tuple[float, int]] = [(started, 0)]
        while True:
            time.sleep(POLL_S)
            done, now = self.done() - before, time.perf_counter()
            if done:
                looks.append((now, done))
            if done and (done >= count or now - started >= seconds_max):
                return {"done": float(done), **slope(looks)}
            if now - started >= PATIENCE_S:
                raise Failed(f"not one of the queued jobs ended in {PATIENCE_S:g} s")

    def idle_connections(self, count: int, seconds: float) -> dict[str, float]:
        """What so many clients cost that are connected, were answered once, and then say nothing: `bytes` of its own
        memory for each, and the `share` of a core that the server uses, in percent."""
        raise Unsupported("it has no clients that stay connected")

    def done(self) -> int:
        """How many jobs have ended so far; only differences mean something."""
        raise Unsupported("its queue does not outlive it")


def slope(looks: Sequence[tuple[float, int]]) -> dict[str, float]:
    """How many ended in how many seconds, by looks at a clock and a counter: the first look before anything ended, the
    last when everything may have for a while. Where these are all there is, they must do."""
    (began, first), (ended, last) = (looks[1], looks[-2]) if len(looks) > LOOKS_TO_SPARE else (looks[0], looks[-1])
    return {"seen": float(last - first), "seconds": ended - began}


def _exist(paths: Sequence[Path], at_least: int) -> bool:
    return sum(path.exists() for path in paths) >= at_least


def by_threads(clients: int, count: int, connect: Callable[[], Callable[[], object]]) -> float:
    """Seconds until `count` calls are made by so many threads; each makes a caller of its own first."""
    made = threading.Barrier(clients + 1)
    left = itertools.repeat(None, count)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def client() -> None:
        try:
            call = connect()
            made.wait(CLIENTS_START_S)
            while True:
                with lock:
                    if next(left, True):
                        return
                call()
        except BaseException as failure:  # noqa: BLE001  (it is raised where the caller can see it)
            failures.append(failure)
            made.abort()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        made.wait(CLIENTS_START_S)
    except threading.BrokenBarrierError:
        raise Failed(f"a client could not start: {failures or 'no reason known'}") from None
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def each(calls: Iterable[Callable[[], object]]) -> list[float]:
    """Seconds of each call."""
    taken = []
    for call in calls:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def fill_in_chunks(put: Callable[[int], object], count: int, seconds_max: float, chunk: int = 1000) -> int:
    """Calls put(so many) until `count` are put or the time is over; returns how many are."""
    ends_at = time.monotonic() + seconds_max
    filled = 0
    while filled < count and time.monotonic() < ends_at:
        size = min(chunk, count - filled)
        put(size)
        filled += size
    return filled


def until_done(done: Callable[[], int], target: int) -> None:
    wait_until(lambda: done() >= target, PATIENCE_S, f"{target} jobs", POLL_S)
