"""What promises say, held against hundreds of clusters in which things break: the simulation's part of `make test`."""

import pytest

from tests.simulation import found, story
from tests.simulation.story import Verdict

SEEDS = 300
BATCH = 15


def told_well(verdict: Verdict) -> int:
    """How many jobs the story had, in which every promise was kept."""
    assert verdict.violation is None, f"{verdict}\nagain: make sim SEED={verdict.seed}"
    return verdict.jobs


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_promise_is_kept_whatever_breaks(first: int) -> None:
    verdicts = [story.tell(seed) for seed in range(first, first + BATCH)]
    assert sum(map(told_well, verdicts)) > BATCH, "next to nothing was submitted"
    assert sum(verdict.crashes for verdict in verdicts) > 0, "nothing crashed"


@pytest.mark.parametrize("kept", found.found(), ids=lambda kept: str(kept.seed))
def test_what_once_went_wrong_goes_well(kept: found.Found) -> None:
    told_well(story.tell(kept.seed, setting=kept.setting, faults=kept.faults))
