"""What a job is and finds around it, as its submitter sees it: kinds, exit codes, signals, timeouts, surroundings."""

import json
import shlex
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, is_alive, submit, until, wait
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

SECRET: Final = "a-cluster-key-that-nobody-may-see"
OUTPUT_BYTES_MAX: Final = 64 * 1024


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    env = {"JOBYARD_CLUSTER_KEY": SECRET, "JOBYARD_OUTPUT_MAX": "64KiB", "A_PASSWORD": "not for jobs"}
    return start_cluster_of_module(1, slots=2, env=env)


@pytest.fixture(scope="module")
def node(cluster: LocalCluster) -> str:
    return cluster.address("node1")


def run(address: str, job: str, body: bytes | None = None) -> Reply:
    reply = ask(address, f"run {job}", body)
    assert reply.ok, reply.line
    return reply


def how(reply: Reply) -> tuple[str | None, str | None, str | None]:
    return reply.field("state"), reply.field("exit"), reply.field("reason")


# --- kinds -----------------------------------------------------------------------------------------------------


def test_sh_is_a_command_line_as_it_stands(node: str) -> None:
    assert run(node, 'sh for i in 1 2; do echo  "$i  x"; done | tr 1 9').body == b"9  x\n2  x\n"


def test_exec_splits_words_and_starts_no_shell(node: str) -> None:
    assert run(node, "exec printf '%s|' \"a  b\" $HOME ';'").body == b"a  b|$HOME|;|"


def test_argv_takes_the_words_exactly(node: str) -> None:
    words = ["printf", "%s|", "a b", "", "\"'\n", "ü"]
    assert run(node, f"argv {json.dumps(words)}").body == "a b||\"'\n|ü|".encode()


def test_sleep_needs_no_process_and_prints_nothing(node: str) -> None:
    reply = run(node, "sleep 120ms")
    assert (how(reply), reply.body) == (("succeeded", "0", None), b"")
    assert 0.12 <= float(reply.field("seconds") or 0) < 5


def test_py_returns_a_value_as_json_and_its_prints_apart(node: str) -> None:
    reply = run(node, 'py json:loads ["[1, 2.5, null]"]')
    assert json.loads(reply.body) == [1, 2.5, None]
    printed = run(node, 'py builtins:print ["to standard error"]')
    assert (printed.field("stdout"), printed.body) == ("5", b"null\nto standard error\n")


def test_an_exception_of_py_is_told_with_its_traceback(node: str) -> None:
    reply = run(node, 'py builtins:int ["seven"]')
    assert how(reply) == ("failed", "1", "exception")
    assert b"ValueError: invalid literal for int() with base 10: 'seven'" in reply.body


# --- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "end"),
    [
        ("sh true", ("succeeded", "0", None)),
        ("sh exit 7", ("failed", "7", "exit")),
        ("sh kill -KILL $$", ("failed", "137", "signal")),
        ("exec /no/such/program", ("failed", None, "cannot_start")),
        ("dir=/no/such/directory sh true", ("failed", None, "no_directory")),
        ("timeout=0.3s sh sleep 60", ("failed", "143", "timeout")),
        ("timeout=0.2s sleep 60s", ("failed", "143", "timeout")),
        ("timeout=0.3s sh trap 'exit 5' TERM; sleep 60 & wait", ("failed", "5", "timeout")),
    ],
)
def test_the_end_of_a_job_says_how_and_why(node: str, job: str, end: tuple[str, str | None, str | None]) -> None:
    state, code, reason = how(run(node, job))
    assert (state, reason) == (end[0], end[2])
    assert code == end[1] or end[1] is None


def test_a_job_that_ignores_sigterm_is_killed_after_five_seconds(node: str) -> None:
    reply = run(node, "timeout=0.2s sh trap '' TERM; sleep 60 & sleep 60 & wait; wait; sleep 60")
    assert how(reply) == ("failed", "137", "timeout")
    assert 5 < float(reply.field("seconds") or 0) < 10


def test_whatever_a_job_left_running_ends_with_it(node: str, tmp_path: Path) -> None:
    run(node, f"sh sleep 61 & echo $! >{tmp_path}/pid")
    pid = int((tmp_path / "pid").read_text())
    until("the process is gone", lambda: not is_alive(pid))


def test_standard_error_follows_standard_output(node: str) -> None:
    reply = run(node, "sh echo err >&2; echo out")
    assert (reply.field("stdout"), reply.field("stderr"), reply.body) == ("4", "4", b"out\nerr\n")


def test_output_beyond_the_limit_is_cut_and_said_so(node: str) -> None:
    reply = run(node, "sh yes 0123456789abcde | head -c 1000000; echo end >&2")
    assert (how(reply), reply.field("truncated")) == (("succeeded", "0", None), "1")
    assert reply.body == b"0123456789abcde\n" * (OUTPUT_BYTES_MAX // 16) + b"end\n"
    assert run(node, "sh true").field("truncated") is None


# --- surroundings ----------------------------------------------------------------------------------------------


def test_a_job_finds_its_names_and_its_own_variables_and_nothing_secret(node: str) -> None:
    ticket = submit(node, "env.COLOUR=light%20blue exec env -0")
    found = dict(entry.split("=", 1) for entry in wait(node, ticket).body.decode().split("\0") if entry)
    assert found["COLOUR"] == "light blue"
    assert (found["JOBYARD_TICKET"], found["JOBYARD_ATTEMPT"], found["JOBYARD_NODE"]) == (ticket, "1", "node1")
    assert not {"JOBYARD_CLUSTER_KEY", "JOBYARD_DATA_DIR", "JOBYARD_LISTEN", "A_PASSWORD"} & set(found)
    assert SECRET not in str(found)


def test_a_py_job_finds_no_secret_either(node: str) -> None:
    found = json.loads(run(node, 'py subprocess:getoutput ["env"]').body)
    assert "JOBYARD_TICKET=" in found
    assert SECRET not in found
    assert "A_PASSWORD" not in found


def test_a_job_has_its_three_descriptors_and_no_other(node: str) -> None:
    assert run(node, "sh sleep 0.5 & ls /proc/$!/fd; kill $!").body.split() == [b"0", b"1", b"2"]


def test_what_a_py_job_starts_has_its_three_descriptors_and_no_other(node: str) -> None:
    words = json.dumps([shlex.join(["sh", "-c", "sleep 0.5 & ls /proc/$!/fd; kill $!"])])
    assert json.loads(run(node, f"py subprocess:getoutput {words}").body).split() == ["0", "1", "2"]


def test_a_body_is_standard_input_and_without_one_it_is_empty(node: str) -> None:
    body = b"\x00\xff\n" * 50_000
    assert run(node, f"bytes={len(body)} sh cat | wc -c; cat | wc -c", body).body.split() == [b"150000", b"0"]
    assert run(node, "sh wc -c").body.split() == [b"0"]
    assert json.loads(run(node, "bytes=5 py sys:stdin.read", b"input").body) == "input"


def test_a_job_has_an_empty_directory_of_its_own_which_is_removed_afterwards(node: str) -> None:
    first, second = (run(node, "sh ls -A; pwd; touch left-behind").body.decode().split() for _ in range(2))
    assert first != second
    for (path,) in (first, second):
        until("it is removed", lambda path=path: not Path(path).exists())  # type: ignore[misc]


def test_a_job_works_in_the_directory_that_it_asks_for(node: str, tmp_path: Path) -> None:
    assert run(node, f"dir={tmp_path} sh pwd; echo x >made").body.decode().strip() == str(tmp_path)
    assert (tmp_path / "made").read_text() == "x\n"


def test_a_higher_priority_runs_first_and_a_wide_job_takes_its_slots(node: str, tmp_path: Path) -> None:
    wide = submit(node, "slots=2 sh sleep 0.5")
    until("it runs", lambda: ask(node, f"status {wide}").field("state") == "running")
    tickets = [
        submit(node, f"slots=2 priority={priority} sh echo {priority} >>{tmp_path}/order") for priority in (-5, 0, 50)
    ]
    for ticket in tickets:
        wait(node, ticket)
    assert (tmp_path / "order").read_text().split() == ["50", "0", "-5"]
