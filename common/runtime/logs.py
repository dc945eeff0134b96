"""Logs: structlog to standard error, text on a terminal and JSON otherwise, the same field names in both.

A value can hold what a client typed, so control characters are escaped before anything is rendered: one event is
one line, whatever it tells of.
"""

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def configure(log_format: str | None, level: str, **bound: object) -> None:
    """Sets logging up for the process; `bound` is in every line (the program, the node's name)."""
    as_text = log_format == "text" or (log_format in (None, "auto") and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            harmless,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)


def harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escapes what could act on a terminal or begin a line of its own."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            event[name] = value.encode("unicode_escape").decode()
    return event
