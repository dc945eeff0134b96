"""`jobyard mapreduce` against a cluster in miniature that runs each line in a shell of this machine."""

import functools
import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobyard import graphs
from jobyard.cli import reducing, running
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
    own = {name.removeprefix("env."): value for name, value in job.options.items() if name.startswith("env.")}
    env = os.environ | own | ({} if job.index is None else {"JOBYARD_INDEX": str(job.index)})
    line = {"sh": job.line, "sleep": "true"}.get(job.kind) or json.loads(job.line)[2]
    done = subprocess.run(["/bin/sh", "-c", line], input=job.body, env=env, capture_output=True, check=False)
    return End(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(in_a_shell) as cluster:
        yield cluster


def test_the_reduce_reads_what_the_maps_print_in_the_order_of_the_inputs(jobyard: Shell, cluster: FakeCluster) -> None:
    words = ("--map", "echo {}:{.}", "--reduce", "cat -n")
    for inputs in (("a.x", "b c.y"), (":::", "a.x", "b c.y")):
        assert jobyard(cluster.url, "mapreduce", *words, *inputs) == 0
        assert [line.split("\t")[1] for line in jobyard.lines] == ["a.x:a", "b c.y:b c"]
        assert jobyard.err == b""


def test_inputs_are_those_of_map(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("x\ny\n")
    words = ("mapreduce", "--map", "echo", "--reduce", "cat")
    assert jobyard(cluster.url, *words, "::::", str(tmp_path / "list"), ":::", "1", "2") == 0
    assert jobyard.lines == ["x 1", "x 2", "y 1", "y 2"]
    assert jobyard(cluster.url, *words, "-N", "2", "a", "b", "c") == 0
    assert jobyard.lines == ["a b", "c"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"p\0q\nr\0")))
    assert jobyard(cluster.url, *words, "-0") == 0
    assert jobyard.lines == ["p", "q", "r"], "the second has a line end in it"


def test_no_inputs_are_reduced_to_what_the_reduce_makes_of_nothing(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "wc -l", ":::") == 0
    assert jobyard.out.strip() == b"0"


def test_what_comes_through_a_pipe_is_submitted_as_it_comes(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()

    def feed() -> None:
        os.write(write, b"a\nb")
        cluster.until(lambda: len(cluster.jobs) == 1)
        os.write(write, b"\n")
        os.close(write)

    feeding = threading.Thread(target=feed)
    feeding.start()
    with os.fdopen(read) as file:
        monkeypatch.setattr("sys.stdin", file)
        assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "cat") == 0
    feeding.join()
    assert jobyard.lines == ["a", "b"]


def test_each_of_several_reducers_gets_all_and_knows_its_number(jobyard: Shell, cluster: FakeCluster) -> None:
    reduce = "echo {} $JOBYARD_INDEX $(cat)"
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", reduce, "--reducers", "3", "a", "b") == 0
    assert jobyard.lines == ["0 0 a b", "1 1 a b", "2 2 a b"]


def test_more_maps_than_a_job_may_read_are_gathered(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "INPUTS_MAX", 3)
    monkeypatch.setattr(reducing, "in_groups", functools.partial(graphs.in_groups, most=3))
    numbers = [str(number) for number in range(20)]
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "cat", *numbers) == 0
    assert jobyard.lines == numbers
    assert max(len(job.needs) for job in cluster.jobs.values()) == 3


def test_what_the_maps_print_is_not_fetched(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "cat", "a", "b") == 0
    assert [line for line in cluster.heard if line.startswith("RESULT")] == ["RESULT k-3_0"]


def test_json_and_quiet_tell_of_the_reduces(jobyard: Shell, cluster: FakeCluster) -> None:
    words = ("--map", "echo", "--reduce", "cat", "--reducers", "2", "a")
    assert jobyard(cluster.url, "mapreduce", "--json", *words) == 0
    assert [(each["ticket"], each["stdout"]) for each in map(json.loads, jobyard.lines)] == [
        ("k-2_0", "a\n"), ("k-2_1", "a\n")
    ]  # fmt: skip
    assert jobyard(cluster.url, "mapreduce", "-q", *words) == 0
    assert jobyard.lines == ["k-4_0", "k-4_1"]


def test_a_dry_run_prints_the_lines_and_asks_nobody(jobyard: Shell, deaf_url: str) -> None:
    assert jobyard(deaf_url, "mapreduce", "--dry-run", "--map", "wc -w", "--reduce", "cat", "a b", "c") == 0
    assert jobyard.lines == ["wc -w 'a b'", "wc -w c", "cat"]


def test_options_of_jobs_are_those_of_all(jobyard: Shell, cluster: FakeCluster) -> None:
    words = ("--retries", "2", "--timeout", "1m", "--scratch")
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "cat", *words, "a") == 0
    assert {(job.options["retries"], job.options["timeout"]) for job in cluster.jobs.values()} == {("2", "60")}
    assert not any("dir" in job.options for job in cluster.jobs.values())


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_map_that_fails_is_shown_and_ends_the_whole(jobyard: Shell) -> None:
    def runs(job: FakeJob) -> End | None:
        return in_a_shell(job) if "bad" in job.line else None

    with FakeCluster(runs) as cluster:
        assert jobyard(cluster.url, "mapreduce", "--map", "ls /bad/{} #", "--reduce", "cat", "a") == 1
        assert b"/bad/a" in jobyard.err.splitlines()[0]
        assert jobyard.err.splitlines()[1:] == [b"jobyard: k-1 failed: ls /bad/a #"]
        assert jobyard.out == b""
        assert not cluster.live


def test_a_failure_among_many_cancels_those_that_go_on(jobyard: Shell) -> None:
    with FakeCluster(lambda job: End(3) if job.number == 2 else None) as cluster:
        assert jobyard(cluster.url, "mapreduce", "--map", "x", "--reduce", "cat", "a", "b", "c") == 1
        assert not cluster.live
    assert jobyard.err == b"jobyard: k-2 failed: x b\n"


def test_a_reduce_that_fails_is_shown_with_what_it_printed(jobyard: Shell, cluster: FakeCluster) -> None:
    assert jobyard(cluster.url, "mapreduce", "--map", "echo", "--reduce", "cat; echo no >&2; exit 3", "a") == 1
    assert (jobyard.out, jobyard.err) == (b"a\n", b"no\njobyard: k-2_0 failed: cat; echo no >&2; exit 3\n")


def test_where_nobody_failed_the_cluster_is_asked_why(jobyard: Shell) -> None:
    def runs(job: FakeJob) -> End:
        return End(0, b"x")

    with FakeCluster(runs) as cluster:
        cluster._run_array = lambda job: End(  # type: ignore[method-assign]
            state="cancelled", reason="dependency"
        )
        assert jobyard(cluster.url, "mapreduce", "--map", "x", "--reduce", "cat", "a") == 1
    assert jobyard.err == b"jobyard: this is why of k-2\n"


def test_a_full_node_gets_the_rest_as_jobs_end(jobyard: Shell) -> None:
    def end_them() -> None:
        for _ in range(4):
            cluster.until(lambda: bool(cluster.live) and cluster.heard[-1].startswith("WATCH"))
            for job in [job for job in cluster.live if not job.needs]:
                cluster.end(job.ticket, End(0, job.line.encode() + b"\n"))

    def runs(job: FakeJob) -> End | None:
        return in_a_shell(job) if job.needs else None

    with FakeCluster(runs, full_at=3) as cluster:
        ending = threading.Thread(target=end_them)
        ending.start()
        numbers = [str(number) for number in range(10)]
        assert jobyard(cluster.url, "mapreduce", "--map", "x", "--reduce", "cat", *numbers) == 0
        ending.join()
    assert jobyard.lines == [f"x {number}" for number in numbers]
    assert jobyard.err.count(b"FULL") == 1


def test_ctrl_c_cancels_all_of_it(jobyard: Shell) -> None:
    with FakeCluster(lambda job: None) as cluster:
        pressed = interrupted(
            lambda: cluster.until(lambda: any("WATCH" in line for line in cluster.heard)), signal.SIGINT
        )
        assert jobyard(cluster.url, "mapreduce", "--map", "x", "--reduce", "cat", "a", "b") == 130
        pressed.join()
        assert (len(cluster.jobs), cluster.live) == (3, [])
    assert b"cancelling 3 jobs" in jobyard.err


def test_under_a_key_it_is_taken_up_and_nothing_is_submitted_twice(jobyard: Shell, cluster: FakeCluster) -> None:
    words = ("mapreduce", "--key", "k", "--map", "echo", "--reduce", "cat")
    for _ in range(2):
        assert jobyard(cluster.url, *words, "a", "b") == 0
        assert jobyard.lines == ["a", "b"]
    assert len(cluster.jobs) == 3
    assert jobyard(cluster.url, *words, "a", "c") == 5
    assert b"CONFLICT" in jobyard.err
    assert len(cluster.jobs) == 3


def test_what_another_has_begun_is_taken_up_with_a_few_at_once_too(jobyard: Shell, cluster: FakeCluster) -> None:
    """The group tells of all ends at once, also of those that we have not come to."""
    numbers = [str(number) for number in range(9)]
    words = ("mapreduce", "--key", "k", "--map", "echo", "--reduce", "cat")
    assert jobyard(cluster.url, *words, *numbers) == 0
    assert jobyard(cluster.url, *words, "-j", "2", *numbers) == 0
    assert jobyard.lines == numbers
    assert not any(line.startswith("STATUS") for line in cluster.heard), "nobody had to be asked after"


def test_the_bar_knows_how_many_jobs_there_will_be(
    jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "INPUTS_MAX", 4)
    monkeypatch.setattr(reducing, "in_groups", functools.partial(graphs.in_groups, most=4))
    for inputs, total in (("abc", 4), ("abcdef", 10)):
        assert jobyard(cluster.url, "mapreduce", "--progress", "--map", "echo", "--reduce", "cat", *inputs) == 0
        assert f"0/{total}" in jobyard.err.decode()


@pytest.mark.parametrize(
    "words", [("--map", " ", "--reduce", "cat"), ("--map", "cat"), ("--map", "{2}", "--reduce", "cat")]
)
def test_a_command_line_that_cannot_be_meant_is_refused(jobyard: Shell, deaf_url: str, words: tuple[str, ...]) -> None:
    assert jobyard(deaf_url, "mapreduce", *words, "a") == 2
