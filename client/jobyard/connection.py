"""One socket to one node: bytes out, replies in. Every failure of it is an OSError, and then it is of no more use.

Rules: it knows nothing of what is asked, and never dials again; that is the client's to decide.
"""

import select
import socket
from collections import deque
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from jobyard.protocol import Reply, ReplyParser

PORT_DEFAULT: Final = 9000
READ_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(text: str) -> tuple[Address, ...]:
    """The addresses of `tcp://host:port`, or of several of them with commas between. Raises ValueError."""
    addresses = tuple(_parse_one(part.strip()) for part in text.split(",") if part.strip())
    if not addresses:
        raise ValueError("JOBYARD_URL names no node; write it like tcp://127.0.0.1:9000")
    return addresses


def _parse_one(text: str) -> Address:
    wrong = ValueError(f"{text!r} is not the address of a node; write it like tcp://127.0.0.1:9000")
    try:
        url = urlsplit(text if "://" in text else f"tcp://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        raise wrong from None
    if url.scheme != "tcp" or not host or "@" in url.netloc or url.path.strip("/") or url.query or url.fragment:
        raise wrong
    return Address(host, PORT_DEFAULT if port is None else port)


class Connection:
    """`timeout_s` is how long connecting may take, and how long a node may then be silent while it owes a reply."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._socket = socket.create_connection((address.host, address.port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, data: bytes, patience_s: float = 0.0) -> Reply:
        """The reply to one request, which may take `patience_s` longer than others."""
        self.send(data)
        while not self._replies:
            self._read(self._timeout_s + patience_s)
        return self._replies.popleft()

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(data)

    def replies(self) -> list[Reply]:
        """What has been answered, at least one reply."""
        while not self._replies:
            self._read(self._timeout_s)
        replies = list(self._replies)
        self._replies.clear()
        return replies

    def is_stale(self) -> bool:
        """While nothing is owed nothing may come: whatever does is the end of the connection, or a farewell."""
        poller = select.poll()  # not select(): it cannot watch descriptors from 1,024 on
        poller.register(self._socket, select.POLLIN)
        return bool(self._replies or poller.poll(0))

    def close(self) -> None:
        self._socket.close()

    def _read(self, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the node closed the connection")
        self._replies += self._parser.feed(data)
