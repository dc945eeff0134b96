"""Logs: structlog to standard error, text on a terminal and JSON otherwise, with the same field names in both.

Every line has `ts` (ISO 8601, UTC), `level`, `event` and what the process bound at its start, such as its program.
A value can hold what a client typed, so control characters are escaped before anything is rendered: one event is one
line, whatever it tells of. Only the traceback of an error of our own spans several lines, in text.
"""

import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_TRACEBACK: Final = "exception"  # the field that structlog puts it in


def configure(log_format: str | None, level: str, **bound: object) -> None:
    """Sets logging up for the process; `log_format` is text, json, or None for what fits standard error."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _harmless,
            _in_reading_order,
            _as_text(colors=terminal) if (log_format or ("text" if terminal else "json")) == "text" else _as_json(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)


def _as_json() -> Any:
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _as_text(*, colors: bool) -> Any:
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback
    )


def _harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _escaped(value, keep="\n" if name == _TRACEBACK else "") for name, value in event.items()}


def _in_reading_order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad and what come first, so that a line can be read although it is JSON."""
    first = {name: event[name] for name in ("ts", "level", "event") if name in event}
    return first | event  # type: ignore[operator, no-any-return]


def _escaped(value: Any, *, keep: str = "") -> Any:
    """Without what could act on a terminal or begin a line of its own. Numbers and None stay as they are."""
    match value:
        case str():
            return "".join(
                character if character.isprintable() or character in keep else ascii(character)[1:-1]
                for character in value
            )
        case None | bool() | int() | float():
            return value
        case dict():
            return {_escaped(str(name)): _escaped(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_escaped(inner) for inner in value]
        case _:
            return _escaped(str(value))
