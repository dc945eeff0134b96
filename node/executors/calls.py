"""One call of a Python function: what is asked of a worker, what it answers, and how the call counts.

What both sides say to each other is described in `child.py`. Rules: nothing here waits or touches a process; a worker's
answer is read as a stranger's would be, because a call can write to its worker's socket.
"""

import json
import struct
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec

from common.kinds import python_parts
from common.limits import MIB, PYTHON_OUTPUT_BYTES_MAX
from common.model import Outcome, Reason, Verdict
from node.executors import Limits, Start
from node.executors.commands import outcome_of_exit
from node.executors.surroundings import MARK, Refused, said

KINDS: Final = frozenset({"py", "call"})
HEADER_BYTES: Final = 12  # the lengths of a frame and of the head in it, and the number of the call
NOTHING: Final = {"py": b"null\n", "call": b"\x80\x04N."}  # None, so that who has succeeded always has a value

_HEADER: Final = struct.Struct(">III")
_encode = msgspec.json.Encoder().encode


@attrs.frozen
class Answer:
    """The head of what a worker says."""

    status: str
    number: int = 0
    exit: int = 0
    why: str = ""
    seconds: float = 0.0
    prints: int = 0  # bytes, the last ones of what follows
    left: bool = False
    dirty: bool = False


answer_of = msgspec.json.Decoder(Answer).decode


def number_of(packet: bytes) -> int:
    """The number of the call that a worker was given in a packet."""
    return int.from_bytes(packet[8:HEADER_BYTES], "big")


@attrs.frozen
class Result:
    """How a call ended. The outcome's sizes and seconds are filled in at the very end."""

    outcome: Outcome
    stdout: bytes = b""
    stderr: bytes = b""


class Runner(Protocol):
    """The worker that a call was given to, as far as a call knows it."""

    @property
    def pid(self) -> int: ...

    def signal(self, call: "Call", number: int) -> None: ...

    def end_for(self, call: "Call", breach: Reason) -> None: ...

    def peek(self, call: "Call", stderr_at: int, bytes_max: int) -> bytes: ...


class Owner(Protocol):
    """Who has a call made, as far as the call knows it."""

    def took(self, call: "Call") -> None:
        """A worker has taken it up."""

    def grew(self, call: "Call") -> None:
        """It is still running a while later."""

    def ended(self, call: "Call", outcome: Outcome, output: bytes) -> None: ...


class Call:
    """One call, from its Start to its end: what a Command is for commands."""

    __slots__ = (
        "_head",
        "_owner",
        "_seconds",
        "_started_at",
        "breach",
        "id",
        "is_ahead",
        "is_grown",
        "nothing",
        "number",
        "start",
        "worker",
    )

    def __init__(self, start: Start, owner: Owner, *, is_ahead: bool = False) -> None:
        """`is_ahead` says that it is given to a worker that runs another. Raises Refused."""
        self.start, self._owner, self.is_ahead = start, owner, is_ahead
        self.id = start.ticket, start.attempt
        self._head = _head(start)
        self.nothing = NOTHING[start.kind]
        self.breach: Reason | None = None
        self.is_grown = False
        self.number = 0  # among those of its worker
        self._seconds: float | None = None
        self._started_at = 0.0
        self.worker: Runner | None = None

    @property
    def limits(self) -> Limits:
        return self.start.limits

    @property
    def pid(self) -> int:
        assert self.worker is not None, "nobody has taken it"
        return self.worker.pid

    def frame(self, number: int, own: str | None) -> bytes:
        """The frame that asks for it; `own` is the directory that is the worker's own from now on."""
        self.number = number
        head = _encode(self._head if own is None else {**self._head, "own": own})
        body = self.start.body
        return _HEADER.pack(8 + len(head) + len(body), len(head), number) + head + body

    def signal(self, number: int) -> None:
        """Send a signal to the worker and to what the call has started."""
        if self.worker is not None:
            self.worker.signal(self, number)

    def end_for(self, breach: Reason) -> None:
        """It has used more than it may; its worker goes with it."""
        self.breach = self.breach or breach
        if self.worker is not None:
            self.worker.end_for(self, breach)

    def peek(self, stdout_at: int, stderr_at: int, bytes_max: int) -> tuple[bytes, bytes]:
        """The value comes at the end; what is printed is standard error."""
        return b"", b"" if self.worker is None else self.worker.peek(self, stderr_at, bytes_max)

    def taken_by(self, worker: Runner) -> None:
        """Again, where the first could not."""
        is_first, self.worker = self.worker is None, worker
        self._started_at = time.monotonic()
        if is_first:
            self._owner.took(self)

    def grown(self) -> None:
        if not self.is_grown:
            self.is_grown = True
            self._owner.grew(self)

    def stop_clock(self, seconds: float | None = None) -> None:
        """It has taken so long, or, where the worker has not said it, until now."""
        if self._seconds is None:
            self._seconds = time.monotonic() - self._started_at if seconds is None else seconds

    def end(self, result: Result) -> None:
        self.stop_clock()
        assert self._seconds is not None
        found, stdout, stderr = result.outcome, result.stdout, result.stderr
        sizes = len(stdout), len(stderr), found.truncated
        outcome = Outcome(found.verdict, found.reason, found.exit, self._seconds, *sizes)
        self._owner.ended(self, outcome, stdout + stderr)

    def succeed(self, value: bytes) -> None:
        """End as most do, with a value and nothing printed; its clock has been stopped."""
        assert self._seconds is not None
        self._owner.ended(self, Outcome(Verdict.SUCCEEDED, None, 0, self._seconds, len(value)), value)


def _head(start: Start) -> dict[str, Any]:
    """What a worker is told of the call. Raises Refused."""
    try:
        what = _named(start.line) if start.kind == "py" else _pickled(start.body)
    except ValueError as error:
        raise Refused(Reason.CANNOT_START, f"cannot start this: {error}") from None
    env = what["env"] = dict(start.env)
    env.pop(MARK, None)
    if start.dir is not None:
        what["dir"] = start.dir
    return what


def _named(line: str) -> dict[str, Any]:
    module, function, arguments = python_parts(line)  # the worker reads the JSON itself
    return {"module": module, "function": function, "arguments": arguments}


def _pickled(body: bytes) -> dict[str, Any]:
    """Nothing is said of it: what is called is in the body, which nobody opens but the worker."""
    if not body:
        raise ValueError("call needs a body, the cloudpickle of (function, args, kwargs)")
    return {}


def worker_setup(paths: list[str], env: Mapping[str, str]) -> str:
    """The last word of a worker's command line."""
    return json.dumps({"paths": paths, "env": dict(env), "value_bytes_max": PYTHON_OUTPUT_BYTES_MAX})


def result_of(answer: Answer, value: bytes, nothing: bytes) -> Result:
    """`nothing` is the value of a call that has left without one."""
    if answer.status == "value":
        return Result(Outcome(Verdict.SUCCEEDED, exit=0), value)
    if answer.status == "exit":
        return Result(outcome_of_exit(answer.exit), b"" if answer.exit else nothing)
    if answer.status == "exception":
        return Result(Outcome(Verdict.FAILED, Reason.EXCEPTION, exit=1), value)
    if answer.status == "missing":
        why = said(f"cannot start this: {answer.why}; install it there: python -m pip install cloudpickle")
        return Result(Outcome(Verdict.FAILED, Reason.CANNOT_START), b"", why)
    return too_long("returned value")


def too_long(what: str) -> Result:
    limit = f"the {what} of the call came to more than {PYTHON_OUTPUT_BYTES_MAX // MIB} MiB"
    return Result(Outcome(Verdict.FAILED, Reason.OUTPUT, exit=1), b"", said(f"{limit}, and nothing is ever cut"))
