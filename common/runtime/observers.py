"""Observers of a driver: machines neither log nor count, so here is who does.

- Log: one line for each Note, which is something that an operator would act on; nothing per job.
- Health: the file that is written while steps succeed (`common/runtime/pulse.py`), with moments of the machine's own
  clock. A node makes progress while it has a balancer or commits something.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from common.effects import Note
from common.events import LinkClosed, LinkOpened, Received
from common.runtime.driver import Step
from common.runtime.pulse import write_pulse

HEALTH_PERIOD_S: Final = 1.0


class Log:
    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def __call__(self, step: Step) -> None:
        for action in step.effects.actions:
            if isinstance(action, Note):
                getattr(self._log, action.level)(action.event, **action.fields)


class Health:
    """Writes `<data dir>/health` after a step, at most once in HEALTH_PERIOD_S. `alone_s_max`: of a node, how long
    it may be idle without a balancer."""

    def __init__(
        self,
        directory: Path,
        alone_s_max: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
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
                self._next = now  # the file must not say for another second that there is none
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
        alone_since = self._went_on_at if self._link is None else now  # a link that is silent for too long is closed
        try:
            write_pulse(self._directory, now, alone_since, self._alone_s_max)
        except OSError as error:  # the check from outside will fail
            structlog.get_logger().warning("health.untouched", problem=os.strerror(error.errno or 0))


def tell_quarantined(table: str, key: bytes) -> None:
    """Logs a record that the store has set aside."""
    structlog.get_logger().error("record.quarantined", table=table, key=key.hex())


def write_address(directory: Path, listener: trio.SocketListener, file: str = "address") -> str:
    """Tells where we listen in a file of the data directory, as `host:port` and LF; returns it without the LF."""
    host, port = listener.socket.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    temporary = directory / f"{file}.new"
    temporary.write_text(address + "\n")
    temporary.replace(directory / file)
    return address
