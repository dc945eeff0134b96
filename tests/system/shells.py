"""A shell that is a client of a cluster: the command `jobyard` on its PATH, where the nodes are, and no more.

Rules: nothing of the user who runs the tests is changed. Every command has an end.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.local_cluster import LocalCluster
from tests.system.jobyard import PATIENCE_S, Jobyard


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


class Shell:
    """`home` is a directory of its own. `jobyard` and `python3` are those that the tests themselves run with."""

    def __init__(self, cluster: LocalCluster, home: Path) -> None:
        jobyard = Jobyard(cluster, home)
        programs = jobyard.shim(home / "bin").parent
        self.env = jobyard.env | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{jobyard.env['PATH']}",
            "PYTHONWARNINGS": "error",
            "HOME": str(home),
        }

    def run(self, command: list[str], *, cwd: Path, stdin: str = "", **env: str) -> Done:
        """Runs a command to its end."""
        done = subprocess.run(
            command, cwd=cwd, env=self.env | {"PWD": str(cwd)} | env, input=stdin, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def bash(self, script: str, *, cwd: Path, **env: str) -> Done:
        """Runs a script in bash. A pipe fails with any of its commands."""
        return self.run(["bash", "-o", "pipefail", "-c", script], cwd=cwd, **env)
