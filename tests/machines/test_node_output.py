"""LOGS: what a job has printed, from its runner, from its origin, and part by part to whoever follows it."""

import pytest

from common.codec import replace
from common.effects import Reply, Table
from common.events import ClientsGone, Delivered, Received
from common.limits import LOGS_PERIOD_S, SYNC_WITHIN_S
from common.messages import Acknowledged, Answer, Drop, Forget, Inquiry, Result
from common.model import Ended, Job, Outcome, Reason, State, Verdict
from node.executors import Over, Peek, Printed
from node.worker import Executed
from tests.machines.alone import Alone, failed

THEIRS = "bbbbbb-7"


def logs(ticket: str, said: str, stdout: bytes = b"", stderr: bytes = b"", *, end: bool = False) -> bytes:
    """The reply to LOGS, as the protocol has it."""
    ends = " end=1" if end else ""
    head = f"OK {ticket} {said} stdout={len(stdout)} stderr={len(stderr)}{ends} bytes={len(stdout + stderr)}\n"
    return head.encode() + stdout + stderr + b"\n"


def over(ticket: str, output: bytes = b"", attempt: int = 1, **outcome: object) -> Over:
    ended = Outcome(Verdict.SUCCEEDED, exit=0, stdout_bytes=len(output))
    return Over(ticket, attempt, replace(ended, **outcome), output)


# --- the runner ------------------------------------------------------------------------------------------------


def test_the_runner_has_its_executors_look_and_answers_with_what_they_see() -> None:
    node = Alone()
    node.dispatch(THEIRS, attempt=2)
    assert node.receive(Inquiry(7, "logs", THEIRS)) == [Peek(1, THEIRS, 2, 0, 0)]
    assert node.step(Executed([Printed(1, True, b"out", b"er")], node.wall)) == [
        Answer(7, logs(THEIRS, "state=running attempt=2", b"out", b"er"))
    ]
    assert node.step(Executed([Printed(1, True, b"out", b"er")], node.wall)) == [], "nobody waits any more"


def test_only_what_lies_behind_the_places_of_the_same_attempt_is_looked_for() -> None:
    node = Alone()
    node.dispatch(THEIRS, attempt=2)
    assert node.receive(Inquiry(7, "logs", THEIRS, attempt=2, stdout_at=10, stderr_at=3)) == [Peek(1, THEIRS, 2, 10, 3)]
    assert node.receive(Inquiry(8, "logs", THEIRS, attempt=1, stdout_at=10, stderr_at=3)) == [Peek(2, THEIRS, 2, 0, 0)]


def test_the_origin_can_be_the_runner_too() -> None:
    node = Alone()
    ticket = node.submit()
    node.dispatch(ticket)
    assert node.receive(Inquiry(7, "logs", ticket)) == [Peek(1, ticket, 1, 0, 0)]
    node.step(Executed([over(ticket, b"output")], node.wall))
    assert node.receive(Inquiry(8, "logs", ticket, attempt=1, stdout_at=3)) == [
        Answer(8, logs(ticket, "state=running attempt=1", b"put"))
    ]


def test_a_sleep_prints_nothing() -> None:
    node = Alone()
    node.dispatch(THEIRS, job=Job("sleep", "10"))
    assert node.receive(Inquiry(7, "logs", THEIRS)) == [Answer(7, logs(THEIRS, "state=running attempt=1"))]


def test_an_attempt_that_has_just_ended_is_told_from_its_outcome() -> None:
    node = Alone()
    node.dispatch(THEIRS)
    ends = over(THEIRS, b"outerr", stdout_bytes=3, stderr_bytes=3)
    (reported,) = node.step(Executed([ends], node.wall))
    assert isinstance(reported, Result)
    assert node.receive(Inquiry(7, "logs", THEIRS, attempt=1, stdout_at=1, stderr_at=2)) == [
        Answer(7, logs(THEIRS, "state=running attempt=1", b"ut", b"r"))
    ]
    assert node.receive(Inquiry(8, "logs", THEIRS)) == [
        Answer(8, logs(THEIRS, "state=running attempt=1", b"out", b"err"))
    ]
    node.receive(Acknowledged(((THEIRS, 1),)))
    assert node.receive(Inquiry(9, "logs", THEIRS, attempt=1)) == [Answer(9, logs(THEIRS, "state=running attempt=1"))]


def test_an_attempt_that_ends_while_it_is_looked_at_is_told_from_its_outcome() -> None:
    """In whichever order the two are told."""
    node = Alone()
    node.dispatch(THEIRS)
    node.receive(Inquiry(7, "logs", THEIRS, attempt=1, stdout_at=2))
    reported, answer = node.step(Executed([Printed(1, False), over(THEIRS, b"output")], node.wall))
    assert isinstance(reported, Result), "the ledger hears of the end first"
    assert answer == Answer(7, logs(THEIRS, "state=running attempt=1", b"tput"))


def test_an_attempt_that_ends_in_the_step_of_the_question_is_told_from_its_outcome() -> None:
    node = Alone()
    node.dispatch(THEIRS)
    done = node.step(
        Executed([over(THEIRS, b"output")], node.wall),
        Received(node.link or 0, [Inquiry(7, "logs", THEIRS)], node.wall),
    )
    assert done[-1] == Answer(7, logs(THEIRS, "state=running attempt=1", b"output"))


def test_what_is_left_of_a_followed_attempt_comes_before_the_next_attempt() -> None:
    node = Alone()
    node.dispatch(THEIRS)
    node.step(Executed([over(THEIRS, b"first", verdict=Verdict.FAILED, reason=Reason.EXIT, exit=1)], node.wall))
    node.dispatch(THEIRS, attempt=2)
    assert node.receive(Inquiry(7, "logs", THEIRS, attempt=1, stdout_at=2)) == [
        Answer(7, logs(THEIRS, "state=running attempt=1", b"rst"))
    ]
    assert node.receive(Inquiry(8, "logs", THEIRS, attempt=1, stdout_at=5)) == [Peek(1, THEIRS, 2, 0, 0)]


def test_of_what_is_not_here_nothing_is_told_and_never_that_it_is_unknown() -> None:
    node = Alone()
    assert node.receive(Inquiry(7, "logs", THEIRS, attempt=3)) == [Answer(7, logs(THEIRS, "state=running attempt=3"))]
    node.dispatch("bbbbbb-8", THEIRS)
    assert node.receive(Inquiry(8, "logs", THEIRS)) == [Answer(8, logs(THEIRS, "state=running attempt=0"))]
    node.receive(Drop((("bbbbbb-8", 1),)))
    node.step(Executed([over("bbbbbb-8", b"unwanted")], node.wall))
    assert node.receive(Inquiry(9, "logs", "bbbbbb-8", attempt=1)) == [
        Answer(9, logs("bbbbbb-8", "state=running attempt=1"))
    ]


def test_an_outcome_that_crosses_the_drop_of_its_attempt_is_not_kept() -> None:
    """Where outcomes are only sent when they are asked for, nobody would ever ask for it."""
    node = Alone()
    node.dispatch(THEIRS)
    node.step(Executed([over(THEIRS, b"done")], node.wall))
    node.advance(SYNC_WITHIN_S)
    assert node.disk.tables[Table.OUTCOMES]
    node.receive(Drop(((THEIRS, 1),)))
    node.advance(SYNC_WITHIN_S)
    assert not node.disk.tables[Table.OUTCOMES]
    assert not node.disk.tables[Table.OUTCOME_OUTPUTS]


def test_an_answer_that_comes_after_its_link_goes_nowhere() -> None:
    node = Alone()
    node.dispatch(THEIRS)
    node.receive(Inquiry(7, "logs", THEIRS))
    node.cut()
    node.open_link()
    assert node.step(Executed([Printed(1, True, b"out")], node.wall)) == []


# --- the origin ------------------------------------------------------------------------------------------------


def ended_job(node: Alone) -> str:
    ticket = node.submit()
    node.end(ticket, failed(node.wall, attempt=2, stdout_bytes=3, stderr_bytes=2), b"outer")
    return ticket


@pytest.mark.parametrize("linked", [True, False])
def test_our_own_ended_job_is_told_from_our_copy(linked: bool) -> None:
    node = Alone()
    ticket = ended_job(node)
    if not linked:
        node.cut()
    assert node.say(f"logs {ticket}").encode() == logs(ticket, "state=failed attempt=2", b"out", b"er")
    followed = node.say(f"logs follow=1 {ticket}").encode()
    assert followed == logs(ticket, "state=failed attempt=2", b"out", b"er", end=True)


def test_a_ledger_that_has_still_to_learn_of_an_end_is_told_what_lies_behind_the_places() -> None:
    node = Alone()
    ticket = ended_job(node)
    node.open_link("ledger-2")
    assert node.receive(Inquiry(7, "logs", ticket, attempt=2, stdout_at=2, stderr_at=2)) == [
        Answer(7, logs(ticket, "state=failed attempt=2", b"t"))
    ]
    assert node.receive(Inquiry(7, "logs", ticket, attempt=1, stdout_at=2)) == [
        Answer(7, logs(ticket, "state=failed attempt=2", b"out", b"er"))
    ]


def test_an_array_prints_nothing_and_its_elements_are_named() -> None:
    node = Alone()
    ticket = node.submit("array=5-9 sh true")
    for verb in ("logs", "logs follow=1"):
        assert node.say(f"{verb} {ticket}") == (
            f"ERR BAD_REQUEST {ticket} is an array, and prints nothing; LOGS takes an element, such as {ticket}_5\n"
        )
    node.end(ticket, Ended(State.SUCCEEDED, node.wall, counts=(("succeeded", 5),)))
    assert node.say(f"logs {ticket}").startswith("ERR BAD_REQUEST")
    (answer,) = node.receive(Inquiry(7, "logs", ticket))
    assert isinstance(answer, Answer)
    assert answer.reply.startswith(b"ERR BAD_REQUEST")


# --- following -------------------------------------------------------------------------------------------------


class Follower:
    """A client that follows a job through a node; the test answers for the ledger."""

    def __init__(self, node: Alone, ticket: str = THEIRS) -> None:
        self.node = node
        self.ticket = ticket
        self.asked = node.inquiry(f"logs follow=1 {ticket}")
        self.id = self.asked.id

    def answer(self, said: str, stdout: bytes = b"", stderr: bytes = b"") -> list[object]:
        return self.node.receive(Answer(self.id, logs(self.ticket, said, stdout, stderr)))

    def part(self, said: str, stdout: bytes = b"", stderr: bytes = b"") -> Reply:
        return Reply(self.id, logs(self.ticket, said, stdout, stderr), more=True)

    def last(self, said: str, stdout: bytes = b"", stderr: bytes = b"") -> Reply:
        return Reply(self.id, logs(self.ticket, said, stdout, stderr, end=True))

    def deliver(self) -> list[object]:
        return self.node.step(Delivered([self.id]))

    def inquiry(self, attempt: int, stdout_at: int, stderr_at: int = 0) -> Inquiry:
        return Inquiry(self.id, "logs", self.ticket, attempt=attempt, stdout_at=stdout_at, stderr_at=stderr_at)


def test_each_part_is_what_is_new_and_the_next_is_asked_for_a_moment_after_the_client_has_it() -> None:
    node = Alone()
    client = Follower(node)
    assert client.answer("state=running attempt=1", b"one\n", b"e") == [
        client.part("state=running attempt=1", b"one\n", b"e")
    ]
    assert node.advance(10.0) == [], "the client does not read"
    assert client.deliver() == []
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(1, 4, 1)]
    assert client.answer("state=running attempt=1", b"two\n") == [client.part("state=running attempt=1", b"two\n")]
    client.deliver()
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(1, 8, 1)]
    assert client.answer("state=succeeded attempt=1", b"three\n") == [
        client.last("state=succeeded attempt=1", b"three\n")
    ]
    assert node.advance(10.0) == []
    assert node.worker.statistics()["queries_open"] == 0


def test_a_part_with_nothing_new_is_not_sent_but_for_the_first_and_the_last() -> None:
    node = Alone()
    client = Follower(node)
    assert client.answer("state=queued attempt=0") == [client.part("state=queued attempt=0")]
    client.deliver()
    for state in ("queued", "queued", "dispatched"):
        assert node.advance(LOGS_PERIOD_S) == [client.inquiry(0, 0)]
        assert client.answer(f"state={state} attempt=0") == []
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(0, 0)]
    assert client.answer("state=cancelled attempt=0") == [client.last("state=cancelled attempt=0")]


def test_a_new_attempt_begins_anew() -> None:
    node = Alone()
    client = Follower(node)
    client.answer("state=running attempt=1", b"first")
    client.deliver()
    node.advance(LOGS_PERIOD_S)
    assert client.answer("state=retrying attempt=0") == []
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(1, 5)], "where it was in the attempt is not forgotten"
    assert client.answer("state=running attempt=2", b"sec") == [client.part("state=running attempt=2", b"sec")]
    client.deliver()
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(2, 3)]


def test_an_attempt_before_the_one_that_is_followed_is_not_told_again() -> None:
    """The attempt that was followed was lost with its node, and the job ended with what an earlier one had printed."""
    node = Alone()
    client = Follower(node)
    client.answer("state=running attempt=2", b"second")
    client.deliver()
    node.advance(LOGS_PERIOD_S)
    assert client.answer("state=cancelled attempt=1", b"first") == [client.last("state=cancelled attempt=2")]


def test_what_an_earlier_attempt_has_printed_is_no_news_in_the_middle_either() -> None:
    node = Alone()
    client = Follower(node)
    client.answer("state=running attempt=2", b"second")
    client.deliver()
    node.advance(LOGS_PERIOD_S)
    assert client.answer("state=running attempt=1", b"first") == []
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(2, 6)]


def test_a_job_that_has_ended_before_it_is_followed_is_told_at_once_and_completely() -> None:
    client = Follower(Alone())
    assert client.answer("state=failed attempt=3", b"all", b"err") == [
        client.last("state=failed attempt=3", b"all", b"err")
    ]


def test_an_end_that_the_ledger_has_marked_is_not_marked_twice() -> None:
    client = Follower(Alone())
    marked = logs(THEIRS, "state=failed attempt=3", b"all", end=True)
    assert client.node.receive(Answer(client.id, marked)) == [Reply(client.id, marked)]


def test_an_error_ends_it_also_in_the_middle() -> None:
    client = Follower(Alone())
    client.answer("state=running attempt=1", b"one")
    client.deliver()
    client.node.advance(LOGS_PERIOD_S)
    gone = b"ERR EXPIRED it ended\n"
    assert client.node.receive(Answer(client.id, gone)) == [Reply(client.id, gone)]
    assert client.node.worker.statistics()["queries_open"] == 0


def test_a_broken_link_is_waited_out_and_nothing_is_told_twice() -> None:
    node = Alone()
    client = Follower(node)
    client.answer("state=running attempt=1", b"one")
    client.deliver()
    node.advance(LOGS_PERIOD_S)
    node.cut()
    assert node.advance(1000.0) == []
    assert client.inquiry(1, 3) in node.open_link()
    client.answer("state=running attempt=1", b"two")
    node.cut()
    assert client.deliver() == []
    assert node.advance(1000.0) == []
    assert client.inquiry(1, 6) in node.open_link()


def test_the_end_of_our_own_job_is_told_from_our_copy_behind_what_was_told() -> None:
    node = Alone()
    ticket = node.submit()
    client = Follower(node, ticket)
    client.answer("state=running attempt=1", b"one\n", b"e1")
    client.deliver()
    node.end(ticket, failed(node.wall, stdout_bytes=8, stderr_bytes=4), b"one\ntwo\ne1e2")
    assert node.advance(LOGS_PERIOD_S) == [client.last("state=failed attempt=1", b"two\n", b"e2")]


def test_the_end_of_another_attempt_of_our_own_job_is_left_to_the_ledger() -> None:
    """It may know what is left of the attempt that was followed."""
    node = Alone()
    ticket = node.submit()
    client = Follower(node, ticket)
    client.answer("state=running attempt=1", b"one")
    client.deliver()
    node.end(ticket, failed(node.wall, attempt=2, stdout_bytes=3), b"two")
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(1, 3)]
    assert client.answer("state=failed attempt=2", b"two") == [client.last("state=failed attempt=2", b"two")]


def test_output_that_looks_like_a_reply_is_not_taken_for_one() -> None:
    node = Alone()
    client = Follower(node)
    tricky = b" state=failed attempt=9 stdout=100 end=1 bytes=7\nOK"
    assert client.answer("state=running attempt=1", tricky) == [client.part("state=running attempt=1", tricky)]
    client.deliver()
    assert node.advance(LOGS_PERIOD_S) == [client.inquiry(1, len(tricky))]
    assert client.answer("state=succeeded attempt=1", tricky) == [client.last("state=succeeded attempt=1", tricky)]


@pytest.mark.parametrize("when", ["asked", "unread", "between"])
def test_a_client_that_goes_away_ends_it(when: str) -> None:
    node = Alone()
    client = Follower(node)
    if when != "asked":
        client.answer("state=running attempt=1", b"one")
    if when == "between":
        client.deliver()
    assert node.step(ClientsGone([client.id])) == ([Forget(client.id)] if when == "asked" else [])
    assert node.advance(10.0) == []
    assert client.deliver() == []
    assert node.advance(10.0) == []
    assert node.worker.statistics()["queries_open"] == 0


def test_a_stale_answer_of_the_link_before_is_not_taken() -> None:
    node = Alone()
    client = Follower(node)
    client.answer("state=running attempt=1", b"one")
    assert client.answer("state=running attempt=1", b"one") == [], "it was answered once"


def test_what_is_learned_of_a_job_is_not_learned_from_its_runner() -> None:
    """The runner says `running` whatever the ledger has recorded meanwhile."""
    node = Alone()
    ticket = node.submit()
    asked = node.inquiry(f"status {ticket}")
    node.receive(Answer(asked.id, f"OK {ticket} state=cancelled attempt=1\n".encode()))
    asked = node.inquiry(f"logs {ticket}")
    node.receive(Answer(asked.id, logs(ticket, "state=running attempt=1", b"x")))
    node.cut()
    assert node.say(f"status {ticket}").startswith(f"OK {ticket} state=cancelled")
