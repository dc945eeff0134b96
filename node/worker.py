"""THE machine of a node: takes jobs in, runs what it is given, remembers how it ended.

    clients ──► INTAKE ──► (link) ──► ledger ──► (link) ──► BACKLOG ──► executors
                  ▲                                              │
                  └──────── ledger ◄── (link) ◄── OUTCOMES ◄──────┘

Rules:
- `OK <ticket>` is an action, and actions follow their writes: the job is on disk before the client hears of it.
- What this node can answer alone, it answers; what only the ledger knows, it asks; and it says which of the two.
- An attempt is reported until the ledger has acknowledged it, and begun at most once: a lease names our boot.

Pure: no clock, no I/O. The parts are in intake.py, backlog.py, outcomes.py and desk.py (clients' questions); what
is decided between them is here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from common import lines
from common.codec import Malformed, unpack
from common.effects import Effects, Exit, Hangup, Note, Reply, Send
from common.errors import Code
from common.events import Asked, ClientsGone, LinkClosed, LinkOpened, LinkRefused, Received, Stop, StoreLevel
from common.frames import batches
from common.history import History
from common.keys import fingerprint
from common.limits import STORE_EXPIRE_FRACTION, STORE_FULL_FRACTION
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
    Holdings,
    Info,
    Inquiry,
    Jobs,
    Lapsed,
    Lease,
    Message,
    Pair,
    Poll,
    Recall,
    RequestOfRes,
    ResReq,
    Result,
    Returned,
    SendAgain,
    Submission,
    Taken,
)
from common.model import Ended, Job, Reason, State
from common.timers import Timers
from node import backlog
from node.backlog import NO_MAXIMA, Backlog, Maxima
from node.desk import Desk
from node.executors import Begun as HasBegun
from node.executors import Kill, Over, Peek, Printed, Start
from node.intake import Intake
from node.outcomes import Outcomes

EXPIRE_PERIOD_S: Final = 1.0
_INTERRUPT_GRACE_S: Final = 1.0  # between SIGTERM and SIGKILL when the node itself has to go
_HAND_BACK_S: Final = 3.0  # what a stopping node waits for the ledger to acknowledge


@attrs.frozen
class Identity:
    """Who this node is: the random ids are made with the data directory, the boot id with each start."""

    node_id: str
    boot_id: str
    prefix: str
    name: str


@attrs.frozen
class RunNow:
    """For the executors."""

    batch: Sequence[Start | Kill | Peek]


@attrs.frozen
class Executed:
    """From the executors: a batch of what has begun and what is over."""

    reports: Sequence[HasBegun | Printed | Over]
    wall: float


class Worker:
    """See the module. Construct, `restore`, then step by step `handle`."""

    def __init__(
        self, identity: Identity, memory: Memory, *, slots: int, retention_s: float, drain_grace_s: float,
        maxima: Maxima = NO_MAXIMA,
    ) -> None:  # fmt: skip
        self._identity = identity
        self._memory = memory
        self._drain_grace_s = drain_grace_s
        self._slots = slots
        self._timers = Timers()
        self._actions: list[Any] = []
        self._history = History(memory, retention_s)
        self._intake = Intake(identity.prefix, memory, self._history)
        self._backlog = Backlog(slots=slots, node_name=identity.name, timers=self._timers, maxima=maxima)
        self._outcomes = Outcomes(identity.boot_id, memory)
        self._desk = Desk(self._intake, self._history, self._timers, self._actions, self.statistics)
        self._link: int | None = None
        self._eager = True
        self._level = StoreLevel(0.0, False, 0.0)
        self._wall = 0.0
        self._stopping = False
        self._exited = False
        self._submitted_total = 0

    # --- the contract ------------------------------------------------------------------------------------------

    def restore(self, now: float, wall: float) -> None:
        self._wall = wall
        self._intake.restore(now)
        self._outcomes.restore()
        self._timers.set("expire", now)

    def handle(self, events: Sequence[object], now: float) -> Effects:
        for event in events:
            self._handlers[type(event)](self, event, now)
        self._do_what_is_due(now)
        self._backlog.fill(now)
        self._report(now)
        if self._link is not None and (submissions := self._intake.to_send()):
            self._send_jobs(submissions)
        self._fail_damaged()
        self._desk.flush(now)
        actions, commands = tuple(self._actions), tuple(self._backlog.commands)
        self._actions.clear()
        self._backlog.commands.clear()
        return Effects(self._memory.take(), actions, at_once=(RunNow(commands),) if commands else ())

    def committed(self) -> None:
        self._memory.committed()

    def next_deadline(self) -> float | None:
        return self._timers.next()

    def check(self) -> None:
        self._intake.check()
        self._backlog.check()

    def statistics(self) -> dict[str, float]:
        report = self._backlog.report()
        return {
            "jobs_submitted_total": self._submitted_total,
            "jobs_live": len(self._intake),
            "attempts_begun_total": self._backlog.begun_total,
            "attempts_running": report.running,
            "attempts_waiting": report.waiting,
            "outcomes_unacknowledged": len(self._outcomes),
            "queries_open": len(self._desk),
            "slots": self._slots,
            "linked": int(self._link is not None),
            "draining": int(self._stopping),
            "store_fraction": round(self._level.fraction, 6),
        }

    def _do_what_is_due(self, now: float) -> None:
        for name in self._timers.due(now):
            match name:
                case "expire":
                    self._expire(now)
                case "grace over":
                    self._interrupt(now)
                case "hand back over":
                    self._exit()
                case ("ask", int(query_id)):
                    self._desk.overdue(query_id, now)
                case ("claim", str(ticket)):
                    self._desk.settle_claim(ticket, now)
                case (str(what), tuple(id)):
                    self._backlog.due(what, id, now)

    def _expire(self, now: float) -> None:
        early = self._level.fraction >= STORE_EXPIRE_FRACTION
        gone = self._history.expire(self._wall, early=early)
        if early and gone:
            self._note("store.expired_early", "warning", jobs=gone)
        self._timers.set("expire", now + EXPIRE_PERIOD_S)

    # --- clients -----------------------------------------------------------------------------------------------

    def _on_asked(self, event: Asked, now: float) -> None:
        self._wall = event.wall
        refusal = self._refusal()
        for query_id, query in event.queries:
            if not isinstance(query, lines.Submit):
                self._desk.ask(query_id, query, now)
            elif refusal is not None:
                self._actions.append(Reply(query_id, refusal))
            else:
                self._submit(query_id, query, event.wall, now)

    def _refusal(self) -> bytes | None:
        """Why no job is taken in at this moment, if so."""
        if self._stopping:
            return lines.err(Code.DRAINING, "this node is stopping; submit to another one")
        if self._level.disk_full:
            return lines.err(Code.FULL, "the disk of this node is full; nothing was accepted")
        if self._level.fraction >= STORE_FULL_FRACTION:
            return lines.err(
                Code.FULL, f"the store of this node is {self._level.fraction:.0%} full (JOBYARD_STORE_MAX)"
            )
        if self._desk.refused is not None:
            return lines.err(Code.UNAVAILABLE, f"the balancer refuses this node: {self._desk.refused}")
        return None

    def _submit(self, query_id: int, query: lines.Submit, wall: float, now: float) -> None:
        job = attrs.evolve(query.job, submitted_wall=wall)
        if job.key is None:
            ticket = self._intake.issue(job, query.body, now)
            self._submitted_total += 1
            self._desk.accepted(query_id, ticket, query.wait, now)
            return
        claim = self._intake.claimed(job.key)
        if claim is None:
            ticket = self._intake.issue(job, query.body, now)
            self._submitted_total += 1
            if self._link is not None:
                self._intake.claiming(ticket)
        elif claim.fingerprint != fingerprint(job, query.body):
            self._actions.append(Reply(query_id, lines.err(Code.CONFLICT, _conflict(job.key, claim.ticket))))
            return
        else:
            ticket = claim.ticket
        if self._link is not None and self._intake.unacknowledged(ticket):
            self._desk.claim(query_id, ticket, query.wait, now)  # the ledger may know the key already
        else:
            self._desk.accepted(query_id, ticket, query.wait, now)

    def _on_clients_gone(self, event: ClientsGone, now: float) -> None:
        for query_id in event.query_ids:
            self._desk.forget(query_id)

    # --- the link ----------------------------------------------------------------------------------------------

    def _on_link_opened(self, event: LinkOpened, now: float) -> None:
        self._report(now)  # what ended in this very step is kept before we say what we hold, or it would be in neither
        self._link = event.link
        self._eager = event.eager
        self._send(
            Holdings(tuple(self._backlog.running()), tuple(self._backlog.waiting()), self._outcomes.listed()),
        )
        fresh = self._intake.link_opened(event.ledger_id)
        self._note("link.opened", ledger=event.ledger_id, ledger_is_new=fresh, outcomes=len(self._outcomes))
        if event.eager:
            self._send_outcomes(self._outcomes.all())
        self._send_jobs(self._intake.to_send())
        for tickets in batches(self._intake.acknowledged(), len):
            self._send(RequestOfRes(tickets))
        self._desk.link_opened(event.link, now)

    def _on_link_closed(self, event: LinkClosed, now: float) -> None:
        if event.link != self._link:
            return
        self._link = None
        self._note("link.closed", "warning", reason=event.reason)
        self._desk.link_closed(now)

    def _on_link_refused(self, event: LinkRefused, now: float) -> None:
        if self._desk.refused != event.reason:
            self._note("link.refused", "error", reason=event.reason)
        self._desk.refused = event.reason

    def _on_received(self, event: Received, now: float) -> None:
        self._wall = event.wall
        if event.link != self._link:
            return
        for message in event.messages:
            handler = self._receivers.get(type(message))
            if handler is None:
                self._note("link.unexpected", "error", message=type(message).__name__)
                continue
            try:
                handler(self, message, now)
            except Malformed as error:  # each item is read before anything of it is recorded
                self._actions.append(Hangup(event.link, str(error)))

    def _on_poll(self, message: Poll, now: float) -> None:
        report = self._backlog.report()
        self._send(Info(report.running, report.waiting, self._stopping))

    def _on_taken(self, message: Taken, now: float) -> None:
        for name, first in message.aliases:
            self._intake.alias(name, first)
            self._desk.renamed(name, first, now)
        told = [name for name, _ in message.conflicts if self._intake.told_meanwhile(name)]
        taken = self._intake.taken(tuple(name for name in message.tickets if name not in told))
        if told:
            self._intake.send_again()
        for name, owner in message.conflicts:
            if name not in told:
                key = self._intake.job(name).key or ""
                self._intake.withdraw(name)
                self._desk.conflict(name, _conflict(key, owner))
        self._desk.taken(taken, now)

    def _on_send_again(self, message: SendAgain, now: float) -> None:
        self._intake.send_again()

    def _on_dispatch(self, message: Dispatch, now: float) -> None:
        if self._stopping:
            self._send(Returned(tuple((lease.ticket, lease.attempt) for lease in message.items)))
            return
        for lease in message.items:
            self._take(lease)

    def _take(self, lease: Lease) -> None:
        self._backlog.take((lease.ticket, lease.attempt), unpack(Job, lease.job), lease.body)

    def _on_cancel(self, message: Cancel, now: float) -> None:
        self._return(self._backlog.give_back(message.attempts))
        for id in message.attempts:
            self._backlog.end(id, backlog.Stop.CANCELLED, now)

    def _on_drop(self, message: Drop, now: float) -> None:
        self._backlog.give_back(message.attempts)
        for id in message.attempts:
            self._backlog.end(id, backlog.Stop.DROPPED, now)

    def _on_recall(self, message: Recall, now: float) -> None:
        """Always answered, if with nothing: the balancer plans no further move until it is."""
        self._send(Returned(tuple(self._backlog.give_back(message.attempts))))

    def _return(self, ids: Sequence[AttemptId]) -> None:
        if ids and self._link is not None:
            self._send(Returned(tuple(ids)))

    def _on_acknowledged(self, message: Acknowledged, now: float) -> None:
        self._outcomes.acknowledged(message.attempts)
        self._exit_when_done()

    def _on_request_of_res(self, message: RequestOfRes, now: float) -> None:
        self._send_outcomes(self._outcomes.of(message.tickets))

    def _on_result(self, message: Result | ResReq, now: float) -> None:
        for pair in message.items:
            ended = unpack(Ended, pair.record)
            if self._intake.ended(pair.ticket, ended, pair.output):
                self._desk.ended(pair.ticket, ended, pair.output)
        if isinstance(message, ResReq):
            self._send_outcomes(self._outcomes.of(message.tickets))

    def _on_lapsed(self, message: Lapsed, now: float) -> None:
        for ticket in message.tickets:
            self._intake.lapsed(ticket, self._wall)
            self._desk.lapsed(ticket)

    def _on_inquiry(self, message: Inquiry, now: float) -> None:
        """The balancer asks us, the origin, about a ticket that it does not know."""
        assert message.ticket is not None
        first = self._intake.same_name(message.ticket)
        if first == message.ticket:
            self._send(Answer(message.id, self._desk.as_origin(message, now)))
            return
        self._send(Aliases(((message.ticket, first),)))  # with this it can answer by itself
        self._send(Answer(message.id, lines.pending(message.ticket, state=State.QUEUED)))

    def _on_answer(self, message: Answer, now: float) -> None:
        self._desk.answered(message.id, message.reply, now)

    def _fail_damaged(self) -> None:
        """Jobs of ours whose record cannot be read: they end here, because no ledger will ever know them."""
        damaged, self._intake.damaged = self._intake.damaged, []
        for ticket in damaged:
            ended = Ended(State.FAILED, self._wall, Reason.CANNOT_START)
            self._intake.ended(ticket, ended, b"")
            self._desk.ended(ticket, ended, b"")
            self._note("record.damaged", "error", ticket=ticket)

    # --- attempts ----------------------------------------------------------------------------------------------

    def _on_executed(self, event: Executed, now: float) -> None:
        self._wall = event.wall
        for report in event.reports:
            if isinstance(report, Over):
                self._backlog.over(report)

    def _report(self, now: float) -> None:
        """Hands on what the backlog did in this step: beginnings and ends."""
        finished, self._backlog.finished = self._backlog.finished, []
        begun, self._backlog.begun = self._backlog.begun, []
        over = {done.id for done in finished}
        if self._link is not None and (running := tuple(id for id in begun if id not in over)):
            self._send(Begun(running))
        for done in finished:
            if not done.unwanted:
                self._outcomes.keep(done.id, done.outcome, done.output)
        if self._eager or self._stopping:
            self._send_outcomes([done.id for done in finished if not done.unwanted])
        if finished:
            self._backlog.fill(now)
            if self._backlog.begun or self._backlog.finished:
                self._report(now)
            self._exit_when_done()

    # --- stopping as planned -----------------------------------------------------------------------------------

    def _on_stop(self, event: Stop, now: float) -> None:
        """Takes no more, hands back what waits, gives what runs its grace."""
        if self._stopping:
            return
        self._stopping = True
        if self._link is not None:
            self._on_poll(Poll(), now)  # says that we drain, before what is handed back could be given to us again
        self._note("node.draining", grace_s=self._drain_grace_s, running=self._backlog.report().running)
        self._return(self._backlog.give_back(self._backlog.waiting()))
        self._timers.set("grace over", now + self._drain_grace_s)
        self._timers.set("hand back over", now + self._drain_grace_s + _INTERRUPT_GRACE_S + _HAND_BACK_S)
        self._exit_when_done()

    def _interrupt(self, now: float) -> None:
        for id in self._backlog.running():
            self._backlog.end(id, backlog.Stop.INTERRUPTED, now, grace_s=_INTERRUPT_GRACE_S)

    def _exit_when_done(self) -> None:
        if self._stopping and not len(self._backlog) and (self._link is None or not len(self._outcomes)):
            self._exit()

    def _exit(self) -> None:
        if not self._exited:
            self._exited = True
            self._actions.append(Exit())

    # --- sending -----------------------------------------------------------------------------------------------

    def _on_store_level(self, event: StoreLevel, now: float) -> None:
        self._wall = event.wall
        if event.disk_full and not self._level.disk_full:
            self._note("store.disk_full", "error")
        was_full, self._level = self._level.fraction >= STORE_FULL_FRACTION, event
        if (event.fraction >= STORE_FULL_FRACTION) != was_full:
            event_name = "store.room" if was_full else "store.full"
            self._note(event_name, "warning", fraction=round(event.fraction, 3))

    def _send(self, message: Message) -> None:
        assert self._link is not None, f"a {type(message).__name__} needs a link"
        self._actions.append(Send(self._link, message))

    def _send_jobs(self, submissions: Sequence[Submission]) -> None:
        for items in batches(submissions, lambda item: len(item.job) + len(item.body) + len(item.output) + 40):
            self._send(Jobs(items))

    def _send_outcomes(self, ids: Sequence[AttemptId]) -> None:
        if self._link is None:
            return
        pairs: Sequence[Pair] = [self._outcomes.pair(id) for id in ids]
        for items in batches(pairs, lambda pair: len(pair.record) + len(pair.output) + 40):
            self._send(Result(items))

    def _note(self, event: str, level: str = "info", **fields: object) -> None:
        self._actions.append(Note(event, level, fields))

    _handlers: Final[dict[type, Callable[..., None]]] = {
        Asked: _on_asked,
        ClientsGone: _on_clients_gone,
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
        RequestOfRes: _on_request_of_res,
        Result: _on_result,
        ResReq: _on_result,
        Lapsed: _on_lapsed,
        Inquiry: _on_inquiry,
        Answer: _on_answer,
    }


def _conflict(key: str, owner: str) -> str:
    return f"the key '{key}' belongs to {owner}, which was submitted with another text; use another key"
