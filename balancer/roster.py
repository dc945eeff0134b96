"""The record of nodes: who is here, since when, with what, and who may come in.

A node is its id, made with its data directory; names are for people and are reused by containers. A boot id tells
one start from the next. `alive`: heard within the node timeout; `lost`: not; `draining`: takes no new jobs.

Admission:
- the id of a living link, same boot → the newer connection replaces the older
- the id of a living link, another boot → the older is probed: if it answers, the newcomer is a copy of the directory
- characters of a ticket prefix that belong to another id → refused
- a new id while MAX_NUM_NODES are connected → refused; an id that was here before is never refused for it

Pure.
"""

from collections.abc import Collection, Iterable, Iterator

import attrs

from balancer.placement import Load
from balancer.records import Entry
from common.codec import pack, unpack
from common.effects import Table
from common.memory import Memory
from common.messages import AttemptId, Hello, Pair
from common.model import Report

_SCAN = 1000


@attrs.frozen
class NodeRecord:
    """What is on disk of a node, so that a restart knows whose leases may still be running."""

    name: str
    prefix: str
    boot_id: str
    slots: int
    kinds: tuple[str, ...]


@attrs.define(eq=False)
class Node:
    """A node that was met. `link` is None while it is not connected; `ready` once it has told what it holds."""

    id: str
    record: NodeRecord
    last_heard: float
    load: Load
    version: str = ""  # of its program, as it said when it was admitted last; unknown after a restart of ours
    link: int | None = None
    ready: bool = False
    draining: bool = False
    lost: bool = False
    report: Report = attrs.field(factory=Report)
    leases: dict[str, Entry] = attrs.field(factory=dict)  # unfinished, in the order in which they were given
    weight_bytes: int = 0  # of the leases' jobs and bodies
    leased_at_exchange: frozenset[str] = frozenset()  # tickets, at the last timed exchange of results
    recalled: frozenset[AttemptId] = frozenset()  # asked back, and the answer is owed
    unreturned: set[AttemptId] = attrs.field(factory=set)  # it could not let go of these, as long as nothing ends there
    starved: bool = False  # jobs of it were left unacknowledged, because the store was full
    ends: dict[str, Pair | None] = attrs.field(factory=dict)  # tickets that it issued, whose end it is still to be
    # told; with what it is told, where that is at hand

    @property
    def state(self) -> str:
        if self.lost:
            return "lost"
        return "draining" if self.draining else "alive"

    @property
    def takes_jobs(self) -> bool:
        return self.ready and self.link is not None and not self.draining and not self.lost and self.record.slots > 0

    def give(self, entry: Entry) -> None:
        self.leases[entry.ticket] = entry
        self.weight_bytes += entry.record.bytes
        self.load.taken += entry.record.slots
        self.load.count += 1
        self.load.given += 1

    def take_back(self, ticket: str) -> None:
        """The lease is over, however it ended."""
        entry = self.leases.pop(ticket, None)
        if entry is not None:
            self.unreturned.clear()
            self.weight_bytes -= entry.record.bytes
            self.load.taken -= entry.record.slots
            self.load.count -= 1

    def are_over(self, entries: Collection[Entry], seconds: Iterable[float], now: float) -> None:
        """Leases, taken out already, whose attempts have ended after so many seconds each."""
        self.unreturned.clear()
        self.weight_bytes -= sum(entry.record.bytes for entry in entries)
        self.load.taken -= sum(entry.record.slots for entry in entries)
        self.load.count -= len(entries)
        for taken_s in seconds:
            self.load.ran(taken_s, now)

    def returned(self, attempts: Collection[AttemptId]) -> None:
        """The answer to a recall: it has begun the others, or is about to."""
        self.recalled, kept = frozenset(), self.recalled.difference(attempts)
        self.unreturned |= kept

    def exposed(self) -> set[str]:
        """The leases that were running when the node was lost, as far as can be known: those reported running, and of
        those that it had not finished the first `slots` in the order in which a node begins. Losing one of these counts
        as a crash."""
        in_order = self.in_order()
        first = {entry.ticket for entry in in_order[: self.record.slots]}
        return first | {entry.ticket for entry in in_order if entry.begun}

    def in_order(self) -> list[Entry]:
        """The leases that have begun, then the others as they will begin (`node/backlog.py`)."""
        return sorted(self.leases.values(), key=_begins)


def _begins(entry: Entry) -> tuple[bool, int, int]:
    return not entry.begun, -entry.record.priority, entry.record.sequence


class Roster:
    """Every node that was met."""

    def __init__(self, memory: Memory, nodes_max: int) -> None:
        self._memory = memory
        self._nodes_max = nodes_max
        self._nodes: dict[str, Node] = {}
        self._by_link: dict[int, Node] = {}
        self._origins: dict[str, str] = {}  # those that were asked for: prefix → id
        self._looked_at = 0.0
        self._looked_late = False

    def restore(self, now: float) -> None:
        """Silence counts from now: while the balancer was away it could hear nobody."""
        self._looked_at = now
        after = b""
        while chunk := self._memory.scan(Table.NODES, after=after, limit=_SCAN):
            for key, packed in chunk:
                record = unpack(NodeRecord, packed)
                id = key.decode()
                self._nodes[id] = Node(id, record, now, Load(id, record.slots, 0))
            after = chunk[-1][0]

    # --- looking -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, id: str | None) -> Node | None:
        return None if id is None else self._nodes.get(id)

    def known(self, id: str) -> Node:
        """A node that must be here."""
        return self._nodes[id]

    def on(self, link: int) -> Node | None:
        return self._by_link.get(link)

    def connected(self) -> list[Node]:
        return list(self._by_link.values())

    def origin(self, prefix: str) -> str | None:
        """The id of the node that issues tickets with these characters, if one was ever met."""
        if prefix not in self._origins and (id := self._memory.get(Table.ORIGINS, prefix.encode())) is not None:
            self._origins[prefix] = id.decode()
        return self._origins.get(prefix)

    # --- coming and going --------------------------------------------------------------------------------------

    def refusal(self, hello: Hello) -> str | None:
        """Why this node may not come in, whoever else is connected; None when it may."""
        owner = self.origin(hello.prefix)
        if owner is not None and owner != hello.node_id:
            return f"the ticket prefix {hello.prefix} belongs to another node's data directory; make this one anew"
        if hello.node_id not in self._nodes and len(self._by_link) >= self._nodes_max:
            return f"MAX_NUM_NODES={self._nodes_max} nodes are connected; raise it, or stop one of them"
        return None

    def admit(self, link: int, hello: Hello, now: float) -> Node:
        """The node is on this link from now on. Its record is durable with the step."""
        record = NodeRecord(hello.name, hello.prefix, hello.boot_id, hello.slots, hello.kinds)
        node = self._nodes.get(hello.node_id)
        if node is None:
            node = self._nodes[hello.node_id] = Node(hello.node_id, record, now, Load(hello.node_id, hello.slots, 0))
        assert node.link is None, f"{hello.name} is admitted while its old link is open"
        self._memory.put(Table.ORIGINS, hello.prefix.encode(), hello.node_id.encode())
        self._memory.put(Table.NODES, hello.node_id.encode(), pack(record))
        node.last_heard, node.link, node.ready, node.draining = now, link, False, False
        node.version = hello.version
        node.recalled, node.starved = frozenset(), False
        node.unreturned.clear()
        self._by_link[link] = node
        return node

    def welcome(self, node: Node, hello: Hello, *, draining: bool = False) -> None:
        """It has told what it holds: the leases of older boots are settled, and its present record counts."""
        node.draining = draining
        node.record = NodeRecord(hello.name, hello.prefix, hello.boot_id, hello.slots, hello.kinds)
        node.load.slots = hello.slots
        node.ready, node.lost = True, False

    def disconnected(self, link: int) -> Node | None:
        """The link is gone; the node may be back before the timeout."""
        node = self._by_link.pop(link, None)
        if node is not None:
            node.link, node.ready, node.recalled = None, False, frozenset()
        return node

    def heard(self, node: Node, now: float) -> None:
        node.last_heard = now

    def silent(self, now: float, timeout_s: float) -> list[Node]:
        """Those that are presumed gone from now on. Who looks late may have been stopped, with what the nodes said
        still unread: only the next look counts, however late that is."""
        late = now - self._looked_at > timeout_s / 2
        listens_first = late and not self._looked_late
        self._looked_at, self._looked_late = now, late
        if listens_first:
            return []
        return [node for node in self if not node.lost and now - node.last_heard > timeout_s]

    def check(self) -> None:
        for link, node in self._by_link.items():
            assert node.link == link, f"{node.record.name} is listed on a link that is not its own"
        for node in self:
            assert node.load.count == len(node.leases), f"the count of {node.record.name} is off"
            needed = sum(entry.record.slots for entry in node.leases.values())
            assert node.load.taken == needed, f"the slots of {node.record.name} are off"
            for ticket, entry in node.leases.items():
                assert entry.record.leased, f"{ticket} is listed at {node.record.name} and not leased"
                assert entry.record.node_id == node.id, f"{ticket} is listed at {node.record.name}, not its node"
