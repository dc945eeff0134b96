"""What both programs answer alike: STATUS, LIST and EXPLAIN of a job, an unknown ticket, STATS."""

from collections.abc import Mapping
from datetime import UTC, datetime

from common.errors import Code
from common.lines import err, job_line, ok
from common.model import Ended, Job, Reason, State
from common.why import Why


def live_fields(
    job: Job,
    state: State,
    attempt: int,
    node: str | None = None,
    *,
    reason: Why | None = None,
    due_wall: float = 0.0,
    failures: int = 0,
    counts: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """The fields of a job that has not ended. `attempt` is the one it is at, 0 before the first; `due_wall` is the
    calendar moment before which it is not queued; `counts` are an array's elements by state."""
    return {
        "state": state,
        "attempt": attempt,
        "node": node,
        "reason": reason,
        "not_before": moment(due_wall) or None if state is State.SCHEDULED else None,
        "retry_at": moment(due_wall) or None if state is State.RETRYING else None,
        "failures": failures or None,
        **_asked(job),
        **_counted(counts),
    }


def ended_fields(job: Job, ended: Ended) -> dict[str, object]:
    """The fields of a job that has ended."""
    return {
        "state": ended.state,
        "attempt": ended.attempt,
        "node": ended.node,
        "reason": ended.reason,
        "exit": ended.exit,
        **_asked(job),
        **_counted(dict(ended.counts)),
    }


def status_reply(ticket: str, fields: Mapping[str, object]) -> bytes:
    """The reply to STATUS: `OK`, and the line that LIST has for the job."""
    return b"OK " + job_line(ticket, fields)


def explain_reply(ticket: str, state: State, reason: Why | Reason, text: str) -> bytes:
    """The reply to EXPLAIN; the text is for people."""
    return ok(ticket, state=state, reason=reason, body=text.encode())


def unknown_reply(ticket: str) -> bytes:
    """No such job was ever taken in, as far as anybody can know."""
    return err(Code.UNKNOWN_TICKET, f"no job has the ticket '{ticket}'")


def expired_reply(ticket: str) -> bytes:
    """There was such a job, and how it ended is no longer kept."""
    return err(Code.EXPIRED, f"{ticket} ended, and its result is no longer kept (JOBYARD_RETENTION)")


def stats_reply(statistics: Mapping[str, float]) -> bytes:
    """The reply to STATS: `name value` lines."""
    return ok(body="".join(f"{name} {value}\n" for name, value in statistics.items()).encode())


def _asked(job: Job) -> dict[str, object]:
    return {
        "name": job.name,
        "group": job.group,
        "key": job.key,
        "submitted": moment(job.submitted_wall) or None,
    }


def _counted(counts: Mapping[str, int] | None) -> dict[str, object]:
    """How many elements an array has, and how many of them are in each state."""
    if not counts:
        return {}
    return {"count": sum(counts.values()), **{state.value: counts.get(state, 0) for state in State}}


def moment(wall: float) -> str:
    """Calendar seconds as ISO 8601 in UTC, to the millisecond; empty for zero."""
    if not wall:
        return ""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
