"""What this project must reach, as ratios to what was measured in the same run; whether it does is computed here.

A Bar is one of our measures with two goals: the first, and where it is heading. Each goal is one or several
Conditions, and is reached when all of them hold. A condition whose other side was not measured in this run is said not
to be measured; nothing is remembered from another run. Pure.
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

import attrs

from benchmarks.results import Figure, Measured, Quantity, Result
from benchmarks.systems.catalogue import CATALOGUE, OURS

MILLION: Final = 1_000_000


@attrs.frozen
class Found:
    """The value that a limit is held against, and whom it was compared with where that is found, not told."""

    value: float
    with_whom: str = ""


Finding: TypeAlias = Callable[[Result], Found | None]
Reached: TypeAlias = Literal["yes", "no", "not measured"]


@attrs.frozen
class Condition:
    """`says` is what must hold, with `{}` for the limit."""

    says: str
    finding: Finding
    at_least: float | None = None
    at_most: float | None = None

    @property
    def text(self) -> str:
        return self.says.format(f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}")

    def holds(self, value: float) -> bool:
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


@attrs.frozen
class Bar:
    """`key` is the quantity of ours that is shown beside it."""

    title: str
    key: str
    first: tuple[Condition, ...]
    heading: tuple[Condition, ...]


@attrs.frozen
class Judged:
    """A goal of a bar, as a run has found it."""

    reached: Reached
    found: tuple[tuple[Condition, Found | None], ...]


def judge(result: Result, goal: tuple[Condition, ...]) -> Judged:
    """One condition that does not hold decides, whatever could not be measured."""
    found = tuple((condition, condition.finding(result)) for condition in goal)
    held = [None if value is None else condition.holds(value.value) for condition, value in found]
    reached: Reached = "no" if False in held else "not measured" if None in held else "yes"
    return Judged(reached, found)


# --- what a figure of ours is compared with ----------------------------------------------------------------------


def of(result: Result, key: str, system: str = OURS) -> tuple[Quantity, Figure] | None:
    """A quantity and a system's figure of it (or of what stands in for it), where it was measured."""
    for quantity in result.quantities:
        if quantity.key == key and (figure := result.figure(quantity, system)) is not None:
            return quantity, figure
    return None


def itself(key: str) -> Finding:
    def find(result: Result) -> Found | None:
        ours = of(result, key)
        return None if ours is None else Found(ours[1].median)

    return find


def over(key: str, below: str) -> Finding:
    """One of our figures divided by another of ours."""

    def find(result: Result) -> Found | None:
        ours, other = of(result, key), of(result, below)
        return None if ours is None or other is None else _divided(ours[1].median, other[1].median)

    return find


def over_system(key: str, name: str) -> Finding:
    """Ours divided by that of a system, or of a yardstick."""

    def find(result: Result) -> Found | None:
        ours, theirs = of(result, key), of(result, key, name)
        return None if ours is None or theirs is None else _divided(ours[1].median, theirs[1].median)

    return find


def over_best(key: str, among: Callable[[Measured], bool]) -> Finding:
    """Ours divided by the best figure of these peers."""

    def find(result: Result) -> Found | None:
        ours = of(result, key)
        peers = [system for system in result.systems if _is_peer(system) and among(system)]
        figures = [(theirs[1].median, system) for system in peers if (theirs := of(result, key, system.name))]
        if ours is None or not figures:
            return None
        best = max if ours[0].better == "more" else min
        median, system = best(figures, key=lambda pair: pair[0])
        return _divided(ours[1].median, median, system.title)

    return find


def _divided(ours: float, theirs: float, with_whom: str = "") -> Found | None:
    return Found(ours / theirs, with_whom) if theirs else None


def _is_peer(system: Measured) -> bool:
    return system.name != OURS and not system.yardstick


def durable(system: Measured) -> bool:
    return system.durable


def durable_library(system: Measured) -> bool:
    """A durable peer that is a Python library."""
    return system.durable and system.name in CATALOGUE and bool(CATALOGUE[system.name].pypi)


# --- the bars ----------------------------------------------------------------------------------------------------


def _times_best_durable(key: str, times: float) -> Condition:
    return Condition("{} × the best durable peer", over_best(key, durable), at_least=times)


BARS: Final = (
    Bar(
        "`sleep 0` end to end, jobs/s",
        "noop_sleep",
        first=(_times_best_durable("noop_sleep", 6),),
        heading=(
            _times_best_durable("noop_sleep", 15),
            Condition("{} × beanstalkd synced every 50 ms", over_system("noop_sleep", "beanstalkd-f50"), at_least=1.5),
        ),
    ),
    Bar(
        "`py` end to end, jobs/s",
        "noop_py",
        first=(
            _times_best_durable("noop_py", 3),
            Condition("{} × ProcessPoolExecutor", over_system("noop_py", "pool"), at_least=1),
        ),
        heading=(_times_best_durable("noop_py", 10),),
    ),
    Bar(
        "durable SUBMIT, one pipelined connection, jobs/s",
        "submit_one",
        first=(_times_best_durable("submit_one", 4),),
        heading=(_times_best_durable("submit_one", 20),),
    ),
    Bar(
        "SUBMIT one at a time, p50, ms",
        "submit_each_p50",
        first=(Condition("{} synced commits", over_system("submit_each_p50", "commit"), at_most=3),),
        heading=(Condition("{} synced commits", over_system("submit_each_p50", "commit"), at_most=1.8),),
    ),
    Bar(
        "idle `RUN sleep 0`, p50, ms",
        "trip_sleep_p50",
        first=(
            Condition("{} × Huey on Redis always", over_system("trip_sleep_p50", "huey-redis"), at_most=1),
            Condition("{} × the best durable Python library", over_best("trip_sleep_p50", durable_library), at_most=1),
            Condition("p99 {} × p50", over("trip_sleep_p99", "trip_sleep_p50"), at_most=3),
        ),
        heading=(Condition("{} × three synced commits", over_system("trip_sleep_p50", "commits"), at_most=1.5),),
    ),
    Bar(
        "`exec true`, 2 slots, jobs/s",
        "exec_true",
        first=(
            Condition("{} × posix_spawn from C", over_system("exec_true", "spawn-c"), at_least=0.45),
            _times_best_durable("exec_true", 1),
        ),
        heading=(
            Condition("{} × posix_spawn from C", over_system("exec_true", "spawn-c"), at_least=0.75),
            Condition("{} × `xargs -P2`", over_system("exec_true", "xargs"), at_least=0.85),
        ),
    ),
    Bar(
        "memory with 1,000,000 queued, largest process, MiB",
        f"backlog_memory_{MILLION}",
        first=(Condition("{} MiB", itself(f"backlog_memory_{MILLION}"), at_most=400),),
        heading=(Condition("{} MiB", itself(f"backlog_memory_{MILLION}"), at_most=60),),
    ),
    Bar(
        "rate with 1,000,000 queued, jobs/s",
        f"backlog_rate_{MILLION}",
        first=(Condition("{} × with 1,000", over(f"backlog_rate_{MILLION}", "backlog_rate_1000"), at_least=0.8),),
        heading=(Condition("{} × with 1,000", over(f"backlog_rate_{MILLION}", "backlog_rate_1000"), at_least=0.95),),
    ),
    Bar(
        "restart with 1,000,000 queued, s",
        f"backlog_restart_{MILLION}",
        first=(Condition("{} s", itself(f"backlog_restart_{MILLION}"), at_most=15),),
        heading=(Condition("{} s", itself(f"backlog_restart_{MILLION}"), at_most=3),),
    ),
    Bar(
        "idle balancer with 10 nodes, % of a core",
        "idle_balancer_10",
        first=(Condition("{} %", itself("idle_balancer_10"), at_most=2),),
        heading=(Condition("{} %", itself("idle_balancer_10"), at_most=0.5),),
    ),
    Bar(
        "makespan of skewed durations / the least possible",
        "makespan",
        first=(Condition("{}", itself("makespan"), at_most=1.15),),
        heading=(Condition("{}", itself("makespan"), at_most=1.05),),
    ),
)


# --- how it grows ------------------------------------------------------------------------------------------------


@attrs.frozen
class Growth:
    """Our figure of one quantity with the smallest and with the largest number of something that was measured."""

    title: str
    unit: str
    few: int
    many: int
    with_few: float
    with_many: float


def growths(result: Result) -> Iterator[Growth]:
    """Of all quantities whose keys differ by a number alone."""
    families: dict[str, list[tuple[int, Quantity, float]]] = {}
    for quantity in result.quantities:
        name, _, size = quantity.key.rpartition("_")
        figure = result.figure(quantity, OURS)
        if size.isdigit() and figure is not None:
            families.setdefault(name, []).append((int(size), quantity, figure.median))
    for family in families.values():
        ordered = sorted(family, key=lambda one: one[0])
        (few, _, with_few), (many, quantity, with_many) = ordered[0], ordered[-1]
        if many > few:
            title = quantity.title.replace(f"{many:,}", "N", 1)
            yield Growth(title, quantity.unit, few, many, with_few, with_many)
