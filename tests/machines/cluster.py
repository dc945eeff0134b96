"""A whole cluster of the two pure machines, in memory and in virtual time, for tests.

The links are queues, the disks are dictionaries, the executors end when a test says so. The rule of the driver is
kept: writes reach the disk before an action is performed. Every message goes through its frame, so that what is
tested is what can travel. After each step the machines check their invariants. An event is a step of its own, but
while a machine is `busy` (its commit takes long) events gather, and are handed to it all at once.
"""

import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from balancer.dispatcher import Dispatcher, Periods
from balancer.placement import POLICIES
from common import frames, lines
from common.effects import Delete, Exit, Hangup, Note, Reply, Send, Table, Write
from common.events import (
    Asked,
    ClientsGone,
    Delivered,
    Knocked,
    LinkClosed,
    LinkOpened,
    LinkRefused,
    Received,
    Stop,
    StoreLevel,
)
from common.limits import SYNC_WITHIN_S
from common.memory import Memory
from common.messages import PROTOCOL, AttemptId, Begun, Hello, Jobs, Message, Refused, Result, Welcome
from common.model import Outcome, Verdict
from common.runtime.driver import Step
from node.executors import Kill, Order, Over, Peek, Printed, Start
from node.worker import Executed, Identity, RunNow, Worker

PERIODS = Periods(
    eager=True,
    round_s=5.0,
    jobs_per_round_max=30,
    result_s=3.0,
    info_s=1.0,
    node_timeout_s=15.0,
    backlog_max=1000,
    retention_s=86400.0,
)
WALL = 1_800_000_000.0  # calendar time at the start of every test


def may_overtake(action: object) -> bool:
    """Orders to executors, outcomes and new jobs on their way to the ledger, and replies with ends that it has."""
    if isinstance(action, Reply):
        return not action.more and b" state=" in action.reply
    return isinstance(action, RunNow) or (
        isinstance(action, Send) and isinstance(action.message, Begun | Result | Jobs)
    )


class Disk:
    """A Reader that keeps what was committed; survives its machine."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        def wanted(key: bytes) -> bool:
            return key.startswith(prefix) and (not after or (key < after if backwards else key > after))

        return sorted((item for item in self.tables[table].items() if wanted(item[0])), reverse=backwards)[:limit]

    def count(self, table: Table) -> int:
        return len(self.tables[table])

    def commit(self, writes: list[Write]) -> None:
        for write in writes:
            if isinstance(write, Delete):
                self.tables[write.table].pop(write.key, None)
            else:
                self.tables[write.table][write.key] = write.value


@attrs.define(eq=False)
class Balancer:
    disk: Disk
    ledger_id: str
    machine: Dispatcher
    gathered: list[object] | None = None  # events, while it is busy


@attrs.define(eq=False)
class Node:
    disk: Disk
    who: Identity
    machine: Worker
    kinds: tuple[str, ...]
    slots: int
    running: dict[AttemptId, Start] = attrs.field(factory=dict)
    started: list[AttemptId] = attrs.field(factory=list)  # in this boot
    killed: list[Kill] = attrs.field(factory=list)
    printed: dict[AttemptId, tuple[bytes, bytes]] = attrs.field(factory=dict)  # so far, by what runs
    looked: list[Printed] = attrs.field(factory=list)  # answers of the executors that are on their way
    replies: dict[int, bytes] = attrs.field(factory=dict)
    parts: dict[int, list[bytes]] = attrs.field(factory=dict)  # of replies in parts, before the last
    unread: list[int] = attrs.field(factory=list)  # queries with a part that their client has not taken yet
    link: int | None = None
    refused: str | None = None
    exited: bool = False
    gathered: list[object] | None = None  # events, while it is busy


class Cluster:
    """Nodes n1, n2 … and their balancer. Time passes only in `advance`."""

    def __init__(
        self,
        nodes: int = 0,
        *,
        slots: int = 2,
        periods: Periods = PERIODS,
        nodes_max: int = 10,
        fallback_s: float | None = None,
        awake_max: int = 20_000,
        own_awake_max: int = 20_000,
        jobs_apart_s: float = 0.0,
        placement: str = "level",
    ) -> None:
        self.now = 1000.0
        self.periods = periods
        self.nodes_max = nodes_max
        self.fallback_s = fallback_s
        self.awake_max = awake_max
        self.own_awake_max = own_awake_max
        self.jobs_apart_s = jobs_apart_s
        self.placement = placement
        self.nodes: dict[str, Node] = {}
        self.balancer: Balancer | None = None
        self.sent: list[tuple[str, Message]] = []  # (to whom, what), in order
        self.notes: list[Note] = []
        self.starts: dict[AttemptId, int] = {}
        self.shown: dict[int, bytes] = {}  # answers to the balancer's own HTTP side
        self.observers: list[Callable[[Step], None]] = []  # of the balancer
        self._to_balancer: dict[int, deque[bytes]] = {}
        self._to_node: dict[int, deque[bytes]] = {}
        self._owners: dict[int, Node] = {}
        self._links = itertools.count(1)
        self._queries = itertools.count(1)
        self._boots = itertools.count(1)
        self.start_balancer()
        for number in range(1, nodes + 1):
            self.add_node(f"n{number}", slots=slots)

    @property
    def wall(self) -> float:
        return WALL + self.now + self.wall_offset

    # --- starting and stopping ------------------------------------------------------------------------------------

    def start_balancer(self, *, volume_lost: bool = False) -> None:
        assert self.balancer is None
        disk = Disk()
        ledger_id = f"ledger-{next(self._boots)}"
        if not volume_lost and (kept := getattr(self, "_kept", None)) is not None:
            disk, ledger_id = kept
        chance = random.Random(self.seed)
        machine = Dispatcher(
            Memory(disk),
            self.periods,
            POLICIES[self.placement](chance),
            nodes_max=self.nodes_max,
            chance=chance,
            awake_max=self.awake_max,
        )
        machine.restore(self.now, self.wall)
        self.balancer = Balancer(disk, ledger_id, machine)

    def kill_balancer(self) -> None:
        """As kill -9 does: the disk stays, everything in flight is gone."""
        assert self.balancer is not None
        self._kept = (self.balancer.disk, self.balancer.ledger_id)
        self.balancer = None
        for link in list(self._owners):
            self.cut(link)

    def add_node(
        self,
        name: str,
        *,
        slots: int = 2,
        kinds: tuple[str, ...] = ("sh", "exec", "argv", "sleep", "py"),
        dial: bool = True,
        disk: Disk | None = None,
        node_id: str | None = None,
        prefix: str | None = None,
    ) -> Node:
        letters = "".join("abcdefghij"[int(digit)] for digit in f"{int(name[1:]):04}")
        who = Identity(node_id or f"id-{name}", f"boot-{next(self._boots)}", prefix or f"aa{letters}", name)
        disk = disk or Disk()
        worker = Worker(
            who,
            Memory(disk),
            slots=slots,
            retention_s=self.periods.retention_s,
            drain_grace_s=10.0,
            kinds=frozenset(kinds),
            fallback_s=self.fallback_s,
            awake_max=self.own_awake_max,
            jobs_apart_s=self.jobs_apart_s,
        )
        worker.restore(self.now, self.wall)
        node = Node(disk, who, worker, kinds, slots)
        self.nodes[name] = node
        if dial:
            self.dial(name)
        return node

    def kill_node(self, name: str) -> None:
        node = self.nodes.pop(name)
        self._down = {**getattr(self, "_down", {}), name: node}
        self._cut_all(node)

    def restart_node(self, name: str, *, dial: bool = True) -> Node:
        old = self._down.pop(name)
        return self.add_node(name, slots=old.slots, kinds=old.kinds, dial=dial, disk=old.disk,
                             node_id=old.who.node_id, prefix=old.who.prefix)  # fmt: skip

    # --- links ----------------------------------------------------------------------------------------------------

    def dial(self, name: str, *, unnoticed: bool = False) -> None:
        """The node dials; its older link is gone, which the balancer knows unless it went `unnoticed`."""
        node = self.nodes[name]
        assert self.balancer is not None
        if not unnoticed:
            self._cut_all(node)
        who = node.who
        hello = Hello(PROTOCOL, who.node_id, who.boot_id, who.prefix, who.name, node.slots, node.kinds, "test", b"")
        link = next(self._links)
        self._owners[link] = node
        self._to_balancer[link], self._to_node[link] = deque(), deque()
        self._step_balancer(Knocked(link, hello))
        self.settle()

    def _cut_all(self, node: Node) -> None:
        for link in [link for link, owner in self._owners.items() if owner is node]:
            self.cut(link)

    def cut(self, link: int, *, tell_balancer: bool = True) -> None:
        """Both ends lose the link, and with it what was on the way."""
        node = self._owners.pop(link)
        self._to_balancer.pop(link, None)
        self._to_node.pop(link, None)
        if node.link == link:
            node.link = None
            if node in self.nodes.values():
                self._step_node(node, LinkClosed(link, "cut"))
        if tell_balancer and self.balancer is not None:
            self._step_balancer(LinkClosed(link, "cut"))

    def settle(self) -> None:
        """Delivers messages until nothing is on the way."""
        while self._deliver_one():
            pass

    def _deliver_one(self) -> bool:
        for link in list(self._owners):
            node = self._owners.get(link)
            if node is None:
                continue
            if (to_node := self._to_node[link]) and node.who.name not in self.frozen:
                self._arrive_at_node(link, node, _decode(to_node.popleft()))
                return True
            if to_balancer := self._to_balancer[link]:
                message = _decode(to_balancer.popleft())
                self._step_balancer(Received(link, [message], self.wall))
                return True
        return any(self._look(node) or (self.reading and self.read(node)) for node in list(self.nodes.values()))

    gather_s = 0.0  # for how long the balancer's next step would wait for company
    frozen: frozenset[str] = frozenset()
    wall_offset = 0.0  # how far the calendar was set
    seed = 0  # of what the balancer leaves to chance
    reading = True  # clients take each part of a reply as soon as it comes

    def _look(self, node: Node) -> bool:
        looked, node.looked = node.looked, []
        if looked:
            self._step_node(node, Executed(looked, self.wall))
        return bool(looked)

    def read(self, node: Node) -> bool:
        """The clients of a node take the parts that are written to them."""
        unread, node.unread = node.unread, []
        if unread:
            self._step_node(node, Delivered(unread))
        return bool(unread)

    def _arrive_at_node(self, link: int, node: Node, message: Message) -> None:
        if isinstance(message, Welcome):
            assert self.balancer is not None
            node.link = link
            self._step_node(node, LinkOpened(link, self.balancer.ledger_id, message.eager))
        elif isinstance(message, Refused):
            node.refused = message.reason
            self._step_node(node, LinkRefused(message.reason))
        else:
            self._step_node(node, Received(link, [message], self.wall))

    # --- steps ----------------------------------------------------------------------------------------------------

    def busy(self, name: str) -> None:
        """Lets the events of a node, or of "balancer", gather until `free`, or until time passes."""
        self._of(name).gathered = []

    def free(self, name: str) -> None:
        """Hands a busy machine everything that has gathered, as one step."""
        member = self._of(name)
        events, member.gathered = member.gathered or [], None
        if isinstance(member, Balancer):
            self._step_balancer(*events)
        else:
            self._step_node(member, *events)
        self.settle()

    def _of(self, name: str) -> Balancer | Node:
        if name == "balancer":
            assert self.balancer is not None
            return self.balancer
        return self.nodes[name]

    def busy_ones(self) -> list[str]:
        busy = [name for name, node in self.nodes.items() if node.gathered is not None]
        return busy + ["balancer"] * (self.balancer is not None and self.balancer.gathered is not None)

    def _step_balancer(self, *events: object) -> None:
        assert self.balancer is not None
        if self.balancer.gathered is not None:
            self.balancer.gathered += events
            return
        effects = self.balancer.machine.handle(events, self.now)
        self.balancer.disk.commit(list(effects.writes))
        self.balancer.machine.committed()
        self.balancer.machine.check()
        self.gather_s = effects.gather_s
        for action in effects.actions:
            self._perform_for_balancer(action)
        for observer in self.observers:
            observer(Step(events, effects, 0.001, self.now))

    def _perform_for_balancer(self, action: object) -> None:
        match action:
            case Send(link=link, message=message):
                if link in self._to_node:
                    self.sent.append((self._owners[link].who.name, message))
                    self._to_node[link].append(frames.encode(message))
            case Hangup(link=link):
                if link in self._owners:
                    node = self._owners[link]
                    for frame in list(self._to_node[link]):
                        self._arrive_at_node(link, node, _decode(frame))
                    self.cut(link)
            case Reply(query_id=query_id, reply=reply):
                self.shown[query_id] = reply
            case Note():
                self.notes.append(action)
            case _:
                raise AssertionError(f"the balancer asked for {action}")

    def _step_node(self, node: Node, *events: object) -> None:
        if node.gathered is not None:
            node.gathered += events
            return
        effects = node.machine.handle(events, self.now)
        for action in effects.at_once:
            assert may_overtake(action), f"{action} may not overtake the writes of its step"
            self._perform_for_node(node, action)
        node.disk.commit(list(effects.writes))
        node.machine.committed()
        node.machine.check()
        for action in effects.actions:
            self._perform_for_node(node, action)

    def _perform_for_node(self, node: Node, action: Any) -> None:
        match action:
            case Send(link=link, message=message):
                if link in self._to_balancer:
                    self.sent.append(("balancer", message))
                    self._to_balancer[link].append(frames.encode(message))
            case Reply(query_id=query_id, reply=reply, more=more):
                assert query_id not in node.replies, f"query {query_id} was answered twice"
                assert query_id not in node.unread, f"query {query_id} has a part that is not delivered"
                if more:
                    node.parts.setdefault(query_id, []).append(reply)
                    node.unread.append(query_id)
                else:
                    node.replies[query_id] = reply
            case RunNow(batch=batch):
                for command in batch:
                    self._execute(node, command)
            case Note():
                self.notes.append(action)
            case Exit():
                node.exited = True
                if node.link is not None:
                    self._to_balancer[node.link].clear()  # what is not written yet never will be
            case _:
                raise AssertionError(f"a node asked for {action}")

    def _execute(self, node: Node, command: Order) -> None:
        id = (command.ticket, command.attempt)
        if isinstance(command, Peek):
            stdout, stderr = node.printed.get(id, (b"", b""))
            found = (stdout[command.stdout_at :], stderr[command.stderr_at :]) if id in node.running else (b"", b"")
            node.looked.append(Printed(command.query_id, id in node.running, *found))
        elif isinstance(command, Start):
            assert id not in node.started, f"{id} was started twice in one boot"
            node.started.append(id)
            node.running[id] = command
            self.starts[id] = self.starts.get(id, 0) + 1
        elif isinstance(command, Kill):
            node.killed.append(command)

    # --- what tests do --------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Lets everything that was written get to the disks."""
        self.advance(SYNC_WITHIN_S)

    def advance(self, seconds: float) -> None:
        """Lets time pass, waking whoever has something to do at its moment."""
        for name in self.busy_ones():
            self.free(name)
        end = self.now + seconds
        while True:
            machines = [(node.machine, node) for node in self.nodes.values()]
            due = [machine.next_deadline() for machine, _ in machines]
            if self.balancer is not None:
                due.append(self.balancer.machine.next_deadline())
            next_at = min((at for at in due if at is not None), default=math.inf)
            if next_at > end:
                break
            self.now = max(self.now, next_at)
            for node in list(self.nodes.values()):
                if (at := node.machine.next_deadline()) is not None and at <= self.now:
                    self._step_node(node)
            at = None if self.balancer is None else self.balancer.machine.next_deadline()
            if at is not None and at <= self.now:
                self._step_balancer()
            self.settle()
        self.now = end

    def ask(self, name: str, line: str, body: bytes | None = None) -> int:
        """A client types a line at a node; returns the id of its reply."""
        data = line.encode() + b"\n" + (body + b"\n" if body is not None else b"")
        (request,) = lines.Parser().feed(data)
        query_id = next(self._queries)
        self._step_node(self.nodes[name], Asked([(query_id, request)], self.wall))  # type: ignore[list-item]
        self.settle()
        return query_id

    def say(self, name: str, line: str, body: bytes | None = None) -> str | None:
        """The reply to a line, where there is one already."""
        reply = self.nodes[name].replies.get(self.ask(name, line, body))
        return None if reply is None else reply.decode()

    def reply(self, name: str, query_id: int) -> str | None:
        reply = self.nodes[name].replies.get(query_id)
        return None if reply is None else reply.decode()

    def parts(self, name: str, query_id: int) -> list[str]:
        """What has come of a reply in parts, with its last where that has come."""
        node = self.nodes[name]
        last = [node.replies[query_id]] if query_id in node.replies else []
        return [part.decode() for part in (*node.parts.get(query_id, ()), *last)]

    def prints(self, name: str, id: AttemptId, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """An attempt that runs on a node prints this."""
        node = self.nodes[name]
        assert id in node.running, f"{id} does not run on {name}"
        so_far = node.printed.get(id, (b"", b""))
        node.printed[id] = (so_far[0] + stdout, so_far[1] + stderr)

    def submit(self, name: str, line: str = "sh true") -> str:
        reply = self.say(name, f"submit {line}")
        assert reply is not None
        assert reply.startswith("OK "), reply
        return reply.split()[1]

    def hang_up_client(self, name: str, query_id: int) -> None:
        self._step_node(self.nodes[name], ClientsGone([query_id]))
        self.settle()

    def stop(self, name: str) -> None:
        self._step_node(self.nodes[name], Stop())
        self.settle()

    def store_level(self, name: str, fraction: float, *, disk_full: bool = False) -> None:
        event = StoreLevel(fraction, disk_full, self.wall)
        if name == "balancer":
            self._step_balancer(event)
        else:
            self._step_node(self.nodes[name], event)
        self.settle()

    def finish(self, name: str, id: AttemptId, *, output: bytes = b"", outcome: Outcome | None = None) -> None:
        """An attempt that runs on a node ends."""
        node = self.nodes[name]
        del node.running[id]
        outcome = outcome or Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.5, stdout_bytes=len(output))
        self._step_node(node, Executed([Over(*id, outcome, output)], self.wall))
        self.settle()

    def finish_all(self) -> int:
        """Ends everything that runs, and whatever that lets run, successfully; returns how many attempts."""
        ended = 0
        while any(node.running for node in self.nodes.values()):
            for name, node in list(self.nodes.items()):
                for id in list(node.running):
                    self.finish(name, id)
                    ended += 1
        return ended

    def counts(self) -> dict[str, int]:
        """Attempts on each node, begun or waiting."""
        return {name: node.machine.statistics()["attempts_running"] + node.machine.statistics()["attempts_waiting"]
                for name, node in self.nodes.items()}  # type: ignore[misc]  # fmt: skip

    def where(self, ticket: str) -> list[tuple[str, AttemptId]]:
        """On which nodes attempts of a job run."""
        return [(name, id) for name, node in self.nodes.items() for id in node.running if id[0] == ticket]


def _decode(frame: bytes) -> Message:
    (message,) = frames.Parser().feed(frame)
    return message
