"""The words of the domain as frozen values: Job, Outcome, Report, tickets and states.

Rules: pure; nothing here knows a socket, a clock or a file. Fields say their unit in their name. A field added
later gets a default, so that records and messages of an older version still open (`common/codec.py` leaves
defaults out).
"""

import enum
import re
from typing import Final

import attrs

from common.limits import CRASH_LIMIT_DEFAULT


class State(enum.StrEnum):
    """Where a job stands. The last three are the ends; an ended job changes only by RETRY."""

    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED_STATES


ENDED_STATES: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Reason(enum.StrEnum):
    """Why a job ended as it did. Machine-readable: the same word in replies, records, logs and metrics."""

    EXIT = "exit"
    SIGNAL = "signal"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CANNOT_START = "cannot_start"
    NO_DIRECTORY = "no_directory"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"
    CRASH_LIMIT = "crash_limit"
    USER = "user"
    DEPENDENCY = "dependency"


class Verdict(enum.StrEnum):
    """How one attempt ended, as its runner saw it. The ledger makes a job's state of it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # handed back by a node that stops as planned: neither a failure nor a crash
    CRASHED = "crashed"  # lost with the spawner that ran it: counts as a crash


KINDS: Final = ("sh", "exec", "argv", "py", "call", "sleep")


@attrs.frozen
class Job:
    """What a client asked for, for ever unchanged. Its body (standard input) is stored beside it."""

    kind: str
    line: str  # the rest of the request line after the kind, as it stood
    submitted_wall: float = 0.0  # calendar seconds, when the origin took it in
    name: str | None = None
    group: str | None = None
    key: str | None = None
    priority: int = 0  # higher runs first
    slots: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    crash_limit: int | None = CRASH_LIMIT_DEFAULT  # None: off
    timeout_s: float | None = None
    dir: str | None = None  # None: an empty directory of its own
    env: tuple[tuple[str, str], ...] = ()
    body_bytes: int = 0
    # Room for what is not served yet, so that the stored format need not change for it.
    retries: int = 0
    backoff_s: float = 1.0
    delay_s: float = 0.0
    after: tuple[str, ...] = ()
    array: str | None = None
    requirements: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Outcome:
    """How one attempt ended; its standard output and error follow each other in `output`, kept beside it."""

    verdict: Verdict
    reason: Reason | None = None
    exit: int | None = None  # 128+S when killed by signal S; None when nothing was started
    seconds: float = 0.0  # run time
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


@attrs.frozen
class Ended:
    """What the ledger recorded of a job at its end: what RESULT answers for the retention time."""

    state: State
    ended_wall: float
    reason: Reason | None = None
    attempt: int = 0  # 0: no attempt of it has ended
    exit: int | None = None
    node: str | None = None  # the runner's name
    seconds: float | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


@attrs.frozen
class Report:
    """A node's counts at one moment: attempts begun, and its backlog."""

    running: int = 0
    waiting: int = 0


# --- tickets ---------------------------------------------------------------------------------------------------

_TICKET = re.compile(r"([a-z2-7]{6})-([1-9][0-9]{0,17})")
PREFIX_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
PREFIX_CHARACTERS: Final = 6


def ticket(prefix: str, number: int) -> str:
    """The ticket of the `number`-th job (from 1) of the node directory that has the six characters `prefix`."""
    return f"{prefix}-{number}"


def parse_ticket(text: str) -> tuple[str, int] | None:
    """Prefix and number of a ticket, or None when `text` is no ticket. Case does not matter to people."""
    match = _TICKET.fullmatch(text.lower())
    return (match[1], int(match[2])) if match else None


def is_prefix(text: str) -> bool:
    """Whether these are characters with which tickets may begin."""
    return len(text) == PREFIX_CHARACTERS and all(character in PREFIX_ALPHABET for character in text)


def ticket_key(text: str) -> bytes:
    """The key of a ticket in every table: sorted by origin, then by number, so that new tickets are appended."""
    prefix, number = text.split("-")
    return prefix.encode() + int(number).to_bytes(8, "big")


def ticket_of(key: bytes) -> str:
    """The inverse of `ticket_key`."""
    return f"{key[:-8].decode()}-{int.from_bytes(key[-8:], 'big')}"


def attempt_name(of: str, attempt: int) -> str:
    """How an attempt is written: `k3f7qa-1.2` is the second attempt of the job `k3f7qa-1`."""
    return f"{of}.{attempt}"
