"""Commands: the processes of the kinds `sh`, `exec` and `argv`, from start to outcome.

When the leader of a command's process group ends, the rest of the group is killed and the pipes are read to their
end, or for DRAIN_S more when somebody who left the group still holds them; then the attempt is over.

A young command is only waited for: most jobs that are over at once have printed less than a pipe holds, and to
watch two pipes for them costs more wake-ups than everything else. From YOUNG_S on its pipes are read as they fill.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from signal import SIGKILL, SIGXCPU
from typing import Final

from common.codec import replace
from common.kinds import argv_of
from common.model import Outcome, Reason, Verdict
from node.executors import Limits, Start
from node.executors.guard import Guard
from node.executors.loop import Loop
from node.executors.processes import Capture, Family
from node.executors.surroundings import Refused, memory_file

DRAIN_S: Final = 0.25
YOUNG_S: Final = 0.005

Ended = Callable[[Outcome, bytes, bool], None]  # outcome, output, whether nobody is left of the process group


def outcome_of_exit(
    code: int, seconds: float = 0.0, stdout_bytes: int = 0, stderr_bytes: int = 0, truncated: bool = False
) -> Outcome:
    """`code` is an exit code, or minus the signal that killed the leader."""
    if code == 0:
        return Outcome(Verdict.SUCCEEDED, None, 0, seconds, stdout_bytes, stderr_bytes, truncated)
    reason, shown = (Reason.EXIT, code) if code > 0 else (Reason.SIGNAL, 128 - code)
    return Outcome(Verdict.FAILED, reason, shown, seconds, stdout_bytes, stderr_bytes, truncated)


def outcome_of_breach(outcome: Outcome, breach: Reason) -> Outcome:
    """How an attempt counts that was ended for using more than it may. It may have ended by itself just before: then
    it is as if it had been caught in time, or the same job would end in two ways."""
    exit = outcome.exit if outcome.reason is Reason.SIGNAL else 128 + SIGKILL
    truncated = outcome.truncated or breach is Reason.OUTPUT
    return replace(outcome, verdict=Verdict.FAILED, reason=breach, exit=exit, truncated=truncated)


def ended_by_fence(code: int, cpu_s: float, limits: Limits) -> bool:
    """Whether it was the kernel that ended the leader, or whom a shell has waited for, at the fence of its processor
    time (fences.py); `cpu_s` is what both have used."""
    if limits.cpu_s is None or cpu_s <= limits.cpu_s:
        return False
    return code in {sign for number in (SIGXCPU, SIGKILL) for sign in (-number, 128 + number)}


class Commands:
    """Starts commands, and begins to watch their pipes when they are no longer young."""

    def __init__(self, loop: Loop, family: Family, guard: Guard, output_bytes_max: int) -> None:
        self._loop, self._family, self._guard = loop, family, guard
        self._output_bytes_max = output_bytes_max
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._young: list[Command] = []

    def begin(self, start: Start, env: Mapping[str, str], on_end: Ended) -> "Command":
        """Start in the current directory. Raises Refused."""
        try:
            argv = argv_of(start.kind, start.line)
        except ValueError as error:
            raise Refused(Reason.CANNOT_START, f"cannot start this: {error}") from None
        stdin = memory_file(start.body) if start.body else self._null
        try:
            command = Command(self._loop, self._guard, start.limits, self._output_bytes_max, on_end)
            command.begin(self._family, argv, env, stdin)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Refused(Reason.CANNOT_START, f"cannot start {argv[0]!r}: {why}") from None
        finally:
            if stdin != self._null:
                os.close(stdin)
        if not self._young:
            self._loop.after(YOUNG_S, self._grown_up)
        self._young.append(command)
        return command

    def _grown_up(self) -> None:
        for command in self._young:
            if not command.over:
                command.watch()
        self._young.clear()


class Command:
    """One running command."""

    over = False
    _breach: Reason | None = None
    _code: int | None = None  # of the leader, once it has ended
    _group_is_empty = False

    def __init__(self, loop: Loop, guard: Guard, limits: Limits, output_bytes_max: int, on_end: Ended) -> None:
        self._loop, self._guard, self._limits, self._on_end = loop, guard, limits, on_end
        self._print_bytes_max = sys.maxsize if limits.output_bytes is None else limits.output_bytes
        self._stdout, self._stderr = _two_captures(loop, min(output_bytes_max, self._print_bytes_max), self._look)

    def begin(self, family: Family, argv: tuple[str, ...], env: Mapping[str, str], stdin: int) -> None:
        """Raises OSError and ValueError."""
        self._started_at = time.monotonic()
        try:
            fds = (stdin, self._stdout.write_fd, self._stderr.write_fd)
            self._process = family.launch(argv, env, fds, self._limits, self._exited)
        except (OSError, ValueError):
            self._close()
            raise
        finally:
            self._stdout.handed_over()
            self._stderr.handed_over()
        self._guard.watch(self._process.pid, self._limits, self.end_for, is_new=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        self._process.signal_group(number)

    def end_for(self, breach: Reason) -> None:
        """It has used more than it may."""
        self._breach = self._breach or breach
        self._process.end_session()

    def peek(self, stdout_at: int, stderr_at: int, bytes_max: int) -> tuple[bytes, bytes]:
        """What is kept of standard output and standard error behind these places."""
        return self._stdout.peek(stdout_at, bytes_max), self._stderr.peek(stderr_at, bytes_max)

    def watch(self) -> None:
        """Read the pipes as they fill."""
        self._stdout.watch()
        self._stderr.watch()

    def _exited(self, code: int, group_is_empty: bool) -> None:
        self._guard.forget(self._process.pid)
        self._code, self._group_is_empty = code, group_is_empty
        self._seconds = time.monotonic() - self._started_at
        self._stdout.read_out()
        self._stderr.read_out()
        self._look()
        if not self.over:
            self.watch()
            self._loop.after(DRAIN_S, self._give_up)

    def _look(self) -> None:
        if self._stdout.total_bytes + self._stderr.total_bytes > self._print_bytes_max and self._breach is None:
            self.end_for(Reason.OUTPUT)
        if self._stdout.ended and self._stderr.ended and self._code is not None and not self.over:
            self._finish()

    def _give_up(self) -> None:
        """Whoever still holds the pipes is waited for no longer."""
        if not self.over:
            self._close()
            self._finish()

    def _finish(self) -> None:
        assert self._code is not None, "it is over when it has ended and was read to the end"
        self.over = True
        truncated = self._stdout.truncated or self._stderr.truncated
        stdout, stderr = self._stdout.take(), self._stderr.take()
        outcome = outcome_of_exit(self._code, self._seconds, len(stdout), len(stderr), truncated)
        if self._breach is not None:
            outcome = outcome_of_breach(outcome, self._breach)
        elif ended_by_fence(self._code, self._process.cpu_s, self._limits):
            outcome = replace(outcome, reason=Reason.CPU)
        del self._process, self._stdout, self._stderr  # they know us: together we would wait for the garbage collector
        self._on_end(outcome, stdout + stderr, self._group_is_empty)

    def _close(self) -> None:
        self._stdout.close()
        self._stderr.close()


def _two_captures(loop: Loop, bytes_max: int, on_read: Callable[[], None]) -> tuple[Capture, Capture]:
    first = Capture(loop, bytes_max, on_read)
    try:
        return first, Capture(loop, bytes_max, on_read)
    except OSError:
        first.close()
        first.handed_over()
        raise
