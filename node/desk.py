"""The desk of a node: every client's question gets its reply, from here or from the ledger.

    what the origin's own records tell ... at once (`node/origin.py`)
    ours, live ........................... WAIT waits here; STATUS, RESULT and EXPLAIN ask the ledger, and fall back to
                                           what we last knew (`as_of_s=`) where it cannot be reached
    any other ............................ asked of the ledger; waits ANSWER_WAIT_S at most (WAIT and WATCH: their own
                                           timeout) and answers UNAVAILABLE after that
    LOGS and EVENTS that are followed .... asked of the ledger part by part (`node/streams.py`), each when the one
                                           before is with its client; the first waits as any other

A question that is asked of the ledger is asked again on every new link, until it is answered or overdue. RETRY and
FORGET are not: done twice they would tell of a conflict with themselves, so where the link breaks before the answer
came, that is said.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from common import lines
from common.codec import replace
from common.errors import Code
from common.limits import ANSWER_WAIT_S, LOGS_PERIOD_S
from common.messages import Forget, Inquiry
from common.model import Ended, State
from common.status import expired_reply, stats_reply, unknown_reply
from common.timers import Timers
from node.intake import Intake
from node.origin import Origin
from node.outbox import Outbox
from node.streams import Happenings, Printing, Stream

_STATE: Final = re.compile(rb" state=([a-z]+)(?: attempt=(\d+))?")
_AT_ONCE: Final = "watched"  # WATCH whose time is over: the ledger answers whatever there is
_PARKED: Final = frozenset({"watch", "follow"})  # verbs without a ticket that the ledger may keep for long


class Open(msgspec.Struct, eq=False):
    """A question whose reply is owed. `inquiry` is set while the ledger is asked, `waits_for` while we wait here,
    `stream` where the reply comes in parts, `is_timed` once a timer was set for it."""

    query: lines.Query
    inquiry: Inquiry | None = None
    sent: bool = False  # the inquiry, over the present link
    waits_for: str | None = None
    stream: Stream | None = None
    is_timed: bool = False


class Desk:
    """Queries in, replies out."""

    def __init__(
        self,
        intake: Intake,
        origin: Origin,
        timers: Timers,
        outbox: Outbox,
        statistics: Callable[[], dict[str, float]],
    ) -> None:
        self._intake = intake
        self._origin = origin
        self._timers = timers
        self._outbox = outbox
        self._statistics = statistics
        self._open: dict[int, Open] = {}
        self._waiters: dict[str, list[int]] = {}  # our live tickets → who waits
        self._to_ask: dict[int, None] = {}  # the queries whose inquiry is to be sent with this step, in order
        self.refused: str | None = None

    def __len__(self) -> int:
        return len(self._open)

    # --- questions ---------------------------------------------------------------------------------------------

    def ask(self, query_id: int, query: lines.Query, now: float) -> None:
        match query:
            case lines.Wait() | lines.Result() | lines.Status():  # first, because they are many
                self._ask_of_ticket(query_id, query, query.ticket, now)
            case lines.Stats(local=True):
                self._outbox.reply(query_id, stats_reply(self._statistics()))
            case lines.List(local=True):
                self._outbox.reply(query_id, self._origin.listed(query, linked=self._outbox.link is not None))
            case lines.Events(follow=True, since=since):
                self._inquire(query_id, query, now, stream=Happenings(since))
            case lines.Stats() | lines.Nodes() | lines.List() | lines.Watch() | lines.Events() | lines.Placement():
                self._inquire(query_id, query, now)
            case lines.Cancel(ticket=None) | lines.Retry(ticket=None) | lines.Forget(ticket=None):
                self._inquire(query_id, query, now)
            case lines.Submit() | lines.Drain() | lines.Undrain():
                raise AssertionError(f"a {type(query).__name__} is not for the desk")
            case _:
                assert query.ticket is not None, "a group is asked for above"
                self._ask_of_ticket(query_id, query, query.ticket, now)

    def _ask_of_ticket(self, query_id: int, query: lines.Query, text: str, now: float) -> None:
        ticket = self._intake.same_name(text.lower())
        known = self._origin.known(ticket, query)
        if known is not None:
            self._outbox.reply(query_id, known)
        elif isinstance(query, lines.Wait) and self._intake.is_live(ticket):
            self.wait(query_id, query, ticket, now)
        elif self._outbox.link is None and self._knows_enough_for(query, ticket):
            self._outbox.reply(query_id, self._as_last_known(ticket, query, now))
        elif isinstance(query, lines.Logs) and query.follow:
            self._inquire(query_id, query, now, ticket, stream=Printing(ticket))
        else:
            self._inquire(query_id, query, now, ticket)

    def _knows_enough_for(self, query: lines.Query, ticket: str | None) -> bool:
        """Whether what an origin last knew is an answer: other questions have something done, or want the output."""
        if ticket is None or not self._intake.is_live(ticket):
            return False
        return isinstance(query, lines.Status | lines.Result | lines.Explain)

    def _as_last_known(self, ticket: str, query: lines.Query, now: float) -> bytes:
        return self._origin.as_last_known(ticket, query, now, linked=self._outbox.link is not None)

    # --- waiting here ------------------------------------------------------------------------------------------

    def wait(self, query_id: int, query: lines.Wait, ticket: str, now: float) -> None:
        """For the end of a live job of ours."""
        self._open[query_id] = Open(query, waits_for=ticket, is_timed=query.timeout_s is not None)
        self._waiters.setdefault(ticket, []).append(query_id)
        if query.timeout_s is not None:
            self._timers.set(("ask", query_id), now + query.timeout_s)

    def wait_in_a_row(self, waits: Iterable[tuple[int, str]]) -> None:
        """For the ends of jobs that are new, so that nobody waits for them yet."""
        for query_id, ticket in waits:
            self._open[query_id] = Open(lines.Wait(ticket, None), waits_for=ticket)
            self._waiters[ticket] = [query_id]

    def ended(self, ticket: str, ended: Ended, output: bytes, *, by_ledger: bool = False) -> None:
        """One of our jobs has ended: whoever waits is told; at once, where the ledger has it on its disk."""
        waiting = self._waiters.pop(ticket, None)
        if waiting:
            reply = lines.result_reply(ticket, ended, output)
            for query_id in waiting:
                self._close(query_id, reply, at_once=by_ledger)

    def renamed(self, ticket: str, first: str, now: float) -> None:
        """One of our tickets is another name of a job that may be another node's: who waits for it waits there."""
        for query_id in self._waiters.pop(ticket, ()):
            del self._open[query_id]
            at = self._timers.at(("ask", query_id))
            self._timers.cancel(("ask", query_id))
            self.ask(query_id, lines.Wait(first, None if at is None else max(0.0, at - now)), now)

    def lapsed(self, ticket: str) -> None:
        for query_id in self._waiters.pop(ticket, ()):
            self._close(query_id, expired_reply(ticket))

    def forgotten(self, ticket: str) -> None:
        self._intake.forget(ticket)
        for query_id in self._waiters.pop(ticket, ()):
            self._close(query_id, unknown_reply(ticket))

    # --- asking the ledger -------------------------------------------------------------------------------------

    def _inquire(
        self, query_id: int, query: lines.Query, now: float, ticket: str | None = None, stream: Stream | None = None
    ) -> None:
        inquiry = _inquiry(query_id, query, ticket) if stream is None else stream.inquiry(query_id)
        self._open[query_id] = Open(query, stream=stream, is_timed=True)
        self._ask_ledger(query_id, inquiry)
        wait_s = query.timeout_s if isinstance(query, lines.Wait | lines.Watch) else ANSWER_WAIT_S
        if wait_s is not None:
            self._timers.set(("ask", query_id), now + wait_s)

    def _ask_ledger(self, query_id: int, inquiry: Inquiry) -> None:
        open_ = self._open[query_id]
        open_.inquiry, open_.sent = inquiry, False
        self._to_ask[query_id] = None

    def flush(self) -> None:
        """Sends what there is to ask; without a link it is asked when one opens."""
        if not self._to_ask:
            return
        to_ask, self._to_ask = self._to_ask, {}
        if self._outbox.link is None:
            return
        for query_id in to_ask:
            open_ = self._open.get(query_id)
            if open_ is not None and open_.inquiry is not None:
                self._outbox.send(open_.inquiry)
                open_.sent = True

    def link_opened(self) -> None:
        self.refused = None
        self._to_ask = {query_id: None for query_id, open_ in self._open.items() if open_.inquiry is not None}

    def link_closed(self, now: float) -> None:
        """What we can answer by ourselves is answered now; the rest waits for the next link."""
        for query_id, open_ in list(self._open.items()):
            ticket = open_.inquiry.ticket if open_.inquiry is not None else None
            if isinstance(open_.query, lines.Retry | lines.Forget) and open_.sent:
                self._close(query_id, lines.err(Code.UNAVAILABLE, _IN_DOUBT))
            elif ticket is not None and self._knows_enough_for(open_.query, ticket):
                self._close(query_id, self._as_last_known(ticket, open_.query, now))
            open_.sent = False

    def answered(self, query_id: int, reply: bytes, now: float) -> None:
        open_ = self._open.get(query_id)
        if open_ is None or open_.inquiry is None:
            return
        self._learn(open_, open_.inquiry.ticket, reply, now)
        if open_.stream is None:
            self._close(query_id, reply)
        else:
            self._go_on(query_id, open_, open_.stream, reply, now)

    def _learn(self, open_: Open, ticket: str | None, reply: bytes, now: float) -> None:
        """What the ledger's answer says of a job of ours. That it was revived or forgotten a notice will tell, too,
        but whoever reads this answer may ask us the next question before that comes."""
        if ticket is None or isinstance(open_.query, lines.Logs) or reply.startswith(b"ERR "):
            return
        if isinstance(open_.query, lines.Retry):
            self._intake.revive(ticket, now)
        elif isinstance(open_.query, lines.Forget):
            self.forgotten(ticket)
        if (said := _STATE.search(reply[:200])) is not None:
            self._intake.heard(ticket, State(said[1].decode()), int(said[2]) if said[2] else None, now)

    def overdue(self, query_id: int, now: float) -> None:
        """The time of a question is over: WAIT says how the job stands, WATCH how many have not ended, the others
        that nobody could be asked."""
        open_ = self._open.get(query_id)
        if open_ is None:
            return
        linked, inquiry = self._outbox.link is not None, open_.inquiry
        if isinstance(open_.stream, Happenings) and linked:
            return  # parked at the ledger until there is something
        if inquiry is not None and inquiry.verb == "watch" and linked:
            self._ask_ledger(query_id, replace(inquiry, verb=_AT_ONCE))  # in its place, under its id
            self._timers.set(("ask", query_id), now + ANSWER_WAIT_S)
            return
        ticket = open_.waits_for or (inquiry.ticket if inquiry is not None else None)
        self._tell_forgotten(query_id, open_)
        if isinstance(open_.query, lines.Wait) and linked and ticket is not None:
            self._forget_waiter(query_id, open_)
            self._inquire(query_id, lines.Result(ticket), now, ticket)
        elif ticket is not None and (open_.waits_for is not None or self._knows_enough_for(open_.query, ticket)):
            self._forget_waiter(query_id, open_)
            self._close(query_id, self._as_last_known(ticket, open_.query, now))
        else:
            self._close(query_id, self._unavailable())

    def _unavailable(self) -> bytes:
        if self.refused is not None:
            return lines.err(Code.UNAVAILABLE, f"the balancer refuses this node: {self.refused}")
        if self._outbox.link is None:
            return lines.err(Code.UNAVAILABLE, "the balancer cannot be reached; ask again later")
        return lines.err(Code.UNAVAILABLE, "neither the balancer nor the job's origin has answered; ask again later")

    # --- replies in parts --------------------------------------------------------------------------------------

    def _go_on(self, query_id: int, open_: Open, stream: Stream, reply: bytes, now: float) -> None:
        """The ledger has answered: a part for the client, where there is something new."""
        open_.inquiry = None
        self._timers.cancel(("ask", query_id))
        part = stream.take(reply)
        if part is None:
            self._timers.set(("follow", query_id), now + LOGS_PERIOD_S)
        elif part.last:
            self._close(query_id, part.reply)
        else:
            self._outbox.reply(query_id, part.reply, more=True)

    def delivered(self, query_ids: Sequence[int], now: float) -> None:
        """The client has the part: it may have the next."""
        for query_id in query_ids:
            open_ = self._open.get(query_id)
            if open_ is not None and open_.stream is not None:
                self._timers.set(("follow", query_id), now + open_.stream.pause_s)

    def follow(self, query_id: int) -> None:
        """Asks for what is new. The end of one of our own jobs we know ourselves, if it is that of the attempt which
        is followed; what an earlier one has printed behind its places only the ledger can tell."""
        open_ = self._open.get(query_id)
        if open_ is None or open_.stream is None:
            return
        inquiry = open_.stream.inquiry(query_id)
        ended = None if inquiry.ticket is None else self._origin.ended(inquiry.ticket)
        if ended is not None and inquiry.ticket is not None and inquiry.attempt in (0, ended.attempt):
            self._close(query_id, self._origin.logs(inquiry.ticket, ended, inquiry, end=True))
        else:
            self._ask_ledger(query_id, inquiry)

    # --- closing -----------------------------------------------------------------------------------------------

    def forget(self, query_id: int) -> None:
        """Its client went away."""
        open_ = self._open.pop(query_id, None)
        if open_ is not None:
            self._forget_waiter(query_id, open_)
            self._cancel_timers(query_id)
            self._tell_forgotten(query_id, open_)

    def _tell_forgotten(self, query_id: int, open_: Open) -> None:
        """Nobody waits any more for the ledger's answer to this."""
        inquiry = open_.inquiry
        if inquiry is None or not open_.sent or self._outbox.link is None:
            return
        if inquiry.ticket is not None or inquiry.verb in _PARKED:
            self._outbox.send(Forget(query_id))

    def _forget_waiter(self, query_id: int, open_: Open) -> None:
        waiting = self._waiters.get(open_.waits_for or "")
        if waiting is not None and query_id in waiting:
            waiting.remove(query_id)
            if not waiting:
                del self._waiters[open_.waits_for or ""]

    def _close(self, query_id: int, reply: bytes, *, at_once: bool = False) -> None:
        open_ = self._open.pop(query_id, None)
        if open_ is not None:
            if open_.is_timed:
                self._cancel_timers(query_id)
            (self._outbox.reply_at_once if at_once else self._outbox.reply)(query_id, reply)

    def _cancel_timers(self, query_id: int) -> None:
        self._timers.cancel(("ask", query_id))
        self._timers.cancel(("follow", query_id))


_IN_DOUBT: Final = "the link to the balancer broke before it answered; look whether it was done before you ask again"


def _inquiry(query_id: int, query: lines.Query, ticket: str | None) -> Inquiry:
    verb = type(query).__name__.lower()
    match query:
        case lines.Cancel(group=group) | lines.Retry(group=group) | lines.Forget(group=group):
            return Inquiry(query_id, verb, ticket, group=group)
        case lines.List(state=state, group=group, limit=limit):
            return Inquiry(query_id, verb, group=group, state=state, limit=limit)
        case lines.Watch(group=group, tickets=tickets, since=since):
            return Inquiry(query_id, verb, group=group, tickets=tickets, since=since)
        case lines.Events(since=since):
            return Inquiry(query_id, verb, since=since)
        case lines.Placement(policy=policy):
            return Inquiry(query_id, verb, policy=policy)
        case _:
            return Inquiry(query_id, verb, ticket)
