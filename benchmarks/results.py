"""The result of a run: what was measured of whom, as values that go to a JSON file and back.

A figure is a quantity of a system, with one value for each round in which it was taken. What could not be taken is in
the result as well, with the reason. Documents and comparisons are made from this file alone.
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import attrs
import cattrs

FORMAT: Final = 1
_OF_THE_MACHINE: Final = ("model", "processors", "memory", "kernel", "Python")


@attrs.frozen
class Quantity:
    """What is measured. `measure` is the group that it belongs to. Systems without it are shown with their figure of
    `stands_in`, which is the same work for them."""

    key: str
    measure: str
    title: str
    unit: str
    better: Literal["more", "less"]
    stands_in: str = ""
    ours_only: bool = False


@attrs.frozen
class Measured:
    """A system, or a yardstick: something that the machine itself does."""

    name: str
    title: str
    durability: str
    durable: bool
    version: str = ""
    yardstick: bool = False


@attrs.frozen
class Figure:
    quantity: str
    system: str
    values: tuple[float, ...] = attrs.field(validator=attrs.validators.min_len(1))

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@attrs.frozen
class Absent:
    """A figure that there is not. `quantity` is empty where the whole system could not be had."""

    system: str
    reason: str
    quantity: str = ""


@attrs.frozen
class Result:
    when: str
    machine: dict[str, str]
    repeats: int
    quantities: tuple[Quantity, ...]
    systems: tuple[Measured, ...]
    figures: tuple[Figure, ...]
    absent: tuple[Absent, ...]
    format: int = FORMAT

    def figure(self, quantity: Quantity, system: str) -> Figure | None:
        """The figure of a system, or the one that stands in for it; for a yardstick nothing does."""
        known = {figure.quantity: figure for figure in self.figures if figure.system == system}
        is_yardstick = any(measured.name == system and measured.yardstick for measured in self.systems)
        return known.get(quantity.key) or (None if is_yardstick else known.get(quantity.stands_in))

    def reason(self, quantity: Quantity, system: str) -> str | None:
        """Why a system has no figure; None where it was not asked for one."""
        for absent in self.absent:
            if absent.system == system and absent.quantity in ("", quantity.stands_in or quantity.key):
                return absent.reason
        return None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(cattrs.unstructure(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Result:
    """Raises ValueError where the file is of another format."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.get("format") != FORMAT:
        raise ValueError(f"{path} has format {raw.get('format')}, and this is format {FORMAT}")
    return cattrs.structure(raw, Result)


def joined(results: Sequence[Result]) -> Result:
    """One result of several runs on one machine, each of which took other quantities; of what more than one took, the
    first counts alone: figures of different runs do not compare. Raises ValueError where the machines differ."""
    first = results[0]
    for other in results[1:]:
        if any(other.machine.get(name) != first.machine.get(name) for name in _OF_THE_MACHINE):
            raise ValueError(f"the runs of {first.when} and {other.when} were made on different machines")
        taken = {quantity.key for quantity in first.quantities}
        first = attrs.evolve(
            first,
            quantities=first.quantities + tuple(each for each in other.quantities if each.key not in taken),
            systems=first.systems + tuple(each for each in other.systems if each not in first.systems),
            figures=first.figures + tuple(each for each in other.figures if each.quantity not in taken),
            absent=first.absent + tuple(each for each in other.absent if each.quantity and each.quantity not in taken),
        )
    return first


def advantage(quantity: Quantity, ours: float, theirs: float) -> float:
    """How many times better ours is; below 1 it is worse. Infinite where theirs is nothing."""
    good, bad = (ours, theirs) if quantity.better == "more" else (theirs, ours)
    return good / bad if bad else float("inf")


def quantile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
