"""What `top` shows, as lines of words and their colours, for a screen of any size.

    jobyard top   127.0.0.1:9001   12:03:04   every 1.0s            who tells it, and when
    jobs, ended, nodes, store                                      the whole cluster
    NODE   STATE   RUNNING            WAITING           SEEN       a bar for each node: its slots, and its backlog
    FAILED ...                                                     the latest failures
    q quit  p pause  s sort                                        keys, and what did not fit

Pure: sizes, times and glyphs are arguments. Nothing here acts on a terminal: names pass through `harmless`. What each
state is called stands beside its colour, so nothing is lost without colours.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from jobyard.cli.lookout import Failure, Sight
from jobyard.cli.texts import cells, clock, cut, harmless, in_ascii
from jobyard.model import Node

Word: TypeAlias = tuple[str, str]  # a text, and the state or part of the screen whose colour it has
Line: TypeAlias = list[Word]

BAR_CELLS_MIN: Final = 6
BAR_CELLS_MAX: Final = 40
TABLE_ROWS_MIN: Final = 3  # a title, one row, and how many more there are
FAILURES_ROWS_MAX: Final = 20


class Glyphs(NamedTuple):
    running: str
    waiting: str
    free: str
    cut: str
    gap: str  # between two statements


UNICODE: Final = Glyphs("█", "▒", "·", "…", " · ")
ASCII: Final = Glyphs("#", "=", ".", "~", " - ")

_STATES: Final = ("alive", "draining", "lost")

SORTS: Final[dict[str, Callable[[Node], tuple[float, str]]]] = {
    "name": lambda node: (0, node.name),
    "waiting": lambda node: (-node.waiting / max(node.slots, 1), node.name),
    "running": lambda node: (-node.running / max(node.slots, 1), node.name),
    "state": lambda node: (-_STATES.index(node.state) if node.state in _STATES else 0, node.name),
}


@dataclass(frozen=True)
class Picture:
    """All that a screen depends on."""

    sight: Sight | None  # the latest
    now_wall: float
    trouble: str = ""  # why there is no newer one
    since_wall: float = 0.0  # since when
    interval_s: float = 1.0
    sort: str = "name"
    paused: bool = False
    keys: bool = False  # whether somebody can press them


def lines(picture: Picture, columns: int, rows: int | None, glyphs: Glyphs) -> list[Line]:
    """The screen, `rows` lines at most; all that there is, where rows are not limited."""
    screen = [_title(picture, glyphs), *_trouble(picture)]
    foot = [_keys(picture)] if picture.keys else []
    if picture.sight is not None:
        screen += _totals(picture.sight, glyphs)
        left = None if rows is None else rows - len(screen) - len(foot)
        screen += _tables(picture, columns, left, glyphs)
    elif not picture.trouble:
        screen.append([("looking for the cluster", "")])
    if rows is not None and foot:
        screen = screen[: rows - 1]
        screen += [[]] * (rows - 1 - len(screen))
    return [_fitted(line, columns, glyphs) for line in [*screen, *foot][:rows]]


def _fitted(line: Line, columns: int, glyphs: Glyphs) -> Line:
    fitted: Line = []
    for text, word in line:
        text = _shown(text, glyphs)
        room = columns - sum(cells(before) for before, _ in fitted)
        fitted.append((cut(text, room, glyphs.cut), word))
    return fitted


def _shown(text: str, glyphs: Glyphs) -> str:
    text = harmless(text)
    return text if glyphs is UNICODE else in_ascii(text)


# --- the head ----------------------------------------------------------------------------------------------------


def _title(picture: Picture, glyphs: Glyphs) -> Line:
    at_wall = picture.sight.at_wall if picture.sight else picture.now_wall
    parts = [picture.sight.address if picture.sight else "", time_of(at_wall), f"every {clock(picture.interval_s)}"]
    line: Line = [("jobyard top", "title"), ("  " + glyphs.gap.join(filter(None, parts)), "")]
    return [*line, ("  PAUSED", "paused")] if picture.paused else line


def _trouble(picture: Picture) -> Iterator[Line]:
    if picture.trouble:
        for_s = clock(max(0.0, picture.now_wall - picture.since_wall))
        below = ", below what was seen last" if picture.sight else ""
        yield [(f"not connected since {time_of(picture.since_wall)} ({for_s}), trying again{below}", "lost")]
        yield [(f"  {' '.join(picture.trouble.split())}", "")]


def _totals(sight: Sight, glyphs: Glyphs) -> Iterator[Line]:
    live = f"{sight.running} running, {sight.waiting} in backlogs, {sight.queued} queued"
    resting = f", {sight.resting} not ready" if sight.resting else ""
    yield [("jobs   ", "title"), (f"{sight.live} live: {live}{resting}", "")]
    oldest = f"{glyphs.gap}first in the queue for {clock(sight.oldest_queued_s)}" if sight.oldest_queued_s else ""
    yield [("rates  ", "title"), (f"in {_rate(sight.in_per_s)}, ended {_rate(sight.out_per_s)}{oldest}", "")]
    succeeded, failed, cancelled = (int(sight.number(f"jobs_{how}_total")) for how in _ENDS)
    yield [
        ("ended  ", "title"),
        (f"{succeeded} succeeded, ", ""),
        (f"{failed} failed", "failed" if failed else ""),
        (f", {cancelled} cancelled since the balancer's start", ""),
    ]
    yield [*_nodes_told(sight), *_store_told(sight, glyphs)]


_ENDS: Final = ("succeeded", "failed", "cancelled")


def _rate(per_s: float | None) -> str:
    return "?" if per_s is None else f"{per_s:.1f}/s"


def _nodes_told(sight: Sight) -> Line:
    told: Line = [("nodes  ", "title")]
    for state in _STATES:
        count = sum(node.state == state for node in sight.nodes)
        if count or state == "alive":
            told += [(f"{count} {state}", state if state != "alive" or not count else ""), (", ", "")]
    return [*told, (f"{int(sight.number('slots'))} slots", "")]


def _store_told(sight: Sight, glyphs: Glyphs) -> Line:
    if "store_fraction" not in sight.stats:
        return []
    fraction = sight.number("store_fraction")
    word = "lost" if fraction >= STORE_FULL else "draining" if fraction >= STORE_EARLY else ""
    return [(f"{glyphs.gap}balancer's store ", ""), (f"{fraction:.0%} full", word)]


STORE_EARLY: Final = 0.6  # from here on ended jobs go before their time,
STORE_FULL: Final = 0.75  # and from here on no new ones are taken


# --- the tables --------------------------------------------------------------------------------------------------


def _tables(picture: Picture, columns: int, rows: int | None, glyphs: Glyphs) -> list[Line]:
    """Nodes, then failures, in so many rows: failures have what nodes leave, and a few rows in any case."""
    sight = picture.sight
    assert sight is not None
    nodes = _node_table(sorted(sight.nodes, key=SORTS[picture.sort]), columns, glyphs)
    failures = _failure_table(sight.failures[:FAILURES_ROWS_MAX], glyphs)
    if rows is None:
        return [[], *nodes, [], *failures]
    if rows < TABLE_ROWS_MIN + 1:
        return [[("no room for nodes and failures", "lost")]][: max(rows, 0)]
    kept = min(len(failures), TABLE_ROWS_MIN) + 1 if rows > 2 * TABLE_ROWS_MIN + 1 else 0
    shown = _shortened(nodes, rows - 1 - kept, f"nodes, by {picture.sort}")
    left = rows - len(shown) - 2
    if left < min(len(failures), TABLE_ROWS_MIN):
        return [[], *shown]
    return [[], *shown, [], *_shortened(failures, left, "of the latest failures")]


def _shortened(table: list[Line], rows: int, what: str) -> list[Line]:
    """A table with its title in so many rows; the last says how many are not shown."""
    if len(table) <= rows:
        return table
    return [*table[: rows - 1], [(f"and {len(table) - rows + 1} more {what}", "")]]


class _Cells(NamedTuple):
    """How wide the columns of the node table are. Names, numbers and bars take what they need and what there is."""

    name: int
    ran: int
    waits: int
    bar: int
    state: int = 8
    seen: int = 6


_GAPS_CELLS: Final = 7  # between the columns


def _node_table(nodes: Sequence[Node], columns: int, glyphs: Glyphs) -> list[Line]:
    if not nodes:
        return [[("no node has ever been connected", "lost")]]
    wide = _node_cells(nodes, columns, glyphs)
    deepest = max(1.0, *map(_per_slot, nodes))
    running = "RUNNING".ljust(wide.ran + 1 + wide.bar)
    waiting = "WAITING".ljust(wide.waits + 1 + wide.bar)
    title = f"{'NODE':{wide.name}} {'STATE':{wide.state}} {running}  {waiting} {'SEEN':>{wide.seen}}"
    return [[(title, "title")], *(_node_line(node, wide, deepest, glyphs) for node in nodes)]


def _node_cells(nodes: Sequence[Node], columns: int, glyphs: Glyphs) -> _Cells:
    longest = max(len("NODE"), *(cells(_shown(node.name, glyphs)) for node in nodes))
    name = min(longest, max(8, columns // 5))
    ran, waits = (max(len(text(node)) for node in nodes) for text in (_running, _waiting))
    taken = _Cells(name, ran, waits, 0)
    return taken._replace(bar=max(BAR_CELLS_MIN, min(BAR_CELLS_MAX, (columns - sum(taken) - _GAPS_CELLS) // 2)))


def _node_line(node: Node, wide: _Cells, deepest: float, glyphs: Glyphs) -> Line:
    return [
        (f"{_padded(node.name, wide.name, glyphs)} ", ""),
        (f"{node.state:{wide.state}} ", node.state),
        (f"{_running(node):>{wide.ran}} ", ""),
        *_bar(node.running / max(node.slots, 1), wide.bar, glyphs.running, "running", glyphs.free),
        (f"  {_waiting(node):>{wide.waits}} ", ""),
        *_bar(_per_slot(node) / deepest, wide.bar, glyphs.waiting, "waiting", " "),
        (f" {clock(node.last_seen_s):>{wide.seen}}", "lost" if node.state == "lost" else ""),
    ]


def _running(node: Node) -> str:
    return f"{node.running}/{node.slots}"


def _waiting(node: Node) -> str:
    return f"{node.waiting} ({_per_slot(node):.1f}/slot)" if node.waiting else "0"


def _per_slot(node: Node) -> float:
    return node.waiting / max(node.slots, 1)


def _bar(fraction: float, width: int, full: str, word: str, empty: str) -> Line:
    """What is not nothing is seen, and what is not all leaves a gap."""
    filled = round(min(max(fraction, 0.0), 1.0) * width)
    if 0 < fraction < 1:
        filled = min(max(filled, 1), width - 1)
    return [(full * filled, word), (empty * (width - filled), "")]


def _padded(text: str, width: int, glyphs: Glyphs) -> str:
    text = cut(_shown(text, glyphs), width, glyphs.cut)
    return text + " " * (width - cells(text))


def _failure_table(failures: Sequence[Failure], glyphs: Glyphs) -> list[Line]:
    if not failures:
        return [[("no job has failed", "")]]
    rows = [_FAILURE_TITLES, *map(_failure_row, failures)]
    columns = zip(*([_shown(text, glyphs) for text in row] for row in rows), strict=True)
    widths = [min(max(map(cells, column)), most) for column, most in zip(columns, _FAILURE_CELLS_MAX, strict=True)]
    title, *table = ([_padded(text, width, glyphs) for text, width in zip(row, widths, strict=True)] for row in rows)
    return [[("  ".join(title).rstrip(), "title")], *map(_failure_line, table)]


def _failure_line(padded: Sequence[str]) -> Line:
    when, ticket, reason, *rest = padded
    return [(f"{when}  {ticket}  ", ""), (reason, "failed"), (f"  {'  '.join(rest)}".rstrip(), "")]


_FAILURE_TITLES: Final = ("FAILED", "TICKET", "REASON", "EXIT", "NODE", "NAME")
_FAILURE_CELLS_MAX: Final = (8, 24, 14, 5, 16, 60)


def _failure_row(failure: Failure) -> tuple[str, ...]:
    when = time_of(_wall(failure.at)) if failure.at else "before"
    return when, failure.ticket, failure.reason, failure.exit, failure.node, failure.name


def _wall(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def time_of(wall: float) -> str:
    """A moment as a clock on this machine's wall shows it."""
    return datetime.fromtimestamp(wall).strftime("%H:%M:%S")


def _keys(picture: Picture) -> Line:
    go_on = "go on" if picture.paused else "pause"
    return [("q", "title"), (" quit  ", ""), ("p", "title"), (f" {go_on}  ", ""), ("s", "title"),
            (f" sort nodes (by {picture.sort})", "")]  # fmt: skip
