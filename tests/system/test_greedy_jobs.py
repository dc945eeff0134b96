"""Jobs that take what they can get, or take their node with them, on nodes with their default settings: each ends with
its reason, the others go on.

Everything here is bounded in itself too, so that a limit that does not hold fails a test and hurts nobody. `PRINTED_GB`
in the environment says how much is printed where nothing limits it.
"""

import os
import pickle
import shlex
import sys
import time
from pathlib import Path
from typing import Final

import cloudpickle
import pytest

from common.limits import MIB
from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.programs import children
from tests.system.reach import reach

pytestmark = pytest.mark.system

BOMB: Final = """
import os, time
until = time.monotonic() + 10
for _ in range(10): os.fork()
time.sleep(max(0, until - time.monotonic()))
"""
POISON: Final = """
import os, signal, sys
parent = lambda pid: int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
print(os.environ["JOBYARD_ATTEMPT"], file=open(sys.argv[1], "a"))
os.kill(parent(os.getppid()), signal.SIGKILL)  # its parent is the spawner, whose parent is the node
signal.pause()
"""
CRASH_LIMIT: Final = 3  # the default
PRINTED_GB: Final = reach("PRINTED_GB", 1, soak=10)
HOG: Final = "import time; kept = b'x' * (300 << 20); time.sleep(10)"


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(1, slots=8, env={"JOBYARD_TIMEOUT_MAX": "60s"})


@pytest.fixture(scope="module")
def node(cluster: LocalCluster) -> str:
    return cluster.address("node1")


def how(reply: Reply) -> tuple[str | None, str | None, str | None]:
    return reply.field("state"), reply.field("reason"), reply.field("exit")


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


def test_whoever_takes_too_much_is_ended_with_a_reason_and_nobody_else(node: str, tmp_path: Path) -> None:
    (tmp_path / "bomb.py").write_text(BOMB)
    greedy = {
        f"exec {sys.executable} {tmp_path}/bomb.py": ("processes", "137"),  # 1024, where 512 are the default
        "exec yes": ("output", "137"),  # 1 GiB is the default
        "cpu=0.3 sh while :; do :; done": ("cpu", "137"),
        f"memory=100MiB exec {python(HOG)}": ("memory", "137"),
        "timeout=0.5 exec sleep 60": ("timeout", "143"),
        "timeout=0.5 sh trap '' TERM INT HUP; for i in $(seq 60); do sleep 1; done": ("timeout", "137"),
    }
    neighbour = submit(node, "sh for i in 1 2 3 4; do sleep 0.5; echo $i; done")
    deaf = submit(node, "sh trap '' TERM INT HUP; echo deaf; for i in $(seq 600); do sleep 0.1; done")
    tickets = {submit(node, job): ended for job, ended in greedy.items()}
    until("the deaf one runs", lambda: ask(node, f"logs {deaf}").body == b"deaf\n")
    assert ask(node, f"cancel {deaf}").ok
    for ticket, (reason, exit) in tickets.items():
        assert how(wait(node, ticket)) == ("failed", reason, exit)
    assert wait(node, deaf).field("state") == "cancelled", "it never ends, and heeds no signal that can be heeded"
    assert wait(node, neighbour).body == b"1\n2\n3\n4\n"
    assert ask(node, "run exec echo fine").body == b"fine\n"


def test_what_was_kept_of_too_much_output_can_be_read(node: str) -> None:
    reply = ask(node, "run output=10KiB exec yes")
    assert (how(reply), reply.field("truncated")) == (("failed", "output", "137"), "1")
    assert reply.body == b"y\n" * 5120


def test_open_files_are_refused_to_the_job_that_has_too_many(node: str) -> None:
    reply = ask(node, f"run files=32 exec {python('import os; [os.dup(0) for _ in range(40)]')}")
    assert how(reply) == ("failed", "exit", "1")
    assert b"Too many open files" in reply.body


def test_a_pickled_call_comes_back_pickled(node: str) -> None:
    body = cloudpickle.dumps((lambda x, *, y: [x * y], (6,), {"y": 7}))
    reply = ask(node, f"run bytes={len(body)} call 6*7", body)
    assert how(reply) == ("succeeded", None, "0")
    assert pickle.loads(reply.body) == [42]


@pytest.mark.timeout(60 + 30 * PRINTED_GB)
def test_whoever_prints_without_end_costs_the_node_no_memory_and_others_no_time(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, slots=2, env={"JOBYARD_PRINTED_MAX": "off"})
    node, pid = cluster.address("node1"), cluster.pid("node1")
    wait(node, submit(node, "sh yes | head -c 10MB"))  # everybody has the memory that this takes
    before = sum(map(resident_bytes, {pid, *children(pid)}))
    ticket = submit(node, f"sh yes | head -c {PRINTED_GB}GB")
    slowest_s = 0.0
    while not (reply := ask(node, f"result {ticket}")).ok:
        assert reply.pending
        began_at = time.monotonic()
        assert ask(node, "run exec echo fine").body == b"fine\n"
        slowest_s = max(slowest_s, time.monotonic() - began_at)
    grown = sum(map(resident_bytes, {pid, *children(pid)})) - before
    print(f"{PRINTED_GB} GB printed; others waited {slowest_s:.3f} s at most; {grown / MIB:.1f} MiB more memory")
    assert (how(reply), reply.field("truncated")) == (("succeeded", None, "0"), "1")
    assert reply.body == b"y\n" * (MIB // 2)
    assert slowest_s < 5
    assert grown < 64 * MIB


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_job_that_kills_its_node_each_time_fails_and_the_nodes_and_other_jobs_live(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(2, slots=2)
    first, second = (cluster.address(name) for name in cluster.node_names)
    killed = tmp_path / "killed"
    (tmp_path / "poison.py").write_text(POISON)
    others = [submit(second, f"crash_limit=off sh sleep 0.2; echo {number}") for number in range(20)]
    poison = submit(first, f"priority=9 exec {sys.executable} {tmp_path}/poison.py {killed}")
    for _ in range(CRASH_LIMIT):
        (victim,) = until("a node was killed", lambda: cluster.ended() or None)
        cluster.start(victim)
    assert how(wait(second, poison)) == ("failed", "crash_limit", None)
    assert killed.read_text().split() == ["1", "2", "3"], "tried three times, and no more"
    assert [wait(first, ticket).body for ticket in others] == [b"%d\n" % number for number in range(20)]
    assert cluster.ended() == {}
