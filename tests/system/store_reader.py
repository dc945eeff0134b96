"""A store that is opened by a process of its own, because what is in it may be anything: the process may be killed by
what it reads, or never come back, and both are findings.

`Reader` is the test's end of it, `main` the process: a directory on each line of standard input, one line of JSON for
each on standard output. It opens the store as the programs do, reads every record, commits one, leaves it as one who
is killed does, and reads it all again: a directory can look well until it is written to.
"""

import base64
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import lmdb

from common.effects import Put, Table
from common.runtime.owning import StoreError
from common.runtime.store import Store
from examples.local_cluster import REPOSITORY
from tests.system.directories import rows
from tests.system.store_writer import MAP_BYTES, Records, kill, make_faulty

CPU_S_MAX: Final = 2.0  # of processor time for one directory; SIGPROF ends who needs more
MEMORY: Final = Path("/dev/shm")
WITNESS: Final = (Table.META, b"witness")  # what the reader commits


@dataclass(frozen=True)
class Reading:
    """What became of one directory."""

    records: Records = field(default_factory=dict)  # as they were found first
    later: Records = field(default_factory=dict)  # and after one more commit, without that
    by_key: Records = field(default_factory=dict)  # each of the keys that were asked for and found
    set_aside: frozenset[tuple[str, bytes]] = frozenset()
    refused: str = ""  # why it could not be opened
    failed: str = ""  # what the store said later: the program ends on it
    killed: str = ""  # the signal that ended the reader


class Reader:
    """Reads directories, one after the other; starts again when that has killed it."""

    def __init__(self, keys: Iterable[tuple[str, bytes]] = (), faults: Sequence[str] = ()) -> None:
        self._keys = [(table, base64.b64encode(key).decode()) for table, key in keys]
        self._faults = faults
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(self._process)

    def read(self, directory: Path) -> Reading:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(directory), self._keys]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return _reading(json.loads(answer))
        self._process = None
        self._end(process)
        return Reading(killed=signal.Signals(-process.returncode).name)

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, *self._faults],
            cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def _end(self, process: subprocess.Popen[str]) -> None:
        with process:  # closes its pipes, and waits
            pass


def in_memory() -> "tempfile.TemporaryDirectory[str]":
    """A place for directories that are read here: in memory where that can be had, for nothing is gained by syncing
    thousands of them to a disk."""
    return tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


def _reading(told: dict[str, Any]) -> Reading:
    records = {name: {_id(it): base64.b64decode(it[2]) for it in told.pop(name)} for name in _RECORDS if name in told}
    return Reading(set_aside=frozenset(_id(it) for it in told.pop("set_aside", ())), **records, **told)


def _id(told: list[str]) -> tuple[str, bytes]:
    return told[0], base64.b64decode(told[1])


# --- in the process --------------------------------------------------------------------------------------------

_RECORDS: Final = ("records", "later", "by_key")


def main() -> None:
    make_faulty(sys.argv[1:])
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)
        directory, keys = json.loads(line)
        print(json.dumps(_look(Path(directory), keys)), flush=True)


def _look(directory: Path, keys: list[list[str]]) -> dict[str, Any]:
    told: dict[str, Any] = {"set_aside": []}
    note = lambda table, key: told["set_aside"].append((table, _text(key)))  # noqa: E731
    try:
        for name, leave in (("records", kill), ("later", Store.close)):
            _with_store(directory, note, lambda store, name=name: told.update(_read(store, name, keys)), leave)
    except StoreError as error:
        told["refused" if "records" not in told else "failed"] = str(error)
    except lmdb.Error as error:
        told["failed"] = repr(error)
    return told


def _with_store(
    directory: Path, note: Callable[[str, bytes], None], use: Callable[[Store], None], leave: Callable[[Store], None]
) -> None:
    store = Store(directory, MAP_BYTES, note)
    try:
        use(store)
        store.commit([Put(*WITNESS, b"seen")])
    finally:
        leave(store)


def _read(store: Store, name: str, keys: list[list[str]]) -> dict[str, Any]:
    found = [(table, _text(key), _text(value)) for table, key, value in rows(store) if (table, key) != WITNESS]
    if name == "later":
        if store.get(*WITNESS) is None:
            raise StoreError("what was committed last is not there")
        return {name: found}
    values = [(table, key, store.get(Table(table), base64.b64decode(key))) for table, key in keys]
    return {name: found, "by_key": [(table, key, _text(value)) for table, key, value in values if value is not None]}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
