"""The store: what a program keeps in its data directory.

A commit returns when it is durable. A small one goes to the journal, which is one wait for the disk, and lies over the
tables in memory until LMDB gets it, together with many others, in a transaction that is two. Whoever closes a store
leaves everything in LMDB; whoever is killed leaves the journal, which the next opening takes over.

One process owns a directory, by an flock that goes with the process.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import starmap
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from common.effects import Table, Write, Writes
from common.limits import KIB
from common.memory import Memory
from common.runtime.journal import NO_MARK, Journal
from common.runtime.owning import InUse, StoreError, own
from common.runtime.room import NoRoom, Room
from common.runtime.tables import Tables

SUBDIRECTORIES_MAX: Final = 1000
FREED_BYTES_MAX: Final = 64 * KIB  # of records that are gone, and still in the tables: so much fuller it may seem

Written: TypeAlias = Mapping[Table, Mapping[bytes, bytes | None]]


class Store:
    """An open data directory. `get` and `scan` from the driver's thread, `commit` from one worker thread at a time."""

    def __init__(
        self, directory: Path, max_bytes: int, quarantined: Callable[[str, bytes], None] = lambda table, key: None
    ) -> None:
        """Takes the directory (made where missing, mode 0700) or raises StoreError. `quarantined` is told of each
        record that was set aside."""
        self.directory = directory
        self._failed = False
        with ExitStack() as taken:
            taken.callback(os.close, own(directory))
            self.tables = Tables(directory, max_bytes, quarantined)
            taken.callback(self.tables.close)
            self._journal = self._begin_journal(taken)
            self._late = Memory(self.tables)  # over them, what is in the journal alone
            self._freed_bytes = 0
            self._taken = taken.pop_all()

    def _begin_journal(self, taken: ExitStack) -> Journal | None:
        """From now on the tables may lack what is in it. Where there is no room for one, there is none."""
        try:
            journal = Journal(self.directory)
            taken.callback(journal.close)
            self.tables.commit({}, journal.mark.pack())
        except StoreError as error:
            structlog.get_logger().warning("store.no_journal", directory=str(self.directory), reason=str(error))
            return None
        return journal

    def close(self) -> None:
        """Everything is in the tables then, unless they have failed or have no room: the journal keeps it."""
        with self._taken:
            if self._journal is not None and not self._failed:
                with suppress(NoRoom):
                    self.tables.commit(self._late.written, NO_MARK)

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._late.get(table, key)

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._late.scan(table, prefix=prefix, after=after, limit=limit, backwards=backwards)

    def count(self, table: Table) -> int:
        late = self._late.written.get(table, {})
        more = sum((value is not None) - (self.tables.get(table, key) is not None) for key, value in late.items())
        return self.tables.count(table) + more

    def room(self) -> Room:
        return self.tables.room()

    def commit(self, writes: Sequence[Write]) -> None:
        """All of it, durably, or an exception: NoRoom where the disk is full, otherwise whatever LMDB or the kernel
        said, after which nothing can be relied on and the program must end."""
        taken = writes if isinstance(writes, Writes) else Writes.of(writes)
        try:
            if self._journal is None or self.tables.has_damaged or not self._journal.append(taken):
                self._commit_to_tables(taken)
                return
            self._freed_bytes += sum(starmap(self._gone_bytes, taken.tables.items()))
            self._late.add(taken)
            if self._freed_bytes > FREED_BYTES_MAX:
                with suppress(NoRoom):  # the commit is durable; the next one tries again
                    self._commit_to_tables(Writes({}))
        except NoRoom:
            raise
        except BaseException:
            self._failed = True
            raise

    def _gone_bytes(self, table: Table, written: Mapping[bytes, bytes | None]) -> int:
        """Of records that go, and were not late themselves."""
        late = self._late.written.get(table, {})
        gone = (key for key, value in written.items() if value is None and key not in late)
        return sum(self.tables.size_bytes(table, key) for key in gone)

    def _commit_to_tables(self, writes: Writes) -> None:
        """With everything that is late, which is late no more."""
        late, mark = self._late.written, self._journal.mark.pack() if self._journal is not None else NO_MARK
        self.tables.commit(_over(late, writes.tables) if late else writes.tables, mark)
        if self._journal is not None:
            self._journal.restart()
        if late:
            self._late, self._freed_bytes = Memory(self.tables), 0


def _over(earlier: Written, later: Written) -> Written:
    """Both, of one key the later."""
    return {table: {**earlier.get(table, {}), **later.get(table, {})} for table in earlier.keys() | later.keys()}


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
