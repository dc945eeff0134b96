"""The jobs that have not ended. Those of which something must be known at once are entries in memory; the others rest
on disk, and in memory there is no more of them than their place in the order of arrival.

    arrives ──► awake ──► rests, where many wait for a node ──► awake again, when it is leased, cancelled …

A job that only waits for a node is all in its record, so nothing is lost when its entry is let go: asked for, it is
made anew from the record, and with its first change it takes its place among the entries in memory again. That a
million jobs wait costs some tens of bytes for each. An array and its elements never rest.

Pure.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Final

import attrs
import msgspec

from balancer.records import Entry, LiveRecord
from common.codec import glance, unpack
from common.effects import Table
from common.memory import Memory
from common.model import State, index_of, parse_ticket, ticket, ticket_key, ticket_of

_SCAN: Final = 5000
_GONE_MIN: Final = 4096  # places that were given up, before it pays to close the ranks


class Order:
    """The order of arrival: the ticket that came with each sequence. Some twenty bytes for a job."""

    def __init__(self) -> None:
        self._sequences = array("Q")
        self._origins = array("L")
        self._numbers = array("Q")
        self._here = bytearray()
        self._gone = 0
        self._prefixes: list[str] = []
        self._origin_of: dict[str, int] = {}

    def add(self, sequence: int, name: str) -> None:
        """Sequences only go up."""
        assert not self._sequences or sequence > self._sequences[-1], f"{name} arrives before one that is here"
        parsed = parse_ticket(name)
        assert parsed is not None, f"{name} is no ticket"
        self._sequences.append(sequence)
        self._origins.append(self._origin(parsed[0]))
        self._numbers.append(parsed[1])
        self._here.append(1)

    def _origin(self, prefix: str) -> int:
        if prefix not in self._origin_of:
            self._origin_of[prefix] = len(self._prefixes)
            self._prefixes.append(prefix)
        return self._origin_of[prefix]

    def ticket(self, sequence: int) -> str | None:
        """Who arrived then; None where that is over."""
        at = bisect_left(self._sequences, sequence)
        if at == len(self._sequences) or self._sequences[at] != sequence or not self._here[at]:
            return None
        return self._ticket(at)

    def _ticket(self, at: int) -> str:
        return ticket(self._prefixes[self._origins[at]], self._numbers[at])

    def newest_first(self) -> Iterator[str]:
        return (self._ticket(at) for at in range(len(self._sequences) - 1, -1, -1) if self._here[at])

    def remove(self, sequence: int) -> None:
        """This place is given up; it must have been added."""
        at = bisect_left(self._sequences, sequence)
        assert self._sequences[at] == sequence, f"nobody arrived with {sequence}"
        assert self._here[at], f"the place {sequence} is given up twice"
        self._here[at] = 0
        self._gone += 1
        if self._gone >= _GONE_MIN and self._gone * 2 >= len(self._here):
            self._close_up()

    def _close_up(self) -> None:
        self._sequences = array("Q", compress(self._sequences, self._here))
        self._origins = array("L", compress(self._origins, self._here))
        self._numbers = array("Q", compress(self._numbers, self._here))
        self._here = bytearray(compress(self._here, self._here))
        self._gone = 0

    def __len__(self) -> int:
        return len(self._sequences) - self._gone


@attrs.define
class _Group:
    """The live jobs of a group: their places, and of jobs that are over some, too; `count` is exact."""

    sequences: "array[int]" = attrs.field(factory=lambda: array("Q"))
    count: int = 0


@attrs.frozen
class Resting:
    """What the queue has to know of a job that rests."""

    ticket: str
    sequence: int
    kind: str
    slots: int
    priority: int
    group: str | None


class _Seen(msgspec.Struct):
    """What is looked at in a record to know whether its job rests, and where it stands."""

    sequence: int
    kind: str
    priority: int = 0
    slots: int = 1
    group: str | None = None
    leased: bool = False
    cancelled: bool = False
    retrying: bool = False
    waits_for: tuple[str, ...] = ()
    due_wall: float = 0.0
    array: str | None = None

    @property
    def rests(self) -> bool:
        held = self.leased or self.cancelled or self.retrying or self.waits_for or self.due_wall
        return not held and self.array is None


class Live:
    """Every live job, and every element of an array that has begun and not ended, by ticket."""

    def __init__(self, memory: Memory, awake_max: int) -> None:
        """With more than `awake_max` entries in memory, those rest that only wait for a node."""
        self._memory = memory
        self._awake_max = awake_max
        self.awake: dict[str, Entry] = {}
        self._resting = 0
        self._order = Order()
        self._groups: dict[str, _Group] = {}

    # --- looking -------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Entry | None:
        """The entry. Of a job that rests, one that is kept nowhere; two of them must not both be changed."""
        entry = self.awake.get(name)
        if entry is not None or not self._resting or index_of(name) is not None:
            return entry
        packed = self._memory.get(Table.LIVE, ticket_key(name))
        return None if packed is None else Entry(name, unpack(LiveRecord, packed))

    def __contains__(self, name: str) -> bool:
        if name in self.awake:
            return True
        return self._resting > 0 and self._rests(name)

    def _rests(self, name: str) -> bool:
        """Of one that is not awake."""
        return index_of(name) is None and self._memory.get(Table.LIVE, ticket_key(name)) is not None

    def __len__(self) -> int:
        return len(self.awake) + self._resting

    def arrived(self, sequence: int) -> Entry | None:
        """The job or array that arrived then, where it has not ended."""
        name = self._order.ticket(sequence)
        return None if name is None else self.get(name)

    def newest_first(self) -> Iterator[Entry]:
        """Jobs and arrays, not the elements of arrays."""
        return (entry for name in self._order.newest_first() if (entry := self.get(name)) is not None)

    def in_group(self, group: str) -> Iterator[Entry]:
        """The live jobs and arrays of a group, in the order of arrival. They may end while they are looked through."""
        return self._arrived(self._groups[group].sequences[:] if group in self._groups else ())

    def newest_in_group(self, group: str) -> Iterator[Entry]:
        """The same, the latest arrival first."""
        return self._arrived(reversed(self._groups[group].sequences) if group in self._groups else ())

    def _arrived(self, sequences: Iterable[int]) -> Iterator[Entry]:
        return (entry for sequence in sequences if (entry := self.arrived(sequence)) is not None)

    def count_in_group(self, group: str) -> int:
        return self._groups[group].count if group in self._groups else 0

    def check(self) -> None:
        assert self._resting >= 0, "fewer than no job rests"
        whole = sum(not entry.is_element for entry in self.awake.values())
        assert len(self._order) == whole + self._resting, "places and jobs are not as many"
        for name, entry in self.awake.items():
            group = entry.record.group if index_of(name) is None else None
            assert group is None or self.count_in_group(group), f"{name} is not in its group"

    # --- coming and going ----------------------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """A job, an array, or an element is live from now on."""
        self.awake[entry.ticket] = entry
        if index_of(entry.ticket) is None:
            self._take_place(entry.record.sequence, entry.ticket, entry.record.group)

    def _take_place(self, sequence: int, name: str, group: str | None) -> None:
        self._order.add(sequence, name)
        if group is not None:
            of = self._groups.setdefault(group, _Group())
            of.sequences.append(sequence)
            of.count += 1

    def wake(self, entry: Entry) -> None:
        """The entry is about to change: from now on it is in memory."""
        known = self.awake.setdefault(entry.ticket, entry)
        assert known is entry, f"two entries of {entry.ticket} are being changed"
        self._resting -= 1
        assert self._resting >= 0, f"{entry.ticket} wakes, and nothing rests"

    def may_rest(self, entry: Entry) -> None:
        """A job waits for a node: where many are in memory, it rests."""
        waits_alone = entry.array is None and index_of(entry.ticket) is None and entry.state is State.QUEUED
        if waits_alone and len(self.awake) > self._awake_max and self.awake.pop(entry.ticket, None) is not None:
            self._resting += 1

    def leave(self, entry: Entry) -> None:
        """It has ended; to be said before its record is deleted. Nothing happens for one that was not live."""
        if self.awake.pop(entry.ticket, None) is None:
            if not self._resting or not self._rests(entry.ticket):
                return
            self._resting -= 1
        if not entry.is_element:
            self._order.remove(entry.record.sequence)
            if entry.record.group is not None:
                self._leave_group(entry.record.group)

    def _leave_group(self, name: str) -> None:
        group = self._groups[name]
        group.count -= 1
        if not group.count:
            del self._groups[name]
        elif len(group.sequences) >= 2 * group.count + _GONE_MIN:
            group.sequences = array("Q", (one for one in group.sequences if self._order.ticket(one) is not None))

    # --- after a restart -----------------------------------------------------------------------------------------

    def restore(self) -> Iterator[Entry | Resting]:
        """Takes in every record, and tells of each in the order of arrival: as an entry, which is to be entered, or,
        where it rests, as little as is needed to put it in line. The elements of arrays come last."""
        names, sequences, shapes = Order(), array("Q"), array("L")
        shape_of: dict[tuple[str, int, int, str | None], int] = {}
        awake: list[Entry] = []
        after = b""
        while chunk := self._memory.scan(Table.LIVE, after=after, limit=_SCAN):
            for key, packed in chunk:
                name, seen = ticket_of(key), glance(_Seen, packed)
                if seen.rests and index_of(name) is None:
                    names.add(len(names), name)
                    sequences.append(seen.sequence)
                    shape = (seen.kind, seen.slots, seen.priority, seen.group)
                    shapes.append(shape_of.setdefault(shape, len(shape_of)))
                else:
                    awake.append(Entry(name, unpack(LiveRecord, packed)))
            after = chunk[-1][0]
        awake.sort(key=_arrival, reverse=True)
        known = list(shape_of)
        for at in sorted(range(len(sequences)), key=sequences.__getitem__):
            while awake and not awake[-1].is_element and awake[-1].record.sequence < sequences[at]:
                yield awake.pop()
            resting = Resting(names.ticket(at) or "", sequences[at], *known[shapes[at]])
            self._take_place(resting.sequence, resting.ticket, resting.group)
            self._resting += 1
            yield resting
        yield from reversed(awake)


def _arrival(entry: Entry) -> tuple[bool, int, int]:
    return entry.is_element, entry.record.sequence, index_of(entry.ticket) or 0
