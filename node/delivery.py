"""On their way to the ledger: the jobs of an origin that it is not known to have, in the order of their tickets.

    unsent ──► in flight ──► acknowledged
      ▲            │
      └─ link lost ┘

A job is sent as often as it takes; the ledger knows its ticket and takes it once. What it has acknowledged is
remembered as a watermark, because acknowledgements follow the order of the tickets. A second mark says how far any job
was ever written to a link: of those above it nobody else can know, so of them alone a node may decide by itself while
it has no balancer (`node/fallback.py`).

Of the unsent only the next are in memory; the others are read from disk when it is their turn.

A ledger that we have not met before gets everything again, the ended jobs with their ends.

Pure; everything durable goes through the Memory.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

import msgspec

from common.codec import glance
from common.effects import Table
from common.history import History
from common.limits import BATCH_BYTES
from common.memory import Memory
from common.messages import Submission
from common.model import PREFIX_CHARACTERS, ticket, ticket_key, ticket_of
from node.live import Live, OwnLease

_WATERMARK = b"acknowledged_number"
_SENT = b"sent_number"
_LEDGER = b"ledger_id"
_OUTLIVED = b"ledgers_outlived"
_ISSUED_BEFORE = b"issued_before_the_last_was_lost"
_WINDOW_ITEMS = 20_000  # sent and not acknowledged: hides the round trip
_WINDOW_BYTES = 32 * BATCH_BYTES
_AT_HAND_MAX: Final = 5000  # new jobs that are in memory until they are sent, and what came together with the last
_AT_HAND_BYTES: Final = 1000  # each of them at most
_SCAN = 500
_BEHIND_ALL = b"\xff"


class _Sent(msgspec.Struct):
    """What is looked at in a packed job each time it is sent."""

    submitted_wall: float = 0.0
    body_bytes: int = 0


_NO_LEASE: Final = OwnLease(0, "")


class Delivery:
    """What the ledger has still to learn. `live` are the jobs whose end is not known."""

    def __init__(self, prefix: str, memory: Memory, history: History, live: Live, awake_max: int) -> None:
        """With more than `awake_max` unsent, those behind them are on disk alone."""
        self._prefix = prefix
        self._memory = memory
        self._history = history
        self._live = live
        self._last = 0  # the highest ticket number
        self._watermark = 0
        self._sent = 0  # no job of a higher number was ever written to a link
        self._outlived = self._issued_before = 0
        self._read_max = max(1, awake_max)
        self._unsent: deque[str] = deque()  # the next of them
        self._upto = 0  # those of a higher number are on disk alone
        self._at_hand: dict[str, tuple[bytes, float]] = {}  # unsent plain jobs → packed, and when they were submitted
        self._in_flight: dict[str, int] = {}  # ticket → bytes
        self._bytes_in_flight = 0
        self.of_group = False  # whether any of the unsent that are new has a group
        self.damaged: list[str] = []  # live jobs whose record is in quarantine: nobody can run them
        self._revived: set[str] = set()  # above the watermark, and the ledger has them all the same
        self._untold: set[str] = set()  # keyed jobs whose client waits for the ledger's word on the key
        self._learning: bytes | None = None  # the ledger that still has to learn; durable as ours when it has
        self._telling: set[str] = set()  # ended jobs that the ledger is not known to have
        self._history_after: bytes | None = None  # cursor of the ended jobs that a new ledger still has to learn

    def restore(self, last: int) -> None:
        self._last = last
        self._watermark, self._sent = self._number(_WATERMARK), self._number(_SENT)
        self._outlived, self._issued_before = self._number(_OUTLIVED), self._number(_ISSUED_BEFORE)
        self._telling = set(self._ended_above_the_watermark())
        self._upto = self._watermark

    def _number(self, key: bytes) -> int:
        return int(self._memory.get(Table.META, key) or b"0")

    def _ended_above_the_watermark(self) -> list[str]:
        """Jobs that may have ended before any ledger knew of them."""
        found: list[str] = []
        after = ticket_key(ticket(self._prefix, self._watermark))
        while chunk := self._memory.scan(Table.ENDED, after=after, limit=10 * _SCAN):
            found += [ticket_of(key) for key, _ in chunk]
            after = chunk[-1][0]
        return found

    # --- what there is to deliver --------------------------------------------------------------------------------

    def add(self, name: str, number: int, *, of_group: bool) -> None:
        """A new ticket, the highest, and its number."""
        self.of_group = self.of_group or of_group
        behind_all, self._last = self._upto == self._last, number
        if behind_all and len(self._unsent) < self._read_max:
            self._unsent.append(name)
            self._upto = number

    def add_in_a_row(self, names: Sequence[str], jobs: Sequence[bytes], number: int, wall: float) -> None:
        """New tickets one behind the other, the last of which has this number; their jobs have no group, no key and no
        body, and are kept at hand for as long as nothing has become of them, which is mostly until they are sent."""
        behind_all, self._last = self._upto == self._last, number
        room = self._read_max - len(self._unsent) if behind_all else 0
        if room <= 0 or not names:
            return
        self._unsent.extend(names[:room])
        self._upto = number_of(self._unsent[-1])
        if len(self._at_hand) < _AT_HAND_MAX and max(map(len, jobs)) <= _AT_HAND_BYTES:
            self._at_hand.update(zip(names[:room], zip(jobs, repeat(wall), strict=False), strict=False))

    def revived(self, name: str) -> None:
        """An ended job is live again by the ledger's word: so it has it."""
        self._telling.discard(name)
        if number_of(name) > self._watermark:
            self._revived.add(name)

    def ended(self, name: str) -> None:
        """This job has ended: mostly the ledger has told so."""
        self._revived.discard(name)
        self._at_hand.pop(name, None)

    def ended_in_a_row(self, names: Iterable[str]) -> None:
        if self._revived or self._at_hand:
            for name in names:
                self.ended(name)

    def leased_here(self, name: str) -> None:
        """We have leased this job to ourselves."""
        self._at_hand.pop(name, None)

    def ended_here(self, name: str) -> None:
        """We have decided the end of this job, and the ledger has to learn of it."""
        self._telling.add(name)

    def gone(self, name: str) -> None:
        """Nothing of this job is left to be told."""
        self._revived.discard(name)
        self._at_hand.pop(name, None)
        self._telling.discard(name)
        self._has_learned()

    # --- keys ----------------------------------------------------------------------------------------------------

    def claiming(self, name: str) -> None:
        """The client of this keyed job has not been told `OK` yet: the ledger may still refuse the key."""
        self._untold.add(name)

    def told(self, name: str) -> None:
        """Its client is told `OK` although the ledger has not spoken: it cannot be asked, or it has no room."""
        self._untold.discard(name)

    def told_meanwhile(self, name: str) -> bool:
        """The ledger refused this job for its key; whether its client had been told `OK` by then. If so it stays in
        flight, to be sent once more as one that can no longer be refused."""
        return name not in self._untold and name in self._live

    # --- what the ledger has -------------------------------------------------------------------------------------

    @property
    def watermark(self) -> int:
        """The ledger has all tickets up to this number."""
        return self._watermark

    def revived_beyond_it(self) -> list[str]:
        """The live jobs with a higher number that it has as well."""
        return [name for name in self._revived if name in self._live]

    def unacknowledged(self, name: str) -> bool:
        """Whether the ledger is not known to have this job."""
        if name in self._in_flight:
            return True
        return number_of(name) > self._watermark and name not in self._revived and name in self._live

    def end_is_unacknowledged(self, name: str) -> bool:
        """Whether the ledger is not known to have the end of this ended job."""
        return name in self._telling

    def never_sent(self, name: str) -> bool:
        """Whether this is a live job that nobody but us can know of."""
        return number_of(name) > self._sent and name in self._live

    def next_never_sent(self, after: str | None, limit: int) -> list[str]:
        """The oldest such jobs behind `after`."""
        return self._live.behind(self._sent if after is None else number_of(after), limit)

    # --- sending -------------------------------------------------------------------------------------------------

    def link_opened(self, ledger_id: str) -> bool:
        """Starts over with what is not acknowledged, as it is on disk; where this ledger is new to us, with all."""
        self._at_hand.clear()
        known = self._memory.get(Table.META, _LEDGER)
        fresh = known is not None and known != ledger_id.encode()
        if known is None:
            self._memory.put(Table.META, _LEDGER, ledger_id.encode())
        if fresh:
            self._begin_anew(ledger_id)
        else:
            self.send_again()
        return fresh

    def _begin_anew(self, ledger_id: str) -> None:
        self._learning = ledger_id.encode()
        self._telling.clear()
        self._outlive()
        self._revived.clear()
        self._watermark = 0
        self._memory.put(Table.META, _WATERMARK, b"0")
        self._history_after = b""
        self._unsent.clear()
        self._upto = 0
        self._in_flight.clear()
        self._bytes_in_flight = 0

    def _outlive(self) -> None:
        """Another ledger is lost, and with it the numbers of the attempts that it gave out of the jobs issued so
        far."""
        self._outlived, self._issued_before = self._outlived + 1, self._last
        self._memory.put(Table.META, _OUTLIVED, b"%d" % self._outlived)
        self._memory.put(Table.META, _ISSUED_BEFORE, b"%d" % self._issued_before)

    def send_again(self) -> None:
        """What is in flight did not get through; it is next in line."""
        self._unsent.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._bytes_in_flight = 0

    @property
    def waits(self) -> bool:
        """Whether there is anything that could be sent, or read from disk to be."""
        return bool(self._unsent) or self._upto < self._last or self._history_after is not None

    def to_send(self, wall: float) -> list[Submission]:
        """The next jobs for the ledger, as many as the window has room for."""
        submissions: list[Submission] = []
        marked, self.of_group = self._sent, False
        while self._room() and (self._unsent or self._read_on()):
            if self._unsent[0] in self._at_hand:
                submissions += self._at_hand_to_send(wall)
                continue
            name = self._unsent.popleft()
            job, live = self._memory.get(Table.JOBS, ticket_key(name)), name in self._live
            if job is None:
                self.damaged += [name] if live else []
            elif live or self._still_to_tell(name):
                submissions.append(self._send(name, job, wall, ended=not live))
        if self._history_after is not None and not self._unsent:
            submissions += self._ended_to_send(wall)
        if self._sent > marked:
            self._memory.put(Table.META, _SENT, b"%d" % self._sent)
        return submissions

    def _at_hand_to_send(self, wall: float) -> list[Submission]:
        """The next jobs, as far as they are at hand, the first of which is: there is nothing to look up for them."""
        unsent, at_hand, in_flight = self._unsent, self._at_hand, self._in_flight
        submissions: list[Submission] = []
        while unsent and self._room() and (found := at_hand.pop(unsent[0], None)) is not None:
            name, (job, submitted_wall) = unsent.popleft(), found
            submissions.append(Submission(name, job, age_s=max(0.0, wall - submitted_wall)))
            in_flight[name] = len(job)
            self._bytes_in_flight += len(job)
        self._sent = max(self._sent, number_of(submissions[-1].ticket))
        return submissions

    def _read_on(self) -> bool:
        """Takes the next unsent ones from disk, in the order of their numbers; whether there were any."""
        while not self._unsent and self._upto < self._last:
            after = ticket_key(ticket(self._prefix, self._upto))
            live = self._memory.scan(Table.LIVE, after=after, limit=self._read_max)
            ended = self._memory.scan(Table.ENDED, after=after, limit=self._read_max) if self._telling else []
            upto = min((found[-1][0] for found in (live, ended) if len(found) == self._read_max), default=_BEHIND_ALL)
            unsent = {name for key, _ in live if key <= upto and (name := ticket_of(key)) not in self._revived}
            unsent |= {name for key, _ in ended if key <= upto and (name := ticket_of(key)) in self._telling}
            self._unsent.extend(sorted(unsent, key=number_of))
            self._upto = self._last if upto == _BEHIND_ALL else number_of(ticket_of(upto))
        return bool(self._unsent)

    def _room(self) -> bool:
        return len(self._in_flight) < _WINDOW_ITEMS and self._bytes_in_flight < _WINDOW_BYTES

    def _ended_to_send(self, wall: float) -> list[Submission]:
        submissions: list[Submission] = []
        while self._history_after is not None and self._room():
            chunk = self._memory.scan(Table.ENDED, after=self._history_after, limit=_SCAN)
            for key, _ in chunk:
                if not self._room():
                    break
                job = self._memory.get(Table.JOBS, key) or b""
                submissions.append(self._send(ticket_of(key), job, wall, ended=True))
                self._telling.add(submissions[-1].ticket)
                self._history_after = key
            if not chunk:
                self._history_after = None
                self._has_learned()
        return submissions

    def _still_to_tell(self, name: str) -> bool:
        if name in self._telling and self._history.find(name) is None:
            self._telling.discard(name)  # damaged meanwhile
        return name in self._telling

    def _has_learned(self) -> None:
        if self._learning is not None and self._history_after is None and not self._telling:
            self._memory.put(Table.META, _LEDGER, self._learning)
            self._learning = None

    def _send(self, name: str, job: bytes, wall: float, *, ended: bool) -> Submission:
        key, number, get = ticket_key(name), number_of(name), self._memory.get
        seen = glance(_Sent, job) if job else _Sent()
        lease = self._live.lease(name) or _NO_LEASE
        submission = Submission(
            name,
            job,
            (get(Table.BODIES, key) or b"") if seen.body_bytes else b"",
            (get(Table.ENDED, key) or b"") if ended else b"",
            (get(Table.OUTPUTS, key) or b"") if ended else b"",
            told=name not in self._untold,
            outlived=self._outlived if number <= self._issued_before else 0,
            age_s=max(0.0, wall - seen.submitted_wall) if job else 0.0,
            attempt=lease.attempt,
            boot_id=lease.boot_id,
        )
        if number > self._sent:
            self._sent = number
        size = len(job) + len(submission.body) + len(submission.output)
        self._in_flight[name] = size
        self._bytes_in_flight += size
        return submission

    def taken(self, names: Sequence[str]) -> list[str]:
        """The ledger has these; returns those that were new to it."""
        new: list[str] = []
        for name in names:
            if (size := self._in_flight.pop(name, None)) is not None:
                self._bytes_in_flight -= size
                new.append(name)
        self._telling.difference_update(new)
        self._has_learned()
        self._raise_watermark()
        return new

    def _raise_watermark(self) -> None:
        waiting = next(iter(self._in_flight), None) or next(iter(self._unsent), None)
        upto = self._upto if waiting is None else number_of(waiting) - 1
        if upto > self._watermark and self._history_after is None:
            self._watermark = upto
            self._memory.put(Table.META, _WATERMARK, b"%d" % upto)

    # --- invariants ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert not set(self._in_flight) & set(self._unsent), "a job is both sent and unsent"
        assert self._bytes_in_flight == sum(self._in_flight.values()), "the count of bytes in flight is off"
        assert all(number_of(name) <= self._sent for name in self._in_flight), "a job was sent and is not marked so"
        for name, (job, _) in self._at_hand.items():
            unchanged = name in self._live and self._live.lease(name) is None
            assert unchanged, f"{name} is at hand, and something has become of it"
            assert self._memory.get(Table.JOBS, ticket_key(name)) in (job, None), f"what is at hand of {name} is wrong"


def number_of(name: str) -> int:
    """The number of a ticket."""
    return int(name[PREFIX_CHARACTERS + 1 :])
