"""Warm Python workers: the processes of the kinds `py` and `call`, each running one call at a time, many one after
another.

A worker is started when a call comes and none is idle; so there are as many as were ever needed at the same time.
One that has died is gone; one that a call left dirty, or whose module has changed, is killed with its whole group.
A call with limits of its own gets a worker of its own, which is killed after it: what the kernel holds of them is
for the life of a process. The worker's side, and what they say to each other, is in `child.py`.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from signal import SIGKILL
from typing import Any, Final

import attrs

from common.codec import replace
from common.kinds import python_call
from common.limits import MIB, PYTHON_OUTPUT_BYTES_MAX
from common.model import Outcome, Reason, Verdict
from node.executors import Limits, Start
from node.executors.commands import DRAIN_S, Ended, ended_by_fence, outcome_of_breach, outcome_of_exit
from node.executors.guard import Guard
from node.executors.loop import Channel, Loop
from node.executors.processes import Capture, Family
from node.executors.surroundings import Refused, said
from node.executors.wire import Frames, Setup

CHILD: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
KINDS: Final = frozenset({"py", "call"})
NOTHING: Final = {"py": b"null\n", "call": b"\x80\x04N."}  # None, so that who has succeeded always has a value


class Workers:
    """The warm workers of one interpreter."""

    def __init__(self, loop: Loop, family: Family, guard: Guard, env: Mapping[str, str], setup: Setup) -> None:
        self._loop, self._family, self.guard, self._env = loop, family, guard, env
        self._python = setup.python or sys.executable
        self._paths = [path for path in setup.pythonpath.split(os.pathsep) if path]
        self._most = setup.most
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._idle: list[Worker] = []

    def begin(self, start: Start, env: Mapping[str, str], directory: str, on_end: Ended) -> "Call":
        """Call a function in a worker. Raises Refused."""
        try:
            call = Call(start, _request(start, env, directory), on_end)
        except ValueError as error:
            raise Refused(Reason.CANNOT_START, f"cannot start this: {error}") from None
        self.assign(call)
        return call

    def assign(self, call: "Call", *, fresh: bool = False) -> None:
        """Give a call to a worker that is idle, or to a new one. Raises Refused."""
        if call.limits != self._most:
            worker = self._start(call.limits, for_one_call=True)
        elif self._idle and not fresh:
            worker = self._idle.pop()
        else:
            worker = self._start(attrs.evolve(self._most, cpu_s=None), for_one_call=False)
        worker.run(call)

    def idle(self, worker: "Worker") -> None:
        self._idle.append(worker)

    def gone(self, worker: "Worker") -> None:
        if worker in self._idle:
            self._idle.remove(worker)

    def _start(self, limits: Limits, *, for_one_call: bool) -> "Worker":
        setup = json.dumps({"paths": self._paths, "value_bytes_max": PYTHON_OUTPUT_BYTES_MAX})
        worker = Worker(self, self._loop, limits, for_one_call=for_one_call)
        try:
            worker.begin(self._family, (self._python, CHILD, setup), self._env, self._null)
        except OSError as error:
            why = f"cannot start Python, {self._python!r}: {error.strerror}"
            raise Refused(Reason.CANNOT_START, why) from None
        return worker


@attrs.frozen
class Result:
    """How a call ended. The outcome's sizes and seconds are filled in at the very end."""

    outcome: Outcome
    stdout: bytes = b""
    stderr: bytes = b""


class Call:
    """One running call: what a Command is for commands."""

    def __init__(self, start: Start, request: bytes, on_end: Ended) -> None:
        self.limits, self.nothing = start.limits, NOTHING[start.kind]
        self.request, self._on_end = request, on_end
        self.breach: Reason | None = None
        self._started_at = time.monotonic()
        self._seconds: float | None = None
        self.worker: Worker

    @property
    def pid(self) -> int:
        return self.worker.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the worker and to what the call has started."""
        self.worker.process.signal_group(number)

    def end_for(self, breach: Reason) -> None:
        """It has used more than it may; its worker goes with it."""
        self.breach = self.breach or breach
        self.worker.process.end_session()

    def peek(self, stdout_at: int, stderr_at: int, bytes_max: int) -> tuple[bytes, bytes]:
        """The value comes at the end; what is printed is standard error."""
        return b"", self.worker.prints.peek(stderr_at, bytes_max)

    def stop_clock(self) -> None:
        if self._seconds is None:
            self._seconds = time.monotonic() - self._started_at

    def end(self, result: Result, *, unused: bool) -> None:
        self.stop_clock()
        assert self._seconds is not None
        outcome = replace(
            result.outcome, seconds=self._seconds, stdout_bytes=len(result.stdout), stderr_bytes=len(result.stderr)
        )
        self._on_end(outcome, result.stdout + result.stderr, unused)


class Worker:
    """A Python process. `_call` is what it runs; `_reply` is kept while a worker that may not live on is killed."""

    def __init__(self, workers: Workers, loop: Loop, limits: Limits, *, for_one_call: bool) -> None:
        self._workers, self._loop, self._limits, self._for_one_call = workers, loop, limits, for_one_call
        self._prints_are_cut = limits.output_bytes is not None and limits.output_bytes < PYTHON_OUTPUT_BYTES_MAX
        self._call: Call | None = None
        self._reply: tuple[dict[str, Any], bytes] | None = None
        self._is_ready = False
        self._frames = Frames()

    def begin(self, family: Family, argv: tuple[str, ...], env: Mapping[str, str], stdin: int) -> None:
        """Raises OSError."""
        self._python = argv[0]
        most = self._limits.output_bytes
        with contextlib.ExitStack() as always, contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            always.callback(theirs.close)
            kept = PYTHON_OUTPUT_BYTES_MAX if most is None else min(most, PYTHON_OUTPUT_BYTES_MAX)
            self.prints = Capture(self._loop, kept, self._prints_read)
            undo.callback(self.prints.close)
            always.callback(self.prints.handed_over)
            out = self.prints.write_fd
            self.process = family.launch(argv, env, (stdin, out, out, theirs.fileno()), self._limits, self._exited)
            undo.pop_all()
        self._control = Channel(self._loop, ours, self._hear, self._control_ended)
        self.prints.watch()

    def run(self, call: Call) -> None:
        self._call = call
        call.worker = self
        self._workers.guard.watch(self.process.pid, call.limits, call.end_for, is_new=self._for_one_call)
        self._control.send(call.request)

    # --- what it hears ------------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            end = 4 + int.from_bytes(frame[:4], "big")
            self._heard(json.loads(frame[4:end]), frame[end:])

    def _heard(self, head: dict[str, Any], value: bytes) -> None:
        if head["status"] == "ready":
            self._is_ready = True
            return
        self._workers.guard.forget(self.process.pid)
        if head["status"] == "stale":
            self._move_to_another()
        elif self._call is None:
            self.process.signal_group(SIGKILL)  # not one of ours speaks out of turn: user code has the socket
        elif head["dirty"] or self._for_one_call:
            self._call.stop_clock()
            self._reply = head, value
            self.process.signal_group(SIGKILL)
        else:
            self.prints.read_out()
            self._end(_replied(head, value, self._call.nothing), unused=True)
            if not self.process.ended:
                self._workers.idle(self)

    def _move_to_another(self) -> None:
        call, self._call = self._call, None
        self.process.signal_group(SIGKILL)
        if call is not None:
            try:
                self._workers.assign(call, fresh=True)
            except Refused as refused:
                call.end(Result(refused.outcome, b"", refused.stderr), unused=True)

    def _control_ended(self) -> None:
        """It is ending, or a call has closed the socket, of which it will die."""
        self._control.close()

    def _prints_read(self) -> None:
        if self.process.ended:
            if self.prints.ended:
                self._finish()
        elif self._call is None:
            self.prints.take()  # nobody's
        elif self.prints.truncated and self._prints_are_cut:
            if self._call.breach is None:
                self._call.end_for(Reason.OUTPUT)
        elif self.prints.truncated:
            self.process.signal_group(SIGKILL)

    def _exited(self, code: int, _: bool) -> None:
        self._workers.gone(self)
        self._workers.guard.forget(self.process.pid)
        self._code = code
        while not self._control.closed and self._control.read():
            pass  # what it said before it died counts
        self.prints.read_out()
        if self._call is None or self.prints.ended:
            self._finish()
        else:
            self._call.stop_clock()
            self._loop.after(DRAIN_S, self._finish)

    def _finish(self) -> None:
        """Its end, once its prints have ended or enough time was given to them."""
        self.prints.close()
        if not self._control.closed:
            self._control.close()
        if self._call is not None:
            self._end(self._last_words(self._call), unused=False)

    def _last_words(self, call: Call) -> Result:
        if call.breach is not None:
            return Result(outcome_of_breach(outcome_of_exit(self._code), call.breach))
        if self._reply is not None:
            return _replied(*self._reply, call.nothing)
        if self._for_one_call and ended_by_fence(self._code, self.process.cpu_s, call.limits):
            return Result(replace(outcome_of_exit(self._code), reason=Reason.CPU))
        return self._died(call.nothing)

    def _end(self, result: Result, *, unused: bool) -> None:
        """End the call with what it has printed before our own last word."""
        call, self._call = self._call, None
        assert call is not None, "whoever ends a call has looked that there is one"
        too_long = self.prints.truncated
        prints = self.prints.take()
        if too_long and self._prints_are_cut:
            breached = outcome_of_breach(result.outcome, call.breach or Reason.OUTPUT)
            call.end(Result(replace(breached, truncated=True), b"", prints), unused=unused)
        elif too_long:
            call.end(_too_long("prints"), unused=unused)
        else:
            call.end(attrs.evolve(result, stderr=prints + result.stderr), unused=unused)

    def _died(self, nothing: bytes) -> Result:
        if self._code >= 0 and not self._is_ready:
            why = said(f"cannot start a Python worker: {self._python!r} ended with exit code {self._code} at once")
            return Result(Outcome(Verdict.FAILED, Reason.CANNOT_START), b"", why)
        return Result(outcome_of_exit(self._code), b"" if self._code else nothing)


def _replied(head: Mapping[str, Any], value: bytes, nothing: bytes) -> Result:
    """`nothing` is the value of a call that has left without one."""
    status = head["status"]
    if status == "value":
        return Result(Outcome(Verdict.SUCCEEDED, exit=0), value)
    if status == "exit":
        return Result(outcome_of_exit(head["exit"]), b"" if head["exit"] else nothing)
    if status == "exception":
        return Result(Outcome(Verdict.FAILED, Reason.EXCEPTION, exit=1), value)
    if status == "missing":
        why = said(f"cannot start this: {head['why']}; install it there: python -m pip install cloudpickle")
        return Result(Outcome(Verdict.FAILED, Reason.CANNOT_START), b"", why)
    return _too_long("returned value")


def _too_long(what: str) -> Result:
    limit = f"the {what} of the call came to more than {PYTHON_OUTPUT_BYTES_MAX // MIB} MiB"
    return Result(Outcome(Verdict.FAILED, Reason.OUTPUT, exit=1), b"", said(f"{limit}, and nothing is ever cut"))


def _request(start: Start, env: Mapping[str, str], directory: str) -> bytes:
    """The frame that asks for the call. Raises ValueError."""
    what = _named(start.line) if start.kind == "py" else _pickled(start.body)
    head = json.dumps({**what, "dir": directory, "env": env}).encode()
    lengths = (4 + len(head) + len(start.body)).to_bytes(4, "big") + len(head).to_bytes(4, "big")
    return lengths + head + start.body


def _named(line: str) -> dict[str, str]:
    call = python_call(line)
    arguments = (*line.split(maxsplit=1), "")[1].strip()  # as typed: the worker reads the JSON itself
    return {"module": call.module, "function": call.function, "arguments": arguments}


def _pickled(body: bytes) -> dict[str, str]:
    """Nothing is said of it: what is called is in the body, which nobody opens but the worker."""
    if not body:
        raise ValueError("call needs a body, the cloudpickle of (function, args, kwargs)")
    return {}
