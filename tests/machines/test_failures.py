"""Failure, first level: whatever dies or falls silent, no acknowledged job is lost and no outcome recorded twice."""

import attrs
import pytest

from common.codec import pack, replace
from common.effects import Table
from common.events import Received
from common.messages import Acknowledged, Cancel, Drop, Pair, Reported, Result
from common.model import Ended, Outcome, Reason, State, Verdict, ticket_key
from tests.machines.cluster import PERIODS, Cluster

SLOW = Outcome(Verdict.SUCCEEDED, exit=0, seconds=99.0)


def state_of(cluster: Cluster, name: str, ticket: str) -> str:
    reply = cluster.say(name, f"status {ticket}")
    assert reply is not None
    return reply.split("state=")[1].split()[0]


def field(reply: str | None, name: str) -> str | None:
    words = (reply or "").split("\n")[0].split()
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), None)


def test_a_killed_node_that_returns_ends_its_old_leases_at_once() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((name, _),) = cluster.where(ticket)
    cluster.kill_node(name)
    cluster.restart_node(name)
    ((_, id),) = cluster.where(ticket)
    assert id == (ticket, 2), "leased again without waiting for the timeout"


def test_a_node_that_stays_away_has_its_attempts_given_to_others() -> None:
    cluster = Cluster(2, slots=2)
    tickets = [cluster.submit("n1") for _ in range(4)]
    cluster.kill_node("n2")
    cluster.advance(14)
    assert cluster.counts() == {"n1": 2}, "silence within the timeout is not death"
    cluster.advance(3)
    assert cluster.counts() == {"n1": 4}
    cluster.finish_all()
    assert {state_of(cluster, "n1", ticket) for ticket in tickets} == {"succeeded"}


def test_a_slow_job_is_never_run_again() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    cluster.advance(10_000)
    assert cluster.starts == {(ticket, 1): 1}


def test_a_balancer_that_was_stopped_listens_before_it_gives_anybody_up() -> None:
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit("n1") for _ in range(2)]
    cluster.now += 100  # the balancer's clock went on, and nobody spoke to it or was heard
    cluster.advance(1)
    assert cluster.starts == {(ticket, 1): 1 for ticket in tickets}
    assert "node.lost" not in [note.event for note in cluster.notes]
    cluster.kill_node("n2")
    cluster.now += 100
    cluster.advance(2)
    assert "node.lost" in [note.event for note in cluster.notes], "who is silent at the second look is gone"


def test_the_balancer_may_die_and_nothing_that_ran_is_run_again() -> None:
    cluster = Cluster(3)
    tickets = [cluster.submit(f"n{1 + number % 3}") for number in range(20)]
    done = tickets[0]
    ((name, id),) = cluster.where(done)
    cluster.finish(name, id)
    cluster.kill_balancer()
    for node in cluster.nodes.values():
        for id in list(node.running):
            cluster.finish(node.who.name, id)
    cluster.start_balancer()
    for name in cluster.nodes:
        cluster.dial(name)
    cluster.finish_all()
    assert {state_of(cluster, "n1", ticket) for ticket in tickets} == {"succeeded"}
    assert set(cluster.starts.values()) == {1}
    assert {attempt for _, attempt in cluster.starts} == {1}


def test_jobs_are_taken_in_while_the_balancer_is_away() -> None:
    cluster = Cluster(2)
    cluster.kill_balancer()
    tickets = [cluster.submit("n1") for _ in range(5)]
    reply = cluster.say("n1", f"status {tickets[0]}")
    assert field(reply, "state") == "queued"
    assert field(reply, "as_of_s") is not None, "what is last known is marked as such"
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    assert cluster.finish_all() == 5


def test_a_lost_balancer_volume_loses_no_job_whose_origin_lives() -> None:
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit(f"n{1 + number % 2}") for number in range(6)]
    ended = tickets[0]
    ((name, id),) = cluster.where(ended)
    cluster.finish(name, id, output=b"kept\n")
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.finish_all()
    assert {state_of(cluster, "n2", ticket) for ticket in tickets} == {"succeeded"}
    assert "kept" in (cluster.say("n2", f"result {ended}") or ""), "the new ledger learned history from the origin"


def test_a_new_ledger_takes_over_what_runs_and_numbers_above_it() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert cluster.where(ticket) == [("n1", (ticket, 2))]
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n1")
    assert cluster.where(ticket) == [("n1", (ticket, 2))], "what runs goes on"
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert cluster.where(ticket) == [("n1", (ticket, 1001))]


def test_a_runner_with_an_outcome_waits_for_the_origin_to_bring_the_job_back() -> None:
    cluster = Cluster()
    cluster.add_node("n1", slots=0)
    cluster.add_node("n2", slots=1)
    ticket = cluster.submit("n1")
    cluster.kill_balancer()
    cluster.finish("n2", (ticket, 1), output=b"once\n")
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    assert not any(isinstance(message, Acknowledged) for _, message in cluster.sent), "kept until the job is known"
    cluster.dial("n1")
    assert "once" in (cluster.say("n1", f"result {ticket}") or "")
    assert cluster.starts == {(ticket, 1): 1}


def test_what_ran_of_a_job_that_became_a_second_name_is_let_go() -> None:
    """Found by `test_any_order`: the outcome of a keyed job whose key another job took in a new ledger."""
    cluster = Cluster()
    cluster.add_node("n1", slots=2)
    cluster.add_node("n2", slots=0)
    ran, runs = cluster.submit("n2", "key=a sh true"), cluster.submit("n2", "key=b sh true")
    cluster.kill_balancer()
    cluster.finish("n1", (ran, 1))
    cluster.submit("n1", "key=a sh true")
    cluster.submit("n1", "key=b sh true")
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n1")
    cluster.dial("n2")
    assert cluster.nodes["n1"].machine.statistics()["outcomes_unacknowledged"] == 0
    assert [(kill.ticket, kill.attempt) for kill in cluster.nodes["n1"].killed] == [(runs, 1)]


def test_a_node_cut_off_and_back_keeps_what_was_not_leased_again() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    link = cluster.nodes["n1"].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(30)
    assert field(cluster.say("n1", f"status {ticket}"), "state") == "queued"
    cluster.dial("n1")
    assert state_of(cluster, "n1", ticket) == "running"
    cluster.finish("n1", (ticket, 1))
    assert cluster.starts == {(ticket, 1): 1}


def test_a_late_outcome_of_an_attempt_leased_again_is_acknowledged_and_not_recorded() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((slow, id),) = cluster.where(ticket)
    other = "n2" if slow == "n1" else "n1"
    link = cluster.nodes[slow].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(20)
    assert cluster.where(ticket)[-1] == (other, (ticket, 2)) or (other, (ticket, 2)) in cluster.where(ticket)
    cluster.finish(slow, id, output=b"late\n", outcome=replace(SLOW, stdout_bytes=5))
    cluster.finish(other, (ticket, 2), output=b"current\n")
    cluster.dial(slow)
    assert "current" in (cluster.say(slow, f"result {ticket}") or "")
    assert cluster.nodes[slow].machine.statistics()["outcomes_unacknowledged"] == 0
    assert "outcomes_stale_total 1" in (cluster.say(other, "stats") or "")


def test_a_late_outcome_does_not_end_a_job_that_another_attempt_is_running() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((slow, id),) = cluster.where(ticket)
    other = "n2" if slow == "n1" else "n1"
    cluster.cut(cluster.nodes[slow].link or 0)
    cluster.advance(20)
    cluster.finish(slow, id, output=b"late\n")
    cluster.dial(slow)
    assert state_of(cluster, other, ticket) == "running"
    cluster.finish(other, (ticket, 2), output=b"current\n")
    assert "current" in (cluster.say(slow, f"result {ticket}") or "")


def test_a_late_outcome_is_let_go_also_where_results_are_only_asked_for() -> None:
    cluster = Cluster(2, slots=1, periods=attrs.evolve(PERIODS, eager=False))
    ticket = cluster.submit("n1")
    cluster.advance(5)
    ((slow, id),) = cluster.where(ticket)
    cluster.cut(cluster.nodes[slow].link or 0)
    cluster.advance(25)
    cluster.finish(slow, id)
    cluster.dial(slow)
    assert cluster.nodes[slow].machine.statistics()["outcomes_unacknowledged"] == 0
    assert "outcomes_stale_total 1" in (cluster.say(slow, "stats") or "")


def test_a_node_that_returns_kills_what_was_given_to_others() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((slow, id),) = cluster.where(ticket)
    link = cluster.nodes[slow].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(20)
    cluster.dial(slow)
    assert [(kill.ticket, kill.attempt) for kill in cluster.nodes[slow].killed] == [id]
    assert any(isinstance(message, Drop) for _, message in cluster.sent)
    cluster.finish(slow, id)
    assert cluster.nodes[slow].machine.statistics()["outcomes_unacknowledged"] == 0, "nobody waits for its outcome"


def test_a_late_outcome_counts_while_nobody_else_was_given_the_job() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    link = cluster.nodes["n1"].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(30)
    cluster.finish("n1", (ticket, 1))
    cluster.dial("n1")
    assert state_of(cluster, "n1", ticket) == "succeeded"
    assert cluster.starts == {(ticket, 1): 1}


def test_an_outcome_survives_the_restart_of_its_node() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((name, id),) = cluster.where(ticket)
    cluster.kill_balancer()
    cluster.finish(name, id, output=b"kept\n")
    cluster.kill_node(name)
    cluster.start_balancer()
    cluster.restart_node(name)
    assert "kept" in (cluster.say(name, f"result {ticket}") or "")
    assert cluster.starts == {(ticket, 1): 1}


def test_an_outcome_of_the_right_number_from_another_boot_is_not_the_one_waited_for() -> None:
    """A ledger that was lost gave out the same number; only the boot tells the two apart."""
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    node, link = cluster.nodes["n1"], cluster.nodes["n1"].link
    assert link is not None
    foreign = Reported(1, "boot-of-old", Outcome(Verdict.FAILED, Reason.EXIT, 1))
    cluster._perform_for_node(node, _send(link, Result((Pair(ticket, pack(foreign)),))))
    cluster.settle()
    assert state_of(cluster, "n1", ticket) == "running"


def test_an_outcome_is_recorded_once_however_often_it_is_reported() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    cluster.finish("n1", (ticket, 1), output=b"first\n")
    node, link = cluster.nodes["n1"], cluster.nodes["n1"].link
    assert link is not None
    forged = Reported(1, node.who.boot_id, Outcome(Verdict.FAILED, Reason.EXIT, 1, stdout_bytes=7))
    cluster._perform_for_node(node, _send(link, Result((Pair(ticket, pack(forged), b"second\n"),))))
    cluster.settle()
    assert "first" in (cluster.say("n1", f"result {ticket}") or "")


def _send(link: int, message: Result) -> object:
    from common.effects import Send

    return Send(link, message)


# --- crashes ------------------------------------------------------------------------------------------------------


def test_a_job_that_takes_its_node_down_three_times_fails_with_crash_limit() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    for _ in range(3):
        assert len(cluster.where(ticket)) == 1
        cluster.kill_node("n1")
        cluster.restart_node("n1")
    reply = cluster.say("n1", f"result {ticket}")
    assert (field(reply, "state"), field(reply, "reason")) == ("failed", "crash_limit")
    assert len(cluster.starts) == 3


def test_the_crash_limit_can_be_lowered_or_turned_off() -> None:
    cluster = Cluster(1, slots=2)
    once, never = cluster.submit("n1", "crash_limit=1 sh true"), cluster.submit("n1", "crash_limit=off sh true")
    for _ in range(5):
        cluster.kill_node("n1")
        cluster.restart_node("n1")
    assert field(cluster.say("n1", f"status {once}"), "reason") == "crash_limit"
    assert state_of(cluster, "n1", never) == "running"


def test_backlog_beyond_the_slots_does_not_count_as_crashed() -> None:
    cluster = Cluster(1, slots=1)
    tickets = [cluster.submit("n1", "crash_limit=1 sh true") for _ in range(4)]
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert [state_of(cluster, "n1", ticket) for ticket in tickets] == ["failed", "running", "dispatched", "dispatched"]


def test_a_link_that_comes_back_with_the_same_boot_is_no_crash() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1", "crash_limit=2 sh true")
    for _ in range(5):
        link = cluster.nodes["n1"].link
        assert link is not None
        cluster.cut(link)
        cluster.advance(30)
        cluster.dial("n1")
    assert state_of(cluster, "n1", ticket) == "running"


def test_a_planned_stop_is_neither_a_failure_nor_a_crash() -> None:
    cluster = Cluster(1, slots=1)
    running, waiting = (cluster.submit("n1", "crash_limit=1 sh true") for _ in range(2))
    cluster.stop("n1")
    cluster.advance(10)
    (kill,) = cluster.nodes["n1"].killed
    assert (kill.ticket, kill.attempt) == (running, 1)
    cluster.finish("n1", (running, 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143))
    assert cluster.nodes["n1"].exited
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert {state_of(cluster, "n1", ticket) for ticket in (running, waiting)} == {"running", "dispatched"}


def test_a_stopping_node_takes_nothing_in_and_hands_back_what_waits() -> None:
    cluster = Cluster(2, slots=1)
    for _ in range(6):
        cluster.submit("n1")
    cluster.stop("n2")
    cluster.advance(1)
    assert cluster.counts() == {"n1": 5, "n2": 1}
    assert (cluster.say("n2", "submit sh true") or "").startswith("ERR DRAINING")
    assert "name=n2 state=draining" in (cluster.say("n1", "nodes") or "")


# --- admission ----------------------------------------------------------------------------------------------------


def test_one_node_too_many_is_refused_with_a_reason_that_its_submit_tells() -> None:
    cluster = Cluster(2, nodes_max=2)
    node = cluster.add_node("n3")
    assert "MAX_NUM_NODES=2" in (node.refused or "")
    reply = cluster.say("n3", "submit sh true") or ""
    assert reply.startswith("ERR UNAVAILABLE")
    assert "MAX_NUM_NODES=2" in reply


def test_a_reconnecting_id_is_never_refused_for_the_number_of_nodes() -> None:
    cluster = Cluster(2, nodes_max=2)
    cluster.kill_node("n1")
    cluster.add_node("n3")
    cluster.restart_node("n1")
    assert cluster.nodes["n1"].link is not None


def test_a_copy_of_a_living_directory_is_refused_and_the_real_link_stays() -> None:
    cluster = Cluster(1)
    real = cluster.nodes.pop("n1")
    copy = cluster.add_node("n1", disk=real.disk, node_id=real.who.node_id, prefix=real.who.prefix)
    assert "copy" in (copy.refused or "")
    assert real.link is not None
    assert copy.link is None


def test_a_new_boot_is_admitted_when_the_old_link_does_not_answer() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((name, _),) = cluster.where(ticket)
    old = cluster.nodes.pop(name)
    cluster._down = {name: old}
    cluster.frozen = frozenset({name})  # its host is gone without a word: the link looks open
    cluster.restart_node(name, dial=False)
    cluster.dial(name)
    assert cluster.nodes[name].link is None, "the old link is being probed"
    cluster.frozen = frozenset()
    cluster._to_node[old.link or 0].clear()
    cluster.advance(1.1)
    assert cluster.nodes[name].link is not None
    assert (ticket, 2) in [id for _, id in cluster.where(ticket)]


def test_characters_that_belong_to_another_directory_are_refused() -> None:
    cluster = Cluster(1)
    node = cluster.add_node("n2", prefix=cluster.nodes["n1"].who.prefix)
    assert "prefix" in (node.refused or "")


def test_a_newer_connection_of_the_same_boot_replaces_the_older() -> None:
    cluster = Cluster(1)
    old = cluster.nodes["n1"].link
    cluster.dial("n1", unnoticed=True)
    assert cluster.nodes["n1"].link not in (None, old)
    assert len([note for note in cluster.notes if note.event == "node.refused"]) == 0


# --- stores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "disk_full"), [(0.75, False), (0.1, True)])
def test_a_full_node_refuses_jobs_and_still_reports_outcomes(fraction: float, disk_full: bool) -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.store_level("n1", fraction, disk_full=disk_full)
    assert (cluster.say("n1", "submit sh true") or "").startswith("ERR FULL")
    cluster.finish("n1", (ticket, 1))
    assert state_of(cluster, "n1", ticket) == "succeeded"
    cluster.store_level("n1", 0.2)
    assert (cluster.say("n1", "submit sh true") or "").startswith("OK")


def test_a_node_whose_disk_is_full_is_given_nothing_and_hands_back_what_has_not_begun() -> None:
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit("n1") for _ in range(6)]
    (begun,) = cluster.nodes["n1"].running
    cluster.store_level("n1", 0.1, disk_full=True)
    elsewhere = [ticket for ticket in tickets if ticket != begun[0]]
    assert {name for ticket in elsewhere for name, _ in cluster.where(ticket)} == {"n2"}
    assert cluster.where(begun[0]) == [("n1", begun)], "what runs goes on"
    cluster.finish("n1", begun)
    assert not cluster.nodes["n1"].running
    cluster.store_level("n1", 0.1)
    cluster.advance(1)
    assert cluster.nodes["n1"].running, "and with room it is one of them again"


def test_a_full_balancer_takes_the_jobs_when_there_is_room_again() -> None:
    cluster = Cluster(1)
    cluster.store_level("balancer", 0.8)
    ticket = cluster.submit("n1")
    cluster.advance(60)
    assert cluster.where(ticket) == []
    cluster.store_level("balancer", 0.2)
    assert len(cluster.where(ticket)) == 1


def test_a_job_whose_record_is_damaged_fails_and_holds_nobody_up() -> None:
    cluster = Cluster()
    cluster.add_node("n1", slots=0)
    damaged, whole = cluster.submit("n1"), cluster.submit("n1")
    assert cluster.balancer is not None
    del cluster.balancer.disk.tables[Table.JOBS][ticket_key(damaged)]
    cluster.add_node("n2", slots=1)
    assert field(cluster.say("n1", f"result {damaged}"), "reason") == "cannot_start"
    assert len(cluster.where(whole)) == 1


def test_old_ends_expire_and_are_remembered_as_expired() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, retention_s=3600.0))
    ticket = cluster.submit("n1")
    cluster.finish("n1", (ticket, 1), output=b"x")
    cluster.advance(3500)
    assert "state=succeeded" in (cluster.say("n1", f"result {ticket}") or "")
    cluster.advance(200)
    assert (cluster.say("n1", f"result {ticket}") or "").startswith("ERR EXPIRED")
    cluster.advance(3700)
    assert (cluster.say("n1", f"result {ticket}") or "").startswith("ERR UNKNOWN_TICKET")
    assert cluster.balancer is not None
    for disk in (cluster.balancer.disk, cluster.nodes["n1"].disk):
        assert not any(disk.tables[table] for table in (Table.ENDED, Table.OUTPUTS, Table.JOBS, Table.EXPIRY))


def test_an_attempt_that_a_lost_ledger_gave_out_is_dropped_and_its_number_not_given_again() -> None:
    """Or the node that still ends it would take the new lease for the old one, and the job would wait for ever."""
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit("n1") for _ in range(2)]
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.submit("n1", "priority=5 sh true")
    cluster.dial("n1")  # all three are given to n1, one of them while n2 runs it
    cluster.dial("n2")
    cluster.advance(1)  # and called back from n1, because n2 is idle
    cluster.finish_all()
    assert {state_of(cluster, "n1", ticket) for ticket in tickets} == {"succeeded"}
    assert set(cluster.starts.values()) == {1}


# --- found by review ------------------------------------------------------------------------------------------------


def test_a_job_cancelled_twice_in_one_step_is_let_go_of_once() -> None:
    cluster = Cluster(1, slots=1)
    cluster.submit("n1")
    ticket = cluster.submit("n1")
    node = cluster.nodes["n1"]
    assert node.link is not None
    cluster._step_node(node, Received(node.link, [Cancel(((ticket, 1), (ticket, 1)))], cluster.wall))
    assert node.machine.statistics()["attempts_waiting"] == 0


def test_a_cancelled_job_whose_dispatch_was_lost_is_not_sent_out_again() -> None:
    cluster = Cluster()
    cluster.add_node("n1", slots=0)
    cluster.add_node("n2", slots=1)
    cluster.frozen = frozenset({"n2"})  # the Dispatch does not arrive
    ticket = cluster.submit("n1")
    assert cluster.say("n1", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    cluster.cut(cluster.nodes["n2"].link or 0)
    cluster.frozen = frozenset()
    cluster.dial("n2")
    assert cluster.starts == {}
    assert "state=cancelled attempt=0" in (cluster.say("n1", f"result {ticket}") or "")


def test_a_runner_that_restarts_before_the_origin_is_back_holds_nothing_any_more() -> None:
    cluster = Cluster()
    cluster.add_node("n1", slots=0)
    cluster.add_node("n2", slots=1)
    ticket = cluster.submit("n1")
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    cluster.kill_node("n2")
    cluster.restart_node("n2")
    cluster.dial("n1")
    assert len(cluster.where(ticket)) == 1


def test_a_node_that_dials_again_while_a_copy_knocks_stays_the_real_one() -> None:
    cluster = Cluster(1)
    real = cluster.nodes["n1"]
    cluster.frozen = frozenset({"n1"})
    copy = cluster.add_node("n1", disk=real.disk, node_id=real.who.node_id, prefix=real.who.prefix)
    cluster.nodes["n1"] = real
    cluster.dial("n1", unnoticed=True)
    cluster.frozen = frozenset()
    cluster.settle()
    assert "copy" in (copy.refused or "")
    assert real.link is not None


def test_an_origin_that_was_away_for_very_long_learns_that_its_job_is_over() -> None:
    cluster = Cluster(2, slots=1, periods=attrs.evolve(PERIODS, retention_s=3600.0))
    ticket = cluster.submit("n1")
    ((runner, _),) = cluster.where(ticket)
    if runner == "n1":
        cluster.finish("n1", (ticket, 1))
        ticket = cluster.submit("n1")
    cluster.cut(cluster.nodes["n1"].link or 0)
    cluster.finish("n2", (ticket, 1))
    cluster.advance(7300)
    cluster.dial("n1")
    cluster.sync()
    assert cluster.nodes["n1"].disk.tables[Table.LIVE] == {}


def test_a_damaged_node_record_keeps_no_balancer_from_starting() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    assert cluster.balancer is not None
    cluster.balancer.disk.tables[Table.NODES].clear()
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.finish_all()
    assert state_of(cluster, "n1", ticket) == "succeeded"


def test_a_job_whose_record_is_damaged_at_its_origin_cuts_nobody_off() -> None:
    cluster = Cluster(1)
    cluster.kill_balancer()
    damaged, whole = cluster.submit("n1"), cluster.submit("n1")
    del cluster.nodes["n1"].disk.tables[Table.JOBS][ticket_key(damaged)]
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.finish_all()
    assert state_of(cluster, "n1", whole) == "succeeded"
    assert field(cluster.say("n1", f"result {damaged}"), "reason") == "cannot_start"


def test_an_end_is_told_to_its_origin_before_it_expires_for_want_of_room() -> None:
    cluster = Cluster(1, slots=4)
    tickets = [cluster.submit("n1") for _ in range(3)]
    cluster.store_level("balancer", 0.61)
    cluster.now += 5  # so that expiry is due in the very step in which they end
    cluster.finish_all()
    assert [state_of(cluster, "n1", ticket) for ticket in tickets] == ["succeeded"] * 3
    cluster.advance(2)
    assert cluster.balancer is not None
    assert not cluster.balancer.disk.tables[Table.ENDED], "and then they expire"


def test_ended_jobs_expire_as_fast_as_they_came_when_the_store_needs_room() -> None:
    cluster = Cluster(1, slots=4)
    assert cluster.balancer is not None
    for number in range(1, 5001):
        ended = Ended(State.SUCCEEDED, cluster.wall, sequence=number)
        key = ticket_key(f"zzzzzz-{number}")
        for table, at, value in (
            (Table.ENDED, key, pack(ended)),
            (Table.EXPIRY, int(cluster.wall * 1000).to_bytes(8, "big") + key, b"r"),
        ):
            cluster.balancer.disk.tables[table][at] = value
    cluster.store_level("balancer", 0.61)
    cluster.advance(1.5)
    assert len(cluster.balancer.disk.tables[Table.ENDED]) == 0


def test_a_job_of_which_no_record_says_how_it_stands_fails_and_is_not_taken_for_expired() -> None:
    cluster = Cluster(1, slots=0)
    damaged, whole = cluster.submit("n1"), cluster.submit("n1")
    assert cluster.balancer is not None
    disk = cluster.balancer.disk
    cluster.kill_balancer()
    del disk.tables[Table.LIVE][ticket_key(damaged)]
    cluster.start_balancer()
    cluster.dial("n1")
    assert field(cluster.say("n1", f"result {damaged}"), "reason") == "cannot_start"
    assert field(cluster.say("n1", f"status {whole}"), "state") == "queued"
    cluster.say("n1", f"retry {damaged}")
    cluster.add_node("n2")
    assert (damaged, 1001) in cluster.starts, "an attempt of a lost number may be running"


def test_an_element_of_which_no_record_says_how_it_stands_fails_and_its_array_ends() -> None:
    cluster = Cluster(1, slots=2)
    array = cluster.submit("n1", "array=1-3 sh true")
    assert cluster.balancer is not None
    disk = cluster.balancer.disk
    cluster.kill_balancer()
    del disk.tables[Table.LIVE][ticket_key(f"{array}_1")]
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(1)
    while cluster.nodes["n1"].running:
        cluster.finish_all()
        cluster.advance(1)
    assert field(cluster.say("n1", f"status {array}_1"), "reason") == "cannot_start"
    reply = cluster.say("n1", f"status {array}")
    assert (field(reply, "state"), field(reply, "succeeded"), field(reply, "failed")) == ("failed", "2", "1")


def test_a_node_that_is_admitted_and_says_nothing_is_let_go() -> None:
    """Not even what it holds: its link is closed when it was silent for the node timeout, and it may come again."""
    cluster = Cluster(1)
    cluster.frozen = frozenset({"n2"})
    cluster.add_node("n2")
    (link,) = [link for link, owner in cluster._owners.items() if owner.who.name == "n2"]
    cluster.advance(PERIODS.node_timeout_s - 1)
    assert link in cluster._owners
    cluster.advance(2)
    assert link not in cluster._owners
    cluster.frozen = frozenset()
    cluster.dial("n2")
    assert "name=n2 state=alive" in (cluster.say("n1", "nodes") or "")


def test_parts_of_a_large_message_are_signs_of_life() -> None:
    """An outcome of 64 MiB takes longer than the node timeout over a slow line, and nothing else can overtake it."""
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    (link,) = cluster._owners
    cluster.frozen = frozenset({"n1"})
    for _ in range(10):
        cluster.advance(PERIODS.node_timeout_s - 1)
        cluster._step_balancer(Received(link, [], cluster.wall))
    assert link in cluster._owners
    cluster.frozen = frozenset()
    cluster.settle()
    assert state_of(cluster, "n1", ticket) == "running"


def test_what_waits_for_an_older_job_that_was_given_later_was_not_running_when_its_node_was_lost() -> None:
    cluster = Cluster(1, slots=1)
    first = cluster.submit("n1")
    early = cluster.submit("n1", f"after={first} crash_limit=1 sh true")
    late = [cluster.submit("n1", "crash_limit=1 sh true") for _ in range(2)]
    cluster.finish("n1", (first, 1))
    cluster.finish("n1", (late[0], 1))
    assert list(cluster.nodes["n1"].running) == [(early, 1)]
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert state_of(cluster, "n1", early) == "failed"
    assert state_of(cluster, "n1", late[1]) == "running"


@pytest.mark.timeout(20)
def test_a_lease_whose_job_was_damaged_before_it_was_sent_again_ends_the_job_and_no_link() -> None:
    cluster = Cluster(1, slots=1)
    cluster.add_node("n2", slots=1, kinds=("exec",))
    cluster.busy("n1")
    ticket = cluster.submit("n2")
    cluster.kill_balancer()
    cluster.nodes["n1"].gathered = None
    del cluster._kept[0].tables[Table.JOBS][ticket_key(ticket)]
    cluster.start_balancer()
    cluster.dial("n1")
    assert cluster.nodes["n1"].link is not None
    cluster.dial("n2")
    assert state_of(cluster, "n2", ticket) == "failed"


def test_of_an_outcome_whose_output_was_damaged_at_its_runner_the_length_is_kept() -> None:
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit("n1") for _ in range(2)]
    ((name, id),) = cluster.where(tickets[1])
    assert name == "n2", "each has one"
    cluster.cut(cluster.nodes["n2"].link or 0)
    cluster.finish("n2", id, output=b"12345")
    disk = cluster.nodes["n2"].disk
    cluster.kill_node("n2")
    assert disk.tables[Table.OUTCOME_OUTPUTS].popitem()[1] == b"12345"
    cluster.restart_node("n2")
    assert (cluster.say("n1", f"result {tickets[1]}") or "").endswith("bytes=5\n\0\0\0\0\0\n")


@pytest.mark.parametrize("count", [1, 5])
def test_an_output_of_another_length_than_its_outcome_says_harms_nobody(count: int) -> None:
    cluster = Cluster(1, slots=count)
    cluster.busy("n1")
    waits = [cluster.ask("n1", "run sh true") for _ in range(count)]
    cluster.free("n1")
    node = cluster.nodes["n1"]
    outcome = Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.1, stdout_bytes=5)
    pairs = [Pair(of, pack(Reported(number, node.who.boot_id, outcome)), b"") for of, number in sorted(node.running)]
    assert node.link is not None
    cluster._step_balancer(Received(node.link, [Result(tuple(pairs))], cluster.wall))
    cluster.settle()
    assert all((cluster.reply("n1", query_id) or "").endswith("bytes=5\n\0\0\0\0\0\n") for query_id in waits)
