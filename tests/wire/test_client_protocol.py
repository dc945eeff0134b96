"""The client's half of the protocol: what it puts on the wire, and what it makes of what comes back.

Where it can be, the node's own parser is the judge: two sides written apart must agree.
"""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import lines
from common.errors import Code
from common.model import Ended, Reason, State
from common.model import Job as TheirJob
from jobyard import BadRequest, Job, JobyardError, NotAllSubmitted, ProtocolError, Ticket, TooLarge, Unconfirmed
from jobyard.batch import WINDOW, Batch
from jobyard.decoding import node_of, outcome_of, status_of
from jobyard.protocol import (
    LINE_BYTES_MAX,
    Reply,
    ReplyParser,
    duration,
    encode,
    encode_option,
    encode_submit,
)


def as_the_node_reads_it(data: bytes) -> lines.Request:
    [request] = lines.Parser().feed(data)
    return request


def parsed(data: bytes) -> list[Reply]:
    return ReplyParser().feed(data)


# --- requests --------------------------------------------------------------------------------------------------


def test_a_plain_submission_is_a_plain_line() -> None:
    assert encode_submit(Job("sh", "echo hi")) == b"SUBMIT sh echo hi\n"


def test_every_option_of_a_job_is_written_before_its_kind() -> None:
    job = Job(
        "exec",
        "cat",
        body=b"a\nb",
        name="my job",
        group="g",
        key="k=1",
        priority=-5,
        slots=2,
        timeout_s=1.5,
        crash_limit="off",
        dir="/tmp",
        env={"LC_ALL": "C", "WHO": "50% ü"},
    )
    assert encode_submit(job) == (
        b"SUBMIT name=my%20job group=g key=k=1 priority=-5 slots=2 crash_limit=off dir=/tmp timeout=1.5"
        b" env.LC_ALL=C env.WHO=50%25%20\xc3\xbc bytes=3 exec cat\na\nb\n"
    )


def test_the_node_reads_every_option_as_it_was_meant() -> None:
    job = Job(
        "sh", "a  b", b"\0\n", name="n", group="g", key="k", priority=7, slots=3, retries=2, backoff_s=1.5,
        timeout_s=0.25, crash_limit=9, delay_s=60.0, after=("aaaaaa-1", "aaaaaa-2"), array="1-9:2%3", cpu_s=8.0,
        memory_bytes=1 << 20, files=64, processes=5, output_bytes=1000, dir="/x y", env={"A": "b c"},
    )  # fmt: skip
    request = as_the_node_reads_it(encode_submit(job))
    assert isinstance(request, lines.Submit), request
    assert (request.body, request.wait) == (b"\0\n", False)
    assert request.job == TheirJob(
        "sh", "a  b", body_bytes=2, name="n", group="g", key="k", priority=7, slots=3, retries=2, backoff_s=1.5,
        timeout_s=0.25, crash_limit=9, delay_s=60.0, after=("aaaaaa-1", "aaaaaa-2"), array="1-9:2%3", cpu_s=8.0,
        memory_bytes=1 << 20, files=64, processes=5, output_bytes=1000, dir="/x y", env=(("A", "b c"),),
    )  # fmt: skip


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=16))
def test_any_text_arrives_in_an_option_as_it_was_sent(text: str) -> None:
    request = as_the_node_reads_it(encode_submit(Job("sh", "true", name=text)))
    assert isinstance(request, lines.Submit), request
    assert request.job.name == text


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_any_words_arrive_in_an_argv_line_as_they_were_sent(words: list[str]) -> None:
    words = ["command", *words]
    request = as_the_node_reads_it(encode_submit(Job("argv", json.dumps(words, ensure_ascii=False))))
    assert isinstance(request, lines.Submit), request
    assert json.loads(request.job.line) == words


@pytest.mark.parametrize("text", ["k-1\nDRAIN", "k-1\rDRAIN", "k-1\r"])
def test_nothing_can_break_out_of_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        encode("STATUS", text)
    with pytest.raises(ValueError, match="line break"):
        encode_submit(Job("sh", text))


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a\n", "ü"])
def test_a_variable_whose_name_would_become_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of an option"):
        encode_submit(Job("sh", "true", env={f"X{name}" if name else " ": "1"}))


@pytest.mark.parametrize("value", ["", "x" * 201, " " * 67, "\ud800"])
def test_a_value_that_cannot_be_sent_is_refused_before_it_is_sent(value: str) -> None:
    with pytest.raises(ValueError, match=r"can be sent|cannot be sent"):
        encode_option("name", value)


def test_the_longest_value_that_fits_is_sent() -> None:
    assert encode_option("name", "x" * 200) == "name=" + "x" * 200


def test_a_line_of_64_kib_is_sent_and_a_longer_one_refused() -> None:
    fits = "x" * (LINE_BYTES_MAX - len("SUBMIT sh "))
    assert isinstance(as_the_node_reads_it(encode_submit(Job("sh", fits))), lines.Submit)
    with pytest.raises(TooLarge):
        encode_submit(Job("sh", fits + "x"))


def test_a_body_over_64_mib_is_refused() -> None:
    with pytest.raises(TooLarge):
        encode_submit(Job("sh", "cat", body=bytes(64 * 1024 * 1024 + 1)))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0"), (90, "90"), (1.5, "1.5"), (1e-5, "0.00001"), (0.1 + 0.2, "0.3")]
)
def test_a_duration_is_written_as_a_plain_number(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_what_is_no_duration_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no duration"):
        duration(seconds)


# --- replies ---------------------------------------------------------------------------------------------------

TRANSCRIPT = (
    b"OK k3f7qa-1\n"
    b"OK k3f7qa-1 state=failed exit=3 attempt=1 node=node2 seconds=0.004 reason=exit stdout=4 stderr=3 bytes=7\n"
    b"a\nb\nerr\n"
    b"PENDING k3f7qa-2 state=queued\n"
    b"ERR UNKNOWN_TICKET no job has the ticket 'nope' bytes=5\n"
    b"OK bytes=0\n\n"
    b"OK pong\n"
)
REPLIES = [
    Reply("OK", "k3f7qa-1", {}, None, "k3f7qa-1"),
    Reply(
        "OK",
        "k3f7qa-1",
        {
            "state": "failed",
            "exit": "3",
            "attempt": "1",
            "node": "node2",
            "seconds": "0.004",
            "reason": "exit",
            "stdout": "4",
            "stderr": "3",
            "bytes": "7",
        },
        b"a\nb\nerr",
        "k3f7qa-1 state=failed exit=3 attempt=1 node=node2 seconds=0.004 reason=exit stdout=4 stderr=3 bytes=7",
    ),
    Reply("PENDING", "k3f7qa-2", {"state": "queued"}, None, "k3f7qa-2 state=queued"),
    Reply("ERR", text="UNKNOWN_TICKET no job has the ticket 'nope' bytes=5"),
    Reply("OK", None, {"bytes": "0"}, b"", "bytes=0"),
    Reply("OK", "pong", {}, None, "pong"),
]


def test_a_transcript_is_read_reply_by_reply() -> None:
    assert parsed(TRANSCRIPT) == REPLIES


@given(st.lists(st.integers(0, len(TRANSCRIPT)), max_size=20))
def test_replies_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = ReplyParser()
    bounds = [0, *sorted(cuts), len(TRANSCRIPT)]
    replies = [reply for a, b in itertools.pairwise(bounds) for reply in parser.feed(TRANSCRIPT[a:b])]
    assert replies == REPLIES


def test_a_reply_is_given_with_its_last_byte_and_not_before() -> None:
    parser = ReplyParser()
    assert parser.feed(b"OK bytes=2\nab") == []
    assert [reply.body for reply in parser.feed(b"\n")] == [b"ab"]


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400 Bad Request\n", b"\n", b"OK bytes=2\nabc\n", b"x" * 70_000, b"OK bytes=99999999999\n"],
    ids=["another protocol", "a blank line", "a body without its line end", "an endless line", "an absurd body"],
)
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed(data)


def test_an_err_becomes_the_exception_of_its_code() -> None:
    [reply] = parsed(b"ERR BAD_REQUEST there is no option 'x'\n")
    assert isinstance(reply.error, BadRequest)
    assert (reply.error.code, str(reply.error)) == ("BAD_REQUEST", "there is no option 'x'")


def test_every_code_of_the_node_has_its_class_here() -> None:
    classes = {code: type(parsed(lines.err(code, "text"))[0].error) for code in Code}
    assert JobyardError not in classes.values()
    assert len(set(classes.values())) == len(Code)


def test_a_code_of_a_later_version_is_kept() -> None:
    error = parsed(b"ERR OUT_OF_TEA try again at five\n")[0].error
    assert type(error) is JobyardError
    assert error.code == "OUT_OF_TEA"


def test_the_result_that_a_node_renders_is_the_outcome_here() -> None:
    ended = Ended(State.FAILED, 1.0, Reason.EXIT, 2, 3, "my node", 0.25, 4, 3, truncated=True)
    outcome = outcome_of(parsed(lines.result_reply("k3f7qa-1", ended, b"out\nerr"))[0])
    assert (outcome.ticket, outcome.state, outcome.reason, outcome.attempt) == ("k3f7qa-1", "failed", "exit", 2)
    assert (outcome.exit, outcome.node, outcome.seconds, outcome.truncated) == (3, "my node", 0.25, True)
    assert (outcome.stdout, outcome.stderr, outcome.succeeded) == (b"out\n", b"err", False)


def test_a_job_that_never_ran_has_an_outcome_without_exit_and_node() -> None:
    ended = Ended(State.CANCELLED, 1.0, Reason.USER)
    outcome = outcome_of(parsed(lines.result_reply("k3f7qa-1", ended, b""))[0])
    assert (outcome.attempt, outcome.exit, outcome.node, outcome.seconds) == (0, None, None, None)


@pytest.mark.parametrize("fields", ["state=failed", "attempt=1 stdout=1 stderr=0 state=failed", "stdout=x"])
def test_an_outcome_that_does_not_add_up_is_refused(fields: str) -> None:
    with pytest.raises(ProtocolError):
        outcome_of(parsed(f"OK k3f7qa-1 {fields}\n".encode())[0])


def test_a_status_line_keeps_what_this_version_does_not_know() -> None:
    status = status_of("k3f7qa-1 state=running attempt=2 node=node1 name=my%20job mood=fine")
    assert (status.ticket, status.state, status.attempt, status.node) == (Ticket("k3f7qa-1"), "running", 2, "node1")
    assert (status.name, status.fields["mood"]) == ("my job", "fine")


def test_a_line_of_nodes_becomes_a_node() -> None:
    node = node_of("name=node1 state=alive slots=2 running=1 waiting=7 last_seen_s=0.250")
    assert (node.name, node.state, node.slots, node.running, node.waiting) == ("node1", "alive", 2, 1, 7)
    with pytest.raises(ProtocolError):
        node_of("name=node1 slots=many")


# --- many submissions ------------------------------------------------------------------------------------------


def sleeps(count: int, *, keys: bool = False) -> list[Job]:
    return [Job("sleep", "0", key=f"k{number}" if keys else None) for number in range(count)]


def ok(number: int) -> Reply:
    return Reply("OK", f"t-{number}")


def test_no_more_than_the_window_is_owed_and_half_is_answered_before_more_is_sent() -> None:
    batch = Batch(sleeps(3 * WINDOW))
    assert batch.requests().count(b"\n") == WINDOW
    assert batch.requests() == b""
    for number in range(WINDOW // 2 - 1):
        batch.take(ok(number))
    assert batch.requests() == b""
    batch.take(ok(-1))
    assert batch.requests().count(b"\n") == WINDOW // 2


def test_tickets_come_in_the_order_of_their_jobs() -> None:
    batch = Batch(sleeps(3))
    batch.requests()
    for number in range(3):
        batch.take(ok(number))
    assert batch.requests() == b""
    assert batch.done
    assert batch.tickets() == ("t-0", "t-1", "t-2")


def test_after_a_refusal_nothing_more_is_sent_and_what_is_owed_is_still_taken() -> None:
    batch = Batch(sleeps(WINDOW + 10))
    batch.requests()
    for number in range(WINDOW):
        assert not batch.done
        batch.take(ok(number) if number != 1 else Reply("ERR", text="FULL the disk is full"))
    assert batch.done
    assert batch.requests() == b""
    with pytest.raises(NotAllSubmitted, match="the disk is full") as caught:
        batch.tickets()
    assert caught.value.code == "FULL"
    assert caught.value.tickets[:3] == ("t-0", None, "t-2")
    assert len(caught.value.tickets) == WINDOW


def test_a_job_that_cannot_be_written_stops_the_batch_behind_those_before_it() -> None:
    batch = Batch([Job("sh", "true"), Job("sh", "a\nb"), Job("sh", "true")])
    assert batch.requests() == b"SUBMIT sh true\n"
    batch.take(ok(0))
    with pytest.raises(NotAllSubmitted, match="line break") as caught:
        batch.tickets()
    assert caught.value.tickets == ("t-0", None)


def test_submissions_with_keys_are_sent_again_in_order_after_a_loss() -> None:
    batch = Batch(sleeps(3, keys=True))
    sent = batch.requests()
    batch.take(ok(0))
    batch.lost(OSError("gone"))
    assert batch.requests() == sent[sent.index(b"\n") + 1 :]
    batch.take(ok(1))
    batch.take(ok(2))
    assert batch.tickets() == ("t-0", "t-1", "t-2")


def test_submissions_without_keys_are_not_sent_again() -> None:
    batch = Batch(sleeps(3))
    batch.requests()
    batch.take(ok(0))
    batch.lost(OSError("gone"))
    assert batch.done
    with pytest.raises(NotAllSubmitted) as caught:
        batch.tickets()
    assert isinstance(caught.value.__cause__, Unconfirmed)
    assert caught.value.tickets == ("t-0", None, None)


def test_a_batch_whose_connections_are_lost_again_and_again_ends() -> None:
    batch = Batch(sleeps(2, keys=True))
    losses = 0
    while not batch.done:
        assert batch.requests()
        batch.lost(OSError("gone"))
        losses += 1
    assert 1 < losses < 20
    with pytest.raises(NotAllSubmitted):
        batch.tickets()
