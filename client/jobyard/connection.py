"""One socket to one node: bytes out, replies in. Every failure of it is an OSError, and then it is of no more use.

Rules: it knows nothing of what is asked, and never dials again; that is the client's to decide.
"""

import select
import socket
from collections import deque
from typing import Final

from jobyard.addresses import Address
from jobyard.protocol import Reply, ReplyParser

READ_BYTES: Final = 256 * 1024
KEEPALIVE_IDLE_S: Final = 15  # a node that may be silent for hours is asked by TCP whether it is still there,
KEEPALIVE_EVERY_S: Final = 5
KEEPALIVE_PROBES: Final = 3  # and taken for gone after so many questions


class Connection:
    """`timeout_s` is how long connecting may take, and how long a node may then be silent while it owes a reply."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._socket = socket.create_connection((address.host, address.port), timeout=timeout_s)
        set_options(self._socket)

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

    def is_stale(self) -> bool:
        """While nothing is owed nothing may come: whatever does is the end of the connection, or a farewell."""
        poller = select.poll()  # not select(): it cannot watch descriptors from 1,024 on
        poller.register(self._socket, select.POLLIN)
        return bool(self._replies or poller.poll(0))

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


def set_options(of: socket.socket) -> None:
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
