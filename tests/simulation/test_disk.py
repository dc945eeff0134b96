"""The virtual disk: what a commit is worth before and after each kind of crash."""

import random
from collections.abc import Sequence

import attrs
import lmdb
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from common.effects import Delete, Put, Table, Write
from common.runtime.room import NoRoom
from tests.machines.cluster import Disk as PlainDisk
from tests.simulation import determinism
from tests.simulation.disk import SLOW_S_MAX, SLOWER, Disk, Killed, Tables

FIRST: Sequence[Write] = [Put(Table.JOBS, b"a", b"1"), Put(Table.LIVE, b"a", b"2")]
SECOND: Sequence[Write] = [Put(Table.JOBS, b"b", b"3"), Delete(Table.LIVE, b"a")]
ONE, TWO = ({b"a": b"1"}, {b"a": b"2"}), ({b"a": b"1", b"b": b"3"}, dict[bytes, bytes]())
NONE = (dict[bytes, bytes](), dict[bytes, bytes]())


def seen(disk: Disk) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """As its program reads it."""
    return dict(disk.scan(Table.JOBS, limit=100)), dict(disk.scan(Table.LIVE, limit=100))


def durable(disk: Disk) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    return disk.durable[Table.JOBS], disk.durable[Table.LIVE]


def with_one_synced_and_one_written() -> Disk:
    disk = Disk()
    disk.write(FIRST, random.Random(1))
    assert disk.sync() == [FIRST]
    disk.write(SECOND, random.Random(1))
    return disk


# --- what a crash leaves -----------------------------------------------------------------------------------------


def test_what_is_written_is_read_at_once_and_durable_when_it_is_synced() -> None:
    disk = with_one_synced_and_one_written()
    assert seen(disk) == TWO
    assert durable(disk) == ONE
    assert disk.sync() == [SECOND]
    assert durable(disk) == TWO


def test_a_kill_keeps_what_was_written() -> None:
    disk = with_one_synced_and_one_written()
    assert disk.after_a_kill() == [SECOND]
    assert seen(disk) == durable(disk) == TWO


def test_a_power_cut_keeps_what_was_synced_and_of_the_rest_all_or_nothing() -> None:
    left = []
    for seed in range(20):
        disk = with_one_synced_and_one_written()
        kept = disk.after_a_power_cut(random.Random(seed))
        assert kept in ([], [SECOND])
        assert seen(disk) == durable(disk) == (TWO if kept else ONE)
        left.append(bool(kept))
    assert set(left) == {True, False}


def test_a_disk_that_only_says_that_it_syncs_loses_the_last_in_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "syncs", False)
    left = []
    for seed in range(20):
        disk = with_one_synced_and_one_written()
        disk.sync()
        assert durable(disk) == TWO, "as it says"
        disk.after_a_power_cut(random.Random(seed))
        assert seen(disk) == durable(disk)
        left.append(durable(disk))
    assert [what in left for what in (NONE, ONE, TWO)] == [True] * 3


# --- faults ------------------------------------------------------------------------------------------------------


def test_a_full_disk_writes_nothing_and_says_so() -> None:
    disk = Disk()
    disk.full = 1
    assert disk.room().disk_full
    with pytest.raises(NoRoom):
        disk.write(FIRST, random.Random(1))
    disk.full = 0
    assert seen(disk) == NONE
    assert not disk.room().disk_full


def test_the_nth_commit_fails_once_and_nobody_knows_whether_it_is_written() -> None:
    written = []
    for seed in range(20):
        disk, chance = Disk(), random.Random(seed)
        disk.fails_in = 2
        disk.write(FIRST, chance)
        disk.sync()
        with pytest.raises(lmdb.Error, match="Input/output error"):
            disk.write(SECOND, chance)
        disk.after_a_kill()
        assert durable(disk) in (ONE, TWO)
        written.append(durable(disk) == TWO)
        disk.write(FIRST, chance)
    assert set(written) == {True, False}


# --- reading -----------------------------------------------------------------------------------------------------

KEYS = st.binary(min_size=1, max_size=2)
PUTS = st.builds(Put, st.just(Table.JOBS), KEYS, st.binary(max_size=3))
WRITES = st.lists(st.one_of(PUTS, st.builds(Delete, st.just(Table.JOBS), KEYS)))


@given(WRITES, st.one_of(st.just(b""), KEYS), st.one_of(st.just(b""), KEYS), st.integers(0, 5), st.booleans())
def test_it_reads_as_the_plainest_of_disks(
    writes: list[Write], prefix: bytes, after: bytes, limit: int, backwards: bool
) -> None:
    """As the store is asked: with a prefix, forwards."""
    disk, plain = Disk(), PlainDisk()
    for write in writes:
        disk.write([write], random.Random(1))
        plain.commit([write])
    disk.sync()
    prefix = b"" if backwards else prefix
    for one in (disk, plain):
        assert one.get(Table.JOBS, after) == plain.get(Table.JOBS, after)
    asked = {"prefix": prefix, "after": after, "limit": limit, "backwards": backwards}
    assert disk.scan(Table.JOBS, **asked) == plain.scan(Table.JOBS, **asked)  # type: ignore[arg-type]
    assert disk.durable[Table.JOBS] == plain.tables[Table.JOBS]
    assert disk.room().used_bytes == sum(map(len, plain.tables[Table.JOBS].values()))


# --- waiting for it ----------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Process:
    """Dies at its `dies_at`-th point."""

    dies_at: int = 0
    alive: bool = True
    passed: list[str] = attrs.field(factory=list)
    told: list[Sequence[Write]] = attrs.field(factory=list)

    def reaches(self, what: str) -> bool:
        self.passed.append(what)
        self.alive = self.alive and len(self.passed) != self.dies_at
        return not self.alive

    async def takes(self, seconds: float) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)

    def durable(self, transactions: Sequence[Sequence[Write]]) -> None:
        self.told += transactions


def commit(disk: Disk, process: Process, *, cancelled_after_s: float = 100.0, commit_s: float = 1.0) -> float:
    """Commits FIRST; returns how long that took, or -1 where its process died."""

    async def main() -> float:
        tables = Tables(disk, process, (commit_s, commit_s), random.Random(1))
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + cancelled_after_s
            if cancelled_after_s == 0:
                scope.cancel()
            try:
                await tables.run_blocking(lambda: tables.commit(FIRST))
            except Killed:
                return -1.0
        return trio.current_time()

    return determinism.run(main, seed=1)


def test_a_commit_takes_its_time_and_passes_three_points() -> None:
    disk, process = Disk(), Process()
    assert commit(disk, process) == 1.0
    assert process.passed == ["before a commit", "within a commit", "after a commit"]
    assert process.told == [FIRST]
    assert durable(disk) == ONE


@pytest.mark.parametrize(("dies_at", "left"), [(1, (NONE, NONE)), (2, (ONE, NONE)), (3, (ONE, ONE))])
def test_who_dies_before_within_or_after_a_commit_leaves_that_much(dies_at: int, left: tuple[object, object]) -> None:
    disk, process = Disk(), Process(dies_at)
    assert commit(disk, process) == -1.0
    assert (seen(disk), durable(disk)) == left


def test_who_is_cancelled_waits_for_what_he_has_begun() -> None:
    disk, process = Disk(), Process()
    assert commit(disk, process, cancelled_after_s=0.1) == 1.0
    assert process.told == [FIRST]


def test_who_is_cancelled_before_he_begins_commits_nothing() -> None:
    disk, process = Disk(), Process()
    commit(disk, process, cancelled_after_s=0.0)
    assert process.passed == []
    assert seen(disk) == NONE


def test_a_slow_disk_takes_much_longer() -> None:
    disk = Disk()
    disk.slow = 1
    assert commit(disk, Process(), commit_s=0.001) == pytest.approx(0.001 * SLOWER)
    assert commit(disk, Process(), commit_s=0.1) == SLOW_S_MAX
    assert commit(disk, Process(), commit_s=3.0) == 3.0


def test_a_commit_before_the_program_is_up_is_done_at_once_and_passes_the_same_points() -> None:
    disk, process = Disk(), Process()
    Tables(disk, process, (1.0, 1.0), random.Random(1)).commit(FIRST)
    assert process.passed == ["before a commit", "within a commit", "after a commit"]
    assert durable(disk) == ONE
    dead = Process(alive=False)
    with pytest.raises(Killed):
        Tables(disk, dead, (1.0, 1.0), random.Random(1)).commit(SECOND)
    assert seen(disk) == ONE
