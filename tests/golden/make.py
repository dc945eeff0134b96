"""Makes the golden directories of the format that this code writes: python -m tests.golden.make tests/golden/format-N

A directory for each program, compacted and packed with its journal, and `expected.json`: what must be read from it, for
ever. A directory that is there is never made anew; README.md beside this says when and how.
"""

import gzip
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lmdb

from common import __version__
from common.effects import Delete, Put, Table, Write
from common.limits import MIB
from common.runtime import journal
from common.runtime.store import Store
from tests.golden.story import FINAL, LEDGER_ID, NODE_IDS, PREFIXES, SLOTS, Story
from tests.machines.cluster import Cluster, Disk

STORE_BYTES = 64 * MIB
LATE_EVERY = 5  # records, of which one is in the journal
GONE = (Table.LIVE, b"gone")
LATER_S = 1.0  # between the kill and the next start


def pack(disk: Disk, target: Path) -> None:
    """Writes a disk into a real store, and what a kill leaves of that into two small files: some records are in the
    journal alone, and LMDB has what they were before."""
    records = [Put(table, *record) for table, records in disk.tables.items() for record in records.items()]
    late = records[::LATE_EVERY]
    with tempfile.TemporaryDirectory() as name:
        directory, killed, compact = (Path(name) / part for part in ("store", "killed", "compact"))
        _written(
            directory, [*records, *(Put(it.table, it.key, b"before") for it in late), Put(*GONE, b"before")]
        ).close()
        store = _written(directory, [*late, Delete(*GONE)])
        shutil.copytree(directory, killed)
        store.close()
        compact.mkdir()
        with lmdb.open(str(killed), max_dbs=30, lib_version=0) as env:
            with env.begin(write=True) as transaction:
                transaction.delete(b"file")  # or whoever opens the copy would notice that it is one
            env.copy(str(compact), compact=True)
        target.with_suffix(".mdb.gz").write_bytes(gzip.compress((compact / "data.mdb").read_bytes(), mtime=0))
        target.with_suffix(".journal.gz").write_bytes(gzip.compress((killed / journal.FILE).read_bytes(), mtime=0))


def _written(directory: Path, writes: list[Write]) -> Store:
    store = Store(directory, STORE_BYTES)
    store.commit(writes)
    return store


def unpack(golden: Path, into: Path) -> None:
    """A data directory for each program, `into/balancer`, `into/n1` …, as the golden directory has them."""
    for suffix, file in ((".mdb.gz", "data.mdb"), (".journal.gz", journal.FILE)):
        for packed in golden.glob(f"*{suffix}"):
            directory = into / packed.name.removesuffix(suffix)
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            with gzip.open(packed) as source, (directory / file).open("wb") as target:
                shutil.copyfileobj(source, target)


def settle(into: Path) -> None:
    """As if all had been started and stopped: LMDB has everything."""
    for directory in into.iterdir():
        Store(directory, STORE_BYTES).close()


@contextmanager
def machines(root: Path, now: float) -> Iterator[tuple[Cluster, dict[str, Store]]]:
    """Today's machines restored from data directories; no node has dialled yet and the balancer is not started."""
    cluster = Cluster()
    cluster.kill_balancer()
    cluster.now = now
    cluster._boots = itertools.count(1000)  # no boot has the id of an earlier one
    with ExitStack() as cleanup:
        stores = {name: Store(root / name, STORE_BYTES) for name in ("balancer", *NODE_IDS)}
        for store in stores.values():
            cleanup.callback(store.close)
        cluster._kept = (stores["balancer"], LEDGER_ID)  # type: ignore[assignment]
        for name, node_id in NODE_IDS.items():
            disk: Any = stores[name]
            cluster.add_node(name, dial=False, disk=disk, node_id=node_id, prefix=PREFIXES[name], slots=SLOTS)
        yield cluster, stores


def ask_alone(cluster: Cluster, tickets: dict[str, str]) -> dict[str, str]:
    """What each origin says of its own ended jobs, without a balancer."""
    found = {}
    for ticket in tickets.values():
        name = next(name for name, prefix in PREFIXES.items() if ticket.startswith(prefix))
        for verb in ("status", "result"):
            reply = cluster.say(name, f"{verb} {ticket}")
            if reply is not None and "as_of_s=" not in reply:
                found[f"{name}: {verb} {ticket}"] = reply
    return found


def link(cluster: Cluster) -> None:
    cluster.start_balancer()
    for name in cluster.nodes:
        cluster.dial(name)


def ask_together(cluster: Cluster, tickets: dict[str, str]) -> dict[str, str]:
    """What the ledger says of everything that has ended, asked at a node that is not the origin of most."""
    elements = [f"{tickets['array that has ended']}_{index}" for index in (1, 2, 3)]
    elements += [f"{tickets['array that was cancelled']}_{index}" for index in (0, 3, 99)]
    found = {}
    for ticket in (*tickets.values(), *elements):
        for verb in ("status", "result"):
            reply = cluster.say("n3", f"{verb} {ticket}")
            if reply is not None and (reply.startswith("ERR") or _ended(reply)):
                found[f"n3: {verb} {ticket}"] = reply
    return found


def _ended(reply: str) -> bool:
    return any(f" state={state} " in f"{reply} " for state in ("succeeded", "failed", "cancelled"))


def expected(root: Path, story: Story) -> dict[str, Any]:
    now = story.now + LATER_S
    with machines(root, now) as (cluster, _):
        alone = ask_alone(cluster, story.tickets)
        link(cluster)
        together = ask_together(cluster, story.tickets)
        live = [what for what, ticket in story.tickets.items() if f"n3: status {ticket}" not in together]
        events = cluster.say("n1", "events")
    assert events is not None
    assert set(live) == set(FINAL), live
    told = [json.loads(line) for line in events.splitlines()[1:] if line]
    return {
        "made_by": __version__,
        "now": now,
        "tickets": story.tickets,
        "live": live,
        "alone": alone,
        "together": together,
        "events": [event for event in told if event["seq"] <= 20],
    }


def main(golden: Path) -> None:
    golden.mkdir()  # never over another
    story = Story()
    for name, disk in story.disks.items():
        pack(disk, golden / name)
    with tempfile.TemporaryDirectory() as root:
        unpack(golden, Path(root))
        manifest = expected(Path(root), story)
    (golden / "expected.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
