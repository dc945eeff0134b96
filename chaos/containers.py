"""A cluster of the compose file, in a project of its own, whose containers are killed, stopped, paused and cut off.

Rules: it touches only containers, networks and volumes of its own project, and leaves none of them behind; another
cluster of the same compose file goes on unharmed. Ports are free ones, on loopback.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from chaos.blows import Kind
from chaos.victims import BALANCER
from examples.local_cluster import REPOSITORY, ClusterError

UP_S_MAX: Final = 900.0  # the first build fetches a base image and packages
COMMAND_S_MAX: Final = 90.0
REMOVE_GRACE_S: Final = 5
FREEZES_MAX: Final = 5
FREEZE_AGAIN_S: Final = 0.3
STOPPED: Final = (0, 128 + signal.SIGTERM)  # properly; before it had started, and could be asked

# Clients of a trial know no token and speak no TLS; whatever else is set in the environment goes to the cluster.
NOT_PASSED_ON: Final = ("JOBYARD_CLIENT_TOKEN", "JOBYARD_TLS_CERT", "JOBYARD_TLS_KEY", "JOBYARD_TLS_CA")


class Compose:
    """A project of the compose file: `with Compose("a-name", settings) as compose: …`. `settings` are for its programs;
    ports are those that were free a moment ago."""

    node_names = ("node1", "node2", "node3")

    def __init__(self, project: str, settings: Mapping[str, str]) -> None:
        self.project = project
        http_port, *node_ports = _free_ports(1 + len(self.node_names))
        self._ports = dict(zip(self.node_names, node_ports, strict=True))
        ports = {f"{name.upper()}_PORT": str(port) for name, port in self._ports.items()}
        ports["HTTP_PORT"] = str(http_port)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        self._env = {**inherited, **settings, **ports}

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __call__(self, *words: str, timeout_s: float = COMMAND_S_MAX) -> str:
        """Runs `docker compose WORDS`; returns what it printed."""
        project = ("--ansi", "never", "--project-name", self.project, "--profile", "more")
        return self.docker("compose", *project, *words, timeout_s=timeout_s)

    def docker(self, *words: str, timeout_s: float = COMMAND_S_MAX) -> str:
        """Runs `docker WORDS` with the environment of the project; returns what it printed."""
        command = ["docker", *words]
        try:
            done = subprocess.run(
                command, env=self._env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=timeout_s, check=False, start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"`{' '.join(command)}`: {error}") from error
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def up(self) -> None:
        """Builds and starts all but the nodes of the profile `more`, and waits until they are well."""
        services = ("key", BALANCER, *self.node_names)
        self("up", "--build", "--detach", "--wait", *services, timeout_s=UP_S_MAX)

    def address(self, node: str) -> str:
        return f"127.0.0.1:{self._ports[node]}"

    def container(self, service: str) -> str:
        """The id of a service's one container."""
        (container,) = self("ps", "--all", "--quiet", service).split()
        return container

    def inspect(self, service: str) -> dict[str, Any]:
        (told,) = json.loads(self.docker("inspect", self.container(service)))
        return dict(told)

    def remove(self) -> None:
        """With the volumes; also what was only half there."""
        self("down", "--volumes", "--timeout", str(REMOVE_GRACE_S))


class Containers:
    """The containers of a project as victims: see `victims.Cluster`. They must be up when this is made."""

    journal = "/data/executions"  # in each node's own volume

    def __init__(self, compose: Compose) -> None:
        self.node_names = compose.node_names
        self._compose = compose
        self._ids = {name: compose.container(name) for name in (BALANCER, *compose.node_names)}
        self._network = f"{compose.project}_default"
        self._misconduct: list[str] = []

    def address(self, node: str) -> str:
        return self._compose.address(node)

    def strike(self, victim: str, kind: Kind) -> None:
        container = self._ids[victim]
        match kind:
            case Kind.KILL:
                self._note_restarts(victim)
                self._compose.docker("kill", container)
            case Kind.STOP:
                self._note_restarts(victim)
                self._compose.docker("stop", container)
                if (status := self._state(victim)["State"]["ExitCode"]) not in STOPPED:
                    self._misconduct.append(f"{victim} was asked to stop and ended with {status}")
            case Kind.PAUSE:
                self._insist("pause", container)
            case Kind.CUT:
                self._compose.docker("network", "disconnect", self._network, container)

    def mend(self, victim: str, kind: Kind) -> None:
        container = self._ids[victim]
        match kind:
            case Kind.KILL | Kind.STOP:
                self._compose.docker("start", container)
            case Kind.PAUSE:
                self._insist("unpause", container)
            case Kind.CUT:  # with the name by which the others look for it
                self._compose.docker("network", "connect", "--alias", victim, self._network, container)

    def executions(self) -> str:
        script = f"test ! -e {self.journal} || cat {self.journal}"
        return "".join(self._compose.docker("exec", self._ids[node], "sh", "-c", script) for node in self.node_names)

    def misconduct(self) -> list[str]:
        for name in self._ids:
            self._note_restarts(name)
        return self._misconduct

    def save_logs(self, directory: Path) -> None:
        for name in self._ids:
            text = self._compose("logs", "--no-color", "--no-log-prefix", "--timestamps", name)
            (directory / f"{name}.log").write_text(text, encoding="utf-8")

    def _insist(self, *words: str) -> None:
        """A busy kernel may say that it is unable to freeze a container just now."""
        for _ in range(FREEZES_MAX - 1):
            try:
                self._compose.docker(*words)
                return
            except ClusterError:
                time.sleep(FREEZE_AGAIN_S)
        self._compose.docker(*words)

    def _note_restarts(self, victim: str) -> None:
        """The engine starts again what ends by itself, and counts that; the count begins anew when we start it."""
        if count := self._state(victim)["RestartCount"]:
            self._misconduct.append(f"{victim} ended by itself and was started again, {count} times")

    def _state(self, victim: str) -> dict[str, Any]:
        (told,) = json.loads(self._compose.docker("inspect", self._ids[victim]))
        return dict(told)


def engine_problem() -> str:
    """Why no containers can be had here; empty where they can."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"`{' '.join(command)}` cannot be run: {error}"
        if done.returncode != 0:
            return f"`{' '.join(command)}` says: {(done.stderr or done.stdout).strip()[-300:]}"
    return ""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]
