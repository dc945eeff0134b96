"""`python -m tests.system.store_writer DIRECTORY SEED COMMITS [NAME=0 …]`: a store that is written while somebody
watches.

Says "ready", waits for the end of its standard input, opens the store, commits, and tells /dev/null where it is: only
who watches its system calls can hear that. `NAME=0` sets an option of LMDB's environment, as it must not be set.

What commit number n writes follows from the seed, so that the watcher knows what has to be there.
"""

import os
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from common.effects import Delete, Put, Table, Write
from common.limits import MIB
from common.runtime.store import Store

MAP_BYTES: Final = 64 * MIB
NUMBER: Final = (Table.META, b"commit")  # holds the number of the last commit
TABLES: Final = (Table.JOBS, Table.BODIES, Table.OUTPUTS, Table.LIVE)
KEYS: Final = 40

Records: TypeAlias = dict[tuple[str, bytes], bytes]


def writes_of(seed: int, number: int) -> list[Write]:
    """The commit with this number: some records changed, some deleted, of a page's size and of many pages'."""
    chance = random.Random(f"{seed} commit {number}")
    writes: dict[tuple[Table, bytes], Write] = {}
    for _ in range(chance.randint(1, 8)):
        table, key = chance.choice(TABLES), b"key-%02d" % chance.randrange(KEYS)
        size = chance.choice((20, 200, 200, 1500, 9000))
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


def main(directory: Path, seed: int, commits: int, options: Iterator[str]) -> None:
    lmdb.open = partial(lmdb.open, **{name: value == "1" for name, _, value in (it.partition("=") for it in options)})
    heard = os.open(os.devnull, os.O_WRONLY)
    print("ready", flush=True)
    sys.stdin.read()
    store = Store(directory, MAP_BYTES)
    for number in range(1, commits + 1):
        writes = writes_of(seed, number)
        os.write(heard, b"begun %d" % number)
        store.commit(writes)
        os.write(heard, b"returned %d" % number)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), iter(sys.argv[4:]))
