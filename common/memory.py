"""What a machine remembers beyond its own fields: the committed tables, overlaid with the writes of this step.

A machine writes through its Memory and reads its own writes back at once; the driver takes the writes, commits them,
and says so. Steps follow one another, so the overlay is never older than one step. That keeps history out of the
processes' memory without letting a machine decide from a stale snapshot.

Pure: what is read depends only on what was written. The store that stands behind is a `Reader`.
"""

from bisect import bisect_left, bisect_right, insort
from typing import Protocol

from common.effects import Delete, Put, Table, Write


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
        self._late: dict[tuple[Table, bytes], bytes] = {}  # what may wait for a step that writes
        self._keys: dict[Table, list[bytes]] = {}  # of the overlay, in order, for tables that were scanned in this step
        self._taken = False

    def get(self, table: Table, key: bytes) -> bytes | None:
        written = self._overlay.get(table)
        if written is not None and key in written:
            return written[key]
        if self._late and (table, key) in self._late:
            return self._late[table, key]
        return self._reader.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._write(table, key, value)

    def put_late(self, table: Table, key: bytes, value: bytes) -> None:
        """Like `put`, but in the next step that writes anything else, which may be this one. For what only spares work
        after a restart, and in tables that nobody scans: a crash before then is as if it had come before this step."""
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._late[table, key] = value

    def delete(self, table: Table, key: bytes) -> None:
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._write(table, key, None)

    def _write(self, table: Table, key: bytes, value: bytes | None) -> None:
        written = self._overlay.setdefault(table, {})
        if table in self._keys and key not in written:
            insort(self._keys[table], key)
        written[key] = value

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        written = self._overlay.get(table)
        if not written:
            return self._reader.scan(table, prefix=prefix, after=after, limit=limit, backwards=backwards)
        keys = self._written(table, prefix, after, backwards=backwards)
        stored = self._reader.scan(table, prefix=prefix, after=after, limit=limit + len(keys), backwards=backwards)
        if not keys:
            return stored
        found = dict(stored)
        for key in keys:
            if (value := written[key]) is None:
                found.pop(key, None)
            else:
                found[key] = value
        return sorted(found.items(), reverse=backwards)[:limit]

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

    def take(self) -> list[Write]:
        """The writes of the step, one for each key, its last. They stay readable until `committed`."""
        if self._overlay:
            self._write_what_is_late()
        self._taken = bool(self._overlay)
        return [
            Delete(table, key) if value is None else Put(table, key, value)
            for table, written in self._overlay.items()
            for key, value in written.items()
        ]

    def _write_what_is_late(self) -> None:
        late, self._late = self._late, {}
        for (table, key), value in late.items():
            if key not in self._overlay.get(table, ()):
                self._write(table, key, value)

    def committed(self) -> None:
        """The writes taken are in the store now."""
        self._overlay.clear()
        self._keys.clear()
        self._taken = False
