"""The error codes of the client protocol, and the exception that carries one.

Pure. `docs/protocol.md` says for each code what a client can do about it. A message names who is wrong, what is
wrong with it and what is allowed; `shown` is how it repeats what somebody typed.
"""

import enum
from typing import Final

SHOWN_CHARACTERS_MAX: Final = 60  # of a word that is repeated in an error: enough to recognise it


class Code(enum.StrEnum):
    """The word after ERR. Scripts compare it, so a code is never renamed."""

    BAD_REQUEST = "BAD_REQUEST"
    UNKNOWN_COMMAND = "UNKNOWN_COMMAND"
    UNKNOWN_TICKET = "UNKNOWN_TICKET"
    EXPIRED = "EXPIRED"
    CONFLICT = "CONFLICT"
    TOO_LARGE = "TOO_LARGE"
    FULL = "FULL"
    DRAINING = "DRAINING"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    UNAVAILABLE = "UNAVAILABLE"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    INTERNAL = "INTERNAL"


class Refusal(Exception):
    """A request that is answered with ERR."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code} {self.message}"


def shown(word: str | bytes) -> str:
    """A word as an error repeats it: in quotes, its beginning only, and never as bytes that act on a terminal."""
    text = word[: 4 * SHOWN_CHARACTERS_MAX].decode(errors="replace") if isinstance(word, bytes) else word
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[:SHOWN_CHARACTERS_MAX] + "…"
    return "'" + "".join(map(_harmless, text)) + "'"


def _harmless(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
