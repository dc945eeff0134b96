"""The runs: which there are, done in virtual time on all processors or one after the other on real clusters, and
gathered into a result."""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Final

import attrs

from analysis import results, virtual
from analysis.loads import REAL, REAL_TIMES, Load, scaled
from analysis.measures import measure, quantiles, sampled
from analysis.real import RealCluster
from analysis.results import DEFAULT, FORETOLD, VIRTUAL, Result, Run
from analysis.story import Story, read, slots_of
from balancer.placement import POLICIES
from jobyard.workload import Request

SHOWN_OVER_TIME: Final = {"bursts": tuple(POLICIES), "pareto": (DEFAULT, virtual.UNRECALLED)}
POINTS: Final = 600  # of a curve over time
SERIES_SEED: Final = 1


@attrs.frozen
class Task:
    """One run."""

    where: str
    load: Load
    policy: str
    seed: int
    times: float = 1.0  # of the workload's moments and durations

    def requests(self) -> list[Request]:
        requests = self.load.requests(self.seed)
        return requests if self.times == 1.0 else scaled(requests, self.times)


@attrs.frozen
class Done:
    task: Task
    run: Run
    quantiles: list[float]
    series: dict[str, Any] | None


def in_virtual_time(task: Task) -> Done:
    requests = task.requests()
    run = virtual.run(task.load.slots, task.policy, task.seed, requests)
    story = read(run.events, slots_of(run.events), run.name)
    return _done(task, requests, story, run.messages)


def _done(task: Task, requests: Sequence[Request], story: Story, messages: int | None) -> Done:
    figures = attrs.asdict(measure(story, requests, messages))
    shown = (
        task.where == VIRTUAL and task.seed == SERIES_SEED and task.policy in SHOWN_OVER_TIME.get(task.load.name, ())
    )
    return Done(
        task,
        Run(task.where, task.load.name, task.policy, task.seed, figures),
        quantiles(story),
        _series(story) if shown else None,
    )


def _series(story: Story) -> dict[str, Any]:
    moments = sampled(story.moments, POINTS)
    return {
        "slots": story.slots,
        "at_s": results.rounded(moment.at_s for moment in moments),
        "counts": [[moment.counts[place] for moment in moments] for place in range(len(story.slots))],
        "spread": results.rounded(story.spread(moment) for moment in moments),
    }


# --- the runs ----------------------------------------------------------------------------------------------------


def virtual_tasks(loads: Iterable[Load], seeds: int) -> list[Task]:
    """Seed after seed, so that what is done when it is stopped is as much of everything."""
    tasks = [
        Task(VIRTUAL, load, policy, seed)
        for load in loads
        for seed in range(1, min(seeds, load.seeds or seeds) + 1)
        for policy in POLICIES
    ]
    more = [
        Task(VIRTUAL, load, policy, SERIES_SEED)
        for load in loads
        for policy in SHOWN_OVER_TIME.get(load.name, ())
        if policy not in POLICIES
    ]
    return sorted([*tasks, *more], key=lambda task: task.seed)


def real_tasks(loads: Iterable[Load], seeds: int, times: int) -> list[Task]:
    chosen = [attrs.evolve(load, count=max(1, REAL[load.name] // times)) for load in loads if load.name in REAL]
    return [
        Task(results.REAL, load, policy, seed, REAL_TIMES)
        for policy in POLICIES
        for load in chosen
        for seed in range(1, seeds + 1)
    ]


def foretold(tasks: Iterable[Task]) -> list[Task]:
    return [attrs.evolve(task, where=FORETOLD) for task in tasks]


def all_virtual(tasks: Sequence[Task], processes: int) -> Iterator[Done]:
    """On so many processors, in the order in which they get done. Whoever stops listening stops it."""
    if processes == 1:
        yield from map(in_virtual_time, tasks)
        return
    # Nothing here lives in cycles that would be worth walking over thousands of nodes again and again.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=gc.disable)
    try:
        for future in as_completed([pool.submit(in_virtual_time, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def all_real(tasks: Sequence[Task]) -> Iterator[Done]:
    """On a cluster for each policy."""
    for policy in dict.fromkeys(task.policy for task in tasks):
        of_policy = [task for task in tasks if task.policy == policy]
        with RealCluster(of_policy[0].load.slots, policy) as cluster:
            for task in of_policy:
                requests = task.requests()
                yield _done(task, requests, cluster.run(requests), None)


def gather(loads: Sequence[Load], done: Iterable[Done], when: str) -> Result:
    about = [
        {"name": load.name, "title": load.title, "requests": load.count, "slots": _slots(load.slots)} for load in loads
    ]
    result = Result(when, about)
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for one in sorted(_complete(done), key=lambda one: _order(loads, one.task)):
        task = one.task
        if task.policy in POLICIES:
            result.runs.append(one.run)
        if task.where == VIRTUAL and task.policy in POLICIES:
            curves.setdefault((task.load.name, task.policy), []).append(one.quantiles)
        if one.series is not None:
            result.series.setdefault(task.load.name, {})[task.policy] = one.series
    for (load, policy), quantiles_of_seeds in curves.items():
        result.quantiles.setdefault(load, {})[policy] = results.median_curve(quantiles_of_seeds)
    return result


def _complete(done: Iterable[Done]) -> list[Done]:
    """Without seeds that not all policies have had, where it was stopped: they could not be compared."""
    done = list(done)
    had = Counter((one.task.where, one.task.load.name, one.task.seed) for one in done if one.task.policy in POLICIES)
    return [one for one in done if one.task.policy not in POLICIES
            or had[one.task.where, one.task.load.name, one.task.seed] == len(POLICIES)]  # fmt: skip


def _slots(slots: Sequence[int]) -> str:
    return " + ".join(map(str, slots)) if len(slots) < 10 else f"{len(slots):,} × {slots[0]}"


def _order(loads: Sequence[Load], task: Task) -> tuple[int, int, int, int]:
    names = [load.name for load in loads]
    wheres = (VIRTUAL, FORETOLD, results.REAL)
    return wheres.index(task.where), names.index(task.load.name), [*virtual.KNOWN].index(task.policy), task.seed
