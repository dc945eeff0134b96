"""Talking lines to a server: one connection with a pipeline, or many that each wait for every answer.

Jobyard and beanstalkd both answer a request with one line that may announce a body; what differs is told by a
Dialect. Standard library only.
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from benchmarks.processes import HOST, Failed


@dataclass(frozen=True)
class Dialect:
    """How a reply looks: what a good one begins with, and how many bytes follow its line."""

    good: bytes
    body_bytes: Callable[[bytes], int]


class Conversation:
    """One connection. A pipeline is sent from a thread, so that it cannot deadlock however long it is."""

    def __init__(self, port: int, dialect: Dialect) -> None:
        self._dialect = dialect
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb", buffering=1 << 18)

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """The reply's line without its end, and its body."""
        self._socket.sendall(request)
        return self.read()

    def pipeline(self, requests: Sequence[bytes]) -> float:
        """Seconds from the first request to the last reply."""
        return self._exchange([b"".join(requests)], len(requests))

    def stream(self, request: bytes, count: int) -> float:
        """The same for one large request, so many times."""
        return self._exchange(repeat(request, count), count)

    def _exchange(self, pieces: Iterable[bytes], replies: int) -> float:
        started = time.perf_counter()
        sender = threading.Thread(target=self._send, args=(pieces,), daemon=True)
        sender.start()
        for _ in range(replies):
            self.read()
        taken = time.perf_counter() - started
        sender.join()
        return taken

    def _send(self, pieces: Iterable[bytes]) -> None:
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except OSError:
            pass  # whoever reads the replies misses one, and says so

    def read(self) -> tuple[bytes, bytes]:
        line = self._replies.readline()
        if not line.startswith(self._dialect.good):
            raise Failed(f"unexpected reply {line[:200]!r}")
        size = self._dialect.body_bytes(line)
        return line.rstrip(b"\r\n"), self._replies.read(size) if size else b""

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


class _Client:
    """One of a crowd: its connection, and how much of a reply it has."""

    def __init__(self, port: int, good: bytes) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._good = good
        self._heard = b""

    def answered(self) -> bool:
        """Reads what is there; True when that completes a reply."""
        data = self.socket.recv(4096)
        self._heard += data
        if not data or not self._heard.startswith(self._good[: len(self._heard)]):
            raise Failed(f"unexpected reply {self._heard[:200]!r}")
        if not self._heard.endswith(b"\n"):
            return False
        self._heard = b""
        return True


def crowd(port: int, dialect: Dialect, request: bytes, count: int, clients: int) -> float:
    """Seconds until `count` requests are answered, asked by so many clients that wait for each answer."""
    left: Iterator[bytes] = repeat(request, count)
    with selectors.DefaultSelector() as waiting:
        everybody = [_Client(port, dialect.good) for _ in range(min(clients, count))]
        try:
            for client in everybody:
                waiting.register(client.socket, selectors.EVENT_READ, client)
            started = time.perf_counter()
            for client in everybody:
                client.socket.sendall(next(left))
            _take_turns(waiting, left, count)
            return time.perf_counter() - started
        finally:
            for client in everybody:
                client.socket.close()


def _take_turns(waiting: selectors.BaseSelector, left: Iterator[bytes], count: int) -> None:
    while count:
        for key, _ in waiting.select():
            if key.data.answered():
                count -= 1
                if (request := next(left, None)) is not None:
                    key.data.socket.sendall(request)
