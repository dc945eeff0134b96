"""The books: everything that questions are answered from, and the one place where a ticket is looked up.

Pure; nothing here changes anything.
"""

import attrs

from balancer.chronicle import Chronicle
from balancer.groups import Groups
from balancer.ledger import Ledger
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.history import History
from common.model import Ended, Job, array_of


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

    def last_failure(self, entry: Entry) -> Ended | None:
        """How the last attempt of a job ended that is tried again; its output is in the History."""
        attempts = self.history.attempts(entry.ticket) if entry.record.failures else []
        return attempts[-1] if attempts else None

    def job(self, ticket: str) -> Job:
        return self.ledger.job(ticket)

    def runner(self, entry: Entry) -> Node | None:
        """The node that the present attempt was given to."""
        return self.roster.get(entry.record.node_id) if entry.record.leased else None
