"""Draining: a node that takes no more, hands back what waits, and finishes what runs. There are three ways into it.

    DRAIN ....... a mark in the store, which outlives the program: whoever drains a node to work on its machine finds
                  it drained after the restart too, until UNDRAIN. Clients are answered as ever
    SIGTERM ..... the end of this boot, and no mark: what runs is given its grace, then interrupted; what is over is
                  reported, both sides say farewell, and the program exits
    a full disk . as long as it is full: what begins there may fail for want of a directory, and a node whose jobs fail
                  at once would soon be given all that there are

Handed back means neither a failure nor a crash: the ledger gives the job to another node.

Pure; what is durable goes through the Memory.
"""

import math
from collections.abc import Callable
from typing import Final

from common import lines
from common.effects import Exit, Table
from common.errors import Code
from common.memory import Memory
from common.messages import Farewell, Info, Returned
from common.timers import Timers
from node.backlog import Backlog
from node.held import Stop
from node.outbox import Outbox
from node.outcomes import Outcomes

_MARK: Final = b"draining"
_INTERRUPT_GRACE_S: Final = 1.0  # between SIGTERM and SIGKILL when the node itself has to go
_HAND_BACK_S: Final = 3.0  # what a stopping node waits for the ledger to acknowledge, and to say farewell


class Drain:
    """Whether this node takes attempts, and how it gets rid of those that it has."""

    def __init__(
        self, memory: Memory, backlog: Backlog, outcomes: Outcomes, timers: Timers, outbox: Outbox, *, grace_s: float
    ) -> None:
        self._memory = memory
        self._backlog = backlog
        self._outcomes = outcomes
        self._timers = timers
        self._outbox = outbox
        self._grace_s = grace_s
        self.before_exit: Callable[[], None] = lambda: None  # there is nothing left to do in this boot
        self._marked = False
        self._exited = False
        self._disk_full = False
        self._farewells = 0  # the number of the last
        self._on_its_way = False  # its echo is waited for, and nothing was given to us since
        self.stopping = False

    def restore(self) -> None:
        self._marked = self._memory.get(Table.META, _MARK) is not None

    @property
    def on(self) -> bool:
        return self._marked or self._disk_full or self.stopping

    # --- told to by a client -----------------------------------------------------------------------------------

    def drain(self, query_id: int) -> None:
        if not self._marked:
            self._marked = True
            self._memory.put(Table.META, _MARK, b"1")
            self._outbox.note("node.draining", running=self._backlog.report().running)
            self._hand_back()
        report = self._backlog.report()
        self._outbox.reply(query_id, lines.ok(state="draining", running=report.running, waiting=report.waiting))

    def undrain(self, query_id: int) -> None:
        if self.stopping:
            self._outbox.reply(query_id, lines.err(Code.DRAINING, "this node is stopping, and drains until it ends"))
            return
        if self._marked:
            self._marked = False
            self._memory.delete(Table.META, _MARK)
            self._outbox.note("node.undrained")
            self.tell_counts()
        self._outbox.reply(query_id, lines.ok(state="alive"))

    def disk_is_full(self, full: bool) -> None:
        if full == self._disk_full:
            return
        self._disk_full = full
        if full:
            self._hand_back()
        else:
            self.tell_counts()

    def _hand_back(self) -> None:
        """First says that we drain, or what is handed back could be given to us again."""
        self.tell_counts()
        waiting = self._backlog.give_back_all()
        if waiting and self._outbox.link is not None:
            self._outbox.send(Returned(tuple(waiting)))

    def tell_counts(self) -> None:
        """INFO: our counts, and whether we drain."""
        if self._outbox.link is not None:
            report = self._backlog.report()
            self._outbox.send(Info(report.running, report.waiting, self.on))

    # --- stopping as planned -----------------------------------------------------------------------------------

    def stop(self, now: float) -> None:
        """Takes no more, hands back what waits, gives what runs its grace."""
        if self.stopping:
            return
        self.stopping = True
        self._outbox.note("node.draining", grace_s=self._grace_s, running=self._backlog.report().running)
        self._hand_back()
        self._timers.set("grace over", now + self._grace_s)
        self._timers.set("hand back over", now + self._grace_s + _INTERRUPT_GRACE_S + _HAND_BACK_S)
        self.exit_when_done(now)

    def interrupt(self, now: float) -> None:
        """The grace is over."""
        for id in self._backlog.given():
            self._backlog.end(id, Stop.INTERRUPTED, now, grace_s=_INTERRUPT_GRACE_S)

    def exit_when_done(self, now: float) -> None:
        """With nothing left, and a balancer that knows it: what it was sent last may still be on its way, and so may an
        attempt to us."""
        if not self.stopping or len(self._backlog):
            return
        if self._outbox.link is None:
            self.exit()
        elif not len(self._outcomes) and not self._on_its_way:
            self._on_its_way = True
            self._farewells += 1
            self._outbox.send(Farewell(self._farewells))
            over_at = self._timers.at("hand back over")
            self._timers.set("hand back over", min(over_at or math.inf, now + _HAND_BACK_S))

    def handed_back_late(self, now: float) -> None:
        """We were given something after all, and handed it back."""
        self._on_its_way = False
        self.exit_when_done(now)

    def link_changed(self, now: float) -> None:
        """No echo will come of what was said over a former link."""
        self._on_its_way = False
        self.exit_when_done(now)

    def farewell(self, number: int) -> None:
        """The balancer says it, too."""
        if self._on_its_way and number == self._farewells:
            self.exit()

    def exit(self) -> None:
        if not self._exited:
            self._exited = True
            self.before_exit()
            self._outbox.do(Exit())
