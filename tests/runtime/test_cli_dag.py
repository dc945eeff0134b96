"""`jobyard dag` against a cluster in miniature that runs each line in a shell of this machine."""

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from jobyard.cli import graph, running, terminal
from tests.runtime.fake_cluster import End, FakeCluster, FakeJob
from tests.runtime.shell import Shell, interrupted
from tests.runtime.test_cli_mapreduce import in_a_shell

DIAMOND: Final = """
[defaults]
retries = 1

[tasks.join]
sh = "cat; echo $LAST"
input = ["right", "left"]
after = ["first"]
env = { LAST = "end" }

[tasks.first]
sh = "echo 1"

[tasks.left]
sh = "sed s/^/left/"
input = ["first"]

[tasks.right]
sh = "sed s/^/right/"
input = ["first"]
"""


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_GLANCE_S", 0.01)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(in_a_shell) as cluster:
        yield cluster


@pytest.fixture
def diamond(tmp_path: Path) -> str:
    path = tmp_path / "diamond.toml"
    path.write_text(DIAMOND)
    return str(path)


def written(tmp_path: Path, text: str, name: str = "tasks.toml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_tasks_run_after_those_that_they_wait_for_and_read_what_these_print(
    jobyard: Shell, cluster: FakeCluster, diamond: str
) -> None:
    assert jobyard(cluster.url, "dag", diamond) == 0
    assert jobyard.lines == [
        "first  succeeded  k-1", "right  succeeded  k-2", "left  succeeded  k-3", "join  succeeded  k-4"
    ]  # fmt: skip
    assert jobyard.err == b""
    join = cluster.jobs["k-4"]
    assert join.end == End(0, b"right1\nleft1\nend\n")
    assert (join.options["after"], join.options["input"]) == ("k-1", "k-2,k-3")
    assert {job.options["name"] for job in cluster.jobs.values()} == {"first", "left", "right", "join"}
    assert {job.options["retries"] for job in cluster.jobs.values()} == {"1"}


def test_all_is_submitted_before_anything_has_to_end(jobyard: Shell, diamond: str) -> None:
    with FakeCluster(lambda job: None) as cluster:
        pressed = interrupted(lambda: cluster.until(lambda: any("WATCH" in line for line in cluster.heard)))
        assert jobyard(cluster.url, "dag", diamond) == 130
        pressed.join()
        verbs = [line.partition(" ")[0] for line in cluster.heard]
    assert verbs[:5] == ["SUBMIT"] * 4 + ["WATCH"]


def test_what_fails_cancels_those_that_wait_for_it_and_no_others(
    jobyard: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    file = written(
        tmp_path,
        """
        [tasks]
        bad = { sh = "exit 3" }
        next = { sh = "true", after = ["bad"] }
        last = { sh = "true", input = ["next"] }
        other = { sh = "true" }
        """,
    )
    assert jobyard(cluster.url, "dag", file) == 1
    assert sorted(jobyard.lines) == [
        "bad  failed  k-1  exit code 3",
        "last  cancelled  k-4  dependency: next",
        "next  cancelled  k-3  dependency: bad",
        "other  succeeded  k-2",
    ]
    assert jobyard.err == b"jobyard: 1 failed: bad\njobyard: 2 cancelled: next, last\n"


def test_json_and_quiet(jobyard: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    file = written(tmp_path, '{"tasks": {"a": {"sh": "false"}, "b": {"sh": "true", "after": ["a"]}}}', "tasks.json")
    assert jobyard(cluster.url, "dag", "--json", file) == 1
    first, second = map(json.loads, jobyard.lines)
    assert (first["task"], first["ticket"], first["state"], first["exit"]) == ("a", "k-1", "failed", 1)
    assert (second["task"], second["reason"], second["because_of"]) == ("b", "dependency", "a")
    assert jobyard(cluster.url, "dag", "-q", file) == 1
    assert (jobyard.lines, jobyard.err) == (["k-3", "k-4"], b"")


def test_a_dry_run_prints_the_order_and_asks_nobody(jobyard: Shell, deaf_url: str, diamond: str) -> None:
    assert jobyard(deaf_url, "dag", "--dry-run", diamond) == 0
    assert [line.partition(":")[0] for line in jobyard.lines] == ["first", "right", "left", "join"]
    assert jobyard.lines[-1] == "join: sh cat; echo $LAST  after first, right, left"
    assert jobyard(deaf_url, "dag", "--dry-run", "--json", diamond) == 0
    assert json.loads(jobyard.lines[1]) == {
        "task": "right", "command": "sh sed s/^/right/", "after": [], "input": ["first"]
    }  # fmt: skip


def test_under_a_key_the_same_file_submits_nothing_twice(jobyard: Shell, cluster: FakeCluster, diamond: str) -> None:
    for _ in range(2):
        assert jobyard(cluster.url, "dag", "--key", "night", diamond) == 0
        assert len(jobyard.lines) == 4
    assert len(cluster.jobs) == 4
    assert cluster.jobs["k-1"].options["group"] == "dag-night"


def test_under_a_key_another_file_is_a_conflict(
    jobyard: Shell, cluster: FakeCluster, diamond: str, tmp_path: Path
) -> None:
    assert jobyard(cluster.url, "dag", "--key", "night", diamond) == 0
    other = written(tmp_path, DIAMOND.replace("echo 1", "echo 2"))
    assert jobyard(cluster.url, "dag", "--key", "night", other) == 5
    assert b"CONFLICT" in jobyard.err


def test_a_lost_connection_makes_no_task_twice(jobyard: Shell, diamond: str) -> None:
    with FakeCluster(in_a_shell, hangs_up_after=2) as cluster:
        assert jobyard(cluster.url, "dag", diamond) == 0
        assert len(cluster.jobs) == 4


def test_tasks_work_here_or_where_they_say(jobyard: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    file = written(tmp_path, '[tasks]\na = { sh = "true" }\nb = { sh = "true", dir = "/b" }\nc = { sleep = "0" }')
    assert jobyard(cluster.url, "dag", file) == 0
    assert jobyard(cluster.url, "dag", "--scratch", file) == 0
    here = str(Path.cwd())
    assert [job.options.get("dir") for job in cluster.jobs.values()] == [here, "/b", None, None, "/b", None]


def test_standard_input_may_be_the_file(jobyard: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (' {"tasks": {"a": {"sh": "true"}}}', '[tasks.a]\nsh = "true"'):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert jobyard(cluster.url, "dag", "-") == 0
        assert len(jobyard.lines) == 1


WRONG: Final = {
    "circle.toml": (waits := '[tasks]\na = {sh="x", after=["b"]}\nb = {sh="x", after=["a"]}', "a -> b -> a"),
    "twice.toml": ('[tasks.a]\nsh="x"\n[tasks.a]\nsh="y"', "twice.toml"),
    "twice.json": ('{"tasks": {"a": {"sh": "x"}, "a": {"sh": "y"}}}', "'a' is there twice"),
    "broken.json": ('{"tasks": ', "broken.json"),
    "list.json": ("[]", "an object with `tasks`"),
    "long.toml": (f'[tasks.{"a" * 300}]\nsh = "x"', "task 'aaaa"),
    "line.toml": ('[tasks]\na = { exec = "x\\ny" }', "task 'a': a request is one line"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_anybody_is_asked(
    jobyard: Shell, deaf_url: str, tmp_path: Path, name: str
) -> None:
    text, message = WRONG[name]
    assert jobyard(deaf_url, "dag", written(tmp_path, text, name)) == 2
    assert message in jobyard.err.decode()
    assert jobyard.err.count(b"\n") == 1


def test_a_file_that_is_not_there_is_told_of(jobyard: Shell, deaf_url: str, tmp_path: Path) -> None:
    assert jobyard(deaf_url, "dag", str(tmp_path / "none.toml")) == 1
    assert b"none.toml" in jobyard.err


def test_the_bar_says_in_which_states_tasks_are(jobyard: Shell, diamond: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_LOOK_S", 0.0)
    monkeypatch.setattr(terminal, "DRAW_PERIOD_S", 0.0)

    def runs(job: FakeJob) -> End | None:
        return None if job.options["name"] == "left" else in_a_shell(job)

    with FakeCluster(runs) as cluster:
        pressed = interrupted(lambda: cluster.until(lambda: _asked_again(cluster)), signal.SIGINT)
        assert jobyard(cluster.url, "dag", "--progress", diamond) == 130
        pressed.join()
    assert "2/4, 2 running" in jobyard.err.decode()  # this cluster knows no other word for what waits


def _asked_again(cluster: FakeCluster) -> bool:
    """After a look at all."""
    asked = [line.partition(" ")[0] for line in cluster.heard]
    return "LIST" in asked and asked[-1] == "WATCH"
