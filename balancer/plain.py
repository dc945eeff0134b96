"""Plain jobs, many at a time: those that ask for nothing but to be run, which most do.

    Jobs ────► arrive: as many in a row as are new and plain ──► in line
    a round ─► give:   as many from the head of the only line as there is room for ──► leased
    Result ──► settle: as many in a row as were leased there, and have succeeded ──► ended

What these do is what the ledger does with one job after the other, and comes to the same records, messages and events;
but what a batch of jobs has in common is looked at once. Whatever is not plain (a key, a delay, a failure, a cancel, an
attempt of an earlier ledger …) they leave to whoever takes jobs one by one, and go on behind it.

Pure.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from balancer.arrivals import record_of, told_age_s
from balancer.chronicle import Chronicle, fields_of
from balancer.ledger import End, Ledger
from balancer.outbox import Mail
from balancer.records import Counted, Entry
from balancer.roster import Node
from common.codec import Malformed, pack, unpack
from common.effects import Table, Told
from common.history import History
from common.memory import Memory
from common.messages import Lease, Pair, Reported, Submission
from common.model import Job, State, Verdict, end_of_attempt, parse_ticket, prefix_key

FEW: Final = 3  # of fewer, one by one is as quick
_DISPATCHED: Final[Counted] = (State.DISPATCHED, 1)
_SUBMITTED: Final[dict[str, object]] = {"reason": "submitted"}  # why it is queued


class Plain:
    def __init__(self, memory: Memory, ledger: Ledger, history: History, chronicle: Chronicle) -> None:
        self._memory = memory
        self._ledger = ledger
        self._history = history
        self._chronicle = chronicle

    # --- in --------------------------------------------------------------------------------------------------------

    def arrive(self, items: Sequence[Submission], at: int) -> list[Entry]:
        """Takes in what comes from place `at` on, as far as it is plain: the entries of these jobs, which are in line
        for a node."""
        run = self._run_of(items, at)
        if not run:
            return []
        prefix, number = parse_ticket(items[at].ticket) or ("", 0)
        first = self._ledger.next_in_order(len(run))
        begins = prefix_key(prefix)
        jobs, bodies = self._memory.writes_to(Table.JOBS), self._memory.writes_to(Table.BODIES)
        entries: list[Entry] = []
        for place, job in enumerate(run):
            item = items[at + place]
            key = begins + (number + place).to_bytes(8, "big")
            jobs[key] = item.job
            if item.body:
                bodies[key] = item.body
            record = record_of(job, first + place, len(item.job) + len(item.body))
            entries.append(Entry(item.ticket, record, False, None, None, False, key))
        self._ledger.has_arrived(entries[-1].ticket)
        self._tell_arrived(items[at : at + len(run)], run)
        self._ledger.all.enter_in_a_row(entries, prefix, number)
        for (needs, priority), alike in groupby(run, lambda job: ((job.kind, job.slots), job.priority)):
            behind = first + sum(1 for _ in alike)
            self._ledger.queue.extend(needs, priority, range(first, behind))
            first = behind
        return entries

    def _run_of(self, items: Sequence[Submission], at: int) -> list[Job]:
        """The jobs from this place on whose tickets follow each other, and are new, and of one group."""
        prefix, number = parse_ticket(items[at].ticket) or ("", 0)
        if not self._ledger.is_newest(prefix, number):
            return []
        run: list[Job] = []
        packed, job = b"", None
        for place in range(at, len(items)):
            item = items[place]
            if item.ended or item.attempt or item.outlived:
                break
            if job is None or item.job != packed:
                try:
                    packed, job = item.job, unpack(Job, item.job)
                except Malformed:
                    break  # who takes it alone says so
                if job.key is not None or job.array is not None or job.after or job.inputs or job.delay_s:
                    break
            if item.ticket != f"{prefix}-{number + len(run)}" or (run and job.group != run[0].group):
                break
            run.append(job)
        return run

    def _tell_arrived(self, items: Sequence[Submission], run: Sequence[Job]) -> None:
        """What was read in one piece at its origin has one age."""
        fields: dict[tuple[str, str | None, float], dict[str, object]] = {}
        told: list[Told] = []
        for item, job in zip(items, run, strict=True):
            words = job.kind, job.name, item.age_s
            if words not in fields:
                fields[words] = {"kind": job.kind, "name": job.name, "group": job.group, "age_s": told_age_s(item)}
            told.append(("job.submitted", item.ticket, fields[words]))
        self._chronicle.tell_all(told)
        self._chronicle.tell_all(("job.queued", item.ticket, _SUBMITTED) for item in items)

    # --- out -------------------------------------------------------------------------------------------------------

    def packed(self, entry: Entry) -> bytes | None:
        """The job, as it was submitted; None where that was damaged and set aside."""
        return self._memory.get(Table.JOBS, entry.key)

    def lease(self, entry: Entry, packed: bytes, node: Node) -> Lease:
        """The next attempt of a plain job that is in line, given to a node that is here. It counts when it is told."""
        record = entry.record
        body = (self._memory.get(Table.BODIES, entry.key) or b"") if record.bytes != len(packed) else b""
        record.attempt = entry.next_attempt
        record.unused, record.leased, record.crash_counted = False, True, False
        record.node_id, record.boot_id = node.id, node.record.boot_id
        entry.counted = _DISPATCHED
        self._ledger.all.changed(entry)
        node.give(entry)
        return Lease(entry.ticket, record.attempt, packed, body, record.sequence)

    def leased(self, given: Sequence[tuple[Node, Lease]]) -> None:
        """Tells of leases."""
        self._ledger.counts["leases"] += len(given)
        self._ledger.all.census.count(State.QUEUED, State.DISPATCHED, len(given))
        fields: dict[tuple[str, int], dict[str, object]] = {}
        for node, lease in given:
            if (node.id, lease.attempt) not in fields:
                fields[node.id, lease.attempt] = {"attempt": lease.attempt, "node": node.record.name}
        self._chronicle.tell_all(
            ("job.dispatched", lease.ticket, fields[node.id, lease.attempt]) for node, lease in given
        )

    # --- ends ------------------------------------------------------------------------------------------------------

    def settle(self, node: Node, mail: Mail, pairs: Sequence[Pair], at: int, now: float, wall: float) -> int:
        """Records the outcomes from place `at` on, as far as they are successes of plain jobs that were leased to this
        node, and have them acknowledged; returns the place behind them."""
        leases, name, counts = node.leases, node.record.name, self._ledger.ends
        over: list[Entry] = []
        ends: list[End] = []
        records: list[tuple[bytes, bytes, bytes]] = []
        seconds: list[float] = []
        for place in range(at, len(pairs)):
            pair = pairs[place]
            entry = leases.get(pair.ticket)
            if entry is None or not entry.is_plain:
                break
            try:
                reported = unpack(Reported, pair.record)
            except Malformed:
                break  # who takes it alone says so
            record, outcome = entry.record, reported.outcome
            if outcome.verdict is not Verdict.SUCCEEDED or not self._ledger.current(entry, reported):
                break
            if len(pair.output) != outcome.stdout_bytes + outcome.stderr_bytes:
                break  # some of it is damaged
            del leases[pair.ticket]
            ended = end_of_attempt(
                outcome,
                State.SUCCEEDED,
                None,
                record.attempt,
                name,
                wall,
                counts.next_number(),
                max(record.attempt, record.outnumbered),
                record.retried,
            )
            packed = pack(ended)
            over.append(entry)
            seconds.append(outcome.seconds)
            records.append((entry.key, packed, pair.output))
            if record.group is not None:
                self._history.enter_group(record.group, ended.sequence, entry.key)
            ends.append((pair.ticket, ended, pair.output, packed))
            mail.acknowledged.append((pair.ticket, record.attempt))
        if over:
            node.are_over(over, seconds, now)
            self._history.record_in_a_row(wall, records)
            self._ledger.all.leave_in_a_row(over)
            self._ledger.have_succeeded(ends)
            self._tell_ended(ends)
        return at + len(over)

    def _tell_ended(self, ends: Sequence[End]) -> None:
        fields: dict[tuple[int, int | None, float | None], dict[str, object]] = {}
        for _, ended, _, _ in ends:
            if (ended.attempt, ended.exit, ended.seconds) not in fields:
                fields[ended.attempt, ended.exit, ended.seconds] = fields_of(ended)
        self._chronicle.tell_all(
            ("job.succeeded", ticket, fields[ended.attempt, ended.exit, ended.seconds]) for ticket, ended, _, _ in ends
        )
