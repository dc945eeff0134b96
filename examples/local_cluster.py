"""LocalCluster: a balancer and some nodes as plain processes of this machine, for demos, tests and benchmarks.

    with LocalCluster(nodes=3) as cluster:
        print(cluster.url("node1"))      # tcp://127.0.0.1:41873
        cluster.kill("node2")            # SIGKILL, as a power cut would
        cluster.start("node2")           # the same directory, the same port
        cluster.wait_until_joined()      # the balancer knows all of them

Rules: it touches only processes that it started itself, by their handle, and leaves none behind. A process counts as
started when it has written its address; one that ends before is reported with the end of its log. Standard library
only: it knows the programs by their command lines, settings and logs, not by their code.

A node that has started takes jobs in at once, also before it has found the balancer. Until it has, the balancer counts
without its slots, and other nodes cannot tell of its jobs. Who needs that waits until the node has joined.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

REPOSITORY: Final = Path(__file__).resolve().parent.parent
BALANCER: Final = "balancer"
HOST: Final = "127.0.0.1"
START_S_MAX: Final = 30.0  # from the start of a process to its address
JOIN_S_MAX: Final = 30.0  # until the balancer knows all nodes that are waited for
STOP_GRACE_S: Final = 15.0  # between SIGTERM and SIGKILL: longer than a node's drain grace
POLL_S: Final = 0.02
LOG_LINES_SHOWN: Final = 20


class ClusterError(Exception):
    """A process of the cluster did not do as it should; the text has the end of its log."""


@dataclass
class _Member:
    """One process, or the place of one: its name, directory and port outlive it."""

    name: str
    port: int  # 0 until the first start has taken a free one
    data_dir: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    joined_since: int = 0  # where in the balancer's log it can be told that this node, as it runs now, has joined

    @property
    def address_path(self) -> Path:
        return self.data_dir / "address"

    def log_tail(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:]) or "    (it logged nothing)"


class LocalCluster:
    """`directory` keeps data and logs and is left as it is; without one a temporary directory is removed at the end.

    `env` goes to every process, over the environment of this one; `slots` to every node, or to each by its name.
    `ports` names ports that should be used (`{"balancer": 8080}`); others are free ones. A process that is started
    again keeps its port. `dials` names the ports at which nodes look for the balancer, where that is not its own
    (`{"node1": 40001}`).
    """

    def __init__(
        self,
        nodes: int = 3,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        slots: int | Mapping[str, int] | None = None,
        ports: Mapping[str, int] | None = None,
        dials: Mapping[str, int] | None = None,
        repository: Path = REPOSITORY,
    ) -> None:
        self.node_names = tuple(f"node{number}" for number in range(1, nodes + 1))
        self._directory = directory
        self._env = dict(env or {})
        self._slots = dict.fromkeys(self.node_names, slots) if slots is None or isinstance(slots, int) else dict(slots)
        self._ports = dict(ports or {})
        self._dials = dict(dials or {})
        self._repository = repository
        self._members: dict[str, _Member] = {}
        self._cleanup = ExitStack()

    # --- the whole ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        root = self._directory or Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="jobyard-")))
        try:
            for name in (BALANCER, *self.node_names):
                self._members[name] = _Member(name, self._ports.get(name, 0), root / name, root / f"{name}.log")
            self._spawn(BALANCER)
            self._wait_for_address(BALANCER)
            for name in self.node_names:  # all at once: each takes a while to import what it needs
                self._spawn(name)
            for name in self.node_names:
                self._wait_for_address(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM to the nodes, which give back what they have not begun, then to the balancer; SIGKILL to whoever
        has not ended after STOP_GRACE_S, or at once when this is interrupted."""
        try:
            self._terminate(self.node_names)
            self._terminate((BALANCER,))
        finally:
            for name in self._members:
                self.kill(name)
            self._cleanup.close()

    def _terminate(self, names: tuple[str, ...]) -> None:
        running = [process for name in names if (process := self._running(name)) is not None]
        for process in running:
            process.terminate()
        ends_at = time.monotonic() + STOP_GRACE_S
        for process in running:
            try:
                process.wait(max(0.0, ends_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass  # stop() kills it

    # --- one process -------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Starts a member that does not run, with its former directory and port, and waits until it is ready."""
        self._spawn(name)
        self._wait_for_address(name)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the process is gone. Nothing happens where it does not run."""
        member = self._members[name]
        if member.process is not None:
            member.process.kill()
            member.process.wait()
            member.process = None

    def terminate(self, name: str) -> int | None:
        """SIGTERM; returns the exit status, or None where it took longer than STOP_GRACE_S and was killed."""
        process = self._running(name)
        if process is None:
            raise ClusterError(f"{name} does not run")
        process.terminate()
        try:
            return process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill(name)

    def pid(self, name: str) -> int:
        """The process id of a member that runs."""
        process = self._running(name)
        if process is None:
            raise ClusterError(f"{name} does not run")
        return process.pid

    def address(self, name: str) -> str:
        """`host:port` on which a member accepts, or last accepted, connections."""
        return f"{HOST}:{self._members[name].port}"

    def url(self, name: str) -> str:
        """What JOBYARD_URL should be for clients of this node."""
        return f"tcp://{self.address(name)}"

    def wait_until_joined(self, *names: str) -> None:
        """Until the balancer knows these nodes, or all, as they run now: how many slots they have, and their jobs."""
        waited_for = [self._members[name] for name in names or self.node_names]
        gives_up_at = time.monotonic() + JOIN_S_MAX
        while missing := [member for member in waited_for if not self._has_joined(member)]:
            for name, how in self.ended().items():
                if name in (BALANCER, missing[0].name):
                    raise ClusterError(f"{missing[0].name} has not joined: {name} {how}")
            if time.monotonic() > gives_up_at:
                raise ClusterError(
                    f"{missing[0].name} has not joined in {JOIN_S_MAX:g} s; its log ends:\n{missing[0].log_tail()}"
                )
            time.sleep(POLL_S)

    def log_path(self, name: str) -> Path:
        return self._members[name].log_path

    def ended(self) -> dict[str, str]:
        """Members that ended by themselves, or by somebody else's hand: name → how, and the end of the log."""
        return {
            name: f"{_how_it_ended(code)}; the end of {member.log_path}:\n{member.log_tail()}"
            for name, member in self._members.items()
            if member.process is not None and (code := member.process.poll()) is not None
        }

    # --- starting ----------------------------------------------------------------------------------------------

    def _spawn(self, name: str) -> None:
        member = self._members[name]
        if self._running(name) is not None:
            raise ClusterError(f"{name} runs already; kill it before it is started again")
        self._forget_that_it_joined(name)
        member.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        member.address_path.unlink(missing_ok=True)  # of the former process: it says nothing about this one
        with member.log_path.open("ab") as log:
            member.process = subprocess.Popen(
                self._command(member),
                cwd=self._repository,
                env=self._environment(member),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, and we stop them in order
            )

    def _command(self, member: _Member) -> list[str]:
        if member.name == BALANCER:
            return [sys.executable, "-m", "balancer", str(member.port)]
        dialled = self._dials.get(member.name, self._members[BALANCER].port)
        return [sys.executable, "-m", "node", HOST, str(dialled)]

    def _environment(self, member: _Member) -> dict[str, str]:
        own = {
            "JOBYARD_DATA_DIR": str(member.data_dir.resolve()),
            "JOBYARD_LISTEN": f"{HOST}:{member.port}",
            "JOBYARD_HTTP_LISTEN": "off",
            "JOBYARD_LOG_FORMAT": "json",  # as wait_until_joined reads it
            "JOBYARD_LOG_LEVEL": "info",
        }
        if member.name != BALANCER:
            own["JOBYARD_NODE_NAME"] = member.name
            if (slots := self._slots.get(member.name)) is not None:
                own["JOBYARD_SLOTS"] = str(slots)
        return dict(os.environ) | own | self._env

    def _wait_for_address(self, name: str) -> None:
        member = self._members[name]
        process = member.process
        assert process is not None, f"{name} was not started"
        gives_up_at = time.monotonic() + START_S_MAX
        while (port := _read_port(member.address_path)) is None:
            if (code := process.poll()) is not None:
                raise ClusterError(f"{name} did not start: {_how_it_ended(code)}; its log ends:\n{member.log_tail()}")
            if time.monotonic() > gives_up_at:
                raise ClusterError(
                    f"{name} took no connections in {START_S_MAX:g} s; its log ends:\n{member.log_tail()}"
                )
            time.sleep(POLL_S)
        member.port = port

    def _running(self, name: str) -> subprocess.Popen[bytes] | None:
        member = self._members.get(name)
        if member is None or member.process is None or member.process.poll() is not None:
            return None
        return member.process

    # --- joining -----------------------------------------------------------------------------------------------

    def _forget_that_it_joined(self, name: str) -> None:
        """What the balancer has said of this node so far was of a former process; or, of all nodes, said by one."""
        log = self._members[BALANCER].log_path
        said_bytes = log.stat().st_size if log.exists() else 0
        for member in self._members.values() if name == BALANCER else [self._members[name]]:
            member.joined_since = said_bytes

    def _has_joined(self, member: _Member) -> bool:
        with self._members[BALANCER].log_path.open("rb") as log:
            log.seek(member.joined_since)
            return any(_tells_of_joining(line, member.name) for line in log)


def _read_port(path: Path) -> int | None:
    """The port in an address file; None while it is not there, or not written to its end."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return int(text.rpartition(":")[2]) if text.endswith("\n") else None


def _tells_of_joining(line: bytes, name: str) -> bool:
    """Of a line of the balancer's log, which may be the beginning of one."""
    if b'"node.joined"' not in line:
        return False
    try:
        told = json.loads(line)
    except ValueError:
        return False
    return bool(told["event"] == "node.joined" and told["node"] == name)


def _how_it_ended(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
