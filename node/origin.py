"""What an origin can tell of its own jobs, without asking anybody.

    no ticket, or one never issued ....... UNKNOWN_TICKET
    an element that its array has not .... UNKNOWN_TICKET; any other is the ledger's to tell of
    ended ................................ from our copy
    ended longer ago than is kept ........ EXPIRED
    live ................................. what we last knew of it (`as_of_s=`), and why we know no better

Unknown is never reported as waiting, nor waiting as unknown. This module makes replies and decides nothing: when the
ledger is asked, and what is told where it cannot be, is the desk's business.

Pure.
"""

from common import lines
from common.arrays import parse_indexes
from common.errors import Code
from common.history import History
from common.limits import LIST_SCAN_MAX
from common.messages import Inquiry
from common.model import Ended, State, array_of, element, index_of, parse_ticket
from common.status import (
    ended_fields,
    expired_reply,
    explain_ended,
    explain_reply,
    live_fields,
    logs_of_ended,
    status_reply,
    unknown_reply,
)
from common.why import BY_STATE, Why, page
from node.intake import Intake


class Origin:
    """The replies that the origin's own records can give."""

    def __init__(self, intake: Intake, history: History) -> None:
        self._intake = intake
        self._history = history

    # --- what needs nobody else --------------------------------------------------------------------------------

    def known(self, ticket: str, query: lines.Query, *, by_ledger: bool = False) -> bytes | None:
        """The reply that needs nobody else, if there is one. What an earlier boot may have told the ledger and lost is
        the ledger's to know, unless it is the ledger that asks."""
        parsed = parse_ticket(ticket)
        if parsed is None:
            return unknown_reply(ticket)
        if parsed[0] != self._intake.prefix:
            return None
        is_lost = not by_ledger and self._intake.may_be_lost(array_of(ticket))
        if index_of(ticket) is not None:
            return None if self._has(ticket) or is_lost else unknown_reply(ticket)
        if isinstance(query, lines.Logs) and (refused := self._logs_of_array(ticket)) is not None:
            return refused
        if self._intake.is_live(ticket):
            return None
        ended = self._history.find(ticket)
        if ended is not None:
            return self._ended_reply(ticket, query, ended)
        return None if is_lost else self._gone(ticket, query)

    def _has(self, ticket: str) -> bool:
        """Whether this may be an element: its array is live, or ended and not forgotten."""
        array = array_of(ticket)
        if not self._intake.is_live(array) and self._history.find(array) is None:
            return self._history.expired(array)
        return self._intake.has_element(ticket)

    def _logs_of_array(self, ticket: str) -> bytes | None:
        array = self._intake.job(ticket).array
        if array is None:
            return None
        example = element(ticket, parse_indexes(array).first)
        return lines.err(
            Code.BAD_REQUEST, f"{ticket} is an array, and prints nothing; LOGS takes an element, such as {example}"
        )

    def _ended_reply(self, ticket: str, query: lines.Query, ended: Ended) -> bytes | None:
        match query:
            case lines.Retry() | lines.Forget():
                return None  # the ledger's to do
            case lines.Status():
                return status_reply(ticket, ended_fields(self._intake.job(ticket), ended))
            case lines.Cancel():
                return lines.ok(ticket, state=ended.state)
            case lines.Explain():
                return explain_ended(ticket, ended)
            case lines.Logs(follow=follow):
                return self.logs(ticket, ended, end=follow)
        return lines.result_reply(ticket, ended, self._history.output(ticket, ended))

    def _gone(self, ticket: str, query: lines.Query) -> bytes | None:
        if not self._history.expired(ticket):
            return unknown_reply(ticket)
        return None if isinstance(query, lines.Retry | lines.Forget) else expired_reply(ticket)

    def ended(self, ticket: str) -> Ended | None:
        """How one of our jobs ended, if it has."""
        return self._intake.end(ticket)

    def logs(self, ticket: str, ended: Ended, behind: Inquiry | None = None, *, end: bool = False) -> bytes:
        """What an ended job has printed, behind the places that an inquiry names."""
        return logs_of_ended(ticket, ended.state, ended, self._history.output(ticket, ended), behind, end=end)

    # --- what we last knew -------------------------------------------------------------------------------------

    def as_last_known(self, ticket: str, query: lines.Query, now: float, *, linked: bool) -> bytes:
        """The reply about a live job of ours where the ledger has no word on it. An element stands where its array
        does: the ledger, which alone begins elements, has not got it."""
        array = array_of(ticket)
        own = self._intake.live(array)
        assert own is not None, f"{array} is not live here"
        state = self._intake.state(array)
        as_of_s = None if self._runs_here(array, state) else round(max(0.0, now - own.as_of), 3)
        match query:
            case lines.Status():
                return status_reply(ticket, self._live_fields(array, linked) | {"as_of_s": as_of_s})
            case lines.Explain():
                on_its_way = linked and self._intake.delivery.unacknowledged(array)
                why = Why.ON_ITS_WAY if on_its_way else Why.BALANCER_UNREACHABLE
                why = Why.RUNNING if self._runs_here(array, state) else why
                return explain_reply(ticket, state, why, page(ticket, state, why), as_of_s=as_of_s)
            case lines.Logs():
                return lines.logs_reply(ticket, state, 0)
        return lines.pending(ticket, state=state, as_of_s=as_of_s)

    def _live_fields(self, ticket: str, linked: bool) -> dict[str, object]:
        own = self._intake.live(ticket)
        assert own is not None, f"{ticket} is not live here"
        state = self._intake.state(ticket)
        return live_fields(self._intake.job(ticket), state, own.attempt, reason=self._why(ticket, state, linked))

    def _why(self, ticket: str, state: State, linked: bool) -> Why | None:
        """Why a job is where it is, as far as its origin knows: nothing, when all it knows is that it is queued."""
        if not linked:
            return Why.RUNNING if self._runs_here(ticket, state) else Why.BALANCER_UNREACHABLE
        return Why.ON_ITS_WAY if self._intake.delivery.unacknowledged(ticket) else BY_STATE.get(state)

    def _runs_here(self, ticket: str, state: State) -> bool:
        """Whether we know that it runs, because we gave it to ourselves."""
        return state is State.RUNNING and self._intake.delivery.never_sent(ticket)

    def listed(self, query: lines.List, *, linked: bool) -> bytes:
        """LIST local=1: the jobs submitted here, as we last knew them."""
        listed: list[bytes] = []
        room = LIST_SCAN_MAX
        for ticket in self._intake.live_newest_first():
            if len(listed) >= query.limit or not room:
                break
            room -= 1
            if _matches(query, self._intake.state(ticket), self._intake.job(ticket).group):
                listed.append(lines.job_line(ticket, self._live_fields(ticket, linked)))
        for ticket, ended in self._history.newest():
            if len(listed) >= query.limit or not room:
                break
            room -= 1
            job = self._intake.job(ticket)
            if _matches(query, ended.state, job.group):
                listed.append(lines.job_line(ticket, ended_fields(job, ended)))
        return lines.ok(count=len(listed), partial=None if room else 1, body=b"".join(listed))

    # --- asked by the ledger -----------------------------------------------------------------------------------

    def answer(self, inquiry: Inquiry, now: float) -> bytes:
        """What we know of a ticket of ours that the ledger does not know."""
        assert inquiry.ticket is not None, "an origin is asked about tickets"
        ticket, query = inquiry.ticket, _query(inquiry.verb, inquiry.ticket)
        ended = self.ended(ticket)
        if isinstance(query, lines.Logs) and ended is not None and not ended.counts:
            return self.logs(ticket, ended, inquiry)
        known = self.known(ticket, query, by_ledger=True)
        if known is not None:
            return known
        if self._intake.is_live(array_of(ticket)):
            return self.as_last_known(ticket, query, now, linked=True)
        if ended is not None:  # the ledger has still to learn of it, and then to retry or forget it
            return lines.pending(ticket, state=ended.state)
        return expired_reply(ticket) if self._intake.issued(ticket) else unknown_reply(ticket)


def _query(verb: str, ticket: str) -> lines.Query:
    """The client's request that the ledger passes on."""
    match verb:
        case "status":
            return lines.Status(ticket)
        case "cancel":
            return lines.Cancel(ticket, None)
        case "retry":
            return lines.Retry(ticket, None)
        case "forget":
            return lines.Forget(ticket, None)
        case "explain":
            return lines.Explain(ticket)
        case "logs":
            return lines.Logs(ticket, follow=False)
    return lines.Result(ticket)


def _matches(query: lines.List, state: State, group: str | None) -> bool:
    return (query.state is None or query.state == state) and (query.group is None or query.group == group)
