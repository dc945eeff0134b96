"""`--health` of real processes: it tells a program that makes progress from one that only seems to be there."""

import os
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import ask, submit, until
from tests.system.conftest import StartCluster
from tests.system.programs import Ended, data_dir, run_to_its_end

pytestmark = pytest.mark.system

NODE_TIMEOUT_S: Final = 2.0
UNHEALTHY_AFTER_S: Final = 10.0


def health(cluster: LocalCluster, name: str) -> Ended:
    program = "balancer" if name == "balancer" else "node"
    return run_to_its_end(program, "--health", env={"JOBYARD_DATA_DIR": str(data_dir(cluster, name))})


def well(cluster: LocalCluster, name: str) -> bool:
    return health(cluster, name).status == 0


def test_a_program_that_is_stopped_or_alone_is_found_and_well_again_afterwards(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, env={"JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s"})
    for name in ("balancer", "node1", "node2"):
        until(f"{name} is well", lambda name=name: well(cluster, name))
    os.kill(cluster.pid("node2"), signal.SIGSTOP)
    cluster.kill("balancer")
    time.sleep(UNHEALTHY_AFTER_S + 2 * NODE_TIMEOUT_S)
    for name, told in (("balancer", "no progress"), ("node1", "no balancer for"), ("node2", "no progress")):
        found = health(cluster, name)
        assert found.status == 1, name
        assert told in found.said
    submit(cluster.address("node1"), "sh true")
    until("node1 has told of its commit", lambda: well(cluster, "node1"), within_s=5)
    os.kill(cluster.pid("node2"), signal.SIGCONT)
    cluster.start("balancer")
    for name in ("balancer", "node1", "node2"):
        until(f"{name} is well again", lambda name=name: well(cluster, name))


def test_a_directory_in_use_can_be_checked_and_copied_under_load(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(2)
    address = cluster.address("node1")
    for round in range(2):
        for number in range(20):
            submit(address, f"group=load sh printf {number}")
        for name in ("balancer", "node1", "node2"):
            program, target = name.rstrip("12"), tmp_path / f"{name}-{round}"
            checked = run_to_its_end(program, "--check", str(data_dir(cluster, name)), env={})
            assert checked.status == 0, checked
            copied = run_to_its_end(program, "--copy", str(data_dir(cluster, name)), str(target), env={})
            assert copied.status == 0, copied.said
            assert run_to_its_end(program, "--check", str(target), env={}).status == 0
    until("all have ended", lambda: ask(address, "watch timeout=1s group=load").field("live") == "0")
