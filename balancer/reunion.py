"""Reunion: a node is back, and what it holds is brought together with what the ledger has leased.

    leased to this boot, held ................. goes on
    leased to this boot, not held ............. was lost on the way: sent again under its number, with the same input
    leased to an older boot ................... lost with it; a crash where it may have been running
    held, and the last lease of a queued job .. goes on: the node was only presumed gone
    held, and given to others meanwhile ....... dropped there
    held, of a job that the ledger knows not .. remembered: an earlier ledger gave it out, and the job's origin has
                                                still to come
    an outcome that is about to be reported ... its job is not given to others meanwhile

Pure.
"""

import attrs

from balancer.chronicle import Chronicle
from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.messages import AttemptId, Hello, Holdings, RequestOfRes, Submission
from common.model import array_of


@attrs.frozen
class Held:
    """An attempt, or its outcome, of a job that the ledger does not know yet."""

    node: Node
    boot_id: str
    attempt: int
    begun: bool
    over: bool  # the outcome is there


class Reunion:
    """`pushed`: nodes report outcomes by themselves, and not only when asked."""

    def __init__(self, ledger: Ledger, roster: Roster, outbox: Outbox, chronicle: Chronicle, *, pushed: bool) -> None:
        self._pushed = pushed
        self._chronicle = chronicle
        self._ledger = ledger
        self._roster = roster
        self._outbox = outbox
        # By ticket, then by node and attempt; the elements of an array stand with it, because they arrive with it.
        self._held: dict[str, dict[str, dict[AttemptId, Held]]] = {}
        self._to_locate: list[str] = []

    def reunite(self, node: Node, hello: Hello, holdings: Holdings, wall: float) -> None:
        """Takes the first word of a link. Afterwards the node can be given jobs."""
        self._forget_held(node)
        self._settle_leases(node, hello, holdings, wall)
        self._roster.welcome(node, hello, draining=holdings.draining)
        begun = set(holdings.begun)
        for id in (*holdings.begun, *holdings.waiting):
            self._recognise(node, hello.boot_id, id, begun=id in begun)
        for ticket, attempt, boot_id in holdings.outcomes:
            self._expect(node, ticket, attempt, boot_id)
        self._to_locate += [ticket for ticket in self._held if ticket.startswith(f"{hello.prefix}-")]

    def _settle_leases(self, node: Node, hello: Hello, holdings: Holdings, wall: float) -> None:
        begun, outcomes = set(holdings.begun), set(holdings.outcomes)
        held = begun | set(holdings.waiting)
        exposed = node.exposed()
        for entry in list(node.leases.values()):
            if (*entry.attempt_id, entry.record.boot_id) in outcomes:
                continue
            if entry.record.boot_id != hello.boot_id:
                self.lose(node, entry, crashed=entry.ticket in exposed, wall=wall)
            elif entry.attempt_id not in held and not self._can_be_sent(entry):
                node.take_back(entry.ticket)
                self._ledger.hand_back(entry, wall)
            elif entry.attempt_id not in held:
                self._outbox.to(node).leases.append(self._ledger.lease_of(entry))
            else:
                self.begun(node, entry, entry.attempt_id in begun)
                if entry.record.cancelled:
                    self._outbox.to(node).cancels.append(entry.attempt_id)

    def _can_be_sent(self, entry: Entry) -> bool:
        """Not where its record was damaged, either: given back, it is found out when it would be leased again."""
        whole = not entry.record.cancelled and self._ledger.can_be_read(entry)
        return whole and self._ledger.inputs.at_hand_for(entry)

    def lose(self, node: Node, entry: Entry, *, crashed: bool, wall: float) -> None:
        """A lease is lost with its node."""
        node.take_back(entry.ticket)
        self._ledger.release(entry, crashed=crashed, wall=wall)

    def _recognise(self, node: Node, boot_id: str, id: AttemptId, *, begun: bool) -> None:
        ticket, attempt = id
        entry = self._ledger.live(ticket)
        if entry is None and not self._ledger.knows(ticket):
            self.remember(ticket, Held(node, boot_id, attempt, begun=begun, over=False))
        elif entry is not None and ticket in node.leases and entry.record.attempt == attempt:
            pass  # its lease; that was settled above
        elif entry is not None and self.take_over(node, entry, boot_id, attempt):
            self.begun(node, entry, begun)
        else:
            self._outbox.to(node).drops.append(id)

    def _expect(self, node: Node, ticket: str, attempt: int, boot_id: str) -> None:
        entry = self._ledger.live(ticket)
        if entry is not None and entry.record.leased and entry.record.boot_id == boot_id:
            waited_for = entry.record.attempt == attempt
        elif entry is not None:
            waited_for = self.take_over(node, entry, boot_id, attempt)
        else:
            waited_for = not self._ledger.knows(ticket)
            if waited_for:
                self.remember(ticket, Held(node, boot_id, attempt, begun=False, over=True))
        if not waited_for and not self._pushed:  # late; where results are pushed it comes by itself, and is judged then
            self._ledger.counts["stale"] += 1
            self._outbox.to(node).acknowledged.append((ticket, attempt))

    def take_over(self, node: Node, entry: Entry, boot_id: str, attempt: int) -> bool:
        """Makes an attempt that a node has the lease of a job that has none. False where it is out of date."""
        if entry.record.leased:
            self._ledger.raise_attempt(entry, attempt)
            return False
        if attempt == entry.record.attempt and boot_id == entry.record.boot_id:
            self._ledger.resume(entry)
        elif attempt > entry.record.attempt:
            self._ledger.adopt(entry, node.id, boot_id, attempt)
        else:
            return False
        node.give(entry)
        return True

    def begun(self, node: Node, entry: Entry, begun: bool = True) -> None:
        """A node says whether its attempt runs. That it does is told once; and again after a restart, because whether
        an attempt has begun is not on disk."""
        if begun and not entry.begun:
            self._chronicle.tell("job.running", entry.ticket, attempt=entry.record.attempt, node=node.record.name)
        entry.begun = begun
        self._ledger.all.note(entry)

    # --- jobs that an earlier ledger gave out ----------------------------------------------------------------------

    def _forget_held(self, node: Node) -> None:
        """It says anew what it holds; what an older boot held is gone."""
        for ticket, held in [item for tickets in self._held.values() for item in tickets.items()]:
            for id in [id for id in held if id[0] == node.id]:
                del held[id]
            if not held:
                self._take(ticket)

    def remember(self, ticket: str, held: Held) -> None:
        """Whether its origin will ever bring the job is asked where its outcome is all that is left of it."""
        self._held.setdefault(array_of(ticket), {}).setdefault(ticket, {})[held.node.id, held.attempt] = held
        if held.over:
            self._to_locate.append(array_of(ticket))

    def take_to_locate(self) -> list[str]:
        """Jobs whose origins are to be asked whether they know them."""
        tickets, self._to_locate = self._to_locate, []
        return tickets

    def _take(self, ticket: str) -> dict[AttemptId, Held]:
        tickets = self._held.get(array_of(ticket), {})
        held = tickets.pop(ticket, {})
        if not tickets:
            self._held.pop(array_of(ticket), None)
        return held

    @property
    def expects_jobs(self) -> bool:
        """Whether nodes have attempts of jobs that this ledger does not know yet."""
        return bool(self._held)

    def arrived(self, entry: Entry) -> None:
        """A job is known again: where nodes have attempts of it, the highest counts, and numbering goes on above."""
        if not self._held:
            return
        for ticket in [ticket for ticket in self._held.get(entry.ticket, ()) if ticket != entry.ticket]:
            element = self._ledger.live(ticket)
            if element is None:
                self._let_go(ticket)
            else:
                self.arrived(element)
        held = self._take(entry.ticket)
        if not held:
            return
        *lower, best = sorted(held.values(), key=lambda held: held.attempt)
        for other in lower:
            self._let_go_of(entry.ticket, other)
        if best.node.link is None or not self.take_over(best.node, entry, best.boot_id, best.attempt):
            self._ledger.raise_attempt(entry, best.attempt)
        elif best.over:
            self._outbox.send(best.node, RequestOfRes((entry.ticket,)))
        else:
            self.begun(best.node, entry, best.begun)

    def given_by_its_origin(self, node: Node, entry: Entry, submission: Submission, wall: float) -> None:
        """The origin gave itself an attempt while it had no balancer. Where it did not say that it holds it, or its
        outcome, the attempt is lost with its boot, in which it had begun."""
        if entry.record.attempt < submission.attempt:
            self._ledger.adopt(entry, node.id, submission.boot_id, submission.attempt)
            node.give(entry)
            self.lose(node, entry, crashed=True, wall=wall)

    def unknown(self, ticket: str) -> None:
        """Its origin knows no such job: it was forgotten, or expired long ago."""
        self.arrived_otherwise(ticket)

    def arrived_otherwise(self, ticket: str) -> None:
        """A job is known again, but needs no attempt: it has ended, or is another job's second name. So do none of
        its elements."""
        for name in list(self._held.get(ticket, ())):
            self._let_go(name)

    def _let_go(self, ticket: str) -> None:
        for held in self._take(ticket).values():
            self._let_go_of(ticket, held)

    def _let_go_of(self, ticket: str, held: Held) -> None:
        """Nobody waits for what this node has of the job."""
        if held.node.link is None:
            return  # it will hear of it when it is back
        mail = self._outbox.to(held.node)
        (mail.acknowledged if held.over else mail.drops).append((ticket, held.attempt))
