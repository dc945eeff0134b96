"""The journal in front of LMDB: what was appended is there after a kill, in order and whole, or its end is known; and a
store with one is as one without."""

import errno
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import pytest
import structlog.testing

from common.effects import Delete, Put, Table, Write, Writes
from common.limits import KIB, MIB
from common.migrations import FORMAT
from common.runtime import store as store_module
from common.runtime import tables
from common.runtime.journal import (
    COMMIT_BYTES_MAX,
    COMMIT_WRITES_MAX,
    FILE,
    JOURNAL_BYTES,
    Journal,
    Mark,
    contents,
    following,
)
from common.runtime.owning import Damaged, StoreError
from common.runtime.room import NoRoom
from common.runtime.store import Store
from common.runtime.stored import MARK_KEY
from common.runtime.tables import copy_to, snapshot_of

STEP_BYTES = 16


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty one."""
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


def one(number: int, value: bytes = b"value") -> Writes:
    return Writes({Table.JOBS: {b"key-%03d" % number: value}})


def filled(directory: Path, commits: int) -> Journal:
    journal = Journal(directory)
    for number in range(commits):
        assert journal.append(one(number))
    return journal


# --- the file ----------------------------------------------------------------------------------------------------


def test_what_was_appended_follows_the_mark_of_who_has_none_of_it(directory: Path) -> None:
    journal = Journal(directory)
    mark = journal.mark
    assert following(mark, contents(directory)) == {}
    journal.append(Writes({Table.JOBS: {b"a": b"1", b"b": b"2"}, Table.LIVE: {b"c": b""}}))
    journal.append(Writes({Table.JOBS: {b"a": None, b"b": b"3"}}))
    assert following(mark, contents(directory)) == {"jobs": {b"a": None, b"b": b"3"}, "live": {b"c": b""}}
    assert following(journal.mark, contents(directory)) == {}
    journal.close()


def test_it_begins_again_at_its_start_and_what_lies_there_from_before_does_not_count(directory: Path) -> None:
    journal = filled(directory, 20)
    middle = journal.mark
    journal.restart()
    assert following(middle, contents(directory)) == {}
    for number in (100, 101):
        journal.append(one(number, b"later"))
        assert following(middle, contents(directory))["jobs"][b"key-%03d" % number] == b"later"
    assert set(following(middle, contents(directory))["jobs"]) == {b"key-100", b"key-101"}
    journal.close()


def test_it_counts_for_nothing_but_the_opening_that_it_was_written_in(directory: Path) -> None:
    first = filled(directory, 5)
    first.close()
    second = Journal(directory)
    assert second.mark.id != first.mark.id
    assert following(second.mark, contents(directory)) == {}
    second.append(one(7))
    assert set(following(Mark(second.mark.id), contents(directory))["jobs"]) == {b"key-007"}
    second.close()


def test_it_never_grows_and_takes_no_more_than_it_holds(directory: Path) -> None:
    journal = Journal(directory)
    mark, taken = journal.mark, 0
    while journal.append(one(taken, bytes(1000))):
        taken += 1
    assert taken > JOURNAL_BYTES // 1100
    assert (directory / FILE).stat().st_size == JOURNAL_BYTES
    assert len(following(mark, contents(directory))["jobs"]) == taken
    journal.restart()
    assert journal.append(one(0))
    journal.close()


@pytest.mark.parametrize(
    "writes",
    [one(1, bytes(COMMIT_BYTES_MAX)), Writes({Table.JOBS: {b"%d" % n: b"" for n in range(COMMIT_WRITES_MAX + 1)}})],
    ids=["bytes", "writes"],
)
def test_a_large_commit_is_not_for_it(directory: Path, writes: Writes) -> None:
    journal = Journal(directory)
    before = contents(directory)
    assert not journal.append(writes)
    assert contents(directory) == before
    journal.close()


def records(directory: Path, commits: int) -> tuple[Mark, bytes, list[int]]:
    """The file with so many records, a mark before them, and where each begins, and the last ends."""
    journal = Journal(directory)
    mark, places = journal.mark, [0]
    for number in range(commits):
        journal.append(one(number))
        places.append(journal._end)
    journal.close()
    found = contents(directory)
    assert found is not None
    return mark, found, places


def test_a_record_that_was_not_written_to_its_end_is_the_end(directory: Path) -> None:
    mark, found, places = records(directory, 3)
    for written in range(places[2], places[3] - STEP_BYTES, 3):
        torn = found[:written] + bytes(len(found) - written)
        assert set(following(mark, torn)["jobs"]) == {b"key-000", b"key-001"}


def test_no_bit_of_a_record_can_flip_and_nobody_notice(directory: Path) -> None:
    mark, found, places = records(directory, 3)
    content_ends = len(found[: places[2]].rstrip(b"\0"))
    for at in range(places[1], content_ends):
        rotten = bytearray(found)
        rotten[at] ^= 1 << (at % 8)
        with pytest.raises(Damaged, match="commit 2 is damaged, and a later one is there"):
            following(mark, bytes(rotten))
        assert set(following(mark, bytes(rotten), in_use=True)["jobs"]) == {b"key-000"}, "it is written meanwhile"
    for at in range(places[2], len(found.rstrip(b"\0"))):
        rotten = bytearray(found)
        rotten[at] ^= 0x10
        assert set(following(mark, bytes(rotten))["jobs"]) == {b"key-000", b"key-001"}, "as if it had not been written"


def test_a_next_record_that_is_not_at_the_start_is_no_end(directory: Path) -> None:
    """LMDB has one commit, as its mark says, and yet the journal was not begun again."""
    mark, found, _ = records(directory, 2)
    with pytest.raises(Damaged, match="commit 2 is damaged, and a later one is there"):
        following(Mark(mark.id, 1), found)


class Live:
    """An LMDB environment that somebody writes to, of which nothing is read but the mark."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    @contextmanager
    def begin(self) -> Iterator[dict[bytes, bytes]]:
        yield {MARK_KEY: self._mark.pack()}


def test_a_journal_that_begins_again_while_it_is_read_holds_nothing_that_lmdb_had_not(directory: Path) -> None:
    journal = filled(directory, 5)
    before = Mark(journal.mark.id)
    passed = journal.mark
    journal.restart()
    for number in range(3):
        journal.append(one(number, bytes(100)))
    journal.close()
    found = contents(directory)
    assert tables._late_meanwhile(directory, before.pack(), found, Live(passed)) == {}
    with pytest.raises(Damaged, match="commit 1 is damaged"):
        tables._late_meanwhile(directory, before.pack(), found, Live(before))


def test_without_the_file_nobody_knows_what_was_committed_last(directory: Path) -> None:
    assert contents(directory) is None
    with pytest.raises(Damaged, match="the file journal is missing"):
        following(Mark(bytes(8)), None)
    mark, found, places = records(directory, 3)
    for size in (0, places[2], JOURNAL_BYTES - 1):
        with pytest.raises(Damaged, match=r"the file journal is .* bytes too short"):
            following(mark, found[:size])


def test_a_directory_without_a_mark_is_refused_but_not_one_from_before_there_was_any(directory: Path) -> None:
    opened(directory).close()
    for format, refused in ((b"%d" % FORMAT, True), (b"2", False)):
        with lmdb.open(str(directory), max_dbs=30, lib_version=0) as env, env.begin(write=True) as transaction:
            transaction.delete(b"journal")
            transaction.put(b"format", format)
        if refused:
            with pytest.raises(StoreError, match=r"the mark of the journal is missing.*'restore'"):
                opened(directory)
    opened(directory).close()


def test_a_mark_reads_as_it_was_written_and_a_damaged_one_not_at_all() -> None:
    mark = Mark(b"\x01\x02\x03\x04\x05\x06\x07\x08", 1 << 40)
    packed = mark.pack()
    assert Mark.unpack(packed) == mark
    for at in range(len(packed)):
        with pytest.raises(Damaged, match="the mark"):
            Mark.unpack(packed[:at])
        with pytest.raises(Damaged, match="the mark"):
            Mark.unpack(packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :])


@pytest.mark.parametrize("fails", [OSError(errno.EIO, "Input/output error"), 7], ids=["error", "short"])
def test_a_record_that_cannot_be_written_whole_ends_the_program(
    directory: Path, monkeypatch: pytest.MonkeyPatch, fails: OSError | int
) -> None:
    journal = Journal(directory)

    def pwrite(*_: object) -> int:
        if isinstance(fails, OSError):
            raise fails
        return fails

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(StoreError, match="cannot be written"):
        journal.append(one(1))
    journal.close()


@pytest.mark.parametrize("through", [False, True], ids=["nothing of it", "all of it"])
def test_where_not_even_what_is_there_can_be_overwritten_on_a_full_disk_lmdb_gets_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: bool
) -> None:
    pwrite = os.pwrite

    def fail(fd: int, data: bytes, offset: int) -> int:
        if through:
            pwrite(fd, data, offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    store = opened(directory)
    for number, place in enumerate(("first in the journal", "behind others")):
        with monkeypatch.context() as while_full:
            while_full.setattr(os, "pwrite", fail)
            store.commit([Put(Table.JOBS, b"key", b"%d" % number)])
        assert b"key" in in_lmdb(directory, Table.JOBS)
        store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(MIB)), Put(Table.JOBS, b"key", b"later")])
        for late in (None, b"%d one" % number, b"%d two" % number):
            if late is not None:
                store.commit([Put(Table.LIVE, b"late", late)])
            expected = everything(store)
            after_a_kill = opened(killed(store, tmp_path / f"{number} {late!r}"))
            assert everything(after_a_kill) == expected, place
            after_a_kill.close()
    store.close()


# --- a store with one --------------------------------------------------------------------------------------------


def opened(directory: Path) -> Store:
    return Store(directory, 256 * MIB)


def killed(store: Store, as_found: Path) -> Path:
    """What a kill would leave of it."""
    return Path(shutil.copytree(store.directory, as_found))


def everything(store: Store) -> dict[tuple[str, bytes], bytes]:
    return {(table, key): value for table in Table for key, value in store.scan(table, limit=100_000)}


def in_lmdb(directory: Path, table: Table) -> dict[bytes, bytes]:
    """Without the journal; of a store that may be open."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(directory / "data.mdb", name)
        env = lmdb.open(name, max_dbs=30, lib_version=0, lock=False)
        with env, env.begin(db=env.open_db(table.encode(), create=False)) as transaction:
            return dict(transaction.cursor())


def test_small_commits_are_not_in_lmdb_yet_and_closing_puts_them_there(directory: Path) -> None:
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"key", b"value")])
    assert in_lmdb(directory, Table.JOBS) == {}
    store.close()
    assert list(in_lmdb(directory, Table.JOBS)) == [b"key"]
    (directory / FILE).unlink()
    store = opened(directory)
    assert store.get(Table.JOBS, b"key") == b"value", "a store that was closed needs no journal"
    store.close()


@pytest.mark.parametrize("made", ["data.mdb", FILE])
def test_what_was_made_by_one_who_was_killed_at_once_is_there_after_a_power_cut_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """Files have their names for sure once the directory was synced: by whoever made them, or whoever finds them."""
    certain: set[str] = set()
    fsync, rename = os.fsync, Path.rename

    def fsync_or_directory(fd: int) -> None:
        fsync(fd)
        if os.readlink(f"/proc/self/fd/{fd}") == str(directory):
            certain.update(os.listdir(directory))

    def rename_and_be_killed(old: Path, new: Path) -> Path:
        renamed = rename(old, new)
        if new.name == made:
            raise KeyboardInterrupt
        return renamed

    monkeypatch.setattr(os, "fsync", fsync_or_directory)
    with monkeypatch.context() as killed_at_once:
        killed_at_once.setattr(Path, "rename", rename_and_be_killed)
        with pytest.raises(KeyboardInterrupt):
            opened(directory)
    assert made not in certain
    if made != FILE:  # where there is no room for one
        monkeypatch.setattr(Store, "_begin_journal", lambda *_: None)
    store = opened(directory)
    assert made in certain
    store.close()


def test_a_large_commit_takes_the_small_ones_before_it_along(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"early", b"1"), Put(Table.JOBS, b"both", b"1"), Put(Table.JOBS, b"gone", b"1")])
    store.commit(
        [Put(Table.OUTPUTS, b"large", bytes(MIB)), Put(Table.JOBS, b"both", b"2"), Delete(Table.JOBS, b"gone")]
    )
    assert list(in_lmdb(directory, Table.JOBS)) == [b"both", b"early"]
    store.commit([Put(Table.JOBS, b"late", b"3")])
    expected = {b"both": b"2", b"early": b"1", b"late": b"3"}
    assert dict(store.scan(Table.JOBS, limit=9)) == expected
    after_a_kill = opened(killed(store, tmp_path / "killed"))
    assert dict(after_a_kill.scan(Table.JOBS, limit=9)) == expected
    after_a_kill.close()
    store.close()


def test_a_commit_of_nothing_leaves_no_gap_in_front_of_what_follows(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    store.commit([])
    store.commit([Put(Table.OUTPUTS, b"large", bytes(MIB))])
    store.commit([Put(Table.JOBS, b"late", b"value")])
    after_a_kill = opened(killed(store, tmp_path / "killed"))
    assert after_a_kill.get(Table.JOBS, b"late") == b"value"
    after_a_kill.close()
    store.close()


def test_a_directory_that_was_killed_is_not_opened_without_its_journal(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"key", b"value")])
    found = killed(store, tmp_path / "killed")
    store.close()
    (found / FILE).rename(tmp_path / "elsewhere")
    before = (found / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match=r"the file journal is missing, and it held .*'restore'"):
        opened(found)
    assert (found / "data.mdb").read_bytes() == before
    (tmp_path / "elsewhere").rename(found / FILE)
    store = opened(found)
    assert store.get(Table.JOBS, b"key") == b"value"
    store.close()


def test_another_journal_counts_for_nothing(directory: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        store = opened(tmp_path / name)
        store.commit([Put(Table.JOBS, name.encode(), b"value")])
        killed(store, tmp_path / f"{name} killed")
        store.close()
    shutil.copy(tmp_path / "other killed" / FILE, tmp_path / "one killed" / FILE)
    store = opened(tmp_path / "one killed")
    assert store.scan(Table.JOBS, limit=9) == []
    store.close()


def drawn_writes(chance: random.Random) -> list[Write]:
    """Of every size, mostly small, with keys that meet."""
    writes: dict[tuple[Table, bytes], Write] = {}
    for _ in range(chance.choice((1, 1, 3, 10, 600))):
        table, key = chance.choice((Table.JOBS, Table.OUTPUTS, Table.EVENTS)), b"key-%03d" % chance.randrange(200)
        size = chance.choice((0, 10, 100, 100, 5_000))
        gone = chance.random() < 0.3
        writes[table, key] = Delete(table, key) if gone else Put(table, key, chance.randbytes(size))
    return list(writes.values())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_committed_it_reads_like_a_dictionary_also_after_kills(
    directory: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    model: dict[tuple[str, bytes], bytes] = {}
    store, starts = opened(directory), 0
    for _ in range(250):
        writes = drawn_writes(chance)
        store.commit(writes)
        for write in writes:
            if isinstance(write, Put):
                model[write.table, write.key] = write.value
            else:
                model.pop((write.table, write.key), None)
        compare(store, model, chance)
        if chance.random() < 0.05:
            starts += 1
            found = killed(store, tmp_path / f"start {starts}")
            store.close()
            store = opened(found if chance.random() < 0.7 else store.directory)
    assert everything(store) == model
    assert starts > 3
    store.close()


def compare(store: Store, model: dict[tuple[str, bytes], bytes], chance: random.Random) -> None:
    """One table in one way, drawn."""
    table, key, backwards = chance.choice(list(Table)), b"key-%03d" % chance.randrange(200), chance.random() < 0.5
    prefix = chance.choice((b"", b"key-", b"key-1"))
    limit = chance.choice((1, 5, 1000))
    records = sorted((its, value) for (name, its), value in model.items() if name == table and its.startswith(prefix))
    assert store.count(table) == sum(name == table for name, _ in model)
    assert store.get(table, key) == model.get((table, key))
    if backwards:
        expected = [record for record in reversed(records) if record[0] < key]
        expected = expected if not prefix else []  # nobody asks for both
        found = store.scan(table, after=key, limit=limit, backwards=True) if not prefix else []
    else:
        expected = [record for record in records if record[0] > key]
        found = store.scan(table, prefix=prefix, after=key, limit=limit)
    assert found == expected[:limit]


def test_records_that_are_gone_give_their_room_back_soon(directory: Path) -> None:
    store = opened(directory)
    store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(10 * KIB)) for number in range(100)])
    full = store.room().used_bytes
    for number in range(100):
        store.commit([Delete(Table.OUTPUTS, b"%d" % number)])
    assert full - store.room().used_bytes >= 100 * 10 * KIB - store_module.FREED_BYTES_MAX - 20 * KIB
    store.close()


def test_what_is_in_the_journal_is_not_refused_because_the_tables_have_no_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NoRoom("full")

    store = opened(directory)
    store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(50 * KIB)) for number in range(3)])
    full = store.room().used_bytes
    with monkeypatch.context() as while_full:
        while_full.setattr(store.tables, "commit", fail)
        for number in range(3):
            store.commit([Delete(Table.OUTPUTS, b"%d" % number)])
    assert store.room().used_bytes == full
    store.commit([Delete(Table.OUTPUTS, b"3")])
    assert store.room().used_bytes < full - 150 * KIB
    store.close()


def test_where_the_tables_have_no_room_nothing_is_lost_and_small_commits_go_on_while_the_journal_lasts(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(directory)
    full = True
    commit = store.tables.commit

    def commit_if_there_is_room(*arguments: object) -> None:
        if full:
            raise NoRoom("full")
        commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store.tables, "commit", commit_if_there_is_room)
    taken = 0
    with suppress(NoRoom):
        for taken in itertools.count():
            store.commit([Put(Table.JOBS, b"%06d" % taken, bytes(1000))])
    assert taken > 200
    for _ in range(2):
        with pytest.raises(NoRoom):
            store.commit([Put(Table.JOBS, b"%06d" % taken, bytes(1000))])
    assert store.count(Table.JOBS) == taken, "what could not be written is not there"
    after_a_kill = opened(killed(store, tmp_path / "killed"))
    assert after_a_kill.count(Table.JOBS) == taken
    after_a_kill.close()
    full = False
    store.commit([Put(Table.JOBS, b"%06d" % taken, bytes(1000))])
    assert store.count(Table.JOBS) == taken + 1
    store.close()
    assert len(in_lmdb(directory, Table.JOBS)) == taken + 1


def test_one_that_closes_without_room_leaves_the_rest_in_the_journal(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"key", b"value")])

    def fail(*_: object) -> None:
        raise NoRoom("full")

    monkeypatch.setattr(store.tables, "commit", fail)
    store.close()
    assert in_lmdb(directory, Table.JOBS) == {}
    store = opened(directory)
    assert store.get(Table.JOBS, b"key") == b"value"
    store.close()


def test_one_that_has_failed_writes_nothing_more_when_it_is_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"key", b"value")])
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(StoreError, match="cannot be written"):
        store.commit([Put(Table.JOBS, b"other", b"value")])
    monkeypatch.undo()
    store.close()
    assert in_lmdb(directory, Table.JOBS) == {}
    store = opened(directory)
    assert dict(store.scan(Table.JOBS, limit=9)) == {b"key": b"value"}
    store.close()


def test_where_there_is_no_room_for_a_journal_it_goes_on_without(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened(directory).close()
    (directory / FILE).unlink()
    monkeypatch.setattr(os, "write", fail)
    with structlog.testing.capture_logs() as logged:
        store = opened(directory)
    assert [(event["event"], event["log_level"]) for event in logged] == [("store.no_journal", "warning")]
    monkeypatch.undo()
    store.commit([Put(Table.JOBS, b"key", b"value")])
    assert list(in_lmdb(directory, Table.JOBS)) == [b"key"]
    store.close()
    assert not (directory / FILE).exists()
    assert not (directory / f"{FILE}.new").exists()


# --- looking at one that is in use -------------------------------------------------------------------------------


def test_a_check_and_a_copy_have_what_is_in_the_journal(directory: Path, tmp_path: Path) -> None:
    """Of one that was killed; of one that is in use in tests/system/test_copies.py."""
    store = opened(directory)
    store.commit([Put(Table.JOBS, b"%03d" % number, bytes(200)) for number in range(0, 600, 2)])  # for LMDB
    store.commit([Put(Table.JOBS, b"001", b"late"), Put(Table.JOBS, b"002", b"late"), Delete(Table.JOBS, b"004")])
    store.commit([Put(Table.LIVE, b"only late", b"")])
    expected = dict(store.scan(Table.JOBS, limit=999))
    found = killed(store, tmp_path / "killed")
    store.close()
    with snapshot_of(found) as snapshot:
        assert dict(snapshot.scan("jobs")) == expected
        assert list(snapshot.keys("jobs", b"00")) == [b"000", b"001", b"002", b"006", b"008"]
        assert (snapshot.get("jobs", b"001"), snapshot.get("jobs", b"004")) == (b"late", None)
        assert (snapshot.holds("live", b"only late"), snapshot.holds("jobs", b"004")) == (True, False)
        assert snapshot.get("jobs", b"006") == bytes(200)
        assert "journal" not in snapshot.names()
        assert not snapshot.holds("jobs", b"never there")
    copy_to(found, tmp_path / "copy")
    assert not (tmp_path / "copy" / FILE).exists()
    copy = opened(tmp_path / "copy")
    assert dict(copy.scan(Table.JOBS, limit=999)) == expected
    assert copy.get(Table.LIVE, b"only late") == b""
    copy.close()
