"""The desk of a node: every client's question gets its one reply, from here or from the ledger.

    ours, ended ................ from our copy
    ours, live ................. WAIT waits here; STATUS and RESULT ask the ledger, and fall back to what we last
                                 knew (`as_of_s=`) where it cannot be reached
    another node's ............. asked of the ledger; waits ANSWER_WAIT_S at most (WAIT: its own timeout) and
                                 answers UNAVAILABLE after that
    no ticket, or never issued . UNKNOWN_TICKET, at once

A question that is asked of the ledger is asked again on every new link, until it is answered or overdue.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from common import lines
from common.effects import Reply, Send
from common.errors import Code
from common.history import History
from common.limits import ANSWER_WAIT_S, LIST_SCAN_MAX
from common.messages import Forget, Inquiry
from common.model import Ended, State, parse_ticket
from common.status import ended_fields, live_fields, stats_reply, status_reply, unknown_reply
from common.timers import Timers
from node.intake import Intake

_AS_ORIGIN: Final[dict[str, Callable[[str], lines.Query]]] = {
    "status": lines.Status,
    "cancel": lambda ticket: lines.Cancel(ticket, None),
}
_STATE: Final = re.compile(rb" state=([a-z]+)(?: attempt=(\d+))?")


@attrs.define(eq=False)
class Open:
    """A question whose reply is owed. `inquiry` is set while the ledger is asked, `waits_for` while we wait here."""

    query: lines.Query
    inquiry: Inquiry | None = None
    waits_for: str | None = None


class Desk:
    """Queries in, replies out; appends its actions to the worker's list."""

    def __init__(
        self,
        intake: Intake,
        history: History,
        timers: Timers,
        actions: list[Any],
        statistics: Callable[[], dict[str, float]],
    ) -> None:
        self._intake = intake
        self._history = history
        self._timers = timers
        self._actions = actions
        self._statistics = statistics
        self._open: dict[int, Open] = {}
        self._waiters: dict[str, list[int]] = {}  # our live tickets → who waits
        self._claims: dict[str, list[tuple[int, bool]]] = {}  # keyed tickets → who waits for the ledger's word
        self._claimed: dict[int, str] = {}  # query → the keyed ticket that it waits for
        self._to_ask: list[Inquiry] = []
        self._link: int | None = None
        self.refused: str | None = None

    def __len__(self) -> int:
        return len(self._open) + sum(map(len, self._claims.values()))

    # --- submissions -------------------------------------------------------------------------------------------

    def accepted(self, query_id: int, ticket: str, wait: bool, now: float) -> None:
        """The job is durable with this step: tell its client, or let it wait for the end (RUN)."""
        if wait:
            self.ask(query_id, lines.Wait(ticket, None), now)
        else:
            self._reply(query_id, lines.ok(ticket))

    def claim(self, query_id: int, ticket: str, wait: bool, now: float) -> None:
        """The job is durable, but only the ledger knows whose its key is. It is given ANSWER_WAIT_S to say so."""
        if ticket not in self._claims:
            self._timers.set(("claim", ticket), now + ANSWER_WAIT_S)
        self._claims.setdefault(ticket, []).append((query_id, wait))
        self._claimed[query_id] = ticket

    def taken(self, tickets: list[str], now: float) -> None:
        for ticket in tickets if self._claims else ():
            self.settle_claim(ticket, now)

    def settle_claim(self, ticket: str, now: float) -> None:
        """Tells whoever waits for word on this key: the ledger has spoken, or it takes too long."""
        self._timers.cancel(("claim", ticket))
        self._intake.told(ticket)
        for query_id, wait in self._claims.pop(ticket, ()):
            del self._claimed[query_id]
            self.accepted(query_id, self._intake.same_name(ticket), wait, now)

    def conflict(self, ticket: str, message: str) -> None:
        self._timers.cancel(("claim", ticket))
        for query_id, _ in self._claims.pop(ticket, ()):
            del self._claimed[query_id]
            self._reply(query_id, lines.err(Code.CONFLICT, message))

    # --- questions ---------------------------------------------------------------------------------------------

    def ask(self, query_id: int, query: lines.Query, now: float) -> None:
        match query:
            case lines.Stats(local=True):
                self._reply(query_id, stats_reply(self._statistics()))
            case lines.List(local=True):
                self._reply(query_id, self._list(query))
            case lines.Stats() | lines.Nodes() | lines.Cancel(ticket=None):
                self._inquire(query_id, query, now, None)
            case lines.List():
                self._inquire(query_id, query, now, None)
            case lines.Status(ticket=str(text)) | lines.Result(ticket=str(text)) | lines.Wait(ticket=str(text)):
                self._ask_of_ticket(query_id, query, text, now)
            case lines.Cancel(ticket=str(text)):
                self._ask_of_ticket(query_id, query, text, now)
            case _:
                raise AssertionError(f"a {type(query).__name__} is not for the desk")

    def _ask_of_ticket(self, query_id: int, query: lines.Query, text: str, now: float) -> None:
        ticket = self._intake.same_name(text.lower())
        known = self._known(ticket, query)
        if known is not None:
            self._reply(query_id, known)
        elif self._intake.live(ticket) is None or isinstance(query, lines.Cancel):
            self._inquire(query_id, query, now, ticket)
        elif isinstance(query, lines.Wait):
            self._wait_here(query_id, query, ticket, now)
        elif self._link is None:
            self._reply(query_id, self._as_last_known(ticket, query, now))
        else:
            self._inquire(query_id, query, now, ticket)

    def _known(self, ticket: str, query: lines.Query) -> bytes | None:
        """The reply that needs nobody else, if there is one."""
        if parse_ticket(ticket) is None:
            return unknown_reply(ticket)
        if not self._intake.ours(ticket) or self._intake.live(ticket) is not None:
            return None
        ended = self._history.find(ticket)
        if ended is not None:
            return self._ended_reply(ticket, query, ended)
        if self._history.expired(ticket):
            return expired(ticket)
        return unknown_reply(ticket)

    def _ended_reply(self, ticket: str, query: lines.Query, ended: Ended) -> bytes:
        if isinstance(query, lines.Status):
            return status_reply(ticket, ended_fields(self._intake.job(ticket), ended))
        if isinstance(query, lines.Cancel):
            return lines.ok(ticket, state=ended.state)
        return lines.result_reply(ticket, ended, self._history.output(ticket, ended))

    def _as_last_known(self, ticket: str, query: lines.Query, now: float) -> bytes:
        own = self._intake.live(ticket)
        assert own is not None, f"{ticket} is not live here"
        as_of_s = round(now - own.as_of, 3)
        if isinstance(query, lines.Status):
            fields = live_fields(self._intake.job(ticket), own.state, own.attempt)
            return status_reply(ticket, fields | {"as_of_s": as_of_s})
        return lines.pending(ticket, state=own.state, as_of_s=as_of_s)

    def _list(self, query: lines.List) -> bytes:
        listed: list[bytes] = []
        room = LIST_SCAN_MAX
        for ticket in self._intake.live_newest_first():
            if len(listed) >= query.limit or not room:
                break
            room -= 1
            own = self._intake.live(ticket)
            job = self._intake.job(ticket)
            if own is not None and _matches(query, own.state, job.group):
                listed.append(lines.job_line(ticket, live_fields(job, own.state, own.attempt)))
        for ticket, ended in self._history.newest():
            if len(listed) >= query.limit or not room:
                break
            room -= 1
            job = self._intake.job(ticket)
            if _matches(query, ended.state, job.group):
                listed.append(lines.job_line(ticket, ended_fields(job, ended)))
        return lines.ok(count=len(listed), partial=None if room else 1, body=b"".join(listed))

    # --- waiting here ------------------------------------------------------------------------------------------

    def _wait_here(self, query_id: int, query: lines.Wait, ticket: str, now: float) -> None:
        self._open[query_id] = Open(query, waits_for=ticket)
        self._waiters.setdefault(ticket, []).append(query_id)
        if query.timeout_s is not None:
            self._timers.set(("ask", query_id), now + query.timeout_s)

    def ended(self, ticket: str, ended: Ended, output: bytes) -> None:
        """One of our jobs has ended: whoever waits is told."""
        waiting = self._waiters.pop(ticket, None)
        if waiting:
            reply = lines.result_reply(ticket, ended, output)
            for query_id in waiting:
                self._close(query_id, reply)

    def renamed(self, ticket: str, first: str, now: float) -> None:
        """One of our tickets is another name of a job that may be another node's: who waits for it waits there."""
        for query_id in self._waiters.pop(ticket, ()):
            del self._open[query_id]
            at = self._timers.at(("ask", query_id))
            self._timers.cancel(("ask", query_id))
            self.ask(query_id, lines.Wait(first, None if at is None else max(0.0, at - now)), now)

    def lapsed(self, ticket: str) -> None:
        for query_id in self._waiters.pop(ticket, ()):
            self._close(query_id, expired(ticket))

    # --- asking the ledger -------------------------------------------------------------------------------------

    def _inquire(self, query_id: int, query: lines.Query, now: float, ticket: str | None) -> None:
        inquiry = _inquiry(query_id, query, ticket)
        self._open[query_id] = Open(query, inquiry)
        wait_s = query.timeout_s if isinstance(query, lines.Wait) else ANSWER_WAIT_S
        if wait_s is not None:
            self._timers.set(("ask", query_id), now + wait_s)
        self._to_ask.append(inquiry)

    def flush(self, now: float) -> None:
        """Sends what there is to ask; without a link it is asked when one opens."""
        if self._link is not None:
            self._actions += [Send(self._link, inquiry) for inquiry in self._to_ask]
        self._to_ask.clear()

    def link_opened(self, link: int, now: float) -> None:
        self._link = link
        self.refused = None
        self._to_ask = [open_.inquiry for open_ in self._open.values() if open_.inquiry is not None]

    def link_closed(self, now: float) -> None:
        """What we can answer by ourselves is answered now; the rest waits for the next link."""
        self._link = None
        for query_id, open_ in list(self._open.items()):
            ticket = open_.inquiry.ticket if open_.inquiry is not None else None
            if ticket is not None and self._intake.live(ticket) is not None and _answerable_alone(open_.query):
                self._close(query_id, self._as_last_known(ticket, open_.query, now))
        for ticket in list(self._claims):
            self.settle_claim(ticket, now)

    def answered(self, query_id: int, reply: bytes, now: float) -> None:
        open_ = self._open.get(query_id)
        if open_ is None or open_.inquiry is None:
            return
        self._learn(open_.inquiry.ticket, reply, now)
        self._close(query_id, reply)

    def _learn(self, ticket: str | None, reply: bytes, now: float) -> None:
        own = None if ticket is None else self._intake.live(ticket)
        if own is not None and (said := _STATE.search(reply[:200])) is not None:
            own.state, own.attempt, own.as_of = State(said[1].decode()), int(said[2] or 0), now

    def overdue(self, query_id: int, now: float) -> None:
        """The time of a question is over: WAIT says how the job stands, the others that nobody could be asked."""
        open_ = self._open.get(query_id)
        if open_ is None:
            return
        waited = isinstance(open_.query, lines.Wait)
        ticket = open_.waits_for or (open_.inquiry.ticket if open_.inquiry is not None else None)
        self._tell_forgotten(query_id, open_)
        if waited and self._link is not None and ticket is not None:
            self._forget_waiter(query_id, open_)
            self._inquire(query_id, lines.Result(ticket), now, ticket)
        elif ticket is not None and self._intake.live(ticket) is not None and not isinstance(open_.query, lines.Cancel):
            self._forget_waiter(query_id, open_)
            self._close(query_id, self._as_last_known(ticket, open_.query, now))
        else:
            self._close(query_id, self._unavailable())

    def _unavailable(self) -> bytes:
        if self.refused is not None:
            return lines.err(Code.UNAVAILABLE, f"the balancer refuses this node: {self.refused}")
        if self._link is None:
            return lines.err(Code.UNAVAILABLE, "the balancer cannot be reached; ask again later")
        return lines.err(Code.UNAVAILABLE, "neither the balancer nor the job's origin has answered; ask again later")

    def as_origin(self, inquiry: Inquiry, now: float) -> bytes:
        """What we, the origin, know of a ticket of ours that the ledger does not know."""
        assert inquiry.ticket is not None
        query = _AS_ORIGIN.get(inquiry.verb, lines.Result)(inquiry.ticket)
        known = self._known(inquiry.ticket, query)
        if known is not None:
            return known
        if self._intake.live(inquiry.ticket) is None:
            return unknown_reply(inquiry.ticket)
        return self._as_last_known(inquiry.ticket, query, now)

    # --- closing -----------------------------------------------------------------------------------------------

    def forget(self, query_id: int) -> None:
        """Its client went away."""
        open_ = self._open.pop(query_id, None)
        if open_ is not None:
            self._forget_waiter(query_id, open_)
            self._timers.cancel(("ask", query_id))
            self._tell_forgotten(query_id, open_)
        claims = self._claims.get(self._claimed.pop(query_id, ""), [])
        claims[:] = [(id, wait) for id, wait in claims if id != query_id]

    def _tell_forgotten(self, query_id: int, open_: Open) -> None:
        """Nobody waits any more for the ledger's answer to this."""
        if open_.inquiry is not None and open_.inquiry.ticket is not None and self._link is not None:
            self._actions.append(Send(self._link, Forget(query_id)))

    def _forget_waiter(self, query_id: int, open_: Open) -> None:
        waiting = self._waiters.get(open_.waits_for or "")
        if waiting is not None and query_id in waiting:
            waiting.remove(query_id)
            if not waiting:
                del self._waiters[open_.waits_for or ""]

    def _close(self, query_id: int, reply: bytes) -> None:
        if self._open.pop(query_id, None) is not None:
            self._timers.cancel(("ask", query_id))
            self._reply(query_id, reply)

    def _reply(self, query_id: int, reply: bytes) -> None:
        self._actions.append(Reply(query_id, reply))


def expired(ticket: str) -> bytes:
    return lines.err(Code.EXPIRED, f"{ticket} ended, and its result is no longer kept (JOBYARD_RETENTION)")


def _answerable_alone(query: lines.Query) -> bool:
    return isinstance(query, lines.Status | lines.Result)


def _matches(query: lines.List, state: State, group: str | None) -> bool:
    return (query.state is None or query.state == state) and (query.group is None or query.group == group)


def _inquiry(query_id: int, query: lines.Query, ticket: str | None) -> Inquiry:
    verb = type(query).__name__.lower()
    match query:
        case lines.Cancel(group=group):
            return Inquiry(query_id, verb, ticket, group=group)
        case lines.List(state=state, group=group, limit=limit):
            return Inquiry(query_id, verb, None, group=group, state=state, limit=limit)
        case _:
            return Inquiry(query_id, verb, ticket)
