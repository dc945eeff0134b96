"""EVENTS: relayed at once, or part by part from cursor to cursor to whoever follows them."""

import pytest

from common.effects import Reply
from common.events import ClientsGone, Delivered
from common.limits import LOGS_PERIOD_S
from common.messages import Answer, Forget, Inquiry
from tests.machines.alone import Alone


def told(cursor: str, *events: str) -> bytes:
    body = "".join(f'{{"event":"{event}"}}\n' for event in events).encode()
    return f"OK count={len(events)} cursor={cursor} bytes={len(body)}\n".encode() + body + b"\n"


def follow(node: Alone, line: str = "events follow=1") -> int:
    return node.inquiry(line).id


def test_each_answer_is_a_part_and_the_next_is_asked_for_from_its_cursor_as_soon_as_the_client_has_it() -> None:
    node = Alone()
    id = follow(node, "events follow=1 since=c0")
    for cursor in ("c1", "c2"):
        part = told(cursor, "job.submitted", "job.queued")
        assert node.receive(Answer(id, part)) == [Reply(id, part, more=True)]
        assert node.advance(10.0) == [], "the client does not read"
        assert node.step(Delivered([id])) == [Inquiry(id, "follow", since=cursor)]


def test_nothing_may_happen_for_as_long_as_it_likes() -> None:
    node = Alone()
    follow(node)
    assert node.advance(1000.0) == []


def test_a_lost_piece_of_the_past_is_told_as_it_comes() -> None:
    node = Alone()
    id = follow(node, "events follow=1 since=old")
    part = b"OK count=1 lost=1 cursor=c9 bytes=3\n{}\n\n"
    assert node.receive(Answer(id, part)) == [Reply(id, part, more=True)]
    assert node.step(Delivered([id])) == [Inquiry(id, "follow", since="c9")]


def test_a_cursor_is_sent_back_as_it_was_meant() -> None:
    node = Alone()
    id = follow(node)
    node.receive(Answer(id, told("a%25b", "job.queued")))
    assert node.step(Delivered([id])) == [Inquiry(id, "follow", since="a%b")]


def test_an_answer_with_nothing_in_it_is_no_part_and_no_reason_to_ask_in_a_hurry() -> None:
    node = Alone()
    id = follow(node)
    assert node.receive(Answer(id, told("c1"))) == []
    assert node.advance(LOGS_PERIOD_S / 2) == []
    assert node.advance(LOGS_PERIOD_S) == [Inquiry(id, "follow", since="c1")]


def test_a_new_link_is_asked_again_from_where_the_client_is() -> None:
    node = Alone()
    id = follow(node)
    node.receive(Answer(id, told("c1", "job.queued")))
    node.step(Delivered([id]))
    node.cut()
    assert node.advance(1000.0) == []
    assert Inquiry(id, "follow", since="c1") in node.open_link()


def test_a_part_that_is_read_while_there_is_no_link_is_gone_on_with_later() -> None:
    node = Alone()
    id = follow(node)
    node.receive(Answer(id, told("c1", "job.queued")))
    node.cut()
    assert node.step(Delivered([id])) == []
    assert Inquiry(id, "follow", since="c1") in node.open_link()


def test_without_a_link_to_begin_with_events_are_unavailable_after_five_seconds() -> None:
    node = Alone(linked=False)
    assert node.ask("events follow=1") == []
    assert node.advance(4.9) == []
    (reply,) = node.advance(0.2)
    assert isinstance(reply, Reply)
    assert (reply.reply[:16], reply.more) == (b"ERR UNAVAILABLE ", False)


def test_an_error_ends_it() -> None:
    node = Alone()
    id = follow(node)
    assert node.receive(Answer(id, b"ERR INTERNAL sorry\n")) == [Reply(id, b"ERR INTERNAL sorry\n")]
    assert node.worker.statistics()["queries_open"] == 0


@pytest.mark.parametrize("unread", [True, False])
def test_a_client_that_goes_away_is_forgotten_at_the_ledger_where_it_waits_there(unread: bool) -> None:
    node = Alone()
    id = follow(node)
    if unread:
        node.receive(Answer(id, told("c1", "job.queued")))
    assert node.step(ClientsGone([id])) == ([] if unread else [Forget(id)])
    assert node.step(Delivered([id])) == []
    assert node.advance(10.0) == []
    assert node.worker.statistics()["queries_open"] == 0


def test_two_who_follow_are_told_apart() -> None:
    node = Alone()
    first, second = follow(node), follow(node, "events follow=1 since=c5")
    node.receive(Answer(second, told("c6", "job.queued")), Answer(first, told("c1", "job.queued")))
    assert node.step(Delivered([first, second])) == [
        Inquiry(first, "follow", since="c1"),
        Inquiry(second, "follow", since="c6"),
    ]
