"""Has a result drawn in the peers' environment: matplotlib is needed for nothing else, and never where we measure."""

import subprocess
from pathlib import Path
from typing import Final

from benchmarks import installing

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DRAW_S_MAX: Final = 300.0


def draw(directory: Path) -> list[Path]:
    """A picture of each measure beside the `results.json` of this directory; their paths. Raises CannotHave."""
    installing.install(installing.DRAWING)
    command = [installing.peers_python(), "-m", "benchmarks.plots", str((directory / "results.json").resolve())]
    drawn = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DRAW_S_MAX)
    if drawn.returncode:
        raise installing.CannotHave(f"drawing failed: {drawn.stderr.strip()[-300:]}")
    return [Path(line) for line in drawn.stdout.splitlines()]
