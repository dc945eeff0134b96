"""The ended jobs of a group, in the order of their ends. Written with the ends by the history; read here.

    GROUPS   key: the group, a NUL, the sequence of the end in 8 bytes      value: the ticket's key

No group has a NUL in it. Pure.
"""

from collections.abc import Iterator
from typing import Final

from common.effects import Table
from common.memory import Memory
from common.model import ticket_of

_SCAN: Final = 500
_SEQUENCE_BYTES: Final = 8
_BEHIND_ALL: Final = b"\xff" * _SEQUENCE_BYTES


class Groups:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def ends(self, group: str, after: int) -> Iterator[tuple[int, str]]:
        """Sequence and ticket of each end behind a sequence (-1: of all), the oldest first; read in chunks."""
        prefix = _prefix(group)
        last = b"" if after < 0 else prefix + after.to_bytes(_SEQUENCE_BYTES, "big")
        while chunk := self._memory.scan(Table.GROUPS, prefix=prefix, after=last, limit=_SCAN):
            for key, ticket_key in chunk:
                yield int.from_bytes(key[len(prefix) :], "big"), ticket_of(ticket_key)
            last = chunk[-1][0]

    def newest(self, group: str, before: bytes = b"") -> Iterator[str]:
        """The tickets of the ended jobs, the latest end first, from before a sequence in 8 bytes where one is named;
        read in chunks."""
        prefix = _prefix(group)
        last = prefix + (before[:_SEQUENCE_BYTES] or _BEHIND_ALL)
        while chunk := self._memory.scan(Table.GROUPS, prefix=prefix, after=last, limit=_SCAN, backwards=True):
            yield from (ticket_of(ticket_key) for _, ticket_key in chunk)
            last = chunk[-1][0]


def _prefix(group: str) -> bytes:
    return group.encode() + b"\0"
