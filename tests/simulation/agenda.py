"""Things to do at a moment of virtual time: what the virtual world does by itself."""

from collections.abc import Callable

import trio

from tests.simulation.determinism import virtual_time


class Agenda:
    """The clock's agenda, for one world. What one of its calls raises goes to `failed`, since it is made by nobody's
    task; after that, or when the world is over, nothing more is done."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._is_over = False

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Calls of the same moment are made in the order in which they were asked for."""
        virtual_time().at(moment, lambda: self._make(call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(trio.current_time() + seconds, call)

    def end(self) -> None:
        self._is_over = True

    def _make(self, call: Callable[[], None]) -> None:
        if self._is_over:
            return
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the world
            self._failed(error)
