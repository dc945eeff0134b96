"""What both programs answer alike: STATUS, LIST and EXPLAIN of a job, an unknown ticket, STATS."""

from collections.abc import Mapping
from datetime import UTC, datetime

from common.errors import Code
from common.lines import err, job_line, logs_reply, ok
from common.messages import Inquiry
from common.model import Ended, Job, Reason, State
from common.why import Row, Why, page


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


def explain_reply(ticket: str, state: State, reason: Why | Reason, text: str, *, as_of_s: float | None = None) -> bytes:
    """The reply to EXPLAIN; the text is for people. `as_of_s` is how old the knowledge is of who cannot ask."""
    return ok(ticket, state=state, reason=reason, as_of_s=as_of_s, body=text.encode())


def explain_ended(ticket: str, ended: Ended) -> bytes:
    """The reply to EXPLAIN of a job that has ended, the ledger's or its origin's."""
    code = ended.reason or Why.DONE
    return explain_reply(ticket, ended.state, code, page(ticket, ended.state, code, _end_rows(ended)))


def _end_rows(ended: Ended) -> list[Row]:
    rows: list[Row] = [("ended", moment(ended.ended_wall)), ("because", ended.because or "")]
    if ended.exit is not None:
        rows.append(("exit code", str(ended.exit)))
    if ended.node is not None and ended.seconds is not None:
        rows.append(("ran", f"{ended.seconds:.3f} s on {ended.node}"))
    times = f"{ended.retried} time{'s' if ended.retried > 1 else ''}"
    retried = f"; RETRY has brought it back {times}" if ended.retried else ""
    if not ended.counts:
        return [*rows, ("attempts", f"{max(ended.begun, ended.attempt) or 'none'}{retried}")]
    rows.append(("elements", ", ".join(f"{count} {state}" for state, count in ended.counts if count) + retried))
    if ended.state is State.FAILED:
        rows.append(("which", "the reason is of the first that failed; EXPLAIN and RESULT of an element tell of it"))
    return rows


def logs_of_ended(
    ticket: str, state: State, ended: Ended, output: bytes, behind: Inquiry | None = None, *, end: bool = False
) -> bytes:
    """The reply to LOGS of an attempt that has ended with this output, behind the places that an inquiry names, and
    of that no more than the last bytes of each stream, where it has a limit: an output may be large."""
    attempt, middle = ended.attempt, min(ended.stdout_bytes, len(output))
    stdout_at, stderr_at = (0, 0) if behind is None else places(behind, attempt)
    limit = len(output) if behind is None or not behind.limit else behind.limit
    first, second = max(stdout_at, middle - limit), max(middle + stderr_at, len(output) - limit)
    cut = (max(0, min(first, middle) - stdout_at), max(0, min(second, len(output)) - middle - stderr_at))
    return logs_reply(ticket, state, attempt, output[first:middle], output[second:], end=end, cut=cut)


def places(inquiry: Inquiry, attempt: int) -> tuple[int, int]:
    """From where on an attempt's standard output and error are asked: from the beginning, when the asker has
    followed another attempt."""
    return (inquiry.stdout_at, inquiry.stderr_at) if inquiry.attempt == attempt else (0, 0)


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
