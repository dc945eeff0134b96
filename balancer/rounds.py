"""Rounds: jobs that wait become leases, the most urgent first, each for the node that placement chooses.

And the other half of levelness: counts drift apart as durations differ, so attempts that wait on a busy node are
called back where an idler node could begin them. A begun job is never moved; a called-back attempt counts as never
given out, because its node says that it has not begun.

Pure.
"""

import heapq
import math
from collections.abc import Iterable
from typing import Final

import attrs

from balancer.chronicle import Chronicle
from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.placement import Load, Placement, Rank, moves
from balancer.queue import Needs
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.limits import BODY_BYTES_MAX
from common.messages import AttemptId, Recall

PLENTY: Final = 64  # slots that are waited for: a node does some five a millisecond of the shortest jobs
RECALLS_MAX: Final = 256  # jobs moved at once: enough to level quickly, few enough to change course
WEIGHT_BYTES_MAX: Final = 2 * BODY_BYTES_MAX  # jobs and bodies that one node holds in memory


class Rounds:
    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        placement: Placement,
        outbox: Outbox,
        *,
        jobs_max: int,
        backlog_max: int,
        chronicle: Chronicle,
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._placement = placement
        self._outbox = outbox
        self._jobs_max = jobs_max
        self._backlog_max = backlog_max
        self._chronicle = chronicle

    # --- handing out ---------------------------------------------------------------------------------------------

    def round(self, wall: float) -> int:
        """Hands out at most MAX_NUM_JOBS_DISPATCH jobs; returns how many."""
        given, contests = 0, dict[Needs, Contest]()
        while given < self._jobs_max and self._give_next(contests, wall):
            given += 1
        return given

    def _give_next(self, contests: "dict[Needs, Contest]", wall: float) -> bool:
        """One job: the head of the most urgent line that some node has room for."""
        queue = self._ledger.queue
        for _, needs in queue.heads():
            entry = self._head(needs, wall)
            if entry is None:
                continue
            if needs not in contests:
                contests[needs] = Contest(self._who_can_run(needs), self._placement)
            chosen = contests[needs].first_with_room(entry.record.bytes, self._backlog_max)
            if chosen is not None:
                queue.pop(needs)
                self._give(self._ledger.out_of_line(entry), chosen, wall)
                return True
        return False

    def _head(self, needs: Needs, wall: float) -> Entry | None:
        """The first of a line that still waits; those that were cancelled meanwhile are taken out."""
        queue, live = self._ledger.queue, self._ledger.all
        while (sequence := queue.head(needs)) is not None:
            entry = live.arrived(sequence)
            if entry is not None and entry.waits_for_a_node:
                return entry
            queue.pop(needs)
            if entry is not None:
                self._ledger.out_of_line(entry)
            elif (ticket := live.name(sequence)) is not None:
                self._fail_unreadable(ticket, wall)
        return None

    def _fail_unreadable(self, ticket: str, wall: float) -> None:
        """How the job stands was damaged on disk while it rested there."""
        if self._ledger.fail_lost(ticket, wall):
            self._outbox.note("record.damaged", "error", ticket=ticket)

    def _who_can_run(self, needs: Needs) -> list[Node]:
        kind, slots = needs
        return [node for node in self._roster.connected() if node.takes_jobs and can_run(node, kind, slots)]

    def _give(self, entry: Entry, node: Node, wall: float) -> None:
        if not self._ledger.inputs.at_hand_for(entry):
            self._ledger.wait_again(entry)
            return
        lease = self._ledger.lease(entry, node.id, node.record.boot_id)
        if lease is None:
            self._ledger.fail_unreadable(entry, wall)
            self._outbox.note("record.damaged", "error", ticket=entry.ticket)
            return
        node.give(entry)
        self._ledger.in_line_again(entry)
        self._outbox.to(node).leases.append(lease)
        self._chronicle.tell("job.dispatched", entry.ticket, attempt=lease.attempt, node=node.record.name)

    def all_have_plenty(self) -> bool:
        """Whether every node that takes jobs has enough of them to do for some milliseconds, however short they are."""
        nodes = [node for node in self._roster.connected() if node.takes_jobs]
        return bool(nodes) and all(node.slots_leased >= node.record.slots + PLENTY for node in nodes)

    # --- calling back --------------------------------------------------------------------------------------------

    def uneven(self) -> bool:
        """Whether a job may be waiting on one node that would better wait on another. Cheap: asked in each step."""
        if not any(node.slots_leased > node.record.slots for node in self._roster.connected()):
            return False
        return any(self._may_wait(busy) for busy, _ in moves(self._plan()))

    def level(self) -> None:
        """Calls waiting attempts back until the counts would be level: those given last, which would wait longest."""
        loads = self._plan()
        wanted: dict[str, list[AttemptId]] = {}
        for _ in range(RECALLS_MAX):
            move = self._next_move(loads, wanted)
            if move is None:
                break
            busy, idle, entry = move
            wanted.setdefault(busy.node_id, []).append(entry.attempt_id)
            busy.count -= 1
            idle.count += 1
        for node_id, attempts in wanted.items():
            node = self._roster.known(node_id)
            node.recalling = True
            self._outbox.send(node, Recall(tuple(attempts)))

    def _plan(self) -> list[Load]:
        """Loads to plan with; none while an earlier recall is unanswered, because the counts are about to change."""
        nodes = self._roster.connected()
        if any(node.recalling for node in nodes):
            return []
        return [attrs.evolve(node.load) for node in nodes if node.takes_jobs]

    def _next_move(self, loads: list[Load], wanted: dict[str, list[AttemptId]]) -> tuple[Load, Load, Entry] | None:
        for busy, idle in moves(loads):
            entry = self._last_waiting(busy, idle, wanted) if self._may_wait(busy) else None
            if entry is not None:
                return busy, idle, entry
        return None

    def _may_wait(self, load: Load) -> bool:
        node = self._roster.known(load.node_id)
        return node.slots_leased > node.record.slots

    def _last_waiting(self, busy: Load, idle: Load, wanted: dict[str, list[AttemptId]]) -> Entry | None:
        source, target = self._roster.known(busy.node_id), self._roster.known(idle.node_id)
        already = {ticket for ticket, _ in wanted.get(busy.node_id, ())}
        for entry in reversed(source.leases.values()):
            movable = not entry.begun and not entry.record.cancelled and entry.ticket not in already
            if movable and can_run(target, entry.record.kind, entry.record.slots):
                return entry
        return None


class Contest:
    """The nodes that can run the jobs of one line, as placement ranks them. In a round the rank of a node never falls,
    so what the heap says of it is at most too low; that is looked at when its turn comes. With a hundred nodes it saves
    looking at each of them for each job."""

    def __init__(self, nodes: Iterable[Node], placement: Placement) -> None:
        self._rank = placement.rank
        self._heap = [(self._rank(node.load), node.id, node) for node in nodes]
        heapq.heapify(self._heap)

    def first_with_room(self, weight_bytes: int, backlog_max: int) -> Node | None:
        full: list[tuple[Rank, str, Node]] = []
        found = None
        while self._heap and found is None:
            rank, id, node = self._heap[0]
            if (now := self._rank(node.load)) != rank:
                heapq.heapreplace(self._heap, (now, id, node))
            elif weight_bytes <= room_bytes(node, backlog_max):
                found = node
            else:
                full.append(heapq.heappop(self._heap))  # for this job; the next may be lighter
        for place in full:
            heapq.heappush(self._heap, place)
        return found


def can_run(node: Node, kind: str, slots: int) -> bool:
    return kind in node.record.kinds and slots <= node.record.slots


def room_bytes(node: Node, backlog_max: int) -> float:
    """What a job may weigh to be given to this node at present: nothing when its backlog is full, and anything when
    it has no job at all."""
    if node.load.count - node.record.slots >= backlog_max:
        return -1
    return WEIGHT_BYTES_MAX - node.weight_bytes if node.leases else math.inf
