"""Loads that are the same in every run: durations drawn once from a seed, and what they cost at the least."""

import random
from collections.abc import Sequence
from typing import Final

SEED: Final = 5
SHAPE: Final = 1.4  # of the Pareto distribution: a few jobs make up much of the work
LONGEST_SHARE: Final = 0.3  # of the work, so that the longest alone does not decide the makespan


def skewed(count: int, total_s: float) -> list[float]:
    """Pareto durations that sum up to `total_s`, in random order; each is cut to LONGEST_SHARE of the whole."""
    chance = random.Random(SEED)
    drawn = [chance.paretovariate(SHAPE) for _ in range(count)]
    cut = min(1.0, LONGEST_SHARE) * sum(drawn)
    drawn = [min(duration, cut) for duration in drawn]
    return [duration / sum(drawn) * total_s for duration in drawn]


def least_makespan_s(durations: Sequence[float], slots: int) -> float:
    """No schedule on so many slots is shorter: max(longest, total/slots)."""
    return max(max(durations), sum(durations) / slots)
