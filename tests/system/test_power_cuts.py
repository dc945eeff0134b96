"""Power cuts, by the thousand: the writes that our own store makes are recorded, and disks are put together as they may
be found when the power went at any moment. Every commit that had returned is on them entirely, and none in part.

What a disk may look like: everything that was written to a file before its last sync that returned. Of what was
written since, anything: each write, each page or each sector of 512 bytes came through or did not. Files are there, and
called what they are called, from the sync of the directory on; before it, names change in order. A sector is written
whole or not at all, and a sync keeps its word, and so does a write to a descriptor whose writes are synced: while it is
under way, any sector of it came through or did not, and when it has returned, all did. That is what is assumed
(docs/guarantees.md). The checks can fail: on the same disks under a store that does not write as ours does, they do.

`POWER_CUTS` and `POWER_CUTS_SEED` in the environment choose another run.
"""

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from common.runtime import journal
from examples.local_cluster import REPOSITORY
from tests.system.reach import reach, seed
from tests.system.recorder import Call, Renamed, Said, Synced, Written, record
from tests.system.store_reader import Reader, Reading, in_memory
from tests.system.store_writer import (
    FAULTS_IN_READING,
    FAULTS_IN_WRITING,
    LARGE_ONCE_IN,
    LEFT_ONCE_IN,
    NUMBER,
    Records,
    states,
)

pytestmark = pytest.mark.system

IMAGES: Final = reach("POWER_CUTS", 600, soak=10_000)
IMAGES_OF_BAD: Final = 30  # of a store with a fault: one that is found is enough
COMMITS: Final = 250
FILES: Final = ("data.mdb", journal.FILE)
LOCKS: Final = {"owner.lock", "lock.mdb"}  # which say nothing after a power cut
SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096


@dataclass
class File:
    """What is in it for sure, and what was written since and may be."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[Written] = field(default_factory=list)

    def sync(self) -> None:
        for write in self.pending:
            _put(self.certain, write.offset, write.data)
        self.pending.clear()

    def after_a_cut(self, under_way: Call | None, chance: random.Random) -> bytes:
        """What may be found in it. `under_way` is the call that had begun and not returned."""
        image = bytearray(self.certain)
        piece_bytes = chance.choice((sys.maxsize, PAGE_BYTES, SECTOR_BYTES))
        through = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for write in self.pending:
            for offset, data in _pieces(write, piece_bytes):
                if (write.durable and write is not under_way) or chance.random() < through:
                    _put(image, offset, data)
        return bytes(image)


class Disk:
    """A directory: its files, what they are called for sure, and what was made and renamed since."""

    def __init__(self) -> None:
        self._names: dict[str, File] = {}
        self._certain: dict[str, File] = {}
        self._renamed: list[dict[str, File]] = []  # the names after each change

    def take(self, call: Call) -> None:
        """A call has begun, or returned: there is no difference, but for what is told to `after_a_cut`."""
        match call:
            case Written(name):
                if name not in self._names:
                    self._call({**self._names, name: File()})
                self._names[name].pending.append(call)
            case Renamed(old, new):
                self._call({name: file for name, file in self._names.items() if name != old} | {new: self._names[old]})
            case Synced("."):
                self._certain = self._names
                self._renamed.clear()
            case Synced(name) if name in self._names:
                self._names[name].sync()

    def _call(self, names: dict[str, File]) -> None:
        self._names = names
        self._renamed.append(names)

    def after_a_cut(self, under_way: Call | None, chance: random.Random) -> dict[str, bytes]:
        names = chance.choice([self._certain, *self._renamed])
        return {name: file.after_a_cut(under_way, chance) for name, file in names.items()}


def _put(image: bytearray, offset: int, data: bytes) -> None:
    image.extend(bytes(max(0, offset + len(data) - len(image))))
    image[offset : offset + len(data)] = data


def _pieces(write: Written, piece_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Cut where the disk would: at multiples of the piece, counted from the start of the file."""
    at = 0
    while at < len(write.data):
        size = piece_bytes - (write.offset + at) % piece_bytes
        yield write.offset + at, write.data[at : at + size]
        at += size


@dataclass(frozen=True)
class Cut:
    """A directory after the power was cut, and which commits may be the last in it."""

    files: Mapping[str, bytes]
    returned: int
    begun: int
    moment: int

    def what_is_wrong(self, reading: Reading, states: Sequence[Records]) -> str:
        """Empty where the store is as it was after one of the commits that it may be at, and can be written to."""
        if reading.refused or reading.failed or reading.killed or reading.set_aside:
            return f"{reading.refused}{reading.failed}{reading.killed} {sorted(reading.set_aside)}".strip()
        number = int(reading.records.get(NUMBER, b"0"))
        if not self.returned <= number <= self.begun:
            return f"the last commit is number {number}, and number {self.returned} had returned"
        if reading.records != states[number]:
            return f"commit {number} is there, and not as it was written"
        return "" if reading.later == reading.records else "it changed when something else was written"


def cuts(calls: Sequence[Call], moments: Iterable[int], chance: random.Random) -> Iterator[Cut]:
    """The disk at each of these moments, in order. A moment is the number of a call that has begun."""
    disk, returned, begun, taken = Disk(), 0, 0, 0
    for moment in moments:
        for call in calls[taken:moment]:
            disk.take(call)
            match call.text.split() if isinstance(call, Said) else ():
                case ["begun", number]:
                    begun = int(number)
                case ["returned", number]:
                    returned = int(number)
        if taken <= moment and isinstance(calls[moment], Written | Renamed):
            disk.take(calls[moment])  # what has begun may be done; a sync is nothing before it has returned
            moment += 1
        taken = max(taken, moment)
        yield Cut(disk.after_a_cut(calls[taken - 1], chance), returned, begun, moment)


def recorded(directory: Path, drawn: int, commits: int, *faults: str) -> list[Call]:
    """What a store asked of the kernel from its making to its closing; it is the whole truth about its files."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.store_writer", str(directory), str(drawn), str(commits), *faults],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        directory.mkdir()
        calls = list(record(process, directory, process.stdin.close))
    calls = [call for call in calls if not (isinstance(call, Written | Synced) and call.name in LOCKS)]
    disk = Disk()
    for call in [*calls, *map(Synced, FILES), Synced(".")]:
        disk.take(call)
    left = {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in LOCKS}
    assert sorted(left) == sorted(FILES)
    assert disk.after_a_cut(None, random.Random()) == left, "they were written in a way that was not recorded"
    return calls


def findings(
    calls: Sequence[Call], moments: Iterable[int], expected: Sequence[Records], seed: int, *faults: str
) -> list[str]:
    """What is wrong with the disks of these moments, in words."""
    found = []
    with in_memory() as place, Reader(faults=faults) as reader:
        directory = Path(place) / "data"
        for cut in cuts(calls, sorted(moments), random.Random(f"{seed} cuts")):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            for name, content in cut.files.items():
                (directory / name).write_bytes(content)
            if wrong := cut.what_is_wrong(reader.read(directory), expected):
                found.append(f"cut at call {cut.moment} of {len(calls)}, {cut.returned} commits had returned: {wrong}")
    return found


def waits(calls: Iterable[Call]) -> Counter[str]:
    """How often a store waited for its disk, and for what."""
    told: Counter[str] = Counter()
    for call in calls:
        match call:
            case Written(journal.FILE, offset) if call.durable:
                told["journal" if offset else "journal, at its start"] += 1
            case Written() if call.durable:
                told["meta page"] += 1
            case Synced(name):
                told[f"sync of {name}"] += 1
            case Said(text):
                told[text.split()[0]] += 1
    return told


def while_opening(calls: Sequence[Call]) -> list[int]:
    """The moments from one who leaves a store until whoever opens it has appended three commits."""
    found, appended = [], 3
    for moment, call in enumerate(calls):
        match call:
            case Said(text) if text.startswith("left "):
                appended = 0
            case Written(journal.FILE):
                appended += 1
        if appended < 3:
            found.append(moment)
    return found


@pytest.mark.timeout(60 + IMAGES // 15)
def test_a_power_cut_at_any_moment_takes_no_commit_that_had_returned_and_leaves_none_in_part(tmp_path: Path) -> None:
    drawn = seed("POWER_CUTS_SEED")
    calls = recorded(tmp_path / "data", drawn, COMMITS)
    told = waits(calls)
    print(f"{dict(told)} in {COMMITS} commits, {IMAGES} images of them")
    moments = random.Random(drawn).choices(range(len(calls)), k=IMAGES)
    moments += random.Random(drawn).choices(while_opening(calls), k=IMAGES // 4)
    assert findings(calls, moments, states(drawn, COMMITS), drawn) == []
    assert told["returned"] == COMMITS
    assert COMMITS // 2 < told["journal"] < COMMITS - COMMITS // LARGE_ONCE_IN
    assert told["opened"] > COMMITS // LEFT_ONCE_IN
    assert told["journal, at its start"] - told["opened"] >= 5, "it hardly ever began again"


def test_a_power_cut_while_a_store_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    drawn = seed("POWER_CUTS_SEED")
    calls = recorded(tmp_path / "data", drawn, 1)
    first = next(number for number, call in enumerate(calls) if isinstance(call, Said))
    renamed = [number for number, call in enumerate(calls) if isinstance(call, Renamed)]
    moments = [number for number in range(first) for _ in range(max(2, IMAGES // 300))]
    for number in renamed:  # when a file comes into being
        moments += [near for near in range(max(0, number - 5), number + 5) for _ in range(max(10, IMAGES // 60))]
    assert len(renamed) == len(FILES)
    assert findings(calls, moments, states(drawn, 1), drawn) == []


@pytest.mark.parametrize("fault", [*FAULTS_IN_WRITING, *FAULTS_IN_READING])
def test_a_store_that_does_not_write_as_ours_is_found_out(tmp_path: Path, fault: str) -> None:
    drawn = seed("POWER_CUTS_SEED")
    calls = recorded(tmp_path / "data", drawn, COMMITS, *{fault} & FAULTS_IN_WRITING.keys())
    first = next(number for number, call in enumerate(calls) if isinstance(call, Said))
    moments = random.Random(drawn).choices(range(first, len(calls)), k=IMAGES_OF_BAD)
    moments += random.Random(drawn).choices(while_opening(calls), k=IMAGES_OF_BAD)
    found = findings(calls, moments, states(drawn, COMMITS), drawn, *{fault} & FAULTS_IN_READING.keys())
    print(f"{fault}: {len(found)} of {2 * IMAGES_OF_BAD} images are wrong, the first: {found[:1]}")
    assert found
