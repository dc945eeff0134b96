"""Rounds: who gets which job, and when."""

import random
from collections import Counter

import attrs
import pytest

from balancer.dispatcher import LEVEL_PERIOD_S
from balancer.placement import POLICIES, Level, Load, Terms
from balancer.roster import Node, NodeRecord
from balancer.rounds import PLENTY, WEIGHT_BYTES_MAX, Contest, room_bytes
from common.messages import Dispatch, Recall, RequestOfRes, ResReq, Result
from tests.machines.cluster import PERIODS, Cluster

PERIODIC = attrs.evolve(PERIODS, eager=False)


def place(loads: list[Load], jobs: int) -> list[int]:
    for _ in range(jobs):
        chosen = min(loads, key=lambda load: Level().rank(load, Terms()))
        chosen.count += 1
        chosen.given += 1
    return [load.count for load in loads]


def test_ten_jobs_on_loads_of_0_0_11_make_it_5_5_11() -> None:
    assert place([Load("a", 1, 0), Load("b", 1, 0), Load("c", 1, 11)], 10) == [5, 5, 11]


def test_a_node_with_twice_the_slots_gets_twice_the_jobs() -> None:
    assert place([Load("a", 2, 0), Load("b", 4, 0), Load("c", 6, 0)], 24) == [4, 8, 12]


def test_among_equals_the_one_given_least_so_far_is_next() -> None:
    assert place([Load("a", 1, 0, given=5), Load("b", 1, 0, given=2)], 1) == [0, 1]


def test_a_move_is_planned_only_where_it_levels() -> None:
    assert list(Level().moves([Load("a", 1, 3), Load("b", 1, 2)], Terms())) == []
    planned = Level().moves([Load("a", 1, 4), Load("b", 1, 2), Load("c", 1, 9)], Terms())
    assert [(busy.node_id, idle.node_id) for busy, idle in planned] == [("c", "b"), ("a", "b"), ("c", "a")]


def test_jobs_are_spread_so_that_equal_nodes_are_within_one_of_each_other() -> None:
    cluster = Cluster(3)
    for _ in range(20):
        cluster.submit("n1")
    counts = cluster.counts().values()
    assert sum(counts) == 20
    assert max(counts) - min(counts) <= 1


def test_single_jobs_on_an_idle_cluster_go_round() -> None:
    cluster = Cluster(3)
    ran = Counter[str]()
    for _ in range(9):
        ticket = cluster.submit("n1")
        ((name, id),) = cluster.where(ticket)
        ran[name] += 1
        cluster.finish(name, id)
    assert ran == {"n1": 3, "n2": 3, "n3": 3}


def test_higher_priority_is_dispatched_first_and_then_the_older() -> None:
    cluster = Cluster(1, slots=1)
    first = cluster.submit("n1")
    low, high, high_later = (cluster.submit("n1", f"priority={p} sh true") for p in (-5, 9, 9))
    order = [first]
    while running := cluster.nodes["n1"].running:
        (id,) = running
        order.append(id[0])
        cluster.finish("n1", id)
    assert order[1:] == [first, high, high_later, low]


def test_a_job_that_became_ready_late_begins_before_those_that_arrived_after_it() -> None:
    """As if they all waited at the balancer; or the reduces of the first would wait for the maps of the last."""
    cluster = Cluster(1, slots=1)
    first = cluster.submit("n1", "sh true")
    reduce = cluster.submit("n1", f"after={first} sh true")
    later = [cluster.submit("n1", "sh true") for _ in range(3)]
    begun: list[str] = []
    while cluster.nodes["n1"].running:
        (id,) = cluster.nodes["n1"].running
        begun.append(id[0])
        cluster.finish("n1", id)
        if len(begun) == 1:
            explained = cluster.say("n1", f"explain {later[1]}")
            assert explained is not None
            assert "behind 1 job waiting there" in explained
    assert begun == [first, later[0], reduce, *later[1:]], "the slot was taken before the ledger had heard of the first"


def test_higher_priority_is_leased_first_when_it_waits_at_the_balancer() -> None:
    cluster = Cluster(1, slots=1, periods=PERIODIC)
    low, high = cluster.submit("n1", "priority=-1 sh true"), cluster.submit("n1", "priority=1 sh true")
    cluster.advance(5)
    dispatched = [
        lease.ticket for _, message in cluster.sent if isinstance(message, Dispatch) for lease in message.items
    ]
    assert dispatched == [high, low]


def test_a_backlog_is_bounded_and_the_rest_stays_at_the_balancer() -> None:
    cluster = Cluster(1, slots=2, periods=attrs.evolve(PERIODS, backlog_max=3))
    for _ in range(10):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 5}
    assert cluster.finish_all() == 10


def test_a_job_goes_only_to_nodes_that_allow_its_kind() -> None:
    cluster = Cluster()
    cluster.add_node("n1", kinds=("sleep",))
    ticket = cluster.submit("n1")
    assert cluster.say("n1", f"status {ticket}").split()[2] == "state=queued"  # type: ignore[union-attr]
    cluster.add_node("n2", kinds=("sh",))
    assert [name for name, _ in cluster.where(ticket)] == ["n2"]


def test_a_job_that_needs_more_slots_than_any_node_has_waits_and_holds_nobody_up() -> None:
    cluster = Cluster(1, slots=2)
    wide, narrow = cluster.submit("n1", "slots=3 sh true"), cluster.submit("n1")
    assert cluster.where(wide) == []
    assert len(cluster.where(narrow)) == 1


def test_a_wide_job_is_not_overtaken_on_its_node() -> None:
    cluster = Cluster(1, slots=2)
    first, wide, last = cluster.submit("n1"), cluster.submit("n1", "slots=2 sh true"), cluster.submit("n1")
    assert cluster.where(wide) == cluster.where(last) == []
    cluster.finish("n1", (first, 1))
    assert len(cluster.where(wide)) == 1


def test_a_node_without_slots_takes_jobs_in_and_runs_none() -> None:
    cluster = Cluster(1, slots=0)
    ticket = cluster.submit("n1")
    assert cluster.where(ticket) == []
    cluster.add_node("n2")
    assert [name for name, _ in cluster.where(ticket)] == ["n2"]


def test_periodic_rounds_run_on_the_timer_alone_and_hand_out_at_most_the_limit() -> None:
    cluster = Cluster(2, slots=100, periods=attrs.evolve(PERIODIC, jobs_per_round_max=7))
    for _ in range(20):
        cluster.submit("n1")
    assert sum(cluster.counts().values()) == 0
    for given in (7, 14, 20):
        cluster.advance(5)
        assert sum(cluster.counts().values()) == given


def test_periodic_results_travel_with_the_timed_exchange() -> None:
    cluster = Cluster(2, slots=1, periods=PERIODIC)
    tickets = [cluster.submit("n1"), cluster.submit("n1")]
    cluster.advance(5)
    cluster.sent.clear()
    cluster.finish_all()
    assert not any(isinstance(message, Result) for _, message in cluster.sent), "nothing is pushed in periodic mode"
    cluster.advance(6)
    kinds = {type(message) for _, message in cluster.sent}
    assert RequestOfRes in kinds
    assert kinds & {Result, ResReq}
    for ticket in tickets:
        assert "state=succeeded" in (cluster.say("n1", f"result {ticket}") or "")


def test_waiting_jobs_move_from_a_busy_node_to_an_idle_one() -> None:
    cluster = Cluster(1, slots=1)
    tickets = [cluster.submit("n1") for _ in range(9)]
    cluster.add_node("n2", slots=1)
    cluster.advance(2)
    counts = cluster.counts()
    assert abs(counts["n1"] - counts["n2"]) <= 1, counts
    assert cluster.finish_all() == len(tickets)
    assert all(starts == 1 for starts in cluster.starts.values()), "a moved job ran twice"


def test_a_begun_job_is_never_moved() -> None:
    cluster = Cluster(1, slots=4)
    for _ in range(4):
        cluster.submit("n1")
    cluster.add_node("n2", slots=4)
    cluster.advance(5)
    assert cluster.counts() == {"n1": 4, "n2": 0}


@pytest.mark.parametrize("slots", [(1, 1, 1), (5, 7, 3), (2, 8)])
def test_a_job_is_never_dispatched_to_a_node_while_another_is_less_loaded(slots: tuple[int, ...]) -> None:
    cluster = Cluster()
    for number, count in enumerate(slots, 1):
        cluster.add_node(f"n{number}", slots=count)
    counts = dict.fromkeys(cluster.nodes, 0)
    for _ in range(40):
        before = dict(counts)
        cluster.submit("n1")
        counts = cluster.counts()
        (chosen,) = (name for name in counts if counts[name] > before[name])
        level = {name: (before[name] + 1) / node.slots for name, node in cluster.nodes.items()}
        assert level[chosen] == min(level.values())


def test_an_idle_node_that_cannot_run_what_waits_does_not_keep_it_from_another() -> None:
    cluster = Cluster(1, slots=1)
    for _ in range(9):
        cluster.submit("n1")
    cluster.add_node("n2", slots=1, kinds=("sleep",))
    cluster.add_node("n3", slots=1)
    cluster.advance(3)
    counts = cluster.counts()
    assert counts["n2"] == 0
    assert abs(counts["n1"] - counts["n3"]) <= 1, counts


def test_wide_jobs_that_wait_are_moved_too() -> None:
    cluster = Cluster(1, slots=4)
    for _ in range(4):
        cluster.submit("n1", "slots=4 sh true")
    cluster.add_node("n2", slots=4)
    cluster.advance(3)
    assert cluster.counts() == {"n1": 2, "n2": 2}


def test_nothing_is_called_back_for_a_node_that_has_no_room_for_it() -> None:
    """By slots the larger node has less to do, but its backlog is full: the job would come back where it was."""
    cluster = Cluster(periods=attrs.evolve(PERIODS, backlog_max=2))
    cluster.add_node("n1", slots=3)
    cluster.add_node("n2", slots=7)
    for _ in range(14):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 5, "n2": 9}
    cluster.advance(1)
    assert not any(isinstance(message, Recall) for _, message in cluster.sent)


def test_nothing_is_handed_to_a_node_that_is_given_up_at_the_same_moment() -> None:
    """A lease that nobody was ever sent would count as a crash."""
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, eager=False, round_s=16.0, info_s=2.0))
    cluster.frozen = frozenset({"n1"})
    ticket = cluster.submit("n1", "crash_limit=1 sh true")
    cluster.advance(16.0)  # a round is due, and a look for who has been silent for 15 s
    assert cluster.balancer is not None
    numbers = cluster.balancer.machine.statistics()
    assert (numbers["nodes_lost"], numbers["attempts_leased_total"]) == (1, 0)
    assert len(cluster.balancer.machine._ledger.queue.heads()) == 1, f"{ticket} is queued"


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "random"])
@pytest.mark.parametrize("seed", range(20))
def test_whoever_would_be_chosen_among_all_is_chosen_without_looking_at_all(seed: int, policy: str) -> None:
    chance, terms = random.Random(seed), Terms(now=9.0, backlog_max=4)
    placement = POLICIES[policy](chance)
    nodes = [
        Node(f"n{number}", NodeRecord(f"n{number}", "aaaaaa", "b", slots, ("sh",)), 0.0, Load(f"n{number}", slots, 0))
        for number, slots in enumerate(chance.choices((1, 2, 7), k=9))
    ]
    for node in nodes:
        node.load.count = node.load.taken = chance.randrange(6)
        node.load.mean_s, node.load.ended_at = chance.choice((0.001, 0.01, None)), 9.0
        node.weight_bytes = chance.choice((0, WEIGHT_BYTES_MAX - 10))
        node.leases = dict.fromkeys(("held",) if node.load.count else ())  # type: ignore[arg-type]
    contests = {slots: Contest(nodes, ("sh", slots), placement, terms) for slots in (1, 2)}
    for _ in range(60):
        weight, slots, kept = chance.choice((5, 50)), chance.choice((1, 2)), {chance.choice(nodes).id}
        with_room = [
            node
            for node in nodes
            if weight <= room_bytes(node) and placement.room(node.load, slots, terms) and node.id not in kept
        ]
        expected = min(with_room, key=lambda node: placement.rank(node.load, terms), default=None)
        chosen = contests[slots].first_with_room(weight, kept)
        assert chosen is expected
        if chosen is not None:
            placement.chosen(chosen.load)
            chosen.load.count += 1
            chosen.load.given += 1
            chosen.load.taken += slots
            chosen.weight_bytes += weight
            chosen.leases["given"] = None  # type: ignore[assignment]


def test_the_balancer_gathers_for_longer_the_more_every_node_has_and_not_where_one_has_little() -> None:
    cluster = Cluster(2, slots=1)
    waited_s, given = 0.0, 0
    for plenty, wait_s in reversed(PLENTY):
        for _ in range(given, 2 * (1 + plenty)):
            assert cluster.gather_s == waited_s
            cluster.submit("n1")
        waited_s, given = wait_s, 2 * (1 + plenty)
        assert cluster.gather_s == waited_s
    (id,) = cluster.nodes["n2"].running
    cluster.finish("n2", id)
    assert cluster.gather_s == PLENTY[1][1]


def test_the_first_job_is_moved_at_once_and_the_next_after_a_while() -> None:
    """A slot may stand idle while a job waits elsewhere; but counts that change all the time are not chased."""
    cluster = Cluster(1, slots=1)
    for _ in range(8):
        cluster.submit("n1")
    cluster.advance(LEVEL_PERIOD_S)
    cluster.add_node("n2", slots=1)
    cluster.advance(0.0)
    assert cluster.counts() == {"n1": 4, "n2": 4}
    cluster.add_node("n3", slots=1)
    cluster.advance(LEVEL_PERIOD_S - 0.001)
    assert cluster.counts()["n3"] == 0
    cluster.advance(0.001)
    assert cluster.counts() == {"n1": 3, "n2": 3, "n3": 2}
