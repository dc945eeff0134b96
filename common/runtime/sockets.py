"""The socket beneath a stream: whose it is, whether anybody is still there, and an end at which nothing is lost.

A socket that is closed with input unread is reset, and what was sent last may be lost to the other side. So we say
that we send no more, and read on until it has closed too; whoever closes bounds the time. TLS closes the stream
beneath it by itself, which is why `Settling` is a stream around the socket: it does that whoever closes it.
"""

import os
import socket
from typing import Final

import attrs
import trio

GONE_CHECK_S: Final = 15.0  # how often it is seen whether a client that sends no more is there at all
_KEEPALIVES_LOST_MAX: Final = 4
_READ_BYTES: Final = 64 * 1024


@attrs.define(eq=False)
class Settling(trio.abc.Stream):
    """Around a stream that can close one side of itself."""

    transport_stream: trio.abc.HalfCloseableStream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.transport_stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Cancelled, it closes at once."""
        try:
            await _settle(self.transport_stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is over already
        finally:
            await trio.aclose_forcefully(self.transport_stream)


async def part(stream: trio.abc.Stream) -> None:
    """Says that we send no more, and lets the other side read the last of it. (TLS has no half-close: its end is
    said, and what is beneath it settles.)"""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await _settle(stream)
    else:
        await stream.aclose()


async def _settle(stream: trio.abc.HalfCloseableStream) -> None:
    await stream.send_eof()
    while await stream.receive_some(_READ_BYTES):
        pass


def socket_of(stream: trio.abc.Stream) -> trio.SocketStream | None:
    """The socket at the bottom; None where there is none, in tests."""
    while isinstance(stream, trio.SSLStream | Settling):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None


def send_what_fits(stream: trio.abc.Stream, data: bytes) -> int:
    """How many bytes the kernel has taken at once; none where the stream is more than a plain socket, or is broken,
    which whoever reads from it is told. Not while somebody else is sending on it."""
    if not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


async def receive_some(stream: trio.abc.Stream, bytes_max: int) -> bytes | bytearray:
    """As the stream's own; of a plain socket without asking the kernel for what is mostly not there yet."""
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(bytes_max)
    while True:
        if stream.socket.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(stream.socket)
        try:
            return os.read(stream.socket.fileno(), bytes_max)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error


def peer_of(stream: trio.abc.Stream) -> str:
    """The address of whoever dialled; it cannot be had any more where the connection was reset."""
    plain = socket_of(stream)
    try:
        return str(plain.socket.getpeername()[0]) if plain is not None else "?"
    except OSError:
        return "?"


def watch_for_reset(stream: trio.abc.Stream) -> None:
    """Has the kernel find out whether the other end is still there, although nothing is sent."""
    if (plain := socket_of(stream)) is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(GONE_CHECK_S))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(GONE_CHECK_S))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVES_LOST_MAX)


def is_reset(stream: trio.abc.Stream) -> bool:
    """Whether the other end is known to be gone, and not only to send no more."""
    plain = socket_of(stream)
    return plain is not None and plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
