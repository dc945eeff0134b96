"""`make chaos` without containers: on real processes, and on a cluster of a few lines that can be made to lie.

The second is what the whole of it is worth: clients, trial and verdict find each lie, and none where there is none.
On containers it is in `tests/system/test_docker.py`. `CHAOS_CYCLES` (blows of each kind) and `CHAOS_SEED` choose
another run; JOBYARD_SOAK=1 makes it long.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pytest
import trio

from chaos import trial
from chaos.blows import Blow, Kind, draw
from chaos.display import in_words
from chaos.processes import Processes
from chaos.verdict import Verdict, judge
from chaos.victims import BALANCER
from examples.local_cluster import REPOSITORY
from tests.system.client import is_alive

pytestmark = pytest.mark.system

CYCLES: Final = int(os.environ.get("CHAOS_CYCLES") or (20 if os.environ.get("JOBYARD_SOAK") else 2))  # of each kind
SEED: Final = int(os.environ.get("CHAOS_SEED") or 5)
NODE_TIMEOUT_S: Final = 1.5
SETTINGS: Final = {
    "JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s",
    "JOBYARD_LOCAL_FALLBACK": "1s",
    "JOBYARD_SLOTS": "8",
}


@pytest.mark.timeout(120 + 20 * CYCLES)
async def test_processes_are_hit_in_every_way_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    with Processes(tmp_path, SETTINGS) as cluster:
        victims = (BALANCER, *cluster.node_names)
        blows = list(islice(draw(Random(SEED), victims, NODE_TIMEOUT_S), CYCLES * len(Kind)))
        verdict = judge(await trial.hold(cluster, blows, SEED, "chaos", NODE_TIMEOUT_S))
    print(in_words(verdict))
    assert verdict.faults == ()
    assert verdict.blows == tuple((kind, CYCLES) for kind in sorted(Kind))
    assert verdict.acknowledged > 10 * CYCLES, "the clients hardly got through, so nothing was tested"


# --- the command -----------------------------------------------------------------------------------------------


def chaos(**environment: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "CHAOS": "local", "CHAOS_SEED": "1", "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "chaos"], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def test_the_command_tells_its_seed_each_blow_and_the_verdict() -> None:
    with chaos(CHAOS_SECONDS="3") as command:
        told, _ = command.communicate(timeout=60)
    assert command.returncode == 0, told
    assert "make chaos CHAOS_SEED=1 CHAOS_SECONDS=3" in told
    assert "node2     killed, started again after 1.2 s" in told
    assert told.splitlines()[-1].endswith("0 lost, 0 changed, 0 duplicated")


def test_an_interrupted_command_leaves_no_process_behind() -> None:
    with chaos(CHAOS_SECONDS="60") as command:
        assert command.stdout is not None
        while "killed" not in command.stdout.readline():
            pass
        begun = descendants(command.pid)
        assert len(begun) > 4  # a balancer, nodes, and their spawners
        command.send_signal(signal.SIGINT)
        told, _ = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "interrupted" in told
    assert not [pid for pid in begun if is_alive(pid)]


def descendants(pid: int) -> set[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = {int(word) for thread in threads for word in thread.read_text().split()}
    return children.union(*map(descendants, children))


@pytest.mark.parametrize(("name", "value"), [("CHAOS", "kubernetes"), ("CHAOS_SECONDS", "soon"), ("CHAOS_SEED", "x")])
def test_a_bad_setting_is_refused_before_anything_is_started(name: str, value: str) -> None:
    with chaos(**{name: value}) as command:
        told, _ = command.communicate(timeout=30)
    assert command.returncode == 2
    assert value in told


# --- a cluster that lies -----------------------------------------------------------------------------------------


class Liar:
    """Nodes that know of each other, run each job at once, and lie about every seventh in the way that is asked for.
    Three of these jobs at least are submitted in the time of a test."""

    node_names = ("node1", "node2", "node3")

    def __init__(self, directory: Path, lie: str) -> None:
        self.journal = str(directory / "journal")
        self._lie = lie
        self._ports: dict[str, int] = {}
        self._keys: dict[str, str] = {}
        self._ends: dict[str, tuple[str, bytes]] = {}  # ticket → as RESULT tells it
        self._told: set[str] = set()
        self._issued = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for name in self.node_names:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                self._ports[name] = listener.socket.getsockname()[1]
                nursery.start_soon(trio.serve_listeners, self._converse, [listener])
            yield
            nursery.cancel_scope.cancel()

    def address(self, node: str) -> str:
        return f"127.0.0.1:{self._ports[node]}"

    def strike(self, victim: str, kind: Kind) -> None:
        """Nothing has to happen to it."""

    mend = strike

    def executions(self) -> str:
        return Path(self.journal).read_text()

    def misconduct(self) -> list[str]:
        return []

    def save_logs(self, directory: Path) -> None:
        """There are none."""

    async def _converse(self, stream: trio.SocketStream) -> None:
        unread = b""
        try:
            async for data in stream:
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    if line.startswith((b"submit", b"result", b"watch")):  # others are bodies, all of one line
                        await self._answer(stream, line.decode(), lines[-1])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has what it wanted

    async def _answer(self, stream: trio.SocketStream, line: str, last: bytes) -> None:
        verb, _, rest = line.partition(" ")
        match verb:
            case "submit":
                await stream.send_all(b"OK %s\n" % (await self._submit(rest, last)).encode())
            case "result":
                text, body = self._result(rest)
                await stream.send_all(text.encode() + b"\n" + (body + b"\n" if text.startswith("OK") else b""))
            case _:
                await trio.sleep(0.05)
                body = "\n".join(f"{each} {text.split()[2]}" for each, (text, _) in self._ends.items()).encode()
                await stream.send_all(b"OK count=1 live=1 cursor=1 bytes=%d\n%s\n" % (len(body), body))

    async def _submit(self, rest: str, body: bytes) -> str:
        options, _, script = rest.partition(" sh ")
        key = next((word for word in options.split() if word.startswith("key=")), "")
        if key in self._keys and self._lie != "doubles":
            return self._keys[key]
        self._issued += 1
        ticket = f"aaaaaa-{self._issued}"
        if key:
            self._keys[key] = ticket
        await self._run(ticket, script, body if "bytes=" in options else b"")
        if self._lies(ticket) and self._lie == "runs twice":
            await self._run(ticket, script, body if "bytes=" in options else b"")
        return ticket

    async def _run(self, ticket: str, script: str, body: bytes) -> None:
        env = {"PATH": os.environ["PATH"], "JOBYARD_TICKET": ticket, "JOBYARD_ATTEMPT": "1"}
        done = await trio.run_process(
            ["/bin/sh", "-c", script.replace("sleep ", ": ")], stdin=body, capture_stdout=True, check=False, env=env
        )
        state, size = "failed" if done.returncode else "succeeded", len(done.stdout)
        line = f"OK {ticket} state={state} exit={done.returncode} attempt=1 node=node1 stdout={size} bytes={size}"
        self._ends[ticket] = (line, done.stdout)

    def _result(self, ticket: str) -> tuple[str, bytes]:
        line, body = self._ends.get(ticket, (f"PENDING {ticket} state=running", b""))
        if self._lies(ticket):
            match self._lie:
                case "forgets":
                    return f"ERR UNKNOWN_TICKET no job has the ticket {ticket!r}", b""
                case "never ends":
                    return f"PENDING {ticket} state=running", b""
                case "changes" if ticket in self._told:
                    return line.replace("node=node1", "node=node2"), body
        self._told.add(ticket)
        return line, body

    def _lies(self, ticket: str) -> bool:
        return int(ticket.partition("-")[2]) % 7 == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what does not come."""
    monkeypatch.setattr(trial, "END_S_MAX", 1.0)
    monkeypatch.setattr(trial, "HEARING_S", 0.5)


async def tried(directory: Path, lie: str) -> Verdict:
    liar = Liar(directory, lie)
    async with liar.serving():
        return judge(await trial.hold(liar, [Blow(0.0, BALANCER, Kind.KILL, 1.5)], 1, "chaos", NODE_TIMEOUT_S))


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_held_against_a_cluster_that_does_not_lie(tmp_path: Path) -> None:
    verdict = await tried(tmp_path, "no")
    assert verdict.faults == ()
    assert verdict.finished == verdict.acknowledged > 21


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ("forgets", "lost"),
        ("never ends", "lost"),
        ("changes", "changed"),
        ("doubles", "duplicated"),
        ("runs twice", "duplicated"),
    ],
)
async def test_a_cluster_that_lies_is_found_out(lie: str, kind: str, tmp_path: Path) -> None:
    found = []
    for turn in range(4):  # whether a client meets with the lie in so short a time is left to chance
        place = tmp_path / str(turn)
        place.mkdir()
        verdict = await tried(place, lie)
        found.append(verdict)
        if getattr(verdict, kind):
            return
    raise AssertionError(found)
