"""The inputs of `map`: after `:::`, in files after `::::` or of `-a`, or on standard input.

Several sources make every combination of theirs, the last changing fastest. Standard input is read as it comes, so
that `tail -f names | jobyard map …` begins with the first line; all others are there at once.
"""

import io
import itertools
import math
import os
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

READ_BYTES: Final = 1 << 16
STANDARD_INPUT: Final = "-"
_MARKS: Final = {":::": False, "::::": True}  # whether files follow

Args = tuple[str, ...]  # what one job gets


class Inputs(Protocol):
    """`width` is how many inputs a job has, `total` how many jobs there will be, where that is known."""

    width: int
    total: int | None

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will come."""

    def take(self, count_max: int, patience_s: float | None) -> list[Args]:
        """The inputs of the next jobs, as many as are there. Waits at most so long for the first; None: for ever."""


class Command(NamedTuple):
    """The words of `map`, taken apart."""

    template: str
    sources: tuple[tuple[str, ...], ...]  # none: standard input


def taken_apart(words: Sequence[str], files: Sequence[str], delimiter: bytes) -> Command:
    """The command before the first `:::` or `::::`, and what follows each of them. `files` are sources too."""
    at = next((place for place, word in enumerate(words) if word in _MARKS), len(words))
    sources = [lines_of(path, delimiter) for path in files]
    while at < len(words):
        end = next((place for place in range(at + 1, len(words)) if words[place] in _MARKS), len(words))
        if _MARKS[words[at]]:
            sources += (lines_of(path, delimiter) for path in words[at + 1 : end])
        else:
            sources.append(tuple(words[at + 1 : end]))
        at = end
    first = next((place for place, word in enumerate(words) if word in _MARKS), len(words))
    return Command(" ".join(words[:first]), tuple(sources))


def lines_of(path: str, delimiter: bytes) -> tuple[str, ...]:
    """All lines of a file."""
    if path == STANDARD_INPUT:
        return _split(sys.stdin.buffer.read(), delimiter)
    with open(path, "rb") as file:
        return _split(file.read(), delimiter)


def _split(data: bytes, delimiter: bytes) -> tuple[str, ...]:
    return tuple(map(os.fsdecode, data.removesuffix(delimiter).split(delimiter))) if data else ()


def inputs_of(command: Command, per_job: int | None, delimiter: bytes) -> Inputs:
    """Raises ValueError where the two ways to give a job several inputs are mixed."""
    if len(command.sources) > 1 and per_job is not None:
        raise ValueError("--max-args takes inputs of one source, and there are several")
    if command.sources:
        return Listed(command.sources, per_job or 1)
    try:
        return Streamed(sys.stdin.fileno(), per_job or 1, delimiter)
    except io.UnsupportedOperation:  # of a standard input that is no file
        return Listed((_split(sys.stdin.buffer.read(), delimiter),), per_job or 1)


class Listed:
    """Inputs that are all there."""

    def __init__(self, sources: Sequence[Sequence[str]], per_job: int) -> None:
        combinations = math.prod(map(len, sources))
        self.width = per_job if len(sources) == 1 else len(sources)
        self.total: int | None = -(-combinations // per_job)
        self.exhausted = not self.total
        self._left = self.total
        self._args = _chunks(sources[0], per_job) if len(sources) == 1 else itertools.product(*sources)

    def take(self, count_max: int, patience_s: float | None) -> list[Args]:
        taken = list(itertools.islice(self._args, count_max))
        self._left -= len(taken)
        self.exhausted = not self._left
        return taken


def _chunks(source: Iterable[str], size: int) -> Iterator[Args]:
    left = iter(source)
    while chunk := tuple(itertools.islice(left, size)):
        yield chunk


class Streamed:
    """Inputs that come when they come. Reads the descriptor itself: a buffer between would hide what is there."""

    total: int | None = None

    def __init__(self, descriptor: int, per_job: int, delimiter: bytes) -> None:
        self.width = per_job
        self._descriptor = descriptor
        self._delimiter = delimiter
        self._lines: list[bytes] = []  # the last is not complete before the end
        self._ended = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @property
    def exhausted(self) -> bool:
        return self._ended and not self._lines

    def take(self, count_max: int, patience_s: float | None) -> list[Args]:
        while not self._ended and self._complete < count_max and self._is_there(0.0 if self._complete else patience_s):
            self._read()
        count = min(self._complete, count_max)
        lines, self._lines = self._lines[: count * self.width], self._lines[count * self.width :]
        return list(_chunks(map(os.fsdecode, lines), self.width))

    @property
    def _complete(self) -> int:
        """Jobs that there are inputs for."""
        if self._ended:
            return -(-len(self._lines) // self.width)
        return max(len(self._lines) - 1, 0) // self.width

    def _is_there(self, patience_s: float | None) -> bool:
        return bool(self._poll.poll(None if patience_s is None else patience_s * 1000))

    def _read(self) -> None:
        data = os.read(self._descriptor, READ_BYTES)
        if data:
            first, *others = data.split(self._delimiter)
            self._lines[-1:] = [(self._lines[-1] if self._lines else b"") + first, *others]
        else:
            self._ended = True
            if self._lines and not self._lines[-1]:
                self._lines.pop()  # what follows the last line's end
