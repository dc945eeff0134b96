"""Ends attempts that use more than they may: processor time, memory, processes.

The whole session of an attempt counts. A look at it reads the process table; so nobody is looked at without a reason:

    processes   more than its limit could be there: so many have been born since the last look, and so many live
    memory      every MEMORY_S
    cpu         not before it could have used up what it had left, with every processor
    all         every LOOK_S at the latest, should the kernel's count of births not be told

Whether more could be there is one read of a short line every TICK_S, while anything runs at all: so a fork bomb is
seen a few hundred births late, and jobs that keep to themselves cost nothing that could be measured. An attempt that
is over before the next tick is never thought about, and nobody is looked at for the sake of one. What has been
seen is what is told: usage is never guessed, so a limit may be exceeded for a moment, and nobody is ended wrongly.
"""

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, TypeAlias

import attrs

from common.model import Reason
from node.executors import Limits
from node.executors.loop import Loop
from node.executors.processes import Family
from node.executors.sessions import hold_group, let_go
from node.executors.table import TICKS_PER_S, Beat, Pulse, Seen, Table, look_at, proportional_bytes

TICK_S: Final = 0.1
MEMORY_S: Final = 0.1
CPU_S_MIN: Final = 0.1
LOOK_S: Final = 1.0
LOOKING_FRACTION_MAX: Final = 0.1  # of our time: on a machine with very many processes looks are rarer
NEWEST: Final = 64  # numbers, as many as are looked at in the first moment that we get
STORM_FRACTION: Final = 0.75  # a busy job has as many born, but most of them are gone again


def _nothing() -> None:
    """What most have to do before they are looked at."""


@attrs.define(eq=False)
class Ward:
    """A running attempt, and what is known of it since the last look."""

    session: int
    limits: Limits
    on_breach: Callable[[Reason], None]
    before_look: Callable[[], None] = _nothing
    cpu_ticks_before: int = 0  # what a worker had used when the attempt began
    processes: int = 0
    cpu_s: float = 0.0
    look_at: float = math.inf
    _orphans: Mapping[tuple[int, int], int] = {}  # (pid, its start) → ticks used, as last seen
    _ticks_of_lost: int = 0  # used by orphans that have ended: nobody of the session has waited for them

    def see(self, members: Sequence[Seen]) -> Reason | None:
        """What it has used more of than it may."""
        limits = self.limits
        self.processes = len(members)
        if limits.processes is not None and self.processes > limits.processes:
            return Reason.PROCESSES
        if limits.memory_bytes is not None and _use_more(members, limits.memory_bytes):
            return Reason.MEMORY
        if limits.cpu_s is not None:
            self.cpu_s = self._cpu_ticks(members) / TICKS_PER_S
            if self.cpu_s > limits.cpu_s:
                return Reason.CPU
        return None

    def _cpu_ticks(self, members: Sequence[Seen]) -> int:
        """What the living have used, with the children they waited for; and orphans, whom nobody here waits for."""
        here = {seen.pid for seen in members}
        orphans = {
            (seen.pid, seen.started_ticks): seen.cpu_ticks
            for seen in members
            if seen.parent not in here and seen.pid != self.session
        }
        self._ticks_of_lost += sum(ticks for who, ticks in self._orphans.items() if who not in orphans)
        self._orphans = orphans
        return sum(seen.cpu_ticks for seen in members) + self._ticks_of_lost - self.cpu_ticks_before

    def wait_s(self) -> float:
        """How long it needs no look for its own sake."""
        wait_s = LOOK_S if self.limits.memory_bytes is None else MEMORY_S
        if self.limits.cpu_s is not None:
            left_s = (self.limits.cpu_s - self.cpu_s) / len(os.sched_getaffinity(0))
            wait_s = min(wait_s, max(CPU_S_MIN, left_s))
        return wait_s


def _use_more(members: Sequence[Seen], most_bytes: int) -> bool:
    """Processes that were forked from each other share pages; so before several are found guilty, each page is
    counted once."""
    if sum(seen.resident_bytes for seen in members) <= most_bytes:
        return False
    return len(members) == 1 or sum(_own_bytes(seen) for seen in members) > most_bytes


def _own_bytes(seen: Seen) -> int:
    proportional = proportional_bytes(seen.pid)
    return seen.resident_bytes if proportional is None else proportional


Breach: TypeAlias = tuple[Ward, Reason]
Group: TypeAlias = tuple[int, int]  # a session, and a process group in it


class Guard:
    """Looks after the running attempts of one spawner."""

    def __init__(self, loop: Loop, family: Family) -> None:
        self._loop, self._family = loop, family
        self._new: dict[int, tuple[float, Ward]] = {}  # begun since the last tick, and when
        self._wards: dict[int, Ward] = {}
        self._pulse, self._table = Pulse(), Table()
        self._last_pid = 0  # at the last look
        self._pid_at_tick = 0  # and at the last tick
        self._room = math.inf  # so many may be born after the last look before anybody can be beyond its limit
        self._processes_least = math.inf  # the smallest limit that is in force
        self._look_at = math.inf
        self._not_before = 0.0
        self._is_ticking = False

    def watch(
        self,
        session: int,
        limits: Limits,
        on_breach: Callable[[Reason], None],
        before_look: Callable[[], None] = _nothing,
        *,
        is_new: bool,
    ) -> None:
        """Until `forget`. `on_breach` is called with what was exceeded, and must end the session; again, should it
        still be there. What a leader that is not new has used before does not count. `before_look` is for a leader
        that has more than one thing to do: it sees to it that what will be seen is the doing of one."""
        if limits.cpu_s is None and limits.memory_bytes is None and limits.processes is None:
            return
        used = None if is_new or limits.cpu_s is None else look_at(session)
        ward = Ward(session, limits, on_breach, before_look, 0 if used is None else used.cpu_ticks)
        self._new[session] = time.monotonic(), ward
        if not self._is_ticking:
            self._is_ticking = True
            self._pid_at_tick = self._pulse.beat().last_pid
            self._loop.after(TICK_S, self._tick)

    def forget(self, session: int) -> None:
        """The attempt is over; also one that was not watched."""
        if self._new.pop(session, None) is None:
            self._wards.pop(session, None)

    def _take_in(self) -> None:
        """Those who have begun since the last tick and are not yet over. Where all others are, what was seen before
        says nothing of these."""
        if not self._wards:
            self._table.forget()
            self._last_pid = self._pid_at_tick
            self._room = self._processes_least = self._look_at = math.inf
        for session, (began_at, ward) in self._new.items():
            self._wards[session] = ward
            self._expect(ward, began_at)
        self._new.clear()

    def _expect(self, ward: Ward, since: float) -> None:
        """Take into account when this one, known since then, is to be looked at."""
        ward.look_at = since + ward.wait_s()
        self._look_at = min(self._look_at, ward.look_at)
        if ward.limits.processes is not None:
            self._room = min(self._room, ward.limits.processes - ward.processes)
            self._processes_least = min(self._processes_least, ward.limits.processes)

    def _tick(self) -> None:
        self._take_in()
        if not self._wards:
            self._is_ticking = False
            return
        beat, now = self._pulse.beat(), time.monotonic()
        with contextlib.suppress(OSError):  # no descriptor is left to look with: at the next tick, perhaps
            if self._may_be_crowded(beat) and (storm := self._storm(beat)) is not None:
                self._look_while_held(storm, beat, now)
            elif now >= self._not_before and (self._is_due(now) or self._may_be_crowded(beat)):
                self._end_who_exceed(self._look(beat, now))
        self._pid_at_tick = beat.last_pid
        self._loop.after(TICK_S, self._tick)

    def _is_due(self, now: float) -> bool:
        if now >= self._look_at:  # whoever that was for may be over
            self._look_at = min(ward.look_at for ward in self._wards.values())
        return now >= self._look_at

    def _may_be_crowded(self, beat: Beat) -> bool:
        if beat.threads <= self._processes_least:
            return False
        born = beat.last_pid - self._last_pid
        return born > self._room or born < 0  # less than none: the numbers have begun anew

    def _storm(self, beat: Beat) -> Group | None:
        """That group of an attempt to which most of the very newest belong, and go on living."""
        newest = self._table.newest(beat, NEWEST)
        groups = Counter((seen.session, seen.group) for seen in newest if seen.session in self._wards)
        found, count = max(groups.items(), key=itemgetter(1), default=(None, 0))
        return found if count >= NEWEST * STORM_FRACTION else None

    def _look_while_held(self, storm: Group, beat: Beat, now: float) -> None:
        """Beside a thousand who fork we would not get the processor for long enough to count them."""
        session, group = storm
        hold_group(group)
        breaches: Sequence[Breach] = ()
        try:
            breaches = self._look(beat, now)
        finally:
            if all(ward.session != session for ward, _ in breaches):
                let_go(group)
        self._end_who_exceed(breaches)

    def _look(self, beat: Beat, now: float) -> Sequence[Breach]:
        """Who uses more of what than he may."""
        for ward in list(self._wards.values()):
            ward.before_look()  # which may find that it is over
        members = self._table.members(self._family.sessions, beat)
        self._last_pid = beat.last_pid
        self._room = self._processes_least = self._look_at = math.inf
        found = [(ward, ward.see(members.get(ward.session, ()))) for ward in self._wards.values()]
        for ward in self._wards.values():
            self._expect(ward, now)
        end = time.monotonic()
        self._not_before = end + (end - now) / LOOKING_FRACTION_MAX
        return [(ward, reason) for ward, reason in found if reason is not None]

    def _end_who_exceed(self, breaches: Iterable[Breach]) -> None:
        for ward, reason in breaches:
            ward.on_breach(reason)
