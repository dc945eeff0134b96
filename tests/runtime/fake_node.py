"""A node for tests of clients, played by a thread on 127.0.0.1.

Its conversations come in the order in which connections are expected; each is a list of (what the client must send,
what it is answered), and its end is the end of the connection, unless it says HOLD: then the client hangs up first.
Whatever else happens fails the test.
"""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

PATIENCE_S = 10.0  # no test waits for it unless it fails

Handler = Callable[[socket.socket], None]
Conversation = list[tuple[bytes, bytes]]
HOLD = (b"", b"")


class FakeNode:
    """Takes one connection after another; each is played by the next handler."""

    def __init__(self, *conversations: Conversation | Handler) -> None:
        self._handlers = [_play(talk) if isinstance(talk, list) else talk for talk in conversations]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve)
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._listener.settimeout(0.01)
        self._thread.join()
        self._listener.close()
        if error is None and self._failures:
            raise self._failures[0]

    def _serve(self) -> None:
        for handler in self._handlers:
            try:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE_S)
                with connection:
                    handler(connection)
            except BaseException as failure:  # noqa: BLE001  (it is raised where the test can see it)
                self._failures.append(failure)


def _play(conversation: Conversation) -> Handler:
    def handler(connection: socket.socket) -> None:
        for expected, answer in conversation:
            if not expected:
                assert connection.recv(1000) == b"", "the client said more than was expected"
                return
            heard = b""
            while len(heard) < len(expected) and (data := connection.recv(len(expected) - len(heard))):
                heard += data
            assert heard == expected
            connection.sendall(answer)

    return handler


def only(conversation: Conversation) -> FakeNode:
    """A node that is called once."""
    return FakeNode([*conversation, HOLD])


def with_body(line: str, body: str) -> bytes:
    return f"{line} bytes={len(body)}\n{body}\n".encode()
