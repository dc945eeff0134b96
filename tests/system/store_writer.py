"""`python -m tests.system.store_writer DIRECTORY SEED COMMITS [FAULT …]`: a store that is written while somebody
watches.

Says "ready", waits for the end of its standard input, opens the store, commits, and tells /dev/null where it is: only
who watches its system calls can hear that. Now and then it leaves the store, mostly as one who is killed does, and
opens it again.

What commit number n writes follows from the seed, so that the watcher knows what has to be there. With one of
`FAULTS_IN_WRITING` the store is not as ours.
"""

import os
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import lmdb
import msgspec

from common.effects import Delete, Put, Table, Write
from common.limits import MIB
from common.runtime import journal
from common.runtime.store import Store

MAP_BYTES: Final = 64 * MIB
NUMBER: Final = (Table.META, b"commit")  # holds the number of the last commit
TABLES: Final = (Table.JOBS, Table.BODIES, Table.OUTPUTS, Table.LIVE)
KEYS: Final = 40
LARGE_ONCE_IN: Final = 40  # commits
LEFT_ONCE_IN: Final = 60  # and once more a little later

Records: TypeAlias = dict[tuple[str, bytes], bytes]


def writes_of(seed: int, number: int) -> list[Write]:
    """The commit with this number: some records changed, some deleted, of a page's size and of many pages'. Now and
    then one that is too large for the journal."""
    chance = random.Random(f"{seed} commit {number}")
    writes: dict[tuple[Table, bytes], Write] = {}
    large = number % LARGE_ONCE_IN == 0
    for _ in range(12 if large else chance.randint(1, 8)):
        table, key = chance.choice(TABLES), b"key-%02d" % chance.randrange(KEYS)
        size = 9000 if large else chance.choice((20, 200, 200, 1500, 9000))
        value = (b"commit %d of %s " % (number, key) * size)[:size]
        writes[table, key] = Delete(table, key) if chance.random() < 0.25 else Put(table, key, value)
    return [*writes.values(), Put(*NUMBER, b"%d" % number)]


def states(seed: int, commits: int) -> list[Records]:
    """What is in the store before the first commit, after it, after the second …"""
    states: list[Records] = [{}]
    for number in range(1, commits + 1):
        state = dict(states[-1])
        for write in writes_of(seed, number):
            if isinstance(write, Put):
                state[write.table, write.key] = write.value
            else:
                state.pop((write.table, write.key), None)
        states.append(state)
    return states


def kill(store: Store) -> None:
    """Leaves the directory as one who is killed does: nothing more is written, and nobody has it."""
    store._taken.close()


def _leave(store: Store, seed: int, number: int) -> bool:
    """Behind this commit, perhaps."""
    if (seed + number) % LEFT_ONCE_IN not in (0, 7):
        return False
    (Store.close if random.Random(f"{seed} leave {number}").random() < 0.2 else kill)(store)
    return True


# --- what a store must not do ------------------------------------------------------------------------------------


def _open_lmdb_with(**options: bool) -> None:
    lmdb.open = partial(lmdb.open, **options)


def _append_without_waiting() -> None:
    os.O_DSYNC = 0  # type: ignore[misc]


def _believe_any_record() -> None:
    """If only it can be decoded."""

    def content(id: bytes, number: int, found: bytes, at: int) -> bytes | None:
        length, _, its_number = journal._HEAD.unpack_from(found, at)
        content = found[at + journal._HEAD.size :][:length]
        with suppress(msgspec.DecodeError):
            journal._decode(content)
            return content if its_number == number else None
        return None

    journal._content = content


FAULTS_IN_WRITING: Final[dict[str, Callable[[], None]]] = {
    "LMDB does not sync": partial(_open_lmdb_with, sync=False),
    "LMDB does not sync its meta pages": partial(_open_lmdb_with, metasync=False),
    "the journal is not synced": _append_without_waiting,
}
FAULTS_IN_READING: Final[dict[str, Callable[[], None]]] = {
    "who opens it does not look at checksums": _believe_any_record,
}


def make_faulty(faults: Iterable[str]) -> None:
    """All stores of this process, from now on."""
    for fault in faults:
        (FAULTS_IN_WRITING | FAULTS_IN_READING)[fault]()


def main(directory: Path, seed: int, commits: int, faults: Iterable[str]) -> None:
    make_faulty(faults)
    heard = os.open(os.devnull, os.O_WRONLY)
    print("ready", flush=True)
    sys.stdin.read()
    store = Store(directory, MAP_BYTES)
    for number in range(1, commits + 1):
        writes = writes_of(seed, number)
        os.write(heard, b"begun %d" % number)
        store.commit(writes)
        os.write(heard, b"returned %d" % number)
        if _leave(store, seed, number):
            os.write(heard, b"left %d" % number)
            store = Store(directory, MAP_BYTES)
            os.write(heard, b"opened %d" % number)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
