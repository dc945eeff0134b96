"""Who gets the next attempt: placement policies, and the one that is in force unless another is asked for.

`level` is the reference system's rule, weighted by slots: give each job to the node that would be the least loaded
with it, (running + waiting + 1) / slots. Greedy, and for equal jobs it is also the best that can be done: with loads
0, 0, 11 on equal nodes, ten jobs make it 5, 5, 11.

Pure. A policy sees loads, never links.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

import attrs


@attrs.define(eq=False)
class Load:
    """What placement knows of a node: its slots, how much is on it (begun or waiting), and how much was ever given."""

    node_id: str
    slots: int
    count: int
    given: int = 0


Rank: TypeAlias = tuple[float, int, str]


class Placement(Protocol):
    def rank(self, load: Load) -> Rank:
        """Of the nodes that may run a job and have room, it is given to the one of the lowest rank. No two are equal,
        and what a node is given never lowers its own."""
        ...


class Level:
    """The least loaded by count per slot; among equals the one that was given the least so far."""

    def rank(self, load: Load) -> Rank:
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
