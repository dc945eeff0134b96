"""THE machine of the balancer: takes jobs into the ledger, and in rounds hands them to the nodes.

    link ──► Jobs ───► LEDGER ──► queue ──► ROUND: PLACEMENT over the ROSTER ──► leases ──► link: Dispatch
    link ──► Result ─► LEDGER ──► settled once ──► origin: Result, runner: Acknowledged, CLERK: whoever waits

Rules:
- Durable, then visible: a lease is sent, and an outcome acknowledged, by actions that follow their writes.
- The ledger alone decides. What a node holds and the ledger did not give it, it is told to drop.
- A node is silent, not dead: after the node timeout its jobs go to others, and what it brings later is judged by the
  attempt it belongs to.
- Rounds: `eager`, whenever there is work and room; `periodic`, on the timer alone. Likewise results are pushed, or
  travel with the timed exchange.

Pure: no clock, no I/O. What is decided between the parts is here; each part has a file: admission, reunion, ledger,
roster, rounds, placement, clerk; and plain (jobs in a row).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import attrs

from balancer.admission import Admission
from balancer.arrivals import Arrivals
from balancer.books import Books
from balancer.chronicle import Chronicle
from balancer.clerk import Clerk
from balancer.explanations import Rules
from balancer.flow import Flow
from balancer.group_orders import Orders
from balancer.groups import Groups
from balancer.ledger import End, Ledger
from balancer.levelling import Levelling
from balancer.outbox import Mail, Outbox
from balancer.placement import InForce, Placement
from balancer.plain import FEW, Plain
from balancer.questions import HERE, Question
from balancer.records import Arrival, Entry
from balancer.reunion import Held, Reunion
from balancer.revival import Revival
from balancer.roster import Node, Roster
from balancer.rounds import Rounds
from balancer.views import VERBS as VIEWS
from balancer.views import Views
from common.codec import Malformed, replace, unpack
from common.effects import Effects
from common.events import Inquired, Knocked, LinkClosed, Received, StoreLevel, Uninquired
from common.frames import batches
from common.history import History
from common.limits import (
    BATCH_ITEMS_MAX,
    ENDS_PER_STEP_BYTES,
    ENTRIES_AWAKE_MAX,
    STORE_EXPIRE_FRACTION,
    STORE_FULL_FRACTION,
)
from common.machine import Chance
from common.memory import Memory
from common.messages import (
    Aliases,
    Answer,
    Begun,
    Farewell,
    Forget,
    Holdings,
    Info,
    Inquiry,
    Jobs,
    Noticed,
    Pair,
    Poll,
    Reported,
    RequestOfRes,
    ResReq,
    Result,
    Returned,
    SendAgain,
    Submission,
    Welcome,
)
from common.model import Ended, Report, State, is_element
from common.timers import Timers

LEVEL_PERIOD_S: Final = 0.1  # between two moves of waiting jobs; the first is at once, since a slot may stand idle


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


class Dispatcher:
    """See the module. Construct, `restore`, then step by step `handle`."""

    def __init__(
        self,
        memory: Memory,
        periods: Periods,
        placement: Placement,
        *,
        nodes_max: int,
        chance: Chance,
        awake_max: int = ENTRIES_AWAKE_MAX,
    ) -> None:
        """`awake_max`: how many live jobs may be in memory before those rest on disk that wait for a node."""
        self._memory = memory
        self._periods = periods
        self._timers = Timers()
        self._outbox = Outbox()
        self._history = History(memory, periods.retention_s)
        self._chronicle = Chronicle(memory)
        self._ledger = Ledger(memory, self._history, self._chronicle, chance, awake_max=awake_max)
        self._arrivals = Arrivals(memory, self._ledger, self._chronicle)
        self._plain = Plain(memory, self._ledger, self._history, self._chronicle)
        self._roster = Roster(memory, nodes_max)
        groups = Groups(memory)
        self._revival = Revival(
            memory,
            self._history,
            self._ledger,
            self._roster,
            self._outbox,
            self._chronicle,
            lambda: self._wall,
        )
        self._reunion = Reunion(self._ledger, self._roster, self._outbox, self._chronicle, pushed=periods.eager)
        self._admission = Admission(
            self._roster,
            self._outbox,
            self._timers,
            self._hang_up,
            Welcome(periods.node_timeout_s, periods.eager),
        )
        in_force = InForce(
            placement,
            chance,
            backlog_max=periods.backlog_max,
            apart_s=0.0 if periods.eager else periods.round_s,
        )
        self._rounds = Rounds(
            self._ledger,
            self._roster,
            in_force,
            self._outbox,
            jobs_max=periods.jobs_per_round_max,
            chronicle=self._chronicle,
            plain=self._plain,
        )
        self._levelling = Levelling(self._ledger, self._roster, in_force, self._outbox)
        books = Books(self._ledger, self._history, groups, self._roster, self._chronicle)
        rules = Rules(
            periods.eager,
            periods.round_s,
            periods.jobs_per_round_max,
            periods.node_timeout_s,
            nodes_max,
        )
        self._views = Views(books, rules, in_force, lambda: self._level, self.statistics)
        self._clerk = Clerk(
            books,
            rules,
            in_force,
            self._timers,
            self._outbox,
            Orders(
                self._cancel,
                self._revival.retry,
                self._revival.retry_all,
                self._revival.forget,
                self._revival.forget_all,
            ),
            self._told_statistics,
        )
        self._flow = Flow(self._ledger, self._clerk.locate)
        self._level = StoreLevel(0.0, False, 0.0)
        self._levelled_at = -math.inf
        self._wall = 0.0
        self._now = 0.0
        self._ends: list[End] = []  # of this step
        self._taken_out = 0  # of the history, before this step
        self._expiry_is_due = False

    # --- the contract --------------------------------------------------------------------------------------------

    def restore(self, now: float, wall: float) -> None:
        self._now, self._wall = now, wall
        self._ledger.restore(wall)
        self._chronicle.restore(self._ledger.tag)
        self._roster.restore(now)
        for entry in self._ledger.leased():
            node = self._roster.get(entry.record.node_id)
            if node is None:  # its record was damaged and set aside
                self._ledger.release(entry, crashed=False, wall=wall)
            else:
                node.give(entry)
        self._timers.set("poll", now)
        self._timers.set("round", now + self._periods.round_s)
        self._timers.set("results", now + self._periods.result_s)
        self._timers.set("expire", now)

    def handle(self, events: Sequence[object], now: float) -> Effects:
        self._wall += now - self._now  # until a message says what the calendar says: where all are silent, none does
        self._now = now
        for event in events:
            self._handlers[type(event)](self, event, now)
        self._do_what_is_due(now)
        self._follow_up(now)
        while self._periods.eager and self._rounds.round(now, self._wall):
            self._follow_up(now)
        if self._periods.eager and self._rounds.is_full:
            self._timers.set("round", now)
        self._rounds.step_is_over()
        self._follow_up(now)
        self._tell_of_ends(now)
        self._expire(now)  # not before: what ended just now is to be told first
        self._clerk.flush(self._chronicle.flush(self._wall))
        if "level" not in self._timers and self._levelling.is_wanted(now):
            self._timers.set("level", max(now, self._levelled_at + LEVEL_PERIOD_S))
        self._ledger.step_is_over()
        told = self._chronicle.told_last
        return Effects(self._memory.take(), self._outbox.take(), gather_s=self._rounds.can_wait_s(), told=told)

    def committed(self) -> None:
        self._memory.committed()

    def next_deadline(self) -> float | None:
        return self._timers.next()

    def check(self) -> None:
        self._ledger.check()
        self._flow.check()
        self._roster.check()
        self._clerk.check()

    def statistics(self) -> dict[str, float]:
        nodes = list(self._roster)
        counts = self._ledger.counts
        return {
            "jobs_live": len(self._ledger),
            "jobs_leased": sum(len(node.leases) for node in nodes),
            "jobs_succeeded_total": counts["succeeded"],
            "jobs_failed_total": counts["failed"],
            "jobs_cancelled_total": counts["cancelled"],
            "attempts_retried_total": counts["retries"],
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

    def _told_statistics(self) -> dict[str, float]:
        """What STATS says: besides, of how long jobs wait, which HTTP says elsewhere."""
        queued, oldest_s = self._ledger.census[State.QUEUED], self._views.oldest_queued_s(self._wall)
        return self.statistics() | {"jobs_queued": queued, "oldest_queued_s": round(oldest_s, 3)}

    def _follow_up(self, now: float) -> None:
        """What ends and arrives moves jobs that wait for it, and so on until nothing moves."""
        for ticket in self._reunion.take_to_locate():
            if self._roster.origin(ticket.partition("-")[0]) is not None:  # else it has still to come
                self._clerk.locate(ticket, now)
        self._flow.settle(now, self._wall)
        for ticket in self._clerk.take_unknown():
            self._flow.unknown(ticket, self._wall)
            self._reunion.unknown(ticket)
        moved = True
        while moved:
            ends, dropped = self._ledger.take_ends(), self._ledger.take_dropped()
            if self._flow:
                for ticket, ended, _, _ in ends:
                    self._flow.ended(ticket, ended)
            for array in dropped:
                self._flow.dropped(array)
                self._clerk.elements_ended(array, now)
            self._flow.settle(now, self._wall)
            self._ends += ends
            moved = bool(ends or dropped)
        for ticket, wait_s in self._ledger.take_waits():
            self._timers.set(("due", ticket), now + wait_s)

    def _do_what_is_due(self, now: float) -> None:
        # Who is silent is found out before anybody is given anything.
        for name in sorted(self._timers.due(now), key=lambda name: name != "poll"):
            match name:
                case "poll":
                    self._poll(now)
                case "round":
                    self._rounds.round(now, self._wall)
                    self._levelling.round_was_made()
                    self._timers.set("round", now + self._periods.round_s)
                case "results":
                    self._exchange_results()
                    self._timers.set("results", now + self._periods.result_s)
                case "level":
                    self._levelled_at = now
                    self._levelling.level(now)
                case "group orders":
                    self._clerk.carry_on(now)
                case "expire":
                    self._expiry_is_due = True
                case ("due", str(ticket)):
                    self._ledger.due(ticket)
                case ("probe", str(node_id)):
                    self._admission.probe_failed(node_id, now)
                case ("still ending", str(ticket), Question() as question):
                    self._clerk.still_ending(ticket, question)

    def _expire(self, now: float) -> None:
        if not self._expiry_is_due:
            return
        self._expiry_is_due = False
        early = self._level.fraction >= STORE_EXPIRE_FRACTION
        gone = self._history.expire(self._wall, early=early, keeps=self._is_needed)
        if early and gone:
            self._outbox.note("store.expired_early", "warning", jobs=gone)
        self._timers.set("expire", now + self._history.expire_in_s)

    # --- presence ------------------------------------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Asks every node for its count, and finds those that have been silent too long."""
        for node in self._roster.connected():
            self._outbox.send(node, Poll())
        for node in self._roster.silent(now, self._periods.node_timeout_s):
            self._presume_gone(node, now)
        # Asked often enough that an idle node is heard several times within the timeout.
        self._timers.set("poll", now + min(self._periods.info_s, self._periods.node_timeout_s / 4))

    def _presume_gone(self, node: Node, now: float) -> None:
        node.lost = True
        self._outbox.note("node.lost", "warning", node=node.record.name, id=node.id, leases=len(node.leases))
        if node.link is not None:
            self._hang_up(node.link, "silent for longer than JOBYARD_NODE_TIMEOUT", now)
        self._chronicle.tell("node.lost", node=node.record.name, id=node.id)
        exposed = node.exposed()
        for entry in list(node.leases.values()):
            self._reunion.lose(node, entry, crashed=entry.ticket in exposed, wall=self._wall)
        self._clerk.node_back(node.id, now)

    def _on_knocked(self, event: Knocked, now: float) -> None:
        self._admission.knocked(event, now)

    def _on_link_closed(self, event: LinkClosed, now: float) -> None:
        self._admission.link_closed(event.link)
        self._outbox.link_closed(event.link)
        node = self._roster.disconnected(event.link)
        self._clerk.link_closed(event.link, now)
        if node is not None:
            self._chronicle.tell("node.disconnected", node=node.record.name, id=node.id)
            self._outbox.note("node.disconnected", "warning", node=node.record.name, id=node.id, reason=event.reason)
            self._admission.old_link_closed(node.id, now)

    def _hang_up(self, link: int, reason: str, now: float) -> None:
        """Ends a link by our own decision; from here on it is closed for us, and the shell closes it in fact."""
        self._outbox.hang_up(link, reason)
        self._on_link_closed(LinkClosed(link, reason), now)

    def _on_holdings(self, node: Node, message: Holdings, now: float) -> None:
        assert node.link is not None
        hello = self._admission.hello(node.link)
        new_boot = node.record.boot_id != hello.boot_id
        self._chronicle.tell("node.joined", node=hello.name, id=node.id, slots=hello.slots)
        self._reunion.reunite(node, hello, message, self._wall)
        self._outbox.note(
            "node.joined",
            node=hello.name,
            id=node.id,
            boot=hello.boot_id,
            new_boot=new_boot,
            slots=hello.slots,
            begun=len(message.begun),
            waiting=len(message.waiting),
            outcomes=len(message.outcomes),
        )
        self._revival.origin_back(node)
        self._clerk.node_back(node.id, now)

    # --- jobs in -------------------------------------------------------------------------------------------------

    def _on_jobs(self, node: Node, message: Jobs, now: float) -> None:
        if self._full:
            node.starved = True
            return
        mail, items, at = self._outbox.to(node), message.items, 0
        while at < len(items):
            if len(items) >= FEW and (entries := self._plain.arrive(items, at)):
                self._have_arrived(mail, entries, now)
                at += len(entries)
            else:
                self._arrive(node, mail, items[at], now)
                at += 1

    def _have_arrived(self, mail: Mail, entries: Sequence[Entry], now: float) -> None:
        """Whoever depends on one of them knows it when it ends; what is live is nothing for the flow."""
        mail.taken += [entry.ticket for entry in entries]
        for entry in entries if self._reunion.expects_jobs or len(self._clerk) else ():
            self._reunion.arrived(entry)
            self._clerk.arrived(entry.ticket, now)

    def _on_aliases(self, node: Node, message: Aliases, now: float) -> None:
        for ticket, first in message.pairs:
            self._ledger.learn_alias(ticket, first)
            self._flow.arrived(ticket)

    @property
    def _full(self) -> bool:
        return self._level.disk_full or self._level.fraction >= STORE_FULL_FRACTION

    def _arrive(self, node: Node, mail: Mail, submission: Submission, now: float) -> None:
        ticket = submission.ticket
        learned = bool(submission.ended) and not self._ledger.knows(ticket)
        arrival = self._arrivals.arrive(submission, self._wall)
        mail.taken.append(ticket)
        mail.awaited = mail.awaited or not submission.told
        if arrival.alias_of is not None:
            mail.aliases.append((ticket, arrival.alias_of))
        elif arrival.conflict_with is not None:
            mail.conflicts.append((ticket, arrival.conflict_with))
        if arrival.entry is not None:
            self._reunion.arrived(arrival.entry)
            if submission.attempt:
                self._reunion.given_by_its_origin(node, arrival.entry, submission, self._wall)
        else:
            self._reunion.arrived_otherwise(ticket)
            if arrival == Arrival() and not submission.ended:
                self._tell_end(node, ticket)  # its origin may have missed the end together with our first Taken
        self._flow.arrived(ticket)
        self._clerk.arrived(ticket, now)
        if learned and (ended := self._history.find(ticket)) is not None:
            self._clerk.ended(ticket, ended, submission.output, now)

    # --- attempts ------------------------------------------------------------------------------------------------

    def _on_info(self, node: Node, message: Info, now: float) -> None:
        node.report = Report(message.running, message.waiting)
        if message.draining != node.draining:
            event = "node.draining" if message.draining else "node.undrained"
            self._outbox.note(event, node=node.record.name, id=node.id)
            self._chronicle.tell(event, node=node.record.name, id=node.id)
        node.draining = message.draining

    def _on_begun(self, node: Node, message: Begun, now: float) -> None:
        for ticket, attempt in message.attempts:
            entry = node.leases.get(ticket)
            if entry is not None and entry.record.attempt == attempt:
                self._reunion.begun(node, entry)

    def _on_returned(self, node: Node, message: Returned, now: float) -> None:
        for ticket, attempt in message.attempts:
            entry = node.leases.get(ticket)
            if entry is not None and entry.record.attempt == attempt:
                node.take_back(ticket)
                self._ledger.hand_back(entry, self._wall)
        node.returned(message.attempts)

    def _on_result(self, node: Node, message: Result | ResReq, now: float) -> None:
        mail, items, at = self._outbox.to(node), message.items, 0
        while at < len(items):
            behind = self._plain.settle(node, mail, items, at, now, self._wall) if len(items) >= FEW else at
            if behind == at:
                self._settle(node, items[at], now)
            at = max(behind, at + 1)
        if isinstance(message, ResReq):
            self._on_request_of_res(node, RequestOfRes(message.tickets), now)

    def _settle(self, node: Node, pair: Pair, now: float) -> None:
        """Records an outcome where it is the one that the ledger waits for, and acknowledges it in any case but one:
        a job that this ledger has still to learn of."""
        reported = unpack(Reported, pair.record)
        entry = self._ledger.live(pair.ticket)
        if entry is None and not self._ledger.knows(pair.ticket):
            held = Held(node, reported.boot_id, reported.attempt, begun=False, over=True)
            self._reunion.remember(pair.ticket, held)
            return
        self._outbox.to(node).acknowledged.append((pair.ticket, reported.attempt))
        if entry is None or not self._is_current(node, entry, reported):
            self._ledger.counts["stale"] += 1
            return
        runner = self._roster.get(entry.record.node_id)
        if runner is not None:
            runner.take_back(entry.ticket)
            runner.load.ran(reported.outcome.seconds, now)
        self._ledger.settle(entry, reported.outcome, _whole_output(pair, reported), node.record.name, self._wall)

    def _is_current(self, node: Node, entry: Entry, reported: Reported) -> bool:
        """The outcome that is waited for; or one that an earlier ledger gave out, and this one has not: the work is
        done, so it counts."""
        return self._ledger.current(entry, reported) or self._reunion.take_over(
            node, entry, reported.boot_id, reported.attempt
        )

    # --- results out ---------------------------------------------------------------------------------------------

    def _on_request_of_res(self, node: Node, message: RequestOfRes, now: float) -> None:
        """An origin asks for the ends of its jobs: those that have ended are told, the others will be."""
        for ticket in message.tickets:
            self._tell_end(node, ticket)

    def _tell_end(self, node: Node, ticket: str) -> None:
        """Of a job that this ledger has acknowledged and knows no more, it can only be said that it was; unless it has
        the job itself, and lost only how it stands."""
        if ticket in self._ledger.all or self._ledger.live(ticket) is not None:
            return
        if self._history.find(ticket) is not None:
            node.ends[ticket] = None
        elif self._ledger.first_name(ticket) != ticket:
            return  # another name of a job; whoever waits for it waits there
        elif self._ledger.fail_lost(ticket, self._wall):
            self._reunion.arrived_otherwise(ticket)
            self._outbox.note("record.damaged", "error", ticket=ticket)
        else:
            self._outbox.to(node).lapsed.append(ticket)

    def _tell_of_ends(self, now: float) -> None:
        """Hands this step's ends to whoever waits for them."""
        ends, self._ends = self._ends, []
        # What lives again, or was forgotten, since it ended in this very step is not told as ended.
        at_hand = self._periods.eager and self._taken_out == self._history.taken_out
        self._taken_out = self._history.taken_out
        origins: dict[str, Node | None] = {}
        somebody_waits = len(self._clerk) > 0
        for ticket, ended, output, packed in ends:
            if somebody_waits:
                self._clerk.ended(ticket, ended, output, now)
            prefix = ticket.partition("-")[0]
            if prefix not in origins:
                origins[prefix] = self._roster.get(self._roster.origin(prefix))
            origin = origins[prefix]
            if origin is not None and origin.link is not None and not is_element(ticket):
                origin.ends[ticket] = Pair(ticket, packed, output) if at_hand else None
        for node in self._roster.connected() if self._periods.eager else ():
            if not node.ends:
                continue
            for items in self._take_ends(node):
                self._outbox.send(node, Result(items))
            if node.ends:
                self._timers.set("more ends", now)

    def _is_needed(self, ticket: str) -> bool:
        """Whether its end is still to be told, or its output to be given to somebody."""
        origin = self._roster.get(self._roster.origin(ticket.partition("-")[0]))
        return (origin is not None and ticket in origin.ends) or self._ledger.inputs.is_wanted(ticket)

    def _take_ends(self, node: Node) -> list[tuple[Pair, ...]]:
        """The next ends for an origin, about ENDS_PER_STEP_BYTES of them: one that was away may be owed gigabytes. The
        others are read when it is their turn."""
        pairs: list[Pair] = []
        room, taken = ENDS_PER_STEP_BYTES, 0
        for ticket, at_hand in node.ends.items():
            if room <= 0:
                break
            taken += 1
            if (pair := at_hand or self._told_end(ticket)) is not None:
                pairs.append(pair)
                room -= len(pair.output) + len(pair.record)
        node.ends = dict.fromkeys(islice(node.ends, taken, None))
        return list(batches(pairs, lambda pair: len(pair.record) + len(pair.output)))

    def _told_end(self, ticket: str) -> Pair | None:
        packed = self._history.packed(ticket)
        return None if packed is None else Pair(ticket, packed, self._history.output(ticket, unpack(Ended, packed)))

    def _exchange_results(self) -> None:
        """The timed exchange: with each node the results that it wants and those that are wanted of it."""
        for node in self._roster.connected():
            wanted = self._wanted(node)
            *first, last = self._take_ends(node) or [()]
            for items in first:
                self._outbox.send(node, Result(items))
            if last and wanted:
                self._outbox.send(node, ResReq(last, wanted))
            elif last:
                self._outbox.send(node, Result(last))
            elif wanted:
                self._outbox.send(node, RequestOfRes(wanted))

    def _wanted(self, node: Node) -> tuple[str, ...]:
        """The jobs whose results are asked of a node. Where results are pushed anyway, those that were already
        leased at the last exchange: a younger one is most likely on its way."""
        wanted = list(node.leases)
        if self._periods.eager:
            earlier, node.leased_at_exchange = node.leased_at_exchange, frozenset(wanted)
            wanted = [ticket for ticket in wanted if ticket in earlier]
        return tuple(wanted[:BATCH_ITEMS_MAX])

    # --- questions -----------------------------------------------------------------------------------------------

    def _on_inquiry(self, node: Node, message: Inquiry, now: float) -> None:
        assert node.link is not None
        self._clerk.ask(node.link, message, now)

    def _on_answer(self, node: Node, message: Answer, now: float) -> None:
        assert node.link is not None
        self._clerk.node_said(node.link, message.id, message.reply, now)

    def _on_inquired(self, event: Inquired, now: float) -> None:
        """Our own HTTP side asks."""
        self._wall = event.wall
        for inquiry in event.inquiries:
            reply = self._views.answer(inquiry, now, self._wall) if inquiry.verb in VIEWS else None
            if reply is not None:
                self._outbox.reply(inquiry.id, reply)
            elif inquiry.verb in VIEWS:  # of a job that the ledger has still to learn of: its origin may know
                self._clerk.ask(HERE, replace(inquiry, verb="status"), now)
            else:
                self._clerk.ask(HERE, inquiry, now)

    def _on_uninquired(self, event: Uninquired, now: float) -> None:
        for id in event.ids:
            self._clerk.forget(HERE, id)

    def census(self) -> Mapping[State, int]:
        """How many live jobs are in each state; at any time, and at no cost."""
        return self._ledger.census

    def _on_forget(self, node: Node, message: Forget, now: float) -> None:
        assert node.link is not None
        self._clerk.forget(node.link, message.id)

    def _cancel(self, entry: Entry) -> State:
        """Records the cancel; its attempts, if there are any, are ended where they are."""
        for leased in self._ledger.cancel(entry, self._wall):
            node = self._roster.get(leased.record.node_id)
            if node is not None and node.ready:
                self._outbox.to(node).cancels.append(leased.attempt_id)
        return State.CANCELLED

    def _on_farewell(self, node: Node, message: Farewell, now: float) -> None:
        """All that it said before is taken in, and it is given nothing any more."""
        self._outbox.send(node, message)

    def _on_noticed(self, node: Node, message: Noticed, now: float) -> None:
        self._revival.noticed(message)
        for ticket in message.revived:
            self._tell_end(node, ticket)  # it may have ended again before its origin knew that it was live

    # --- events --------------------------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        self._wall = event.wall
        node = self._roster.on(event.link)
        if node is None:
            return
        self._roster.heard(node, now)
        self._admission.heard(node)
        for message in event.messages:
            handler = self._receivers.get(type(message))
            if handler is None or not (node.ready or isinstance(message, Holdings)):
                named = type(message).__name__
                self._outbox.note("link.unexpected", "error", node=node.record.name, id=node.id, message=named)
                self._hang_up(event.link, f"sent a {named} out of turn", now)
                return
            try:
                handler(self, node, message, now)
            except Malformed as error:  # each item is read before anything of it is recorded
                self._hang_up(event.link, str(error), now)
                return

    def _on_store_level(self, event: StoreLevel, now: float) -> None:
        was_full, self._level, self._wall = self._full, event, event.wall
        if was_full == self._full:
            return
        self._outbox.note("store.full" if self._full else "store.room", "warning", fraction=round(event.fraction, 3))
        for node in self._roster.connected() if not self._full else ():
            if node.starved:
                node.starved = False
                self._outbox.send(node, SendAgain())

    _handlers: Final[dict[type, Callable[..., None]]] = {
        Knocked: _on_knocked,
        Inquired: _on_inquired,
        Uninquired: _on_uninquired,
        LinkClosed: _on_link_closed,
        Received: _on_received,
        StoreLevel: _on_store_level,
    }
    _receivers: Final[dict[type, Callable[..., None]]] = {
        Holdings: _on_holdings,
        Info: _on_info,
        Farewell: _on_farewell,
        Jobs: _on_jobs,
        Aliases: _on_aliases,
        Begun: _on_begun,
        Returned: _on_returned,
        Result: _on_result,
        ResReq: _on_result,
        RequestOfRes: _on_request_of_res,
        Noticed: _on_noticed,
        Inquiry: _on_inquiry,
        Answer: _on_answer,
        Forget: _on_forget,
    }


def _whole_output(pair: Pair, reported: Reported) -> bytes:
    """Where its runner's record of it was damaged and set aside, zeros stand for it, as everywhere: how the attempt has
    ended is known all the same."""
    size = reported.outcome.stdout_bytes + reported.outcome.stderr_bytes
    return pair.output if len(pair.output) == size else bytes(size)
