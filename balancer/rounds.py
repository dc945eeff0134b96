"""Rounds: jobs that wait become leases, the most urgent first, each for the node that placement chooses.

The other half of levelness is `balancer/levelling.py`.

Pure.
"""

import heapq
import math
from collections.abc import Iterable, Set
from typing import Final

from balancer.chronicle import Chronicle
from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.placement import InForce, Placement, Rank, Terms
from balancer.plain import Plain
from balancer.queue import Needs, Place
from balancer.records import Entry
from balancer.roster import Node, Roster
from common.limits import BODY_BYTES_MAX
from common.messages import Lease

# Slots that are waited for on every node, and how long nothing has to come to it then: a node does some five a
# millisecond of the shortest jobs.
PLENTY: Final = ((256, 0.02), (64, 0.005))
STEP_BYTES_MAX: Final = BODY_BYTES_MAX  # jobs and bodies given out in one step: all are in memory until they are sent
WEIGHT_BYTES_MAX: Final = 2 * BODY_BYTES_MAX  # jobs and bodies that one node holds in memory


class Rounds:
    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        in_force: InForce,
        outbox: Outbox,
        *,
        jobs_max: int,
        chronicle: Chronicle,
        plain: Plain,
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._in_force = in_force
        self._outbox = outbox
        self._jobs_max = jobs_max
        self._chronicle = chronicle
        self._plain = plain
        self._bytes_given = 0  # in this step

    # --- handing out ---------------------------------------------------------------------------------------------

    def round(self, now: float, wall: float) -> int:
        """Hands out at most MAX_NUM_JOBS_DISPATCH jobs; returns how many."""
        given, contests = 0, Contests(self._roster, self._in_force.placement, self._in_force.terms_at(now))
        given += self._give_plain(contests)
        while given < self._jobs_max and not self.is_full and self._give_next(contests, wall):
            given += 1
        return given

    @property
    def is_full(self) -> bool:
        """Whether this step has given out as much as it may: the next goes on."""
        return self._bytes_given >= STEP_BYTES_MAX

    def step_is_over(self) -> None:
        self._bytes_given = 0

    def _give_plain(self, contests: "Contests") -> int:
        """Jobs from the head of the only line there is, as long as nothing about them has to be thought of but who gets
        them; returns how many."""
        queue, live, placement, plain = self._ledger.queue, self._ledger.all, self._in_force.placement, self._plain
        needs = queue.only_line()
        if needs is None:
            return 0
        given: list[tuple[Node, Lease]] = []
        while len(given) < self._jobs_max and not self.is_full and (sequence := queue.head(needs)) is not None:
            entry = live.arrived(sequence)
            if entry is None or not entry.is_plain or entry.record.leased:
                break
            node = contests.of(needs).first_with_room(entry.record.bytes)
            packed = plain.packed(entry) if node is not None else None
            if node is None or packed is None:
                break
            queue.pop(needs)
            placement.chosen(node.load)
            given.append((node, plain.lease(entry, packed, node)))
            self._bytes_given += entry.record.bytes
        plain.leased(given)
        for node, lease in given:
            self._outbox.to(node).leases.append(lease)
        return len(given)

    def _give_next(self, contests: "Contests", wall: float) -> bool:
        """One job: the head of the most urgent line that some node has room for."""
        queue = self._ledger.queue
        kept: set[str] = set()
        for _, needs in queue.heads():
            entry = self._head(needs, wall)
            if entry is None:
                continue
            chosen = contests.of(needs).first_with_room(entry.record.bytes, kept)
            if chosen is not None:
                queue.pop(needs)
                self._in_force.placement.chosen(chosen.load)
                self._give(self._ledger.out_of_line(entry), chosen, wall)
                return True
            kept |= contests.kept_for(needs, kept)
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
        self._bytes_given += entry.record.bytes
        self._ledger.in_line_again(entry)
        self._outbox.to(node).leases.append(lease)
        self._chronicle.tell("job.dispatched", entry.ticket, attempt=lease.attempt, node=node.record.name)

    def can_wait_s(self) -> float:
        """For how long every node that takes jobs has more than enough of them to do, however short they are."""
        spare = [node.load.taken - node.record.slots for node in self._roster.connected() if node.takes_jobs]
        least = min(spare, default=0)
        return next((wait_s for plenty, wait_s in PLENTY if least >= plenty), 0.0)


class Contests:
    """Those of one round, one for each line, made when it is its turn."""

    def __init__(self, roster: Roster, placement: Placement, terms: Terms) -> None:
        self._roster, self._placement, self._terms = roster, placement, terms
        self._of: dict[Needs, Contest] = {}

    def of(self, needs: Needs) -> "Contest":
        if needs not in self._of:
            self._of[needs] = Contest(self._able(needs), needs, self._placement, self._terms)
        return self._of[needs]

    def _able(self, needs: Needs) -> list[Node]:
        return [node for node in self._roster.connected() if node.takes_jobs and can_run(node, *needs)]

    def kept_for(self, needs: Needs, already: Set[str]) -> set[str]:
        """The node that is kept from those who come after a job of this line, which has found no room."""
        return keep(needs, self._able(needs), already) if self._placement.late else set()


class Contest:
    """The nodes that can run the jobs of one line, as placement ranks them. In a round the rank of a node never falls,
    so what the heap says of it is at most too low; that is looked at when its turn comes. With a hundred nodes it saves
    looking at each of them for each job."""

    def __init__(self, nodes: Iterable[Node], needs: Needs, placement: Placement, terms: Terms) -> None:
        self._placement, self._terms, self._slots = placement, terms, needs[1]
        with_room = (node for node in nodes if placement.room(node.load, self._slots, terms))
        self._heap = [(placement.rank(node.load, terms), node.id, node) for node in with_room]
        heapq.heapify(self._heap)

    def first_with_room(self, weight_bytes: int, kept: Set[str] = frozenset()) -> Node | None:
        """The one that a job of this weight is given to; none of those that are kept for others."""
        aside: list[tuple[Rank, str, Node]] = []
        found = None
        while self._heap and found is None:
            rank, id, node = self._heap[0]
            if not self._placement.room(node.load, self._slots, self._terms):
                heapq.heappop(self._heap)  # for good: in a round nothing makes room
            elif (now := self._placement.rank(node.load, self._terms)) != rank:
                heapq.heapreplace(self._heap, (now, id, node))
            elif weight_bytes <= room_bytes(node) and id not in kept:
                found = node
            else:
                aside.append(heapq.heappop(self._heap))  # for this job; the next may be lighter
        for place in aside:
            heapq.heappush(self._heap, place)
        return found


def can_run(node: Node, kind: str, slots: int) -> bool:
    return kind in node.record.kinds and slots <= node.record.slots


def keep(needs: Needs, able: Iterable[Node], already: Set[str]) -> set[str]:
    """A job that needs several slots keeps the node with the most free ones for itself, where jobs go to free slots:
    else narrow ones would take each slot that falls free. As they get none there, there are ever more of them, until
    it can begin."""
    best = min(
        (node for node in able if node.id not in already), key=lambda node: (-node.load.free, node.id), default=None
    )
    return {best.id} if best is not None and needs[1] > 1 else set()


def kept_from(place: Place, heads: Iterable[tuple[Place, Needs]], roster: Roster, in_force: InForce) -> set[str]:
    """The nodes that are kept for jobs that go before this place."""
    kept = set[str]()
    nodes = [node for node in roster.connected() if node.takes_jobs] if in_force.placement.late else []
    for head, needs in heads:
        able = [node for node in nodes if can_run(node, *needs)]
        if head < place and not any(in_force.placement.room(node.load, needs[1], in_force.terms) for node in able):
            kept |= keep(needs, able, kept)
    return kept


def room_bytes(node: Node) -> float:
    """What a job may weigh to be given to this node at present: anything when it has no job at all."""
    return WEIGHT_BYTES_MAX - node.weight_bytes if node.leases else math.inf
