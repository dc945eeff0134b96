"""What is made of a workload and of an event log: each measure against a case that was computed by hand."""

import math
import random
import statistics
from typing import Any

import pytest

from analysis.intervals import median_interval, paired, quantile
from analysis.loads import LOADS, lower_bound_s, scaled, share_of_a_slot
from analysis.measures import measure, quantiles, sampled
from analysis.story import Story, read, slots_of
from jobyard.cli import main as jobyard
from jobyard.workload import Request, write

# --- intervals ---------------------------------------------------------------------------------------------------


def test_of_twenty_values_the_interval_goes_from_the_sixth_to_the_fifteenth() -> None:
    assert median_interval(random.Random(1).sample(range(1, 21), 20)) == (10.5, 6, 15)


@pytest.mark.parametrize(("count", "skipped"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (30, 9)])
def test_as_many_values_are_left_out_as_the_sign_test_allows(count: int, skipped: int) -> None:
    """The table of the sign test at 5 %, two-sided; with fewer than six values nothing can be left out."""
    assert median_interval(range(count))[1:] == (skipped, count - 1 - skipped)


def test_the_interval_has_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(2000):
        _, low, high = median_interval([chance.expovariate(1.0) for _ in range(20)])
        held += low <= math.log(2) <= high
    assert held / 2000 == pytest.approx(0.9586, abs=0.012)


def test_differences_are_taken_seed_by_seed() -> None:
    theirs = [1.0, 10.0, 100.0, 1000.0, 2.0, 20.0]
    median, low, high = paired([1.1 * value for value in theirs], theirs)
    assert (median, low, high) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))


def test_a_quantile_between_two_values_is_between_them() -> None:
    assert quantile([0.0, 10.0], 0.25) == 2.5
    assert quantile([7.0], 0.99) == 7.0
    assert quantile(list(range(101)), 1.0) == 100


# --- workloads ---------------------------------------------------------------------------------------------------


def test_the_lower_bound_is_the_work_the_longest_request_or_what_comes_late() -> None:
    work = [Request(0.0, (4.0,)), Request(0.0, (1.0, 1.0)), Request(0.0, (1.0, 1.0))]
    assert lower_bound_s(work, 2) == 4.0  # 8 s of work on 2 slots, and a task of 4 s
    assert lower_bound_s(work, 1) == 8.0
    assert lower_bound_s([*work, Request(5.0, (2.0, 2.0, 2.0))], 2) == 8.0  # 6 s of work that comes at 5 s
    assert lower_bound_s([Request(3.0, (1.0,), (2.0,)), Request(9.0, (1.0,))], 9) == 7.0  # from the first arrival
    assert lower_bound_s([Request(3.0, (1.0, 5.0), (2.0, 7.0))], 9) == 12.0  # a reduce waits for all maps


@pytest.mark.parametrize("seed", range(1, 21))
def test_no_task_of_the_pareto_load_is_more_than_two_percent_of_the_work_for_a_slot(seed: int) -> None:
    (pareto,) = (load for load in LOADS if load.name == "pareto")
    assert pareto.count == 2000
    assert share_of_a_slot(pareto.requests(seed), sum(pareto.slots)) <= 0.02


def test_loads_keep_the_slots_as_busy_as_they_say() -> None:
    for load in LOADS:
        if "% busy" in load.title:
            said = int(load.title.rpartition("busy")[0].split()[-2]) / 100
            after_s = 20.0 if load.name == "bursts" else 0.0  # the last burst has its time as well
            busy = [
                sum(one.work_s for one in made) / sum(load.slots) / (made[-1].at_s + after_s)
                for made in map(load.requests, range(1, 9))
            ]
            assert statistics.fmean(busy) == pytest.approx(said, rel=0.1), load.name


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_the_command_that_is_told_of_a_load_makes_it(load: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert jobyard(load.command(3).split()[1:]) == 0
    assert capfd.readouterr().out == "".join(write(load.requests(3)))


def test_a_scaled_workload_is_the_same_faster() -> None:
    assert scaled([Request(2.0, (4.0,), (6.0,))], 0.5) == [Request(1.0, (2.0,), (3.0,))]


# --- the event log -----------------------------------------------------------------------------------------------


def event(at_s: float, what: str, ticket: str | None = None, **fields: object) -> dict[str, object]:
    at = {"event": what, "at": f"2026-01-01T00:00:{at_s:06.3f}Z"}
    return {**at, **({"ticket": ticket} if ticket else {}), **fields}


def log() -> list[dict[str, object]]:
    """Three tasks of 4 s, 2 s and 2 s, on node a with one slot and b with two; b joins when a has two of them, and the
    second is moved to it. The third was submitted 1 s before it was told of."""
    return [
        event(0.0, "node.joined", node="a", id="1", slots=1),
        event(0.0, "node.joined", node="b", id="2", slots=2),
        event(9.0, "job.submitted", "x-1", kind="sleep", group="other-1"),
        event(9.0, "job.queued", "x-1", reason="submitted"),
        event(10.0, "job.submitted", "t-1", kind="sleep", group="load-1"),
        event(10.0, "job.queued", "t-1", reason="submitted"),
        event(10.0, "job.dispatched", "t-1", attempt=1, node="a"),
        event(10.0, "job.running", "t-1", attempt=1, node="a"),
        event(10.0, "job.submitted", "t-2", kind="sleep", group="load-2"),
        event(10.0, "job.queued", "t-2", reason="submitted"),
        event(10.0, "job.dispatched", "t-2", attempt=1, node="a"),
        event(10.5, "job.queued", "t-2", reason="returned"),
        event(12.0, "job.dispatched", "t-2", attempt=1, node="b"),
        event(12.0, "job.running", "t-2", attempt=1, node="b"),
        event(12.0, "job.submitted", "t-3", kind="sleep", group="load-3", age_s=1.0),
        event(12.0, "job.queued", "t-3", reason="submitted"),
        event(12.0, "job.dispatched", "t-3", attempt=1, node="b"),
        event(12.0, "job.running", "t-3", attempt=1, node="b"),
        event(14.0, "job.succeeded", "t-1", attempt=1, node="a", exit=0, seconds=4.0),
        event(14.0, "job.succeeded", "t-2", attempt=1, node="b", exit=0, seconds=2.0),
        event(14.0, "job.succeeded", "t-3", attempt=1, node="b", exit=0, seconds=2.0),
    ]


WORK = [Request(0.0, (4.0,)), Request(0.0, (2.0,)), Request(1.0, (2.0,))]


def told() -> Story:
    return read(log(), slots_of(log()), "load")


def test_a_story_has_arrivals_ends_counts_and_moves() -> None:
    found = told()
    assert (found.nodes, found.slots) == (("a", "b"), (1, 2))
    assert [(one.number, one.arrived_s, one.ended_s) for one in found.requests] == [(1, 0, 4), (2, 0, 4), (3, 1, 4)]
    assert [(one.at_s, one.counts, one.running, one.waiting) for one in found.moments] == [
        (0.0, (2, 0), 1, 1),
        (0.5, (1, 0), 1, 1),
        (2.0, (1, 2), 3, 0),
        (4.0, (0, 0), 0, 0),
    ]
    assert (found.jobs, found.moved) == (3, 1)


def test_each_measure_of_a_run_that_was_computed_by_hand() -> None:
    figures = measure(told(), WORK, messages=12)
    assert figures.mean_s == pytest.approx((4 + 4 + 3) / 3)
    assert figures.median_s == 4.0
    assert figures.p99_s == pytest.approx(4.0)
    assert figures.slowdown == pytest.approx((1 + 2 + 1.5) / 3)
    assert figures.makespan_s == 4.0
    assert figures.over_bound == 1.0  # the first task alone takes as long
    assert figures.spread == pytest.approx((2 * 0.5 + 1 * 1.5 + 0 * 2) / 4)
    assert figures.spread_max == 2.0
    assert figures.idle == pytest.approx(1 * 2 / 8)  # for two seconds one waited, and slots were free
    assert figures.moved == pytest.approx(1 / 3)
    assert figures.messages == 4.0


def test_messages_that_were_not_counted_are_no_figure() -> None:
    assert measure(told(), WORK, messages=None).messages is None


def test_a_request_is_over_when_its_last_task_is() -> None:
    events = log()
    for one in events:
        if one.get("group") == "load-2":
            one["group"] = "load-1"
        if one.get("group") == "load-3":
            one["group"] = "load-2"
    assert [(one.number, one.took_s) for one in read(events, slots_of(events), "load").requests] == [(1, 4), (2, 3)]


def test_a_run_that_is_not_over_is_not_measured() -> None:
    with pytest.raises(AssertionError, match="have not ended"):
        read(log()[:-1], slots_of(log()), "load")


def test_a_log_without_a_part_of_the_workload_is_not_measured() -> None:
    with pytest.raises(AssertionError, match="not all of the workload"):
        measure(told(), [*WORK, Request(2.0, (1.0,))], None)


def test_curves_go_from_the_first_to_the_last() -> None:
    curve = quantiles(told(), 4)
    assert curve == [3.0, 3.5, 4.0, 4.0, 4.0]
    assert [(one.at_s, one.counts) for one in sampled(told().moments, 5)] == [
        (0, (2, 0)), (1, (1, 0)), (2, (1, 2)), (3, (1, 2)), (4, (0, 0))
    ]  # fmt: skip
