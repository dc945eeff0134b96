"""What a machine remembers beyond its own fields: the committed tables, overlaid with the writes that are not.

A machine writes through its Memory and reads its own writes back at once; the driver takes the writes, commits them,
and says so. Writes for which nobody waits a machine may leave untaken, for later steps to add to; it sees them all the
same. That keeps history out of the processes' memory without letting a machine decide from a stale snapshot.

Pure: what is read depends only on what was written. The store that stands behind is a `Reader`.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from typing import Protocol

from common.effects import Table, Writes


class Reader(Protocol):
    """Committed records, by table and key."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """At most `limit` records in key order whose key begins with `prefix` and comes after `after`
        (before it, when `backwards`; an empty `after` starts at the end)."""
        ...

    def count(self, table: Table) -> int:
        """How many records there are, without looking at any."""
        ...


class Memory:
    """Tables as a machine sees them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._overlay: dict[Table, dict[bytes, bytes | None]] = {}
        self._keys: dict[Table, list[bytes]] = {}  # of the overlay, in order, for tables that were scanned in this step
        self._taken = False

    def get(self, table: Table, key: bytes) -> bytes | None:
        written = self._overlay.get(table)
        if written is not None and key in written:
            return written[key]
        return self._reader.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._write(table, key, value)

    def delete(self, table: Table, key: bytes) -> None:
        self._write(table, key, None)

    def _write(self, table: Table, key: bytes, value: bytes | None) -> None:
        assert not self._taken, "a machine wrote while its last step was being committed"
        written = self._overlay.get(table)
        if written is None:
            written = self._overlay[table] = {}
        if self._keys and table in self._keys and key not in written:
            insort(self._keys[table], key)
        written[key] = value

    def writes_to(self, table: Table) -> dict[bytes, bytes | None]:
        """What is written of a table in this step, by key, None for what is deleted: for whoever writes a hundred
        records in a row, to add to at once and not to keep."""
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._keys.pop(table, None)
        written = self._overlay.get(table)
        if written is None:
            written = self._overlay[table] = {}
        return written

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        written = self._overlay.get(table)
        if not written:
            return self._reader.scan(table, prefix=prefix, after=after, limit=limit, backwards=backwards)
        keys = self._written(table, prefix, after, backwards=backwards)
        ours: list[tuple[bytes, bytes]] = []
        gone = 0  # as far as ours reach
        for key in reversed(keys) if backwards else keys:
            if len(ours) == limit:
                break
            if (value := written[key]) is None:
                gone += 1
            else:
                ours.append((key, value))
        stored = self._reader.scan(table, prefix=prefix, after=after, limit=limit + gone, backwards=backwards)
        if not keys:
            return stored
        found = [record for record in stored if record[0] not in written]
        return sorted(found + ours, reverse=backwards)[:limit]

    def count(self, table: Table) -> int:
        """How many records there are; for a machine that has not written yet."""
        assert not self._overlay.get(table), f"{table} is counted while it changes"
        return self._reader.count(table)

    def _written(self, table: Table, prefix: bytes, after: bytes, *, backwards: bool) -> list[bytes]:
        """The keys of this step's writes that a scan has to look at: a step may write a hundred thousand records and
        scan as often, each time a few of them."""
        if table not in self._keys:
            self._keys[table] = sorted(self._overlay[table])
        keys = self._keys[table]
        first = bisect_left(keys, prefix)
        last = bisect_left(keys, True, lo=first, key=lambda key: not key.startswith(prefix))
        if after and backwards:
            last = min(last, bisect_left(keys, after))
        elif after:
            first = max(first, bisect_right(keys, after))
        return keys[first:last]

    def add(self, writes: Writes) -> None:
        """What somebody else has written: a step, whole."""
        for table, written in writes.tables.items():
            if table in self._keys:
                for key, value in written.items():
                    self._write(table, key, value)
            else:
                self._overlay.setdefault(table, {}).update(written)

    @property
    def written(self) -> Mapping[Table, Mapping[bytes, bytes | None]]:
        """What was written since the last time that writes were taken, by table and key, None for what is deleted."""
        return self._overlay

    def take(self) -> Writes:
        """What was written since the last time, one write for each key, its last. Readable until `committed`."""
        self._taken = self.untaken
        return Writes(self._overlay if self._taken else {})

    def committed(self) -> bool:
        """The writes taken are in the store now. False, and nothing changes, where none were taken."""
        if not self._taken:
            return False
        self._overlay = {}  # and not cleared: whoever has the writes keeps them
        self._keys.clear()
        self._taken = False
        return True

    @property
    def untaken(self) -> bool:
        """Whether anything was written since the last time that writes were taken."""
        return any(self._overlay.values())
