"""Which tickets have ever arrived: those that are live, have ended, expired or were forgotten a moment ago, and other
names of jobs.

Nearly every ticket that is asked for is newer than all of its origin's before it, because an origin sends its jobs in
the order of their numbers. So the newest of each origin is remembered, and for what is newer, no table is looked at.

Pure.
"""

from typing import Final, Protocol

from common.effects import Table
from common.memory import Memory
from common.model import array_of, parse_ticket, prefix_key, ticket_key, ticket_of

_TABLES: Final = (Table.ENDED, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES)
_BEHIND_ALL: Final = b"\xff" * 16  # behind any key that goes on from a prefix


class Live(Protocol):
    """The tickets of all that has not ended."""

    def __contains__(self, name: str) -> bool: ...


class Known:
    def __init__(self, memory: Memory, live: Live) -> None:
        self._memory = memory
        self._live = live
        self._newest: dict[str, int] = {}  # by prefix: no ticket of a higher number has arrived

    def __contains__(self, ticket: str) -> bool:
        """Whether this ticket, or the array that it is an element of, has arrived."""
        array = array_of(ticket)
        prefix, number = _parsed(array)
        if number > self._newest_of(prefix):
            return False
        if ticket in self._live or (array != ticket and array in self._live):
            return True
        return any(self._memory.get(table, ticket_key(array)) is not None for table in _TABLES)

    def is_newest(self, prefix: str, number: int) -> bool:
        """Whether nothing has arrived that is as new, of this origin."""
        return number > self._newest_of(prefix)

    def arrived(self, ticket: str) -> None:
        """To be told of whatever is about to be written down under a ticket that was not known."""
        prefix, number = _parsed(ticket)
        self._newest[prefix] = max(number, self._newest_of(prefix))

    def _newest_of(self, prefix: str) -> int:
        """0 where no ticket of this origin was ever heard of; that is not remembered, because anybody may ask."""
        if prefix in self._newest:
            return self._newest[prefix]
        newest = self._newest_on_disk(prefix_key(prefix))
        if newest:
            self._newest[prefix] = newest
        return newest

    def _newest_on_disk(self, prefix: bytes) -> int:
        newest = 0
        for table in (Table.LIVE, *_TABLES):
            last = self._memory.scan(table, prefix=prefix, after=prefix + _BEHIND_ALL, limit=1, backwards=True)
            for key, _ in last:
                newest = max(newest, _parsed(ticket_of(key))[1])
        return newest


def _parsed(ticket: str) -> tuple[str, int]:
    parsed = parse_ticket(ticket)
    assert parsed is not None, f"{ticket} is no ticket"
    return parsed
