"""Asking a system's driver process, with a limit in time for every question.

A driver that does not answer in time is told to stop, and after a grace ended with everything that descends from it:
a peer that hangs costs its own figures, not the run.
"""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.processes import family, kill_all
from benchmarks.systems.system import Unsupported

REPOSITORY: Final = Path(__file__).resolve().parent.parent
LOAD_S_MAX: Final = 60.0  # importing a peer's libraries
STOP_S_MAX: Final = 40.0


class NoAnswer(Exception):
    """The question brought no figure; the text says why."""


class Remote:
    """A driver, from entering to leaving the context. Its output goes to `log`."""

    def __init__(self, system: str, python: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._command = [*python, "-m", "benchmarks.driver", system]
        self._log = log
        self._env = {**os.environ, **env, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'client'}"}

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # an interrupted run stops it in order
            )
        self._heard = b""
        try:
            self._answer("loading it", LOAD_S_MAX)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, name: str, within_s: float = 60.0, **arguments: Any) -> Any:
        """What the system answers; raises Unsupported or NoAnswer."""
        assert self._process.stdin is not None
        if not self.is_alive():
            raise NoAnswer(f"its driver has ended; see {self._log.name}")
        try:
            self._process.stdin.write(json.dumps({"call": name, "with": arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise NoAnswer(f"its driver ended; see {self._log.name}") from None
        return self._answer(name, within_s)

    def _answer(self, what: str, within_s: float) -> Any:
        try:
            reply = json.loads(self._line(time.monotonic() + within_s))
        except TimeoutError:
            self._end()
            raise NoAnswer(f"{what} took longer than {within_s:g} s") from None
        if "unsupported" in reply:
            raise Unsupported(reply["unsupported"])
        if "failed" in reply:
            raise NoAnswer(reply["failed"])
        return reply["value"]

    def _line(self, ends_at: float) -> bytes:
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        while b"\n" not in self._heard:
            if not select.select([out], [], [], max(0.0, ends_at - time.monotonic()))[0]:
                raise TimeoutError
            data = os.read(out, 1 << 16)
            if not data:
                raise NoAnswer(f"its driver ended; see {self._log.name}")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _end(self) -> None:
        """Lets it stop what it started; whatever is left then is killed, by its id."""
        born = family(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                born |= family(self._process.pid)
        kill_all(born)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(OSError):  # what was written to a driver that is gone
                    pipe.close()
