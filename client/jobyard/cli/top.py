"""`top`: the cluster at a glance, again and again, until somebody has seen enough.

A thread looks at the cluster, because a node may take seconds for an answer and a key should not. What it saw last is
all that the two share.
"""

import threading
import time
from dataclasses import replace
from typing import Final

import click

from jobyard.cli import exits, picture, records, screen, terminal, words
from jobyard.cli.interrupts import Interrupts
from jobyard.cli.lookout import Lookout, Sight
from jobyard.cli.picture import Picture
from jobyard.cli.verb import Session, verb
from jobyard.errors import TRY_NEXT, Unavailable, Unreachable

INTERVAL_S: Final = 1.0
INTERVAL_S_MIN: Final = 0.1
DRAW_PERIOD_S: Final = 0.5  # how long a clock on the screen may stand still
AWAY: Final = (Unreachable, Unavailable, *TRY_NEXT)  # what passes when a program is started again


@verb(
    "top",
    records.SIGHT,
    quiet=None,
    examples="""
    jobyard top
    jobyard top --once
    jobyard top --json | jq '[.at, .queued, .out_per_s]'
    """,
)
@click.option("--interval", type=words.DURATION, metavar="D", default=None, help="Look again after so long.  [1s]")
@click.option("--once", is_flag=True, help="Print one picture, after two looks, and end.")
def top(session: Session, interval: float | None, once: bool) -> int:
    """Watch the cluster: jobs, rates, nodes and failures.

    Bars show the slots that are taken on each node and, on one scale for all, what waits there for each slot. Keys: q
    ends, p pauses, s sorts nodes by name, waiting, running or state. When the node or the balancer goes away it says
    since when, tries the addresses in turn, and goes on by itself. Where standard output is no terminal it is --once;
    with --json it is an object on a line for each look.
    """
    interval_s = INTERVAL_S if interval is None else max(interval, INTERVAL_S_MIN)
    with Lookout(session.url) as lookout, Interrupts():
        if session.json:
            return _stream(session, lookout, interval_s, once)
        if once or not screen.has_screen():
            return _print(session, lookout, interval_s)
        return _watch(lookout, interval_s)


def _print(session: Session, lookout: Lookout, interval_s: float) -> int:
    """One picture as text. A rate needs two looks."""
    lookout.look()
    time.sleep(interval_s)
    sight = lookout.look()
    shown = Picture(sight, time.time(), interval_s=interval_s)
    drawn = picture.lines(shown, terminal.width() or terminal.WIDTH_DEFAULT, None, screen.glyphs())
    terminal.lines("".join(session.paint(text, word) for text, word in line).rstrip() for line in drawn)
    return exits.SUCCESS


def _stream(session: Session, lookout: Lookout, interval_s: float, once: bool) -> int:
    lookout.look()
    while True:
        time.sleep(interval_s)
        try:
            session.print(records.of_sight(lookout.look()))
        except AWAY as error:
            if once:
                raise
            terminal.note(f"{error.code}: {error}; trying again")
        if once:
            return exits.SUCCESS


def _watch(lookout: Lookout, interval_s: float) -> int:
    with Watcher(lookout, interval_s) as watcher, screen.whole_terminal() as window:
        shown = watcher.picture()
        while True:
            rows, columns = window.size
            window.draw(picture.lines(shown, columns, rows, window.glyphs))
            key = window.key(min(interval_s, DRAW_PERIOD_S))
            if key in ("q", "Q"):
                return exits.SUCCESS
            shown = _after(key, shown)
            if not shown.paused:
                shown = replace(watcher.picture(), sort=shown.sort)


def _after(key: str, shown: Picture) -> Picture:
    if key in ("p", "P", " "):
        return replace(shown, paused=not shown.paused)
    if key in ("s", "S"):
        sorts = list(picture.SORTS)
        return replace(shown, sort=sorts[(sorts.index(shown.sort) + 1) % len(sorts)])
    return shown


class Watcher:
    """A thread that looks again and again. What it cannot go on after is raised in `picture()`."""

    def __init__(self, lookout: Lookout, interval_s: float) -> None:
        self._lookout = lookout
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._sight: Sight | None = None
        self._trouble = ""
        self._since_wall = 0.0
        self._fatal: BaseException | None = None
        self._over = threading.Event()
        # A daemon, since a look may wait for a silent node for seconds, and nobody waits for it any more then.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def picture(self) -> Picture:
        with self._lock:
            if self._fatal is not None:
                raise self._fatal
            return Picture(
                self._sight, time.time(), self._trouble, self._since_wall, interval_s=self._interval_s, keys=True
            )

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                sight = self._lookout.look()
            except AWAY as error:
                self._away(str(error))
            except BaseException as error:  # noqa: BLE001  (it is raised where somebody can see it)
                with self._lock:
                    self._fatal = error
                return
            else:
                with self._lock:
                    self._sight, self._trouble = sight, ""
            self._over.wait(self._interval_s)

    def _away(self, why: str) -> None:
        with self._lock:
            if not self._trouble:
                self._since_wall = time.time()
            self._trouble = why
