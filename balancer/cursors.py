"""Cursors: how WATCH and EVENTS say how far a client has got, `<tag>.<number>`; opaque to clients.

The tag is the ledger's. A cursor of another ledger, or none at all, says nothing here and is read as the beginning.
Pure.
"""

import re
from typing import Final

_CURSOR: Final = re.compile(r"([a-z2-7]{4})\.(0|[1-9][0-9]{0,17})")


def write_cursor(tag: str, number: int) -> str:
    """The cursor of one who has seen everything up to a number."""
    return f"{tag}.{number}"


def read_cursor(tag: str, text: str | None, last: int) -> int | None:
    """The number of a cursor of this ledger; None for any other text, and for what lies ahead of the last number."""
    match = _CURSOR.fullmatch(text or "")
    if match is None or match[1] != tag or int(match[2]) > last:
        return None
    return int(match[2])
