"""Jobs that take what they can get, on a node with its default settings: each ends with its reason, the others go on.

Everything here is bounded in itself too, so that a limit that does not hold fails a test and hurts nobody.
"""

import pickle
import shlex
import sys
from pathlib import Path
from typing import Final

import cloudpickle
import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Reply, ask, submit, wait
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

BOMB: Final = """
import os, time
until = time.monotonic() + 10
for _ in range(10): os.fork()
time.sleep(max(0, until - time.monotonic()))
"""
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
    }
    neighbour = submit(node, "sh for i in 1 2 3 4; do sleep 0.5; echo $i; done")
    tickets = {submit(node, job): ended for job, ended in greedy.items()}
    for ticket, (reason, exit) in tickets.items():
        assert how(wait(node, ticket)) == ("failed", reason, exit)
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
