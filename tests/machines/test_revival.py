"""RETRY and FORGET: the two ways in which an ended job changes, and how its origin hears of it."""

import attrs
import pytest

from common.effects import Table
from common.events import Received
from common.messages import Noticed, Notices, Result
from common.model import Outcome, Reason, Verdict
from tests.machines.asking import Asker, field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5)


def failed_job(cluster: Cluster, line: str = "sh false") -> str:
    ticket = cluster.submit("n1", line)
    ((name, id),) = cluster.where(ticket)
    cluster.finish(name, id, outcome=FAILED)
    assert state_of(cluster, ticket) == "failed"
    return ticket


# --- retry -----------------------------------------------------------------------------------------------------


def test_a_failed_job_is_queued_again_under_its_ticket_and_its_attempts_are_numbered_on() -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster)
    assert cluster.say("n2", f"retry {ticket}") == f"OK {ticket} state=queued\n"
    ((name, id),) = cluster.where(ticket)
    assert id == (ticket, 2)
    for asked in ("n1", "n2"):
        assert state_of(cluster, ticket, asked) == "running", "nobody answers with the former outcome"
    cluster.finish(name, id, output=b"now")
    for asked in ("n1", "n2"):
        assert (cluster.say(asked, f"result {ticket}") or "").endswith("bytes=3\nnow\n")
        assert field(status(cluster, ticket, asked), "attempt") == "2"


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_an_end_that_was_undone_in_the_step_that_recorded_it_is_not_told(verb: str) -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1", "sh false")
    ((name, id),) = cluster.where(ticket)
    cluster.busy("balancer")
    cluster.finish(name, id, outcome=FAILED)
    cluster.ask("n2", f"{verb} {ticket}")
    before = len(cluster.sent)
    cluster.free("balancer")
    told = [
        pair.ticket for _, message in cluster.sent[before:] if isinstance(message, Result) for pair in message.items
    ]
    assert told == []


def test_retry_counts_begin_anew() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "retries=1 sh false")
    for attempt in (1, 2):
        cluster.finish("n1", (ticket, attempt), outcome=FAILED)
        cluster.advance(2)
    cluster.say("n1", f"retry {ticket}")
    cluster.finish("n1", (ticket, 3), outcome=FAILED)
    assert state_of(cluster, ticket) == "retrying"
    cluster.advance(2)
    cluster.finish("n1", (ticket, 4), outcome=FAILED)
    assert state_of(cluster, ticket) == "failed"


def test_the_crash_count_begins_anew_too() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "crash_limit=1 sh false")
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert field(status(cluster, ticket), "reason") == "crash_limit"
    assert cluster.say("n1", f"retry {ticket}") == f"OK {ticket} state=queued\n"
    cluster.finish("n1", (ticket, 2))
    assert state_of(cluster, ticket) == "succeeded"


def test_a_cancelled_job_can_be_retried_and_numbers_are_never_used_twice() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.say("n1", f"cancel {ticket}")
    cluster.finish("n1", (ticket, 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 1.0))
    cluster.say("n1", f"retry {ticket}")
    assert cluster.where(ticket) == [("n1", (ticket, 2))]


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_what_has_neither_failed_nor_been_cancelled_is_not_retried(state: str) -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    if state == "succeeded":
        cluster.finish("n1", (ticket, 1))
    reply = cluster.say("n1", f"retry {ticket}") or ""
    assert reply.startswith("ERR CONFLICT")
    assert state in reply
    assert state_of(cluster, ticket) == state


def test_a_group_is_retried_as_far_as_it_failed() -> None:
    cluster = Cluster(1, slots=4)
    tickets = [cluster.submit("n1", "group=g sh x") for _ in range(4)]
    for ticket, outcome in zip(tickets, (None, FAILED, FAILED, None), strict=True):
        cluster.finish("n1", (ticket, 1), outcome=outcome)
    assert cluster.say("n1", "retry group=g") == "OK group=g state=queued count=2\n"
    assert set(cluster.nodes["n1"].running) == {(tickets[1], 2), (tickets[2], 2)}
    notices = [message for _, message in cluster.sent if isinstance(message, Notices)]
    assert notices == [Notices((tickets[1], tickets[2]), ())], "told together"
    assert cluster.say("n1", "retry group=none") == "OK group=none state=queued count=0\n"


def test_dependants_that_were_cancelled_stay_so() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1", "sh false")
    last = cluster.submit("n1", f"after={first} sh true")
    cluster.finish("n1", (first, 1), outcome=FAILED)
    cluster.say("n1", f"retry {first}")
    cluster.finish("n1", (first, 2))
    assert state_of(cluster, last) == "cancelled"


def test_who_waits_for_a_retried_job_hears_of_its_new_end() -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster)
    cluster.say("n1", f"retry {ticket}")
    queries = {name: cluster.ask(name, f"wait {ticket}") for name in ("n1", "n2")}
    ((name, id),) = cluster.where(ticket)
    cluster.finish(name, id)
    for asked, query in queries.items():
        assert (cluster.reply(asked, query) or "").startswith(f"OK {ticket} state=succeeded")


def test_an_origin_that_is_away_hears_of_a_retry_when_it_is_back() -> None:
    cluster = Cluster(2, slots=1)
    ticket = failed_job(cluster)
    cluster.kill_node("n1")
    assert cluster.say("n2", f"retry {ticket}") == f"OK {ticket} state=queued\n"
    ((name, id),) = cluster.where(ticket)
    assert name == "n2"
    cluster.restart_node("n1")
    assert state_of(cluster, ticket, "n1") == "running"
    cluster.finish(name, id)
    assert state_of(cluster, ticket, "n1") == "succeeded"


def test_an_origin_that_missed_a_retry_and_its_end_knows_the_new_end() -> None:
    cluster = Cluster(2, slots=1)
    ticket = failed_job(cluster)
    cluster.kill_node("n1")
    cluster.say("n2", f"retry {ticket}")
    ((name, id),) = cluster.where(ticket)
    cluster.finish(name, id, output=b"new")
    cluster.restart_node("n1")
    assert (cluster.say("n1", f"result {ticket}") or "").endswith("\nnew\n")
    cluster.kill_balancer()
    assert (cluster.say("n1", f"result {ticket}") or "").endswith("\nnew\n"), "from its own copy"


def test_a_notice_is_repeated_until_it_is_noted_and_not_after() -> None:
    cluster = Cluster(2, slots=1)
    ticket = failed_job(cluster)
    cluster.kill_node("n1")
    cluster.say("n2", f"retry {ticket}")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n2")
    cluster.restart_node("n1")
    assert [message for _, message in cluster.sent if isinstance(message, Notices)] == [Notices((ticket,), ())]
    cluster.dial("n1")
    assert len([message for _, message in cluster.sent if isinstance(message, Notices)]) == 1


def test_a_notice_that_is_noted_after_the_next_one_was_sent_does_not_stand_for_both() -> None:
    cluster = Cluster(1, slots=0)
    cluster.add_node("n2", slots=1)
    ticket = failed_job(cluster)
    n1 = cluster.nodes["n1"]
    cluster.frozen = frozenset({"n1"})
    Asker(cluster, "n2").ask("retry", ticket=ticket)
    cluster.finish("n2", (ticket, 2), outcome=FAILED)
    Asker(cluster, "n2").ask("retry", ticket=ticket)
    assert n1.link is not None
    cluster._step_balancer(Received(n1.link, [Noticed(revived=(ticket,))], cluster.wall))  # of the first
    cluster.cut(n1.link)
    cluster.finish("n2", (ticket, 3), output=b"now")
    cluster.frozen = frozenset()
    cluster.dial("n1")
    assert state_of(cluster, ticket) == "succeeded"


def test_a_retried_job_goes_on_over_a_restart_of_both() -> None:
    cluster = Cluster(1, slots=0)
    ticket = cluster.submit("n1")
    cluster.say("n1", f"cancel {ticket}")
    cluster.say("n1", f"retry {ticket}")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert state_of(cluster, ticket) == "queued"
    cluster.add_node("n2", slots=1)
    cluster.finish_all()
    assert state_of(cluster, ticket) == "succeeded"


def test_an_old_outcome_that_comes_after_a_retry_is_dropped() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1", "crash_limit=1 sh false")
    ((name, id),) = cluster.where(ticket)
    link = cluster.nodes[name].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(20)
    other = "n2" if name == "n1" else "n1"
    assert field(status(cluster, ticket, other), "reason") == "crash_limit"
    cluster.say(other, f"retry {ticket}")
    cluster.finish(name, id, output=b"late")
    cluster.dial(name)
    ((runner, new),) = [where for where in cluster.where(ticket) if where[1] != id]
    assert new == (ticket, 2)
    cluster.finish(runner, new, output=b"new")
    assert (cluster.say(other, f"result {ticket}") or "").endswith("\nnew\n")


# --- arrays ----------------------------------------------------------------------------------------------------


def test_retrying_an_array_runs_what_failed_of_it_and_nothing_else() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    for index in (1, 2, 3, 4):
        cluster.finish("n1", (f"{ticket}_{index}", 1), outcome=FAILED if index in (2, 4) else None)
    assert cluster.say("n1", f"retry {ticket}") == f"OK {ticket} state=queued\n"
    assert set(cluster.nodes["n1"].running) == {(f"{ticket}_2", 2), (f"{ticket}_4", 2)}
    cluster.finish_all()
    assert (cluster.say("n1", f"result {ticket}") or "").startswith(
        f"OK {ticket} state=succeeded attempt=0 count=4 succeeded=4 failed=0 cancelled=0"
    )


def test_retrying_a_cancelled_array_runs_what_had_not_begun() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1", "array=1-5 sh work {}")
    cluster.finish("n1", (f"{ticket}_1", 1))
    cluster.say("n1", f"cancel {ticket}")
    cluster.finish("n1", (f"{ticket}_2", 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 1.0))
    assert state_of(cluster, ticket) == "cancelled"
    cluster.say("n1", f"retry {ticket}")
    cluster.finish_all()
    assert state_of(cluster, ticket) == "succeeded"
    assert {id for id in cluster.starts if id[1] > 1} == {(f"{ticket}_2", 2)}


def test_the_limit_of_an_array_holds_for_what_is_retried_of_it() -> None:
    cluster = Cluster(1, slots=8)
    ticket = cluster.submit("n1", "array=1-6%2 sh work {}")
    while running := list(cluster.nodes["n1"].running):
        for id in running:
            cluster.finish("n1", id, outcome=FAILED)
    cluster.say("n1", f"retry {ticket}")
    while running := list(cluster.nodes["n1"].running):
        assert len(running) == 2
        for id in running:
            cluster.finish("n1", id)
    assert state_of(cluster, ticket) == "succeeded"


def test_one_element_of_an_ended_array_can_be_retried() -> None:
    cluster = Cluster(1, slots=3)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    for index in (1, 2, 3):
        cluster.finish("n1", (f"{ticket}_{index}", 1), outcome=FAILED)
    assert cluster.say("n1", f"retry {ticket}_2") == f"OK {ticket}_2 state=queued\n"
    assert set(cluster.nodes["n1"].running) == {(f"{ticket}_2", 2)}
    assert state_of(cluster, ticket) == "running"
    cluster.finish_all()
    reply = status(cluster, ticket)
    assert (field(reply, "state"), field(reply, "succeeded"), field(reply, "failed")) == ("failed", "1", "2")


def test_one_element_that_was_dropped_with_its_array_can_be_retried_alone() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1", "array=1-9 sh work {}")
    cluster.say("n1", f"cancel {ticket}")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 1.0))
    assert cluster.say("n1", f"retry {ticket}_7") == f"OK {ticket}_7 state=queued\n"
    cluster.finish_all()
    assert set(cluster.starts) == {(f"{ticket}_1", 1), (f"{ticket}_7", 1)}
    reply = status(cluster, ticket)
    assert (field(reply, "succeeded"), field(reply, "cancelled")) == ("1", "8")


# --- forget ----------------------------------------------------------------------------------------------------


def test_a_forgotten_job_is_unknown_everywhere_and_nothing_of_it_is_left() -> None:
    cluster = Cluster(2, periods=attrs.evolve(PERIODS, retention_s=60.0))
    ticket = failed_job(cluster, "group=g sh false")
    assert cluster.say("n2", f"forget {ticket}") == f"OK {ticket}\n"
    for asked in ("n1", "n2"):
        for verb in ("status", "result", "wait", "retry", "cancel", "forget"):
            assert (cluster.say(asked, f"{verb} {ticket}") or "").startswith("ERR UNKNOWN_TICKET"), verb
    assert cluster.balancer is not None
    tombstone = {Table.TOMBSTONES, Table.EXPIRY}  # in case that somebody comes with an outcome of it
    for disk, more in ((cluster.balancer.disk, tombstone), (cluster.nodes["n1"].disk, set())):
        left = {table for table, records in disk.tables.items() if records}
        assert left <= {Table.META, Table.ORIGINS, Table.NODES, Table.EVENTS, *more}, left
    cluster.advance(70)
    assert not cluster.balancer.disk.tables[Table.TOMBSTONES]


def test_a_late_outcome_of_a_forgotten_job_is_acknowledged_and_dropped() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1", "crash_limit=1 sh false")
    ((name, id),) = cluster.where(ticket)
    link = cluster.nodes[name].link
    assert link is not None
    cluster.cut(link)
    cluster.advance(20)
    other = "n2" if name == "n1" else "n1"
    assert cluster.say(other, f"forget {ticket}") == f"OK {ticket}\n"
    cluster.finish(name, id, output=b"late")
    cluster.dial(name)
    cluster.sync()
    assert not cluster.nodes[name].disk.tables[Table.OUTCOMES]
    assert (cluster.say(other, f"status {ticket}") or "").startswith("ERR UNKNOWN_TICKET")


@pytest.mark.parametrize("first", ["n1", "n2"])
def test_a_late_outcome_is_let_go_of_when_even_the_ledger_that_forgot_its_job_is_lost(first: str) -> None:
    cluster = Cluster(2, slots=1)
    cluster.submit("n1", "sleep 1h")
    ticket = cluster.submit("n1", "crash_limit=1 sh false")
    assert cluster.where(ticket) == [("n2", (ticket, 1))]
    cluster.cut(cluster.nodes["n2"].link or 0)
    cluster.advance(20)
    assert cluster.say("n1", f"forget {ticket}") == f"OK {ticket}\n"
    cluster.finish("n2", (ticket, 1), output=b"late")
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    for name in (first, "n1", "n2"):
        if cluster.nodes[name].link is None:
            cluster.dial(name)
    cluster.sync()
    assert not cluster.nodes["n2"].disk.tables[Table.OUTCOMES]


def test_a_live_job_is_not_forgotten() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    assert (cluster.say("n1", f"forget {ticket}") or "").startswith("ERR CONFLICT")
    assert state_of(cluster, ticket) == "running"


def test_the_key_of_a_forgotten_job_is_free() -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster, "key=k sh false")
    cluster.say("n1", f"forget {ticket}")
    again = cluster.submit("n1", "key=k sh other")
    assert again != ticket
    assert cluster.where(again)


def test_a_group_is_forgotten_as_far_as_it_has_ended() -> None:
    cluster = Cluster(1, slots=3)
    tickets = [cluster.submit("n1", "group=g sh x") for _ in range(3)]
    for ticket in tickets[:2]:
        cluster.finish("n1", (ticket, 1))
    assert cluster.say("n1", "forget group=g") == "OK group=g count=2\n"
    assert state_of(cluster, tickets[2]) == "running"
    assert (cluster.say("n1", f"status {tickets[0]}") or "").startswith("ERR UNKNOWN_TICKET")


def test_an_origin_that_is_away_forgets_when_it_is_back() -> None:
    cluster = Cluster(2)
    ticket = failed_job(cluster)
    cluster.kill_node("n1")
    assert cluster.say("n2", f"forget {ticket}") == f"OK {ticket}\n"
    assert (cluster.say("n2", f"status {ticket}") or "").startswith("ERR UNKNOWN_TICKET"), "without its origin"
    cluster.restart_node("n1")
    assert (cluster.say("n1", f"status {ticket}") or "").startswith("ERR UNKNOWN_TICKET")
    cluster.kill_balancer()
    assert (cluster.say("n1", f"status {ticket}") or "").startswith("ERR UNKNOWN_TICKET")


def test_an_origin_that_never_comes_back_is_not_waited_for_with_a_notice_for_ever() -> None:
    cluster = Cluster(2, periods=attrs.evolve(PERIODS, retention_s=100.0))
    forgotten, retried = failed_job(cluster), failed_job(cluster)
    cluster.kill_node("n1")
    cluster.say("n2", f"forget {forgotten}")
    cluster.say("n2", f"retry {retried}")
    cluster.finish_all()
    assert cluster.balancer is not None
    assert len(cluster.balancer.disk.tables[Table.NOTICES]) == 2
    cluster.advance(250)
    assert cluster.balancer.disk.tables[Table.NOTICES] == {}


def test_an_array_is_forgotten_with_its_elements() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    cluster.finish_all()
    assert (cluster.say("n1", f"forget {ticket}_2") or "").startswith("ERR CONFLICT")
    assert cluster.say("n1", f"forget {ticket}") == f"OK {ticket}\n"
    for name in (ticket, f"{ticket}_2"):
        assert (cluster.say("n1", f"status {name}") or "").startswith("ERR UNKNOWN_TICKET")
    assert cluster.balancer is not None
    assert not cluster.balancer.disk.tables[Table.ENDED]
    assert not cluster.balancer.disk.tables[Table.ARRAYS]
