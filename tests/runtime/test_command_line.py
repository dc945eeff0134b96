"""The command lines: what `--health` answers, and how little a process has to import for an answer."""

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Set
from pathlib import Path
from typing import Final

import attrs
import click
import pytest

from common import __version__
from common.runtime.pulse import write_pulse
from jobyard.cli.root import VERBS, jobyard
from jobyard.version import __version__ as client_version

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ("balancer", "node")
RUN: Final = """\
import atexit, sys
atexit.register(lambda: print(*sys.modules))
from {program}.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
OF_PROGRAMS: Final = {"trio", "lmdb", "structlog", "cattrs", "msgspec", "tenacity", "asyncio"}
OF_SETTINGS: Final = {"attrs", "attr", "ssl"}


@attrs.frozen
class Answer:
    status: int
    said: str  # on standard error
    imported: Set[str]


def answer(program: str, *words: str, cwd: Path = ROOT, **environ: str) -> Answer:
    """Of a process of its own: this one has imported everything."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBYARD_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN.replace("{program}", program), *words],
        env=clean | environ | {"PYTHONPATH": str(ROOT)}, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Answer(done.returncode, done.stderr, set(done.stdout.splitlines()[-1].split()))


def beat(directory: Path, alone_s: float = 0.0) -> None:
    """What a program writes that makes progress, and has had no balancer for so long."""
    now = time.monotonic()
    write_pulse(directory, now, now - alone_s, 15.0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_that_a_program_is_well_is_found_with_the_standard_library_alone(program: str, tmp_path: Path) -> None:
    beat(tmp_path)
    found = answer(program, "--health", JOBYARD_DATA_DIR=str(tmp_path))
    assert (found.status, found.said) == (0, "")
    assert found.imported.isdisjoint(OF_PROGRAMS | OF_SETTINGS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_that_a_program_is_not_well_is_found_without_starting_one(program: str, tmp_path: Path) -> None:
    found = answer(program, "--health", JOBYARD_DATA_DIR=str(tmp_path))
    assert (found.status, found.said) == (1, f"nothing has run in {tmp_path} yet\n")
    assert found.imported.isdisjoint(OF_PROGRAMS)
    beat(tmp_path, alone_s=20)
    assert re.search(r"no balancer for 2\d s", answer(program, "--health", JOBYARD_DATA_DIR=str(tmp_path)).said)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_told_with_the_standard_library_alone(program: str) -> None:
    found = answer(program, "--version")
    assert found.status == 0
    assert found.imported.isdisjoint(OF_PROGRAMS | OF_SETTINGS)


# Everything that is started by its name: a new program is asked as soon as it is there.
STARTED: Final = (*sorted(path.parent.name for path in ROOT.glob("*/__main__.py")), "jobyard", "jobyard.cli")
VERSION_LINE: Final = re.compile(rf"[a-z-]+ {re.escape(__version__)}\n")
HELP_COLUMNS_MAX: Final = 100


def asked(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    path = f"{ROOT}:{ROOT / 'client'}"
    return subprocess.run(
        [sys.executable, "-m", program, *words], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": str(HELP_COLUMNS_MAX)},
    )  # fmt: skip


@pytest.mark.parametrize("program", STARTED)
def test_every_program_tells_its_version_in_one_line(program: str) -> None:
    said = asked(program, "--version")
    assert (said.returncode, said.stderr) == (0, "")
    assert VERSION_LINE.fullmatch(said.stdout), said.stdout


@pytest.mark.parametrize("program", STARTED)
def test_every_program_has_help_that_fits(program: str) -> None:
    said = asked(program, "--help")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.lower().startswith("usage: ")
    assert "--version" in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= HELP_COLUMNS_MAX


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_fits(verb: str) -> None:
    command = jobyard.get_command(click.Context(jobyard), verb)
    assert command is not None
    with command.make_context(f"jobyard {verb}", [], resilient_parsing=True, terminal_width=HELP_COLUMNS_MAX) as ctx:
        told = command.get_help(ctx)
    assert told.startswith(f"Usage: jobyard {verb}")
    assert max(map(len, told.splitlines())) <= HELP_COLUMNS_MAX


def test_client_and_cluster_are_of_one_version() -> None:
    """They are released together, and `doctor` warns where they differ."""
    for path in (ROOT / "pyproject.toml", ROOT / "client" / "pyproject.toml"):
        assert tomllib.loads(path.read_text())["project"]["version"] == __version__
    assert client_version == __version__


@pytest.mark.parametrize("program", PROGRAMS)
def test_bad_settings_are_told_in_place_of_health_where_no_program_can_be_well(program: str, tmp_path: Path) -> None:
    found = answer(program, "--health", JOBYARD_DATA_DIR=str(tmp_path), JOBYARD_RETENTION="soon")
    assert found.status == 78
    assert found.said.startswith("JOBYARD_RETENTION='soon': allowed is a duration")
    found = answer(program, "--health", JOBYARD_DATA_DIR="")
    assert found.status == 78
    assert found.said == "JOBYARD_DATA_DIR='': allowed is any text that is not empty\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_setting_the_default_directory_is_looked_at(program: str, tmp_path: Path) -> None:
    directory = tmp_path / "data" / program
    directory.mkdir(parents=True)
    assert answer(program, "--health", cwd=tmp_path).said == f"nothing has run in data/{program} yet\n"
    beat(directory)
    assert answer(program, "--health", cwd=tmp_path).status == 0
