"""A node with many clients, or with large ones: silence costs next to nothing, and what passes through is bounded."""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Line
from tests.system.conftest import StartCluster
from tests.system.crowd import resident_bytes_grown

pytestmark = pytest.mark.system

SILENT: Final = 2000
BYTES_EACH_MAX: Final = 9 * 1024  # 5.5 KiB here; with two tasks for each it was 14.5
IDLE_S: Final = 3.0
IDLE_SHARE_MAX: Final = 0.05  # of a core
REPLY_S_MAX: Final = 30.0
MIB: Final = 1 << 20
LARGE: Final = 200  # bodies of a mebibyte, one behind the other
LOOK_S: Final = 0.01
HELD_BYTES_MAX: Final = 100 * MIB  # of all of them: what is being stored, sent, dispatched and answered at once


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(1, slots=1, env={"JOBYARD_CONNECTIONS_MAX": str(2 * SILENT)})


@contextmanager
def silent_clients(address: str, count: int) -> Iterator[list[socket.socket]]:
    host, _, port = address.rpartition(":")
    with ExitStack() as opened:
        yield [opened.enter_context(socket.create_connection((host, int(port)), REPLY_S_MAX)) for _ in range(count)]


def status_bytes(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_silent_clients_take_a_few_kibibytes_each_and_no_processor_time_and_each_is_answered(
    cluster: LocalCluster,
) -> None:
    address, pid = cluster.address("node1"), cluster.pid("node1")
    with resident_bytes_grown(pid, SILENT * BYTES_EACH_MAX + 2 * MIB), silent_clients(address, SILENT) as clients:
        with Line(address) as line:
            assert line.ask("submit sleep 0").ok
        used_s = processor_s(pid)
        time.sleep(IDLE_S)
        assert processor_s(pid) - used_s < IDLE_SHARE_MAX * IDLE_S
        for client in clients:
            client.sendall(b"PING\n")
        for client in clients:
            assert client.recv(100) == b"OK pong\n"


def test_large_bodies_and_outputs_pass_through_at_full_rate_and_memory_stays_bounded(cluster: LocalCluster) -> None:
    address, pids = cluster.address("node1"), [cluster.pid(name) for name in ("node1", "balancer")]
    body = os.urandom(MIB)
    with most_held(pids) as most:
        assert pipelined(address, b"SUBMIT bytes=%d sleep 0\n%b\n" % (MIB, body), LARGE) == 0
        with Line(address) as line:
            printed = line.ask(f"run exec head -c {MIB} /dev/zero")
        assert pipelined(address, f"RESULT {printed.ticket}\n".encode(), LARGE) == LARGE * MIB
    assert all(0 < held < HELD_BYTES_MAX for held in most.values()), most


@contextmanager
def most_held(pids: Sequence[int]) -> Iterator[dict[int, int]]:
    """How much more memory of its own each process has, at most, than at the beginning. What it has mapped of its store
    is the kernel's, which takes it back when it is needed."""
    before = {pid: status_bytes(pid, "RssAnon") for pid in pids}
    most, over = dict.fromkeys(pids, 0), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for pid in pids:
                most[pid] = max(most[pid], status_bytes(pid, "RssAnon") - before[pid])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        over.set()
        looking.join()


def pipelined(address: str, request: bytes, count: int) -> int:
    """Asks without waiting for answers; how many bytes of output they had."""
    host, _, port = address.rpartition(":")
    output_bytes = 0
    with socket.create_connection((host, int(port)), REPLY_S_MAX) as client, client.makefile("rb") as replies:
        sender = threading.Thread(target=lambda: [client.sendall(request) for _ in range(count)])
        sender.start()
        for _ in range(count):
            line = replies.readline()
            assert line.startswith(b"OK ")
            if b" bytes=" in line:
                output_bytes += len(replies.read(int(line.rpartition(b"=")[2]) + 1)) - 1
        sender.join()
    return output_bytes
