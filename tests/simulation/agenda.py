"""Things to do at a moment of virtual time: what the virtual world does by itself, without a task for each of them."""

import math
from collections.abc import Callable
from heapq import heappop, heappush

import trio


class Agenda:
    """Calls at moments, made by one task: what the virtual world does by itself, without a task for each piece."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._sleep = trio.CancelScope()

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Calls of the same moment are made in the order in which they were asked for."""
        self._sequence += 1
        heappush(self._heap, (moment, self._sequence, call))
        if moment < self._sleep.deadline:
            self._sleep.deadline = moment

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(trio.current_time() + seconds, call)

    async def run(self) -> None:
        while True:
            self._sleep = trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf)
            with self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                heappop(self._heap)[2]()
