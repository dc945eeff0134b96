"""Leases: to which boot an attempt was durably given, where it began, how it ended, and whether it was lost.

    leased ── began ── over          in the boot that has it, each once
       │        │
       │        └────── lost ......... its node died, or was unheard for the node timeout, or lost what it ran
       └─────────────── handed back .. as its node did, or ended as planned

Only what is lost, or has failed, is followed by another attempt, and only what is lost is counted as a crash.
"""

from collections.abc import Set
from typing import Final

import trio

from common.effects import Exit
from common.events import Stop as StopNode
from common.machine import Machine
from common.model import Outcome, Reason, Verdict
from common.runtime.driver import Step
from tests.simulation.faults import Fault, Pause, Stop
from tests.simulation.records import BALANCER, Live, must
from tests.simulation.silence import Silence

_HAND_BACK_S: Final = 3.0

Attempt = tuple[str, int]


class Leases:
    def __init__(self, node_timeout_s: float) -> None:
        self._silence = Silence(node_timeout_s)
        self.boots: dict[str, str] = {}  # process → its boot, while it lives
        self._given: dict[Attempt, dict[str, float]] = {}  # → the boots that it was durably given to, and since when
        self._last: dict[str, int] = {}  # ticket → its last attempt that was given to anybody
        self._begun: dict[Attempt, str] = {}  # → the boot in which it began
        self._last_begun: dict[str, int] = {}  # ticket → its highest attempt that has begun
        self._over: dict[Attempt, tuple[str, Outcome]] = {}  # → the boot that ran it, and how it ended
        self._crashes: dict[str, set[tuple[int, str]]] = {}  # ticket → its leases that were lost
        self._stopping: dict[str, float | None] = {}  # boots that are to end as planned → when they heard of it
        self._taken_leave: set[str] = set()  # boots that have ended as planned
        self._lost: set[str] = set()  # boots that have ended otherwise

    # --- boots -------------------------------------------------------------------------------------------------------

    def fault(self, fault: Fault) -> None:
        """One of the plan is about to happen."""
        if isinstance(fault, Pause) and fault.process == BALANCER:
            self._silence.pauses(trio.current_time())
        if isinstance(fault, Stop) and fault.process in self.boots:
            self._stopping.setdefault(self.boots[fault.process], None)

    def booted(self, process: str, boot: str) -> None:
        self.boots[process] = boot
        if process == BALANCER:
            self._silence.begins(trio.current_time())

    def died(self, process: str) -> None:
        boot = self.boots.pop(process, None)
        if boot is not None and boot not in self._taken_leave:
            self._lost.add(boot)

    def stepped(self, process: str, step: Step, machine: Machine) -> None:
        if process == BALANCER:
            self._silence.heard(step)
        elif self.boots.get(process) in self._stopping:
            self._stops(self.boots[process], step, machine)

    def _stops(self, boot: str, step: Step, machine: Machine) -> None:
        """A node that is told to stop can take its leave as long as it has a link. Without one, or where nothing comes
        through for HAND_BACK_S, the ledger cannot know that it was no crash."""
        if self._stopping[boot] is None and any(isinstance(event, StopNode) for event in step.events):
            self._stopping[boot] = step.now
        if any(isinstance(action, Exit) for action in step.effects.actions):
            in_time = step.now < (self._stopping[boot] or 0.0) + _HAND_BACK_S
            if in_time and machine.statistics()["linked"]:
                self._taken_leave.add(boot)

    # --- an attempt --------------------------------------------------------------------------------------------------

    def given(self, ticket: str, live: Live, *, revived: bool) -> bool:
        """The ledger has given it to a boot, on its disk; whether that is news."""
        boots = self._given.setdefault((ticket, live.attempt), {})
        assert live.boot_id is not None
        if live.boot_id in boots:
            return False
        last = self._last_begun.get(ticket, 0)
        must(live.attempt > last, f"{ticket}.{live.attempt} was leased after {ticket}.{last} had begun")
        if last == self._last.get(ticket) and not revived:
            self._must_be_over(ticket, last)
        boots[live.boot_id] = trio.current_time()
        self._last[ticket] = live.attempt
        return True

    def given_by_its_origin(self, process: str, ticket: str, live: Live) -> None:
        """Without a balancer a node gives itself what nobody else can know of: once."""
        boots = self._given.setdefault((ticket, live.attempt), {})
        assert live.boot_id is not None
        if live.boot_id not in boots:
            must(live.boot_id == self.boots.get(process), f"{process} gave {ticket} to a boot that is not its own")
            must(not boots and live.attempt == 1, f"{process} gave itself {ticket}.{live.attempt} after {boots}")
            boots[live.boot_id] = trio.current_time()
            self._last[ticket] = live.attempt

    def let_go_by_its_origin(self, ticket: str, live: Live) -> None:
        """It stops, and has not begun what it gave itself."""
        id = (ticket, live.attempt)
        must(id not in self._begun, f"{ticket}.{live.attempt} has begun, and its origin says that it was not leased")
        del self._given[id], self._last[ticket]

    def _must_be_over(self, ticket: str, attempt: int) -> None:
        """Slow is not dead: nothing is run again that runs, or whose outcome its node has, unless the ledger could
        not hear that node for a node timeout."""
        id = (ticket, attempt)
        boot = self._begun.get(id)
        if boot is None or boot not in self.boots.values() or boot in self._stopping:
            return
        _, outcome = self._over.get(id, (None, None))
        failed = outcome is not None and outcome.verdict is not Verdict.SUCCEEDED
        lost = failed or self._silence.was_long(boot, self._given[id][boot], trio.current_time())
        must(lost, f"{ticket} was leased again, and {ticket}.{attempt} is at a node that was never silent")

    def began(self, process: str, boot: str, id: Attempt) -> None:
        ticket, attempt = id
        must(id not in self._begun, f"{ticket}.{attempt} began twice: in boot {self._begun.get(id)} and in {boot}")
        must(self.boots.get(process) == boot, f"{ticket}.{attempt} began in a boot of {process} that is over")
        given = boot in self._given.get(id, ())
        must(given, f"{ticket}.{attempt} began at {process} without a durable lease to this boot")
        self._begun[id] = boot
        self._last_begun[ticket] = max(attempt, self._last_begun.get(ticket, 0))

    def over(self, process: str, id: Attempt, outcome: Outcome) -> None:
        ticket, attempt = id
        never = outcome.verdict is Verdict.CRASHED or outcome.reason is Reason.CANNOT_START
        must(id in self._begun or never, f"{ticket}.{attempt} is over and never began")
        must(id not in self._over, f"{ticket}.{attempt} is over twice")
        self._over[id] = (self.boots[process], outcome)

    def has_begun(self, id: Attempt) -> bool:
        return id in self._begun

    def is_over(self, id: Attempt) -> bool:
        return id in self._over

    def outcome(self, id: Attempt) -> Outcome | None:
        """How it ended, in a boot that it was given to."""
        boot, outcome = self._over.get(id, ("", None))
        must(outcome is None or boot in self._given.get(id, ()), f"{id} ended in a boot that it was not leased to")
        return outcome

    # --- crashes -----------------------------------------------------------------------------------------------------

    def is_crash(self, ticket: str, live: Live) -> bool:
        """A lease is over; whether it was lost."""
        if live.boot_id is None:
            return False
        id, boot = (ticket, live.attempt), live.boot_id
        _, outcome = self._over.get(id, (None, None))
        crashed = outcome is not None and outcome.verdict is Verdict.CRASHED
        since = self._given.get(id, {}).get(boot, 0.0)
        if crashed or boot in self._lost or self._silence.was_long(boot, since, trio.current_time()):
            self._crashes.setdefault(ticket, set()).add((live.attempt, boot))
            return True
        return False

    def crashes(self, ticket: str) -> Set[tuple[int, str]]:
        return self._crashes.get(ticket, set())
