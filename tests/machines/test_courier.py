"""The pace at which an origin tells the ledger of new jobs."""

from common.messages import Jobs
from tests.machines.cluster import Cluster

APART_S = 0.005


def started() -> Cluster:
    return Cluster(1, slots=0, jobs_apart_s=APART_S)


def sent(cluster: Cluster) -> list[int]:
    """How many jobs there were in each message to the balancer."""
    return [len(message.items) for to, message in cluster.sent if to == "balancer" and isinstance(message, Jobs)]


def test_the_first_of_what_is_submitted_goes_at_once_and_the_next_go_together() -> None:
    cluster = started()
    for _ in range(4):
        assert (cluster.say("n1", "SUBMIT sleep 0") or "").startswith("OK ")
        cluster.advance(APART_S / 10)
    assert sent(cluster) == [1]
    cluster.advance(APART_S)
    assert sent(cluster) == [1, 3]


def test_what_comes_after_a_pause_goes_at_once() -> None:
    cluster = started()
    for number in range(1, 4):
        cluster.say("n1", "SUBMIT sleep 0")
        assert sent(cluster) == [1] * number
        cluster.advance(2 * APART_S)


def test_whoever_waits_for_the_end_of_a_job_waits_for_no_company() -> None:
    cluster = started()
    tickets = [(cluster.say("n1", "SUBMIT sleep 0") or "").split()[1] for _ in range(3)]
    assert sent(cluster) == [1]
    cluster.ask("n1", f"WAIT {tickets[-1]}")
    assert sent(cluster) == [1, 2]
    cluster.ask("n1", "RUN sleep 0")
    assert sent(cluster) == [1, 2, 1]


def test_a_keyed_job_whose_client_waits_for_the_ledgers_word_goes_at_once() -> None:
    cluster = started()
    cluster.say("n1", "SUBMIT sleep 0")
    assert (cluster.say("n1", "SUBMIT key=once sleep 0") or "").startswith("OK ")
    assert sent(cluster) == [1, 1]


def test_jobs_that_wait_for_company_are_sent_when_their_node_meets_the_balancer_again() -> None:
    cluster = started()
    for _ in range(3):
        cluster.say("n1", "SUBMIT sleep 0")
    assert sent(cluster) == [1]
    cluster.dial("n1")
    assert sent(cluster) == [1, 2]
    cluster.advance(10 * APART_S)
    assert sum(sent(cluster)) == 3, "nothing is sent twice"


def test_an_idle_node_is_not_woken_for_jobs_that_it_has_not() -> None:
    cluster = started()
    cluster.say("n1", "SUBMIT sleep 0")
    cluster.sync()
    deadline = cluster.nodes["n1"].machine.next_deadline()
    assert deadline is not None
    assert deadline > cluster.now + 10 * APART_S


def test_a_group_is_cancelled_at_another_node_with_all_that_was_submitted_a_moment_ago() -> None:
    cluster = Cluster(2, slots=0, jobs_apart_s=APART_S)
    for _ in range(4):
        cluster.say("n1", "SUBMIT group=night sleep 0")
    assert cluster.say("n2", "CANCEL group=night") == "OK group=night state=cancelled count=4\n"


def test_before_a_planned_stop_the_ledger_is_told_of_all_jobs() -> None:
    cluster = started()
    for _ in range(4):
        cluster.say("n1", "SUBMIT sleep 0")
    cluster.stop("n1")
    assert sent(cluster) == [1, 3]
    kinds = [type(message).__name__ for to, message in cluster.sent if to == "balancer"]
    assert kinds.index("Farewell") > max(at for at, kind in enumerate(kinds) if kind == "Jobs")
    assert cluster.nodes["n1"].exited
