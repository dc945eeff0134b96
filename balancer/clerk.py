"""The clerk of the balancer: questions that nodes pass on, answered from the ledger.

A ticket that the ledger does not know is asked of its origin, which may not have sent the job yet: unknown is never
reported as waiting, nor waiting as unknown. A question that cannot be answered yet stays here until it can, or until
the link that brought it is gone; the node that asked keeps the time.
"""

from collections.abc import Callable

import attrs

from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.records import Entry
from balancer.roster import Node, Roster
from common import lines
from common.errors import Code
from common.history import History
from common.limits import ANSWER_WAIT_S, LIST_SCAN_MAX
from common.messages import Answer, Inquiry
from common.model import Ended, State, parse_ticket
from common.status import ended_fields, live_fields, stats_reply, status_reply, unknown_reply
from common.timers import Timers

_CANCEL_SHOWN_S = ANSWER_WAIT_S - 0.5  # what RESULT waits for the end of a cancelled attempt; below the asker's wait


@attrs.frozen
class Question:
    """An inquiry, and the link on which its answer is owed."""

    link: int
    inquiry: Inquiry


@attrs.frozen
class Asked:
    """A question that was passed on to the origin of its ticket."""

    question: Question
    prefix: str
    origin_link: int


class Clerk:
    """Inquiries in, answers out; through the dispatcher's outbox."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        history: History,
        timers: Timers,
        outbox: Outbox,
        cancel: Callable[[Entry], State],
        statistics: Callable[[], dict[str, float]],
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._history = history
        self._timers = timers
        self._outbox = outbox
        self._cancel = cancel
        self._statistics = statistics
        self._watchers: dict[str, list[Question]] = {}  # until the job ends
        self._expected: dict[str, list[Question]] = {}  # until the job arrives
        self._absent: dict[str, list[Question]] = {}  # by prefix: until the origin is back
        self._asked: dict[int, Asked] = {}  # of an origin, by the id under which we ask
        self._next_id = 0

    # --- questions in ------------------------------------------------------------------------------------------

    def ask(self, link: int, inquiry: Inquiry, now: float) -> None:
        question = Question(link, inquiry)
        if inquiry.ticket is not None:
            self._of_ticket(question, inquiry.ticket, now)
        elif inquiry.verb == "cancel" and inquiry.group is not None:
            self._answer(question, self._cancel_group(inquiry.group))
        elif inquiry.verb == "list":
            self._answer(question, self._list(inquiry))
        elif inquiry.verb == "nodes":
            self._answer(question, self._nodes(now))
        elif inquiry.verb == "stats":
            self._answer(question, stats_reply(self._statistics()))
        else:
            self._answer(question, lines.err(Code.INTERNAL, f"the balancer does not know how to {inquiry.verb}"))

    def _of_ticket(self, question: Question, text: str, now: float) -> None:
        if parse_ticket(text) is None:
            self._answer(question, unknown_reply(text))
            return
        ticket = self._ledger.first_name(text.lower())
        entry = self._ledger.live(ticket)
        if entry is not None:
            self._of_live(question, entry, now)
        elif (ended := self._history.find(ticket)) is not None:
            self._answer(question, self._ended_reply(question.inquiry.verb, ticket, ended))
        elif self._history.expired(ticket):
            self._answer(question, lines.err(Code.EXPIRED, f"{ticket} ended, and its result is no longer kept"))
        else:
            self._ask_origin(question, ticket)

    def _of_live(self, question: Question, entry: Entry, now: float) -> None:
        match question.inquiry.verb:
            case "status":
                self._answer(question, status_reply(entry.ticket, self._live_fields(entry)))
            case "cancel":
                self._answer(question, lines.ok(entry.ticket, state=self._cancel(entry)))
            case "wait":
                self._watchers.setdefault(entry.ticket, []).append(question)
            case _ if entry.state is State.CANCELLED:
                # Over as soon as its processes are: worth a moment, so that exit and output can be told.
                self._watchers.setdefault(entry.ticket, []).append(question)
                self._timers.set(("still ending", entry.ticket, question), now + _CANCEL_SHOWN_S)
            case _:
                self._answer(question, lines.pending(entry.ticket, state=entry.state))

    def _ended_reply(self, verb: str, ticket: str, ended: Ended) -> bytes:
        if verb == "status":
            return status_reply(ticket, ended_fields(self._ledger.job(ticket), ended))
        if verb == "cancel":
            return lines.ok(ticket, state=ended.state)
        return lines.result_reply(ticket, ended, self._history.output(ticket, ended))

    def _live_fields(self, entry: Entry) -> dict[str, object]:
        node = self._roster.get(entry.record.node_id) if entry.record.leased else None
        name = None if node is None else node.record.name
        return live_fields(self._ledger.job(entry.ticket), entry.state, entry.attempts_begun, name)

    def still_ending(self, ticket: str, question: Question) -> None:
        """A cancelled job takes its time to die: say so."""
        waiting = self._watchers.get(ticket, [])
        if question in waiting:
            waiting.remove(question)
            self._answer(question, lines.pending(ticket, state=State.CANCELLED))

    def locate(self, ticket: str, now: float) -> None:
        """Has the origin of a ticket asked whether it issued it."""

    # --- tickets that the ledger does not know -------------------------------------------------------------------

    def _ask_origin(self, question: Question, ticket: str) -> None:
        prefix = ticket.partition("-")[0]
        id = self._roster.origin(prefix)
        if id is None:
            self._answer(question, unknown_reply(ticket))
            return
        node = self._roster.get(id)
        if node is None or node.link is None or not node.ready:
            self._absent.setdefault(prefix, []).append(question)
            return
        self._next_id += 1
        self._asked[self._next_id] = Asked(question, prefix, node.link)
        self._outbox.send(node, Inquiry(self._next_id, question.inquiry.verb, ticket))

    def origin_said(self, id: int, reply: bytes, now: float) -> None:
        """The origin's word: final, or that the job is on its way."""
        asked = self._asked.pop(id, None)
        if asked is None or asked.question.inquiry.ticket is None:
            return
        question = asked.question
        assert question.inquiry.ticket is not None
        ticket = question.inquiry.ticket.lower()
        on_its_way = reply.startswith(b"PENDING") and question.inquiry.verb in ("wait", "cancel")
        if self._ledger.knows(ticket):  # it has arrived meanwhile, and what the ledger says is newer
            self._of_ticket(question, ticket, now)
        elif not on_its_way:
            self._answer(question, reply)
        else:
            self._expected.setdefault(ticket, []).append(question)

    def arrived(self, ticket: str, now: float) -> None:
        for question in self._expected.pop(ticket, ()):
            self._of_ticket(question, ticket, now)

    def origin_back(self, prefix: str, now: float) -> None:
        for question in self._absent.pop(prefix, ()):
            assert question.inquiry.ticket is not None
            self._of_ticket(question, question.inquiry.ticket, now)

    # --- ends ----------------------------------------------------------------------------------------------------

    def ended(self, ticket: str, ended: Ended, output: bytes) -> None:
        waiting = self._watchers.pop(ticket, None)
        if waiting:
            reply = lines.result_reply(ticket, ended, output)
            for question in waiting:
                self._timers.cancel(("still ending", ticket, question))
                self._answer(question, reply)

    def link_closed(self, link: int) -> None:
        """Whoever asked over this link will ask again over the next."""
        for waiting in (self._watchers, self._expected, self._absent):
            for name in list(waiting):
                waiting[name] = [question for question in waiting[name] if question.link != link]
                if not waiting[name]:
                    del waiting[name]
        self._asked = {id: asked for id, asked in self._asked.items() if asked.question.link != link}
        for id, asked in list(self._asked.items()):
            if asked.origin_link == link:  # it has not answered: asked again when it is back
                del self._asked[id]
                self._absent.setdefault(asked.prefix, []).append(asked.question)

    def forget(self, link: int, inquiry_id: int) -> None:
        """The client that asked went away."""
        for waiting in (self._watchers, self._expected, self._absent):
            for name in list(waiting):
                kept = [q for q in waiting[name] if (q.link, q.inquiry.id) != (link, inquiry_id)]
                if kept:
                    waiting[name] = kept
                else:
                    del waiting[name]

    # --- the cluster as a whole ------------------------------------------------------------------------------------

    def _cancel_group(self, group: str) -> bytes:
        entries = self._ledger.in_group(group)
        for entry in entries:
            self._cancel(entry)
        return lines.ok(group=group, state=State.CANCELLED, count=len(entries))

    def _list(self, inquiry: Inquiry) -> bytes:
        listed: list[bytes] = []
        room = LIST_SCAN_MAX
        for entry in self._ledger.live_newest_first():
            if len(listed) >= inquiry.limit or not room:
                break
            room -= 1
            if _matches(inquiry, entry.state, entry.record.group):
                listed.append(lines.job_line(entry.ticket, self._live_fields(entry)))
        if inquiry.state is None or State(inquiry.state).ended:
            room = self._list_ended(inquiry, listed, room)
        return lines.ok(count=len(listed), partial=None if room else 1, body=b"".join(listed))

    def _list_ended(self, inquiry: Inquiry, listed: list[bytes], room: int) -> int:
        for ticket, ended in self._history.newest():
            if len(listed) >= inquiry.limit or not room:
                break
            room -= 1
            job = self._ledger.job(ticket)
            if _matches(inquiry, ended.state, job.group):
                listed.append(lines.job_line(ticket, ended_fields(job, ended)))
        return room

    def _nodes(self, now: float) -> bytes:
        nodes = sorted(self._roster, key=lambda node: (node.record.name, node.id))
        body = "".join(f"{lines.status_fields(_node_fields(node, now))}\n" for node in nodes)
        return lines.ok(count=len(nodes), body=body.encode())

    def _answer(self, question: Question, reply: bytes) -> None:
        self._outbox.send_on(question.link, Answer(question.inquiry.id, reply))

    def __len__(self) -> int:
        parked = (*self._watchers.values(), *self._expected.values(), *self._absent.values())
        return sum(map(len, parked)) + len(self._asked)


def _node_fields(node: Node, now: float) -> dict[str, object]:
    running = sum(entry.begun for entry in node.leases.values())
    return {
        "name": node.record.name,
        "state": node.state,
        "slots": node.record.slots,
        "running": running,
        "waiting": len(node.leases) - running,
        "last_seen_s": round(max(0.0, now - node.last_heard), 3),
    }


def _matches(inquiry: Inquiry, state: State, group: str | None) -> bool:
    return (inquiry.state is None or inquiry.state == state) and (inquiry.group is None or inquiry.group == group)
