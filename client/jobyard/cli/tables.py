"""What people read: tables of jobs, nodes and numbers, aligned, and no wider than the terminal.

Pure: the width, the present time and the colours are arguments. A column in which nobody has anything is left out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from jobyard.cli.texts import clock, harmless
from jobyard.model import ENDED_STATES, Event, Node, Status

GAP: Final = "  "
SHRUNK_CELLS_MIN: Final = 8  # a column that has to give way keeps so many
Paint = Callable[[str, str], str]  # text and its word → the same in colour


class Column(NamedTuple):
    title: str
    right: bool = False  # numbers stand to the right
    shrinks: bool = False  # gives way where the terminal is narrow
    painted: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None, paint: Paint) -> Iterator[str]:
    """The lines of a table, its titles first."""
    cells = [[harmless(cell) for cell in row] for row in rows]
    kept = [place for place, column in enumerate(columns) if not cells or any(row[place] for row in cells)]
    columns = [columns[place] for place in kept]
    cells = [[row[place] for place in kept] for row in cells]
    titles = [column.title for column in columns]
    widths = _fitted(columns, [max(map(len, each)) for each in zip(titles, *cells, strict=True)], width)
    yield _row(columns, titles, widths, lambda text, word: text)
    for row in cells:
        yield _row(columns, row, widths, paint)


def _fitted(columns: Sequence[Column], widths: list[int], width: int | None) -> list[int]:
    """Takes what is too much from the widest columns that give way."""
    too_much = sum(widths) + len(GAP) * (len(widths) - 1) - (width or 0)
    shrinking = [place for place, column in enumerate(columns) if column.shrinks]
    while width is not None and too_much > 0 and shrinking:
        widest = max(shrinking, key=lambda place: widths[place])
        if widths[widest] <= SHRUNK_CELLS_MIN:
            break
        widths[widest] -= 1
        too_much -= 1
    return widths


def _row(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], paint: Paint) -> str:
    parts = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        padded = text.rjust(width) if column.right else text.ljust(width)
        parts.append(padded.replace(text, paint(text, cell.partition(" ")[0]), 1) if column.painted else padded)
    return GAP.join(parts).rstrip()


# --- jobs --------------------------------------------------------------------------------------------------------

JOB_COLUMNS: Final = (
    Column("TICKET"),
    Column("STATE", painted=True),
    Column("ENDED", right=True),  # of an array's elements
    Column("ATTEMPT", right=True),
    Column("NODE", shrinks=True),
    Column("EXIT", right=True),
    Column("REASON", shrinks=True),
    Column("IN", right=True),  # until it may run, or is tried again
    Column("AGE", right=True),
    Column("NAME", shrinks=True),
    Column("GROUP", shrinks=True),
)


def job_row(status: Status, now_wall: float) -> tuple[str, ...]:
    """`now_wall` is calendar time in seconds."""
    due = status.not_before or status.retry_at
    exit_code = status.fields.get("exit", "")
    return (
        status.ticket,
        status.state,
        _ended(status),
        str(status.attempt or ""),
        status.node or "",
        exit_code if exit_code != "0" else "",
        status.reason or "",
        clock(_wall(due) - now_wall) if due else "",
        clock(now_wall - _wall(status.submitted)) if status.submitted else "",
        status.name or "",
        status.group or "",
    )


def _ended(status: Status) -> str:
    if "count" not in status.fields:
        return ""
    return f"{sum(status.counts.get(state, 0) for state in ENDED_STATES)}/{status.fields['count']}"


def _wall(moment: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def ended_line(status: Status, paint: Paint) -> str:
    """One job that has ended, as `wait` tells of it."""
    about = (harmless(word) for word in (status.reason, status.node, status.name) if word)
    return GAP.join((harmless(status.ticket), paint(harmless(status.state), status.state), *about))


# --- the cluster -------------------------------------------------------------------------------------------------

NODE_COLUMNS: Final = (
    Column("NAME", shrinks=True),
    Column("STATE", painted=True),
    Column("SLOTS", right=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("SEEN", right=True),
)
STAT_COLUMNS: Final = (Column("NAME"), Column("NUMBER", right=True))
EVENT_WORDS: Final = ("seq", "at", "event", "ticket", "node", "attempt")


def node_row(node: Node) -> tuple[str, ...]:
    return node.name, node.state, str(node.slots), str(node.running), str(node.waiting), clock(node.last_seen_s)


def event_line(event: Event, paint: Paint) -> str:
    """One event on one line: when, what, of which job, and whatever else is told of it."""
    what = str(event.get("event", ""))
    rest = (f"{name}={_word(value)}" for name, value in event.items() if name not in EVENT_WORDS)
    about = (f"{name}={_word(event[name])}" for name in ("node", "attempt") if name in event)
    words = (str(event.get("at", "")), what.ljust(15), str(event.get("ticket", "")), *about, *rest)
    plain = harmless(" ".join(word for word in words if word).rstrip())
    return plain.replace(what, paint(what, what.rpartition(".")[2]), 1)


def _word(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return repr(text) if " " in text else text
