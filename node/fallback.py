"""Life without the balancer: after a while, a node with room runs jobs that nobody but itself can know of.

    unlinked for JOBYARD_LOCAL_FALLBACK ──► leased here ── commit ──► begun ──► ended here
                                                  │                       └───► kept, where the ledger has to decide
                                                  └── link ──► the lease, or the end, travels with the job

Rules:
- Only jobs that were never written to a link. Any other may be with a node by now, and waits for the balancer.
- Only jobs all of whose rules can be kept here: no key (it is the cluster's), no array (its elements are the ledger's),
  no input (the balancer puts it together), no dependency but on jobs of ours that we hold as succeeded, a delay that is
  over, a kind and a width that we run.
- Attempt 1 is leased to this boot on our own disk before it begins, and there is no second one: what fails and has
  retries left, or was lost with its boot, waits for the ledger, which numbers on.
- An end that leaves nothing to decide (success, a failure without retries, a cancel) is recorded here and told to
  whoever waits. The ledger learns of it together with the job.

The highest priority first, then the oldest, as everywhere. Pure.
"""

import heapq

import attrs

from common import lines
from common.codec import replace
from common.effects import Table
from common.limits import FALLBACK_LOOKED_AT_MAX
from common.memory import Memory
from common.messages import AttemptId
from common.model import Ended, Job, Reason, State, Verdict, end_of_attempt, ticket_key
from common.timers import Timers
from node.backlog import Backlog
from node.delivery import number_of
from node.desk import Desk
from node.drain import Drain
from node.held import Finished, Stop
from node.intake import Intake
from node.outbox import Outbox


@attrs.frozen
class Here:
    """This node, as far as it matters for what it may run by itself."""

    boot_id: str
    name: str
    slots: int
    kinds: frozenset[str]
    after_s: float | None  # JOBYARD_LOCAL_FALLBACK; None for off


class Fallback:
    """Decides of jobs that were never sent, while there is no balancer."""

    def __init__(
        self,
        here: Here,
        memory: Memory,
        intake: Intake,
        backlog: Backlog,
        drain: Drain,
        desk: Desk,
        timers: Timers,
        outbox: Outbox,
    ) -> None:
        self._here = here
        self._memory = memory
        self._intake = intake
        self._backlog = backlog
        self._drain = drain
        self._desk = desk
        self._timers = timers
        self._outbox = outbox
        self._on = False
        self._began = (0.0, 0.0)  # this boot: monotonic and calendar moment
        self._looked_at: str | None = None  # the last ticket that was looked at
        self._ready: list[tuple[int, int, str]] = []  # a heap: priority, age, ticket
        self._waiting_for: dict[str, list[str]] = {}  # jobs of ours that are not over → who waits for them
        self._leased: list[tuple[AttemptId, Job, bytes]] = []  # in the step before, and so on disk; not begun
        self.leased_total = 0

    # --- on and off ----------------------------------------------------------------------------------------------

    def restore(self, now: float, wall: float) -> None:
        self._began = (now, wall)
        self.unlinked(now)

    def unlinked(self, now: float) -> None:
        """There is no balancer from here on."""
        if self._here.after_s is not None:
            self._timers.set("fallback", now + self._here.after_s)

    def linked(self) -> None:
        """There is one again, and what was not leased is its own to lease. What was is in the backlog from here on, so
        that we can say that we hold it."""
        self.begin()
        self._timers.cancel("fallback")
        if self._on:
            self._outbox.note("fallback.off", attempts=self.leased_total)
        self._on = False

    def due(self) -> None:
        """The time without a balancer is over; or, when it was before, there is more to do at once."""
        if not self._on and self._outbox.link is None:
            self._on = True
            self._looked_at, self._ready, self._waiting_for = None, [], {}
            self._outbox.note("fallback.on", "warning", after_s=self._here.after_s)

    # --- leasing -------------------------------------------------------------------------------------------------

    def lease(self, now: float) -> None:
        """Leases what there is room for. It begins in the next step, when this one is on disk."""
        if not self._on or self._drain.on or self._leased:
            return
        self._look(now)
        room = self._backlog.room
        while self._ready and room > 0:
            name = self._ready[0][2]
            job = self._intake.job(name) if self._intake.unleased_here(name) else None
            if job is not None and job.slots > room:
                return  # the first in line is not overtaken by one that needs less
            heapq.heappop(self._ready)
            if job is not None:
                self._lease(name, job, now)
                room -= job.slots

    def _lease(self, name: str, job: Job, now: float) -> None:
        attempt = self._intake.lease_here(name, self._here.boot_id, now)
        self._leased.append(((name, attempt), job, self._memory.get(Table.BODIES, ticket_key(name)) or b""))
        self._timers.set("fallback", now)
        self.leased_total += 1

    def begin(self) -> None:
        """Hands what was leased in the step before to the backlog."""
        leased, self._leased = self._leased, []
        for id, job, body in leased:
            if self._intake.is_live(id[0]):
                self._backlog.take(id, job, body)

    def let_go(self, now: float) -> None:
        """We stop: what has not begun is as if it had not been leased."""
        leased, self._leased = self._leased, []
        for (name, _), *_ in leased:
            if self._intake.is_live(name):
                self._intake.let_go_here(name, now)
        self.leased_total -= len(leased)

    # --- looking for what may be leased --------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        found = self._intake.delivery.next_never_sent(self._looked_at, FALLBACK_LOOKED_AT_MAX)
        for name in found:
            self._looked_at = name
            self.consider(name, now)
        if len(found) == FALLBACK_LOOKED_AT_MAX:
            self._timers.set("fallback", now)

    def consider(self, name: str, now: float) -> None:
        """Puts a job in line, or where it waits, or nowhere: then it is the balancer's to run."""
        job = self._intake.job(name) if self._intake.unleased_here(name) else None
        if not self._on or job is None or not self._may_run(job):
            return
        for ticket in job.after:
            first = self._intake.same_name(ticket)
            if self._intake.is_live(first):
                self._waiting_for.setdefault(first, []).append(name)
                return
            ended = self._intake.end(first)
            if ended is None or ended.state is not State.SUCCEEDED:
                return
        due_at = self._due_at(name, job) if job.delay_s else now
        if due_at > now:
            self._timers.set(("fallback", name), due_at)
        else:
            heapq.heappush(self._ready, (-job.priority, number_of(name), name))

    def _due_at(self, name: str, job: Job) -> float:
        """When its delay is over: by the monotonic clock; over a restart by the calendar, but never longer than the
        delay was. The same moment however often it is asked, or its timer might be due and the job never."""
        own = self._intake.live(name)
        assert own is not None, f"{name} is not live here"
        began_at, began_wall = self._began
        if own.as_of > began_at:
            return own.as_of + job.delay_s
        return began_at + min(job.submitted_wall + job.delay_s - began_wall, job.delay_s)

    def _may_run(self, job: Job) -> bool:
        return (
            job.kind in self._here.kinds
            and job.key is None
            and job.array is None
            and not job.inputs
            and job.slots <= self._here.slots
        )  # fmt: skip

    # --- ends ----------------------------------------------------------------------------------------------------

    def settle(self, done: Finished, now: float, wall: float) -> bool:
        """Records the end of a job whose attempt is over, if it was never sent and nothing is left to decide. Where
        this says False, the outcome has to be kept for the ledger."""
        ticket, attempt = done.id
        if self._outbox.link is not None or not self._intake.delivery.never_sent(ticket):
            return False
        outcome, failed = done.outcome, done.outcome.verdict is Verdict.FAILED
        if outcome.verdict is not Verdict.SUCCEEDED and not (failed and self._intake.job(ticket).retries == 0):
            self._intake.waits_again(ticket, now)
            return False
        state = State.FAILED if failed else State.SUCCEEDED
        ended = end_of_attempt(outcome, state, outcome.reason, attempt, self._here.name, wall)
        self._end(ticket, replace(ended, begun=attempt), done.output, now)
        return True

    def cancel(self, text: str, now: float, wall: float) -> bytes | None:
        """The reply to CANCEL, where it can be done here; None where it is the ledger's to do. What runs is ended, and
        what it printed goes with it."""
        ticket = self._intake.same_name(text.lower())
        if self._outbox.link is not None or not self._intake.delivery.never_sent(ticket):
            return None
        job = self._intake.job(ticket)
        if job.key is not None or job.array is not None:
            return None
        own = self._intake.live(ticket)
        begun = 0 if own is None else own.attempt
        self._leased = [leased for leased in self._leased if leased[0][0] != ticket]
        self._backlog.give_back([(ticket, begun)])
        self._backlog.end((ticket, begun), Stop.DROPPED, now)
        self._end(ticket, Ended(State.CANCELLED, wall, Reason.USER, begun=begun), b"", now)
        return lines.ok(ticket, state=State.CANCELLED)

    def _end(self, ticket: str, ended: Ended, output: bytes, now: float) -> None:
        self._intake.ended_here(ticket, ended, output)
        self._desk.ended(ticket, ended, output)
        for name in self._waiting_for.pop(ticket, ()):
            self.consider(name, now)
