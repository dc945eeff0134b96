"""What the ledger knows of a live job: its durable record, its entry in memory, and the table of its life.

                 ┌── due ── retrying ◄── failed, tries left ─┐
                 │                                           │
    ──► blocked ─┼─► scheduled ── due ──┐  ┌── lost, returned, interrupted ──┐
     │           │                      ▼  ▼                                 │
     └───────────┴────────────────► queued ──lease──► dispatched ──begun──► running
                                       │                   │                   │
                                       └───────────────────┴───── settled ─────┴──► succeeded · failed · cancelled
                                       ▲                                                            │
                                       └─────────────────────────── RETRY ──────────────────────────┘

Every live job can also be cancelled. Pure; `balancer/ledger.py` changes a record, and of plain jobs in a row
`balancer/plain.py` in its place.
"""

from typing import Final, TypeAlias

import attrs
import msgspec

from balancer.arrays import Array
from common.codec import pack
from common.model import Reason, State, is_element, parse_ticket, ticket_key

Counted: TypeAlias = tuple[State, int]

_ENDS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.BLOCKED: frozenset({State.SCHEDULED, State.QUEUED, State.CANCELLED}),
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.QUEUED: frozenset({State.BLOCKED, State.DISPATCHED, State.RUNNING, *_ENDS}),
    State.DISPATCHED: frozenset({State.RUNNING, State.QUEUED, State.RETRYING, *_ENDS}),
    State.RUNNING: frozenset({State.QUEUED, State.RETRYING, *_ENDS}),
    State.RETRYING: frozenset({State.QUEUED, *_ENDS}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}


class LiveRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is on disk of a live job besides the job itself: all that a restart needs. The ledger changes it in place
    and saves it: to copy thirty fields for each change cost a fifth of all that it does for a job."""

    sequence: int  # order of arrival; an element has its array's
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
    waits_for: tuple[str, ...] = ()  # the jobs of `after` and `input` that have not succeeded yet
    due_wall: float = 0.0  # not before this calendar moment: a delay, or the wait before another try; 0 when none
    due_s: float = 0.0  # how long that wait was from its beginning: after a restart it is never longer
    retrying: bool = False  # the wait is one after a failure
    retries: int = 0  # attempts that may follow a failure
    failures: int = 0  # attempts that have failed
    last_reason: Reason | None = None  # of the last of them
    retried: int = 0  # how often RETRY has brought it back
    array: str | None = None  # its indexes, when it stands for many
    takes_input: bool = False  # of what other jobs have printed


@attrs.define(eq=False)
class Entry:
    """A live job. Its durable part is `record`; whether its attempt has begun is asked of the node after a restart."""

    ticket: str
    record: LiveRecord
    begun: bool = False
    array: Array | None = None
    counted: Counted | None = None  # how it was counted last; see `balancer/census.py`
    is_element: bool = attrs.field()  # whether it is one of an array's
    key: bytes = attrs.field()  # of its records

    @is_element.default
    def _is_element(self) -> bool:
        return is_element(self.ticket)

    @key.default
    def _key(self) -> bytes:
        return ticket_key(self.ticket)

    @property
    def state(self) -> State:
        record = self.record
        if record.cancelled:
            return State.CANCELLED
        if record.leased:
            return State.RUNNING if self.begun else State.DISPATCHED
        if record.retrying:
            return State.RETRYING
        if record.waits_for:
            return State.BLOCKED
        if record.due_wall:
            return State.SCHEDULED
        return State.QUEUED if self.array is None else self.array.state

    @property
    def is_plain(self) -> bool:
        """Whether it waits for a node, or runs there, and nothing else has to be thought of; see `plain.py`."""
        record = self.record
        held_back = record.cancelled or record.retrying or record.waits_for or record.due_wall
        return not (held_back or record.takes_input or record.failures or self.is_element or self.array is not None)

    @property
    def packed(self) -> bytes:
        """Its record, as it is on disk."""
        return pack(self.record)

    @property
    def next_attempt(self) -> int:
        """The number of the next lease: above all that were given out, but for one that came back unused."""
        return max(self.record.attempt + (not self.record.unused), self.record.outnumbered + 1)

    @property
    def waits_for_a_node(self) -> bool:
        """Whether a round may hand it out, or an element of it."""
        if self.array is None:
            return self.state is State.QUEUED
        held = self.record.cancelled or self.record.waits_for or self.record.due_wall
        return not held and self.array.has_room

    @property
    def attempts_begun(self) -> int:
        """The number of the attempt that it is at, or was last at."""
        return self.record.attempt - self.record.unused

    @property
    def attempt_id(self) -> tuple[str, int]:
        return self.ticket, self.record.attempt

    @property
    def counts(self) -> dict[str, int] | None:
        """How many elements of an array are in each state; None for any other job."""
        if self.array is None:
            return None
        held = self.state if self.state in (State.BLOCKED, State.SCHEDULED) else State.QUEUED
        return {str(state): count for state, count in self.array.counts(held).items()}

    def check(self) -> None:
        ticket, record = self.ticket, self.record
        assert parse_ticket(ticket) is not None, f"{ticket} is no ticket"
        assert not self.begun or record.leased, f"{ticket} runs without a lease"
        assert not record.leased or record.boot_id, f"{ticket} is leased to nobody"
        assert not record.leased or record.attempt > 0, f"{ticket} is leased and has no attempt"
        assert not (record.leased and record.unused), f"{ticket} is leased and its attempt came back"
        cancelled_alone = record.cancelled and self.array is None
        assert record.leased or not cancelled_alone, f"{ticket} is cancelled and has not ended"
        assert not (record.leased and record.due_wall), f"{ticket} is leased before its time"


@attrs.frozen
class Arrival:
    """What became of a submission: its own entry, another job's alias, a conflict, or known already (all None)."""

    entry: Entry | None = None
    alias_of: str | None = None
    conflict_with: str | None = None
