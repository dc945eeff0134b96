"""Damage that LMDB does not notice: a bit that flips in the head of a page hides the records on it; in a table's name,
the whole table; in the number of a transaction, the newest commit. And what is not there has no checksum.

So an environment is looked over when it is opened. Found this way: tables that are missing while others are there that
nobody knows, records that are told of and cannot be reached, or looked up, keys that are not in order, and two meta
pages that are not one transaction apart. Only keys are read, and of large tables not even they: `--check` reads
everything.

Knows LMDB's file format, which is pinned to that of 0.9 (tables.py), and takes an open environment from who has lmdb.
"""

import struct
from collections.abc import Collection, Iterator, Set
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Any, Final

COUNTED_PAGES_MAX: Final = 16 * 1024  # of one table: a fraction of a second
_KEYS_AT_ONCE: Final = 10_000
_NUMBER: Final = struct.Struct("@N")  # of a transaction: a size_t
_NUMBER_AT: Final = 144  # in its meta page: behind the page's header, five fields and two records of tables


def damage_to_pages(env: Any, *, tables: Set[bytes], others: Collection[bytes]) -> str | None:
    """What is wrong with an environment, in words, that should hold these tables and may hold other keys; None where
    nothing is. Raises what LMDB says where it notices by itself."""
    return next(_damages(env, tables, others), None)


def _damages(env: Any, tables: Set[bytes], others: Collection[bytes]) -> Iterator[str]:
    with env.begin() as transaction:
        yield from _disorder(transaction, None, "the list of tables")
        names = {name for name, _ in transaction.cursor()}
        missing, strange = sorted(tables - names), sorted(names - tables - set(others))
        if missing and strange:
            yield f"{missing} are missing, and nobody knows {strange}"
        for name in sorted(names & tables):
            yield from _disorder(transaction, env.open_db(name, transaction, create=False), name.decode())
    first, second = _transaction_numbers(env)
    if (first, second) != (0, 0) and (first % 2 or abs(first - second) != 1):  # they take turns
        yield f"its last two transactions have the numbers {first} and {second}"


def _disorder(transaction: Any, db: Any, name: str) -> Iterator[str]:
    told = transaction.stat(db)
    if told["branch_pages"] + told["leaf_pages"] > COUNTED_PAGES_MAX:
        return
    found, last = 0, b""
    with transaction.cursor(db) as cursor, transaction.cursor(db) as look:
        keys = cursor.iternext(keys=True, values=False)
        while some := list(islice(keys, _KEYS_AT_ONCE)):
            if not all(map(lt, [last, *some], some)):
                yield f"{name} is out of order, so that not all of it can be found"
            if not all(map(look.set_key, some)):  # a page whose head says that nothing is on it
                yield f"{name} has a record that is met and cannot be looked up"
            found, last = found + len(some), some[-1]
    if found != told["entries"]:
        yield f"{name} should have {told['entries']} entries, and {found} are found"


def _transaction_numbers(env: Any) -> tuple[int, int]:
    """Of the two meta pages, which are the first of the file."""
    with (Path(env.path()) / "data.mdb").open("rb") as file:
        pages = file.read(2 * env.stat()["psize"])
    first, second = (_NUMBER.unpack_from(pages, at + _NUMBER_AT)[0] for at in (0, len(pages) // 2))
    return first, second
