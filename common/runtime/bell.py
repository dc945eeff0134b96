"""An event that happens more than once."""

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """An event that can be rung again; for one waiter."""

    _event: trio.Event = attrs.field(factory=trio.Event, init=False)

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()
