"""Deadlines by name: what is due, and when to look again. Pure; moments are the caller's monotonic seconds."""

import heapq
from collections.abc import Hashable


class Timers:
    """Named deadlines. Setting a name again moves it; a cancelled or moved entry is skipped when it comes up."""

    def __init__(self) -> None:
        self._at: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._sequence = 0

    def set(self, name: Hashable, at: float) -> None:
        self._at[name] = at
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, name))
        if len(self._heap) > 64 + 4 * len(self._at):
            self._compact()

    def at(self, name: Hashable) -> float | None:
        """When this is due; None where it is not set."""
        return self._at.get(name)

    def cancel(self, name: Hashable) -> None:
        self._at.pop(name, None)

    def due(self, now: float) -> list[Hashable]:
        """Takes out and returns every name whose moment has come, the earliest first."""
        names: list[Hashable] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, name = heapq.heappop(self._heap)
            if self._at.get(name) == at:
                del self._at[name]
                names.append(name)
        return names

    def next(self) -> float | None:
        """The earliest moment, or None when nothing is set."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def __contains__(self, name: Hashable) -> bool:
        return name in self._at

    def __len__(self) -> int:
        return len(self._at)

    def _compact(self) -> None:
        self._heap = [(at, sequence, name) for at, sequence, name in self._heap if self._at.get(name) == at]
        heapq.heapify(self._heap)
