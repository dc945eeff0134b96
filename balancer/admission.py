"""Admission: who has proved the key asks to come in, and the roster's rules are applied.

The one case that takes time: the id of a living link knocks with another boot. Either the old process is gone and
its link has not noticed, or a copy of the directory was started. The old link is probed; whoever is alive answers.

Pure.
"""

from collections.abc import Callable

from balancer.outbox import Outbox
from balancer.roster import Node, Roster
from common.events import Knocked
from common.limits import PROBE_S
from common.messages import Hello, Poll, Refused, Welcome
from common.timers import Timers


class Admission:
    """`hang_up` ends a link for the whole dispatcher."""

    def __init__(
        self,
        roster: Roster,
        outbox: Outbox,
        timers: Timers,
        hang_up: Callable[[int, str, float], None],
        welcome: Welcome,
    ) -> None:
        self._roster = roster
        self._outbox = outbox
        self._timers = timers
        self._hang_up = hang_up
        self._welcome = welcome
        self._hellos: dict[int, Hello] = {}
        self._knocking: dict[str, Knocked] = {}  # by node id: waits for the probe of the old link

    def hello(self, link: int) -> Hello:
        """What the node on this link said of itself."""
        return self._hellos[link]

    def knocked(self, event: Knocked, now: float) -> None:
        hello = event.hello
        node = self._roster.get(hello.node_id)
        if node is not None and node.link is not None:
            if self._hellos[node.link].boot_id != hello.boot_id:
                self._probe(event, node, now)
                return
            self.heard(node)  # it lives: whoever else claims to be it is a copy
            self._hang_up(node.link, "replaced by a newer connection of the same node", now)
        refusal = self._roster.refusal(hello)
        if refusal is not None:
            self._refuse(event, refusal)
            return
        admitted = self._roster.admit(event.link, hello, now)
        self._hellos[event.link] = hello
        self._outbox.send(admitted, self._welcome)

    def _refuse(self, event: Knocked, reason: str) -> None:
        self._outbox.note("node.refused", "warning", node=event.hello.name, id=event.hello.node_id, reason=reason)
        self._outbox.send_on(event.link, Refused(reason))
        self._outbox.hang_up(event.link, reason)

    def _probe(self, event: Knocked, node: Node, now: float) -> None:
        waiting = self._knocking.pop(node.id, None)
        if waiting is not None:
            self._refuse(waiting, "another start of the same node came in after it")
        self._knocking[node.id] = event
        self._outbox.send(node, Poll())
        self._timers.set(("probe", node.id), now + PROBE_S)

    def probe_failed(self, node_id: str, now: float) -> None:
        """The old link has not answered in time."""
        event = self._knocking.pop(node_id, None)
        if event is None:
            return
        node = self._roster.known(node_id)
        if node.link is not None:
            self._hang_up(node.link, "a new start of this node is here, and the old link does not answer", now)
        self.knocked(event, now)

    def heard(self, node: Node) -> None:
        """Something came in over its link: whoever else claims to be it is a copy."""
        copy = self._knocking.pop(node.id, None)
        if copy is not None:
            self._timers.cancel(("probe", node.id))
            self._refuse(copy, "a node with this data directory is running; is this one a copy of it?")

    def link_closed(self, link: int) -> None:
        """Whoever knocked over this link knocks no more."""
        self._hellos.pop(link, None)
        for node_id, knock in list(self._knocking.items()):
            if knock.link == link:
                del self._knocking[node_id]
                self._timers.cancel(("probe", node_id))

    def old_link_closed(self, node_id: str, now: float) -> None:
        """The probe is answered: the old link is gone by itself."""
        knocked = self._knocking.pop(node_id, None)
        if knocked is not None:
            self._timers.cancel(("probe", node_id))
            self.knocked(knocked, now)
