"""Levelness is noticed to be missing, and only where it is."""

import pytest

from common.placements import PLACEMENTS
from tests.simulation import story
from tests.simulation.knobs import Load, Setting
from tests.simulation.story import Verdict
from tests.simulation.world import Knobs

BUSY = Load(clients=2, operations=8, burst=25, long_jobs=0.4, crashing_jobs=0.0)
SEED = 3


def told(placement: str, slots: tuple[int, ...] = (5, 7, 3), seed: int = SEED) -> Verdict:
    knobs = Knobs(nodes=3, slots_each=slots, placement=placement, node_timeout_s=5.0, info_period_s=0.2)
    return story.tell(seed, setting=Setting(knobs, BUSY), faults=())


@pytest.mark.parametrize("slots", [(5, 7, 3), (1, 1, 1)], ids=["5-7-3", "equal"])
def test_with_movable_jobs_counts_are_level_in_every_quiet_moment(slots: tuple[int, ...]) -> None:
    verdict = told("level", slots)
    assert verdict.violation is None, verdict
    assert verdict.level_looks > 20, "the story has no quiet moments with jobs that wait on nodes"


@pytest.mark.parametrize("policy", PLACEMENTS)
def test_every_promise_is_kept_by_every_policy(policy: str) -> None:
    verdict = told(policy, seed=SEED + 1)
    assert verdict.violation is None, verdict


def test_without_recall_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.levelling.Levelling.level", lambda levelling, now: None)
    assert " waits on Held(process=" in (told("level", (1, 1, 1)).violation or "")


def test_a_late_binding_that_is_none_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.placement.Late.room", lambda policy, load, slots, terms: True)
    monkeypatch.setattr("balancer.levelling.Levelling.level", lambda levelling, now: None)
    assert " waits on Held(process=" in (told("random", (1, 1, 1)).violation or "")
