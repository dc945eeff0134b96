"""What a machine answers with: writes to be remembered, and actions to be done after them.

The one rule, obeyed by the driver alone: **durable, then visible**. All writes of a step are committed before any of
its actions is performed. So whoever reads `OK` finds the job after a power cut, and an attempt that was sent to a
node is already leased on disk. (etcd/raft's `Ready`, in two fields.)

Writes are plain values. That is what gives group commit, replay, crash tests, and one day a replicated ledger.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, overload

import attrs

from common.codec import Record
from common.messages import Message


class Table(enum.StrEnum):
    """Every table of both programs; `docs/tables.md` says what is in them and who writes it."""

    META = "meta"
    JOBS = "jobs"
    BODIES = "bodies"
    LIVE = "live"
    ENDED = "ended"
    OUTPUTS = "outputs"
    EXPIRY = "expiry"
    TOMBSTONES = "tombstones"
    KEYS = "keys"
    ALIASES = "aliases"
    OUTCOMES = "outcomes"
    OUTCOME_OUTPUTS = "outcome_outputs"
    ORIGINS = "origins"
    NODES = "nodes"
    ARRAYS = "arrays"
    ATTEMPTS = "attempts"
    GROUPS = "groups"
    NOTICES = "notices"
    EVENTS = "events"


class Put(Record, frozen=True):
    table: Table
    key: bytes
    value: bytes


class Delete(Record, frozen=True):
    table: Table
    key: bytes


Write: TypeAlias = Put | Delete


class Writes(Sequence[Write]):
    """The writes of a step by their tables: keys and their values, None where a record goes. So a store goes through
    table after table, and no value is made for a write that nobody looks at."""

    __slots__ = ("tables",)

    def __init__(self, tables: Mapping[Table, Mapping[bytes, bytes | None]]) -> None:
        self.tables = tables

    @classmethod
    def of(cls, writes: Iterable[Write]) -> "Writes":
        """These; of several of one key the last."""
        tables: dict[Table, dict[bytes, bytes | None]] = {}
        for write in writes:
            tables.setdefault(write.table, {})[write.key] = write.value if isinstance(write, Put) else None
        return cls(tables)

    def __iter__(self) -> Iterator[Write]:
        for table, written in self.tables.items():
            for key, value in written.items():
                yield Delete(table, key) if value is None else Put(table, key, value)

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))

    @overload
    def __getitem__(self, index: int) -> Write: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Write, ...]: ...
    def __getitem__(self, index: int | slice) -> Write | tuple[Write, ...]:
        return tuple(self)[index]


Told: TypeAlias = tuple[str, str | None, dict[str, Any]]


@attrs.frozen
class Note:
    """Something that an operator would act on or look for. Observers log it; machines never log."""

    event: str
    level: str = "info"
    fields: dict[str, Any] = attrs.field(factory=dict)


class Reply(Record, frozen=True):
    """Answer the query that has this id. With `more` this is a part of the answer, and a `Delivered` says when the
    client has taken it: the next part is not made before."""

    query_id: int
    reply: bytes
    more: bool = False


class Send(Record, frozen=True):
    """Send a message over this link; nothing happens where the link is gone. One that `can_wait` may go together with
    what is sent over the link next, some milliseconds later at most."""

    link: int
    message: Message
    can_wait: bool = False


@attrs.frozen
class Hangup:
    """Close this link."""

    link: int
    reason: str


@attrs.frozen
class Exit:
    """Nothing is left to do: end the program with this status."""

    status: int = 0


class Effects(Record, frozen=True):
    """The answer to a step. `actions` are performed in order, and only after all writes are durable.

    `at_once` is for what promises nothing that this step's writes have to keep, and so need not wait for them: a node
    begins an attempt on the strength of a lease that is on the ledger's disk, hands on how one ended, and answers with
    an end that the ledger has on its disk (docs/decisions/0010 and 0017).

    `gather_s`: the next step begins so long after this one has begun at the earliest, and waits for company until then,
    because nobody is kept waiting by it: a step for many costs little more than one for few.

    `told`: what became known of jobs and nodes in this step, for observers: an event as EVENTS names it, the ticket
    where it is of a job, and the event's fields.
    """

    writes: Sequence[Write] = ()
    actions: Sequence[object] = ()
    at_once: Sequence[object] = ()
    gather_s: float = 0.0
    told: Sequence[Told] = ()
