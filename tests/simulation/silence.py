"""Silence: for how long the ledger has heard nothing of a node, as the steps of its driver tell.

Only who was unheard for the node timeout may be presumed gone. After a start of the balancer silence counts from there.
And a balancer that was stopped itself has to listen first: what was said meanwhile is waiting to be read.
"""

from common.events import Knocked, LinkClosed, Received
from common.runtime.driver import Step


class Silence:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since = 0.0  # the balancer's start
        self._stepped_at = 0.0  # when the balancer's last step began that is over
        self._paused_at: list[float] = []  # when the balancer was stopped
        self._boots: dict[int, str] = {}  # link → the boot that is on it
        self._known: dict[str, None] = {}  # boots that were ever heard
        self._last: dict[str, float] = {}  # boot → when it was last heard by this boot of the balancer
        self._over_at: dict[str, float] = {}  # boot → when its last long silence was over

    def begins(self, now: float) -> None:
        """The balancer starts. Whoever was silent for long at the last step of its former boot may be gone on its
        disk."""
        for boot in self._known:
            if self._is_long(boot, self._stepped_at):
                self._over_at[boot] = self._stepped_at
        self._since = self._stepped_at = now
        self._boots.clear()
        self._last.clear()

    def pauses(self, now: float) -> None:
        """The balancer is stopped, for some time."""
        self._paused_at.append(now)

    def heard(self, step: Step) -> None:
        """A step of the balancer's driver is over."""
        self._stepped_at = step.now
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
        self._known[boot] = None
        self._last[boot] = now

    def _is_long(self, boot: str, now: float) -> bool:
        return now - self._last.get(boot, self._since) > self._timeout_s

    def was_long(self, boot: str, since: float, now: float) -> bool:
        """Whether this boot is silent for long at `now`, or was at some time after `since`."""
        if self._over_at.get(boot, -1.0) >= since:
            return True
        return self._is_long(boot, now) and not self._has_not_listened(now)

    def _has_not_listened(self, now: float) -> bool:
        """Whether this is its first step after it was stopped for so long that what is unread may be all that a node
        has said within the timeout. Where it was stopped twice in a row, its second look counts, however late it is."""
        late = [at for at in self._paused_at if at >= self._stepped_at - 2 * self._timeout_s]
        return len(late) == 1 and late[0] > self._stepped_at and now - self._stepped_at > self._timeout_s / 2
