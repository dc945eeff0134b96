"""The outside: everything that a program touches beyond its own memory, handed to it by whoever starts it.

The composition roots (`node/app.py`, `balancer/app.py`) hand over the real things; the simulation in
`tests/simulation` hands over a disk, a network and a calendar of its own, and so runs the very code that is shipped.
Nothing else in either program may read a clock, draw a random number, open a file or a socket.
"""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from common.memory import Reader
from common.runtime.driver import Commits, InPlaceWhileQuick, Observer, RunBlocking, RunHere, in_one_thread, never_here


class Tables(Commits, Reader, Protocol):
    """What a program needs of a store: committed records, and a way to commit more."""


Nonce = Callable[[int], bytes]
"""So many bytes that nobody can foresee."""


@attrs.frozen(kw_only=True)
class Outside:
    """What both programs need. Connections and executors are handed over apart, because only nodes have them."""

    tables: Tables
    wall: Callable[[], float]  # calendar seconds
    chance: random.Random  # jitter and tags; nothing that has to be secret
    nonce: Nonce  # ids and challenges
    run_blocking: RunBlocking
    run_here: RunHere = never_here
    observers: Sequence[Observer] = ()


def real(tables: Tables, observers: Sequence[Observer]) -> Outside:
    """The outside of a program that runs in earnest."""
    commits = InPlaceWhileQuick(in_one_thread(), time.monotonic)
    return Outside(
        tables=tables,
        wall=time.time,
        chance=random.Random(),
        nonce=secrets.token_bytes,
        run_blocking=commits.run,
        run_here=commits.run_here,
        observers=observers,
    )
