"""Delays and dependencies: a job is handed out when its time has come and what it waits for has succeeded."""

import attrs
import pytest

from common.model import Outcome, Reason, Verdict
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.5)
SOON_EXPIRED = attrs.evolve(PERIODS, retention_s=60.0)


# --- delay -----------------------------------------------------------------------------------------------------


def test_a_delayed_job_is_scheduled_until_its_moment_and_then_runs() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "delay=60 sh true")
    assert state_of(cluster, ticket) == "scheduled"
    cluster.advance(59.9)
    assert not cluster.where(ticket)
    cluster.advance(0.2)
    assert cluster.where(ticket)


def test_a_delay_goes_on_over_a_restart_of_the_balancer_and_counts_the_time_between() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "delay=60 sh true")
    cluster.kill_balancer()
    cluster.advance(50)
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(9)
    assert not cluster.where(ticket)
    cluster.advance(2)
    assert cluster.where(ticket)


def test_a_delay_that_passed_while_the_balancer_was_away_is_over_at_its_start() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "delay=60 sh true")
    cluster.kill_balancer()
    cluster.advance(100)
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(0.1)
    assert cluster.where(ticket)


def test_a_delay_is_never_longer_than_it_was_though_the_clock_is_set_back() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "delay=60 sh true")
    cluster.kill_balancer()
    cluster.wall_offset -= 86400
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(61)
    assert cluster.where(ticket)


def test_a_delay_counts_from_the_submission_and_not_from_the_ledgers_first_word_of_it() -> None:
    cluster = Cluster(1)
    cluster.kill_balancer()
    ticket = cluster.submit("n1", "delay=60 sh true")
    cluster.advance(50)
    cluster.store_level("n1", 0.1)  # from which the node learns the time
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(11)
    assert cluster.where(ticket)


def test_a_scheduled_job_can_be_cancelled() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "delay=60 sh true")
    assert cluster.say("n1", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    cluster.advance(100)
    assert not cluster.starts
    assert state_of(cluster, ticket) == "cancelled"


# --- after -----------------------------------------------------------------------------------------------------


def test_a_job_is_blocked_until_all_that_it_waits_for_have_succeeded() -> None:
    cluster = Cluster(2)
    first, second = cluster.submit("n1"), cluster.submit("n2")
    last = cluster.submit("n1", f"after={first},{second} sh true")
    assert state_of(cluster, last) == "blocked"
    cluster.finish(cluster.where(first)[0][0], (first, 1))
    assert state_of(cluster, last) == "blocked"
    cluster.finish(cluster.where(second)[0][0], (second, 1))
    assert cluster.where(last)


@pytest.mark.parametrize("ended", ["succeeded", "failed"])
def test_what_has_ended_before_counts_as_well(ended: str) -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    cluster.finish("n1", (first, 1), outcome=None if ended == "succeeded" else FAILED)
    last = cluster.submit("n1", f"after={first} sh true")
    if ended == "succeeded":
        assert cluster.where(last)
    else:
        assert field(status(cluster, last), "reason") == "dependency"


def test_a_failure_cancels_whoever_waits_for_it_and_whoever_waits_for_those() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    chain = [first]
    for _ in range(50):
        chain.append(cluster.submit("n1", f"after={chain[-1]} sh true"))
    cluster.finish("n1", (first, 1), outcome=FAILED)
    replies = [status(cluster, ticket) for ticket in chain[1:]]
    assert {field(reply, "state") for reply in replies} == {"cancelled"}
    assert {field(reply, "reason") for reply in replies} == {"dependency"}
    assert cluster.starts == {(first, 1): 1}


def test_a_cancelled_job_cancels_its_dependants() -> None:
    cluster = Cluster(1, slots=0)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.say("n1", f"cancel {first}")
    assert field(status(cluster, last), "reason") == "dependency"


def test_a_job_that_waits_for_a_ticket_of_a_node_that_was_never_met_is_cancelled() -> None:
    cluster = Cluster(1)
    last = cluster.submit("n1", "after=zzzzzz-1 sh true")
    assert field(status(cluster, last), "reason") == "dependency"


def test_a_job_that_waits_for_a_ticket_that_its_origin_never_issued_is_cancelled() -> None:
    cluster = Cluster(2)
    last = cluster.submit("n1", f"after={cluster.nodes['n2'].who.prefix}-99 sh true")
    assert field(status(cluster, last), "reason") == "dependency"


def test_a_job_of_an_origin_that_is_away_is_waited_for_and_not_taken_for_unknown() -> None:
    cluster = Cluster(2)
    cluster.kill_balancer()
    first = cluster.submit("n2")  # the ledger has never heard of it
    cluster.start_balancer()
    cluster.dial("n1")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.advance(5)
    assert state_of(cluster, last) == "blocked"
    cluster.dial("n2")
    cluster.finish_all()
    assert state_of(cluster, last) == "succeeded"


def test_the_origin_of_a_ticket_is_asked_once_however_many_jobs_wait_for_it() -> None:
    cluster = Cluster(2)
    never_issued = f"{cluster.nodes['n2'].who.prefix}-99"
    cluster.kill_node("n2")
    waiting = [cluster.submit("n1", f"after={never_issued} sh true") for _ in range(3)]
    assert {state_of(cluster, ticket) for ticket in waiting} == {"blocked"}
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 1
    cluster.restart_node("n2")
    assert {field(status(cluster, ticket), "reason") for ticket in waiting} == {"dependency"}


def test_an_expired_job_cannot_be_waited_for() -> None:
    cluster = Cluster(1, periods=SOON_EXPIRED)
    first = cluster.submit("n1")
    cluster.finish("n1", (first, 1))
    cluster.advance(70)
    last = cluster.submit("n1", f"after={first} sh true")
    assert field(status(cluster, last), "reason") == "dependency"


def test_what_has_succeeded_stays_ticked_off_when_its_record_has_expired() -> None:
    cluster = Cluster(1, periods=SOON_EXPIRED)
    early, late = cluster.submit("n1"), cluster.submit("n1", "delay=200 sh true")
    last = cluster.submit("n1", f"after={early},{late} sh true")
    cluster.finish("n1", (early, 1))
    cluster.advance(130)
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(80)
    cluster.finish_all()
    assert state_of(cluster, last) == "succeeded"


def test_blocked_jobs_go_on_waiting_over_a_restart_of_the_balancer() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    assert state_of(cluster, last) == "blocked"
    cluster.finish("n1", (first, 1))
    assert cluster.where(last)


def test_an_end_that_comes_while_the_balancer_is_down_unblocks_after_it() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.kill_balancer()
    cluster.finish("n1", (first, 1))
    cluster.start_balancer()
    cluster.dial("n1")
    assert cluster.where(last)


def test_jobs_that_wait_for_each_other_are_cancelled_and_not_waited_for_for_ever() -> None:
    cluster = Cluster(2)
    one, two = (f"{cluster.nodes[name].who.prefix}-1" for name in ("n1", "n2"))
    cluster.busy("balancer")
    assert cluster.submit("n1", f"after={two} sh true") == one
    assert cluster.submit("n2", f"after={one} sh true") == two
    cluster.free("balancer")
    assert {state_of(cluster, ticket) for ticket in (one, two)} == {"cancelled"}


def test_an_array_and_a_job_that_waits_for_its_element_are_cancelled_when_it_waits_for_the_job() -> None:
    cluster = Cluster(2)
    one, two = (f"{cluster.nodes[name].who.prefix}-1" for name in ("n1", "n2"))
    cluster.submit("n1", f"after={two}_1 sh true")
    cluster.submit("n2", f"after={one} array=1-2 sh true")
    assert {state_of(cluster, ticket) for ticket in (one, two)} == {"cancelled"}


def test_a_dependant_of_a_retrying_job_waits_for_its_success() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1", "retries=1 sh true")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.finish("n1", (first, 1), outcome=FAILED)
    assert state_of(cluster, last) == "blocked"
    cluster.advance(2)
    cluster.finish("n1", (first, 2))
    assert cluster.where(last)


def test_a_dependency_named_by_its_second_name_is_the_first_ones() -> None:
    cluster = Cluster(2, slots=1)
    first = cluster.submit("n1", "key=k sh true")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh true")
    assert second != first
    cluster.start_balancer()
    for name in ("n1", "n2"):
        cluster.dial(name)
    last = cluster.submit("n1", f"after={second} sh true")
    assert state_of(cluster, last) == "blocked"
    cluster.finish_all()
    assert state_of(cluster, last) == "succeeded"


def test_a_thousand_jobs_can_wait_for_a_thousand_jobs() -> None:
    cluster = Cluster(1, slots=0)
    first = [cluster.submit("n1") for _ in range(1000)]
    last = cluster.submit("n1", f"after={','.join(first)} sh true")
    doomed = cluster.submit("n1", f"after={','.join(first)} sh true")
    assert state_of(cluster, last) == state_of(cluster, doomed) == "blocked"
    cluster.say("n1", f"cancel {doomed}")
    for ticket in first[:-1]:
        cluster.say("n1", f"cancel {ticket}")
    assert field(status(cluster, last), "reason") == "dependency"
    assert field(status(cluster, doomed), "reason") == "user"
