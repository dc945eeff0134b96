"""The command lines: what `--health` answers, and how little a process has to import for an answer."""

import os
import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path
from typing import Final

import attrs
import pytest

from common.runtime.pulse import write_pulse

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
    assert "no balancer for 20 s" in answer(program, "--health", JOBYARD_DATA_DIR=str(tmp_path)).said


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_told_with_the_standard_library_alone(program: str) -> None:
    found = answer(program, "--version")
    assert found.status == 0
    assert found.imported.isdisjoint(OF_PROGRAMS | OF_SETTINGS)


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
