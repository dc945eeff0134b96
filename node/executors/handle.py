"""`Executors`: the node's handle on its spawner.

Orders go in without waiting (`submit`), news come out by a callback in trio's thread. One socket and two tasks serve
any number of attempts. Should the spawner die, then what it had started is killed, every attempt that it may have
begun is reported as crashed, those that it surely has not are returned, and another spawner takes its place; orders it
had not been given wait for the new one.

A spawner that lives and answers nothing (stopped, or stuck in the kernel) would keep every attempt for ever. So it is
asked now and then, and killed when it has left that unanswered for a minute.
"""

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final

import attrs
import msgspec
import structlog
import trio

from common.model import Outcome, Verdict
from node.executors import NO_LIMITS, Limits, Order, Over, Peek, Printed, Returned, Start, Word
from node.executors.leftovers import end_leftovers, now_ticks
from node.executors.line import Tally
from node.executors.wire import Frames, News, Setup, news_of, order_frames

UP_WITHIN_S: Final = 15.0  # the first spawner: the start of Python, and the end of an older spawner
DOWN_WITHIN_S: Final = 5.0  # what a spawner may take to kill everything and exit
RESTART_PERIOD_S: Final = 1.0  # one that dies at once is not started again in a hot loop
PROBE_PERIOD_S: Final = 5.0
PROBES_UNANSWERED_MAX: Final = 12  # in a row. Counted, not timed: who was paused himself has not been waiting
READ_BYTES: Final = 64 * 1024
_PROBE: Final = Peek(-1, "", 0)  # of nothing; answered like any other

_log = structlog.get_logger()
_PACKAGES = Path(__file__).parents[2]  # where `node` and `common` are


@attrs.define
class _Given:
    """An attempt that the spawner has, the how many-th; `pid` and `heard_ticks` are set when it has begun."""

    number: int
    pid: int = 0
    heard_ticks: int = 0


class Executors:
    """Runs attempts. `async with executors.running()`, or `run` in a nursery and `close` at the end."""

    def __init__(
        self,
        *,
        scratch_root: Path,
        owner: str,
        output_bytes_max: int,
        report: Callable[[Sequence[Word]], None],
        slots: int = sys.maxsize,
        python: str = "",
        pythonpath: str = "",
        most: Limits = NO_LIMITS,
    ) -> None:
        """`owner` marks our processes and is unique to the data directory; `python` "" is the node's interpreter;
        `most` is what the limits of an attempt are when it has none of its own; what is started beyond `slots` waits.

        `report` is called in trio's thread with each batch of news, and must not block.
        """
        root = os.path.realpath(scratch_root)
        self._setup = Setup(root, owner, output_bytes_max, python or sys.executable, pythonpath, most, slots)
        self._report = report
        self._node_end: socket.socket | None = None  # while there is a spawner
        self._orders: list[Order] = []  # while there is none
        self._unsent: deque[memoryview] = deque()
        self._blocked = trio.Event()
        self._given: dict[tuple[str, int], _Given] = {}
        self._given_total = 0  # to this spawner
        self._tally: Tally | None = None  # of this spawner
        self._asked: set[int] = set()  # the peeks that the spawner has not yet answered
        self._scope = trio.CancelScope()
        self._ended: trio.Event | None = None
        self.spawner_pid: int | None = None

    def submit(self, batch: Sequence[Order]) -> None:
        """Have these orders carried out; never waits. Each Start is answered by one Over, mostly after a Begun, or by
        one Returned; each Peek by one Printed."""
        if self._node_end is None:
            self._orders += batch
            return
        for order in batch:
            if isinstance(order, Start):
                self._given_total += 1
                self._given[order.ticket, order.attempt] = _Given(self._given_total)
            elif isinstance(order, Peek):
                self._asked.add(order.query_id)
        for frame in order_frames(batch):
            self._give(frame)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Executors"]:
        """Runs for the time of the block, in a nursery of its own."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            try:
                yield self
            finally:
                await self.close()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a spawner until `close`; started when the first one is up. Raises RuntimeError if it never is."""
        self._ended = trio.Event()
        try:
            with self._scope:
                await self._first_spawner(task_status)
                while True:
                    await self._mourn()
                    next_at = trio.current_time() + RESTART_PERIOD_S
                    await self._live_with_a_spawner(lambda: None)
                    await trio.sleep_until(next_at)
        finally:
            if self._tally is not None:
                self._close_tally()
            self._ended.set()

    async def close(self) -> None:
        """End the spawner, which kills what still runs; nothing more is reported."""
        self._scope.cancel()
        if self._ended is not None:
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    # --- the life of a spawner ------------------------------------------------------------------------------------

    async def _first_spawner(self, task_status: trio.TaskStatus[None]) -> None:
        up = False

        def is_up() -> None:
            nonlocal up
            up = True
            coming_up.deadline = float("inf")
            task_status.started()

        with trio.move_on_after(UP_WITHIN_S) as coming_up:
            await self._live_with_a_spawner(is_up)
        if not up:
            raise RuntimeError(f"the spawner for {self._setup.scratch_root} did not come up; its own words are above")

    async def _live_with_a_spawner(self, is_up: Callable[[], None]) -> None:
        """Start one, and exchange orders and news with it until it is dead."""
        self._tally, self._given_total = Tally.made(), 0
        ours, theirs = socket.socketpair()
        with closing(trio.socket.from_stdlib_socket(ours)) as node_end:
            stream = trio.SocketStream(node_end)
            with theirs:
                process = await self._start(theirs.fileno(), self._tally.fd)
            try:
                self._node_end = ours
                waiting, self._orders = self._orders, []
                self.submit(waiting)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, stream)
                    nursery.start_soon(self._probe, process)
                    await self._receive(stream, is_up)
                    nursery.cancel_scope.cancel()
            finally:
                self._node_end = None
                self._unsent.clear()
                node_end.close()  # what a living spawner takes as the order to kill everything and exit
                await _see_off(process)

    async def _start(self, fd: int, tally: int) -> trio.Process:
        setup = msgspec.json.encode(self._setup).decode()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "node.executors.spawner", str(fd), str(tally), setup],
            pass_fds=[fd, tally],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # what Ctrl-C sends goes to the foreground group
            env=_environment(),
        )
        self.spawner_pid = process.pid
        return process

    async def _mourn(self) -> None:
        """A spawner has died: kill what it has left, and report what was lost with it."""
        begun = {given.pid: given.heard_ticks for given in self._given.values() if given.pid}
        root = Path(self._setup.scratch_root)
        await trio.to_thread.run_sync(end_leftovers, root, self._setup.owner, begun)
        begun_total = self._close_tally()
        lost, self._given = self._given, {}
        asked, self._asked = self._asked, set()
        asked.discard(_PROBE.query_id)
        if lost or asked:
            returned = [Returned(*id) for id, given in lost.items() if given.number > begun_total]
            crashed = [Over(*id, Outcome(Verdict.CRASHED)) for id, given in lost.items() if given.number <= begun_total]
            self._report([*returned, *crashed, *(Printed(query_id, running=False) for query_id in asked)])

    def _close_tally(self) -> int:
        """How many of those that it was given the spawner has taken out of its line."""
        tally, self._tally = self._tally, None
        assert tally is not None, "a spawner that has lived had one"
        number = tally.number
        tally.close()
        return number

    # --- orders and news ------------------------------------------------------------------------------------------

    def _give(self, frame: bytes) -> None:
        """Send at once what the socket takes, which saves a task switch for each batch; leave the rest to `_send`."""
        rest = memoryview(frame)
        if not self._unsent and self._node_end is not None:
            try:
                rest = rest[self._node_end.send(rest) :]
            except BlockingIOError:
                pass
            except ConnectionError:
                return  # it is dead, and the attempt is lost with it
        if rest:
            self._unsent.append(rest)
            self._blocked.set()

    async def _send(self, stream: trio.SocketStream) -> None:
        with _until_broken():
            while True:
                await self._blocked.wait()
                while self._unsent:
                    await stream.send_all(self._unsent[0])
                    self._unsent.popleft()
                self._blocked = trio.Event()

    async def _probe(self, process: trio.Process) -> None:
        unanswered = 0
        while unanswered < PROBES_UNANSWERED_MAX:
            await trio.sleep(PROBE_PERIOD_S)
            if _PROBE.query_id in self._asked:
                unanswered += 1
            else:
                unanswered = 0
                self.submit([_PROBE])
        _log.error("spawner.stuck", pid=process.pid, after_s=PROBE_PERIOD_S * PROBES_UNANSWERED_MAX)
        process.kill()  # and it is mourned like any other

    async def _receive(self, stream: trio.SocketStream, is_up: Callable[[], None]) -> None:
        frames = Frames()
        with _until_broken():
            while data := await stream.receive_some(READ_BYTES):
                for frame in frames.feed(data):
                    news = news_of(frame)
                    if news.begun or news.returned or news.printed or news.over:
                        self._hear(news)
                    else:
                        is_up()

    def _hear(self, news: News) -> None:
        ticks = now_ticks() if news.begun else 0
        for begun in news.begun:
            given = self._given[begun.ticket, begun.attempt]
            given.pid, given.heard_ticks = begun.pid, ticks
        for returned in news.returned:
            self._given.pop((returned.ticket, returned.attempt), None)
        for over in news.over:
            self._given.pop((over.ticket, over.attempt), None)
        printed = news.printed
        if printed:
            self._asked.difference_update(one.query_id for one in printed)
            printed = [one for one in printed if one.query_id != _PROBE.query_id]
        if news.begun or news.returned or printed or news.over:
            self._report([*news.begun, *news.returned, *printed, *news.over])


@contextmanager
def _until_broken() -> Iterator[None]:
    """The spawner's death shows at both ends of the stream; whoever reads it takes care."""
    try:
        yield
    except trio.BrokenResourceError:
        pass


def _environment() -> dict[str, str]:
    """The node's, without settings and secrets. The spawner must find the very packages that the node runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBYARD_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH")]))
    return environment


async def _see_off(process: trio.Process) -> None:
    """Wait for the end of a spawner whose socket is closed, for a time; then kill it."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(DOWN_WITHIN_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(DOWN_WITHIN_S):  # what is stuck in the kernel dies when that lets go of it
                await process.wait()
