"""Placement policies: whom each of them chooses, and how much it lets a node have."""

import random
from collections import Counter

import attrs
import pytest

from balancer.placement import HIDDEN_S, POLICIES, Load, Placement, Terms
from common.errors import Refusal
from common.model import Outcome, Verdict
from common.requests import read_request
from common.why import Why
from tests.machines.asking import Asker
from tests.machines.cluster import PERIODS, Cluster
from tests.machines.test_explain import explained, row

LATE = [name for name, make in POLICIES.items() if make(random.Random(0)).late]
PLAIN = [name for name in LATE if name != "shortest-wait"]
AT_ONCE = Terms()
PERIODIC = attrs.evolve(PERIODS, eager=False)


def uneven(placement: str, **more: object) -> Cluster:
    """The slots of the reference configuration."""
    cluster = Cluster(placement=placement, **more)  # type: ignore[arg-type]
    for number, slots in enumerate((5, 7, 3), 1):
        cluster.add_node(f"n{number}", slots=slots)
    return cluster


def loads_of(*slots: int) -> list[Load]:
    return [Load(f"n{number}", count, 0) for number, count in enumerate(slots, 1)]


def give(placement: Placement, loads: list[Load], slots: int = 1, terms: Terms = AT_ONCE) -> Load | None:
    """One job, to whom the policy wants it."""
    with_room = [load for load in loads if placement.room(load, slots, terms)]
    chosen = min(with_room, key=lambda load: placement.rank(load, terms), default=None)
    if chosen is not None:
        placement.chosen(chosen)
        chosen.count, chosen.given, chosen.taken = chosen.count + 1, chosen.given + 1, chosen.taken + slots
    return chosen


def running(cluster: Cluster) -> dict[str, int]:
    return {name: len(node.running) for name, node in cluster.nodes.items()}


# --- all that bind late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", PLAIN)
def test_jobs_go_to_free_slots_alone_and_the_rest_waits_at_the_balancer(policy: str) -> None:
    cluster = uneven(policy)
    for _ in range(40):
        cluster.submit("n1")
    assert cluster.counts() == running(cluster) == {"n1": 5, "n2": 7, "n3": 3}
    assert cluster.finish_all() == 40
    assert all(starts == 1 for starts in cluster.starts.values())


@pytest.mark.parametrize("policy", PLAIN)
def test_a_slot_that_falls_free_gets_the_next_job_at_once(policy: str) -> None:
    cluster = uneven(policy)
    tickets = [cluster.submit("n1") for _ in range(17)]
    (id, *_) = cluster.nodes["n3"].running
    cluster.finish("n3", id)
    assert [name for name, _ in cluster.where(tickets[15])] == ["n3"]
    assert cluster.where(tickets[16]) == []


@pytest.mark.parametrize("policy", LATE)
def test_a_job_of_several_slots_needs_as_many_free(policy: str) -> None:
    placement, loads = POLICIES[policy](random.Random(1)), loads_of(5, 7, 3)
    for load, taken in zip(loads, (3, 3, 0), strict=True):
        load.count = load.taken = taken
    chosen = give(placement, loads, slots=4)
    assert chosen is loads[1]
    assert give(placement, loads, slots=4) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_job_of_several_slots_is_not_overtaken_for_ever(policy: str) -> None:
    cluster = uneven(policy)
    for _ in range(15):
        cluster.submit("n1")
    wide = cluster.submit("n1", "slots=3 sh true")
    narrow = [cluster.submit("n1") for _ in range(60)]
    chance = random.Random(3)
    for _ in range(40):
        name, id = chance.choice([(name, id) for name, node in cluster.nodes.items() for id in node.running])
        cluster.finish(name, id)
        if cluster.where(wide):
            break
    assert cluster.where(wide)
    assert (narrow[-1], 1) not in cluster.starts, "it was not the last"
    cluster.finish_all()
    assert set(cluster.starts.values()) == {1}


def test_a_node_is_kept_for_a_wide_job_only_from_those_that_come_after_it() -> None:
    cluster = Cluster(1, slots=2, placement="random")
    first = cluster.submit("n1")
    wide = cluster.submit("n1", "slots=2 sh true")
    later, urgent = cluster.submit("n1"), cluster.submit("n1", "priority=1 sh true")
    assert cluster.where(later) == []
    assert cluster.where(urgent) != []
    cluster.finish("n1", (first, 1))
    cluster.finish("n1", (urgent, 1))
    assert cluster.where(wide)
    assert cluster.where(later) == []


@pytest.mark.parametrize("policy", PLAIN)
def test_a_wide_job_keeps_nothing_of_a_node_that_it_cannot_run_on(policy: str) -> None:
    cluster = uneven(policy)
    for _ in range(15):
        cluster.submit("n1")
    cluster.submit("n1", "slots=6 sh true")
    later = cluster.submit("n1")
    (id, *_) = cluster.nodes["n3"].running
    cluster.finish("n3", id)
    assert [name for name, _ in cluster.where(later)] == ["n3"]


# --- between timed rounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", LATE)
def test_between_timed_rounds_a_node_has_as_much_ahead_as_it_will_get_through(policy: str) -> None:
    """Else each of its slots would run one job in a period, however short that is."""
    periods = attrs.evolve(PERIODIC, round_s=5.0, result_s=1.0, jobs_per_round_max=1000)
    cluster = Cluster(1, slots=2, placement=policy, periods=periods)
    for _ in range(300):
        cluster.submit("n1")
    cluster.advance(5)
    ahead = int(policy == "shortest-wait")
    assert cluster.counts() == {"n1": 2 + ahead}, "nothing has ended, so nothing is known of how long that takes"
    for id in list(cluster.nodes["n1"].running):
        cluster.finish("n1", id, outcome=Outcome(Verdict.SUCCEEDED, exit=0, seconds=1.0))
    cluster.advance(5)
    assert cluster.counts() == {"n1": 2 + 10}


# --- one by one ------------------------------------------------------------------------------------------------


def test_random_takes_any_node_with_free_slots_as_likely_as_any_other() -> None:
    placement = POLICIES["random"](random.Random(7))
    loads = loads_of(5, 7, 3, 9)
    loads[3].taken = loads[3].count = 9  # has no room
    chosen, follows = Counter[str](), Counter[tuple[str, str]]()
    last = ""
    for _ in range(9000):
        load = give(placement, loads)
        assert load is not None
        load.count, load.taken = load.count - 1, load.taken - 1
        chosen[load.node_id] += 1
        follows[last, load.node_id] += 1
        last = load.node_id
    assert set(chosen) == {"n1", "n2", "n3"}
    assert all(abs(count - 3000) < 200 for count in chosen.values()), chosen
    assert all(abs(count - 1000) < 150 for pair, count in follows.items() if pair[0]), follows


def test_random_does_not_favour_a_node_that_had_no_room_for_long() -> None:
    placement, loads = POLICIES["random"](random.Random(7)), loads_of(1000, 1000)
    firsts = Counter[str]()
    for _ in range(600):
        loads[0].taken = loads[0].slots
        for _ in range(5):
            give(placement, loads)
        loads[0].taken = 0
        load = give(placement, loads)
        assert load is not None
        firsts[load.node_id] += 1
        loads[1].taken = 0
    assert abs(firsts["n1"] - 300) < 75, firsts


def test_the_same_seed_places_the_same() -> None:
    def placed(seed: int) -> list[str]:
        placement, loads = POLICIES["random"](random.Random(seed)), loads_of(5, 7, 3)
        return [load.node_id for _ in range(15) if (load := give(placement, loads)) is not None]

    assert placed(3) == placed(3) != placed(4)


def test_round_robin_goes_on_from_the_last_node_used_and_passes_those_without_room() -> None:
    placement, loads = POLICIES["round-robin"](random.Random(0)), loads_of(5, 7, 3)
    order = [load.node_id for _ in range(15) if (load := give(placement, loads)) is not None]
    assert order == ["n1", "n2", "n3"] * 3 + ["n1", "n2"] * 2 + ["n2", "n2"]
    assert give(placement, loads) is None
    loads[0].taken -= 1
    loads[2].taken -= 1
    assert [load and load.node_id for load in (give(placement, loads), give(placement, loads))] == ["n3", "n1"]


def test_round_robin_goes_on_over_steps() -> None:
    cluster = Cluster(3, placement="round-robin")
    order = []
    for _ in range(6):
        ((name, id),) = cluster.where(cluster.submit("n1"))
        order.append(name)
        cluster.finish(name, id)
    assert order == ["n1", "n2", "n3"] * 2


def test_least_loaded_counts_free_slots_and_not_their_share() -> None:
    placement, loads = POLICIES["least-loaded"](random.Random(0)), loads_of(5, 7, 3)
    order = [load.node_id for _ in range(15) if (load := give(placement, loads)) is not None]
    assert order[:2] == ["n2", "n2"]
    assert Counter(order) == {"n1": 5, "n2": 7, "n3": 3}
    assert Counter(order[:6]) == {"n2": 4, "n1": 2}, "three free slots on each"


def test_shortest_wait_fills_free_slots_evenly_first() -> None:
    placement, loads = POLICIES["shortest-wait"](random.Random(0)), loads_of(4, 8)
    loads[0].ran(0.001, 0.0)  # fast, which does not matter as long as there are free slots
    order = Counter(load.node_id for _ in range(6) if (load := give(placement, loads)) is not None)
    assert order == {"n1": 2, "n2": 4}


def test_shortest_wait_gives_ahead_what_begins_within_a_round_trip() -> None:
    placement, (load,) = POLICIES["shortest-wait"](random.Random(0)), loads_of(2)
    load.ran(0.01, now=1.0)  # a slot falls free each 5 ms
    given = 0
    while give(placement, [load], terms=Terms(now=1.0)) is not None:
        given += 1
    assert given == 2 + HIDDEN_S / 0.005


@pytest.mark.parametrize("seconds", [0.2, 100.0, None])
def test_shortest_wait_gives_one_ahead_however_long_attempts_last_and_no_more(seconds: float | None) -> None:
    placement, (load,) = POLICIES["shortest-wait"](random.Random(0)), loads_of(2)
    if seconds is not None:
        load.ran(seconds, now=1.0)
    load.taken = load.count = 2
    assert give(placement, [load], terms=Terms(now=1.0)) is load
    assert give(placement, [load], terms=Terms(now=1.0)) is None


def test_by_shortest_wait_the_next_job_of_each_node_begins_without_a_round_trip() -> None:
    cluster = uneven("shortest-wait")
    for _ in range(40):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 5 + 1, "n2": 7 + 1, "n3": 3 + 1}
    (id, *_) = cluster.nodes["n3"].running
    cluster.busy("balancer")
    cluster.finish("n3", id)
    assert running(cluster) == {"n1": 5, "n2": 7, "n3": 3}
    cluster.free("balancer")
    assert cluster.finish_all() == 39


def test_by_shortest_wait_what_waits_on_a_node_that_is_stuck_is_called_back() -> None:
    cluster = Cluster(2, slots=1, placement="shortest-wait")
    for _ in range(4):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 2, "n2": 2}
    for _ in range(2):
        (id,) = cluster.nodes["n2"].running
        cluster.finish("n2", id)
    cluster.advance(0.2)
    assert running(cluster) == cluster.counts() == {"n1": 1, "n2": 1}


def test_shortest_wait_gives_no_more_ahead_of_a_node_on_which_nothing_has_ended_for_long() -> None:
    """Its slots have got long jobs, whatever the earlier ones were."""
    placement, (load,) = POLICIES["shortest-wait"](random.Random(0)), loads_of(2)
    load.ran(0.01, now=1.0)
    load.taken = load.count = 3
    assert give(placement, [load], terms=Terms(now=1.0 + HIDDEN_S / 4)) is not None
    assert give(placement, [load], terms=Terms(now=1.0 + 2 * HIDDEN_S)) is None


def test_no_more_is_given_ahead_than_may_wait_on_a_node() -> None:
    placement, (load,) = POLICIES["shortest-wait"](random.Random(0)), loads_of(2)
    load.ran(0.001, now=1.0)
    given = 0
    while give(placement, [load], terms=Terms(now=1.0, backlog_max=3)) is not None:
        given += 1
    assert given == 2 + 3


def test_shortest_wait_prefers_the_node_whose_slots_fall_free_faster() -> None:
    placement, loads = POLICIES["shortest-wait"](random.Random(0)), loads_of(2, 2)
    for load, seconds in zip(loads, (0.04, 0.01), strict=True):
        load.ran(seconds, now=1.0)
        load.taken = load.count = 2
    order = Counter(load.node_id for _ in range(5) if (load := give(placement, loads, terms=Terms(now=1.0))))
    assert order == {"n2": 4, "n1": 1}


def test_the_mean_run_time_follows_the_latest() -> None:
    (load,) = loads_of(1)
    for _ in range(50):
        load.ran(1.0, 0.0)
    assert load.mean_s == 1.0
    for _ in range(50):
        load.ran(0.1, 0.0)
    assert load.mean_s == pytest.approx(0.1, rel=0.05)


# --- moves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_move_leaves_nothing_to_move_back(policy: str) -> None:
    """Else a job would be sent to and fro for ever."""
    chance = random.Random(5)
    for _ in range(300):
        placement = POLICIES[policy](chance)
        loads = loads_of(*chance.choices((1, 2, 3, 5, 7), k=4))
        for load in loads:
            load.count = load.taken = chance.randrange(12)
            load.mean_s, load.ended_at = chance.choice((0.01, 0.3, None)), chance.uniform(0, 9)
        terms = Terms(now=9.0)
        for _ in range(200):
            move = next((move for move in placement.moves(loads, terms)), None)
            if move is None:
                break
            busy, idle = move
            assert busy is not idle
            busy.count, busy.taken = busy.count - 1, busy.taken - 1
            idle.count, idle.taken = idle.count + 1, idle.taken + 1
        else:
            raise AssertionError(f"{policy} moves for ever: {loads}")


@pytest.mark.parametrize("policy", LATE)
def test_what_waits_moves_to_a_free_slot(policy: str) -> None:
    placement, loads = POLICIES[policy](random.Random(0)), loads_of(1, 3, 1)
    for load, taken in zip(loads, (4, 1, 1), strict=True):
        load.count = load.taken = taken
    assert next(placement.moves(loads, Terms())) == (loads[0], loads[1])
    loads[1].taken = 3
    if policy != "shortest-wait":
        assert list(placement.moves(loads, Terms())) == []


# --- at run time -----------------------------------------------------------------------------------------------


def test_any_node_tells_which_policy_is_in_force_and_puts_another_in_force() -> None:
    cluster = Cluster(2, slots=1)
    assert cluster.say("n2", "placement") == "OK placement=level\n"
    assert cluster.say("n1", "PLACEMENT Least-Loaded") == "OK placement=least-loaded\n"
    assert cluster.say("n2", "placement") == "OK placement=least-loaded\n"
    for _ in range(5):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 1, "n2": 1}


def test_a_policy_takes_effect_with_the_same_step() -> None:
    cluster = Cluster(1, slots=1, placement="random")
    for _ in range(5):
        cluster.submit("n1")
    assert cluster.counts() == {"n1": 1}
    cluster.say("n1", "placement level")
    assert cluster.counts() == {"n1": 5}


def test_a_change_is_told_once_in_the_log_and_in_the_chronicle() -> None:
    cluster = Cluster(1)
    cluster.say("n1", "placement level")
    cluster.say("n1", "placement random")
    cluster.say("n1", "placement random")
    assert [note.fields for note in cluster.notes if note.event == "placement.changed"] == [
        {"placement": "random", "earlier": "level"}
    ]
    events = cluster.say("n1", "events") or ""
    assert events.count('"event":"placement.changed","placement":"random","earlier":"level"') == 1


def test_an_unknown_policy_is_refused_and_nothing_changes() -> None:
    cluster = Cluster(1)
    for words in ("fairest", "random level"):
        with pytest.raises(Refusal, match="level, random, round-robin, least-loaded, shortest-wait are allowed"):
            read_request(b"PLACEMENT", [], words.encode(), body_bytes=None, kinds=())
    assert Asker(cluster).say("placement", policy="fairest").startswith("ERR BAD_REQUEST there is no policy 'fairest'")
    assert cluster.say("n1", "placement") == "OK placement=level\n"


def test_after_a_start_the_setting_counts_again() -> None:
    cluster = Cluster(1, placement="round-robin")
    cluster.say("n1", "placement level")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    assert cluster.say("n1", "placement") == "OK placement=round-robin\n"


def test_what_waits_on_nodes_when_jobs_are_bound_late_runs_where_a_slot_falls_free() -> None:
    cluster = Cluster(2, slots=1)
    for _ in range(10):
        cluster.submit("n1")
    cluster.say("n1", "placement random")
    while ids := list(cluster.nodes["n2"].running):
        for id in ids:
            cluster.finish("n2", id)
        cluster.advance(0.2)
    assert cluster.counts() == {"n1": 1, "n2": 0}, "all but the one that has begun there has moved"


# --- explained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_job_that_waits_is_told_by_which_policy(policy: str) -> None:
    cluster = Cluster(1, slots=1, placement=policy, periods=attrs.evolve(PERIODS, backlog_max=0))
    cluster.submit("n1")
    code, lines = explained(cluster, cluster.submit("n1"))
    assert code == Why.NO_FREE_SLOT
    assert row(lines, "placement").startswith(f"{policy}: ")
    assert row(lines, "nodes").startswith("n1: busy: 1 running on 1 slot, 0 waiting there")


def test_a_node_that_is_kept_for_a_wider_job_is_told_to_be_kept() -> None:
    cluster = Cluster(1, slots=3, placement="least-loaded")
    cluster.submit("n1")
    wide, narrow = cluster.submit("n1", "slots=3 sh true"), cluster.submit("n1")
    code, lines = explained(cluster, narrow)
    assert code == Why.NO_FREE_SLOT
    assert row(lines, "nodes") == "n1: 2 free slots, kept for a job that goes first and needs more"
    assert row(explained(cluster, wide)[1], "nodes") == "n1: busy: 1 running on 3 slots, 0 waiting there"
