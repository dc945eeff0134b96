"""Running attempts: what the node asks of its executors, and what it hears from them.

`Executors` (in `handle.py` of this package) is the node's handle on the spawner process, which starts commands and
warm Python workers and outlives its node just long enough to kill them. All kinds run there but `sleep`, which needs
no process and is timed by the node's own machine.

    node:     handle ══ Start, Kill, Peek ═════►  spawner ─┬─ commands   a process for each attempt
              (trio) ◄═ Begun, Printed, Over ═══  (a loop) ├─ workers    warm Python processes, each runs child
                        (in batches)                       └─ guard      ends who uses more than he may

More may be started than there are slots: what has none waits in the spawner's line, so that a slot that becomes free
does not stand idle for as long as the node needs to hear of it and to decide. Nothing waits there for long: where
nothing moves for a moment, all is Returned, and what is wanted back sooner is asked for with TakeBack.

This module holds the values that cross that border, and imports neither trio nor a socket.
"""

from typing import Final, TypeAlias

import attrs
from msgspec.structs import astuple

from common.codec import Record
from common.model import Outcome


class Limits(Record, frozen=True):
    """What one attempt, its whole process group, may use; None is no limit. More than that ends it with the reason
    of the same name; more open files than allowed it is only refused."""

    cpu_s: float | None = None
    memory_bytes: int | None = None
    files: int | None = None
    processes: int | None = None
    output_bytes: int | None = None  # printed in all, kept or not

    def within(self, most: "Limits") -> "Limits":
        """These, and nowhere more than `most`."""
        if self == NO_LIMITS:
            return most
        pairs = zip(astuple(self), astuple(most), strict=True)
        return Limits(*(min((value for value in pair if value is not None), default=None) for pair in pairs))


NO_LIMITS: Final = Limits()


class Start(Record, frozen=True):
    """Run this attempt. `env` is the whole environment that the job adds to the clean base."""

    ticket: str
    attempt: int
    kind: str
    line: str
    body: bytes = b""  # standard input
    dir: str | None = None  # None: an empty scratch directory, removed afterwards
    env: tuple[tuple[str, str], ...] = ()
    limits: Limits = NO_LIMITS
    slots: int = 1


@attrs.frozen
class TakeBack:
    """Do not begin this attempt. Answered by Returned where it had not begun; else nothing happens."""

    ticket: str
    attempt: int


@attrs.frozen
class Kill:
    """Send `signal` to the process group of this attempt; nothing happens where it has already ended."""

    ticket: str
    attempt: int
    signal: int


@attrs.frozen
class Peek:
    """What has this attempt printed, behind so many bytes? Answered by one Printed, whatever became of it."""

    query_id: int
    ticket: str
    attempt: int
    stdout_at: int = 0
    stderr_at: int = 0


class Begun(Record, frozen=True):
    """The attempt has a process now: `pid` leads its session and its process group. Not told of one that is over by the
    time that it could be."""

    ticket: str
    attempt: int
    pid: int = 0


class Returned(Record, frozen=True):
    """The attempt has not begun, and will not: it is the node's again."""

    ticket: str
    attempt: int


class Over(Record, frozen=True):
    """The attempt has ended and its process group has been killed. `output` is standard output, then standard error.

    An attempt that could not be started is Over without ever having Begun.
    """

    ticket: str
    attempt: int
    outcome: Outcome
    output: bytes = b""


@attrs.frozen
class Printed:
    """The answer to a Peek: the bytes that are kept behind the places asked for. `running` is False where the attempt
    is not running here; its output, if there is one, is then the outcome's."""

    query_id: int
    running: bool
    stdout: bytes = b""
    stderr: bytes = b""


Order: TypeAlias = Start | TakeBack | Kill | Peek
Word: TypeAlias = Begun | Printed | Returned | Over  # what the node hears
