"""The store on a real LMDB: what is committed is there, what is damaged is set aside, who may open it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from common.effects import Delete, Put, Table
from common.limits import MIB
from common.migrations import FORMAT
from common.runtime import journal, pages
from common.runtime import tables as tables_module
from common.runtime.owning import InUse, StoreError
from common.runtime.room import NoRoom
from common.runtime.store import Store, open_store


@pytest.fixture(params=["journal", "tables"], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where small commits go: everything holds either way."""
    if request.param == "tables":
        monkeypatch.setattr(journal, "COMMIT_WRITES_MAX", 0)
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(directory: Path, **more: object) -> Store:
    return Store(directory, 64 * MIB, **more)  # type: ignore[arg-type]


def put(number: int, table: Table = Table.JOBS) -> Put:
    return Put(table, b"key-%03d" % number, b"value %d" % number)


def damage(directory: Path, table: Table, key: bytes) -> None:
    with lmdb.open(str(directory), max_dbs=20, lib_version=0, map_size=64 * MIB) as env:
        db = env.open_db(table.encode())
        with env.begin(write=True, db=db) as transaction:
            stored = bytearray(transaction.get(key))
            stored[-1] ^= 0x40
            transaction.put(key, bytes(stored))


def test_what_was_committed_is_there_after_opening_again(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(1), put(2), Put(Table.LIVE, b"empty", b"")])
    store.commit([Delete(Table.JOBS, b"key-001"), Delete(Table.JOBS, b"never there")])
    store.close()
    store = opened(directory)
    assert store.get(Table.JOBS, b"key-001") is None
    assert store.get(Table.JOBS, b"key-002") == b"value 2"
    assert store.get(Table.LIVE, b"empty") == b""
    assert store.get(Table.BODIES, b"key-002") is None, "tables are apart"
    store.close()


def test_of_several_writes_to_a_key_the_last_counts_and_what_is_not_there_can_be_deleted(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(2), put(1), Delete(Table.JOBS, b"key-002"), Delete(Table.LIVE, b"key-003"), put(3)])
    store.commit([Delete(Table.JOBS, b"key-003"), Put(Table.JOBS, b"key-003", b"again")])
    found = store.scan(Table.JOBS, limit=9)
    assert found == [(b"key-001", b"value 1"), (b"key-003", b"again")]
    store.close()


def test_records_are_counted_without_being_read(directory: Path) -> None:
    store = opened(directory)
    assert store.count(Table.JOBS) == 0
    store.commit([put(number) for number in range(5)] + [put(7, Table.LIVE)])
    store.commit([Delete(Table.JOBS, b"key-003")])
    assert (store.count(Table.JOBS), store.count(Table.LIVE), store.count(Table.BODIES)) == (4, 1, 0)
    store.close()


def test_a_scan_goes_both_ways_from_anywhere_and_keeps_to_its_prefix(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(number) for number in range(10)] + [Put(Table.JOBS, b"other", b"x")])
    keys = lambda **options: [key for key, _ in store.scan(Table.JOBS, **options)]  # noqa: E731
    assert keys(limit=2) == [b"key-000", b"key-001"]
    assert keys(limit=2, after=b"key-003") == [b"key-004", b"key-005"]
    assert keys(limit=2, after=b"key-0035") == [b"key-004", b"key-005"]
    assert keys(limit=99, prefix=b"key-")[-1] == b"key-009"
    assert keys(limit=99, prefix=b"key-", after=b"key-008") == [b"key-009"]
    assert keys(limit=99, prefix=b"nothing") == []
    assert keys(limit=2, backwards=True) == [b"other", b"key-009"]
    assert keys(limit=2, backwards=True, after=b"key-001") == [b"key-000"]
    assert keys(limit=2, backwards=True, after=b"zzz") == [b"other", b"key-009"]
    assert keys(limit=9, backwards=True, after=b"key-000") == []
    assert store.scan(Table.BODIES, limit=5) == []
    store.close()


def test_a_second_process_is_refused_and_the_first_is_unharmed(directory: Path) -> None:
    store = opened(directory)
    with pytest.raises(InUse, match="another process is using"):
        opened(directory)
    program = (
        f"from common.runtime.store import Store; from pathlib import Path; Store(Path({str(directory)!r}), 1 << 26)"
    )
    root = Path(__file__).parents[2]
    second = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "another process is using" in second.stderr
    store.commit([put(1)])
    store.close()
    opened(directory).close()


def test_of_a_shared_volume_each_takes_a_subdirectory_of_its_own(directory: Path) -> None:
    quiet = lambda table, key: None  # noqa: E731
    first, second = (open_store(directory / "*", 64 * MIB, quiet) for _ in range(2))
    assert (first.directory, second.directory) == (directory / "1", directory / "2")
    first.close()
    third = open_store(directory / "*", 64 * MIB, quiet)
    assert third.directory == directory / "1"
    second.close()
    third.close()


def test_the_directory_is_for_its_owner_alone(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    opened(directory).close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in directory.iterdir())


def test_a_flipped_bit_is_noticed_set_aside_and_told_of(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(1), put(2)])
    store.close()
    damage(directory, Table.JOBS, b"key-001")
    told: list[tuple[str, bytes]] = []
    store = opened(directory, quarantined=lambda table, key: told.append((table, key)))
    assert store.get(Table.JOBS, b"key-001") is None
    assert store.scan(Table.JOBS, limit=9) == [(b"key-002", b"value 2")]
    assert told == [(Table.JOBS, b"key-001")], "told once"
    store.commit([put(3)])
    store.close()
    with lmdb.open(str(directory), max_dbs=20, lib_version=0, map_size=64 * MIB) as env:
        with env.begin(db=env.open_db(b"quarantine")) as transaction:
            assert [key for key, _ in transaction.cursor()] == [b"jobs/key-001"], "never deleted"
        with env.begin(db=env.open_db(b"jobs")) as transaction:
            assert transaction.get(b"key-001") is None


def test_damaged_records_make_no_scan_shorter(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(number) for number in range(6)])
    store.close()
    for key in (b"key-000", b"key-001", b"key-003"):
        damage(directory, Table.JOBS, key)
    store = opened(directory)
    assert [key for key, _ in store.scan(Table.JOBS, limit=2)] == [b"key-002", b"key-004"], "whoever pages goes on"
    assert [key for key, _ in store.scan(Table.JOBS, limit=1, after=b"key-002")] == [b"key-004"]
    store.close()


def rewrite(directory: Path, old: bytes, new: bytes) -> None:
    data = (directory / "data.mdb").read_bytes()
    assert old in data
    (directory / "data.mdb").write_bytes(data.replace(old, new))


def test_a_key_that_has_rotted_out_of_its_order_is_noticed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(directory)
    store.commit([put(number) for number in range(6)])
    store.close()
    rewrite(directory, b"key-003", b"kex-003")
    with pytest.raises(StoreError, match="jobs is out of order"):
        opened(directory)
    monkeypatch.setattr(pages, "COUNTED_PAGES_MAX", 0)  # a table too large to be looked at as a whole
    store = opened(directory)
    for backwards in (False, True):
        with pytest.raises(StoreError, match="jobs is out of order at 6b65"):
            store.scan(Table.JOBS, limit=9, backwards=backwards)
    store.close()


def test_a_table_whose_name_has_rotted_is_not_made_again_empty(directory: Path) -> None:
    opened(directory).close()
    rewrite(directory, b"live", b"lave")
    with pytest.raises(StoreError, match=r"\[b'live'\] are missing, and nobody knows \[b'lave'\]"):
        opened(directory)


def test_records_that_are_hidden_by_the_head_of_their_page_are_missed(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(number) for number in range(6)])
    store.close()
    data = bytearray((directory / "data.mdb").read_bytes())
    for page in {at // 4096 * 4096 for at in range(len(data)) if data.startswith(b"key-005", at)}:
        data[page + 12] -= 2  # the end of its list of records: the last is gone
    (directory / "data.mdb").write_bytes(data)
    with pytest.raises(StoreError, match="jobs should have 6 entries, and 5 are found"):
        opened(directory)


def test_a_record_that_is_alone_on_a_page_whose_head_says_that_it_is_empty_is_missed(directory: Path) -> None:
    """Whoever goes from record to record meets it; whoever looks it up does not."""
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"key-%03d" % number, bytes(1500)) for number in range(6)])
    store.commit([Delete(Table.JOBS, b"key-%03d" % number) for number in (1, 3, 5)])
    store.close()
    data = bytearray((directory / "data.mdb").read_bytes())
    alone = [
        page
        for page in range(0, len(data), 4096)
        if data[page + 10 : page + 14] == b"\x02\x00\x12\x00" and b"key-002" in data[page : page + 4096]
    ]
    assert alone, "leaves with one record"
    for page in alone:
        data[page + 12] = 16
    (directory / "data.mdb").write_bytes(data)
    with pytest.raises(StoreError, match="jobs has a record that is met and cannot be looked up"):
        opened(directory)


def test_a_store_that_would_fall_back_behind_its_last_commit_is_refused(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(1)])
    store.close()
    data = bytearray((directory / "data.mdb").read_bytes())
    numbers = {at: int.from_bytes(data[at : at + 8], "little") for at in (144, 4096 + 144)}
    newest = max(numbers, key=lambda at: numbers[at])
    data[newest : newest + 8] = (numbers[newest] & ~0xFF).to_bytes(8, "little")
    (directory / "data.mdb").write_bytes(data)
    with pytest.raises(StoreError, match="its last two transactions have the numbers"):
        opened(directory)


def test_a_record_in_anothers_place_is_noticed(directory: Path) -> None:
    store = opened(directory)
    store.commit([put(1), put(2)])
    store.close()
    with lmdb.open(str(directory), max_dbs=20, lib_version=0, map_size=64 * MIB) as env:
        jobs = env.open_db(b"jobs")
        with env.begin(write=True, db=jobs) as transaction:
            transaction.put(b"key-001", transaction.get(b"key-002"))
    store = opened(directory)
    assert store.get(Table.JOBS, b"key-001") is None
    store.close()


def test_a_newer_format_is_refused_untouched(directory: Path) -> None:
    opened(directory).close()
    with lmdb.open(str(directory), max_dbs=20, lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"format", b"%d" % (FORMAT + 1))
    before = (directory / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="newer version"):
        opened(directory)
    assert (directory / "data.mdb").read_bytes() == before


def test_a_directory_that_cannot_be_used_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        opened(tmp_path / "file" / "data")


def test_a_file_that_is_no_store_is_told_of(directory: Path) -> None:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="cannot be opened"):
        opened(directory)


def test_what_is_left_of_a_store_that_was_not_made_to_its_end_is_made_anew(directory: Path) -> None:
    directory.mkdir()
    (directory / "data.mdb.new").write_bytes(os.urandom(8192))
    store = opened(directory)
    store.commit([put(1)])
    store.close()
    assert not (directory / "data.mdb.new").exists()
    store = opened(directory)
    assert store.get(Table.JOBS, b"key-001") == b"value 1"
    store.close()


def test_room_counts_what_is_in_use_and_not_what_was_freed(directory: Path) -> None:
    store = opened(directory)
    empty = store.room().used_bytes
    store.commit([Put(Table.OUTPUTS, b"%d" % number, b"x" * MIB) for number in range(10)])
    assert store.room().used_bytes - empty >= 10 * MIB
    store.commit([Delete(Table.OUTPUTS, b"%d" % number) for number in range(10)])
    assert store.room().used_bytes - empty < MIB
    assert store.room().max_bytes == 64 * MIB
    store.close()


def test_a_store_that_holds_what_it_may_still_takes_what_has_to_be_kept(directory: Path) -> None:
    store = Store(directory, 2 * MIB)
    store.commit([put(1), Put(Table.OUTPUTS, b"large", b"x" * 4 * MIB)])
    assert store.room().fraction > 2
    store.commit([put(2), Delete(Table.OUTPUTS, b"large")])
    assert store.get(Table.JOBS, b"key-002") == b"value 2"
    assert store.room().fraction < 0.2
    store.close()


def test_the_end_of_the_map_is_no_full_disk_and_leaves_what_was_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_module, "_HEADROOM_BYTES", 0)
    store = Store(directory, 2 * MIB)
    store.commit([put(1)])
    with pytest.raises(lmdb.MapFullError):
        store.commit([Put(Table.OUTPUTS, b"large", b"x" * 4 * MIB)])
    assert store.get(Table.JOBS, b"key-001") == b"value 1"
    store.commit([put(2)])
    assert store.get(Table.JOBS, b"key-002") == b"value 2"
    store.close()


def test_a_full_disk_is_told_apart_from_other_failures(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(directory)
    real = os.statvfs(directory)

    def fail(*_: object, **__: object) -> None:
        raise lmdb.Error("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(store.tables, "_env", _Failing(store.tables._env, fail))
    large = Put(Table.OUTPUTS, b"large", b"x" * MIB)
    with pytest.raises(lmdb.Error) as unknown:
        store.commit([large])
    assert not isinstance(unknown.value, NoRoom)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 0, *real[5:])))
    with pytest.raises(NoRoom):
        store.commit([large])


class _Failing:
    """An environment whose write transactions fail when they begin."""

    def __init__(self, env: object, fail: object) -> None:
        self._env = env
        self._fail = fail

    def begin(self, write: bool = False, **more: object) -> object:
        return self._fail() if write else self._env.begin(**more)  # type: ignore[operator, attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._env, name)


def test_one_that_was_killed_while_it_read_keeps_no_page_from_being_used_again(tmp_path: Path) -> None:
    """Somebody else has the directory open all the time, or the table of readers would be made anew."""
    Store(tmp_path, 1 << 30).close()
    opened_by = "import lmdb, os, sys; env = lmdb.open(sys.argv[1], lib_version=0, max_dbs=64, max_readers=16);"
    with subprocess.Popen(
        [sys.executable, "-c", f"{opened_by} print(flush=True); input()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        killed = f"{opened_by} reading = env.begin(); os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
        store = Store(tmp_path, 1 << 30)
        try:
            assert store.tables._env.reader_check() == 0, "there is none left to be found"
        finally:
            store.close()
            other.communicate(b"\n")
