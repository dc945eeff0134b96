"""Ends: how attempts and jobs ended, written down in the order in which they did.

The order is a number that goes up with each end, for ever: by it WATCH goes on where it was. A tag tells the numbers
of one ledger from those of another, which begins anew. Pure.
"""

from typing import Final

from balancer.chronicle import Chronicle
from common.effects import Table
from common.history import History
from common.machine import Chance
from common.memory import Memory
from common.model import Ended, Outcome, Reason, State, Verdict, ticket_key

_SEQUENCE: Final = b"last_end"
_TAG: Final = b"tag"
_TAG_CHARACTERS: Final = 4
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"


class Ends:
    def __init__(self, memory: Memory, history: History, chronicle: Chronicle, chance: Chance) -> None:
        self._memory = memory
        self._history = history
        self._chronicle = chronicle
        self._chance = chance
        self.last = 0  # the sequence of the latest end
        self._last_written = 0
        self.tag = ""

    def restore(self) -> None:
        self.last = self._last_written = int(self._memory.get(Table.META, _SEQUENCE) or b"0")
        tag = self._memory.get(Table.META, _TAG)
        if tag is None:
            tag = "".join(self._chance.choice(_LETTERS) for _ in range(_TAG_CHARACTERS)).encode()
            self._memory.put(Table.META, _TAG, tag)
        self.tag = tag.decode()

    def next_number(self) -> int:
        self.last += 1
        return self.last

    def step_is_over(self) -> None:
        """The numbers that were given in it are on disk with its ends."""
        if self._last_written != self.last:
            self._last_written = self.last
            self._memory.put(Table.META, _SEQUENCE, b"%d" % self.last)

    def record(self, ticket: str, ended: Ended, output: bytes, group: str | None) -> bytes:
        """The end of a job, with its number. `group` makes it findable. Returns it as it is on disk."""
        packed = self._history.record(ticket, ended, output, group)
        self._chronicle.tell_end(ticket, ended)
        return packed

    def record_attempt(self, ticket: str, ended: Ended, output: bytes, wait_s: float) -> None:
        """The end of an attempt that another follows. Its output can be read while the job waits for that."""
        self._history.remember_attempt(ticket, ended)
        self.drop_output(ticket)
        if output:
            self._memory.put(Table.OUTPUTS, ticket_key(ticket), output)
        self._chronicle.tell_end(ticket, ended, "job.retrying", wait_s=round(wait_s, 3))

    def drop_output(self, ticket: str) -> None:
        """What an earlier attempt printed is not the output of the job."""
        self._memory.delete(Table.OUTPUTS, ticket_key(ticket))


def how_it_counts(outcome: Outcome, *, cancelled: bool) -> tuple[State, Reason | None]:
    """The end of a job whose last attempt ended so: a cancel that was recorded before wins."""
    if cancelled:
        return State.CANCELLED, Reason.USER
    if outcome.verdict is Verdict.SUCCEEDED:
        return State.SUCCEEDED, None
    return State.FAILED, outcome.reason
