"""What both programs answer alike: STATUS and LIST of a job, an unknown ticket, STATS."""

from collections.abc import Mapping
from datetime import UTC, datetime

from common.errors import Code
from common.lines import err, job_line, ok
from common.model import Ended, Job, State


def live_fields(job: Job, state: State, attempt: int, node: str | None = None) -> dict[str, object]:
    """The fields of a job that has not ended. `attempt` is the one it is at, 0 before the first."""
    return {"state": state, "attempt": attempt, "node": node, **_asked(job)}


def ended_fields(job: Job, ended: Ended) -> dict[str, object]:
    """The fields of a job that has ended."""
    return {
        "state": ended.state,
        "attempt": ended.attempt,
        "node": ended.node,
        "reason": ended.reason,
        "exit": ended.exit,
        **_asked(job),
    }


def status_reply(ticket: str, fields: Mapping[str, object]) -> bytes:
    """The reply to STATUS: `OK`, and the line that LIST has for the job."""
    return b"OK " + job_line(ticket, fields)


def unknown_reply(ticket: str) -> bytes:
    """No such job was ever taken in, as far as anybody can know."""
    return err(Code.UNKNOWN_TICKET, f"no job has the ticket '{ticket}'")


def stats_reply(statistics: Mapping[str, float]) -> bytes:
    """The reply to STATS: `name value` lines."""
    return ok(body="".join(f"{name} {value}\n" for name, value in statistics.items()).encode())


def _asked(job: Job) -> dict[str, object]:
    return {"name": job.name, "group": job.group, "submitted": moment(job.submitted_wall) or None}


def moment(wall: float) -> str:
    """Calendar seconds as ISO 8601 in UTC, to the millisecond; empty for zero."""
    if not wall:
        return ""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
