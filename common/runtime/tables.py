"""The tables of one data directory in LMDB. The only file that imports lmdb.

What is relied on, and why each rule is here:
- Every durability default stays on; a commit returns after its data and its meta page are synced.
- `lib_version=0` pins the engine's file format: two are linked into the package, and files of the newer cannot go back.
- One process owns a directory, by an flock taken before the environment is opened (`common/runtime/store.py`): LMDB
  itself would let two in.
- A whole write transaction runs in one call in one thread. (One that is begun in a thread and committed in another
  blocks every later writer for ever.) Reads share one transaction, which ends before the next commit begins.
- LMDB has no checksums: each record carries a CRC over table, key and value. One that does not match is moved to
  the quarantine table, never deleted, and reported. Damage to LMDB's own pages is looked for at the start (pages.py).
- A directory says its format. A newer one is refused untouched, and so is an environment that is not ours; an older one
  is brought up to date in one transaction (`common/migrations.py`). A directory that was copied is noticed, too, and
  goes on apart from its original (`common/copies.py`).
- What an earlier opening has left in the journal (`common/runtime/journal.py`) is taken over before anything else.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb
import structlog

from common.copies import Unidentified, go_on_apart, numbers_are_damaged
from common.effects import Table
from common.limits import GIB
from common.migrations import FORMAT, migrate
from common.runtime.journal import JOURNAL_BYTES, NO_MARK, Late, Mark, contents, following, sync_names
from common.runtime.owning import Damaged, StoreError, share
from common.runtime.pages import damage_to_pages
from common.runtime.room import NoRoom, Room, Spare, disk_is_full
from common.runtime.stored import (
    COPY_KEY,
    FILE_KEY,
    FORMAT_KEY,
    MARK_KEY,
    QUARANTINE,
    Everything,
    Snapshot,
    aside,
    checksum,
    sound,
)

_FILE: Final = "data.mdb"
_FIRST_FORMAT_WITH_MARK: Final = 3
_TABLES_MAX: Final = 64  # also those of versions that we do not know
_MAP_BYTES_MAX: Final = 16 * 1024 * GIB  # of a reader, who does not know how much its writer may use
_NAMES: Final = frozenset({QUARANTINE, *(table.encode() for table in Table)})
# Beyond what the store may hold: it costs nothing until it is used, and what comes in although no job is taken any more
# (outcomes, what is told of ends) must not meet an end that a restart would meet again.
_HEADROOM_BYTES: Final = 16 * GIB
_JOURNAL_ROOM_BYTES: Final = GIB  # more than a whole journal takes in a copy; what is not used costs nothing


class Tables:
    """An open environment, of a directory that is ours. `get` and `scan` from the driver's thread, `commit` from one
    worker thread at a time."""

    def __init__(self, directory: Path, max_bytes: int, quarantined: Callable[[str, bytes], None]) -> None:
        """Raises StoreError. `quarantined` is told of each record that was set aside."""
        self._directory = directory
        self._quarantined = quarantined
        self._max_bytes = max_bytes
        self._damaged: dict[tuple[Table, bytes], bytes] = {}
        self._env: Any = None
        self._reading: Any = None
        self._spare = Spare(directory / _FILE)
        try:
            self._env = _open(directory, max_bytes + _HEADROOM_BYTES)
            self._page_bytes = int(self._env.stat()["psize"])
            self._env.reader_check()  # whoever was killed while reading would keep pages from being used again
            found = self._known_format()  # before anything is made in it
            self._check_pages()
            self._bring_up_to_date(found)
            self._dbs = {table: self._env.open_db(table.encode()) for table in Table}
            self._quarantine = self._env.open_db(QUARANTINE)
            self._keep_spare()
        except lmdb.Error as error:
            self.close()
            full = disk_is_full(directory)  # what the journal has must have room
            advice = "its disk is full, make room and start again" if full else "see docs/operating.md, 'restore'"
            raise StoreError(f"{directory} cannot be opened: {error}; {advice}") from error
        except BaseException:
            self.close()
            raise

    def _known_format(self) -> int | None:
        with self._env.begin() as transaction:
            return _format(self._directory, transaction)

    def _bring_up_to_date(self, found: int | None) -> None:
        file = b"%d" % (self._directory / _FILE).stat().st_ino
        apart = None
        with self._env.begin(write=True) as transaction:
            if found is not None:
                tables = Everything(self._env, transaction)
                self._take_over_journal(transaction, tables)
                migrate(tables, found)
                apart = self._why_apart(transaction, tables, file)
                if apart is not None and not go_on_apart(tables):
                    apart = None
            for key, value in ((FORMAT_KEY, b"%d" % FORMAT), (FILE_KEY, file), (MARK_KEY, NO_MARK)):
                if transaction.get(key) != value:
                    transaction.put(key, value)
            transaction.delete(COPY_KEY)
        log, where = structlog.get_logger(), str(self._directory)
        if found is not None and found != FORMAT:
            log.info("store.migrated", directory=where, found=found, format=FORMAT)
        if apart is not None:
            log.warning("store.goes_on_apart", directory=where, reason=apart)

    def _take_over_journal(self, transaction: Any, tables: Everything) -> None:
        """What an opening that did not close has left there."""
        try:
            tables.write(_late(self._directory, transaction, contents(self._directory)))
        except Damaged as error:
            raise self._torn(str(error)) from error

    def _why_apart(self, transaction: Any, tables: Everything, file: bytes) -> str | None:
        try:
            if numbers_are_damaged(tables):
                return "a number that must never go back was damaged"
        except Unidentified as error:
            raise StoreError(
                f"{self._directory}: the record {error} is damaged, so nobody can say whose directory it is; "
                "keep it aside and start with an empty one, see docs/operating.md, 'restore'"
            ) from error
        if transaction.get(COPY_KEY) is not None:
            return "it is a copy"
        known = transaction.get(FILE_KEY)
        return None if known in (None, file) else "its file is not the one that was written last: it was copied"

    def _check_pages(self) -> None:
        if damage := _pages_damaged(self._env):
            raise self._torn(damage)

    def _torn(self, what: str) -> StoreError:
        damage = "the disk has damaged more than single records; see docs/operating.md, 'restore'"
        return StoreError(f"{self._directory}: {what}: {damage}")

    def close(self) -> None:
        if self._env is not None:
            self._end_view()
            self._env.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def count(self, table: Table) -> int:
        return int(self._view().stat(self._dbs[table])["entries"])

    def get(self, table: Table, key: bytes) -> bytes | None:
        stored = self._view().get(key, db=self._dbs[table])
        return None if stored is None else self._checked(table, key, stored)

    def size_bytes(self, table: Table, key: bytes) -> int:
        """Of the record as it is stored; 0 where there is none."""
        return len(self._view().get(key, db=self._dbs[table]) or b"")

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._view().cursor(self._dbs[table]) as cursor:
            here = _before(cursor, after) if backwards else _after(cursor, max(after, prefix), after)
            last = after
            records = cursor.iterprev() if backwards else cursor.iternext()  # from where it stands
            for key, stored in records if here else ():
                if len(found) == limit:
                    break
                if last and (key >= last if backwards else key <= last):
                    raise self._torn(f"{table} is out of order at {key.hex()}")
                if prefix and not key.startswith(prefix):
                    break
                value = self._checked(table, key, stored)
                if value is not None:
                    found.append((key, value))
                last = key
        return found

    def _view(self) -> Any:
        """A read transaction for many steps: to begin one takes longer than to read a record. It ends with the next
        commit, and so keeps no page from being used again."""
        if self._reading is None:
            self._reading = self._env.begin()
        return self._reading

    def _end_view(self) -> None:
        if self._reading is not None:
            self._reading.abort()
            self._reading = None

    @property
    def has_damaged(self) -> bool:
        """Whether there are records that the next commit sets aside."""
        return bool(self._damaged)

    def _checked(self, table: Table, key: bytes, stored: bytes) -> bytes | None:
        value = sound(table, key, stored)
        if value is None and (table, key) not in self._damaged:
            self._damaged[table, key] = stored
            self._quarantined(table, key)
        return value

    # --- writing -------------------------------------------------------------------------------------------------

    def commit(self, tables: Mapping[Table, Mapping[bytes, bytes | None]], mark: bytes) -> None:
        """These writes by table and key, None for what goes, durably; and how much of the journal is here then. NoRoom
        where the disk is full, otherwise whatever LMDB said, after which nothing can be relied on and the program must
        end."""
        damaged, self._damaged = self._damaged, {}
        self._end_view()
        try:
            with self._env.begin(write=True) as transaction:
                for (table, key), stored in damaged.items():
                    transaction.put(aside(table, key), stored, db=self._quarantine)
                    transaction.delete(key, db=self._dbs[table])
                for table, written in tables.items():
                    self._write(transaction, table, written)
                transaction.put(MARK_KEY, mark)
        except lmdb.Error as error:
            self._damaged = damaged | self._damaged
            if not isinstance(error, lmdb.MapFullError) and disk_is_full(self._directory):
                raise NoRoom(f"the disk of {self._directory} is full: {error}") from error
            raise
        self._keep_spare()

    def _write(self, transaction: Any, table: Table, written: Mapping[bytes, bytes | None]) -> None:
        """In the order of the keys and with one cursor, which mostly stands beside the next: it halves the price."""
        with transaction.cursor(self._dbs[table]) as cursor:
            for key in sorted(written):
                value = written[key]
                if value is not None:
                    cursor.put(key, checksum(table, key, value) + value)
                elif cursor.set_key(key):
                    cursor.delete()

    def _keep_spare(self) -> None:
        self._spare.keep((int(self._env.info()["last_pgno"]) + 1) * self._page_bytes)

    def room(self) -> Room:
        """Pages in use by the tables, not counting those that are free to be used again."""
        with self._env.begin() as transaction:
            stats = [transaction.stat(db) for db in (*self._dbs.values(), self._quarantine)]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return Room(pages * stats[0]["psize"], self._max_bytes, disk_is_full(self._directory))


# --- looking without touching ------------------------------------------------------------------------------------


@contextmanager
def snapshot_of(directory: Path) -> Iterator[Snapshot]:
    """The directory at this moment, whether it is in use or not. Raises StoreError where there is nothing that can be
    read. Writes nothing, not even a lock file."""
    lock_fd, in_use = share(directory)
    env: Any = None
    try:
        found_in_journal = contents(directory)  # before LMDB is looked at: nothing is left out between them
        env = lmdb.open(
            str(directory), readonly=True, create=False, lock=in_use, max_dbs=_TABLES_MAX, lib_version=0,
            map_size=_MAP_BYTES_MAX,
        )  # fmt: skip
        _refuse_what_was_cut_off(directory, env)
        with env.begin() as transaction:
            if (found := _format(directory, transaction)) is None:
                raise StoreError(f"{directory} holds nothing yet")
            damage = _pages_damaged(env)
            if damage and in_use:
                damage = _pages_damaged(env)  # a commit may have come between
            if damage:
                raise Damaged(f"{directory}: {damage}")
            late = _late(directory, transaction, found_in_journal, env if in_use else None)
            yield Snapshot(env, transaction, late, format=found, in_use=in_use)
    except lmdb.Error as error:
        raise StoreError(f"{directory} cannot be opened: {error}") from error
    finally:
        if env is not None:
            env.close()
        if lock_fd is not None:
            os.close(lock_fd)


def _late(directory: Path, transaction: Any, found_in_journal: bytes | None, live: Any = None) -> Late:
    """What the journal has and this environment has not; `live` is the environment that is written meanwhile, where one
    is. Raises Damaged."""
    mark = transaction.get(MARK_KEY)
    if mark is None and int(transaction.get(FORMAT_KEY)) >= _FIRST_FORMAT_WITH_MARK:
        raise Damaged("the mark of the journal is missing, and nobody knows what of it is to be read")
    if mark in (None, NO_MARK):
        return {}
    if live is not None:
        return _late_meanwhile(directory, mark, found_in_journal, live)
    return following(Mark.unpack(mark), found_in_journal)


def _late_meanwhile(directory: Path, mark: bytes, found_in_journal: bytes | None, live: Any) -> Late:
    """Of a journal that is written while it is read: what is missing in it may only have been written since. Where the
    same is missing at the next look, it is damage; where the journal has begun again, LMDB had all of it."""
    found, missing = found_in_journal, ""
    while True:
        try:
            return following(Mark.unpack(mark), found)
        except Damaged as error:
            if str(error) == missing:
                raise
            missing = str(error)
        with live.begin() as latest:
            if latest.get(MARK_KEY) != mark:
                return following(Mark.unpack(mark), found_in_journal or bytes(JOURNAL_BYTES), in_use=True)
        found = contents(directory)


def _refuse_what_was_cut_off(directory: Path, env: Any) -> None:
    """Reading behind the end of the file would kill the reader."""
    pages = int(env.info()["last_pgno"]) + 1
    missing_bytes = pages * int(env.stat()["psize"]) - (directory / _FILE).stat().st_size
    if missing_bytes > 0:
        raise Damaged(f"{directory / _FILE} is {missing_bytes} bytes too short: it was cut off")


def _pages_damaged(env: Any) -> str | None:
    with env.begin() as transaction:
        others = {FORMAT_KEY, *(key for key in (FILE_KEY, COPY_KEY, MARK_KEY) if transaction.get(key) is not None)}
    return damage_to_pages(env, tables=_NAMES, others=others)


def copy_to(directory: Path, target: Path) -> None:
    """Writes a whole copy of the environment of `directory`, which may be in use, into the new directory `target`,
    with what is in the journal and without its free pages, marked as a copy, and syncs it. Raises StoreError."""
    with snapshot_of(directory) as snapshot:
        found_in_journal = contents(directory)  # before it is copied
        try:
            target.mkdir(mode=0o700)
            snapshot.env.copy(str(target), compact=True)
            size = (target / _FILE).stat().st_size + _JOURNAL_ROOM_BYTES
            with lmdb.open(
                str(target), max_dbs=_TABLES_MAX, lib_version=0, lock=False, mode=0o600, map_size=size
            ) as env:
                with env.begin(write=True) as transaction:
                    live = snapshot.env if snapshot.in_use else None
                    late = _late(directory, transaction, found_in_journal, live)
                    Everything(env, transaction).write(late)
                    transaction.put(MARK_KEY, NO_MARK)
                    transaction.put(COPY_KEY, b"")
                env.sync(True)
            sync_names(target)
        except (OSError, lmdb.Error) as error:
            told = getattr(error, "strerror", None) or error
            raise StoreError(f"{target} cannot be written: {told}") from error


def _format(directory: Path, transaction: Any) -> int | None:
    """The format of an environment, None of an empty one; raises StoreError for what we cannot read."""
    found = transaction.get(FORMAT_KEY)
    if found is None and transaction.stat()["entries"] == 0:
        return None
    if found is None or not found.isdigit() or int(found) < 1:
        raise StoreError(f"{directory} holds an LMDB environment that is not of Jobyard, and was left untouched")
    if int(found) > FORMAT:
        raise StoreError(
            f"{directory} has format {int(found)}, and this version knows up to {FORMAT}: "
            "it was written by a newer version, and was left untouched; start that version"
        )
    return int(found)


def _open(directory: Path, max_bytes: int) -> Any:
    try:
        if not (directory / _FILE).exists():
            _make(directory)
        sync_names(directory)  # whoever made it may have been killed before he came to that
    except OSError as error:
        raise StoreError(f"nothing can be made in {directory}: {error.strerror}") from error
    return lmdb.open(
        str(directory),
        map_size=max_bytes,
        max_dbs=_TABLES_MAX,
        mode=0o600,
        lib_version=0,
        max_readers=16,
    )


def _make(directory: Path) -> None:
    """A new environment, under another name until it is whole on disk: LMDB writes the first pages without a sync, and
    would not open what a power cut leaves of them."""
    unfinished = directory / f"{_FILE}.new"
    unfinished.unlink(missing_ok=True)
    new = lmdb.open(str(unfinished), subdir=False, lock=False, mode=0o600, lib_version=0)
    with new as env, env.begin(write=True) as transaction:
        transaction.put(FORMAT_KEY, b"%d" % FORMAT)
        transaction.put(MARK_KEY, NO_MARK)
    unfinished.rename(directory / _FILE)


def _after(cursor: Any, start: bytes, after: bytes) -> bool:
    """Puts the cursor on the first key after `after`, at or behind `start`."""
    here: bool = cursor.set_range(start) if start else cursor.first()
    return cursor.next() if here and after and cursor.key() == after else here


def _before(cursor: Any, after: bytes) -> bool:
    """Puts the cursor on the last key before `after`; on the last of all when that is empty."""
    if not after or not cursor.set_range(after):
        return bool(cursor.last())
    return bool(cursor.prev())
