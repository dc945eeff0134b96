"""The disks: what was written, what of it was synced, and what a crash leaves.

A commit writes, then syncs. A kill keeps what was written, since the kernel has it; a power cut keeps what was synced,
and of a transaction that was not, all or nothing: the page that makes it count goes last. A disk can be slow, full, or
broken at a commit.

`Disk` is the medium and outlives its processes; `Tables` is what one boot of a process sees of it, and is of no effect
when that boot is dead.
"""

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import lmdb
import trio

from common.effects import Delete, Put, Table, Write
from common.runtime.room import NoRoom, Room

ROOM_BYTES: Final = 1 << 30
SLOWER: Final = 400  # times; a commit of 1 ms takes 0.4 s, near what a dying disk does before it is given up
SLOW_S_MAX: Final = 2.0  # so that it is over soon after it is undone


class Disk:
    """The tables of one directory: as they read, and as they would read after a power cut."""

    syncs = True  # a mutant turns it off: what is said to be synced is not

    def __init__(self) -> None:
        self._records: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}
        self._used_bytes = 0
        self.durable: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._unsynced: list[Sequence[Write]] = []
        self._lies: list[list[Write]] = []  # how to undo what was only said to be synced
        self.full = 0  # for how many reasons
        self.slow = 0
        self.fails_in: int | None = None  # commits, until one fails

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._records[table].get(key)

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys, records = self._keys[table], self._records[table]
        if backwards:
            here = bisect_left(keys, after) - 1 if after else len(keys) - 1
            chosen = keys[max(0, here - limit + 1) : here + 1][::-1]
        else:
            here = max(bisect_right(keys, after), bisect_left(keys, prefix)) if after else bisect_left(keys, prefix)
            chosen = keys[here : here + limit]
        found = []
        for key in chosen:
            if prefix and not key.startswith(prefix):
                break
            found.append((key, records[key]))
        return found

    def count(self, table: Table) -> int:
        return len(self._keys[table])

    def room(self) -> Room:
        return Room(self._used_bytes, ROOM_BYTES, self.full > 0)

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write], chance: random.Random) -> None:
        """The first half of a commit. Raises NoRoom, and then nothing is written; or lmdb.Error, and then nobody knows
        whether it is."""
        if self.full:
            raise NoRoom("the disk is full")
        if self._fails():
            if chance.random() < 0.5:
                self._write(writes)
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        self._write(writes)

    def _fails(self) -> bool:
        if self.fails_in is None:
            return False
        self.fails_in -= 1
        if self.fails_in > 0:
            return False
        self.fails_in = None
        return True

    def _write(self, writes: Sequence[Write]) -> None:
        for write in writes:
            self._put(write.table, write.key, None if isinstance(write, Delete) else write.value)
        self._unsynced.append(writes)

    def _put(self, table: Table, key: bytes, value: bytes | None) -> None:
        records = self._records[table]
        old = records.pop(key, None) if value is None else records.get(key)
        if value is not None:
            records[key] = value
            if old is None:
                insort(self._keys[table], key)
        elif old is not None:
            del self._keys[table][bisect_left(self._keys[table], key)]
        self._used_bytes += len(value or b"") - len(old or b"")

    def sync(self) -> list[Sequence[Write]]:
        """The second half: returns the transactions that are durable from now on."""
        synced, self._unsynced = self._unsynced, []
        for writes in synced:
            if not self.syncs:
                self._lies.append([_undo(self.durable, write) for write in writes])
            for write in writes:
                _apply(self.durable, write)
        return synced

    # --- what a crash leaves -------------------------------------------------------------------------------------

    def after_a_kill(self) -> list[Sequence[Write]]:
        """The kernel goes on; returns what is durable by that."""
        return self.sync()

    def after_a_power_cut(self, chance: random.Random) -> list[Sequence[Write]]:
        """Returns what turns out to be durable, though nobody has waited for it."""
        kept, self._unsynced = self._unsynced[: chance.randint(0, len(self._unsynced))], []
        for writes in kept:
            for write in writes:
                _apply(self.durable, write)
        for undo in reversed(self._lies[chance.randint(0, len(self._lies)) :]):
            for write in reversed(undo):
                _apply(self.durable, write)
        self._lies.clear()
        self._records = {table: dict(records) for table, records in self.durable.items()}
        self._keys = {table: sorted(records) for table, records in self.durable.items()}
        self._used_bytes = sum(len(value) for records in self._records.values() for value in records.values())
        return kept


def _apply(tables: dict[Table, dict[bytes, bytes]], write: Write) -> None:
    if isinstance(write, Delete):
        tables[write.table].pop(write.key, None)
    else:
        tables[write.table][write.key] = write.value


def _undo(tables: Mapping[Table, Mapping[bytes, bytes]], write: Write) -> Write:
    value = tables[write.table].get(write.key)
    return Delete(write.table, write.key) if value is None else Put(write.table, write.key, value)


class Process(Protocol):
    """What a disk knows of the boot that uses it."""

    alive: bool

    def reaches(self, what: str) -> bool:
        """Passes a numbered point; true where it is the one at which the process dies, and has."""
        ...

    async def takes(self, seconds: float) -> None:
        """Lets virtual time pass, cancelled by nobody; raises Killed where the process dies meanwhile."""
        ...

    def durable(self, transactions: Sequence[Sequence[Write]]) -> None:
        """Told of what is on the disk for good."""


class Killed(BaseException):
    """Raised in a task of a dead process where it would touch something. Nobody catches it but its process."""


class Tables:
    """One boot's view of its disk: what a program calls its store, with the way to wait for it."""

    def __init__(self, disk: Disk, process: Process, commit_s: tuple[float, float], chance: random.Random) -> None:
        self._disk = disk
        self._process = process
        self._commit_s = commit_s
        self._chance = chance
        self._waited_for = False
        self.get = disk.get
        self.scan = disk.scan
        self.count = disk.count
        self.room = disk.room

    def commit(self, writes: Sequence[Write]) -> None:
        """Within `run_blocking` the first half of a commit; called by itself, as it is before a program is up, the
        whole of it at once."""
        if self._waited_for:
            self._disk.write(writes, self._chance)
            return
        self._reach("before a commit")
        self._disk.write(writes, self._chance)
        self._reach("within a commit")
        self._process.durable(self._disk.sync())
        self._reach("after a commit")

    async def run_blocking(self, call: Callable[[], None]) -> None:
        """As a call in a worker thread that is never abandoned: who is cancelled waits all the same, so what was
        begun is done."""
        await trio.lowlevel.checkpoint_if_cancelled()
        seconds = self._chance.uniform(*self._commit_s)
        if self._disk.slow:
            seconds = max(seconds, min(seconds * SLOWER, SLOW_S_MAX))
        self._reach("before a commit")
        await self._process.takes(seconds / 2)
        self._waited_for = True
        try:
            call()
        finally:
            self._waited_for = False
        self._reach("within a commit")
        await self._process.takes(seconds / 2)
        self._process.durable(self._disk.sync())
        self._reach("after a commit")

    def _reach(self, what: str) -> None:
        if not self._process.alive or self._process.reaches(what):
            raise Killed
