"""The command `jobyard` as a process of its own, for tests on real clusters.

Rules: it is the code of this checkout, whatever is installed. It finds the nodes by JOBYARD_URL alone, as users do.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from examples.local_cluster import REPOSITORY, LocalCluster

PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()

    @property
    def ticket(self) -> str:
        assert self.code == 0, self.err.decode()
        (ticket,) = self.lines
        return ticket


class Jobyard:
    """`jobyard("submit", "--", "true")`, in a directory, for a cluster all of whose nodes it knows."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.directory = directory
        self.env = dict(os.environ) | {
            "JOBYARD_URL": ",".join(cluster.url(name) for name in cluster.node_names),
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'client'}",
            "XDG_STATE_HOME": str(directory / "state"),
        }
        self.env.pop("PWD", None)
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends what was started and goes on, as it does where a test fails."""
        for process in self._started:
            process.kill()
            with process:  # closes its pipes
                pass

    def __call__(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Done:
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, cwd=self.directory, env=self.env | (env or {}),
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """The same, without waiting for its end. Ctrl-C is `process.send_signal(SIGINT)`."""
        process = subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.directory, env=self.env,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        self._started.append(process)
        return process

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobyard.cli", *words]

    def shim(self, directory: Path) -> Path:
        """A program called `jobyard` in a directory, for whatever calls it by that name."""
        directory.mkdir(exist_ok=True)
        path = directory / "jobyard"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobyard.cli "$@"\n')
        path.chmod(0o755)
        return path


def ended(process: "subprocess.Popen[bytes]") -> Done:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out, err)
