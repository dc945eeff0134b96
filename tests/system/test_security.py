"""Attacks on a live cluster from where an attacker may stand: a job, a client with odd names, another user's shell.

What is defended is in SECURITY.md; what it says is not is not tried here.
"""

import os
import pty
import re
import select
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Line, ask, until
from tests.system.conftest import StartCluster
from tests.system.jobyard import Jobyard
from tests.system.programs import children, data_dir

MEMORY: Final = Path("/dev/shm")
pytestmark = pytest.mark.system

KEY: Final = "the-key-of-this-cluster"
TOKEN: Final = "open-sesame-open-sesame"
SECRETS: Final = (KEY.encode(), TOKEN.encode())
PRECIOUS: Final = 0o751
EVIL: Final = "%1B]0;owned%07%0AOK%20forged%E2%80%AE"  # a title, a line of its own, and writing from the right
ACTING: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xe2\x80\xae")
OURS: Final = re.compile(rb"\x1b\[(?:3[1-6]|0)m|\r\x1b\[K|\r\n")  # colours, the bar, and what a terminal makes of LF


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(1, env={"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_CLIENT_TOKEN": TOKEN})


@pytest.fixture
def node(cluster: LocalCluster) -> Iterator[Line]:
    with Line(cluster.address("node1")) as line:
        assert line.ask(f"auth {TOKEN}").ok
        yield line


@pytest.fixture
def jobyard(cluster: LocalCluster, tmp_path: Path) -> Iterator[Jobyard]:
    with Jobyard(cluster, tmp_path) as command:
        command.env["JOBYARD_CLIENT_TOKEN"] = TOKEN
        yield command


# --- a job ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of somebody else's, as far as the cleaning is concerned."""
    (tmp_path / "precious" / "deep").mkdir(parents=True)
    (tmp_path / "precious").chmod(PRECIOUS)
    for path in ("file", "deep/file"):
        (tmp_path / "precious" / path).write_text("mine")
    return tmp_path / "precious"


def untouched(precious: Path) -> bool:
    return all((precious / path).read_text() == "mine" for path in ("file", "deep/file")) and (
        stat.S_IMODE(precious.stat().st_mode) == PRECIOUS
    )


@pytest.mark.parametrize(
    "attack",
    [
        'd="$PWD"; cd ..; rmdir "$d"; ln -s {precious} "$d"',
        "ln -s {precious} inside; ln -s {precious}/file plain; mkdir -p a/b; ln -s {precious} a/b/c",
        'd="$PWD"; cd ..; mv "$d" {precious}/moved; ln -s {precious} "$d"',
        'd="$PWD"; cd ..; rmdir "$d"; mkfifo "$d"',
        'd="$PWD"; cd ..; rmdir "$d"; : > "$d"',
        "mkdir -p locked/in; : > locked/in/f; chmod 0 locked/in locked .",
        "ln -s {precious} ../.aside/999999; ln -s {precious} ../forged.1",
        "rm -rf ../.aside",
    ],
    ids=["itself a link", "links inside", "moved away", "a pipe", "a file", "locked", "beside it", "no aside"],
)
def test_what_a_job_makes_of_its_directory_leads_the_cleaning_nowhere(
    cluster: LocalCluster, node: Line, precious: Path, attack: str
) -> None:
    done = node.ask(f"run sh {attack.format(precious=precious)}")
    assert done.field("state") == "succeeded", done
    assert node.ask("run sh echo well; pwd").body.startswith(b"well\n"), "and the next job runs"
    assert untouched(precious)
    log = cluster.log_path("node1").read_text()
    assert "Traceback" not in log


def test_a_tree_deeper_than_a_stack_is_removed() -> None:
    """In memory, where there is such a file system: each of its thousands of renames would wait for a journal that
    others are syncing."""
    script = b"import os\nfor _ in range(1500):\n  os.mkdir('d'); os.chdir('d')"
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name,
        LocalCluster(1, Path(name) / "cluster") as cluster,
        Line(cluster.address("node1")) as line,
    ):
        assert line.ask(f"run bytes={len(script)} exec python3 -", script).field("state") == "succeeded"
        aside = data_dir(cluster, "node1") / "scratch" / ".aside"
        try:
            until("it is gone", lambda: _is_bare(aside), within_s=60)
        except AssertionError:
            subprocess.run(["rm", "-rf", aside.parent], check=False)  # Python itself cannot remove such a tree
            raise


def _is_bare(aside: Path) -> bool:
    """Whether nothing there holds anything, and nothing has moved while we looked."""
    before = os.listdir(aside)
    return not _trees(aside) and os.listdir(aside) == before


def _trees(aside: Path) -> list[Path]:
    """The directories that still hold something."""
    try:
        return [*aside.parent.glob("*-*/*"), *aside.glob("*/*")]
    except FileNotFoundError:
        return [aside]  # something was just removed


def test_names_that_a_job_gives_its_files_begin_no_line_in_the_log(cluster: LocalCluster, node: Line) -> None:
    assert node.ask(r"run sh mkdir a; : > a/$(printf '\033]0;x\007'); chmod 500 a").field("state") == "succeeded"
    log = cluster.log_path("node1").read_bytes()
    assert not ACTING.search(log.replace(b"\n", b""))


# --- secrets -------------------------------------------------------------------------------------------------------


def test_no_secret_is_on_a_command_line_nor_in_the_environment_of_what_a_node_starts(
    cluster: LocalCluster, node: Line
) -> None:
    programs = {cluster.pid("node1"), cluster.pid("balancer")}
    spawners = children(cluster.pid("node1"))
    assert spawners
    told = node.ask(
        "run sh cat /proc/self/environ /proc/self/cmdline; env; cat /proc/$PPID/environ /proc/$PPID/cmdline"
    )
    seen = told.body + b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in programs | spawners)
    seen += b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in spawners)
    assert not any(secret in seen for secret in SECRETS)


def test_no_secret_is_in_a_log_whatever_is_tried_with_it(cluster: LocalCluster) -> None:
    for typed in (f"auth {TOKEN}x", f"auth {TOKEN} {TOKEN}", f"submit key={TOKEN} sh true", f"{TOKEN}"):
        ask(cluster.address("node1"), typed)
    with Line(cluster.address("node1")) as line:
        line.ask(f"auth {TOKEN}")
        for typed in (f"status {TOKEN}", f"submit name={KEY} sh {KEY}", f"auth {TOKEN}", f"{KEY}"):
            line.ask(typed)
    for name in ("node1", "balancer"):
        log = cluster.log_path(name).read_bytes()
        assert not any(secret in log for secret in SECRETS)


def test_what_is_on_disk_is_for_its_owner_alone(cluster: LocalCluster, node: Line) -> None:
    node.ask("run bytes=6 exec cat", b"secret")
    for name in ("node1", "balancer"):
        directory = data_dir(cluster, name)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in (directory / name for name in ("data.mdb", "journal", "lock.mdb", "owner.lock")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert not any(stat.S_ISSOCK(path.lstat().st_mode) for path in directory.glob("*")), "nothing else listens"


# --- names that act on a terminal ----------------------------------------------------------------------------------


@pytest.fixture
def evil(node: Line) -> str:
    """A failed job with a name, a group, a directory and a variable that would own a terminal."""
    ticket = node.ask(f"submit name={EVIL} group={EVIL} key={EVIL} env.A={EVIL} sh printf fine; exit 3").ticket
    assert node.ask(f"wait {ticket}").field("state") == "failed"
    return ticket


def test_no_reply_has_a_line_that_the_node_did_not_write(cluster: LocalCluster, node: Line, evil: str) -> None:
    refused = node.ask(f"submit dir=/{EVIL} sh true").ticket
    node.ask(f"wait {refused}")
    replies = [
        node.ask(request)
        for request in (
            f"status {evil}", f"result {evil}", f"explain {evil}", f"list group={EVIL}", f"logs {evil}", "events",
            "nodes", "stats", f"status {EVIL}", f"{EVIL}", f"cancel group={EVIL}", f"result {refused}",
            f"submit key={EVIL} sh another", "status \x1b[2J", "\x1b[2J", "submit \x1b=1 sh x", "list state=\x9b2J",
        )
    ]  # fmt: skip
    for reply in replies:
        assert not ACTING.search(reply.line.encode() + reply.body), reply
        assert b"\nOK forged" not in reply.body
    assert not ACTING.search(cluster.log_path("node1").read_bytes().replace(b"\n", b""))
    assert not ACTING.search(cluster.log_path("balancer").read_bytes().replace(b"\n", b""))


def test_the_command_prints_nothing_of_others_that_acts_on_a_terminal(jobyard: Jobyard, evil: str) -> None:
    group = "\x1b]0;owned\x07\nOK forged\u202e"
    for words in (
        ["list"], ["status", evil], ["explain", evil], ["nodes"], ["stats"],
        ["events"], ["result", evil], ["logs", evil], ["wait", evil], ["list", "--json"], ["status", "--json", evil],
        ["list", "--group", group], ["retry", evil], ["wait", evil], ["forget", "--group", group], ["status", evil],
    ):  # fmt: skip
        printed = at_a_terminal(jobyard, *words)
        assert printed, words
        assert not ACTING.search(OURS.sub(b"", printed)), (words, printed)
        assert b"\nOK forged" not in printed.replace(b"\r", b""), words


def at_a_terminal(jobyard: Jobyard, *words: str) -> bytes:
    """What somebody sees who runs the command."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        jobyard.command(*words), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=jobyard.directory,
        env=jobyard.env | {"TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    try:
        while select.select([ours], [], [], 30)[0] and (data := os.read(ours, 65536)):
            printed += data
    except OSError:
        pass  # the end of a terminal
    finally:
        os.close(ours)
        process.wait(10)
    return printed
