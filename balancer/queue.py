"""The jobs that wait for a node: the highest priority first, then the one that arrived first.

Jobs that need the same of a node (its kind allowed, as many slots) stand in one line, so that a round looks at the
head of each line and never walks past a thousand jobs that no node can take. An entry is not removed when its job is
cancelled; whoever pops it sees that the job no longer waits.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Needs: TypeAlias = tuple[str, int]
Place: TypeAlias = tuple[int, int, str]  # (-priority, order of arrival, ticket)


class Queue:
    def __init__(self) -> None:
        self._lines: dict[Needs, list[Place]] = {}

    def push(self, needs: Needs, priority: int, sequence: int, ticket: str) -> None:
        heapq.heappush(self._lines.setdefault(needs, []), (-priority, sequence, ticket))

    def heads(self) -> list[tuple[Place, Needs]]:
        """The first of each line, the most urgent line first."""
        return sorted((line[0], needs) for needs, line in self._lines.items())

    def head(self, needs: Needs) -> str | None:
        """The ticket of the first of a line."""
        line = self._lines.get(needs)
        return line[0][2] if line else None

    def pop(self, needs: Needs) -> str:
        """Takes the first of a line out."""
        line = self._lines[needs]
        _, _, ticket = heapq.heappop(line)
        if not line:
            del self._lines[needs]
        return ticket

    def lines(self) -> list[Needs]:
        return list(self._lines)

    def ahead_of(self, place: Place, lines: Iterable[Needs]) -> Iterator[str]:
        """The tickets in these lines that stand before a place, in no order. Looks at every job in them."""
        for needs in lines:
            yield from (other[2] for other in self._lines.get(needs, ()) if other < place)

    def __bool__(self) -> bool:
        return bool(self._lines)
