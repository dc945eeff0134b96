"""docs/events.md is the event log's interface: its events and fields are those that the code tells, and no others."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from analysis import virtual
from balancer.chronicle import fields_of
from common.model import Ended, State
from jobyard.workload import YACS, generate
from tests.test_documents import DOCS, ROOT, named, rows

DOCUMENT = DOCS / "events.md"
ALWAYS = {"seq", "at", "event"}
# What stands for a state in the name of an event: a job begins to live, or lives again, in one of the first three.
STATES = {
    "state": (State.BLOCKED, State.SCHEDULED, State.QUEUED),
    "ended.state": (State.SUCCEEDED, State.FAILED, State.CANCELLED),
}


def documented() -> dict[str, set[str]]:
    return {named(cells[0])[0]: set(named(cells[1])) for cells in rows(DOCUMENT, "## Events") if "." in cells[0]}


def told() -> dict[str, set[str]]:
    """Every event that the balancer tells its chronicle, with the names of its fields. Of what it tells of many jobs
    at once, tests/machines/test_plain.py holds it to the same."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "balancer").glob("*.py")):
        for function, call in calls(path):
            fields = set(fields_in(call)) | ({"ticket"} if len(call.args) > 1 else set())
            if isinstance(call.func, ast.Attribute) and call.func.attr == "tell_end":
                for event in names(call.args[2], function) if len(call.args) > 2 else ():
                    found.setdefault(event, set()).update(fields)
                continue
            for event in names(call.args[0], function):
                found.setdefault(event, set()).update(fields)
    found["job.retrying"] |= found["job.failed"]  # it is told as an end, with one field more
    return found


def fields_in(call: ast.Call) -> Iterator[str]:
    """Those that are named, and those of an end."""
    for word in call.keywords:
        if word.arg is not None:
            yield word.arg
        elif isinstance(word.value, ast.Call) and ast.unparse(word.value.func) == "fields_of":
            yield from fields_of(Ended(State.FAILED, 0.0))


def calls(path: Path) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                    teller = ast.unparse(call.func.value)
                    own = path.name == "chronicle.py" and teller == "self"
                    if call.func.attr in ("tell", "tell_end") and (teller.endswith("chronicle") or own):
                        yield function, call


def names(argument: ast.expr, function: ast.FunctionDef) -> Iterator[str]:
    """The events that an argument may name: a text, one made of a state, a choice, or a name that has one of these."""
    match argument:
        case ast.Constant(value=str(event)):
            yield event
        case ast.JoinedStr(values=[ast.Constant(value=str(first)), ast.FormattedValue(value=state)]):
            yield from (first + one for one in STATES[ast.unparse(state)])
        case ast.IfExp(body=one, orelse=other) | ast.BoolOp(values=[one, other]):
            yield from names(one, function)
            yield from names(other, function)
        case ast.Name(id=name):
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                    yield from names(node.value, function)
        case _:
            raise AssertionError(f"which event is {ast.unparse(argument)}?")


def test_every_event_that_is_told_is_documented_with_its_fields_and_no_other() -> None:
    found = told()
    assert len(found) > 15
    assert documented() == found


def test_every_field_is_explained() -> None:
    explained = {name for cells in rows(DOCUMENT, "## Events") if "." not in cells[0] for name in named(cells[0])}
    assert {name for fields in documented().values() for name in fields} == explained
    assert {name for cells in rows(DOCUMENT, "## Fields of every event") for name in named(cells[0])} == ALWAYS


def test_the_protocol_lists_the_same_events_with_the_same_fields() -> None:
    listed = {}
    for cells in rows(DOCS / "protocol.md", "### LOGS and EVENTS"):
        for event in named(cells[0]):
            listed[event] = {name for name in named(cells[1]) if name not in REASONS}
    assert listed == documented()


REASONS = {
    "submitted", "unblocked", "delay_over", "retry", "retried", "returned", "interrupted", "lost", "crashed",
}  # fmt: skip


def test_the_example_is_one_that_a_reader_could_have_read() -> None:
    lines = [json.loads(line) for line in re.findall(r"^\{.*\}$", DOCUMENT.read_text(), flags=re.MULTILINE)]
    assert len(lines) == 5
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + 5))
    check(lines)


def test_what_a_whole_run_tells_is_as_documented() -> None:
    run = virtual.run((2, 1), "level", 1, list(generate(20, 1, YACS)))
    assert [event["seq"] for event in run.events] == list(range(1, len(run.events) + 1))
    assert {"node.joined", "job.blocked", "job.succeeded"} <= {event["event"] for event in run.events}
    check(run.events)


def check(events: list[dict[str, object]]) -> None:
    known = documented()
    for event in events:
        assert set(event) >= ALWAYS
        assert set(event) - ALWAYS <= known[str(event["event"])], event
