"""Missed ends: what ended while its origin had no link is told when the origin asks for it.

Asked for are the live jobs that the ledger had when the link was opened, oldest first, a part at a time: there may be a
million. Of what the ledger learns on this link, it tells the ends by itself. Pure.
"""

from common.limits import ENDS_ASKED_MAX, ENDS_ASKED_PERIOD_S
from common.messages import RequestOfRes
from common.timers import Timers
from node.delivery import number_of
from node.intake import Intake
from node.outbox import Outbox


class Missed:
    def __init__(self, intake: Intake, timers: Timers, outbox: Outbox) -> None:
        self._intake = intake
        self._timers = timers
        self._outbox = outbox
        self._upto = 0  # the jobs up to this number the ledger had when this link was opened …
        self._asked_upto = 0  # … and it was asked for the ends of those up to this

    def link_opened(self, now: float) -> None:
        self._upto, self._asked_upto = self._intake.delivery.watermark, 0
        self._ask(self._next() + self._intake.delivery.revived_beyond_it(), now)

    def go_on(self, now: float) -> None:
        """Asks for the next ones; the timer is `more ends`."""
        if self._outbox.link is not None:
            self._ask(self._next(), now)

    def _next(self) -> list[str]:
        names = self._intake.live_behind(self._asked_upto, ENDS_ASKED_MAX) if self._asked_upto < self._upto else []
        self._asked_upto = number_of(names[-1]) if len(names) == ENDS_ASKED_MAX else self._upto
        return [name for name in names if number_of(name) <= self._upto]

    def _ask(self, names: list[str], now: float) -> None:
        if names:
            self._outbox.send(RequestOfRes(tuple(names)))
        if self._asked_upto < self._upto:
            self._timers.set("more ends", now + ENDS_ASKED_PERIOD_S)
