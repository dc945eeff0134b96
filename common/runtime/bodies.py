"""The memory that the bodies of all clients of a node may take together, while they arrive and until they are on disk.

Each body has a limit of its own, but a thousand clients may each send one at once, or begin to and stop half-way. Who
would go beyond the sum waits a while for others to be done, which in a rush they soon are; then his body is not kept,
and he is told that there was no room. So nobody waits for one who has stopped, and the memory is bounded.
"""

from collections.abc import Hashable

import trio


class Bodies:
    """`most` bytes in all; one waits for `wait_s`."""

    def __init__(self, most: int, wait_s: float) -> None:
        self.most = most
        self._wait_s = wait_s
        self._held: dict[Hashable, int] = {}
        self._total = 0
        self._freed = trio.Event()

    @property
    def total(self) -> int:
        return self._total

    def hold(self, holder: Hashable, size_bytes: int) -> None:
        """So many bytes are held by one of the holders now."""
        change = size_bytes - self._held.get(holder, 0)
        if size_bytes:
            self._held[holder] = size_bytes
        else:
            self._held.pop(holder, None)
        self._total += change
        if change < 0 and self._total <= self.most:
            self._freed.set()
            self._freed = trio.Event()

    async def room(self) -> bool:
        """Whether there is room for more, or is in time."""
        with trio.move_on_after(self._wait_s):
            while self._total > self.most:
                await self._freed.wait()
        return self._total <= self.most
