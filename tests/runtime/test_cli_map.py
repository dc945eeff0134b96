"""`jobyard map` against a cluster in miniature that runs each line in a shell of this machine, or as the test says."""

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobyard.cli import running
from tests.runtime.fake_cluster import End, FakeCluster, FakeJob
from tests.runtime.shell import Shell, interrupted


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_GLANCE_S", 0.01)


def in_a_shell(job: FakeJob) -> End:
    """A job that really runs, at once."""
    line = job.line if job.kind == "sh" else json.loads(job.line)[2]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    return End(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(in_a_shell) as cluster:
        yield cluster


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a pipe; this is the end to write to."""
    read, write = os.pipe()
    with os.fdopen(read) as file:
        monkeypatch.setattr("sys.stdin", file)
        yield write


# --- inputs and output -------------------------------------------------------------------------------------------


def test_a_job_for_each_input_with_what_a_shell_would_stumble_over(jobyard: Shell, cluster: FakeCluster) -> None:
    nasty = ["a b", "it's", '"', "$HOME", "`x`", "a\nb", "*", "", "ü", "-n"]
    assert jobyard(cluster.url, "map", "-k", "printf '%s|'", ":::", *nasty) == 0
    assert jobyard.out.decode() == "".join(f"{text}|" for text in nasty)
    assert jobyard.err == b""


def test_words_of_the_command_are_joined_and_the_parts_of_inputs_replaced(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "map", "-k", "echo", "{#}:{.}", "{/}", "{//}", "{/.}", ":::", "a b/c.tar.gz", "d") == 0
    assert jobyard.lines == ["1:a b/c.tar c.tar.gz a b c.tar", "2:d d . d"]


def test_several_sources_make_all_combinations(jobyard: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("x\ny\n")
    file = str(tmp_path / "list")
    for words in (("::::", file, ":::", "1", "2"), (":::", "x", "y", ":::", "1", "2")):
        assert jobyard(cluster.url, "map", "-k", "echo {2}-{1}", *words) == 0
        assert jobyard.lines == ["1-x", "2-x", "1-y", "2-y"]
    assert jobyard(cluster.url, "map", "-k", "-a", file, "echo", ":::", "1") == 0
    assert jobyard.lines == ["x 1", "y 1"]


def test_a_job_may_have_several_inputs_and_the_last_one_fewer(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "map", "-k", "-N", "3", "echo {} = {1}..{3}", ":::", *"abcde") == 0
    assert jobyard.lines == ["a b c = a..c", "d e = d.."]


def test_without_a_command_the_inputs_are_commands(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"echo a; echo b\nexit 3\n")
    assert jobyard(cluster.url, "map", "-k") == 1
    assert jobyard.out == b"a\nb\n"


def test_lines_may_end_with_nul(jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"a\nb\0c\0")
    assert jobyard(cluster.url, "map", "-0", "-k", "printf '[%s]'") == 0
    assert jobyard.out == b"[a\nb][c]"


def test_no_inputs_are_no_jobs(jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobyard(cluster.url, "map", "echo", ":::") == 0
    stdin(monkeypatch, b"")
    assert jobyard(cluster.url, "map", "echo") == 0
    assert (jobyard.out, cluster.jobs) == (b"", {})


def test_inputs_are_taken_as_they_come(jobyard: Shell, cluster: FakeCluster, pipe: int) -> None:
    def write() -> None:
        for number, text in enumerate([b"a\nb", b"b\n", b"c"], 1):
            os.write(pipe, text)
            cluster.until(lambda number=number: len(cluster.jobs) >= min(number, 2))  # type: ignore[misc]
        os.close(pipe)

    writing = threading.Thread(target=write)
    writing.start()
    assert jobyard(cluster.url, "map", "-k", "echo") == 0
    writing.join()
    assert jobyard.lines == ["a", "bb", "c"]


def test_a_dry_run_prints_the_lines_and_asks_nobody(jobyard: Shell, deaf_url: str) -> None:
    assert jobyard(deaf_url, "map", "--dry-run", "gzip -{2}", ":::", "a b", "c", ":::", "1") == 0
    assert jobyard.lines == ["gzip -1", "gzip -1"]
    assert jobyard(deaf_url, "map", "--dry-run", "gzip", ":::", "a b", "c") == 0
    assert jobyard.lines == ["gzip 'a b'", "gzip c"]


def test_output_comes_as_jobs_end_or_in_the_order_of_the_inputs(jobyard: Shell) -> None:
    for words, out in (([], ["3", "2", "1"]), (["-k"], ["1", "2", "3"])):
        with FakeCluster(lambda job: None) as cluster:
            ending = threading.Thread(target=_end_backwards, args=(cluster, 3))
            ending.start()
            assert jobyard(cluster.url, "map", *words, "echo", ":::", "1", "2", "3") == 0
            ending.join()
        assert jobyard.lines == out


def _end_backwards(cluster: FakeCluster, count: int) -> None:
    cluster.until(lambda: len(cluster.jobs) == count)
    for number in range(count, 0, -1):
        cluster.end(f"k-{number}", End(0, f"{number}\n".encode()))


def test_each_stream_goes_where_it_belongs_with_a_tag_if_wanted(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "map", "-k", "--tag", "echo {}; printf 'x\\ny' >&2", ":::", "a b") == 0
    assert (jobyard.out, jobyard.err) == (b"a b\ta b\n", b"a b\tx\na b\ty")


def test_json_is_an_object_for_each_job(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "map", "-k", "--json", "exit", ":::", "0", "3") == 1
    first, second = map(json.loads, jobyard.lines)
    assert (first["seq"], first["args"], first["command"], first["ticket"]) == (1, ["0"], "exit 0", "k-1")
    assert (second["state"], second["exit"]) == ("failed", 3)


def test_quiet_is_a_ticket_for_each_job(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "map", "-k", "-q", "echo", ":::", "a", "b") == 0
    assert jobyard.lines == ["k-1", "k-2"]


def test_the_job_log_is_as_gnu_parallel_writes_it(jobyard: Shell, tmp_path: Path) -> None:
    ends = {"a": End(0, b"12345"), "b": End(3), "c": End(137, reason="signal")}
    with FakeCluster(lambda job: ends[job.line[-1]]) as cluster:
        assert jobyard(cluster.url, "map", "-k", "--joblog", str(tmp_path / "log"), "x", ":::", *ends) == 1
    titles, *rows = (line.split("\t") for line in (tmp_path / "log").read_text().splitlines())
    assert titles == ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"]
    assert [[*row[:2], *row[3:]] for row in rows] == [
        ["1", "n1", "0.500", "0", "5", "0", "0", "x a"],
        ["2", "n1", "0.500", "0", "0", "3", "0", "x b"],
        ["3", "n1", "0.500", "0", "0", "0", "9", "x c"],
    ]


# --- how many, and when to stop ----------------------------------------------------------------------------------


def test_thousands_of_inputs_take_few_questions_and_each_has_its_key(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(0, job.line.encode() + b"\n")) as cluster:
        assert jobyard(cluster.url, "map", "-k", "echo", ":::", *map(str, range(5_000))) == 0
        verbs = [line.partition(" ")[0] for line in cluster.heard]
        assert verbs.count("SUBMIT") == verbs.count("RESULT") == 5_000
        assert verbs.count("WATCH") < 100
        groups = {job.options["group"] for job in cluster.jobs.values()}
        assert len(groups) == 1
        assert {job.options["key"] for job in cluster.jobs.values()} == {
            f"{next(iter(groups))}-{number}" for number in range(1, 5_001)
        }
    assert jobyard.lines == [f"echo {number}" for number in range(5_000)]


def test_no_more_than_so_many_are_under_way(jobyard: Shell) -> None:
    most = []

    def counted(job: FakeJob) -> None:
        most.append(len(cluster.live) + 1)
        threading.Timer(0.001, lambda: cluster.end(job.ticket, End())).start()

    with FakeCluster() as cluster:
        cluster.runs = counted
        assert jobyard(cluster.url, "map", "-j", "3", "x", ":::", *map(str, range(30))) == 0
    assert max(most) <= 4  # one whose end was told is not yet counted out
    assert len(most) == 30


def test_the_first_failure_may_cancel_the_rest(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(3) if job.number == 2 else None) as cluster:
        assert jobyard(cluster.url, "map", "--halt", "now,fail=1", "x", ":::", *"abcd") == 1
        assert {job.end.told[0] for job in cluster.jobs.values() if job.end} == {"failed", "cancelled"}
        assert not cluster.live


def test_or_nothing_more_is_submitted(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(3 if job.number > 1 else 0)) as cluster:
        assert jobyard(cluster.url, "map", "-j", "1", "--halt", "soon,fail=2", "x", ":::", *"abcdef") == 1
        assert len(cluster.jobs) == 3


def test_the_first_success_may_be_enough(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(3 if job.number < 3 else 0)) as cluster:
        assert jobyard(cluster.url, "map", "-j", "1", "--halt", "now,success=1", "x", ":::", *"abcdef") == 0
        assert len(cluster.jobs) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_cancels_the_group_and_nothing_is_left(jobyard: Shell, number: signal.Signals, code: int) -> None:
    with FakeCluster(lambda job: None) as cluster:
        pressed = interrupted(lambda: cluster.until(lambda: any("WATCH" in line for line in cluster.heard)), number)
        assert jobyard(cluster.url, "map", "x", ":::", *"abcd") == code
        pressed.join()
        assert len(cluster.jobs) == 4
        assert not cluster.live
    assert b"cancelling 4 jobs" in jobyard.err


def test_ctrl_c_in_the_middle_of_submitting_cancels_what_was_taken(jobyard: Shell) -> None:
    def pressed_at_the_tenth(job: FakeJob) -> None:
        if job.number == 10:
            interrupted(lambda: None).join()

    with FakeCluster(pressed_at_the_tenth) as cluster:
        assert jobyard(cluster.url, "map", "x", ":::", *map(str, range(5_000))) == 130
        assert 10 <= len(cluster.jobs) < 5_000
        assert not cluster.live


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_full_node_gets_the_rest_as_jobs_end(jobyard: Shell) -> None:
    def end_them() -> None:
        for _ in range(7):
            cluster.until(lambda: bool(cluster.live) and cluster.heard[-1].startswith("WATCH"))
            for job in cluster.live:
                cluster.end(job.ticket, End(0, job.line.encode() + b"\n"))

    with FakeCluster(lambda job: None, full_at=3) as cluster:
        ending = threading.Thread(target=end_them)
        ending.start()
        assert jobyard(cluster.url, "map", "-k", "x", ":::", *map(str, range(20))) == 0
        ending.join()
    assert jobyard.lines == [f"x {number}" for number in range(20)]
    assert jobyard.err.count(b"FULL") == 1


def test_a_node_that_is_full_without_us_is_told_of(jobyard: Shell) -> None:
    with FakeCluster(full_at=0) as cluster:
        assert jobyard(cluster.url, "map", "x", ":::", "a") == 5
    assert jobyard.err.startswith(b"jobyard: FULL: ")


def test_a_connection_that_is_lost_while_submitting_makes_no_job_twice(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(0, b"x\n"), hangs_up_after=700) as cluster:
        assert jobyard(cluster.url, "map", "x", ":::", *map(str, range(2_000))) == 0
        assert len(cluster.jobs) == 2_000
        assert sum(line.startswith("SUBMIT") for line in cluster.heard) >= 2_000
    assert len(jobyard.lines) == 2_000


def test_a_job_that_somebody_made_the_cluster_forget_counts_as_failed(
    jobyard: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_PIECE_S", 0.05)

    def forget() -> None:
        cluster.until(lambda: len(cluster.jobs) == 2)
        with cluster.changed:
            del cluster.jobs["k-2"]
        cluster.end("k-1", End())

    with FakeCluster(lambda job: None) as cluster:
        forgetting = threading.Thread(target=forget)
        forgetting.start()
        assert jobyard(cluster.url, "map", "x", ":::", "a", "b") == 1
        forgetting.join()
    assert b"UNKNOWN_TICKET" in jobyard.err


def test_an_input_that_is_no_text_is_told_of(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"\xff\n")
    assert jobyard(cluster.url, "map", "echo") == 2
    assert b"UTF-8" in jobyard.err
