"""Waiting for many jobs, and following output and events: nothing twice, nothing left out, whichever node answers."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jobyard import (
    Event,
    Logs,
    NotEnded,
    Status,
    Ticket,
    Unavailable,
    UnknownTicket,
    Unreachable,
    Watched,
    watching,
)
from jobyard.protocol import LINE_BYTES_MAX
from tests.runtime.both_clients import Connect
from tests.runtime.fake_node import HOLD, Conversation, FakeNode, only, with_body

AWAY = b"ERR UNAVAILABLE the balancer cannot be reached\n"


def watched(live: int, cursor: str, *lines: str) -> bytes:
    return with_body(f"OK count={len(lines)} live={live} cursor={cursor}", "".join(f"{line}\n" for line in lines))


def ended(*tickets: str) -> list[str]:
    return [f"{ticket} state=succeeded attempt=1" for ticket in tickets]


def told(statuses: Iterator[Status]) -> list[tuple[str, str]]:
    return [(status.ticket, status.state) for status in statuses]


# --- watch -----------------------------------------------------------------------------------------------------


def test_who_has_ended_is_told_with_a_cursor_to_go_on(connect: Connect) -> None:
    talk = [
        (b"WATCH timeout=30 k-1,k-2,k-9\n", watched(1, "c1", *ended("k-1"), "k-9 error=EXPIRED")),
        (b"WATCH timeout=0 since=c1 group=a%20b\n", watched(0, "c2")),
    ]
    with only(talk) as node, connect(node.url) as yard:
        first = yard.watch(["k-1", "k-2", "k-9"])
        assert (told(iter(first.ended)), first.live, first.errors) == ([("k-1", "succeeded")], 1, {"k-9": "EXPIRED"})
        assert yard.watch(group="a b", since=first.cursor, timeout_s=0) == Watched((), 0, "c2")


def test_a_long_watch_is_asked_in_pieces_and_goes_on_at_the_next_node(connect: Connect) -> None:
    request = b"WATCH timeout=30 since=c0 group=g\n"
    with (
        FakeNode([(request, watched(1, "c0")), (request, AWAY), (request, b"")]) as first,
        only([(request, watched(0, "c1", *ended("k-1")))]) as second,
        connect(f"{first.url},{second.url}") as yard,
    ):
        assert yard.watch(group="g", since="c0").cursor == "c1"


def test_a_watch_of_tickets_ends_when_none_of_them_lives(connect: Connect) -> None:
    answer = watched(0, "c", "k-1 error=UNKNOWN_TICKET")
    with only([(b"WATCH timeout=30 k-1\n", answer)]) as node, connect(node.url) as yard:
        assert yard.watch(["k-1"]).errors == {"k-1": "UNKNOWN_TICKET"}


def test_a_watch_is_for_tickets_or_a_group(connect: Connect, deaf_url: str) -> None:
    with connect(deaf_url) as yard:
        with pytest.raises(ValueError, match="one of the two"):
            yard.watch()
        with pytest.raises(ValueError, match="one of the two"):
            yard.watch(["k-1"], group="g")


# --- wait_all --------------------------------------------------------------------------------------------------


def test_all_are_told_of_once_as_they_end_and_the_client_may_be_used_in_between(connect: Connect) -> None:
    talk = [
        (b"WATCH timeout=30 k-1,k-2,k-3\n", watched(1, "c1", *ended("k-3", "k-1"))),
        (b"PING\n", b"OK pong\n"),
        (b"PING\n", b"OK pong\n"),
        (b"WATCH timeout=30 since=c1 k-2\n", watched(1, "c1")),
        (b"WATCH timeout=30 since=c1 k-2\n", watched(0, "c2", "k-2 state=failed attempt=2 reason=exit")),
        (b"PING\n", b"OK pong\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        seen = []
        for status in yard.wait_all(["k-1", "K-2", "k-3", "k-1"]):
            seen.append((status.ticket, status.state, status.reason))
            yard.ping()
    assert seen == [("k-3", "succeeded", None), ("k-1", "succeeded", None), ("K-2", "failed", "exit")]


def test_waiting_for_all_goes_on_at_the_next_node(connect: Connect) -> None:
    with (
        FakeNode([(b"WATCH timeout=30 k-1,k-2\n", watched(1, "c1", *ended("k-1"))), (b"WATCH", b"")]) as first,
        only([(b"WATCH timeout=30 since=c1 k-2\n", watched(0, "c2", *ended("k-2")))]) as second,
        connect(f"{first.url},{second.url}") as yard,
    ):
        assert told(yard.wait_all(["k-1", "k-2"])) == [("k-1", "succeeded"), ("k-2", "succeeded")]


def test_tickets_without_a_job_are_told_of_as_unknown_or_expired(connect: Connect) -> None:
    answer = watched(0, "c", *ended("k-1"), "k-2 error=UNKNOWN_TICKET", "k-3 error=EXPIRED")
    with only([(b"WATCH timeout=30 k-1,k-2,k-3\n", answer)]) as node, connect(node.url) as yard:
        assert told(yard.wait_all(["k-1", "k-2", "k-3"])) == [
            ("k-1", "succeeded"), ("k-2", "unknown"), ("k-3", "expired")
        ]  # fmt: skip


def test_a_text_that_is_no_ticket_is_found_by_halves(connect: Connect) -> None:
    refused = b"ERR UNKNOWN_TICKET no job has the ticket 'nope'\n"
    talk = [
        (b"WATCH timeout=30 k-1,k-2,nope\n", refused),
        (b"WATCH timeout=0.25 k-1\n", watched(0, "c", *ended("k-1"))),
        (b"WATCH timeout=30 k-2,nope\n", refused),
        (b"WATCH timeout=0.25 k-2\n", watched(0, "c", *ended("k-2"))),
        (b"WATCH timeout=30 nope\n", refused),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert told(yard.wait_all(["k-1", "k-2", "nope"])) == [
            ("k-1", "succeeded"), ("k-2", "succeeded"), ("nope", "unknown")
        ]  # fmt: skip


def test_a_job_that_is_told_of_under_its_first_name_is_asked_after_by_its_own(connect: Connect) -> None:
    talk = [
        (b"WATCH timeout=30 k-1,k-2,k-3\n", watched(0, "c", *ended("k-1", "a-7"), "b-1 state=cancelled attempt=0")),
        (b"STATUS k-2\n", b"OK a-7 state=succeeded attempt=1\n"),
        (b"STATUS k-3\n", b"OK b-1 state=cancelled attempt=0\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert told(yard.wait_all(["k-1", "k-2", "k-3"])) == [
            ("k-1", "succeeded"), ("k-2", "succeeded"), ("k-3", "cancelled")
        ]  # fmt: skip


def test_a_job_that_was_queued_again_is_waited_for_again(connect: Connect) -> None:
    talk = [
        (b"WATCH timeout=30 k-1\n", watched(0, "c")),
        (b"STATUS k-1\n", b"OK a-7 state=queued attempt=1\n"),
        (b"WATCH timeout=30 k-1\n", watched(0, "d", *ended("k-1"))),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert told(yard.wait_all(["k-1"])) == [("k-1", "succeeded")]


def test_waiting_for_none_asks_nobody(connect: Connect, deaf_url: str) -> None:
    with connect(deaf_url) as yard:
        assert list(yard.wait_all([])) == []


def test_when_the_time_is_over_each_has_been_asked_after_once(connect: Connect) -> None:
    talk = [(b"WATCH timeout=0 k-1,k-2,k-3\n", watched(2, "c", *ended("k-2")))]
    with only(talk) as node, connect(node.url) as yard:
        statuses = yard.wait_all(["k-1", "k-2", "k-3"], timeout_s=0)
        assert next(statuses).ticket == "k-2"
        with pytest.raises(NotEnded, match=r"k-1 has not ended; it is live\. 1 more have not") as caught:
            next(statuses)
    assert (caught.value.ticket, caught.value.others) == ("k-1", 1)


def test_waiting_for_all_goes_on_while_the_balancer_cannot_be_reached(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "UNAVAILABLE_PAUSE_S", 0.0)
    request = b"WATCH timeout=30 k-1\n"
    with only([(request, AWAY), (request, watched(0, "c", *ended("k-1")))]) as node, connect(node.url) as yard:
        assert told(yard.wait_all(["k-1"])) == [("k-1", "succeeded")]


def test_waiting_for_all_says_so_when_nobody_could_be_asked(connect: Connect) -> None:
    with (
        only([(b"WATCH timeout=0 k-1\n", AWAY)]) as node,
        connect(node.url) as yard,
        pytest.raises(Unavailable),
    ):
        list(yard.wait_all(["k-1"], timeout_s=0))


class EndingNode:
    """Ends `per_request` of the jobs that it is asked after, the last first. Counts requests and tickets."""

    def __init__(self, per_request: int) -> None:
        self.requests: list[tuple[str, int]] = []  # timeout, tickets
        self._per_request = per_request

    def __call__(self, connection: socket.socket) -> None:
        rest = b""
        while data := connection.recv(1 << 20):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                assert len(line) <= LINE_BYTES_MAX
                connection.sendall(self._answer(line.decode()))

    def _answer(self, line: str) -> bytes:
        match = re.fullmatch(r"WATCH timeout=(\S+)(?: since=\S+)? (\S+)", line)
        assert match is not None, line
        tickets = match[2].split(",")
        self.requests.append((match[1], len(tickets)))
        return watched(max(0, len(tickets) - self._per_request), "c", *ended(*tickets[-self._per_request :]))


def test_10_000_jobs_are_awaited_on_one_connection_with_few_requests(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "GAP_S", 0.0)
    tickets = [f"abcdef-{number}" for number in range(10_000)]
    ending = EndingNode(per_request=500)
    with FakeNode(ending) as node, connect(node.url) as yard:
        seen = [status.ticket for status in yard.wait_all(tickets)]
    assert sorted(seen) == sorted(tickets)
    assert [count for _, count in ending.requests[:4]] == [4000, 4000, 2000, 3500], "three pieces, asked in turn"
    assert {timeout for timeout, _ in ending.requests[:4]} == {"0.25"}, "none may hold up the others"
    assert ending.requests[-1][0] == "30", "what is left fits in one, which can wait"
    assert len(ending.requests) <= 22


def test_what_is_left_of_several_pieces_is_asked_after_together_when_it_is_little() -> None:
    progress = watching.Watching(f"abcdef-{number}" for number in range(5000))
    first = progress.ask(timeout_s=60.0).data.decode().split()
    assert (first[1], first[-1].count(",")) == ("timeout=0.25", 3999)
    ended = tuple(Status(Ticket(f"abcdef-{number}"), "succeeded") for number in range(1, 4000))
    assert len(progress.take(Watched(ended, 1, "c"), now=0.0)) == 3999
    second = progress.ask(timeout_s=60.0).data.decode().split()
    assert (second[1], second[-1].count(",")) == ("timeout=30", 1000)


def test_many_tickets_are_asked_after_less_often_than_few() -> None:
    for count, least_s in ((4000, 0.08), (1, 0.0)):
        progress = watching.Watching(f"abcdef-{number}" for number in range(count))
        progress.ask(1.0)
        progress.take(Watched((), count, "c"), now=100.0)
        assert progress.pause_s(100.0) == pytest.approx(least_s, abs=0.001)
        assert progress.pause_s(101.0) == 0.0


# --- output as it comes ----------------------------------------------------------------------------------------


def logs(state: str, attempt: int, out: str, err: str = "", *, end: bool = False) -> bytes:
    fields = f"OK k-1 state={state} attempt={attempt} stdout={len(out)} stderr={len(err)}{' end=1' if end else ''}"
    return with_body(fields, out + err)


FOLLOW = b"LOGS follow=1 k-1\n"


def heard(yard: Any) -> list[tuple[str, int, bytes, bytes, bool]]:
    return [(part.state, part.attempt, part.stdout, part.stderr, part.end) for part in yard.follow_logs("k-1")]


def test_output_is_followed_to_its_end(connect: Connect) -> None:
    replies = logs("queued", 0, "") + logs("running", 1, "a", "b") + logs("succeeded", 1, "c", end=True)
    with only([(FOLLOW, replies)]) as node, connect(node.url) as yard:
        assert list(yard.follow_logs("k-1")) == [
            Logs(Ticket("k-1"), "queued", 0),
            Logs(Ticket("k-1"), "running", 1, b"a", b"b"),
            Logs(Ticket("k-1"), "succeeded", 1, b"c", end=True),
        ]


def test_output_is_followed_on_a_connection_of_its_own(connect: Connect) -> None:
    ping = (b"PING\n", b"OK pong\n")
    follow: Conversation = [(FOLLOW, logs("running", 1, "a") + logs("succeeded", 1, "", end=True)), HOLD]
    with FakeNode(follow) as stream, only([ping]) as node, connect(stream.url) as yard:
        parts = yard.follow_logs("k-1")
        assert next(parts).stdout == b"a"
        with connect(node.url) as other:
            other.ping()
        assert [part.end for part in parts] == [True]


def test_after_a_lost_connection_output_goes_on_where_it_was(connect: Connect) -> None:
    with (
        FakeNode([(FOLLOW, logs("running", 1, "abc", "x") + logs("running", 1, "de", "yz"))]) as first,
        FakeNode([(FOLLOW, logs("running", 1, "abcd", "x") + logs("running", 1, "efg", "yz!"))]) as second,
        only([(FOLLOW, logs("running", 1, "abcdefghi", "xyz!?", end=True))]) as third,
        connect(f"{first.url},{second.url},{third.url}") as yard,
    ):
        assert heard(yard) == [
            ("running", 1, b"abc", b"x", False),
            ("running", 1, b"de", b"yz", False),
            ("running", 1, b"fg", b"!", False),
            ("running", 1, b"hi", b"?", True),
        ]


def test_a_reply_that_is_cut_off_is_not_counted(connect: Connect) -> None:
    cut = logs("running", 1, "ab") + logs("running", 1, "cdef")[:-3]
    with (
        FakeNode(
            [(FOLLOW, cut)], [(FOLLOW, logs("running", 1, "abcdef") + logs("failed", 1, "", end=True)), HOLD]
        ) as node,
        connect(node.url) as yard,
    ):
        assert [part[2] for part in heard(yard)] == [b"ab", b"cdef", b""]


def test_a_new_attempt_begins_anew_and_an_older_one_is_not_told_again(connect: Connect) -> None:
    behind = logs("running", 1, "old") + logs("running", 2, "new") + logs("succeeded", 2, "er", end=True)
    with (
        FakeNode([(FOLLOW, logs("running", 1, "old") + logs("running", 2, "ne"))], [(FOLLOW, behind), HOLD]) as node,
        connect(node.url) as yard,
    ):
        assert heard(yard) == [
            ("running", 1, b"old", b"", False),
            ("running", 2, b"ne", b"", False),
            ("running", 2, b"w", b"", False),
            ("succeeded", 2, b"er", b"", True),
        ]


def test_following_goes_on_while_nobody_can_be_asked(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "UNAVAILABLE_PAUSE_S", 0.0)
    with (
        FakeNode([(FOLLOW, AWAY), HOLD], [(FOLLOW, logs("succeeded", 1, "a", end=True)), HOLD]) as node,
        connect(node.url) as yard,
    ):
        assert heard(yard) == [("succeeded", 1, b"a", b"", True)]


def test_what_is_unknown_cannot_be_followed(connect: Connect) -> None:
    with (
        only([(FOLLOW, b"ERR UNKNOWN_TICKET no job has the ticket 'k-1'\n")]) as node,
        connect(node.url) as yard,
        pytest.raises(UnknownTicket),
    ):
        list(yard.follow_logs("k-1"))


def test_nodes_that_hang_up_each_time_are_unreachable(connect: Connect) -> None:
    lost: Conversation = [(FOLLOW, b"")]
    with (
        FakeNode(lost, lost) as node,
        connect(node.url) as yard,
        pytest.raises(Unreachable, match="was lost"),
    ):
        list(yard.follow_logs("k-1"))


# --- events as they come ---------------------------------------------------------------------------------------


def events(cursor: str, *numbers: int, lost: bool = False) -> bytes:
    body = "".join(json.dumps({"seq": number}) + "\n" for number in numbers)
    return with_body(f"OK count={len(numbers)}{' lost=1' if lost else ''} cursor={cursor}", body)


def test_events_go_on_behind_the_cursor_at_the_next_node_and_a_gap_is_told(connect: Connect) -> None:
    with (
        FakeNode([(b"EVENTS follow=1 since=c0\n", events("c1", 1) + events("c3", 2, 3))]) as first,
        only([(b"EVENTS follow=1 since=c3\n", events("c9", 8, 9, lost=True) + events("c10", 10))]) as second,
        connect(f"{first.url},{second.url}") as yard,
    ):
        stream = yard.follow_events("c0")
        seen: list[Event] = [next(stream) for _ in range(7)]
        stream.close()
    assert [event.get("seq", event.get("event")) for event in seen] == [1, 2, 3, "events.lost", 8, 9, 10]
