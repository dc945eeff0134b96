"""One socket to one node: bytes out, replies in. Every failure of it is an OSError, and then it is of no more use.

Rules: a Connection knows nothing of what is asked, and never dials again; a Dialler makes another when it is told to.
A Connection belongs to one task at a time.
"""

import select
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import trio

from jobyard import verbs
from jobyard.addresses import Address
from jobyard.connection import READ_BYTES, set_options
from jobyard.errors import TRY_NEXT, unreachable
from jobyard.protocol import Reply, ReplyParser
from jobyard.settings import FilePath, route_of, token_of, trust_of
from jobyard.tls import tls_failure


class Connection:
    """`timeout_s` is how long connecting may take, and how long a node may then be silent while it owes a reply.
    `stream` is `plain`, or TLS on it."""

    def __init__(self, address: Address, timeout_s: float, plain: trio.SocketStream, stream: trio.abc.Stream) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._socket = plain.socket
        self._stream = stream

    @classmethod
    async def dial(cls, address: Address, timeout_s: float, trust: ssl.SSLContext | None = None) -> Self:
        with _failing_as_os_error(timeout_s):
            plain = await trio.open_tcp_stream(address.host, address.port)
            set_options(plain.socket)
            stream = plain if trust is None else await _secured(plain, address.host, trust)
        return cls(address, timeout_s, plain, stream)

    async def request(self, data: bytes, patience_s: float = 0.0) -> Reply:
        """The reply to one request, which may take `patience_s` longer than others."""
        await self.send(data)
        return await self._next(self._timeout_s + patience_s)

    async def send(self, data: bytes) -> None:
        with _failing_as_os_error(self._timeout_s):
            await self._stream.send_all(data)

    async def replies(self) -> list[Reply]:
        """What has been answered, at least one reply."""
        replies = [await self._next(self._timeout_s), *self._replies]
        self._replies.clear()
        return replies

    async def follow(self) -> Reply:
        """The next reply of several to one request, however long it takes."""
        return await self._next(float("inf"))

    def is_stale(self) -> bool:
        """While nothing is owed nothing may come: whatever does is the end of the connection, or a farewell."""
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        return bool(self._replies or poller.poll(0))

    def close(self) -> None:
        self._socket.close()

    async def _next(self, timeout_s: float) -> Reply:
        while not self._replies:
            with _failing_as_os_error(timeout_s):
                data = bytes(await self._stream.receive_some(READ_BYTES))
            if not data:
                raise ConnectionResetError("the node closed the connection")
            self._replies += self._parser.feed(data)
        return self._replies.popleft()


class Dialler:
    """Makes connections to the nodes of a cluster. What is None comes from the environment."""

    def __init__(self, url: str | None, token: str | None, tls_ca: FilePath | None, timeout_s: float) -> None:
        self.route = route_of(url)
        self._token = token_of(token)
        self._trust = trust_of(tls_ca) if self.route.has_tls else None
        self._timeout_s = timeout_s

    async def dial(self) -> Connection:
        """A connection to the first node that takes it. Raises Unreachable, Unauthorized."""
        failures = []
        for _ in range(len(self.route)):
            address = self.route.address
            try:
                return await self._dial(address)
            except (OSError, *TRY_NEXT) as error:
                failures.append(f"{address} ({error})")
                self.route.pass_over(address)
        raise unreachable(failures)

    async def _dial(self, address: Address) -> Connection:
        connection = await Connection.dial(address, self._timeout_s, self._trust if address.tls else None)
        try:
            if self._token is not None and (error := (await connection.request(verbs.auth(self._token).data)).error):
                raise error
        except BaseException:
            connection.close()
            raise
        return connection


async def _secured(plain: trio.SocketStream, host: str, trust: ssl.SSLContext) -> trio.abc.Stream:
    stream = trio.SSLStream(plain, trust, server_hostname=host)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        plain.socket.close()
        raise tls_failure(error.__cause__ if isinstance(error.__cause__, Exception) else error) from error
    except BaseException:
        plain.socket.close()
        raise
    return stream


@contextmanager
def _failing_as_os_error(timeout_s: float) -> Iterator[None]:
    """As sockets of the standard library fail: TimeoutError when the time is over, ConnectionError when it is lost."""
    try:
        with trio.fail_after(timeout_s):
            yield
    except trio.TooSlowError:
        raise TimeoutError("timed out") from None
    except trio.BrokenResourceError as error:
        raise ConnectionResetError(str(error.__cause__ or "the connection is broken")) from error
