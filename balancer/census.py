"""The census: how many live jobs are in each state, counted as they change, so that nobody has to look through them.

A job counts in its own state, and so does an element of an array that has begun. What has not begun of an array is
only a number of elements, and counts in the state that the array holds it in; the array itself does not count.
An entry remembers how it was counted last. Who changes an entry says so (`note`), and more often does no harm.

Pure.
"""

from typing import Final

from balancer.records import Counted, Entry
from common.model import State

LIVE_STATES: Final = (
    State.SCHEDULED, State.BLOCKED, State.QUEUED, State.DISPATCHED, State.RUNNING, State.RETRYING, State.CANCELLED,
)  # fmt: skip


class Census:
    def __init__(self) -> None:
        self.counts: dict[State, int] = dict.fromkeys(LIVE_STATES, 0)

    def note(self, entry: Entry) -> None:
        """The entry is live, and may have changed."""
        before = entry.counted
        if entry.array is None:
            state = entry.state
            if before is not None and before[0] is state:
                return  # as most often: to look a state up would cost as much again
            now = (state, 1)
        else:
            now = counted(entry)
        if now != before:
            if before is not None:
                self.counts[before[0]] -= before[1]
            self.counts[now[0]] += now[1]
            entry.counted = now

    def count(self, before: State | None, now: State, jobs: int) -> None:
        """So many jobs, none of them an array, go from one state to another; from None where they are new. How their
        entries are counted whoever says so keeps."""
        if before is not None:
            self.counts[before] -= jobs
        self.counts[now] += jobs

    def forget(self, entry: Entry) -> None:
        """The entry is no longer live."""
        if entry.counted is not None:
            self.counts[entry.counted[0]] -= entry.counted[1]
            entry.counted = None

    def rest(self, jobs: int) -> None:
        """So many more jobs rest, without an entry, than were counted; with a minus sign, fewer. They are queued."""
        self.counts[State.QUEUED] += jobs


RESTING: Final[Counted] = (State.QUEUED, 1)


def counted(entry: Entry) -> Counted:
    """The state in which an entry counts, and for how many jobs."""
    if entry.array is None:
        return entry.state, 1
    return held_in(entry), entry.array.waiting


def held_in(array: Entry) -> State:
    """The state of those elements of an array that have not begun."""
    if array.record.waits_for:
        return State.BLOCKED
    return State.SCHEDULED if array.record.due_wall else State.QUEUED
