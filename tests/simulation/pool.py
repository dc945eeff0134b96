"""Stories by the hundred: told on every core at once, and handed back in order."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
_CHUNK: Final = 4


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def told(tell: Callable[[_T], _R], of: Sequence[_T]) -> Iterator[_R]:
    """What `tell` makes of each. It is a function that processes can be told of: one of a module. Who takes no more is
    waited for no longer than it takes to tell what was begun."""
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(tell, of, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)
