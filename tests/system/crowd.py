"""Many connections at once, from one thread, and how long somebody else waits meanwhile.

Rules: every socket that is opened here is closed here. A connection that the other side has ended stays one of the
crowd: it dials again, as somebody who means harm would.
"""

import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

SPARE_FILES: Final = 500
ASKED_LEAST: Final = 10
_RESET: Final = struct.pack("ii", 1, 0)


class Crowd:
    """`size` connections to one address."""

    def __init__(self, address: str, size: int) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._size = size
        self._sockets: list[socket.socket] = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * size + SPARE_FILES)), hard))

    def __enter__(self) -> Self:
        self._sockets = [self._dial() for _ in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()

    def _dial(self) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(self._to)  # answered by the kernel; nobody waits for it
        return connection

    def send(self, data: bytes) -> int:
        """The same on each connection, as far as it goes without waiting; how many had to dial again."""
        ended = 0
        for place, connection in enumerate(self._sockets):
            try:
                connection.send(data)
            except BlockingIOError:
                pass
            except OSError:
                connection.close()
                self._sockets[place] = self._dial()
                ended += 1
        return ended


@contextmanager
def resident_bytes_grown(pid: int, most: int) -> Iterator[None]:
    """Inside the `with`, the memory of a process grows by no more."""
    before = _resident_bytes(pid)
    yield
    grown = _resident_bytes(pid) - before
    assert grown <= most, f"grew by {grown} bytes"


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def slow_s(ask: Callable[[], object], meanwhile: Callable[[], object], *, for_s: float, every_s: float) -> float:
    """How long `ask` took at most, time and again, while `meanwhile` was done at each `every_s`. One in fifty is left
    out, and one in any case: a machine that others use, too, is late now and then for reasons of its own."""
    took_s: list[float] = []
    began_at = due_at = time.monotonic()
    while time.monotonic() - began_at < for_s or len(took_s) < ASKED_LEAST:
        if time.monotonic() >= due_at:
            meanwhile()
            due_at = time.monotonic() + every_s
        asked_at = time.monotonic()
        ask()
        took_s.append(time.monotonic() - asked_at)
    return sorted(took_s)[-2 - len(took_s) // 50]
