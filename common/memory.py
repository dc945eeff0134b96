"""What a machine remembers beyond its own fields: the committed tables, overlaid with the writes of this step.

A machine writes through its Memory and reads its own writes back at once; the driver takes the writes, commits them,
and says so. Steps follow one another, so the overlay is never older than one step. That keeps history out of the
processes' memory without letting a machine decide from a stale snapshot.

Pure: what is read depends only on what was written. The store that stands behind is a `Reader`.
"""

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


class Memory:
    """Tables as a machine sees them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._overlay: dict[Table, dict[bytes, bytes | None]] = {}
        self._taken = False

    def get(self, table: Table, key: bytes) -> bytes | None:
        written = self._overlay.get(table)
        if written is not None and key in written:
            return written[key]
        return self._reader.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._overlay.setdefault(table, {})[key] = value

    def delete(self, table: Table, key: bytes) -> None:
        assert not self._taken, "a machine wrote while its last step was being committed"
        self._overlay.setdefault(table, {})[key] = None

    def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int, backwards: bool = False
    ) -> list[tuple[bytes, bytes]]:
        written = self._overlay.get(table)
        if not written:
            return self._reader.scan(table, prefix=prefix, after=after, limit=limit, backwards=backwards)
        found = dict(
            self._reader.scan(table, prefix=prefix, after=after, limit=limit + len(written), backwards=backwards)
        )
        for key, value in written.items():
            if value is None:
                found.pop(key, None)
            elif key.startswith(prefix) and (not after or (key < after if backwards else key > after)):
                found[key] = value
        return sorted(found.items(), reverse=backwards)[:limit]

    def take(self) -> list[Write]:
        """The writes of the step, one for each key, its last. They stay readable until `committed`."""
        self._taken = bool(self._overlay)
        return [
            Delete(table, key) if value is None else Put(table, key, value)
            for table, written in self._overlay.items()
            for key, value in written.items()
        ]

    def committed(self) -> None:
        """The writes taken are in the store now."""
        self._overlay.clear()
        self._taken = False
