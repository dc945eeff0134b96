"""A cluster of the two pure machines, unchanged, in virtual time: minutes of a thousand nodes in seconds.

Events in a heap, in the order of their moments: messages arrive a link's latency after they were sent, a step's actions
are performed when its commit is over, timers go off when they are due. What comes in meanwhile gathers, as it does in
the driver. Jobs are `sleep`, which nodes time themselves. What a machine's own computing takes is not modelled.
"""

import heapq
import itertools
import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from balancer.dispatcher import Dispatcher, Periods
from balancer.placement import POLICIES, Level, Load, Move, Placement, Terms
from common import lines
from common.effects import Delete, Note, Reply, Send, Table, Write
from common.events import Asked, Knocked, LinkOpened, Received
from common.machine import Chance
from common.memory import Memory
from common.messages import PROTOCOL, Hello, Info, Message, Poll, Welcome
from jobyard.playing import group_of
from jobyard.protocol import duration
from jobyard.workload import Request
from node.worker import Identity, RunNow, Worker

PERIODS: Final = Periods(
    eager=True,
    round_s=5.0,
    jobs_per_round_max=30,
    result_s=3.0,
    info_s=1.0,
    node_timeout_s=15.0,
    backlog_max=1000,
    retention_s=86400.0,
)
LATENCY_S: Final = 0.0005  # of a link, one way: a switched network with its kernels
COMMIT_S: Final = 0.001  # until a step is on a disk that syncs quickly
WALL: Final = 1_800_000_000.0
BEGINS_AT: Final = 10.0  # virtual time of the first request's zero: every node has joined
LASTS_S_MAX: Final = 1_000_000.0
_TICKET: Final = 1  # the word of a reply to SUBMIT
_NAME: Final = "load"


@attrs.frozen
class Run:
    """What a run leaves: its event log, and how many messages were sent that were no poll and no answer to one."""

    events: list[dict[str, Any]]
    messages: int
    name: str = _NAME


class Shelf:
    """A store in memory, in the order of its keys."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys = self._keys[table]
        first = bisect_left(keys, prefix)
        last = bisect_left(keys, True, lo=first, key=lambda key: not key.startswith(prefix))
        if after and backwards:
            last = min(last, bisect_left(keys, after))
        elif after:
            first = max(first, bisect_right(keys, after))
        chosen = keys[max(first, last - limit) : last][::-1] if backwards else keys[first : min(last, first + limit)]
        return [(key, self._tables[table][key]) for key in chosen]

    def count(self, table: Table) -> int:
        return len(self._tables[table])

    def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            table, keys = self._tables[write.table], self._keys[write.table]
            if isinstance(write, Delete):
                if table.pop(write.key, None) is not None:
                    del keys[bisect_left(keys, write.key)]
            else:
                if write.key not in table:
                    insort(keys, write.key)
                table[write.key] = write.value


@attrs.define(eq=False)
class _Member:
    """A machine with its store, and what has come in since its last step."""

    machine: Any
    shelf: Shelf
    inbox: list[object] = attrs.field(factory=list)
    committing: bool = False
    gathers_until: float = -math.inf
    wakes_at: float = math.inf
    link: int = 0  # of a node


class VirtualCluster:
    """Nodes with these slots and their balancer; `play` runs a workload to its end."""

    def __init__(self, slots: Sequence[int], placement: Placement, seed: int, periods: Periods = PERIODS) -> None:
        self.now = 0.0
        self.messages = 0
        self.events: list[dict[str, Any]] = []
        self._ends = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._queries = itertools.count(1)
        self._replies: dict[int, Callable[[str], None]] = {}
        self._on_its_way: dict[tuple[int, bool], tuple[float, list[Message]]] = {}  # the last batch of each direction
        shelf = Shelf()
        dispatcher = Dispatcher(Memory(shelf), periods, placement, nodes_max=len(slots), chance=random.Random(seed))
        self._balancer = _Member(dispatcher, shelf)
        dispatcher.restore(self.now, self.wall)
        self._nodes = [self._node(number, count, periods) for number, count in enumerate(slots, 1)]
        for node, count in zip(self._nodes, slots, strict=True):
            self._dial(node, count)

    @property
    def wall(self) -> float:
        return WALL + self.now

    def _node(self, number: int, slots: int, periods: Periods) -> _Member:
        shelf = Shelf()
        letters = "".join("abcdefghij"[int(digit)] for digit in f"{number:04}")
        who = Identity(f"id-{number}", f"boot-{number}", f"aa{letters}", f"node{number}")
        worker = Worker(who, Memory(shelf), slots=slots, retention_s=periods.retention_s, drain_grace_s=10.0)
        worker.restore(self.now, self.wall)
        return _Member(worker, shelf, link=number)

    def _dial(self, node: _Member, slots: int) -> None:
        who: Identity = node.machine._identity
        hello = Hello(PROTOCOL, who.node_id, who.boot_id, who.prefix, who.name, slots, ("sleep",), "analysis", b"")
        self._tell(self._balancer, Knocked(node.link, hello))

    # --- time ------------------------------------------------------------------------------------------------------

    def _at(self, moment: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (moment, next(self._numbers), do))

    def _advance(self) -> None:
        moment, _, do = heapq.heappop(self._heap)
        self.now = max(self.now, moment)
        do()

    def _tell(self, member: _Member, event: object) -> None:
        member.inbox.append(event)
        self._wake(member, self.now)

    def _wake(self, member: _Member, moment: float) -> None:
        """Sees to it that the next step is no later than at this moment, or when it no longer has to wait."""
        moment = max(moment, member.gathers_until)
        if not member.committing and moment < member.wakes_at:
            member.wakes_at = moment
            self._at(moment, lambda: self._step(member, moment))

    def _step(self, member: _Member, moment: float) -> None:
        if member.committing or member.wakes_at != moment:
            return  # it was woken earlier, and that step has been
        member.wakes_at = math.inf
        events, member.inbox = member.inbox, []
        effects = member.machine.handle(events, self.now)
        for action in effects.at_once:
            self._perform(member, action)
        member.shelf.commit(effects.writes)
        if member is self._balancer:
            self._listen(effects.writes)
        member.committing = True
        member.gathers_until = self.now + effects.gather_s
        self._at(self.now + (COMMIT_S if effects.writes else 0.0), lambda: self._committed(member, effects))

    def _committed(self, member: _Member, effects: Any) -> None:
        member.machine.committed()
        member.committing = False
        for action in effects.actions:
            self._perform(member, action)
        if member.inbox:
            self._wake(member, self.now)
        if (deadline := member.machine.next_deadline()) is not None:
            self._wake(member, max(self.now, deadline))

    # --- what machines do ------------------------------------------------------------------------------------------

    def _perform(self, member: _Member, action: object) -> None:
        match action:
            case Send(link=link, message=message):
                self._send(link, message, to_balancer=member is not self._balancer)
            case Reply(query_id=query_id, reply=reply):
                self._replies.pop(query_id)(reply.decode())
            case Note(level="info") | RunNow(batch=()):
                pass
            case _:
                raise AssertionError(f"nobody does {action} in virtual time")

    def _send(self, link: int, message: Message, *, to_balancer: bool) -> None:
        """What is sent over a link at one moment arrives together."""
        self.messages += not isinstance(message, Poll | Info)
        sent_at, batch = self._on_its_way.get((link, to_balancer), (-math.inf, []))
        if sent_at == self.now:
            batch.append(message)
            return
        batch = [message]
        self._on_its_way[link, to_balancer] = (self.now, batch)
        self._at(self.now + LATENCY_S, lambda: self._arrive(link, batch, to_balancer=to_balancer))

    def _arrive(self, link: int, batch: list[Message], *, to_balancer: bool) -> None:
        if to_balancer:
            self._tell(self._balancer, Received(link, batch, self.wall))
            return
        node = self._nodes[link - 1]
        if isinstance(batch[0], Welcome):
            self._tell(node, LinkOpened(link, "ledger", batch[0].eager))
            batch = batch[1:]
        if batch:
            self._tell(node, Received(link, batch, self.wall))

    def _listen(self, writes: Sequence[Write]) -> None:
        """Hears what the balancer writes into its event log."""
        for write in writes:
            if write.table is Table.EVENTS and not isinstance(write, Delete):
                told = msgspec.json.Decoder().decode_lines(write.value[8:])
                self.events += told
                self._ends += sum(event["event"] in ("job.succeeded", "job.failed", "job.cancelled") for event in told)

    # --- clients ---------------------------------------------------------------------------------------------------

    def play(self, requests: Sequence[Request]) -> Run:
        """Submits each request at its moment, to the nodes in turn; returns when every task has ended."""
        while self.now < BEGINS_AT:
            self._advance()
        self.messages = 0
        for number, request in enumerate(requests, 1):
            node = self._nodes[number % len(self._nodes)]
            self._at(BEGINS_AT + request.at_s, _Client(self, node, request, number).begin)
        tasks = sum(request.tasks for request in requests)
        while self._ends < tasks:
            assert self.now < LASTS_S_MAX, f"{tasks - self._ends} of {tasks} tasks never end"
            self._advance()
        for member in (self._balancer, *self._nodes):
            member.machine.check()
        return Run(self.events, self.messages)

    def ask(self, node: _Member, line: str, answer: Callable[[str], None]) -> None:
        (request,) = lines.Parser().feed(f"{line}\n".encode())
        query_id = next(self._queries)
        self._replies[query_id] = answer
        self._tell(node, Asked([(query_id, request)], self.wall))  # type: ignore[list-item]


class _Client:
    """Submits one request: its maps, and when it has their tickets, its reduces."""

    def __init__(self, cluster: VirtualCluster, node: _Member, request: Request, number: int) -> None:
        self._cluster = cluster
        self._node = node
        self._request = request
        self._group = group_of(_NAME, number)
        self._maps: list[str] = []

    def begin(self) -> None:
        for seconds in self._request.maps_s:
            line = f"SUBMIT name=map group={self._group} sleep {duration(seconds)}"
            self._cluster.ask(self._node, line, self._taken)

    def _taken(self, reply: str) -> None:
        assert reply.startswith("OK "), reply
        self._maps.append(reply.split()[_TICKET])
        if len(self._maps) < len(self._request.maps_s):
            return
        after = ",".join(self._maps)
        for seconds in self._request.reduces_s:
            line = f"SUBMIT name=reduce group={self._group} after={after} sleep {duration(seconds)}"
            self._cluster.ask(self._node, line, lambda reply: None)


class Unrecalled(Level):
    """`level` without its other half, to show what recall does: whatever waits on a node stays there."""

    def moves(self, loads: Iterable[Load], terms: Terms) -> Iterator[Move]:
        return iter(())


UNRECALLED: Final = "level without recall"
KNOWN: Final[Mapping[str, Callable[[Chance], Placement]]] = {**POLICIES, UNRECALLED: lambda chance: Unrecalled()}


def run(slots: Sequence[int], policy: str, seed: int, requests: Sequence[Request]) -> Run:
    return VirtualCluster(slots, KNOWN[policy](random.Random(seed)), seed).play(requests)
