"""The bytes of one connection, both ways, for somebody who is called back and never waits (a `Talk`).

    plain sockets ─── one Switchboard: one task and one epoll for all of them ───┐
                                                                                 ├──► received, sent, failed
    any other stream ─ two tasks each (TLS; connections within this process) ────┘

A plain socket costs no task switch for what it says: whatever is there is read in one round over all sockets that have
something, and what is to be said is written where it is decided, as far as the kernel takes it. So a thousand clients
that wait for their answers cost little more than one that asks a thousand times, and one that is silent costs nothing.

Rules: a wire carries one send at a time, and tells when it is done. It reads while it is told to listen, and notices
also while it is not that the other side is gone. What fails in it is told to its Talk and to nobody else.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio

from common.limits import READ_BYTES
from common.runtime.bell import Bell
from common.runtime.sockets import GONE_CHECK_S, is_reset

_READS_PER_ROUND: Final = 8  # of one socket: half a MiB, before the others have their turn
ROUND_S: Final = 0.01  # after which nothing more is read before everybody else in the program has had a turn
_GONE: Final = select.EPOLLHUP | select.EPOLLERR  # told whatever one asks for
_GONE_TEXT: Final = "the client is gone"


class Talk(Protocol):
    """Whoever speaks over a wire."""

    def received(self, data: bytes) -> None:
        """What one read has brought; nothing, where the other side sends no more."""

    def sent(self) -> None:
        """What `send` could not do at once is done."""

    def failed(self, error: Exception) -> None:
        """The wire is broken, and carries nothing any more."""

    async def live(self) -> None:
        """Returns when all is said."""


class Wire(Protocol):
    """One connection."""

    async def carry(self, talk: Talk) -> None:
        """Calls `talk` back for as long as it lives."""

    def send(self, data: bytes) -> bool:
        """Whether it is done at once; if not, `sent` tells when it is. Not again before that."""

    def listen(self, on: bool) -> None:
        """Whether to read on."""


class Switchboard:
    """The plain sockets of a port. Runs for as long as there may be any."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._wires: dict[int, SocketWire] = {}

    async def run(self) -> None:
        with self._open() as epoll:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                ends_at = trio.current_time() + ROUND_S
                for fd, events in epoll.poll(0):
                    wire = self._wires.get(fd)
                    if wire is not None:
                        wire.happened(events)
                    if trio.current_time() >= ends_at:
                        break  # the others are told of again, when everybody else has had a turn

    @contextmanager
    def _open(self) -> Iterator[select.epoll]:
        with select.epoll() as epoll:
            for fd, wire in self._wires.items():
                epoll.register(fd, wire.interest)
            self._epoll = epoll
            try:
                yield epoll
            finally:
                self._epoll = None

    def connect(self, wire: "SocketWire") -> None:
        self._wires[wire.fd] = wire
        if self._epoll is not None:
            self._epoll.register(wire.fd, wire.interest)

    def changed(self, wire: "SocketWire") -> None:
        if self._epoll is not None and wire.fd in self._wires:
            self._epoll.modify(wire.fd, wire.interest)

    def disconnect(self, wire: "SocketWire") -> None:
        """Before its socket is closed. Done twice it changes nothing."""
        if self._wires.pop(wire.fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(wire.fd)


class SocketWire:
    """Over a plain socket."""

    __slots__ = ("_board", "_talk", "_unsent", "fd", "interest")

    def __init__(self, board: Switchboard, stream: trio.SocketStream) -> None:
        self._board = board
        self.fd = stream.socket.fileno()
        self.interest = select.EPOLLIN
        self._talk: Talk | None = None
        self._unsent: memoryview | None = None

    async def carry(self, talk: Talk) -> None:
        self._talk = talk
        self._board.connect(self)
        try:
            await talk.live()
        finally:
            self._board.disconnect(self)
            self._talk = None

    def listen(self, on: bool) -> None:
        self._change(self.interest | select.EPOLLIN if on else self.interest & ~select.EPOLLIN)

    def send(self, data: bytes) -> bool:
        return self._write(memoryview(data))

    def happened(self, events: int) -> None:
        """For the switchboard: the socket can be read, written, or neither ever again."""
        if events & select.EPOLLOUT and self._unsent is not None and self._write(self._unsent):
            self._change(self.interest & ~select.EPOLLOUT)
            if self._talk is not None:
                self._talk.sent()
        if events & (select.EPOLLIN | _GONE):
            if self.interest & select.EPOLLIN:
                self._read()
            elif events & _GONE:
                self._fail(trio.BrokenResourceError(_GONE_TEXT))

    def _read(self) -> None:
        """What is there, but for a large body no more than its share of the round."""
        ends_at = trio.current_time() + ROUND_S
        for _ in range(_READS_PER_ROUND):
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error)
                return
            if self._talk is not None:
                self._talk.received(data)
            if len(data) < READ_BYTES or not self.interest & select.EPOLLIN or trio.current_time() >= ends_at:
                return

    def _write(self, data: memoryview) -> bool:
        try:
            count = os.write(self.fd, data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._fail(error)
            return False
        self._unsent = data[count:] if count < len(data) else None
        if self._unsent is not None:
            self._change(self.interest | select.EPOLLOUT)
        return self._unsent is None

    def _change(self, interest: int) -> None:
        if interest != self.interest:
            self.interest = interest
            self._board.changed(self)

    def _fail(self, error: Exception) -> None:
        talk = self._talk
        self._board.disconnect(self)
        if talk is not None:
            broken = trio.BrokenResourceError(_GONE_TEXT)
            broken.__cause__ = error
            talk.failed(broken)


class StreamWire:
    """Over any stream, with a task for each direction."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._unsent = b""
        self._to_send = Bell()
        self._listens = True
        self._turn = Bell()  # to listen again

    async def carry(self, talk: Talk) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, talk)
            nursery.start_soon(self._write, talk)
            await talk.live()
            nursery.cancel_scope.cancel()

    def listen(self, on: bool) -> None:
        self._listens = on
        if on:
            self._turn.ring()

    def send(self, data: bytes) -> bool:
        self._unsent = data
        self._to_send.ring()
        return False

    async def _read(self, talk: Talk) -> None:
        while True:
            if self._listens:
                talk.received(bytes(await self._stream.receive_some(READ_BYTES)))
                continue
            with trio.move_on_after(GONE_CHECK_S):
                await self._turn.wait()
            if is_reset(self._stream):  # nobody tells of it
                raise trio.BrokenResourceError(_GONE_TEXT)

    async def _write(self, talk: Talk) -> None:
        while True:
            await self._to_send.wait()
            await self._stream.send_all(self._unsent)
            self._unsent = b""
            talk.sent()


def wire_of(stream: trio.abc.Stream, board: Switchboard) -> Wire:
    """The way that suits this stream."""
    return SocketWire(board, stream) if isinstance(stream, trio.SocketStream) else StreamWire(stream)
