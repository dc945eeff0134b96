"""Disks that change what was written: bits are flipped in data directories, in records, in LMDB's own pages and in the
journal. Nothing is ever served that was not written, and nothing goes missing without a word, but for this: damage to
the last record of the journal reads as a commit that was under way when the power went, and the store is as it was
before that commit.

What may become of a flipped bit: it hits nothing that counts; its record is set aside and told of, and all others live
on; the store refuses to open, or fails when it comes upon it, which ends the program; or LMDB ends the process itself,
by an assertion or by what the kernel makes of a wild pointer. All of it is counted. A directory that was left by a kill
is refused where any record of its journal is damaged but the last.

`FLIPS` and `FLIPS_SEED` in the environment choose another run.
"""

import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from common.runtime import journal
from common.runtime.store import Store
from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.directories import MAP_BYTES as STORE_BYTES
from tests.system.directories import damage_of
from tests.system.programs import data_dir
from tests.system.reach import reach, seed
from tests.system.store_reader import Reader, Reading, in_memory
from tests.system.store_writer import MAP_BYTES, Records, kill, states, writes_of
from tests.system.watching import statistic, where

pytestmark = pytest.mark.system

FLIPS: Final = reach("FLIPS", 200, soak=6000)
COMMITS: Final = 60
LATE_COMMITS: Final = 5  # at least so many are in the journal of a store that was killed
DATA: Final = "data.mdb"
PAGE_BYTES: Final = 4096
HEAD_BYTES: Final = 30  # of a page: its header, and where the first records on it are
NODE_HEAD_BYTES: Final = 8  # before each key
META_BYTES: Final = 160  # of each of the first two pages


@pytest.mark.timeout(60 + FLIPS // 10)
def test_no_flipped_bit_changes_what_is_read_or_hides_it_without_a_word(tmp_path: Path) -> None:
    drawn = seed("FLIPS_SEED")
    chance = random.Random(drawn)
    written, expected = _store(tmp_path / "data", drawn)
    became: Counter[str] = Counter()
    with in_memory() as place, Reader(expected) as reader:
        directory = Path(place) / "data"
        for bit in _bits(written, chance, FLIPS):
            _put(directory, {DATA: _flipped(written, bit)})
            became[_judged(reader.read(directory), expected, f"{bit % 8} of byte {bit // 8}")] += 1
    print(f"of {became.total()} flipped bits: {dict(became)}")
    assert became["set aside"] > FLIPS / 20
    assert became["refused"] + became["failed"] > FLIPS / 40
    assert became["killed"] < FLIPS / 20


def _store(directory: Path, drawn: int) -> tuple[bytes, Records]:
    """A store with known records: the bytes of its file, and what is in it."""
    store = Store(directory, MAP_BYTES)
    for number in range(1, COMMITS + 1):
        store.commit(writes_of(drawn, number))
    store.close()
    return (directory / DATA).read_bytes(), states(drawn, COMMITS)[-1]


def _put(directory: Path, files: Mapping[str, bytes]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def _flipped(file: bytes, bit: int) -> bytes:
    rotten = bytearray(file)
    rotten[bit // 8] ^= 1 << bit % 8
    return bytes(rotten)


def _bits(file: bytes, chance: random.Random, flips: int) -> Sequence[int]:
    """As many anywhere as in the heads of pages; fewer in the two small ones that say where everything is."""
    heads = [
        at for at in range(0, len(file), PAGE_BYTES) if at == int.from_bytes(file[at : at + 8], "little") * PAGE_BYTES
    ]
    used_bytes = len(file.rstrip(b"\0"))  # behind them is what the store keeps to spare
    anywhere = [chance.randrange(used_bytes) for _ in range(flips // 2)]
    in_heads = [chance.choice(heads) + chance.randrange(HEAD_BYTES) for _ in range(flips - flips // 2 - flips // 8)]
    in_meta = [chance.choice(heads[:2]) + chance.randrange(META_BYTES) for _ in range(flips // 8)]
    return [8 * byte + chance.randrange(8) for byte in anywhere + in_heads + in_meta]


def _judged(reading: Reading, expected: Records, bit: str) -> str:
    """What became of the store, in a word or two."""
    if reading.killed:
        return "killed"
    if reading.refused:
        return "refused"
    if reading.failed:
        return "failed"
    for found in (reading.records, reading.by_key, reading.later):
        wrong = {name for name, value in found.items() if expected.get(name) != value}
        hidden = expected.keys() - found.keys() - reading.set_aside
        assert not wrong, f"with bit {bit} flipped, this was read and had not been written: {wrong}"
        assert not hidden or reading.set_aside, f"with bit {bit} flipped, nothing was told of these: {hidden}"
    return "set aside" if reading.set_aside else "as before"


# --- with a journal --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """What a kill has left of a store, and what is in it: all of that, and without its last commit."""

    files: Mapping[str, bytes]
    records: Records
    before: Records
    mark: bytes  # that LMDB has
    last: range  # the bytes of the journal's last record
    commits: int  # in the journal

    def with_flipped(self, name: str, bit: int) -> Mapping[str, bytes]:
        return {**self.files, name: _flipped(self.files[name], bit)}

    def bytes_of_the_mark(self) -> Sequence[int]:
        """With its key, and what LMDB says of both; wherever pages have it, in use or not."""
        node, data = b"journal" + self.mark, self.files[DATA]
        found = [at for at in range(len(data)) if data.startswith(node, at)]
        return [byte for at in found for byte in range(at - NODE_HEAD_BYTES, at + len(node))]


def _killed(directory: Path, drawn: int) -> Killed:
    """A store that LMDB has a part of; the journal has the rest, of which there are some commits."""
    store = Store(directory, MAP_BYTES)
    assert store._journal is not None
    mark, begun, late, number = store._journal.mark, [0], 0, 0
    while number < COMMITS or late < LATE_COMMITS:
        number += 1
        store.commit(writes_of(drawn, number))
        if not store._late.written:
            mark, begun, late = store._journal.mark, [0], 0
        else:
            begun, late = [*begun, store._journal._end], late + 1
    kill(store)
    files = {name: (directory / name).read_bytes() for name in (DATA, journal.FILE)}
    *_, before, records = states(drawn, number)
    return Killed(files, records, before, mark.pack(), range(begun[-2], begun[-1]), late)


@pytest.mark.timeout(60 + FLIPS // 10)
def test_no_flipped_bit_of_a_directory_that_was_left_by_a_kill_takes_more_than_the_last_commit(tmp_path: Path) -> None:
    drawn = seed("FLIPS_SEED")
    chance = random.Random(drawn)
    killed = _killed(tmp_path / "data", drawn)
    mark, quarter = killed.bytes_of_the_mark(), FLIPS // 4
    became: dict[str, Counter[str]] = {}
    with in_memory() as place, Reader(killed.records) as reader:

        def look(where: str, name: str, bit: int) -> None:
            _put(Path(place) / "data", killed.with_flipped(name, bit))
            judge = _judged_of_the_last if where == "the last record" else _judged_of_killed
            word = judge(reader.read(Path(place) / "data"), killed, f"{bit % 8} of byte {bit // 8} of {name}")
            became.setdefault(where, Counter())[word] += 1

        for bit in _bits(killed.files[DATA], chance, quarter):
            look("LMDB", DATA, bit)
        for _ in range(quarter):
            look("the mark", DATA, 8 * chance.choice(mark) + chance.randrange(8))
            look("the journal", journal.FILE, chance.randrange(8 * killed.last.start))
            look("the last record", journal.FILE, 8 * chance.choice(killed.last) + chance.randrange(8))
            look("behind it", journal.FILE, chance.randrange(8 * killed.last.stop, 8 * journal.JOURNAL_BYTES))
        _put(Path(place) / "data", {DATA: killed.files[DATA]})
        assert "the file journal is missing" in reader.read(Path(place) / "data").refused
    print(f"of bits with {killed.commits} commits in the journal: {became}")
    assert became["the mark"]["refused"] > quarter / 10
    assert became["the journal"]["refused"] > quarter / 2
    assert became["the journal"].keys() <= {"refused", "as before"}, "there is some room between two records"
    assert became["the last record"]["without the last commit"] > quarter / 2
    assert became["behind it"].keys() == {"as before"}


def _judged_of_killed(reading: Reading, killed: Killed, bit: str) -> str:
    return _judged(reading, killed.records, bit)


def _judged_of_the_last(reading: Reading, killed: Killed, bit: str) -> str:
    if reading.records != killed.before:
        return _judged(reading, killed.records, bit)
    assert reading.by_key == {name: killed.before[name] for name in killed.before.keys() & killed.records.keys()}
    assert reading.later == killed.before
    return "without the last commit"


# --- in the programs -------------------------------------------------------------------------------------------


def test_a_job_whose_records_have_rotted_is_told_of_and_all_others_live_on(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, slots=1)
    node = cluster.address("node1")
    ended = {ticket: wait(node, ticket) for ticket in (submit(node, f"sh echo the end of {n}") for n in range(12))}
    printed, untouched = list(ended)[4], [ticket for ticket in ended if ticket != list(ended)[4]]
    begun = submit(node, "sh sleep 300")
    where(cluster, begun, asked="node1")
    waiting = [submit(node, f"sh echo waited in place {n}") for n in range(6)]
    until("the balancer has all of them", lambda: statistic(node, "jobs_live") == 1 + len(waiting))
    for name in ("balancer", "node1"):
        cluster.kill(name)
        Store(data_dir(cluster, name), STORE_BYTES).close()  # so that nothing is in the journal
        for text in (b"the end of 4\n", b"echo waited in place 3"):
            _flip(data_dir(cluster, name) / DATA, text)
    for name in ("balancer", "node1"):
        cluster.start(name)
    cluster.wait_until_joined()  # the only slot is free when the ledger has heard of the cancellation
    assert ask(node, f"cancel {begun}").ok
    assert _failed_for(wait(node, waiting.pop(3)), "cannot_start")
    assert [wait(node, ticket).body[:16] for ticket in waiting] == [b"waited in place "] * 5
    assert ask(node, f"result {printed}").body == bytes(len("the end of 4\n")), "zeros of its length"
    assert {ticket: ask(node, f"result {ticket}") for ticket in untouched} == {it: ended[it] for it in untouched}
    assert wait(node, submit(node, "sh echo well")).body == b"well\n"
    for name in ("balancer", "node1"):
        assert "record.quarantined" in cluster.log_path(name).read_text()
    assert cluster.ended() == {}
    assert len(damage_of(cluster)) >= 3, "who looks at the directories afterwards sees it too"


def _flip(path: Path, text: bytes) -> None:
    """Flips a bit of every copy of this text, in pages that are in use and in pages that are not."""
    data = path.read_bytes()
    assert text in data, f"{path} does not hold {text!r}"
    changed = bytes([text[0] ^ 1]) + text[1:]
    path.write_bytes(data.replace(text, changed))


def _failed_for(reply: Reply, reason: str) -> bool:
    return (reply.field("state"), reply.field("reason")) == ("failed", reason)


def test_a_program_whose_pages_have_rotted_says_so_and_does_not_start(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1)
    for name in ("balancer", "node1"):
        cluster.kill(name)
        _flip(data_dir(cluster, name) / DATA, b"live")
        assert _refusal(cluster, name)


def _refusal(cluster: LocalCluster, name: str) -> bool:
    with pytest.raises(Exception, match="ended with exit code 74") as told:
        cluster.start(name)
    return "store.unusable" in str(told.value) and "restore" in str(told.value)
