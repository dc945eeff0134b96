"""Silence: for how long the ledger has heard nothing of a node, as the steps of its driver tell.

Only who was unheard for the node timeout may be presumed gone. After a start of the balancer silence counts from there.
"""

from common.events import Knocked, LinkClosed, Received
from common.runtime.driver import Step


class Silence:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since = 0.0  # the balancer's start
        self._boots: dict[int, str] = {}  # link → the boot that is on it
        self._last: dict[str, float] = {}  # boot → when it was last heard
        self._over_at: dict[str, float] = {}  # boot → when its last long silence was over

    def begins(self, now: float) -> None:
        """The balancer starts."""
        self._since = now
        self._boots.clear()
        self._last.clear()

    def heard(self, step: Step) -> None:
        """A step of the balancer's driver."""
        for event in step.events:
            match event:
                case Knocked(link, hello):
                    self._boots[link] = hello.boot_id
                    self._heard(hello.boot_id, step.now)
                case Received(link) if link in self._boots:
                    self._heard(self._boots[link], step.now)
                case LinkClosed(link):
                    self._boots.pop(link, None)

    def _heard(self, boot: str, now: float) -> None:
        if self._is_long(boot, now):
            self._over_at[boot] = now
        self._last[boot] = now

    def _is_long(self, boot: str, now: float) -> bool:
        return now - self._last.get(boot, self._since) > self._timeout_s

    def was_long(self, boot: str, since: float, now: float) -> bool:
        """Whether this boot is silent for long at `now`, or was at some time after `since`."""
        return self._is_long(boot, now) or self._over_at.get(boot, -1.0) >= since
