"""The command `jobyard` on a real cluster: each verb, and what a shell would do with it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.jobyard import PATIENCE_S, Jobyard, ended

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(2, slots=2)


@pytest.fixture
def jobyard(cluster: LocalCluster, tmp_path: Path) -> Iterator[Jobyard]:
    with Jobyard(cluster, tmp_path) as jobyard:
        yield jobyard


# --- run ---------------------------------------------------------------------------------------------------------

COMMANDS = {
    "success": "true",
    "an exit code": "exit 42",
    "a signal": "kill -KILL $$",
    "another signal": "kill -TERM $$",
    "both streams": "echo out; echo err >&2; exit 3",
    "bytes": "printf 'a\\0\\377\\n\\r\\n'; printf '\\376' >&2",
    "much": "head -c 900000 /dev/zero | tr '\\0' x",
    "no line end": "printf x",
}


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_run_gives_the_output_exit_code_and_signal_of_its_command(jobyard: Jobyard, line: str) -> None:
    command = ["sh", "-c", line]
    here = subprocess.run(command, capture_output=True, cwd=jobyard.directory, check=False)
    code = 128 - here.returncode if here.returncode < 0 else here.returncode
    there = jobyard("run", "--", *command)
    assert (there.code, there.out, there.err) == (code, here.stdout, here.stderr)


def test_run_works_where_it_is_called_with_what_it_is_given(jobyard: Jobyard) -> None:
    (jobyard.directory / "input").write_text("file\n")
    done = jobyard("run", "--stdin", "-e", "COLOUR=light blue", "--sh", 'cat input -; echo "$COLOUR"', stdin=b"stdin\n")
    assert done.lines == ["file", "stdin", "light blue"]
    assert jobyard("run", "--scratch", "ls", "-A").out == b""
    assert jobyard("run", "--py", "os:getcwd").out == json.dumps(str(jobyard.directory)).encode() + b"\n"


def test_what_cannot_be_run_is_told_with_what_to_do(jobyard: Jobyard) -> None:
    done = jobyard("run", "no-such-program")
    assert done.code == 127
    assert b"no-such-program" in done.err
    done = jobyard("run", "--dir", "/no/such/place", "true")
    assert done.code == 1
    assert b"--scratch" in done.err
    assert jobyard("run", "--timeout", "0.2", "--", "sleep", "60").code == 124


def test_output_comes_while_the_job_runs(jobyard: Jobyard) -> None:
    process = jobyard.start("run", "--sh", "echo first; until [ -e go ]; do sleep 0.05; done; echo second")
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    (jobyard.directory / "go").touch()
    assert ended(process).out == b"second\n"


def started(jobyard: Jobyard, line: str) -> "subprocess.Popen[bytes]":
    """A `run` whose job has come to `touch begun`."""
    process = jobyard.start("run", "--sh", line)
    until("the job has begun", (jobyard.directory / "begun").exists)
    return process


def test_ctrl_c_ends_the_job_and_what_it_says_then_is_printed(jobyard: Jobyard) -> None:
    process = started(jobyard, "trap 'echo bye; exit 7' TERM; touch begun; while :; do sleep 0.05; done")
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert (done.code, done.out) == (130, b"bye\n")
    assert jobyard("status", "--brief", "last").out == b"failed\n"


def test_a_second_ctrl_c_does_not_wait_for_a_job_that_takes_its_time(jobyard: Jobyard) -> None:
    process = started(jobyard, "trap '' TERM; touch begun; sleep 60; sleep 60")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"cancelling" in process.stderr.readline()
    began_at = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    assert time.monotonic() - began_at < 4  # and SIGKILL comes after 5


def test_a_job_whose_output_nobody_reads_any_more_is_cancelled(jobyard: Jobyard) -> None:
    process = started(jobyard, "touch begun; while :; do echo y; sleep 0.01; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 141
    assert jobyard("wait", "--quiet", "last").code == 1


# --- jobs --------------------------------------------------------------------------------------------------------


def test_the_life_of_a_job_from_the_outside(jobyard: Jobyard) -> None:
    ticket = jobyard(
        "submit", "--name", "life", "--sh", "echo hello; until [ -e go ]; do sleep 0.05; done; exit 3"
    ).ticket
    until("it runs", lambda: json.loads(jobyard("status", "--json", "last").out)["state"] == "running")
    assert json.loads(jobyard("explain", "--json", ticket).out)["reason"] == "running"
    until("it has printed", lambda: jobyard("logs", ticket).out == b"hello\n")
    assert jobyard("result", ticket).code == 124
    assert jobyard("wait", "--timeout", "0.2", ticket).code == 124
    (jobyard.directory / "go").touch()
    assert jobyard("wait", "--quiet", ticket).code == 1
    done = jobyard("result", "last")
    assert (done.code, done.out) == (3, b"hello\n")
    told = json.loads(jobyard("result", "--json", ticket).out)
    assert (told["state"], told["exit"], told["stdout"], told["reason"]) == ("failed", 3, "hello\n", "exit")
    assert jobyard("retry", ticket).lines == [f"{ticket} queued"]
    assert jobyard("result", "--wait", ticket).code == 3
    assert jobyard("forget", ticket).code == 0
    assert jobyard("status", ticket).code == 4


def test_jobs_are_cancelled_by_group_and_all_that_live(jobyard: Jobyard) -> None:
    grouped = [jobyard("submit", "--group", "naps", "--sleep", "1h").ticket for _ in range(3)]
    other = jobyard("submit", "--sleep", "1h").ticket
    assert jobyard("cancel", "group:naps").lines == ["group naps: 3 cancelled"]
    assert sorted(jobyard("status", "--quiet", "group:naps").lines) == sorted(grouped)
    assert other in jobyard("cancel", "--quiet", "all").lines
    assert jobyard("wait", *grouped, other).code == 1


def test_a_job_waits_for_others_and_an_array_is_one_ticket(jobyard: Jobyard) -> None:
    array = jobyard("submit", "--array", "1-5", "--sh", "echo $JOBYARD_INDEX {} > {}").ticket
    after = jobyard("submit", "--after", "last", "--sh", "cat 1 2 3 4 5").ticket
    assert jobyard("result", "--wait", after).lines == [f"{number} {number}" for number in range(1, 6)]
    told = json.loads(jobyard("status", "--json", array).out)
    assert (told["count"], told["elements"]["succeeded"]) == (5, 5)
    assert jobyard("result", f"{array}_3").code == 0


def test_jobs_pass_from_verb_to_verb_through_a_pipe(jobyard: Jobyard) -> None:
    for code in ("0", "3"):
        jobyard("submit", "--group", "pipe", "--sh", f"exit {code}")
    jobyard("wait", "group:pipe")
    failed = jobyard("list", "--quiet", "--group", "pipe", "--state", "failed")
    assert len(failed.lines) == 1
    assert jobyard("retry", "-", stdin=failed.out).code == 0
    assert jobyard("wait", "-", stdin=failed.out).code == 1


# --- the cluster -------------------------------------------------------------------------------------------------


def test_the_cluster_is_shown(jobyard: Jobyard) -> None:
    nodes = [json.loads(line) for line in jobyard("nodes", "--json").lines]
    assert [(node["name"], node["state"], node["slots"]) for node in nodes] == [
        ("node1", "alive", 2),
        ("node2", "alive", 2),
    ]
    assert jobyard("nodes").lines[0].split() == ["NAME", "STATE", "SLOTS", "RUNNING", "WAITING", "SEEN"]
    assert json.loads(jobyard("stats", "--json").out)
    assert json.loads(jobyard("version", "--json").out)["protocol"] == 1


def test_a_node_is_drained_and_takes_jobs_again(jobyard: Jobyard, cluster: LocalCluster) -> None:
    only = {"JOBYARD_URL": cluster.url("node2")}
    assert jobyard("drain").code == 2
    assert jobyard("drain", env=only).code == 0
    refused = jobyard("submit", "--", "true", env=only)
    assert (refused.code, refused.err[:18]) == (5, b"jobyard: DRAINING:")
    assert (
        jobyard("submit", "--", "true", env={"JOBYARD_URL": f"{cluster.url('node2')},{cluster.url('node1')}"}).code == 0
    )
    assert jobyard("undrain", env=only).lines == ["alive"]
    assert jobyard("run", "--", "true", env=only).code == 0


def test_events_tell_the_life_of_a_job(jobyard: Jobyard) -> None:
    ticket = jobyard("submit", "--", "true").ticket
    jobyard("wait", ticket)
    events = [json.loads(line) for line in jobyard("events", "--json").lines]
    told = [event["event"] for event in events if event.get("ticket") == ticket]
    assert told[0] == "job.submitted"
    assert told[-1] == "job.succeeded"
    process = jobyard.start("events", "--follow", "--json")
    assert process.stdout is not None
    later = jobyard("submit", "--", "true").ticket
    for line in process.stdout:
        event = json.loads(line)
        if (event.get("ticket"), event["event"]) == (later, "job.succeeded"):
            break
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130


def test_no_node_is_exit_code_3_and_an_unknown_ticket_4(jobyard: Jobyard) -> None:
    assert jobyard("nodes", env={"JOBYARD_URL": "tcp://127.0.0.1:1"}).code == 3
    assert jobyard("status", "aaaaaa-1").code == 4
    assert jobyard("status", "nope").code == 4


def test_bash_completes_our_words(jobyard: Jobyard, tmp_path: Path) -> None:
    jobyard.env["PATH"] = f"{jobyard.shim(tmp_path / 'bin').parent}:{os.environ['PATH']}"
    asked = 'eval "$(jobyard completion bash)"; COMP_WORDS=(jobyard sta); COMP_CWORD=1; _jobyard_completion jobyard'
    done = subprocess.run(
        ["bash", "-c", f"{asked}; echo ${{COMPREPLY[@]}}"], env=jobyard.env, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"status", b"stats"]


def test_a_reader_who_has_enough_is_no_error(jobyard: Jobyard) -> None:
    for words in ("stats", "nodes", "events"):
        process = jobyard.start(words)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


# --- map ---------------------------------------------------------------------------------------------------------


def test_map_runs_a_command_for_each_input(jobyard: Jobyard) -> None:
    names = [f"it's {number}.txt" for number in range(40)]
    for name in names:
        (jobyard.directory / name).write_text(f"{name}\n")
    done = jobyard("map", "--keep-order", "--tag", "cp {} {.}.bak; cat {}; test {#} -ne 7", ":::", *names)
    assert done.code == 1
    assert done.lines == [f"{name}\t{name}" for name in names]
    assert all((jobyard.directory / name).with_suffix(".bak").read_text() == f"{name}\n" for name in names)
    assert done.err == b""


def test_map_takes_hundreds_of_lines_from_a_pipe(jobyard: Jobyard) -> None:
    done = jobyard(
        "map", "-k", "-N", "10", "-j", "8", "echo", stdin=b"".join(b"%d\n" % number for number in range(1000))
    )
    assert done.code == 0
    assert done.out.split() == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_map_leaves_nothing_behind_when_it_is_stopped(jobyard: Jobyard, stop: signal.Signals) -> None:
    of_others = jobyard("status", "--quiet", "all").lines  # one that resists its signal takes a moment to end
    process = jobyard.start("map", "touch begun{}; sleep 3600", ":::", *map(str, range(20)))
    until("two have begun", lambda: len(list(jobyard.directory.glob("begun*"))) >= 2)
    process.send_signal(stop)
    done = ended(process)
    assert done.code == 128 + stop
    assert b"cancelling 20 jobs" in done.err
    assert set(jobyard("status", "--quiet", "all").lines) <= set(of_others)


# --- losing a node -----------------------------------------------------------------------------------------------


def test_waiting_following_and_mapping_go_on_at_another_node(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(3, slots=2, env={"JOBYARD_NODE_TIMEOUT": "2s"})
    with Jobyard(cluster, tmp_path) as jobyard:
        alive = Jobyard(cluster, tmp_path)
        alive.env["JOBYARD_URL"] = cluster.url("node2")
        ticket = begun_elsewhere(alive, "node1", "echo before; until [ -e go ]; do sleep 0.05; done; echo after")
        waiting = jobyard.start("wait", ticket)
        following = jobyard.start("logs", "--follow", ticket)
        assert following.stdout is not None
        assert following.stdout.readline() == b"before\n"
        mapping = jobyard.start("map", "-k", "until [ -e go ]; do sleep 0.05; done; echo", ":::", *map(str, range(30)))
        until("the map is under way", lambda: len(alive("status", "--quiet", "all").lines) > 30)
        os.kill(cluster.pid("node1"), signal.SIGKILL)
        (tmp_path / "go").touch()
        assert ended(waiting).code == 0
        assert ended(following).out == b"after\n"
        assert ended(mapping).lines == [str(number) for number in range(30)]


def begun_elsewhere(jobyard: Jobyard, node: str, line: str) -> str:
    """A job that runs, and not on this node."""

    def found() -> str | None:
        jobs = [json.loads(told) for told in jobyard("status", "--json", *tickets).lines]
        return next((job["ticket"] for job in jobs if job["state"] == "running" and job["node"] != node), None)

    tickets = [jobyard("submit", "--sh", line).ticket for _ in range(2)]  # which are spread
    return until("one runs elsewhere", found)
