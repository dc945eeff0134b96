"""Connections that say nothing: what they cost the server that holds them.

Both ends of a connection take a file descriptor. Who measures raises his own limit as far as the system lets him, and
no further; what that does not allow is not measured, and said. Standard library only.
"""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import HOST, memory_bytes, processor_s
from benchmarks.systems.system import Unsupported

AT_ONCE: Final = 64  # that are connecting: fewer than a listener keeps waiting
SPARE_FILES: Final = 32
ANSWER_S_MAX: Final = 10.0
SETTLE_S: Final = 1.0


def cost(port: int, greeting: bytes, good: bytes, count: int, server: int, seconds: float) -> dict[str, float]:
    """`bytes` of the process `server` for each of so many connections; its `share` of a core while all are idle."""
    own, _ = memory_bytes(server)
    with idle_connections(port, greeting, good, count):
        time.sleep(SETTLE_S)
        grown = memory_bytes(server)[0] - own
        before_s = processor_s([server])
        time.sleep(seconds)
        used_s = processor_s([server]) - before_s
    return {"bytes": grown / count, "share": used_s / seconds * 100}


@contextmanager
def idle_connections(port: int, greeting: bytes, good: bytes, count: int) -> Iterator[None]:
    """Each is greeted and has answered once, so the server has really taken it in. Raises Unsupported where this
    process may not open so many, or the server takes fewer."""
    make_room(count)
    everybody: list[socket.socket] = []
    try:
        while len(everybody) < count:
            taken = len(everybody)
            for _ in range(min(AT_ONCE, count - taken)):
                everybody.append(_connect(port, taken))
                everybody[-1].sendall(greeting)
            for client in everybody[taken:]:
                _expect(client, good, taken, count)
        yield
    finally:
        for client in everybody:
            client.close()


def make_room(count: int) -> None:
    """Raises our limit of open files to what so many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + len(os.listdir("/proc/self/fd")) + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise Unsupported(
            f"this machine lets a process open {hard:,} files (ulimit -Hn), and {count:,} connections need {wanted:,}"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _connect(port: int, connected: int) -> socket.socket:
    try:
        return socket.create_connection((HOST, port), timeout=ANSWER_S_MAX)
    except OSError as failure:
        raise Unsupported(f"no connection after about {connected:,}: {failure}") from None


def _expect(client: socket.socket, good: bytes, taken: int, count: int) -> None:
    try:
        answer = client.recv(4096)
    except OSError as failure:
        answer = str(failure).encode()
    if not answer.startswith(good):
        told = answer.decode(errors="replace").strip() or "it closed the connection"
        raise Unsupported(f"the server took about {taken:,} of {count:,} connections: {told}")
