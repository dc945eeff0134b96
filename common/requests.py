"""The requests of the client protocol as values, and how each verb reads the rest of its line.

Pure. A request is either a Query, which a machine answers, or belongs to the conversation itself and is answered at
its edge (AUTH, PING, VERSION, HELP, QUIT, and Bad: what could not be read). Bytes become lines in `common/lines.py`.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from common.arrays import line_of, parse_indexes
from common.codec import Record
from common.errors import Code, Refusal, shown
from common.kind_names import KINDS
from common.kinds import check_line
from common.limits import LIST_LIMIT_DEFAULT, WATCH_TICKETS_MAX
from common.model import Job, parse_ticket
from common.options import (
    EVENTS_OPTIONS,
    GROUP_OPTIONS,
    JOB_OPTIONS,
    LIST_OPTIONS,
    LOGS_OPTIONS,
    NO_OPTIONS,
    STATS_OPTIONS,
    WAIT_OPTIONS,
    WATCH_OPTIONS,
    Table,
    read_options,
)
from common.placements import PLACEMENTS

# --- answered by a machine -------------------------------------------------------------------------------------


class Submit(Record, frozen=True):
    """SUBMIT, a bare number, and with `wait` RUN. The machine fills in when the job was submitted."""

    job: Job
    body: bytes
    wait: bool


class Status(Record, frozen=True):
    ticket: str


class Result(Record, frozen=True):
    ticket: str


class Wait(Record, frozen=True):
    ticket: str
    timeout_s: float | None  # None: for ever


@attrs.frozen
class Cancel:
    """Either the ticket or the group is given, never both."""

    ticket: str | None
    group: str | None


@attrs.frozen
class Watch:
    """Either the group or the tickets are given, never both."""

    group: str | None
    tickets: tuple[str, ...]
    since: str | None
    timeout_s: float | None  # None: for ever


@attrs.frozen
class Retry:
    """Either the ticket or the group is given, never both."""

    ticket: str | None
    group: str | None


@attrs.frozen
class Forget:
    """Either the ticket or the group is given, never both."""

    ticket: str | None
    group: str | None


@attrs.frozen
class Explain:
    ticket: str


@attrs.frozen
class Logs:
    ticket: str
    follow: bool


@attrs.frozen
class Events:
    follow: bool
    since: str | None


@attrs.frozen
class Drain:
    pass


@attrs.frozen
class Undrain:
    pass


@attrs.frozen
class List:
    state: str | None
    group: str | None
    limit: int
    local: bool  # only what this node holds


@attrs.frozen
class Nodes:
    pass


@attrs.frozen
class Stats:
    local: bool  # of this node, not of the cluster


@attrs.frozen
class Placement:
    policy: str | None  # None: which one is in force


# --- answered at the edge of the conversation ------------------------------------------------------------------


@attrs.frozen
class Auth:
    token: str = attrs.field(repr=False)


@attrs.frozen
class Ping:
    pass


@attrs.frozen
class Version:
    pass


@attrs.frozen
class Help:
    pass


@attrs.frozen
class Quit:
    pass


@attrs.frozen
class Bad:
    """What could not be read. With `close` nobody can tell where the next request begins, so there is none."""

    code: Code
    message: str
    close: bool = False


Query: TypeAlias = (
    Submit | Status | Result | Wait | Watch | Cancel | Retry | Forget | Explain | Logs | List | Nodes | Stats | Events
    | Placement | Drain | Undrain
)  # fmt: skip
Request: TypeAlias = Query | Auth | Ping | Version | Help | Quit | Bad

# --- from the words of a line ----------------------------------------------------------------------------------


def read_request(
    verb: bytes, options: Sequence[bytes], rest: bytes, *, body_bytes: int | None, kinds: Container[str]
) -> Request:
    """The request of one line: its first word, the option words after it, and what follows them as it stands.

    `body_bytes` is what the line announced. A Submit comes without its body. Raises Refusal.
    """
    word = verb.upper()
    if word == b"SUBMIT" or word == b"RUN":
        return _submit(word, options, rest, body_bytes or 0, kinds)
    if word.isdigit():
        return _bare_number(word, options, rest, kinds)
    if word not in _VERBS:
        raise _unknown_command(verb)
    return _VERBS[word](word.decode(), options, rest)


def _submit(word: bytes, options: Sequence[bytes], rest: bytes, body_bytes: int, kinds: Container[str]) -> Submit:
    values = read_options(options, JOB_OPTIONS, word.decode()) if options else {}
    kind_and_line = rest.split(None, 1)
    if not kind_and_line:
        raise Refusal(
            Code.BAD_REQUEST, f"{word.decode()} needs a kind and its line after its options; {_KINDS_ALLOWED}"
        )
    kind = kind_and_line[0].decode()
    line = kind_and_line[1].decode() if len(kind_and_line) == 2 else ""
    _check_kind(kind, kinds)
    try:
        check_line(kind, line_of(line, parse_indexes(values["array"]).first) if "array" in values else line)
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, str(error)) from None
    if kind == "call" and not body_bytes:
        raise Refusal(Code.BAD_REQUEST, "call needs bytes=N and a body: what it calls, as cloudpickle bytes")
    job = Job(kind, line, body_bytes=body_bytes, **_job_fields(values)) if values else Job(kind, line)
    return Submit(job, b"", wait=word == b"RUN")


def _check_kind(kind: str, kinds: Container[str]) -> None:
    if kind not in KINDS:
        raise Refusal(Code.BAD_REQUEST, f"{shown(kind)} is no kind of job; {_KINDS_ALLOWED}")
    if kind not in kinds:
        raise Refusal(Code.FORBIDDEN, f"jobs of kind '{kind}' are not allowed on this node (JOBYARD_JOB_KINDS)")


def _job_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Job that the options set; `bytes` was read with the framing."""
    fields = {_FIELDS.get(name, name): value for name, value in values.items() if name not in ("bytes", "env")}
    if "env" in values:
        fields["env"] = tuple(values["env"].items())
    return fields


_FIELDS: Final = {  # options whose field says its unit, or that there may be many
    "timeout": "timeout_s",
    "delay": "delay_s",
    "backoff": "backoff_s",
    "cpu": "cpu_s",
    "memory": "memory_bytes",
    "output": "output_bytes",
    "input": "inputs",
}


def _bare_number(word: bytes, options: Sequence[bytes], rest: bytes, kinds: Container[str]) -> Submit:
    if options or rest.strip():
        raise Refusal(Code.BAD_REQUEST, "a bare whole number stands alone on its line: milliseconds to sleep")
    return _submit(b"SUBMIT", (), b"sleep " + (word.lstrip(b"0") or b"0") + b"ms", 0, kinds)


def _unknown_command(verb: bytes) -> Refusal:
    return Refusal(Code.UNKNOWN_COMMAND, f"there is no command {shown(verb)}; HELP lists them all")


def _ticket(word: str, rest: bytes) -> str:
    words = rest.split()
    if len(words) != 1:
        raise Refusal(Code.BAD_REQUEST, f"{word} takes one ticket, such as k3f7qa-1, not {len(words)} words")
    return words[0].decode()


def _read(word: str, options: Sequence[bytes], table: Table, rest: bytes = b"") -> dict[str, Any]:
    """The options of a verb that has nothing after them, or has already taken it."""
    values = read_options(options, table, word)
    if rest.strip():
        message = (
            f"{shown(rest.split()[0])} is one word too many; {word} takes {'options' if table else 'nothing'} only"
        )
        raise Refusal(Code.BAD_REQUEST, message)
    return values


def _status(word: str, options: Sequence[bytes], rest: bytes) -> Status:
    _read(word, options, NO_OPTIONS)
    return Status(_ticket(word, rest))


def _result(word: str, options: Sequence[bytes], rest: bytes) -> Result:
    _read(word, options, NO_OPTIONS)
    return Result(_ticket(word, rest))


def _wait(word: str, options: Sequence[bytes], rest: bytes) -> Wait:
    values = _read(word, options, WAIT_OPTIONS)
    return Wait(_ticket(word, rest), values.get("timeout"))


def _ticket_or_group(make: Callable[[str | None, str | None], Request]) -> "_Reader":
    """The reader of a verb that takes one ticket, or group=TEXT."""

    def read(word: str, options: Sequence[bytes], rest: bytes) -> Request:
        group = _read(word, options, GROUP_OPTIONS).get("group")
        if group is None:
            return make(_ticket(word, rest), None)
        if rest.strip():
            raise Refusal(Code.BAD_REQUEST, f"{word} takes a ticket or group=TEXT, not both")
        return make(None, group)

    return read


def _watch(word: str, options: Sequence[bytes], rest: bytes) -> Watch:
    values = _read(word, options, WATCH_OPTIONS)
    group, tickets = values.get("group"), tuple(rest.decode().replace(",", " ").split())
    if (group is None) == (not tickets):
        raise Refusal(Code.BAD_REQUEST, "WATCH takes group=TEXT or tickets with commas between, one of the two")
    if len(tickets) > WATCH_TICKETS_MAX:
        raise Refusal(Code.BAD_REQUEST, f"WATCH takes {WATCH_TICKETS_MAX} tickets at most, not {len(tickets)}")
    unknown = next((text for text in tickets if parse_ticket(text) is None), None)
    if unknown is not None:
        raise Refusal(Code.UNKNOWN_TICKET, f"no job has the ticket {shown(unknown)}")
    return Watch(group, tuple(text.lower() for text in tickets), values.get("since"), values.get("timeout"))


def _explain(word: str, options: Sequence[bytes], rest: bytes) -> Explain:
    _read(word, options, NO_OPTIONS)
    return Explain(_ticket(word, rest))


def _logs(word: str, options: Sequence[bytes], rest: bytes) -> Logs:
    values = _read(word, options, LOGS_OPTIONS)
    return Logs(_ticket(word, rest), values.get("follow", False))


def _events(word: str, options: Sequence[bytes], rest: bytes) -> Events:
    values = _read(word, options, EVENTS_OPTIONS, rest)
    return Events(values.get("follow", False), values.get("since"))


def _list(word: str, options: Sequence[bytes], rest: bytes) -> List:
    values = _read(word, options, LIST_OPTIONS, rest)
    limit = values.get("limit", LIST_LIMIT_DEFAULT)
    return List(values.get("state"), values.get("group"), limit, values.get("local", False))


def _stats(word: str, options: Sequence[bytes], rest: bytes) -> Stats:
    return Stats(_read(word, options, STATS_OPTIONS, rest).get("local", False))


def _placement(word: str, options: Sequence[bytes], rest: bytes) -> Placement:
    _read(word, options, NO_OPTIONS)
    words = rest.split()
    policy = words[0].decode().lower() if len(words) == 1 else None
    if words and policy not in PLACEMENTS:
        allowed = ", ".join(PLACEMENTS)
        raise Refusal(Code.BAD_REQUEST, f"{shown(b' '.join(words))} is no placement policy; {allowed} are allowed")
    return Placement(policy)


def _auth(word: str, options: Sequence[bytes], rest: bytes) -> Auth:
    words = [*options, *rest.split()]  # a token may look like an option
    if len(words) != 1:
        raise Refusal(Code.BAD_REQUEST, f"AUTH takes one token, not {len(words)} words")
    return Auth(words[0].decode())


def _alone(request: Request) -> "_Reader":
    """The reader of a verb that takes nothing."""

    def read(word: str, options: Sequence[bytes], rest: bytes) -> Request:
        _read(word, options, NO_OPTIONS, rest)
        return request

    return read


_Reader: TypeAlias = Callable[[str, Sequence[bytes], bytes], Request]
_VERBS: Final[Mapping[bytes, _Reader]] = {
    b"STATUS": _status,
    b"RESULT": _result,
    b"WAIT": _wait,
    b"WATCH": _watch,
    b"CANCEL": _ticket_or_group(Cancel),
    b"RETRY": _ticket_or_group(Retry),
    b"FORGET": _ticket_or_group(Forget),
    b"EXPLAIN": _explain,
    b"LOGS": _logs,
    b"LIST": _list,
    b"NODES": _alone(Nodes()),
    b"STATS": _stats,
    b"PLACEMENT": _placement,
    b"EVENTS": _events,
    b"DRAIN": _alone(Drain()),
    b"UNDRAIN": _alone(Undrain()),
    b"AUTH": _auth,
    b"PING": _alone(Ping()),
    b"VERSION": _alone(Version()),
    b"HELP": _alone(Help()),
    b"QUIT": _alone(Quit()),
    b"EXIT": _alone(Quit()),
}
_KINDS_ALLOWED: Final = f"{' '.join(KINDS)} are allowed"
