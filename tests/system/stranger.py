"""Somebody at the cluster port: with frames, with or without the key. Every wait has an end."""

import secrets
import socket
from typing import Final, Self

from common import auth, frames
from common.codec import replace
from common.messages import PROTOCOL, Challenge, Hello, Message, Proof

ANSWER_S_MAX: Final = 10.0


class Stranger:
    """A plain connection to the cluster port."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=ANSWER_S_MAX)
        self._parser = frames.Parser()
        self._messages: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *messages: Message) -> None:
        self.send_bytes(b"".join(map(frames.encode, messages)))

    def send_bytes(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except ConnectionError:
            pass  # it has had enough of us already, which is what the test asks next

    def finish(self) -> None:
        """Says that nothing more will come."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has had enough

    def receive(self) -> Message | None:
        """The next message; None when the balancer has closed the connection."""
        while not self._messages:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._messages = self._parser.feed(data)
        return self._messages.pop(0)

    def shake_hands(self, key: bytes, **changes: object) -> Message | None:
        """As a node does that has this key; what comes after the proof: Welcome, or Refused."""
        hello = replace(HELLO, nonce=secrets.token_bytes(32), **changes)  # type: ignore[arg-type]
        self.send(hello)
        challenge = self.receive()
        if not isinstance(challenge, Challenge):
            return challenge
        self.send(Proof(auth.node_proof(key, hello, challenge.ledger_id, challenge.nonce)))
        return self.receive()


HELLO: Final = Hello(PROTOCOL, "stranger", "boot of a stranger", "aaaaaa", "stranger", 0, ("sleep",), "0.1.0", b"")
