"""Tickets issued here: from `OK` on, this node holds each of its jobs until it knows the end.

    issued ──► unsent ──► in flight ──► acknowledged ──► ended (a copy stays for the retention time)
                  ▲            │             ▲             │
                  └─ link lost ┘             └── revived ──┴──► forgotten

A job is sent to the ledger as often as it takes; the ledger knows its ticket and takes it once. What the ledger has
acknowledged is remembered as a watermark, because acknowledgements follow the order of the tickets. A ledger that we
have not met before gets everything again, the ended jobs with their ends. What becomes of an ended job the ledger
decides: its notices revive it, or have it forgotten.

Of an array only the array is held here. Its elements are the ledger's; all that is known of them is whether the array
has them.

Pure; everything durable goes through the Memory.
"""

from collections import deque
from collections.abc import Iterator

import attrs
import msgspec

from common.arrays import parse_indexes
from common.codec import glance, pack, unpack
from common.effects import Table
from common.history import History
from common.keys import Claim, Keys, fingerprint, first_name
from common.limits import BATCH_BYTES
from common.memory import Memory
from common.messages import Submission
from common.model import (
    Ended,
    Job,
    State,
    array_of,
    element,
    index_of,
    parse_ticket,
    ticket,
    ticket_key,
    ticket_of,
)

_LAST = b"last_number"
_WATERMARK = b"acknowledged_number"
_LEDGER = b"ledger_id"
_OUTLIVED = b"ledgers_outlived"
_ISSUED_BEFORE = b"issued_before_the_last_was_lost"
_WINDOW_ITEMS = 20_000  # sent and not acknowledged: hides the round trip
_WINDOW_BYTES = 32 * BATCH_BYTES
_SCAN = 500


@attrs.define
class Own:
    """What we last knew of a live job of ours; `as_of` is a monotonic moment."""

    state: State | None  # None: nothing since it was submitted, and the job says what it was then
    attempt: int
    as_of: float


class _Sent(msgspec.Struct):
    """What is looked at in a packed job each time it is sent."""

    submitted_wall: float = 0.0


class Intake:
    """The jobs of which this data directory is the origin."""

    def __init__(self, prefix: str, memory: Memory, history: History) -> None:
        self.prefix = prefix
        self._memory = memory
        self._history = history
        self._keys = Keys(memory)
        self._last = 0
        self._watermark = 0
        self._outlived = self._issued_before = 0
        self._live: dict[str, Own] = {}
        self._unsent: deque[str] = deque()
        self._in_flight: dict[str, int] = {}  # ticket → bytes
        self._bytes_in_flight = 0
        self.damaged: list[str] = []  # live jobs whose record is in quarantine: nobody can run them
        self._revived: set[str] = set()  # above the watermark, and the ledger has them all the same
        self._untold: set[str] = set()  # keyed jobs whose client waits for the ledger's word on the key
        self._learning: bytes | None = None  # the ledger that still has to learn; durable as ours when it has
        self._telling: set[str] = set()  # ended jobs that were sent to it and not acknowledged
        self._history_after: bytes | None = None  # cursor of the ended jobs that a new ledger still has to learn

    def restore(self, now: float) -> None:
        self._last = self._number(_LAST)
        self._watermark = self._number(_WATERMARK)
        self._outlived, self._issued_before = self._number(_OUTLIVED), self._number(_ISSUED_BEFORE)
        after = b""
        while chunk := self._memory.scan(Table.LIVE, after=after, limit=10 * _SCAN):
            for key, _ in chunk:
                name = ticket_of(key)
                self._live[name] = Own(None, 0, now)
                if _number_of(name) > self._watermark:
                    self._unsent.append(name)
            after = chunk[-1][0]

    def _number(self, key: bytes) -> int:
        return int(self._memory.get(Table.META, key) or b"0")

    # --- issuing -----------------------------------------------------------------------------------------------

    def issue(self, job: Job, body: bytes, now: float) -> str:
        """A new ticket for this job, durable with the step."""
        self._last += 1
        self._memory.put(Table.META, _LAST, b"%d" % self._last)
        name = ticket(self.prefix, self._last)
        key = ticket_key(name)
        self._memory.put(Table.JOBS, key, pack(job))
        if body:
            self._memory.put(Table.BODIES, key, body)
        self._memory.put(Table.LIVE, key, b"")
        if job.key is not None:
            self._keys.claim(job.key, Claim(name, fingerprint(job, body)))
        self._live[name] = Own(first_state(job), 0, now)
        self._unsent.append(name)
        return name

    def claiming(self, name: str) -> None:
        """The client of this keyed job has not been told `OK` yet: the ledger may still refuse the key."""
        self._untold.add(name)

    def claimed(self, key: str) -> Claim | None:
        """Which job this node knows under a key."""
        return self._keys.find(key)

    def same_name(self, name: str) -> str:
        """The first name of a job whose ticket, or whose array's, may be an alias."""
        if parse_ticket(name) is None:
            return name
        index = index_of(name)
        first = first_name(self._memory, array_of(name))
        return first if index is None else element(first, index)

    # --- what is known -----------------------------------------------------------------------------------------

    def issued(self, name: str) -> bool:
        """Whether this ticket was ever given out here."""
        parsed = parse_ticket(name)
        return parsed is not None and parsed[0] == self.prefix and parsed[1] <= self._last

    def ours(self, name: str) -> bool:
        parsed = parse_ticket(name)
        return parsed is not None and parsed[0] == self.prefix

    def live(self, name: str) -> Own | None:
        return self._live.get(name)

    def state(self, name: str) -> State:
        """Where a live job of ours stood when we last heard of it."""
        own = self._live[name]
        if own.state is None:
            own.state = first_state(self.job(name))
        return own.state

    def has_element(self, name: str) -> bool:
        """Whether the array that this element's ticket names is one of ours, and has it."""
        array, index = self.job(array_of(name)).array, index_of(name)
        return array is not None and index is not None and index in parse_indexes(array)

    def live_newest_first(self) -> Iterator[str]:
        return reversed(self._live)

    def job(self, name: str) -> Job:
        packed = self._memory.get(Table.JOBS, ticket_key(name))
        return Job("", "") if packed is None else unpack(Job, packed)

    # --- sending -----------------------------------------------------------------------------------------------

    def link_opened(self, ledger_id: str) -> bool:
        """Starts over with what is not acknowledged; with everything, when this ledger is new to us."""
        known = self._memory.get(Table.META, _LEDGER)
        fresh = known is not None and known != ledger_id.encode()
        if known is None:
            self._memory.put(Table.META, _LEDGER, ledger_id.encode())
        if fresh:
            self._learning = ledger_id.encode()
            self._telling.clear()
            self._outlive()
            self._revived.clear()
            self._watermark = 0
            self._memory.put(Table.META, _WATERMARK, b"0")
            self._history_after = b""
            self._unsent = deque(sorted(self._live, key=_number_of))  # as the watermark needs them
            self._in_flight.clear()
            self._bytes_in_flight = 0
        else:
            self.send_again()
        return fresh

    def _outlive(self) -> None:
        """Another ledger is lost, and with it the numbers of the attempts that it gave out of the jobs issued so
        far."""
        self._outlived, self._issued_before = self._outlived + 1, self._last
        self._memory.put(Table.META, _OUTLIVED, b"%d" % self._outlived)
        self._memory.put(Table.META, _ISSUED_BEFORE, b"%d" % self._issued_before)

    def told(self, name: str) -> None:
        """Its client is told `OK` although the ledger has not spoken: it cannot be asked, or it has no room."""
        self._untold.discard(name)

    def send_again(self) -> None:
        """What is in flight did not get through; it is next in line."""
        self._unsent.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._bytes_in_flight = 0

    def to_send(self, wall: float) -> list[Submission]:
        """The next jobs for the ledger, as many as the window has room for."""
        submissions: list[Submission] = []
        while self._unsent and self._room():
            name = self._unsent.popleft()
            if self._memory.get(Table.JOBS, ticket_key(name)) is None:
                self.damaged += [name] if name in self._live else []
            elif name in self._live or self._still_to_tell(name):
                submissions.append(self._send(name, wall))
        if self._history_after is not None and not self._unsent:
            submissions += self._ended_to_send(wall)
        return submissions

    def _room(self) -> bool:
        return len(self._in_flight) < _WINDOW_ITEMS and self._bytes_in_flight < _WINDOW_BYTES

    def _ended_to_send(self, wall: float) -> list[Submission]:
        submissions: list[Submission] = []
        while self._history_after is not None and self._room():
            chunk = self._memory.scan(Table.ENDED, after=self._history_after, limit=_SCAN)
            for key, _ in chunk:
                if not self._room():
                    break
                submissions.append(self._send(ticket_of(key), wall))
                self._telling.add(submissions[-1].ticket)
                self._history_after = key
            if not chunk:
                self._history_after = None
                self._has_learned()
        return submissions

    def _still_to_tell(self, name: str) -> bool:
        if name in self._telling and self._history.find(name) is None:
            self._telling.discard(name)  # expired meanwhile
        return name in self._telling

    def _has_learned(self) -> None:
        if self._learning is not None and self._history_after is None and not self._telling:
            self._memory.put(Table.META, _LEDGER, self._learning)
            self._learning = None

    def _send(self, name: str, wall: float) -> Submission:
        key = ticket_key(name)
        get = self._memory.get
        job = get(Table.JOBS, key) or b""
        submission = Submission(
            name,
            job,
            get(Table.BODIES, key) or b"",
            get(Table.ENDED, key) or b"",
            get(Table.OUTPUTS, key) or b"",
            told=name not in self._untold,
            outlived=self._outlived if _number_of(name) <= self._issued_before else 0,
            age_s=max(0.0, wall - glance(_Sent, job).submitted_wall) if job else 0.0,
        )
        size = len(submission.job) + len(submission.body) + len(submission.output)
        self._in_flight[name] = size
        self._bytes_in_flight += size
        return submission

    def taken(self, names: tuple[str, ...]) -> list[str]:
        """The ledger has these; returns those that were new to it."""
        new = [name for name in names if name in self._in_flight]
        for name in new:
            self._bytes_in_flight -= self._in_flight.pop(name)
            self._telling.discard(name)
        self._has_learned()
        self._raise_watermark()
        return new

    def _raise_watermark(self) -> None:
        waiting = next(iter(self._in_flight), None) or next(iter(self._unsent), None)
        upto = self._last if waiting is None else _number_of(waiting) - 1
        if upto > self._watermark and self._history_after is None:
            self._watermark = upto
            self._memory.put(Table.META, _WATERMARK, b"%d" % upto)

    def unacknowledged(self, name: str) -> bool:
        """Whether the ledger is not known to have this job."""
        if name in self._in_flight:
            return True
        return name in self._live and _number_of(name) > self._watermark and name not in self._revived

    def acknowledged(self) -> list[str]:
        """The live jobs that the ledger has, oldest first."""
        return [name for name in self._live if not self.unacknowledged(name)]

    def __len__(self) -> int:
        return len(self._live)

    # --- ends --------------------------------------------------------------------------------------------------

    def ended(self, name: str, ended: Ended, output: bytes) -> bool:
        """Keeps a copy of the end of one of our jobs; False when it was known or is not ours. An end that comes
        after a RETRY of which we have not heard takes the place of the former one."""
        if self._live.pop(name, None) is None:
            known = self._history.find(name) if self.ours(name) else None
            if known is None or known.retried >= ended.retried:
                return False
            self._history.revive(name)
        self._revived.discard(name)
        self._memory.delete(Table.LIVE, ticket_key(name))
        self._history.record(name, ended, output)
        return True

    def revive(self, name: str, now: float) -> None:
        """One of our ended jobs is live again, and the ledger has it. Doing it twice changes nothing. What became
        another name meanwhile is no job of ours."""
        if not self.issued(name) or index_of(name) is not None or name in self._live or self.same_name(name) != name:
            return
        ended = self._history.revive(name)
        self._memory.put(Table.LIVE, ticket_key(name), b"")
        self._live[name] = Own(State.QUEUED, 0 if ended is None else max(ended.attempt, ended.begun), now)
        if _number_of(name) > self._watermark:
            self._revived.add(name)

    def forget(self, name: str) -> None:
        """One of our jobs is to be as if it had never been, but that its ticket is not issued again."""
        if not self.issued(name):
            return
        self._live.pop(name, None)
        self._revived.discard(name)
        self._telling.discard(name)
        self._memory.delete(Table.LIVE, ticket_key(name))
        self._history.forget(name)
        self._has_learned()

    def lapsed(self, name: str, wall: float) -> None:
        """The job ended and was expired while we were away."""
        if self._live.pop(name, None) is not None:
            self._forget(name)
            self._history.entomb(name, wall)

    def alias(self, name: str, first: str) -> None:
        """A keyed job of ours turned out to be another name of the first one. The key is the other's: only the
        ledger knows for how long."""
        self._memory.put(Table.ALIASES, ticket_key(name), first.encode())
        self.withdraw(name)

    def told_meanwhile(self, name: str) -> bool:
        """The ledger refused this job for its key; whether its client had been told `OK` by then. If so it stays in
        flight, to be sent once more as one that can no longer be refused."""
        return name in self._live and name not in self._untold

    def withdraw(self, name: str) -> None:
        """This ticket is no job of its own any more."""
        job = self.job(name)
        if job.key is not None:
            self._keys.release(job.key, name)
        if self._live.pop(name, None) is not None:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._revived.discard(name)
        key = ticket_key(name)
        for table in (Table.LIVE, Table.JOBS, Table.BODIES):
            self._memory.delete(table, key)

    def check(self) -> None:
        assert not set(self._in_flight) & set(self._unsent), "a job is both sent and unsent"
        assert self._bytes_in_flight == sum(self._in_flight.values()), "the count of bytes in flight is off"
        for name in self._live:
            assert _number_of(name) <= self._last, f"{name} was never issued"


def first_state(job: Job) -> State:
    """Where a job stands when it is submitted, as far as its origin can tell."""
    if job.delay_s:
        return State.SCHEDULED
    return State.BLOCKED if job.after else State.QUEUED


def _number_of(name: str) -> int:
    return int(name.rpartition("-")[2])
