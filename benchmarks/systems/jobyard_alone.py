"""What only Jobyard is asked: what it costs as nodes, connections and bodies grow. Each starts a cluster of its own."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from benchmarks import idlers
from benchmarks.light_nodes import LightNodes
from benchmarks.processes import children, processor_s, wait_until
from benchmarks.systems.system import CLIENTS_START_S
from benchmarks.watching import Memory
from benchmarks.wire import Conversation, Dialect
from examples.local_cluster import BALANCER, LocalCluster

DIALECT: Final = Dialect(b"OK", lambda line: int(line.rpartition(b"bytes=")[2]) + 1 if b" bytes=" in line else 0)
SETTLE_S: Final = 2.0  # after the last node has come: handshakes, first reports
WARM_JOBS: Final = 20


def idle_nodes(nodes: int, seconds: float, light: bool) -> dict[str, float]:
    """The share of a core that the balancer uses, and a node, while nothing happens. Light nodes are all in one
    process, without executors: the links and the balancer are as with real ones."""
    with (
        _directory() as directory,
        LocalCluster(0 if light else nodes, directory / "cluster", _room_for(nodes), slots=1) as cluster,
        LightNodes(nodes, _port(cluster, BALANCER), directory) if light else nullcontext(),
    ):
        if not light:
            _wait_for_nodes(cluster, nodes)
        time.sleep(SETTLE_S)
        processes = {"balancer": cluster.pid(BALANCER)}
        return _shares(processes if light else {**processes, "node": cluster.pid(cluster.node_names[-1])}, seconds)


def cost_with_nodes(nodes: int, count: int) -> dict[str, float]:
    """Jobs per second, and processor time of the balancer for each, in microseconds, with so many light nodes."""
    with (
        _directory() as directory,
        LocalCluster(0, directory / "cluster", _room_for(nodes)) as cluster,
        LightNodes(nodes, _port(cluster, BALANCER), directory) as light,
        closing(Conversation(light.port, DIALECT)) as talk,
    ):
        talk.pipeline([b"RUN sleep 0\n"] * max(nodes, 100))  # warm
        before_s = processor_s([cluster.pid(BALANCER)])
        taken_s = talk.pipeline([b"RUN sleep 0\n"] * count)
        used_s = processor_s([cluster.pid(BALANCER)]) - before_s
    return {"rate": count / taken_s, "balancer_us": used_s / count * 1e6}


def idle_connections(count: int, seconds: float) -> dict[str, float]:
    """What so many silent clients cost the one node that they are connected to."""
    idlers.make_room(count)  # said before anything is started
    room = {"JOBYARD_CONNECTIONS_MAX": str(count + 1)}
    with _directory() as directory, LocalCluster(1, directory / "cluster", room, slots=1) as cluster:
        _wait_for_nodes(cluster, 1)
        (node,) = cluster.node_names
        return idlers.cost(_port(cluster, node), b"PING\n", b"OK pong", count, cluster.pid(node), seconds)


def bodies(count: int, size: int) -> dict[str, Any]:
    """`cat` of so many bytes, so many times, by one client that does not wait: the seconds that it takes, and by how
    much the memory of balancer, nodes and spawners had grown at the most, once a few had been through."""
    request = b"RUN bytes=%d exec cat\n%s\n" % (size, b"x" * size)
    with _directory() as directory, LocalCluster(2, directory / "cluster", slots=1) as cluster:
        _wait_for_nodes(cluster, 2)
        with closing(Conversation(_port(cluster, cluster.node_names[0]), DIALECT)) as talk:
            talk.stream(request, WARM_JOBS)
            nodes = [cluster.pid(name) for name in cluster.node_names]
            spawners = [child for node in nodes for child in children(node)]
            with Memory({"balancer": [cluster.pid(BALANCER)], "node": nodes, "spawner": spawners}) as memory:
                taken_s = talk.stream(request, count)
    return {"seconds": taken_s, "growth": memory.growth}


# --- within ------------------------------------------------------------------------------------------------------


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jobyard-bench-") as name:
        yield Path(name)


def _room_for(nodes: int) -> dict[str, str]:
    return {"MAX_NUM_NODES": str(nodes)}


def _port(cluster: LocalCluster, name: str) -> int:
    return int(cluster.address(name).rpartition(":")[2])


def _wait_for_nodes(cluster: LocalCluster, nodes: int) -> None:
    with closing(Conversation(_port(cluster, cluster.node_names[0]), DIALECT)) as talk:

        def are_alive() -> bool:
            _, body = talk.ask(b"NODES\n")
            return body.count(b"state=alive") >= nodes

        wait_until(are_alive, CLIENTS_START_S, f"connecting {nodes} nodes", poll_s=0.05)


def _shares(processes: dict[str, int], seconds: float) -> dict[str, float]:
    """Percent of a core that each of these uses during so many seconds."""
    before_s = {name: processor_s([pid]) for name, pid in processes.items()}
    time.sleep(seconds)
    return {name: (processor_s([pid]) - before_s[name]) / seconds * 100 for name, pid in processes.items()}
