"""What a sound data directory looks like: what each record must be, and what must be there because of it.

An inspection reads every record of every table once, and looks up what it points at. Rules are functions over one
record, and say what is wrong in plain words. Those that hold for both programs are here; `node/inspection.py` and
`balancer/inspection.py` add their own. They say again what `docs/tables.md` says, and use nothing of the machines that
write the records but their classes: who checks must not make the same mistakes.

A *problem* is what the machines never write: damage, a mistake of ours, or somebody else's hand. A *remark* is worth a
look and does no harm. What points at a record in quarantine is no problem of its own.

Pure: where the records come from is the caller's affair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

import attrs

from common.arrays import parse_indexes
from common.codec import Malformed, unpack
from common.effects import Table
from common.keys import Claim
from common.model import Ended, Job, array_of, index_of, parse_ticket, ticket_key, ticket_of

T = TypeVar("T")
QUARANTINE: Final = "quarantine"
_TICKET_BYTES: Final = (14, 20)  # of a job or array, and of an element
_MOMENT_BYTES: Final = 8


class Records(Protocol):
    """A data directory at one moment."""

    def names(self) -> Sequence[str]:
        """The tables that are there."""
        ...

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        """Every record, in the order of keys; None for one that does not match its checksum."""
        ...

    def keys(self, table: str, prefix: bytes) -> Iterator[bytes]:
        """The keys of a table that begin with this."""
        ...

    def get(self, table: str, key: bytes) -> bytes | None:
        """A record that matches its checksum."""
        ...

    def holds(self, table: str, key: bytes) -> bool:
        """Whether there is such a record, sound or not, or one in quarantine."""
        ...


class Remark(str):
    """What is worth a mention, and no problem."""


@attrs.frozen
class Finding:
    """Something about one record, or about a table where `where` is empty."""

    table: str
    where: str
    what: str
    is_problem: bool


@attrs.define
class Count:
    """How much a table holds."""

    records: int = 0
    value_bytes: int = 0


class Look:
    """What a rule may ask of the directory."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.get = records.get
        self.holds = records.holds
        self.keys = records.keys

    def read(self, cls: type[T], table: Table, key: bytes) -> T | None:
        """A record, where there is one that can be read."""
        packed = self.get(table, key)
        try:
            return None if packed is None else unpack(cls, packed)
        except Malformed:
            return None

    def job(self, key: bytes) -> Job | None:
        """The job that a ticket's key belongs to; of an element its array."""
        return self.read(Job, Table.JOBS, key[: _TICKET_BYTES[0]])

    def number(self, key: bytes) -> int:
        """A number among the meta records, 0 where it is missing."""
        text = self.get(Table.META, key) or b"0"
        return int(text) if text.isdigit() else 0


Rule: TypeAlias = Callable[[Look, bytes, bytes], Iterable[str]]
Rules: TypeAlias = Mapping[Table, Sequence[Rule]]


def inspect(records: Records, rules: Rules) -> Iterator[Finding | tuple[str, Count]]:
    """Looks at everything: findings as they come, and after each table its count."""
    look = Look(records)
    for name in records.names():
        count = Count()
        table = Table(name) if name in frozenset(Table) else None
        if table is None and name != QUARANTINE:
            yield Finding(name, "", "is no table that this version knows", False)
            continue
        for key, value in records.scan(name):
            count.records += 1
            count.value_bytes += len(value or b"")
            if table is None:
                yield Finding(name, _place(key), "was set aside because it did not match its checksum", False)
            elif value is None:
                yield Finding(name, _place(key), "does not match its checksum", True)
            else:
                for what in _findings(look, rules.get(table), key, value):
                    yield Finding(name, _place(key), what, not isinstance(what, Remark))
        yield name, count


def _findings(look: Look, rules: Sequence[Rule] | None, key: bytes, value: bytes) -> Iterator[str]:
    if rules is None:
        yield "is in a table that this program does not use"
        return
    for rule in rules:
        try:
            yield from rule(look, key, value)
        except (Malformed, UnicodeDecodeError) as error:
            yield f"cannot be read: {error}"
            return  # what cannot be read is not asked for more


def _place(key: bytes) -> str:
    """A key for people: its ticket where it begins with one, text where it is text, otherwise in hexadecimal."""
    if len(key) in _TICKET_BYTES and _is_ticket(key):
        return ticket_of(key)
    text = key.decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text else key.hex()


# --- keys --------------------------------------------------------------------------------------------------------


def read_ticket(key: bytes) -> str:
    """The ticket of a key; raises Malformed."""
    if len(key) not in _TICKET_BYTES or not _is_ticket(key):
        raise Malformed(f"{key.hex()} is no ticket")
    return ticket_of(key)


def _is_ticket(key: bytes) -> bool:
    try:
        text = ticket_of(key)
    except UnicodeDecodeError:
        return False
    return parse_ticket(text) is not None and ticket_key(text) == key


def read_number(text: bytes) -> int:
    """A number written as text; raises Malformed."""
    if not text.isdigit():
        raise Malformed(f"{text!r} is no number")
    return int(text)


# --- rules of both programs --------------------------------------------------------------------------------------


def job_is_whole(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    job = unpack(Job, value)
    if index_of(read_ticket(key)) is not None:
        yield "is the job of an element, which has none of its own"
    if job.array is not None:
        try:
            parse_indexes(job.array)
        except ValueError as error:
            raise Malformed(f"its array is none: {error}") from error
    if job.body_bytes and not look.holds(Table.BODIES, key):
        yield f"has no body, and should have one of {job.body_bytes} bytes"
    if not look.holds(Table.LIVE, key) and not look.holds(Table.ENDED, key):
        yield "is neither live nor ended: nobody will ever run it"


def body_belongs_to_a_job(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    read_ticket(key)
    job = look.job(key)
    if not look.holds(Table.JOBS, key):
        yield "is the body of a job that is not there"
    elif job is not None and job.body_bytes != len(value):
        yield f"is a body of {len(value)} bytes, and its job says {job.body_bytes}"


def end_can_be_read(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket, ended = read_ticket(key), unpack(Ended, value)
    if not ended.state.ended:
        yield f"has ended in the state {ended.state}, which is no end"
    if look.get(Table.LIVE, key) is not None:
        yield "has ended, and is live"
    if not look.holds(Table.JOBS, ticket_key(array_of(ticket))):
        text = "has ended, and its job is not there"
        yield text if index_of(ticket) is None else Remark(f"{text}: its array has gone before it")
    if (ended.stdout_bytes or ended.stderr_bytes) and not look.holds(Table.OUTPUTS, key):
        yield f"has no output, and should have {ended.stdout_bytes} and {ended.stderr_bytes} bytes"
    if not look.holds(Table.EXPIRY, _moment(ended.ended_wall) + key):
        yield "has ended, and will never expire"


def expiry_points_at_something(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket = key[_MOMENT_BYTES:]
    read_ticket(ticket)
    ended = look.read(Ended, Table.ENDED, ticket)
    if value not in (b"r", b"t"):
        yield f"is an expiry of the kind {value!r}, and there are b'r' and b't'"
    elif value == b"t" and not look.holds(Table.TOMBSTONES, ticket):
        yield Remark("is the expiry of a tombstone that has gone")
    elif value == b"r" and not look.holds(Table.ENDED, ticket):
        yield "is the expiry of an end that is not there"
    elif value == b"r" and ended is not None and _moment(ended.ended_wall) != key[:_MOMENT_BYTES]:
        yield "is the expiry of an end at another moment"


def _moment(wall: float) -> bytes:
    return max(0, int(wall * 1000)).to_bytes(_MOMENT_BYTES, "big")


def tombstone_says_why(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    read_ticket(key)
    if value not in (b"", b"forgotten"):
        yield f"is a tombstone that says {value!r}"


def key_is_its_jobs(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    text, claim = key.decode(), unpack(Claim, value)
    if parse_ticket(claim.ticket) is None:
        raise Malformed(f"{claim.ticket!r} is no ticket")
    owner = ticket_key(claim.ticket)
    job = look.job(owner)
    if not look.holds(Table.JOBS, owner):
        yield f"is the key of {claim.ticket}, which is not there: it will never be free"
    elif job is not None and job.key != text:
        yield f"is the key of {claim.ticket}, whose key is {job.key!r}"


def alias_is_a_name(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket, first = read_ticket(key), value.decode()
    if parse_ticket(first) is None:
        raise Malformed(f"{first!r} is no ticket")
    if first == ticket:
        yield "is another name of itself"


BOTH: Final[Rules] = {
    Table.JOBS: [job_is_whole],
    Table.BODIES: [body_belongs_to_a_job],
    Table.ENDED: [end_can_be_read],
    Table.EXPIRY: [expiry_points_at_something],
    Table.TOMBSTONES: [tombstone_says_why],
    Table.KEYS: [key_is_its_jobs],
    Table.ALIASES: [alias_is_a_name],
}


def with_more(more: Rules) -> Rules:
    """The rules of both programs and those of one."""
    return {table: [*BOTH.get(table, ()), *more.get(table, ())] for table in (*BOTH, *more)}
