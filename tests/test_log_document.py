"""The table of log events in docs/operating.md: each event with its programs, levels and fields, and no others.

What the code says is read from its calls: `….note(event, level, field=…)` of the machines, `log.warning(event,
field=…)` of the rest. A call whose event cannot be told from the text of its function is an error here, and so is a
field that the table of fields does not explain: so no second word for the same thing comes in unseen.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.test_documents import DOCS, ROOT, SOURCES, named, rows
from tests.test_events_document import names

DOCUMENT: Final = DOCS / "operating.md"
PROGRAMS: Final = ("balancer", "node")
LEVELS: Final = {"debug", "info", "warning", "error", "critical"}
SETTINGS, TRACEBACK = "the settings", "a traceback"
EVERYWHERE: Final = {"ts", "level", "event", "program", "node"}
_EVENT = re.compile(r"[a-z]+\.[a-z_]+")
_LOGGERS: Final = {"log", "_log", "structlog.get_logger()"}


@attrs.frozen
class Told:
    """One call that logs."""

    event: str
    level: str
    fields: frozenset[str]
    programs: tuple[str, ...]
    where: str


@attrs.frozen
class Listed:
    """A row of the table, as it is for one program."""

    levels: frozenset[str]
    fields: frozenset[str]


# --- what the code says ----------------------------------------------------------------------------------------------


def told() -> Iterator[Told]:
    for path in SOURCES:
        programs = tuple(name for name in PROGRAMS if path.is_relative_to(ROOT / name)) or PROGRAMS
        for function, call in calls(path):
            level, fields = level_of(call), fields_of(call)
            for event in names(call.args[0], function):
                yield Told(event, level, fields, programs, f"{path.relative_to(ROOT)}:{call.lineno}")


def calls(path: Path) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    """Each call that logs, with the function around it."""
    for function in ast.walk(ast.parse(path.read_text())):
        for call in ast.walk(function) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                of, method = ast.unparse(call.func.value), call.func.attr
                logs = of in _LOGGERS and method in LEVELS | {"exception"}
                if logs or (method == "note" and of.endswith("outbox")):
                    yield function, call  # type: ignore[misc]
                else:
                    first = call.args[0]
                    hidden = method in LEVELS | {"exception", "note"} and isinstance(first, ast.Constant)
                    assert not hidden, f"{path.name}:{call.lineno} logs in a way that is not known here"


def level_of(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    match call.func.attr, call.args[1:]:
        case "note", []:
            return "info"
        case "note", [ast.Constant(value=str(level))]:
            return level
        case "exception", _:
            return "error"
        case method, _:
            return method


def fields_of(call: ast.Call) -> frozenset[str]:
    assert isinstance(call.func, ast.Attribute)
    fields = {SETTINGS if word.arg is None else TRACEBACK if word.arg == "exc_info" else word.arg
              for word in call.keywords}  # fmt: skip
    return frozenset(fields | ({TRACEBACK} if call.func.attr == "exception" else set()))


# --- what the document says ------------------------------------------------------------------------------------------


def listed() -> dict[tuple[str, str], Listed]:
    """By event and program."""
    found = {}
    for event, who, levels, fields, _ in table():
        for program in PROGRAMS if who == "both" else (who,):
            of_program = part(fields, program)
            others = {word for word in (SETTINGS, TRACEBACK) if word in of_program}
            found[named(event)[0], program] = Listed(
                frozenset(re.findall(r"\w+", part(levels, program))), frozenset(others | set(named(of_program)))
            )
    return found


def table() -> Iterator[list[str]]:
    return (cells for cells in rows(DOCUMENT, "## Events") if _EVENT.fullmatch(cells[0].strip("`")))


def part(cell: str, program: str) -> str:
    """What a cell says of this program: all, or what follows its name."""
    if "balancer:" not in cell:
        return cell
    parts = dict(piece.split(": ", 1) for piece in cell.split("; "))
    return parts[program]


# --- in both directions ----------------------------------------------------------------------------------------------


def test_every_event_that_is_logged_is_listed_with_its_level_and_fields_for_the_program_that_logs_it() -> None:
    known, found = listed(), list(told())
    assert len({one.event for one in found}) > 35
    for one in found:
        rows = {program: known[one.event, program] for program in one.programs if (one.event, program) in known}
        own = len(one.programs) == 1
        assert rows, f"{one.where}: {one.event} is not listed{f' for the {one.programs[0]}' if own else ''}"
        assert any(one.level in row.levels and one.fields <= row.fields for row in rows.values()), (
            f"{one.where}: {one.event} is logged at {one.level} with {sorted(one.fields)}; listed: {rows}"
        )


def test_nothing_is_listed_that_nobody_logs() -> None:
    found = list(told())
    for (event, program), row in listed().items():
        mine = [one for one in found if one.event == event and program in one.programs]
        assert mine, f"the {program} never logs {event}"
        own = [one for one in mine if one.programs == (program,)] or mine
        assert row.levels == {one.level for one in own}, f"{event} of the {program} is logged at another level"
        fields = frozenset[str]().union(*(one.fields for one in own))
        assert row.fields == fields, f"{event} of the {program} has other fields: {row.fields ^ fields}"


def test_every_field_is_explained_once_and_no_other() -> None:
    explained = [name for cells in rows(DOCUMENT, "### Fields of events") for name in named(cells[0])]
    assert len(explained) == len(set(explained))
    used = {name for one in told() for name in one.fields} - {SETTINGS, TRACEBACK}
    assert set(explained) == used
    assert not used & (EVERYWHERE - {"node"}), "what every line has is not given by a call"


def test_every_level_is_one_that_there_is() -> None:
    assert {one.level for one in told()} <= LEVELS
