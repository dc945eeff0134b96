"""From SUBMIT to OK: which submissions are taken in, and when their client may be told so.

    no room, draining, refused by the balancer .. an error, and nothing is accepted
    without a key ............................... a ticket at once: it is durable with this step
    a key that this node knows .................. its job's ticket; CONFLICT, when another job is meant
    a key that is new here ...................... stored, and the ledger is given ANSWER_WAIT_S to say whose it is

Pure. Tickets are the intake's; what the clients of RUN wait for is the desk's.
"""

from collections.abc import Sequence

from common import lines
from common.codec import replace
from common.errors import Code
from common.events import StoreLevel
from common.keys import fingerprint
from common.limits import ANSWER_WAIT_S, STORE_FULL_FRACTION
from common.model import Job
from common.timers import Timers
from node.desk import Desk
from node.drain import Drain
from node.intake import Intake
from node.outbox import Outbox


class Submissions:
    """Submissions in, tickets out."""

    def __init__(self, intake: Intake, desk: Desk, timers: Timers, outbox: Outbox) -> None:
        self._intake = intake
        self._desk = desk
        self._timers = timers
        self._outbox = outbox
        self._claims: dict[str, list[tuple[int, bool]]] = {}  # keyed tickets → who waits for the ledger's word
        self._claimed: dict[int, str] = {}  # query → the keyed ticket that it waits for
        self.total = 0

    def __len__(self) -> int:
        return sum(map(len, self._claims.values()))

    def take(self, query_id: int, query: lines.Submit, wall: float, now: float) -> None:
        job = replace(query.job, submitted_wall=wall)
        if job.key is not None:
            self._take_keyed(query_id, query, job, job.key, now)
            return
        ticket = self._intake.issue(job, query.body, now)
        self.total += 1
        if query.wait:
            self._desk.wait(query_id, lines.Wait(ticket, None), ticket, now)
        else:
            self._outbox.reply(query_id, lines.ok(ticket))

    def take_in_a_row(self, queries: Sequence[tuple[int, lines.Submit]], wall: float, now: float) -> None:
        """As above, of jobs that are plain."""
        tickets = self._intake.issue_in_a_row([query.job for _, query in queries], wall, now)
        self.total += len(tickets)
        waits: list[tuple[int, str]] = []
        for (query_id, query), ticket in zip(queries, tickets, strict=True):
            if query.wait:
                waits.append((query_id, ticket))
            else:
                self._outbox.reply(query_id, lines.ok(ticket))
        self._desk.wait_in_a_row(waits)

    def _take_keyed(self, query_id: int, query: lines.Submit, job: Job, key: str, now: float) -> None:
        claim, linked = self._intake.claimed(key), self._outbox.link is not None
        if claim is not None and claim.fingerprint != fingerprint(job, query.body):
            self._outbox.reply(query_id, lines.err(Code.CONFLICT, conflict(key, claim.ticket)))
            return
        if claim is not None:
            ticket = claim.ticket
        else:
            ticket = self._intake.issue(job, query.body, now)
            self.total += 1
            if linked:
                self._intake.delivery.claiming(ticket)
        if linked and self._intake.delivery.unacknowledged(ticket):
            self._claim(query_id, ticket, query.wait, now)  # the ledger may know the key already
        else:
            self._accepted(query_id, ticket, query.wait, now)

    def _accepted(self, query_id: int, ticket: str, wait: bool, now: float) -> None:
        """The job is durable with this step: tell its client, or let it wait for the end (RUN)."""
        if wait:
            self._desk.ask(query_id, lines.Wait(ticket, None), now)
        else:
            self._outbox.reply(query_id, lines.ok(ticket))

    # --- the ledger's word on a key ----------------------------------------------------------------------------

    def _claim(self, query_id: int, ticket: str, wait: bool, now: float) -> None:
        """The job is durable, but only the ledger knows whose its key is."""
        if ticket not in self._claims:
            self._timers.set(("claim", ticket), now + ANSWER_WAIT_S)
        self._claims.setdefault(ticket, []).append((query_id, wait))
        self._claimed[query_id] = ticket

    def taken(self, tickets: list[str], now: float) -> None:
        for ticket in tickets if self._claims else ():
            self.settle(ticket, now)

    def settle(self, ticket: str, now: float) -> None:
        """Tells whoever waits for word on this key: the ledger has spoken, or it takes too long."""
        self._timers.cancel(("claim", ticket))
        self._intake.delivery.told(ticket)
        for query_id, wait in self._claims.pop(ticket, ()):
            del self._claimed[query_id]
            self._accepted(query_id, self._intake.same_name(ticket), wait, now)

    def refused(self, ticket: str, owner: str) -> None:
        """The ledger says that the key of this job is another's."""
        key = self._intake.job(ticket).key or ""
        self._intake.withdraw(ticket)
        self._timers.cancel(("claim", ticket))
        for query_id, _ in self._claims.pop(ticket, ()):
            del self._claimed[query_id]
            self._outbox.reply(query_id, lines.err(Code.CONFLICT, conflict(key, owner)))

    def link_closed(self, now: float) -> None:
        """The ledger cannot speak: an acknowledged job is never dropped, so all that wait are told OK."""
        for ticket in list(self._claims):
            self.settle(ticket, now)

    def forget(self, query_id: int) -> None:
        """Its client went away."""
        claims = self._claims.get(self._claimed.pop(query_id, ""), [])
        claims[:] = [(id, wait) for id, wait in claims if id != query_id]


def refusal(level: StoreLevel, drain: Drain, refused: str | None) -> bytes | None:
    """Why no job is taken in at this moment, if so."""
    if drain.stopping:
        return lines.err(Code.DRAINING, "this node is stopping; submit to another one")
    if level.disk_full:
        return lines.err(Code.FULL, "the disk of this node is full; nothing was accepted")
    if level.fraction >= STORE_FULL_FRACTION:
        return lines.err(Code.FULL, f"the store of this node is {level.fraction:.0%} full (JOBYARD_STORE_MAX)")
    if drain.on:
        return lines.err(
            Code.DRAINING, "this node was drained and takes no new jobs; submit to another one, or UNDRAIN this one"
        )
    if refused is not None:
        return lines.err(Code.UNAVAILABLE, f"the balancer refuses this node: {refused}")
    return None


def conflict(key: str, owner: str) -> str:
    return f"the key '{key}' belongs to {owner}, which was submitted with another text; use another key"
