"""One call of a Python function: what is asked of a worker, what it answers, and how the call counts.

What both sides say to each other is described in `child.py`. Rules: nothing here waits or touches a process; a worker's
answer is read as a stranger's would be, because a call can write to its worker's socket.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs
import msgspec

from common.kinds import python_call
from common.limits import MIB, PYTHON_OUTPUT_BYTES_MAX
from common.model import Outcome, Reason, Verdict
from node.executors import Limits, Start
from node.executors.commands import Ended, outcome_of_exit
from node.executors.surroundings import MARK, Refused, said

KINDS: Final = frozenset({"py", "call"})
LENGTHS_BYTES: Final = 8  # of a frame, and of the head in it
NOTHING: Final = {"py": b"null\n", "call": b"\x80\x04N."}  # None, so that who has succeeded always has a value

_encode = msgspec.json.Encoder().encode


@attrs.frozen
class Answer:
    """The head of what a worker says."""

    status: str
    exit: int = 0
    why: str = ""
    seconds: float = 0.0
    prints: int = 0  # bytes, the last ones of what follows
    left: bool = False
    dirty: bool = False


answer_of = msgspec.json.Decoder(Answer).decode


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


class Call:
    """One call, from its Start to its end: what a Command is for commands. `on_taken` is called when a worker takes it,
    `on_grown` when it is still running a while later."""

    def __init__(
        self, start: Start, on_taken: Callable[["Call"], None], on_grown: Callable[["Call"], None], on_end: Ended
    ) -> None:
        """Raises Refused."""
        self.start, self._on_taken, self._on_grown, self._on_end = start, on_taken, on_grown, on_end
        self._head = _head(start)
        self.nothing = NOTHING[start.kind]
        self.breach: Reason | None = None
        self.is_grown = False
        self._seconds: float | None = None
        self.worker: Runner | None = None

    @property
    def limits(self) -> Limits:
        return self.start.limits

    @property
    def pid(self) -> int:
        assert self.worker is not None, "nobody has taken it"
        return self.worker.pid

    def frame(self, own: str | None) -> bytes:
        """The frame that asks for it; `own` is the directory that is the worker's own from now on."""
        head = _encode(self._head if own is None else {**self._head, "own": own})
        body = self.start.body
        return (4 + len(head) + len(body)).to_bytes(4, "big") + len(head).to_bytes(4, "big") + head + body

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
            self._on_taken(self)

    def grown(self) -> None:
        if not self.is_grown:
            self.is_grown = True
            self._on_grown(self)

    def stop_clock(self, seconds: float | None = None) -> None:
        """It has taken so long, or, where the worker has not said it, until now."""
        if self._seconds is None:
            self._seconds = time.monotonic() - self._started_at if seconds is None else seconds

    def end(self, result: Result, *, unused: bool) -> None:
        self.stop_clock()
        assert self._seconds is not None
        found, stdout, stderr = result.outcome, result.stdout, result.stderr
        sizes = len(stdout), len(stderr), found.truncated
        outcome = Outcome(found.verdict, found.reason, found.exit, self._seconds, *sizes)
        self._on_end(outcome, stdout + stderr, unused)


def _head(start: Start) -> Mapping[str, object]:
    """What a worker is told of the call. Raises Refused."""
    try:
        what = _named(start.line) if start.kind == "py" else _pickled(start.body)
    except ValueError as error:
        raise Refused(Reason.CANNOT_START, f"cannot start this: {error}") from None
    env = {name: value for name, value in start.env if name != MARK}
    return {**what, "env": env} if start.dir is None else {**what, "env": env, "dir": start.dir}


def _named(line: str) -> dict[str, str]:
    call = python_call(line)
    arguments = (*line.split(maxsplit=1), "")[1].strip()  # as typed: the worker reads the JSON itself
    return {"module": call.module, "function": call.function, "arguments": arguments}


def _pickled(body: bytes) -> dict[str, str]:
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
