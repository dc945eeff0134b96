"""Disks that change what was written: bits are flipped in data directories, in records and in LMDB's own pages. Nothing
is ever served that was not written, and nothing goes missing without a word.

What may become of a flipped bit: it hits nothing that counts; its record is set aside and told of, and all others live
on; the store refuses to open, or fails when it comes upon it, which ends the program; or LMDB ends the process itself,
by an assertion or by what the kernel makes of a wild pointer. All of it is counted.

`FLIPS` and `FLIPS_SEED` in the environment choose another run.
"""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from common.runtime.store import Store
from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.directories import damage_of
from tests.system.programs import data_dir
from tests.system.reach import reach, seed
from tests.system.store_reader import Reader, Reading, in_memory
from tests.system.store_writer import MAP_BYTES, Records, states, writes_of
from tests.system.watching import statistic, where

pytestmark = pytest.mark.system

FLIPS: Final = reach("FLIPS", 200, soak=6000)
COMMITS: Final = 60
PAGE_BYTES: Final = 4096
HEAD_BYTES: Final = 30  # of a page: its header, and where the first records on it are
META_BYTES: Final = 160  # of each of the first two pages


@pytest.mark.timeout(60 + FLIPS // 10)
def test_no_flipped_bit_changes_what_is_read_or_hides_it_without_a_word(tmp_path: Path) -> None:
    drawn = seed("FLIPS_SEED")
    chance = random.Random(drawn)
    written, expected = _store(tmp_path / "data", drawn)
    became: Counter[str] = Counter()
    with in_memory() as place, Reader(expected) as reader:
        directory = Path(place) / "data"
        for bit in _bits(written, chance):
            rotten = bytearray(written)
            rotten[bit // 8] ^= 1 << bit % 8
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            (directory / "data.mdb").write_bytes(rotten)
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
    return (directory / "data.mdb").read_bytes(), states(drawn, COMMITS)[-1]


def _bits(file: bytes, chance: random.Random) -> Sequence[int]:
    """As many anywhere as in the heads of pages; fewer in the two small ones that say where everything is."""
    heads = [
        at for at in range(0, len(file), PAGE_BYTES) if at == int.from_bytes(file[at : at + 8], "little") * PAGE_BYTES
    ]
    used_bytes = len(file.rstrip(b"\0"))  # behind them is what the store keeps to spare
    anywhere = [chance.randrange(used_bytes) for _ in range(FLIPS // 2)]
    in_heads = [chance.choice(heads) + chance.randrange(HEAD_BYTES) for _ in range(FLIPS - FLIPS // 2 - FLIPS // 8)]
    in_meta = [chance.choice(heads[:2]) + chance.randrange(META_BYTES) for _ in range(FLIPS // 8)]
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
        for text in (b"the end of 4\n", b"echo waited in place 3"):
            _flip(data_dir(cluster, name) / "data.mdb", text)
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
        _flip(data_dir(cluster, name) / "data.mdb", b"live")
        assert _refusal(cluster, name)


def _refusal(cluster: LocalCluster, name: str) -> bool:
    with pytest.raises(Exception, match="ended with exit code 74") as told:
        cluster.start(name)
    return "store.unusable" in str(told.value) and "restore" in str(told.value)
