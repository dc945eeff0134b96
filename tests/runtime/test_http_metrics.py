"""Metrics: that they count what happened, and are well-formed by Prometheus' own parser and naming rules."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
import trio
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from common.codec import pack
from common.effects import Effects, Send
from common.messages import Dispatch, Lease
from common.model import Job, Outcome, Reason, Verdict
from common.runtime.driver import Step
from common.runtime.metrics import balancer_families, exposition, node_families
from common.runtime.tally import FAILURES_KEPT, SECONDS_KEPT, Histogram, Tally
from tests.machines.cluster import Cluster
from tests.runtime.asked_over_http import Yard

FAILED: Final = Outcome(Verdict.FAILED, Reason.EXIT, exit=3, seconds=0.25)
STORE_BYTES_MAX: Final = 1000
WANTED: Final = (
    "jobyard_jobs{state}", "jobyard_jobs_submitted_total", "jobyard_jobs_ended_total{reason,state}",
    "jobyard_attempts_total{outcome}", "jobyard_redispatched_total{reason}", "jobyard_stale_outcomes_total",
    "jobyard_queue_wait_seconds_bucket{le}", "jobyard_run_seconds_bucket{le}", "jobyard_commit_seconds_bucket{le}",
    "jobyard_oldest_queued_seconds", "jobyard_nodes{state}", "jobyard_node_slots{state}",
    "jobyard_node_last_seen_seconds{node}", "jobyard_store_bytes", "jobyard_store_max_bytes",
    "jobyard_event_loop_lag_seconds",
)  # fmt: skip


async def families(yard: Yard) -> dict[str, Metric]:
    response = await yard.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


async def values(yard: Yard) -> dict[str, float]:
    """Every sample, as `name{label="value"}`."""
    found: dict[str, float] = {}
    for family in (await families(yard)).values():
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def node_text() -> bytes:
    cluster = Cluster(1)
    figures = {"store_fraction": 0.5, "statistics": cluster.nodes["n1"].machine.statistics()}
    clients = {"connections": 1, "queries_total": 2, "connections_refused_total": 0}
    return exposition(node_families(figures, Tally(lambda: 0.0), STORE_BYTES_MAX, clients))


async def all_families(tmp_path: Path) -> list[Metric]:
    """Of both programs."""
    of_node = text_string_to_metric_families(node_text().decode())
    return [*(await families(Yard(tmp_path))).values(), *of_node]


# --- form --------------------------------------------------------------------------------------------------------


async def test_every_metric_that_was_asked_for_is_there_with_its_labels(tmp_path: Path) -> None:
    found = {
        f"{sample.name}{{{','.join(sorted(sample.labels))}}}" if sample.labels else sample.name
        for family in (await families(Yard(tmp_path))).values()
        for sample in family.samples
    }
    assert [name for name in WANTED if name not in found] == []


async def test_names_keep_the_rules_of_promtool(tmp_path: Path) -> None:
    """The rules of `promtool check metrics`, which is not asked for to run the tests."""
    units = "milliseconds|microseconds|minutes|hours|days|kilobytes|megabytes|kibibytes|mebibytes|percent|ms|kb|mb"
    for family in await all_families(tmp_path):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert family.documentation, f"{name} has no help"
        assert family.type in ("counter", "gauge", "histogram"), f"{name} is {family.type}"
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name), f"{name} is not in snake case"
        assert not re.search(rf"_({units})(_|$)", name), f"{name} has no base unit"
        assert not re.search(r"_(counter|gauge|histogram|summary)(_|$)", name), f"{name} says its type"
        if family.type != "counter":
            assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")) or name.endswith("build_info")
        for sample in family.samples:
            allowed = {"le"} if sample.name.endswith("_bucket") else set[str]()
            assert set(sample.labels) - allowed <= {"state", "reason", "outcome", "node", "program", "version"}
            if family.type == "counter":
                assert sample.name == name


async def test_histograms_add_up(tmp_path: Path) -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum == pytest.approx(7.65)


async def test_no_label_is_made_of_what_a_job_can_name(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    ticket = yard.cluster.submit("n1", "name=secret-name group=secret-group key=secret-key sh secret-command")
    yard.cluster.finish("n1", (ticket, 1), outcome=FAILED)
    text = (await yard.get("/metrics")).text
    assert "secret" not in text
    assert ticket not in text


async def test_nodes_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=2)
    for node in yard.machine._roster:
        object.__setattr__(node.record, "name", 'o"ne\n')
    found = [name for name in await values(yard) if name.startswith("jobyard_node_last_seen_seconds")]
    assert len(found) == 2
    assert {"id-n1" in name for name in found} == {True, False}


# --- what they count ---------------------------------------------------------------------------------------------


async def test_jobs_are_counted_in_the_state_that_they_are_in(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    delayed = yard.cluster.submit("n1", "delay=1h sh true")
    yard.cluster.submit("n1", f"after={delayed} sh true")
    for _ in range(3):
        yard.cluster.submit("n1")
    found = await values(yard)
    states = ("scheduled", "blocked", "queued", "dispatched", "running", "retrying", "cancelled")
    assert [found[f"jobyard_jobs{{state={state}}}"] for state in states] == [1, 1, 0, 2, 1, 0, 0]
    assert found["jobyard_jobs_submitted_total"] == 5
    assert found["jobyard_leases_total"] == 3


async def test_ends_and_attempts_are_counted_by_how_they_came(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=4)
    cluster = yard.cluster
    well, tried, badly = (cluster.submit("n1", f"{options}sh x") for options in ("", "retries=1 ", ""))
    cluster.finish("n1", (well, 1))
    for ticket in (tried, badly):
        cluster.finish("n1", (ticket, 1), outcome=FAILED)
    cluster.say("n1", f"cancel {cluster.submit('n1', 'delay=1h sh x')}")
    cluster.advance(5)
    cluster.finish("n1", (tried, 2))
    found = await values(yard)
    assert found["jobyard_jobs_ended_total{reason=done,state=succeeded}"] == 2
    assert found["jobyard_jobs_ended_total{reason=exit,state=failed}"] == 1
    assert found["jobyard_jobs_ended_total{reason=user,state=cancelled}"] == 1
    assert found["jobyard_attempts_total{outcome=succeeded}"] == 2
    assert found["jobyard_attempts_total{outcome=failed}"] == 2
    assert found["jobyard_attempts_total{outcome=cancelled}"] == 0
    assert found["jobyard_redispatched_total{reason=retry}"] == 1
    assert found["jobyard_run_seconds_count"] == 4
    assert found["jobyard_run_seconds_bucket{le=0.25}"] == 2
    assert found["jobyard_run_seconds_sum"] == pytest.approx(1.5)


async def test_what_is_lost_with_its_node_is_counted_as_crashed_and_its_late_outcome_as_stale(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=2, slots=1)
    cluster = yard.cluster
    cluster.submit("n1")
    cluster.submit("n1")
    frozen = cluster.nodes["n2"]
    cluster.frozen = frozenset({"n2"})
    assert frozen.link is not None
    (id,) = frozen.running
    cluster.cut(frozen.link, tell_balancer=True)
    cluster.advance(20)
    found = await values(yard)
    assert found["jobyard_nodes{state=lost}"] == 1
    assert found["jobyard_redispatched_total{reason=crashed}"] == 1
    assert found["jobyard_attempts_total{outcome=crashed}"] == 1
    cluster.finish("n1", next(iter(cluster.nodes["n1"].running)))
    cluster.finish("n1", next(iter(cluster.nodes["n1"].running)))
    cluster.frozen = frozenset()
    cluster.finish("n2", id)
    cluster.dial("n2")
    assert (await values(yard))["jobyard_stale_outcomes_total"] == 1


async def test_the_wait_of_a_job_is_from_its_submission_or_the_end_of_its_delay(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=1, slots=0)
    yard.cluster.submit("n1")
    yard.cluster.submit("n1", "delay=20s sh true")
    yard.cluster.advance(30)
    assert (await values(yard))["jobyard_oldest_queued_seconds"] == pytest.approx(30)
    yard.cluster.add_node("n2", slots=2)
    found = await values(yard)
    assert found["jobyard_queue_wait_seconds_count"] == 2
    assert found["jobyard_queue_wait_seconds_sum"] == pytest.approx(40, abs=0.1)
    assert found["jobyard_oldest_queued_seconds"] == 0


async def test_a_delay_is_no_time_in_the_queue(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=1, slots=0)
    yard.cluster.submit("n1", "delay=20s sh true")
    assert (await values(yard))["jobyard_oldest_queued_seconds"] == 0
    yard.cluster.advance(30)
    assert (await values(yard))["jobyard_oldest_queued_seconds"] == pytest.approx(10, abs=0.1)


def test_only_the_first_lease_of_a_job_ends_its_wait() -> None:
    tally = Tally(lambda: 107.0)
    job = pack(Job("sh", "true", submitted_wall=100.0))
    leases = tuple(Lease("aaaaaa-1", attempt, job) for attempt in (1, 2, 3))
    tally(Step((), Effects(actions=(Send(1, Dispatch(leases)),), told=(("x", None, {}),)), 0.0, 0.0))
    assert (sum(tally.queue_wait.counts), tally.queue_wait.sum) == (1, 7.0)


async def test_the_oldest_job_is_found_behind_any_number_that_were_cancelled(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=1, slots=0, awake_max=5)
    cancelled = [yard.cluster.submit("n1", f"priority={number % 3} sh true") for number in range(200)]
    yard.cluster.advance(10)
    yard.cluster.submit("n1", "priority=-5 sh true")
    yard.cluster.advance(10)
    yard.cluster.submit("n1", "priority=5 py m:f")
    assert (await values(yard))["jobyard_oldest_queued_seconds"] == pytest.approx(20)
    for ticket in cancelled:
        yard.cluster.say("n1", f"cancel {ticket}")
    assert (await values(yard))["jobyard_oldest_queued_seconds"] == pytest.approx(10)


async def test_slots_are_leased_free_or_away(tmp_path: Path) -> None:
    yard = Yard(tmp_path, nodes=3, slots=2)
    yard.cluster.submit("n1", "slots=2 sh true")
    (busy,) = (name for name, node in yard.cluster.nodes.items() if node.running)
    other = next(name for name in yard.cluster.nodes if name != busy)
    yard.cluster.kill_node(other)
    found = await values(yard)
    assert [found[f"jobyard_node_slots{{state={state}}}"] for state in ("busy", "free", "away")] == [2, 2, 2]


async def test_the_store_is_told_in_bytes(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.cluster.store_level("balancer", 0.5)
    found = await values(yard)
    assert found["jobyard_store_bytes"] == found["jobyard_store_max_bytes"] / 2 == 8 * 1024**3


async def test_commits_are_timed_where_something_was_written(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    before = (await values(yard))["jobyard_commit_seconds_count"]
    assert (await values(yard))["jobyard_commit_seconds_count"] == before
    yard.cluster.submit("n1")
    assert (await values(yard))["jobyard_commit_seconds_count"] > before


async def test_what_is_kept_of_seconds_and_failures_does_not_grow(tmp_path: Path) -> None:
    yard = Yard(tmp_path, slots=1)
    yard.tally.failures.extend({"n": n} for n in range(FAILURES_KEPT * 2))
    for _ in range(SECONDS_KEPT + 10):
        yard.cluster.now += 1
        yard.tally._turn()
    assert len(yard.tally.seconds) == SECONDS_KEPT
    assert len(yard.tally.failures) == FAILURES_KEPT


async def test_the_lag_of_the_event_loop_is_the_longest_of_late() -> None:
    tally = Tally(lambda: 0.0)
    for lag in (0.5, *[0.001] * 30):
        tally._lags.append(lag)
    assert tally.lag_s == 0.5
    tally._lags.extend([0.001] * 30)
    assert tally.lag_s == 0.001


def test_a_lease_whose_job_cannot_be_read_is_left_out_and_the_others_are_counted() -> None:
    tally = Tally(lambda: 15.0)
    leases = (Lease("aaaaaa-1", 1, b""), Lease("aaaaaa-2", 1, pack(Job("sh", "true", submitted_wall=10.0))))
    tally._count(Step((), Effects(actions=(Send(1, Dispatch(leases)),), told=(("x", None, {}),)), 0.0, 0.0))
    assert (sum(tally.queue_wait.counts), tally.queue_wait.sum) == (1, 5.0)


async def test_a_tally_that_fails_says_so_once_and_the_program_goes_on(autojump_clock: object) -> None:
    def fail() -> Any:
        raise RuntimeError("no census")

    wall = iter(range(100))
    tally = Tally(lambda: next(wall), fail)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            tally(Step((), Effects(told=(("job.submitted", "aaaaaa-1", {}),)), 0.0, 0.0))
        with trio.move_on_after(1):
            await tally.run_clock()
    assert [line["event"] for line in logs] == ["http.tally_failed"]
    assert tally.steps == 3


def test_a_node_tells_of_itself_under_names_of_its_own(tmp_path: Path) -> None:
    found: dict[str, Any] = {family.name: family for family in text_string_to_metric_families(node_text().decode())}
    assert found["jobyard_local_slots"].samples[0].value == 2
    assert found["jobyard_local_linked"].samples[0].value == 1
    of_the_cluster = {family.name for family in balancer_families(_no_figures(), Tally(lambda: 0.0), 1)}
    shared = {name for name in found if name.startswith("jobyard_")} & of_the_cluster
    assert all(not name.startswith(("jobyard_jobs", "jobyard_attempts", "jobyard_node")) for name in shared)


def _no_figures() -> dict[str, Any]:
    statistics = {"outcomes_stale_total": 0, "attempts_leased_total": 0}
    empty: dict[str, float] = {}
    return {
        "statistics": statistics, "jobs": empty, "nodes": empty, "slots": empty, "last_seen_s": empty,
        "oldest_queued_s": 0.0, "store_fraction": 0.0,
    }  # fmt: skip
