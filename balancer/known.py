"""Which tickets have ever arrived: those that are live, have ended, expired or were forgotten a moment ago, and other
names of jobs.

Nearly every ticket that is asked for is newer than all of its origin's before it, because an origin sends its jobs in
the order of their numbers. So the newest of each origin is remembered, and for what is newer, no table is looked at.

Pure.
"""

from typing import Final, Protocol

from common.effects import Table
from common.memory import Memory
from common.model import array_of, parse_ticket, ticket_key, ticket_of

_TABLES: Final = (Table.ENDED, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES)
_BEHIND_ALL: Final = b"\xff" * 16  # behind any key that goes on from a prefix


class Live(Protocol):
    """The tickets of all that has not ended."""

    def __contains__(self, name: str) -> bool: ...


class Known:
    def __init__(self, memory: Memory, live: Live) -> None:
        self._memory = memory
        self._live = live
        self._newest: dict[str, int] = {}  # by prefix: no ticket of a higher number has arrived, or was asked for

    def __contains__(self, ticket: str) -> bool:
        """Whether this ticket, or the array that it is an element of, has arrived. What has not is taken for arrived
        from now on, as far as the newest goes: whoever asks is about to take it in."""
        array = array_of(ticket)
        if self._is_newer(array):
            return False
        if ticket in self._live or (array != ticket and array in self._live):
            return True
        return any(self._memory.get(table, ticket_key(array)) is not None for table in _TABLES)

    def _is_newer(self, ticket: str) -> bool:
        parsed = parse_ticket(ticket)
        assert parsed is not None, f"{ticket} is no ticket"
        prefix, number = parsed
        newest = self._newest.get(prefix)
        if newest is None:
            newest = self._newest[prefix] = self._newest_on_disk(prefix.encode())
        if number <= newest:
            return False
        self._newest[prefix] = number
        return True

    def _newest_on_disk(self, prefix: bytes) -> int:
        newest = 0
        for table in (Table.LIVE, *_TABLES):
            last = self._memory.scan(table, prefix=prefix, after=prefix + _BEHIND_ALL, limit=1, backwards=True)
            for key, _ in last:
                _, number = parse_ticket(ticket_of(key)) or ("", 0)
                newest = max(newest, number)
        return newest
