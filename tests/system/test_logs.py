"""The logs of a real cluster: what an operator acts on, with the settings in force, and nothing for each job."""

import json
import os
import signal
from typing import Any, Final

import pytest

from examples.local_cluster import LocalCluster
from jobyard import Client
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.programs import job_processes
from tests.test_log_document import listed

pytestmark = pytest.mark.system

JOBS: Final = 1000
KEY: Final = "the key of this cluster, and no other"
TOKEN: Final = "a-token-that-nobody-may-read"


def entries(cluster: LocalCluster, name: str) -> list[dict[str, Any]]:
    """Every line of a program's log, which must be JSON."""
    return [json.loads(line) for line in cluster.log_path(name).read_text().splitlines()]


def events(cluster: LocalCluster, name: str) -> list[str]:
    return [entry["event"] for entry in entries(cluster, name)]


def test_a_thousand_jobs_leave_no_line_and_the_first_line_has_the_settings_but_no_secret(
    start_cluster: StartCluster,
) -> None:
    secrets = {"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_CLIENT_TOKEN": TOKEN}
    cluster = start_cluster(2, slots=4, env=secrets | {"DISPATCH_PERIOD": "4321ms", "JOBYARD_LOG_LEVEL": "info"})
    programs = ("balancer", *cluster.node_names)
    until("nodes have told of it", lambda: all("link.opened" in events(cluster, name) for name in cluster.node_names))
    before = {name: len(entries(cluster, name)) for name in programs}

    with Client(cluster.url("node1"), token=TOKEN) as yard:
        tickets = [yard.submit("sleep", "0") for _ in range(JOBS // 2)]
        array = yard.submit("sh", "exit $((JOBYARD_INDEX % 2))", array=f"1-{JOBS // 2}")
        assert len(list(yard.wait_all([*tickets, array], 60))) == len(tickets) + 1

    assert {name: entries(cluster, name)[count:] for name, count in before.items()} == {name: [] for name in programs}
    known = listed()
    for name in programs:
        first, *_ = lines = entries(cluster, name)
        program = "balancer" if name == "balancer" else "node"
        assert first["event"] == f"{program}.started"
        assert first["cluster_key"] == "(hidden)"
        assert {entry["program"] for entry in lines} == {program}
        assert {(entry["event"], program) for entry in lines} <= set(known)
        assert KEY not in (text := cluster.log_path(name).read_text())
        assert TOKEN not in text
    assert entries(cluster, "balancer")[0]["dispatch_period_s"] == 4.321
    started = entries(cluster, "node1")[0]
    assert (started["slots"], started["balancer"]) == (4, cluster.address("balancer"))


def test_a_node_that_is_told_twice_to_stop_ends_at_once_as_planned_and_its_jobs_with_it(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(1, slots=1, env={"JOBYARD_DRAIN_GRACE": "60s"})
    directory = cluster.log_path("node1").parent / "node1"
    with Client(cluster.url("node1")) as yard:
        ticket = yard.submit("exec", "sleep 60")
        until("the job runs", lambda: yard.status(ticket).state == "running")
    os.kill(cluster.pid("node1"), signal.SIGTERM)
    until("it drains", lambda: "node.draining" in events(cluster, "node1"))
    assert job_processes(directory)
    os.kill(cluster.pid("node1"), signal.SIGTERM)
    ended = until("it has ended", lambda: cluster.ended().get("node1"))
    assert ended.partition(";")[0] == "ended with exit code 0"
    assert events(cluster, "node1")[-1] == "node.stopped"
    assert not job_processes(directory)
