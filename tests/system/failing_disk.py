"""`python -m tests.system.failing_disk KIND NTH PROGRAM …`: a program of ours whose disk fails at its nth commit.

The errors are the kernel's own: at that commit a filter is laid over the system calls of the thread that commits (a
seccomp filter, for which no right is needed), so that those of one kind come back with an error from then on:

    journal ... what appends a small commit to the journal: EIO
    write ..... what writes pages of records to LMDB: EIO
    sync ...... what waits for them to be on disk: EIO
    meta ...... what writes the page that makes them count: EIO
    quota ..... what writes pages of records: EDQUOT, while the disk has room
    limit ..... what would make the file longer: EFBIG (a limit of the process, no filter)
    passing ... what writes pages of records, where the commit itself is in the journal: EIO
    closing ... the same when the store is closed, whatever its nth commit was: EIO
    opening ... the same when it is opened, and LMDB gets what the journal has from before: EIO

But for the first and the last three, that commit is one that goes to LMDB, with everything that the journal has.
Nothing else of the program is changed; it is started by its own main.
"""

import ctypes
import errno
import os
import platform
import resource
import runpy
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from common.effects import Write
from common.runtime import journal
from common.runtime import store as stores
from common.runtime.store import Store
from common.runtime.tables import Tables

KINDS: Final = ("journal", "write", "sync", "meta", "quota", "limit", "passing")
CLOSING, OPENING = "closing", "opening"
MACHINES: Final = {  # the number of the architecture; pwrite64, writev, pwritev; fsync, fdatasync
    "x86_64": (0xC000003E, (18, 20, 296), (74, 75)),
    "aarch64": (0xC00000B7, (68, 66, 70), (82, 83)),
}
_NO_NEW_PRIVILEGES, _SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data


def fail(kind: str, directory: Path) -> None:
    """From now on, for this thread and one file."""
    path = (directory / (journal.FILE if kind == "journal" else "data.mdb")).resolve()
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size,) * 2)
        return
    _, writes, syncs = MACHINES[platform.machine()]
    numbers = syncs if kind == "sync" else writes
    error = errno.EDQUOT if kind == "quota" else errno.EIO
    for descriptor in _descriptors(path, durable=kind in ("journal", "meta")):
        _filter(numbers, descriptor, error)


def _descriptors(path: Path, *, durable: bool) -> list[int]:
    """Those of this process for this file whose writes are durable when they return, or not."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target, told = os.readlink(f"/proc/self/fd/{name}"), Path(f"/proc/self/fdinfo/{name}").read_text()
        except FileNotFoundError:
            continue  # it was that of the listing
        flags = next(int(line.split()[1], 8) for line in told.splitlines() if line.startswith("flags:"))
        if target == str(path) and bool(flags & os.O_DSYNC) is durable:
            found.append(int(name))
    assert found, f"{path} is not open"
    return found


def _filter(numbers: Sequence[int], descriptor: int, error: int) -> None:
    """The program of the filter: of this architecture, one of these calls, this descriptor → the error."""
    architecture, *_ = MACHINES[platform.machine()]
    through, found = len(numbers) + 3, len(numbers) + 4  # where the call is let through, and where it was found
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 0, through - 2, architecture), (_LOAD, 0, 0, _NUMBER_AT)]
    for number in numbers:
        program.append((_EQUAL, found - len(program) - 1, 0, number))
    program.append((_RETURN, 0, 0, _ALLOW))
    program += [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_EQUAL, 0, 1, descriptor)]
    program += [(_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    _install(b"".join(struct.pack("HBBI", *instruction) for instruction in program))


def _install(program: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    told = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _MODE_FILTER, ctypes.addressof(told), 0, 0)):
        if libc.prctl(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
            raise OSError(ctypes.get_errno(), f"prctl{arguments}: {os.strerror(ctypes.get_errno())}")


def main(kind: str, nth: int, program: str) -> None:
    commit, close, take_over, commits = Store.commit, Store.close, Tables._take_over_journal, 0

    def commit_on_a_failing_disk(store: Store, writes: Sequence[Write]) -> None:
        nonlocal commits
        commits += 1
        if commits == nth and kind in KINDS:
            if kind == "passing":
                stores.FREED_BYTES_MAX = -1  # type: ignore[misc]
            elif kind != "journal":
                journal.COMMIT_WRITES_MAX = 0  # type: ignore[misc]
            fail(kind, store.directory)
        commit(store, writes)

    def close_on_a_failing_disk(store: Store) -> None:
        if kind == CLOSING:
            fail(kind, store.directory)
        close(store)

    def take_over_on_a_failing_disk(tables: Tables, *arguments: Any) -> None:
        if kind == OPENING:
            fail(kind, tables._directory)
        take_over(tables, *arguments)

    Store.commit = commit_on_a_failing_disk  # type: ignore[method-assign]
    Store.close = close_on_a_failing_disk  # type: ignore[method-assign]
    Tables._take_over_journal = take_over_on_a_failing_disk  # type: ignore[method-assign]
    sys.argv = [program, *sys.argv[4:]]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
