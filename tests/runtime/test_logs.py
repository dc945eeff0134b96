"""Logs: what a line looks like, and that nobody can write a line of his own into them."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from common.runtime import logs

ATTACK = "x\n2026-01-01 [info] all is well\x1b[2J\x9b\r\u2028"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "", "logs go to standard error"
    return captured.err.splitlines()


def only_entry(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = lines(capsys)
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_a_line_is_json_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(None, "info", program="node", node="node1")
    structlog.get_logger().info("node.started", slots=2, key=None, grüße="ünïcode")
    entry = only_entry(capsys)
    moment = datetime.fromisoformat(entry.pop("ts"))
    assert moment.tzinfo == UTC
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert entry == {
        "event": "node.started",
        "level": "info",
        "program": "node",
        "node": "node1",
        "slots": 2,
        "key": None,
        "grüße": "ünïcode",
    }


def test_a_line_is_text_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure(None, "info", program="node")
    structlog.get_logger().info("node.started", slots=2)
    (line,) = lines(capsys)
    assert "node.started" in line
    assert not line.startswith("{")


def test_text_that_is_asked_for_has_no_colours_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", program="node")
    structlog.get_logger().info("node.started", slots=2)
    (line,) = lines(capsys)
    assert line.isprintable()
    assert line.split()[1:] == ["[info", "]", "node.started", "program=node", "slots=2"]


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "warning")
    log = structlog.get_logger()
    log.debug("quiet")
    log.info("quiet")
    log.warning("loud")
    assert only_entry(capsys)["event"] == "loud"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_can_write_a_line_of_his_own(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(log_format, "info", program="node")
    structlog.get_logger().info(ATTACK, text=ATTACK, inside=[{ATTACK: (ATTACK, 1)}], error=ValueError(ATTACK))
    (line,) = lines(capsys)
    assert line.isprintable()
    assert line.count("all is well") == 5, "escaped, and still to be read"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_keeps_its_lines_and_nothing_else_that_acts(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(log_format, "info", program="node")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("node.failed")
    written = capsys.readouterr().err
    assert "Traceback" in written
    assert "\x1b" not in written
    assert (len(written.splitlines()) == 1) == (log_format == "json")


def test_a_json_line_begins_with_when_how_bad_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", program="node")
    structlog.get_logger().warning("link.closed", reason="cut")
    assert list(json.loads(capsys.readouterr().err))[:3] == ["ts", "level", "event"]
