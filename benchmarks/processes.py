"""Processes of this machine: starting one with a log, stopping it, and what /proc tells of it and its descendants.

Only processes that were started here, or that descend from these, are ever signalled, each by its id. Standard
library only: it runs in the environment of the peers, too.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
STOP_GRACE_S: Final = 10.0  # between SIGTERM and SIGKILL
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_LOG_BYTES_SHOWN: Final = 600


class Failed(Exception):
    """A process did not do as it should; the text says which, and has the end of its log."""


class Child:
    """A process of ours, in a session of its own. Its output goes to a log."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = command
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=dict(os.environ) | dict(env or {}),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises Failed when it has ended, which no process that is checked should have."""
        if (code := self.process.poll()) is not None:
            raise Failed(f"{Path(self.command[0]).name} ended with status {code}: {self.log_end()}")

    def accepts(self, port: int) -> bool:
        """Whether it takes connections yet; raises Failed when it has ended."""
        self.check()
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            return False
        return True

    def log_end(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_BYTES_SHOWN:]
        return " / ".join(line.strip() for line in text.splitlines() if line.strip()) or "it logged nothing"

    def stop(self) -> None:
        """SIGTERM; SIGKILL after STOP_GRACE_S; and no descendant stays."""
        descendants = family(self.pid)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        kill_all(descendants)

    def kill(self) -> None:
        """SIGKILL to it and all its descendants, as a power cut would."""
        descendants = family(self.pid)
        self.process.kill()
        self.process.wait()
        kill_all(descendants)


def kill_all(born: Mapping[int, int]) -> None:
    """SIGKILL to those of a family that still are who they were."""
    for pid, started in born.items():
        if _started(pid) == started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def script(name: str) -> list[str]:
    """The command for a program that a library has brought along. Not by its first line, which has the place where the
    environment was made: so the environment can be moved."""
    return [sys.executable, str(Path(sys.executable).parent / name)]


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds_max: float, what: str, poll_s: float = 0.01) -> None:
    """Raises Failed when it takes longer."""
    ends_at = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > ends_at:
            raise Failed(f"{what} took longer than {seconds_max:g} s")
        time.sleep(poll_s)


# --- what /proc tells --------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third, the state, on; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _started(pid: int) -> int | None:
    """When it was started, in ticks since boot: with the id, its identity."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def family(pid: int) -> dict[int, int]:
    """A process that runs and all its descendants: id → when it was started."""
    children: dict[int, list[int]] = {}
    born: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))) is not None and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
            born[int(name)] = int(fields[19])
    found: dict[int, int] = {}
    unseen = [pid]
    while unseen:
        current = unseen.pop()
        if current in born and current not in found:
            found[current] = born[current]
        unseen.extend(children.get(current, ()))
    return found


def children(pid: int) -> list[int]:
    """The processes that this one has started itself and that run."""
    return [found for found in family(pid) if (fields := _stat(found)) is not None and int(fields[1]) == pid]


def families(roots: Iterable[int]) -> set[int]:
    return {pid for root in roots for pid in family(root)}


def processor_s(roots: Iterable[int]) -> float:
    """Processor time that these processes and their descendants have used, also those that have ended."""
    ticks = 0
    for pid in families(roots):
        if (fields := _stat(pid)) is not None:
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS_PER_S


def memory_bytes(pid: int) -> tuple[int, int]:
    """(its own: what is in memory and no copy of a file, all that is resident); zeros when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    own = kib.get("RssAnon", 0) + kib.get("RssShmem", 0)
    return own * 1024, kib.get("VmRSS", 0) * 1024


def largest_bytes(roots: Iterable[int]) -> tuple[int, int]:
    """The memory of the process among these and their descendants that has most of its own: (own, resident)."""
    return max(map(memory_bytes, families(roots)), default=(0, 0))
