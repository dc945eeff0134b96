"""One socket to one node: bytes out, replies in. Every failure of it is an OSError, and then it is of no more use.

Rules: a Connection knows nothing of what is asked, and never dials again; a Dialler makes another when it is told to.
"""

import select
import socket
import ssl
from collections import deque
from typing import Final, Protocol

from jobyard import verbs
from jobyard.addresses import Address
from jobyard.errors import TRY_NEXT, unreachable
from jobyard.protocol import Reply, ReplyParser
from jobyard.settings import FilePath, route_of, token_of, trust_of
from jobyard.tls import tls_failure

READ_BYTES: Final = 256 * 1024
KEEPALIVE_IDLE_S: Final = 15  # a node that may be silent for hours is asked by TCP whether it is still there,
KEEPALIVE_EVERY_S: Final = 5
KEEPALIVE_PROBES: Final = 3  # and taken for gone after so many questions


_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """`timeout_s` is how long connecting may take, and how long a node may then be silent while it owes a reply.
    `trust` is for an address with TLS."""

    def __init__(self, address: Address, timeout_s: float, trust: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._socket = socket.create_connection((address.host, address.port), timeout=timeout_s)
        set_options(self._socket)
        if trust is not None:
            self._socket = _secured(self._socket, address.host, trust)

    def request(self, data: bytes, patience_s: float = 0.0) -> Reply:
        """The reply to one request, which may take `patience_s` longer than others."""
        self.send(data)
        return self._next(self._timeout_s + patience_s)

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(data)

    def replies(self) -> list[Reply]:
        """What has been answered, at least one reply."""
        replies = [self._next(self._timeout_s), *self._replies]
        self._replies.clear()
        return replies

    def follow(self) -> Reply:
        """The next reply of several to one request, however long it takes."""
        return self._next(None)

    # --- without waiting, for a caller that polls ------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def send_now(self, data: memoryview) -> int:
        """Sends what can be sent at once; how many bytes that were."""
        self._socket.settimeout(0)
        try:
            return self._socket.send(data)
        except _NOT_NOW:
            return 0

    def replies_now(self) -> list[Reply]:
        """What has been answered by now."""
        self._socket.settimeout(0)
        try:
            data = self._socket.recv(READ_BYTES)
        except _NOT_NOW:
            return []
        if not data:
            raise ConnectionResetError("the node closed the connection")
        return self._parser.feed(data)

    def is_stale(self) -> bool:
        """While nothing is owed nothing may come: whatever does is the end of the connection, or a farewell."""
        poller = select.poll()  # not select(): it cannot watch descriptors from 1,024 on
        poller.register(self._socket, select.POLLIN)
        return bool(self._replies) or (bool(poller.poll(0)) and not self._is_ticket())

    def _is_ticket(self) -> bool:
        """Whether what has come is of TLS alone, such as the tickets with which some servers follow a handshake."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass  # it has ended
        return False

    def close(self) -> None:
        self._socket.close()

    def _next(self, timeout_s: float | None) -> Reply:
        self._socket.settimeout(timeout_s)
        while not self._replies:
            data = self._socket.recv(READ_BYTES)
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

    def dial(self) -> Connection:
        """A connection to the first node that takes it. Raises Unreachable, Unauthorized."""
        failures = []
        for _ in range(len(self.route)):
            address = self.route.address
            try:
                return self._dial(address)
            except (OSError, *TRY_NEXT) as error:
                failures.append(f"{address} ({error})")
                self.route.pass_over(address)
        raise unreachable(failures)

    def _dial(self, address: Address) -> Connection:
        connection = Connection(address, self._timeout_s, self._trust if address.tls else None)
        try:
            if self._token is not None and (error := connection.request(verbs.auth(self._token).data).error):
                raise error
        except BaseException:
            connection.close()
            raise
        return connection


def _secured(plain: socket.socket, host: str, trust: ssl.SSLContext) -> socket.socket:
    try:
        return trust.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as error:
        plain.close()
        raise tls_failure(error) from error


class _Socket(Protocol):
    """Of the standard library, or of trio."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def set_options(of: _Socket) -> None:
    """What every socket of ours is told: send at once, and notice a host that is gone without a word."""
    of.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    of.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),  # the names of Linux; other systems have some of them
        ("TCP_KEEPINTVL", KEEPALIVE_EVERY_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            of.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
