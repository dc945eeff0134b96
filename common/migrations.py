"""Formats of a data directory, and the way from each to the next.

    format 1 ── remember_what_was_sent ──► format 2 ── know_of_the_journal ──► format 3 ── … ──► FORMAT

Rules
- A migration is a function over a transaction, and makes one format of the one before it. All that an older directory
  needs are done in the one transaction in which the new number is written: killed at any moment, nothing has changed.
- It names tables and keys as they were called in its format, in plain words, and uses no code of the machines: they
  go on changing, and an old directory does not.
- A field that is added with a default needs none (`common/codec.py`). What needs one: a record that has to be there, or
  that is read in another way than before; and what an older version must not open because it would overlook something.
- A format that was released once stays readable. A directory of each is kept in tests/golden, and is opened by a test.

Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias


class Transaction(Protocol):
    """A data directory while nobody else can look at it: what is put is there with all the rest, or not at all."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """A record that matches its checksum."""
        ...

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        """All records in the order of their keys, None for one that does not match its checksum. The table may be
        changed meanwhile, only not before what was read."""
        ...

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> None: ...


Migration: TypeAlias = Callable[[Transaction], None]


def remember_what_was_sent(transaction: Transaction) -> None:
    """1 → 2. A node remembers up to which of its tickets a submission may have been written to a link. A directory
    of format 1 did not: any of its tickets may have been."""
    if transaction.get("meta", b"prefix") is not None:  # only nodes issue tickets
        transaction.put("meta", b"sent_number", transaction.get("meta", b"last_number") or b"0")


def know_of_the_journal(transaction: Transaction) -> None:
    """2 → 3. No record changes. What was committed last may be in the journal from now on
    (`common/runtime/journal.py`), and a version that does not know of it would do without."""


MIGRATIONS: Final[Sequence[Migration]] = (remember_what_was_sent, know_of_the_journal)
"""The first leads from format 1 to 2, and so on."""

FORMAT: Final = 1 + len(MIGRATIONS)
"""What this version writes, and the highest that it can read."""


def migrate(transaction: Transaction, found: int, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Makes the latest format of the format `found`; returns its number."""
    for migration in migrations[found - 1 :]:
        migration(transaction)
    return 1 + len(migrations)
