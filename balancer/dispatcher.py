"""THE machine of the balancer: takes jobs into the ledger, and in rounds hands them to the nodes.

    link ──► Jobs ───► LEDGER ──► queue ──► round: PLACEMENT over the ROSTER ──► leases ──► link: Dispatch
    link ──► Result ─► LEDGER ──► settled once ──► origin: Result, runner: Acknowledged, clerk: whoever waits

Rules:
- Durable, then visible: a lease is sent, and an outcome acknowledged, by actions that follow their writes.
- The ledger alone decides. What a node holds and the ledger did not give it, it is told to drop.
- A node is silent, not dead: after the node timeout its jobs go to others, and what it brings later is judged by the
  attempt it belongs to.
- Rounds: `eager`, whenever there is work and room; `periodic`, on the timer alone. A round hands out at most
  MAX_NUM_JOBS_DISPATCH jobs.

Pure: no clock, no I/O. What is decided between the parts is here; the parts are in ledger.py, roster.py,
placement.py and clerk.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from balancer.clerk import Clerk, Question
from balancer.ledger import Entry, Ledger
from balancer.placement import Load, Placement, to_move
from balancer.queue import Needs
from balancer.roster import Node, Roster
from common.codec import pack, unpack
from common.effects import Effects, Hangup, Note, Send
from common.events import Knocked, LinkClosed, Received, StoreLevel
from common.frames import batches
from common.history import History
from common.limits import BATCH_ITEMS_MAX, BODY_BYTES_MAX, PROBE_S, STORE_EXPIRE_FRACTION, STORE_FULL_FRACTION
from common.memory import Memory
from common.messages import (
    Acknowledged,
    Answer,
    AttemptId,
    Begun,
    Cancel,
    Dispatch,
    Drop,
    Forget,
    Hello,
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
    Refused,
    Reported,
    RequestOfRes,
    ResReq,
    Result,
    Returned,
    SendAgain,
    Submission,
    Taken,
    Welcome,
)
from common.model import Report, State
from common.timers import Timers

EXPIRE_PERIOD_S: Final = 1.0
LEVEL_PERIOD_S: Final = 0.1  # how often waiting jobs may be moved
RECALLS_MAX: Final = 256  # jobs moved at once: enough to level quickly, few enough to change course
WEIGHT_BYTES_MAX: Final = 2 * BODY_BYTES_MAX  # jobs and bodies that one node holds in memory


@attrs.frozen
class Periods:
    """What the settings say of time and of sizes. Seconds."""

    eager: bool
    round_s: float  # DISPATCH_PERIOD
    jobs_per_round_max: int  # MAX_NUM_JOBS_DISPATCH
    result_s: float  # REQUEST_RESULT_PERIOD
    info_s: float
    node_timeout_s: float
    backlog_max: int
    retention_s: float


@attrs.define(eq=False)
class Mail:
    """What is to be sent to one link at the end of the step, so that a step sends one batch of each kind."""

    taken: list[str] = attrs.field(factory=list)
    aliases: list[tuple[str, str]] = attrs.field(factory=list)
    conflicts: list[tuple[str, str]] = attrs.field(factory=list)
    leases: list[Lease] = attrs.field(factory=list)
    cancels: list[AttemptId] = attrs.field(factory=list)
    drops: list[AttemptId] = attrs.field(factory=list)
    acknowledged: list[AttemptId] = attrs.field(factory=list)


@attrs.frozen
class Held:
    """An attempt, or its outcome, that a node has and whose job the ledger does not know yet: it lost its volume,
    and the job's origin has still to come."""

    node: Node
    boot_id: str
    attempt: int
    begun: bool
    over: bool  # the outcome is there


class Dispatcher:
    """See the module. Construct, `restore`, then step by step `handle`."""

    def __init__(self, memory: Memory, periods: Periods, placement: Placement, *, nodes_max: int) -> None:
        self._memory = memory
        self._periods = periods
        self._placement = placement
        self._timers = Timers()
        self._actions: list[Any] = []
        self._history = History(memory, periods.retention_s)
        self._ledger = Ledger(memory, self._history)
        self._roster = Roster(memory, nodes_max)
        self._clerk = Clerk(
            self._ledger, self._roster, self._history, self._timers, self._actions, self._cancel, self.statistics
        )
        self._mail: dict[int, Mail] = {}
        self._hellos: dict[int, Hello] = {}
        self._knocking: dict[str, Knocked] = {}  # by node id: waits for the probe of the old link
        self._held: dict[str, dict[AttemptId, Held]] = {}  # by ticket, then by node and attempt
        self._level = StoreLevel(0.0, False, 0.0)
        self._wall = 0.0

    # --- the contract --------------------------------------------------------------------------------------------

    def restore(self, now: float, wall: float) -> None:
        self._wall = wall
        self._ledger.restore()
        self._roster.restore(now)
        for node in self._roster:
            for entry in sorted(self._ledger.leases_of(node.id), key=lambda entry: entry.record.sequence):
                node.give(entry)
        self._timers.set("poll", now)
        self._timers.set("round", now + self._periods.round_s)
        self._timers.set("results", now + self._periods.result_s)
        self._timers.set("expire", now)

    def handle(self, events: Sequence[object], now: float) -> Effects:
        for event in events:
            self._handlers[type(event)](self, event, now)
        self._do_what_is_due(now)
        if self._periods.eager:
            while self._round():
                pass
        self._tell_of_ends()
        self._post()
        self._watch_levels(now)
        actions = tuple(self._actions)
        self._actions.clear()
        return Effects(self._memory.take(), actions)

    def committed(self) -> None:
        self._memory.committed()

    def next_deadline(self) -> float | None:
        return self._timers.next()

    def check(self) -> None:
        self._ledger.check()
        self._roster.check()

    def statistics(self) -> dict[str, float]:
        nodes = list(self._roster)
        counts = self._ledger.counts
        return {
            "jobs_live": len(self._ledger),
            "jobs_leased": sum(len(node.leases) for node in nodes),
            "jobs_succeeded_total": counts["succeeded"],
            "jobs_failed_total": counts["failed"],
            "jobs_cancelled_total": counts["cancelled"],
            "attempts_leased_total": counts["leases"],
            "attempts_crashed_total": counts["crashes"],
            "outcomes_stale_total": counts["stale"],
            "nodes_known": len(nodes),
            "nodes_connected": len(self._roster.connected()),
            "nodes_lost": sum(node.lost for node in nodes),
            "slots": sum(node.record.slots for node in nodes if node.takes_jobs),
            "queries_open": len(self._clerk),
            "store_fraction": round(self._level.fraction, 6),
        }

    def _do_what_is_due(self, now: float) -> None:
        for name in self._timers.due(now):
            match name:
                case "poll":
                    self._poll(now)
                case "round":
                    self._round()
                    self._timers.set("round", now + self._periods.round_s)
                case "results":
                    self._exchange_results()
                    self._timers.set("results", now + self._periods.result_s)
                case "level":
                    self._recall_from_the_busiest()
                case "expire":
                    self._expire(now)
                case ("probe", str(node_id)):
                    self._probe_failed(node_id, now)
                case ("still ending", str(ticket), Question() as question):
                    self._clerk.still_ending(ticket, question)

    def _expire(self, now: float) -> None:
        early = self._level.fraction >= STORE_EXPIRE_FRACTION
        gone = self._history.expire(self._wall, early=early)
        if early and gone:
            self._note("store.expired_early", "warning", jobs=gone)
        self._timers.set("expire", now + EXPIRE_PERIOD_S)

    # --- presence ------------------------------------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Asks every node for its count, and finds those that have been silent too long."""
        for node in self._roster.connected():
            self._send(node, Poll())
        for node in self._roster.silent(now, self._periods.node_timeout_s):
            self._presume_gone(node, now)
        # Asked often enough that an idle node is heard several times within the timeout.
        self._timers.set("poll", now + min(self._periods.info_s, self._periods.node_timeout_s / 4))

    def _presume_gone(self, node: Node, now: float) -> None:
        node.lost = True
        self._note("node.lost", "warning", node=node.record.name, id=node.id, leases=len(node.leases))
        if node.link is not None:
            self._hang_up(node.link, "silent for longer than JOBYARD_NODE_TIMEOUT", now)
        exposed = node.exposed()
        for entry in list(node.leases.values()):
            self._release(node, entry, crashed=entry.ticket in exposed)

    def _release(self, node: Node, entry: Entry, *, crashed: bool) -> None:
        node.take_back(entry.ticket)
        self._ledger.release(entry, crashed=crashed, wall=self._wall)

    def _on_knocked(self, event: Knocked, now: float) -> None:
        hello = event.hello
        node = self._roster.get(hello.node_id)
        if node is not None and node.link is not None:
            if self._hellos[node.link].boot_id == hello.boot_id:
                self._hang_up(node.link, "replaced by a newer connection of the same node", now)
            else:
                self._probe(event, node, now)
                return
        refusal = self._roster.refusal(hello)
        if refusal is not None:
            self._refuse(event, refusal)
            return
        self._admit(event, now)

    def _admit(self, event: Knocked, now: float) -> None:
        node = self._roster.admit(event.link, event.hello, now)
        self._hellos[event.link] = event.hello
        self._send(node, Welcome(self._periods.node_timeout_s, self._periods.eager))

    def _refuse(self, event: Knocked, reason: str) -> None:
        self._note("node.refused", "warning", node=event.hello.name, id=event.hello.node_id, reason=reason)
        self._actions += [Send(event.link, Refused(reason)), Hangup(event.link, reason)]

    def _probe(self, event: Knocked, node: Node, now: float) -> None:
        """Another boot of an id whose link is open: either the old link is dead, or the newcomer is a copy."""
        waiting = self._knocking.pop(node.id, None)
        if waiting is not None:
            self._refuse(waiting, "another start of the same node came in after it")
        self._knocking[node.id] = event
        self._send(node, Poll())
        self._timers.set(("probe", node.id), now + PROBE_S)

    def _probe_failed(self, node_id: str, now: float) -> None:
        event = self._knocking.pop(node_id, None)
        node = self._roster.get(node_id)
        if event is None or node is None:
            return
        if node.link is not None:
            self._hang_up(node.link, "a new start of this node is here, and the old link does not answer", now)
        self._on_knocked(event, now)

    def _alive(self, node: Node, now: float) -> None:
        """Something came in over its link: it is heard, and whoever claims to be it is a copy."""
        self._roster.heard(node, now)
        copy = self._knocking.pop(node.id, None)
        if copy is not None:
            self._timers.cancel(("probe", node.id))
            self._refuse(copy, "a node with this data directory is running; is this one a copy of it?")

    def _on_link_closed(self, event: LinkClosed, now: float) -> None:
        self._hellos.pop(event.link, None)
        self._mail.pop(event.link, None)
        self._clerk.link_closed(event.link)
        for node_id, knock in list(self._knocking.items()):
            if knock.link == event.link:
                del self._knocking[node_id]
                self._timers.cancel(("probe", node_id))
        node = self._roster.disconnected(event.link)
        if node is None:
            return
        self._note("node.disconnected", "warning", node=node.record.name, id=node.id, reason=event.reason)
        if (knocked := self._knocking.pop(node.id, None)) is not None:
            self._timers.cancel(("probe", node.id))
            self._on_knocked(knocked, now)

    def _hang_up(self, link: int, reason: str, now: float) -> None:
        """Ends a link by our own decision; from here on it is closed for us, and the shell closes it in fact."""
        self._actions.append(Hangup(link, reason))
        self._on_link_closed(LinkClosed(link, reason), now)

    # --- what a node holds ---------------------------------------------------------------------------------------

    def _on_holdings(self, node: Node, message: Holdings, now: float) -> None:
        """The first word of every link: leases and what the node really holds are brought together."""
        assert node.link is not None
        hello = self._hellos[node.link]
        fresh_boot = node.record.boot_id != hello.boot_id
        begun, kept = set(message.begun), set(message.outcomes)
        held = begun | set(message.waiting)
        self._settle_old_leases(node, hello, held, begun, kept)
        self._roster.welcome(node, hello)
        for id in (*message.begun, *message.waiting):
            self._recognise(node, hello, id, begun=id in begun)
        for ticket, attempt, boot_id in message.outcomes:
            self._expect_outcome(node, ticket, attempt, boot_id)
        self._note(
            "node.joined",
            node=hello.name,
            id=node.id,
            boot=hello.boot_id,
            new_boot=fresh_boot,
            slots=hello.slots,
            begun=len(message.begun),
            waiting=len(message.waiting),
            outcomes=len(message.outcomes),
        )
        self._clerk.origin_back(hello.prefix, now)

    def _settle_old_leases(
        self,
        node: Node,
        hello: Hello,
        held: set[AttemptId],
        begun: set[AttemptId],
        kept: set[tuple[str, int, str]],
    ) -> None:
        exposed = node.exposed()
        for entry in list(node.leases.values()):
            attempt, boot_id = entry.record.attempt, entry.record.boot_id or ""
            if (entry.ticket, attempt, boot_id) in kept:
                continue  # its outcome is about to be reported
            if boot_id != hello.boot_id:
                self._release(node, entry, crashed=entry.ticket in exposed)
            elif entry.attempt_id not in held:
                self._to(node).leases.append(self._ledger.lease_of(entry))  # it was lost on the way
            else:
                entry.begun = entry.attempt_id in begun
                if entry.record.cancelled:
                    self._to(node).cancels.append(entry.attempt_id)

    def _recognise(self, node: Node, hello: Hello, id: AttemptId, *, begun: bool) -> None:
        """An attempt that the node holds: its lease, its former lease, an earlier ledger's lease, or none."""
        ticket, attempt = id
        entry = self._ledger.live(ticket)
        if entry is None and not self._ledger.knows(ticket):
            self._hold(ticket, Held(node, hello.boot_id, attempt, begun=begun, over=False))
            return
        if entry is not None and ticket in node.leases and entry.record.attempt == attempt:
            return
        if entry is None or entry.record.leased or not self._take_over(node, entry, hello.boot_id, attempt):
            self._to(node).drops.append(id)
            return
        entry.begun = begun

    def _take_over(self, node: Node, entry: Entry, boot_id: str, attempt: int) -> bool:
        """Makes an attempt that a node holds the lease of a job that has none. False where it is out of date."""
        if attempt == entry.record.attempt and boot_id == entry.record.boot_id:
            self._ledger.resume(entry)
        elif attempt > entry.record.attempt:
            self._ledger.adopt(entry, node.id, boot_id, attempt)
        else:
            return False
        node.give(entry)
        return True

    def _expect_outcome(self, node: Node, ticket: str, attempt: int, boot_id: str) -> None:
        """An outcome that the node is about to report. A job that has no lease is not given to others meanwhile."""
        entry = self._ledger.live(ticket)
        if entry is not None and not entry.record.leased:
            self._take_over(node, entry, boot_id, attempt)
        elif entry is None and not self._ledger.knows(ticket):
            self._hold(ticket, Held(node, boot_id, attempt, begun=False, over=True))

    # --- jobs in -------------------------------------------------------------------------------------------------

    def _on_jobs(self, node: Node, message: Jobs, now: float) -> None:
        if self._full:
            node.starved = True
            return
        mail = self._to(node)
        for submission in message.items:
            self._arrive(mail, submission, now)

    @property
    def _full(self) -> bool:
        return self._level.disk_full or self._level.fraction >= STORE_FULL_FRACTION

    def _arrive(self, mail: Mail, submission: Submission, now: float) -> None:
        ticket = submission.ticket
        arrival = self._ledger.arrive(submission)
        mail.taken.append(ticket)
        if arrival.alias_of is not None:
            mail.aliases.append((ticket, arrival.alias_of))
        elif arrival.conflict_with is not None:
            mail.conflicts.append((ticket, arrival.conflict_with))
        if arrival.entry is not None and ticket in self._held:
            self._claim_what_is_held(arrival.entry)
        self._clerk.arrived(ticket, now)

    def _hold(self, ticket: str, held: Held) -> None:
        self._held.setdefault(ticket, {})[held.node.id, held.attempt] = held

    def _claim_what_is_held(self, entry: Entry) -> None:
        """A job came back to a new ledger, and nodes have attempts of it: the highest counts."""
        *lower, best = sorted(self._held.pop(entry.ticket).values(), key=lambda held: held.attempt)
        for other in lower:
            if not other.over and other.node.link is not None:
                self._to(other.node).drops.append((entry.ticket, other.attempt))
        if best.node.link is None or not self._take_over(best.node, entry, best.boot_id, best.attempt):
            self._ledger.raise_attempt(entry, best.attempt)
        elif best.over:
            self._send(best.node, RequestOfRes((entry.ticket,)))
        else:
            entry.begun = best.begun

    # --- rounds --------------------------------------------------------------------------------------------------

    def _round(self) -> int:
        """Hands out at most MAX_NUM_JOBS_DISPATCH jobs, the most urgent first; returns how many."""
        given = 0
        while given < self._periods.jobs_per_round_max and self._give_next():
            given += 1
        return given

    def _give_next(self) -> bool:
        for (_, _, ticket), needs in self._ledger.queue.heads():
            entry = self._ledger.live(ticket)
            if entry is None or entry.state is not State.QUEUED:
                self._ledger.queue.pop(needs)
                return self._give_next()
            chosen = self._placement.choose(self._candidates(needs, entry.record.bytes))
            if chosen is not None:
                self._ledger.queue.pop(needs)
                self._give(entry, chosen)
                return True
        return False

    def _candidates(self, needs: Needs, weight_bytes: int) -> Iterable[Load]:
        kind, slots = needs
        for node in self._roster.connected():
            if (
                node.takes_jobs
                and kind in node.record.kinds
                and slots <= node.record.slots
                and node.load.count - node.record.slots < self._periods.backlog_max
                and (not node.leases or node.weight_bytes + weight_bytes <= WEIGHT_BYTES_MAX)
            ):
                yield node.load

    def _give(self, entry: Entry, load: Load) -> None:
        node = self._roster.get(load.node_id)
        assert node is not None, f"placement chose {load.node_id}, which is not in the roster"
        lease = self._ledger.lease(entry, node.id, node.record.boot_id)
        if lease is None:
            self._ledger.fail_unreadable(entry, self._wall)
            self._note("record.damaged", "error", ticket=entry.ticket)
            return
        node.give(entry)
        self._to(node).leases.append(lease)

    def _watch_levels(self, now: float) -> None:
        """Looks at the levels again soon, where a job waits on one node that another could take."""
        if "level" not in self._timers and self._plan_next_move(self._movable_loads()):
            self._timers.set("level", now + LEVEL_PERIOD_S)

    def _movable_loads(self) -> list[Load]:
        """Copies to plan with; empty while an earlier recall is unanswered."""
        nodes = self._roster.connected()
        if any(node.recalling for node in nodes):
            return []
        return [attrs.evolve(node.load) for node in nodes if node.takes_jobs]

    def _plan_next_move(self, loads: list[Load]) -> tuple[Load, Load] | None:
        move = to_move(loads)
        busy = None if move is None else self._roster.get(move[0].node_id)
        return move if busy is not None and busy.load.count > busy.record.slots else None

    def _recall_from_the_busiest(self) -> None:
        """Asks for waiting jobs back until the counts would be level: those given last, as they would wait longest."""
        loads = self._movable_loads()
        wanted: dict[str, list[AttemptId]] = {}
        for _ in range(RECALLS_MAX):
            move = self._plan_next_move(loads)
            entry = None if move is None else self._last_waiting(move[0], move[1], wanted)
            if move is None or entry is None:
                break
            wanted.setdefault(move[0].node_id, []).append(entry.attempt_id)
            move[0].count -= 1
            move[1].count += 1
        for node_id, attempts in wanted.items():
            node = self._roster.get(node_id)
            assert node is not None
            node.recalling = True
            self._send(node, Recall(tuple(attempts)))

    def _last_waiting(self, busy: Load, idle: Load, wanted: dict[str, list[AttemptId]]) -> Entry | None:
        source, target = self._roster.get(busy.node_id), self._roster.get(idle.node_id)
        assert source is not None
        assert target is not None
        already = {ticket for ticket, _ in wanted.get(busy.node_id, ())}
        for entry in reversed(source.leases.values()):
            if entry.begun or entry.record.cancelled or entry.ticket in already:
                continue
            if entry.record.kind in target.record.kinds and entry.record.slots <= target.record.slots:
                return entry
        return None

    # --- attempts ------------------------------------------------------------------------------------------------

    def _on_info(self, node: Node, message: Info, now: float) -> None:
        node.report = Report(message.running, message.waiting)
        if message.draining and not node.draining:
            self._note("node.draining", node=node.record.name, id=node.id)
        node.draining = message.draining

    def _on_begun(self, node: Node, message: Begun, now: float) -> None:
        for ticket, attempt in message.attempts:
            entry = node.leases.get(ticket)
            if entry is not None and entry.record.attempt == attempt:
                entry.begun = True

    def _on_returned(self, node: Node, message: Returned, now: float) -> None:
        node.recalling = False
        for ticket, attempt in message.attempts:
            entry = node.leases.get(ticket)
            if entry is not None and entry.record.attempt == attempt:
                node.take_back(ticket)
                self._ledger.hand_back(entry, self._wall)

    def _on_result(self, node: Node, message: Result | ResReq, now: float) -> None:
        for pair in message.items:
            self._settle(node, pair)
        if isinstance(message, ResReq):
            self._on_request_of_res(node, RequestOfRes(message.tickets), now)

    def _settle(self, node: Node, pair: Pair) -> None:
        """Records an outcome where it is the one that the ledger waits for, and acknowledges it in any case but one:
        a job that this ledger has still to learn of."""
        reported = unpack(Reported, pair.record)
        entry = self._ledger.live(pair.ticket)
        if entry is None and not self._ledger.knows(pair.ticket):
            self._hold(pair.ticket, Held(node, reported.boot_id, reported.attempt, begun=False, over=True))
            return
        self._to(node).acknowledged.append((pair.ticket, reported.attempt))
        if entry is None or not self._is_current(node, entry, reported):
            self._ledger.counts["stale"] += 1
            return
        runner = self._roster.get(entry.record.node_id)
        if runner is not None:
            runner.take_back(entry.ticket)
        self._ledger.settle(entry, reported.outcome, pair.output, node.record.name, self._wall)

    def _is_current(self, node: Node, entry: Entry, reported: Reported) -> bool:
        if self._ledger.current(entry, reported):
            return True
        # An earlier ledger gave it out, and this one has not yet: the work is done, so it counts.
        return not entry.record.leased and self._take_over(node, entry, reported.boot_id, reported.attempt)

    # --- results out ---------------------------------------------------------------------------------------------

    def _on_request_of_res(self, node: Node, message: RequestOfRes, now: float) -> None:
        """An origin asks for the ends of its jobs: those that have ended are told, the others will be."""
        lapsed: list[str] = []
        for ticket in message.tickets:
            if self._history.find(ticket) is not None:
                node.ends[ticket] = None
            elif self._history.expired(ticket):
                lapsed.append(ticket)
        if lapsed:
            self._send(node, Lapsed(tuple(lapsed)))

    def _tell_of_ends(self) -> None:
        """Hands this step's ends to whoever waits for them."""
        ended_now, self._ledger.ended_now = self._ledger.ended_now, []
        for ticket, ended, output in ended_now:
            self._clerk.ended(ticket, ended, output)
            origin = self._roster.get(self._roster.origin(ticket.partition("-")[0]))
            if origin is not None and origin.link is not None:
                origin.ends[ticket] = None
        if self._periods.eager:
            for node in self._roster.connected():
                for items in self._take_ends(node):
                    self._send(node, Result(items))

    def _take_ends(self, node: Node) -> list[tuple[Pair, ...]]:
        tickets = list(node.ends)
        node.ends.clear()
        pairs = [
            Pair(ticket, pack(ended), self._history.output(ticket, ended))
            for ticket in tickets
            if (ended := self._history.find(ticket)) is not None
        ]
        return list(batches(pairs, lambda pair: len(pair.record) + len(pair.output) + 40))

    def _exchange_results(self) -> None:
        """The timed exchange: with each node the results that it wants and those that are wanted of it."""
        for node in self._roster.connected():
            wanted = tuple(list(node.leases)[:BATCH_ITEMS_MAX])
            *first, last = self._take_ends(node) or [()]
            for items in first:
                self._send(node, Result(items))
            if last and wanted:
                self._send(node, ResReq(last, wanted))
            elif last:
                self._send(node, Result(last))
            elif wanted:
                self._send(node, RequestOfRes(wanted))

    # --- questions -----------------------------------------------------------------------------------------------

    def _on_inquiry(self, node: Node, message: Inquiry, now: float) -> None:
        assert node.link is not None
        self._clerk.ask(node.link, message, now)

    def _on_answer(self, node: Node, message: Answer, now: float) -> None:
        self._clerk.origin_said(message.id, message.reply, now)

    def _on_forget(self, node: Node, message: Forget, now: float) -> None:
        assert node.link is not None
        self._clerk.forget(node.link, message.id, message.ticket)

    def _cancel(self, entry: Entry) -> State:
        """Records the cancel; its attempt, if there is one, is ended where it is."""
        if self._ledger.cancel(entry, self._wall):
            node = self._roster.get(entry.record.node_id)
            if node is not None and node.ready:
                self._to(node).cancels.append(entry.attempt_id)
        return State.CANCELLED

    # --- events --------------------------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        self._wall = event.wall
        node = self._roster.on(event.link)
        if node is None:
            return
        self._alive(node, now)
        for message in event.messages:
            handler = self._receivers.get(type(message))
            if handler is None or (not node.ready and not isinstance(message, Holdings)):
                self._note("link.unexpected", "error", node=node.record.name, message=type(message).__name__)
                self._hang_up(event.link, f"sent a {type(message).__name__} out of turn", now)
                return
            handler(self, node, message, now)

    def _on_store_level(self, event: StoreLevel, now: float) -> None:
        was_full, self._level, self._wall = self._full, event, event.wall
        if was_full == self._full:
            return
        self._note("store.full" if self._full else "store.room", "warning", fraction=round(event.fraction, 3))
        for node in self._roster.connected() if not self._full else ():
            if node.starved:
                node.starved = False
                self._send(node, SendAgain())

    # --- sending -------------------------------------------------------------------------------------------------

    def _to(self, node: Node) -> Mail:
        assert node.link is not None, f"{node.record.name} is not connected"
        mail = self._mail.get(node.link)
        if mail is None:
            mail = self._mail[node.link] = Mail()
        return mail

    def _send(self, node: Node, message: Message) -> None:
        assert node.link is not None, f"{node.record.name} is not connected"
        self._actions.append(Send(node.link, message))

    def _post(self) -> None:
        for link, mail in self._mail.items():
            self._actions += [Send(link, message) for message in _messages(mail)]
        self._mail.clear()

    def _note(self, event: str, level: str = "info", **fields: object) -> None:
        self._actions.append(Note(event, level, fields))

    _handlers: Final[dict[type, Callable[..., None]]] = {
        Knocked: _on_knocked,
        LinkClosed: _on_link_closed,
        Received: _on_received,
        StoreLevel: _on_store_level,
    }
    _receivers: Final[dict[type, Callable[..., None]]] = {
        Holdings: _on_holdings,
        Info: _on_info,
        Jobs: _on_jobs,
        Begun: _on_begun,
        Returned: _on_returned,
        Result: _on_result,
        ResReq: _on_result,
        RequestOfRes: _on_request_of_res,
        Inquiry: _on_inquiry,
        Answer: _on_answer,
        Forget: _on_forget,
    }


def _messages(mail: Mail) -> Iterable[Message]:
    if mail.taken:
        yield Taken(tuple(mail.taken), tuple(mail.aliases), tuple(mail.conflicts))
    if mail.acknowledged:
        yield Acknowledged(tuple(mail.acknowledged))
    if mail.drops:
        yield Drop(tuple(mail.drops))
    for items in batches(mail.leases, lambda lease: len(lease.job) + len(lease.body) + 40):
        yield Dispatch(items)
    if mail.cancels:
        yield Cancel(tuple(mail.cancels))
