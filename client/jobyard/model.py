"""What travels between a client and its cluster, as frozen values: Job and Ticket out, Outcome, Status, Node back.

Pure. The words are those of the protocol; fields say their unit in their name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict


class Ticket(str):
    """What you hold for a job. Opaque: keep it, compare it, send it back, but do not read anything out of it."""

    __slots__ = ()


class JobOptions(TypedDict, total=False):
    """Everything that may be said of a job besides its kind and line. What is None or left out is not sent."""

    body: bytes | None  # standard input
    name: str | None
    group: str | None
    key: str | None  # one key gives one job, so a submission with a key may be sent again
    priority: int | None  # -100..100, higher runs first
    slots: int | None
    timeout_s: float | None  # kills the attempt
    crash_limit: int | Literal["off"] | None  # attempts that may be lost with their node
    dir: str | None  # absolute, on the node that runs it
    env: Mapping[str, str] | None


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
    timeout_s: float | None = None
    crash_limit: int | Literal["off"] | None = None
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

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job stands. `fields` is all that the node said, also what this version does not know."""

    ticket: Ticket
    state: str
    attempt: int = 0
    node: str | None = None
    reason: str | None = None
    name: str | None = None
    group: str | None = None
    submitted: str | None = None  # ISO 8601, UTC
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the balancer sees it: running counts attempts begun, waiting its backlog."""

    name: str
    state: str  # alive, draining or lost
    slots: int
    running: int
    waiting: int
    last_seen_s: float
