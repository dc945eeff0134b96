"""What data directories look like afterwards: looked at with `--check` when nobody uses them, every record and all that
it points at, and read by the store's own code where a test wants the records."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import lmdb

from common.effects import Table
from common.limits import GIB
from common.runtime.store import Store
from examples.local_cluster import BALANCER, REPOSITORY, LocalCluster
from tests.system.programs import data_dir

ROWS_AT_ONCE: Final = 500
MAP_BYTES: Final = 4 * GIB  # at least what any program of these tests may use


def damage_of(cluster: LocalCluster) -> list[str]:
    """What is wrong with the directories of a whole cluster, which is stopped for it."""
    cluster.stop()
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _damage_in(name, data_dir(cluster, name)), (BALANCER, *cluster.node_names))
        return [problem for problems in found for problem in problems]


def _damage_in(name: str, directory: Path) -> list[str]:
    """What a check complains of, and every record that was set aside at some time."""
    command = [sys.executable, "-m", BALANCER if name == BALANCER else "node", "--check", str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    complaints = [] if done.returncode == 0 else [f"{name}: {done.stdout}{done.stderr}"]
    return complaints + [f"{name}: {key!r} was set aside" for key in _set_aside(directory)]


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
