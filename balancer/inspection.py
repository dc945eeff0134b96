"""What a sound data directory of a balancer looks like, beside what holds for both programs (`common/inspection.py`).

Pure.
"""

import json
from collections.abc import Iterator
from typing import Final

from balancer.arrays import Array, ArrayRecord
from balancer.records import LiveRecord
from balancer.roster import NodeRecord
from common.arrays import parse_indexes
from common.codec import Malformed, unpack
from common.effects import Table
from common.inspection import Look, Remark, Rules, read_number, read_ticket, with_more
from common.model import Ended, array_of, index_of, is_prefix, parse_ticket, ticket_key

_SEQUENCE_BYTES: Final = 8
_ATTEMPT_BYTES: Final = 5  # a 0 byte, then the number in 4


def meta_is_known(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    if key == b"last_end":
        read_number(value)
    elif key == b"tag":
        if len(value) != 4 or not value.isalnum():
            yield f"is {value!r}, and cursors begin with four letters"
    elif key != b"id":
        yield Remark("is nothing that this version knows")


# --- live jobs ---------------------------------------------------------------------------------------------------


def live_job_can_go_on(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket, record = read_ticket(key), unpack(LiveRecord, value)
    if not look.holds(Table.JOBS, ticket_key(array_of(ticket))):
        yield "is live, and its job is not there"
    if index_of(ticket) is not None and not look.holds(Table.LIVE, ticket_key(array_of(ticket))):
        yield "is a live element, and its array is not live"
    if record.array is not None:
        parse_indexes_of(record.array)
    if record.leased and not (record.attempt and record.boot_id and record.node_id):
        yield f"is leased as attempt {record.attempt} to the boot {record.boot_id} of {record.node_id}"
    elif record.leased and not look.holds(Table.NODES, (record.node_id or "").encode()):
        yield f"is leased to the node {record.node_id}, which nobody has met"
    if record.leased and (record.due_wall or record.unused or record.waits_for):
        yield "is leased, and has still to wait"
    if record.cancelled and not record.leased and record.array is None:
        yield "is cancelled and not leased, and has not ended"
    job = look.job(ticket_key(array_of(ticket)))
    if job is not None and bool(job.inputs) != record.takes_input:
        yield f"takes {'an' if record.takes_input else 'no'} input, and its job names {' '.join(job.inputs) or 'none'}"
    for other in record.waits_for:
        if parse_ticket(other) is None:
            yield f"waits for {other!r}, which is no ticket"


def parse_indexes_of(spec: str) -> None:
    try:
        parse_indexes(spec)
    except ValueError as error:
        raise Malformed(f"its array is none: {error}") from error


def array_adds_up(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket, record, job = read_ticket(key), unpack(ArrayRecord, value), look.job(key)
    if not look.holds(Table.JOBS, key):
        yield "is an array whose job is not there"
    if job is None:
        return
    if job.array is None:
        yield "has the record of an array, and is none"
        return
    parse_indexes_of(job.array)
    array = Array.of(ticket, parse_indexes(job.array), record)
    live = sum(1 for other in look.keys(Table.LIVE, key) if other != key)
    ended, begun = array.succeeded + array.failed + array.cancelled, array.next + len(array.ahead)
    if min(array.next, array.succeeded, array.failed, array.cancelled, array.unbegun) < 0:
        yield f"counts below nothing: {record}"
    elif ended + live != begun:
        yield f"has begun {begun} elements, of which {ended} have ended and {live} are live"


def output_is_of_an_end_or_a_try(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    read_ticket(key)
    ended, live = look.read(Ended, Table.ENDED, key), look.read(LiveRecord, Table.LIVE, key)
    if not look.holds(Table.ENDED, key) and not look.holds(Table.LIVE, key):
        yield "is the output of a job that is neither ended nor live"
    elif ended is not None and ended.stdout_bytes + ended.stderr_bytes != len(value):
        yield f"is an output of {len(value)} bytes, and its end says {ended.stdout_bytes} and {ended.stderr_bytes}"
    elif ended is None and live is not None and not live.failures:
        yield "is the output of a live job of which no attempt has failed"


# --- ends --------------------------------------------------------------------------------------------------------


def end_has_its_number(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ended, job = unpack(Ended, value), look.job(key)
    if not ended.sequence:
        yield Remark("has no number: WATCH tells of it in no order")
    elif ended.sequence > look.number(b"last_end"):
        yield f"has the number {ended.sequence}, and the last end had {look.number(b'last_end')}"
    elif job is not None and job.group is not None and index_of(read_ticket(key)) is None:
        place = job.group.encode() + b"\0" + ended.sequence.to_bytes(_SEQUENCE_BYTES, "big")
        if not look.holds(Table.GROUPS, place):
            yield f"is not found among the ends of its group {job.group!r}"


def group_points_at_an_end(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    group, zero, sequence = key[: -_SEQUENCE_BYTES - 1], key[-_SEQUENCE_BYTES - 1 : -_SEQUENCE_BYTES], key[-8:]
    if zero != b"\0" or not group.decode():
        raise Malformed("its key is no group and number")
    ticket, ended, job = read_ticket(value), look.read(Ended, Table.ENDED, value), look.job(value)
    if not look.holds(Table.ENDED, value):
        yield f"points at {ticket}, which has not ended"
    elif ended is not None and ended.sequence != int.from_bytes(sequence, "big"):
        yield f"points at {ticket}, whose end has the number {ended.sequence}"
    elif job is not None and job.group != group.decode():
        yield f"points at {ticket}, whose group is {job.group!r}"


def attempt_is_of_a_job(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket_part, number = key[:-_ATTEMPT_BYTES], key[-_ATTEMPT_BYTES:]
    ticket, ended = read_ticket(ticket_part), unpack(Ended, value)
    if number[:1] != b"\0" or int.from_bytes(number, "big") != ended.attempt:
        yield f"is attempt {int.from_bytes(number, 'big')} of {ticket}, and says that it is {ended.attempt}"
    if not look.holds(Table.ENDED, ticket_part) and not look.holds(Table.LIVE, ticket_part):
        yield Remark(f"is an attempt of {ticket}, which has gone")


# --- nodes and origins -------------------------------------------------------------------------------------------


def notice_is_known(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket = read_ticket(key)
    if value not in (b"revived", b"forgotten"):
        yield f"is a notice that says {value!r}"
    if not look.holds(Table.ORIGINS, ticket.partition("-")[0].encode()):
        yield Remark("is a notice for an origin that nobody has met")


def origin_is_a_node(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    if not is_prefix(key.decode()):
        yield "is no beginning of tickets"
    if not look.holds(Table.NODES, value):
        yield f"belongs to the node {value.decode()}, which nobody has met"


def node_has_its_prefix(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    record = unpack(NodeRecord, value)
    owner = look.get(Table.ORIGINS, record.prefix.encode())
    if not look.holds(Table.ORIGINS, record.prefix.encode()) or (owner is not None and owner != key):
        yield f"begins its tickets with {record.prefix}, which belongs to {(owner or b'nobody').decode()}"


# --- events ------------------------------------------------------------------------------------------------------


class EventsFollow:
    """Each record of events begins where the one before it ended. It remembers that: a rule for one inspection."""

    def __init__(self) -> None:
        self._next: tuple[int, int] | None = None  # the number and the place at which the next record begins

    def __call__(self, look: Look, key: bytes, value: bytes) -> Iterator[str]:
        if len(key) != _SEQUENCE_BYTES or len(value) < _SEQUENCE_BYTES:
            raise Malformed("is no record of events")
        first, at = int.from_bytes(key, "big"), int.from_bytes(value[:_SEQUENCE_BYTES], "big")
        lines = value[_SEQUENCE_BYTES:].splitlines()
        expected, self._next = self._next, (first + len(lines), at + len(value) - _SEQUENCE_BYTES)
        if expected is not None and expected != (first, at):
            yield Remark(f"begins with event {first} at byte {at}, and the one before ended at {expected}")
        for number, line in enumerate(lines, first):
            try:
                told = json.loads(line)
            except ValueError as error:
                raise Malformed(f"event {number} is no JSON: {error}") from error
            if not isinstance(told, dict) or told.get("seq") != number:
                yield f"tells event {number} under another number"


def balancer_rules() -> Rules:
    """For one inspection."""
    return with_more(
        {
            Table.META: [meta_is_known],
            Table.LIVE: [live_job_can_go_on],
            Table.ARRAYS: [array_adds_up],
            Table.OUTPUTS: [output_is_of_an_end_or_a_try],
            Table.ENDED: [end_has_its_number],
            Table.GROUPS: [group_points_at_an_end],
            Table.ATTEMPTS: [attempt_is_of_a_job],
            Table.NOTICES: [notice_is_known],
            Table.ORIGINS: [origin_is_a_node],
            Table.NODES: [node_has_its_prefix],
            Table.EVENTS: [EventsFollow()],
        }
    )
