"""The file `health` of a data directory: what a program says of itself there, and what a look from outside makes of it.

A program writes it while its steps succeed, so that healthy means progress, not an open port: one that hangs in a
commit, waits for its disk, or was stopped while its sockets live, grows old.

Containers look every few seconds, each time with a process of its own, and so do it for as long as they live. So this
file knows neither machines nor drivers, and imports nothing but what is quick.
"""

import json
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

UNHEALTHY_AFTER_S: Final = 10.0
_FILE: Final = "health"
_FILE_BYTES: Final = 511


class Pulse(NamedTuple):
    """What the file says. Moments are those of the monotonic clock, which all processes of a machine share, and which
    nobody sets; `machine` tells one start of the machine from the next."""

    host: str
    machine: str
    stepped_at: float  # the end of the last step
    went_on_at: float  # the last moment at which there was a balancer, or something was committed
    alone_s_max: float | None  # how long that may be ago; None for who needs no balancer


def write_pulse(directory: Path, stepped_at: float, went_on_at: float, alone_s_max: float | None) -> None:
    """Writes in place and never shorter, so that it needs no new block of a full disk. Raises OSError."""
    pulse = Pulse(_host(), _machine(), stepped_at, went_on_at, alone_s_max)
    fd = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, json.dumps(pulse._asdict()).encode().ljust(_FILE_BYTES) + b"\n", 0)
    finally:
        os.close(fd)


def idle_alone_s_max(node_timeout_s: float) -> float:
    """How long a node may be idle without a balancer until it is not well: a balancer that is started again, or a link
    that was cut, is back before."""
    return max(UNHEALTHY_AFTER_S, node_timeout_s)


def health_problem(directory: Path, now: float | None = None) -> str | None:
    """What is wrong with the program that uses this directory, as seen from outside; None when it makes progress.
    Of `directory/*`, the one that ran last on this host."""
    pulses = [pulse for path in _health_files(directory) if (pulse := _read(path)) is not None]
    if not pulses:
        return f"nothing has run in {directory} yet"
    pulse = max(pulses, key=lambda pulse: (pulse.machine == _machine(), pulse.stepped_at))
    if pulse.machine != _machine():
        return f"nothing has run in {directory} since this machine was started"
    now = time.monotonic() if now is None else now
    hung_s = now - pulse.stepped_at
    if hung_s > UNHEALTHY_AFTER_S:
        return (
            f"no progress for {hung_s:.0f} s in {directory}; {UNHEALTHY_AFTER_S:.0f} s is allowed. It has ended, was "
            "stopped, or waits for its disk"
        )
    alone_s = now - pulse.went_on_at
    if pulse.alone_s_max is not None and alone_s > pulse.alone_s_max:
        return (
            f"no balancer for {alone_s:.0f} s, and nothing to do; {pulse.alone_s_max:.0f} s is allowed. "
            "It still takes jobs in"
        )
    return None


def _read(path: Path) -> Pulse | None:
    try:
        return Pulse(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _health_files(directory: Path) -> list[Path]:
    if directory.name != "*":
        return [directory / _FILE]
    found = [(path, _read(path)) for path in directory.parent.glob(f"*/{_FILE}")]
    return [path for path, pulse in found if pulse is not None and pulse.host == _host()]


def _host() -> str:
    return os.uname().nodename


def _machine() -> str:
    """An id of this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "?"
