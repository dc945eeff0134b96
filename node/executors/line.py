"""What a spawner was told to start and has not begun, and the slots that decide when it may.

Rules: first come, first begun: who needs more slots than are free is not overtaken, or might wait for ever. What is
taken out to begin is counted where the node can read it, also when the spawner has died: so the node knows then what
cannot have begun.

Pure but for the `Tally`, which is a few bytes of memory that two processes share.
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from node.executors import Start

LONG: Final = 2  # attempts that wait, for each slot
_NUMBER: Final = struct.Struct("<Q")


class Tally:
    """A number that its writer sets, and that its reader can read after the writer's death."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)

    @classmethod
    def made(cls) -> "Tally":
        fd = os.memfd_create("tally")
        os.ftruncate(fd, mmap.PAGESIZE)
        return cls(fd)

    @property
    def number(self) -> int:
        (number,) = _NUMBER.unpack_from(self._memory)
        assert isinstance(number, int)
        return number

    @number.setter
    def number(self, number: int) -> None:
        _NUMBER.pack_into(self._memory, 0, number)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)


class Line:
    """Starts in the order in which they came. `moved_at` is when one was last taken out, or came to the front."""

    def __init__(self, slots: int, tally: Tally) -> None:
        self._slots = self._free = slots
        self._tally = tally
        self._waiting: deque[tuple[int, Start, float]] = deque()  # with its number, from 1, and since when
        self._last = self._taken = 0
        self.moved_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return self._free <= 0

    @property
    def is_long(self) -> bool:
        """Whether no slot will be free in the time that the node needs to send more."""
        return len(self._waiting) > LONG * self._slots

    @property
    def first(self) -> Start | None:
        return self._waiting[0][1] if self._waiting else None

    def waits_s(self, now: float) -> float:
        """How long the first has waited."""
        return now - self._waiting[0][2] if self._waiting else 0.0

    def add(self, start: Start, now: float) -> None:
        if not self._waiting:
            self.moved_at = now
        self._last += 1
        self._waiting.append((self._last, start, now))

    def put_back(self, starts: Sequence[Start], now: float) -> None:
        """These were taken out, and have not begun: they are the first again."""
        self.moved_at = now
        self._waiting.extendleft((0, start, now) for start in reversed(starts))

    def next(self, now: float) -> Start | None:
        """Take out the first, if there is room for it; it has its slots then."""
        first = self.first
        if first is None or first.slots > self._free:
            return None
        self.occupy(first)
        return self.take(now)

    def take(self, now: float) -> Start:
        """Take out the first, whether there is room or not."""
        self.count_first()
        self.moved_at = now
        return self._waiting.popleft()[1]

    def count_first(self) -> None:
        """From now on the first may begin, though it is still in line."""
        number = self._waiting[0][0]
        if number > self._taken:  # else it was put back
            self._tally.number = self._taken = number

    def occupy(self, start: Start) -> None:
        self._free -= start.slots

    def free(self, start: Start) -> None:
        self._free += start.slots

    def remove(self, id: tuple[str, int]) -> bool:
        """Whether it was in line, where it is no more."""
        for entry in self._waiting:
            if (entry[1].ticket, entry[1].attempt) == id:
                self._waiting.remove(entry)
                return True
        return False

    def clear(self) -> list[Start]:
        """Take out all: they will not begin."""
        waiting, self._waiting = self._waiting, deque()
        return [start for _, start, _ in waiting]

    def __len__(self) -> int:
        return len(self._waiting)
