"""The chronicle: what happened to every job and node, in order, as JSON lines; what EVENTS answers.

    tell, tell, tell ──► flush: one record for the step ──► read: whatever is behind a cursor

Events are numbered from 1 for as long as the ledger lives. What is told in a step becomes durable with it, and costs
one record however much it is. The oldest records go when there are more than EVENTS_BYTES_MAX; what a record says
first is how many bytes were told before it, so that what is kept is the difference of two records and nothing has to
be counted, neither at a start nor while running.

    EVENTS   key: the number of its first event, 8 bytes      value: bytes told before it, 8 bytes, then JSON lines

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from balancer.cursors import read_cursor, write_cursor
from common import effects
from common.effects import Table
from common.limits import BATCH_BYTES, EVENTS_BYTES_MAX, EVENTS_PER_REPLY_MAX, LIFE_BYTES_MAX, LIFE_RECORDS_MAX
from common.memory import Memory
from common.model import Ended
from common.status import moment

_NUMBER_BYTES: Final = 8
_SCAN: Final = 16  # records read at once: one can be as large as the largest step
_DROP_SCANS_MAX: Final = 64  # so that a step drops about a thousand small records, and then leaves it to the next


_encode: Final = msgspec.json.Encoder().encode

NOW: Final = "now"  # in place of a cursor: what happens from here on


@attrs.frozen
class Told:
    """Events behind a cursor, as JSON lines, and the cursor behind them. `lost`: events that the cursor had not seen
    are no longer kept, or it is not one of this ledger's."""

    count: int
    lines: bytes
    cursor: str
    lost: bool


class Line(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One event, as it is written; what an event has nothing to say of is left out (docs/events.md has each)."""

    seq: int
    at: str
    event: str
    ticket: str | None = None
    kind: str | None = None
    name: str | None = None
    group: str | None = None
    array: str | None = None
    age_s: float | None = None
    attempt: int | None = None
    node: str | None = None
    id: str | None = None
    slots: int | None = None
    reason: str | None = None
    exit: int | None = None
    seconds: float | None = None
    wait_s: float | None = None
    placement: str | None = None
    earlier: str | None = None


class Chronicle:
    """Told by the ledger and the dispatcher; read by the clerk."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._told: list[effects.Told] = []
        self.told_last: list[effects.Told] = []  # in the last step, for observers
        self._tag = ""
        self._last = 0  # the number of the last event
        self._bytes_told = 0  # ever
        self._bytes_dropped = 0

    def restore(self, tag: str) -> None:
        """Goes on above the last event. `tag` is what its cursors begin with."""
        self._tag = tag
        # More than one is looked at, because damaged records are passed over.
        newest = self._memory.scan(Table.EVENTS, limit=_SCAN, backwards=True)
        if newest:
            key, record = newest[0]
            lines = record[_NUMBER_BYTES:]
            self._last = _number(key) + lines.count(b"\n") - 1
            self._bytes_told = _number(record) + len(lines)
            oldest = self._memory.scan(Table.EVENTS, limit=_SCAN) or newest[-1:]
            self._bytes_dropped = _number(oldest[0][1])

    # --- telling -------------------------------------------------------------------------------------------------

    def tell(self, event: str, ticket: str | None = None, **fields: object) -> None:
        """One thing that happened; `fields` are those of Line. What is None is left out."""
        self._told.append((event, ticket, fields))

    def tell_all(self, told: Iterable[effects.Told]) -> None:
        """Many things at once. Those that share their fields cost a fraction; nobody may change these afterwards."""
        self._told += told

    def tell_end(self, ticket: str, ended: Ended, event: str | None = None, **more: object) -> None:
        """A job has ended; or another `event` at the end of an attempt, of which there is more to say."""
        self.tell(event or f"job.{ended.state}", ticket, **fields_of(ended), **more)

    def flush(self, wall: float) -> int:
        """Makes one record of what was told in this step; returns how many events."""
        told, self._told, self.told_last = self._told, [], self._told
        if not told:
            return 0
        first = self._last + 1
        lines = _inert(_written(told, first, moment(wall)))
        self._memory.put(Table.EVENTS, _key(first), _key(self._bytes_told) + lines)
        self._last += len(told)
        self._bytes_told += len(lines)
        if self._bytes_told - self._bytes_dropped > EVENTS_BYTES_MAX:
            self._drop_the_oldest(_key(first))
        return len(told)

    def _drop_the_oldest(self, newest: bytes) -> None:
        """The newest always stays: it is what numbers go on from. Mostly one has to go: sixteen records of large steps
        are megabytes, and reading them in each step cost a tenth of all that was done for a job."""
        after = b""
        for limit in (1, *[_SCAN] * (_DROP_SCANS_MAX - 1)):
            if self._bytes_told - self._bytes_dropped <= EVENTS_BYTES_MAX:
                return
            for key, record in self._memory.scan(Table.EVENTS, after=after, limit=limit):
                if self._bytes_told - self._bytes_dropped <= EVENTS_BYTES_MAX or key == newest:
                    return
                self._memory.delete(Table.EVENTS, key)
                self._bytes_dropped = _number(record) + len(record) - _NUMBER_BYTES
                after = key

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, since: str | None) -> Told:
        """What was told in earlier steps, behind a cursor; without one, from the oldest that is kept. No more than
        EVENTS_PER_REPLY_MAX events and about BATCH_BYTES: the cursor goes on behind them."""
        seen = read_cursor(self._tag, since, self._last)
        kept: list[bytes] = []
        at = seen or 0
        lost = since is not None and seen is None
        room = BATCH_BYTES
        for first, lines in self._behind(at) if at < self._last else ():
            if not kept and since is not None:
                lost = lost or first > at + 1
            for number, line in enumerate(lines, first):
                if number <= at:
                    continue
                if kept and (len(kept) == EVENTS_PER_REPLY_MAX or len(line) > room):
                    return self._told_of(kept, at, lost)
                kept.append(line)
                room -= len(line)
                at = number
        return self._told_of(kept, at, lost)

    def of(self, ticket: str) -> tuple[list[bytes], bool]:
        """What was told of one job, as JSON lines, the oldest first, and whether that is all: there is no index, so
        no more than LIFE_BYTES_MAX and LIFE_RECORDS_MAX are looked through, from the newest back to its submission."""
        mark = b'"ticket":"%b"' % ticket.encode()
        found: list[bytes] = []
        looked_at, after = 0, b""
        for _ in range(LIFE_RECORDS_MAX // _SCAN):
            if looked_at >= LIFE_BYTES_MAX or len(found) >= EVENTS_PER_REPLY_MAX:
                break
            chunk = self._memory.scan(Table.EVENTS, after=after, limit=_SCAN, backwards=True)
            if not chunk:
                return found[::-1], False
            after = chunk[-1][0]
            for _, record in chunk:
                looked_at += len(record)
                if mark in record:
                    found += (line for line in reversed(record[_NUMBER_BYTES:].splitlines()) if mark in line)
                    if b'"event":"job.submitted"' in found[-1]:
                        return found[::-1], True
        return found[::-1], False

    def now(self) -> Told:
        """Nothing, and the cursor behind everything that was told in earlier steps."""
        return self._told_of([], self._last, False)

    def _told_of(self, kept: list[bytes], last: int, lost: bool) -> Told:
        return Told(len(kept), b"".join(kept), write_cursor(self._tag, last), lost)

    def _behind(self, seen: int) -> Iterator[tuple[int, list[bytes]]]:
        """The records with events behind a number: the first of each, and their lines."""
        holding = self._memory.scan(Table.EVENTS, after=_key(seen + 2), limit=1, backwards=True)
        after = b""
        while chunk := holding or self._memory.scan(Table.EVENTS, after=after, limit=_SCAN):
            for key, record in chunk:
                yield _number(key), record[_NUMBER_BYTES:].splitlines(keepends=True)
            after, holding = chunk[-1][0], []


def fields_of(ended: Ended) -> dict[str, object]:
    """What there is to say of an end."""
    return {
        "attempt": ended.attempt or None,
        "node": ended.node,
        "reason": ended.reason,
        "exit": ended.exit,
        "seconds": ended.seconds,
    }


def _written(told: Sequence[effects.Told], first: int, at: str) -> bytes:
    """As JSON lines, numbered from `first`. What is told of many jobs in the same words is made once, but for number
    and ticket: of most jobs there is nothing else to say than of those beside them."""
    lines: list[str] = []
    forms: dict[tuple[str, int], tuple[str, str]] = {}
    for number, (event, ticket, fields) in enumerate(told, first):
        form = forms.get((event, id(fields)))
        if form is None:
            form = forms[event, id(fields)] = _form(event, ticket, fields, at)
        before, behind = form
        lines.append(f'{{"seq":{number}{before}{ticket or ""}{behind}')
    return "".join(lines).encode()


def _form(event: str, ticket: str | None, fields: Mapping[str, Any], at: str) -> tuple[str, str]:
    """What stands between number and ticket, which needs no quoting, and what behind that."""
    line = _encode(Line(0, at, event, ticket, **fields)).decode().removeprefix('{"seq":0') + "\n"
    if ticket is None:
        return line, ""
    before, _, behind = line.partition(f'"{ticket}"')
    return f'{before}"', f'"{behind}'


def _inert(lines: bytes) -> bytes:
    """JSON leaves in a string what some terminals act on (DEL, the controls from 80 on, changes of direction); here it
    is escaped, as replies are, so that EVENTS can be read where it is typed."""
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return "".join(
        character if character.isprintable() or character == "\n" else _escaped(character)
        for character in lines.decode()
    ).encode()


def _escaped(character: str) -> str:
    """As JSON writes it, in units of UTF-16."""
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _key(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big")


def _number(data: bytes) -> int:
    return int.from_bytes(data[:_NUMBER_BYTES], "big")
