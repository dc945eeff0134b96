"""The books: everything that questions are answered from, and the one place where a ticket is looked up.

Pure; nothing here changes anything.
"""

from collections.abc import Mapping

import attrs

from balancer.chronicle import Chronicle
from balancer.groups import Groups
from balancer.ledger import Ledger
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.history import History
from common.model import Ended, Job, State, array_of


@attrs.frozen
class Found:
    """What the ledger has of a ticket, under the name by which it knows the job: a live entry, an end, or neither,
    when the job ended and can no longer be read."""

    ticket: str
    entry: Entry | None = None
    ended: Ended | None = None


@attrs.frozen
class Books:
    ledger: Ledger
    history: History
    groups: Groups
    roster: Roster
    chronicle: Chronicle

    def find(self, ticket: str) -> Found | None:
        """None: the ledger has nothing of the ticket; unless it `knows` it, its origin has to be asked. Cheap for live
        jobs, because WATCH asks for thousands."""
        if (entry := self.ledger.live(ticket)) is not None:
            return Found(ticket, entry)
        if (ended := self.ledger.end(ticket)) is not None:
            return Found(ticket, ended=ended)
        first = self.ledger.first_name(ticket)
        if first != ticket:
            entry, ended = self.ledger.live(first), self.ledger.end(first)
        expired = self.history.expired(first) or self.history.expired(array_of(first))
        known = entry is not None or ended is not None or expired
        return Found(first, entry, ended) if known else None

    def job(self, ticket: str) -> Job:
        return self.ledger.job(ticket)

    def counts(self, entry: Entry) -> Mapping[str, int] | None:
        """How many elements of an array are in each state; None for any other job."""
        if entry.array is None:
            return None
        held = entry.state if entry.state in (State.BLOCKED, State.SCHEDULED) else State.QUEUED
        return {state.value: count for state, count in entry.array.counts(held).items()}

    def runner(self, entry: Entry) -> Node | None:
        """The node that the present attempt was given to."""
        return self.roster.get(entry.record.node_id) if entry.record.leased else None
