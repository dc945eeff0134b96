"""Processes killed at random, balancer included, under client load: what was acknowledged is kept to the letter.

`KILL_SEED` and `KILL_CYCLES` in the environment choose another run (the victims and the moments are drawn from the
seed; what the machine makes of them is its own).
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.conftest import StartCluster
from tests.system.load import Load, audit

pytestmark = pytest.mark.system

NODE_TIMEOUT_S: Final = 2.0
CYCLES: Final = int(os.environ.get("KILL_CYCLES", "20"))
ALL_END_WITHIN_S: Final = 30.0


@pytest.mark.timeout(60 + 6 * CYCLES)
def test_nothing_acknowledged_is_lost_changed_or_doubled_by_kill_9(start_cluster: StartCluster, tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed} KILL_CYCLES={CYCLES}")
    cluster = start_cluster(3, slots=4, env={"JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s"})
    load = Load(cluster, tmp_path / "journal", seed)
    chance = random.Random(seed)
    with load.running():
        for cycle in range(CYCLES):
            _kill_and_start_again(cluster, chance, stay_away=cycle % 5 == 4)
    verdict = audit(cluster, load, within_s=ALL_END_WITHIN_S)
    print(f"{verdict.acknowledged} acknowledged, {verdict.in_doubt} in doubt, {verdict.run_again} run more than once")
    assert verdict.acknowledged > 10 * CYCLES, "the clients hardly got through, so nothing was tested"
    assert verdict.lost == []
    assert verdict.wrong == []
    assert verdict.duplicated == []
    assert verdict.broken == []


def _kill_and_start_again(cluster: LocalCluster, chance: random.Random, *, stay_away: bool) -> None:
    """Kills one to three of the four processes; now and then they stay away for longer than the node timeout."""
    victims = chance.sample(("balancer", *cluster.node_names), chance.randint(1, 3))
    for name in victims:
        cluster.kill(name)
    time.sleep(NODE_TIMEOUT_S + 0.5 if stay_away else chance.uniform(0.0, 0.5))
    with ThreadPoolExecutor() as pool:
        list(pool.map(cluster.start, victims))
    time.sleep(chance.uniform(0.1, 0.8))
