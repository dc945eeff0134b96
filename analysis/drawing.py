"""Has a result drawn where matplotlib is: in the environment that the benchmarks have for it."""

import subprocess
from pathlib import Path
from typing import Final

from benchmarks import installing

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DRAW_S_MAX: Final = 300.0


def draw(directory: Path) -> list[Path]:
    """The pictures of the results in this directory, beside them. Raises CannotHave."""
    installing.install(installing.DRAWING)
    command = [installing.peers_python(), "-m", "analysis.plots", str(directory.resolve())]
    drawn = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DRAW_S_MAX)
    if drawn.returncode:
        raise installing.CannotHave(f"drawing failed: {drawn.stderr.strip()[-300:]}")
    return [Path(line) for line in drawn.stdout.splitlines()]
