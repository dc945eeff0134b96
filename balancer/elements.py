"""The elements of arrays, as the ledger sees them: numbers until they begin, then entries like any other.

Asked for, an element that has not begun is an entry that is kept nowhere, made from its array's record; with its
first change it takes its place among the live jobs. Pure; `balancer/arrays.py` does the counting.
"""

from collections.abc import Iterator
from typing import Final

from balancer.arrays import Array, ArrayRecord
from balancer.records import Entry
from common.arrays import parse_indexes
from common.codec import pack, replace, unpack
from common.effects import Table
from common.limits import ATTEMPTS_PER_LEDGER
from common.memory import Memory
from common.model import Ended, Job, Reason, State, array_of, index_of, ticket_key, ticket_of

_SCAN: Final = 1000


class Elements:
    """`live` is the ledger's own: every live entry by its ticket."""

    def __init__(self, memory: Memory, live: dict[str, Entry]) -> None:
        self._memory = memory
        self._live = live

    def open(self, entry: Entry) -> None:
        """Gives an array its counts, or an element its array, whether new or found on disk; arrays come first."""
        if entry.record.array is not None:
            entry.array = self.stored(entry.ticket, entry.record.array)
            if entry.record.cancelled and entry.array.unbegun and entry.array.dropped is None:  # it was damaged
                entry.array.dropped = Ended(State.CANCELLED, 0.0, Reason.USER)
        elif entry.is_element and (array := self.array(entry.ticket)) is not None:
            array.live[entry.ticket] = entry
            self.note(entry)

    def note(self, entry: Entry) -> None:
        """Whether a node has it may have changed."""
        if (array := self.array(entry.ticket)) is not None:
            (array.leased.add if entry.record.leased else array.leased.discard)(entry.ticket)

    def _stored(self, ticket: str) -> ArrayRecord | None:
        packed = self._memory.get(Table.ARRAYS, ticket_key(ticket))
        return None if packed is None else unpack(ArrayRecord, packed)

    def stored(self, ticket: str, spec: str) -> Array:
        """An array as its record has it, or where it has none, as its elements have it."""
        record = self._stored(ticket)
        indexes = parse_indexes(spec)
        return self._counted(Array(ticket, indexes)) if record is None else Array.of(ticket, indexes, record)

    def _counted(self, array: Array) -> Array:
        """Nothing of it has begun; or its record was damaged and set aside."""
        for name, packed in self.rows(Table.ENDED, array.ticket):
            ended = unpack(Ended, packed)
            array.begin(name)
            array.count(ended.state, 1, ended.reason)
        for name, _ in self.rows(Table.LIVE, array.ticket):
            array.begin(name)
        return array

    def lost(self, array: Array) -> Iterator[Entry]:
        """Elements that have begun, and of which no record says how they stand: it was damaged, and set aside. As
        entries that are live again."""
        for ticket in array.begun():
            if ticket not in array.live and self._memory.get(Table.ENDED, ticket_key(ticket)) is None:
                entry = self._live[ticket] = array.live[ticket] = self._entry(ticket)
                entry.record.outnumbered = ATTEMPTS_PER_LEDGER
                yield entry

    def rows(self, table: Table, ticket: str) -> Iterator[tuple[str, bytes]]:
        """The records of an array's elements in a table, by their tickets; not the array's own."""
        return ((ticket_of(key), packed) for key, packed in self.by_key(table, ticket))

    def by_key(self, table: Table, ticket: str) -> Iterator[tuple[bytes, bytes]]:
        """The same by their keys, for a third of the time."""
        prefix = after = ticket_key(ticket)
        while chunk := self._memory.scan(table, prefix=prefix, after=after, limit=_SCAN):
            yield from chunk
            after = chunk[-1][0]

    def save(self, array: Array) -> None:
        self._memory.put(Table.ARRAYS, ticket_key(array.ticket), pack(array.record))

    def array(self, ticket: str) -> Array | None:
        """The array that this ticket is an element of; it is live as long as one of its elements is."""
        parent = self._live.get(array_of(ticket)) if index_of(ticket) is not None else None
        return None if parent is None else parent.array

    # --- elements that are only numbers ----------------------------------------------------------------------------

    def virtual(self, ticket: str) -> Entry | None:
        """An element that has not begun; None where it has, or is none."""
        array = self.array(ticket)
        return None if array is None or array.dropped or not array.is_number(ticket) else self._entry(ticket)

    def _entry(self, ticket: str) -> Entry:
        return Entry(ticket, replace(self._live[array_of(ticket)].record, array=None))

    def next(self, array: Array) -> Entry:
        """The element whose turn it is; the array must have one."""
        return array.take_back() or self._entry(array.next_number())

    def dropped(self, ticket: str) -> Ended | None:
        """The end of an element that was cancelled with its array before it began."""
        parent = array_of(ticket)
        record = None if index_of(ticket) is None else self._stored(parent)
        packed = None if record is None or not record.dropped else self._memory.get(Table.JOBS, ticket_key(parent))
        if record is None or packed is None:
            return None
        spec = unpack(Job, packed).array
        assert spec is not None, f"{parent} has the record of an array, and is none"
        return record.dropped if Array.of(parent, parse_indexes(spec), record).is_number(ticket) else None

    # --- from number to entry to end -------------------------------------------------------------------------------

    def begin(self, entry: Entry) -> None:
        """An element that was only a number takes its place among the live jobs."""
        array = self.array(entry.ticket)
        assert array is not None, f"{entry.ticket} is no element, and has no entry"
        self._live[entry.ticket] = array.live[entry.ticket] = entry
        array.begin(entry.ticket)
        self.save(array)

    def end(self, array: Array, ticket: str, ended: Ended) -> None:
        """An element has ended, with or without having begun."""
        if array.live.pop(ticket, None) is None:
            array.begin(ticket)
        array.leased.discard(ticket)
        array.count(ended.state, 1, ended.reason)
        self.save(array)
