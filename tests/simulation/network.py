"""The network: connections between hosts, each a pair of streams, as TCP behaves to those who use it.

- What is sent arrives in order, later, often in pieces. A sender waits when BUFFER bytes of his are unread.
- A cut is silence: nothing arrives, nobody is told. What was sent stays on its way; when the cut is healed it arrives,
  or the connection turns out to be reset. A cut can be of one direction; then neither new connections nor word that
  there is room again come through.
- A process that is killed leaves its kernel behind, which ends its connections: after what was sent already, or with
  a reset that destroys it. A host without power says nothing; when it is up again it knows nothing of a connection
  and resets it as soon as something arrives.
- To connect to a host without a listener is refused; to one that cannot be reached it hangs, or a router says so.

Hosts have the names of their processes and clients. All that is left to chance comes from one generator.
"""

import errno
import math
import operator
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import attrs
import trio

from tests.simulation.agenda import Agenda

CONNECT_S: Final = 5.0  # after that a connection that hangs has failed
SYN_AGAIN_S: Final = 1.0  # doubles, as kernels do
BACKLOG_MAX: Final = 128  # connections that nobody has accepted yet
RESET_AFTER_CUT: Final = 0.3  # how often a connection does not survive a cut
UNREACHABLE: Final = 0.3  # how often a router says so


class Watching(Protocol):
    """What the network asks of the world."""

    def dies_sending(self, host: str) -> bool:
        """Passes a numbered point; true where it is the one at which the process of this host is to die."""
        ...

    def kill(self, host: str) -> None: ...

    def note(self, data: bytes) -> None:
        """Told of all that is sent, and between whom."""


@attrs.frozen
class Manners:
    """How a network behaves when nothing is wrong."""

    delay_s: tuple[float, float] = (0.0005, 0.005)
    split: float = 0.2  # how often a write arrives in pieces
    buffer_bytes: int = 65536


class Network:
    """Hosts and what is between them."""

    def __init__(self, agenda: Agenda, chance: random.Random, manners: Manners, world: Watching) -> None:
        self.agenda = agenda
        self.chance = chance
        self.manners = manners
        self.world = world
        self._listeners: dict[str, Listener] = {}
        self._off: set[str] = set()  # hosts without power
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._isolated: Counter[str] = Counter()
        self._cut_off = False  # whether there is any cut at all
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._connections: list[tuple[End, End]] = []

    def delay(self) -> float:
        return self.chance.uniform(*self.manners.delay_s)

    # --- faults --------------------------------------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """From now on nothing comes from `a` to `b`, nor back unless it is one way. Cuts add up."""
        self._cuts[a, b] += 1
        if not one_way:
            self._cuts[b, a] += 1
        self._cut_off = True

    def heal(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Undoes one such cut."""
        self._cuts[a, b] -= 1
        if not one_way:
            self._cuts[b, a] -= 1
        self._healed()

    def isolate(self, host: str) -> None:
        self._isolated[host] += 1
        self._cut_off = True

    def unite(self, host: str) -> None:
        """Undoes one `isolate`."""
        self._isolated[host] -= 1
        self._healed()

    def is_cut(self, source: str, target: str) -> bool:
        if not self._cut_off:
            return False
        return self._cuts[source, target] > 0 or self._isolated[source] > 0 or self._isolated[target] > 0

    def _healed(self) -> None:
        self._cut_off = any(self._cuts.values()) or any(self._isolated.values())
        whole = [pair for pair in self._held if not self.is_cut(*pair)]
        for one, other in self._living():
            struck = (one.host, other.host) in whole or (other.host, one.host) in whole
            if struck and self.chance.random() < RESET_AFTER_CUT:
                one.reset()
                other.reset()
        for pair in whole:
            delay_s = self.delay()
            for call in self._held.pop(pair):
                self.agenda.after(delay_s, call)

    def hold(self, source: str, target: str, call: Callable[[], None]) -> None:
        """Has this happen when what is between them is whole again."""
        self._held.setdefault((source, target), []).append(call)

    def reset(self, a: str, b: str) -> int:
        """Resets every connection between them at both ends; returns how many."""
        struck = [pair for pair in self._living() if {end.host for end in pair} == {a, b}]
        for one, other in struck:
            one.reset()
            other.reset()
        return len(struck)

    # --- hosts ---------------------------------------------------------------------------------------------------

    def listen(self, host: str) -> "Listener":
        self._listeners[host] = Listener(self, host)
        return self._listeners[host]

    def deaf(self, listener: "Listener") -> None:
        if self._listeners.get(listener.host) is listener:
            del self._listeners[listener.host]

    def on(self, host: str) -> None:
        """A process starts here: there is power, and what a cut of it left behind will be reset."""
        self._off.discard(host)
        for end in self._ends_at(host):
            end.power_is_back()

    def died(self, host: str, *, power_cut: bool) -> None:
        """The process of this host is gone, or the whole host."""
        if (listener := self._listeners.get(host)) is not None:
            self.deaf(listener)
        if power_cut:
            self._off.add(host)
        for end in self._ends_at(host):
            end.vanish() if power_cut else end.abandon()

    def _ends_at(self, host: str) -> list["End"]:
        return [end for pair in self._living() for end in pair if end.host == host]

    def _living(self) -> list[tuple["End", "End"]]:
        """The connections of which at least one end is not over."""
        self._connections = [pair for pair in self._connections if not all(end.is_over for end in pair)]
        return self._connections

    # --- connecting ----------------------------------------------------------------------------------------------

    async def connect(self, source: str, target: str) -> "End":
        """Raises OSError as a kernel does, also after CONNECT_S of silence."""
        await trio.sleep(self.delay())
        if self._is_silent(source, target):
            await self._wait_for_an_answer(source, target)
        listener = self._listeners.get(target)
        if listener is None or len(listener.waiting) >= BACKLOG_MAX:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{target} refuses the connection")
        ours, theirs = End(self, source), End(self, target)
        ours.join(theirs)
        self._connections.append((ours, theirs))
        listener.offer(theirs)
        return ours

    def _is_silent(self, source: str, target: str) -> bool:
        return target in self._off or self.is_cut(source, target) or self.is_cut(target, source)

    async def _wait_for_an_answer(self, source: str, target: str) -> None:
        if target not in self._off and self.chance.random() < UNREACHABLE:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        again_s = SYN_AGAIN_S
        with trio.move_on_after(CONNECT_S):
            while self._is_silent(source, target):
                await trio.sleep(again_s)
                again_s *= 2
            return
        raise TimeoutError(errno.ETIMEDOUT, f"{target} does not answer")


class Listener(trio.abc.Listener["End"]):
    """Where a process takes connections. The kernel has accepted them already; while the process is stopped they
    wait, and so do those who opened them."""

    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self.host = host
        self.waiting: deque[End] = deque()
        self._acceptor = Waiter()

    def offer(self, end: "End") -> None:
        self.waiting.append(end)
        self._acceptor.wake()

    async def accept(self) -> "End":
        await trio.lowlevel.checkpoint()
        while not self.waiting:
            await self._acceptor.wait()
        return self.waiting.popleft()

    async def aclose(self) -> None:
        self._network.deaf(self)
        while self.waiting:
            self.waiting.popleft().abandon()
        await trio.lowlevel.checkpoint()


class Waiter:
    """One task that waits until it is woken."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    def wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task is waiting for this already")
        self._task = trio.lowlevel.current_task()

        def cancelled(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(cancelled)


class _Mark:
    """What travels behind the last byte."""


END: Final = _Mark()  # no more will be sent
RESET: Final = _Mark()  # the connection is no more, and what was not read yet is lost


class Flow:
    """One direction of a connection: what is on its way, and what has arrived and is not read."""

    __slots__ = ("_in_flight", "_last_at", "_network", "arrived", "has_ended", "load_bytes", "reader", "target",
                 "writer")  # fmt: skip

    def __init__(self, network: Network, target: "End") -> None:
        self._network = network
        self.target = target
        self._in_flight: deque[bytes | _Mark] = deque()
        self._last_at = -math.inf
        self.arrived = bytearray()
        self.has_ended = False
        self.load_bytes = 0  # on its way or unread
        self.reader = Waiter()
        self.writer = Waiter()

    def send(self, data: bytes) -> None:
        network = self._network
        network.world.note(f"{self.target.peer.host}>{self.target.host} ".encode() + data)
        self.load_bytes += len(data)
        if len(data) > 1 and network.chance.random() < network.manners.split:
            place = network.chance.randrange(1, len(data))
            self.put(data[:place])
            data = data[place:]
        self.put(data)

    def put(self, piece: bytes | _Mark) -> None:
        self._in_flight.append(piece)
        self._last_at = max(self._last_at, trio.current_time() + self._network.delay())
        self._network.agenda.at(self._last_at, self._arrive)

    def room_bytes(self) -> int:
        return self._network.manners.buffer_bytes - self.load_bytes

    def lose(self) -> None:
        """What is on its way will not arrive."""
        self._in_flight.clear()

    def clear(self) -> None:
        self._in_flight.clear()
        self.arrived.clear()
        self.reader.wake()
        self.writer.wake()

    def take(self, bytes_max: int | None) -> bytes:
        taken = bytes(self.arrived[:bytes_max])
        del self.arrived[: len(taken)]
        self._tell_of_room(len(taken))
        return taken

    def _tell_of_room(self, size_bytes: int) -> None:
        """Word of it goes the other way, and can be cut off as everything else."""
        source, target = self.target.peer.host, self.target.host
        if self._network.is_cut(target, source):
            self._network.hold(target, source, lambda: self._tell_of_room(size_bytes))
            return
        self.load_bytes -= size_bytes
        self.writer.wake()

    def _arrive(self) -> None:
        source, target = self.target.peer.host, self.target.host
        if self._network.is_cut(source, target):
            self._network.hold(source, target, self._arrive)
        elif self._in_flight:
            self.target.arrive(self._in_flight.popleft())


class End(trio.abc.HalfCloseableStream):
    """One end of a connection.

    open ──► closed      by its process, or by the kernel when that was killed
      ├────► broken      reset
      └────► vanished    no power: silent, until it is back; then closed
    """

    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self.host = host
        self._state = "open"
        self._says_no_more = False
        self._sending = False
        self._missed_something = False  # while it was vanished
        self.peer: End
        self._incoming: Flow
        self._outgoing: Flow

    def join(self, peer: "End") -> None:
        there, back = Flow(self._network, peer), Flow(self._network, self)
        self.peer, self._outgoing, self._incoming = peer, there, back
        peer.peer, peer._outgoing, peer._incoming = self, back, there

    def __repr__(self) -> str:
        return f"<{self.host} to {self.peer.host}, {self._state}>"

    @property
    def is_over(self) -> bool:
        """Nobody will use this end again, and nobody at the other end needs to hear of it."""
        return self._state in ("closed", "broken")

    # --- for its process -----------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone_in_sending():
            await self._send_all(data)

    async def _send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sending()
        await trio.lowlevel.checkpoint()
        self._check_sending()
        rest = bytes(data)
        if self._network.world.dies_sending(self.host):
            self._outgoing.send(rest[: self._network.chance.randint(0, len(rest))])
            self._network.world.kill(self.host)
            self._check_sending()
        while rest:
            room_bytes = self._outgoing.room_bytes()
            if room_bytes > 0:
                self._outgoing.send(rest[:room_bytes])
                rest = rest[room_bytes:]
            else:
                await self._outgoing.writer.wait()
                self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone_in_sending():
            self._check_sending()
            await trio.lowlevel.checkpoint()
            while self._state == "open" and self._outgoing.room_bytes() <= 0:
                await self._outgoing.writer.wait()
            self._check_sending()

    async def send_eof(self) -> None:
        with self._alone_in_sending():
            self._check()
            if not self._says_no_more:
                self._says_no_more = True
                self._outgoing.put(END)
            await trio.lowlevel.checkpoint()

    @contextmanager
    def _alone_in_sending(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this already")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes is {max_bytes}; allowed is 1 or more")
        self._check()
        incoming = self._incoming
        if incoming.reader.is_busy:
            raise trio.BusyResourceError("another task is reading from this already")
        if incoming.arrived or incoming.has_ended:
            await trio.lowlevel.checkpoint()
            self._check()
        while not incoming.arrived and not incoming.has_ended:
            await incoming.reader.wait()
            self._check()
        return incoming.take(max_bytes)

    async def aclose(self) -> None:
        if self._state == "open":
            self._end(RESET if self._incoming.arrived else END)
        elif self._state == "broken":
            self._state = "closed"
        await trio.lowlevel.checkpoint()

    def _check_sending(self) -> None:
        self._check()
        if self._says_no_more:
            raise trio.ClosedResourceError("this end has said that it sends no more")

    def _check(self) -> None:
        if self._state == "broken":
            raise trio.BrokenResourceError("the connection was reset")
        if self._state != "open":
            raise trio.ClosedResourceError("this end was closed")

    # --- for the network -----------------------------------------------------------------------------------------

    def arrive(self, piece: bytes | _Mark) -> None:
        if self._state == "vanished":
            self._missed_something = True
        elif piece is RESET:
            self.reset()
        elif self._state == "open":
            if isinstance(piece, _Mark):
                self._incoming.has_ended = True
            else:
                self._incoming.arrived += piece
            self._incoming.reader.wake()
        elif isinstance(piece, bytes) and piece:
            self._outgoing.put(RESET)  # what arrives where nobody is

    def reset(self) -> None:
        if self._state == "open":
            self._leave("broken")
            self._incoming.clear()
            self._outgoing.clear()

    def abandon(self) -> None:
        """Its process was killed; the kernel says so to the other end."""
        if self._state == "open":
            if self._incoming.arrived or self._network.chance.random() < 0.5:
                self._outgoing.lose()
                self._end(RESET)
            else:
                self._end(END)

    def _end(self, mark: _Mark) -> None:
        self._leave("closed")
        if not self._says_no_more or mark is RESET:
            self._outgoing.put(mark)

    def vanish(self) -> None:
        if self._state == "open":
            self._leave("vanished")

    def power_is_back(self) -> None:
        if self._state == "vanished":
            self._state = "closed"
            if self._missed_something:
                self._outgoing.put(RESET)

    def _leave(self, state: str) -> None:
        self._state = state
        self._incoming.reader.wake()
        self._outgoing.writer.wake()
