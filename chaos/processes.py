"""A cluster of plain processes of this machine as victims: where there is no Docker, and for tests.

Each node reaches the balancer through a relay of its own, which is its network: cut, its clients still reach it, and
the balancer does not. To cut the balancer off is to cut all relays. A process that is paused keeps its jobs running,
other than a container.
"""

import os
import shutil
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from chaos.blows import Kind
from chaos.relay import Relay
from chaos.victims import BALANCER
from examples.local_cluster import LocalCluster

NODES: Final = 3
STOPPED: Final = (0, -signal.SIGTERM)  # properly; before it had started, and could be asked


class Processes:
    """`with Processes(directory, settings) as cluster: …`; `directory` keeps data, logs and the journal."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._directory = directory
        self._journal = directory / "executions"
        self._relays = {
            f"node{number}": Relay(lambda: self._cluster.address(BALANCER)) for number in range(1, NODES + 1)
        }
        dials = {name: relay.port for name, relay in self._relays.items()}
        self._cluster = LocalCluster(NODES, directory, settings, dials=dials)
        self._cuts = dict.fromkeys(self._relays, 0)  # a relay may be cut for its node and for the balancer
        self._lock = threading.Lock()
        self._misconduct: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for relay in self._relays.values():
                stack.enter_context(relay)
            stack.enter_context(self._cluster)
            self._cluster.wait_until_joined()  # of a node that the ledger has never met nobody else can tell
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def node_names(self) -> tuple[str, ...]:
        return self._cluster.node_names

    @property
    def journal(self) -> str:
        return str(self._journal)

    def address(self, node: str) -> str:
        return self._cluster.address(node)

    def strike(self, victim: str, kind: Kind) -> None:
        if how := self._cluster.ended().get(victim):
            self._misconduct.append(f"{victim} {how}")
            self._cluster.start(victim)
        match kind:
            case Kind.KILL:
                self._cluster.kill(victim)
            case Kind.STOP:
                if (status := self._cluster.terminate(victim)) not in STOPPED:
                    self._misconduct.append(f"{victim} was asked to stop and ended with {status}")
            case Kind.PAUSE:
                os.kill(self._cluster.pid(victim), signal.SIGSTOP)
            case Kind.CUT:
                self._cut(victim, 1)

    def mend(self, victim: str, kind: Kind) -> None:
        match kind:
            case Kind.KILL | Kind.STOP:
                self._cluster.start(victim)
            case Kind.PAUSE:
                os.kill(self._cluster.pid(victim), signal.SIGCONT)
            case Kind.CUT:
                self._cut(victim, -1)

    def _cut(self, victim: str, change: int) -> None:
        with self._lock:
            for node in self._relays if victim == BALANCER else [victim]:
                self._cuts[node] += change
                if self._cuts[node]:
                    self._relays[node].cut()
                else:
                    self._relays[node].mend()

    def executions(self) -> str:
        return self._journal.read_text() if self._journal.exists() else ""

    def misconduct(self) -> list[str]:
        return [*self._misconduct, *(f"{name} {how}" for name, how in self._cluster.ended().items())]

    def save_logs(self, directory: Path) -> None:
        for name in (BALANCER, *self.node_names):
            shutil.copy(self._cluster.log_path(name), directory / f"{name}.log")
