"""What clients say and what they are told, as values, with a reader of replies that shares nothing with the shipped
parsers: it is written from `docs/protocol.md` alone.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs

ENDS: Final = frozenset({"succeeded", "failed", "cancelled"})
_READ_BYTES: Final = 4096


@attrs.frozen
class Request:
    """One line, and what the auditor has to know of it without reading it again."""

    line: str
    verb: str
    ticket: str | None = None
    group: str | None = None
    key: str | None = None
    patience_s: float | None = 5.0  # how long its answer may take where nothing is broken; None: for ever

    @property
    def text(self) -> str:
        """What is asked for under a key; two of the same text are one job."""
        return self.line.partition(" ")[2]


@attrs.frozen
class Reply:
    """`word` is OK, PENDING or ERR; after ERR stands the code, after the others mostly a ticket."""

    word: str
    about: str | None
    fields: dict[str, str]
    body: bytes = b""

    @property
    def code(self) -> str | None:
        return self.about if self.word == "ERR" else None

    @property
    def ticket(self) -> str | None:
        return None if self.word == "ERR" else self.about

    @property
    def state(self) -> str | None:
        return self.fields.get("state")

    def __str__(self) -> str:
        fields = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return " ".join(part for part in (self.word, self.about or "", fields) if part)


class Hung(Exception):
    """The connection ended before the reply was complete."""


def head(line: str) -> tuple[Reply, int | None]:
    """The reply of one line, and how many bytes of body follow it, if any do."""
    word, *rest = line.split(" ")
    if word == "ERR":
        return Reply(word, rest[0], {"message": " ".join(rest[1:])}), None
    about = rest.pop(0) if rest and "=" not in rest[0] else None
    fields = dict(pair.split("=", 1) for pair in rest if "=" in pair)
    return Reply(word, about, fields), int(fields["bytes"]) if "bytes" in fields else None


class Reader:
    """Replies out of what is received, however it is cut."""

    def __init__(self, receive: Callable[[int], Awaitable[bytes | bytearray]]) -> None:
        self._receive = receive
        self._held = b""

    async def reply(self) -> Reply:
        """The next one. Raises Hung where there is none any more."""
        while b"\n" not in self._held:
            await self._more()
        line, _, self._held = self._held.partition(b"\n")
        reply, body_bytes = head(line.decode())
        if body_bytes is None:
            return reply
        while len(self._held) <= body_bytes:
            await self._more()
        body, self._held = self._held[:body_bytes], self._held[body_bytes + 1 :]
        return attrs.evolve(reply, body=body)

    async def _more(self) -> None:
        data = await self._receive(_READ_BYTES)
        if not data:
            raise Hung("the connection ended")
        self._held += bytes(data)
