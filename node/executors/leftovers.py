"""Ends what is left of an older boot, before its successor says hello.

A spawner kills its jobs when its node is gone; but it may itself have been killed, and then the jobs go on. They are
known by the mark in the environment they were started with, or by a directory below our scratch root, and with them
falls whoever shares a session with them.

Rules: only processes of our own user, never ourselves or one of our ancestors, and nothing of another node on the
same machine: the mark names the data directory by id and place, and a directory counts only if the process sees the
same directory there, and if nobody sits in front of it (a person looking at a job's files is no leftover).
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from node.executors.scratch import Scratch
from node.executors.surroundings import MARK, mark_of
from node.executors.table import TICKS_PER_S, Seen, everybody

LOCK_WAIT_S: Final = 5.0  # an old spawner kills and is gone in milliseconds, unless it is stopped or stuck
DEATH_WAIT_S: Final = 5.0  # from SIGKILL until the kernel has taken a process apart
POLL_S: Final = 0.01


def end_leftovers(scratch_root: Path, owner: str, begun: Mapping[int, int] | None = None) -> int:
    """Wait for an old spawner's end, kill what it has left, and empty the scratch root; how many were killed.

    `begun` adds session leaders that are known to be ours: pid → `now_ticks()` of when we heard of it. Blocks, for
    some ten seconds at worst. Raises OSError when the scratch root cannot be read or written.
    """
    _wait_for_lock(lock_path(scratch_root))
    hunt = _Hunt(os.path.realpath(scratch_root), owner, begun or {})
    ended = hunt.run()
    scratch = Scratch(Path(scratch_root))
    try:
        scratch.clear()
    finally:
        scratch.close()
    return ended


def lock_path(scratch_root: str | Path) -> Path:
    """The lock that a spawner holds while it lives."""
    return Path(scratch_root).parent / "spawner.lock"


def now_ticks() -> int:
    """The present moment on the clock of `Seen.started_ticks`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_S)


class _Hunt:
    """Looks and kills until a look finds nobody: between look and kill a process may have started another."""

    def __init__(self, scratch_root: str, owner: str, begun: Mapping[int, int]) -> None:
        self._scratch_root = scratch_root
        self._mark = f"{MARK}={mark_of(owner, scratch_root)}".encode()
        self._begun = begun
        self._killed: set[tuple[int, int]] = set()

    def run(self) -> int:
        deadline = time.monotonic() + DEATH_WAIT_S
        while self._pass() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return len(self._killed)

    def _pass(self) -> int:
        """Kill whoever is ours now; how many there were, those still dying included."""
        table = {seen.pid: seen for seen in everybody() if seen.lives}
        protected = _line_of(os.getpid(), table)
        ours = {seen.pid for seen in table.values() if self._is_ours(seen)}
        sessions = {table[pid].session for pid in ours} | self._begun_sessions(table)
        sessions.discard(os.getsid(0))
        found = [seen for seen in table.values() if seen.pid in ours or seen.session in sessions]
        found = [seen for seen in found if seen.pid not in protected]
        for seen in found:
            _kill(seen.pid)
            self._killed.add((seen.pid, seen.started_ticks))
        return len(found)

    def _is_ours(self, seen: Seen) -> bool:
        try:
            if os.stat(f"/proc/{seen.pid}").st_uid != os.geteuid():
                return False
            return self._has_mark(seen.pid) or (not seen.terminal and self._is_in_scratch(seen.pid))
        except OSError:
            return False  # it has just ended, or is not for us to look into

    def _has_mark(self, pid: int) -> bool:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return self._mark in file.read().split(b"\0")

    def _is_in_scratch(self, pid: int) -> bool:
        if not os.readlink(f"/proc/{pid}/cwd").startswith(self._scratch_root + "/"):
            return False
        theirs = os.stat(f"/proc/{pid}/root{self._scratch_root}")  # as seen in its container
        return os.path.samestat(theirs, os.stat(self._scratch_root))

    def _begun_sessions(self, table: Mapping[int, Seen]) -> set[int]:
        """The sessions of `begun`, but for numbers that were given to others after we had heard of them."""
        first: dict[int, int] = {}
        for seen in table.values():
            if seen.session in self._begun:
                first[seen.session] = min(seen.started_ticks, first.get(seen.session, seen.started_ticks))
        return {session for session, started in first.items() if started <= self._begun[session]}


def _line_of(pid: int, table: Mapping[int, Seen]) -> set[int]:
    """A process and its ancestors."""
    line: set[int] = set()
    while pid in table and pid not in line:
        line.add(pid)
        pid = table[pid].parent
    return line


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _wait_for_lock(path: Path) -> None:
    """Until no spawner holds it. One that is stuck (stopped, say) is killed in the end."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if _locked_within(file.fileno(), LOCK_WAIT_S):
            return
        file.seek(0)
        holder = file.read(20)
        if holder.isdigit() and _is_spawner(int(holder), path):
            _kill(int(holder))
            _locked_within(file.fileno(), DEATH_WAIT_S)


def _locked_within(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True


def _is_spawner(pid: int, lock: Path) -> bool:
    """Whether the number in the lock is that of a spawner of this directory, and not of another container's process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"node.executors.spawner" in words and any(os.fsencode(lock.parent) in word for word in words)
