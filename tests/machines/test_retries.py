"""Retries: what fails is tried again, later and later, and not for ever."""

import attrs
import pytest

from common.effects import Table
from common.model import Outcome, Reason, Verdict
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 7, 0.5)


def fail(cluster: Cluster, ticket: str, attempt: int, output: bytes = b"") -> None:
    outcome = Outcome(Verdict.FAILED, Reason.EXIT, 7, 0.5, stdout_bytes=len(output))
    cluster.finish("n1", (ticket, attempt), outcome=outcome, output=output)


def test_a_failed_attempt_is_followed_by_as_many_as_were_asked_for() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=2 sh false")
    for attempt in (1, 2, 3):
        fail(cluster, ticket, attempt)
        cluster.advance(10)
    reply = status(cluster, ticket)
    assert (field(reply, "state"), field(reply, "attempt"), field(reply, "exit")) == ("failed", "3", "7")
    assert len(cluster.starts) == 3


def test_a_job_without_retries_fails_at_once() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "sh false")
    fail(cluster, ticket, 1)
    assert state_of(cluster, ticket) == "failed"


def test_success_ends_the_trying() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=5 sh false")
    fail(cluster, ticket, 1)
    assert state_of(cluster, ticket) == "retrying"
    cluster.advance(2)
    cluster.finish("n1", (ticket, 2))
    assert state_of(cluster, ticket) == "succeeded"


def waits(seed: int, line: str, count: int) -> list[float]:
    """How long each retry of a job waits, to a millisecond."""
    cluster = Cluster()
    cluster.kill_balancer()
    cluster.seed = seed
    cluster.start_balancer()
    cluster.add_node("n1")
    ticket = cluster.submit("n1", line)
    found = []
    for attempt in range(1, count + 1):
        fail(cluster, ticket, attempt)
        since = cluster.now
        while not cluster.where(ticket):
            assert cluster.balancer is not None
            cluster.advance((cluster.balancer.machine.next_deadline() or 0) - cluster.now)
        found.append(round(cluster.now - since, 3))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_wait_doubles_up_to_five_minutes_within_a_quarter(seed: int) -> None:
    expected = [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    for waited, nominal in zip(waits(seed, "retries=9 backoff=10 sh false", 7), expected, strict=True):
        assert 0.75 * nominal <= waited <= 1.25 * nominal


def test_jobs_that_fail_together_do_not_come_back_together() -> None:
    assert len({wait for seed in range(8) for wait in waits(seed, "retries=1 backoff=100 sh false", 1)}) == 8


def test_a_back_off_above_five_minutes_stays_what_it_is() -> None:
    assert all(0.75 * 600 <= waited <= 1.25 * 600 for waited in waits(1, "retries=3 backoff=10m sh false", 3))


def test_a_retry_that_is_waited_for_survives_the_balancer() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 backoff=100 sh false")
    fail(cluster, ticket, 1)
    cluster.kill_balancer()
    cluster.advance(60)
    cluster.start_balancer()
    cluster.dial("n1")
    assert state_of(cluster, ticket) == "retrying"
    cluster.advance(66)
    assert cluster.where(ticket) == [("n1", (ticket, 2))]
    fail(cluster, ticket, 2)
    assert state_of(cluster, ticket) == "failed", "the count of failures survived, too"


def test_crashes_and_failures_are_counted_apart() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 crash_limit=3 sh false")
    for _ in range(2):
        cluster.kill_node("n1")
        cluster.restart_node("n1")
    ((_, (_, attempt)),) = cluster.where(ticket)
    assert attempt == 3
    fail(cluster, ticket, 3)
    assert state_of(cluster, ticket) == "retrying", "two crashes have used up no retry"
    cluster.advance(2)
    fail(cluster, ticket, 4)
    assert state_of(cluster, ticket) == "failed"


def test_what_is_remembered_of_attempts_expires_with_the_job_that_was_cancelled_after_them() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, retention_s=100.0))
    ticket = cluster.submit("n1", "retries=1 backoff=60 sh false")
    fail(cluster, ticket, 1)
    cluster.say("n1", f"cancel {ticket}")
    assert cluster.balancer is not None
    assert cluster.balancer.disk.tables[Table.ATTEMPTS]
    cluster.advance(300)
    assert not cluster.balancer.disk.tables[Table.ATTEMPTS]


def test_a_timeout_is_a_failure_and_is_retried() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 timeout=5 sleep 100")
    cluster.advance(5.1)
    assert state_of(cluster, ticket) == "retrying"
    cluster.advance(1.5)
    assert state_of(cluster, ticket) == "running"
    cluster.advance(5.1)
    reply = status(cluster, ticket)
    assert (field(reply, "state"), field(reply, "reason")) == ("failed", "timeout")


def test_a_cancelled_job_is_not_retried() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=5 sh false")
    cluster.say("n1", f"cancel {ticket}")
    fail(cluster, ticket, 1)
    cluster.advance(10)
    assert state_of(cluster, ticket) == "cancelled"
    assert len(cluster.starts) == 1


def test_a_job_that_waits_to_be_retried_can_be_cancelled() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=5 backoff=5m sh false")
    fail(cluster, ticket, 1)
    assert cluster.say("n1", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    cluster.advance(600)
    assert len(cluster.starts) == 1


def test_the_end_has_the_output_of_the_last_attempt_and_nothing_of_earlier_ones() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 sh false")
    fail(cluster, ticket, 1, b"first")
    cluster.advance(2)
    cluster.finish("n1", (ticket, 2))
    reply = cluster.say("n1", f"result {ticket}")
    assert reply is not None
    assert reply.endswith(" stdout=0 stderr=0 bytes=0\n\n")


def test_an_attempt_that_a_stopping_node_hands_back_is_neither_failure_nor_crash() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1", "retries=0 crash_limit=1 sh true")
    ((name, id),) = cluster.where(ticket)
    cluster.stop(name)
    cluster.advance(10.1)
    cluster.finish(name, id, outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 10.0))
    other = "n1" if name == "n2" else "n2"
    assert cluster.where(ticket) == [(other, (ticket, 2))]
    cluster.finish(other, (ticket, 2))
    assert state_of(cluster, ticket, other) == "succeeded"


def test_a_failure_that_is_reported_again_while_the_job_waits_changes_nothing() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 backoff=100 sh false")
    cluster.frozen = frozenset({"n1"})  # what the ledger says does not arrive
    fail(cluster, ticket, 1)
    cluster.frozen = frozenset()
    cluster.dial("n1")
    assert state_of(cluster, ticket) == "retrying"
    assert not cluster.nodes["n1"].disk.tables[Table.OUTCOMES]
    cluster.advance(126)
    assert cluster.where(ticket) == [("n1", (ticket, 2))]
