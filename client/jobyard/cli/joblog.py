"""The log of a `map`, as GNU parallel writes it with --joblog: a line for each job that has ended, tabs between."""

import time
from pathlib import Path
from typing import IO, Final, Self

from jobyard.cli import exits
from jobyard.cli.campaign import Item
from jobyard.model import Outcome

TITLES: Final = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")


class Joblog:
    """Without a path it writes nothing."""

    def __init__(self, path: str | None) -> None:
        self._file: IO[str] | None = None
        if path is not None:
            self._file = Path(path).open("w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self._write(TITLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, item: Item, outcome: Outcome) -> None:
        """The start is reckoned from the moment we hear of the end, by our own clock."""
        seconds = outcome.seconds or 0.0
        code, number = _code_and_signal(outcome)
        printed = len(outcome.stdout) + len(outcome.stderr)
        started, line = f"{time.time() - seconds:.3f}", item.line.replace("\n", "\\n").replace("\t", "\\t")
        self._write((item.seq, outcome.node or ":", started, f"{seconds:.3f}", 0, printed, code, number, line))

    def _write(self, cells: tuple[object, ...]) -> None:
        if self._file is not None:
            self._file.write("\t".join(map(str, cells)) + "\n")
            self._file.flush()


def _code_and_signal(outcome: Outcome) -> tuple[int, int]:
    code = exits.code_of_outcome(outcome)
    by_signal = outcome.exit is not None and outcome.exit > exits.SIGNAL and outcome.reason not in ("exit", None)
    return (0, (outcome.exit or 0) - exits.SIGNAL) if by_signal else (code, 0)
