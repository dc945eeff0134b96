"""Crashes at numbered points: a short story in which nothing else breaks is told once to number its points, and then
again with a process that dies at one of them, or at two.

What is numbered are the moments at which a crash can make a difference: before, within and after each commit, at each
send, and at each start and end of a job.
"""

import functools
import random
from collections.abc import Mapping
from typing import Final

from tests.simulation import story
from tests.simulation.journal import Journal
from tests.simulation.knobs import Load, Setting
from tests.simulation.story import Verdict
from tests.simulation.world import Knobs

SETTING: Final = Setting(
    Knobs(
        nodes=2,
        slots=1,
        node_timeout_s=2.0,
        dispatch_period_s=1.0,
        result_period_s=0.5,
        info_period_s=0.5,
        local_fallback_s=1.0,
        restart_s=0.3,
    ),
    Load(
        clients=1, operations=10, pause_s=0.3, burst=2, keys=1, long_jobs=0.0, crashing_jobs=0.0, faults=0, span_s=0.0
    ),
    ("crash points",),
)
SEED: Final = 17


def tell(seed: int, crash_at: Mapping[int, bool], *, journal: Journal | None = None) -> Verdict:
    """The story of a seed with crashes at these points; true stands for a power cut."""
    return story.tell(seed, setting=SETTING, faults=(), crash_at=crash_at, journal=journal)


@functools.cache
def points(seed: int) -> int:
    """How many points the story has in which nothing breaks."""
    verdict = tell(seed, {})
    assert verdict.violation is None, f"nothing breaks, and yet: {verdict}"
    return len(verdict.passed)


def at_each_point(seed: int) -> list[dict[int, bool]]:
    """A crash at each point in turn, once by kill and once by power cut."""
    return [{point: power_cut} for point in range(1, points(seed) + 1) for power_cut in (False, True)]


def tell_pair(number: int) -> Verdict:
    """A story of two crashes. The second may be at a point that is there only after the first: during a recovery."""
    chance = random.Random(f"pair {number}")
    seed = chance.randint(1, 20)
    first = chance.randint(1, points(seed))
    second = first + chance.randint(1, 60) if chance.random() < 0.6 else chance.randint(1, points(seed))
    return tell(seed, {first: chance.random() < 0.5, second: chance.random() < 0.5})


def show(crash_at: Mapping[int, bool]) -> str:
    return " ".join(f"{point}{'p' * power_cut}" for point, power_cut in crash_at.items())


def parse(text: str) -> dict[int, bool]:
    """What `show` has printed."""
    return {int(word.rstrip("p")): word.endswith("p") for word in text.split()}
