"""Who gets the next attempt: placement policies, and the one that is in force unless another is asked for.

`level` is the reference system's rule, weighted by slots: give each job to the node that would be the least loaded
with it, (running + waiting + 1) / slots. Greedy, and for equal jobs it is also the best that can be done: with loads
0, 0, 11 on equal nodes, ten jobs make it 5, 5, 11.

Pure. A policy sees loads, never links.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs


@attrs.define(eq=False)
class Load:
    """What placement knows of a node: its slots, how much is on it (begun or waiting), and how much was ever given."""

    node_id: str
    slots: int
    count: int
    given: int = 0


class Placement(Protocol):
    def choose(self, candidates: Iterable[Load]) -> Load | None:
        """One of the candidates, each of which may run the job and has room; None where there is none."""
        ...


class Level:
    """The least loaded by count per slot; among equals the one that was given the least so far."""

    def choose(self, candidates: Iterable[Load]) -> Load | None:
        return min(candidates, key=_level, default=None)


def _level(load: Load) -> tuple[float, int, str]:
    return ((load.count + 1) / load.slots, load.given, load.node_id)


def moves(loads: Iterable[Load]) -> Iterator[tuple[Load, Load]]:
    """The pairs (busy, idle) between which moving one waiting job brings the counts closer together, the idlest and
    the busiest first. Closer means: even with the job, the idle one stays below the busy. None where all is level."""
    ranked = sorted((load for load in loads if load.slots), key=lambda load: load.count / load.slots)
    for idle in ranked:
        for busy in reversed(ranked):
            if (idle.count + 1) / idle.slots >= busy.count / busy.slots:
                break
            yield busy, idle
