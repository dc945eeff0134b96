"""Attempts taken: held, started when slots are free, ended when asked, each begun at most once.

    taken ──► waiting ──► begun ──► over
              │  │  ▲       │
              │  ▼  │       └ ended on purpose: timeout, cancel, drop, interrupt
              │  ahead ──► begun
              └ returned

Ahead: in the spawner's line, so that a slot that becomes free does not wait for us. Only while attempts are short
here, and no more of them than AHEAD_S will take: whoever is more urgent waits for them, and none can be recalled
meanwhile. No `sleep` shares the slots with them, because the spawner knows of none. What the spawner returns waits here
again, or, if it was asked back, is let go.

Nothing here is on disk. A lease names the boot that it was given to, so a backlog ends with its boot: after a
restart the ledger knows that what was leased to the old boot is gone.

Pure. `sleep` needs no process and is timed here; everything else is a `Start` for the executors, with what it may use:
what the job asked for, and nowhere more than the node allows.
"""

import functools
import heapq
import signal
from collections.abc import Iterable, Iterator
from typing import Final

from common.codec import replace, unpack
from common.kinds import sleep_s
from common.limits import KILL_GRACE_S
from common.messages import AttemptId, Lease
from common.model import Job, Outcome, Reason, Report, Verdict, attempt_name, index_of
from common.timers import Timers
from node.executors import Begun, Kill, Over, Printed, Returned, Start, TakeBack, Word
from node.held import Finished, Held, Stop
from node.maxima import NO_MAXIMA, Maxima

AHEAD_S: Final = 0.02  # what is handed ahead takes about so long, by the attempts before
AHEAD_MAX: Final = 256  # the shortest calls: 10 ms of them, in two slots
SHORT_S: Final = 0.00005  # nothing is shorter
MEAN_OF: Final = 8  # how many of the last attempts count, roughly
LONG_S: Final = 0.1  # what is thought of attempts before any was seen: a dozen short ones must show the contrary


_SLEEP: Final = "sleep"
_TIMEOUT: Final = "timeout"
_KILL: Final = "kill"
_SLEPT: Final = Outcome(Verdict.SUCCEEDED, exit=0)  # for no time at all
_seconds_of: Final = functools.lru_cache(maxsize=128)(sleep_s)  # most of those that come together sleep as long


class Backlog:
    """The attempts of one boot, and its slots. `commands` collects what the executors are to do."""

    def __init__(self, *, slots: int, node_name: str, timers: Timers, maxima: Maxima = NO_MAXIMA) -> None:
        self._slots = slots
        self._node_name = node_name
        self._timers = timers
        self._maxima = maxima
        self._held: dict[AttemptId, Held] = {}
        self._heap: list[tuple[int, int, int, AttemptId]] = []
        self._sequence = 0
        self._waiting = 0
        self._slots_used = 0
        self._sleeping = 0
        self._ahead = 0
        self._mean_s = LONG_S  # of the last attempts
        self.begun_total = 0
        self.commands: list[Start | TakeBack | Kill] = []
        self.begun: list[AttemptId] = []
        self.finished: list[Finished] = []
        self.let_go: list[AttemptId] = []  # that were asked back and had not begun

    # --- taking and giving back --------------------------------------------------------------------------------

    def take(self, id: AttemptId, job: Job, body: bytes, order: int = 0) -> None:
        """Holds an attempt until a slot is free; taking the same one again changes nothing."""
        if id in self._held:
            return
        self._sequence += 1
        self._waiting += 1
        held = self._held[id] = Held(id, job, body, order, self._sequence)
        self._put_in_line(held)

    def take_in_a_row(self, leases: Iterable[Lease]) -> None:
        """As above, those that come together; raises Malformed at the first whose job cannot be read."""
        packed, job = b"", None
        for lease in leases:
            if job is None or lease.job != packed:  # what was submitted again and again is read once
                job, packed = unpack(Job, lease.job), lease.job
            self.take((lease.ticket, lease.attempt), job, lease.body, lease.order)

    def _put_in_line(self, held: Held) -> None:
        heapq.heappush(self._heap, (-held.job.priority, held.order, held.sequence, held.id))

    def forget_order(self) -> None:
        """Another ledger counts arrivals anew: all who wait have arrived before whoever it gives us."""
        self._heap = []
        for held in filter(lambda held: held.waits_here, self._held.values()):
            held.order = 0
            self._put_in_line(held)

    def give_back(self, ids: Iterable[AttemptId]) -> list[AttemptId]:
        """Lets go of those that wait here, and tells which; the others stay: those ahead are about to begin."""
        asked = dict.fromkeys(ids)  # one that is named twice is let go of once
        returned = [id for id in asked if (held := self._held.get(id)) is not None and held.waits_here]
        for id in returned:
            del self._held[id]
        self._waiting -= len(returned)
        return returned

    def give_back_all(self) -> list[AttemptId]:
        """As above; those ahead are asked back, and are let go of when they come."""
        for held in self._held.values():
            if held.is_ahead and not held.is_asked_back:
                held.is_asked_back = True
                self.commands.append(TakeBack(*held.id))
        return self.give_back(self.waiting())

    def waiting(self) -> list[AttemptId]:
        return [held.id for held in self._held.values() if held.begun_at is None]

    def given(self) -> list[AttemptId]:
        """Those that have begun or may begin at any moment."""
        return [held.id for held in self._held.values() if not held.waits_here]

    def running(self) -> list[AttemptId]:
        return [held.id for held in self._held.values() if held.begun_at is not None]

    def report(self) -> Report:
        return Report(running=len(self._held) - self._waiting, waiting=self._waiting)

    @property
    def room(self) -> int:
        """Slots that nobody waits for."""
        return 0 if self._waiting else max(0, self._slots - self._slots_used)

    # --- beginning ---------------------------------------------------------------------------------------------

    def fill(self, now: float) -> None:
        """Begins attempts while slots are free: the highest priority first, then the job that arrived first. The first
        in line is not overtaken by one that needs fewer slots, or a wide job might wait for ever. Those who may go
        ahead, go."""
        while (held := self._first_waiting()) is not None:
            if not self._ahead and self._slots_used + held.job.slots <= self._slots:
                if held.sleeps_no_time:
                    self._pass_in_a_row(held)
                    continue
                heapq.heappop(self._heap)
                self._begin(held, now)
            elif self._may_go_ahead(held):
                heapq.heappop(self._heap)
                self._hand_ahead(held)
            else:
                return

    def _first_waiting(self) -> Held | None:
        while self._heap:
            _, _, sequence, id = self._heap[0]
            held = self._held.get(id)
            if held is not None and held.sequence == sequence and held.waits_here:
                return held
            heapq.heappop(self._heap)
        return None

    def _begin(self, held: Held, now: float) -> None:
        if held.job.kind == _SLEEP:
            self._begin_sleep(held, now)
            return
        self._count_begun(held, now)
        self.commands.append(self._start_of(held))
        self._note_begun(held, now)

    def _count_begun(self, held: Held, now: float) -> None:
        held.begun_at = now
        self._waiting -= 1
        self._slots_used += held.job.slots
        self.begun_total += 1

    def _note_begun(self, held: Held, now: float) -> None:
        self.begun.append(held.id)
        held.body = b""
        if (timeout_s := self._maxima.timeout_of(held.job)) is not None:
            self._set_timer(_TIMEOUT, held, now + timeout_s)

    def _set_timer(self, what: str, held: Held, at: float) -> None:
        held.is_timed = True
        self._timers.set((what, held.id), at)

    def _start_of(self, held: Held) -> Start:
        job, limits = held.job, self._maxima.limits_of(held.job)
        environment = self._environment(held)
        return Start(*held.id, job.kind, held.line, held.body, job.dir, environment, limits, job.slots)

    def _begin_sleep(self, held: Held, now: float) -> None:
        try:
            seconds = _seconds_of(held.line)
        except ValueError as error:  # its origin should have refused it
            text = f"jobyard: {error}\n".encode()
            self._pass(held, Outcome(Verdict.FAILED, Reason.CANNOT_START, stderr_bytes=len(text)), text)
            return
        if seconds <= 0:
            self._pass(held, _SLEPT, b"")
            return
        self._count_begun(held, now)
        self._sleeping += 1
        self.begun.append(held.id)
        timeout_s = self._maxima.timeout_of(held.job)
        if timeout_s is not None and timeout_s < seconds:
            self._set_timer(_TIMEOUT, held, now + timeout_s)
        else:
            self._set_timer(_SLEEP, held, now + seconds)

    def _pass(self, held: Held, outcome: Outcome, output: bytes) -> None:
        """It is over as it begins, and its slot is free as if it had never been taken."""
        del self._held[held.id]
        self._waiting -= 1
        self.begun_total += 1
        self.finished.append(Finished(held.id, outcome, output, unwanted=False))

    def _pass_in_a_row(self, held: Held) -> None:
        """The first in line sleeps for no time at all, and so may those behind it: each is over as it begins."""
        heap, slots, finished = self._heap, held.job.slots, list[Finished]()
        while True:
            heapq.heappop(heap)
            del self._held[held.id]
            finished.append(Finished(held.id, _SLEPT, b"", unwanted=False))
            behind = self._held.get(heap[0][3]) if heap else None
            if behind is None or behind.sequence != heap[0][2] or not behind.waits_here:
                break
            if not behind.sleeps_no_time or behind.job.slots != slots:
                break
            held = behind
        self._waiting -= len(finished)
        self.begun_total += len(finished)
        self.finished += finished

    def _environment(self, held: Held) -> tuple[tuple[str, str], ...]:
        ticket, attempt = held.id
        index = index_of(ticket)
        return (
            *held.job.env,
            ("JOBYARD_TICKET", ticket),
            ("JOBYARD_ATTEMPT", str(attempt)),
            ("JOBYARD_NODE", self._node_name),
            *(() if index is None else (("JOBYARD_INDEX", str(index)),)),
        )

    # --- ahead of a free slot ----------------------------------------------------------------------------------

    def _may_go_ahead(self, held: Held) -> bool:
        if self._sleeping or held.job.slots != 1 or held.job.kind == _SLEEP or self._mean_s >= AHEAD_S:
            return False
        return self._ahead < min(AHEAD_MAX, int(self._slots * AHEAD_S / self._mean_s))

    def _hand_ahead(self, held: Held) -> None:
        held.is_ahead = True
        self._ahead += 1
        self.commands.append(self._start_of(held))

    def _no_longer_ahead(self, held: Held) -> None:
        held.is_ahead = held.is_asked_back = False
        self._ahead -= 1

    # --- what the executors tell -------------------------------------------------------------------------------

    def hear(self, words: Iterable[Word], now: float) -> list[Printed]:
        """What is over comes first: whoever has begun may have its slot. What an attempt has printed is not for us, and
        is given back."""
        later: list[Begun | Returned | Printed] = []
        printed: list[Printed] = []
        for word in words:
            if isinstance(word, Over):
                self._is_over(word, now)
            else:
                later.append(word)
        for word in later:
            if isinstance(word, Begun):
                self._has_begun(word, now)
            elif isinstance(word, Returned):
                self._has_returned(word)
            else:
                printed.append(word)
        return printed

    def _is_over(self, over: Over, now: float) -> None:
        held = self._held.get((over.ticket, over.attempt))
        if held is None or held.waits_here:
            return
        if held.is_ahead:
            self._no_longer_ahead(held)
            self._count_begun(held, now)
        if over.outcome.verdict is not Verdict.CRASHED and over.outcome.reason is not Reason.CANNOT_START:
            self._mean_s += (max(over.outcome.seconds, SHORT_S) - self._mean_s) / MEAN_OF
        self._end(held, over.outcome, over.output)

    def _has_begun(self, begun: Begun, now: float) -> None:
        held = self._held.get((begun.ticket, begun.attempt))
        if held is not None and held.is_ahead:
            self._no_longer_ahead(held)
            self._count_begun(held, now)
            self._note_begun(held, now)
            if held.stop is not None:  # it was told so before it had begun
                self._kill(held, now)

    def _has_returned(self, returned: Returned) -> None:
        """Somebody long was in front of it, or it was asked back, or the spawner has died. In that case it was perhaps
        to begin at once, and what the ledger knows as begun has to end."""
        held = self._held.get((returned.ticket, returned.attempt))
        if held is None or held.waits_here:
            return
        if not held.is_ahead:
            self._end(held, Outcome(Verdict.CRASHED), b"")
            return
        is_wanted = held.stop is None and not held.is_asked_back
        self._no_longer_ahead(held)
        if is_wanted:
            self._mean_s = LONG_S
            self._put_in_line(held)
            return
        del self._held[held.id]
        self._waiting -= 1
        self._timers.cancel((_KILL, held.id))
        if held.stop is not Stop.DROPPED:
            self.let_go.append(held.id)

    def take_news(self) -> tuple[list[Finished], list[AttemptId], list[AttemptId]]:
        """What has finished, begun, and been let go of since the last time."""
        news = self.finished, self.begun, self.let_go
        self.finished, self.begun, self.let_go = [], [], []
        return news

    # --- ending ------------------------------------------------------------------------------------------------

    def end(self, id: AttemptId, stop: Stop, now: float, *, grace_s: float = KILL_GRACE_S) -> bool:
        """Ends a begun attempt: SIGTERM to its group, SIGKILL after the grace. False when it is not begun here. One
        that is ahead is taken back, or is ended so if it has begun.

        An attempt that is ending already keeps its first reason, but for a drop, after which nobody cares."""
        held = self._held.get(id)
        if held is None or held.waits_here:
            return False
        if held.stop is None or stop is Stop.DROPPED:
            first, held.stop = held.stop is None, stop
            if first:
                self._terminate(held, now, grace_s)
        return True

    def _terminate(self, held: Held, now: float, grace_s: float) -> None:
        if held.job.kind == _SLEEP:
            assert held.begun_at is not None, "a sleep is never ahead"
            killed = Outcome(Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGTERM, now - held.begun_at)
            self._end(held, killed, b"")
            return
        if held.is_ahead:
            self.commands.append(TakeBack(*held.id))
        self._kill(held, now, grace_s)

    def _kill(self, held: Held, now: float, grace_s: float = KILL_GRACE_S) -> None:
        self.commands.append(Kill(*held.id, signal.SIGTERM))
        self._set_timer(_KILL, held, now + grace_s)

    def _end(self, held: Held, outcome: Outcome, output: bytes) -> None:
        del self._held[held.id]
        self._slots_used -= held.job.slots
        self._sleeping -= held.job.kind == _SLEEP
        if held.is_timed:
            for what in (_SLEEP, _TIMEOUT, _KILL):
                self._timers.cancel((what, held.id))
        if (stop := held.stop) is not None:
            outcome = _counted(outcome, stop)
        self.finished.append(Finished(held.id, outcome, output, stop is Stop.DROPPED))

    def due(self, what: str, id: AttemptId, now: float) -> None:
        """One of our timers has come up."""
        held = self._held.get(id)
        if held is None or held.begun_at is None:
            return
        if what == _SLEEP:
            self._end(held, Outcome(Verdict.SUCCEEDED, exit=0, seconds=now - held.begun_at), b"")
        elif what == _TIMEOUT:
            self.end(id, Stop.TIMEOUT, now)
        elif what == _KILL:
            self.commands.append(Kill(*id, signal.SIGKILL))

    # --- invariants --------------------------------------------------------------------------------------------

    def check(self) -> None:
        begun = [held for held in self._held.values() if held.begun_at is not None]
        assert self._waiting == len(self._held) - len(begun), "the count of waiting attempts is off"
        assert self._slots_used == sum(held.job.slots for held in begun), "the count of used slots is off"
        assert self._slots_used <= self._slots or not begun, "more slots in use than there are"
        assert self._ahead == sum(held.is_ahead for held in self._held.values()), "the count of those ahead is off"
        assert self._sleeping == sum(held.job.kind == _SLEEP for held in begun), "the count of those asleep is off"
        assert not self._ahead or not self._sleeping, "the spawner does not know of the slots of those asleep"
        for held in self._held.values():
            assert held.stop is None or not held.waits_here, f"{attempt_name(*held.id)} ends before it began"

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)


def _counted(outcome: Outcome, stop: Stop) -> Outcome:
    """How an attempt counts that was ended on purpose. A cancel is the ledger's to record; it knows of it first."""
    if stop is Stop.TIMEOUT:
        return replace(outcome, verdict=Verdict.FAILED, reason=Reason.TIMEOUT)
    if stop is Stop.INTERRUPTED:
        return replace(outcome, verdict=Verdict.INTERRUPTED, reason=None)
    return outcome
