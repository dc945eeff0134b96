"""Which data directory is a program's: the one setting that can be read without all the others.

Whoever only wants to find the directory, as a health check does several times a minute, asks here. A program that
starts reads it with the rest (`common/settings.py`), which says what is wrong with it. Pure.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "JOBYARD_DATA_DIR"
DEFAULTS: Final = {"balancer": "./data/balancer", "node": "./data/node"}


def data_directory(program: str, environ: Mapping[str, str]) -> Path | None:
    """The directory of this program (`node` or `balancer`); None where the setting is bad."""
    text = environ.get(VARIABLE, DEFAULTS[program])
    return Path(text) if text else None
