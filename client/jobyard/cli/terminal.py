"""Standard output and standard error: lines, bytes, colours, and the progress bar.

Rules: standard output is for data alone. What is not data goes to standard error, with `jobyard: ` before it. Colours
and the bar are for terminals: a pipe gets the bare text. Text of jobs and nodes that is shown in a line of ours cannot
act on a terminal; bytes that a job printed are passed on as they are.
"""

import os
import sys
import time
from collections.abc import Iterable
from typing import IO, Final

from jobyard.cli.texts import clock

COLOURS: Final = {
    "succeeded": "32", "alive": "32",
    "failed": "31", "lost": "31",
    "cancelled": "33", "draining": "33", "retrying": "33",
    "running": "36", "dispatched": "36",
}  # fmt: skip
WIDTH_DEFAULT: Final = 80
BAR_CELLS: Final = 24
DRAW_PERIOD_S: Final = 0.1


# --- lines and bytes ---------------------------------------------------------------------------------------------


def line(text: str) -> None:
    """A line of data, at once: whoever reads a pipe need not wait for the next."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def lines(texts: Iterable[str]) -> None:
    """Lines of data, together."""
    sys.stdout.write("".join(f"{text}\n" for text in texts))
    sys.stdout.flush()


def note(text: str) -> None:
    """Something that people should know."""
    print(f"jobyard: {text}", file=sys.stderr, flush=True)


def raw(stdout: bytes, stderr: bytes) -> None:
    """What a job printed, to where it printed it."""
    for stream, data in ((sys.stdout, stdout), (sys.stderr, stderr)):
        if data:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()


# --- terminals ---------------------------------------------------------------------------------------------------


def is_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colours() -> bool:
    """Whether standard output shows colours, and nobody has asked that it does not (https://no-color.org)."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")


def width() -> int | None:
    """The columns of the terminal that standard output is; None where it is none, and lines may be of any length."""
    if not is_terminal(sys.stdout):
        return None
    columns = os.environ.get("COLUMNS", "")
    try:
        return int(columns) if columns.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return WIDTH_DEFAULT


def painted(text: str, word: str) -> str:
    """The text in the colour of a state, if it has one."""
    colour = COLOURS.get(word)
    return f"\033[{colour}m{text}\033[0m" if colour else text


# --- the progress bar --------------------------------------------------------------------------------------------


class Bar:
    """How many of some jobs have ended, on the last line of standard error. Nothing at all where `shown` is false.

    Whatever else is printed stands above it: `clear()` before that, and `draw()` again after it.
    """

    def __init__(self, shown: bool, total: int | None = None) -> None:
        self.total = total
        self.ended = 0
        self.failed = 0
        self.more = ""  # what else is to be said
        self.shown = shown
        self._on_screen = False
        self._began_at = time.monotonic()
        self._drawn_at = 0.0

    def __enter__(self) -> "Bar":
        self.draw()
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def count(self, *, succeeded: bool) -> None:
        self.ended += 1
        self.failed += not succeeded

    def draw(self, *, anyhow: bool = False) -> None:
        """Shows where things stand, not oftener than an eye can see."""
        now = time.monotonic()
        if self.shown and (anyhow or not self._on_screen or now - self._drawn_at >= DRAW_PERIOD_S):
            sys.stderr.write(f"\r\033[K{self.text(now - self._began_at)}")
            sys.stderr.flush()
            self._on_screen = True
            self._drawn_at = now

    def print(self, stdout: bytes, stderr: bytes) -> None:
        """What a job printed, above the bar."""
        self.clear()
        raw(stdout, stderr)
        last = stderr or stdout
        if self.shown and not last.endswith(b"\n") and is_terminal(sys.stderr if stderr else sys.stdout):
            sys.stderr.write("\n")  # the bar would wipe out a line without an end

    def clear(self) -> None:
        if self._on_screen:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._on_screen = False

    def text(self, took_s: float) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        if not self.total:
            return f"{self.ended} ended{failed}{self.more}, {clock(took_s)}"
        filled = BAR_CELLS * self.ended // self.total
        left = f", {clock(took_s / self.ended * (self.total - self.ended))} left" if self.ended else ""
        return f"[{'█' * filled}{'·' * (BAR_CELLS - filled)}] {self.ended}/{self.total}{failed}{self.more}{left}"
