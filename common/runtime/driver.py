"""The driver: the whole imperative shell around a machine, and the only one who obeys *durable, then visible*.

    wait for an event, at most until the machine's next deadline; for more of them, where the machine says so
    take whatever else is already there ── hand all of it to the machine
    perform what need not wait for the writes (see common/effects.py)
    commit all writes, or none of them
    perform the actions, none of which can block
    tell the observers

While a commit is under way events gather, so a batch grows by itself under load and is one when idle. After a moment of
quiet whoever tells of an event makes the step himself (`tell`): to wake another task takes as long as deciding.

A commit is never abandoned: whoever waits for it may be cancelled, but then its outcome is unknown, not undone. A
full disk is waited out with everything withheld; any other failure of the store ends the program, because a machine
that is ahead of its disk must not speak.
"""

import gc
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import tenacity
import trio

from common.effects import Effects, Exit, Note, Write
from common.events import StoreLevel
from common.machine import Machine
from common.runtime.room import NoRoom, Room

ROOM_CHECK_PERIOD_S = 0.25  # while something comes in
ROOM_CHECK_IDLE_S = 1.0  # while nothing does; others may fill the disk
QUICK_S = 0.01  # a good disk takes a thirtieth; the rest is for the time that others have the processor
IN_THREAD_MIN = 4  # commits after one that was slow
IN_THREAD_MAX = 64  # and after many
QUIET_S = 0.00005  # after a step
QUIET_FRACTION = 0.25  # of the time that it took, after a long one
BUSY_S = 0.002  # after events that came together, or close behind each other: more will


class Commits(Protocol):
    """What the driver needs of a store."""

    def commit(self, writes: Sequence[Write]) -> None: ...

    def room(self) -> Room: ...


@attrs.frozen
class Step:
    """What observers are told of a step, after it."""

    events: Sequence[object]
    effects: Effects
    commit_s: float
    now: float


Observer = Callable[[Step], None]
RunBlocking = Callable[[Callable[[], None]], Awaitable[None]]
RunHere = Callable[[Callable[[], None]], bool]


def never_here(call: Callable[[], None]) -> bool:
    """Runs no call in the thread that asks for it."""
    return False


def in_one_thread() -> RunBlocking:
    """Runs calls in worker threads, one at a time, never abandoned."""
    limiter = trio.CapacityLimiter(1)

    async def run(call: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=False)

    return run


class InPlaceWhileQuick:
    """Runs calls in this very thread for as long as they take less than `quick_s` of `clock`: to hand one to another
    thread and be woken by it takes longer than a good disk does. After one that was slow the next few go `in_thread`,
    and twice as many each time that one is slow again, so that on a slow disk the program reads and writes sockets
    meanwhile, and it is rare that nobody does. One that is quick halves what is to come."""

    def __init__(self, in_thread: RunBlocking, clock: Callable[[], float], *, quick_s: float = QUICK_S) -> None:
        self._in_thread = in_thread
        self._clock = clock
        self._quick_s = quick_s
        self._in_thread_yet = 0
        self._in_thread_next = IN_THREAD_MIN

    async def run(self, call: Callable[[], None]) -> None:
        """A RunBlocking."""
        if self.run_here(call):
            return
        self._in_thread_yet -= 1
        started = self._clock()
        await self._in_thread(call)
        if self._clock() - started > self._quick_s:
            self._was_slow()

    def run_here(self, call: Callable[[], None]) -> bool:
        """A RunHere: in this thread, or not at all."""
        if self._in_thread_yet:
            return False
        started = self._clock()
        call()
        if self._clock() - started > self._quick_s:
            self._was_slow()
        else:
            self._in_thread_next = max(IN_THREAD_MIN, self._in_thread_next // 2)
        return True

    def _was_slow(self) -> None:
        self._in_thread_yet = self._in_thread_next
        self._in_thread_next = min(2 * self._in_thread_next, IN_THREAD_MAX)


@attrs.frozen
class _Begun:
    """A step that the machine has answered, and whose writes are not durable yet."""

    events: Sequence[object]
    effects: Effects
    now: float
    decided_at: float
    came: int  # events that somebody told or posted


class Driver:
    """Runs one machine."""

    def __init__(
        self,
        machine: Machine,
        store: Commits,
        *,
        observers: Sequence[Observer] = (),
        run_blocking: RunBlocking,
        run_here: RunHere = never_here,
        wall: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._store = store
        self._performers: dict[type, Callable[[Any], None]] = {}
        self._performed: Callable[[], None] = lambda: None
        self._observers = list(observers)
        self._run_blocking = run_blocking
        self._run_here = run_here
        self._wall = wall
        self._events: deque[object] = deque()
        self._arrived = trio.Event()
        self._next_room_check = 0.0
        self._gathers_until = self._quiet_from = -math.inf
        self._rests = False  # `run` waits for somebody to post, and nobody has
        self._stepped_here = False  # since `run` had its turn
        self._begun: _Begun | None = None  # by who told, for `run` to finish
        self._failure: BaseException | None = None  # of a step of who told, for `run` to raise
        self.exit_status: int | None = None

    def post(self, event: object) -> None:
        """Tells the machine something; never blocks. From the driver's own thread."""
        self._events.append(event)
        self._rests = False
        self._arrived.set()

    def tell(self, event: object) -> None:
        """Like `post`, from somebody who can do without the processor for the time of a step: where `run` rests, and
        little has come of late, it is made here and now. `run` comes next in any case, and of what others tell before
        that it makes one step. Never raises: what goes wrong is for `run`."""
        now = trio.current_time()
        here = self._rests and now >= self._quiet_from
        self.post(event)
        if here:
            self._stepped_here = True
            try:
                self._step_here(now)
            except BaseException as failure:  # noqa: BLE001 - `run` raises it
                self._failure = failure

    def perform(
        self, performers: Mapping[type, Callable[[Any], None]], performed: Callable[[], None] = lambda: None
    ) -> None:
        """What does each class of action; and `performed` sends off what they have gathered, when all actions of a
        step are done. Neither must block."""
        self._performers.update(performers)
        self._performed = performed

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    async def run(self) -> int:
        """Steps until the machine says Exit; returns its status."""
        self._machine.restore(trio.current_time(), self._wall())
        # What was restored stays: the collector need not walk over it again and again.
        gc.freeze()
        while self.exit_status is None:
            due = await self._wait()
            if self._failure is not None:
                raise self._failure
            if self._stepped_here and self._events:
                self._quiet_from = trio.current_time() + BUSY_S
            self._stepped_here = False
            if self.exit_status is None and (due or self._events or self._begun is not None):
                await self._step()
        return self.exit_status

    async def _wait(self) -> bool:
        """Until somebody has told or posted something; whether it is time for a step even if nobody has."""
        with trio.CancelScope(deadline=self._next_wakening()) as waiting:
            if not self._events:
                self._arrived = trio.Event()  # what the last one has announced is taken in already
                self._rests = True
                try:
                    await self._arrived.wait()
                finally:
                    self._rests = False
        if self._begun is None and trio.current_time() < self._gathers_until:
            await trio.sleep_until(self._gathers_until)
        return waiting.cancelled_caught

    def _next_wakening(self) -> float:
        deadline = self._machine.next_deadline()
        return self._next_room_check if deadline is None else min(deadline, self._next_room_check)

    async def _step(self) -> None:
        begun, self._begun = self._begun or self._decide(trio.current_time()), None
        if begun.effects.writes:
            await self._commit(begun.effects.writes)
        self._conclude(begun)

    def _step_here(self, now: float) -> None:
        """The same at once, but for a commit that may take long: that is left to `run`. Where `run` is cancelled before
        it comes to that, the step is one that a kill has cut off: nothing of it is durable, or was said of what is."""
        begun = self._decide(now)
        if begun.effects.writes and not self._commit_here(begun.effects.writes):
            self._begun = begun
        else:
            self._conclude(begun)

    def _commit_here(self, writes: Sequence[Write]) -> bool:
        try:
            return self._run_here(lambda: self._store.commit(writes))
        except NoRoom:
            return False

    def _decide(self, now: float) -> _Begun:
        """What the machine says to what has come in. What need not wait for its writes is done."""
        came = len(self._events)
        self._watch_room(now)
        events = tuple(self._events)
        self._events.clear()
        effects = self._machine.handle(events, now)
        if effects.at_once:
            for action in effects.at_once:
                self._performers[type(action)](action)
            self._performed()
        return _Begun(events, effects, now, trio.current_time(), came)

    def _conclude(self, begun: _Begun) -> None:
        """Its writes are durable."""
        self._machine.committed()
        effects, committed_at = begun.effects, trio.current_time()
        for action in effects.actions:
            if isinstance(action, Exit):
                self.exit_status = action.status
            elif not isinstance(action, Note):
                self._performers[type(action)](action)
        self._performed()
        self._gathers_until = begun.now + effects.gather_s
        step = Step(begun.events, effects, committed_at - begun.decided_at, begun.now)
        for observer in self._observers:
            observer(step)
        over_at = trio.current_time()
        quiet_s = BUSY_S if begun.came > 1 else max(QUIET_S, (over_at - begun.now) * QUIET_FRACTION)
        self._quiet_from = max(self._quiet_from, self._gathers_until, over_at + quiet_s)

    def _watch_room(self, now: float) -> None:
        """The machine is told before it takes in what may no longer have room."""
        early_s = ROOM_CHECK_IDLE_S - ROOM_CHECK_PERIOD_S if self._events else 0.0
        if now >= self._next_room_check - early_s:
            self._next_room_check = now + ROOM_CHECK_IDLE_S
            room = self._store.room()
            self._events.appendleft(StoreLevel(room.fraction, room.disk_full, self._wall()))

    async def _commit(self, writes: Sequence[Write]) -> None:
        """Whoever cancels us gets his way after the commit, and after its actions would have been due: the caller
        performs them without another checkpoint."""
        with trio.CancelScope(shield=True):
            try:
                await self._run_blocking(lambda: self._store.commit(writes))
            except NoRoom:
                await self._commit_when_there_is_room(writes)

    async def _commit_when_there_is_room(self, writes: Sequence[Write]) -> None:
        """Apart, because what tries again costs as much as a commit does where nothing has to be tried again."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(NoRoom),
            wait=tenacity.wait_exponential(multiplier=0.05, max=1.0),
            sleep=trio.sleep,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await self._run_blocking(lambda: self._store.commit(writes))
