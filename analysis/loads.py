"""The workloads that every policy gets, and the clusters that they are for. Pure.

A load says how its requests are made, so that a seed is all that differs between two runs. The nodes have 5, 7 and 3
slots, as in the configuration of YACS: unequal, so that a policy which counts jobs and not jobs per slot is found out.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import attrs

from jobyard import workload
from jobyard.workload import Recipe, Request

SLOTS: Final = (5, 7, 3)


@attrs.frozen
class Load:
    """How requests are made, in the words of `jobyard generate`."""

    name: str
    title: str
    count: int
    arrivals: str
    durations: str
    maps: tuple[int, int] = (1, 1)
    reduces: tuple[int, int] = (0, 0)
    slots: tuple[int, ...] = SLOTS
    seeds: int | None = None  # at most so many

    def requests(self, seed: int) -> list[Request]:
        arrivals, durations = workload.arrivals_of(self.arrivals), workload.distribution_of(self.durations)
        return list(workload.generate(self.count, seed, Recipe(arrivals, durations, self.maps, self.reduces)))

    def command(self, seed: int) -> str:
        """What makes the same workload anywhere."""
        words = ["jobyard generate", str(self.count), "--seed", str(seed), "--arrivals", self.arrivals]
        words += ["--durations", self.durations]
        for option, (least, most) in (("--maps", self.maps), ("--reduces", self.reduces)):
            if most > (option == "--maps"):
                words += [option, f"{least}-{most}"]
        return " ".join(words)

    def smaller(self, times: int) -> "Load":
        """The same with fewer requests; a cluster of many nodes has fewer of these too."""
        few = attrs.evolve(self, count=max(1, self.count // times))
        if len(self.slots) < MANY:
            return few
        rate = float(self.arrivals.removeprefix("poisson:")) / times
        return attrs.evolve(few, slots=self.slots[: len(self.slots) // times], arrivals=f"poisson:{rate:g}")


MANY: Final = 100  # nodes

# 80 % busy: of tasks with a mean of 4 s, 3 come in a second for 15 slots; with 2.8 s, 4.3; with 3 s, 267 for 1,000.
LOADS: Final = (
    Load(
        "yacs",
        "the shape of YACS: 1 to 4 maps and 1 or 2 reduces of 1 to 4 s in each request, 67 % busy",
        150,
        "poisson:1",
        "whole:1-4",
        (1, 4),
        (1, 2),
    ),
    Load("poisson", "Poisson arrivals, exponential durations, 80 % busy", 600, "poisson:3", "exponential:4"),
    Load("bursts", "60 tasks every 20 s, exponential durations, 80 % busy", 480, "bursts:60:20", "exponential:4"),
    Load("pareto", "2,000 tasks at once, Pareto durations of shape 1.5", 2000, "at-once", "pareto:1.5:1:5.4"),
    Load(
        "skewed",
        "Poisson arrivals, Pareto durations of shape 1.5 up to 100 s, 80 % busy",
        800,
        "poisson:4.3",
        "pareto:1.5:1:100",
    ),
    Load("constant", "300 tasks of 2 s at once", 300, "at-once", "constant:2"),
    Load(
        "thousand",
        "1,000 nodes of a slot each: Poisson arrivals, exponential durations of 3 s, up to 80 % busy",
        3000,
        "poisson:267",
        "exponential:3",
        slots=(1,) * 1000,
        seeds=1,
    ),
)

REAL_TIMES: Final = 0.05  # a second of a workload is so many seconds on the real cluster
REAL: Final = {"yacs": 40, "pareto": 400}  # requests there


def scaled(requests: Sequence[Request], times: float) -> list[Request]:
    """The same workload, with all moments and durations so many times as long."""
    return [
        Request(
            request.at_s * times,
            tuple(seconds * times for seconds in request.maps_s),
            tuple(seconds * times for seconds in request.reduces_s),
        )
        for request in requests
    ]


def lower_bound_s(requests: Sequence[Request], slots: int) -> float:
    """What no scheduler can beat, from the first arrival to the last end: a request takes as long as its longest map
    and its longest reduce, and the work that comes at some moment or later takes all slots for so long after it."""
    ordered = sorted(requests, key=lambda request: request.at_s)
    later_s = list(accumulate(request.work_s for request in reversed(ordered)))[::-1]
    ends_s = [
        request.at_s + max(request.shortest_s, work_s / slots) for request, work_s in zip(ordered, later_s, strict=True)
    ]
    return max(ends_s) - ordered[0].at_s


def share_of_a_slot(requests: Sequence[Request], slots: int) -> float:
    """The longest task as a part of the work that there is for each slot."""
    longest_s = max(max(*request.maps_s, *request.reduces_s, 0.0) for request in requests)
    return longest_s * slots / sum(request.work_s for request in requests)
