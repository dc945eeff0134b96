"""Every block of Python in `docs/python.md` is a program that does what it says, against a cluster of processes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs/python.md"
BLOCK_S_MAX: Final = 60.0


def blocks() -> Iterator[tuple[str, str]]:
    """Each block, and what it is called: the heading above it and its place there."""
    sections = re.split(r"^#+ (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    for heading, section in zip(sections[1::2], sections[2::2], strict=True):
        for place, block in enumerate(re.findall(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)):
            yield f"{heading} {place + 1}", block


@pytest.fixture(scope="module")
def url(start_cluster_of_module: StartCluster) -> str:
    cluster = start_cluster_of_module(nodes=2, slots=2)
    return ",".join(map(cluster.url, cluster.node_names))


def test_the_blocks_are_found() -> None:
    assert len(list(blocks())) > 10


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in blocks()])
def test_the_block_runs(block: str, url: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)
    env = os.environ | {"JOBYARD_URL": url, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)], env=env, cwd=tmp_path, capture_output=True, text=True,
        timeout=BLOCK_S_MAX, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
