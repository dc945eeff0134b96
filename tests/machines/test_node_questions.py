"""RETRY, FORGET, EXPLAIN and WATCH: what is asked of the ledger, what is answered here, and what a broken link does."""

import pytest

from common.effects import Note, Reply
from common.events import Asked, ClientsGone, LinkClosed
from common.messages import Answer, Forget, Inquiry
from common.model import Ended, Reason, State
from tests.machines.alone import Alone, failed, query
from tests.machines.cluster import Cluster

THEIRS = "bbbbbb-7"


def reply_of(done: list[object]) -> str:
    """The one thing that was done is to answer."""
    (reply,) = done
    assert isinstance(reply, Reply), reply
    return reply.reply.decode()


# --- asked of the ledger ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("retry BBBBBB-7", Inquiry(1, "retry", THEIRS)),
        ("retry group=g", Inquiry(1, "retry", group="g")),
        ("forget bbbbbb-7", Inquiry(1, "forget", THEIRS)),
        ("forget group=g", Inquiry(1, "forget", group="g")),
        ("explain bbbbbb-7", Inquiry(1, "explain", THEIRS)),
        ("watch group=g", Inquiry(1, "watch", group="g")),
        ("watch since=x.1 bbbbbb-7,aaaaaa-1", Inquiry(1, "watch", tickets=(THEIRS, "aaaaaa-1"), since="x.1")),
        ("logs bbbbbb-7", Inquiry(1, "logs", THEIRS)),
        ("logs follow=1 bbbbbb-7", Inquiry(1, "logs", THEIRS)),
        ("events", Inquiry(1, "events")),
        ("events since=17", Inquiry(1, "events", since="17")),
        ("events follow=1 since=17", Inquiry(1, "follow", since="17")),
    ],
)
def test_a_request_is_relayed_with_all_that_it_says_and_its_answer_as_it_is(line: str, asked: Inquiry) -> None:
    node = Alone()
    assert node.inquiry(line) == asked
    assert reply_of(node.receive(Answer(1, b"ERR WHATEVER the ledger says\n"))) == "ERR WHATEVER the ledger says\n"
    assert node.advance(100.0) == []
    assert node.worker.statistics()["queries_open"] == 0


@pytest.mark.parametrize("line", ["retry bbbbbb-7", "forget group=g", "explain bbbbbb-7", "logs bbbbbb-7", "events",
                                  "logs follow=1 bbbbbb-7"])  # fmt: skip
@pytest.mark.parametrize("linked", [True, False])
def test_nothing_waits_longer_than_five_seconds_for_an_answer(line: str, linked: bool) -> None:
    node = Alone(linked=linked)
    node.ask(line)
    assert node.advance(4.9) == []
    *told, reply = node.advance(0.2)
    assert reply_of([reply]).startswith("ERR UNAVAILABLE ")
    assert told == ([Forget(node.last)] if linked and "bbbbbb-7" in line else [])
    assert node.worker.statistics()["queries_open"] == 0


@pytest.mark.parametrize("verb", ["retry", "forget", "explain", "logs", "logs follow=1"])
def test_a_ticket_of_ours_that_was_never_issued_is_unknown_at_once(verb: str) -> None:
    node = Alone()
    for text in ("nope", "aaaaaa-1"):
        assert node.say(f"{verb} {text}") == f"ERR UNKNOWN_TICKET no job has the ticket '{text}'\n"


# --- RETRY and FORGET ------------------------------------------------------------------------------------------


def test_a_retry_of_our_own_job_is_known_here_as_soon_as_it_is_answered() -> None:
    """Whoever reads the answer may ask again before the notice is here."""
    node = Alone()
    ticket = node.submit()
    node.end(ticket, failed(node.wall))
    asked = node.inquiry(f"retry {ticket}")
    assert asked == Inquiry(node.last, "retry", ticket)
    answer = f"OK {ticket} state=queued\n"
    assert reply_of(node.receive(Answer(asked.id, answer.encode()))) == answer
    assert node.ask(f"wait {ticket}") == []
    assert node.inquiry(f"status {ticket}").verb == "status"


def test_a_forget_of_our_own_job_is_known_here_as_soon_as_it_is_answered() -> None:
    node = Alone()
    ticket = node.submit("key=k sh true")
    node.end(ticket)
    asked = node.inquiry(f"forget {ticket}")
    node.receive(Answer(asked.id, f"OK {ticket}\n".encode()))
    assert node.say(f"status {ticket}").startswith("ERR UNKNOWN_TICKET")
    assert node.submit("key=k sh false") != ticket


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_what_the_ledger_refuses_changes_nothing_here(verb: str) -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket)
    asked = node.inquiry(f"{verb} {ticket}")
    node.receive(Answer(asked.id, f"ERR CONFLICT {ticket} is succeeded\n".encode()))
    assert "state=succeeded" in node.say(f"status {ticket}")


@pytest.mark.parametrize("line", ["retry bbbbbb-7", "forget group=g"])
def test_whether_a_retry_or_forget_was_done_is_left_open_when_the_link_breaks(line: str) -> None:
    """Asked once more, it would tell of a conflict with itself."""
    node = Alone()
    node.ask(line)
    _, reply = node.cut()
    assert reply_of([reply]).startswith("ERR UNAVAILABLE the link to the balancer broke before it answered; ")
    assert len(node.open_link()) == 2, "holdings, and the note of it"


def test_a_retry_that_was_not_sent_yet_is_asked_over_the_next_link() -> None:
    node = Alone(linked=False)
    node.ask("retry bbbbbb-7")
    assert Inquiry(node.last, "retry", THEIRS) in node.open_link()


def test_a_retry_that_comes_in_the_step_in_which_the_link_is_lost_was_not_sent() -> None:
    node = Alone()
    link, node.link = node.link or 0, None
    lost = node.step(Asked([(1, query("retry bbbbbb-7"))], node.wall), LinkClosed(link, "cut"))
    assert [type(action) for action in lost] == [Note]
    assert Inquiry(1, "retry", THEIRS) in node.open_link()


def test_as_origin_a_retry_of_what_the_ledger_has_still_to_learn_waits_until_it_has() -> None:
    node = Alone()
    live, ended = node.submit(taken=False), node.submit()
    node.end(ended, failed(node.wall))
    for verb in ("retry", "forget"):
        assert node.receive(Inquiry(7, verb, live)) == [
            Answer(7, f"PENDING {live} state=queued as_of_s=0.000\n".encode())
        ]
        assert node.receive(Inquiry(7, verb, ended)) == [Answer(7, f"PENDING {ended} state=failed\n".encode())]
        (answer,) = node.receive(Inquiry(7, verb, "aaaaaa-9"))
        assert isinstance(answer, Answer)
        assert answer.reply.startswith(b"ERR UNKNOWN_TICKET")


# --- EXPLAIN ---------------------------------------------------------------------------------------------------


def test_without_a_link_the_origin_explains_that_the_balancer_cannot_be_reached() -> None:
    node = Alone()
    ticket = node.submit()
    asked = node.inquiry(f"status {ticket}")
    node.receive(Answer(asked.id, f"OK {ticket} state=running attempt=1 node=n2\n".encode()))
    node.cut()
    node.advance(3.0)
    line, _, text = node.say(f"explain {ticket}").partition("\n")
    assert line == f"OK {ticket} state=running reason=balancer_unreachable as_of_s=3.000 bytes={len(text) - 1}"
    assert text.startswith(f"{ticket} is running: the node that took it in has no link to the balancer.\n")


def test_an_explanation_that_is_owed_when_the_link_breaks_is_given_by_the_origin() -> None:
    node = Alone()
    ticket = node.submit()
    node.inquiry(f"explain {ticket}")
    _, reply = node.cut()
    assert "reason=balancer_unreachable" in reply_of([reply])


def test_a_balancer_that_does_not_answer_in_time_is_explained_as_one_that_cannot_be_reached() -> None:
    node = Alone()
    ticket = node.submit()
    node.inquiry(f"explain {ticket}")
    forget, reply = node.advance(5.1)
    assert forget == Forget(node.last)
    assert "reason=balancer_unreachable" in reply_of([reply])


def test_a_job_that_the_ledger_does_not_know_is_explained_as_on_its_way() -> None:
    node = Alone()
    ticket = node.submit(taken=False)
    (answer,) = node.receive(Inquiry(7, "explain", ticket))
    assert isinstance(answer, Answer)
    line, _, text = answer.reply.decode().partition("\n")
    assert line == f"OK {ticket} state=queued reason=on_its_way as_of_s=0.000 bytes={len(text) - 1}"
    assert text.startswith(f"{ticket} is queued: the node that took it in has not heard yet that the ledger")


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(State.SUCCEEDED, 0.0, None, 2, 0, "n2"), "state=succeeded reason=done"),
        (Ended(State.FAILED, 0.0, Reason.EXIT, 1, 3, "n2"), "state=failed reason=exit"),
        (Ended(State.CANCELLED, 0.0, Reason.USER), "state=cancelled reason=user"),
    ],
)
def test_the_end_of_our_own_job_is_explained_here(ended: Ended, said: str) -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket, ended)
    assert node.say(f"explain {ticket}").startswith(f"OK {ticket} {said} bytes=")


def test_an_end_is_explained_alike_by_its_origin_and_by_the_ledger() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    here, there = (cluster.say(name, f"explain {ticket}") for name in ("n1", "n2"))
    assert here == there
    assert (here or "").startswith(f"OK {ticket} state=succeeded reason=done ")


def test_what_has_expired_here_is_not_explained() -> None:
    node = Alone()
    ticket = node.submit()
    node.end(ticket)
    node.advance(4000.0)
    assert node.say(f"explain {ticket}").startswith("ERR EXPIRED")
    assert node.say(f"logs {ticket}").startswith("ERR EXPIRED")
    assert node.inquiry(f"retry {ticket}").verb == "retry", "the ledger may keep it for longer"


# --- WATCH -----------------------------------------------------------------------------------------------------


def test_a_watch_whose_time_is_over_is_answered_by_the_ledger_with_what_there_is() -> None:
    node = Alone()
    asked = node.inquiry("watch timeout=60 since=c group=g")
    assert node.advance(59.9) == []
    assert node.advance(0.2) == [Inquiry(asked.id, "watched", group="g", since="c")]
    reply = "OK count=0 live=3 cursor=c bytes=0\n\n"
    assert reply_of(node.receive(Answer(asked.id, reply.encode()))) == reply
    assert node.receive(Answer(asked.id, reply.encode())) == [], "the two answers may cross"


def test_a_watch_whose_time_is_over_while_nobody_can_be_asked_is_unavailable() -> None:
    node = Alone(linked=False)
    node.ask("watch timeout=60 group=g")
    assert node.advance(59.9) == []
    assert reply_of(node.advance(0.2)).startswith("ERR UNAVAILABLE the balancer cannot be reached")


def test_a_watch_whose_last_question_is_not_answered_is_unavailable() -> None:
    node = Alone()
    node.ask("watch timeout=1 group=g")
    node.advance(1.1)
    assert node.advance(4.5) == []
    assert reply_of(node.advance(0.5)).startswith("ERR UNAVAILABLE")


def test_a_watch_goes_on_over_a_broken_link_for_as_long_as_it_may() -> None:
    node = Alone()
    asked = node.inquiry("watch timeout=1h since=c bbbbbb-7")
    node.cut()
    assert node.advance(1000.0) == []
    assert asked in node.open_link()
    reply = "OK count=1 live=0 cursor=d bytes=0\n\n"
    assert reply_of(node.receive(Answer(asked.id, reply.encode()))) == reply


def test_a_watch_without_a_timeout_waits_for_ever_and_is_forgotten_with_its_client() -> None:
    node = Alone()
    asked = node.inquiry("watch group=g")
    assert node.advance(1000.0) == []
    assert node.step(ClientsGone([asked.id])) == [Forget(asked.id)]
    assert node.worker.statistics()["queries_open"] == 0


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("watch timeout=0 group=g", Inquiry(1, "watched", group="g")),
        ("wait timeout=0 bbbbbb-7", Inquiry(1, "result", THEIRS)),
    ],
)
def test_whoever_gives_no_time_asks_the_ledger_for_no_more_than_what_there_is(line: str, asked: Inquiry) -> None:
    node = Alone()
    assert node.inquiry(line) == asked


def test_a_wait_without_time_leaves_nothing_at_the_balancer() -> None:
    cluster = Cluster(2, slots=0)
    ticket = cluster.submit("n1")
    assert cluster.say("n2", f"wait timeout=0 {ticket}") == f"PENDING {ticket} state=queued\n"
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 0


def test_a_wait_of_ours_goes_on_when_the_link_breaks() -> None:
    node = Alone()
    ticket = node.submit()
    assert node.ask(f"wait {ticket}") == []
    assert len(node.cut()) == 1, "the note of it"
    node.open_link()
    assert reply_of(node.end(ticket)).startswith(f"OK {ticket} state=succeeded")
