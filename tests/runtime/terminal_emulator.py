"""A terminal with somebody before it: `jobyard` on a pseudo-terminal, and what an emulator makes of what it writes."""

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pyte

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 20.0
DRAWN_S: Final = 0.01  # nothing more has been written for so long: the screen is whole


class Terminal:
    """`TERM=linux` is what the emulator emulates; it ignores what other terminals can do besides."""

    def __init__(self, columns: int, rows: int, *words: str, env: Mapping[str, str], term: str = "linux") -> None:
        self.written = b""
        self._screen: Any = pyte.Screen(columns, rows)
        self._stream: Any = pyte.ByteStream(self._screen)
        self._here, there = pty.openpty()
        self._there = there
        self._set_size(columns, rows)
        self.before: list[Any] = termios.tcgetattr(there)
        clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        path = f"{ROOT}:{ROOT / 'client'}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobyard.cli", *words],
            env=clean | {"TERM": term, "LC_ALL": "C.UTF-8", "PYTHONPATH": path} | env,
            stdin=there, stdout=there, stderr=there, start_new_session=True,
            preexec_fn=lambda: (fcntl.ioctl(0, termios.TIOCSCTTY, 0), signal.signal(signal.SIGINT, signal.SIG_DFL)),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._here)
        os.close(self._there)

    # --- the person ----------------------------------------------------------------------------------------------

    def press(self, keys: str) -> None:
        os.write(self._here, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self._set_size(columns, rows)
        self._screen.resize(rows, columns)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._there, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # --- the screen ----------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def colour_of(self, word: str) -> str:
        """Of the first letter of a word that is shown."""
        for y, line in enumerate(self._screen.display):
            if word in line:
                colour: str = self._screen.buffer[y][line.index(word)].fg
                return colour
        raise AssertionError(f"{word!r} is not shown:\n{self.text}")

    def until(self, seen: Callable[[str], object] | str) -> str:
        """The screen, as soon as it shows something."""
        shows = (lambda text: re.search(seen, text)) if isinstance(seen, str) else seen
        ends_at = time.monotonic() + PATIENCE_S
        while not shows(self.text):
            goes_on = self._read() and time.monotonic() < ends_at
            assert goes_on, f"not seen: {seen}\n{self.text}"
        while select.select([self._here], [], [], DRAWN_S)[0] and self._read():
            pass  # the rest of what is being drawn
        return self.text

    def end(self) -> int:
        """Waits for the end; the exit code, or less than 0 for a signal."""
        ends_at = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < ends_at, f"it goes on:\n{self.text}"
            self._read()
        while select.select([self._here], [], [], 0)[0] and self._read():
            pass
        return self.process.returncode

    @property
    def after(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self._there)

    def _read(self) -> bool:
        """What was written in the meantime; False where nobody writes any more."""
        if select.select([self._here], [], [], 0.05)[0]:
            try:
                data = os.read(self._here, 1 << 16)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return False
            self.written += data
            self._stream.feed(data)
        return True
