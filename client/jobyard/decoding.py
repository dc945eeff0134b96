"""What replies tell, as values of `model.py`.

Pure. A reply that lacks what its verb promises, or has a word where a number should be, raises ProtocolError: whoever
answered speaks another protocol. Fields that this version does not know are left alone.
"""

import json
from collections.abc import Mapping

from jobyard.errors import ProtocolError
from jobyard.model import (
    ENDED_STATES,
    Drained,
    Event,
    Events,
    Explanation,
    Listing,
    Logs,
    Node,
    Outcome,
    Status,
    Ticket,
    Watched,
)
from jobyard.protocol import Reply, decode_fields


def listing_of(reply: Reply) -> Listing:
    return Listing(map(status_of, body_lines(reply)), partial=reply.fields.get("partial") == "1")


def body_lines(reply: Reply) -> list[str]:
    """The lines of a body for people."""
    return (reply.body or b"").decode(errors="replace").splitlines()


def ticket_of(reply: Reply) -> Ticket:
    if reply.ticket is None:
        raise ProtocolError(f"a ticket was due, and the node answered {reply.status} {reply.text[:60]!r}")
    return Ticket(reply.ticket)


def state_of(reply: Reply) -> str:
    """The state that a verb has brought a job or a node into."""
    return _field(reply, "state")


def placement_of(reply: Reply) -> str:
    return _field(reply, "placement")


def count_of(reply: Reply) -> int:
    """How many jobs a verb has changed."""
    return _number(reply, "count", "0")


def status_of(text: str) -> Status:
    """A STATUS line without its OK, as in the body of LIST."""
    ticket, fields = decode_fields(text)
    try:
        return Status(
            Ticket(ticket or fields["ticket"]),
            fields["state"],
            int(fields.get("attempt", "0")),
            node=fields.get("node"),
            reason=fields.get("reason"),
            name=fields.get("name"),
            group=fields.get("group"),
            key=fields.get("key"),
            submitted=fields.get("submitted"),
            not_before=fields.get("not_before"),
            retry_at=fields.get("retry_at"),
            failures=int(fields.get("failures", "0")),
            fields=fields,
        )
    except (KeyError, ValueError):
        raise ProtocolError(f"{text[:80]!r} is not the status of a job") from None


def outcome_of(reply: Reply) -> Outcome:
    """The outcome in an OK reply of RESULT or WAIT."""
    fields = reply.fields
    stdout, stderr = _output(reply)
    try:
        return Outcome(
            ticket_of(reply),
            fields["state"],
            int(fields["attempt"]),
            exit=int(fields["exit"]) if "exit" in fields else None,
            node=fields.get("node"),
            seconds=float(fields["seconds"]) if "seconds" in fields else None,
            reason=fields.get("reason"),
            truncated=fields.get("truncated") == "1",
            stdout=stdout,
            stderr=stderr,
            counts=_counts(fields),
        )
    except (KeyError, ValueError):
        raise ProtocolError(f"{reply.text[:200]!r} is not the outcome of a job") from None


def _counts(fields: Mapping[str, str]) -> dict[str, int]:
    return {state: int(fields[state]) for state in sorted(ENDED_STATES) if state in fields}


def _output(reply: Reply) -> tuple[bytes, bytes]:
    """Standard output and standard error, which share the body."""
    body = reply.body or b""
    stdout_bytes, stderr_bytes = _number(reply, "stdout"), _number(reply, "stderr")
    if stdout_bytes + stderr_bytes != len(body):
        raise ProtocolError(f"a body of {len(body)} bytes does not fit {reply.text[:200]!r}")
    return body[:stdout_bytes], body[stdout_bytes:]


def logs_of(reply: Reply) -> Logs:
    stdout, stderr = _output(reply)
    attempt, end = _number(reply, "attempt"), reply.fields.get("end") == "1"
    return Logs(ticket_of(reply), state_of(reply), attempt, stdout, stderr, end)


def watched_of(reply: Reply) -> Watched:
    """A reply to WATCH. In its body a line is either a job's that has ended, or says why a ticket cannot be watched."""
    ended, errors = [], {}
    for line in body_lines(reply):
        ticket, fields = decode_fields(line)
        if ticket is not None and "error" in fields:
            errors[Ticket(ticket)] = fields["error"]
        else:
            ended.append(status_of(line))
    return Watched(tuple(ended), _number(reply, "live"), _field(reply, "cursor"), errors)


def explanation_of(reply: Reply) -> Explanation:
    text = (reply.body or b"").decode(errors="replace").rstrip("\n")
    return Explanation(ticket_of(reply), state_of(reply), _field(reply, "reason"), text)


def events_of(reply: Reply) -> Events:
    events = tuple(map(_event, (reply.body or b"").splitlines()))
    return Events(events, _field(reply, "cursor"), lost=reply.fields.get("lost") == "1")


def _event(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ProtocolError(f"{line[:80]!r} is not an event")
    return event


def drained_of(reply: Reply) -> Drained:
    return Drained(state_of(reply), _number(reply, "running"), _number(reply, "waiting"))


def node_of(text: str) -> Node:
    """A line in the body of NODES."""
    _, fields = decode_fields(text)
    try:
        slots, running, waiting = (int(fields[name]) for name in ("slots", "running", "waiting"))
        seen_s, version = float(fields["last_seen_s"]), fields.get("version", "")
        return Node(fields["name"], fields["state"], slots, running, waiting, seen_s, version)
    except (KeyError, ValueError):
        raise ProtocolError(f"{text[:80]!r} does not tell of a node") from None


def stats_of(reply: Reply) -> dict[str, str]:
    pairs = (line.partition(" ") for line in body_lines(reply))
    return {name: value for name, _, value in pairs}


def _field(reply: Reply, name: str) -> str:
    if name not in reply.fields:
        raise ProtocolError(f"{name}= was due, and the node answered {reply.status} {reply.text[:200]!r}")
    return reply.fields[name]


def _number(reply: Reply, name: str, default: str | None = None) -> int:
    text = reply.fields.get(name, default)
    if text is None or not text.isdecimal():
        raise ProtocolError(f"{name}= and a number were due, and the node answered {reply.text[:200]!r}")
    return int(text)
