"""Life without the balancer: which jobs a node runs by itself, and when; how often; and what the ledger makes of it."""

import pytest

from common.effects import Table
from common.messages import Dispatch, Jobs
from common.model import Outcome, Reason, Verdict, ticket_key
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import Cluster

FALLBACK_S = 10.0
FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.1)


def alone(slots: int = 1, **settings: float | None) -> Cluster:
    """A node whose balancer has just gone."""
    cluster = Cluster(1, slots=slots, **{"fallback_s": FALLBACK_S, **settings})  # type: ignore[arg-type]
    cluster.kill_balancer()
    return cluster


def back(cluster: Cluster, *, volume_lost: bool = False) -> None:
    cluster.start_balancer(volume_lost=volume_lost)
    cluster.dial("n1")


def running(cluster: Cluster) -> list[tuple[str, int]]:
    return sorted(cluster.nodes["n1"].running)


def test_after_a_while_without_a_balancer_a_node_runs_what_it_takes_in() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    cluster.advance(FALLBACK_S - 0.1)
    assert running(cluster) == []
    cluster.advance(0.2)
    assert running(cluster) == [(ticket, 1)]
    assert status(cluster, ticket).startswith(f"OK {ticket} state=running attempt=1 reason=running")
    cluster.finish("n1", (ticket, 1))
    reply = status(cluster, ticket)
    assert (field(reply, "state"), field(reply, "attempt"), field(reply, "node")) == ("succeeded", "1", "n1")


def test_who_waits_is_told_the_end_and_the_output_by_the_node_alone() -> None:
    cluster = alone()
    query = cluster.ask("n1", "run sh true")
    cluster.advance(FALLBACK_S)
    ((ticket, attempt),) = running(cluster)
    cluster.finish("n1", (ticket, attempt), output=b"hello")
    reply = cluster.nodes["n1"].replies[query]
    assert reply.startswith(b"OK " + ticket.encode() + b" state=succeeded")
    assert reply.endswith(b"hello\n")


def test_off_means_that_nothing_runs() -> None:
    cluster = alone(fallback_s=None)
    ticket = cluster.submit("n1", "sh true")
    cluster.advance(1000)
    assert running(cluster) == []
    assert field(status(cluster, ticket), "reason") == "balancer_unreachable"


def test_a_job_that_was_ever_written_to_a_link_waits_for_the_balancer_also_after_a_restart() -> None:
    cluster = Cluster(1, slots=0, fallback_s=FALLBACK_S)
    sent = cluster.submit("n1", "sh true")
    cluster.kill_balancer()
    unsent = cluster.submit("n1", "sh true")
    cluster.kill_node("n1")
    cluster._down["n1"].slots = 2
    cluster.restart_node("n1", dial=False)
    cluster.advance(FALLBACK_S)
    assert running(cluster) == [(unsent, 1)]
    assert state_of(cluster, sent) == "queued"


def test_a_job_sent_over_a_link_that_broke_before_it_was_acknowledged_is_not_run_here() -> None:
    cluster = Cluster(1, slots=1, fallback_s=FALLBACK_S)
    cluster.busy("balancer")
    ticket = cluster.submit("n1", "sh true")
    cluster.kill_balancer()
    cluster.advance(FALLBACK_S)
    assert running(cluster) == []
    assert state_of(cluster, ticket) == "queued"


@pytest.mark.parametrize(
    "line",
    ["key=k sh true", "array=1-3 sh true", "slots=2 sh true", "after=aaaaab-1 sh true", "delay=1h sh true"],
)
def test_what_only_the_ledger_can_decide_is_left_to_it(line: str) -> None:
    cluster = alone()
    cluster.submit("n1", line)
    cluster.advance(60)
    assert running(cluster) == []


def test_a_kind_that_this_boot_does_not_run_is_left_alone() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    cluster.kill_node("n1")
    cluster._down["n1"].kinds = ("sleep",)
    cluster.restart_node("n1", dial=False)
    cluster.advance(FALLBACK_S)
    assert running(cluster) == []
    assert state_of(cluster, ticket) == "queued"


def test_a_dependency_that_is_held_as_succeeded_is_enough_and_a_failed_one_is_not() -> None:
    cluster = alone(slots=2)
    good, bad = cluster.submit("n1", "sh true"), cluster.submit("n1", "sh false")
    after_good, after_bad = cluster.submit("n1", f"after={good} sh true"), cluster.submit("n1", f"after={bad} sh true")
    cluster.advance(FALLBACK_S)
    assert running(cluster) == [(good, 1), (bad, 1)]
    cluster.finish("n1", (bad, 1), outcome=FAILED)
    cluster.finish("n1", (good, 1))
    cluster.advance(0)
    assert running(cluster) == [(after_good, 1)]
    assert state_of(cluster, after_bad) == "blocked"
    cluster.finish("n1", (after_good, 1))
    back(cluster)
    assert state_of(cluster, after_good) == "succeeded"
    assert field(status(cluster, after_bad), "reason") == "dependency"


def test_a_delay_is_kept_without_a_balancer() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "delay=30 sh true")
    cluster.advance(29.9)
    assert running(cluster) == []
    cluster.advance(0.2)
    assert running(cluster) == [(ticket, 1)]


@pytest.mark.parametrize("set_back_s", [0.0, 86400.0])
def test_a_delay_is_kept_over_a_restart_and_is_never_longer_than_it_was(set_back_s: float) -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "delay=30 sh true")
    cluster.advance(10)
    cluster.kill_node("n1")
    cluster.advance(5)
    cluster.wall_offset -= set_back_s
    cluster.restart_node("n1", dial=False)
    left_s = 30 if set_back_s else 15
    cluster.advance(left_s - 0.1)
    assert running(cluster) == []
    cluster.advance(0.2)
    assert running(cluster) == [(ticket, 1)]


def test_a_delay_that_no_float_can_hold_is_over_when_its_timer_is_due() -> None:
    """Where what is left of it was less than the clock could tell, a node took one step after another, without end."""
    for tenths in range(1, 60):
        cluster = alone()
        cluster.now += tenths * 0.7 + 1e-7
        ticket = cluster.submit("n1", f"delay={10 + tenths / 10}s sh true")
        cluster.advance(10 + tenths / 10 + 0.001)
        assert running(cluster) == [(ticket, 1)]


def test_higher_priority_runs_first_and_no_more_than_there_are_slots() -> None:
    cluster = alone(slots=2)
    low = [cluster.submit("n1", "sh true") for _ in range(3)]
    high = cluster.submit("n1", "priority=5 sh true")
    cluster.advance(FALLBACK_S)
    assert running(cluster) == sorted([(high, 1), (low[0], 1)])
    cluster.finish("n1", (high, 1))
    cluster.advance(0)
    assert running(cluster) == [(low[0], 1), (low[1], 1)]


def test_what_the_balancer_had_given_goes_first_and_runs_on() -> None:
    cluster = Cluster(1, slots=1, fallback_s=FALLBACK_S)
    given = [cluster.submit("n1", "sh true") for _ in range(2)]
    cluster.kill_balancer()
    own = cluster.submit("n1", "priority=9 sh true")
    cluster.advance(FALLBACK_S)
    assert running(cluster) == [(given[0], 1)]
    for ticket in (*given, own):
        assert running(cluster) == [(ticket, 1)]
        cluster.finish("n1", (ticket, 1))
        cluster.advance(0)
    back(cluster)
    assert [state_of(cluster, ticket) for ticket in (*given, own)] == ["succeeded"] * 3
    assert set(cluster.starts.values()) == {1}


def test_the_ledger_learns_an_end_with_the_job_and_nothing_runs_again() -> None:
    cluster = alone(slots=2)
    good, bad = cluster.submit("n1", "sh true"), cluster.submit("n1", "sh false")
    cluster.advance(FALLBACK_S)
    cluster.finish("n1", (good, 1), output=b"out")
    cluster.finish("n1", (bad, 1), outcome=FAILED)
    cluster.add_node("n2", dial=False)
    sent = len(cluster.sent)
    back(cluster)
    cluster.dial("n2")
    (jobs,) = [message for _, message in cluster.sent[sent:] if isinstance(message, Jobs)]
    assert [bool(item.ended) for item in jobs.items] == [True, True]
    assert not [message for _, message in cluster.sent[sent:] if isinstance(message, Dispatch)]
    assert (cluster.say("n2", f"result {good}") or "").endswith("out\n")
    reply = status(cluster, bad, "n2")
    assert (field(reply, "state"), field(reply, "exit"), field(reply, "attempt")) == ("failed", "3", "1")
    cluster.say("n2", f"retry {bad}")
    assert running(cluster) + sorted(cluster.nodes["n2"].running) == [(bad, 2)], "numbered on"


def test_an_end_that_the_ledger_has_not_acknowledged_is_told_after_a_restart_too() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    cluster.advance(FALLBACK_S)
    cluster.finish("n1", (ticket, 1))
    cluster.kill_node("n1")
    cluster.restart_node("n1", dial=False)
    back(cluster)
    assert cluster.balancer is not None
    assert list(cluster.balancer.disk.tables[Table.ENDED]) == [ticket_key(ticket)]
    assert cluster.starts == {(ticket, 1): 1}


def test_an_end_that_the_ledger_has_not_acknowledged_never_expires() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    cluster.advance(FALLBACK_S)
    cluster.finish("n1", (ticket, 1))
    cluster.advance(cluster.periods.retention_s + 10)
    cluster.store_level("n1", 0.65)
    cluster.advance(10)
    assert state_of(cluster, ticket) == "succeeded"
    cluster.store_level("n1", 0.1)
    back(cluster)
    cluster.advance(10)
    assert "EXPIRED" in status(cluster, ticket)


def test_a_lease_is_on_disk_before_its_attempt_begins_and_is_reported_with_the_job() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    cluster.advance(FALLBACK_S)
    sent = len(cluster.sent)
    back(cluster)
    (jobs,) = [message for _, message in cluster.sent[sent:] if isinstance(message, Jobs)]
    assert [(item.ticket, item.attempt, item.boot_id) for item in jobs.items] == [
        (ticket, 1, cluster.nodes["n1"].who.boot_id)
    ]
    assert running(cluster) == [(ticket, 1)]
    assert state_of(cluster, ticket) == "running"
    cluster.finish("n1", (ticket, 1))
    assert state_of(cluster, ticket) == "succeeded"
    assert cluster.starts == {(ticket, 1): 1}


def test_a_link_that_opens_between_lease_and_beginning_runs_the_job_once() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    node = cluster.nodes["n1"]
    cluster.now += FALLBACK_S
    cluster._step_node(node)  # leases; it would begin in the next step
    assert running(cluster) == []
    back(cluster)
    cluster.advance(1)
    assert running(cluster) == [(ticket, 1)]
    cluster.finish("n1", (ticket, 1))
    assert cluster.starts == {(ticket, 1): 1}


def test_what_was_leased_and_has_not_begun_when_the_node_stops_is_not_leased_any_more() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "crash_limit=1 sh true")
    cluster.now += FALLBACK_S
    cluster._step_node(cluster.nodes["n1"])  # leases; it would begin in the next step
    cluster.stop("n1")
    assert cluster.starts == {}, "it begins, and nobody is there to hear how it ends"
    cluster.kill_node("n1")
    cluster.restart_node("n1", dial=False)
    back(cluster)
    cluster.finish("n1", (ticket, 1))
    assert state_of(cluster, ticket) == "succeeded"


def test_an_attempt_that_was_lost_with_its_boot_counts_as_a_crash_and_the_next_is_numbered_on() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "sh true")
    last = cluster.submit("n1", "crash_limit=1 sh true")
    cluster.advance(FALLBACK_S)
    cluster.kill_node("n1")
    cluster.restart_node("n1", dial=False)
    cluster.advance(FALLBACK_S)
    assert running(cluster) == [(last, 1)], "no second attempt without the ledger"
    cluster.kill_node("n1")
    cluster.restart_node("n1", dial=False)
    back(cluster)
    assert running(cluster) == [(ticket, 2)]
    assert field(status(cluster, last), "reason") == "crash_limit"
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["attempts_crashed_total"] == 2


def test_a_failure_that_has_retries_left_waits_for_the_ledger() -> None:
    cluster = alone()
    ticket = cluster.submit("n1", "retries=1 backoff=1 sh false")
    cluster.advance(FALLBACK_S)
    cluster.finish("n1", (ticket, 1), outcome=FAILED)
    cluster.advance(60)
    assert state_of(cluster, ticket) == "queued"
    back(cluster)
    assert state_of(cluster, ticket) == "retrying"
    cluster.advance(2)
    assert running(cluster) == [(ticket, 2)]


def test_a_lost_ledger_changes_nothing_for_what_was_run_without_it() -> None:
    cluster = alone(slots=2)
    ended, runs = cluster.submit("n1", "sh true"), cluster.submit("n1", "sh true")
    cluster.advance(FALLBACK_S)
    cluster.finish("n1", (ended, 1))
    back(cluster, volume_lost=True)
    cluster.finish("n1", (runs, 1))
    cluster.add_node("n2")
    assert [state_of(cluster, ticket, "n2") for ticket in (ended, runs)] == ["succeeded", "succeeded"]
    assert set(cluster.starts.values()) == {1}


def test_a_job_that_nobody_else_knows_can_be_cancelled_without_a_balancer() -> None:
    cluster = alone()
    runs, waits, keyed = (cluster.submit("n1", f"{key}sh true") for key in ("", "", "key=k "))
    cluster.advance(FALLBACK_S)
    assert cluster.say("n1", f"cancel {runs}") == f"OK {runs} state=cancelled\n"
    assert cluster.say("n1", f"cancel {waits}") == f"OK {waits} state=cancelled\n"
    assert [kill.ticket for kill in cluster.nodes["n1"].killed] == [runs]
    cluster.finish("n1", (runs, 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 0.1))
    query = cluster.ask("n1", f"cancel {keyed}")
    cluster.advance(6)
    assert cluster.nodes["n1"].replies[query].startswith(b"ERR UNAVAILABLE")
    assert running(cluster) == []
    back(cluster)
    cluster.add_node("n2")
    assert [state_of(cluster, ticket, "n2") for ticket in (runs, waits)] == ["cancelled", "cancelled"]
    assert set(cluster.starts) == {(runs, 1), (keyed, 1)}
    cluster.say("n1", f"retry {runs}")
    cluster.advance(1)
    assert (runs, 2) in cluster.starts, "numbered on"


def test_a_draining_node_gives_itself_nothing() -> None:
    cluster = alone()
    cluster.submit("n1", "sh true")
    cluster.say("n1", "drain")
    cluster.advance(60)
    assert running(cluster) == []
    cluster.say("n1", "undrain")
    cluster.advance(1)
    assert len(running(cluster)) == 1


def test_a_thousand_jobs_are_run_through_without_a_balancer() -> None:
    cluster = alone(slots=4)
    tickets = [cluster.submit("n1", "sleep 0") for _ in range(1200)]
    cluster.advance(FALLBACK_S)
    assert state_of(cluster, tickets[-1]) == "succeeded"
    back(cluster)
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["jobs_succeeded_total"] == 1200
    assert cluster.nodes["n1"].disk.tables[Table.LIVE] == {}
