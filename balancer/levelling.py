"""Levelling: attempts that wait on a busy node are called back where they would do better on another.

Counts drift apart as durations differ. A begun job is never moved; a called-back attempt counts as never given out,
because its node says that it has not begun. Which pairs of nodes are worth a move the policy says; here it is looked
for an attempt that the other node can run, and would be given: one that is recalled and comes back where it was has
cost a commit and two messages for nothing, ten times a second.

Pure.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

import attrs

from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.placement import InForce, Load, Move, Terms
from balancer.queue import Needs
from balancer.records import Entry
from balancer.roster import Node, Roster
from balancer.rounds import can_run, kept_from, room_bytes
from common.messages import AttemptId, Recall

RECALLS_MAX: Final = 256  # jobs moved at once: enough to level quickly, few enough to change course
PAIRS_MAX: Final = 5000  # looked at in one levelling: some milliseconds, however many nodes cannot run what waits
_LOOKED_AT_MAX: Final = 16  # attempts of one kind on one node, before another node is looked at


class Levelling:
    def __init__(self, ledger: Ledger, roster: Roster, in_force: InForce, outbox: Outbox) -> None:
        self._ledger = ledger
        self._roster = roster
        self._in_force = in_force
        self._outbox = outbox
        self._waits_for_a_round = False  # with what was called back; where they are only started by their timer

    def round_was_made(self) -> None:
        self._waits_for_a_round = False

    def is_wanted(self, now: float) -> bool:
        """Whether a job may be waiting on one node that would better wait on another. Cheap: asked in each step."""
        busy_nodes = any(node.load.taken > node.record.slots for node in self._roster.connected())
        if self._waits_for_a_round or not busy_nodes:
            return False
        moves = self._in_force.placement.moves(self._movable(), self._in_force.terms_at(now))
        return any(busy.taken > busy.slots for busy, _ in islice(moves, PAIRS_MAX))

    def level(self, now: float) -> None:
        """Calls waiting attempts back until nothing is to be gained: those given last, which would wait longest."""
        plan = Plan(self._ledger, self._roster, self._in_force, self._in_force.terms_at(now), self._movable())
        while plan.moved < RECALLS_MAX and plan.move():
            pass
        for node_id, attempts in plan.wanted.items():
            node = self._roster.known(node_id)
            node.recalled = frozenset(attempts)
            self._outbox.send(node, Recall(tuple(attempts)))
        self._waits_for_a_round = bool(plan.wanted) and self._in_force.terms.apart_s > 0

    def _movable(self) -> list[Load]:
        """Loads to plan with; without those of nodes that owe the answer to an earlier recall, because their counts are
        about to change, unless they hang: then the others are not to wait for them."""
        return [node.load for node in self._roster.connected() if node.takes_jobs and not node.recalled]


class Plan:
    """One levelling, move by move; the loads are as they will be then."""

    def __init__(self, ledger: Ledger, roster: Roster, in_force: InForce, terms: Terms, movable: list[Load]) -> None:
        self._ledger, self._roster, self._in_force, self._terms = ledger, roster, in_force, terms
        self._loads = [attrs.evolve(load) for load in movable]
        self._waiting: dict[str, dict[Needs, list[tuple[int, Entry]]]] = {}  # node → those given last at the end
        self._coming_bytes: dict[str, int] = {}
        self._pairs = 0
        self.wanted: dict[str, list[AttemptId]] = {}
        self.moved = 0

    def move(self) -> bool:
        """Plans the best move; False where none is left."""
        for busy, idle in self._pairs_worth_it():
            found = self._last_waiting(busy, idle)
            if found is not None:
                self._take(busy, idle, *found)
                return True
        return False

    def _pairs_worth_it(self) -> Iterator[Move]:
        for pair in self._in_force.placement.moves(self._loads, self._terms):
            self._pairs += 1
            if self._pairs > PAIRS_MAX:
                return
            if pair[0].taken > pair[0].slots:
                yield pair

    def _last_waiting(self, busy: Load, idle: Load) -> tuple[Needs, int] | None:
        """Of the attempts that the idle one would be given, the one that was given to the busy one last: among which,
        and where."""
        target, room = self._roster.known(idle.node_id), self._in_force.placement.room
        best: tuple[int, Needs, int] | None = None
        for needs, line in self._line_of(busy).items():
            if not can_run(target, *needs) or not room(idle, needs[1], self._terms):
                continue
            for place in range(len(line) - 1, max(-1, len(line) - 1 - _LOOKED_AT_MAX), -1):
                at, entry = line[place]
                if (best is None or at > best[0]) and self._would_be_given(entry, target):
                    best = at, needs, place
                    break
        return None if best is None else best[1:]

    def _line_of(self, busy: Load) -> dict[Needs, list[tuple[int, Entry]]]:
        if busy.node_id not in self._waiting:
            source, lines = self._roster.known(busy.node_id), dict[Needs, list[tuple[int, Entry]]]()
            for at, entry in enumerate(source.leases.values()):
                if not entry.begun and not entry.record.cancelled and entry.attempt_id not in source.unreturned:
                    lines.setdefault((entry.record.kind, entry.record.slots), []).append((at, entry))
            self._waiting[busy.node_id] = lines
        return self._waiting[busy.node_id]

    def _would_be_given(self, entry: Entry, target: Node) -> bool:
        """Whether it is not too heavy there, and the node is not kept for somebody who goes before it."""
        if entry.record.bytes > room_bytes(target) - self._coming_bytes.get(target.id, 0):
            return False
        if not self._in_force.placement.late:
            return True
        place = (-entry.record.priority, entry.record.sequence)
        return target.id not in kept_from(place, self._ledger.queue.heads(), self._roster, self._in_force)

    def _take(self, busy: Load, idle: Load, needs: Needs, place: int) -> None:
        _, entry = self._waiting[busy.node_id][needs].pop(place)
        self.wanted.setdefault(busy.node_id, []).append(entry.attempt_id)
        self._coming_bytes[idle.node_id] = self._coming_bytes.get(idle.node_id, 0) + entry.record.bytes
        busy.count, busy.taken = busy.count - 1, busy.taken - entry.record.slots
        idle.count, idle.taken = idle.count + 1, idle.taken + entry.record.slots
        self.moved += 1
