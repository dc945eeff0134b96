"""The compose file as it is delivered: built, started, used by `nc`, shot at, scaled and taken away again.

A project name, ports and volumes of its own keep it apart from whatever else runs here; all of it is removed at the
end. Needs a Docker engine with compose (the `docker` fixture says what happens without).
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random
from typing import Any, Final

import pytest

from chaos import trial
from chaos.blows import Kind, draw
from chaos.containers import Compose, Containers
from chaos.display import in_words
from chaos.verdict import judge
from chaos.victims import BALANCER
from tests.system.client import ask, fields, nc, parse, until
from tests.system.conftest import LOG_LINES_SHOWN, shown_on_failure

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(1000)]

NODE_TIMEOUT_S: Final = 3.0
CYCLES: Final = int(os.environ.get("CHAOS_CYCLES") or (20 if os.environ.get("JOBYARD_SOAK") else 5))  # of each kind
CHAOS_SEED: Final = int(os.environ.get("CHAOS_SEED") or 1)
SETTINGS: Final = {
    "DISPATCH_PERIOD": "2750",
    "MAX_NUM_JOBS_DISPATCH": "17",
    "REQUEST_RESULT_PERIOD": "1250ms",
    "MAX_NUM_NODES": "5",
    "JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s",
    "JOBYARD_SLOTS": "3",
    "HEALTH_INTERVAL": "5s",
}


def logs(compose: Compose) -> list[tuple[str, str]]:
    return [("the ends of the containers' logs", compose("logs", "--no-color", f"--tail={LOG_LINES_SHOWN}"))]


@pytest.fixture(scope="module")
def compose(docker: str, request: pytest.FixtureRequest) -> Iterator[Compose]:
    with (
        Compose(f"jobyard-test-{os.getpid()}", SETTINGS) as compose,
        shown_on_failure(request.session, lambda: logs(compose)),
    ):
        yield compose


@pytest.fixture(autouse=True)
def all_alive(compose: Compose) -> None:
    """Each test finds the cluster well, whatever the one before it did."""
    until("all nodes are alive", lambda: set(compose.node_names) <= set(states(compose)), within_s=60)


def states(compose: Compose) -> list[str]:
    """The names of the nodes that are alive, as the first node that answers tells it."""
    for name in compose.node_names:
        try:
            rows = [fields(row) for row in ask(compose.address(name), "nodes").body.decode().splitlines()]
        except OSError:
            continue
        return [row["name"] for row in rows if row["state"] == "alive"]
    return []


# --- use -------------------------------------------------------------------------------------------------------


def test_a_job_typed_in_at_one_container_is_read_at_another(compose: Compose) -> None:
    for name, other in zip(compose.node_names, (*compose.node_names[1:], compose.node_names[0]), strict=True):
        (submitted,) = parse(nc(compose.address(name), f"submit sh echo from {name}\n"))
        (waited,) = parse(nc(compose.address(other), f"wait timeout=20s {submitted.ticket}\n"))
        assert (waited.field("state"), waited.body) == ("succeeded", f"from {name}\n".encode())


def test_every_kind_of_job_runs_in_a_container(compose: Compose) -> None:
    typed = 'run exec echo words\nrun argv ["echo", "a b"]\nrun py math:sqrt [49]\nrun bytes=4 sh cat\nbody\n150\n'
    *runs, slept = parse(nc(compose.address("node1"), typed))
    assert [reply.body for reply in runs] == [b"words\n", b"a b\n", b"7.0\n", b"body"]
    assert slept.ok


def test_settings_of_the_environment_reach_the_programs(compose: Compose) -> None:
    balancer, node = started(compose, "balancer"), started(compose, "node1")
    assert (balancer["dispatch_period_s"], balancer["result_period_s"]) == (2.75, 1.25)
    assert (balancer["jobs_per_round_max"], balancer["nodes_max"]) == (17, 5)
    assert (node["node_timeout_s"], node["slots"], node["node_name"]) == (3.0, 3, "node1")
    assert balancer["cluster_key"] == node["cluster_key"] == "(hidden)"


UNCOMPILED = """\
import os, sys, balancer.app, node.app
specs = [spec for module in list(sys.modules.values()) if (spec := getattr(module, '__spec__', None))]
print(*(spec.name for spec in specs if spec.cached and not os.path.exists(spec.cached)))
"""


def test_a_program_that_starts_in_a_container_finds_all_that_it_imports_compiled(compose: Compose) -> None:
    """It could not keep what it compiles: each start and each health check would do it again."""
    assert compose.docker("exec", compose.container("node1"), "python3", "-c", UNCOMPILED).split() == []


def started(compose: Compose, service: str) -> dict[str, Any]:
    """The start-up log line of a service."""
    lines = compose("logs", "--no-color", "--no-log-prefix", service).splitlines()
    (line, *_) = (line for line in lines if ".started" in line)
    return dict(json.loads(re.sub(r"^[^{]*", "", line)))


# --- harmlessness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["balancer", "node1", "node2", "node3"])
def test_a_container_has_no_more_rights_than_it_needs(compose: Compose, service: str) -> None:
    told = compose.inspect(service)
    host = told["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert {mount["Destination"] for mount in told["Mounts"] if mount["RW"]} == {"/data"}
    bound = [binding["HostIp"] for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
    assert bound == ["127.0.0.1"], "of the balancer HTTP, of a node the port for clients; to this machine alone"


def test_a_job_is_nobody_special_and_can_write_to_its_volume_only(compose: Compose) -> None:
    script = "id -u; grep CapEff /proc/self/status; touch /usr/mine /key/mine || echo refused; touch here && ls"
    (reply,) = parse(nc(compose.address("node2"), f"run sh {script}\n"))
    size = int(reply.field("stdout") or 0)
    uid, _, capabilities, refused, written = reply.body[:size].decode().split()
    assert int(uid) != 0
    assert int(capabilities, 16) == 0
    assert (refused, written) == ("refused", "here")


def test_a_program_that_hangs_is_unhealthy_and_well_again_when_it_goes_on(compose: Compose) -> None:
    services = (BALANCER, "node2")
    for service in services:
        hang(compose, service, "STOP")
    try:
        until("both are unhealthy", lambda: healths(compose, services) == {"unhealthy"}, within_s=60)
    finally:
        for service in services:
            hang(compose, service, "CONT")
    until("both are healthy", lambda: healths(compose, services) == {"healthy"}, within_s=30)


def hang(compose: Compose, service: str, signal: str) -> None:
    """Signals the program and not the container's init, whose only child it is."""
    compose("exec", "-T", service, "sh", "-c", f"kill -s {signal} $(cat /proc/1/task/1/children)")


def healths(compose: Compose, services: Iterable[str]) -> set[str]:
    return {compose.inspect(service)["State"]["Health"]["Status"] for service in services}


# --- deaths ----------------------------------------------------------------------------------------------------


async def test_containers_are_hit_in_every_way_and_nothing_acknowledged_is_lost(
    compose: Compose,
) -> None:
    cluster = Containers(compose)
    blows = list(islice(draw(Random(CHAOS_SEED), (BALANCER, *cluster.node_names), NODE_TIMEOUT_S), CYCLES * len(Kind)))
    verdict = judge(await trial.hold(cluster, blows, CHAOS_SEED, f"chaos-{CHAOS_SEED}", NODE_TIMEOUT_S))
    print(in_words(verdict))
    assert verdict.faults == ()
    assert verdict.blows == tuple((kind, CYCLES) for kind in sorted(Kind))
    assert verdict.acknowledged > 10 * CYCLES, "the clients hardly got through, so nothing was tested"


def test_a_stopped_container_hands_its_jobs_back_and_leaves_in_time(compose: Compose) -> None:
    address = compose.address("node1")
    tickets = [ask(address, f"submit crash_limit=1 sh sleep 0.2; echo {number}").ticket for number in range(40)]
    compose("stop", "node3")
    try:
        assert compose.inspect("node3")["State"]["ExitCode"] == 0
        for number, ticket in enumerate(tickets):
            assert ask(address, f"wait timeout=30s {ticket}").body == b"%d\n" % number
    finally:
        compose("start", "node3")


def test_jobs_and_key_survive_the_containers(compose: Compose) -> None:
    tickets = [ask(compose.address("node1"), f"submit sh echo {number}").ticket for number in range(5)]
    results = [ask(compose.address("node2"), f"wait {ticket}") for ticket in tickets]
    assert [reply.body for reply in results] == [b"%d\n" % number for number in range(5)]
    compose("down")
    compose.up()
    assert [ask(compose.address("node3"), f"wait {ticket}") for ticket in tickets] == results


def test_more_nodes_join_without_being_named(compose: Compose) -> None:
    compose("up", "--detach", "--no-recreate", "--scale", "node=2", "node")
    until("five nodes are alive", lambda: len(states(compose)) == 5)
    tickets = [ask(compose.address("node1"), "submit sh sleep 0.5; echo $JOBYARD_NODE").ticket for _ in range(30)]
    ran_on = {ask(compose.address("node2"), f"wait {ticket}").body.decode().strip() for ticket in tickets}
    assert ran_on == set(states(compose))
