"""The spawner: the process that starts a node's jobs, and that kills them when the node is gone.

    python -m node.executors.spawner FD TALLY SETUP    FD is one end of a socket pair, TALLY a descriptor of the memory
                                                       of `line.Tally`, SETUP is a `wire.Setup` in JSON

Rules: one thread, one loop, no trio. It is the parent of all jobs and alone touches them. When the socket ends, be
it because the node has closed it or because the node was killed, every process group is killed at once and the
spawner exits. It ignores the signals that stop a node: the node decides. While it lives it holds a lock beside the
scratch root, so that the next boot can wait for the end of the killing.
"""

import contextlib
import fcntl
import functools
import gc
import operator
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from common.limits import KIB
from common.model import Outcome
from node.executors import Begun, Kill, Over, Peek, Printed, Returned, Start, TakeBack
from node.executors.calls import KINDS, Call
from node.executors.commands import Command, Commands
from node.executors.fences import be_taken_first
from node.executors.guard import Guard
from node.executors.leftovers import lock_path
from node.executors.line import Line, Tally
from node.executors.loop import Channel, Loop
from node.executors.processes import Family
from node.executors.scratch import Scratch
from node.executors.sessions import kill_sessions
from node.executors.surroundings import MARK, Refused, base_environment, enter_directory, mark_of
from node.executors.wire import Frames, Setup, news_frames, orders_of
from node.executors.workers import Workers

PEEK_BYTES_MAX: Final = 256 * KIB  # of each stream in one answer: who follows a job asks again
NEWS_WAIT_S: Final = 0.01  # a beginning waits for so long, within which a short job has ended: half the news; an end
# waits so long at most, while there is enough to begin: the node's step for many is hardly longer than for one
STALL_S: Final = 0.05  # what is in line and does not move for so long goes back
WAIT_S_MAX: Final = 0.2  # and so does what has waited for so long, although it moves
TRY_AGAIN_S: Final = 0.002  # while a worker has still to take up its first call, it can be asked for no other
NAP_S: Final = 0.0005  # while every worker has enough to do: what comes meanwhile is dealt with at once
SWEEP_S: Final = 1.0  # a directory that nobody has needed for so long is removed
_GIVEN: Final = operator.attrgetter("given")
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Spawner:
    """Takes orders, keeps what runs, and collects the news for the node."""

    def __init__(self, node: socket.socket, tally: Tally, setup: Setup) -> None:
        mark = mark_of(setup.owner, setup.scratch_root)
        self._environment = base_environment(os.environ, mark)
        os.environ["PATH"] = self._environment["PATH"]
        loop = self._loop = Loop()
        self._family = Family(loop)
        self._scratch = Scratch(Path(setup.scratch_root))
        guard = Guard(loop, self._family)
        self._commands = Commands(loop, self._family, guard, setup.output_bytes_max)
        calls = loop, self._family, guard, self._scratch, self._environment, setup
        self._workers = Workers(*calls, self._back, lambda: self._line.is_full)
        self._is_sweeping = False
        self._line = Line(setup.slots, tally)
        self._running: dict[tuple[str, int], Command | Call] = {}
        self._commands_running = 0
        self._watches_line = self._will_report = False
        self._begun: dict[tuple[str, int], tuple[float, Begun]] = {}  # with its time; the oldest first
        self._returned: list[Returned] = []
        self._wanted_back: list[TakeBack] = []  # of calls that could not be had back yet
        self._printed: list[Printed] = []
        self._over: list[Over] = []
        self._frames = Frames()
        self._node = Channel(loop, node, self._take, self._node_gone)
        self._node_is_there = True

    def run(self) -> None:
        """Until the node is gone; then nothing that was started here is left."""
        try:
            self._report()  # an empty one: up, and holding the lock
            while self._node_is_there:
                self._loop.turn(wait=not self._scratch.untidy)
                self._advance()
                if self._scratch.untidy or self._scratch.lost:
                    self._tidy()
                calls_are_plenty = not self._commands_running and self._workers.are_busy_for_long
                if self._printed or self._returned or (self._over and not calls_are_plenty and not self._line.is_long):
                    self._report()
                elif self._over:
                    self._report_soon()
                if calls_are_plenty and self._line.is_full:
                    time.sleep(NAP_S)
        finally:
            kill_sessions(self._family.kill_all())

    def _tidy(self) -> None:
        self._scratch.tidy()
        for error in self._scratch.lost:
            complain(f"cannot remove what a job has left: {error}; the next start of the node tries again")
        self._scratch.lost.clear()

    def _node_gone(self) -> None:
        self._node_is_there = False

    # --- orders ---------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            orders = orders_of(frame)
            now = time.monotonic()
            for start in orders.starts:
                self._line.add(start, now)
            self._advance()
            self._take_back(orders.back)
            self._kill(orders.kills)
            self._peek(orders.peeks)

    def _advance(self) -> None:
        """Begin what there is room for; and where a worker can be given a call before it has ended another, do."""
        if not self._line:
            return
        now = time.monotonic()
        while (start := self._line.next(now)) is not None:
            self._start(start)
        self._give_ahead(now)
        if self._line and not self._watches_line:
            self._watches_line = True
            self._loop.after(STALL_S, self._return_stalled)

    def _return_stalled(self) -> None:
        """Somebody long is in front, or many are longer than those before them: others may run sooner elsewhere, or are
        more urgent than what is here."""
        self._watches_line = False
        now = time.monotonic()
        if now - self._line.moved_at >= STALL_S or self._line.waits_s(now) >= WAIT_S_MAX:
            self._returned += [Returned(start.ticket, start.attempt) for start in self._line.clear()]

    def _start(self, start: Start) -> None:
        try:
            if start.kind in KINDS:
                self._start_call(start)
            else:
                self._start_command(start)
        except Refused as refused:
            self._ended(start, None, refused.outcome, refused.stderr, True)

    def _start_command(self, start: Start) -> None:
        lent = None
        try:
            lent = enter_directory(start, self._scratch)
            env = {**self._environment, **dict(start.env), MARK: self._environment[MARK]}
            command = self._commands.begin(start, env, functools.partial(self._ended, start, lent))
        except Refused:
            self._give_back(lent, unused=True)
            raise
        finally:
            os.chdir("/")  # or a file system could not be unmounted for our sake
        self._running[start.ticket, start.attempt] = command
        self._commands_running += 1
        self._has_begun(start, command)

    def _start_call(self, start: Start) -> None:
        if start.dir is not None:
            enter_directory(start, self._scratch)
            os.chdir("/")
        self._workers.begin(Call(start, self))

    def _give_ahead(self, now: float) -> None:
        """To workers that run another call, each time to the one that has the fewest."""
        able = self._workers.able()
        while able and (start := self._line.first) is not None and self._workers.may_go_ahead(start):
            worker = able[0] if len(able) == 1 else min(able, key=_GIVEN)
            self._line.count_first()  # before anybody can begin it
            try:
                is_given = worker.give_ahead(Call(start, self, is_ahead=True))
            except Refused:
                return  # it is refused when its turn has come
            if not is_given:
                return
            self._line.take(now)
            if not worker.has_room:
                able.remove(worker)

    def took(self, call: Call) -> None:
        """A worker has taken up this call. One that was given ahead has the slot of the call before it."""
        if call.is_ahead:
            self._line.occupy(call.start)
        self._running[call.id] = call

    def grew(self, call: Call) -> None:
        """It goes on, so it is worth telling of."""
        self._has_begun(call.start, call)

    def ended(self, call: Call, outcome: Outcome, output: bytes) -> None:
        """This call is over."""
        self._running.pop(call.id, None)
        self._is_over(call.start, outcome, output)

    def _back(self, calls: Sequence[Call]) -> None:
        """These were given ahead."""
        self._line.put_back([call.start for call in calls], time.monotonic())

    def _has_begun(self, start: Start, running: Command | Call) -> None:
        self._report_soon()
        id = start.ticket, start.attempt
        self._begun[id] = time.monotonic(), Begun(*id, running.pid)

    def _take_back(self, back: Sequence[TakeBack]) -> None:
        if not back:
            return
        self._workers.take_back()
        for order in back:
            id = order.ticket, order.attempt
            if self._line.remove(id):
                self._returned.append(Returned(*id))
            elif self._workers.hold_ahead(id):
                if not self._wanted_back:
                    self._loop.after(TRY_AGAIN_S, self._take_back_again)
                self._wanted_back.append(order)

    def _take_back_again(self) -> None:
        back, self._wanted_back = self._wanted_back, []
        self._take_back(back)

    def _kill(self, kills: Sequence[Kill]) -> None:
        for kill in kills:
            running = self._running.get((kill.ticket, kill.attempt))
            if running is not None:
                running.signal(kill.signal)

    def _peek(self, peeks: Sequence[Peek]) -> None:
        """Answer in order: who is told that an attempt does not run here has heard before how it ended."""
        for peek in peeks:
            running = self._running.get((peek.ticket, peek.attempt))
            if running is not None:
                kept = running.peek(peek.stdout_at, peek.stderr_at, PEEK_BYTES_MAX)
                self._printed.append(Printed(peek.query_id, True, *kept))
            else:
                if self._over:
                    self._report()
                self._printed.append(Printed(peek.query_id, False))

    # --- news -----------------------------------------------------------------------------------------------------

    def _ended(self, start: Start, lent: str | None, outcome: Outcome, output: bytes, unused: bool) -> None:
        if self._running.pop((start.ticket, start.attempt), None) is not None:
            self._commands_running -= 1
        self._give_back(lent, unused=unused)
        self._is_over(start, outcome, output)

    def _is_over(self, start: Start, outcome: Outcome, output: bytes) -> None:
        self._line.free(start)
        if self._begun:  # one that is over at once need not be known to have begun
            self._begun.pop((start.ticket, start.attempt), None)
        self._over.append(Over(start.ticket, start.attempt, outcome, output))

    def _give_back(self, lent: str | None, *, unused: bool) -> None:
        if lent is not None:
            self._scratch.give_back(lent, unused=unused)
            if not self._is_sweeping:
                self._is_sweeping = True
                self._loop.after(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._is_sweeping = self._scratch.sweep()
        if self._is_sweeping:
            self._loop.after(SWEEP_S, self._sweep)

    def _report_soon(self) -> None:
        if not self._will_report:
            self._will_report = True
            self._loop.after(NEWS_WAIT_S - self._oldest_waits_s(), self._report_now)

    def _report_now(self) -> None:
        self._will_report = False
        if self._over or self._oldest_waits_s() >= NEWS_WAIT_S:
            self._report()
        elif self._begun:
            self._report_soon()

    def _oldest_waits_s(self) -> float:
        """How long ago it has begun, of what is not yet known to have."""
        return time.monotonic() - next(iter(self._begun.values()))[0] if self._begun else 0.0

    def _report(self) -> None:
        begun = self._grown()
        returned, self._returned = self._returned, []
        printed, self._printed = self._printed, []
        over, self._over = self._over, []
        for frame in news_frames(begun, returned, printed, over):
            self._node.send(frame)

    def _grown(self) -> list[Begun]:
        """What has begun and was not over at once. The younger go on waiting: their own end may be near."""
        grown = []
        while self._oldest_waits_s() >= NEWS_WAIT_S:
            _, begun = self._begun.pop(next(iter(self._begun)))
            grown.append(begun)
        if self._begun:
            self._report_soon()
        return grown


def hold_lock(path: Path) -> int:
    """Wait until no other spawner of this data directory lives; the lock is held until we exit."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def complain(sentence: str) -> None:
    """To the node's standard error, if anybody still reads it."""
    with contextlib.suppress(OSError):
        os.write(2, f"jobyard spawner: {sentence}\n".encode(errors="backslashreplace"))


def main() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    tally = Tally(int(sys.argv[2]))
    os.set_inheritable(tally.fd, False)
    setup = msgspec.json.decode(sys.argv[3], type=Setup)
    os.chdir("/")
    be_taken_first()
    hold_lock(lock_path(setup.scratch_root))
    spawner = Spawner(socket.socket(fileno=fd), tally, setup)
    gc.freeze()  # what is there now stays: the collector need not look at it again for every few jobs
    spawner.run()


if __name__ == "__main__":
    main()
