"""The record of every job: from its acknowledgement on, this alone decides a job's state and attempt.

              ┌────────── lost, returned, interrupted ─────────┐
              ▼                                                │
    ──► queued ──lease──► dispatched ──begun──► running ───────┤
              │                │                   │           │
              └────────────────┴──── settled ──────┴──► succeeded · failed · cancelled

- An attempt is a *lease*: it names the node and the boot that it was given to. An outcome is recorded only when it
  is of the current attempt, from that boot; any other is acknowledged and dropped.
- A lease that was lost stays in the record as the last one until the job is leased again, so that a node that was
  only cut off may come back with it.
- A cancel is recorded at once and wins; the job is over when its attempt is, because its slot is taken until then.
- Attempts that crash with their node are counted; at the job's limit it fails with `crash_limit`.

Ended jobs are in the History, on disk; only live ones are in memory. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from balancer.chronicle import Chronicle
from balancer.queue import Queue
from common.codec import pack, unpack
from common.effects import Table
from common.history import History
from common.keys import Claim, Keys, fingerprint, first_name
from common.memory import Memory
from common.messages import Lease, Reported, Submission
from common.model import Ended, Job, Outcome, Reason, State, Verdict, parse_ticket, ticket_key, ticket_of

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.BLOCKED: frozenset({State.QUEUED, State.CANCELLED}),
    State.RETRYING: frozenset({State.QUEUED, State.CANCELLED}),
    State.QUEUED: frozenset({State.DISPATCHED, State.RUNNING, State.FAILED, State.CANCELLED, State.SUCCEEDED}),
    State.DISPATCHED: frozenset(
        {State.RUNNING, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED},
    ),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.CANCELLED: frozenset(),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
}

_SCAN: Final = 5000


@attrs.frozen
class LiveRecord:
    """What is on disk of a live job besides the job itself: all that a restart needs."""

    sequence: int  # order of arrival
    kind: str
    priority: int = 0
    slots: int = 1
    crash_limit: int | None = 3
    group: str | None = None
    bytes: int = 0  # what it weighs on a node's memory while it waits there
    attempt: int = 0  # the highest that was leased or reported
    unused: bool = False  # that attempt came back without having begun: the next lease has its number
    outnumbered: int = 0  # the highest that a node brought of an earlier ledger while another attempt was leased
    crashes: int = 0
    leased: bool = False
    node_id: str | None = None  # of the last lease
    boot_id: str | None = None
    cancelled: bool = False
    crash_counted: bool = False  # whether losing the last lease counted as a crash
    waits_for: tuple[str, ...] = ()  # tickets that must succeed first
    due_wall: float = 0.0  # calendar seconds: not before; 0 for at once
    failures: int = 0  # attempts that failed and are tried again
    last_reason: Reason | None = None  # of the last of them


@attrs.define(eq=False)
class Entry:
    """A live job. Its durable part is `record`; whether its attempt has begun is asked of the node after a restart."""

    ticket: str
    record: LiveRecord
    begun: bool = False

    @property
    def state(self) -> State:
        if self.record.cancelled:
            return State.CANCELLED
        if self.record.waits_for:
            return State.BLOCKED
        if self.record.due_wall:
            return State.RETRYING if self.record.failures else State.SCHEDULED
        if not self.record.leased:
            return State.QUEUED
        return State.RUNNING if self.begun else State.DISPATCHED

    @property
    def attempts_begun(self) -> int:
        """The number of the attempt that it is at, or was last at."""
        return self.record.attempt - self.record.unused

    @property
    def attempt_id(self) -> tuple[str, int]:
        return self.ticket, self.record.attempt


@attrs.frozen
class Arrival:
    """What became of a submission: its own entry, another job's alias, a conflict, or known already (all None)."""

    entry: Entry | None = None
    alias_of: str | None = None
    conflict_with: str | None = None


class Ledger:
    """Every job of the cluster. Methods change the record and the queue; they send nothing."""

    def __init__(self, memory: Memory, history: History, chronicle: Chronicle, *, new_tag: str = "aaaa") -> None:
        self._memory = memory
        self._chronicle = chronicle
        self.tag = new_tag  # what cursors begin with: of a ledger that starts for the first time
        self.last_end = 0  # the sequence of the latest end
        self._history = history
        self._keys = Keys(memory)
        self._live: dict[str, Entry] = {}
        self._groups: dict[str, dict[str, Entry]] = {}  # the live jobs of each group
        self._sequence = 0
        self.queue = Queue()
        self._ends: list[tuple[str, Ended, bytes]] = []
        self.counts = {"succeeded": 0, "failed": 0, "cancelled": 0, "stale": 0, "crashes": 0, "leases": 0}

    def restore(self) -> None:
        self.last_end = int(self._memory.get(Table.META, b"last_end") or 0)
        if (tag := self._memory.get(Table.META, b"tag")) is not None:
            self.tag = tag.decode()
        else:
            self._memory.put(Table.META, b"tag", self.tag.encode())
        after, found = b"", list[Entry]()
        while chunk := self._memory.scan(Table.LIVE, after=after, limit=_SCAN):
            found += [Entry(ticket_of(key), unpack(LiveRecord, packed)) for key, packed in chunk]
            after = chunk[-1][0]
        for entry in sorted(found, key=lambda entry: entry.record.sequence):
            self._sequence = entry.record.sequence
            self._enter(entry)
            self._offer(entry)

    # --- looking -----------------------------------------------------------------------------------------------

    def live(self, ticket: str) -> Entry | None:
        return self._live.get(ticket)

    def live_newest_first(self) -> Iterator[Entry]:
        return reversed(self._live.values())

    def in_group(self, group: str) -> list[Entry]:
        """The live jobs of a group, in the order of arrival."""
        return list(self._groups.get(group, {}).values())

    def count_in_group(self, group: str) -> int:
        return len(self._groups.get(group, ()))

    def leased(self) -> list[Entry]:
        """Everything that is leased, in the order of arrival."""
        return [entry for entry in self._live.values() if entry.record.leased]

    def counts_of(self, entry: Entry) -> Mapping[str, int] | None:
        """How many elements of an array are in each state; None for any other job."""
        return None

    def array_limit(self, entry: Entry) -> tuple[int, int] | None:
        """Where elements of an array wait for others of it: how many are under way, and how many may be at once."""
        return None

    def job(self, ticket: str) -> Job:
        packed = self._memory.get(Table.JOBS, ticket_key(ticket))
        return Job("", "") if packed is None else unpack(Job, packed)

    def first_name(self, ticket: str) -> str:
        """The ticket under which the ledger knows a job; another for an alias."""
        return first_name(self._memory, ticket)

    def learn_alias(self, ticket: str, first: str) -> None:
        """An origin tells that this ticket of its own is another name of a job."""
        if not self.knows(ticket):
            self._memory.put(Table.ALIASES, ticket_key(ticket), first.encode())

    def knows(self, ticket: str) -> bool:
        """Whether this ticket has arrived: live, ended, expired, or as another name."""
        if ticket in self._live:
            return True
        key = ticket_key(ticket)
        return any(self._memory.get(table, key) is not None for table in (Table.ENDED, Table.ALIASES, Table.TOMBSTONES))

    def __len__(self) -> int:
        return len(self._live)

    # --- jobs in -----------------------------------------------------------------------------------------------

    def arrive(self, submission: Submission) -> Arrival:
        """Takes a submission in, once: whatever is known already stays as it is."""
        ticket = submission.ticket
        if self.knows(ticket):
            first = self.first_name(ticket)
            return Arrival(alias_of=first if first != ticket else None)
        job = unpack(Job, submission.job)
        if job.key is not None:
            claimed = self._claim(job.key, ticket, job, submission)
            if claimed is not None:
                return claimed
        return Arrival(self._insert(ticket, job, submission))

    def _claim(self, key: str, ticket: str, job: Job, submission: Submission) -> Arrival | None:
        print_ = fingerprint(job, submission.body)
        claim = self._keys.find(key)
        if claim is None:
            self._keys.claim(key, Claim(ticket, print_))
            return None
        if claim.fingerprint == print_:
            self._memory.put(Table.ALIASES, ticket_key(ticket), claim.ticket.encode())
            return Arrival(alias_of=claim.ticket)
        # A client that has read OK is owed its job: it becomes one of its own, and the key stays the first one's.
        return None if submission.told else Arrival(conflict_with=claim.ticket)

    def _insert(self, ticket: str, job: Job, submission: Submission) -> Entry | None:
        key = ticket_key(ticket)
        self._memory.put(Table.JOBS, key, submission.job)
        if submission.body:
            self._memory.put(Table.BODIES, key, submission.body)
        if submission.ended:
            ended = self._numbered(unpack(Ended, submission.ended))
            self._history.record(ticket, ended, submission.output, job.group)
            return None
        self._sequence += 1
        weight = len(submission.job) + len(submission.body)
        record = LiveRecord(self._sequence, job.kind, job.priority, job.slots, job.crash_limit, job.group, weight)
        self._chronicle.tell("job.submitted", ticket, kind=job.kind, name=job.name, group=job.group, array=job.array)
        entry = Entry(ticket, record)
        self._enter(entry)
        self._save(entry)
        self._offer(entry)
        return entry

    def _enter(self, entry: Entry) -> None:
        self._live[entry.ticket] = entry
        if entry.record.group is not None:
            self._groups.setdefault(entry.record.group, {})[entry.ticket] = entry

    def _leave(self, entry: Entry) -> None:
        del self._live[entry.ticket]
        if (group := entry.record.group) is not None:
            del self._groups[group][entry.ticket]
            if not self._groups[group]:
                del self._groups[group]

    def _save(self, entry: Entry) -> None:
        self._memory.put(Table.LIVE, ticket_key(entry.ticket), pack(entry.record))

    def _offer(self, entry: Entry) -> None:
        """Puts a job that waits for a node into the queue."""
        if entry.state is State.QUEUED:
            record = entry.record
            self.queue.push((record.kind, record.slots), record.priority, record.sequence, entry.ticket)

    # --- leases ------------------------------------------------------------------------------------------------

    def lease(self, entry: Entry, node_id: str, boot_id: str) -> Lease | None:
        """The next attempt of a queued job, given to one boot of a node. None where the job's own record is damaged:
        the job fails, because nobody can run it."""
        assert State.DISPATCHED in TRANSITIONS[entry.state], f"{entry.ticket} is {entry.state} and was leased"
        packed = self._memory.get(Table.JOBS, ticket_key(entry.ticket))
        if packed is None:
            return None
        self._update(
            entry,
            attempt=max(entry.record.attempt + (not entry.record.unused), entry.record.outnumbered + 1),
            unused=False,
            leased=True,
            node_id=node_id,
            boot_id=boot_id,
            crash_counted=False,
        )
        entry.begun = False
        self.counts["leases"] += 1
        return self.lease_of(entry, packed)

    def lease_of(self, entry: Entry, packed: bytes | None = None) -> Lease:
        """The present lease, as it travels."""
        key = ticket_key(entry.ticket)
        packed = packed or self._memory.get(Table.JOBS, key) or b""
        return Lease(entry.ticket, entry.record.attempt, packed, self._memory.get(Table.BODIES, key) or b"")

    def resume(self, entry: Entry) -> None:
        """The node that held the last lease is back with it, in the same boot: the lease goes on."""
        assert not entry.record.leased
        crashes = entry.record.crashes - int(entry.record.crash_counted)
        self._update(entry, leased=True, crashes=crashes, crash_counted=False)

    def adopt(self, entry: Entry, node_id: str, boot_id: str, attempt: int) -> None:
        """A runner holds an attempt of a job that is not leased, given to it by an earlier ledger: it becomes the
        lease, and numbering goes on above it."""
        assert not entry.record.leased
        assert attempt > entry.record.attempt
        self._update(
            entry, leased=True, node_id=node_id, boot_id=boot_id, attempt=attempt, unused=False, crash_counted=False
        )

    def raise_attempt(self, entry: Entry, attempt: int) -> None:
        """An earlier ledger got as far as this attempt: numbers are never used twice."""
        record = entry.record
        if record.leased and attempt >= record.attempt and attempt > record.outnumbered:
            self._update(entry, outnumbered=attempt)
        elif not record.leased and attempt > record.attempt:
            self._update(entry, attempt=attempt, unused=False, node_id=None, boot_id=None)

    def release(self, entry: Entry, *, crashed: bool, wall: float) -> None:
        """The attempt is over without an outcome: lost with its node, returned or interrupted. The job is queued
        again, unless it is cancelled or has crashed too often."""
        assert entry.record.leased, f"{entry.ticket} is {entry.state} and its lease was released"
        crashes = entry.record.crashes + int(crashed)
        self._update(entry, leased=False, crashes=crashes, crash_counted=crashed)
        entry.begun = False
        self.counts["crashes"] += int(crashed)
        limit = entry.record.crash_limit
        if entry.record.cancelled:
            self._end(entry, Ended(State.CANCELLED, wall, Reason.USER), b"")
        elif crashed and limit is not None and crashes >= limit:
            self._end(entry, Ended(State.FAILED, wall, Reason.CRASH_LIMIT, attempt=entry.record.attempt), b"")
        else:
            self._offer(entry)

    def hand_back(self, entry: Entry, wall: float) -> None:
        """The node let go of the attempt before it began. Nothing was executed, so its number is not used up."""
        self._update(entry, unused=True, boot_id=None, node_id=None)
        self.release(entry, crashed=False, wall=wall)

    def _update(self, entry: Entry, **changes: object) -> None:
        entry.record = attrs.evolve(entry.record, **changes)  # type: ignore[arg-type]
        self._save(entry)

    # --- ends --------------------------------------------------------------------------------------------------

    def current(self, entry: Entry, reported: Reported) -> bool:
        """Whether an outcome is of the current attempt, from the boot that it was given to."""
        return reported.attempt == entry.record.attempt and reported.boot_id == entry.record.boot_id

    def settle(self, entry: Entry, outcome: Outcome, output: bytes, node_name: str, wall: float) -> None:
        """Records how the current attempt ended: the end of the job, or one more lost attempt."""
        if outcome.verdict in (Verdict.INTERRUPTED, Verdict.CRASHED):
            if not entry.record.leased:
                self.resume(entry)
            self.release(entry, crashed=outcome.verdict is Verdict.CRASHED, wall=wall)
            return
        state, reason = _end_of(entry, outcome)
        ended = Ended(
            state,
            wall,
            reason,
            entry.record.attempt,
            outcome.exit,
            node_name,
            outcome.seconds,
            outcome.stdout_bytes,
            outcome.stderr_bytes,
            outcome.truncated,
        )
        self._end(entry, ended, output)

    def cancel(self, entry: Entry, wall: float) -> bool:
        """Records the cancel, which wins over whatever happens later. True when an attempt has to be ended first."""
        if entry.record.leased:
            self._update(entry, cancelled=True)
            return True
        self._end(entry, Ended(State.CANCELLED, wall, Reason.USER), b"")
        return False

    def fail_unreadable(self, entry: Entry, wall: float) -> None:
        """The record of what the job is was damaged on disk and is in quarantine."""
        text = b"jobyard: the stored record of this job is damaged; it was set aside and cannot be run\n"
        ended = Ended(State.FAILED, wall, Reason.CANNOT_START, stderr_bytes=len(text))
        self._end(entry, ended, text)

    def _end(self, entry: Entry, ended: Ended, output: bytes) -> None:
        assert ended.state in TRANSITIONS[entry.state] or entry.record.cancelled, f"{entry.state} → {ended.state}"
        self._leave(entry)
        self._memory.delete(Table.LIVE, ticket_key(entry.ticket))
        ended = self._numbered(ended)
        self._history.record(entry.ticket, ended, output, entry.record.group)
        self._chronicle.tell_end(entry.ticket, ended)
        self._ends.append((entry.ticket, ended, output))
        self.counts[ended.state] += 1

    def _numbered(self, ended: Ended) -> Ended:
        self.last_end += 1
        self._memory.put(Table.META, b"last_end", b"%d" % self.last_end)
        return attrs.evolve(ended, sequence=self.last_end)

    def take_ends(self) -> list[tuple[str, Ended, bytes]]:
        """What has ended since it was last asked, for whoever is to be told: ticket, end and output."""
        ends, self._ends = self._ends, []
        return ends

    def check(self) -> None:
        grouped = sum(entry.record.group is not None for entry in self._live.values())
        assert grouped == sum(map(len, self._groups.values())), "a group lists what is not live, or misses a job"
        for ticket, entry in self._live.items():
            assert parse_ticket(ticket) is not None, f"{ticket} is no ticket"
            assert not entry.begun or entry.record.leased, f"{ticket} runs without a lease"
            assert not entry.record.leased or entry.record.boot_id, f"{ticket} is leased to nobody"
            assert not entry.record.leased or entry.record.attempt > 0, f"{ticket} is leased and has no attempt"
            assert not (entry.record.leased and entry.record.unused), f"{ticket} is leased and its attempt came back"
            assert entry.record.leased or not entry.record.cancelled, f"{ticket} is cancelled and has not ended"


def _end_of(entry: Entry, outcome: Outcome) -> tuple[State, Reason | None]:
    if entry.record.cancelled:
        return State.CANCELLED, Reason.USER
    if outcome.verdict is Verdict.SUCCEEDED:
        return State.SUCCEEDED, None
    return State.FAILED, outcome.reason
