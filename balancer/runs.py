"""What a restart looks at in the record of a live job: a few fields, and jobs that are alike in them together.

The records come in the order of their tickets; what follows one another by ticket has mostly arrived so, too. So a
million jobs that wait are a handful of runs, and a restart takes little more than reading their records.

Pure.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import attrs
import msgspec

from balancer.queue import Needs
from common.model import plain_ticket


class Seen(msgspec.Struct):
    """What is looked at in the record of a live job (`balancer.records.LiveRecord`)."""

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
    takes_input: bool = False

    @property
    def rests(self) -> bool:
        held = self.leased or self.cancelled or self.retrying or self.waits_for or self.due_wall
        return not (held or self.array or self.takes_input)


class Shape(NamedTuple):
    """What the jobs of a run have in common."""

    kind: str
    slots: int
    priority: int
    group: str | None
    rests: bool  # it only waits for a node

    @property
    def needs(self) -> Needs:
        return self.kind, self.slots


@attrs.frozen
class Run:
    """Jobs with this and the next sequences, and with this and the next numbers."""

    sequence: int
    prefix: str
    number: int
    count: int
    shape: Shape

    @property
    def sequences(self) -> range:
        return range(self.sequence, self.sequence + self.count)


class Runs:
    """In columns, because there may be as many as jobs."""

    def __init__(self) -> None:
        self._sequences, self._numbers, self._counts = array("Q"), array("Q"), array("Q")
        self._prefixes, self._shapes = array("I"), array("I")
        self._prefix_at: dict[str, int] = {}
        self._shape_at: dict[Shape, int] = {}
        self._next: Seen | None = None  # what would be seen of a job that goes on with the last run
        self._next_key = 0

    def take(self, key: bytes, seen: Seen) -> bool:
        """A job or array; an element is in no order but its array's. Returns whether it rests, and is done with."""
        if seen == self._next and int.from_bytes(key, "big") == self._next_key:
            self._counts[-1] += 1
        elif (named := plain_ticket(key)) is None:
            return False
        else:
            self._begin(*named, seen)
        self._next, self._next_key = seen, int.from_bytes(key, "big") + 1
        seen.sequence += 1
        return seen.rests

    def _begin(self, prefix: str, number: int, seen: Seen) -> None:
        shape = Shape(seen.kind, seen.slots, seen.priority, seen.group, seen.rests)
        self._sequences.append(seen.sequence)
        self._numbers.append(number)
        self._counts.append(1)
        self._prefixes.append(self._prefix_at.setdefault(prefix, len(self._prefix_at)))
        self._shapes.append(self._shape_at.setdefault(shape, len(self._shape_at)))

    def in_order(self) -> Iterator[Run]:
        """By their arrival."""
        prefixes, shapes = list(self._prefix_at), list(self._shape_at)
        for at in sorted(range(len(self._sequences)), key=self._sequences.__getitem__):
            yield Run(
                self._sequences[at],
                prefixes[self._prefixes[at]],
                self._numbers[at],
                self._counts[at],
                shapes[self._shapes[at]],
            )
