"""`python -m tests.system.busy_writer DIRECTORY SEED`: a store that is written as fast as it can be, until standard
input ends. The file DIRECTORY.returned has the number of the last commit that has returned.

What commit number n writes is told by `tests/system/store_writer.py`. Now and then the store is left as by a kill, and
opened again once nobody looks at it.
"""

import os
import select
import sys
import time
from pathlib import Path
from typing import Final

from common.runtime.owning import InUse
from common.runtime.store import Store
from tests.system.store_writer import MAP_BYTES, kill, writes_of

LEFT_ONCE_IN: Final = 300  # commits
NUMBER_BYTES: Final = 8


def returned(directory: Path) -> int:
    """The number of the last commit that has returned; 0 before the first."""
    try:
        return int.from_bytes(_path(directory).read_bytes())
    except FileNotFoundError:
        return 0


def _path(directory: Path) -> Path:
    return directory.with_suffix(".returned")


def main(directory: Path, seed: int) -> None:
    told = os.open(_path(directory), os.O_WRONLY | os.O_CREAT)
    store, number = _opened(directory), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        store.commit(writes_of(seed, number))
        os.pwrite(told, number.to_bytes(NUMBER_BYTES), 0)
        if number % LEFT_ONCE_IN == 0:
            kill(store)
            store = _opened(directory)
    store.close()


def _opened(directory: Path) -> Store:
    while True:
        try:
            return Store(directory, MAP_BYTES)
        except InUse:  # by one who looks at it
            time.sleep(0.001)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
