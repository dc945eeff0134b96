"""The driver: the whole imperative shell around a machine, and the only one who obeys *durable, then visible*.

    wait for an event, at most until the machine's next deadline; for more of them, where the machine says so
    take whatever else is already there ── hand all of it to the machine
    perform what need not wait for the writes (see common/effects.py)
    commit all writes, or none of them
    perform the actions, none of which can block
    tell the observers

While a commit is under way events gather, so a batch grows by itself under load and is one when idle.

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
LOOK_AGAIN_AFTER = 64  # commits


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


def in_one_thread() -> RunBlocking:
    """Runs calls in worker threads, one at a time, never abandoned."""
    limiter = trio.CapacityLimiter(1)

    async def run(call: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=False)

    return run


def in_place_while_quick(
    in_thread: RunBlocking,
    clock: Callable[[], float],
    *,
    quick_s: float = QUICK_S,
    look_again_after: int = LOOK_AGAIN_AFTER,
) -> RunBlocking:
    """Runs calls in this very thread for as long as they take less than `quick_s` of `clock`: to hand one to another
    thread and be woken by it takes longer than a good disk does. After one that was slow, the next `look_again_after`
    go `in_thread`, so that on a slow disk the program reads and writes sockets meanwhile, and it is rare that nobody
    does."""
    in_thread_yet = 0

    async def run(call: Callable[[], None]) -> None:
        nonlocal in_thread_yet
        started = clock()
        if in_thread_yet:
            in_thread_yet -= 1
            await in_thread(call)
        else:
            call()
        if clock() - started > quick_s:
            in_thread_yet = look_again_after

    return run


class Driver:
    """Runs one machine."""

    def __init__(
        self,
        machine: Machine,
        store: Commits,
        *,
        observers: Sequence[Observer] = (),
        run_blocking: RunBlocking,
        wall: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._store = store
        self._performers: dict[type, Callable[[Any], None]] = {}
        self._performed: Callable[[], None] = lambda: None
        self._observers = list(observers)
        self._run_blocking = run_blocking
        self._wall = wall
        self._events: deque[object] = deque()
        self._arrived = trio.Event()
        self._next_room_check = 0.0
        self._gathers_until = -math.inf
        self.exit_status: int | None = None

    def post(self, event: object) -> None:
        """Tells the machine something; never blocks. From the driver's own thread."""
        self._events.append(event)
        self._arrived.set()

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
            await self._wait()
            await self._step()
        return self.exit_status

    async def _wait(self) -> None:
        deadline = self._machine.next_deadline()
        limit = self._next_room_check if deadline is None else min(deadline, self._next_room_check)
        with trio.CancelScope(deadline=limit):
            if not self._events:
                self._arrived = trio.Event()  # what the last one has announced is taken in already
                await self._arrived.wait()
        if trio.current_time() < self._gathers_until:
            await trio.sleep_until(self._gathers_until)

    async def _step(self) -> None:
        now = trio.current_time()
        self._watch_room(now)
        events = tuple(self._events)
        self._events.clear()
        effects = self._machine.handle(events, now)
        if effects.at_once:
            for action in effects.at_once:
                self._performers[type(action)](action)
            self._performed()
        started = trio.current_time()
        if effects.writes:
            await self._commit(effects.writes)
        self._machine.committed()
        commit_s = trio.current_time() - started
        for action in effects.actions:
            if isinstance(action, Exit):
                self.exit_status = action.status
            elif not isinstance(action, Note):
                self._performers[type(action)](action)
        self._performed()
        self._gathers_until = now + effects.gather_s
        step = Step(events, effects, commit_s, now)
        for observer in self._observers:
            observer(step)

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
