"""The balancer is away for a while, under client load: nodes take in, run what they have and answer for what they know,
and when it is back nothing that ran is run again. With JOBYARD_LOCAL_FALLBACK they also run what nobody else knows of.

`BALANCER_AWAY_S` and `BALANCER_AWAY_SEED` in the environment choose another run.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import BALANCER, LocalCluster
from tests.system.client import ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.directories import damage_of
from tests.system.load import Load, audit
from tests.system.reach import reach, seed
from tests.system.watching import begun, where

pytestmark = pytest.mark.system

AWAY_S: Final = reach("BALANCER_AWAY_S", 8, soak=60)


@pytest.mark.timeout(120 + 6 * AWAY_S)
def test_while_the_balancer_is_away_nodes_take_in_and_run_on_and_nothing_is_run_again(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    drawn = seed("BALANCER_AWAY_SEED")

    def live_without(fallback: str) -> None:
        env = {"JOBYARD_NODE_TIMEOUT": "1s", "JOBYARD_LOCAL_FALLBACK": fallback}
        place = tmp_path / fallback
        place.mkdir()
        _live_without_a_balancer(start_cluster(3, slots=4, env=env), place, fallback, drawn)

    with ThreadPoolExecutor() as pool:  # two clusters, because most of it is waiting
        for lived in [pool.submit(live_without, fallback) for fallback in ("off", "1s")]:
            lived.result()


def _live_without_a_balancer(cluster: LocalCluster, tmp_path: Path, fallback: str, drawn: int) -> None:
    node = cluster.address("node1")
    load = Load(cluster, tmp_path / "journal", drawn, submitters=1)
    with load.running():
        ended = {ticket: wait(node, ticket) for ticket in (submit(node, f"sh echo {number}") for number in range(5))}
        running = submit(node, f"sh sleep {AWAY_S / 2}; touch {tmp_path}/ran-on; echo ran on")
        where(cluster, running, asked="node1")
        cluster.kill(BALANCER)
        gone_at = time.monotonic()
        alone = _alone(cluster, load, fallback)
        until("what ran goes on", (tmp_path / "ran-on").exists, within_s=AWAY_S)
        assert {ticket: ask(node, f"result {ticket}") for ticket in ended} == ended
        time.sleep(max(0.0, gone_at + AWAY_S - time.monotonic()))
        assert _began_alone(tmp_path, alone) == (fallback != "off")
        cluster.start(BALANCER)
    assert wait(node, running).field("attempt") == "1"
    verdict = audit(cluster, load, within_s=30 + 3 * AWAY_S)
    print(f"{AWAY_S} s without the balancer, fallback {fallback}: {verdict}")
    assert verdict.not_kept == []
    assert verdict.run_again == 0
    assert cluster.ended() == {}
    assert damage_of(cluster) == []


def _alone(cluster: LocalCluster, load: Load, fallback: str) -> list[str]:
    """Jobs without a key that were acknowledged without a balancer; the last of them also ran, if it may."""
    before = len(load.told.jobs)
    until("clients are served", lambda: len(load.told.jobs) > before + 20)
    known = len(load.told.jobs)
    until("clients are served still", lambda: len(load.told.jobs) > known + 20)
    new = list(load.told.jobs.items())[before:]
    alone = [ticket for ticket, job in new if job.key is None and " sh " in job.line]
    if fallback != "off":
        ticket = alone[-1]
        assert wait(cluster.address(load.told.origins[ticket]), ticket).field("attempt") == "1"
    return alone


def _began_alone(tmp_path: Path, tickets: list[str]) -> bool:
    """Whether any of them has begun; the first ones may have been with the balancer when it died."""
    return bool(set(tickets[len(tickets) // 2 :]) & begun(tmp_path / "journal").keys())
