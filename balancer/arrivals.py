"""Arrivals: what nodes submit is taken into the ledger, each job once, whatever is sent again.

A submission becomes a live job, the end of one that a ledger before this had, another name of the job that its key
belongs to, or a conflict. Pure.
"""

from typing import Final

from balancer.chronicle import Chronicle
from balancer.ledger import Ledger
from balancer.records import Arrival, Entry, LiveRecord
from common.codec import replace, unpack
from common.effects import Table
from common.keys import Claim, Keys, fingerprint
from common.limits import ATTEMPTS_PER_LEDGER
from common.memory import Memory
from common.messages import Submission
from common.model import Ended, Job, ticket_key

LATE_S: Final = 0.1  # a job that comes later after its submission has its age told


class Arrivals:
    def __init__(self, memory: Memory, ledger: Ledger, chronicle: Chronicle) -> None:
        self._memory = memory
        self._ledger = ledger
        self._chronicle = chronicle
        self._keys = Keys(memory)

    def arrive(self, submission: Submission, wall: float) -> Arrival:
        """Takes a submission in, once: whatever is known already stays as it is."""
        ticket = submission.ticket
        if self._ledger.knows(ticket):
            first = self._ledger.first_name(ticket)
            return Arrival(alias_of=first if first != ticket else None)
        job = unpack(Job, submission.job)
        self._ledger.has_arrived(ticket)
        if job.key is not None:
            claimed = self._claim(job.key, ticket, job, submission)
            if claimed is not None:
                return claimed
        return Arrival(self._insert(ticket, job, submission, wall))

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

    def _insert(self, ticket: str, job: Job, submission: Submission, wall: float) -> Entry | None:
        key = ticket_key(ticket)
        self._memory.put(Table.JOBS, key, submission.job)
        if submission.body:
            self._memory.put(Table.BODIES, key, submission.body)
        age_s = told_age_s(submission)
        self._chronicle.tell(
            "job.submitted", ticket, kind=job.kind, name=job.name, group=job.group, array=job.array, age_s=age_s
        )
        if submission.ended:
            ended = replace(unpack(Ended, submission.ended), sequence=self._ledger.ends.next_number())
            self._ledger.ends.record(ticket, ended, submission.output, job.group)
            self._ledger.counts[ended.state] += 1
            return None
        record = record_of(job, self._ledger.next_in_order(), len(submission.job) + len(submission.body))
        record.waits_for = tuple(dict.fromkeys(job.after + job.inputs)) if job.inputs else job.after
        record.outnumbered = submission.outlived * ATTEMPTS_PER_LEDGER
        record.due_s = max(0.0, job.delay_s - submission.age_s)
        record.due_wall = wall + record.due_s if record.due_s else 0.0
        entry = Entry(ticket, record)
        self._ledger.begin_life(entry, "submitted")
        return entry


def told_age_s(submission: Submission) -> float | None:
    """How long ago it was submitted, where that is worth telling."""
    return round(submission.age_s, 3) if submission.age_s >= LATE_S else None


def record_of(job: Job, sequence: int, weight_bytes: int) -> LiveRecord:
    """What is remembered of a job from its beginning."""
    return LiveRecord(
        sequence,
        job.kind,
        job.priority,
        job.slots,
        job.crash_limit,
        job.group,
        weight_bytes,
        retries=job.retries,
        array=job.array,
        takes_input=bool(job.inputs),
    )
