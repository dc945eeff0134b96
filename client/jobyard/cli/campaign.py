"""One `map`: which of its jobs are under way, whose output is due, and whether it goes on.

    inputs ── room ──► begin() ──► under way ──► end() ──► due(), as they end or in the order of the inputs

Pure.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from jobyard.model import Ticket

AT_ONCE_MAX: Final = 10_000  # jobs under way at a time, unless told otherwise: bounds what is kept in memory here

_HALT: Final = re.compile(r"(now|soon),(fail|success|done)=([1-9][0-9]{0,8})")


class Item(NamedTuple):
    """One job: its number from 1, its inputs, and the line they make."""

    seq: int
    args: tuple[str, ...]
    line: str


class Halt(NamedTuple):
    """When not to go on. `now`: what is under way is cancelled; otherwise nothing more is submitted."""

    now: bool
    what: str  # fail, success or done
    limit: int


def halt_of(text: str) -> Halt | None:
    if text == "never":
        return None
    match = _HALT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is neither never nor like now,fail=1 or soon,fail=3 (fail, success or done)")
    return Halt(match[1] == "now", match[2], int(match[3]))


class Campaign:
    def __init__(self, at_once_max: int, keep_order: bool, halt: Halt | None) -> None:
        self.under_way: dict[Ticket, Item] = {}
        self.succeeded = 0
        self.failed = 0
        self._at_once_max = at_once_max
        self._keep_order = keep_order
        self._halt = halt
        self._due: dict[int, tuple[Item, Ticket]] = {}  # by number, in the order of their ends
        self._next_seq = 1

    @property
    def room(self) -> int:
        """How many more jobs may be begun."""
        return 0 if self.halted else self._at_once_max - len(self.under_way)

    @property
    def halted(self) -> bool:
        """Whether no more jobs are to be begun."""
        if self._halt is None:
            return False
        ended = {"fail": self.failed, "success": self.succeeded, "done": self.failed + self.succeeded}
        return ended[self._halt.what] >= self._halt.limit

    @property
    def halted_now(self) -> bool:
        """Whether what is under way is to be cancelled."""
        return self._halt is not None and self._halt.now and self.halted

    @property
    def went_well(self) -> bool:
        """Every job succeeded, or as many as were asked for."""
        return not self.failed or (self._halt is not None and self._halt.what == "success" and self.halted)

    def begin(self, item: Item, ticket: Ticket) -> None:
        self.under_way[ticket] = item

    def end(self, ticket: Ticket, *, succeeded: bool) -> bool:
        """Whether this was news: others may have jobs in the group, and an end may be told twice."""
        item = self.under_way.pop(ticket, None)
        if item is None:
            return False
        self.succeeded += succeeded
        self.failed += not succeeded
        self._due[item.seq] = item, ticket
        return True

    def due(self) -> Iterator[tuple[Item, Ticket]]:
        """The jobs whose output is to be printed now."""
        while self._due:
            seq = self._next_seq if self._keep_order else next(iter(self._due))
            if seq not in self._due:
                return
            yield self._due.pop(seq)
            self._next_seq += 1
