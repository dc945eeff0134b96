"""Arrays: one ticket that stands for a job for each index of a range, `1-1000`, `0-99:3`, `1-100000%50`.

An element is its array's ticket and its index, `k3f7qa-1_7`. It is the same job with `{}` in the line replaced by the
index, which is also `JOBYARD_INDEX` in its environment. Pure.
"""

import functools
import re
from typing import Final

import attrs

from common.errors import shown
from common.limits import ARRAY_ELEMENTS_MAX, ARRAY_INDEX_MAX

_RANGE: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})(?::([0-9]{1,9}))?(?:%([0-9]{1,9}))?")
_PLACEHOLDER: Final = "{}"


@attrs.frozen
class Indexes:
    """The indexes of an array, in order, and how many of its elements may be under way at once (None: any)."""

    first: int
    last: int
    step: int = 1
    at_once_max: int | None = None

    def __len__(self) -> int:
        return (self.last - self.first) // self.step + 1

    def __contains__(self, index: int) -> bool:
        return self.first <= index <= self.last and (index - self.first) % self.step == 0

    def at(self, position: int) -> int:
        """The index at a position, from 0."""
        assert 0 <= position < len(self), f"{self} has no position {position}"
        return self.first + position * self.step

    def position(self, index: int) -> int:
        """Where an index stands, from 0."""
        assert index in self, f"{index} is none of {self}"
        return (index - self.first) // self.step


@functools.lru_cache(maxsize=1024)
def parse_indexes(text: str) -> Indexes:
    """Raises ValueError with a sentence that says what is allowed."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is no range of indexes; write it like 1-1000, 0-99:3 or 1-1000%50")
    first, last = int(match[1]), int(match[2])
    step = 1 if match[3] is None else int(match[3])
    at_once_max = None if match[4] is None else int(match[4])
    if first > last or not step or at_once_max == 0:
        raise ValueError(f"{shown(text)} holds no index; first-last:step%most goes upwards, with step and most from 1")
    indexes = Indexes(first, last, step, at_once_max)
    if len(indexes) > ARRAY_ELEMENTS_MAX or last > ARRAY_INDEX_MAX:
        raise ValueError(f"{shown(text)} has {len(indexes)} indexes; {ARRAY_ELEMENTS_MAX} are allowed")
    return indexes


def line_of(line: str, index: int | None) -> str:
    """The line of a job, as its element with this index runs it."""
    return line if index is None else line.replace(_PLACEHOLDER, str(index))
