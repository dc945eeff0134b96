"""The courier: takes new jobs to the ledger, at a pace.

What a client waits for goes at once. So does what comes after a pause, and what has a group: whoever cancels that at
another node means what was submitted a moment ago, too. Of those that are submitted one behind the other, whose clients
wait for nothing but `OK`, the next go together a moment later: each message costs the balancer a step and a commit, and
its disk may be the one that the next `OK` waits for. Pure.
"""

from typing import Final

from common.timers import Timers
from node.intake import Intake
from node.outbox import Outbox

DUE: Final = "deliver"  # the timer's name


class Courier:
    def __init__(self, intake: Intake, timers: Timers, outbox: Outbox, *, apart_s: float) -> None:
        """No two messages with jobs that nobody waits for within `apart_s`; with 0 all go at once."""
        self._intake = intake
        self._timers = timers
        self._outbox = outbox
        self._apart_s = apart_s
        self._next_at = 0.0

    def go(self, now: float, wall: float, *, wanted: bool) -> None:
        """Something waits to be sent: it goes, if somebody waits for that or it is time; else there is a step when it
        is."""
        if not wanted and not self._intake.delivery.of_group and now < self._next_at:
            if DUE not in self._timers:
                self._timers.set(DUE, self._next_at)
            return
        submissions = self._intake.delivery.to_send(wall)
        if submissions:
            self._next_at = now + self._apart_s
            self._outbox.send_jobs(submissions, at_once=self._intake.may_be_told_of(submissions))
