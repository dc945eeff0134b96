"""What `--json` prints, field by field. These names and their meaning stay; later versions may add fields.

Pure. One JSON object stands on one line, for each job, node or event that a verb tells of: that is what `jq` reads,
and what can be read before all of it is there. A field that does not apply is left out. What a node says beyond the
fields of this version is passed on as text under its own name.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from jobyard.model import Drained, Explanation, Logs, Node, Outcome, Status

if TYPE_CHECKING:
    from jobyard.cli.findings import Finding
    from jobyard.cli.lookout import Failure, Sight

Json: TypeAlias = dict[str, Any]


class Field(NamedTuple):
    name: str
    type: str  # as JSON knows it
    meaning: str


class Record(NamedTuple):
    """One kind of object that is printed."""

    name: str
    meaning: str
    fields: tuple[Field, ...]


TICKET: Final = Field("ticket", "string", "the job's ticket; opaque")
STATE: Final = Field(
    "state", "string", "scheduled, blocked, queued, dispatched, running, retrying, succeeded, failed or cancelled"
)
ATTEMPT: Final = Field("attempt", "number", "the attempt that it is at, or was at when it ended; 0 before the first")
NODE: Final = Field("node", "string", "the node that runs it, or ran it")

SUBMITTED: Final = Record("ticket", "A job that was submitted.", (TICKET,))

JOB: Final = Record(
    "job",
    "Where a job stands.",
    (
        TICKET,
        STATE,
        ATTEMPT,
        NODE,
        Field("reason", "string", "what it waits for (the codes of `explain`), or why it failed or was cancelled"),
        Field("exit", "number", "its exit code, 128+S where signal S ended it"),
        Field("not_before", "string", "until when it is delayed; ISO 8601 in UTC, as every moment"),
        Field("retry_at", "string", "when it is tried again after a failure"),
        Field("failures", "number", "attempts that failed so far"),
        Field("name", "string", "`--name`"),
        Field("group", "string", "`--group`"),
        Field("key", "string", "`--key`"),
        Field("submitted", "string", "when it was submitted"),
        Field("as_of_s", "number", "the ledger cannot be asked; this is what was known so many seconds ago"),
        Field("count", "number", "of an array: how many elements it has"),
        Field("elements", "object", "of an array: state → how many elements are in it"),
    ),
)

OUTCOME: Final = Record(
    "outcome",
    "How a job ended, and what it printed.",
    (
        TICKET,
        Field("state", "string", "succeeded, failed or cancelled"),
        ATTEMPT,
        Field("exit", "number", "its exit code, 128+S where signal S ended it; not there if no attempt ended"),
        NODE,
        Field("seconds", "number", "run time of the last attempt"),
        Field("reason", "string", "why it failed or was cancelled"),
        Field("truncated", "boolean", "whether output was longer than the node keeps"),
        Field("stdout", "string", "what it printed on standard output, where that is UTF-8"),
        Field("stdout_base64", "string", "the same in base 64, where it is not"),
        Field("stderr", "string", "what it printed on standard error, where that is UTF-8"),
        Field("stderr_base64", "string", "the same in base 64, where it is not"),
        Field("elements", "object", "of an array: state → how many elements ended in it"),
    ),
)

MAPPED: Final = Record(
    "mapped",
    "How a job of `map` ended: an outcome, and before it",
    (
        Field("seq", "number", "the number of the job, from 1 in the order of the inputs"),
        Field("args", "array", "its inputs, as they were read"),
        Field("command", "string", "the line that was run"),
    ),
)

TASK: Final = Record(
    "task",
    "A task of `dag` that has ended: a job, and besides",
    (
        Field("task", "string", "its name in the file"),
        Field("because_of", "string", "the task that it waited for and that did not succeed"),
        Field("command", "string", "with `--dry-run`, which has no job: what would be run"),
        Field("after", "array", "likewise: the tasks that it waits for"),
        Field("input", "array", "likewise: the tasks whose output it reads"),
    ),
)

LOGS: Final = Record(
    "output",
    "A piece of what a job has printed. With `-f` each has what is new since the one before.",
    (
        TICKET,
        STATE,
        Field("attempt", "number", "the attempt that printed it; a new attempt begins anew"),
        *(field for field in OUTCOME.fields if field.name.startswith(("stdout", "stderr"))),
        Field("end", "boolean", "with `-f`: whether nothing comes after it"),
    ),
)

CHANGED: Final = Record("changed", "A job that was told to change, and the state that it has now.", (TICKET, STATE))

CHANGED_GROUP: Final = Record(
    "changed group",
    "The same of a group.",
    (Field("group", "string", "its name"), Field("count", "number", "how many of its jobs that changed")),
)

EXPLANATION: Final = Record(
    "explanation",
    "Why a job is where it is.",
    (
        TICKET,
        STATE,
        Field("reason", "string", "a code: what it waits for, or why it ended as it did (`done` if it succeeded)"),
        Field("text", "string", "the same for people, with what would change it"),
    ),
)

NODE_RECORD: Final = Record(
    "node",
    "A node, as the balancer sees it.",
    (
        Field("name", "string", "its name"),
        Field("state", "string", "alive, draining or lost"),
        Field("slots", "number", "attempts that it runs at once"),
        Field("running", "number", "attempts begun"),
        Field("waiting", "number", "attempts that it has taken and not begun"),
        Field("last_seen_s", "number", "seconds since it was last heard"),
        Field("version", "string", "the version of its program, where the balancer knows it"),
    ),
)

STATS: Final = Record(
    "stats", "Numbers by name: one object with a number for each.", (Field("…", "number", "see docs/operating.md"),)
)

PLACEMENT: Final = Record(
    "placement",
    "The policy by which nodes are given jobs.",
    (Field("placement", "string", "level, random, round-robin, least-loaded or shortest-wait"),),
)

EVENT: Final = Record(
    "event",
    "Something that happened to a job or a node.",
    (
        Field("seq", "number", "its place among all events of this ledger"),
        Field("at", "string", "when"),
        Field("event", "string", "what: job.submitted, job.running, job.succeeded, node.joined, …"),
        Field("ticket", "string", "of the job"),
        Field("…", "", "more that is told of this event: node, attempt, reason, exit, seconds, …"),
    ),
)

DRAINED: Final = Record(
    "drained",
    "A node that was told to drain, or no longer to.",
    (
        Field("state", "string", "draining or alive"),
        Field("running", "number", "attempts that it will finish"),
        Field("waiting", "number", "attempts that it gives back"),
    ),
)

VERSION: Final = Record(
    "version",
    "Who speaks with whom.",
    (
        Field("client", "string", "the version of this command"),
        Field("node", "string", "the version of the node that answered"),
        Field("protocol", "number", "the version of the protocol that it speaks"),
    ),
)

SIGHT: Final = Record(
    "sight",
    "What one look of `top` saw.",
    (
        Field("at", "string", "when, by the clock of this machine"),
        Field("address", "string", "the node that told it"),
        Field("live", "number", "jobs that have not ended"),
        Field("running", "number", "of these, attempts begun"),
        Field("waiting", "number", "of these, given to a node and not begun"),
        Field("queued", "number", "of these, waiting for a node"),
        Field("resting", "number", "of these, delayed, blocked, or to be tried again"),
        Field("oldest_queued_s", "number", "how long the one in front of the queue has been waiting"),
        Field("in_per_s", "number", "jobs that came, a second, over the latest looks"),
        Field("out_per_s", "number", "jobs that ended, a second, likewise"),
        Field("stats", "object", "[stats](#json-stats)"),
        Field("nodes", "array", "[nodes](#json-node)"),
        Field("failures", "array", "the latest failures, newest first: ticket, reason, exit, node, name, at"),
    ),
)

FINDING: Final = Record(
    "finding",
    "Something that `doctor` found.",
    (
        Field("severity", "string", "ok, warning or error"),
        Field("check", "string", "a word for what was looked at: reach, token, version, link, nodes, jobs, clock, …"),
        Field("about", "string", "the address, node or job that it is about"),
        Field("text", "string", "what was found"),
        Field("advice", "string", "what to do"),
    ),
)

GENERATED: Final = Record(
    "generated",
    "With `--submit`: a request that was submitted. Without it, the lines that are printed are the workload.",
    (
        Field("group", "string", "the group of its jobs"),
        Field("at_s", "number", "its moment in the workload"),
        Field("late_s", "number", "how long after that it was submitted"),
        Field("maps", "array", "the tickets of its map tasks"),
        Field("reduces", "array", "those of its reduce tasks, where it has some"),
    ),
)

COMPLETION: Final = Record(
    "completion",
    "A script for a shell.",
    (Field("shell", "string", "bash, zsh or fish"), Field("script", "string", "what that shell is to read")),
)

RECORDS: Final = (
    SUBMITTED, JOB, OUTCOME, MAPPED, TASK, LOGS, CHANGED, CHANGED_GROUP, EXPLANATION, NODE_RECORD, STATS, PLACEMENT,
    EVENT, SIGHT, FINDING, DRAINED, VERSION, GENERATED, COMPLETION,
)  # fmt: skip

# --- from values -------------------------------------------------------------------------------------------------

_STATES: Final = frozenset(
    {"scheduled", "blocked", "queued", "dispatched", "running", "retrying", "succeeded", "failed", "cancelled"}
)
_NUMBERS: Final[Mapping[str, Callable[[str], float]]] = {
    "attempt": int, "exit": int, "failures": int, "count": int, "as_of_s": float
}  # fmt: skip


def of_status(status: Status) -> Json:
    of_array = "count" in status.fields
    record: Json = {"ticket": status.ticket}
    for name, text in status.fields.items():
        if not (of_array and name in _STATES):
            record[name] = _NUMBERS[name](text) if name in _NUMBERS else text
    return record | ({"elements": dict(status.counts)} if of_array else {})


def of_outcome(outcome: Outcome) -> Json:
    return _present(
        ticket=outcome.ticket,
        state=outcome.state,
        attempt=outcome.attempt,
        exit=outcome.exit,
        node=outcome.node,
        seconds=outcome.seconds,
        reason=outcome.reason,
        truncated=outcome.truncated,
        elements=dict(outcome.counts) or None,
    ) | dict(_printed(outcome.stdout, outcome.stderr))


def of_mapped(seq: int, args: tuple[str, ...], command: str, outcome: Outcome) -> Json:
    return {"seq": seq, "args": list(args), "command": command, **of_outcome(outcome)}


def of_logs(logs: Logs) -> Json:
    told = {"ticket": logs.ticket, "state": logs.state, "attempt": logs.attempt}
    return told | dict(_printed(logs.stdout, logs.stderr)) | {"end": logs.end}


def of_explanation(explanation: Explanation) -> Json:
    return {name: getattr(explanation, name) for name in ("ticket", "state", "reason", "text")}


def of_node(node: Node) -> Json:
    told = {field.name: getattr(node, field.name) for field in NODE_RECORD.fields}
    return told if node.version else {name: value for name, value in told.items() if name != "version"}


def of_stats(stats: Mapping[str, str]) -> Json:
    return {name: _number(text) for name, text in stats.items()}


def of_sight(sight: "Sight") -> Json:
    return _present(
        at=_moment(sight.at_wall),
        address=sight.address,
        live=sight.live,
        running=sight.running,
        waiting=sight.waiting,
        queued=sight.queued,
        resting=sight.resting,
        oldest_queued_s=sight.oldest_queued_s,
        in_per_s=_rounded(sight.in_per_s),
        out_per_s=_rounded(sight.out_per_s),
        stats=of_stats(sight.stats),
        nodes=list(map(of_node, sight.nodes)),
        failures=list(map(_of_failure, sight.failures)),
    )


def _of_failure(failure: "Failure") -> Json:
    told = {"ticket": failure.ticket, "reason": failure.reason, "node": failure.node, "name": failure.name}
    known = {name: text for name, text in (told | {"at": failure.at}).items() if text}
    return known | ({"exit": _number(failure.exit)} if failure.exit else {})


def of_finding(finding: "Finding") -> Json:
    told = {field.name: getattr(finding, field.name) for field in FINDING.fields}
    return {name: text for name, text in told.items() if text}


def of_drained(drained: Drained) -> Json:
    return {"state": drained.state, "running": drained.running, "waiting": drained.waiting}


def of_played(group: str, at_s: float, late_s: float, maps: tuple[str, ...], reduces: tuple[str, ...]) -> Json:
    return _present(group=group, at_s=at_s, late_s=round(late_s, 3), maps=list(maps), reduces=list(reduces) or None)


def of_version(client: str, said: str) -> Json:
    """`said` is what a node says of itself: `jobyard 0.1.0 protocol=1`."""
    words = said.split()
    numbers = dict(word.partition("=")[::2] for word in words if "=" in word)
    node = words[1] if len(words) > 1 else said
    return {"client": client, "node": node, "protocol": _number(numbers.get("protocol", "?"))}


def _printed(stdout: bytes, stderr: bytes) -> Iterator[tuple[str, str]]:
    for name, data in (("stdout", stdout), ("stderr", stderr)):
        try:
            yield name, data.decode()
        except UnicodeDecodeError:
            import base64

            yield f"{name}_base64", base64.b64encode(data).decode()


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def _moment(wall: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text


def _present(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
