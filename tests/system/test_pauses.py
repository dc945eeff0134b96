"""Processes that are stopped for longer than a node may be silent, under client load, and then go on as if nothing had
been: a node of which everybody else has thought that it was dead, and a balancer that has heard nobody for as long.

`PAUSE_CYCLES` and `PAUSE_SEED` in the environment choose another run.
"""

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.conftest import StartCluster
from tests.system.directories import damage_of
from tests.system.load import Load, Verdict, audit
from tests.system.reach import reach, seed

pytestmark = pytest.mark.system

NODE_TIMEOUT_S: Final = 1.0
CYCLES: Final = reach("PAUSE_CYCLES", 3, soak=25)
TIME_LIMIT_S: Final = 60 + 8 * CYCLES


@pytest.mark.timeout(TIME_LIMIT_S)
def test_nodes_that_were_given_up_and_go_on_lose_and_double_nothing(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    chance = random.Random(seed("PAUSE_SEED"))
    cluster = start_cluster(3, slots=4, env={"JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s"})
    names = [chance.sample(cluster.node_names, chance.randint(1, 2)) for _ in range(CYCLES)]
    verdict = _audited(cluster, names, chance, tmp_path / "journal")
    given_up = cluster.log_path("balancer").read_text().count("node.lost")
    assert given_up >= sum(map(len, names)), "a node was away for too short a time to be given up"
    assert verdict.run_again > 0, "what they had was not given to others"
    assert verdict.not_kept == []
    assert damage_of(cluster) == []


@pytest.mark.timeout(TIME_LIMIT_S)
def test_a_balancer_that_heard_nobody_because_it_was_stopped_gives_nobody_up(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    chance = random.Random(seed("PAUSE_SEED"))
    cluster = start_cluster(3, slots=4, env={"JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s"})
    verdict = _audited(cluster, [["balancer"]] * CYCLES, chance, tmp_path / "journal")
    assert verdict.not_kept == []
    assert "node.lost" not in cluster.log_path("balancer").read_text()
    assert verdict.run_again == 0, "the silence was its own"
    assert damage_of(cluster) == []


def _audited(cluster: LocalCluster, victims: Sequence[Sequence[str]], chance: random.Random, journal: Path) -> Verdict:
    load = Load(cluster, journal, chance.randrange(2**32))
    with load.running():
        for names in victims:
            time.sleep(chance.uniform(0.3, 0.8))
            _pause(cluster, names, NODE_TIMEOUT_S + chance.uniform(0.3, 1.0))
    verdict = audit(cluster, load, within_s=20 + CYCLES)
    print(f"{len(victims)} pauses: {verdict}")
    assert verdict.acknowledged > 15 * len(victims), "the clients hardly got through, so nothing was tested"
    return verdict


def _pause(cluster: LocalCluster, names: Sequence[str], seconds: float) -> None:
    pids = [cluster.pid(name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
