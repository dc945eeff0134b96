"""Opening what an older version wrote: brought up to date in one transaction, or not at all."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
import structlog.testing

from common.effects import Put, Table
from common.limits import MIB
from common.migrations import FORMAT, MIGRATIONS, Migration, Transaction, migrate
from common.runtime import tables as tables_module
from common.runtime.owning import StoreError
from common.runtime.store import Store

ROOT = Path(__file__).parents[2]
NODE = {b"id": b"ab" * 16, b"prefix": b"abcdef"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def written(directory: Path, found: int, meta: dict[bytes, bytes]) -> None:
    """Makes a directory of an older format."""
    store = Store(directory, 64 * MIB)
    store.commit([Put(Table.META, key, value) for key, value in meta.items()])
    store.close()
    with lmdb.open(str(directory), max_dbs=30, lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"format", b"%d" % found)
        transaction.delete(b"journal")  # older ones know of none


def contents(directory: Path) -> dict[bytes, dict[bytes, bytes]]:
    """Everything that is in a directory, as it is stored."""
    found = {}
    with lmdb.open(str(directory), max_dbs=30, lib_version=0) as env:
        with env.begin() as transaction:
            named = dict(transaction.cursor())
        for name in named:
            if name not in (b"format", b"file", b"journal"):
                with env.begin(db=env.open_db(name)) as transaction:
                    found[name] = dict(transaction.cursor())
    return found | {b"": {name: value for name, value in named.items() if name not in found}}


def opened(directory: Path) -> Store:
    return Store(directory, 64 * MIB)


def test_a_node_of_format_1_may_have_sent_every_ticket_that_it_issued(directory: Path) -> None:
    written(directory, 1, NODE | {b"last_number": b"17"})
    store = opened(directory)
    assert store.get(Table.META, b"sent_number") == b"17"
    assert store.get(Table.META, b"last_number") == b"17"
    store.close()


def test_a_node_that_issued_nothing_has_sent_nothing(directory: Path) -> None:
    written(directory, 1, NODE)
    store = opened(directory)
    assert store.get(Table.META, b"sent_number") == b"0"
    store.close()


def test_a_balancer_issues_no_tickets_and_has_sent_none(directory: Path) -> None:
    written(directory, 1, {b"id": b"cd" * 16, b"last_end": b"5"})
    store = opened(directory)
    assert store.get(Table.META, b"sent_number") is None
    assert store.get(Table.META, b"last_end") == b"5"
    store.close()


def test_a_migration_happens_once_and_is_logged(directory: Path) -> None:
    written(directory, 1, NODE | {b"last_number": b"17"})
    with structlog.testing.capture_logs() as logged:
        opened(directory).close()
        store = opened(directory)
        store.commit([Put(Table.META, b"last_number", b"18")])
        store.close()
        store = opened(directory)
        assert store.get(Table.META, b"sent_number") == b"17"
        store.close()
    assert logged == [
        {"event": "store.migrated", "log_level": "info", "directory": str(directory), "found": 1, "format": FORMAT}
    ]


def test_a_new_directory_needs_no_migration(directory: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        opened(directory).close()
    assert not logged
    assert contents(directory)[b""] == {
        b"format": b"%d" % FORMAT,
        b"file": b"%d" % (directory / "data.mdb").stat().st_ino,
        b"journal": b"",
    }


def test_all_that_an_older_directory_needs_is_done_in_order() -> None:
    done: list[int] = []

    def noting(number: int) -> Migration:
        return lambda transaction: done.append(number)

    chain = [noting(number) for number in (1, 2, 3, 4)]
    assert migrate(Records({}), 2, chain) == 5
    assert done == [2, 3, 4]
    assert migrate(Records({}), 5, chain) == 5
    assert done == [2, 3, 4]
    assert len(MIGRATIONS) == FORMAT - 1


def test_a_migration_that_fails_leaves_everything_as_it_was(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(directory, 1, NODE | {b"last_number": b"17"})
    before = contents(directory)

    def fails(transaction: Transaction) -> None:
        transaction.put("a new table", b"key", b"value")
        transaction.delete("meta", b"id")
        raise StoreError("there is a case that nobody thought of")

    add(fails, monkeypatch)
    with pytest.raises(StoreError, match="nobody thought of"):
        opened(directory)
    assert contents(directory) == before
    monkeypatch.undo()
    store = opened(directory)
    assert store.get(Table.META, b"sent_number") == b"17", "it can be opened afterwards, by a better version"
    store.close()


def test_killed_in_the_middle_of_a_migration_nothing_has_changed(directory: Path) -> None:
    written(directory, 1, NODE | {b"last_number": b"17"})
    before = contents(directory)
    program = f"""
import os, signal
from common import migrations
from pathlib import Path
from common.runtime import store, tables
def killed(transaction):
    for number in range(10_000):  # more than stays in memory
        transaction.put("jobs", b"%06d" % number, b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
chain = [*migrations.MIGRATIONS, killed]
tables.migrate = lambda transaction, found: migrations.migrate(transaction, found, chain)
store.Store(Path({str(directory)!r}), 1 << 26)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert contents(directory) == before
    store = opened(directory)
    assert store.get(Table.META, b"sent_number") == b"17"
    assert store.get(Table.JOBS, b"000000") is None
    store.close()


def test_a_migration_can_go_through_a_table_and_change_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(directory, 1, NODE)
    keys = [b"%05d" % number for number in range(3000)]
    store = opened(directory)
    store.commit([Put(Table.JOBS, key, key) for key in keys])
    store.close()
    seen = []

    def thins_out(transaction: Transaction) -> None:
        for key, value in transaction.scan("jobs"):
            assert value == key == transaction.get("jobs", key)
            seen.append(key)
            transaction.delete("jobs", key)
            if int(key) % 3 == 0:
                transaction.put("jobs", key, value * 10)

    monkeypatch.setattr(tables_module, "FORMAT", FORMAT + 1)
    add(thins_out, monkeypatch)
    store = opened(directory)
    assert seen == keys
    assert store.scan(Table.JOBS, limit=9999) == [(key, key * 10) for key in keys[::3]]
    store.close()


def test_an_environment_of_somebody_else_is_refused_untouched(directory: Path) -> None:
    directory.mkdir()
    with lmdb.open(str(directory), lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"theirs", b"value")
    before = (directory / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="not of Jobyard"):
        opened(directory)
    assert (directory / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"two", b"0", b"-1", b"\xff"])
def test_a_format_that_is_no_number_is_refused(directory: Path, text: bytes) -> None:
    written(directory, 1, NODE)
    with lmdb.open(str(directory), max_dbs=30, lib_version=0) as env, env.begin(write=True) as transaction:
        transaction.put(b"format", text)
    with pytest.raises(StoreError, match="not of Jobyard"):
        opened(directory)


def add(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more migration than there are."""
    chain = (*MIGRATIONS, migration)
    monkeypatch.setattr(tables_module, "migrate", lambda transaction, found: migrate(transaction, found, chain))


class Records:
    """A transaction over a dictionary."""

    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self.tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.tables.get(table, {}).get(key)

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        yield from sorted(self.tables.get(table, {}).items())

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.tables.setdefault(table, {})[key] = value

    def delete(self, table: str, key: bytes) -> None:
        self.tables.get(table, {}).pop(key, None)
