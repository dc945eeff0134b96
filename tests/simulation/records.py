"""What the auditor reads of a disk: the records that matter, by their documented fields (`docs/tables.md`), and its own
copy of the tables that they are in."""

from collections.abc import Mapping
from typing import Final

import msgspec

from common.codec import glance
from common.effects import Delete, Put, Table, Write

BALANCER: Final = "balancer"
LOOKED_AT: Final = (
    Table.META, Table.JOBS, Table.LIVE, Table.ENDED, Table.OUTCOMES, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES,
    Table.ORIGINS, Table.KEYS, Table.ATTEMPTS,
)  # fmt: skip
FORGOTTEN: Final = b"forgotten"

Tables = Mapping[Table, Mapping[bytes, bytes]]
Changes = dict[tuple[Table, bytes], bytes | None]


class Violation(AssertionError):
    """A promise is broken."""


class Asked(msgspec.Struct):
    """What matters here of a job."""

    kind: str = ""
    key: str | None = None
    group: str | None = None
    array: str | None = None
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    body_bytes: int = 0
    crash_limit: int | None = 3
    slots: int = 1
    retries: int = 0
    delay_s: float = 0.0
    submitted_wall: float = 0.0


NOTHING: Final = Asked()


class Live(msgspec.Struct):
    """What matters here of what the ledger has on disk of a live job."""

    attempt: int = 0
    leased: bool = False
    boot_id: str | None = None
    crashes: int = 0
    cancelled: bool = False
    retried: int = 0
    array: str | None = None
    waits_for: tuple[str, ...] = ()


class Disk:
    """One process' disk, as far as it is looked at."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in LOOKED_AT}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def live(self, key: bytes) -> Live | None:
        packed = self.get(Table.LIVE, key)
        return None if packed is None else glance(Live, packed)

    def apply(self, changes: Changes) -> None:
        for (table, key), value in changes.items():
            if value is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = value

    def difference(self, found: Tables) -> list[Write]:
        """What would have to be written to make it what was found."""
        writes: list[Write] = []
        for table in LOOKED_AT:
            mine, other = self.tables[table], found.get(table, {})
            writes += [Put(table, key, value) for key, value in other.items() if mine.get(key) != value]
            writes += [Delete(table, key) for key in mine if key not in other]
        return writes


def must(held: bool, text: str) -> None:
    if not held:
        raise Violation(text)


def key_of(ticket: str) -> bytes:
    """The key of a ticket in every table, as `docs/tables.md` has it."""
    plain, _, index = ticket.partition("_")
    prefix, number = plain.split("-")
    key = prefix.encode() + int(number).to_bytes(8, "big")
    return key + int(index).to_bytes(6, "big") if index else key
