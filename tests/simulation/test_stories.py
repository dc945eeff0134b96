"""Stories: three hundred seeds, each a cluster of its own kind under clients and faults, with the auditor looking on.

`make sim` tells as many more as one likes, and `make sim SEED=…` tells one again with a log.
"""

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.simulation import found, knobs, pool, story
from tests.simulation.faults import GoneForEver
from tests.simulation.knobs import Load, Setting
from tests.simulation.plan import Planned
from tests.simulation.world import Knobs

SEEDS: Final = range(300)
ROOT: Final = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_every_promise_is_kept_in_three_hundred_stories() -> None:
    verdicts = list(pool.told(story.tell, SEEDS))
    wrong = [f"{verdict}; again: make sim SEED={verdict.seed}" for verdict in verdicts if verdict.violation is not None]
    assert not wrong, "\n".join(wrong)
    # The stories are worth telling: things break in them, and jobs are run in spite of it.
    assert sum(verdict.crashes for verdict in verdicts) > 2 * len(SEEDS)
    assert sum(verdict.jobs for verdict in verdicts) > 15 * len(SEEDS)
    tempers = {name for verdict in verdicts for name in verdict.setting.temper}
    assert tempers == set(knobs.TEMPERS), "a kind of story is never told"
    faults = {type(planned.fault).__name__ for verdict in verdicts for planned in verdict.plan}
    assert len(faults) == 12, "a kind of fault never happens"


@pytest.mark.parametrize("once", found.found(), ids=lambda once: once.what)
def test_what_once_went_wrong_goes_well(once: found.Found) -> None:
    verdict = story.tell(once.seed, setting=once.setting, faults=once.faults)
    assert verdict.violation is None, verdict


def test_the_same_seed_is_the_same_story_in_another_process() -> None:
    seed = random.Random().randrange(1_000_000)
    told = story.tell(seed)
    program = f"from tests.simulation import story; print(story.tell({seed}).digest)"
    again = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "17", "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        timeout=60,
    )
    assert told.digest == again.stdout.strip(), f"seed {seed} is told in two ways"


def test_a_program_that_breaks_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    from balancer.rounds import Rounds

    def round(rounds: Rounds, now: float, wall: float) -> int:
        raise ZeroDivisionError("nobody to share with")

    monkeypatch.setattr(Rounds, "round", round)
    verdict = story.tell(1)
    assert verdict.violation is not None
    assert verdict.violation.startswith("ZeroDivisionError: nobody to share with at test_stories.py:")
    assert verdict.tail


def test_a_cluster_that_does_nothing_does_not_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from balancer.rounds import Rounds

    monkeypatch.setattr(Rounds, "round", lambda rounds, now, wall: 0)
    quick = Setting(Knobs(nodes=1, node_timeout_s=1.0, local_fallback_s=None), Load(clients=1, operations=3))
    verdict = story.tell(1, setting=quick, faults=())
    assert verdict.violation is not None
    assert verdict.violation.startswith("this does not come to an end; ")
    assert "has not ended" in verdict.violation


def test_nothing_of_a_node_that_is_gone_for_ever_is_missed_but_what_it_alone_had() -> None:
    gone = (Planned(4.0, GoneForEver("n1")),)
    verdicts = [story.tell(seed, setting=Setting(load=Load(operations=8)), faults=gone) for seed in range(5)]
    assert [verdict.violation for verdict in verdicts] == [None] * 5
