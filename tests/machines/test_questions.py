"""Questions: any node answers for any ticket, unknown is never reported as waiting, and cancel cancels."""

import signal

import attrs
import pytest

from common.model import Outcome, Reason, Verdict
from tests.machines.cluster import PERIODS, Cluster

KILLED = Outcome(Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGTERM, seconds=2.0, stdout_bytes=4)


def test_any_node_answers_for_any_ticket() -> None:
    cluster = Cluster(3)
    ticket = cluster.submit("n1", "name=two%20words group=g sh true")
    ((runner, id),) = cluster.where(ticket)
    for name in cluster.nodes:
        reply = cluster.say(name, f"STATUS {ticket}") or ""
        assert reply.startswith(
            f"OK {ticket} state=running attempt=1 node={runner} reason=running name=two%20words group=g submitted="
        )
        assert cluster.say(name, f"result {ticket}") == f"PENDING {ticket} state=running\n"
    cluster.finish(runner, id, output=b"out")
    replies = {cluster.say(name, f"result {ticket}") for name in cluster.nodes}
    assert replies == {
        f"OK {ticket} state=succeeded exit=0 attempt=1 node={runner} seconds=0.500 stdout=3 stderr=0 bytes=3\nout\n"
    }


def test_wait_answers_at_every_node_when_the_job_ends() -> None:
    cluster = Cluster(3, slots=1)
    ticket = cluster.submit("n1")
    waiting = {name: cluster.ask(name, f"wait {ticket}") for name in cluster.nodes}
    assert all(cluster.reply(name, query) is None for name, query in waiting.items())
    ((runner, id),) = cluster.where(ticket)
    cluster.finish(runner, id)
    assert all("state=succeeded" in (cluster.reply(name, query) or "") for name, query in waiting.items())


def test_wait_says_how_the_job_stands_when_its_time_is_over() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    here, there = cluster.ask("n1", f"wait timeout=2s {ticket}"), cluster.ask("n2", f"wait timeout=2s {ticket}")
    cluster.advance(1.9)
    assert cluster.reply("n1", here) is cluster.reply("n2", there) is None
    cluster.advance(0.2)
    assert cluster.reply("n1", here) == cluster.reply("n2", there) == f"PENDING {ticket} state=running\n"


def test_wait_goes_on_over_a_balancer_restart() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    query = cluster.ask("n2", f"wait {ticket}")
    cluster.kill_balancer()
    cluster.advance(20)
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.finish_all()
    assert "state=succeeded" in (cluster.reply("n2", query) or "")


def test_without_a_balancer_another_nodes_ticket_is_unavailable_after_five_seconds() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    cluster.kill_balancer()
    queries = [cluster.ask("n2", line) for line in (f"status {ticket}", f"result {ticket}", f"cancel {ticket}", "list")]
    waiting = cluster.ask("n2", f"wait timeout=8 {ticket}")
    cluster.advance(4.9)
    assert all(cluster.reply("n2", query) is None for query in queries)
    cluster.advance(0.2)
    assert all((cluster.reply("n2", query) or "").startswith("ERR UNAVAILABLE") for query in queries)
    assert cluster.reply("n2", waiting) is None
    cluster.advance(3)
    assert (cluster.reply("n2", waiting) or "").startswith("ERR UNAVAILABLE")


def test_no_ticket_and_no_job_are_unknown_at_once() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    never_issued = ticket.replace("-1", "-2")
    for text in ("nope", "k3f7qa-0", "k3f7qa-1", never_issued, "%00"):
        for verb in ("status", "result", "wait", "cancel"):
            for name in cluster.nodes:
                reply = cluster.say(name, f"{verb} {text}") or ""
                assert reply.startswith("ERR UNKNOWN_TICKET"), (verb, text, name, reply)


def test_a_ticket_whose_origin_has_not_sent_it_yet_is_waited_for() -> None:
    cluster = Cluster(2, slots=1)
    cluster.store_level("balancer", 0.9)  # the ledger has no room for the job
    ticket = cluster.submit("n1")
    assert (cluster.say("n2", f"result {ticket}") or "").startswith(f"PENDING {ticket} state=queued")
    waiting, cancel = cluster.ask("n2", f"wait {ticket}"), cluster.ask("n2", f"cancel {ticket}")
    assert cluster.reply("n2", waiting) is cluster.reply("n2", cancel) is None
    cluster.store_level("balancer", 0.1)
    assert cluster.reply("n2", cancel) == f"OK {ticket} state=cancelled\n"
    assert "state=cancelled" in (cluster.reply("n2", waiting) or "")


def test_a_ticket_whose_origin_is_away_is_not_called_unknown() -> None:
    cluster = Cluster(2)
    cluster.kill_balancer()
    ticket = cluster.submit("n1")
    cluster.kill_node("n1")
    cluster.start_balancer()
    cluster.dial("n2")
    query = cluster.ask("n2", f"status {ticket}")
    waiting = cluster.ask("n2", f"wait {ticket}")
    cluster.advance(5.1)
    assert (cluster.reply("n2", query) or "").startswith("ERR UNAVAILABLE")
    cluster.restart_node("n1")
    cluster.finish_all()
    assert "state=succeeded" in (cluster.reply("n2", waiting) or "")


def test_cancelling_what_waits_ends_it_at_once_without_an_attempt() -> None:
    cluster = Cluster(1, slots=1)
    cluster.submit("n1")
    ticket = cluster.submit("n1")
    assert cluster.say("n1", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    reply = cluster.say("n1", f"result {ticket}")
    assert reply == f"OK {ticket} state=cancelled attempt=0 reason=user stdout=0 stderr=0 bytes=0\n\n"
    cluster.finish_all()
    assert (ticket, 1) not in cluster.starts


def test_cancelling_what_runs_terminates_it_and_its_result_tells_how() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((runner, id),) = cluster.where(ticket)
    assert cluster.say("n2", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    assert [kill.signal for kill in cluster.nodes[runner].killed] == [signal.SIGTERM]
    asking = cluster.ask("n1", f"result {ticket}")
    assert cluster.reply("n1", asking) is None, "it is over as soon as its processes are"
    cluster.finish(runner, id, output=b"half", outcome=KILLED)
    expected = f"OK {ticket} state=cancelled exit=143 attempt=1 node={runner} seconds=2.000 reason=user"
    assert (cluster.reply("n1", asking) or "").startswith(expected)


def test_a_job_that_resists_sigterm_is_killed_and_holds_its_slot_until_then() -> None:
    cluster = Cluster(1, slots=1)
    ticket, following = cluster.submit("n1"), cluster.submit("n1")
    cluster.say("n1", f"cancel {ticket}")
    asking = cluster.ask("n1", f"result {ticket}")
    cluster.advance(4.9)
    assert cluster.reply("n1", asking) == f"PENDING {ticket} state=cancelled\n"
    assert cluster.where(following) == []
    cluster.advance(0.2)
    assert [kill.signal for kill in cluster.nodes["n1"].killed] == [signal.SIGTERM, signal.SIGKILL]
    cluster.finish("n1", (ticket, 1), outcome=KILLED, output=b"half")
    assert len(cluster.where(following)) == 1


def test_a_cancel_wins_over_a_success_that_comes_later() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.say("n1", f"cancel {ticket}")
    cluster.finish("n1", (ticket, 1))
    assert "state=cancelled" in (cluster.say("n1", f"status {ticket}") or "")


def test_cancelling_what_has_ended_says_how_it_ended() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    for name in cluster.nodes:
        assert cluster.say(name, f"cancel {ticket}") == f"OK {ticket} state=succeeded\n"


def test_a_cancel_is_not_forgotten_with_the_node_or_the_balancer() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((runner, _),) = cluster.where(ticket)
    other = "n2" if runner == "n1" else "n1"
    cluster.cut(cluster.nodes[runner].link or 0)
    assert cluster.say(other, f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial(runner)
    assert [kill.signal for kill in cluster.nodes[runner].killed] == [signal.SIGTERM]


def test_a_cancelled_job_whose_node_is_lost_is_over() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((runner, _),) = cluster.where(ticket)
    other = "n2" if runner == "n1" else "n1"
    cluster.say(other, f"cancel {ticket}")
    cluster.kill_node(runner)
    cluster.advance(20)
    assert "state=cancelled" in (cluster.say(other, f"status {ticket}") or "")
    assert len(cluster.starts) == 1


def test_a_group_is_cancelled_and_listed_as_one() -> None:
    cluster = Cluster(2, slots=1)
    for number in range(4):
        cluster.submit("n1", f"group={'ab'[number % 2]} sh true")
    assert cluster.say("n2", "cancel group=a") == "OK group=a state=cancelled count=2\n"
    listed = cluster.say("n2", "list group=b") or ""
    assert listed.startswith("OK count=2 ")
    assert listed.count("group=b") == 2
    cluster.finish_all()
    assert (cluster.say("n1", "list state=cancelled") or "").startswith("OK count=2 ")
    assert (cluster.say("n1", "list state=succeeded limit=1") or "").startswith("OK count=1 ")
    assert (cluster.say("n2", "list local=1") or "").startswith("OK count=0 ")
    assert (cluster.say("n1", "list local=1") or "").startswith("OK count=4 ")


def test_a_timeout_terminates_and_fails_with_its_reason() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "timeout=3s sh true")
    cluster.advance(2.9)
    assert cluster.nodes["n1"].killed == []
    cluster.advance(0.2)
    assert [kill.signal for kill in cluster.nodes["n1"].killed] == [signal.SIGTERM]
    cluster.finish("n1", (ticket, 1), outcome=KILLED, output=b"half")
    reply = cluster.say("n1", f"result {ticket}") or ""
    assert "state=failed exit=143 attempt=1" in reply
    assert "reason=timeout" in reply


def test_sleep_is_timed_and_can_be_cancelled_and_time_out() -> None:
    cluster = Cluster(1, slots=3)
    whole, cancelled, late = (cluster.submit("n1", f"{o}sleep 10") for o in ("", "", "timeout=4 "))
    cluster.advance(2)
    cluster.say("n1", f"cancel {cancelled}")
    reply = cluster.say("n1", f"result {cancelled}") or ""
    assert "state=cancelled exit=143 attempt=1 node=n1 seconds=2.000" in reply
    cluster.advance(2)
    assert "state=failed exit=143 attempt=1 node=n1 seconds=4.000 reason=timeout" in (
        cluster.say("n1", f"result {late}") or ""
    )
    cluster.advance(6)
    assert "state=succeeded exit=0" in (cluster.say("n1", f"result {whole}") or "")


def test_a_client_that_goes_away_is_forgotten_everywhere_and_its_job_goes_on() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    here, there = cluster.ask("n1", f"wait {ticket}"), cluster.ask("n2", f"wait {ticket}")
    cluster.hang_up_client("n1", here)
    cluster.hang_up_client("n2", there)
    for name in cluster.nodes:
        assert cluster.nodes[name].machine.statistics()["queries_open"] == 0
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 0
    cluster.finish_all()
    assert "state=succeeded" in (cluster.say("n2", f"status {ticket}") or "")


# --- keys ---------------------------------------------------------------------------------------------------------


def test_one_key_is_one_job_at_every_node() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1", "key=k sh true")
    assert cluster.submit("n1", "key=k sh true") == first
    assert cluster.submit("n2", "key=k sh true") == first
    cluster.finish_all()
    assert cluster.submit("n2", "key=k sh true") == first
    assert len(cluster.starts) == 1


def test_another_text_under_a_known_key_is_a_conflict() -> None:
    cluster = Cluster(2)
    cluster.submit("n1", "key=k sh true")
    for name in cluster.nodes:
        assert (cluster.say(name, "submit key=k sh false") or "").startswith("ERR CONFLICT")
        assert (cluster.say(name, "submit key=k priority=3 sh true") or "").startswith("ERR CONFLICT")
    cluster.finish_all()
    assert len(cluster.starts) == 1


def test_a_key_taken_in_without_the_balancer_becomes_another_name_of_the_first_job() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1", "key=k sh true")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh true")
    assert second != first
    assert cluster.submit("n2", "key=k sh true") == second
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.finish_all()
    assert len(cluster.starts) == 1
    for name in cluster.nodes:
        assert "state=succeeded" in (cluster.say(name, f"status {second}") or ""), name


def test_a_conflict_found_too_late_loses_no_acknowledged_job() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1", "key=k sh true")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh false")
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    cluster.finish_all()
    assert {ticket for ticket, _ in cluster.starts} == {first, second}


def test_a_key_is_asked_of_the_ledger_as_long_as_its_owner_is_anothers_job() -> None:
    """Else this node would go on naming a job that has been forgotten long since."""
    cluster = Cluster(2, periods=attrs.evolve(PERIODS, retention_s=3600.0))
    first = cluster.submit("n1", "key=k sh true")
    assert cluster.submit("n2", "key=k sh true") == first
    cluster.finish_all()
    cluster.advance(7300)
    again = cluster.submit("n2", "key=k sh true")
    assert again != first
    cluster.finish_all()
    assert "state=succeeded" in (cluster.say("n1", f"status {again}") or "")


def test_a_keyed_submission_is_answered_although_the_ledger_has_no_room() -> None:
    cluster = Cluster(2)
    cluster.store_level("balancer", 0.9)
    query = cluster.ask("n1", "submit key=k sh true")
    cluster.advance(4.9)
    assert cluster.reply("n1", query) is None
    cluster.advance(0.2)
    ticket = (cluster.reply("n1", query) or "").split()[1]
    cluster.store_level("balancer", 0.1)
    cluster.finish_all()
    assert "state=succeeded" in (cluster.say("n2", f"status {ticket}") or "")


def test_a_job_refused_for_its_key_after_its_client_was_told_ok_runs_all_the_same() -> None:
    """The ledger's refusal and the end of our patience cross on the way."""
    cluster = Cluster(2)
    cluster.submit("n2", "key=k sh false")
    cluster.frozen = frozenset({"n1"})
    query = cluster.ask("n1", "submit key=k sh true")
    cluster.advance(5.1)
    ticket = (cluster.reply("n1", query) or "").split()[1]
    cluster.frozen = frozenset()
    cluster.settle()
    cluster.finish_all()
    assert "state=succeeded" in (cluster.say("n2", f"status {ticket}") or "")


def test_a_list_is_newest_first_also_after_a_restart() -> None:
    cluster = Cluster(3, slots=0)
    tickets = [cluster.submit(f"n{1 + number % 3}") for number in range(6)]
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    listed = (cluster.say("n1", "list") or "").splitlines()[1:-1]
    assert [line.split()[0] for line in listed if line] == tickets[::-1]


def test_what_is_last_known_says_of_when_it_is() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    cluster.advance(10)
    cluster.say("n1", f"status {ticket}")
    cluster.advance(3)
    cluster.kill_balancer()
    assert "state=running" in (cluster.say("n1", f"status {ticket}") or "")
    assert "as_of_s=3.000" in (cluster.say("n1", f"status {ticket}") or "")


def test_a_key_that_was_taken_in_offline_is_not_refused_when_it_is_asked_for_again() -> None:
    """The job behind it was acknowledged: a repetition must not make it one that can be withdrawn."""
    cluster = Cluster(2)
    cluster.submit("n2", "key=k sh false")
    cluster.cut(cluster.nodes["n1"].link or 0)
    ticket = cluster.submit("n1", "key=k sh true")
    cluster.frozen = frozenset({"n1"})
    cluster.dial("n1")
    cluster.frozen = frozenset()
    query = cluster.ask("n1", "submit key=k sh true")
    cluster.finish_all()
    assert cluster.reply("n1", query) == f"OK {ticket}\n"
    assert "state=succeeded" in (cluster.say("n2", f"status {ticket}") or "")


def test_whoever_waits_for_a_ticket_that_becomes_a_second_name_waits_for_the_first() -> None:
    cluster = Cluster(2, slots=1)
    first = cluster.submit("n2", "key=k sh true")
    cluster.cut(cluster.nodes["n1"].link or 0)
    query = cluster.ask("n1", "run key=k sh true")
    cluster.dial("n1")
    cluster.finish_all()
    assert (cluster.reply("n1", query) or "").startswith(f"OK {first} state=succeeded")


def test_a_question_whose_origin_went_away_is_asked_again_when_it_is_back() -> None:
    cluster = Cluster(2, slots=1)
    cluster.store_level("balancer", 0.9)
    ticket = cluster.submit("n1")
    cluster.frozen = frozenset({"n1"})
    query = cluster.ask("n2", f"wait {ticket}")
    cluster.cut(cluster.nodes["n1"].link or 0)
    cluster.frozen = frozenset()
    cluster.store_level("balancer", 0.1)
    cluster.dial("n1")
    cluster.finish_all()
    assert "state=succeeded" in (cluster.reply("n2", query) or "")


def test_a_wait_that_is_over_leaves_nothing_at_the_balancer() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    for _ in range(20):
        cluster.ask("n2", f"wait timeout=1 {ticket}")
        cluster.advance(1.1)
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 0


def test_stats_tells_how_many_jobs_are_queued_and_how_long_the_first_has_been() -> None:
    cluster = Cluster(1, slots=1)
    cluster.submit("n1")
    assert queue_of(cluster) == ("0", "0.0")
    cluster.submit("n1", "slots=9 sh true")
    cluster.advance(30)
    cluster.submit("n1", "slots=9 sh true")
    count, oldest_s = queue_of(cluster)
    assert count == "2"
    assert float(oldest_s) == pytest.approx(30, abs=1)


def queue_of(cluster: Cluster) -> tuple[str, str]:
    numbers = dict(line.split() for line in (cluster.say("n1", "stats") or "").splitlines()[1:] if line)
    return numbers["jobs_queued"], numbers["oldest_queued_s"]


def test_nodes_tells_the_version_of_each_that_has_said_hello_since_the_balancer_started() -> None:
    cluster = Cluster(2)
    assert (cluster.say("n1", "nodes") or "").count(" version=test\n") == 2
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    known, unknown = sorted((cluster.say("n1", "nodes") or "").splitlines()[1:3])
    assert known.startswith("name=n1 ")
    assert known.endswith(" version=test")
    assert unknown.startswith("name=n2 ")
    assert "version=" not in unknown
