"""Promise 6 as an invariant: however long jobs last, and whoever comes and goes, a moment after the last change no job
waits on a node that would better wait, or run, on another.

Seeded stories: submissions, ends that fall on some nodes and not on others, nodes that join, leave, drain and die.
"""

import random
from collections.abc import Iterator

import attrs
import pytest

from balancer import levelling, rounds
from balancer.dispatcher import LEVEL_PERIOD_S
from balancer.placement import POLICIES
from balancer.roster import Node
from balancer.rounds import kept_from
from common.messages import Recall
from tests.machines.cluster import PERIODS, Cluster

SLOTS = (5, 7, 3)
MOMENT_S = LEVEL_PERIOD_S + 0.001  # a plan is made so long after the last, or at once; round trips take no time here


class Story:
    """`equal`: all nodes have two slots; else as many as in the reference configuration."""

    def __init__(self, seed: int, policy: str, *, equal: bool, backlog_max: int = 1000) -> None:
        self.chance = random.Random(seed)
        self.cluster = Cluster(placement=policy, nodes_max=99, periods=attrs.evolve(PERIODS, backlog_max=backlog_max))
        self.equal = equal
        self.names = 0
        self.dead: list[str] = []
        for _ in range(3):
            self.join()

    def join(self) -> None:
        slots = 2 if self.equal else SLOTS[self.names % len(SLOTS)]
        self.names += 1
        self.cluster.add_node(f"n{self.names}", slots=slots)

    def submit(self) -> None:
        for _ in range(self.chance.choice((1, 3, 20))):
            slots = self.chance.choice((1, 1, 1, 1, 2, 3)) if not self.equal else 1
            self.cluster.say(self._node(), f"submit slots={slots} priority={self.chance.randrange(2)} sh true")

    def end(self) -> None:
        """Some jobs of one node end, which was lucky."""
        name = self._node()
        for _ in range(self.chance.choice((1, 2, 8))):
            running = self.cluster.nodes[name].running
            if running:
                self.cluster.finish(name, self.chance.choice(list(running)))

    def die(self) -> None:
        if len(self.cluster.nodes) > 1:
            name = self._node()
            self.cluster.kill_node(name)
            self.dead.append(name)

    def return_(self) -> None:
        if self.dead:
            self.cluster.restart_node(self.dead.pop())

    def drain(self) -> None:
        self.cluster.say(self._node(), "drain")

    def undrain(self) -> None:
        self.cluster.say(self._node(), "undrain")

    def _node(self) -> str:
        return self.chance.choice(list(self.cluster.nodes))

    def go_on(self) -> None:
        kinds = {self.submit: 6, self.end: 12, self.join: 1, self.die: 1, self.return_: 2, self.drain: 1,
                 self.undrain: 3}  # fmt: skip
        (act,) = self.chance.choices(list(kinds), list(kinds.values()))
        act()
        self.cluster.advance(MOMENT_S)

    # --- what the ledger has on the nodes ------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        assert self.cluster.balancer is not None
        return [node for node in self.cluster.balancer.machine._roster.connected() if node.takes_jobs]

    def kept(self) -> set[str]:
        """Nodes that are kept for a wide job which is in the queue."""
        assert self.cluster.balancer is not None
        machine = self.cluster.balancer.machine
        return kept_from((99, 0), machine._ledger.queue.heads(), machine._roster, machine._rounds._in_force)

    def pairs(self) -> Iterator[tuple[Node, Node, int]]:
        """Two nodes, and the slots of a job that waits on the first and may run on the second."""
        for busy in self.nodes():
            waiting = [entry for entry in busy.leases.values() if not entry.begun and not entry.record.cancelled]
            for slots in {entry.record.slots for entry in waiting}:
                yield from ((busy, idle, slots) for idle in self.nodes() if slots <= idle.record.slots)


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "5-7-3"])
@pytest.mark.parametrize("seed", range(12))
def test_by_level_no_job_waits_where_there_is_more_to_do_than_elsewhere(seed: int, equal: bool) -> None:
    story = Story(seed, "level", equal=equal)
    for _ in range(60):
        story.go_on()
        for busy, idle, _ in story.pairs():
            has, would_have = busy.load.count / busy.load.slots, (idle.load.count + 1) / idle.load.slots
            assert has <= would_have, f"{busy.record.name} has {busy.load} and {idle.record.name} {idle.load}"
            if equal:
                assert busy.load.count - idle.load.count <= 1
    assert sum(story.cluster.starts.values()) > 20


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "level"])
@pytest.mark.parametrize("seed", range(6))
def test_bound_late_no_job_waits_on_a_node_while_another_has_slots_for_it(seed: int, policy: str) -> None:
    """Also of those that were given to nodes by another policy."""
    story = Story(seed, policy, equal=False)
    for number in range(60):
        if number % 10 == 0:
            story.cluster.say(story._node(), "placement level")
            story.submit()
            story.cluster.say(story._node(), f"placement {policy}")
        story.go_on()
        story.cluster.advance(2 * MOMENT_S)  # an older job may take the place of a wide one that was called back for it
        kept = story.kept()
        for busy, idle, slots in story.pairs():
            assert idle.load.free < slots or idle.id in kept, (
                f"{busy.record.name} has {busy.load} and {idle.record.name} {idle.load}"
            )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_no_slot_stands_idle_that_the_first_in_the_queue_could_use(seed: int, policy: str) -> None:
    story = Story(seed, policy, equal=False)
    for _ in range(60):
        story.go_on()
        assert story.cluster.balancer is not None
        ledger = story.cluster.balancer.machine._ledger
        for (_, sequence), (_, slots) in ledger.queue.heads()[:1]:
            entry = ledger.all.arrived(sequence)
            if entry is not None and entry.waits_for_a_node:
                assert all(node.load.free < slots for node in story.nodes() if node.load.slots >= slots)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_policies_may_change_while_jobs_run_and_each_runs_once(seed: int, policy: str) -> None:
    story = Story(seed, policy, equal=False, backlog_max=story_backlog(seed))
    for number in range(40):
        story.go_on()
        if number % 8 == 7:
            story.cluster.say(story._node(), f"placement {story.chance.choice(list(POLICIES))}")
    for name in story.cluster.nodes:
        story.cluster.say(name, "undrain")
    while story.dead:
        story.return_()
    ended = -1
    while ended:
        ended = story.cluster.finish_all()
        story.cluster.advance(20)
    assert story.cluster.balancer is not None
    numbers = story.cluster.balancer.machine.statistics()
    assert numbers["jobs_live"] == 0
    assert set(story.cluster.starts.values()) == {1}


def story_backlog(seed: int) -> int:
    return (0, 2, 1000)[seed % 3]


def test_whoever_does_not_answer_a_recall_keeps_nobody_else_uneven() -> None:
    cluster = Cluster(2, slots=1)
    for _ in range(20):
        cluster.submit("n1")
    cluster.frozen = frozenset({"n1"})
    cluster.add_node("n3", slots=1)
    cluster.advance(0.0)  # the first plan is made at once
    assert cluster.counts()["n3"] == 3, "and from n1 nothing, which hangs"
    cluster.add_node("n4", slots=1)
    cluster.advance(2 * MOMENT_S)
    counts = cluster.counts()
    assert max(counts[name] for name in ("n2", "n3", "n4")) - min(counts[name] for name in ("n2", "n3", "n4")) <= 1


def test_a_job_that_a_node_cannot_let_go_of_keeps_no_other_from_moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is in the spawner's line already."""
    cluster = Cluster(1, slots=1)
    for _ in range(9):
        cluster.submit("n1")
    backlog = cluster.nodes["n1"].machine._backlog
    last, give_back = list(backlog._held)[-1], backlog.give_back
    monkeypatch.setattr(backlog, "give_back", lambda ids: give_back([id for id in ids if id != last]))
    cluster.add_node("n2", slots=1)
    cluster.advance(2 * MOMENT_S)
    assert cluster.counts() == {"n1": 5, "n2": 4}
    monkeypatch.undo()
    (id,) = cluster.nodes["n1"].running
    cluster.finish("n1", id)
    cluster.add_node("n3", slots=1)
    cluster.advance(MOMENT_S)
    assert last not in backlog._held, "when something has ended there, it is asked for again"


def test_in_periodic_mode_a_job_that_nobody_can_run_keeps_nobody_uneven() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, eager=False))
    for _ in range(9):
        cluster.submit("n1")
    cluster.submit("n1", "slots=2 sh true")
    cluster.advance(5)
    cluster.add_node("n2", slots=1)
    cluster.advance(11)
    assert cluster.counts() == {"n1": 5, "n2": 4}


def test_between_two_timed_rounds_jobs_are_called_back_once() -> None:
    """What was called back waits for the next round; to call more back meanwhile would be by counts that are wrong."""
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, eager=False))
    for _ in range(9):
        cluster.submit("n1")
    cluster.advance(5)
    cluster.add_node("n2", slots=1)
    cluster.advance(4)
    assert cluster.counts() == {"n1": 5, "n2": 0}


# --- recalled for nothing ----------------------------------------------------------------------------------------


def recalls_in_10_s(cluster: Cluster) -> int:
    before = len(cluster.sent)
    for _ in range(100):
        cluster.advance(0.1)
    return sum(isinstance(message, Recall) for _, message in cluster.sent[before:])


def test_what_a_node_that_is_kept_for_another_job_would_not_be_given_is_not_called_back_for_it() -> None:
    cluster = Cluster(0, placement="shortest-wait")
    cluster.add_node("n1", slots=1)
    cluster.add_node("n2", slots=4)
    for _ in range(4):
        cluster.submit("n1")
    wide = cluster.submit("n1", "priority=5 slots=4 sh true")
    for _ in range(2):
        cluster.submit("n1")
    cluster.finish("n2", next(iter(cluster.nodes["n2"].running)))
    assert cluster.where(wide) == []
    assert recalls_in_10_s(cluster) <= 1


def test_what_is_too_heavy_for_the_memory_of_a_node_is_not_called_back_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "WEIGHT_BYTES_MAX", 20_000)
    cluster = Cluster(0)
    cluster.add_node("n1", slots=2)
    for _ in range(2):
        cluster.say("n1", "submit bytes=9900 sh cat", b"x" * 9900)
    for _ in range(12):
        cluster.submit("n1")
    cluster.add_node("n2", slots=1)
    cluster.advance(1)
    assert recalls_in_10_s(cluster) <= 3


def test_looking_for_what_to_move_ends_where_nobody_idle_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Node] = []
    monkeypatch.setattr(levelling, "can_run", lambda node, *needs: bool(asked.append(node)))
    monkeypatch.setattr(levelling, "PAIRS_MAX", 30)
    cluster = Cluster(0, nodes_max=99)
    for number in range(10):
        cluster.add_node(f"n{number}", slots=1, kinds=("exec",))
    for _ in range(100):
        cluster.submit("n0", "exec true")
    for number in range(10, 20):
        cluster.add_node(f"n{number}", slots=1, kinds=("sh",))
    asked.clear()
    assert cluster.balancer is not None
    cluster.balancer.machine._levelling.level(cluster.now)
    assert 0 < len(asked) <= 30
