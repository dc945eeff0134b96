"""One seed, one run: the same program takes the same steps in the same order, byte for byte, on every machine.

- Time is trio's MockClock, which jumps to the next deadline as soon as nobody has anything to do. What the virtual
  world does by itself, such as delivering data, stands in an agenda that the clock keeps too: no task is woken for it.
- The order of tasks that could run in any order is drawn from a seeded generator. That is a switch of trio's own test
  suite, found under private names. They are pinned here, and nowhere else: `NAMES` says what is used and why, and
  `check_trio` refuses a trio where one is missing, so that a new trio is looked at and not guessed at.
- A process can be stopped (SIGSTOP) and go on: whatever would make one of its tasks run is withheld meanwhile. A task
  belongs to the process that is in its `OWNER`.
- The garbage collector is off during a run: what it finalizes, and when, depends on what ran before.

Nothing here knows of jobs, networks or disks.
"""

import contextvars
import gc
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any, Final, TypeVar

import trio
import trio.testing
from trio._core import _run

T = TypeVar("T")

NAMES: Final = {
    "_ALLOW_DETERMINISTIC_SCHEDULING": "a bool; true sorts the tasks that can run before they are shuffled",
    "_r": "the random.Random that shuffles them",
    "GLOBAL_RUN_CONTEXT": "its `runner` is the run under way, and `runner.runq` the tasks that can run",
    "Deadlines": "its `next_deadline()` is where the clock jumps to, and `expire(now)` cancels what is due",
    "Runner": "its `reschedule(task, next_send)` is the only way into `runq`",
    "Clock": "MockClock's `_autojump()` is called when no task can run, and before those that it wakes do",
    "Task": "its `_counter` is the order of creation, and `context` what it was created with",
}

OWNER: Final = contextvars.ContextVar[object]("owner", default=None)
"""The process that a task belongs to; inherited by the tasks that it starts."""

_held: dict[object, list[Any]] = {}  # the stopped owners, each with those of its tasks that could run


def check_trio() -> None:
    """Raises RuntimeError where trio has not what a deterministic run needs."""
    missing = [name for name in NAMES if name != "Clock" and not hasattr(_run, name)]
    missing += [f"{cls}.{name}" for cls, names in _MEMBERS.items() for name in names if not _has(cls, name)]
    if "_autojump" not in vars(trio.testing.MockClock):
        missing.append("Clock._autojump")
    if missing:
        wanted = "; ".join(f"{name}: {NAMES[name.partition('.')[0]]}" for name in missing)
        raise RuntimeError(
            f"trio {trio.__version__} has no {', '.join(missing)} in trio._core._run, which the simulation needs to be "
            f"deterministic ({wanted}). Look how that version orders its tasks, bring tests/simulation/determinism.py "
            "into line with it, and let test_determinism.py prove it; until then stay with the trio before it."
        )


_MEMBERS: Final = {
    "Runner": ("reschedule", "runq", "deadlines"),
    "Deadlines": ("next_deadline", "expire"),
    "Task": ("_counter", "context"),
}


def _has(cls: str, name: str) -> bool:
    found = getattr(_run, cls, None)
    return name in getattr(found, "__dict__", {}) or name in getattr(found, "__annotations__", {})


def run(main: Callable[..., Awaitable[T]], *args: Any, seed: int) -> T:
    """As `trio.run`, in virtual time, with the order of tasks drawn from `seed`."""
    check_trio()
    with _seeded_scheduler(seed), _no_collector():
        try:
            return trio.run(main, *args, clock=VirtualTime().clock)
        finally:
            _held.clear()
            _run.Runner.reschedule = _reschedule  # type: ignore[method-assign]


@contextmanager
def _seeded_scheduler(seed: int) -> Iterator[None]:
    state, switch = _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._r.seed(seed)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    try:
        yield
    finally:
        _run._r.setstate(state)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = switch  # type: ignore[misc]


@contextmanager
def _no_collector() -> Iterator[None]:
    """Off during a run; what earlier runs have left is collected after it, which looks at young objects alone. The
    driver freezes what it has restored for the life of its process; here it would be for ever."""
    enabled, freeze = gc.isenabled(), gc.freeze
    gc.disable()
    gc.freeze = lambda: None
    try:
        yield
    finally:
        gc.freeze = freeze
        gc.collect(1)
        if enabled:
            gc.enable()


# --- time --------------------------------------------------------------------------------------------------------


class VirtualTime:
    """A MockClock that keeps an agenda: what is to be done at its moments."""

    def __init__(self) -> None:
        self.clock = trio.testing.MockClock(autojump_threshold=0)  # whose class cannot be inherited from
        self.clock._autojump = self._jump  # type: ignore[method-assign]
        self.clock.current_time = self.current_time  # type: ignore[method-assign]
        self.clock.virtual_time = self  # type: ignore[attr-defined]
        self._now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def current_time(self) -> float:
        return self._now

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Calls of the same moment are made in the order in which they were asked for. A call must not raise: it is
        made by nobody's task."""
        self._sequence += 1
        heappush(self._agenda, (moment, self._sequence, call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self._now + seconds, call)

    def _jump(self) -> None:
        deadlines = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
        next_at = min(deadlines.next_deadline(), self._agenda[0][0] if self._agenda else math.inf)
        if next_at < math.inf:
            self._now = max(self._now, next_at)
            while self._agenda and self._agenda[0][0] <= self._now:
                heappop(self._agenda)[2]()
            deadlines.expire(self._now)


def virtual_time() -> VirtualTime:
    """That of the run under way."""
    found = getattr(trio.lowlevel.current_clock(), "virtual_time", None)
    assert isinstance(found, VirtualTime), "a virtual world lives in determinism.run"
    return found


# --- processes that are stopped --------------------------------------------------------------------------------


def stop(owner: object) -> None:
    """As SIGSTOP: from here on no task of `owner` takes a step. A step that could be taken, because data came, time
    passed or somebody was cancelled, is taken after `go_on`, all of them in one instant."""
    runq = _run.GLOBAL_RUN_CONTEXT.runner.runq
    _held[owner] = [task for task in runq if _owner(task) is owner]
    others = [task for task in runq if _owner(task) is not owner]
    runq.clear()
    runq.extend(others)
    _run.Runner.reschedule = _reschedule_unless_stopped  # type: ignore[method-assign, assignment]


def go_on(owner: object) -> None:
    """As SIGCONT; nothing happens to who is not stopped."""
    _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(_held.pop(owner, ()))
    if not _held:
        _run.Runner.reschedule = _reschedule  # type: ignore[method-assign]


def is_stopped(owner: object) -> bool:
    return owner in _held


_reschedule: Final = _run.Runner.reschedule


def _reschedule_unless_stopped(runner: Any, task: Any, *next_send: Any, **named: Any) -> None:
    _reschedule(runner, task, *next_send, **named)
    held = _held.get(_owner(task))
    if held is not None:
        assert runner.runq[-1] is task, "trio puts a task that can run elsewhere than at the end of the queue"
        held.append(runner.runq.pop())


def _owner(task: Any) -> object:
    return task.context.get(OWNER)
