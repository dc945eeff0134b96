"""Two clients for tests: `Line`, which speaks the client protocol over a plain socket, and `nc`, which is the real one.

Rules: they know `docs/protocol.md` and none of our code, so that what they read is what a stranger would read. Every
wait has an end.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NoReturn, Self, TypeVar

import pytest

REPLY_S_MAX: Final = 30.0
POLL_S: Final = 0.02

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """One reply: its line, and the body that `bytes=` announced."""

    line: str
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.line.split()[0] == "OK"

    @property
    def pending(self) -> bool:
        return self.line.startswith("PENDING ")

    @property
    def code(self) -> str:
        """The code of an error; empty for anything else."""
        return self.line.split()[1] if self.line.startswith("ERR ") else ""

    @property
    def ticket(self) -> str:
        """The ticket that an OK or PENDING speaks of."""
        assert not self.code, self.line
        return self.line.split()[1]

    def field(self, name: str) -> str | None:
        return fields(self.line).get(name)


def fields(line: str) -> dict[str, str]:
    """The `name=value` fields of a reply's line, or of a line in a body."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in line.split() if "=" in word}


def parse(data: bytes) -> list[Reply]:
    """The replies in what a whole conversation brought; it has to end with the last of them."""
    replies: list[Reply] = []
    while data:
        line, lf, data = data.partition(b"\n")
        assert lf, f"a reply without its end: {line!r}"
        size = _body_bytes(line.decode())
        if size is not None:
            assert data[size : size + 1] == b"\n", f"no LF after the {size} bytes of {line!r}"
            replies.append(Reply(line.decode(), data[:size]))
            data = data[size + 1 :]
        else:
            replies.append(Reply(line.decode()))
    return replies


def _body_bytes(line: str) -> int | None:
    last = line.rpartition(" ")[2]
    return int(last.removeprefix("bytes=")) if line.startswith("OK") and last.startswith("bytes=") else None


class Line:
    """A conversation with a node. Raises OSError (ConnectionError when the node has gone) like any socket."""

    def __init__(self, address: str, *, timeout_s: float = REPLY_S_MAX) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._socket.settimeout(timeout_s)
        self._read = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._read.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def finish(self) -> None:
        """Closes our sending side, as `nc -N` does at the end of its input."""
        self._socket.shutdown(socket.SHUT_WR)

    def ask(self, line: str, body: bytes | None = None) -> Reply:
        """Sends a request and reads the one reply."""
        self.send(line.encode() + b"\n" + (body + b"\n" if body is not None else b""))
        return self.reply()

    def reply(self) -> Reply:
        line = self._line()
        size = _body_bytes(line)
        if size is None:
            return Reply(line)
        body = self._read.read(size + 1)
        if len(body) <= size:
            raise ConnectionError(f"the node went away in the body of {line!r}")
        assert body.endswith(b"\n"), f"no LF after the {size} bytes of {line!r}"
        return Reply(line, body[:-1])

    def _line(self) -> str:
        line = self._read.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the node closed the connection")
        return line[:-1].decode()

    def ended(self) -> bool:
        """Whether the node has closed its side; waits for it, or for a reply that nobody expected."""
        return self._read.read(1) == b""


def ask(address: str, line: str, body: bytes | None = None) -> Reply:
    """One request in a conversation of its own."""
    with Line(address) as client:
        return client.ask(line, body)


def submit(address: str, job: str) -> str:
    """Submits a job (options, kind and line); returns its ticket."""
    reply = ask(address, f"submit {job}")
    assert reply.ok, reply.line
    return reply.ticket


def wait(address: str, ticket: str, *, timeout_s: float = 20.0) -> Reply:
    """The end of a job."""
    reply = ask(address, f"wait timeout={timeout_s}s {ticket}")
    assert reply.ok, f"{ticket} did not end within {timeout_s} s: {reply.line}"
    return reply


def nc(address: str, typed: bytes | str, *, timeout_s: float = REPLY_S_MAX) -> bytes:
    """What `nc -N` prints, when this is its standard input."""
    host, _, port = address.rpartition(":")
    data = typed.encode() if isinstance(typed, str) else typed
    done = subprocess.run(
        [_nc_program(), "-N", host, port], input=data, capture_output=True, timeout=timeout_s, check=False
    )
    return done.stdout


def _nc_program() -> str:
    found = shutil.which("nc.openbsd") or shutil.which("nc")
    if found is None:
        missing("there is no nc here (Debian: netcat-openbsd)")
    return found


def missing(reason: str) -> NoReturn:
    """Skips the test for want of a program, or fails it where everything has to be there."""
    if os.environ.get("JOBYARD_TEST_DOCKER") == "required":
        pytest.fail(f"{reason}, and JOBYARD_TEST_DOCKER=required")
    pytest.skip(reason)


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that is dead and that nobody has asked after (a zombie) does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def until(what: str, found: Callable[[], T | None], *, within_s: float = 20.0) -> T:
    """Waits for something to be there (neither None nor False), and returns it; fails when the time is over."""
    ends_at = time.monotonic() + within_s
    while True:
        it = found()
        if it is not None and it is not False:
            return it
        assert time.monotonic() < ends_at, f"not within {within_s} s: {what}"
        time.sleep(POLL_S)
