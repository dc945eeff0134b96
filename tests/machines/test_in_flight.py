"""Messages in flight: delivered one by one, in any interleaving of the links, with crashes and cuts in between.

`test_any_order` lets every message arrive before the next fault. Here a fault finds messages on the way: a Taken is
lost with its link while the job ends, a cancel crosses the return of its attempt, a node restarts before its outcome
was read. Seeded, so that a failure is replayed by its number; at the end the faults stop, and everything has to end.
"""

import json
import random
from collections import Counter

import attrs
import pytest

from common.arrays import parse_indexes
from common.codec import replace, unpack
from common.effects import Table
from common.events import Received
from common.messages import Answer
from common.model import Ended, Job, Outcome, Reason, Verdict, array_of, element, index_of, ticket_key, ticket_of
from tests.machines.asking import Asker, body, field
from tests.machines.cluster import PERIODS, Balancer, Cluster, Node, _decode

SEEDS = 240
BATCH = 40
NAMES = ("n1", "n2", "n3")
LINES = (
    "sh true", "sh true", "priority=5 sh true", "sleep 3", "timeout=4 sh true", "key=k1 sh true", "key=k2 sh true",
    "retries=1 backoff=2 sh true", "delay=3 sh true", "array=1-3 sh true", "array=1-9:2%2 retries=1 backoff=1 sh true",
    "after={} sh true", "after={}_3 sh true", "after={} array=1-2 sh true", "group=g sh true",
    "group=g array=1-4%1 crash_limit=1 sh true", "delay=3 array=1-3 priority=1 sh true", "key=k3 array=1-3 sh true",
)  # fmt: skip


class InFlight(Cluster):
    """Delivers only when told to, until `calm`."""

    calm = False

    def settle(self) -> None:
        if self.calm:
            super().settle()

    def deliver_one(self, chance: random.Random) -> None:
        """A message to a node, or what one read of a link brings to the balancer: up to three."""
        ways = [(link, queues) for link in self._owners for queues in (self._to_node, self._to_balancer)]
        ways = [(link, queues) for link, queues in ways if queues[link]]
        if not ways:
            return
        link, queues = chance.choice(ways)
        if queues is self._to_node:
            self._arrive_at_node(link, self._owners[link], _decode(queues[link].popleft()))
        else:
            taken = [queues[link].popleft() for _ in range(min(chance.randint(1, 3), len(queues[link])))]
            self._step_balancer(Received(link, [_decode(frame) for frame in taken], self.wall))


class Story:
    """One seed: what clients do, what breaks, and what must hold."""

    def __init__(self, seed: int, **memory: int) -> None:
        """`memory`: `awake_max` and `own_awake_max` of the cluster, where they are not left to chance."""
        self.chance = random.Random(seed)
        choice = self.chance.choice
        periods = attrs.evolve(
            PERIODS, eager=self.chance.random() < 0.7, backlog_max=choice([0, 1, 1000]), jobs_per_round_max=3
        )
        drawn = {"awake_max": choice([0, 2, 20_000]), "own_awake_max": choice([0, 2, 20_000])}
        self.cluster = InFlight(
            3, slots=choice([1, 2]), periods=periods, fallback_s=choice([None, 4.0]), **drawn | memory
        )
        self.may_lose_the_ledger = self.chance.random() < 0.3
        self.ledger_was_lost = False
        self.asked: list[tuple[Node, int]] = []  # submissions whose reply is open
        self.waits: list[tuple[Node, int, str]] = []
        self.acknowledged: set[str] = set()
        self.forgotten: set[str] = set()  # or asked to be
        self.cursor: str | None = None  # of one who watches the group
        self.told: Counter[str] = Counter()  # how often he was told of each job's end
        self.ends: dict[tuple[bytes, int], Ended] = {}  # by how often the job was retried

    def tell(self) -> None:
        for _ in range(self.chance.choice([60, 150])):
            self.one_event()
            self.hear()
            self.audit()
        self.recover()
        self.audit_the_end()

    # --- events -----------------------------------------------------------------------------------------------------

    def one_event(self) -> None:
        events = {
            self.deliver: 50, self.submit: 12, self.cancel: 4, self.wait: 4, self.finish: 10, self.fail: 4,
            self.retry: 3, self.forget: 1, self.watch: 2, self.drain: 1, self.undrain: 2, self.pass_time: 6,
            self.kill_a_node: 3, self.restart_a_node: 3, self.cut: 3, self.dial: 3, self.kill_the_balancer: 1,
            self.restart_the_balancer: 4,
        }  # fmt: skip
        (event,) = self.chance.choices(list(events), list(events.values()))
        event()

    def some(self, choices: object) -> object | None:
        ordered = sorted(choices)  # type: ignore[call-overload]
        return self.chance.choice(ordered) if ordered else None

    def deliver(self) -> None:
        self.cluster.deliver_one(self.chance)

    def submit(self) -> None:
        if (name := self.some(self.cluster.nodes)) is not None:
            earlier = self.some(self.acknowledged) or "aaaaab-1"
            query = self.cluster.ask(str(name), f"submit {self.chance.choice(LINES).format(earlier)}")
            self.asked.append((self.cluster.nodes[str(name)], query))

    def cancel(self) -> None:
        name, ticket = self.some(self.cluster.nodes), self.some(self.acknowledged)
        if name is not None and ticket is not None:
            what = self.chance.choice([f"{ticket}", f"{ticket}", f"{ticket}_3", "group=g"])
            self.cluster.ask(str(name), f"cancel {what}")

    def retry(self) -> None:
        name, ticket = self.some(self.cluster.nodes), self.some(self.acknowledged)
        if name is not None and ticket is not None:
            what = self.chance.choice([f"{ticket}", f"{ticket}", f"{ticket}_3", "group=g"])
            self.cluster.ask(str(name), f"retry {what}")

    def forget(self) -> None:
        name, ticket = self.some(self.cluster.nodes), self.some(self.acknowledged)
        if name is not None and ticket is not None:
            self.cluster.ask(str(name), f"forget {ticket}")
            self.forgotten.add(str(ticket))

    def watch(self) -> None:
        """Somebody watches the group, now from this node and then from that, from cursor to cursor."""
        balancer = self.cluster.balancer
        ready = [] if balancer is None else [node for node in balancer.machine._roster.connected() if node.ready]
        name = self.some(node.record.name for node in ready)
        if name is None:
            return
        sent = len(self.cluster.sent)
        Asker(self.cluster, str(name)).ask("watched", group="g", since=self.cursor)
        (reply,) = [one.reply.decode() for _, one in self.cluster.sent[sent:] if isinstance(one, Answer)][:1]
        self.cursor = field(reply, "cursor")
        self.told.update(line.split()[0] for line in body(reply))

    def drain(self) -> None:
        if (name := self.some(self.cluster.nodes)) is not None:
            self.cluster.ask(str(name), "drain")

    def undrain(self) -> None:
        if (name := self.some(self.cluster.nodes)) is not None:
            self.cluster.ask(str(name), "undrain")

    def wait(self) -> None:
        name, ticket = self.some(self.cluster.nodes), self.some(self.acknowledged)
        if name is not None and ticket is not None:
            query = self.cluster.ask(str(name), f"wait {ticket}")
            self.waits.append((self.cluster.nodes[str(name)], query, str(ticket)))

    def finish(self, outcome: Outcome | None = None) -> None:
        running = [(name, id) for name, node in sorted(self.cluster.nodes.items()) for id in sorted(node.running)]
        if running:
            self.cluster.finish(*self.chance.choice(running), outcome=outcome)

    def fail(self) -> None:
        self.finish(Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.1))

    def pass_time(self) -> None:
        self.cluster.advance(self.chance.choice([0.05, 0.2, 1.5, 6.0, 20.0]))

    def kill_a_node(self) -> None:
        if (name := self.some(self.cluster.nodes)) is not None:
            self.cluster.kill_node(str(name))

    def restart_a_node(self) -> None:
        down = [name for name in NAMES if name not in self.cluster.nodes]
        if down:
            self.cluster.restart_node(self.chance.choice(down), dial=self.cluster.balancer is not None)

    def cut(self) -> None:
        if (link := self.some(self.cluster._owners)) is not None:
            self.cluster.cut(link)  # type: ignore[arg-type]

    def dial(self) -> None:
        name = self.some(self.cluster.nodes)
        if name is None or self.cluster.balancer is None:
            return
        node = self.cluster.nodes[str(name)]
        if node not in self.cluster._owners.values():
            self.cluster.dial(str(name))

    def kill_the_balancer(self) -> None:
        if self.cluster.balancer is not None:
            self.cluster.kill_balancer()

    def restart_the_balancer(self) -> None:
        if self.cluster.balancer is None:
            lost = self.may_lose_the_ledger and self.chance.random() < 0.4
            self.ledger_was_lost |= lost
            self.cluster.start_balancer(volume_lost=lost)

    def recover(self) -> None:
        """The faults stop."""
        self.cluster.calm = True
        if self.cluster.balancer is None:
            self.cluster.start_balancer()
        for name in NAMES:
            if name not in self.cluster.nodes:
                self.cluster.restart_node(name)
            elif self.cluster.nodes[name].link is None:
                self.cluster.dial(name)
            self.cluster.ask(name, "undrain")
        self.cluster.settle()
        for _ in range(25):
            self.cluster.advance(6.0)
            self.cluster.finish_all()
        self.cluster.advance(20.0)
        self.hear()

    # --- the auditor ------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        for node, query in list(self.asked):
            reply = node.replies.get(query)
            if reply is not None:
                self.asked.remove((node, query))
                if not reply.startswith(b"ERR DRAINING"):
                    assert reply.startswith(b"OK "), reply
                    self.acknowledged.add(reply.split()[1].decode())

    def audit(self) -> None:
        if self.ledger_was_lost or self.cluster.balancer is None:
            return
        assert all(count == 1 for count in self.cluster.starts.values()), self.cluster.starts
        for key, packed in self.cluster.balancer.disk.tables[Table.ENDED].items():
            ended = unpack(Ended, packed)
            assert self.ends.setdefault((key, ended.retried), ended) == ended, "an ended job changed"

    def audit_the_end(self) -> None:
        balancer = self.cluster.balancer
        assert balancer is not None

        def first_name(ticket: str) -> str:
            found = balancer.disk.tables[Table.ALIASES].get(ticket_key(ticket))
            return ticket if found is None else first_name(found.decode())

        forgotten = set(map(first_name, self.forgotten))
        for ticket in sorted(self.acknowledged):
            for name in NAMES:
                reply = self.cluster.say(name, f"status {ticket}") or ""
                ended = any(f"state={end}" in reply for end in ("succeeded", "failed", "cancelled"))
                gone = first_name(ticket) in forgotten and reply.startswith("ERR UNKNOWN_TICKET")
                assert ended or gone, (name, reply)
        for node, query, ticket in self.waits:
            assert node not in self.cluster.nodes.values() or query in node.replies, (
                f"a WAIT for {ticket} is unanswered"
            )
        assert balancer.disk.tables[Table.LIVE] == {}
        assert balancer.machine.statistics()["jobs_live"] == 0
        assert balancer.disk.tables[Table.NOTICES] == {}, "an origin was not told of a RETRY or FORGET"
        assert balancer.machine.statistics()["queries_open"] == 0
        for node in self.cluster.nodes.values():
            assert node.disk.tables[Table.LIVE] == {}, "an origin was not told of an end"
            assert node.disk.tables[Table.OUTCOMES] == {}, "an outcome was never acknowledged"
            assert node.machine.statistics()["queries_open"] == 0
        self.audit_the_records(balancer)
        if not self.ledger_was_lost:
            self.audit_the_events(balancer)

    def audit_the_records(self, balancer: Balancer) -> None:
        """Each record belongs to something, each element of an array has one end, and an origin's copy is true."""
        tables = balancer.disk.tables
        ends = {ticket_of(key): unpack(Ended, packed) for key, packed in tables[Table.ENDED].items()}
        jobs = {ticket_of(key): unpack(Job, packed) for key, packed in tables[Table.JOBS].items()}
        assert jobs.keys() == {ticket for ticket in ends if index_of(ticket) is None}
        assert {array_of(ticket) for ticket in ends} == jobs.keys()
        for table in (Table.ATTEMPTS, Table.ARRAYS, Table.OUTPUTS):
            assert all(ticket_of(key[:14]) in jobs for key in tables[table]), f"something is left in {table}"
        grouped = {(job.group or "").encode() + b"\0" + ends[ticket].sequence.to_bytes(8, "big"): ticket_key(ticket)
                   for ticket, job in jobs.items() if job.group is not None}  # fmt: skip
        assert tables[Table.GROUPS] == grouped
        for ticket, job in jobs.items():
            if job.array is not None and ticket_key(ticket) in tables[Table.ARRAYS]:
                indexes = parse_indexes(job.array)
                of = [balancer.machine._ledger.end(element(ticket, indexes.at(at))) for at in range(len(indexes))]
                counts = Counter(str(end.state) for end in of if end is not None)
                assert counts == Counter(dict(ends[ticket].counts)), f"{ticket} counts other ends than it has"
        for node in self.cluster.nodes.values():
            for key, packed in node.disk.tables[Table.ENDED].items():
                if key in tables[Table.ALIASES]:  # it ended under a ledger that was lost, and its key is another's now
                    continue
                known = replace(unpack(Ended, packed), sequence=ends[ticket_of(key)].sequence)
                assert known == ends[ticket_of(key)], f"{node.who.name} tells another end of {ticket_of(key)}"

    def audit_the_events(self, balancer: Balancer) -> None:
        """What was told is what happened; whoever watched from cursor to cursor was told each end no more than once."""
        records = [record for _, record in sorted(balancer.disk.tables[Table.EVENTS].items())]
        events = [json.loads(line) for record in records for line in record[8:].splitlines()]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        told = Counter((event["event"], event.get("ticket")) for event in events)
        self.watch()
        for ticket in {event["ticket"] for event in events if "ticket" in event}:
            ended = sum(told[f"job.{state}", ticket] for state in ("succeeded", "failed", "cancelled"))
            if index_of(ticket) is None:
                assert told["job.submitted", ticket] == 1
                assert ended == 1 + told["job.retried", ticket], f"{ticket} ended {ended} times"
            assert self.told[ticket] <= ended, f"the end of {ticket} was told twice"
        for key in balancer.disk.tables[Table.GROUPS].values():
            assert self.told[ticket_of(key)], f"{ticket_of(key)} ended and was never told"


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_nothing_is_lost_doubled_or_left_over_whatever_was_in_flight(first: int) -> None:
    for seed in range(first, first + BATCH):
        try:
            Story(seed).tell()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
