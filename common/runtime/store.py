"""The store: the tables of one data directory in LMDB. The only file that imports lmdb.

What is relied on, and why each rule is here:
- Every durability default stays on; a commit returns after its data and its meta page are synced.
- `lib_version=0` pins the engine's file format: two are linked into the package, and files of the newer cannot go back.
- One process owns a directory, by an flock taken before the environment is opened: LMDB itself would let two in.
- A whole write transaction runs in one call in one thread. (One that is begun in a thread and committed in another
  blocks every later writer for ever.) Reads are short, and hold no transaction open.
- LMDB has no checksums: each record carries a CRC over table, key and value. One that does not match is moved to
  the quarantine table, never deleted, and reported. Damage to LMDB's own pages is looked for at the start (pages.py).
- A directory says its format; a newer one is refused untouched.
"""

import errno
import fcntl
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import lmdb

from common.effects import Delete, Table, Write
from common.limits import MIB
from common.runtime.pages import damage_to_pages

FORMAT: Final = 1
_FILE: Final = "data.mdb"
_FORMAT_KEY: Final = b"format"
_QUARANTINE: Final = b"quarantine"
_CRC_BYTES: Final = 4
_NAMES: Final = frozenset({_QUARANTINE, *(table.encode() for table in Table)})
SUBDIRECTORIES_MAX: Final = 1000
_DISK_RESERVE_BYTES: Final = 64 * MIB  # of a large disk; of a small one a twentieth
_DISK_RESERVE_FRACTION: Final = 0.05


class StoreError(Exception):
    """The data directory cannot be used; the text says which, why, and what to do."""


class InUse(StoreError):
    """Another process owns the directory."""


class NoRoom(StoreError):
    """The disk is full: nothing of the transaction was written, and it can be tried again."""


@attrs.frozen
class Room:
    """How full the store is."""

    used_bytes: int
    max_bytes: int
    disk_full: bool

    @property
    def fraction(self) -> float:
        return self.used_bytes / self.max_bytes


class Store:
    """An open data directory. `get` and `scan` from the driver's thread, `commit` from one worker thread at a time."""

    def __init__(
        self, directory: Path, max_bytes: int, quarantined: Callable[[str, bytes], None] = lambda table, key: None
    ) -> None:
        """Takes the directory (made where missing, mode 0700) or raises StoreError. `quarantined` is told of each
        record that was set aside."""
        self.directory = directory
        self._quarantined = quarantined
        self._damaged: dict[tuple[Table, bytes], bytes] = {}
        self._lock_fd = _own(directory)
        try:
            self._env = _open(directory, max_bytes)
            self._check_format()  # before anything is made in it
            self._check_pages()
            self._dbs = {table: self._env.open_db(table.encode()) for table in Table}
            self._quarantine = self._env.open_db(_QUARANTINE)
        except lmdb.Error as error:
            os.close(self._lock_fd)
            raise StoreError(f"{directory} cannot be opened: {error}; see docs/operating.md, 'restore'") from error
        except StoreError:
            os.close(self._lock_fd)
            raise

    def _check_format(self) -> None:
        with self._env.begin() as transaction:
            found = transaction.get(_FORMAT_KEY)
        if found is None:
            with self._env.begin(write=True) as transaction:
                transaction.put(_FORMAT_KEY, b"%d" % FORMAT)
        elif int(found) > FORMAT:
            raise StoreError(
                f"{self.directory} has format {int(found)}, and this version knows up to {FORMAT}: "
                "it was written by a newer version, and was left untouched; start that version"
            )

    def _check_pages(self) -> None:
        if damage := damage_to_pages(self._env, tables=_NAMES, others={_FORMAT_KEY}):
            raise self._torn(damage)

    def _torn(self, what: str) -> StoreError:
        return StoreError(
            f"{self.directory}: {what}: the disk has damaged more than single records; see docs/operating.md, 'restore'"
        )

    def close(self) -> None:
        self._env.close()
        os.close(self._lock_fd)

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        with self._env.begin(db=self._dbs[table]) as transaction:
            stored = transaction.get(key)
        return None if stored is None else self._checked(table, key, stored)

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._env.begin(db=self._dbs[table]) as transaction, transaction.cursor() as cursor:
            here = _before(cursor, after) if backwards else _after(cursor, max(after, prefix), after)
            last = after
            while here and len(found) < limit:
                key = cursor.key()
                if last and (key >= last if backwards else key <= last):
                    raise self._torn(f"{table} is out of order at {key.hex()}")
                if prefix and not key.startswith(prefix):
                    break
                value = self._checked(table, key, cursor.value())
                if value is not None:
                    found.append((key, value))
                last = key
                here = cursor.prev() if backwards else cursor.next()
        return found

    def _checked(self, table: Table, key: bytes, stored: bytes) -> bytes | None:
        value = stored[_CRC_BYTES:]
        if stored[:_CRC_BYTES] == _crc(table, key, value):
            return value
        if (table, key) not in self._damaged:
            self._damaged[table, key] = stored
            self._quarantined(table, key)
        return None

    # --- writing -------------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write]) -> None:
        """All of it, durably, or an exception: NoRoom where the disk is full, otherwise whatever LMDB said, after
        which nothing can be relied on and the program must end."""
        damaged, self._damaged = self._damaged, {}
        try:
            with self._env.begin(write=True) as transaction:
                for (table, key), stored in damaged.items():
                    transaction.put(table.encode() + b"/" + key, stored, db=self._quarantine)
                    transaction.delete(key, db=self._dbs[table])
                for write in writes:
                    if isinstance(write, Delete):
                        transaction.delete(write.key, db=self._dbs[write.table])
                    else:
                        stored = _crc(write.table, write.key, write.value) + write.value
                        transaction.put(write.key, stored, db=self._dbs[write.table])
        except lmdb.Error as error:
            self._damaged = damaged | self._damaged
            if not isinstance(error, lmdb.MapFullError) and self.room().disk_full:
                raise NoRoom(f"the disk of {self.directory} is full: {error}") from error
            raise

    def room(self) -> Room:
        """Pages in use by the tables, not counting those that are free to be used again."""
        with self._env.begin() as transaction:
            stats = [transaction.stat(db) for db in (*self._dbs.values(), self._quarantine)]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        disk = os.statvfs(self.directory)
        reserve = min(_DISK_RESERVE_BYTES, int(disk.f_blocks * disk.f_frsize * _DISK_RESERVE_FRACTION))
        free = disk.f_bavail * disk.f_frsize
        return Room(pages * stats[0]["psize"], self._env.info()["map_size"], free < reserve)


def open_store(directory: Path, max_bytes: int, quarantined: Callable[[str, bytes], None]) -> Store:
    """The store of `directory`; of `directory/*`, the first of the subdirectories 1, 2, 3 … that nobody uses, so
    that any number of replicas can share one volume."""
    if directory.name != "*":
        return Store(directory, max_bytes, quarantined)
    for number in range(1, SUBDIRECTORIES_MAX + 1):
        try:
            return Store(directory.parent / str(number), max_bytes, quarantined)
        except InUse:
            continue
    raise StoreError(f"all {SUBDIRECTORIES_MAX} subdirectories of {directory.parent} are in use")


def _crc(table: Table, key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key, zlib.crc32(table.encode()))).to_bytes(_CRC_BYTES, "big")


def _own(directory: Path) -> int:
    """Takes the directory for this process; the lock goes with the process, however it ends."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(0o700)
        fd = os.open(directory / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise StoreError(f"{directory} cannot be locked: {error.strerror}") from error
        raise InUse(
            f"another process is using the data directory {directory}; set JOBYARD_DATA_DIR to another one"
        ) from None
    return fd


def _open(directory: Path, max_bytes: int) -> Any:
    if not (directory / _FILE).exists():
        _make(directory)
    return lmdb.open(
        str(directory),
        map_size=max_bytes,
        max_dbs=len(Table) + 1,
        mode=0o600,
        lib_version=0,
        max_readers=16,
    )


def _make(directory: Path) -> None:
    """A new environment, under another name until it is whole on disk: LMDB writes the first pages without a sync, and
    would not open what a power cut leaves of them."""
    unfinished = directory / f"{_FILE}.new"
    try:
        unfinished.unlink(missing_ok=True)
        new = lmdb.open(str(unfinished), subdir=False, lock=False, mode=0o600, lib_version=0)
        with new as env, env.begin(write=True) as transaction:
            transaction.put(_FORMAT_KEY, b"%d" % FORMAT)
        unfinished.rename(directory / _FILE)
        _sync_names(directory)
    except OSError as error:
        raise StoreError(f"nothing can be made in {directory}: {error.strerror}") from error


def _sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _after(cursor: Any, start: bytes, after: bytes) -> bool:
    """Puts the cursor on the first key after `after`, at or behind `start`."""
    here: bool = cursor.set_range(start) if start else cursor.first()
    return cursor.next() if here and after and cursor.key() == after else here


def _before(cursor: Any, after: bytes) -> bool:
    """Puts the cursor on the last key before `after`; on the last of all when that is empty."""
    if not after or not cursor.set_range(after):
        return bool(cursor.last())
    return bool(cursor.prev())
