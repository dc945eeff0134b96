"""What a sound data directory of a node looks like, beside what holds for both programs (`common/inspection.py`).

A node is the origin of every job in it: all of them were issued here. Outcomes are of anybody's jobs. Pure.
"""

from collections.abc import Iterator
from typing import Final

from common.codec import unpack
from common.effects import Table
from common.inspection import Look, Remark, Rules, read_number, read_ticket, with_more
from common.messages import Reported
from common.model import Ended, index_of, is_prefix, parse_ticket
from node.intake import LostNumbers
from node.live import OwnLease

_ATTEMPT_BYTES: Final = 4
_NUMBERS: Final = (
    b"last_number",
    b"acknowledged_number",
    b"sent_number",
    b"ledgers_outlived",
    b"issued_before_the_last_was_lost",
)
_MARKS: Final = (b"acknowledged_number", b"sent_number", b"issued_before_the_last_was_lost")


def meta_is_known(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    if key in _NUMBERS:
        number, last = read_number(value), look.number(b"last_number")
        if key in _MARKS and number > last:
            yield f"is {number}, and no ticket above {last} was issued"
    elif key == b"prefix":
        if not is_prefix(value.decode()):
            yield f"is {value!r}, with which no ticket can begin"
    elif key == b"draining":
        if value != b"1":
            yield f"is {value!r}, and can be b'1'"
    elif key == b"lost_numbers":
        unpack(LostNumbers, value)
    elif key not in (b"id", b"ledger_id"):
        yield Remark("is nothing that this version knows")


def was_issued_here(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    ticket = read_ticket(key)
    parsed, prefix = parse_ticket(ticket), (look.get(Table.META, b"prefix") or b"").decode()
    assert parsed is not None
    if parsed[0] != prefix or index_of(ticket) is not None:
        yield f"was not issued here: tickets of this directory begin with {prefix}"
    elif parsed[1] > look.number(b"last_number"):
        yield f"will be issued again: the last number is {look.number(b'last_number')}"


def live_job_is_there(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    if value:
        lease = unpack(OwnLease, value)
        if lease.attempt < 1 or not lease.boot_id:
            yield f"is leased here as attempt {lease.attempt} to the boot {lease.boot_id!r}"
    if not look.holds(Table.JOBS, key):
        yield "is live, and its job is not there"


def output_is_of_an_end(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    read_ticket(key)
    ended = look.read(Ended, Table.ENDED, key)
    if not look.holds(Table.ENDED, key):
        yield "is the output of a job that has not ended"
    elif ended is not None and ended.stdout_bytes + ended.stderr_bytes != len(value):
        yield f"is an output of {len(value)} bytes, and its end says {ended.stdout_bytes} and {ended.stderr_bytes}"


def _attempt(key: bytes) -> tuple[str, int]:
    return read_ticket(key[:-_ATTEMPT_BYTES]), int.from_bytes(key[-_ATTEMPT_BYTES:], "big")


def outcome_can_be_reported(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    (_, attempt), reported = _attempt(key), unpack(Reported, value)
    outcome = reported.outcome
    if reported.attempt != attempt:
        yield f"is the outcome of attempt {attempt}, and says that it is of {reported.attempt}"
    if (outcome.stdout_bytes or outcome.stderr_bytes) and not look.holds(Table.OUTCOME_OUTPUTS, key):
        yield f"has no output, and should have {outcome.stdout_bytes} and {outcome.stderr_bytes} bytes"


def output_is_of_an_outcome(look: Look, key: bytes, value: bytes) -> Iterator[str]:
    _attempt(key)
    reported = look.read(Reported, Table.OUTCOMES, key)
    if not look.holds(Table.OUTCOMES, key):
        yield "is the output of an attempt whose outcome is not there"
    elif reported is not None and reported.outcome.stdout_bytes + reported.outcome.stderr_bytes != len(value):
        yield f"is an output of {len(value)} bytes, and its outcome says another size"


NODE: Final[Rules] = with_more(
    {
        Table.META: [meta_is_known],
        Table.JOBS: [was_issued_here],
        Table.LIVE: [was_issued_here, live_job_is_there],
        Table.ENDED: [was_issued_here],
        Table.TOMBSTONES: [was_issued_here],
        Table.ALIASES: [was_issued_here],
        Table.OUTPUTS: [output_is_of_an_end],
        Table.OUTCOMES: [outcome_can_be_reported],
        Table.OUTCOME_OUTPUTS: [output_is_of_an_outcome],
    }
)
