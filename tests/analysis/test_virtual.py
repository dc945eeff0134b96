"""The pure machines in virtual time: the same again, and what it takes is what links, disks and tasks take."""

import math

import pytest

from analysis import virtual
from analysis.loads import LOADS
from analysis.measures import Figures, measure
from analysis.story import Story, read, slots_of
from analysis.virtual import UNRECALLED, Run, Shelf
from balancer.placement import POLICIES
from common.effects import Delete, Put, Table
from jobyard.workload import YACS, Request, generate

NOISE_S = 0.0011  # the log has whole milliseconds


def story_of(run: Run) -> Story:
    return read(run.events, slots_of(run.events), run.name)


def figures(slots: tuple[int, ...], policy: str, requests: list[Request], seed: int = 1) -> Figures:
    run = virtual.run(slots, policy, seed, requests)
    return measure(story_of(run), requests, run.messages)


def load(name: str, count: int) -> list[Request]:
    (found,) = (load for load in LOADS if load.name == name)
    return found.requests(1)[:count]


def test_a_task_takes_its_time_and_two_trips_after_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "LATENCY_S", 0.03)
    monkeypatch.setattr(virtual, "COMMIT_S", 0.1)
    (found,) = story_of(virtual.run((1,), "level", 1, [Request(0.0, (2.0,))])).requests
    # To the ledger it came before the log begins; then: leased and on disk, there; begun at once, two seconds; back.
    assert found.took_s == pytest.approx(0.1 + 0.03 + 2.0 + 0.03, abs=NOISE_S)


def test_tasks_share_a_slot_one_after_the_other() -> None:
    found = figures((1,), "level", [Request(0.0, (1.0,)), Request(0.0, (1.0,))])
    assert found.mean_s == pytest.approx(1.5, abs=0.01)
    assert found.makespan_s == pytest.approx(2.0, abs=0.01)
    assert found.over_bound == pytest.approx(1.0, abs=0.005)
    assert found.idle == pytest.approx(0.0, abs=0.01)  # one waited for a second, and no slot was free


@pytest.mark.parametrize("policy", POLICIES)
def test_a_reduce_begins_when_the_last_map_has_ended(policy: str) -> None:
    run = virtual.run((2, 2), policy, 1, [Request(0.0, (1.0, 3.0), (2.0,))])
    (found,) = story_of(run).requests
    assert found.took_s == pytest.approx(5.0, abs=0.02)
    names = {event["ticket"]: event["name"] for event in run.events if event["event"] == "job.submitted"}
    order = [names[event["ticket"]] for event in run.events if event["event"] in ("job.running", "job.succeeded")]
    assert order == ["map", "map", "map", "map", "reduce", "reduce"]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_makes_the_same_run(policy: str) -> None:
    requests = list(generate(30, 1, YACS))
    assert virtual.run((2, 3), policy, 5, requests) == virtual.run((2, 3), policy, 5, requests)


def test_no_slot_has_two_tasks_and_no_task_is_lost() -> None:
    for policy in POLICIES:
        found = story_of(virtual.run((1, 2), policy, 1, load("bursts", 60)))
        assert found.jobs == len(found.requests) == 60
        assert max(moment.running for moment in found.moments) == 3


def test_without_recall_the_spread_grows() -> None:
    requests = load("pareto", 300)
    recalled, left = figures((5, 7, 3), "level", requests), figures((5, 7, 3), UNRECALLED, requests)
    assert recalled.moved > 0 == left.moved
    assert left.spread > 2 * recalled.spread
    assert recalled.idle < left.idle


def test_polls_are_no_messages_of_a_job() -> None:
    short, long = (figures((1,), "level", [Request(0.0, (seconds,))]) for seconds in (0.5, 2.5))
    assert short.messages == long.messages
    assert short.messages is not None
    assert 4 <= short.messages <= 8


def test_a_workload_that_never_ends_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "LASTS_S_MAX", 20.0)
    with pytest.raises(AssertionError, match="1 of 1 tasks never end"):
        virtual.run((1,), "level", 1, [Request(0.0, (30.0,))])


def test_the_shelf_keeps_its_keys_in_order() -> None:
    shelf = Shelf()
    shelf.commit([Put(Table.META, key, key) for key in (b"b1", b"a2", b"b3", b"a1", b"b2")])
    shelf.commit([Delete(Table.META, b"a2"), Delete(Table.META, b"zz"), Put(Table.META, b"b2", b"new")])
    assert [key for key, _ in shelf.scan(Table.META, limit=9)] == [b"a1", b"b1", b"b2", b"b3"]
    assert shelf.scan(Table.META, prefix=b"b", after=b"b1", limit=1) == [(b"b2", b"new")]
    assert shelf.scan(Table.META, prefix=b"b", limit=2, backwards=True) == [(b"b3", b"b3"), (b"b2", b"new")]
    assert shelf.scan(Table.META, prefix=b"b", after=b"b2", limit=9, backwards=True) == [(b"b1", b"b1")]
    assert (shelf.count(Table.META), shelf.get(Table.META, b"a2")) == (4, None)


def test_a_thousand_nodes_take_jobs() -> None:
    found = figures((1,) * 1000, "level", [Request(0.0, (1.0,)) for _ in range(2000)])
    assert found.makespan_s == pytest.approx(2.0, abs=0.2)
    assert not math.isnan(found.spread)
