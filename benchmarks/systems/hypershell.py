"""HyperShell: `hs cluster` with a file of commands and two executors, from its start to its end.

Bundles of 64 flushed after 1 s rather than of 1 after 5 s: what a user with many short commands would choose.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import HOST, free_port, script
from benchmarks.systems.system import System, Unsupported, Work


class HyperShell(System):
    """See the module; `storage` is what it is told about its database."""

    storage: tuple[str, ...]

    def version(self) -> str:
        return version("hypershell")

    def start(self, directory: Path, workers: int) -> None:
        if not workers:
            raise Unsupported("it is not asked to acknowledge single jobs")
        self._directory = directory
        self._workers = workers
        self._runs = 0

    def end_to_end(self, work: Work, count: int) -> float:
        if work != "exec":
            raise Unsupported("it runs commands")
        return self._run(["/bin/true"] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        return self._run([f"/bin/sleep {duration:f}" for duration in durations])

    def _run(self, commands: Sequence[str]) -> float:
        self._runs += 1
        site = self._directory / f"site{self._runs}"
        site.mkdir()
        (site / "commands").write_text("".join(f"{command}\n" for command in commands))
        command = [*script("hs"), "cluster", "commands", "--capture", *self.storage]
        command += ["--num-threads", str(self._workers), "--bundlesize", "64", "--bundlewait", "1"]
        command += ["--bind", HOST, "--port", str(free_port())]
        own = {
            "HYPERSHELL_SITE": str(site),
            "HYPERSHELL_DATABASE_FILE": str(site / "database"),
            "HYPERSHELL_LOGGING_LEVEL": "ERROR",
            "HOME": str(site),
        }
        return self._time(command, site, own)

    def _time(self, command: Sequence[str], site: Path, own: dict[str, str]) -> float:
        started = time.perf_counter()
        subprocess.run(command, cwd=site, env={**os.environ, **own}, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started


class Database(HyperShell):
    """Tasks in SQLite."""

    storage = ("--initdb",)


class Memory(HyperShell):
    """Tasks straight to the clients."""

    storage = ("--no-db",)
