"""What a shell needs to be a client of a cluster: the command `jobyard` on its PATH, where the nodes are, and no more.

Rules: nothing of the user who runs the tests is used or changed. Every command has an end.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.local_cluster import REPOSITORY

COMMAND_S_MAX: Final = 60.0


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Shell:
    """`home` is a directory of its own, `env` what the commands find in their environment."""

    home: Path
    env: Mapping[str, str]

    def run(self, command: list[str], *, cwd: Path, stdin: str | None = None, **env: str) -> Done:
        """Runs a command to its end."""
        done = subprocess.run(
            command, cwd=cwd, env={**self.env, "PWD": str(cwd), **env}, input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True, timeout=COMMAND_S_MAX,
            check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def bash(self, script: str, *, cwd: Path, **env: str) -> Done:
        """Runs a script in bash. A pipe fails with any of its commands."""
        return self.run(["bash", "-o", "pipefail", "-c", script], cwd=cwd, **env)


def shell(home: Path, url: str) -> Shell:
    """A shell whose `jobyard` and `python3` are those of this checkout."""
    programs = home / "bin"
    programs.mkdir()
    _script(programs / "jobyard", f'exec {sys.executable} -m jobyard.cli "$@"')
    _script(programs / "python3", f'exec {sys.executable} "$@"')
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY / 'client'}:{REPOSITORY}",
        "PYTHONWARNINGS": "error",
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "LC_ALL": "C.UTF-8",
        "JOBYARD_URL": url,
    }
    return Shell(home, env)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
