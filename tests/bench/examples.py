"""Results to test with: a small made-up one, and one with all that the full scale measures."""

from collections.abc import Mapping, Sequence

from benchmarks.asking import FULL
from benchmarks.measures import quantities, takes
from benchmarks.results import Absent, Figure, Measured, Quantity, Result
from benchmarks.running import COMMIT, COMMITS, POOL, SPAWN_C
from benchmarks.systems.catalogue import CATALOGUE, OURS

RATE = Quantity("noop_py", "noop", "No-op", "jobs/s", "more")
SLEEP = Quantity("noop_sleep", "noop", "No-op in a slot", "jobs/s", "more", stands_in="noop_py")
DELAY = Quantity("trip", "trip", "Round trip", "ms", "less")
ALONE = Quantity("nodes_rate_10", "nodes", "With ten nodes", "jobs/s", "more", ours_only=True)
US = Measured(OURS, "Jobyard", "synced", True)
SAFE = Measured("safe", "Safe", "synced", True)
FAST = Measured("fast", "Fast", "in memory", False)
LIMIT = Measured("pool", "The limit", "", False, yardstick=True)


def result(figures: Sequence[Figure], *, absent: Sequence[Absent] = ()) -> Result:
    systems = (US, SAFE, FAST, LIMIT)
    return Result("today", {"processors": "2"}, 3, (SLEEP, RATE, DELAY, ALONE), systems, tuple(figures), tuple(absent))


def rows(text: str, of: str) -> list[str]:
    return [line for line in text.splitlines() if of in line]


def measured(figures: Mapping[tuple[str, str], float]) -> Result:
    """A run with every quantity of the full scale, the systems of the catalogue and the yardsticks."""
    systems = [Measured(e.name, e.title, e.durability, e.durable) for e in CATALOGUE.values()]
    values = tuple(Figure(key, system, (value,)) for (key, system), value in figures.items())
    everybody = (*systems, COMMIT, COMMITS, SPAWN_C, POOL)
    return Result("today", {}, 1, quantities(takes(FULL)), everybody, values, ())
