"""Arrays under orders that cross: cancelled, retried and waited for, while some of their elements are under way."""

import attrs

from common.effects import Table
from common.model import Outcome, Reason, Verdict
from tests.machines.asking import Asker, body, field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5)
CANCELLED = Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 0.5)
ONE_BY_ONE = attrs.evolve(PERIODS, backlog_max=0)


def test_an_element_that_is_retried_while_its_cancelled_array_is_ending_runs() -> None:
    cluster = Cluster(1, slots=1, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    cluster.say("n1", f"cancel {ticket}")
    assert (cluster.say("n1", f"retry {ticket}_3") or "").startswith("OK")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=CANCELLED)
    assert cluster.where(f"{ticket}_3") == [("n1", (f"{ticket}_3", 1))]
    cluster.finish("n1", (f"{ticket}_3", 1))
    reply = status(cluster, ticket)
    assert [field(reply, name) for name in ("state", "succeeded", "cancelled")] == ["cancelled", "1", "2"]


def test_an_element_that_is_retried_while_its_array_is_blocked_goes_on_with_it() -> None:
    cluster = Cluster(1, slots=4)
    first = cluster.submit("n1", "sh first")
    ticket = cluster.submit("n1", f"array=1-2 after={first} sh work {{}}")
    cluster.say("n1", f"cancel {ticket}_2")
    assert cluster.say("n1", f"retry {ticket}_2") == f"OK {ticket}_2 state=queued\n"
    assert field(status(cluster, f"{ticket}_2"), "reason") == "blocked"
    cluster.finish("n1", (first, 1))
    assert cluster.finish_all() == 2
    assert state_of(cluster, ticket) == "succeeded"


def test_an_element_that_is_retried_while_its_array_is_scheduled_goes_on_with_it() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-2 delay=10 sh work {}")
    cluster.say("n1", f"cancel {ticket}_2")
    cluster.advance(6)
    cluster.say("n1", f"retry {ticket}_2")
    cluster.advance(5)
    assert cluster.finish_all() == 2
    assert state_of(cluster, ticket) == "succeeded"


def test_who_waits_for_an_element_that_is_dropped_with_its_array_is_cancelled() -> None:
    cluster = Cluster(1, slots=1, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    later = cluster.submit("n1", f"after={ticket}_3 sh later")
    cluster.say("n1", f"cancel {ticket}")
    reply = status(cluster, later)
    assert (field(reply, "state"), field(reply, "reason")) == ("cancelled", "dependency")


def test_whoever_watches_an_element_that_is_dropped_with_its_array_is_told_at_once_and_never_again() -> None:
    cluster = Cluster(1, slots=1, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    asker = Asker(cluster)
    watch = asker.ask("watch", f"{ticket}_1", f"{ticket}_3")
    waiting = cluster.ask("n1", f"wait {ticket}_3")
    cluster.say("n1", f"cancel {ticket}")
    reply = asker.reply(watch)
    assert [line.split()[:2] for line in body(reply)] == [[f"{ticket}_3", "state=cancelled"]]
    assert "state=cancelled" in (cluster.reply("n1", waiting) or "")
    cursor = field(reply, "cursor")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=CANCELLED)
    again = asker.say("watch", f"{ticket}_1", f"{ticket}_3", since=cursor)
    assert [line.split()[0] for line in body(again)] == [f"{ticket}_1"]


def test_an_array_that_is_retried_tells_the_reason_of_what_fails_of_it_then() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-2 sh work {}")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=FAILED)
    cluster.finish_all()
    cluster.say("n1", f"retry {ticket}_1")
    cluster.finish("n1", (f"{ticket}_1", 2), outcome=Outcome(Verdict.FAILED, Reason.TIMEOUT, 143, 0.5))
    assert field(status(cluster, ticket), "reason") == "timeout"


# --- ledgers that are lost -----------------------------------------------------------------------------------------


def test_an_element_whose_runner_went_away_again_before_the_array_came_is_run() -> None:
    cluster = Cluster(2, slots=0)
    cluster.add_node("n3", slots=1)
    ticket = cluster.submit("n1", "array=1-2 sh work {}")
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n3")
    cluster.kill_node("n3")
    cluster.dial("n1")
    cluster.restart_node("n3")
    assert cluster.finish_all() == 2
    assert state_of(cluster, ticket) == "succeeded"


def test_an_outcome_of_an_element_is_let_go_when_its_array_has_ended() -> None:
    cluster = Cluster(2, slots=0)
    cluster.add_node("n3", slots=1)
    ticket = cluster.submit("n1", "array=1-1 sh work {}")
    cluster.cut(cluster.nodes["n3"].link or 0)
    cluster.finish("n3", (f"{ticket}_1", 1))
    cluster.advance(20)
    cluster.say("n1", f"cancel {ticket}")
    assert state_of(cluster, ticket) == "cancelled"
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n3")
    cluster.dial("n1")
    cluster.sync()
    assert cluster.nodes["n3"].disk.tables[Table.OUTCOMES] == {}


def test_who_waits_for_an_element_of_an_array_that_ended_under_a_lost_ledger_does_not_wait_for_ever() -> None:
    cluster = Cluster(2, slots=0)
    cluster.add_node("n3", slots=1)
    ticket = cluster.submit("n1", "array=1-1 sh work {}")
    cluster.finish_all()
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    later = cluster.submit("n2", f"after={ticket}_1 sh later")
    cluster.dial("n1")
    assert state_of(cluster, later, "n2") == "cancelled"


def test_who_waits_for_a_second_name_that_a_new_ledger_learns_of_waits_for_the_first() -> None:
    for part in ("", "_1"):
        cluster = Cluster(2, slots=0)
        cluster.add_node("n3", slots=2)
        first = cluster.submit("n1", "key=k array=1-1 sh first")
        cluster.kill_balancer()
        second = cluster.submit("n2", "key=k array=1-1 sh first")
        assert second != first
        cluster.start_balancer()
        for name in ("n1", "n2"):
            cluster.dial(name)
        cluster.kill_balancer()
        last = cluster.submit("n1", f"after={second}{part} sh last")
        cluster.start_balancer(volume_lost=True)
        for name in ("n2", "n1", "n3"):
            cluster.dial(name)
        cluster.finish_all()
        assert state_of(cluster, last) == "succeeded"


# --- elements and arrays that expire -------------------------------------------------------------------------------


def test_an_element_that_outlasts_its_array_is_expired_with_it() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, retention_s=100.0))
    ticket = cluster.submit("n1", "array=1-1 sh work {}")
    cluster.wall_offset = 1000.0
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=FAILED)
    balancer = cluster.balancer
    assert balancer is not None
    for key in list(balancer.disk.tables[Table.EXPIRY]):
        if len(key) == 8 + 14:  # as if the calendar had been set back between the two ends
            balancer.disk.tables[Table.EXPIRY][b"\0" * 8 + key[8:]] = balancer.disk.tables[Table.EXPIRY].pop(key)
    cluster.advance(2)
    for verb in ("retry", "status", "result"):
        assert (Asker(cluster).say(verb, ticket=f"{ticket}_1")).startswith("ERR EXPIRED"), verb


# --- records that are damaged --------------------------------------------------------------------------------------


def test_an_array_whose_count_is_damaged_is_counted_anew_and_runs_no_element_twice() -> None:
    cluster = Cluster(1, slots=2, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-6 sh work {}")
    cluster.finish("n1", (f"{ticket}_1", 1))
    cluster.finish("n1", (f"{ticket}_2", 1), outcome=FAILED)
    cluster.kill_balancer()
    disk, _ = cluster._kept
    disk.tables[Table.ARRAYS].clear()
    cluster.start_balancer()
    cluster.dial("n1")
    assert cluster.finish_all() == 4
    assert set(cluster.starts.values()) == {1}
    reply = status(cluster, ticket)
    assert [field(reply, name) for name in ("state", "reason", "succeeded", "failed")] == ["failed", "exit", "5", "1"]


def test_an_array_whose_count_is_damaged_while_it_is_cancelled_ends() -> None:
    cluster = Cluster(1, slots=1, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    cluster.say("n1", f"cancel {ticket}")
    cluster.kill_balancer()
    disk, _ = cluster._kept
    disk.tables[Table.ARRAYS].clear()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=CANCELLED)
    assert field(status(cluster, ticket), "cancelled") == "3"


def test_a_job_whose_record_is_damaged_is_not_retried_for_ever() -> None:
    cluster = Cluster(1)
    for line in ("sh true", "array=1-1 sh true"):
        ticket = cluster.submit("n1", line)
        ((name, id),) = [(name, id) for name, node in cluster.nodes.items() for id in node.running]
        cluster.finish(name, id, outcome=FAILED)
        assert cluster.balancer is not None
        cluster.balancer.disk.tables[Table.JOBS].clear()
        for asked in {ticket, id[0]}:
            assert Asker(cluster).say("retry", ticket=asked).startswith("ERR CONFLICT")
