"""What a child asks the kernel to do to the files of one directory, in order, seen with ptrace: its writes with their
bytes, its syncs, its renamings, and what it says on the way.

    for call in record(process, directory, go=lambda: process.stdin.close()): ...

Rules: nothing of the child is changed. Only its first thread is watched. Descriptors are looked up in /proc while the
child stands still, so it does not matter how it came by them. Whoever reads the record should compare it with the files
in the end: a child that writes in a way that is not known here (into a shared map, say) is found out by that.

Linux on x86-64 and arm64, where a process may trace its children; elsewhere the test is skipped with the reason.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import pytest


@dataclass(frozen=True)
class Written:
    """To a file of the directory. `durable`: the descriptor's writes return when they are on disk (O_DSYNC)."""

    name: str
    offset: int
    data: bytes
    durable: bool


@dataclass(frozen=True)
class Allocated(Written):
    """Zeros behind the end of a file, which nobody has written."""


@dataclass(frozen=True)
class Synced:
    """Everything that was written to this file before is on disk; of the directory itself, which is called ".", what
    its files are called."""

    name: str


@dataclass(frozen=True)
class Renamed:
    old: str
    new: str


@dataclass(frozen=True)
class Said:
    """A write to /dev/null: so the child tells where it is."""

    text: str


Call: TypeAlias = Written | Synced | Renamed | Said


@dataclass(frozen=True)
class _Numbers:
    """The system calls that are looked at. Of rename there are several; which arguments hold the two paths?"""

    write: int
    pwrite: int
    writev: int
    fallocate: int
    syncs: tuple[int, int]
    renames: Mapping[int, tuple[int, int]]


_MACHINES: Final = {
    "x86_64": _Numbers(1, 18, 20, 285, (74, 75), {82: (0, 1), 264: (1, 3), 316: (1, 3)}),
    "aarch64": _Numbers(64, 68, 66, 47, (82, 83), {38: (1, 3), 276: (1, 3)}),
}
_PATH_BYTES_MAX: Final = 4096
_SEIZE, _INTERRUPT, _SYSCALL, _GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_TRACE_SYSGOOD: Final = 1
_ENTRY, _EXIT = 1, 2
_INFO: Final = struct.Struct("<B3xIQQ7Q")  # struct ptrace_syscall_info: at the entry a number and six arguments
_VECTOR: Final = struct.Struct("<QQ")  # struct iovec
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def record(process: subprocess.Popen[bytes], directory: Path, go: Callable[[], None]) -> Iterator[Call]:
    """Every call once it has returned, until the child ends, which must be well; `go` is called when it is watched."""
    if platform.machine() not in _MACHINES:
        pytest.skip(f"the system calls of {platform.machine()} are not known here")
    try:
        _ptrace(_SEIZE, process.pid, 0, _TRACE_SYSGOOD)
        _ptrace(_INTERRUPT, process.pid)
    except OSError as error:
        process.kill()
        process.wait()
        pytest.skip(f"this process may not trace its children: {error}")
    go()
    yield from _Watch(process.pid, directory.resolve()).calls()
    process.returncode = 0  # it was waited for here


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class _Watch:
    """One child, from stop to stop."""

    def __init__(self, pid: int, directory: Path) -> None:
        self._pid = pid
        self._directory = directory
        self._numbers = _MACHINES[platform.machine()]
        self._asked: Call | None = None  # what the call that the child is in will have done

    def calls(self) -> Iterator[Call]:
        while (stop := self._next_stop()) is not None:
            if stop == _SYSCALL_STOP and (call := self._look()) is not None:
                yield call
            passed_on = 0 if stop in (_SYSCALL_STOP, signal.SIGTRAP, signal.SIGSTOP) else stop
            _ptrace(_SYSCALL, self._pid, 0, passed_on)

    def _next_stop(self) -> int | None:
        """The signal of the next stop; None at the end."""
        _, status = os.waitpid(self._pid, 0)
        if os.WIFSTOPPED(status):
            return os.WSTOPSIG(status)
        assert status == 0, f"the child that was watched ended with {os.waitstatus_to_exitcode(status)}"
        return None

    def _look(self) -> Call | None:
        """A call that has returned, if it is one of those that count."""
        buffer = ctypes.create_string_buffer(_INFO.size)
        _ptrace(_GET_SYSCALL_INFO, self._pid, _INFO.size, ctypes.addressof(buffer))
        kind, _, _, _, number, *arguments = _INFO.unpack(buffer.raw)
        if kind == _ENTRY:
            self._asked = self._what(number, arguments)
            return None
        asked, self._asked = self._asked, None
        if kind != _EXIT or asked is None:
            return None
        result = ctypes.c_int64(number).value  # at the exit the result stands where the number did
        whole = len(asked.data) if isinstance(asked, Written) and not isinstance(asked, Allocated) else result
        done = result == whole and result >= 0
        assert done, f"{type(asked).__name__} came back with {result}: a disk that does not fail is needed here"
        return asked

    def _what(self, number: int, arguments: list[int]) -> Call | None:
        if number in self._numbers.renames:
            old, new = (self._name(self._path(arguments[at])) for at in self._numbers.renames[number])
            return None if old is None or new is None else Renamed(old, new)
        if number in self._numbers.syncs:
            name = self._name(self._target(arguments[0]))
            return None if name is None else Synced(name)
        if number == self._numbers.fallocate:
            return self._allocate(*arguments[:4])
        if number in (self._numbers.write, self._numbers.pwrite, self._numbers.writev):
            return self._write(number, *arguments[:4])
        return None

    def _write(self, number: int, descriptor: int, address: int, size: int, offset: int) -> Call | None:
        target = self._target(descriptor)
        if target == os.devnull:
            return Said(self._memory(address, size).decode())
        if (name := self._name(target)) is None:
            return None
        at, durable = self._state(descriptor)
        if number == self._numbers.writev:
            return Written(name, at, b"".join(self._vectors(address, size)), durable)
        return Written(name, offset if number == self._numbers.pwrite else at, self._memory(address, size), durable)

    def _allocate(self, descriptor: int, mode: int, offset: int, size: int) -> Call | None:
        """What becomes of a file by it: zeros from its end on."""
        target = self._target(descriptor)
        if (name := self._name(target)) is None:
            return None
        assert mode == 0, f"fallocate with mode {mode} is not known here"
        end = os.stat(target).st_size
        return Allocated(name, end, bytes(max(0, offset + size - end)), durable=False)

    def _name(self, path: str) -> str | None:
        """What a path is called in the directory, "." for the directory itself; None outside of it."""
        if path == str(self._directory):
            return "."
        place, _, name = path.rpartition("/")
        return name if place == str(self._directory) else None

    def _target(self, descriptor: int) -> str:
        try:
            return os.readlink(f"/proc/{self._pid}/fd/{ctypes.c_int(descriptor).value}")
        except FileNotFoundError:
            return ""

    def _state(self, descriptor: int) -> tuple[int, bool]:
        """Where the descriptor stands in the file, and whether its writes are synced."""
        lines = Path(f"/proc/{self._pid}/fdinfo/{ctypes.c_int(descriptor).value}").read_text().splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(told["pos"]), bool(int(told["flags"], 8) & os.O_DSYNC)

    def _path(self, address: int) -> str:
        return os.fsdecode(self._memory(address, _PATH_BYTES_MAX, at_least=1).split(b"\0")[0])

    def _vectors(self, address: int, count: int) -> Iterator[bytes]:
        for base, size in _VECTOR.iter_unpack(self._memory(address, count * _VECTOR.size)):
            yield self._memory(base, size)

    def _memory(self, address: int, size: int, *, at_least: int | None = None) -> bytes:
        """What is there; fewer bytes, down to `at_least`, where the child's memory ends before."""
        with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            data = memory.read(size)
        if len(data) < (size if at_least is None else at_least):
            raise OSError(errno.EIO, f"{size} bytes at {address:#x} of the child, and only {len(data)} could be read")
        return data
