"""Levelness: in a quiet moment no job waits on a node that would better wait, or run, on another.

A moment is quiet when nothing has changed for as long as a look, a recall and another dispatch may take at most, no
fault is going on, and every node was heard since. What is given to whom is read from the ledger's disk, and what has
begun from what is run; of the balancer's own counts nothing is known here.

    level ......... with the job, the other node would still have less to do for each of its slots (promise 6)
    the others .... the other node has as many slots free as the job needs
"""

from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import trio

from balancer.dispatcher import LEVEL_PERIOD_S
from common.effects import Send, Table, Write
from common.events import Knocked, LinkClosed, Received
from common.machine import Machine
from common.messages import AttemptId, Holdings, Info, Recall, Result, Returned
from common.model import Outcome, array_of, ticket_of
from common.runtime.driver import Step
from tests.simulation.auditor import Auditor
from tests.simulation.records import BALANCER, must
from tests.simulation.world import Knobs

_SLACK_S: Final = 0.1


def longest_s(knobs: Knobs) -> float:
    """What may pass between a change and the last lease that is moved because of it: a look, a commit, the recall, a
    commit, the answer, a commit, and in pieces whatever is sent. Where rounds are only started by their timer, two of
    them: one may be over just before the answer."""
    trip_s = 2 * knobs.delay_s[1] + 2 * knobs.commit_s[1]
    rounds_s = 0.0 if knobs.eager else 2 * knobs.dispatch_period_s
    return LEVEL_PERIOD_S + 3 * trip_s + rounds_s + _SLACK_S


@attrs.define
class Held:
    """What a node has been given, as the ledger's disk says."""

    process: str
    slots: int
    count: int = 0
    taken: int = 0
    movable: set[int] = attrs.field(factory=set)  # slots of those that have not begun


@attrs.define
class _Link:
    boot: str
    heard_at: float
    ready: bool = False
    recalled: frozenset[AttemptId] = frozenset()
    unreturned: set[AttemptId] = attrs.field(factory=set)  # asked for in vain since anything has ended there
    draining: bool = False


class Levelness:
    """A watcher of the world, beside the auditor."""

    def __init__(self, auditor: Auditor, knobs: Knobs) -> None:
        self._auditor = auditor
        self._knobs = knobs
        self._longest_s = longest_s(knobs)
        self._changed_at = 0.0
        self._disturbed_until = 0.0
        self._links: dict[int, _Link] = {}
        self.gone: set[str] = set()
        self.looks = 0  # at how many quiet moments jobs were waiting on nodes

    # --- the world tells ---------------------------------------------------------------------------------------------

    def disturbed(self, until: float) -> None:
        """A fault is going on."""
        self._disturbed_until = max(self._disturbed_until, until)

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        if process == BALANCER and any(write.table is Table.LIVE for write in writes):
            self._change()

    def began(self, process: str, boot_id: str, ticket: str, attempt: int, stdin: bytes) -> None:
        self._change()

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome, output: bytes) -> None:
        self._change()

    def booted(self, process: str, boot_id: str) -> None:
        self._change()
        if process == BALANCER:
            self._links.clear()

    def died(self, process: str, how: str) -> None:
        self._change()
        if how == "gone":
            self.gone.add(process)

    def _change(self) -> None:
        self._changed_at = trio.current_time()

    def stepped(self, process: str, step: Step, machine: Machine) -> None:
        if process != BALANCER:
            return
        now = trio.current_time()
        if self._is_quiet(now):
            self._look()
        for event in step.events:
            self._hear(event, now)
        for action in step.effects.actions:
            if isinstance(action, Send) and isinstance(action.message, Recall) and action.link in self._links:
                self._links[action.link].recalled = frozenset(action.message.attempts)

    def _hear(self, event: object, now: float) -> None:
        match event:
            case Knocked(link, hello):
                self._links[link] = _Link(hello.boot_id, now)
                self._change()
            case LinkClosed(link):
                self._links.pop(link, None)
                self._change()
            case Received(link, messages) if link in self._links:
                self._hear_from(self._links[link], messages, now)

    def _hear_from(self, link: _Link, messages: Sequence[object], now: float) -> None:
        if link.heard_at < self._disturbed_until:
            self._change()
        link.heard_at = now
        for message in messages:
            if isinstance(message, Holdings):
                link.ready = True
                self._change()
            elif isinstance(message, Result):
                link.unreturned.clear()  # what could not be returned before may be now, and is asked for again
            elif isinstance(message, Returned):
                kept = link.recalled.difference(message.attempts)
                if message.attempts:
                    link.unreturned.clear()
                if not kept <= link.unreturned:
                    self._change()  # the next will be asked for
                link.unreturned |= kept
            elif isinstance(message, Info) and message.draining != link.draining:
                link.draining = message.draining
                self._change()

    # --- a quiet moment ----------------------------------------------------------------------------------------------

    def _is_quiet(self, now: float) -> bool:
        if now - max(self._changed_at, self._disturbed_until) < self._longest_s:
            return False
        processes = {f"n{number}" for number in range(1, self._knobs.nodes + 1)} - self.gone
        heard = {link.boot for link in self._links.values() if link.ready and link.heard_at >= self._disturbed_until}
        return all(self._auditor.boots.get(process) in heard for process in processes)

    def _look(self) -> None:
        draining = {link.boot for link in self._links.values() if link.draining}
        nodes = self._held()
        taking = [node for boot, node in nodes.items() if boot not in draining]
        for busy in taking:
            for idle in taking:
                for slots in busy.movable if busy.taken > busy.slots and busy is not idle else ():
                    self.looks += 1
                    must(
                        not self._is_better_off(busy, idle, slots),
                        f"a job of {slots} waits on {busy}, and not on {idle}",
                    )

    def _held(self) -> dict[str, Held]:
        """By boot."""
        auditor = self._auditor
        nodes = {
            boot: Held(process, self._knobs.slots_of(process))
            for process, boot in auditor.boots.items()
            if process != BALANCER and process not in self.gone
        }
        for ticket, boot, movable in self._leases():
            if boot in nodes:
                slots = auditor.job(ticket).slots
                nodes[boot].count += 1
                nodes[boot].taken += slots
                nodes[boot].movable |= {slots} if movable else set()
        return nodes

    def _leases(self) -> Iterator[tuple[str, str, bool]]:
        """What is leased, to which boot, and whether it could still be called back. Of a sleep nobody but its node
        knows whether it has begun; and what a node could not let go of may be on its way to begin."""
        auditor = self._auditor
        unreturned = set[AttemptId]().union(*(link.unreturned for link in self._links.values()))
        for key in auditor.ledger.tables[Table.LIVE]:
            live, ticket = auditor.ledger.live(key), ticket_of(key)
            if live is not None and live.leased and live.boot_id is not None:
                id = (ticket, live.attempt)
                begun = auditor.leases.has_begun(id) or auditor.job(ticket).kind == "sleep"
                yield ticket, live.boot_id, not (begun or live.cancelled or id in unreturned)

    def _is_better_off(self, busy: Held, idle: Held, slots: int) -> bool:
        if slots > idle.slots:
            return False
        if self._knobs.placement == "level":
            has_room = idle.count - idle.slots < self._knobs.backlog_max
            return has_room and (idle.count + 1) / idle.slots < busy.count / busy.slots
        return idle.slots - idle.taken >= slots and not self._waits_a_wide_one()

    def _waits_a_wide_one(self) -> bool:
        """Then a node may be kept for it."""
        auditor = self._auditor
        return any(
            not live.leased and auditor.job(array_of(ticket_of(key))).slots > 1
            for key in auditor.ledger.tables[Table.LIVE]
            if (live := auditor.ledger.live(key)) is not None
        )
