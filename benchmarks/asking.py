"""How a system is asked for each of its figures, and how much is asked of it.

Every function here takes a system in a session (Asked) and brings figures for some quantities; `measures.py` says which
and when. Every question is bounded in time.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from benchmarks.loads import least_makespan_s, skewed
from benchmarks.remote import NoAnswer, Remote
from benchmarks.results import quantile
from benchmarks.systems.system import Unsupported

WORKERS: Final = 2
CLIENTS: Final = 50
MIB: Final = 1024 * 1024
TAKE_S_MAX: Final = 120.0  # of one question to a system; a take that asks more is bounded by its scale
START_S_MAX: Final = 60.0
DRAINS_MAX: Final = 20
Figures: TypeAlias = dict[str, float]


@attrs.frozen
class Scale:
    """How much is measured."""

    name: str
    take_s: float  # a take grows its number of jobs until it lasts about so long, or
    jobs_max: int  # has so many
    trips_max: int  # round trips, one after the other
    makespan_jobs: int
    makespan_work_s: float  # of one slot
    idle_s: float
    backlogs: tuple[int, ...]
    fill_s_max: float  # what is not queued then is not measured
    drain_s: float
    idle_nodes: tuple[int, ...]
    light_nodes_from: int  # so many nodes are light ones
    cost_nodes: tuple[int, ...]
    cost_jobs: int
    connections: tuple[int, ...]  # idle ones, of a node
    bodies_kib: tuple[int, ...]
    bodies_jobs: int  # of each size


FULL: Final = Scale(
    name="full",
    take_s=4.0,
    jobs_max=20_000,
    trips_max=500,
    makespan_jobs=400,
    makespan_work_s=12.0,
    idle_s=20.0,  # the kernel counts in hundredths of a second: so 0.05 % of a core can be told
    backlogs=(1_000, 100_000, 1_000_000),
    fill_s_max=300.0,
    drain_s=8.0,
    idle_nodes=(1, 10, 100),
    light_nodes_from=50,
    cost_nodes=(2, 10, 50, 100),
    cost_jobs=10_000,
    connections=(1_000, 10_000),
    bodies_kib=(1, 64, 1024),
    bodies_jobs=300,
)
SMALL: Final = attrs.evolve(
    FULL,
    name="small",
    take_s=0.5,
    jobs_max=1_000,
    trips_max=30,
    makespan_jobs=60,
    makespan_work_s=2.0,
    idle_s=2.0,
    backlogs=(1_000, 5_000),
    fill_s_max=5.0,
    drain_s=2.0,
    cost_nodes=(2, 10),
    cost_jobs=500,
    connections=(500,),
    bodies_kib=(1, 1024),
    bodies_jobs=40,
)
SCALES: Final = {scale.name: scale for scale in (FULL, SMALL)}


@attrs.define
class Asked:
    """A system in a session, as a take sees it. `counts` remembers how many jobs fill a take."""

    remote: Remote
    scale: Scale
    directory: Path
    counts: dict[str, int]

    def call(self, name: str, within_s: float = TAKE_S_MAX, **arguments: Any) -> Any:
        return self.remote.call(name, within_s, **arguments)

    def fill(self, key: str, take: Callable[[int], float]) -> tuple[int, float]:
        """So many jobs that they fill a take, which is remembered; and the seconds of these."""
        count, taken_s = sized(take, self.counts.get(key, 100), self.scale.take_s, self.scale.jobs_max)
        self.counts[key] = count
        return count, taken_s

    def rate(self, key: str, name: str, **arguments: Any) -> float:
        """Jobs per second of a call that is told how many jobs and answers seconds."""
        count, taken_s = self.fill(key, lambda count: float(self.call(name, count=count, **arguments)))
        return count / taken_s

    def trips_ms(self, key: str, name: str, **arguments: Any) -> list[float]:
        """Milliseconds of many single calls; as many as fill a take."""
        if key not in self.counts:
            first = self.call(name, count=10, **arguments)
            self.counts[key] = max(10, min(self.scale.trips_max, int(self.scale.take_s * 10 / max(sum(first), 1e-6))))
        return [taken * 1000 for taken in self.call(name, count=self.counts[key], **arguments)]


class Usage:
    """The processor time of the whole system while a context lasts: `last`, None where it has no process that stays."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.last: float | None = None

    def __enter__(self) -> None:
        self._before_s = self._now_s()

    def __exit__(self, *failure: object) -> None:
        now_s = self._now_s()
        self.last = None if now_s is None or self._before_s is None else now_s - self._before_s

    def _now_s(self) -> float | None:
        with contextlib.suppress(Unsupported):
            return float(self._asked.call("processor_s"))
        return None


def sized(take: Callable[[int], float], count: int, take_s: float, jobs_max: int) -> tuple[int, float]:
    """Takes with more and more jobs until one lasts at least half of `take_s` or has `jobs_max` of them; the number of
    jobs and the seconds of that one. Begun with the number that did last time, it takes once."""
    count = min(count, jobs_max)
    while True:
        taken_s = take(count)
        if taken_s >= take_s / 2 or count >= jobs_max:
            return count, taken_s
        growth = min(10.0, max(1.5, take_s / max(taken_s, 1e-6)))
        count = min(jobs_max, int(count * growth))


# --- how each is taken -------------------------------------------------------------------------------------------


def submit(asked: Asked, key: str, clients: int) -> Figures:
    return {key: asked.rate(key, "submit", clients=clients)}


def submit_bulk(asked: Asked) -> Figures:
    return {"submit_bulk": asked.rate("submit_bulk", "submit_bulk")}


def submit_each(asked: Asked) -> Figures:
    return {"submit_each_p50": quantile(asked.trips_ms("submit_each_p50", "submit_each"), 0.5)}


def end_to_end(asked: Asked, key: str, work: str, processor: str = "") -> Figures:
    """The rate and, where a second key asks for it, the processor time of the whole system for each job."""
    used_s = Usage(asked)

    def take(count: int) -> float:
        with used_s:
            return float(asked.call("end_to_end", work=work, count=count))

    count, taken_s = asked.fill(key, take)
    figures = {key: count / taken_s}
    if processor and used_s.last is not None:
        figures[processor] = used_s.last / count * 1e6
    return figures


def round_trip(asked: Asked, prefix: str, work: str) -> Figures:
    taken = asked.trips_ms(prefix, "round_trips", work=work)
    return {f"{prefix}_p50": quantile(taken, 0.5), f"{prefix}_p99": quantile(taken, 0.99)}


def makespan(asked: Asked) -> Figures:
    durations = skewed(asked.scale.makespan_jobs, asked.scale.makespan_work_s)
    taken_s = asked.call("makespan", durations=durations)
    return {"makespan": taken_s / least_makespan_s(durations, WORKERS)}


def idle(asked: Asked) -> Figures:
    before_s = asked.call("processor_s")
    time.sleep(asked.scale.idle_s)
    return {"idle": (asked.call("processor_s") - before_s) / asked.scale.idle_s * 100}


def idle_nodes(asked: Asked, nodes: int) -> Figures:
    light = nodes >= asked.scale.light_nodes_from
    shares = asked.call("idle_nodes", nodes=nodes, seconds=asked.scale.idle_s, light=light)
    return {f"idle_{part}_{nodes}": share for part, share in shares.items()}


def cost_with_nodes(asked: Asked, nodes: int) -> Figures:
    found = asked.call("cost_with_nodes", nodes=nodes, count=asked.scale.cost_jobs)
    return {f"nodes_rate_{nodes}": found["rate"], f"nodes_balancer_us_{nodes}": found["balancer_us"]}


def idle_connections(asked: Asked, count: int) -> Figures:
    found = asked.call("idle_connections", count=count, seconds=asked.scale.idle_s)
    return {f"connections_memory_{count}": found["bytes"] / 1024, f"connections_idle_{count}": found["share"]}


def bodies(asked: Asked, kib: int) -> Figures:
    """Commands that print what they are given, as fast as they are taken; and the memory that this costs."""
    found = asked.call("bodies", count=asked.scale.bodies_jobs, size=kib * 1024)
    grown = {f"bodies_growth_{part}_{kib}": size / MIB for part, size in found["growth"].items()}
    return {f"bodies_rate_{kib}": asked.scale.bodies_jobs * kib / 1024 / found["seconds"], **grown}


def backlog(asked: Asked, size: int) -> Figures:
    """Both workers are held while the queue is filled; then its memory, the rate at which it shrinks, and how long
    it takes after a SIGKILL until the next of the queued jobs has ended."""
    where = str(asked.directory)
    asked.call("start", START_S_MAX, directory=where, workers=WORKERS)
    _fill_held(asked, size)
    own, resident = asked.call("largest_bytes")
    figures = {
        f"backlog_memory_{size}": own / MIB,
        f"backlog_resident_{size}": resident / MIB,
        **_drain(asked, size),
    }
    asked.call("kill")
    figures[f"backlog_restart_{size}"] = asked.call("restart", directory=where, workers=WORKERS)
    asked.call("kill")
    return figures


def _fill_held(asked: Asked, size: int) -> None:
    scale = asked.scale
    asked.call("hold", directory=str(asked.directory), workers=WORKERS)
    filled = asked.call("fill", scale.fill_s_max + TAKE_S_MAX, count=size, seconds_max=scale.fill_s_max)
    if filled < size:
        asked.call("kill")
        raise NoAnswer(f"only {filled:,} could be queued in {scale.fill_s_max:g} s")


def _drain(asked: Asked, size: int) -> Figures:
    """A short queue is gone in no time: it is filled and drained again until there is something to measure."""
    used_s, seen_s, seen, done = 0.0, 0.0, 0.0, 0.0
    for again in range(DRAINS_MAX):
        if again:
            _fill_held(asked, size)
        with (usage := Usage(asked)):
            drained = asked.call("drain", count=size, seconds_max=asked.scale.drain_s)
        seen, seen_s, done = seen + drained["seen"], seen_s + drained["seconds"], done + drained["done"]
        used_s += usage.last or 0.0
        if seen_s >= asked.scale.drain_s / 4:
            break
    return {f"backlog_rate_{size}": seen / seen_s, f"backlog_us_{size}": used_s / done * 1e6}
