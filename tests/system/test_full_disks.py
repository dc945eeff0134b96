"""Disks and stores that are full, and have room again: whoever is refused is told so, results and outcomes still pass,
nothing is lost, and no job fails for it.

`FULL_CYCLES` and `FULL_SEED` in the environment choose another run.
"""

import itertools
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from common.effects import Put, Table
from common.limits import MIB, STORE_FULL_FRACTION
from common.runtime.owning import StoreError
from common.runtime.room import NoRoom
from common.runtime.store import Store
from examples.local_cluster import BALANCER, LocalCluster
from tests.system.client import Line, Reply, ask, submit, until, wait
from tests.system.conftest import StartCluster, log_tails, shown_on_failure
from tests.system.directories import damage_of
from tests.system.load import Load, audit
from tests.system.reach import reach, seed
from tests.system.small_disks import SmallDisk, small_disk, where_one_may_mount
from tests.system.store_writer import kill
from tests.system.watching import statistic

pytestmark = pytest.mark.system

CYCLES: Final = reach("FULL_CYCLES", 3, soak=20)
DISK_BYTES: Final = 32 * MIB
RESERVE_BYTES: Final = DISK_BYTES // 20  # with less room a disk counts as full (room.py)
NOTICED_WITHIN_S: Final = 5.0
REPLY_S_MAX: Final = 5.0
STORE_MAX_BYTES: Final = 8 * MIB
BODY_BYTES: Final = 300_000
KEPT_BYTES: Final = BODY_BYTES + 2 * PAGESIZE  # at most, for each: it fills whole pages, and has other records


# --- a disk ----------------------------------------------------------------------------------------------------


@where_one_may_mount
def test_a_store_has_room_of_its_own_for_what_comes_in_when_its_disk_has_nothing_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        store = Store(disk.path / "store", max_bytes=DISK_BYTES)
        for number in range(100):
            store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(50_000))])
        disk.fill()
        for number in range(10):
            store.commit([Put(Table.OUTPUTS, b"late %d" % number, bytes(100_000))])
        assert store.room().disk_full
        with pytest.raises(NoRoom):
            store.commit([Put(Table.OUTPUTS, b"too much", bytes(8 * MIB))])
        disk.make_room()
        store.commit([Put(Table.OUTPUTS, b"too much", bytes(8 * MIB))])
        assert store.count(Table.OUTPUTS) == 111
        store.close()


@where_one_may_mount
def test_a_store_that_is_killed_on_a_full_disk_loses_nothing_and_is_opened_while_it_has_room_of_its_own(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        store = Store(disk.path / "store", max_bytes=DISK_BYTES)
        for number in range(100):
            store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(50_000))])
        disk.fill()
        store.commit([Put(Table.JOBS, b"in the journal", b"")])
        kill(store)
        store = Store(disk.path / "store", max_bytes=DISK_BYTES)
        assert store.get(Table.JOBS, b"in the journal") is not None
        taken = _commit_until_there_is_no_room(store, 50_000) + _commit_until_there_is_no_room(store, 1000)
        kill(store)
        with pytest.raises(StoreError, match="its disk is full, make room and start again"):
            Store(disk.path / "store", max_bytes=DISK_BYTES)
        disk.make_room()
        store = Store(disk.path / "store", max_bytes=DISK_BYTES)
        assert store.count(Table.JOBS) == 1 + taken
        store.close()


def _commit_until_there_is_no_room(store: Store, size: int) -> int:
    """How many commits it took."""
    for number in itertools.count():
        try:
            store.commit([Put(Table.JOBS, b"%d of %d bytes" % (number, size), bytes(size))])
        except NoRoom:
            return number
    raise AssertionError


@pytest.mark.timeout(60 + 20 * CYCLES)
@where_one_may_mount
def test_a_node_whose_disk_is_full_says_so_and_no_job_is_lost_or_fails_for_it(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "node1", DISK_BYTES) as disk,
        LocalCluster(2, tmp_path, slots=4) as cluster,
        shown_on_failure(request.session, lambda: log_tails(cluster)),
    ):
        cluster.wait_until_joined()
        load = Load(cluster, tmp_path / "journal", seed("FULL_SEED"))
        with load.running():
            for _ in range(CYCLES):
                time.sleep(0.3)
                _fill_the_disk_of_node1_and_make_room(cluster, disk)
        _nothing_was_lost(cluster, load)


def _fill_the_disk_of_node1_and_make_room(cluster: LocalCluster, disk: SmallDisk) -> None:
    full, other = (cluster.address(name) for name in cluster.node_names)
    running = [submit(full, f"priority=100 sh sleep 0.5; echo {number}") for number in range(8)]
    try:
        disk.fill(but_bytes=RESERVE_BYTES // 2)
        until("it refuses", lambda: _answer(full, "submit sh true").code == "FULL", within_s=NOTICED_WITHIN_S)
        assert [wait(other, ticket).body for ticket in running] == [b"%d\n" % number for number in range(8)]
        disk.fill()
        for ticket in running:
            assert _answer(full, "submit sh true").line.startswith("ERR FULL the disk of this node is full")
            assert _answer(full, f"result {ticket}").ok, "what there is can be read"
        assert wait(other, submit(other, "priority=100 sh echo elsewhere")).body == b"elsewhere\n"
    finally:
        disk.make_room()
    until("it takes jobs", lambda: _answer(full, "submit sh true").ok, within_s=NOTICED_WITHIN_S)


@pytest.mark.timeout(60 + 20 * CYCLES)
@where_one_may_mount
def test_while_the_disk_of_the_balancer_is_full_jobs_wait_at_their_nodes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / BALANCER, DISK_BYTES) as disk,
        LocalCluster(2, tmp_path, slots=4) as cluster,
        shown_on_failure(request.session, lambda: log_tails(cluster)),
    ):
        cluster.wait_until_joined()
        load = Load(cluster, tmp_path / "journal", seed("FULL_SEED"))
        with load.running():
            for _ in range(CYCLES):
                time.sleep(0.3)
                _fill_the_disk_of_the_balancer_and_make_room(cluster, disk)
        assert _nothing_was_lost(cluster, load) == 0, "nobody was dead, so nothing is run again"


def _fill_the_disk_of_the_balancer_and_make_room(cluster: LocalCluster, disk: SmallDisk) -> None:
    node = cluster.address("node1")
    running = [submit(node, f"priority=100 sh sleep 0.5; echo {number}") for number in range(8)]
    until("they were given out", lambda: all(_answer(node, f"status {it}").field("node") for it in running))
    full_before = _log_of(cluster, BALANCER).count("store.full")
    try:
        disk.fill(but_bytes=RESERVE_BYTES // 2)
        until("it is noticed", lambda: _log_of(cluster, BALANCER).count("store.full") > full_before)
        waiting = submit(node, "priority=100 sh echo waited")
        assert [wait(node, ticket).body for ticket in running] == [b"%d\n" % number for number in range(8)]
        disk.fill()
        time.sleep(0.5)  # nothing can be written now, and so nothing is said
    finally:
        disk.make_room()
    assert wait(node, waiting).body == b"waited\n"


def _nothing_was_lost(cluster: LocalCluster, load: Load) -> int:
    """How many jobs ran more than once."""
    verdict = audit(cluster, load, within_s=30 + 3 * CYCLES)
    print(f"{CYCLES} times full: {verdict}")
    assert verdict.acknowledged > 10 * CYCLES, "the clients hardly got through, so nothing was tested"
    assert verdict.not_kept == []
    assert cluster.ended() == {}
    assert damage_of(cluster) == []
    return verdict.run_again


def _answer(address: str, line: str) -> Reply:
    with Line(address, timeout_s=REPLY_S_MAX) as client:
        return client.ask(line)


def _log_of(cluster: LocalCluster, name: str) -> str:
    return cluster.log_path(name).read_text()


# --- a store ---------------------------------------------------------------------------------------------------


class SmallStores(LocalCluster):
    """One in which some programs may keep little."""

    small: ClassVar[str]

    def _environment(self, member: Any) -> Mapping[str, str]:
        own = {"JOBYARD_STORE_MAX": str(STORE_MAX_BYTES)} if member.name == self.small else {}
        return super()._environment(member) | own


class SmallNode(SmallStores):
    small = "node1"


class SmallBalancer(SmallStores):
    small = BALANCER


class Gate:
    """Large jobs that do not end before they are told to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, address: str, held: list[str]) -> bool:
        """Submits one; False where it is refused."""
        job = f"bytes={BODY_BYTES} sh until [ -e {self._path} ]; do sleep 0.2; done; wc -c"
        reply = ask(address, f"submit {job}", bytes(BODY_BYTES))
        if reply.code:
            assert reply.code == "FULL", reply.line
            return False
        held.append(reply.ticket)
        return True

    def open_and_read(self, address: str, held: list[str]) -> None:
        """All end. Each is waited for from before its end, because ended jobs expire early now."""
        with Line(address, timeout_s=60) as client:
            client.send("".join(f"wait timeout=30s {ticket}\n" for ticket in held).encode())
            self._path.touch()
            replies = [client.reply() for _ in held]
        assert [reply.line for reply in replies if reply.body != b"%d\n" % BODY_BYTES] == []


@pytest.mark.timeout(60 + 20 * CYCLES)
def test_a_node_whose_store_is_full_says_so_until_what_it_holds_has_ended(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(2, slots=64, cls=SmallNode)
    full, other = (cluster.address(name) for name in cluster.node_names)
    for cycle in range(CYCLES):
        gate = Gate(tmp_path / f"gate-{cycle}")
        held: list[str] = []
        room = (STORE_FULL_FRACTION - statistic(full, "store_fraction", local=True)) * STORE_MAX_BYTES
        until("it refuses", lambda: not gate.hold(full, held), within_s=NOTICED_WITHIN_S)  # noqa: B023
        assert len(held) * KEPT_BYTES >= room, "it refused although there was room"
        refused = _answer(full, "submit sh true")
        assert refused.line.startswith("ERR FULL the store of this node is "), refused.line
        assert wait(full, submit(other, "sh echo meanwhile")).body == b"meanwhile\n"
        gate.open_and_read(full, held)
        until("it takes jobs", lambda: _answer(full, "submit sh true").ok, within_s=NOTICED_WITHIN_S)
        until("what has ended makes room", lambda: statistic(full, "store_fraction", local=True) < 0.62, within_s=20)
    assert cluster.ended() == {}
    assert damage_of(cluster) == []


@pytest.mark.timeout(60 + 20 * CYCLES)
def test_while_the_store_of_the_balancer_is_full_jobs_wait_at_their_nodes(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(2, slots=64, cls=SmallBalancer)
    one = cluster.address("node1")
    for cycle in range(CYCLES):
        gate = Gate(tmp_path / f"gate-{cycle}")
        held: list[str] = []
        for _ in range(40):  # one and a half times what it may keep
            assert gate.hold(one, held), "the node has room"
        until("it is full, and stays so", lambda: _is_full_for_good(cluster), within_s=20)
        waiting = submit(one, "sh echo waited")
        assert ask(one, f"result {waiting}").pending
        gate.open_and_read(one, held)
        assert wait(one, waiting).body == b"waited\n"
        until("it has room", lambda: _log_of(cluster, BALANCER).count("store.room") > cycle)  # noqa: B023

    assert statistic(one, "attempts_crashed_total") == 0
    assert cluster.ended() == {}
    assert damage_of(cluster) == []


def _is_full_for_good(cluster: LocalCluster) -> bool:
    """Not only until what has ended before expires, which makes room for a moment and is looked for once a second."""
    events = [json.loads(line) for line in _log_of(cluster, BALANCER).splitlines()]
    told = [event for event in events if event["event"] in ("store.full", "store.room")]
    if not told or told[-1]["event"] != "store.full":
        return False
    return datetime.now(UTC) - datetime.fromisoformat(told[-1]["ts"]) > timedelta(seconds=2.5)
