"""The compose file as it is delivered: built, started, used by `nc`, shot at, scaled and taken away again.

A project name, ports and volumes of its own keep it apart from whatever else runs here; all of it is removed at the
end. Needs a Docker engine with compose (the `docker` fixture says what happens without).
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import pytest

from examples.local_cluster import REPOSITORY
from tests.system.client import ask, fields, nc, parse, until
from tests.system.conftest import LOG_LINES_SHOWN, shown_on_failure
from tests.system.load import Load, audit

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(600)]

UP_S_MAX: Final = 500.0  # the first build fetches packages
COMMAND_S_MAX: Final = 90.0
KILL_CYCLES: Final = 5
SETTINGS: Final = {
    "DISPATCH_PERIOD": "2750",
    "MAX_NUM_JOBS_DISPATCH": "17",
    "REQUEST_RESULT_PERIOD": "1250ms",
    "MAX_NUM_NODES": "5",
    "JOBYARD_NODE_TIMEOUT": "3s",
    "JOBYARD_SLOTS": "3",
}


class Compose:
    """A project of the compose file, with ports that were free a moment ago."""

    node_names = ("node1", "node2", "node3")

    def __init__(self, docker: str) -> None:
        self._docker = docker
        self._project = f"jobyard-test-{os.getpid()}"
        self._ports = dict(zip(self.node_names, _free_ports(len(self.node_names)), strict=True))
        ports = {f"{name.upper()}_PORT": str(port) for name, port in self._ports.items()}
        self._env = os.environ | SETTINGS | ports

    def __call__(self, *words: str, timeout_s: float = COMMAND_S_MAX) -> str:
        """Runs `docker compose WORDS`; returns what it printed."""
        command = [self._docker, "compose", "--project-name", self._project, "--profile", "more", *words]
        return _run(command, self._env, timeout_s)

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def up(self) -> None:
        """Builds and starts all but the nodes of the profile `more`, and waits until they are well."""
        services = ("key", "balancer", *self.node_names)
        self("up", "--build", "--detach", "--wait", *services, timeout_s=UP_S_MAX)

    def inspect(self, service: str) -> dict[str, Any]:
        (container,) = self("ps", "--all", "--quiet", service).split()
        (told,) = json.loads(_run([self._docker, "inspect", container], self._env, COMMAND_S_MAX))
        return dict(told)

    def logs(self) -> list[tuple[str, str]]:
        return [("the ends of the containers' logs", self("logs", "--no-color", f"--tail={LOG_LINES_SHOWN}"))]

    def remove(self) -> None:
        self("down", "--volumes", "--timeout", "5")


def _run(command: list[str], env: Mapping[str, str], timeout_s: float) -> str:
    done = subprocess.run(
        command, env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


@pytest.fixture(scope="module")
def compose(docker: str, request: pytest.FixtureRequest) -> Iterator[Compose]:
    compose = Compose(docker)
    try:
        compose.up()
        with shown_on_failure(request.session, compose.logs):
            yield compose
    finally:
        compose.remove()


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
    assert bound == ([] if service == "balancer" else ["127.0.0.1"])


def test_a_job_is_nobody_special_and_can_write_to_its_volume_only(compose: Compose) -> None:
    script = "id -u; grep CapEff /proc/self/status; touch /usr/mine /key/mine || echo refused; touch here && ls"
    (reply,) = parse(nc(compose.address("node2"), f"run sh {script}\n"))
    size = int(reply.field("stdout") or 0)
    uid, _, capabilities, refused, written = reply.body[:size].decode().split()
    assert int(uid) != 0
    assert int(capabilities, 16) == 0
    assert (refused, written) == ("refused", "here")


# --- deaths ----------------------------------------------------------------------------------------------------


def test_containers_are_killed_and_nothing_acknowledged_is_lost(compose: Compose) -> None:
    load = Load(compose, None, seed=KILL_CYCLES)
    with load.running():
        for cycle in range(KILL_CYCLES):
            victims = (f"node{1 + cycle % 3}", "balancer")[: 1 + cycle % 2]
            time.sleep(0.5)
            compose("kill", *victims)
            compose("start", *victims)
    verdict = audit(compose, load, within_s=60)
    print(f"{verdict.acknowledged} acknowledged, {verdict.in_doubt} in doubt")
    assert verdict.acknowledged > 10 * KILL_CYCLES
    assert verdict.lost == verdict.wrong == verdict.duplicated == verdict.broken == []


def test_a_stopped_container_hands_its_jobs_back_and_leaves_in_time(compose: Compose) -> None:
    address = compose.address("node1")
    tickets = [ask(address, f"submit crash_limit=1 sh sleep 0.2; echo {number}").ticket for number in range(40)]
    compose("stop", "node3")
    assert compose.inspect("node3")["State"]["ExitCode"] == 0
    for number, ticket in enumerate(tickets):
        assert ask(address, f"wait timeout=30s {ticket}").body == b"%d\n" % number
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
