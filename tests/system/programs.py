"""The two programs started by hand, beside a cluster: to see them refuse, or be refused. And ways to look at processes.

Rules: what is started here ends here. Nothing is known of the programs but their command lines and settings.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.local_cluster import REPOSITORY, LocalCluster
from tests.system.client import is_alive, until

EXIT_S_MAX: Final = 20.0


@dataclass(frozen=True)
class Ended:
    status: int
    said: str  # on standard error


def run_to_its_end(program: str, *words: str, env: Mapping[str, str]) -> Ended:
    """Runs a program that should end by itself."""
    done = subprocess.run(
        _command(program, words), env=os.environ | env, cwd=REPOSITORY, capture_output=True, text=True,
        timeout=EXIT_S_MAX, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stderr)


@contextmanager
def running(program: str, *words: str, env: Mapping[str, str], log: Path, files: int | None = None) -> Iterator[int]:
    """A program that runs inside the `with`, and may open so many `files`; its process id."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            _limited(_command(program, words), files), env=os.environ | env, cwd=REPOSITORY,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _command(program: str, words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", program, *words]


def _limited(command: list[str], files: int | None) -> list[str]:
    return command if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *command]


def address_in(data_dir: Path) -> str:
    """Where the program that uses this directory listens, as soon as it does."""
    path = data_dir / "address"
    until(f"{path} is written", path.exists)
    return path.read_text().strip()


def data_dir(cluster: LocalCluster, name: str) -> Path:
    return cluster.log_path(name).parent / name


def terminate(cluster: LocalCluster, name: str, *, within_s: float) -> str:
    """SIGTERM; how the process ended, or a failure when it did not in time."""
    os.kill(cluster.pid(name), signal.SIGTERM)
    told = until(f"{name} has stopped", lambda: cluster.ended().get(name), within_s=within_s)
    return told.partition(";")[0]


def job_processes(node_directory: Path) -> set[int]:
    """Every living process that carries the mark of this node's jobs in its environment."""
    mark = str(node_directory.resolve() / "scratch").encode()
    return {pid for pid in _pids() if is_alive(pid) and mark in _owner(pid)}


def children(pid: int) -> set[int]:
    return {child for child in _pids() if is_alive(child) and _parent(child) == pid}


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _owner(pid: int) -> bytes:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return b""
    return next((entry for entry in entries if entry.startswith(b"JOBYARD_OWNER=")), b"")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
