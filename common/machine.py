"""The contract of the two machines: told what happened and what time it is, they answer with what must be
remembered and what must be done. No clock, no I/O, no randomness of their own.

A step is a batch of events and one answer. It is a batch because whatever came in while the last step was being
committed is taken in together: under load the batch grows by itself, and one commit carries it all.
"""

from collections.abc import Sequence
from typing import Protocol

from common.effects import Effects


class Chance(Protocol):
    """What a machine may ask of the `random.Random` that it is given."""

    def uniform(self, a: float, b: float) -> float: ...

    def choice(self, seq: str) -> str: ...


class Machine(Protocol):
    def handle(self, events: Sequence[object], now: float) -> Effects:
        """One step: takes in the events, does what is due at `now` (monotonic seconds that never go back), and
        answers. The writes must be committed, and `committed` called, before any action is performed and before
        the next step."""
        ...

    def committed(self) -> None:
        """The writes of the last step are durable."""

    def next_deadline(self) -> float | None:
        """The moment at which a step is due although nothing happens; None for never."""
        ...

    def restore(self, now: float, wall: float) -> None:
        """Builds the fields from the tables, once, before the first step."""

    def check(self) -> None:
        """Asserts every invariant; the tests call it after each step."""

    def statistics(self) -> dict[str, float]:
        """Counts of this moment, by name; what STATS shows."""
        ...
