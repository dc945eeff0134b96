"""The words of the domain as frozen values: Job, Outcome, Report, tickets and states.

Rules: pure; nothing here knows a socket, a clock or a file. Fields say their unit in their name. A field added
later gets a default, so that records and messages of an older version still open (`common/codec.py` leaves
defaults out).
"""

import enum
import functools
import re
from typing import Final

from common.codec import Record
from common.limits import BACKOFF_DEFAULT_S, CRASH_LIMIT_DEFAULT, OPTION_BYTES_MAX


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
    PROCESSES = "processes"
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


class Job(Record, frozen=True):
    """What a client asked for, for ever unchanged. Its body (standard input) is stored beside it."""

    kind: str
    line: str  # the rest of the request line after the kind, as it stood
    submitted_wall: float = 0.0  # calendar seconds, when the origin took it in
    name: str | None = None
    group: str | None = None
    key: str | None = None
    priority: int = 0  # higher runs first
    slots: int = 1
    crash_limit: int | None = CRASH_LIMIT_DEFAULT  # None: off
    timeout_s: float | None = None
    dir: str | None = None  # None: an empty directory of its own
    env: tuple[tuple[str, str], ...] = ()
    body_bytes: int = 0
    retries: int = 0  # attempts after a failure
    backoff_s: float = BACKOFF_DEFAULT_S  # before the first of them; doubles
    delay_s: float = 0.0  # not before so long after it was submitted
    after: tuple[str, ...] = ()  # tickets that must succeed first
    array: str | None = None  # `1-1000:2%50`, as `common/arrays.py` reads it: a job for each index
    # What an attempt may use; None: what the node that runs it allows, which is the most in any case.
    cpu_s: float | None = None
    memory_bytes: int | None = None
    files: int | None = None
    processes: int | None = None
    output_bytes: int | None = None  # printed in all; what is kept of it is the node's to say
    requirements: tuple[tuple[str, str], ...] = ()  # room for what is not served yet
    inputs: tuple[str, ...] = ()  # tickets whose standard outputs follow its body; they must succeed first

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"a job takes 1 slot or more, not {self.slots}")
        if self.group is not None:
            _check_key("group", self.group)
        if self.key is not None:
            _check_key("key", self.key)


def _check_key(what: str, text: str) -> None:
    """A key of a table is made of it."""
    if not 0 < len(text.encode()) <= OPTION_BYTES_MAX:
        raise ValueError(f"a {what} has 1 to {OPTION_BYTES_MAX} bytes")


class Outcome(Record, frozen=True):
    """How one attempt ended; its standard output and error follow each other in `output`, kept beside it."""

    verdict: Verdict
    reason: Reason | None = None
    exit: int | None = None  # 128+S when killed by signal S; None when nothing was started
    seconds: float = 0.0  # run time
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


class Ended(Record, frozen=True):
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
    sequence: int = 0  # the order of the ends, by which WATCH goes on where it was
    begun: int = 0  # the highest attempt that was ever given out: numbers are never used twice
    retried: int = 0  # how often RETRY has brought the job back
    counts: tuple[tuple[str, int], ...] = ()  # of an array: how many of its elements ended in which state
    because: str | None = None  # of one that was cancelled for what it waited for: which job, and what of it


def end_of_attempt(
    outcome: Outcome,
    state: State,
    reason: Reason | None,
    attempt: int,
    node: str,
    ended_wall: float,
    sequence: int = 0,
    begun: int = 0,
    retried: int = 0,
) -> Ended:
    """The end of an attempt as it is remembered; the state and its reason are for the caller to decide, and where it is
    the end of the job, its place in the order of the ends and the rest of the numbers."""
    return Ended(
        state,
        ended_wall,
        reason,
        attempt,
        outcome.exit,
        node,
        outcome.seconds,
        outcome.stdout_bytes,
        outcome.stderr_bytes,
        outcome.truncated,
        sequence,
        begun,
        retried,
    )


class Report(Record, frozen=True):
    """A node's counts at one moment: attempts begun, and its backlog."""

    running: int = 0
    waiting: int = 0


# --- tickets ---------------------------------------------------------------------------------------------------

_TICKET = re.compile(r"([a-z2-7]{6})-([1-9][0-9]{0,17})(?:_(0|[1-9][0-9]{0,8}))?")
_PLAIN_KEY_BYTES: Final = 14  # six characters and eight bytes; an element's key goes on with its index
_INDEX_BYTES: Final = 6
_RECENT: Final = 16_384
PREFIX_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
PREFIX_CHARACTERS: Final = 6


def ticket(prefix: str, number: int) -> str:
    """The ticket of the `number`-th job (from 1) of the node directory that has the six characters `prefix`."""
    return f"{prefix}-{number}"


@functools.lru_cache(maxsize=_RECENT)
def parse_ticket(text: str) -> tuple[str, int] | None:
    """Prefix and number of a ticket, or of the array that an element belongs to; None when `text` is no ticket.
    Case does not matter to people."""
    match = _TICKET.fullmatch(text.lower())
    return (match[1], int(match[2])) if match else None


def element(of: str, index: int) -> str:
    """How an element of an array is written: `k3f7qa-1_7`."""
    return f"{of}_{index}"


def array_of(text: str) -> str:
    """The ticket of the array that an element belongs to; any other ticket as it is."""
    return text.partition("_")[0] if "_" in text else text


def is_element(text: str) -> bool:
    """Whether a ticket is that of an element of an array."""
    return "_" in text


def index_of(text: str) -> int | None:
    """The index of an element; None for any other ticket."""
    return int(text.partition("_")[2]) if "_" in text else None


def is_prefix(text: str) -> bool:
    """Whether these are characters with which tickets may begin."""
    return len(text) == PREFIX_CHARACTERS and all(character in PREFIX_ALPHABET for character in text)


def prefix_key(prefix: str) -> bytes:
    """What the keys of an origin's tickets begin with; their number follows, in eight bytes."""
    return prefix.encode()


def fresh_key(text: str) -> bytes:
    """The key of a ticket in every table: sorted by origin, then by number, so that new tickets are appended; the
    elements of an array follow it, by index."""
    if "_" in text:
        of, _, index = text.partition("_")
        return fresh_key(of) + int(index).to_bytes(_INDEX_BYTES, "big")
    return text[:PREFIX_CHARACTERS].encode() + int(text[PREFIX_CHARACTERS + 1 :]).to_bytes(8, "big")


# The same, for whoever is not the only one to ask: of most tickets some dozen do within a few steps.
ticket_key: Final = functools.lru_cache(maxsize=_RECENT)(fresh_key)


def ticket_of(key: bytes) -> str:
    """The inverse of `ticket_key`."""
    plain = f"{key[:6].decode()}-{int.from_bytes(key[6:_PLAIN_KEY_BYTES], 'big')}"
    return plain if len(key) == _PLAIN_KEY_BYTES else element(plain, int.from_bytes(key[_PLAIN_KEY_BYTES:], "big"))


def plain_ticket(key: bytes) -> tuple[str, int] | None:
    """Prefix and number of the ticket with this key; None for that of an element."""
    return (key[:6].decode(), int.from_bytes(key[6:], "big")) if len(key) == _PLAIN_KEY_BYTES else None


def attempt_name(of: str, attempt: int) -> str:
    """How an attempt is written: `k3f7qa-1.2` is the second attempt of the job `k3f7qa-1`."""
    return f"{of}.{attempt}"
