"""The work, as the peers' Python workers do it: the same that Jobyard's nodes do for `py` and `exec`.

Standard library only, and nothing of this package: every worker imports it.
"""

import math
import subprocess
import time
from pathlib import Path


def root() -> float:
    """What `py math:sqrt [4]` does: a call that costs nothing, whose result is wanted."""
    return math.sqrt(4)


def command() -> int:
    """What `exec true` does: a process, its output captured."""
    return subprocess.run(["/bin/true"], stdin=subprocess.DEVNULL, capture_output=True, check=True).returncode


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def gate(begun: str, opened: str) -> int:
    """Occupies its worker until the file `opened` is there; says by the file `begun` that it does."""
    Path(begun).touch()
    while not Path(opened).exists():
        time.sleep(0.01)
    return 1
