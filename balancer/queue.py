"""The jobs that wait for a node: the highest priority first, then the one that arrived first.

Jobs that need the same of a node (its kind allowed, as many slots) stand in one line, so that a round looks at the
head of each line and never walks past a thousand jobs that no node can take. A place is a priority and the sequence of
an arrival, and no more: a million of them are eight megabytes. It is not removed when its job is cancelled; whoever
pops it sees that the job no longer waits.

Pure.
"""

import heapq
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

import attrs

Needs: TypeAlias = tuple[str, int]
Place: TypeAlias = tuple[int, int]  # (-priority, sequence of the arrival)

_CUT_MIN: Final = 4096  # places taken before those behind are moved up


@attrs.define
class _Arrivals:
    """Sequences in their order, taken from the front."""

    sequences: "array[int]" = attrs.field(factory=lambda: array("Q"))
    first: int = 0

    def push(self, sequence: int) -> bool:
        """False where it is not the latest."""
        if self.first < len(self.sequences) and sequence <= self.sequences[-1]:
            return False
        self.sequences.append(sequence)
        return True

    def extend(self, sequences: range) -> None:
        assert not self or sequences[0] > self.sequences[-1], f"{sequences[0]} comes behind {self.sequences[-1]}"
        self.sequences.extend(sequences)

    def pop(self) -> int:
        sequence = self.sequences[self.first]
        self.first += 1
        if self.first >= _CUT_MIN and self.first * 2 >= len(self.sequences):
            del self.sequences[: self.first]
            self.first = 0
        return sequence

    def before(self, sequence: float) -> range:
        """Where they stand that come before this one."""
        return range(self.first, bisect_left(self.sequences, sequence, self.first))

    def __len__(self) -> int:
        return len(self.sequences) - self.first


class _Line:
    """One line: for each priority the arrivals, and a heap for what has come back to its older place."""

    def __init__(self) -> None:
        self._arrivals: dict[int, _Arrivals] = {}  # by -priority
        self._back: list[Place] = []
        self._head: Place | None = None  # as it was found last, until something changes

    def push(self, place: Place) -> None:
        self._head = None
        order, sequence = place
        if not self._of(order).push(sequence):
            heapq.heappush(self._back, place)

    def extend(self, order: int, sequences: range) -> None:
        self._head = None
        self._of(order).extend(sequences)

    def _of(self, order: int) -> _Arrivals:
        if order not in self._arrivals:
            self._arrivals[order] = _Arrivals()
            self._arrivals = dict(sorted(self._arrivals.items()))
        return self._arrivals[order]

    def head(self) -> Place:
        """The first; there must be one."""
        if self._head is None:
            self._head = self._find_head()
        return self._head

    def _find_head(self) -> Place:
        order, arrivals = next(iter(self._arrivals.items()), (0, None))
        if arrivals is None:
            return self._back[0]
        place = (order, arrivals.sequences[arrivals.first])
        return min(place, self._back[0]) if self._back else place

    def pop(self) -> Place:
        place, self._head = self.head(), None
        if self._back and self._back[0] == place:
            return heapq.heappop(self._back)
        arrivals = self._arrivals[place[0]]
        arrivals.pop()
        if not arrivals:
            del self._arrivals[place[0]]
        return place

    def before(self, place: Place) -> Iterator[int]:
        """The sequences that stand before a place, in no order."""
        order, sequence = place
        yield from (back[1] for back in self._back if back < place)
        for other, arrivals in self._arrivals.items():
            if other <= order:
                upto = math.inf if other < order else sequence
                yield from (arrivals.sequences[at] for at in arrivals.before(upto))

    def count_before(self, place: Place) -> int:
        order, sequence = place
        urgent = sum(len(arrivals) for other, arrivals in self._arrivals.items() if other < order)
        same = len(self._arrivals[order].before(sequence)) if order in self._arrivals else 0
        return urgent + same + sum(back < place for back in self._back)

    def in_order(self) -> Iterator[int]:
        """The sequences in the order of arrival, whatever their priority."""
        arrivals = [islice(one.sequences, one.first, None) for one in self._arrivals.values()]
        return heapq.merge(*arrivals, sorted(sequence for _, sequence in self._back))

    def __bool__(self) -> bool:
        return bool(self._arrivals or self._back)


class Queue:
    def __init__(self) -> None:
        self._lines: dict[Needs, _Line] = {}

    def push(self, needs: Needs, priority: int, sequence: int) -> None:
        self._lines.setdefault(needs, _Line()).push((-priority, sequence))

    def extend(self, needs: Needs, priority: int, sequences: range) -> None:
        """As many at once, which must come behind all that are there of their priority."""
        self._lines.setdefault(needs, _Line()).extend(-priority, sequences)

    def heads(self) -> list[tuple[Place, Needs]]:
        """The first of each line, the most urgent line first."""
        if len(self._lines) == 1:
            [(needs, line)] = self._lines.items()
            return [(line.head(), needs)]
        return sorted((line.head(), needs) for needs, line in self._lines.items())

    def only_line(self) -> Needs | None:
        """Whose needs all have that wait; None where these differ, or nobody waits."""
        return next(iter(self._lines)) if len(self._lines) == 1 else None

    def head(self, needs: Needs) -> int | None:
        """The sequence of the first of a line."""
        line = self._lines.get(needs)
        return line.head()[1] if line else None

    def pop(self, needs: Needs) -> int:
        """Takes the first of a line out."""
        line = self._lines[needs]
        _, sequence = line.pop()
        if not line:
            del self._lines[needs]
        return sequence

    def lines(self) -> list[Needs]:
        return list(self._lines)

    def oldest(self) -> Iterator[int]:
        """The sequences of all lines in the order of arrival. Some may have left the queue."""
        return heapq.merge(*(line.in_order() for line in self._lines.values()))

    def ahead_of(self, place: Place, lines: Iterable[Needs]) -> Iterator[int]:
        """The sequences in these lines that stand before a place, in no order. Some may have left the queue, and some
        may stand there twice."""
        for needs in lines:
            if needs in self._lines:
                yield from self._lines[needs].before(place)

    def count_ahead_of(self, place: Place, lines: Iterable[Needs]) -> int:
        """How many they are, counted without looking at each."""
        return sum(self._lines[needs].count_before(place) for needs in lines if needs in self._lines)

    def __bool__(self) -> bool:
        return bool(self._lines)
