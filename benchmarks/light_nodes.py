"""Many nodes in one process, to see what a balancer pays for them: `python -m benchmarks.light_nodes PORT COUNT DIR`.

Each is the node that is shipped, put together by the same assembly: machine, store, clients' port, link. Only what
would swamp two cores is left out: there are no executors (so they run nothing but `sleep`, which needs none), and
the stores lie in a file system in memory where there is one, so that a hundred nodes' syncs do not stand in the
balancer's way. What is measured with them is therefore the balancer, never the nodes.
"""

import argparse
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
import trio

from benchmarks.processes import HOST, Child, wait_until
from common.runtime.outside import real
from common.runtime.ports import listen
from common.runtime.program import on_signals
from common.runtime.store import open_store
from common.settings import NodeSettings, load_node
from node.assembly import Node, identity_of

REPOSITORY: Final = Path(__file__).resolve().parent.parent
IN_MEMORY: Final = Path("/dev/shm")
START_S_MAX: Final = 60.0
STORE_BYTES_MAX: Final = "1GiB"


class LightNodes:
    """The process of so many light nodes, each with a slot, while the context lasts. Clients talk to the first."""

    def __init__(self, count: int, balancer_port: int, directory: Path) -> None:
        self._count = count
        self._balancer_port = balancer_port
        self._directory = directory
        self.port = 0

    def __enter__(self) -> Self:
        ready = self._directory / "light-nodes-port"
        command = [
            sys.executable,
            "-m",
            "benchmarks.light_nodes",
            str(self._balancer_port),
            str(self._count),
            str(ready),
        ]
        self._child = Child(command, self._directory / "light-nodes.log", {"PYTHONPATH": str(REPOSITORY)})
        try:
            wait_until(lambda: self._is_ready(ready), START_S_MAX, f"starting {self._count} light nodes")
        except BaseException:
            self._child.stop()
            raise
        self.port = int(ready.read_text())
        return self

    def _is_ready(self, path: Path) -> bool:
        self._child.check()
        return path.exists() and path.read_text().endswith("\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.stop()


async def serve(balancer_port: int, count: int, ready: Path, directory: Path) -> None:
    """Runs the nodes until SIGTERM; `ready` gets the first one's port when all are connected."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(on_signals, nursery.cancel_scope.cancel, nursery.cancel_scope.cancel)
        nodes = []
        for number in range(count):
            port: int
            node, port = await nursery.start(_run_one, balancer_port, directory / str(number), f"light{number}")
            nodes.append((node, port))
        while not all(node.worker.statistics()["linked"] for node, _ in nodes):  # noqa: ASYNC110  (it has no event)
            await trio.sleep(0.05)
        _tell(ready, nodes[0][1])


def _tell(ready: Path, port: int) -> None:
    ready.write_text(f"{port}\n")


async def _run_one(
    balancer_port: int, directory: Path, name: str, task_status: trio.TaskStatus[tuple[Node, int]]
) -> None:
    settings = _settings(balancer_port, directory, name)
    store = open_store(settings.data_dir, settings.store_max_bytes, lambda table, key: None)
    try:
        outside = real(store, [])
        node = Node(
            settings, identity_of(settings, outside), outside, partial(trio.open_tcp_stream, *settings.balancer)
        )
        listeners = await listen(settings.listen, None)
        task_status.started((node, listeners[0].listener.socket.getsockname()[1]))
        await node.run(listeners, lambda batch: None)
    finally:
        store.close()


def _settings(balancer_port: int, directory: Path, name: str) -> NodeSettings:
    own = {
        "JOBYARD_DATA_DIR": str(directory),
        "JOBYARD_LISTEN": f"{HOST}:0",
        "JOBYARD_NODE_NAME": name,
        "JOBYARD_SLOTS": "1",
        "JOBYARD_STORE_MAX": STORE_BYTES_MAX,
        "JOBYARD_JOB_KINDS": "sleep",
    }
    return load_node(own, HOST, balancer_port)


def main() -> None:
    parser = argparse.ArgumentParser(description="Many nodes in one process, without executors.")
    parser.add_argument("balancer_port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("ready", type=Path, help="gets the first node's port when all are connected")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    directory = Path(
        tempfile.mkdtemp(prefix="jobyard-light-", dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None)
    )
    try:
        trio.run(serve, given.balancer_port, given.count, given.ready, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
