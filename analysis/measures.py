"""What is measured of a run, from its story and its workload. Pure.

Of a request: how long from arrival to finish, waiting included, and its slowdown: how many times as long as it would
have taken alone. Of the run: makespan, and that against the lower bound; how far the nodes' counts were apart; the
time in which a slot stood idle although a job waited; how many attempts were moved; messages.
"""

import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import attrs

from analysis.intervals import quantile
from analysis.loads import lower_bound_s
from analysis.story import Moment, Story
from jobyard.workload import Request


@attrs.frozen
class Figures:
    """Of one run. Seconds are of the workload's own time."""

    mean_s: float
    median_s: float
    p99_s: float
    slowdown: float  # mean
    makespan_s: float
    over_bound: float  # makespan / lower bound
    spread: float  # jobs per slot, mean over time
    spread_max: float
    idle: float  # slot-seconds idle while a job waited, as a part of all work
    moved: float  # attempts called back, for each job
    messages: float | None  # between nodes and balancer, for each job; None where they were not counted


MEASURES: Final = {  # of these, less is better; the title, and the unit that goes with it
    "mean_s": ("mean", "s"),
    "median_s": ("median", "s"),
    "p99_s": ("99th percentile", "s"),
    "slowdown": ("mean slowdown", "×"),
    "makespan_s": ("makespan", "s"),
    "over_bound": ("makespan / bound", ""),
    "spread": ("spread, mean", "jobs per slot"),
    "spread_max": ("spread, highest", "jobs per slot"),
    "idle": ("idle while jobs wait", "of all work"),
    "moved": ("moved", "per job"),
    "messages": ("messages", "per job"),
}


def measure(story: Story, requests: Sequence[Request], messages: int | None) -> Figures:
    """`requests` is the workload that was run, in the order in which it was numbered."""
    assert len(story.requests) == len(requests), "not all of the workload is in the log"
    took_s = sorted(request.took_s for request in story.requests)
    slowdowns = [
        told.took_s / asked.shortest_s for told, asked in zip(story.requests, requests, strict=True) if asked.shortest_s
    ]
    makespan_s = max(request.ended_s for request in story.requests)
    slots = sum(story.slots)
    spreads = [(story.spread(moment), seconds) for moment, seconds in _held(story.moments)]
    idle_s = sum(min(slots - moment.running, moment.waiting) * seconds for moment, seconds in _held(story.moments))
    return Figures(
        mean_s=statistics.fmean(took_s),
        median_s=statistics.median(took_s),
        p99_s=quantile(took_s, 0.99),
        slowdown=statistics.fmean(slowdowns),
        makespan_s=makespan_s,
        over_bound=makespan_s / lower_bound_s(requests, slots),
        spread=sum(spread * seconds for spread, seconds in spreads) / sum(seconds for _, seconds in spreads),
        spread_max=max(spread for spread, _ in spreads),
        idle=idle_s / sum(request.work_s for request in requests),
        moved=story.moved / story.jobs,
        messages=None if messages is None else messages / story.jobs,
    )


def _held(moments: Sequence[Moment]) -> Iterator[tuple[Moment, float]]:
    """Each moment, and how long it stayed so."""
    for moment, following in pairwise(moments):
        yield moment, following.at_s - moment.at_s


def quantiles(story: Story, count: int = 100) -> list[float]:
    """Completion times at equal steps of probability, from the shortest to the longest."""
    took_s = sorted(request.took_s for request in story.requests)
    return [quantile(took_s, step / count) for step in range(count + 1)]


def sampled(moments: Sequence[Moment], count: int) -> list[Moment]:
    """How it stood at so many moments at equal distances."""
    first_s, last_s = moments[0].at_s, moments[-1].at_s
    chosen, at = [], 0
    for step in range(count):
        at_s = first_s + (last_s - first_s) * step / (count - 1)
        while at + 1 < len(moments) and moments[at + 1].at_s <= at_s:
            at += 1
        chosen.append(attrs.evolve(moments[at], at_s=at_s))
    return chosen
