"""`--check` and `--copy` on real directories: nothing is changed, whatever is found; and a copy is whole."""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from balancer.__main__ import main as balancer
from common.effects import Put, Table
from common.limits import MIB
from common.migrations import FORMAT
from common.model import ticket_of
from common.runtime.store import Store
from node.__main__ import main as node
from tests.golden.make import settle, unpack

GOLDEN = Path(__file__).parents[1] / "golden"
NEWEST = GOLDEN / f"format-{FORMAT}"


@pytest.fixture(autouse=True)
def _quiet_deaths() -> Iterator[None]:
    """What a check dies of in its child is a finding, and no trace of it belongs into the report of the tests."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__)


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    unpack(NEWEST, tmp_path)
    return tmp_path


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def raw(directory: Path) -> lmdb.Environment:
    return lmdb.open(str(directory), max_dbs=30, lib_version=0, lock=False)


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("format-*")), ids=lambda path: path.name)
def test_golden_directories_are_sound_and_stay_as_they_are(
    golden: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unpack(golden, tmp_path)
    for name in ("n1", "n2", "n3", "balancer"):
        before = files(tmp_path / name)
        check = balancer if name == "balancer" else node
        assert check(["--check", str(tmp_path / name)]) == 0
        told = capfd.readouterr().out
        assert told.startswith(f"{tmp_path / name}: {'balancer' if name == 'balancer' else 'node'}, format ")
        assert "\n  jobs" in told
        assert told.endswith("sound: 0 problems, 0 remarks\n")
        assert files(tmp_path / name) == before, "not even a lock file"


def test_a_directory_that_nobody_may_write_to_can_be_checked(yard: Path) -> None:
    (yard / "n1" / "data.mdb").chmod(0o400)
    (yard / "n1").chmod(0o500)
    assert node(["--check", str(yard / "n1")]) == 0


def test_bad_settings_do_not_keep_anybody_from_checking(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_SLOTS", "many")
    assert node(["--check", str(yard / "n1")]) == 0


def test_each_program_checks_its_own_and_names_the_other(yard: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert node(["--check", str(yard / "balancer")]) == 2
    assert f"jobyard-balancer --check {yard / 'balancer'}" in capfd.readouterr().err
    assert balancer(["--check", str(yard / "n1")]) == 2
    assert f"jobyard-node --check {yard / 'n1'}" in capfd.readouterr().err


def test_problems_have_a_line_each_and_the_status_1(yard: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settle(yard)
    with raw(yard / "n1") as env, env.begin(write=True) as transaction:
        jobs = env.open_db(b"jobs", transaction)
        key, stored = next(iter(transaction.cursor(jobs)))
        transaction.put(key, stored[:-1] + b"?", db=jobs)
        bodies = env.open_db(b"bodies", transaction)
        transaction.delete(next(iter(transaction.cursor(bodies)))[0], db=bodies)
    before = files(yard / "n1")
    assert node(["--check", str(yard / "n1")]) == 1
    *_, first, second, verdict = capfd.readouterr().out.splitlines()
    assert first == f"PROBLEM jobs {ticket_of(key)}: does not match its checksum"
    assert second.startswith("PROBLEM jobs aaaaab-")
    assert second.endswith("has no body, and should have one of 4 bytes")
    assert verdict == "NOT SOUND: 2 problems, 0 remarks"
    assert files(yard / "n1") == before, "nothing is set aside by looking"


def test_what_is_no_directory_of_ours_has_the_status_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "random").mkdir()
    (tmp_path / "random" / "data.mdb").write_bytes(os.urandom(8192))
    (tmp_path / "theirs").mkdir()
    with lmdb.open(str(tmp_path / "theirs"), lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"theirs", b"value")
    for name, told in (("nowhere", "no data.mdb"), ("random", "cannot be opened"), ("theirs", "not of Jobyard")):
        assert node(["--check", str(tmp_path / name)]) == 2
        assert told in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random", "theirs"]


def test_a_newer_format_cannot_be_judged(yard: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with raw(yard / "n1") as env, env.begin(write=True) as transaction:
        transaction.put(b"format", b"%d" % (FORMAT + 1))
    assert node(["--check", str(yard / "n1")]) == 2
    assert "newer version" in capfd.readouterr().err


def test_a_file_that_was_cut_off_is_not_sound(yard: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = yard / "n1" / "data.mdb"
    os.truncate(data, data.stat().st_size - 8192)
    assert node(["--check", str(yard / "n1")]) == 1
    assert "8192 bytes too short" in capfd.readouterr().out


def test_whoever_is_killed_by_what_he_reads_says_that_it_is_damaged(
    yard: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB maps the file and trusts its pages; here the file becomes shorter behind the back of the reader."""
    cut_off = lambda *_: os.truncate(yard / "n1" / "data.mdb", 8192)  # noqa: E731
    monkeypatch.setattr("common.runtime.tables._refuse_what_was_cut_off", cut_off)
    assert node(["--check", str(yard / "n1")]) == 1
    assert "ended with SIGBUS: its pages are damaged. NOT SOUND" in capfd.readouterr().out


def test_random_damage_in_any_page_never_passes_unnoticed_or_ends_the_check(yard: Path, tmp_path: Path) -> None:
    """Every page that holds records, overwritten in turn: never a traceback, and seldom sound (a page may be free)."""
    original = (yard / "n1" / "data.mdb").read_bytes()
    sound = 0
    pages = range(2, len(original) // 4096)
    for page in pages:
        damaged = bytearray(original)
        for offset in range(page * 4096 + 32, (page + 1) * 4096):
            damaged[offset] ^= 0x5A
        (yard / "n1" / "data.mdb").write_bytes(damaged)
        status = node(["--check", str(yard / "n1")])
        assert status in (0, 1, 2)
        sound += status == 0
    assert len(pages) > 8
    assert sound == 0


# --- while it is in use ------------------------------------------------------------------------------------------


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Path, Store]]:
    """A store that a thread writes to: job and body always together, in place of older ones."""
    directory = tmp_path / "busy"
    store = Store(directory, 256 * MIB)
    store.commit([Put(Table.META, b"prefix", b"aaaaab")])
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.001):
            number += 1
            mark = b"%08d" % number * 100
            store.commit([Put(Table.OUTPUTS, b"%d" % slot, mark) for slot in range(20)])

    writer = threading.Thread(target=write)
    writer.start()
    yield directory, store
    stop.set()
    writer.join()
    store.close()


def test_a_copy_of_a_directory_in_use_is_of_one_moment(busy: tuple[Path, Store], tmp_path: Path) -> None:
    directory, _ = busy
    for attempt in range(3):
        target = tmp_path / f"copy-{attempt}"
        pid = os.fork()  # as another program would; an environment must not be opened twice in one process
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", COPY.format(str(directory), str(target))])
        assert os.waitpid(pid, 0)[1] == 0
        with lmdb.open(str(target), max_dbs=30, lib_version=0) as env, env.begin() as transaction:
            outputs = env.open_db(b"outputs", transaction, create=False)
            marks = {stored[4:] for _, stored in transaction.cursor(outputs)}
        assert len(marks) <= 1, "half of a commit"


COPY = "from node.__main__ import main; import sys; sys.exit(main(['--copy', {0!r}, {1!r}]))"
