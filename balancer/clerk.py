"""The clerk of the balancer: questions that nodes pass on, answered from the books, and orders, handed on.

    a ticket that the ledger knows .......... answered, or parked until its job ends
    one that it does not know ............... referred to its origin, which may not have sent the job yet: unknown is
                                              never reported as waiting, nor waiting as unknown
    what a running attempt has printed ...... referred to its runner
    WATCH, STATUS and LIST, EXPLAIN, EVENTS . watches, listing, explanations, chronicle

A question that cannot be answered yet stays here until it can, or until the link that brought it is gone; the node
that asked keeps the time. Pure.
"""

from collections.abc import Callable
from typing import Final

from balancer import group_orders
from balancer.books import Books, Found
from balancer.chronicle import NOW, Told
from balancer.explanations import Explanations, Rules
from balancer.group_orders import GroupOrders, Orders
from balancer.listing import Listing
from balancer.outbox import Outbox
from balancer.placement import POLICIES, InForce
from balancer.questions import HERE, NEXT_EVENT, OURS, Parked, Question, arrival_of, end_of, end_of_array, return_of
from balancer.records import Entry
from balancer.referrals import Referral, Referrals
from balancer.watches import Watches
from common import lines
from common.arrays import parse_indexes
from common.errors import Code, shown
from common.limits import ANSWER_WAIT_S
from common.messages import Answer, Inquiry
from common.model import Ended, State, element, index_of, parse_ticket
from common.status import expired_reply, logs_of_ended, stats_reply, unknown_reply
from common.timers import Timers

_CANCEL_SHOWN_S: Final = ANSWER_WAIT_S - 0.5  # what RESULT waits for the end of a cancelled attempt; below the asker's
_NAMED_MAX: Final = 5  # of those who want an output
_NEEDS_THE_LEDGER: Final = frozenset({"wait", "cancel", "retry", "forget"})  # an origin cannot do it for us


class Clerk:
    """Inquiries in, answers out; through the dispatcher's outbox."""

    def __init__(
        self,
        books: Books,
        rules: Rules,
        in_force: InForce,
        timers: Timers,
        outbox: Outbox,
        orders: Orders,
        statistics: Callable[[], dict[str, float]],
    ) -> None:
        self._books = books
        self._timers = timers
        self._outbox = outbox
        self._orders = orders
        self._statistics = statistics
        self._parked = Parked()
        self._referrals = Referrals(books.roster, outbox, self._parked)
        self._in_force = in_force
        self._explanations = Explanations(books, rules, in_force)
        self._listing = Listing(books, self._explanations)
        self._watches = Watches(books, self._referrals, self._parked, self._answer)
        self._group_orders = GroupOrders(books, orders, self._parked, self._answer)
        self._located = 0  # how many tickets were asked after on our own account
        self._locating: set[str] = set()
        self._unknown: list[str] = []

    # --- questions in ------------------------------------------------------------------------------------------

    def ask(self, link: int, inquiry: Inquiry, now: float) -> None:
        """Answers, or parks. A question replaces the one that its link asked under the same id."""
        question = Question(link, inquiry)
        earlier = self._parked.find(link, inquiry.id)
        if earlier is not None:
            self._parked.leave(earlier)
        if inquiry.verb in ("watch", "watched"):
            self._watches.ask(question, earlier)
        elif inquiry.ticket is not None:
            self._of_ticket(question, inquiry.ticket, now)
        elif inquiry.group is not None and inquiry.verb in group_orders.VERBS:
            if self._group_orders.give(question, inquiry.group):
                self._timers.set("group orders", now)
        elif inquiry.verb in ("events", "follow"):
            self._tell_events(question)
        else:
            self._answer(question, self._of_cluster(inquiry, now))
        if earlier is not None:
            self._watches.drop(earlier)

    def _of_cluster(self, inquiry: Inquiry, now: float) -> bytes:
        match inquiry.verb:
            case "list":
                return self._listing.jobs(inquiry)
            case "nodes":
                return self._listing.nodes(now)
            case "stats":
                return stats_reply(self._statistics())
            case "placement":
                return self._placement(inquiry.policy)
            case _:
                return lines.err(Code.INTERNAL, f"the balancer does not know how to {inquiry.verb}")

    def _placement(self, policy: str | None) -> bytes:
        """Which policy is in force; from this step's rounds on `policy`, where one is named."""
        earlier = self._in_force.placement.name
        if policy is not None and policy not in POLICIES:
            return lines.err(Code.BAD_REQUEST, f"there is no policy {shown(policy)}; {', '.join(POLICIES)} are allowed")
        if policy is not None and policy != earlier:
            self._in_force.switch(policy)
            self._outbox.note("placement.changed", placement=policy, earlier=earlier)
            self._books.chronicle.tell("placement.changed", placement=policy, earlier=earlier)
        return lines.ok(placement=self._in_force.placement.name)

    # --- of one job ----------------------------------------------------------------------------------------------

    def _of_ticket(self, question: Question, text: str, now: float) -> None:
        """Whatever is asked of a ticket comes through here, also when it is looked up again."""
        if parse_ticket(text) is None:
            self._answer(question, unknown_reply(text))
            return
        found = self._books.find(text.lower())
        if found is None:
            self._of_unknown(question, self._books.ledger.first_name(text.lower()))
        elif found.entry is not None:
            self._of_live(question, found, found.entry, now)
        elif found.ended is not None:
            self._answer(question, self._of_ended(question, found, found.ended, now))
        else:
            self._answer(question, expired_reply(found.ticket))

    def _of_live(self, question: Question, found: Found, entry: Entry, now: float) -> None:
        match question.verb:
            case "status":
                self._answer(question, self._listing.live(entry))
            case "explain":
                self._answer(question, self._explanations.reply(found, now))
            case "cancel":
                self._answer(question, lines.ok(entry.ticket, state=self._orders.cancel(entry)))
            case "retry" | "forget":
                self._answer(question, _refused(question.verb, entry.ticket, entry.state))
            case "logs":
                self._logs_of_live(question, entry)
            case "wait":
                self._await_end(question, entry.ticket)
            case _ if entry.state is State.CANCELLED:
                # Over as soon as its processes are: worth a moment, so that exit and output can be told.
                self._await_end(question, entry.ticket)
                self._timers.set(("still ending", entry.ticket, question), now + _CANCEL_SHOWN_S)
            case _:
                self._answer(question, lines.pending(entry.ticket, state=entry.state))

    def _await_end(self, question: Question, ticket: str) -> None:
        self._parked.park(question, end_of(ticket))
        if index_of(ticket) is not None:
            self._parked.park(question, end_of_array(ticket))

    def _of_ended(self, question: Question, found: Found, ended: Ended, now: float) -> bytes:
        match question.verb:
            case "status":
                return self._listing.ended(found.ticket, ended)
            case "explain":
                return self._explanations.reply(found, now)
            case "cancel":
                return lines.ok(found.ticket, state=ended.state)
            case "retry":
                state = self._orders.retry(found.ticket)
                retried = state is not None
                return lines.ok(found.ticket, state=state) if retried else self._not_retried(found.ticket, ended)
            case "forget":
                forgotten = self._orders.forget(found.ticket)
                return lines.ok(found.ticket) if forgotten else self._not_forgotten(found.ticket, ended.state)
            case "logs":
                return self._logs_of_ended(question.inquiry, found.ticket, ended)
            case _:
                return lines.result_reply(found.ticket, ended, self._books.history.output(found.ticket, ended))

    def _not_retried(self, ticket: str, ended: Ended) -> bytes:
        missing = self._books.ledger.inputs.missing(ticket) if ended.state is not State.SUCCEEDED else None
        if missing is None:
            return _refused("retry", ticket, ended.state)
        return lines.err(Code.CONFLICT, f"{ticket} is {ended.state}, and its input is not to be had: {missing}")

    def _not_forgotten(self, ticket: str, state: State) -> bytes:
        if not (wanted_by := self._books.ledger.inputs.wanted_by(ticket)):
            return _refused("forget", ticket, state)
        more = f" and {len(wanted_by) - _NAMED_MAX} more" if len(wanted_by) > _NAMED_MAX else ""
        kept = f"its output is kept as input for {' '.join(wanted_by[:_NAMED_MAX])}{more}"
        return lines.err(Code.CONFLICT, f"{ticket} is {state}, and {kept}; it can be forgotten when that has ended")

    def still_ending(self, ticket: str, question: Question) -> None:
        """A cancelled job takes its time to die: say so."""
        if self._parked.waits_at(question, end_of(ticket)):
            self._answer(question, lines.pending(ticket, state=State.CANCELLED))

    def carry_on(self, now: float) -> None:
        """The next part of what was ordered for whole groups."""
        if self._group_orders.carry_on():
            self._timers.set("group orders", now)

    # --- what a job has printed ----------------------------------------------------------------------------------

    def _logs_of_live(self, question: Question, entry: Entry) -> None:
        """What runs is at its runner; of anything else there is nothing to show yet. Whoever follows an attempt that
        has failed gets the rest of it before anything of the next."""
        last, inquiry = self._books.last_failure(entry), question.inquiry
        owed = last is not None and last.attempt == inquiry.attempt and _is_behind(inquiry, last)
        array = self._array(entry.ticket)
        if array is not None:
            self._answer(question, _logs_of_array(entry.ticket, array))
        elif entry.begun and entry.record.node_id is not None and not owed:
            self._referrals.to_runner(question, entry.ticket, entry.record.node_id, entry.record.attempt)
        elif last is not None:
            self._answer(question, self._printed(inquiry, entry.ticket, entry.state, last))
        else:
            self._answer(question, lines.logs_reply(entry.ticket, entry.state, 0))

    def _logs_of_ended(self, inquiry: Inquiry, ticket: str, ended: Ended) -> bytes:
        array = self._array(ticket)
        if array is not None:
            return _logs_of_array(ticket, array)
        return self._printed(inquiry, ticket, ended.state, ended)

    def _printed(self, inquiry: Inquiry, ticket: str, state: State, ended: Ended) -> bytes:
        """The kept output of an attempt, behind what the client has of it."""
        return logs_of_ended(ticket, state, ended, self._books.history.output(ticket, ended), inquiry)

    def _array(self, ticket: str) -> str | None:
        """The range of an array; None for any other job, and for its elements."""
        return self._books.job(ticket).array if index_of(ticket) is None else None

    # --- what other nodes have to say ----------------------------------------------------------------------------

    def _of_unknown(self, question: Question, ticket: str) -> None:
        """The ledger has nothing to show of it. Where it knows the ticket all the same, that is final: it was
        forgotten, or is no element of its array."""
        if self._books.ledger.knows(ticket) or not self._referrals.to_origin(question, ticket):
            self._answer(question, unknown_reply(ticket))

    def locate(self, ticket: str, now: float) -> None:
        """Has the origin of a ticket asked whether it issued it, on our own account; see `take_unknown`."""
        if ticket in self._locating:
            return
        self._locating.add(ticket)
        self._located += 1
        self._of_ticket(Question(OURS, Inquiry(self._located, "status", ticket)), ticket, now)

    def take_unknown(self) -> list[str]:
        """The located tickets whose origin has said since that nobody will ever know the job."""
        unknown, self._unknown = self._unknown, []
        return unknown

    def node_said(self, link: int, id: int, reply: bytes, now: float) -> None:
        """A node answers what was referred to it."""
        referral = self._referrals.answered(link, id)
        if referral is None:
            return
        if referral.question in self._watches:
            self._watches.told(referral.question, referral.ticket, reply)
        elif referral.attempt:
            self._runner_said(referral, reply, now)
        else:
            self._origin_said(referral, reply, now)

    def _runner_said(self, referral: Referral, reply: bytes, now: float) -> None:
        """Its word counts as long as the attempt runs there; afterwards the ledger's does."""
        entry = self._books.ledger.live(referral.ticket)
        if entry is not None and entry.begun and entry.record.attempt == referral.attempt:
            self._answer(referral.question, reply)
        else:
            self._of_ticket(referral.question, referral.ticket, now)

    def _origin_said(self, referral: Referral, reply: bytes, now: float) -> None:
        """The origin's word is final, or says that the job is on its way."""
        question, ticket = referral.question, referral.ticket
        exists = not reply.startswith(b"ERR")
        ended = exists and not reply.startswith(b"PENDING")
        if self._books.ledger.knows(ticket):  # it has arrived meanwhile, and what the ledger says is newer
            self._of_ticket(question, ticket, now)
        elif exists and question.verb in _NEEDS_THE_LEDGER and not (ended and question.verb in ("wait", "cancel")):
            self._parked.park(question, arrival_of(ticket))
        elif exists and not ended and question.verb == "explain":
            self._answer(question, self._explanations.of_expected(ticket))
        elif exists and not ended and question.verb == "logs":
            self._answer(question, lines.logs_reply(ticket, State.QUEUED, 0))
        else:
            self._answer(question, reply)

    def arrived(self, ticket: str, now: float) -> None:
        """A ticket that was not known before is: as a job, or as another name of one."""
        for question in self._parked.take(arrival_of(ticket)):
            if question in self._watches:
                self._watches.arrived(question, ticket)
            else:
                self._of_ticket(question, question.ticket, now)

    def node_back(self, node_id: str, now: float) -> None:
        """A node is here again, or is presumed gone: its attempts are where they belong."""
        for question in self._parked.take(return_of(node_id)):
            if question in self._watches:
                self._watches.node_back(question, node_id)
            else:
                self._of_ticket(question, question.ticket, now)

    # --- ends ----------------------------------------------------------------------------------------------------

    def ended(self, ticket: str, ended: Ended, output: bytes, now: float) -> None:
        """A job has ended, and is in the history."""
        waiting = self._parked.take(end_of(ticket))
        if waiting:
            reply = lines.result_reply(ticket, ended, output)
            for question in waiting:
                self._answer(question, reply)
        self._watches.ended(ticket, ended)
        if ended.counts:
            self.elements_ended(ticket, now)

    def elements_ended(self, array: str, now: float) -> None:
        """What had not begun of an array is over, and perhaps the array with it."""
        for question in self._parked.take(end_of_array(array)):
            if question in self._watches:
                self._watches.array_ended(question, array)
            else:
                self._of_ticket(question, question.ticket, now)

    # --- events --------------------------------------------------------------------------------------------------

    def _tell_events(self, question: Question) -> None:
        """`events` are answered at once; who wants to `follow` them, when there are some behind his cursor, or with
        the present one where he asks for what is to come."""
        since = question.inquiry.since
        told = self._books.chronicle.now() if since == NOW else self._books.chronicle.read(since)
        if told.count or told.lost or since == NOW or question.verb == "events":
            self._answer(question, _events_reply(told))
        else:
            self._parked.park(question, NEXT_EVENT)

    # --- the step ------------------------------------------------------------------------------------------------

    def flush(self, events_told: int) -> None:
        """The end of a step: answers those whom something that happened in it was awaited by."""
        self._watches.flush()
        followers = self._parked.at(NEXT_EVENT) if events_told else ()
        if followers:  # all of them have seen what was told before this step, and nothing of it
            reply = _events_reply(self._books.chronicle.read(followers[0].inquiry.since))
            for question in followers:
                self._answer(question, reply)

    def link_closed(self, link: int, now: float) -> None:
        """Whoever asked over this link will ask again over the next; who was asked will be asked again when he is
        back. To be called when the roster knows that the link is gone."""
        for question in self._parked.on_link(link):
            self._drop(question)
        for referral in self._referrals.link_closed(link):
            if referral.question in self._watches:
                self._watches.unanswered(referral.question, referral.ticket)
            else:
                self._of_ticket(referral.question, referral.ticket, now)

    def forget(self, link: int, inquiry_id: int) -> None:
        """The client that asked went away."""
        question = self._parked.find(link, inquiry_id)
        if question is not None:
            self._drop(question)

    def _drop(self, question: Question) -> None:
        self._parked.leave(question)
        self._watches.drop(question)

    def _answer(self, question: Question, reply: bytes) -> None:
        self._drop(question)
        if question.link == HERE:
            self._outbox.reply(question.inquiry.id, reply)
        elif question.link != OURS:
            self._outbox.send_on(question.link, Answer(question.inquiry.id, reply))
        else:
            self._locating.discard(question.ticket)
            self._unknown += [question.ticket] if reply.startswith(b"ERR") else []

    def __len__(self) -> int:
        return len(self._parked)

    def check(self) -> None:
        self._parked.check()
        self._watches.check()


def _events_reply(told: Told) -> bytes:
    return lines.ok(count=told.count, lost=told.lost or None, cursor=told.cursor, body=told.lines)


_ALLOWED: Final = {
    "retry": "only failed and cancelled jobs can be queued again",
    "forget": "only jobs that have ended can be forgotten, and elements only with their array",
}


def _refused(verb: str, ticket: str, state: State) -> bytes:
    return lines.err(Code.CONFLICT, f"{ticket} is {state}; {_ALLOWED[verb]}")


def _is_behind(inquiry: Inquiry, ended: Ended) -> bool:
    """Whether the asker has not got all that this attempt has printed."""
    return inquiry.stdout_at < ended.stdout_bytes or inquiry.stderr_at < ended.stderr_bytes


def _logs_of_array(ticket: str, array: str) -> bytes:
    first = element(ticket, parse_indexes(array).first)
    return lines.err(Code.BAD_REQUEST, f"{ticket} is an array and prints nothing itself; ask for an element: {first}")
