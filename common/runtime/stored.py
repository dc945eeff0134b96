"""Records as they are stored, each with its checksum; and all of an environment at once: at one moment, to be read, or
in one transaction, to be changed.

LMDB has no checksums: each record carries a CRC over table, key and value, so one in another's place is noticed too.
Environments and transactions are handed over by `common/runtime/tables.py`, which alone knows lmdb.
"""

import functools
import heapq
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final

from common.runtime.journal import Late
from common.runtime.owning import Damaged

# Of the unnamed database, beside the names of the tables.
FORMAT_KEY: Final = b"format"
FILE_KEY: Final = b"file"  # which file this is; that of a copy is another
COPY_KEY: Final = b"copy"  # made by `--copy`, and not started since
MARK_KEY: Final = b"journal"  # how much of the journal is in here
QUARANTINE: Final = b"quarantine"
_NO_TABLES: Final = (FORMAT_KEY, FILE_KEY, COPY_KEY, MARK_KEY)
_CRC_BYTES: Final = 4


def checksum(table: str, key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key, _of_table(table))).to_bytes(_CRC_BYTES, "big")


@functools.cache
def _of_table(table: str) -> int:
    return zlib.crc32(table.encode())


def sound(table: str, key: bytes, stored: bytes) -> bytes | None:
    """The value of a record that matches its checksum."""
    value = stored[_CRC_BYTES:]
    crc = zlib.crc32(value, zlib.crc32(key, _of_table(table)))
    return value if int.from_bytes(stored[:_CRC_BYTES], "big") == crc and len(stored) >= _CRC_BYTES else None


def aside(table: str, key: bytes) -> bytes:
    """The key under which a record is in quarantine."""
    return table.encode() + b"/" + key


class Everything:
    """A write transaction over all tables, for migrations (`common.migrations.Transaction`). A record that does not
    match its checksum reads as missing, and is set aside before another takes its place."""

    def __init__(self, env: Any, transaction: Any) -> None:
        self._env = env
        self._transaction = transaction

    def get(self, table: str, key: bytes) -> bytes | None:
        stored = self._transaction.get(key, db=self._db(table))
        return None if stored is None else sound(table, key, stored)

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        with self._transaction.cursor(self._db(table)) as cursor:
            here = cursor.first()
            while here:
                key = cursor.key()
                yield key, sound(table, key, cursor.value())
                here = cursor.set_range(key) and (cursor.key() != key or cursor.next())

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._set_aside_if_damaged(table, key)
        self._transaction.put(key, checksum(table, key, value) + value, db=self._db(table))

    def delete(self, table: str, key: bytes) -> None:
        self._set_aside_if_damaged(table, key)
        self._transaction.delete(key, db=self._db(table))

    def write(self, tables: Late) -> None:
        """All of these, where None is a record that goes."""
        for table, written in tables.items():
            for key, value in written.items():
                if value is None:
                    self.delete(table, key)
                else:
                    self.put(table, key, value)

    def _set_aside_if_damaged(self, table: str, key: bytes) -> None:
        stored = self._transaction.get(key, db=self._db(table))
        if stored is not None and sound(table, key, stored) is None:
            self._transaction.put(aside(table, key), stored, db=self._db(QUARANTINE.decode()))

    def _db(self, table: str) -> Any:
        return self._env.open_db(table.encode(), txn=self._transaction)


class Snapshot:
    """A data directory as it was at one moment, to be read only (`common.inspection.Records`): what LMDB has, and over
    it what is in the journal alone (`late`). While it may be in use, pages that are freed are not used again before
    this is closed, so it should not stay open for long."""

    def __init__(self, env: Any, transaction: Any, late: Late, *, format: int, in_use: bool) -> None:
        self.env = env
        self.format = format
        self.in_use = in_use
        self._transaction = transaction
        self._late = late
        self._dbs = {name: env.open_db(name.encode(), transaction, create=False) for name in self.names()}

    def names(self) -> list[str]:
        return [name.decode("utf-8", "replace") for name, _ in self._transaction.cursor() if name not in _NO_TABLES]

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        late = self._late.get(table, {})
        rested = (record for record in self._scan(table) if record[0] not in late)
        ours = sorted((key, value) for key, value in late.items() if value is not None)
        return heapq.merge(rested, ours, key=itemgetter(0))

    def _scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        whole = table == QUARANTINE.decode()  # what is there has the checksum of its former place
        with _reading(table), self._transaction.cursor(self._dbs[table]) as cursor:
            for key, stored in cursor:
                yield key, stored if whole else sound(table, key, stored)

    def keys(self, table: str, prefix: bytes) -> Iterator[bytes]:
        late = self._late.get(table, {})
        rested = (key for key in self._keys(table, prefix) if key not in late)
        ours = sorted(key for key, value in late.items() if value is not None and key.startswith(prefix))
        return heapq.merge(rested, ours)

    def _keys(self, table: str, prefix: bytes) -> Iterator[bytes]:
        with _reading(table), self._transaction.cursor(self._dbs[table]) as cursor:
            here = cursor.set_range(prefix)
            while here and cursor.key().startswith(prefix):
                yield cursor.key()
                here = cursor.next()

    def get(self, table: str, key: bytes) -> bytes | None:
        if key in (late := self._late.get(table, {})):
            return late[key]
        stored = self._stored(table, key)
        return None if stored is None else sound(table, key, stored)

    def holds(self, table: str, key: bytes) -> bool:
        late = self._late.get(table, {})
        there = late[key] if key in late else self._stored(table, key)
        return there is not None or self._stored(QUARANTINE.decode(), aside(table, key)) is not None

    def _stored(self, table: str, key: bytes) -> bytes | None:
        db = self._dbs.get(table)
        with _reading(table):
            found: bytes | None = None if db is None or not key else self._transaction.get(key, db=db)
        return found


@contextmanager
def _reading(table: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error).__module__ == "lmdb":
            raise Damaged(f"the pages of the table {table} cannot be read: {error}") from error
        raise
