"""Plain jobs, many at a time: it must come to the same as one by one.

A story is played twice, once by a balancer that takes many at a time and once by one that takes each job alone. After
each thing that happens, all that anybody can see of the two must be equal: replies, messages, records, and of each job
what was told of it. Only the order in which things were told of different jobs in one step is free.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from balancer import dispatcher
from balancer.live import Live
from balancer.plain import Plain
from balancer.records import Entry, LiveRecord
from balancer.rounds import Rounds
from common.codec import pack, unpack
from common.effects import Table
from common.events import Received
from common.memory import Memory
from common.messages import Message, Pair, Reported, Result
from common.model import Outcome, Reason, Verdict
from tests.machines.cluster import PERIODS, Cluster, Disk

LINES = (
    *["sh true"] * 12, "priority=3 sh true", "priority=3 sh true", "slots=2 sh true", "name=x sh true",
    "py math:sqrt [4]", "group=g sh true", "group=g sh true", "sleep 0", "key=k sh true", "delay=2 sh true",
    "array=1-3 sh true", "retries=1 backoff=0.5 sh true", "retries=2 backoff=0 sh true", "crash_limit=1 sh true",
    "after=aaaaab-1 sh true", "input=aaaaab-2 sh true",
)  # fmt: skip
PRINTED = b"printed\n"
ENDS = (
    *[(Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.5), b"")] * 4,
    (Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.25, stderr_bytes=len(PRINTED)), PRINTED),
    (Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.1), b""),
    (Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.1, stdout_bytes=len(PRINTED)), PRINTED),
    (Outcome(Verdict.CRASHED), b""),
)
NAMES = ("n1", "n2")


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else most batches of a small cluster would go the way for one."""
    monkeypatch.setattr(dispatcher, "FEW", 1)


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "arrive", lambda self, items, at: [])
    monkeypatch.setattr(Plain, "settle", lambda self, node, mail, pairs, at, now, wall: at)
    monkeypatch.setattr(Rounds, "_give_plain", lambda self, contests: 0)


class Story:
    """What happens is drawn by its own chance, and by nothing that the machines do but which attempts run."""

    def __init__(self, seed: int) -> None:
        self._chance = chance = random.Random(seed)
        periods = attrs.evolve(
            PERIODS,
            eager=chance.random() < 0.8,
            backlog_max=chance.choice([0, 2, 1000]),
            jobs_per_round_max=chance.choice([3, 30]),
        )
        placement = chance.choice(["level", "level", "random", "round-robin", "least-loaded", "shortest-wait"])
        self.cluster = Cluster(2, periods=periods, awake_max=chance.choice([4, 20_000]), placement=placement)
        self._issued = dict.fromkeys(NAMES, 0)
        self._asked: list[tuple[str, int]] = []
        self._sent = 0

    def go_on(self) -> None:
        doings: list[tuple[int, Callable[[], None]]] = [
            (8, self._submit_many),
            (8, self._finish_many),
            (5, self._ask),
            (3, lambda: self.cluster.advance(self._chance.choice([0.2, 1.0, 6.0, 20.0]))),
            (3, self._say_again),
            (1, self._kill_node),
            (1, self._cut),
            (1, self._kill_balancer),
        ]
        weights, calls = zip(*doings, strict=True)
        self._chance.choices(calls, weights)[0]()
        for name in NAMES:
            if len(self.cluster.nodes) > 1 and self._chance.random() < 0.5:
                continue
            if name not in self.cluster.nodes:
                self.cluster.restart_node(name, dial=True)
            elif self.cluster.nodes[name].link is None:
                self.cluster.dial(name)

    def _in_one_step(self, name: str, what: Callable[[], None]) -> None:
        """The balancer hears all of it at once; now and then together with what another node has to say."""
        if self.cluster.balancer is not None and self._chance.random() < 0.5:
            self.cluster.busy("balancer")
        self.cluster.busy(name)
        what()
        self.cluster.free(name)
        if "balancer" in self.cluster.busy_ones() and self._chance.random() < 0.6:
            self.cluster.free("balancer")

    def _submit_many(self) -> None:
        name = self._chance.choice(sorted(self.cluster.nodes))
        lines = [self._chance.choice(LINES) for _ in range(self._chance.choice([1, 2, 5, 20]))]
        self._issued[name] += len(lines)
        body = self._chance.choice([None, None, None, b"some input"])

        def submit() -> None:
            for line in lines:
                verb = self._chance.choice(["submit", "run"])
                if body is not None and line.endswith("sh true"):
                    query_id = self.cluster.ask(name, f"{verb} bytes={len(body)} {line}", body)
                else:
                    query_id = self.cluster.ask(name, f"{verb} {line}")
                self._asked.append((name, query_id))

        self._in_one_step(name, submit)

    def _finish_many(self) -> None:
        for name in sorted(self.cluster.nodes):
            running = sorted(self.cluster.nodes[name].running)

            def finish(name: str = name, running: list[tuple[str, int]] = running) -> None:
                for id in running:
                    outcome, output = self._chance.choice(ENDS)
                    self.cluster.finish(name, id, outcome=outcome, output=output)
                if running and self._chance.random() < 0.3:
                    verb, (ticket, _) = self._chance.choice(["retry", "forget"]), self._chance.choice(running)
                    other = self._chance.choice(sorted(self.cluster.nodes))
                    self._asked.append((other, self.cluster.ask(other, f"{verb} {ticket}")))

            self._in_one_step(name, finish)

    def _ask(self) -> None:
        of = self._chance.choice(sorted(self.cluster.nodes))
        back = min(self._chance.choice([1, 5, 50]), self._issued[of] + 1)
        ticket = f"{self.cluster.nodes[of].who.prefix}-{self._issued[of] + 1 - self._chance.randint(0, back)}"
        verbs = ["status", "cancel", "cancel", "retry", "forget", "wait timeout=3", "explain"]
        line = self._chance.choice(
            [*(f"{verb} {ticket}" for verb in verbs), "cancel group=g", "watch group=g timeout=3"]
        )
        name = self._chance.choice(sorted(self.cluster.nodes))
        self._in_one_step(name, lambda: self._asked.append((name, self.cluster.ask(name, line))))

    def _say_again(self) -> None:
        """A node sends outcomes: of what runs there, of attempts before that, of another boot; some twice."""
        name = self._chance.choice(sorted(self.cluster.nodes))
        node, balancer = self.cluster.nodes[name], self.cluster.balancer
        if node.link is None or balancer is None:
            return
        pairs = []
        for ticket, attempt in sorted(node.running):
            boot = self._chance.choice([node.who.boot_id, node.who.boot_id, "another boot"])
            number = self._chance.choice([attempt, attempt, max(1, attempt - 1), attempt + 1])
            outcome, output = self._chance.choice(ENDS)
            wrong = self._chance.choice([output, output, output, b"of another length"])
            pairs.append(Pair(ticket, pack(Reported(number, boot, outcome)), wrong))
        if pairs:
            pairs += self._chance.sample(pairs, len(pairs) // 2)
            said = Received(node.link, [Result(tuple(pairs))], self.cluster.wall)
            self.cluster._step_balancer(said)
            self.cluster.settle()

    def _kill_node(self) -> None:
        self.cluster.kill_node(self._chance.choice(sorted(self.cluster.nodes)))

    def _cut(self) -> None:
        if (link := self.cluster.nodes[self._chance.choice(sorted(self.cluster.nodes))].link) is not None:
            self.cluster.cut(link)

    def _kill_balancer(self) -> None:
        self.cluster.kill_balancer()
        self.cluster.start_balancer(volume_lost=self._chance.random() < 0.3)

    def seen(self) -> dict[str, Any]:
        """All that anybody can see."""
        cluster = self.cluster
        assert cluster.balancer is not None
        tables = {
            "balancer": cluster.balancer.disk.tables,
            **{n: node.disk.tables for n, node in cluster.nodes.items()},
        }
        return {
            "replies": [cluster.reply(*asked) for asked in self._asked if asked[0] in cluster.nodes],
            "messages": self._sent_since(),
            "records": {
                (name, table): {key: _read(name, table, record) for key, record in records.items()}
                for name, found in tables.items()
                for table, records in found.items()
                if table is not Table.EVENTS
            },
            "told": self._told(cluster.balancer.disk.tables[Table.EVENTS]),
            "statistics": cluster.balancer.machine.statistics(),
        }

    def _sent_since(self) -> list[tuple[str, Message]]:
        """Since it was last asked."""
        sent, self._sent = self.cluster.sent[self._sent :], len(self.cluster.sent)
        return sent

    def _told(self, records: dict[bytes, bytes]) -> dict[str, list[dict[str, Any]]]:
        told: dict[str, list[dict[str, Any]]] = defaultdict(list)
        numbers: list[int] = []
        for _, record in sorted(records.items()):
            for line in record[8:].splitlines():
                event = json.loads(line)
                numbers.append(event.pop("seq"))
                told[event.get("ticket", "")].append(event)
        assert numbers == list(range(1, len(numbers) + 1)), "events are numbered one by one"
        return told


def _read(name: str, table: Table, record: bytes) -> object:
    """A live job's may differ in bytes, because a field that has got its default back may be written or not."""
    return unpack(LiveRecord, record) if (name, table) == ("balancer", Table.LIVE) else record


@pytest.mark.parametrize("seed", range(60))
def test_many_at_a_time_come_to_the_same_as_one_by_one(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        alone = Story(seed)
    together = Story(seed)
    for _ in range(40):
        with pytest.MonkeyPatch.context() as patch:
            one_by_one(patch)
            alone.go_on()
        together.go_on()
        expected, found = alone.seen(), together.seen()
        for what, value in expected.items():
            assert found[what] == value, what


def test_what_has_come_and_rests_at_once_is_there() -> None:
    live = Live(Memory(Disk()), awake_max=0)
    live.enter_in_a_row([Entry("aaaaaa-1", LiveRecord(1, "sh")), Entry("aaaaaa-2", LiveRecord(2, "sh"))], "aaaaaa", 1)
    assert "aaaaaa-2" in live
    assert not live.awake
    live.step_is_over()
    live.check()
    assert "aaaaaa-2" in live


def test_of_those_that_come_together_the_last_rest() -> None:
    live = Live(Memory(Disk()), awake_max=2)
    live.enter_in_a_row([Entry(f"aaaaaa-{n}", LiveRecord(n, "sh")) for n in (1, 2, 3, 4)], "aaaaaa", 1)
    assert list(live.awake) == ["aaaaaa-1", "aaaaaa-2"]


def test_a_batch_of_plain_jobs_is_taken_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would compare a path with itself."""
    taken: list[tuple[str, int]] = []
    arrive, leased, settle = Plain.arrive, Plain.leased, Plain.settle

    def arriving(self: Plain, items: Any, at: int) -> Any:
        entries = arrive(self, items, at)
        taken.append(("arrived", len(entries)))
        return entries

    def settling(self: Plain, node: Any, mail: Any, pairs: Any, at: int, now: float, wall: float) -> int:
        behind = settle(self, node, mail, pairs, at, now, wall)
        taken.append(("ended", behind - at))
        return behind

    def leasing(self: Plain, given: Any) -> None:
        taken.extend([("leased", len(given))] if given else [])
        leased(self, given)

    monkeypatch.setattr(Plain, "arrive", arriving)
    monkeypatch.setattr(Plain, "leased", leasing)
    monkeypatch.setattr(Plain, "settle", settling)
    cluster = Cluster(1)
    cluster.busy("n1")
    for _ in range(10):
        cluster.ask("n1", "run sleep 0")
    cluster.free("n1")
    assert taken == [("arrived", 10), ("leased", 10), ("ended", 10)]


# --- what a batch must not forget ----------------------------------------------------------------------------------


def submit_together(cluster: Cluster, name: str, count: int) -> None:
    cluster.busy(name)
    for _ in range(count):
        cluster.ask(name, "submit sh true")
    cluster.free(name)


def test_what_is_cancelled_in_the_step_that_takes_it_in_is_over_for_good() -> None:
    cluster = Cluster(2)
    cluster.busy("balancer")
    submit_together(cluster, "n1", 5)
    cluster.ask("n2", "cancel aaaaab-3")
    cluster.free("balancer")
    cluster.kill_balancer()
    cluster.start_balancer()
    for name in NAMES:
        cluster.dial(name)
    assert "state=cancelled" in (cluster.say("n2", "status aaaaab-3") or "")
    assert cluster.balancer is not None
    assert not [key for key in cluster.balancer.disk.tables[Table.LIVE] if key.endswith(b"\x03")]


def test_whoever_waits_for_a_job_that_comes_in_a_batch_hears_of_it() -> None:
    cluster = Cluster(2)
    cluster.busy("balancer")
    cluster.busy("n1")
    submitted = [cluster.ask("n1", "submit sh true") for _ in range(5)]
    waits = cluster.ask("n2", "wait aaaaab-3")
    cluster.free("balancer")  # which asks n1, that has not got round to it
    cluster.free("n1")
    assert all((cluster.reply("n1", query_id) or "").startswith("OK") for query_id in submitted)
    cluster.finish_all()
    assert "state=succeeded" in (cluster.reply("n2", waits) or "")


def test_attempts_of_a_batch_that_go_on_under_a_new_ledger_are_not_given_out_again() -> None:
    cluster = Cluster(2)
    submit_together(cluster, "n1", 4)
    began = dict(cluster.starts)
    assert len(began) == 4
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")  # which holds what n1 has submitted, and says so first
    cluster.dial("n1")
    assert cluster.finish_all() == 4
    assert cluster.starts == began
    for number in range(1, 5):
        assert "state=succeeded" in (cluster.say("n1", f"status aaaaab-{number}") or "")
