"""What data directories look like afterwards: read by the store's own code, record by record, when nobody uses them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from common.effects import Table
from common.limits import GIB
from common.runtime.store import Store
from examples.local_cluster import LocalCluster
from tests.system.programs import data_dir

ROWS_AT_ONCE: Final = 500
MAP_BYTES: Final = 4 * GIB  # at least what any program of these tests may use


def damage_of(cluster: LocalCluster) -> list[str]:
    """What is wrong with the directories of a whole cluster, which is stopped for it."""
    cluster.stop()
    names = ("balancer", *cluster.node_names)
    return [f"{name}: {problem}" for name in names for problem in damage_in(data_dir(cluster, name))]


def damage_in(directory: Path) -> list[str]:
    """Every record that does not match its checksum, or did not once and was set aside. Raises StoreError where the
    directory cannot be opened at all."""
    found: list[str] = []
    store = Store(directory, MAP_BYTES, lambda table, key: found.append(f"{table} {key!r} does not match"))
    try:
        assert sum(1 for _ in rows(store)) > 0, f"{directory} has no record in it: was it the right one?"
    finally:
        store.close()
    return found + [f"{key!r} was set aside" for key in _set_aside(directory)]


def rows(store: Store) -> Iterator[tuple[Table, bytes, bytes]]:
    """Every record of every table that is as it was written."""
    for table in Table:
        after = b""
        while some := store.scan(table, after=after, limit=ROWS_AT_ONCE):
            yield from ((table, key, value) for key, value in some)
            after = some[-1][0]


def _set_aside(directory: Path) -> list[bytes]:
    with lmdb.open(str(directory), max_dbs=len(Table) + 1, lib_version=0, map_size=MAP_BYTES) as env:
        quarantine = env.open_db(b"quarantine", create=False)
        with env.begin(db=quarantine) as transaction:
            return [key for key, _ in transaction.cursor()]
