"""What travels between a client and its cluster, as frozen values: Job and Ticket out, Outcome, Status and others back.

Pure. The words are those of the protocol; fields say their unit in their name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict

ENDED_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
STATES: Final = ("scheduled", "blocked", "queued", "dispatched", "running", "retrying", *sorted(ENDED_STATES))

Event: TypeAlias = dict[str, Any]  # one event of the cluster, as its JSON says it: seq, at, event and further keys


class Ticket(str):
    """What you hold for a job. Opaque: keep it, compare it, send it back, but do not read anything out of it. Its
    text is all there is to it: another process that has the text has the ticket."""

    __slots__ = ()


class CallOptions(TypedDict, total=False):
    """What may be said of a job that is a call of a Python function. What is None or left out is not sent."""

    name: str | None
    priority: int | None  # -100..100, higher runs first
    slots: int | None
    retries: int | None  # attempts after a failure
    backoff_s: float | None  # before the first of them; doubles up to 5 min
    crash_limit: int | Literal["off"] | None  # attempts that may be lost with their node
    timeout_s: float | None  # kills the attempt
    delay_s: float | None  # not before
    after: Sequence[str] | None  # tickets that must succeed first
    cpu_s: float | None  # CPU time of an attempt, all its processes together
    memory_bytes: int | None  # resident memory, all its processes together
    files: int | None  # open files of a process
    processes: int | None
    output_bytes: int | None  # printed in all
    dir: str | None  # absolute, on the node that runs it
    env: Mapping[str, str] | None


class JobOptions(CallOptions, total=False):
    """Everything that may be said of a job besides its kind and line. What is None or left out is not sent."""

    body: bytes | None  # standard input
    input: Sequence[str] | None  # tickets that must succeed first, and whose outputs follow in standard input
    group: str | None
    key: str | None  # one key gives one job, so a submission with a key may be sent again
    array: str | None  # a job for each index: 1-1000, 0-99:3, 1-1000%50


@dataclass(frozen=True, slots=True)
class Job:
    """A job to submit: `Job("sh", "echo hi", group="night")`. See JobOptions."""

    kind: str
    line: str
    body: bytes | None = None
    name: str | None = None
    group: str | None = None
    key: str | None = None
    priority: int | None = None
    slots: int | None = None
    retries: int | None = None
    backoff_s: float | None = None
    crash_limit: int | Literal["off"] | None = None
    timeout_s: float | None = None
    delay_s: float | None = None
    after: Sequence[str] | None = None
    input: Sequence[str] | None = None
    array: str | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None
    files: int | None = None
    processes: int | None = None
    output_bytes: int | None = None
    dir: str | None = None
    env: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. One that no attempt of which has ended has attempt 0 and no exit, node and seconds."""

    ticket: Ticket
    state: str  # succeeded, failed or cancelled
    attempt: int
    exit: int | None = None  # 128+S where signal S ended it
    node: str | None = None  # the runner's name
    seconds: float | None = None  # run time
    reason: str | None = None  # why it failed or was cancelled
    truncated: bool = False  # output was longer than the node keeps
    stdout: bytes = b""
    stderr: bytes = b""
    counts: Mapping[str, int] = field(default_factory=dict)  # of an array: state → how many elements ended in it

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands. `fields` is all that the node said, also what this version does not know.

    `wait_all` has two states of its own for tickets that no job can be found for: `unknown` and `expired`.
    """

    ticket: Ticket
    state: str
    attempt: int = 0
    node: str | None = None
    reason: str | None = None  # what it waits for, or why it ended as it did
    name: str | None = None
    group: str | None = None
    key: str | None = None
    submitted: str | None = None  # ISO 8601, UTC, like the next two
    not_before: str | None = None
    retry_at: str | None = None
    failures: int = 0  # attempts that failed and were, or will be, tried again
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def counts(self) -> Mapping[str, int]:
        """Of an array: state → how many elements are in it. Empty for any other job."""
        if "count" not in self.fields:
            return {}
        return {state: int(self.fields[state]) for state in STATES if state in self.fields}


class Listing(tuple[Status, ...]):
    """What LIST told: jobs, newest first. `partial`: the node stopped looking before it had seen all its records, so
    that some may be missing."""

    partial: bool

    def __new__(cls, jobs: Iterable[Status] = (), *, partial: bool = False) -> Self:
        listing = super().__new__(cls, jobs)
        listing.partial = partial
        return listing


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the balancer sees it: running counts attempts begun, waiting its backlog."""

    name: str
    state: str  # alive, draining or lost
    slots: int
    running: int
    waiting: int
    last_seen_s: float
    version: str = ""  # of its program; empty where the balancer does not know it


@dataclass(frozen=True, slots=True)
class Watched:
    """What one WATCH told: who has ended since the cursor that was given, oldest end first."""

    ended: tuple[Status, ...]
    live: int  # how many of those that are watched have not ended
    cursor: str  # opaque; with it the next WATCH goes on behind these, at any node
    errors: Mapping[Ticket, str] = field(default_factory=dict)  # UNKNOWN_TICKET or EXPIRED


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: a code for programs, a text for people."""

    ticket: Ticket
    state: str
    reason: str  # `done` where it succeeded
    text: str

    @property
    def in_one_line(self) -> str:
        return "; ".join(" ".join(line.split()) for line in self.text.splitlines())


@dataclass(frozen=True, slots=True)
class Logs:
    """What an attempt has printed: so far, or, while it is followed, since the one before. Attempt 0 has not begun."""

    ticket: Ticket
    state: str
    attempt: int
    stdout: bytes = b""
    stderr: bytes = b""
    end: bool = False  # of what is followed: nothing comes after it


@dataclass(frozen=True, slots=True)
class Events:
    """A part of the life of all jobs and nodes, oldest first."""

    events: tuple[Event, ...]
    cursor: str  # opaque; with it the next part begins behind this one, at any node
    lost: bool = False  # what came right behind the cursor that was given is no longer kept


@dataclass(frozen=True, slots=True)
class Drained:
    """A node that has been told to drain, and what it still has to do."""

    state: str
    running: int
    waiting: int
