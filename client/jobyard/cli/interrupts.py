"""Ctrl-C and SIGTERM, where something has to be done about them before we go.

Inside the `with` each of them raises Stopped, but the first one not inside `held()`: there it is remembered, and
raised at its end, so that what must not be cut in two is not. A second one is raised wherever we are.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self

from jobyard.cli.exits import SIGNAL

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """We were told to stop. `exit_code` is what our own should be."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = SIGNAL + number


class Interrupts:
    def __init__(self) -> None:
        self.number: int | None = None  # of the first signal
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._on_signal) for each in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        self.number = number
        if not (first and self._held):
            raise Stopped(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.number is not None:
            raise Stopped(self.number)
