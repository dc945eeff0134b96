"""What becomes of a data directory that is put back as it was some time ago.

It does not know what was done since. Two things must never be done twice, so they begin anew beyond what can have
been: a node goes on with its tickets LEAP numbers higher, and counts all below them as sent; a balancer becomes
another ledger, which every node tells of everything again, as if the old one had been lost. The same is done where a
number that must never go back was damaged on disk.

Nothing that happened since the copy is undone by it: what a node took in since is in the ledger, and what ended since
at the balancer may run again. Pure; in one transaction with the opening (`common/runtime/tables.py`).
"""

from typing import Final

from common.migrations import Transaction

LEAP: Final = 1_000_000_000
"""More tickets than a node issues between a copy and its return; tickets have room for a thousand million leaps."""

_HOLD_TICKETS: Final = ("live", "jobs", "ended", "tombstones", "aliases")
_PREFIX_BYTES: Final = 6
_TICKET_BYTES: Final = 14


class Unidentified(Exception):
    """Who the directory is was damaged; it can only be set aside. The text says which record."""


def go_on_apart(transaction: Transaction) -> bool:
    """Makes a directory that is, or may be, older than what others remember of it safe to start with. False for one
    that nobody has used yet."""
    prefix = transaction.get("meta", b"prefix")
    if prefix is not None:
        numbers = (_number(transaction, key) for key in (b"last_number", b"sent_number"))  # 0 where one is damaged
        last = max(*numbers, _highest(transaction, prefix))
        transaction.put("meta", b"sent_number", b"%d" % last)
        transaction.put("meta", b"last_number", b"%d" % (last + LEAP))
        return True
    if _is_balancer(transaction):
        transaction.put("meta", b"last_end", b"%d" % (_number(transaction, b"last_end") + LEAP))
        transaction.delete("meta", b"tag")  # cursors of the time since then are told that something is lost
        transaction.delete("meta", b"id")
        return True
    return False


def numbers_are_damaged(transaction: Transaction) -> bool:
    """Whether a record was damaged without which numbers would be used again, or jobs never be told of; raises
    Unidentified where it is one that nobody can do without."""
    damaged = {key for key, value in transaction.scan("meta") if value is None}
    if damaged & {b"id", b"prefix"} and not _is_balancer(transaction):
        raise Unidentified(", ".join(key.decode() for key in sorted(damaged & {b"id", b"prefix"})))
    if b"ledger_id" in damaged:
        transaction.put("meta", b"ledger_id", b"?")  # so whichever is met next is another one, and is told everything
    return bool(damaged & {b"last_number", b"sent_number", b"last_end", b"id"})


def _is_balancer(transaction: Transaction) -> bool:
    return transaction.get("meta", b"tag") is not None or transaction.get("meta", b"last_end") is not None


def _number(transaction: Transaction, key: bytes) -> int:
    return int(transaction.get("meta", key) or b"0")


def _highest(transaction: Transaction, prefix: bytes) -> int:
    """The highest number among the tickets that are there."""
    keys = (key for table in _HOLD_TICKETS for key, _ in transaction.scan(table) if key.startswith(prefix))
    return max((int.from_bytes(key[_PREFIX_BYTES:_TICKET_BYTES], "big") for key in keys), default=0)
