"""What a boot leaves behind when its spawner could not end it, and who must not be taken for it."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, closing
from pathlib import Path

import msgspec
import pytest

from node.executors import Start
from node.executors import scratch as scratching
from node.executors.leftovers import end_leftovers, lock_path, now_ticks
from node.executors.line import Tally
from node.executors.scratch import ENTRIES_PER_TURN, Scratch
from node.executors.surroundings import MARK, enter_directory, mark_of
from node.executors.wire import Setup, order_frames
from tests.runtime.executing import OWNER, is_alive

pytestmark = pytest.mark.system

Begin = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a process that tells when it is up, and ends it after the test if nobody else did."""
    started: list[subprocess.Popen[bytes]] = []

    def start(line: str, *, mark: str = "", cwd: Path = Path("/")) -> int:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"echo up; {line}"],
            stdout=subprocess.PIPE,
            env={**os.environ, MARK: mark},
            cwd=cwd,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_who_bears_our_mark_is_ended_with_its_whole_session(root: Path, begin: Begin, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    marked = begin(f"set -m; env -i sleep 100 & echo $! > {pids}; wait", mark=mark_of(OWNER, str(root)))
    while not pids.exists() or not pids.read_text():
        pass
    assert end_leftovers(root, OWNER) >= 2
    assert not is_alive(marked)
    assert not is_alive(int(pids.read_text()))


def test_who_works_below_our_scratch_root_is_ended_also_without_a_mark(root: Path, begin: Begin) -> None:
    (root / "k3f7qa-1.1").mkdir()
    pid = begin("sleep 100; true", cwd=root / "k3f7qa-1.1")
    assert end_leftovers(root, OWNER) >= 1
    assert not is_alive(pid)
    assert os.listdir(root) == [".aside"]


def test_processes_of_other_nodes_and_of_people_are_left_alone(root: Path, begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "scratch2").mkdir()
    others = [
        begin("sleep 100; true"),
        begin("sleep 100; true", mark=mark_of("zzzzzz", str(root))),
        begin("sleep 100; true", mark=mark_of(OWNER, str(tmp_path / "elsewhere" / "scratch"))),
        begin("sleep 100; true", mark=mark_of(OWNER, str(root)) + "2"),
        begin("sleep 100; true", cwd=tmp_path / "scratch2"),
        begin("sleep 100; true", cwd=tmp_path),
    ]
    assert end_leftovers(root, OWNER) == 0
    assert all(is_alive(pid) for pid in others)


def test_a_node_that_was_itself_started_by_a_marked_process_ends_neither_itself_nor_its_ancestors(root: Path) -> None:
    program = "import sys; from pathlib import Path; from node.executors.leftovers import end_leftovers as end; "
    program += f"print(end(Path(sys.argv[1]), {OWNER!r}))"
    environment = {**os.environ, MARK: mark_of(OWNER, str(root)), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" "$2"; echo still here', sys.executable, program, root],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    assert done.stdout == b"0\nstill here\n"


def test_a_session_that_is_known_to_be_ours_is_ended_unless_its_number_was_given_to_another(
    root: Path, begin: Begin
) -> None:
    before = now_ticks() - 10
    pid = begin("sleep 100; true")
    assert end_leftovers(root, OWNER, {pid: before}) == 0
    assert is_alive(pid)
    assert end_leftovers(root, OWNER, {pid: now_ticks()}) >= 1
    assert not is_alive(pid)


def test_it_waits_until_an_older_spawner_has_let_go_of_the_lock(root: Path) -> None:
    with open(lock_path(root), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ending = threading.Thread(target=end_leftovers, args=(root, OWNER))
        ending.start()
        ending.join(0.1)
        assert ending.is_alive()
        fcntl.flock(held, fcntl.LOCK_UN)
        ending.join(10)
        assert not ending.is_alive()


def spawner_at(root: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A spawner without a node: its process, and the node's end of its socket."""
    ours, theirs = socket.socketpair()
    tally = Tally.made()
    setup = msgspec.json.encode(Setup(str(root), OWNER, 1 << 20, sys.executable, "")).decode()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "node.executors.spawner", str(theirs.fileno()), str(tally.fd), setup],
            pass_fds=[theirs.fileno(), tally.fd],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    tally.close()
    ours.settimeout(20)
    return process, ours


def test_a_second_spawner_waits_for_the_end_of_the_first(root: Path) -> None:
    first, node_of_first = spawner_at(root)
    with first, closing(node_of_first):
        assert node_of_first.recv(100)
        second, node_of_second = spawner_at(root)
        with second, closing(node_of_second):
            node_of_second.settimeout(0.5)
            with pytest.raises(TimeoutError):
                node_of_second.recv(100)
            node_of_first.close()
            node_of_second.settimeout(20)
            assert node_of_second.recv(100)
            node_of_second.close()
            assert (first.wait(5), second.wait(5)) == (0, 0)


def test_a_spawner_whose_node_reads_nothing_notices_its_end_nevertheless(root: Path) -> None:
    spawner, node = spawner_at(root)
    with spawner, closing(node):
        node.recv(100)
        loud = [Start(f"{OWNER}-{n}", 1, "sh", "head -c 1000000 /dev/zero; echo >> ../../done") for n in range(8)]
        for frame in order_frames([*loud, Start(f"{OWNER}-99", 1, "sh", "echo $$ > ../../pid; sleep 100; true")]):
            node.sendall(frame)
        done, pid = root.parent / "done", root.parent / "pid"
        while not (done.exists() and len(done.read_text()) == 8 and pid.exists() and pid.read_text()):
            pass
        node.close()
        spawner.wait(2)
    assert not is_alive(int(pid.read_text()))


# --- the scratch root --------------------------------------------------------------------------------------------


def test_clearing_removes_any_tree_and_follows_no_link(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    here = root / "k3f7qa-1.1"
    here.mkdir()
    (here / "link").symlink_to(outside)
    (root / "k3f7qa-2.1").symlink_to(outside)
    (root / "file").write_text("")
    for _ in range(1500):  # deeper than any recursion and any path may be
        os.chdir(here)
        os.mkdir("d")
        here = Path("d")
    os.chdir("/")
    end_leftovers(root, OWNER)
    assert os.listdir(root) == [".aside"]
    assert os.listdir(root / ".aside") == []
    assert (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize(
    "removal",
    [
        "rm -r .aside", "rm -r ../scratch", "rm -r .aside; ln -s {outside} .aside", "rm -r .aside; touch .aside",
        "rm -r ../scratch; ln -s {outside} ../scratch", "mv .aside elsewhere", "rm -r ../scratch; touch ../scratch",
        "rm -r 1 2 3", "rm -r *", "rm -r 2; touch 2",
    ],
)  # fmt: skip
def test_a_job_that_removes_what_is_ours_stops_neither_the_next_nor_the_cleaning(
    root: Path, tmp_path: Path, removal: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_text("kept")
    scratch = Scratch(root)
    lent = [scratch.lend() for _ in range(4)]
    for name in lent[:3]:
        scratch.give_back(name, unused=True)
    scratch.sweep()
    subprocess.run(["sh", "-ec", removal.format(outside=outside)], cwd=root, check=True)
    scratch.give_back(lent[3], unused=True)
    for number in range(5):
        start = Start(f"k3f7qa-{number}", 1, "exec", "true")
        with chdir("/"):
            name = enter_directory(start, scratch)
            assert name is not None
            assert (os.getcwd(), os.listdir()) == (scratch.path(name), [])
            Path("left").touch()
        scratch.give_back(name, unused=True)
    scratch.sweep()
    scratch.sweep()
    while scratch.untidy:
        scratch.tidy()
    scratch.close()
    assert scratch.lost == []
    assert {entry.name for entry in root.iterdir()} <= {".aside", "elsewhere"}
    assert [entry.name for entry in outside.iterdir()] == ["1"]


LOCKED = """
import os, sys
from pathlib import Path
from node.executors.scratch import Scratch
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)  # the superuser is let into every directory
root = Path(sys.argv[1])
scratch = Scratch(root)
path = Path(scratch.make("a"))
(path / "in").mkdir(); (path / "in" / "file").touch(); (path / "in" / "deeper").mkdir()
for locked in (path / "in" / "deeper", path / "in", path):
    locked.chmod(0)
scratch.give_back("a", unused=True)
while scratch.untidy:
    scratch.tidy()
print(scratch.lost, list(root.iterdir()), list((root / ".aside").iterdir()))
"""


def test_directories_that_a_job_has_locked_are_removed_by_an_ordinary_user() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        root = Path(directory) / "scratch"
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, root],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=30,
        )
    assert done.stdout.decode().strip() == f"[] [PosixPath('{root}/.aside')] []"


def test_much_that_was_left_is_removed_a_little_at_a_time(root: Path) -> None:
    scratch = Scratch(root)
    with closing(scratch):
        path = Path(scratch.make("a"))
        for number in range(3 * ENTRIES_PER_TURN):
            (path / str(number)).touch()
        scratch.give_back("a", unused=True)
        assert not path.exists()
        turns = 0
        while scratch.untidy:
            scratch.tidy()
            turns += 1
        assert turns in (3, 4)
        assert list((root / ".aside").iterdir()) == []


def test_a_directory_is_lent_again_only_when_nobody_is_left_and_it_is_as_it_was(root: Path) -> None:
    scratch = Scratch(root)
    with closing(scratch):

        def names(*, unused: bool = True, mode: int = 0o700, file: bool = False) -> set[str]:
            first = scratch.lend()
            path = Path(scratch.path(first))
            path.chmod(mode)
            if file:
                (path / "file").touch()
            scratch.give_back(first, unused=unused)
            second = scratch.lend()
            again = Path(scratch.path(second))
            assert (again.stat().st_mode & 0o777, list(again.iterdir())) == (0o700, [])
            return {first, second}

        assert len(names()) == 1
        assert len(names(unused=False)) == 2
        assert len(names(mode=0o500)) == 2
        assert len(names(file=True)) == 2


def test_a_directory_that_was_left_untouched_is_known_by_the_time_of_its_last_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Scratch(root)
    listed: list[str] = []
    look = os.listdir

    def listing(path: str) -> list[str]:
        listed.append(path)
        return look(path)

    def come_back() -> int:
        """How often it was looked into, and it was found empty."""
        listed.clear()
        scratch.give_back(name, unused=True)
        assert scratch.lend() == name
        return len(listed)

    def until_it_shows(change: Callable[[], object]) -> None:
        """File systems have clocks that stand still between two ticks."""
        before = path.stat().st_ctime_ns
        while path.stat().st_ctime_ns == before:
            change()

    with closing(scratch):
        monkeypatch.setattr(os, "listdir", listing)
        name = scratch.lend()
        path = Path(scratch.path(name))
        assert (come_back(), come_back()) == (1, 1), "it has only just been made, and could be changed in the same tick"
        monkeypatch.setattr(scratching, "settling_ns", lambda _: -1)
        assert (come_back(), come_back(), come_back()) == (1, 0, 0)
        until_it_shows(lambda: ((path / "file").touch(), (path / "file").unlink()))
        assert (come_back(), come_back()) == (1, 0)
        until_it_shows((path / "file").touch)
        scratch.give_back(name, unused=True)
        assert scratch.lend() != name


def test_a_change_is_taken_for_settled_soon_only_where_the_clock_of_the_file_system_is_seen_to_be_fine() -> None:
    second_ns = 1_000_000_000
    assert scratching.settling_ns(7 * second_ns) > 2 * second_ns, "FAT's clock moves every two seconds"
    assert scratching.settling_ns(7 * second_ns + 120_000_000) > 2 * second_ns, "one that counts hundredths"
    assert scratching.settling_ns(7 * second_ns + 123_456_789) < second_ns


def test_a_directory_that_nobody_has_needed_for_a_while_is_removed(root: Path) -> None:
    scratch = Scratch(root)
    with closing(scratch):
        lent = [scratch.lend() for _ in range(3)]
        for name in lent:
            scratch.give_back(name, unused=True)
        assert scratch.sweep(), "until now all were needed"
        assert sorted(os.listdir(root)) == [".aside", *lent]
        scratch.give_back(scratch.lend(), unused=True)
        assert scratch.sweep()
        assert sorted(os.listdir(root)) == [".aside", lent[2]]
        assert scratch.sweep() is False
        while scratch.untidy:
            scratch.tidy()
        assert (os.listdir(root), os.listdir(root / ".aside")) == ([".aside"], [])
