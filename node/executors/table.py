"""The process table as /proc shows it: who lives, in whose session, and what they use.

Rules: looking only, nothing here sends a signal. A look at everybody costs some ten microseconds for each process of
the machine; so whoever looks again and again keeps a `Table`, which skips those who are surely somebody else's, and
asks a `Pulse`, in two microseconds, whether there is anything to look for.
"""

import os
from collections.abc import Collection, Iterator
from typing import Final

import attrs

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
STAT_BYTES: Final = 1024  # of /proc/PID/stat: 52 numbers and a name of 64 bytes at most
DEAD: Final = frozenset({b"Z", b"X"})


@attrs.frozen
class Seen:
    """A process at one moment."""

    pid: int
    state: bytes
    parent: int
    group: int
    session: int
    terminal: int  # 0: none
    cpu_ticks: int  # its own, and those of the children that it has waited for
    started_ticks: int  # since the machine booted
    resident_bytes: int  # pages that it shares with others are counted in full

    @property
    def lives(self) -> bool:
        """A zombie does not, though it still takes a number."""
        return self.state not in DEAD


def everybody() -> Iterator[Seen]:
    """Every process that we may see, zombies included."""
    for pid in _pids():
        seen = look_at(pid)
        if seen is not None:
            yield seen


def look_at(pid: int) -> Seen | None:
    """None where there is no such process (any more)."""
    data = _read(f"/proc/{pid}/stat")
    if not data:
        return None
    fields = data.rpartition(b")")[2].split()  # the name before it may hold anything
    state, parent, group, session, terminal = fields[:5]
    return Seen(
        pid,
        state,
        int(parent),
        int(group),
        int(session),
        int(terminal),
        sum(map(int, fields[11:15])),
        int(fields[19]),
        int(fields[21]) * PAGE_BYTES,
    )


def proportional_bytes(pid: int) -> int | None:
    """Its resident memory, of shared pages only its share; None where the kernel does not tell. Takes long: up to
    a tenth of a second for each GiB."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


@attrs.frozen
class Beat:
    """What the kernel says of all processes in one short line."""

    threads: int  # alive now, of all processes of the machine: an upper bound for anybody's
    last_pid: int  # numbers are given in a circle, to processes and to threads


NO_BEAT: Final = Beat(0, 0)


class Pulse:
    """/proc/loadavg, kept open. Where it cannot be read, or tells something else, every beat is NO_BEAT."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/loadavg", os.O_RDONLY)
        except OSError:
            self._fd = -1

    def beat(self) -> Beat:
        try:
            _, _, _, threads, last_pid = os.pread(self._fd, 128, 0).split()
            return Beat(int(threads.partition(b"/")[2]), int(last_pid))
        except (OSError, ValueError):
            return NO_BEAT


class Table:
    """Looks at certain sessions again and again.

    Nobody can enter a session but by being born in it; so whoever was once seen in another is never looked at again,
    as long as his number has not been given to somebody new: numbers are given in a circle, so those given since
    the last look are known. Looks must follow each other within seconds, or the circle may have been run through:
    `forget` after a pause.
    """

    def __init__(self) -> None:
        self._others: set[int] = set()
        self._last_pid = 0

    def forget(self) -> None:
        self._others.clear()

    def newest(self, beat: Beat, count: int) -> Iterator[Seen]:
        """Who lives of the last numbers given; of processes, and of threads, which look the same here."""
        for pid in range(beat.last_pid, max(0, beat.last_pid - count), -1):
            seen = look_at(pid)
            if seen is not None and seen.lives:
                yield seen

    def members(self, sessions: Collection[int], beat: Beat) -> dict[int, list[Seen]]:
        """Who is in these sessions, zombies included. `sessions` holds every one that may ever be asked for."""
        known = self._others if beat.last_pid else frozenset()
        others: set[int] = set()
        found: dict[int, list[Seen]] = {}
        for pid in _pids():
            if pid in known and not _given_since(pid, self._last_pid, beat.last_pid):
                others.add(pid)
            elif (seen := look_at(pid)) is not None:
                if seen.session in sessions:
                    found.setdefault(seen.session, []).append(seen)
                else:
                    others.add(pid)
        self._others, self._last_pid = others, beat.last_pid
        return found


def _given_since(pid: int, before: int, now: int) -> bool:
    """Whether a number lies on the arc of the circle from `before` (exclusive) to `now`."""
    return before < pid <= now if before <= now else pid > before or pid <= now


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _read(path: str) -> bytes:
    """What one read gives; empty where the process has gone or is not for us to look into."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, STAT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
