"""An event that happens more than once."""

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """An event that can be rung again; for one waiter. Each connection has one, so it is small: while nobody rings it
    holds a flag and a task."""

    _rung: bool = attrs.field(default=False, init=False)
    _waiter: trio.lowlevel.Task | None = attrs.field(default=None, init=False)

    def ring(self) -> None:
        self._rung = True
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter)

    async def wait(self) -> None:
        """Returns at once where it was rung since the last time."""
        assert self._waiter is None, "a bell is for one waiter"
        if self._rung:
            await trio.lowlevel.checkpoint()
        else:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._gave_up)
        self._rung = False

    def _gave_up(self, _: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED
