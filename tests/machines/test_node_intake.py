"""What an origin knows of its jobs: their age, where they stood at first, the elements of its arrays, and what notices
make of those that had ended."""

import pytest

from common.codec import pack, replace
from common.effects import Reply, Send, Table
from common.events import Asked, LinkOpened, Stop
from common.limits import SYNC_WITHIN_S
from common.messages import (
    Aliases,
    Answer,
    Dispatch,
    Inquiry,
    Jobs,
    Lease,
    Noticed,
    Notices,
    Pair,
    RequestOfRes,
    Result,
    SendAgain,
    Submission,
    Taken,
)
from common.model import Ended, Job, Outcome, State, Verdict, ticket_key
from node.executors import Over
from node.intake import SET_ASIDE
from node.worker import Executed
from tests.machines.alone import Alone, failed, query
from tests.machines.cluster import Cluster
from tests.machines.sound import tables_of


def submissions(done: list[object]) -> list[Submission]:
    return [item for message in done if isinstance(message, Jobs) for item in message.items]


# --- age -------------------------------------------------------------------------------------------------------


def test_a_job_is_sent_with_its_age_however_often_and_late() -> None:
    node = Alone()
    node.ask("submit sh true")
    node.advance(7.5)
    (again,) = submissions(node.receive(SendAgain()))
    assert again.age_s == 7.5
    node.cut()
    node.advance(60.0)
    (again,) = submissions(node.open_link())
    assert again.age_s == 67.5


def test_a_job_from_before_a_restart_has_aged_meanwhile() -> None:
    node = Alone(linked=False)
    node.submit("delay=1h sh true", taken=False)
    node.advance(100.0)
    node.boot()
    (sent,) = submissions(node.open_link())
    assert sent.age_s == 100.0


def test_a_clock_that_was_set_back_makes_no_job_younger_than_nothing() -> None:
    node = Alone(linked=False)
    node.submit(taken=False)
    node.now -= 500.0
    node.boot()
    (sent,) = submissions(node.open_link())
    assert sent.age_s == 0.0


def test_a_new_ledger_is_told_the_age_of_what_has_ended_too() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket)
    node.advance(30.0)
    (sent,) = submissions(node.open_link("ledger-2"))
    assert (sent.ticket, sent.age_s, bool(sent.ended)) == (ticket, 30.0, True)


# --- the first that is known -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("sh true", "queued"),
        ("retries=3 array=1-5 sh true", "queued"),
        ("delay=10 sh true", "scheduled"),
        ("after=bbbbbb-1 sh true", "blocked"),
        ("input=bbbbbb-1 sh true", "blocked"),
        ("delay=10 after=bbbbbb-1 sh true", "scheduled"),
        ("delay=0 sh true", "queued"),
    ],
)
def test_where_a_job_stands_at_first_is_known_without_the_ledger_and_after_a_restart(line: str, state: str) -> None:
    node = Alone(linked=False)
    ticket = node.submit(line, taken=False)
    for _ in range(2):
        reply = node.say(f"status {ticket}")
        assert reply.startswith(f"OK {ticket} state={state} attempt=0 reason=balancer_unreachable "), reply
        assert reply.endswith(" as_of_s=0.000\n")
        assert f"{ticket} state={state} " in node.say("list local=1")
        assert node.say(f"list local=1 state={state}").startswith("OK count=1 ")
        node.boot()


def test_a_local_list_says_why_as_far_as_is_known() -> None:
    node = Alone()
    node.ask("submit sh true")
    assert "aaaaaa-1 state=queued attempt=0 reason=on_its_way " in node.say("list local=1")
    node.receive(Taken(("aaaaaa-1",)))
    assert "aaaaaa-1 state=queued attempt=0 submitted=" in node.say("list local=1")
    asked = node.inquiry("status aaaaaa-1")
    node.receive(Answer(asked.id, b"OK aaaaaa-1 state=running attempt=2 node=n2\n"))
    assert "aaaaaa-1 state=running attempt=2 reason=running " in node.say("list local=1")
    node.cut()
    assert "aaaaaa-1 state=running attempt=2 reason=balancer_unreachable " in node.say("list local=1")


# --- elements --------------------------------------------------------------------------------------------------

VERBS = ("status", "result", "wait", "cancel", "retry", "forget", "explain", "logs", "logs follow=1")


@pytest.mark.parametrize("verb", VERBS)
def test_an_element_is_asked_of_the_ledger_live_or_ended(verb: str) -> None:
    node = Alone()
    ticket = node.submit("array=1-9:2 sh echo {}")
    name = verb.split()[0]
    assert node.inquiry(f"{verb} {ticket}_3") == Inquiry(node.last, name, f"{ticket}_3")
    node.end(ticket, Ended(State.SUCCEEDED, node.wall, counts=(("succeeded", 5),)))
    assert node.inquiry(f"{verb} {ticket.upper()}_9") == Inquiry(node.last, name, f"{ticket}_9")


@pytest.mark.parametrize("verb", VERBS)
def test_an_element_that_cannot_be_is_unknown_at_once(verb: str) -> None:
    node = Alone(linked=False)
    array, plain = node.submit("array=1-9:2 sh echo {}", taken=False), node.submit(taken=False)
    for text in (f"{array}_2", f"{array}_0", f"{array}_11", f"{plain}_1", "aaaaaa-3_1"):
        assert node.say(f"{verb} {text}") == f"ERR UNKNOWN_TICKET no job has the ticket '{text}'\n"


def test_an_element_of_an_ended_job_that_is_no_array_is_unknown_at_once() -> None:
    node = Alone()
    ticket, array = node.submit(), node.submit("array=1-3 sh true")
    node.end(ticket)
    node.end(array, Ended(State.SUCCEEDED, node.wall, counts=(("succeeded", 3),)))
    assert node.say(f"status {ticket}_1").startswith("ERR UNKNOWN_TICKET")
    assert node.say(f"status {array}_4").startswith("ERR UNKNOWN_TICKET")


def test_an_element_of_an_expired_array_is_asked_of_the_ledger() -> None:
    node = Alone()
    ticket = node.submit("array=1-3 sh true")
    node.end(ticket, Ended(State.SUCCEEDED, node.wall, counts=(("succeeded", 3),)))
    node.advance(4000.0)
    assert node.say(f"status {ticket}").startswith("ERR EXPIRED")
    assert node.inquiry(f"status {ticket}_1") == Inquiry(node.last, "status", f"{ticket}_1")
    node.advance(4000.0)
    assert node.say(f"status {ticket}_1").startswith("ERR UNKNOWN_TICKET")


def test_without_a_link_an_element_is_unavailable_after_five_seconds() -> None:
    node = Alone(linked=False)
    ticket = node.submit("array=1-3 sh true", taken=False)
    assert node.ask(f"status {ticket}_1") == []
    assert node.advance(4.9) == []
    (reply,) = node.advance(0.2)
    assert isinstance(reply, Reply)
    assert reply.reply.startswith(b"ERR UNAVAILABLE ")


def test_as_origin_an_element_stands_where_its_array_does() -> None:
    node = Alone()
    ticket = node.submit("array=1-3 delay=10 name=a sh true", taken=False)

    def answer(verb: str, text: str) -> str:
        (answered,) = node.receive(Inquiry(77, verb, text))
        assert isinstance(answered, Answer)
        assert answered.id == 77
        return answered.reply.decode()

    assert answer("status", f"{ticket}_2").startswith(
        f"OK {ticket}_2 state=scheduled attempt=0 reason=on_its_way name=a submitted="
    )
    for verb in ("result", "wait", "cancel", "retry", "forget"):
        assert answer(verb, f"{ticket}_2") == f"PENDING {ticket}_2 state=scheduled as_of_s=0.000\n", verb
    assert answer("explain", f"{ticket}_2").startswith(f"OK {ticket}_2 state=scheduled reason=on_its_way as_of_s=0.000")
    assert answer("logs", f"{ticket}_2") == f"OK {ticket}_2 state=scheduled attempt=0 stdout=0 stderr=0 bytes=0\n\n"
    assert answer("status", f"{ticket}_4").startswith("ERR UNKNOWN_TICKET")
    node.receive(Taken((ticket,)))
    node.end(ticket, Ended(State.FAILED, node.wall, counts=(("succeeded", 2), ("failed", 1))))
    for verb in ("status", "result", "wait", "cancel", "explain", "logs"):
        assert answer(verb, f"{ticket}_2").startswith(f"ERR EXPIRED {ticket}_2 "), "what it came to only a ledger knew"


def test_an_element_of_an_array_that_is_a_second_name_is_the_first_ones() -> None:
    node = Alone(linked=False)
    ticket = node.submit("key=k array=1-3 sh true")
    node.open_link()
    node.receive(Taken((ticket,), aliases=((ticket, "bbbbbb-7"),)))
    assert node.inquiry(f"status {ticket}_2") == Inquiry(node.last, "status", "bbbbbb-7_2")
    assert node.receive(Inquiry(5, "status", f"{ticket}_2")) == [
        Aliases(((ticket, "bbbbbb-7"),)),
        Answer(5, f"PENDING {ticket}_2 state=queued\n".encode()),
    ]


# --- notices ---------------------------------------------------------------------------------------------------


def test_a_revived_job_is_live_again_and_waits_here_until_it_ends_again() -> None:
    node = Alone()
    ticket = node.submit("key=k sh true")
    node.end(ticket, failed(node.wall))
    assert "state=failed" in node.say(f"status {ticket}")
    notice = Notices(revived=(ticket,))
    assert node.receive(notice) == [Noticed(revived=(ticket,)), RequestOfRes((ticket,))]
    assert node.disk.tables[Table.ENDED] == node.disk.tables[Table.EXPIRY] == {}
    assert node.disk.tables[Table.LIVE] == {ticket_key(ticket): b""}
    assert node.inquiry(f"result {ticket}").verb == "result"
    assert node.ask(f"wait {ticket}") == []
    again = replace(failed(node.wall, retried=1), state=State.SUCCEEDED, exit=0, attempt=2)
    (reply,) = node.end(ticket, again)
    assert reply == Reply(node.last, node.say(f"result {ticket}").encode())
    assert "state=succeeded exit=0 attempt=2" in node.say(f"result {ticket}")


def test_a_notice_twice_changes_nothing_and_is_answered_again() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    node.receive(Notices(revived=(ticket,)))
    before = {table: dict(records) for table, records in node.disk.tables.items()}
    assert node.receive(Notices(revived=(ticket,))) == [Noticed(revived=(ticket,)), RequestOfRes((ticket,))]
    assert node.disk.tables == before


def test_a_revived_job_is_acknowledged_and_not_sent_again() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    node.receive(Notices(revived=(ticket,)))
    node.cut()
    done = node.open_link()
    assert submissions(done) == []
    assert RequestOfRes((ticket,)) in done, "its end is asked for like that of any other"
    node.boot()
    assert submissions(node.open_link()) == []


def test_a_revived_job_is_acknowledged_although_an_older_one_is_not() -> None:
    node = Alone()
    node.ask("submit sh older")
    ticket = node.submit("key=k sh true")
    node.end(ticket, failed(node.wall))
    node.receive(Notices(revived=(ticket,)))
    assert node.say("submit key=k sh true") == f"OK {ticket}\n", "nothing is to be waited for"


def test_a_revived_job_survives_a_restart_and_a_new_ledger_gets_it_as_a_live_one() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    node.receive(Notices(revived=(ticket,)))
    node.boot()
    assert node.say(f"status {ticket}").startswith(f"OK {ticket} state=queued ")
    (sent,) = submissions(node.open_link("ledger-2"))
    assert (sent.ticket, sent.ended) == (ticket, b"")


def test_what_a_new_ledger_has_not_taken_is_sent_again_after_a_restart_in_whatever_order_it_came_alive() -> None:
    node = Alone()
    revived = node.submit()
    node.end(revived, failed(node.wall))
    others = [node.submit() for _ in range(2)]
    node.receive(Notices(revived=(revived,)))
    node.cut()
    sent = submissions(node.open_link("another ledger"))
    assert [submission.ticket for submission in sent] == [revived, *others], "a watermark is only as good as this order"
    node.receive(Taken((revived,)))
    others.append(node.submit(taken=False))  # how far the ledger has them is written with what has to be
    node.boot()
    assert [submission.ticket for submission in submissions(node.open_link("another ledger"))] == others


def test_what_nobody_waits_for_is_committed_a_moment_later_or_with_what_somebody_waits_for() -> None:
    node = Alone()
    first = node.submit(taken=False)
    committed = tables_of(node.disk)
    node.receive(Taken((first,)))
    assert tables_of(node.disk) == committed
    second = node.submit(taken=False)
    node.boot()
    assert [submission.ticket for submission in submissions(node.open_link())] == [second]
    node.receive(Taken((second,)))
    node.advance(SYNC_WITHIN_S)
    node.boot()
    assert submissions(node.open_link()) == []


def test_without_a_link_everything_is_committed_with_its_step() -> None:
    node = Alone()
    node.dispatch("bbbbbb-1")
    node.cut()
    node.step(Executed([Over("bbbbbb-1", 1, Outcome(Verdict.SUCCEEDED, exit=0))], node.wall))
    assert len(node.disk.tables[Table.OUTCOMES]) == 1


def test_a_retry_of_what_turned_out_to_be_a_second_name_revives_no_job_here() -> None:
    node = Alone(linked=False)
    ticket = node.submit("key=k sh true", taken=False)
    node.open_link()
    inquiry = node.inquiry(f"retry {ticket}")
    node.receive(Taken((ticket,), ((ticket, "bbbbbb-1"),)))
    node.receive(Answer(inquiry.id, b"OK bbbbbb-1 state=queued\n"))
    assert node.disk.tables[Table.LIVE] == {}


def test_a_late_notice_of_a_retry_finds_the_end_that_it_led_to() -> None:
    """The job was retried and has ended again while its origin was away."""
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    second = Ended(State.SUCCEEDED, node.wall, None, 2, 0, "n2", 0.5, stdout_bytes=3, retried=1)
    node.end(ticket, second, b"new")
    assert "state=succeeded exit=0 attempt=2" in node.say(f"result {ticket}")
    assert len(node.disk.tables[Table.EXPIRY]) == 1
    assert node.receive(Notices(revived=(ticket,)))[-1] == RequestOfRes((ticket,))
    node.end(ticket, second, b"new")
    assert node.say(f"result {ticket}").endswith("stdout=3 stderr=0 bytes=3\nnew\n")


def test_an_end_that_is_not_newer_is_not_taken_for_another() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall, retried=1))
    for late in (failed(node.wall, exit=7), failed(node.wall, exit=7, retried=1)):
        assert node.end(ticket, late) == []
        assert "exit=3" in node.say(f"result {ticket}")


def test_the_output_of_a_former_end_is_not_left_behind() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall, stdout_bytes=4), b"long")
    node.end(ticket, failed(node.wall, retried=1))
    assert node.disk.tables[Table.OUTPUTS] == {}


def test_a_job_that_expired_here_can_be_revived_all_the_same() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    node.advance(4000.0)
    assert node.say(f"status {ticket}").startswith("ERR EXPIRED")
    node.receive(Notices(revived=(ticket,)))
    assert node.inquiry(f"status {ticket}").verb == "status"
    node.end(ticket, failed(node.wall, retried=1))
    assert "state=failed" in node.say(f"status {ticket}")


def test_a_forgotten_job_is_unknown_and_its_key_is_free() -> None:
    node = Alone()
    ticket = node.submit("key=k sh true")
    node.end(ticket, output=b"out")
    assert node.receive(Notices(forgotten=(ticket,))) == [Noticed(forgotten=(ticket,))]
    for verb in VERBS:
        assert node.say(f"{verb} {ticket}").startswith("ERR UNKNOWN_TICKET"), verb
    assert {table for table, records in node.disk.tables.items() if records} == {Table.META}
    assert node.receive(Notices(forgotten=(ticket,))) == [Noticed(forgotten=(ticket,))]
    assert node.submit("key=k sh false") != ticket


def test_whoever_waits_for_a_job_that_is_forgotten_is_told() -> None:
    """It ended and was forgotten while its origin was away: the end never came here."""
    node = Alone()
    ticket = node.submit()
    assert node.ask(f"wait {ticket}") == []
    assert node.receive(Notices(forgotten=(ticket,))) == [
        Reply(node.last, f"ERR UNKNOWN_TICKET no job has the ticket '{ticket}'\n".encode()),
        Noticed(forgotten=(ticket,)),
    ]
    assert node.worker.statistics()["jobs_live"] == 0


def test_notices_of_what_was_never_issued_here_are_answered_and_change_nothing() -> None:
    node = Alone()
    array = node.submit("array=1-3 sh true")
    node.advance(SYNC_WITHIN_S)
    before = {table: dict(records) for table, records in node.disk.tables.items()}
    notices = Notices(("aaaaaa-9", "bbbbbb-1", f"{array}_1", "aaaaaa-9_1"), ("aaaaaa-8", "bbbbbb-2"))
    assert node.receive(notices)[0] == Noticed(notices.revived, notices.forgotten)
    assert node.disk.tables == before


def test_a_notice_is_on_disk_before_it_is_answered() -> None:
    node = Alone()
    first, second = node.submit(), node.submit()
    for ticket in (first, second):
        node.end(ticket, failed(node.wall))
    node.receive(Notices(revived=(first,), forgotten=(second,)))
    node.boot()
    assert node.say(f"status {first}").startswith(f"OK {first} state=queued")
    assert "count=1" in node.say("list local=1")


def test_an_end_of_an_element_is_none_of_its_arrays() -> None:
    node = Alone()
    ticket = node.submit("array=1-3 sh true")
    record = pack(Ended(State.SUCCEEDED, node.wall, None, 1, 0, "n2", 0.5))
    assert node.receive(Result((Pair(f"{ticket}_1", record),))) == []
    assert node.worker.statistics()["jobs_live"] == 1


def test_an_array_is_waited_for_here_like_any_job() -> None:
    node = Alone()
    ticket = node.submit("array=1-3 sh true")
    assert node.ask(f"wait {ticket}") == []
    (reply,) = node.end(ticket, Ended(State.SUCCEEDED, node.wall, counts=(("succeeded", 3),)))
    assert isinstance(reply, Reply)
    assert reply.reply.startswith(f"OK {ticket} state=succeeded ".encode())


def test_jobs_of_an_array_go_through_a_cluster_with_their_age() -> None:
    cluster = Cluster(1, slots=0)
    cluster.store_level("balancer", 0.9)
    cluster.submit("n1")
    cluster.advance(12.0)
    cluster.store_level("balancer", 0.1)
    (last,) = [message for to, message in cluster.sent if isinstance(message, Jobs)][-1].items
    assert last.age_s == 12.0


# --- told before it is on disk -----------------------------------------------------------------------------------


def tells_before_its_commit(node: Alone, line: str) -> list[Submission]:
    """What the ledger is told in the step of a request that the node crashes in."""
    effects = node.worker.handle([Asked([(99, query(line))], node.wall)], node.now)
    told = [action.message for action in effects.at_once if isinstance(action, Send)]
    node.boot()
    return submissions(told)


def test_the_ledger_hears_of_a_job_before_it_is_on_disk_and_its_client_does_not() -> None:
    node = Alone()
    node.submit()  # with it numbers are set aside
    done = node.worker.handle([Asked([(99, query("submit sh true"))], node.wall)], node.now)
    (sent,) = [action.message for action in done.at_once if isinstance(action, Send)]
    assert [item.ticket for item in sent.items] == ["aaaaaa-2"]
    assert done.actions == (Reply(99, b"OK aaaaaa-2\n"),)
    assert done.writes


def test_nobody_waits_for_the_disk_of_the_origin_of_a_run() -> None:
    node = Alone()
    node.submit()
    done = node.worker.handle([Asked([(99, query("run sh true"))], node.wall)], node.now)
    assert len(done.at_once) == 1
    assert not done.writes
    node.worker.committed()
    assert node.advance(SYNC_WITHIN_S) == []
    assert node.disk.get(Table.JOBS, ticket_key("aaaaaa-2")) is not None


def test_the_first_jobs_wait_for_the_numbers_that_are_set_aside_with_them() -> None:
    node = Alone()
    assert tells_before_its_commit(node, "submit sh true") == []
    node.open_link()
    assert node.submit() == "aaaaaa-1"


def test_a_ticket_that_the_ledger_was_told_of_is_never_issued_again() -> None:
    node = Alone()
    node.submit()
    (told,) = tells_before_its_commit(node, "submit sh true")
    node.open_link()
    assert node.submit() == f"aaaaaa-{SET_ASIDE + 2}" != told.ticket


def test_numbers_go_on_where_they_were_after_a_planned_stop() -> None:
    node = Alone(linked=False)
    node.submit(taken=False)
    node.step(Stop())
    node.boot()
    assert node.submit(taken=False) == "aaaaaa-2"


def test_more_are_set_aside_before_the_last_is_used_up() -> None:
    node = Alone()
    for number in range(1, 2 * SET_ASIDE):
        done = node.worker.handle([Asked([(number, query("submit sh true"))], node.wall)], node.now)
        node.disk.commit(list(done.writes))
        node.worker.committed()
        told = [action.message for action in done.at_once if isinstance(action, Send)]
        assert number == 1 or [item.ticket for item in submissions(told)] == [f"aaaaaa-{number}"]
        node.receive(Taken((f"aaaaaa-{number}",)))


def test_jobs_that_waited_on_disk_are_not_sent_before_it_is_there_that_they_were() -> None:
    """Or an origin that crashes would take them for its own to run."""
    node = Alone(linked=False)
    ticket = node.submit(taken=False)
    node.link = 7
    done = node.worker.handle([LinkOpened(7, "ledger-1", eager=True)], node.now)
    sent = [action.message for action in done.actions if isinstance(action, Send)]
    assert [item.ticket for item in submissions(sent)] == [ticket]
    assert done.at_once == ()


def test_what_was_told_and_lost_is_the_ledgers_to_know() -> None:
    node = Alone()
    first = node.submit()
    (told,) = tells_before_its_commit(node, "submit sh true")
    node.open_link()
    assert node.inquiry(f"status {told.ticket}").ticket == told.ticket
    node.end(first)
    assert node.say(f"status {first}").startswith(f"OK {first} state=succeeded")
    assert node.say(f"status aaaaaa-{2 * SET_ASIDE}").startswith("ERR UNKNOWN_TICKET")
    (answer,) = node.receive(Inquiry(5, "status", told.ticket))
    assert isinstance(answer, Answer)
    assert answer.reply.startswith(b"ERR UNKNOWN_TICKET")
    assert node.receive(Notices(revived=(told.ticket,)))[0] == Noticed(revived=(told.ticket,))
    assert node.worker.statistics()["jobs_live"] == 0
    for _ in range(3):
        node.boot()
        node.open_link()
        assert node.inquiry(f"status {told.ticket}").ticket == told.ticket


def test_a_keyed_job_whose_client_waits_for_the_ledger_is_on_disk_before_it_is_told() -> None:
    """Or, did we crash, its client could hear OK from another node that takes the key for ours."""
    node = Alone()
    node.submit()
    done = node.worker.handle([Asked([(99, query("submit key=k sh true"))], node.wall)], node.now)
    assert done.at_once == ()
    (sent,) = [action.message for action in done.actions if isinstance(action, Send)]
    assert [item.ticket for item in submissions([sent])] == ["aaaaaa-2"]


def test_what_was_given_by_a_lost_ledger_begins_before_what_a_new_one_gives() -> None:
    node = Alone()
    node.receive(Dispatch(tuple(lease(f"bbbbbb-{number}", order=number) for number in (70, 71))))
    node.open_link("ledger-2")
    node.receive(Dispatch((lease("bbbbbb-1", order=1),)))
    begun = [node.worker._backlog.running()[0][0]]
    for _ in range(2):
        (last,) = node.worker._backlog.running()
        node.step(Executed((Over(*last, Outcome(Verdict.SUCCEEDED, exit=0), b""),), node.wall))
        begun.append(node.worker._backlog.running()[0][0])
    assert begun == ["bbbbbb-70", "bbbbbb-71", "bbbbbb-1"]


def lease(ticket: str, *, order: int) -> Lease:
    return Lease(ticket, 1, pack(Job("sh", "true")), b"", order)
