"""The jobs that have not ended. Those of which something must be known at once are entries in memory; the others rest
on disk, and in memory there is no more of them than their place in the order of arrival.

    arrives ──► awake ──► rests, where many wait for a node ──► awake again, when it is leased, cancelled …

A job that only waits for a node is all in its record, so nothing is lost when its entry is let go: asked for, it is
made anew from the record, and with its first change it takes its place among the entries in memory again. Within a
step whoever asks for a job is given the same entry; from one step to the next nobody keeps that of a job that rests.
So a million jobs wait in some ten megabytes. An array and its elements never rest, and neither
does a job with an input: what it wants is kept for it.

Pure.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from balancer.census import RESTING, Census, counted
from balancer.order import Order
from balancer.records import Entry, LiveRecord
from balancer.runs import Run, Runs, Seen
from common.codec import glance, unpack
from common.effects import Table
from common.memory import Memory
from common.model import State, array_of, index_of, is_element, parse_ticket, ticket_key, ticket_of

_SCAN: Final = 5000
_NOBODY: Final = Order()  # of a group that has no live job; never added to


class Live:
    """Every live job, and every element of an array that has begun and not ended, by ticket."""

    def __init__(self, memory: Memory, awake_max: int) -> None:
        """With more than `awake_max` entries in memory, those rest that only wait for a node."""
        self._memory = memory
        self._awake_max = awake_max
        self.awake: dict[str, Entry] = {}
        self._resting = 0
        self._looked_at: dict[str, Entry] = {}  # in this step, of those that rest
        self._changed: dict[bytes, Entry] = {}  # in this step, to be saved at its end
        self._order = Order()
        self._groups: dict[str, Order] = {}
        self.census = Census()

    # --- looking -------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Entry | None:
        entry = self.awake.get(name)
        if entry is not None or not self._resting or is_element(name):
            return entry
        entry = self._looked_at.get(name)
        if entry is None and (packed := self._memory.get(Table.LIVE, ticket_key(name))) is not None:
            entry = self._looked_at[name] = Entry(name, unpack(LiveRecord, packed), counted=RESTING)
        return entry

    def __contains__(self, name: str) -> bool:
        if name in self.awake:
            return True
        if not self._resting or is_element(name):
            return False
        return name in self._looked_at or self._memory.get(Table.LIVE, ticket_key(name)) is not None

    def __len__(self) -> int:
        return len(self.awake) + self._resting

    def name(self, sequence: int) -> str | None:
        """The ticket of the job or array that arrived then, where it has not ended."""
        return self._order.ticket(sequence)

    def arrived(self, sequence: int) -> Entry | None:
        """The same, as an entry; None also where its record was damaged and set aside."""
        name = self._order.ticket(sequence)
        return None if name is None else self.get(name)

    @property
    def last(self) -> int:
        """The highest sequence that anybody has arrived with."""
        return self._order.last

    def arrived_as(self, name: str) -> int | None:
        """Its sequence, where its record cannot tell."""
        return self._order.sequence_of(name)

    def newest_first(
        self, group: str | None, *, resting: bool, before: int | None = None, state: State | None = None
    ) -> Iterator[Entry]:
        """Jobs and arrays, not the elements of arrays; of all groups, or of one; that arrived before a sequence, where
        one is named. Not those that rest where nobody wants them: they are all queued, and may be a million. Then
        others than those in `state`, where one is named, are left out before they are sorted: these may be many too."""
        if not resting:
            if state is not None and not self._may_be_in(state):
                return
            first = math.inf if before is None else before
            there = (one for one in self.awake.values() if state is None or one.state is state)
            jobs = (one for one in there if not one.is_element and one.record.sequence < first)
            wanted = (one for one in jobs if group in (None, one.record.group))
            yield from sorted(wanted, key=lambda entry: -entry.record.sequence)
            return
        order = self._order if group is None else self._groups.get(group, _NOBODY)
        sequence = order.last_before(before)
        while sequence is not None:
            if (entry := self.arrived(sequence)) is not None:
                yield entry
            sequence = order.last_before(sequence)

    def _may_be_in(self, state: State) -> bool:
        """A cancelled array is counted by what has not begun of it, and so in another state."""
        return state is State.CANCELLED or self.census.counts.get(state, 0) > 0

    def in_group(self, group: str) -> Iterator[Entry]:
        """The jobs and arrays of a group, in the order of arrival. They may end while they are gone through."""
        sequence = self._groups.get(group, _NOBODY).first_behind(0)
        while sequence is not None:
            if (entry := self.arrived(sequence)) is not None:
                yield entry
            sequence = self._groups.get(group, _NOBODY).first_behind(sequence)

    def count_in_group(self, group: str) -> int:
        return len(self._groups.get(group, _NOBODY))

    def check(self) -> None:
        assert not self._changed, "a step is over, and some of what it changed is not saved"
        whole = [entry for entry in self.awake.values() if not entry.is_element]
        assert self._resting >= 0, "fewer than no job rests"
        assert len(self._order) == len(whole) + self._resting, "places and jobs are not as many"
        for entry in whole:
            sequence, group = entry.record.sequence, entry.record.group
            assert self._order.ticket(sequence) == entry.ticket, f"{entry.ticket} is not in its place {sequence}"
            assert group is None or self._groups[group].ticket(sequence) == entry.ticket, f"{entry.ticket} in {group}"
        self._check_census()

    def _check_census(self) -> None:
        found = Census()
        found.rest(self._resting)
        for entry in self.awake.values():
            state, jobs = counted(entry)
            found.counts[state] += jobs
        assert found.counts == self.census.counts, f"there are {found.counts}, and counted {self.census.counts}"

    # --- coming and going ----------------------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """A job, an array, or an element is live from now on."""
        self.awake[entry.ticket] = entry
        if not entry.is_element:
            prefix, number = parse_ticket(entry.ticket) or ("", 0)
            self._take_places(entry.record.sequence, prefix, number, 1, entry.record.group)

    def _take_places(self, sequence: int, prefix: str, number: int, count: int, group: str | None) -> None:
        self._order.add(sequence, prefix, number, count)
        if group is not None:
            if group not in self._groups:
                self._groups[group] = Order()
            self._groups[group].add(sequence, prefix, number, count)

    def enter_in_a_row(self, entries: Sequence[Entry], prefix: str, number: int) -> None:
        """So many jobs are live from now on, which are in line for a node. Their sequences and the numbers of their
        tickets follow each other; all are of one group, or none of any."""
        record = entries[0].record
        self._take_places(record.sequence, prefix, number, len(entries), record.group)
        self.census.count(None, State.QUEUED, len(entries))
        for entry in entries:
            entry.counted = RESTING
            self.awake[entry.ticket] = entry
            self._changed[entry.key] = entry
        for entry in reversed(entries):  # whose turn comes first stays
            if len(self.awake) <= self._awake_max:
                break
            self.may_rest(entry)

    def changed(self, entry: Entry) -> None:
        """Its record is not what is on disk. That will be so again at the end of the step: until then it may change
        further."""
        if entry.ticket not in self.awake:
            self.wake(entry)
        self._changed[entry.key] = entry

    def note(self, entry: Entry) -> None:
        """The entry has changed, and with it perhaps how many jobs are in which state."""
        self.census.note(entry)
        if entry.is_element and (array := self.awake.get(array_of(entry.ticket))) is not None:
            self.census.note(array)

    def wake(self, entry: Entry) -> None:
        """The entry is about to change: from now on it is in memory."""
        assert self._looked_at.pop(entry.ticket, None) is entry, f"an old entry of {entry.ticket} is being changed"
        self.awake[entry.ticket] = entry
        self._resting -= 1

    def may_rest(self, entry: Entry) -> None:
        """A job waits for a node: where many are in memory, it rests."""
        if len(self.awake) <= self._awake_max or entry.array is not None or entry.is_element:
            return
        if entry.record.takes_input:
            return
        if entry.state is State.QUEUED and self.awake.pop(entry.ticket, None) is not None:
            self._looked_at[entry.ticket] = entry
            self._resting += 1

    def step_is_over(self) -> None:
        """What has changed is saved, and the entries of those that rest are let go."""
        if self._changed:
            changed, self._changed = self._changed, {}
            self._memory.writes_to(Table.LIVE).update((key, entry.packed) for key, entry in changed.items())
        self._looked_at.clear()

    def leave(self, entry: Entry) -> None:
        """It has ended. Nothing happens for one that was not live."""
        name, record = entry.ticket, entry.record
        self._changed.pop(entry.key, None)
        was_awake = self.awake.pop(name, None) is not None
        was_counted = entry.counted is not None
        self.census.forget(entry)
        if entry.is_element or not self._order.remove(record.sequence, name):
            return
        if not was_awake:
            self._resting -= 1
            self.census.rest(0 if was_counted else -1)
            self._looked_at.pop(name, None)
        if record.group is not None:
            self._leave_group(record.group, entry)

    def _leave_group(self, group: str, entry: Entry) -> None:
        order = self._groups[group]
        order.remove(entry.record.sequence, entry.ticket)
        if not order:
            del self._groups[group]

    def leave_in_a_row(self, entries: Sequence[Entry]) -> None:
        """These have ended, which were leased; none of them is of an array."""
        awake, changed, census = self.awake, self._changed, self.census
        removed = self._memory.writes_to(Table.LIVE)
        for entry in entries:
            del awake[entry.ticket]
            changed.pop(entry.key, None)
            removed[entry.key] = None
            census.forget(entry)
            if entry.record.group is not None:
                self._leave_group(entry.record.group, entry)
        self._order.vacate(entry.record.sequence for entry in entries)

    # --- after a restart -----------------------------------------------------------------------------------------

    def restore(self) -> tuple[list[Entry], list[Run]]:
        """Takes in every record. Returns the entries of those that do not rest, in the order of arrival, the elements
        of arrays last; and the runs of those that do, which are to be put in line."""
        runs, entries, after = Runs(), list[Entry](), b""
        while chunk := self._memory.scan(Table.LIVE, after=after, limit=_SCAN):
            for key, packed in chunk:
                if not runs.take(key, glance(Seen, packed)):
                    entries.append(Entry(ticket_of(key), unpack(LiveRecord, packed)))
            after = chunk[-1][0]
        resting: list[Run] = []
        for run in runs.in_order():
            self._take_places(run.sequence, run.prefix, run.number, run.count, run.shape.group)
            if run.shape.rests:
                self._resting += run.count
                resting.append(run)
        entries.sort(key=_arrival)
        self.awake.update((entry.ticket, entry) for entry in entries)
        self.census.rest(self._resting)
        return entries, resting


def _arrival(entry: Entry) -> tuple[bool, int, int]:
    return entry.is_element, entry.record.sequence, index_of(entry.ticket) or 0
