"""The whole terminal, for as long as `top` has it: lines in, keys out, and everything as it was when it ends.

By curses of the standard library, which nobody has to install: it knows what each terminal can do, draws only what has
changed, and notices that a window has another size. Where Python was built without it, `Screen` raises ScreenError.
"""

import locale
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobyard.cli.picture import ASCII, UNICODE, Glyphs, Line
from jobyard.cli.terminal import is_terminal

if TYPE_CHECKING:
    import curses

ESCAPE_MS: Final = 25  # how long after ESC more of a key may come
_COLOURS: Final = {
    "alive": "GREEN", "running": "CYAN", "waiting": "YELLOW", "draining": "YELLOW", "paused": "YELLOW",
    "lost": "RED", "failed": "RED",
}  # fmt: skip
_BOLD: Final = frozenset({"title", "paused", "lost", "failed"})  # seen without colours as well


class ScreenError(ValueError):
    """There is no way to draw on this terminal."""


def glyphs() -> Glyphs:
    """Those that standard output can show."""
    try:
        "".join(UNICODE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def has_screen() -> bool:
    """Whether there is somebody to look at it, and to press keys."""
    return is_terminal(sys.stdout) and is_terminal(sys.stdin)


@contextmanager
def whole_terminal() -> Iterator["Screen"]:
    """Takes the terminal, and gives it back however this ends."""
    try:
        import curses
    except ImportError:
        raise ScreenError("this Python has no curses; --once needs none") from None
    shown = glyphs()
    try:
        locale.setlocale(locale.LC_ALL, "")  # curses draws what the locale can
    except locale.Error:
        shown = ASCII  # it is not installed here, as after ssh from elsewhere: we stay in C
    os.environ.setdefault("ESCDELAY", str(ESCAPE_MS))
    try:
        curses.setupterm()
    except curses.error:
        term = os.environ.get("TERM", "")
        raise ScreenError(f"nothing is known of a terminal TERM={term!r}; set TERM to another, or use --once") from None
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        try:
            curses.curs_set(0)
        except curses.error:
            pass  # it cannot hide its cursor
        yield Screen(window, _attributes(), shown)
    finally:
        window.keypad(False)
        curses.endwin()


def _attributes() -> dict[str, int]:
    import curses

    attributes = dict.fromkeys(_BOLD, curses.A_BOLD)
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return attributes
    curses.start_color()
    curses.use_default_colors()
    for number, (word, colour) in enumerate(_COLOURS.items(), 1):
        curses.init_pair(number, getattr(curses, f"COLOR_{colour}"), -1)
        attributes[word] = attributes.get(word, 0) | curses.color_pair(number)
    return attributes


class Screen:
    def __init__(self, window: "curses.window", attributes: dict[str, int], glyphs: Glyphs) -> None:
        self.glyphs: Final = glyphs  # those that it can show
        self._window = window
        self._attributes = attributes

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that can be drawn in. The last column stays empty: a terminal goes on to the next line
        behind it."""
        rows, columns = self._window.getmaxyx()
        return rows, max(1, columns - 1)

    def draw(self, lines: Sequence[Line]) -> None:
        import curses

        self._window.erase()
        for y, line in enumerate(lines):
            self._window.move(y, 0)
            for text, word in line:
                try:
                    self._window.addstr(text, self._attributes.get(word, 0))
                except curses.error:
                    break  # the window has become smaller since it was asked for its size
        self._window.refresh()

    def key(self, wait_s: float) -> str:
        """A key that is pressed, or "" after so long, or at once when the size has changed."""
        self._window.timeout(round(wait_s * 1000))
        code = self._window.getch()
        return chr(code) if 0 < code < 128 else ""
