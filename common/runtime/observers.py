"""Observers of a driver: machines neither log nor count, so here is who does.

- Log: one line for each Note, which is something that an operator would act on; nothing per job.
- Health: a file that is written while steps succeed, with moments of the machine's own clock. A check from outside
  reads it, so that healthy means progress, not an open port: a driver that hangs in a commit, waits for its disk, or
  was stopped while its sockets live, grows old. A node makes progress while it has a balancer or commits something.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from common.effects import Note
from common.events import LinkClosed, LinkOpened, Received
from common.runtime.driver import Step

HEALTH_PERIOD_S: Final = 1.0
UNHEALTHY_AFTER_S: Final = 10.0
_FILE: Final = "health"
_FILE_BYTES: Final = 511


class Log:
    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def __call__(self, step: Step) -> None:
        for action in step.effects.actions:
            if isinstance(action, Note):
                getattr(self._log, action.level)(action.event, **action.fields)


@attrs.frozen
class Pulse:
    """What the file says. Moments are those of the monotonic clock, which all processes of a machine share, and which
    nobody sets; `machine` tells one start of the machine from the next."""

    host: str
    machine: str
    stepped_at: float  # the end of the last step
    went_on_at: float  # the last moment at which there was a balancer, or something was committed
    alone_s_max: float | None  # how long that may be ago; None for who needs no balancer


class Health:
    """Writes `<data dir>/health` after a step, at most once in HEALTH_PERIOD_S. `alone_s_max`: of a node, how long
    it may be idle without a balancer."""

    def __init__(
        self,
        directory: Path,
        alone_s_max: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / _FILE
        self._alone_s_max = alone_s_max
        self._clock = clock
        self._went_on_at = clock()  # something was heard or committed
        self._link: int | None = None
        self._next = 0.0

    def __call__(self, step: Step) -> None:
        now = self._clock()
        for event in step.events:
            if isinstance(event, LinkOpened):
                self._link = event.link
            elif isinstance(event, LinkClosed) and event.link == self._link:
                self._link = None
            if isinstance(event, LinkOpened | Received):
                self._went_on_at = now
        if step.effects.writes:
            self._went_on_at = now
        if now >= self._next:
            self._next = now + HEALTH_PERIOD_S
            self._write(now)

    def _write(self, now: float) -> None:
        """In place and never shorter, so that it needs no new block of a full disk."""
        alone_since = self._went_on_at if self._link is None else now  # a link that is silent for too long is closed
        pulse = Pulse(socket.gethostname(), _machine(), now, alone_since, self._alone_s_max)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, json.dumps(attrs.asdict(pulse)).encode().ljust(_FILE_BYTES) + b"\n", 0)
            finally:
                os.close(fd)
        except OSError as error:  # the check from outside will fail
            structlog.get_logger().warning("health.untouched", error=os.strerror(error.errno or 0))


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


def _machine() -> str:
    """An id of this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "?"


def _health_files(directory: Path) -> list[Path]:
    if directory.name != "*":
        return [directory / _FILE]
    found = [(path, _read(path)) for path in directory.parent.glob(f"*/{_FILE}")]
    return [path for path, pulse in found if pulse is not None and pulse.host == socket.gethostname()]


def tell_quarantined(table: str, key: bytes) -> None:
    """Logs a record that the store has set aside."""
    structlog.get_logger().error("record.quarantined", table=table, key=key.hex())


def write_address(directory: Path, listener: trio.SocketListener) -> str:
    """Tells where we listen in `<data dir>/address`, as `host:port` and LF; returns it without the LF."""
    host, port = listener.socket.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    temporary = directory / "address.new"
    temporary.write_text(address + "\n")
    temporary.replace(directory / "address")
    return address
