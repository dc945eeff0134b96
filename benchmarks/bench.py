"""How fast it is here: `make bench`. Two nodes and a balancer as processes, full durability, real sockets.

Absolute figures move with the machine, so each stands beside a yardstick that is measured in the same run: one synced
LMDB commit, and one posix_spawn. Every measure is taken REPEATS times; the median and the extremes are shown. Nothing
here is a test: a slow machine is not a bug.
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import lmdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.local_cluster import LocalCluster

REPEATS = 5


@attrs.frozen
class Measure:
    """One row of the table. `better` says in which direction."""

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Conversation:
    """One connection to a node; requests go out from a thread, so that a long pipeline cannot deadlock."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def ask(self, line: bytes) -> None:
        self._socket.sendall(line)
        self._read()

    def pipeline(self, line: bytes, count: int) -> float:
        """Seconds from the first request to the last reply."""
        started = time.perf_counter()
        sender = threading.Thread(target=self._socket.sendall, args=(line * count,), daemon=True)
        sender.start()
        for _ in range(count):
            self._read()
        return time.perf_counter() - started

    def _read(self) -> None:
        reply = self._replies.readline()
        if not reply.startswith(b"OK"):
            raise SystemExit(f"bench: unexpected reply {reply!r}")
        if b" bytes=" in reply:
            self._replies.read(int(reply.rpartition(b"bytes=")[2]) + 1)

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def commit_ms(directory: Path) -> float:
    """The yardstick of durability: one record, synced, in a store like ours."""
    count = 200
    with lmdb.open(str(directory / "yardstick"), map_size=1 << 26, lib_version=0) as env:
        started = time.perf_counter()
        for number in range(count):
            with env.begin(write=True) as transaction:
                transaction.put(b"%08d" % number, b"x" * 100)
        return (time.perf_counter() - started) / count * 1000


def spawns_per_s() -> float:
    """The yardstick of starting commands: posix_spawn and wait, two at a time."""
    count = 400
    started = time.perf_counter()
    for _ in range(count // 2):
        pids = [os.posix_spawn("/bin/true", ["true"], {}) for _ in range(2)]
        for pid in pids:
            os.waitpid(pid, 0)
    return count / (time.perf_counter() - started)


def round_trips_ms(talk: Conversation, line: bytes, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        talk.ask(line)
        taken.append((time.perf_counter() - started) * 1000)
    return sorted(taken)


def repeated(name: str, unit: str, take: Callable[[], float], repeats: int) -> Measure:
    measure = Measure(name, unit, [take() for _ in range(repeats)])
    print(f"  {name:<44}{measure.median:>12,.2f} {unit:<8}({min(measure.values):,.2f} to {max(measure.values):,.2f})")
    return measure


def run(repeats: int) -> None:
    with tempfile.TemporaryDirectory(prefix="jobyard-bench-") as name:
        directory = Path(name)
        print(f"medians of {repeats}, on {os.cpu_count()} processors\n\nyardsticks")
        commit = repeated("one synced LMDB commit", "ms", lambda: commit_ms(directory), repeats)
        spawn = repeated("posix_spawn of true, two at a time", "1/s", spawns_per_s, repeats)
        with LocalCluster(nodes=2, directory=directory / "cluster", slots=2) as cluster:
            talk = Conversation(cluster.address("node1"))
            measure_cluster(talk, commit, spawn, repeats)
            talk.close()


def measure_cluster(talk: Conversation, commit: Measure, spawn: Measure, repeats: int) -> None:
    talk.pipeline(b"RUN sleep 0\n", 500)  # warm
    talk.ask(b"RUN py math:sqrt [4]\n")
    print("\nidle round trip, one at a time")
    submit = repeated("SUBMIT sleep 0, p50", "ms", lambda: p(talk, b"SUBMIT sleep 0\n", 0.5), repeats)
    idle = repeated("RUN sleep 0, p50", "ms", lambda: p(talk, b"RUN sleep 0\n", 0.5), repeats)
    repeated("RUN sleep 0, p99", "ms", lambda: p(talk, b"RUN sleep 0\n", 0.99), repeats)
    repeated("RUN exec true, p50", "ms", lambda: p(talk, b"RUN exec true\n", 0.5), repeats)
    print("\npipelined over one connection, durable, end to end")
    repeated("SUBMIT sleep 0", "jobs/s", lambda: rate(talk, b"SUBMIT sleep 0\n", 5000), repeats)
    talk.ask(b"RUN sleep 0\n")
    repeated("RUN sleep 0", "jobs/s", lambda: rate(talk, b"RUN sleep 0\n", 5000), repeats)
    python = repeated("RUN py math:sqrt [4]", "jobs/s", lambda: rate(talk, b"RUN py math:sqrt [4]\n", 1000), repeats)
    commands = repeated("RUN exec true", "jobs/s", lambda: rate(talk, b"RUN exec true\n", 1000), repeats)
    print("\nagainst the yardsticks")
    print(f"  a SUBMIT is {submit.median / commit.median:.1f} synced commits long")
    print(f"  a RUN is {idle.median / commit.median:.1f} synced commits long")
    print(f"  commands run at {commands.median / spawn.median:.2f} of the rate of posix_spawn")
    print(f"  Python calls run at {python.median / spawn.median:.2f} of it")


def p(talk: Conversation, line: bytes, quantile: float) -> float:
    taken = round_trips_ms(talk, line, 100)
    return taken[int(quantile * (len(taken) - 1))]


def rate(talk: Conversation, line: bytes, count: int) -> float:
    return count / talk.pipeline(line, count)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a local cluster of two nodes.")
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="N", help="how often each is measured")
    run(parser.parse_args().repeats)


if __name__ == "__main__":
    main()
