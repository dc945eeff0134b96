"""An attempt as its node holds it, from when it is taken to when it is over; what becomes of it the backlog decides.

Pure.
"""

import enum
from typing import Final

import msgspec

from common.arrays import line_of
from common.codec import Record
from common.messages import AttemptId
from common.model import Job, Outcome, index_of


class Stop(enum.Enum):
    """Why a begun attempt is being ended before it ended by itself; or one handed ahead, should it have begun."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    DROPPED = "dropped"  # given to another node meanwhile: nobody waits for the outcome
    INTERRUPTED = "interrupted"  # the node stops as planned


class Held(msgspec.Struct, eq=False):
    """An attempt that this node has taken."""

    id: AttemptId
    job: Job
    body: bytes
    order: int = 0  # among those of its priority; the ledger's
    sequence: int = 0
    is_ahead: bool = False
    is_asked_back: bool = False  # if it has not begun; else it goes on
    begun_at: float | None = None
    is_timed: bool = False  # a timer was set for it
    stop: Stop | None = None

    @property
    def waits_here(self) -> bool:
        return self.begun_at is None and not self.is_ahead

    @property
    def sleeps_no_time(self) -> bool:
        """As the line says at first sight; what says it in other words is found out when it begins."""
        return self.job.line in _NO_TIME and self.job.kind == "sleep"

    @property
    def line(self) -> str:
        """As this attempt runs it: an element of an array has its index in it."""
        return line_of(self.job.line, index_of(self.id[0])) if "_" in self.id[0] else self.job.line


_NO_TIME: Final = frozenset({"0", "0s", "0ms"})


class Finished(Record, frozen=True):
    """A begun attempt that is over, and how it counts."""

    id: AttemptId
    outcome: Outcome
    output: bytes
    unwanted: bool  # dropped: not to be reported
