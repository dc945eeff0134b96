"""Jobyard itself: a balancer and two nodes with one slot each, as processes, every default of durability in force.

Clients talk to the first node as any program would, in lines over TCP; the jobs are spread over both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.processes import wait_until
from benchmarks.systems import jobyard_alone
from benchmarks.systems.jobyard_alone import DIALECT
from benchmarks.systems.system import CLIENTS_START_S, System, Unsupported, Work, each, fill_in_chunks
from benchmarks.wire import Conversation, crowd
from common import __version__
from examples.local_cluster import BALANCER, LocalCluster

LINES: Final[dict[Work, bytes]] = {"sleep": b"sleep 0", "py": b"py math:sqrt [4]", "exec": b"exec true"}
SUBMISSION: Final = b"SUBMIT sleep 0\n"
WAIT_FOR_FILE: Final = "SUBMIT sh touch {begun}; until test -e {opened}; do sleep 0.02; done\n"


class Jobyard(System):
    """See the module."""

    nodes = 2

    def __init__(self) -> None:
        super().__init__()
        self._cluster: LocalCluster | None = None
        self._talk: Conversation | None = None

    def version(self) -> str:
        return __version__

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self, directory: Path, workers: int) -> None:
        """Workers are slots: one on each node. Nodes without slots take jobs in, and the ledger keeps them."""
        self._open(LocalCluster(self.nodes, directory / "cluster", slots=workers // self.nodes))

    def _open(self, cluster: LocalCluster) -> None:
        self._cluster = cluster.__enter__()
        self._talk = Conversation(self._port(cluster), DIALECT)
        if self._slots():
            wait_until(lambda: self._count("slots") >= self._slots(), CLIENTS_START_S, "connecting the nodes")

    def _slots(self) -> int:
        return int(self._read("STATS local=1")["slots"]) * self.nodes

    def stop(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster = None

    def kill(self) -> None:
        if self._cluster is not None:
            for name in (BALANCER, *self._cluster.node_names):
                self._cluster.kill(name)
        self.stop()

    def roots(self) -> list[int]:
        assert self._cluster is not None, "it was not started"
        return [self._cluster.pid(name) for name in (BALANCER, *self._cluster.node_names)]

    # --- taking jobs in ------------------------------------------------------------------------------------------

    def submit(self, count: int, clients: int) -> float:
        if clients > 1:
            assert self._cluster is not None
            return crowd(self._port(self._cluster), DIALECT, SUBMISSION, count, clients)
        return self._to_node().pipeline([SUBMISSION] * count)

    def submit_each(self, count: int) -> list[float]:
        talk = self._to_node()
        return each([lambda: talk.ask(SUBMISSION)] * count)

    def submit_bulk(self, count: int) -> float:
        """One array: one ticket, and a job for each index."""
        talk = self._to_node()
        return each([lambda: talk.ask(b"SUBMIT array=1-%d sleep 0\n" % count)])[0]

    # --- having them done ----------------------------------------------------------------------------------------

    def end_to_end(self, work: Work, count: int) -> float:
        return self._to_node().pipeline([b"RUN %s\n" % LINES[work]] * count)

    def round_trips(self, work: Work, count: int) -> list[float]:
        talk = self._to_node()
        return each([lambda: talk.ask(b"RUN %s\n" % LINES[work])] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        return self._to_node().pipeline([b"RUN py time:sleep [%f]\n" % duration for duration in durations])

    # --- a long queue --------------------------------------------------------------------------------------------

    def send_gate(self, begun: Path, opened: Path) -> None:
        self._to_node().ask(WAIT_FOR_FILE.format(begun=begun, opened=opened).encode())

    def fill(self, count: int, seconds_max: float) -> int:
        talk = self._to_node()
        return fill_in_chunks(lambda size: talk.pipeline([SUBMISSION] * size), count, seconds_max, chunk=5000)

    def done(self) -> int:
        return self._count("jobs_succeeded_total")

    # --- what only Jobyard is asked ------------------------------------------------------------------------------

    idle_nodes = staticmethod(jobyard_alone.idle_nodes)
    cost_with_nodes = staticmethod(jobyard_alone.cost_with_nodes)
    bodies = staticmethod(jobyard_alone.bodies)

    def idle_connections(self, count: int, seconds: float) -> dict[str, float]:
        return jobyard_alone.idle_connections(count, seconds)

    # --- within --------------------------------------------------------------------------------------------------

    def _to_node(self) -> Conversation:
        if self._talk is None:
            raise Unsupported("it was not started")
        return self._talk

    def _port(self, cluster: LocalCluster) -> int:
        return int(cluster.address(cluster.node_names[0]).rpartition(":")[2])

    def _count(self, name: str) -> int:
        return int(self._read("STATS").get(name, "0"))

    def _read(self, question: str) -> dict[str, str]:
        _, body = self._to_node().ask(question.encode() + b"\n")
        return dict(line.split(" ", 1) for line in body.decode().splitlines() if line)
