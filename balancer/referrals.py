"""Referrals: questions that another node has to answer first, the origin of a ticket that the ledger does not know,
or the runner of an attempt whose output is asked for.

A node that is away is waited for. A question whose node went away before it had answered is handed back, to be
looked up again: the ledger may know more by then. Pure.
"""

import attrs

from balancer.outbox import Outbox
from balancer.questions import Parked, Place, Question, return_of
from balancer.roster import Roster
from common.messages import Inquiry


@attrs.frozen
class Referral:
    """A question on its way to a node. `attempt` is set where the runner of this attempt is asked."""

    question: Question
    ticket: str
    place: Place
    attempt: int = 0


class Referrals:
    def __init__(self, roster: Roster, outbox: Outbox, parked: Parked) -> None:
        self._roster = roster
        self._outbox = outbox
        self._parked = parked
        self._open: dict[int, dict[int, Referral]] = {}  # by link, then by the id under which we ask
        self._next_id = 0

    def to_origin(self, question: Question, ticket: str) -> bool:
        """Asks the origin of a ticket, as soon as it is here. False where no node that issues such tickets was ever
        met: then nobody can know the job. WATCH asks for the STATUS of each ticket by itself."""
        node_id = self._roster.origin(ticket.partition("-")[0])
        if node_id is None:
            return False
        verb = "status" if question.inquiry.tickets else question.verb
        self._refer(question, ticket, node_id, verb)
        return True

    def to_runner(self, question: Question, ticket: str, node_id: str, attempt: int) -> None:
        """Asks the node that runs an attempt what it has printed, as soon as the node is here."""
        self._refer(question, ticket, node_id, question.verb, attempt)

    def _refer(self, question: Question, ticket: str, node_id: str, verb: str, attempt: int = 0) -> None:
        node = self._roster.get(node_id)
        if node is None or node.link is None or not node.ready:
            self._parked.park(question, return_of(node_id))
            return
        referral = Referral(question, ticket, ("referral", (node_id, ticket)), attempt)
        self._parked.park(question, referral.place)
        self._next_id += 1
        self._open.setdefault(node.link, {})[self._next_id] = referral
        asked = question.inquiry
        self._outbox.send(
            node,
            Inquiry(
                self._next_id,
                verb,
                ticket,
                attempt=asked.attempt,
                stdout_at=asked.stdout_at,
                stderr_at=asked.stderr_at,
            ),
        )

    def answered(self, link: int, id: int) -> Referral | None:
        """A node has answered: what it was asked, where somebody still waits for it."""
        referral = self._open.get(link, {}).pop(id, None)
        return referral if referral is not None and self._hand_back(referral) else None

    def link_closed(self, link: int) -> list[Referral]:
        """What will not be answered on this link any more."""
        return [referral for referral in self._open.pop(link, {}).values() if self._hand_back(referral)]

    def _hand_back(self, referral: Referral) -> bool:
        if not self._parked.waits_at(referral.question, referral.place):
            return False
        self._parked.leave_place(referral.question, referral.place)
        return True
