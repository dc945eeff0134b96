"""The command lines of both programs: their words, and the answers for which no program has to run.

Most processes of ours that are ever started are health checks: one for each container, every few seconds, for as long
as it lives. So nothing is imported here but the standard library and what is as quick: settings, machines and all that
waits are imported where they are needed. `tests/runtime/test_command_line.py` holds it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from common import __version__
from common.directories import data_directory
from common.runtime.pulse import health_problem

EX_CONFIG: Final = 78  # of sysexits.h


class CommandLine(argparse.ArgumentParser):
    """The words that both programs know; `program` is `node` or `balancer`."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(
            prog=f"jobyard-{program}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._program = program
        self.add_argument("--health", action="store_true", help=f"say whether the {program} of this directory is well")
        self.add_argument(
            "--check", type=Path, metavar="DIR", help="say whether this data directory is sound; it may be in use"
        )
        self.add_argument(
            "--copy",
            type=Path,
            nargs=2,
            metavar=("DIR", "TARGET"),
            help="copy a data directory, which may be in use, whole",
        )
        self.add_argument("--version", action="version", version=f"{self.prog} {__version__}")

    def format_help(self) -> str:
        from common.settings import PROGRAMS, help_table

        self.epilog = help_table(PROGRAMS[self._program])
        return super().format_help()


def is_well(program: str) -> bool:
    """Whether the program of this environment makes progress. It has read its settings, so nobody has to read them
    again; where it is not well they may be why."""
    directory = data_directory(program, os.environ)
    return directory is not None and health_problem(directory) is None


def tell_health(directory: Path) -> int:
    """Says what is wrong, if something is; returns the exit status."""
    problem = health_problem(directory)
    if problem is not None:
        print(problem, file=sys.stderr)
    return int(problem is not None)


def tell_problems(problems: tuple[str, ...]) -> int:
    """Bad settings: one line for each problem, on standard error; returns the exit status."""
    for problem in problems:
        print(problem, file=sys.stderr)
    return EX_CONFIG
