"""A disk that fails at the nth commit of a real program: the program says so in its last word, ends with status 74 and
says nothing else. Started again on a disk that works, it has everything that was acknowledged.

`IO_ERRORS` (rounds of every kind of error) and `IO_ERRORS_SEED` in the environment choose another run.
"""

import json
import os
import platform
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from examples.local_cluster import BALANCER, ClusterError, LocalCluster
from tests.system.client import Line, ask, until, wait
from tests.system.conftest import StartCluster
from tests.system.directories import damage_of
from tests.system.failing_disk import CLOSING, KINDS, MACHINES, OPENING
from tests.system.programs import run_to_its_end
from tests.system.reach import reach, seed
from tests.system.watching import begun, told

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        platform.machine() not in MACHINES, reason="the system calls of this machine are not known here"
    ),
]

ROUNDS: Final = reach("IO_ERRORS", 1, soak=12)
NTH_MAX: Final = 40
EX_IOERR: Final = 74


class FailingCluster(LocalCluster):
    """One in which a program can be started on a disk that will fail."""

    _failing: Mapping[str, tuple[str, int]] = {}

    def start_failing(self, name: str, kind: str, nth: int) -> None:
        """It may have ended before it was ready."""
        self._failing = {name: (kind, nth)}
        try:
            self.start(name)
        except ClusterError:
            assert name in self.ended()
        finally:
            self._failing = {}

    def _command(self, member: Any) -> list[str]:
        python, _, program, *words = super()._command(member)
        if member.name not in self._failing:
            return [python, "-m", program, *words]
        kind, nth = self._failing[member.name]
        return [python, "-m", "tests.system.failing_disk", kind, str(nth), program, *words]


@dataclass
class Acknowledged:
    """What a client was told OK for: ticket → what the job prints."""

    jobs: dict[str, bytes] = field(default_factory=dict)

    def submit_until(self, cluster: LocalCluster, name: str, journal: Path) -> None:
        """Submits at node1, one job after the other, until this program has ended."""
        ends_at = time.monotonic() + 20
        body = os.urandom(3000).hex().encode()  # so that the file has to grow
        try:
            with Line(cluster.address("node1")) as client:
                while name not in cluster.ended():
                    assert time.monotonic() < ends_at, f"{name} goes on"
                    number = len(self.jobs)
                    reply = client.ask(
                        f"submit crash_limit=off bytes={len(body)} sh {told(journal)}; echo {number}", body
                    )
                    self.jobs[reply.ticket] = b"%d\n" % number
        except OSError:
            assert name == "node1", "only a node that has ended leaves its clients without a word"


@pytest.mark.parametrize("name", [BALANCER, "node1"])
@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_a_disk_that_fails_ends_the_program_and_takes_nothing_that_was_acknowledged(
    start_cluster: StartCluster, tmp_path: Path, name: str
) -> None:
    chance = random.Random(seed("IO_ERRORS_SEED"))
    cluster = start_cluster(1, cls=FailingCluster)
    assert isinstance(cluster, FailingCluster)
    acknowledged = Acknowledged()
    for kind in KINDS * ROUNDS:
        cluster.kill(name)
        cluster.start_failing(name, kind, nth := chance.choice((1, 2, chance.randint(3, NTH_MAX))))
        acknowledged.submit_until(cluster, name, tmp_path / "journal")
        how = until(f"{name} has ended", lambda: cluster.ended().get(name))
        assert how.startswith(f"ended with exit code {EX_IOERR};"), f"{kind} {nth}: {how}"
        last = json.loads(cluster.log_path(name).read_text().splitlines()[-1])
        assert (last["event"], last["level"]) == ("store.failed", "critical"), f"{kind} {nth}: {last}"
    cluster.start(name)
    print(f"{len(KINDS) * ROUNDS} failures, {len(acknowledged.jobs)} acknowledged")
    for ticket, printed in acknowledged.jobs.items():
        assert wait(cluster.address("node1"), ticket).body == printed
    if name == BALANCER:
        assert set(begun(tmp_path / "journal").values()) == {1}, "nothing that ran is run again"
    assert ask(cluster.address("node1"), "run sh echo well").body == b"well\n"
    assert damage_of(cluster) == []


@pytest.mark.parametrize(("kind", "event"), [(CLOSING, "store.failed"), (OPENING, "store.unusable")])
@pytest.mark.parametrize("name", [BALANCER, "node1"])
def test_a_disk_that_fails_when_the_program_stops_or_starts_takes_nothing_that_was_acknowledged(
    start_cluster: StartCluster, name: str, kind: str, event: str
) -> None:
    cluster = start_cluster(1, cls=FailingCluster)
    assert isinstance(cluster, FailingCluster)
    if kind == CLOSING:
        cluster.kill(name)
        cluster.start_failing(name, kind, 1)
    ended = [ask(cluster.address("node1"), f"run sh echo {number}") for number in range(10)]
    if kind == CLOSING:
        assert cluster.terminate(name) == EX_IOERR
    else:
        cluster.kill(name)
        cluster.start_failing(name, kind, 1)
        assert cluster.ended()[name].startswith(f"ended with exit code {EX_IOERR};")
    last = json.loads(cluster.log_path(name).read_text().splitlines()[-1])
    assert (last["event"], last["level"]) == (event, "critical")
    cluster.start(name)
    for number, reply in enumerate(ended):
        assert ask(cluster.address("node1"), f"result {reply.ticket}").body == b"%d\n" % number
    assert damage_of(cluster) == []


@pytest.mark.parametrize("kind", ["sync", "journal"])
@pytest.mark.parametrize("words", [(BALANCER, "0"), ("node", "127.0.0.1", "1")], ids=[BALANCER, "node"])
def test_a_disk_that_fails_before_anything_is_on_it_ends_the_program_just_so(
    tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    env = {"JOBYARD_DATA_DIR": str(tmp_path / "data"), "JOBYARD_LISTEN": "127.0.0.1:0", "JOBYARD_HTTP_LISTEN": "off"}
    ended = run_to_its_end("tests.system.failing_disk", kind, "1", *words, env=env)
    assert ended.status == EX_IOERR, ended.said
    assert json.loads(ended.said.splitlines()[-1])["event"] == "store.failed"
