"""One warm Python worker: the calls in its hands, what it says of them, and its end.

`workers.py` says what workers there are and who gets which call; the worker's own side, and what they say to each
other, is in `child.py`.

A young call is only waited for: from YOUNG_S on what it prints is read as it comes, before that the worker reads it at
the call's end and sends it along. So nobody wakes up for a short call but for its answer.
"""

import contextlib
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from signal import SIGKILL
from typing import Final, Protocol

import attrs
import msgspec

from common.codec import replace
from common.limits import KIB, PYTHON_OUTPUT_BYTES_MAX
from common.model import Outcome, Reason, Verdict
from node.executors import Limits
from node.executors.calls import HEADER_BYTES, Answer, Call, Result, answer_of, number_of, result_of, too_long
from node.executors.commands import DRAIN_S, ended_by_fence, outcome_of_breach, outcome_of_exit
from node.executors.guard import Guard
from node.executors.loop import Channel, Loop
from node.executors.processes import Capture, Family
from node.executors.scratch import Scratch
from node.executors.surroundings import Refused, said
from node.executors.wire import Frames

PACKET_BYTES_MAX: Final = 32 * KIB  # what is longer goes over the stream
NUMBER_MAX: Final = 2**32 - 1
GIVEN_MAX: Final = 64  # calls in the hands of one worker: the shortest possible ones, for a millisecond


class Home(Protocol):
    """Where a worker belongs, as far as it knows it."""

    guard: Guard
    scratch: Scratch

    def begin(self, call: Call) -> None:
        """Have somebody else make a call. Raises Refused."""

    def on_back(self, calls: Sequence[Call]) -> None:
        """These were given to it, and it has not begun them."""

    def idle(self, worker: "Worker") -> None: ...

    def gone(self, worker: "Worker") -> None: ...


class Worker:
    """A Python process. `_calls` are those that were given to it and are not over, the first of which it runs;
    `_reply` is kept while a worker that may not live on is killed."""

    def __init__(self, home: Home, loop: Loop, limits: Limits, *, for_one_call: bool) -> None:
        self._home, self._loop, self._limits, self._for_one_call = home, loop, limits, for_one_call
        self._prints_are_cut = limits.output_bytes is not None and limits.output_bytes < PYTHON_OUTPUT_BYTES_MAX
        self._calls: deque[Call] = deque()
        self._given_total = 0
        self._looked_at: Call | None = None
        self._reply: tuple[Answer, bytes] | None = None
        self._own: str | None = None  # the name of its directory
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
            self._giving, self._taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._giving.close)
            undo.callback(self._taking.close)
            kept = PYTHON_OUTPUT_BYTES_MAX if most is None else min(most, PYTHON_OUTPUT_BYTES_MAX)
            self.prints = Capture(self._loop, kept, self._prints_read)
            undo.callback(self.prints.close)
            always.callback(self.prints.handed_over)
            out = self.prints.write_fd
            fds = (stdin, out, out, theirs.fileno(), self._taking.fileno(), self.prints.read_fd)
            self.process = family.launch(argv, env, fds, self._limits, self._exited)
            undo.pop_all()
        self._control = Channel(self._loop, ours, self._hear, self._control_ended)

    @property
    def pid(self) -> int:
        return self.process.pid

    # --- what it is given ---------------------------------------------------------------------------------------

    def run(self, call: Call) -> None:
        """The first of its calls. Raises Refused."""
        frame = self._frame(call)
        self._calls.append(call)
        self._home.guard.watch(self.pid, call.limits, self._breached, self._settle, is_new=self._for_one_call)
        call.taken_by(self)
        if len(frame) <= PACKET_BYTES_MAX:
            self._giving.send(frame)
        else:
            self._giving.send(frame[:HEADER_BYTES])
            self._control.send(frame[HEADER_BYTES:])

    @property
    def given(self) -> int:
        """How many calls it has."""
        return len(self._calls)

    @property
    def takes_more(self) -> bool:
        """Whether it runs a call, and may be given others to run after it."""
        if not self._is_ready or self._for_one_call or self._reply is not None or self.prints.is_watched:
            return False
        return self._own is not None and self.has_room and bool(self._calls) and self._calls[0].start.slots == 1

    @property
    def has_room(self) -> bool:
        """For a call more."""
        return len(self._calls) < GIVEN_MAX

    def give_ahead(self, call: Call) -> bool:
        """To be run after the others; False where it is too long for that."""
        frame = call.frame(self._next_number(), None)
        if len(frame) > PACKET_BYTES_MAX:
            return False
        try:
            self._giving.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._calls.append(call)
        return True

    def _frame(self, call: Call) -> bytes:
        if call.start.dir is not None or self._own is not None:
            return call.frame(self._next_number(), None)
        try:
            self._own = self._home.scratch.lend()
        except OSError as error:
            raise Refused(Reason.CANNOT_START, f"cannot make a directory for the job: {error.strerror}") from None
        return call.frame(self._next_number(), self._home.scratch.path(self._own))

    def _next_number(self) -> int:
        self._given_total = self._given_total % NUMBER_MAX + 1
        return self._given_total

    # --- what is asked of it ------------------------------------------------------------------------------------

    def signal(self, call: Call, number: int) -> None:
        if self._runs(call):
            self.process.signal_group(number)

    def end_for(self, call: Call, breach: Reason) -> None:
        if self._runs(call):
            self.process.end_session()

    def peek(self, call: Call, stderr_at: int, bytes_max: int) -> bytes:
        if not self._runs(call):
            return b""
        self._watch_prints()
        self.prints.read_out()
        return self.prints.peek(stderr_at, bytes_max)

    def look(self) -> None:
        """Now and then: whether it still runs what it ran at the last look."""
        call = self._calls[0] if self._calls else None
        if call is not None and call is self._looked_at and self._runs(call):
            self._watch_prints()
            call.grown()
        self._looked_at = call

    def _watch_prints(self) -> None:
        if not self.process.ended:
            self.prints.watch()

    def _runs(self, call: Call) -> bool:
        """Whether it runs this call, surely: then it goes on with no other until we have heard of its end."""
        self._settle()
        return bool(self._calls) and self._calls[0] is call

    def _settle(self) -> None:
        """From now on it can run but one call, the first of those that it has left."""
        self.take_back()
        while not self._control.closed and self._control.read():
            pass

    def _breached(self, breach: Reason) -> None:
        """This was seen after it was settled, and nothing was heard or given to it since."""
        if self._calls:
            self._calls[0].end_for(breach)

    def holds_ahead(self, id: tuple[str, int]) -> bool:
        """Whether this call is behind the one that it runs."""
        return any((call.start.ticket, call.start.attempt) == id for call in islice(self._calls, 1, None))

    def take_back(self) -> None:
        """Whoever reads a packet has it: what we can read it has not begun, and will not. While we read it may take one
        out of the midst. The first of its calls is its own from the beginning; while it has still to take that up,
        nothing comes back, because it would take up another that we could not know of."""
        packets: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            if self._calls and not self.process.ended:
                front = self._taking.recv(PACKET_BYTES_MAX, socket.MSG_DONTWAIT | socket.MSG_PEEK)
                if number_of(front) == self._calls[0].number:
                    return
            while len(packets) < len(self._calls):
                packets.append(self._taking.recv(PACKET_BYTES_MAX, socket.MSG_DONTWAIT))
        if packets and len(packets) == len(self._calls):
            self._giving.send(packets.pop(0))
        if packets:
            numbers = set(map(number_of, packets))
            back = [call for call in self._calls if call.number in numbers]
            self._calls = deque(call for call in self._calls if call.number not in numbers)
            self._home.on_back(back)

    # --- what it hears ------------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            end = 4 + int.from_bytes(frame[:4], "big")
            try:
                answer = answer_of(frame[4:end])
            except msgspec.MsgspecError:
                self.process.signal_group(SIGKILL)  # not one of ours: user code has the socket
            else:
                self._heard(answer, frame[end:])

    def _heard(self, answer: Answer, value: bytes) -> None:
        if answer.status == "ready":
            self._is_ready = True
            return
        if self._reply is not None or not self._calls or self._calls[0].number != answer.number:
            self.process.signal_group(SIGKILL)  # it speaks out of turn
        elif answer.status == "stale":
            self._move_to_another()
        else:
            self._answered(answer, value)

    def _answered(self, answer: Answer, value: bytes) -> None:
        call = self._calls[0]
        call.stop_clock(answer.seconds)
        if answer.prints:
            value, prints = value[: -answer.prints], value[-answer.prints :]
            self.prints.add(prints)
        if answer.left and self._own is not None:
            self._home.scratch.give_back(self._own, unused=False)
            self._own = None
        if answer.dirty or self._for_one_call:
            self._reply = answer, value
            self._home.guard.forget(self.pid)
            self.take_back()
            self.process.signal_group(SIGKILL)
            return
        if answer.left:
            self.take_back()
            self._control.send(b"\n")  # it waits for this, so that we could take back what has the old directory
        self.prints.unwatch()
        if answer.status == "value" and not self.prints.total_bytes:
            self._calls.popleft().succeed(value)
        else:
            self._end(result_of(answer, value, call.nothing))
        if self._calls:
            self._calls[0].taken_by(self)
        else:
            self._home.guard.forget(self.pid)
            if not self.process.ended:
                self._home.idle(self)

    def _move_to_another(self) -> None:
        self.take_back()
        call = self._calls.popleft()
        self._home.gone(self)
        self._home.guard.forget(self.pid)
        self.process.signal_group(SIGKILL)
        try:
            self._home.begin(call)
        except Refused as refused:
            call.end(Result(refused.outcome, b"", refused.stderr))

    def _control_ended(self) -> None:
        """It is ending, or a call has closed the socket, of which it will die."""
        self._control.close()

    def _prints_read(self) -> None:
        if self.process.ended:
            if self.prints.ended:
                self._finish()
        elif self.prints.truncated and self._prints_are_cut:
            if self._calls and self._calls[0].breach is None:
                self._calls[0].end_for(Reason.OUTPUT)
        elif self.prints.truncated:
            self.process.signal_group(SIGKILL)

    def _exited(self, code: int, _: bool) -> None:
        self._home.gone(self)
        self._home.guard.forget(self.pid)
        self._code = code
        while not self._control.closed and self._control.read():
            pass  # what it said before it died counts
        self.take_back()
        self.prints.read_out()
        if not self._calls or self.prints.ended:
            self._finish()
        else:
            self._calls[0].stop_clock()
            self.prints.watch()
            self._loop.after(DRAIN_S, self._finish)

    def _finish(self) -> None:
        """Its end, once its prints have ended or enough time was given to them."""
        self.prints.close()
        if not self._control.closed:
            self._control.close()
        self._giving.close()
        self._taking.close()
        if self._own is not None:
            self._home.scratch.give_back(self._own, unused=False)
            self._own = None
        if self._calls:
            self._end(self._last_words(self._calls[0]))

    def _last_words(self, call: Call) -> Result:
        if call.breach is not None:
            return Result(outcome_of_breach(outcome_of_exit(self._code), call.breach))
        if self._reply is not None:
            return result_of(*self._reply, call.nothing)
        if self._for_one_call and ended_by_fence(self._code, self.process.cpu_s, call.limits):
            return Result(replace(outcome_of_exit(self._code), reason=Reason.CPU))
        return self._died(call.nothing)

    def _end(self, result: Result) -> None:
        """End the call with what it has printed before our own last word."""
        call = self._calls.popleft()
        too_much = self.prints.truncated
        prints = self.prints.take()
        if too_much and self._prints_are_cut:
            breached = outcome_of_breach(result.outcome, call.breach or Reason.OUTPUT)
            call.end(Result(replace(breached, truncated=True), b"", prints))
        elif too_much:
            call.end(too_long("prints"))
        elif prints:
            call.end(attrs.evolve(result, stderr=prints + result.stderr))
        else:
            call.end(result)

    def _died(self, nothing: bytes) -> Result:
        if self._code >= 0 and not self._is_ready:
            why = said(f"cannot start a Python worker: {self._python!r} ended with exit code {self._code} at once")
            return Result(Outcome(Verdict.FAILED, Reason.CANNOT_START), b"", why)
        return Result(outcome_of_exit(self._code), b"" if self._code else nothing)
