"""The jobs of an origin whose end it does not know. Each has a record on disk; in memory is what that does not tell.

What was last heard of a job is kept for some of them, the others rest: of those it is only known that they live, and,
asked for, as much as they said when they were submitted. So a million jobs that wait at the ledger cost nothing here.
What may not be forgotten is *held*: when a delayed job was submitted by the monotonic clock, and what its origin has
leased to itself.

Pure; the records are the intake's to write.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
import msgspec

from common.codec import Record, glance, pack, unpack
from common.effects import Table
from common.memory import Memory
from common.model import State, fresh_key, parse_ticket, ticket, ticket_key, ticket_of

_SCAN: Final = 500
_UNLEASED: Final = b""  # the record of a job that we have not leased to ourselves


@attrs.frozen
class Own:
    """What we last knew of a live job of ours; `as_of` is a monotonic moment. Jobs that came together share one."""

    state: State | None  # None: nothing since it was submitted, and the job says what it was then
    attempt: int
    as_of: float


class OwnLease(Record, frozen=True):
    """An attempt that an origin gave itself, and the boot that it gave it to. It stands in the live record of its job,
    which is empty otherwise."""

    attempt: int
    boot_id: str


class _Submitted(msgspec.Struct):
    """What is looked at in a packed job."""

    submitted_wall: float = 0.0


class Live:
    """By ticket; of one origin."""

    def __init__(self, prefix: str, memory: Memory, awake_max: int) -> None:
        """What was last heard is kept of `awake_max` jobs at most."""
        self._prefix = prefix
        self._memory = memory
        self._awake_max = awake_max
        self._heard: dict[str, Own] = {}
        self._held: dict[str, Own] = {}
        self._count = 0
        self._began_at = self._began_wall = 0.0  # this boot
        self._issued_before = 0

    def restore(self, now: float, wall: float, last: int) -> None:
        """`last` is the highest number that was issued before this boot."""
        self._count = self._memory.count(Table.LIVE)
        self._began_at, self._began_wall, self._issued_before = now, wall, last

    # --- looking -------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        if name in self._heard or name in self._held:
            return True
        some_rest = self._count > len(self._heard) + len(self._held)
        return some_rest and isinstance(name, str) and self._record(name) is not None

    def _record(self, name: str) -> bytes | None:
        parsed = parse_ticket(name)
        ours = parsed is not None and parsed[0] == self._prefix
        return self._memory.get(Table.LIVE, ticket_key(name)) if ours else None

    def get(self, name: str) -> Own | None:
        """What we know of it. Of one that rests that is made for the asking, and kept nowhere."""
        own = self._heard.get(name) or self._held.get(name)
        if own is not None or name not in self:
            return own
        lease = self.lease(name)
        return Own(None, 0 if lease is None else lease.attempt, self._submitted_at(name))

    def _submitted_at(self, name: str) -> float:
        """By the calendar; but what was issued before this boot was so even where the calendar was set back since."""
        job = self._memory.get(Table.JOBS, ticket_key(name))
        submitted_wall = glance(_Submitted, job).submitted_wall if job else self._began_wall
        at = self._began_at + submitted_wall - self._began_wall
        _, number = parse_ticket(name) or ("", 0)
        return min(at, self._began_at) if number <= self._issued_before else at

    def lease(self, name: str) -> OwnLease | None:
        """The attempt that we gave ourselves."""
        packed = self._memory.get(Table.LIVE, ticket_key(name))
        return unpack(OwnLease, packed) if packed else None

    def __len__(self) -> int:
        return self._count

    def behind(self, number: int, limit: int) -> list[str]:
        """Those with the next higher numbers."""
        after = ticket_key(ticket(self._prefix, number))
        return [ticket_of(key) for key, _ in self._memory.scan(Table.LIVE, after=after, limit=limit)]

    def newest_first(self) -> Iterator[str]:
        after = b""
        while chunk := self._memory.scan(Table.LIVE, after=after, limit=_SCAN, backwards=True):
            yield from (ticket_of(key) for key, _ in chunk)
            after = chunk[-1][0]

    # --- coming and going ----------------------------------------------------------------------------------------

    def enter(self, name: str, own: Own, *, hold: bool = False) -> None:
        self._count += 1
        if hold:
            self._held[name] = own
        elif len(self._heard) < self._awake_max:
            self._heard[name] = own

    def enter_in_a_row(self, names: Sequence[str], own: Own) -> None:
        """The same is known of all of these."""
        self._count += len(names)
        self._heard.update(dict.fromkeys(names[: max(0, self._awake_max - len(self._heard))], own))

    def hold(self, name: str, own: Own) -> None:
        """This is known of it from here on, and not to be forgotten."""
        self._heard.pop(name, None)
        self._held[name] = own

    def hear(self, name: str, state: State, attempt: int | None, now: float) -> None:
        """The ledger has spoken of it; `attempt` is None where it did not say. The one heard of first is forgotten
        for it where there are too many."""
        own = self.get(name)
        if own is None:
            return
        own = Own(state, own.attempt if attempt is None else attempt, now)
        if name in self._held:
            self._held[name] = own
            return
        self._heard[name] = own
        if len(self._heard) > self._awake_max:
            del self._heard[next(iter(self._heard))]

    def leave(self, name: str) -> bool:
        """It has ended, or is none any more; to be said before its record is deleted. False where it was not live."""
        known = self._heard.pop(name, None) or self._held.pop(name, None)
        if known is None and name not in self:
            return False
        self._count -= 1
        return True

    def leave_in_a_row(self, names: Iterable[str]) -> list[bool]:
        """Which of these were live and have left. Of those that are held nothing is said here, but as of what is not
        live."""
        heard, some_rest = self._heard, self._count > len(self._heard) + len(self._held)
        left: dict[str, None] = {}
        have_left: list[bool] = []
        for name in names:
            was_live = heard.pop(name, None) is not None
            if not was_live and some_rest and name not in left and name not in self._held:
                was_live = self._memory.get(Table.LIVE, fresh_key(name)) == _UNLEASED
            if was_live:
                left[name] = None
            have_left.append(was_live)
        self._count -= len(left)
        return have_left

    def check(self) -> None:
        assert self._count >= len(self._heard) + len(self._held), "fewer jobs live than something is known of"
        for name in (*self._heard, *self._held):
            assert self._record(name) is not None, f"{name} is live and has no record"


def own_lease(attempt: int, boot_id: str) -> bytes:
    """The live record of a job that its origin has leased to itself."""
    return pack(OwnLease(attempt, boot_id))
