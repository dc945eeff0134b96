"""Both clients against a node that plays golden conversations: what they say, word for word, and what they make of it.

How such conversations are written is told in `tests/runtime/fake_node.py`.
"""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobyard import (
    Conflict,
    Drained,
    Draining,
    Events,
    Explanation,
    Full,
    Job,
    Logs,
    NotAllSubmitted,
    NotEnded,
    Outcome,
    ProtocolError,
    Ticket,
    TooManyConnections,
    Unauthorized,
    Unavailable,
    Unconfirmed,
    UnknownTicket,
    Unreachable,
    batch,
    watching,
)
from jobyard.addresses import Address, parse_url
from tests.runtime.both_clients import Connect, idle_connection
from tests.runtime.fake_node import HOLD, PATIENCE_S, FakeNode, only, with_body

OUTCOME = with_body("OK k-1 state=failed exit=3 attempt=2 node=n2 seconds=0.5 reason=exit stdout=3 stderr=4", "outoops")
DONE = with_body("OK k-1 state=succeeded exit=0 attempt=1 node=n1 seconds=0.5 stdout=3 stderr=0", "hi\n")
PING = (b"PING\n", b"OK pong\n")

# --- the verbs -------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_and_its_outcome_fetched(connect: Connect) -> None:
    talk = [
        (b"SUBMIT priority=5 env.A=b sh exit 3\n", b"OK k-1\n"),
        (b"STATUS k-1\n", b"OK k-1 state=running attempt=2 node=n2 group=g\n"),
        (b"RESULT k-1\n", OUTCOME),
    ]
    with only(talk) as node, connect(node.url) as yard:
        ticket = yard.submit("sh", "exit 3", priority=5, env={"A": "b"})
        assert ticket == "k-1"
        status = yard.status(ticket)
        assert (status.state, status.attempt, status.node, status.group) == ("running", 2, "n2", "g")
        assert yard.result(ticket) == Outcome(ticket, "failed", 2, 3, "n2", 0.5, "exit", False, b"out", b"oops")


def test_run_waits_for_the_job_that_it_submits(connect: Connect) -> None:
    talk = [(b"SUBMIT bytes=2 exec cat\nhi\n", b"OK k-1\n"), (b"WAIT timeout=30 k-1\n", DONE)]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.run("exec", "cat", body=b"hi").stdout == b"hi\n"


def test_a_job_and_a_group_are_cancelled(connect: Connect) -> None:
    talk = [
        (b"CANCEL k-1\n", b"OK k-1 state=succeeded\n"),
        (b"CANCEL group=a%20b\n", b"OK group=a%20b state=cancelled count=7\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.cancel("k-1") == "succeeded"
        assert yard.cancel_group("a b") == 7


def test_every_option_of_a_job_is_sent(connect: Connect) -> None:
    line = (
        b"SUBMIT name=a%20b group=g key=k priority=-5 slots=2 retries=3 crash_limit=off array=0-9:3%2 dir=/d"
        b" memory=1024 files=10 processes=11 output=12 timeout=1.5 backoff=0.25 delay=60 cpu=2 after=k-1,k-2_7"
        b" input=k-9,k-3 env.A=b bytes=2 sh echo {}\nhi\n"
    )
    with only([(line, b"OK k-3\n")]) as node, connect(node.url) as yard:
        ticket = yard.submit(
            "sh", "echo {}", body=b"hi", name="a b", group="g", key="k", priority=-5, slots=2, retries=3,
            crash_limit="off", array="0-9:3%2", dir="/d", memory_bytes=1024, files=10, processes=11, output_bytes=12,
            timeout_s=1.5, backoff_s=0.25, delay_s=60, cpu_s=2, after=["k-1", "k-2_7"],
            input=["k-9", "k-3"], env={"A": "b"},
        )  # fmt: skip
    assert ticket == "k-3"


def test_a_job_may_wait_for_a_thousand_others(connect: Connect) -> None:
    after = [f"abcdef-{number}" for number in range(1000)]
    request = f"SUBMIT after={','.join(after)} input={','.join(after)} sh true\n".encode()
    with only([(request, b"OK k-1\n")]) as node, connect(node.url) as yard:
        assert yard.submit("sh", "true", after=after, input=after) == "k-1"


@pytest.mark.parametrize("ticket", ["", "a b", "a,b", "a\nb"])
def test_what_cannot_be_a_ticket_never_becomes_a_part_of_a_list(connect: Connect, ticket: str, deaf_url: str) -> None:
    with connect(deaf_url) as yard:
        with pytest.raises(ValueError, match="is no ticket"):
            yard.submit("sh", "true", after=[ticket])
        with pytest.raises(ValueError, match="is no ticket"):
            yard.watch([ticket])


def test_jobs_are_retried_and_forgotten(connect: Connect) -> None:
    talk = [
        (b"RETRY k-1\n", b"OK k-1 state=queued\n"),
        (b"RETRY group=g\n", b"OK group=g state=queued count=3\n"),
        (b"FORGET k-1\n", b"OK k-1\n"),
        (b"FORGET group=g\n", b"OK group=g count=2\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.retry("k-1") == "queued"
        assert yard.retry_group("g") == 3
        yard.forget("k-1")
        assert yard.forget_group("g") == 2


def test_a_retry_in_doubt_is_not_repeated(connect: Connect) -> None:
    with (
        FakeNode([(b"RETRY k-1\n", b"")]) as node,
        connect(node.url) as yard,
        pytest.raises(Unconfirmed, match="may have been taken or not"),
    ):
        yard.retry("k-1")


def test_a_job_is_explained(connect: Connect) -> None:
    talk = [(b"EXPLAIN k-1\n", with_body("OK k-1 state=queued reason=no_free_slot", "3 jobs\nare before it\n"))]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.explain("k-1") == Explanation(Ticket("k-1"), "queued", "no_free_slot", "3 jobs\nare before it")


def test_what_a_job_has_printed_so_far_is_told(connect: Connect) -> None:
    talk = [(b"LOGS k-1\n", with_body("OK k-1 state=running attempt=2 stdout=3 stderr=4", "outoops"))]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.logs("k-1") == Logs(Ticket("k-1"), "running", 2, b"out", b"oops")


def test_events_are_told_behind_a_cursor(connect: Connect) -> None:
    event = {"seq": 17, "at": "2026-11-21T10:00:00.000Z", "event": "job.submitted", "ticket": "k-1"}
    talk = [
        (b"EVENTS since=c1\n", with_body("OK count=1 cursor=c2", json.dumps(event) + "\n")),
        (b"EVENTS\n", with_body("OK count=0 lost=1 cursor=c3", "")),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.events("c1") == Events((event,), "c2")
        assert yard.events() == Events((), "c3", lost=True)


def test_a_node_is_drained_and_back(connect: Connect) -> None:
    talk = [
        (b"DRAIN\n", b"OK state=draining running=2 waiting=1\n"),
        (b"UNDRAIN\n", b"OK state=alive\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        assert yard.drain() == Drained("draining", 2, 1)
        assert yard.undrain() == "alive"


def test_nobody_drains_whichever_of_several_nodes_answers(connect: Connect, deaf_url: str) -> None:
    with connect(f"{deaf_url},{deaf_url}") as yard:
        with pytest.raises(ValueError, match="drain is for one node, and this client has the addresses of 2"):
            yard.drain()
        with pytest.raises(ValueError, match="undrain is for one node"):
            yard.undrain()


def test_an_array_tells_how_many_elements_stand_where(connect: Connect) -> None:
    status = b"OK k-1 state=running attempt=0 count=3 scheduled=0 blocked=0 queued=1 dispatched=0 running=1 retrying=0"
    result = with_body("OK k-1 state=failed attempt=0 count=3 succeeded=2 failed=1 cancelled=0 stdout=0 stderr=0", "")
    talk = [(b"STATUS k-1\n", status + b" succeeded=1 failed=0 cancelled=0\n"), (b"RESULT k-1\n", result)]
    with only(talk) as node, connect(node.url) as yard:
        counts = yard.status("k-1").counts
        assert {state: count for state, count in counts.items() if count} == {
            "queued": 1, "running": 1, "succeeded": 1
        }  # fmt: skip
        assert yard.result("k-1").counts == {"succeeded": 2, "failed": 1, "cancelled": 0}


def test_a_live_job_says_what_it_waits_for(connect: Connect) -> None:
    line = b"OK k-1 state=retrying attempt=2 reason=retry retry_at=2026-11-21T10:00:00.000Z failures=2 key=a%20b\n"
    with only([(b"STATUS k-1\n", line)]) as node, connect(node.url) as yard:
        status = yard.status("k-1")
    assert (status.reason, status.retry_at, status.failures, status.key, status.ended, status.counts) == (
        "retry", "2026-11-21T10:00:00.000Z", 2, "a b", False, {}
    )  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        "OK k-1 state=running attempt=x stdout=0 stderr=0 bytes=0\n\n",
        "OK k-1 state=running attempt=1 stdout=1 stderr=0 bytes=0\n\n",
        "OK k-1 attempt=1 stdout=0 stderr=0 bytes=0\n\n",
        "OK state=running attempt=1 stdout=0 stderr=0 bytes=0\n\n",
    ],
)
def test_a_reply_that_lacks_what_its_verb_promises_is_another_protocol(connect: Connect, answer: str) -> None:
    with (
        only([(b"LOGS k-1\n", answer.encode())]) as node,
        connect(node.url) as yard,
        pytest.raises(ProtocolError),
    ):
        yard.logs("k-1")


def test_the_cluster_is_asked_after(connect: Connect) -> None:
    talk = [
        (
            b"LIST state=queued group=g limit=2 local=1\n",
            with_body("OK count=2", "k-2 state=queued attempt=0\nk-1 state=queued name=a%20b\n"),
        ),
        (b"LIST group=h\n", with_body("OK count=0 partial=1", "")),
        (
            b"NODES\n",
            with_body("OK count=1", "name=n1 state=alive slots=2 running=1 waiting=0 last_seen_s=0.250\n"),
        ),
        (b"STATS\n", with_body("OK", "jobs 3\nrate 2.5\n")),
        (b"STATS local=1\n", with_body("OK", "")),
        (b"PLACEMENT\n", b"OK placement=level\n"),
        (b"PLACEMENT random\n", b"OK placement=random\n"),
        PING,
        (b"VERSION\n", b"OK jobyard 0.1.0 protocol=1\n"),
    ]
    with only(talk) as node, connect(node.url) as yard:
        jobs = yard.list(state="queued", group="g", limit=2, local=True)
        assert [(job.ticket, job.name) for job in jobs] == [("k-2", None), ("k-1", "a b")]
        assert not jobs.partial
        assert yard.list(group="h").partial, "the node stopped looking"
        assert [(each.name, each.slots, each.running, each.last_seen_s) for each in yard.nodes()] == [
            ("n1", 2, 1, 0.25)
        ]
        assert yard.stats() == {"jobs": "3", "rate": "2.5"}
        assert yard.stats(local=True) == {}
        assert (yard.placement(), yard.placement("random")) == ("level", "random")
        yard.ping()
        assert yard.version() == "jobyard 0.1.0 protocol=1"


def test_a_refusal_is_raised_and_the_connection_goes_on(connect: Connect) -> None:
    talk = [
        (b"STATUS nope\n", b"ERR UNKNOWN_TICKET no job has the ticket 'nope'\n"),
        (b"SUBMIT key=a sh true\n", b"ERR CONFLICT another job has the key 'a'\n"),
        PING,
    ]
    with only(talk) as node, connect(node.url) as yard:
        with pytest.raises(UnknownTicket, match="no job has the ticket 'nope'"):
            yard.status("nope")
        with pytest.raises(Conflict):
            yard.submit("sh", "true", key="a")
        yard.ping()


def test_a_result_that_is_pending_says_how_the_job_stands(connect: Connect) -> None:
    with only([(b"RESULT k-1\n", b"PENDING k-1 state=queued\n")]) as node, connect(node.url) as yard:
        with pytest.raises(NotEnded, match="k-1 has not ended; it is queued") as caught:
            yard.result("k-1")
        assert (caught.value.ticket, caught.value.state) == ("k-1", "queued")


def test_what_does_not_speak_the_protocol_is_told_apart(connect: Connect) -> None:
    with (
        FakeNode([(b"PING\n", b"HTTP/1.1 400 Bad Request\r\n")]) as node,
        connect(node.url) as yard,
        pytest.raises(ProtocolError),
    ):
        yard.ping()


# --- waiting ---------------------------------------------------------------------------------------------------


def test_a_long_wait_is_asked_in_pieces(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WAIT_PIECE_S", 7.0)
    piece = (b"WAIT timeout=7 k-1\n", b"PENDING k-1 state=running\n")
    with only([piece, piece, (piece[0], DONE)]) as node, connect(node.url) as yard:
        assert yard.wait("k-1").succeeded


def test_a_wait_that_is_over_says_so(connect: Connect) -> None:
    with (
        only([(b"WAIT timeout=0 k-1\n", b"PENDING k-1 state=running\n")]) as node,
        connect(node.url) as yard,
        pytest.raises(NotEnded),
    ):
        yard.wait("k-1", timeout_s=0)


def test_waiting_goes_on_while_the_balancer_cannot_be_reached(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "UNAVAILABLE_PAUSE_S", 0.0)
    request = b"WAIT timeout=30 k-1\n"
    away = (request, b"ERR UNAVAILABLE the balancer cannot be reached\n")
    with only([away, away, (request, DONE)]) as node, connect(node.url) as yard:
        assert yard.wait("k-1").succeeded


def test_unavailable_is_raised_when_the_time_is_over(connect: Connect) -> None:
    talk = [(b"WAIT timeout=0 k-1\n", b"ERR UNAVAILABLE the balancer cannot be reached\n")]
    with (
        only(talk) as node,
        connect(node.url) as yard,
        pytest.raises(Unavailable),
    ):
        yard.wait("k-1", timeout_s=0)


def test_waiting_goes_on_at_the_next_node_when_one_goes_away(connect: Connect) -> None:
    request = b"WAIT timeout=30 k-1\n"
    with (
        FakeNode([(request, b"")]) as first,
        only([(request, DONE)]) as second,
        connect(f"{first.url},{second.url}") as yard,
    ):
        assert yard.wait("k-1").succeeded


# --- which node ------------------------------------------------------------------------------------------------


def test_the_next_address_is_tried_when_nobody_listens_at_the_first(connect: Connect, deaf_url: str) -> None:
    with only([PING, PING]) as node, connect(f"{deaf_url},{node.url}") as yard:
        yard.ping()
        yard.ping()


def test_no_node_at_all_is_said_with_every_address(connect: Connect, deaf_url: str) -> None:
    with (
        connect(f"{deaf_url},{deaf_url}") as yard,
        pytest.raises(Unreachable, match=rf"({deaf_url[6:]}.*){{2}}JOBYARD_URL"),
    ):
        yard.submit("sh", "true")


def test_a_question_is_asked_again_when_its_connection_is_lost(connect: Connect) -> None:
    with FakeNode([(b"PING\n", b"")], [PING, HOLD]) as node, connect(node.url) as yard:
        yard.ping()


def test_a_node_that_hangs_up_each_time_is_unreachable(connect: Connect) -> None:
    lost = [(b"PING\n", b"")]
    with (
        FakeNode(lost, lost) as node,
        connect(node.url) as yard,
        pytest.raises(Unreachable, match="was lost before it answered"),
    ):
        yard.ping()


def test_a_node_that_says_nothing_is_given_up(connect: Connect) -> None:
    with (
        FakeNode([(b"PING\n", b""), HOLD]) as silent,
        only([PING]) as other,
        connect(f"{silent.url},{other.url}", timeout_s=0.1) as yard,
    ):
        yard.ping()


def test_a_submission_without_a_key_is_not_sent_twice(connect: Connect) -> None:
    with (
        FakeNode([(b"SUBMIT sh true\n", b"")]) as node,
        connect(node.url) as yard,
        pytest.raises(Unconfirmed, match="may have been taken or not"),
    ):
        yard.submit("sh", "true")


def test_a_submission_with_a_key_is_sent_again(connect: Connect) -> None:
    request = b"SUBMIT key=a sh true\n"
    with FakeNode([(request, b"")], [(request, b"OK k-1\n"), HOLD]) as node, connect(node.url) as yard:
        assert yard.submit("sh", "true", key="a") == "k-1"


def test_a_connection_that_ended_while_nothing_was_asked_is_replaced_before_a_submission(connect: Connect) -> None:
    with FakeNode([PING], [(b"SUBMIT sh true\n", b"OK k-1\n"), HOLD]) as node, connect(node.url) as yard:
        yard.ping()
        _until(idle_connection(yard).is_stale)
        assert yard.submit("sh", "true") == "k-1"


@pytest.mark.parametrize("code", ["DRAINING", "TOO_MANY_CONNECTIONS"])
def test_a_node_that_takes_nothing_is_passed_over(connect: Connect, code: str) -> None:
    request = b"SUBMIT sh true\n"
    with (
        only([(request, f"ERR {code} go elsewhere\n".encode())]) as first,
        only([(request, b"OK k-1\n")]) as second,
        connect(f"{first.url},{second.url}") as yard,
    ):
        assert yard.submit("sh", "true") == "k-1"


def test_a_cluster_in_which_every_node_drains_says_so(connect: Connect) -> None:
    drains = [(b"SUBMIT sh true\n", b"ERR DRAINING it stops\n"), HOLD]
    with (
        FakeNode(drains, drains) as node,
        connect(node.url) as yard,
        pytest.raises(Draining),
    ):
        yard.submit("sh", "true")


# --- addresses and tokens --------------------------------------------------------------------------------------


def test_addresses_come_from_the_environment(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with only([PING]) as node:
        monkeypatch.setenv("JOBYARD_URL", node.url)
        with connect() as yard:
            yard.ping()


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("tcp://a:1", [Address("a", 1)]),
        ("tcp://a, tcp://b:2/", [Address("a", 9000), Address("b", 2)]),
        ("a:1,", [Address("a", 1)]),
        ("tcp://[::1]:7", [Address("::1", 7)]),
    ],
)
def test_an_address_is_read(url: str, addresses: list[Address]) -> None:
    assert list(parse_url(url)) == addresses


@pytest.mark.parametrize(
    "url", [",", "http://a", "tcp://", "tcp://a:x", "tcp://a:70000", "tcp://u@a", "tcp://a/b", "[a"]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("tcp://127.0.0.1:9000")):
        parse_url(url)


def test_the_token_is_sent_first_on_every_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("JOBYARD_CLIENT_TOKEN_FILE", str(tmp_path / "token"))
    auth = (b"AUTH s3cret\n", b"OK\n")
    with FakeNode([auth, (b"PING\n", b"")], [auth, PING, PING, HOLD]) as node, connect(node.url) as yard:
        yard.ping()
        yard.ping()


def test_a_wrong_token_is_said_and_not_tried_elsewhere(connect: Connect, deaf_url: str) -> None:
    with (
        FakeNode([(b"AUTH wrong\n", b"ERR UNAUTHORIZED wrong token\n")]) as node,
        connect(f"{node.url},{deaf_url}", token="wrong") as yard,
        pytest.raises(Unauthorized),
    ):
        yard.ping()


def test_a_node_without_room_for_the_connection_is_passed_over_when_the_token_is_sent(connect: Connect) -> None:
    auth = b"AUTH t\n"
    with (
        FakeNode([(auth, b"ERR TOO_MANY_CONNECTIONS 1024 are open\n")]) as first,
        FakeNode([(auth, b"OK\n"), PING, HOLD]) as second,
        connect(f"{first.url},{second.url}", token="t") as yard,
    ):
        yard.ping()


def test_a_cluster_without_room_says_so(connect: Connect) -> None:
    full = [(b"PING\n", b"ERR TOO_MANY_CONNECTIONS 1024 are open\n")]
    with (
        FakeNode(full, full) as node,
        connect(node.url) as yard,
        pytest.raises(TooManyConnections),
    ):
        yard.ping()


# --- many submissions ------------------------------------------------------------------------------------------


class CountingNode:
    """Answers every line with a ticket of its number, a whole read at a time. Hangs up after `lines_max` lines."""

    def __init__(self, lines_max: int | None = None) -> None:
        self.lines: list[bytes] = []
        self.reads = 0
        self._lines_max = lines_max

    def __call__(self, connection: socket.socket) -> None:
        rest = b""
        while data := connection.recv(1 << 20):
            self.reads += 1
            *lines, rest = (rest + data).split(b"\n")
            if self._lines_max is not None:
                lines = lines[: self._lines_max - len(self.lines)]
            first = len(self.lines)
            self.lines += lines
            connection.sendall(b"".join(b"OK k-%d\n" % number for number in range(first, len(self.lines))))
            if len(self.lines) == self._lines_max:
                return


def test_20_000_submissions_take_one_connection_and_few_round_trips(connect: Connect) -> None:
    counting = CountingNode()
    with FakeNode(counting) as node, connect(node.url) as yard:
        tickets = yard.submit_many(Job("sleep", str(number)) for number in range(20_000))
    assert list(tickets) == [f"k-{number}" for number in range(20_000)]
    assert counting.lines == [b"SUBMIT sleep %d" % number for number in range(20_000)]
    assert counting.reads < 1_000


def test_no_submissions_are_no_tickets(connect: Connect) -> None:
    with FakeNode([PING, HOLD]) as node, connect(node.url) as yard:
        assert yard.submit_many([]) == ()
        yard.ping()


def test_a_batch_with_keys_goes_on_over_another_connection(connect: Connect) -> None:
    first, second = CountingNode(lines_max=500), CountingNode()
    with FakeNode(first) as node, FakeNode(second) as other, connect(f"{node.url},{other.url}") as yard:
        tickets = yard.submit_many(Job("sleep", "0", key=f"n{number}") for number in range(3_000))
    assert len(tickets) == 3_000
    assert b"SUBMIT key=n2999 sleep 0" in second.lines
    assert len(second.lines) >= 2_500


def test_a_batch_without_keys_stops_with_the_tickets_it_has(connect: Connect) -> None:
    with (
        FakeNode(CountingNode(lines_max=500)) as node,
        connect(node.url) as yard,
        pytest.raises(NotAllSubmitted) as caught,
    ):
        yard.submit_many([Job("sleep", "0")] * 3_000)
    assert isinstance(caught.value.__cause__, Unconfirmed)
    assert caught.value.tickets[-1] is None
    assert list(filter(None, caught.value.tickets)) == [f"k-{number}" for number in range(len(_taken(caught.value)))]


def test_a_full_node_stops_a_batch_and_the_connection_goes_on(connect: Connect) -> None:
    request = b"SUBMIT sh true\n"
    talk = [(request, b"OK k-1\n"), (request, b"ERR FULL no room on disk\n"), (request, b"OK k-2\n"), PING]
    with only(talk) as node, connect(node.url) as yard:
        with pytest.raises(NotAllSubmitted) as caught:
            yard.submit_many([Job("sh", "true")] * 3)
        assert isinstance(caught.value.__cause__, Full)
        assert (caught.value.code, caught.value.tickets) == ("FULL", ("k-1", None, "k-2"))
        yard.ping()


def test_jobs_that_cannot_be_made_leave_no_answer_for_the_next_question(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SEND_BYTES", 1)  # so that one is under way when the next is asked for
    monkeypatch.setattr(batch, "WINDOW", 2)

    def jobs() -> Iterator[Job]:
        yield Job("sh", "true")
        raise LookupError("no more of them")

    with FakeNode([(b"SUBMIT sh true\n", b"OK k-1\n"), HOLD], [PING, HOLD]) as node, connect(node.url) as yard:
        with pytest.raises(LookupError):
            yard.submit_many(jobs())
        yard.ping()


def _taken(error: NotAllSubmitted) -> list[str]:
    return [ticket for ticket in error.tickets if ticket is not None]


def _until(true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends_at, "it did not happen"
        time.sleep(0.001)
