"""Copies and looks at a directory while somebody writes to it as fast as it can be written: each has everything that
was committed before it began, and no commit in part, wherever the commits are: in the journal, in LMDB, or on the way.

`COPIES` (seconds) and `COPIES_SEED` in the environment choose another run.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from common.effects import Put, Table
from common.runtime.owning import StoreError
from common.runtime.store import Store
from common.runtime.tables import copy_to, snapshot_of
from examples.local_cluster import REPOSITORY
from tests.system.busy_writer import LEFT_ONCE_IN, returned
from tests.system.client import until
from tests.system.directories import rows
from tests.system.reach import reach, seed
from tests.system.store_reader import in_memory
from tests.system.store_writer import MAP_BYTES, NUMBER, Records, writes_of

pytestmark = pytest.mark.system

SECONDS: Final = reach("COPIES", 3, soak=120)


class Written:
    """What the store holds after commit after commit, of which the numbers go up."""

    def __init__(self, drawn: int) -> None:
        self._seed = drawn
        self._number = 0
        self._records: Records = {}

    def after(self, number: int) -> Records:
        while self._number < number:
            self._number += 1
            for write in writes_of(self._seed, self._number):
                if isinstance(write, Put):
                    self._records[write.table, write.key] = write.value
                else:
                    self._records.pop((write.table, write.key), None)
        return self._records


def copied(directory: Path) -> Records:
    target = directory.with_name("copy")
    copy_to(directory, target)
    store = Store(target, MAP_BYTES)
    found: Records = {(table, key): value for table, key, value in rows(store)}
    store.close()
    shutil.rmtree(target)
    return found


def looked_at(directory: Path) -> Records:
    with snapshot_of(directory) as snapshot:
        found = {(table, key): value for table in map(str, Table) for key, value in snapshot.scan(table)}
        assert {value is None for value in found.values()} <= {False}
        held = {(table, key) for table in map(str, Table) for key in snapshot.keys(table, b"")}
        assert held == found.keys()
        return {name: value for name, value in found.items() if value is not None}


@contextmanager
def busy(directory: Path, drawn: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.busy_writer", str(directory), str(drawn)],
        cwd=REPOSITORY, stdin=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            until("it writes", lambda: returned(directory) > 0 or process.poll() is not None)
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
    assert process.returncode == 0


@pytest.mark.timeout(60 + 3 * SECONDS)
@pytest.mark.parametrize("read", [copied, looked_at])
def test_a_copy_of_a_directory_in_use_has_all_that_was_committed_before_it_began(
    read: Callable[[Path], Records],
) -> None:
    drawn = seed("COPIES_SEED")
    written, told = Written(drawn), Counter[str]()
    with in_memory() as place:
        directory = Path(place) / "data"
        with busy(directory, drawn):
            ends_at = time.monotonic() + SECONDS
            while time.monotonic() < ends_at or returned(directory) < 2 * LEFT_ONCE_IN:
                before = returned(directory)
                found = read(directory)
                after = returned(directory) + 1  # one may be under way
                number = int(found[NUMBER])
                assert before <= number <= after
                assert found == written.after(number), f"commit {number} is there in part"
                told["reads"] += 1
                told["written meanwhile"] += after > before + 1
        last = returned(directory)
        assert read(directory) == written.after(last)
    print(f"{last} commits, {dict(told)}")
    assert told["written meanwhile"] > told["reads"] / 4


@pytest.mark.parametrize("look", [copied, looked_at])
def test_damage_to_the_journal_of_a_directory_in_use_is_no_end_of_it(
    tmp_path: Path, look: Callable[[Path], Records]
) -> None:
    """It looks as if somebody had written meanwhile; but it looks so again."""
    program = (
        "from common.runtime.store import Store; from common.effects import Put, Table; from pathlib import Path\n"
        f"store = Store(Path({str(tmp_path / 'data')!r}), 1 << 26)\n"
        "for number in range(100): store.commit([Put(Table.JOBS, b'%03d' % number, bytes(100))])\n"
        "print('ready', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert len(look(tmp_path / "data")) == 100
        content = bytearray((tmp_path / "data" / "journal").read_bytes())
        content[content.index(b"009")] ^= 1
        (tmp_path / "data" / "journal").write_bytes(content)
        with pytest.raises(StoreError, match="is damaged, and a later one is there"):
            look(tmp_path / "data")
        other.communicate(b"\n")
