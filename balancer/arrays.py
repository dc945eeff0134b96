"""Arrays: one row of the ledger for a hundred thousand jobs, and one more for each that has begun.

    elements  0 1 2 3 4 5 6 7 8 9 …
              └──┬──┘ ▲     └─ ahead: one that was cancelled, or adopted from a node, before its turn
           begun ─┘   └─ next: from here on they exist only as a number

An element that begins becomes an entry of its own, with attempts, retries and an outcome like any job. In the queue
stands the array alone, and when its turn comes an element is taken: one that has come back, or else the next number.
The array has ended when each of its elements has.

Pure. The ledger alone changes an array, and saves its record with the step.
"""

import heapq
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from common.arrays import Indexes
from common.codec import Record
from common.model import Ended, Reason, State, element, index_of

if TYPE_CHECKING:
    from balancer.records import Entry

_LIVE_ORDER: Final = (State.RUNNING, State.DISPATCHED, State.RETRYING, State.QUEUED)


class ArrayRecord(Record, frozen=True):
    """What is on disk of an array besides its own record: how far it is."""

    next: int = 0
    ahead: tuple[int, ...] = ()
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: Ended | None = None
    reason: Reason | None = None


@attrs.define(eq=False)
class Array:
    """How far an array is."""

    ticket: str
    indexes: Indexes
    next: int = 0  # the position of the first element whose turn has not come
    ahead: set[int] = attrs.field(factory=set)  # positions from there on that have begun or ended all the same
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    dropped: Ended | None = None  # the end of what had not begun when the array was cancelled
    reason: Reason | None = None  # of the first element that failed
    live: dict[str, "Entry"] = attrs.field(factory=dict)  # elements that have begun and not ended, by ticket
    back: list[tuple[int, str]] = attrs.field(factory=list)  # heap of those among them that wait for a node again
    leased: set[str] = attrs.field(factory=set)  # those that a node has
    in_line: bool = False  # has its place in the queue

    @classmethod
    def of(cls, ticket: str, indexes: Indexes, record: ArrayRecord) -> "Array":
        return cls(ticket, indexes, **msgspec.structs.asdict(record) | {"ahead": set(record.ahead)})

    @property
    def record(self) -> ArrayRecord:
        return ArrayRecord(
            self.next,
            tuple(sorted(self.ahead)),
            self.succeeded,
            self.failed,
            self.cancelled,
            self.dropped,
            self.reason,
        )

    # --- counting ------------------------------------------------------------------------------------------------

    @property
    def unbegun(self) -> int:
        """Elements that are only a number."""
        return len(self.indexes) - self.next - len(self.ahead)

    @property
    def over(self) -> bool:
        return self._ended + (self.unbegun if self.dropped else 0) == len(self.indexes)

    @property
    def _ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled

    def begun(self) -> list[str]:
        """The tickets of all that have begun, if they are not all accounted for; else none, and cheaply."""
        if self._ended + len(self.live) == self.next + len(self.ahead):
            return []
        return [element(self.ticket, self.indexes.at(position)) for position in (*range(self.next), *self.ahead)]

    @property
    def has_room(self) -> bool:
        """Whether one more of its elements may begin."""
        at_once_max = self.indexes.at_once_max
        if at_once_max is not None and len(self.leased) >= at_once_max:
            return False
        return self.waiting > 0 or self._first_back() is not None

    @property
    def waiting(self) -> int:
        """Elements that are only a number, and whose turn will come."""
        return 0 if self.dropped else self.unbegun

    def counts(self, unbegun: State = State.QUEUED) -> dict[State, int]:
        """How many elements are in which state; those that are only numbers are in the array's own."""
        counts = dict.fromkeys(State, 0)
        for entry in self.live.values():
            counts[entry.state] += 1
        counts[unbegun] += self.waiting
        counts[State.SUCCEEDED] += self.succeeded
        counts[State.FAILED] += self.failed
        counts[State.CANCELLED] += self.cancelled + (self.unbegun if self.dropped else 0)
        return counts

    @property
    def state(self) -> State:
        """Of an array that is neither cancelled nor held back: the busiest of its elements' states."""
        states = {entry.state for entry in self.live.values()}
        return next((state for state in _LIVE_ORDER if state in states), State.QUEUED)

    def end(self, wall: float, cancelled_because: Reason) -> Ended:
        """What is recorded of the array when it is over."""
        counts = self.counts()
        reason: Reason | None
        if counts[State.FAILED]:
            state, reason = State.FAILED, self.reason
        elif counts[State.CANCELLED]:
            state, reason = State.CANCELLED, cancelled_because
        else:
            state, reason = State.SUCCEEDED, None
        ended = tuple((str(name), counts[name]) for name in (State.SUCCEEDED, State.FAILED, State.CANCELLED))
        return Ended(state, wall, reason, counts=ended)

    # --- elements ------------------------------------------------------------------------------------------------

    def is_number(self, ticket: str) -> bool:
        """Whether this is an element that has neither begun nor ended by itself."""
        index = index_of(ticket)
        if index is None or index not in self.indexes:
            return False
        position = self.indexes.position(index)
        return position >= self.next and position not in self.ahead

    def come_back(self, ticket: str) -> None:
        """An element waits for a node again."""
        heapq.heappush(self.back, (index_of(ticket) or 0, ticket))

    def _first_back(self) -> "Entry | None":
        while self.back:
            entry = self.live.get(self.back[0][1])
            if entry is not None and entry.state is State.QUEUED:
                return entry
            heapq.heappop(self.back)
        return None

    def take_back(self) -> "Entry | None":
        """The first of those that wait again; from now on it does not."""
        entry = self._first_back()
        if entry is not None:
            heapq.heappop(self.back)
        return entry

    def next_number(self) -> str:
        """The first element that is only a number; there must be one."""
        while self.next in self.ahead:
            self.ahead.remove(self.next)
            self.next += 1
        return element(self.ticket, self.indexes.at(self.next))

    def begin(self, ticket: str) -> None:
        """An element is more than a number from now on; mostly it is its turn."""
        assert self.is_number(ticket), f"{ticket} has begun before"
        position = self.indexes.position(index_of(ticket) or 0)
        if position == self.next:
            self.next += 1
        else:
            self.ahead.add(position)

    def count(self, state: State, by: int, reason: Reason | None = None) -> None:
        """One more element, or one less, has ended so."""
        match state:
            case State.SUCCEEDED:
                self.succeeded += by
            case State.FAILED:
                self.failed += by
                self.reason = (self.reason or reason) if self.failed else None
            case _:
                self.cancelled += by

    def check(self) -> None:
        numbers = (self.next, self.succeeded, self.failed, self.cancelled, self.unbegun)
        assert min(numbers) >= 0, f"{self.ticket} counts below nothing: {self.record}"
        assert not self.begun(), f"the elements of {self.ticket} are miscounted: {self.record}"
        back = {ticket for _, ticket in self.back}
        for ticket, entry in self.live.items():
            assert entry.state is not State.QUEUED or ticket in back, f"{ticket} waits for a node and is not offered"
        leased = {ticket for ticket, entry in self.live.items() if entry.record.leased}
        assert self.leased == leased, f"{self.ticket} has {leased} at nodes, and counts {self.leased}"
        assert not self.ahead or min(self.ahead) >= self.next, f"{self.ticket} has passed {min(self.ahead)} by"
