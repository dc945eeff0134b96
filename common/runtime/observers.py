"""Observers of a driver: machines neither log nor count, so here is who does.

- Log: one line for each Note, which is something that an operator would act on; nothing per job.
- Health: a file that is written while steps succeed. A check from outside reads its age, so that healthy means
  progress, not an open port: a driver that hangs in a commit, or died while its sockets live, grows old.
"""

import os
import socket
import time
from pathlib import Path
from typing import Final

import structlog
import trio

from common.effects import Note
from common.runtime.driver import Step

HEALTH_PERIOD_S: Final = 1.0
UNHEALTHY_AFTER_S: Final = 10.0
_FILE: Final = "health"


class Log:
    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def __call__(self, step: Step) -> None:
        for action in step.effects.actions:
            if isinstance(action, Note):
                getattr(self._log, action.level)(action.event, **action.fields)


class Health:
    """Writes `<data dir>/health` after a step, at most once in HEALTH_PERIOD_S: the host that we run on, so that a
    check knows which of the directories of a shared volume is its own."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._next = 0.0

    def __call__(self, step: Step) -> None:
        if step.now >= self._next:
            self._next = step.now + HEALTH_PERIOD_S
            try:
                self._path.write_text(socket.gethostname())
            except OSError as error:  # a full disk is told of by the store; the check from outside will fail
                structlog.get_logger().warning("health.untouched", error=os.strerror(error.errno or 0))


def health_problem(directory: Path) -> str | None:
    """What is wrong with the program that uses this directory, as seen from outside; None when it makes progress.
    Of `directory/*`, the one that ran last on this host."""
    try:
        age_s = time.time() - max(path.stat().st_mtime for path in _health_files(directory))
    except (OSError, ValueError):
        return f"nothing has run in {directory} yet"
    if age_s > UNHEALTHY_AFTER_S:
        return f"no progress for {age_s:.0f} s in {directory}; {UNHEALTHY_AFTER_S:.0f} s is allowed"
    return None


def _health_files(directory: Path) -> list[Path]:
    if directory.name != "*":
        return [directory / _FILE]
    return [path for path in directory.parent.glob(f"*/{_FILE}") if path.read_text() == socket.gethostname()]


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
