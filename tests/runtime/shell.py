"""The command `jobyard` in this process, as a shell would call it, and what it printed."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from jobyard import cli


class Shell:
    """Standard output and standard error are real descriptors, so bytes are bytes."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture
        self.out = self.err = b""

    def __call__(self, url: str, *words: str) -> int:
        code = cli.main(["--url", url, *words])
        self.out, self.err = self._capture.readouterr()
        return code

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


def interrupted(when: Callable[[], None], number: signal.Signals = signal.SIGINT) -> threading.Thread:
    """A thread that sends this process a signal once `when` returns; it is started."""

    def press() -> None:
        when()
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=press)
    thread.start()
    return thread
