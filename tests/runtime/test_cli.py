"""The command line against scripted nodes: what it asks for, what it prints where, and its exit code."""

import base64
import io
import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobyard.cli import exits, last, selectors, submitting, terminal
from jobyard.cli.root import VERBS
from tests.runtime.fake_cluster import End, FakeCluster, FakeJob
from tests.runtime.fake_node import HOLD, FakeNode, only, with_body
from tests.runtime.shell import Shell, interrupted

OUTCOME = with_body("OK k-1 state=failed exit=3 attempt=2 node=n2 seconds=0.5 reason=exit stdout=3 stderr=4", "outoops")
DONE = with_body("OK k-1 state=succeeded exit=0 attempt=1 node=n1 seconds=0.5 stdout=3 stderr=0", "hi\n")


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


@pytest.fixture(autouse=True)
def _no_real_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MOMENT_S", 0.0)


@pytest.fixture(autouse=True)
def _a_home_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as cluster:
        yield cluster


def stays(job: FakeJob) -> None:
    """A job that goes on until it is ended."""


# --- submit ------------------------------------------------------------------------------------------------------

SUBMITTED = {
    "-- ls -l -- 'a b'": 'argv ["ls", "-l", "--", "a b"]',
    "ls -l --name x": 'argv ["ls", "-l", "--name", "x"]',
    "--sh 'echo hi | wc'": "sh echo hi | wc",
    "--sh 'a\nb'": 'argv ["/bin/sh", "-c", "a\\nb"]',
    "--py math:gcd '[4, 6]'": "py math:gcd [4, 6]",
    "--py os:getpid": "py os:getpid",
    "--sleep 1h30m": "sleep 5400",
    "--name 'a b' -g g --key k --priority -5 --slots 2 --timeout 1m30s --crash-limit off -- true": (
        'name=a%20b group=g key=k priority=-5 slots=2 crash_limit=off timeout=90 argv ["true"]'
    ),
    "--retries 3 --backoff 250ms --delay 1h --array 1-9:2%3 --after k-1,k-2 --after k-3 -- true {}": (
        'retries=3 array=1-9:2%3 backoff=0.25 delay=3600 after=k-1,k-2,k-3 argv ["true", "{}"]'
    ),
    "--input k-2,k-1 --input k-3 -- cat": 'input=k-2,k-1,k-3 argv ["cat"]',
    "--cpu 10 --memory 512MiB --files 64 --processes 9 --output 2K -- true": (
        'memory=536870912 files=64 processes=9 output=2048 cpu=10 argv ["true"]'
    ),
    "--dir /data/../in -e A=b=c --env OURS -- true": 'dir=/in env.A=b=c env.OURS=1 argv ["true"]',
}


@pytest.mark.parametrize(("words", "request_line"), SUBMITTED.items(), ids=SUBMITTED)
def test_submit_sends_what_is_described_and_prints_the_ticket(
    jobyard: Shell, monkeypatch: pytest.MonkeyPatch, words: str, request_line: str
) -> None:
    monkeypatch.setenv("OURS", "1")
    scratch = [] if "--dir" in words else ["--scratch"]
    with only([(f"SUBMIT {request_line}\n".encode(), b"OK k-9\n")]) as node:
        assert jobyard(node.url, "submit", *scratch, *shlex.split(words)) == 0
    assert (jobyard.out, jobyard.err) == (b"k-9\n", b"")


def test_a_job_works_where_its_submitter_stands(
    jobyard: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "by name").symlink_to("real")
    monkeypatch.chdir(tmp_path / "by name")
    for known, expected in ((tmp_path / "by name", "by%20name"), (Path("/"), "real")):
        monkeypatch.setenv("PWD", str(known))
        with only([(f'SUBMIT dir={tmp_path}/{expected} argv ["pwd"]\n'.encode(), b"OK k-1\n")]) as node:
            assert jobyard(node.url, "submit", "pwd") == 0
    with only([(f'SUBMIT dir={tmp_path}/real/sub argv ["pwd"]\n'.encode(), b"OK k-1\n")]) as node:
        assert jobyard(node.url, "submit", "--dir", "sub", "pwd") == 0


def test_a_working_directory_with_too_long_a_name_is_refused_with_what_to_do(
    jobyard: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deaf_url: str
) -> None:
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert jobyard(deaf_url, "submit", "pwd") == 2
    assert b"--scratch does without" in jobyard.err


def test_standard_input_becomes_the_jobs(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\0\xff")))
    with only([(b'SUBMIT bytes=4 argv ["cat"]\na\n\0\xff\n', b"OK k-1\n")]) as node:
        assert jobyard(node.url, "submit", "--scratch", "--stdin", "--", "cat") == 0


# --- run ---------------------------------------------------------------------------------------------------------


def logs(line: str, body: str) -> bytes:
    return with_body(f"OK k-1 {line}", body)


SUBMIT = [(b"SUBMIT sh x\n", b"OK k-1\n")]
GOES_ON = [*SUBMIT, (b"WAIT timeout=0 k-1\n", b"PENDING k-1 state=running\n")]  # and then the node hangs up
FOLLOW = b"LOGS follow=1 k-1\n"


def followed(*parts: bytes) -> list[tuple[bytes, bytes]]:
    return [(FOLLOW, b"".join(parts)), HOLD]


def ended(out: str, err: str, fields: str = "state=succeeded exit=0 attempt=1") -> list[tuple[bytes, bytes]]:
    line = f"OK k-1 {fields} node=n1 seconds=0.5 stdout={len(out)} stderr={len(err)}"
    return [(b"WAIT timeout=30 k-1\n", with_body(line, out + err)), HOLD]


def test_run_prints_output_as_it_comes_and_each_byte_once(jobyard: Shell) -> None:
    parts = (
        logs("state=queued attempt=0 stdout=0 stderr=0", ""),
        logs("state=running attempt=1 stdout=2 stderr=1", "abE"),
        logs("state=succeeded attempt=1 stdout=1 stderr=0 end=1", "c"),
    )
    with FakeNode(GOES_ON, followed(*parts), ended("abc", "E")) as node:
        assert jobyard(node.url, "run", "--scratch", "--sh", "x") == 0
    assert (jobyard.out, jobyard.err) == (b"abc", b"E")


def test_what_a_lost_attempt_printed_is_not_printed_again_by_the_next(jobyard: Shell) -> None:
    parts = (
        logs("state=running attempt=1 stdout=4 stderr=0", "1\n2\n"),
        logs("state=running attempt=2 stdout=2 stderr=0", "1\n"),
        logs("state=running attempt=2 stdout=4 stderr=0", "2\n3\n"),
        logs("state=succeeded attempt=2 stdout=0 stderr=0 end=1", ""),
    )
    with FakeNode(GOES_ON, followed(*parts), ended("1\n2\n3\n4\n", "")) as node:
        assert jobyard(node.url, "run", "--scratch", "--sh", "x") == 0
    assert (jobyard.out, jobyard.err) == (b"1\n2\n3\n4\n", b"")


def test_an_attempt_that_prints_something_else_is_printed_whole_and_told_of(jobyard: Shell) -> None:
    parts = (
        logs("state=running attempt=1 stdout=2 stderr=0", "a\n"),
        logs("state=succeeded attempt=2 stdout=2 stderr=0 end=1", "b\n"),
    )
    with FakeNode(GOES_ON, followed(*parts), ended("b\n", "")) as node:
        assert jobyard(node.url, "run", "--scratch", "--sh", "x") == 0
    assert (jobyard.out, jobyard.err) == (b"a\nb\n", b"jobyard: k-1 began again, and prints something else:\n")


def test_a_job_that_ends_in_a_moment_takes_one_question(jobyard: Shell) -> None:
    (_, answer), _ = ended("abc", "E")
    with only([*SUBMIT, (b"WAIT timeout=0 k-1\n", answer)]) as node:
        assert jobyard(node.url, "run", "--scratch", "--sh", "x") == 0
    assert (jobyard.out, jobyard.err) == (b"abc", b"E")


def test_where_output_cannot_be_followed_it_comes_at_the_end(jobyard: Shell) -> None:
    with FakeNode(GOES_ON, [(FOLLOW, b"ERR UNKNOWN_COMMAND LOGS\n"), HOLD], ended("abc", "E")) as node:
        assert jobyard(node.url, "run", "--scratch", "--sh", "x") == 0
    assert (jobyard.out, jobyard.err) == (b"abc", b"E")


def test_output_into_a_pipe_of_a_job_with_retries_is_that_of_its_last_attempt(jobyard: Shell) -> None:
    with only([(b"SUBMIT retries=2 sh x\n", b"OK k-1\n"), *ended("b", "")[:1]]) as node:
        assert jobyard(node.url, "run", "--scratch", "--retries", "2", "--sh", "x") == 0
    assert jobyard.out == b"b"


CODES = {
    "state=failed exit=3 attempt=1 reason=exit": (3, b""),
    "state=failed exit=137 attempt=1 reason=signal": (137, b""),
    "state=failed exit=1 attempt=1 reason=exception": (1, b""),
    "state=failed exit=143 attempt=1 reason=timeout": (124, b"k-1 failed, reason timeout"),
    "state=failed attempt=1 reason=cannot_start": (127, b""),
    "state=failed attempt=1 reason=no_directory": (1, b"--scratch"),
    "state=failed exit=0 attempt=1 reason=output": (1, b"k-1 failed, reason output"),
    "state=cancelled attempt=0 reason=dependency": (1, b"k-1 cancelled, reason dependency"),
    "state=succeeded exit=0 attempt=1 truncated=1": (0, b"is cut"),
}


@pytest.mark.parametrize(("fields", "expected"), CODES.items(), ids=CODES)
def test_run_has_the_exit_code_of_its_job(jobyard: Shell, fields: str, expected: tuple[int, bytes]) -> None:
    code, said = expected
    with only([*SUBMIT, *ended("", "", fields)[:1]]) as node:
        assert jobyard(node.url, "run", "--no-live", "--scratch", "--sh", "x") == code
    assert said in jobyard.err
    assert bool(said) == bool(jobyard.err)


def test_ctrl_c_cancels_the_job_and_prints_what_it_still_said(jobyard: Shell) -> None:
    with FakeCluster(stays) as cluster:
        pressed = interrupted(lambda: cluster.until(lambda: any("WAIT" in line for line in cluster.heard)))
        assert jobyard(cluster.url, "run", "--no-live", "--", "sleep", "9") == 130
        pressed.join()
        assert "CANCEL k-1" in cluster.heard
    assert jobyard.out == b"half"
    assert b"cancelling k-1" in jobyard.err


def test_ctrl_c_while_the_job_is_submitted_cancels_it_too(jobyard: Shell) -> None:
    def pressed_meanwhile(job: FakeJob) -> None:
        interrupted(lambda: None).join()

    with FakeCluster(pressed_meanwhile) as cluster:
        assert jobyard(cluster.url, "run", "--no-live", "--", "sleep", "9") == 130
        assert cluster.heard[1:2] == ["CANCEL k-1"]


def test_a_job_whose_output_nobody_reads_is_cancelled(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(stdout: bytes, stderr: bytes) -> None:
        raise BrokenPipeError

    with FakeCluster(lambda job: End(0, b"x")) as cluster, monkeypatch.context() as patch:
        patch.setattr(terminal, "raw", gone)
        patch.setattr("os.dup2", lambda *descriptors: None)
        assert jobyard(cluster.url, "run", "--no-live", "--", "yes") == 141
        assert cluster.heard[-1] == "CANCEL k-1"


def test_run_as_json_is_one_object(jobyard: Shell) -> None:
    with only([*SUBMIT, (b"WAIT timeout=30 k-1\n", OUTCOME)]) as node:
        assert jobyard(node.url, "run", "--json", "--scratch", "--sh", "x") == 3
    assert json.loads(jobyard.out) == {
        "ticket": "k-1", "state": "failed", "attempt": 2, "exit": 3, "node": "n2", "seconds": 0.5, "reason": "exit",
        "truncated": False, "stdout": "out", "stderr": "oops",
    }  # fmt: skip


# --- which jobs --------------------------------------------------------------------------------------------------


def test_jobs_are_named_in_many_ways_and_meant_once(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group in ("a,b", "c", "c"):
        jobyard(cluster.url, "submit", "--group", group, "true")
    monkeypatch.setattr("sys.stdin", io.StringIO("k-2\nk-1 k-3\n"))
    for words, tickets in {
        "k-1": "k-1",
        "k-2,k-1 k-2": "k-2 k-1",
        "last": "k-3",
        "group:c": "k-3 k-2",
        "--group a,b k-2": "k-2 k-1",
        "all": "",
        "-": "k-2 k-1 k-3",
    }.items():
        assert jobyard(cluster.url, "status", "--quiet", *words.split()) == 0
        assert jobyard.lines == tickets.split(), words


def test_all_are_those_that_have_not_ended(jobyard: Shell) -> None:
    with FakeCluster(lambda job: None if "stays" in job.line else End()) as cluster:
        for command in ("stays", "ends", "stays"):
            jobyard(cluster.url, "submit", command)
        assert jobyard(cluster.url, "cancel", "all") == 0
        assert jobyard.lines == ["k-3 cancelled", "k-1 cancelled"]


def test_all_may_be_more_than_a_list_has(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "LIST_LIMIT_FIRST", 2)
    monkeypatch.setattr(selectors, "LIST_LIMIT", 4)
    with FakeCluster(stays) as cluster:
        for count in range(1, 6):
            jobyard(cluster.url, "submit", "-g", "g", "x")
            assert jobyard(cluster.url, "status", "-q", "all") == 0
            assert len(jobyard.lines) == min(count, 4)
            assert (b"more jobs live" in jobyard.err) == (count >= 4)
        assert jobyard(cluster.url, "status", "-q", "group:g") == 0
        assert b"group g has more jobs than a node lists" in jobyard.err


def test_there_is_no_last_ticket_before_the_first(jobyard: Shell, deaf_url: str) -> None:
    assert jobyard(deaf_url, "status", "last") == 2
    assert b"there is no last ticket" in jobyard.err


def test_a_ticket_that_cannot_be_kept_is_submitted_all_the_same(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert jobyard(cluster.url, "submit", "true") == 0
    assert (jobyard.out, jobyard.err) == (b"k-1\n", b"")


def test_without_xdg_the_last_ticket_is_kept_in_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    last.keep(last.Ticket("k-7"))
    assert (tmp_path / ".local/state/jobyard/last").read_text() == "k-7\n"
    assert last.ticket() == "k-7"


def test_what_is_wrong_with_one_job_does_not_keep_the_others(jobyard: Shell, cluster: FakeCluster) -> None:
    jobyard(cluster.url, "submit", "true")
    assert jobyard(cluster.url, "status", "-q", "nope", "k-1") == exits.UNKNOWN
    assert jobyard.out == b"k-1\n"
    assert jobyard.err == b"jobyard: UNKNOWN_TICKET: no job has the ticket 'nope'\n"


# --- asking ------------------------------------------------------------------------------------------------------

ARRAY = "k-3 state=running attempt=0 reason=running count=10 queued=6 running=1 succeeded=2 failed=1"
LISTED = f"""\
k-1 state=failed attempt=2 node=n2 reason=exit exit=3 name=a%20b group=g submitted=2026-11-21T10:00:00.000Z
k-2 state=retrying attempt=1 reason=retry retry_at=2126-11-21T10:00:00.000Z failures=1 mood=good
{ARRAY}
"""


def test_jobs_are_listed_for_people(jobyard: Shell) -> None:
    with only([(b"LIST state=failed group=g limit=9 local=1\n", with_body("OK count=3", LISTED))]) as node:
        assert jobyard(node.url, "list", "--state", "failed", "-g", "g", "-n", "9", "--local") == 0
    titles, *rows = (line.split() for line in jobyard.lines)
    assert " ".join(titles) == "TICKET STATE ENDED ATTEMPT NODE EXIT REASON IN AGE NAME GROUP"
    assert [row[:3] for row in rows] == [["k-1", "failed", "2"], ["k-2", "retrying", "1"], ["k-3", "running", "3/10"]]
    assert rows[0][-3:] == ["a", "b", "g"]
    assert jobyard.lines[1].index("exit") == jobyard.lines[0].index("REASON")


def test_jobs_as_json_have_typed_fields_and_whatever_else_the_node_says(jobyard: Shell) -> None:
    with only([(b"LIST\n", with_body("OK count=3", LISTED))]) as node:
        assert jobyard(node.url, "list", "--json") == 0
    first, second, third = map(json.loads, jobyard.lines)
    assert first == {
        "ticket": "k-1", "state": "failed", "attempt": 2, "node": "n2", "reason": "exit", "exit": 3, "name": "a b",
        "group": "g", "submitted": "2026-11-21T10:00:00.000Z",
    }  # fmt: skip
    assert (second["failures"], second["mood"]) == (1, "good")
    assert (third["count"], third["elements"]) == (10, {"queued": 6, "running": 1, "succeeded": 2, "failed": 1})


def test_status_can_be_one_word_for_workflow_engines(jobyard: Shell) -> None:
    for state, word in {
        "queued": "running",
        "running": "running",
        "succeeded": "success",
        "cancelled": "failed",
    }.items():
        with only([(b"STATUS k-1\n", f"OK k-1 state={state} attempt=1\n".encode())]) as node:
            assert jobyard(node.url, "status", "--brief", "k-1") == 0
        assert jobyard.out.decode() == f"{word}\n"


def test_explain_is_a_code_and_a_text(jobyard: Shell) -> None:
    answer = with_body("OK k-1 state=queued reason=no_free_slot", "Every slot is taken.\nIt is 3rd in the queue.\n")
    for words, out in {
        "explain k-1": "k-1 queued: no_free_slot\n  Every slot is taken.\n  It is 3rd in the queue.\n",
        "explain -q k-1": "k-1\n",
    }.items():
        with only([(b"EXPLAIN k-1\n", answer)]) as node:
            assert jobyard(node.url, *words.split()) == 0
        assert jobyard.out.decode() == out
    with only([(b"EXPLAIN k-1\n", answer)]) as node:
        assert jobyard(node.url, "explain", "--json", "k-1") == 0
    assert json.loads(jobyard.out)["text"].startswith("Every slot")


def test_the_cluster_is_shown_for_people_and_as_json(jobyard: Shell) -> None:
    told = "name=n1 state=alive slots=2 running=1 waiting=0 last_seen_s=0.25\n"
    node_record = {"name": "n1", "state": "alive", "slots": 2, "running": 1, "waiting": 0, "last_seen_s": 0.25}
    table = "NAME STATE SLOTS RUNNING WAITING SEEN n1 alive 2 1 0 0.2s"
    for words, request, answer, out in (
        ("nodes", b"NODES\n", with_body("OK count=1", told), table),
        ("nodes -q", b"NODES\n", with_body("OK count=1", told), "n1"),
        ("nodes --json", b"NODES\n", with_body("OK count=1", told), node_record),
        ("stats", b"STATS\n", with_body("OK", "jobs 3\n"), "NAME NUMBER jobs 3"),
        ("stats --local --json", b"STATS local=1\n", with_body("OK", "jobs 3\nrate 2.5\n"), {"jobs": 3, "rate": 2.5}),
        ("placement", b"PLACEMENT\n", b"OK placement=level\n", "level"),
        ("placement random", b"PLACEMENT random\n", b"OK placement=random\n", "random"),
        ("placement --json", b"PLACEMENT\n", b"OK placement=level\n", {"placement": "level"}),
        ("version", b"VERSION\n", b"OK jobyard 9 protocol=1\n", "client jobyard 0.1.0 node jobyard 9 protocol=1"),
        ("version --json", b"VERSION\n", b"OK jobyard 9 protocol=1\n", {"client": "0.1.0", "node": "9", "protocol": 1}),
        ("drain", b"DRAIN\n", b"OK state=draining running=2 waiting=3\n", "draining: finishes 2 and gives back 3"),
        ("drain --json", b"DRAIN\n", b"OK state=draining running=2 waiting=3\n",
         {"state": "draining", "running": 2, "waiting": 3}),
        ("undrain", b"UNDRAIN\n", b"OK state=alive\n", "alive"),
    ):  # fmt: skip
        with only([(request, answer)]) as node:
            assert jobyard(node.url, *words.split()) == 0, words
        assert out == (json.loads(jobyard.out) if isinstance(out, dict) else " ".join(jobyard.out.decode().split()))
        assert jobyard.err == b""


def test_which_node_is_drained_must_be_said(jobyard: Shell) -> None:
    assert jobyard("tcp://a,tcp://b", "drain") == 2
    assert b"say which by --url" in jobyard.err


EVENTS = (
    '{"seq":1,"at":"2026-11-21T10:00:00.000Z","event":"job.submitted","ticket":"k-1","kind":"sh","name":"a b"}\n'
    '{"seq":2,"at":"2026-11-21T10:00:01.000Z","event":"job.running","ticket":"k-1","attempt":1,"node":"n1"}\n'
)


def test_events_are_lines_for_people_and_objects_for_programs(jobyard: Shell) -> None:
    with only([(b"EVENTS since=c0\n", with_body("OK count=2 lost=1 cursor=c2", EVENTS))]) as node:
        assert jobyard(node.url, "events", "--since", "c0", "--show-cursor") == 0
    assert [line.split(maxsplit=2)[1:] for line in jobyard.lines] == [
        ["job.submitted", "k-1 kind=sh name='a b'"],
        ["job.running", "k-1 node=n1 attempt=1"],
    ]
    assert jobyard.err == b"jobyard: events before this are no longer kept\njobyard: cursor c2\n"
    with only([(b"EVENTS\n", with_body("OK count=2 cursor=c2", EVENTS))]) as node:
        assert jobyard(node.url, "events", "--json") == 0
    assert [json.loads(line)["seq"] for line in jobyard.lines] == [1, 2]


def test_events_are_followed_until_ctrl_c(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(text: str) -> None:
        shows(text)
        if "job.running" in text:
            os.kill(os.getpid(), signal.SIGINT)

    shows = terminal.line
    monkeypatch.setattr(terminal, "line", shown)
    with only([(b"EVENTS follow=1\n", with_body("OK count=2 cursor=c2", EVENTS))]) as node:
        assert jobyard(node.url, "events", "-f") == 130
    assert len(jobyard.lines) == 2


# --- results and waiting -----------------------------------------------------------------------------------------


def test_result_gives_the_output_and_the_exit_code_of_a_job(jobyard: Shell) -> None:
    with only([(b"RESULT k-1\n", OUTCOME)]) as node:
        assert jobyard(node.url, "result", "k-1") == 3
    assert (jobyard.out, jobyard.err) == (b"out", b"oops")


def test_result_of_several_is_0_if_all_succeeded_and_1_otherwise(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(3 if "3" in job.line else 0, b"\xff\n")) as cluster:
        for code in ("0", "3", "0"):
            jobyard(cluster.url, "submit", code)
        assert jobyard(cluster.url, "result", "k-1,k-3") == 0
        assert jobyard.out == b"\xff\n\xff\n"
        assert jobyard(cluster.url, "result", "--json", "k-1,k-2") == 1
        assert [base64.b64decode(json.loads(line)["stdout_base64"]) for line in jobyard.lines] == [b"\xff\n"] * 2


def test_result_of_a_job_that_goes_on_says_so_or_waits(jobyard: Shell) -> None:
    with only([(b"RESULT k-1\n", b"PENDING k-1 state=running\n")]) as node:
        assert jobyard(node.url, "result", "k-1") == 124
        assert jobyard.err == b"jobyard: PENDING: k-1 has not ended; it is running; `jobyard wait` waits for it\n"
    with only([(b"WAIT timeout=30 k-1\n", DONE)]) as node:
        assert jobyard(node.url, "result", "--wait", "k-1") == 0
    with only([(b"WAIT timeout=0 k-1\n", b"PENDING k-1 state=running\n")]) as node:
        assert jobyard(node.url, "result", "--timeout", "0", "k-1") == 124


def test_logs_prints_what_there_is_and_follows_it(jobyard: Shell) -> None:
    first = logs("state=running attempt=1 stdout=2 stderr=1", "abE")
    with only([(b"LOGS k-1\n", first)]) as node:
        assert jobyard(node.url, "logs", "k-1") == 0
    assert (jobyard.out, jobyard.err) == (b"ab", b"E")
    second = logs("state=succeeded attempt=2 stdout=1 stderr=0 end=1", "c")
    with only([(FOLLOW, first + second)]) as node:
        assert jobyard(node.url, "logs", "-f", "k-1") == 0
    assert (jobyard.out, jobyard.err) == (b"abc", b"Ejobyard: attempt 2 of k-1 begins\n")
    with only([(FOLLOW, first + second)]) as node:
        assert jobyard(node.url, "logs", "-f", "--json", "k-1") == 0
    assert [(part["stdout"], part["attempt"], part["end"]) for part in map(json.loads, jobyard.lines)] == [
        ("ab", 1, False),
        ("c", 2, True),
    ]


def test_wait_tells_of_each_job_as_it_ends(jobyard: Shell) -> None:
    with FakeCluster(stays) as cluster:
        for _ in range(3):
            jobyard(cluster.url, "submit", "--group", "g", "x")
        for ticket in ("k-2", "k-1", "k-3"):
            cluster.end(ticket, End(0))
        assert jobyard(cluster.url, "wait", "k-1,k-2,k-3") == 0
        assert jobyard.lines == ["k-2  succeeded  n1", "k-1  succeeded  n1", "k-3  succeeded  n1"]
        assert jobyard(cluster.url, "wait", "-q", "group:g") == 0
        assert jobyard.lines == ["k-2", "k-1", "k-3"]
        assert jobyard(cluster.url, "wait", "--json", "last") == 0
        assert json.loads(jobyard.out)["state"] == "succeeded"
        assert jobyard.err == b""


def test_wait_for_a_group_goes_on_until_nobody_in_it_lives(jobyard: Shell) -> None:
    with FakeCluster(stays) as cluster:
        for _ in range(2):
            jobyard(cluster.url, "submit", "--group", "g", "x")
        cluster.end("k-2", End(3))

        def end_the_other() -> None:
            cluster.until(lambda: any("since=1 " in line for line in cluster.heard))
            cluster.end("k-1", End(0))

        ending = threading.Thread(target=end_the_other)
        ending.start()
        assert jobyard(cluster.url, "wait", "--group", "g") == 1
        ending.join()
    assert jobyard.lines == ["k-2  failed  exit  n1", "k-1  succeeded  n1"]


def test_a_group_of_more_jobs_than_one_reply_tells_of_is_asked_after_again(jobyard: Shell) -> None:
    ended = with_body("OK count=1 live=0 cursor=c1", "k-1 state=succeeded attempt=1\n")
    more = with_body("OK count=1 live=0 cursor=c2", "k-2 state=succeeded attempt=1\n")
    nobody = with_body("OK count=0 live=0 cursor=c2", "")
    talk = [
        (b"WATCH timeout=0 group=g\n", ended),
        (b"WATCH timeout=0 since=c1 group=g\n", more),
        (b"WATCH timeout=0 since=c2 group=g\n", nobody),
    ]
    with only(talk) as node:
        assert jobyard(node.url, "wait", "-q", "group:g") == 0
    assert jobyard.lines == ["k-1", "k-2"]


def test_waiting_for_a_group_that_has_nobody_is_over_at_once(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "wait", "group:none") == 0
    assert jobyard.out == b""


def test_the_exit_code_of_wait_says_how_it_went(jobyard: Shell) -> None:
    with FakeCluster(lambda job: None if "stays" in job.line else End(3 if "3" in job.line else 0)) as cluster:
        for command in ("0", "3", "stays"):
            jobyard(cluster.url, "submit", "--group", command, command)
        for words, code in {
            "k-1": 0,
            "k-1,k-2": 1,
            "k-2,nope": 4,
            "--timeout 0.05 k-3": 124,
            "--timeout 0 group:stays": 124,
        }.items():
            assert jobyard(cluster.url, "wait", *words.split()) == code, words


# --- changing ----------------------------------------------------------------------------------------------------


def test_jobs_and_groups_are_changed(jobyard: Shell) -> None:
    job, group = "k-1", "group g"
    for words, request, answer, out in (
        ("cancel k-1", "CANCEL k-1", "OK k-1 state=cancelled", f"{job} cancelled"),
        ("cancel -g g", "CANCEL group=g", "OK group=g count=7", f"{group}: 7 cancelled"),
        ("retry k-1", "RETRY k-1", "OK k-1 state=queued", f"{job} queued"),
        ("retry -g g", "RETRY group=g", "OK group=g state=queued count=7", f"{group}: 7 queued"),
        ("forget k-1", "FORGET k-1", "OK k-1", f"{job} forgotten"),
        ("forget -g g", "FORGET group=g", "OK group=g count=7", f"{group}: 7 forgotten"),
    ):
        record = {"group": "g", "count": 7} if "-g" in words else {"ticket": job, "state": out.split()[-1]}
        talk = (f"{request}\n".encode(), f"{answer}\n".encode())
        with only([talk]) as node:
            assert jobyard(node.url, *words.split()) == 0
        assert jobyard.out.decode() == f"{out}\n"
        with only([talk]) as node:
            assert jobyard(node.url, *words.split(), "--json") == 0
        assert json.loads(jobyard.out) == record
        with only([talk]) as node:
            assert jobyard(node.url, *words.split(), "--quiet") == 0
        assert jobyard.out == (b"k-1\n" if "k-1" in words else b"")


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_what_is_for_ended_jobs_does_not_take_all_that_live(jobyard: Shell, deaf_url: str, verb: str) -> None:
    assert jobyard(deaf_url, verb, "all") == 2
    assert b"name tickets or a group" in jobyard.err


def test_text_that_a_locale_has_no_letters_for_is_escaped(jobyard: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="ascii"))
    with only([(b"STATUS k-1\n", "OK k-1 state=running attempt=1 name=ü\n".encode())]) as node:
        assert jobyard(node.url, "status", "k-1") == 0
    assert b"\\xfc" in jobyard.out


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "request_line", "answer", "code"),
    [
        ("status x", b"STATUS x\n", b"ERR UNKNOWN_TICKET no job has the ticket 'x'\n", 4),
        ("result x", b"RESULT x\n", b"ERR EXPIRED x ended long ago\n", 4),
        ("submit --scratch x", b'SUBMIT argv ["x"]\n', b"ERR FULL no room\n", 5),
        ("submit --scratch x", b'SUBMIT argv ["x"]\n', b"ERR BAD_REQUEST not like that\n", 2),
        ("retry x", b"RETRY x\n", b"ERR CONFLICT x is running\n", 5),
        ("nodes", b"NODES\n", b"ERR UNAUTHORIZED a token is needed\n", 5),
        ("stats", b"STATS\n", b"220 smtp.example.org\n", 1),
    ],
)
def test_the_exit_code_says_what_went_wrong(
    jobyard: Shell, words: str, request_line: bytes, answer: bytes, code: int
) -> None:
    with only([(request_line, answer)]) as node:
        assert jobyard(node.url, *words.split()) == code
    assert jobyard.out == b""
    assert jobyard.err.startswith(b"jobyard: ")
    assert jobyard.err.count(b"\n") == 1


def test_no_node_is_exit_code_3(jobyard: Shell, deaf_url: str) -> None:
    assert jobyard(deaf_url, "nodes") == 3
    assert b"jobyard: UNREACHABLE: no node can be reached" in jobyard.err


@pytest.mark.parametrize(
    "words",
    [
        "",
        "dance",
        "submit",
        "submit --sh a -- b",
        "submit --py a:b 1 2",
        "submit --sh a --py b:c",
        "submit --sleep 1 x",
        "submit --scratch --dir /x y",
        "submit --timeout soon -- a",
        "submit --timeout '' -- a",
        "submit --memory much -- a",
        "submit --env 1A=b -- a",
        "submit --env NOT_SET_HERE -- a",
        "submit --crash-limit never -- a",
        "submit --name '' -- a",
        "submit --after '' -- a",
        "list --state dancing",
        "cancel",
        "cancel group:",
        "status",
        "events -f --show-cursor",
        "map --halt sometimes x",
        "map -N 2 x ::: a ::: b",
    ],
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(jobyard: Shell, deaf_url: str, words: str) -> None:
    assert jobyard(deaf_url, *shlex.split(words)) == 2
    assert jobyard.out == b""
    assert jobyard.err


def test_a_message_from_a_node_stays_on_one_line(jobyard: Shell) -> None:
    with only([(b"STATUS x\n", b"ERR BAD_REQUEST a\tb\r\n")]) as node:
        assert jobyard(node.url, "status", "x") == 2
    assert jobyard.err == b"jobyard: BAD_REQUEST: a b\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_and_an_example_in_its_help(jobyard: Shell, deaf_url: str, verb: str) -> None:
    assert jobyard(deaf_url, verb, "--help") == 0
    told = jobyard.out.decode()
    assert "--json" in told
    assert f"jobyard {verb}" in told.partition("Examples:")[2] or f" {verb}" in told.partition("Examples:")[2]


def test_the_version_can_be_told_without_a_node(jobyard: Shell, deaf_url: str) -> None:
    assert jobyard(deaf_url, "--version") == 0
    assert jobyard.out == b"jobyard 0.1.0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(jobyard: Shell, deaf_url: str, shell: str) -> None:
    assert jobyard(deaf_url, "completion", shell) == 0
    assert f"_JOBYARD_COMPLETE={shell}_complete" in jobyard.out.decode()
    assert jobyard(deaf_url, "completion", "--json", shell) == 0
    assert json.loads(jobyard.out)["shell"] == shell


def test_tab_proposes_tickets_and_groups(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, deaf_url: str
) -> None:
    jobyard(cluster.url, "submit", "-g", "g", "x")
    monkeypatch.setenv("_JOBYARD_COMPLETE", "bash_complete")
    for url, typed, proposed in (
        (cluster.url, "result ", {"plain,all", "plain,last", "plain,k-1", "plain,group:g"}),
        (cluster.url, "result gr", {"plain,group:g"}),
        (deaf_url, "result ", {"plain,all", "plain,last"}),
        (deaf_url, "ev", {"plain,events"}),
    ):
        monkeypatch.setenv("JOBYARD_URL", url)
        monkeypatch.setenv("COMP_WORDS", f"jobyard {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" "))))
        assert jobyard(url) == 0
        assert set(jobyard.lines) == proposed
