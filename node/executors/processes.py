"""A child process in a session of its own, and the reading of what it prints.

Rules: a child gets descriptors 0, 1 and 2 and nothing else of ours (all others are close-on-exec), the default
action for every signal, and none blocked. Its process group is killed while its leader is still unreaped: only so
long is the group's number surely ours.
"""

import errno
import os
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count, repeat
from typing import Final

from node.executors import Limits
from node.executors.fences import Fences
from node.executors.loop import Loop
from node.executors.sessions import end_session

HAS_EXITED: Final = os.WEXITED | os.WNOHANG | os.WNOWAIT  # asks, and leaves it unreaped
READ_BYTES: Final = 64 * 1024  # what a pipe holds
READS_AT_END_MAX: Final = 32  # more than a pipe can be made to hold; not endless, should somebody go on printing
PATH_DEFAULT: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Family:
    """Every process that was launched and has not ended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fences = Fences()
        self._alive: dict[int, Process] = {}
        self._path = os.environ.get("PATH", "")  # which posix_spawnp searches
        # What is ignored would stay so across exec, be it that we ignore it or that whoever started the node did.
        self._signals = signal.valid_signals()

    @property
    def sessions(self) -> Collection[int]:
        """Those that were launched and whose leader is unreaped."""
        return self._alive.keys()

    def launch(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        fds: Sequence[int],
        limits: Limits,
        on_exit: Callable[[int, bool], None],
    ) -> "Process":
        """A new process in a new session, in our own working directory; `fds` become its descriptors 0, 1, 2 …

        The program is looked for on the PATH of `env`. Of `limits` those hold that the kernel knows. `on_exit` hears,
        once, how the leader ended (its exit code, or minus the signal) and whether nobody is left of its group, which
        has been killed by then.
        Raises OSError, and ValueError for what no program can be given.
        """
        program = argv[0]
        if env.get("PATH") != self._path:
            program = _program(program, env.get("PATH", PATH_DEFAULT))
        self._fences.lower(limits, fds)
        try:
            pid = os.posix_spawnp(
                program,
                argv,
                env,
                file_actions=list(zip(repeat(os.POSIX_SPAWN_DUP2), fds, count())),
                setsid=True,
                setsigdef=self._signals,
                setsigmask=(),
            )
        finally:
            self._fences.lift()
        self._fences.close_behind(pid, limits)
        process = self._alive[pid] = Process(self, self._loop, pid, on_exit)
        return process

    def forget(self, process: "Process") -> None:
        del self._alive[process.pid]

    def kill_all(self) -> frozenset[int]:
        """Kill every group at once; the pids of their leaders."""
        for process in self._alive.values():
            process.signal_group(signal.SIGKILL)
        return frozenset(self._alive)


def _program(name: str, path: str) -> str:
    """What posix_spawnp, which searches our PATH and not the child's, must be told."""
    if "/" in name:
        return name
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


class Process:
    """The leader of a session and a process group."""

    def __init__(self, family: Family, loop: Loop, pid: int, on_exit: Callable[[int, bool], None]) -> None:
        self._family, self._loop, self.pid, self._on_exit = family, loop, pid, on_exit
        self.ended = False
        self.cpu_s = 0.0  # once it has ended: its own, and that of the children it had waited for
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:  # out of descriptors: nobody would notice its end
            self.signal_group(signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        loop.watch(self._pidfd, self._ready)

    def signal_group(self, number: int) -> None:
        """Nothing happens after the end, when the number may be another's."""
        if not self.ended:
            try:
                os.killpg(self.pid, number)
            except PermissionError:
                pass  # a group of nothing but programs that run as somebody else

    def end_session(self) -> None:
        """Kill the group and whoever else is in the session."""
        if not self.ended:
            end_session(self.pid)

    def _ready(self) -> None:
        if os.waitid(os.P_PID, self.pid, HAS_EXITED) is None:
            return
        self.signal_group(signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        self.cpu_s = used.ru_utime + used.ru_stime
        self.ended = True
        self._family.forget(self)
        self._loop.close(self._pidfd)
        self._on_exit(os.waitstatus_to_exitcode(status), self._group_is_empty())

    def _group_is_empty(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


class Capture:
    """The reading end of a pipe: keeps the first `bytes_max` bytes, and reads on when there is no more room.

    `write_fd` is for the child and is closed with `handed_over`. Nothing is read before `watch` or `read_out`.
    """

    total_bytes = 0  # read, kept or not
    ended = False  # nobody holds the writing end any more, or we have stopped reading
    _kept: bytes | bytearray = b""
    is_watched = False

    def __init__(self, loop: Loop, bytes_max: int, on_read: Callable[[], None]) -> None:
        self._loop, self._bytes_max, self._on_read = loop, bytes_max, on_read
        self._fd, self.write_fd = os.pipe()
        os.set_blocking(self._fd, False)

    @property
    def read_fd(self) -> int:
        """For a child that reads itself what it has printed, and tells us of it."""
        return self._fd

    @property
    def truncated(self) -> bool:
        return self.total_bytes > self._bytes_max

    def handed_over(self) -> None:
        os.close(self.write_fd)

    def watch(self) -> None:
        """Read whenever there is something, and call `on_read` afterwards."""
        if not self.ended and not self.is_watched:
            self.is_watched = True
            self._loop.watch(self._fd, self._ready)

    def unwatch(self) -> None:
        if self.is_watched:
            self.is_watched = False
            self._loop.forget(self._fd)

    def read_out(self) -> None:
        """Read what is in the pipe now."""
        left = READS_AT_END_MAX
        while left and not self.ended and self._read():
            left -= 1

    def peek(self, at: int, bytes_max: int) -> bytes:
        """What is kept behind the first `at` bytes."""
        return bytes(memoryview(self._kept)[at : at + bytes_max])

    def take(self) -> bytes:
        """What was kept since the last call; there is room again."""
        if not self.total_bytes:
            return b""
        data = bytes(self._kept)
        self._kept, self.total_bytes = b"", 0
        return data

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            if self.is_watched:
                self._loop.forget(self._fd)
            os.close(self._fd)

    def _ready(self) -> None:
        if not self.ended:
            self._read()
            self._on_read()

    def _read(self) -> bool:
        """False when there is nothing, yet or for ever."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self.add(data)
        return True

    def add(self, data: bytes) -> None:
        """This was read, here or by the child itself."""
        room = self._bytes_max - len(self._kept)
        if not self._kept:
            self._kept = bytearray()
        self._kept += data if len(data) <= room else data[:room]
        self.total_bytes += len(data)
