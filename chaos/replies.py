"""Replies of a node, read from bytes as `docs/protocol.md` has them. Pure."""

from dataclasses import dataclass
from typing import Final

LATER: Final = frozenset({"UNAVAILABLE", "FULL", "DRAINING"})  # errors that promise nothing and ask to come again


@dataclass(frozen=True)
class Reply:
    """One reply: its line, and the body that `bytes=` announced."""

    line: str
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.line.split(" ", 1)[0] == "OK"

    @property
    def pending(self) -> bool:
        return self.line.split(" ", 1)[0] == "PENDING"

    @property
    def code(self) -> str:
        """The code of an error; empty for anything else."""
        words = self.line.split()
        return words[1] if words[0] == "ERR" else ""

    @property
    def later(self) -> bool:
        """Whether it says neither yes nor no, but: not now."""
        return self.code in LATER

    @property
    def ticket(self) -> str:
        """The ticket that an OK or PENDING speaks of."""
        return self.line.split()[1]

    def field(self, name: str) -> str:
        """A `name=value` field, or nothing."""
        return fields(self.line).get(name, "")

    @property
    def stdout(self) -> bytes:
        return self.body[: int(self.field("stdout") or 0)]


def fields(line: str) -> dict[str, str]:
    """The `name=value` fields of a reply's line, or of a line in a body."""
    return {name: value for name, equals, value in (word.partition("=") for word in line.split()) if equals}


def body_bytes(line: str) -> int | None:
    """The length of the body that follows a reply's line; None where none does."""
    last = line.rpartition(" ")[2]
    return int(last.removeprefix("bytes=")) if line.startswith("OK ") and last.startswith("bytes=") else None
