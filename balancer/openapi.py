"""The OpenAPI description of the balancer's HTTP side: `GET /api/v1/openapi.json`. Kept true by a test. Pure."""

from typing import Final

from common import __version__
from common.model import State
from common.openapi import (
    COUNT,
    INTEGER,
    MOMENT,
    NUMBER,
    SECONDS,
    STRING,
    TICKET,
    TRUE_OR_FALSE,
    counts_of,
    document,
    enum,
    get,
    list_of,
    named,
    parameter,
    record,
)

_STATE: Final = enum(*State)
_JOBS_BY_STATE: Final = counts_of(COUNT, "jobs that have not ended, by state; elements of arrays one by one")

_NODE: Final = record(
    {
        "id": STRING,
        "name": STRING,
        "state": enum("alive", "draining", "lost"),
        "connected": TRUE_OR_FALSE,
        "slots": COUNT,
        "running": COUNT,
        "waiting": COUNT,
        "last_seen_s": SECONDS,
        "kinds": list_of(STRING),
    }
)
_OF_A_ROW: Final = {"ticket": TICKET, "state": _STATE}
_MAY_BE_IN_A_ROW: Final = {
    "attempt": COUNT,
    "node": STRING,
    "reason": {"type": "string", "description": "why it waits (EXPLAIN's codes), or why it ended so"},
    "not_before": MOMENT,
    "retry_at": MOMENT,
    "failures": COUNT,
    "name": STRING,
    "group": STRING,
    "key": STRING,
    "submitted": MOMENT,
    "exit": INTEGER,
    "seconds": SECONDS,
    "ended": MOMENT,
    "stdout_bytes": COUNT,
    "stderr_bytes": COUNT,
    "truncated": TRUE_OR_FALSE,
    "count": {"type": "integer", "description": "of an array: its elements; then a number for each state"},
    **{str(state): COUNT for state in State},
}
_ATTEMPT: Final = record(
    {"attempt": COUNT, "state": _STATE},
    {
        name: _MAY_BE_IN_A_ROW[name]
        for name in ("node", "reason", "exit", "seconds", "ended", "stdout_bytes", "stderr_bytes", "truncated")
    },
)
_JOB: Final = record(
    {
        **_OF_A_ROW,
        "attempts": list_of(named("Attempt")),
        "explanation": record({"code": STRING, "text": STRING}),
    },
    {
        **_MAY_BE_IN_A_ROW,
        "kind": STRING,
        "line": {"type": "string", "description": "what it runs; the first 4,096 characters"},
        "line_cut": TRUE_OR_FALSE,
        "priority": INTEGER,
        "slots": COUNT,
        "retries": COUNT,
        "crash_limit": COUNT,
        "timeout_s": SECONDS,
        "after": list_of(TICKET),
        "array": STRING,
        "body_bytes": COUNT,
    },
)
_PRINTED: Final = record(
    {"text": STRING, "bytes": COUNT, "cut_bytes": {"type": "integer", "description": "left out, from the beginning"}}
)
_OVERVIEW: Final = record(
    {
        "at": MOMENT,
        "jobs": _JOBS_BY_STATE,
        "ended_since_start": counts_of(COUNT, "jobs that have ended since the balancer was started, by state"),
        "oldest_queued_s": SECONDS,
        "slots": record({"busy": COUNT, "free": COUNT, "away": COUNT}),
        "nodes": list_of(named("Node")),
        "store_fraction": NUMBER,
        "ready": TRUE_OR_FALSE,
    }
)
_SECOND: Final = record(
    {
        "at_wall": {"type": "integer", "description": "seconds since 1970, UTC"},
        "submitted": COUNT,
        "started": COUNT,
        "succeeded": COUNT,
        "failed": COUNT,
        "cancelled": COUNT,
        "queued": COUNT,
        "dispatched": COUNT,
        "running": COUNT,
    },
    text="what happened in it; queued, dispatched and running: how many there were at its end",
)
_FAILURE: Final = record(
    {"at": {"type": "integer", "description": "seconds since 1970, UTC"}, "ticket": TICKET},
    {"attempt": COUNT, "node": STRING, "reason": STRING, "exit": INTEGER, "seconds": SECONDS},
)
_EVENT: Final = {
    "type": "object",
    "properties": {"seq": COUNT, "at": MOMENT, "event": STRING, "ticket": TICKET},
    "required": ["seq", "at", "event"],
    "description": "an event as EVENTS tells it; further fields by its kind",
}

_A_TICKET: Final = parameter("ticket", STRING, "as SUBMIT has answered it", where="path")

DOCUMENT: Final = document(
    "Jobyard balancer",
    __version__,
    {
        "/api/v1/overview": get("The cluster at a glance", named("Overview")),
        "/api/v1/nodes": get("Every node that was met", record({"nodes": list_of(named("Node"))})),
        "/api/v1/jobs": get(
            "Jobs page by page, the newest first, live ones before ended ones",
            record({"jobs": list_of(named("Row")), "cursor": {"type": ["string", "null"]}}),
            parameter("state", _STATE, "of this state only"),
            parameter("group", STRING, "of this group only"),
            parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "jobs of a page; 100"),
            parameter("cursor", STRING, "goes on behind the page that said it; null there means that it was the last"),
        ),
        "/api/v1/jobs/{ticket}": get(
            "One job with its attempts and why it is where it is", named("Job"), _A_TICKET, errors=(404, 410)
        ),
        "/api/v1/jobs/{ticket}/output": get(
            "The end of what a job has printed so far",
            record(
                {
                    "ticket": TICKET,
                    "state": _STATE,
                    "attempt": COUNT,
                    "stdout": named("Printed"),
                    "stderr": named("Printed"),
                }
            ),
            _A_TICKET,
            parameter("limit", {"type": "integer", "minimum": 0, "maximum": 1048576}, "bytes of each stream; 65,536"),
            errors=(404, 410),
        ),
        "/api/v1/jobs/{ticket}/events": get(
            "What happened to one job, the oldest first. whole: from its submission on; else its beginning is too long "
            "ago, or nobody knows it",
            record({"events": list_of(named("Event")), "whole": TRUE_OR_FALSE}),
            _A_TICKET,
        ),
        "/api/v1/events": get(
            "What happened, from the oldest that is kept or behind a cursor. With follow=1 it is a stream of "
            "server-sent events (text/event-stream) that begins now or behind the cursor, each with its cursor as id; "
            "one of the type lost tells that what happened before it is not kept any more",
            record({"events": list_of(named("Event")), "cursor": STRING, "lost": TRUE_OR_FALSE}),
            parameter("since", STRING, "a cursor"),
            parameter("follow", enum("1"), "as a stream"),
        ),
        "/api/v1/throughput": get(
            "The last seconds, the oldest first",
            record({"seconds": list_of(named("Second"))}),
            parameter("seconds", {"type": "integer", "minimum": 1, "maximum": 600}, "how many; 600"),
        ),
        "/api/v1/failures": get(
            "Jobs that failed lately, the newest first; 50 at most, since the balancer was started",
            record({"failures": list_of(named("Failure"))}),
        ),
        "/api/v1/stream": get(
            "Server-sent events: a Snapshot of the cluster as data, one each second",
            None,
            media="text/event-stream",
        ),
    },
    {
        "Node": _NODE,
        "Row": record(_OF_A_ROW, _MAY_BE_IN_A_ROW),
        "Attempt": _ATTEMPT,
        "Job": _JOB,
        "Printed": _PRINTED,
        "Overview": _OVERVIEW,
        "Second": _SECOND,
        "Failure": _FAILURE,
        "Event": _EVENT,
        "Snapshot": record(
            {
                "overview": named("Overview"),
                "second": {"anyOf": [named("Second"), {"type": "null"}]},
                "failures": list_of(named("Failure")),
                "program": record({"version": STRING, "started_wall": NUMBER}),
            }
        ),
    },
)
