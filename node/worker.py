"""THE machine of a node: takes jobs in, runs what it is given, remembers how it ended.

    clients ──► INTAKE ──► (link) ──► ledger ──► (link) ──► BACKLOG ──► executors
                  ▲                                              │
                  └──────── ledger ◄── (link) ◄── OUTCOMES ◄──────┘

Rules:
- `OK <ticket>` is an action, and actions follow their writes: the job is on disk before the client hears of it.
- What this node can answer alone, it answers; what only the ledger knows, it asks; and it says which of the two.
- An attempt is reported until the ledger has acknowledged it, and begun at most once: a lease names our boot.

Pure: no clock, no I/O. The parts are submissions.py (from SUBMIT to OK), intake.py, backlog.py, outcomes.py, desk.py
(clients' questions), peeks.py (what an attempt prints), drain.py and fallback.py (when there is no balancer); what is
decided between them is here.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import attrs

from common import lines
from common.codec import Malformed, Record, unpack
from common.effects import Effects, Hangup, Write
from common.events import (
    Asked,
    ClientsGone,
    Delivered,
    Inquired,
    LinkClosed,
    LinkOpened,
    LinkRefused,
    Received,
    Stop,
    StoreLevel,
    Uninquired,
)
from common.history import History
from common.kind_names import KINDS
from common.limits import OWN_JOBS_AWAKE_MAX, STORE_EXPIRE_FRACTION, STORE_FULL_FRACTION, SYNC_WITHIN_S
from common.memory import Memory
from common.messages import (
    Acknowledged,
    Aliases,
    Answer,
    AttemptId,
    Begun,
    Cancel,
    Dispatch,
    Drop,
    Farewell,
    Holdings,
    Inquiry,
    Lapsed,
    Noticed,
    Notices,
    Pair,
    Poll,
    Recall,
    RequestOfRes,
    ResReq,
    Result,
    Returned,
    SendAgain,
    Taken,
)
from common.model import Ended, Reason, State, array_of
from common.timers import Timers
from node import views
from node.backlog import Backlog
from node.courier import Courier
from node.desk import Desk
from node.drain import Drain
from node.executors import Order, Word
from node.fallback import Fallback, Here
from node.held import Finished
from node.held import Stop as Ending
from node.intake import Intake
from node.maxima import NO_MAXIMA, Maxima
from node.missed import Missed
from node.origin import Origin
from node.outbox import Outbox
from node.outcomes import Outcomes
from node.peeks import Peeks
from node.reception import Reception
from node.submissions import Submissions, refusal


@attrs.frozen
class Identity:
    """Who this node is: the random ids are made with the data directory, the boot id with each start."""

    node_id: str
    boot_id: str
    prefix: str
    name: str


class RunNow(Record, frozen=True):
    """For the executors."""

    batch: Sequence[Order]


class Executed(Record, frozen=True):
    """From the executors: a batch of what has happened there."""

    reports: Sequence[Word]
    wall: float


class Worker:
    """See the module. Construct, `restore`, then step by step `handle`."""

    def __init__(
        self,
        identity: Identity,
        memory: Memory,
        *,
        slots: int,
        retention_s: float,
        drain_grace_s: float,
        maxima: Maxima = NO_MAXIMA,
        kinds: frozenset[str] = frozenset(KINDS),
        fallback_s: float | None = None,
        awake_max: int = OWN_JOBS_AWAKE_MAX,
        jobs_apart_s: float = 0.0,
    ) -> None:
        """`awake_max`: of how many live jobs of its own more is in memory than that they live. `jobs_apart_s`: see the
        courier."""
        self._identity = identity
        self._memory = memory
        self._slots = slots
        self._timers = Timers()
        self._outbox = Outbox()
        self._history = History(memory, retention_s)
        self._intake = Intake(identity.prefix, memory, self._history, awake_max)
        self._backlog = Backlog(slots=slots, node_name=identity.name, timers=self._timers, maxima=maxima)
        self._outcomes = Outcomes(identity.boot_id, memory)
        self._courier = Courier(self._intake, self._timers, self._outbox, apart_s=jobs_apart_s)
        self._peeks = Peeks(self._backlog, self._outcomes)
        self._drain = Drain(memory, self._backlog, self._outcomes, self._timers, self._outbox, grace_s=drain_grace_s)
        self._drain.before_exit = self._intake.give_numbers_back
        self._origin = Origin(self._intake, self._history)
        self._desk = Desk(self._intake, self._origin, self._timers, self._outbox, self.statistics)
        self._missed = Missed(self._intake, self._timers, self._outbox)
        self._submissions = Submissions(self._intake, self._desk, self._timers, self._outbox)
        self._fallback = Fallback(
            Here(identity.boot_id, identity.name, slots, kinds, fallback_s),
            memory,
            self._intake,
            self._backlog,
            self._drain,
            self._desk,
            self._timers,
            self._outbox,
        )
        self._reception = Reception(
            self._submissions, self._drain, self._fallback, self._desk, self._refusal, self._outbox
        )
        self._eager = True
        self._level = StoreLevel(0.0, False, 0.0)
        self._wall = 0.0
        self._sync_is_due = False

    # --- the contract ------------------------------------------------------------------------------------------

    def restore(self, now: float, wall: float) -> None:
        self._wall = wall
        self._intake.restore(now, wall)
        self._outcomes.restore()
        self._drain.restore()
        self._fallback.restore(now, wall)
        self._timers.set("expire", now)

    def handle(self, events: Sequence[object], now: float) -> Effects:
        for event in events:
            self._handlers[type(event)](self, event, now)
        for name in self._timers.due(now):
            self._do_what_is_due(name, now)
        self._fallback.begin()
        self._backlog.fill(now)
        self._report(now)
        self._fallback.lease(now)
        if (linked := self._outbox.link is not None) and self._intake.delivery.waits:
            wanted = bool(len(self._desk) or len(self._submissions) or self._drain.stopping)
            self._courier.go(now, self._wall, wanted=wanted)
        if self._intake.delivery.damaged:
            self._fail_damaged()
        self._desk.flush()
        at_once, actions = self._outbox.take()
        if commands := (*self._backlog.commands, *self._peeks.commands):
            self._backlog.commands.clear()
            self._peeks.commands.clear()
            at_once = (RunNow(commands), *at_once)
        return Effects(self._writes(now, wanted=bool(actions) or not linked), actions, at_once)

    def _writes(self, now: float, *, wanted: bool) -> Sequence[Write]:
        """What is to be committed with this step: everything, where that is `wanted`, because an action of the step
        waits for it, or no link carries the news away from here. Else nobody does, and for SYNC_WITHIN_S it gathers:
        what the ledger has acknowledged, and copies of ends and outcomes that are on their way or there."""
        if wanted or self._sync_is_due:
            self._sync_is_due = False
            self._timers.cancel("sync")
            return self._memory.take()
        if self._memory.untaken and "sync" not in self._timers:
            self._timers.set("sync", now + SYNC_WITHIN_S)
        return ()

    def committed(self) -> None:
        if self._memory.committed():
            self._intake.committed()

    def next_deadline(self) -> float | None:
        return self._timers.next()

    def check(self) -> None:
        self._intake.check()
        self._backlog.check()

    def statistics(self) -> dict[str, float]:
        report = self._backlog.report()
        return {
            "jobs_submitted_total": self._submissions.total,
            "jobs_live": len(self._intake),
            "attempts_begun_total": self._backlog.begun_total,
            "attempts_running": report.running,
            "attempts_waiting": report.waiting,
            "attempts_leased_here_total": self._fallback.leased_total,
            "outcomes_unacknowledged": len(self._outcomes),
            "queries_open": len(self._desk) + len(self._submissions),
            "slots": self._slots,
            "linked": int(self._outbox.link is not None),
            "draining": int(self._drain.on),
            "store_fraction": round(self._level.fraction, 6),
        }

    def _do_what_is_due(self, name: Hashable, now: float) -> None:
        match name:
            case "expire":
                self._expire(now)
            case "sync":
                self._sync_is_due = True
            case "grace over":
                self._drain.interrupt(now)
            case "hand back over":
                self._drain.exit()
            case "fallback":
                self._fallback.due()
            case "more ends":
                self._missed.go_on(now)
            case ("fallback", str(ticket)):
                self._fallback.consider(ticket, now)
            case ("ask", int(query_id)):
                self._desk.overdue(query_id, now)
            case ("claim", str(ticket)):
                self._submissions.settle(ticket, now)
            case ("follow", int(query_id)):
                self._desk.follow(query_id)
            case (str(what), tuple(id)):
                self._backlog.due(what, id, now)

    def _expire(self, now: float) -> None:
        early = self._level.fraction >= STORE_EXPIRE_FRACTION
        keeps = self._intake.delivery.end_is_unacknowledged
        gone = self._history.expire(self._wall, early=early, keeps=keeps)
        if early and gone:
            self._outbox.note("store.expired_early", "warning", jobs=gone)
        self._timers.set("expire", now + self._history.expire_in_s)

    # --- clients -----------------------------------------------------------------------------------------------

    def _on_asked(self, event: Asked, now: float) -> None:
        self._wall = event.wall
        self._reception.serve(event, now)

    def _on_inquired(self, event: Inquired, now: float) -> None:
        refused = self._refusal()
        for inquiry in event.inquiries:
            self._outbox.reply(inquiry.id, views.answer(inquiry, refused, self.statistics(), self._level))

    def _refusal(self) -> bytes | None:
        return refusal(self._level, self._drain, self._desk.refused)

    def _on_clients_gone(self, event: ClientsGone, now: float) -> None:
        for query_id in event.query_ids:
            self._desk.forget(query_id)
            self._submissions.forget(query_id)

    def _on_delivered(self, event: Delivered, now: float) -> None:
        self._desk.delivered(event.query_ids, now)

    # --- the link ----------------------------------------------------------------------------------------------

    def _on_link_opened(self, event: LinkOpened, now: float) -> None:
        self._report(now)  # what ended in this very step is kept before we say what we hold, or it would be in neither
        self._fallback.linked()
        self._outbox.link_opened(event.link)
        self._eager = event.eager
        self._outbox.send(
            Holdings(
                tuple(self._backlog.running()),
                tuple(self._backlog.waiting()),
                self._outcomes.listed(),
                draining=self._drain.on,
            )
        )
        fresh = self._intake.delivery.link_opened(event.ledger_id)
        if fresh:
            self._backlog.forget_order()
        self._outbox.note("link.opened", ledger=event.ledger_id, ledger_is_new=fresh, outcomes=len(self._outcomes))
        if event.eager:
            self._send_outcomes(self._outcomes.all())
        self._outbox.send_jobs(self._intake.delivery.to_send(self._wall))
        self._missed.link_opened(now)
        self._desk.link_opened()
        self._drain.link_changed(now)

    def _on_link_closed(self, event: LinkClosed, now: float) -> None:
        if event.link != self._outbox.link:
            return
        self._outbox.link = None
        self._outbox.note("link.closed", "warning", reason=event.reason)
        self._desk.link_closed(now)
        self._submissions.link_closed(now)
        self._peeks.link_closed()
        self._fallback.unlinked(now)
        self._drain.link_changed(now)

    def _on_link_refused(self, event: LinkRefused, now: float) -> None:
        if self._desk.refused != event.reason:
            self._outbox.note("link.refused", "error", reason=event.reason)
        self._desk.refused = event.reason

    def _on_received(self, event: Received, now: float) -> None:
        self._wall = event.wall
        if event.link != self._outbox.link:
            return
        for message in event.messages:
            handler = self._receivers.get(type(message))
            if handler is None:
                self._outbox.note("link.unexpected", "error", message=type(message).__name__)
                continue
            try:
                handler(self, message, now)
            except Malformed as error:  # each item is read before anything of it is recorded
                self._outbox.do(Hangup(event.link, str(error)))

    def _on_poll(self, message: Poll, now: float) -> None:
        self._drain.tell_counts()

    def _on_taken(self, message: Taken, now: float) -> None:
        for name, first in message.aliases:
            self._intake.alias(name, first)
            self._desk.renamed(name, first, now)
        told = [name for name, _ in message.conflicts if self._intake.delivery.told_meanwhile(name)]
        taken = self._intake.delivery.taken([name for name in message.tickets if name not in told])
        if told:
            self._intake.delivery.send_again()
        for name, owner in message.conflicts:
            if name not in told:
                self._submissions.refused(name, owner)
        self._submissions.taken(taken, now)

    def _on_send_again(self, message: SendAgain, now: float) -> None:
        self._intake.delivery.send_again()

    def _on_dispatch(self, message: Dispatch, now: float) -> None:
        if self._drain.on:
            self._outbox.send(Returned(tuple((lease.ticket, lease.attempt) for lease in message.items)))
            self._drain.handed_back_late(now)
            return
        self._backlog.take_in_a_row(message.items)

    def _on_cancel(self, message: Cancel, now: float) -> None:
        if returned := self._backlog.give_back(message.attempts):
            self._outbox.send(Returned(tuple(returned)))
        for id in message.attempts:
            self._backlog.end(id, Ending.CANCELLED, now)

    def _on_drop(self, message: Drop, now: float) -> None:
        self._backlog.give_back(message.attempts)
        for id in message.attempts:
            self._backlog.end(id, Ending.DROPPED, now)
        self._outcomes.acknowledged(message.attempts)  # of those that were over before they were dropped
        self._drain.exit_when_done(now)

    def _on_recall(self, message: Recall, now: float) -> None:
        """Always answered, if with nothing: the balancer plans no further move until it is."""
        self._outbox.send(Returned(tuple(self._backlog.give_back(message.attempts))))

    def _on_farewell(self, message: Farewell, now: float) -> None:
        self._drain.farewell(message.number)

    def _on_acknowledged(self, message: Acknowledged, now: float) -> None:
        self._outcomes.acknowledged(message.attempts)
        self._drain.exit_when_done(now)

    def _on_request_of_res(self, message: RequestOfRes, now: float) -> None:
        self._send_outcomes(self._outcomes.of(message.tickets))

    def _on_result(self, message: Result | ResReq, now: float) -> None:
        ends: list[tuple[str, Ended, Pair]] = []
        try:
            for pair in message.items:
                ends.append((pair.ticket, unpack(Ended, pair.record), pair))
        finally:  # what stands before one that is malformed counts
            for ticket, ended, pair in self._intake.ended_in_a_row(ends):
                self._desk.ended(ticket, ended, pair.output, by_ledger=True)
        if isinstance(message, ResReq):
            self._send_outcomes(self._outcomes.of(message.tickets))

    def _on_lapsed(self, message: Lapsed, now: float) -> None:
        for ticket in message.tickets:
            self._intake.lapsed(ticket, self._wall)
            self._desk.lapsed(ticket)

    def _on_notices(self, message: Notices, now: float) -> None:
        """What became of jobs of ours that had ended. A notice may be older than the end that we know, so for what
        is live again by it we ask how it stands; where it has ended, that is told."""
        for ticket in message.revived:
            self._intake.revive(ticket, now)
        for ticket in message.forgotten:
            self._desk.forgotten(ticket)
        self._outbox.send(Noticed(message.revived, message.forgotten))
        if message.revived:
            self._outbox.send(RequestOfRes(message.revived))

    def _on_inquiry(self, message: Inquiry, now: float) -> None:
        """The balancer asks us: as the runner what an attempt prints, as the origin about a ticket that it does not
        know."""
        assert message.ticket is not None
        if message.verb == "logs":
            self._report(now)  # what ended in this very step is looked for among the outcomes
            if self._peeks.knows(message.ticket) or not self._intake.ours(message.ticket):
                self._answer(self._peeks.ask(message))
                return
        first = self._intake.same_name(message.ticket)
        if first == message.ticket:
            self._outbox.send(Answer(message.id, self._origin.answer(message, now)))
            return
        self._outbox.send(Aliases(((array_of(message.ticket), array_of(first)),)))  # with this it can answer by itself
        self._outbox.send(Answer(message.id, lines.pending(message.ticket, state=State.QUEUED)))

    def _answer(self, answer: Answer | None) -> None:
        if answer is not None and self._outbox.link is not None:
            self._outbox.send(answer)

    def _on_answer(self, message: Answer, now: float) -> None:
        self._desk.answered(message.id, message.reply, now)

    def _fail_damaged(self) -> None:
        """Jobs of ours whose record cannot be read: they end here, because no ledger will ever know them."""
        damaged, self._intake.delivery.damaged = self._intake.delivery.damaged, []
        for ticket in damaged:
            ended = Ended(State.FAILED, self._wall, Reason.CANNOT_START)
            self._intake.ended(ticket, ended, b"")
            self._desk.ended(ticket, ended, b"")
            self._outbox.note("record.damaged", "error", ticket=ticket)

    # --- attempts ----------------------------------------------------------------------------------------------

    def _on_executed(self, event: Executed, now: float) -> None:
        self._wall = event.wall
        if looked := self._backlog.hear(event.reports, now):
            self._report(now)  # as above
        for report in looked:
            self._answer(self._peeks.printed(report))

    def _report(self, now: float) -> None:
        """Hands on what the backlog did in this step: beginnings and ends."""
        finished, begun, let_go = self._backlog.take_news()
        if begun and self._outbox.link is not None:
            over = {done.id for done in finished}
            if running := tuple(id for id in begun if id not in over):
                self._outbox.send_at_once(Begun(running))
        if let_go and self._outbox.link is not None:
            self._outbox.send(Returned(tuple(let_go)))
        if finished:
            self._keep(finished, now)
            self._backlog.fill(now)
            if self._backlog.begun or self._backlog.finished:
                self._report(now)
        self._drain.exit_when_done(now)

    def _keep(self, finished: Sequence[Finished], now: float) -> None:
        """Ends are kept for the ledger, and told to it, unless they are ours to settle or nobody's."""
        pairs = self._outcomes.keep(
            [done for done in finished if not done.unwanted and not self._fallback.settle(done, now, self._wall)]
        )
        if pairs and self._outbox.link is not None and (self._eager or self._drain.stopping):
            self._outbox.send_results(pairs)

    # --- the program -------------------------------------------------------------------------------------------

    def _on_stop(self, event: Stop, now: float) -> None:
        self._fallback.let_go(now)
        if self._outbox.link is not None:
            self._courier.go(now, self._wall, wanted=True)  # before the farewell
        self._drain.stop(now)

    def _on_store_level(self, event: StoreLevel, now: float) -> None:
        self._wall = event.wall
        if event.disk_full and not self._level.disk_full:
            self._outbox.note("store.disk_full", "error")
        self._drain.disk_is_full(event.disk_full)
        was_full, self._level = self._level.fraction >= STORE_FULL_FRACTION, event
        if (event.fraction >= STORE_FULL_FRACTION) != was_full:
            event_name = "store.room" if was_full else "store.full"
            self._outbox.note(event_name, "warning", fraction=round(event.fraction, 3))

    def _send_outcomes(self, ids: Sequence[AttemptId]) -> None:
        if self._outbox.link is not None:
            self._outbox.send_results([self._outcomes.pair(id) for id in ids])

    _handlers: Final[dict[type, Callable[..., None]]] = {
        Asked: _on_asked,
        ClientsGone: _on_clients_gone,
        Delivered: _on_delivered,
        Inquired: _on_inquired,
        Uninquired: lambda worker, event, now: None,  # all are answered in the step that asks
        LinkOpened: _on_link_opened,
        LinkClosed: _on_link_closed,
        LinkRefused: _on_link_refused,
        Received: _on_received,
        Executed: _on_executed,
        StoreLevel: _on_store_level,
        Stop: _on_stop,
    }
    _receivers: Final[dict[type, Callable[..., None]]] = {
        Poll: _on_poll,
        Taken: _on_taken,
        SendAgain: _on_send_again,
        Dispatch: _on_dispatch,
        Cancel: _on_cancel,
        Drop: _on_drop,
        Recall: _on_recall,
        Acknowledged: _on_acknowledged,
        Farewell: _on_farewell,
        RequestOfRes: _on_request_of_res,
        Result: _on_result,
        ResReq: _on_result,
        Lapsed: _on_lapsed,
        Notices: _on_notices,
        Inquiry: _on_inquiry,
        Answer: _on_answer,
    }
