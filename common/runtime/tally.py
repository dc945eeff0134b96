"""The tally: an observer that counts what steps did, for metrics and for the lines of a dashboard.

It is there only where HTTP is served. What is per job costs it a few additions: no clock is asked for a job, no string
is made, and a histogram is a row of numbers that a batch adds to. Nothing in it grows: rows of seconds and of failures
are rings, and labels come from closed lists of the code. Where it fails, it says so once, and nobody else is harmed.

A `Histogram` is kept as Prometheus shows it but not yet added up: how many fell between two bounds.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import attrs
import msgspec
import structlog
import trio

from common.codec import Malformed, glance
from common.effects import Send, Told
from common.messages import Dispatch
from common.model import Reason, State
from common.runtime.driver import Step

SECONDS_KEPT: Final = 600
FAILURES_KEPT: Final = 50
LAG_PERIOD_S: Final = 0.25
LAG_WINDOW_S: Final = 15.0
DONE: Final = "done"  # the reason of a success, as EXPLAIN names it

WAIT_BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200, 86400,
)  # fmt: skip
RUN_BOUNDS_S: Final = WAIT_BOUNDS_S
COMMIT_BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip

ENDS: Final = tuple(
    [(State.SUCCEEDED, DONE)]
    + [(State.FAILED, reason) for reason in Reason if reason not in (Reason.USER, Reason.DEPENDENCY)]
    + [(State.CANCELLED, Reason.USER), (State.CANCELLED, Reason.DEPENDENCY)]
)
OUTCOMES: Final = ("succeeded", "failed", "cancelled", "crashed", "interrupted", "lost", "returned")
REDISPATCHES: Final = ("crashed", "interrupted", "lost", "returned", "retry", "retried")

log = structlog.get_logger()


class Histogram:
    """Numbers by size; adding one costs a third of a microsecond."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """As Prometheus has it: up to each bound, and to infinity."""
        total, rows = 0, list[tuple[str, int]]()
        for bound, count in zip((*map(str, map(float, self.bounds)), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


class Submitted(msgspec.Struct, gc=False):
    """What is looked at of a job when it is given to a node."""

    submitted_wall: float = 0.0
    delay_s: float = 0.0


@attrs.define
class Second:
    """What happened within one second of the calendar, and how many waited and ran at its end."""

    at_wall: int
    submitted: int = 0
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    queued: int = 0
    dispatched: int = 0
    running: int = 0


class Tally:
    """Of one program. `census` says how many jobs are in each state, at any time and at no cost."""

    def __init__(self, wall: Callable[[], float], census: Callable[[], Mapping[State, int]] | None = None) -> None:
        self._wall = wall
        self._census = census or dict
        self.began_wall = wall()
        self.submitted = 0
        self.ended: dict[tuple[str, str], int] = {(str(state), str(reason)): 0 for state, reason in ENDS}
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.redispatched = dict.fromkeys(REDISPATCHES, 0)
        self.queue_wait = Histogram(WAIT_BOUNDS_S)
        self.run = Histogram(RUN_BOUNDS_S)
        self.commit = Histogram(COMMIT_BOUNDS_S)
        self.steps = 0
        self.seconds: deque[Second] = deque(maxlen=SECONDS_KEPT)
        self.failures: deque[dict[str, object]] = deque(maxlen=FAILURES_KEPT)  # the newest last
        self._now = Second(int(wall()))
        self._lags: deque[float] = deque([0.0], maxlen=int(LAG_WINDOW_S / LAG_PERIOD_S))
        self._has_failed = False

    def __call__(self, step: Step) -> None:
        with self._harming_nobody():
            self._count(step)

    @contextmanager
    def _harming_nobody(self) -> Iterator[None]:
        """We are called by the driver, whose end would be that of the program."""
        try:
            yield
        except Exception:
            if not self._has_failed:
                log.exception("http.tally_failed", advice="metrics and the dashboard may miss some; jobs go on")
            self._has_failed = True

    def _count(self, step: Step) -> None:
        self.steps += 1
        if step.effects.writes:
            self.commit.add(step.commit_s)
        if step.effects.told:
            self._turn()
            for told in step.effects.told:
                self._tellers.get(told[0], _nothing)(self, told)
            self._look_at_leases(step)

    def _look_at_leases(self, step: Step) -> None:
        """How long jobs waited that are given out for the first time: from their submission, or the end of their
        delay, by the clocks of their origin and of this machine. Of a job that cannot be read nothing is known."""
        wall = self._wall()
        for action in step.effects.actions:
            if isinstance(action, Send) and isinstance(action.message, Dispatch):
                for lease in action.message.items:
                    if lease.attempt == 1:
                        try:
                            job = glance(Submitted, lease.job)
                        except Malformed:
                            continue
                        self.queue_wait.add(max(0.0, wall - job.submitted_wall - job.delay_s))

    # --- what is told ----------------------------------------------------------------------------------------------

    def _submitted(self, told: Told) -> None:
        self.submitted += 1
        self._now.submitted += 1

    def _running(self, told: Told) -> None:
        self._now.started += 1

    def _queued(self, told: Told) -> None:
        reason = told[2]["reason"]
        if reason in self.redispatched:
            self.redispatched[reason] += 1
        if reason in self.outcomes:
            self.outcomes[reason] += 1

    def _tried(self, told: Told) -> None:
        self.outcomes["failed"] += 1
        self._add_run(told)

    def _succeeded(self, told: Told) -> None:
        self._count_end("succeeded", told)
        self._now.succeeded += 1

    def _failed(self, told: Told) -> None:
        self._count_end("failed", told)
        self._now.failed += 1
        self.failures.append({"at": self._now.at_wall, "ticket": told[1], **told[2]})

    def _cancelled(self, told: Told) -> None:
        self._count_end("cancelled", told)
        self._now.cancelled += 1

    def _count_end(self, state: str, told: Told) -> None:
        reason = told[2]["reason"]
        end = (state, DONE if reason is None else reason)
        self.ended[end] = self.ended.get(end, 0) + 1
        if reason == Reason.CRASH_LIMIT:
            self.outcomes["crashed"] += 1
        elif told[2]["seconds"] is not None:
            self.outcomes[state] += 1
            self._add_run(told)

    def _add_run(self, told: Told) -> None:
        seconds = told[2]["seconds"]
        if isinstance(seconds, float):
            self.run.add(seconds)

    _tellers: Final[dict[str, Callable[["Tally", Told], None]]] = {
        "job.submitted": _submitted,
        "job.queued": _queued,
        "job.running": _running,
        "job.retrying": _tried,
        "job.succeeded": _succeeded,
        "job.failed": _failed,
        "job.cancelled": _cancelled,
    }

    # --- time ------------------------------------------------------------------------------------------------------

    async def run_clock(self) -> None:
        """Turns the pages of seconds, and measures how late the event loop is, until it is cancelled."""
        while True:
            due = trio.current_time() + LAG_PERIOD_S
            await trio.sleep_until(due)
            self._lags.append(max(0.0, trio.current_time() - due))
            with self._harming_nobody():
                self._turn()

    @property
    def lag_s(self) -> float:
        """The most that a task which was due had to wait lately, in so far as that was tried."""
        return max(self._lags)

    def _turn(self) -> None:
        wall = int(self._wall())
        if wall == self._now.at_wall:
            return
        counts = self._census()
        self._now.queued = counts.get(State.QUEUED, 0)
        self._now.dispatched = counts.get(State.DISPATCHED, 0)
        self._now.running = counts.get(State.RUNNING, 0)
        self.seconds.append(self._now)
        self._now = Second(wall)

    def last(self, seconds: int) -> list[Second]:
        """The last seconds that are over, the oldest first."""
        self._turn()
        return list(self.seconds)[-seconds:]


def _nothing(tally: Tally, told: Told) -> None:
    """Of nodes, and of what is counted otherwise."""
