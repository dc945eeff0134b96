"""Processes killed at random, balancer included, under client load: what was acknowledged is kept to the letter, what
was running ends with its node, and the data directories are whole.

`KILL_SEED` and `KILL_CYCLES` in the environment choose another run (the victims and the moments are drawn from the
seed; what the machine makes of them is its own).
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import is_alive, until
from tests.system.conftest import StartCluster
from tests.system.directories import damage_of
from tests.system.load import Load, audit
from tests.system.programs import data_dir, job_processes
from tests.system.reach import reach, seed

pytestmark = pytest.mark.system

NODE_TIMEOUT_S: Final = 2.0
CYCLES: Final = reach("KILL_CYCLES", 20, soak=120)
ALL_END_WITHIN_S: Final = 30.0
ENDED_WITHIN_S: Final = 2.0  # what a dead node ran


@pytest.mark.timeout(60 + 6 * CYCLES)
def test_nothing_acknowledged_is_lost_changed_or_doubled_by_kill_9(start_cluster: StartCluster, tmp_path: Path) -> None:
    drawn = seed("KILL_SEED")
    cluster = start_cluster(3, slots=4, env={"JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s"})
    load = Load(cluster, tmp_path / "journal", drawn)
    chance, orphans = random.Random(drawn), 0
    with load.running():
        for cycle in range(CYCLES):
            orphans += _kill_and_start_again(cluster, chance, stay_away=cycle % 5 == 4)
    verdict = audit(cluster, load, within_s=ALL_END_WITHIN_S)
    print(
        f"{CYCLES} cycles: {verdict}; {orphans} processes of jobs ran when their node was killed, "
        f"and none {ENDED_WITHIN_S} s later"
    )
    assert verdict.acknowledged > 10 * CYCLES, "the clients hardly got through, so nothing was tested"
    assert verdict.lost == []
    assert verdict.wrong == []
    assert verdict.duplicated == []
    assert verdict.broken == []
    assert orphans > 0, "no job ran when its node was killed, so nothing was tested"
    assert damage_of(cluster) == []


def _kill_and_start_again(cluster: LocalCluster, chance: random.Random, *, stay_away: bool) -> int:
    """Kills one to three of the four processes; now and then they stay away for longer than the node timeout. Returns
    how many processes of jobs were alive when their node was killed, after all of them have ended."""
    victims = chance.sample(("balancer", *cluster.node_names), chance.randint(1, 3))
    left = {pid for name in victims for pid in _kill(cluster, name)}
    with ThreadPoolExecutor() as pool:
        gone = pool.submit(
            until, "no job of theirs is left", lambda: not any(map(is_alive, left)), within_s=ENDED_WITHIN_S
        )
        time.sleep(NODE_TIMEOUT_S + 0.5 if stay_away else chance.uniform(0.0, 0.5))
        list(pool.map(cluster.start, victims))
        gone.result()
    time.sleep(chance.uniform(0.1, 0.8))
    return len(left)


def _kill(cluster: LocalCluster, name: str) -> set[int]:
    """SIGKILL; the processes of its jobs that were alive just before it or are after it, which may be none already."""
    running = job_processes(data_dir(cluster, name))
    cluster.kill(name)
    return running | job_processes(data_dir(cluster, name))
