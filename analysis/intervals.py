"""Medians with confidence intervals that assume no distribution. Pure.

The interval is the one of the sign test: of n values in order, the median lies between the k-th lowest and the k-th
highest unless fewer than k of n coin tosses come up heads (or tails). With 20 values and k = 6 that holds with 95.9 %.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

CONFIDENCE: Final = 0.95
SEEDS_MIN: Final = 6  # with fewer values nothing can be said with that confidence


class Interval(NamedTuple):
    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median, and the narrowest such interval of at least this confidence; of fewer values than that takes (6 for
    95 %), from the lowest to the highest."""
    ordered = sorted(values)
    count = len(ordered)
    outside = accumulate(2 * math.comb(count, tosses) / 2**count for tosses in range(count))
    skipped = max(0, sum(chance <= 1 - confidence for chance in outside) - 1)  # at either end
    return Interval(statistics.median(ordered), ordered[skipped], ordered[-1 - skipped])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """By what fraction ours is more than theirs, seed by seed; negative where it is less."""
    return median_interval([one / other - 1 for one, other in zip(ours, theirs, strict=True)])


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Of values in order: between two of them in proportion."""
    at = fraction * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
