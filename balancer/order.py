"""The order of arrival: whose each sequence is, for a million jobs in about a megabyte.

Jobs of one origin that come one behind the other, as they do in batches, are a *run*: a few numbers for all of them.
Besides, each place has a byte that says whether it is still taken; those of the oldest and newest that have gone are
given back in time.

    sequences   100 101 102 103   │   104 105        two runs: (100, k3f7qa-7), (104, m2x9bc-31)
    tickets      -7  -8  -9 -10   │   -31 -32
    taken         0   1   1   0   │     1   1

Pure.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from common.model import parse_ticket, ticket

_FREE_MIN: Final = 4096  # places that were given up, before it pays to close the ranks
_TAKEN: Final = b"\1"


class Order:
    """Who arrived when, of those that have not been removed."""

    def __init__(self) -> None:
        self._sequences = array("Q")  # of the first of each run
        self._places = array("Q")  # its byte in `_taken`
        self._origins = array("I")  # whose run it is
        self._numbers = array("Q")  # of its ticket
        self._taken = bytearray()
        self._free = 0
        self._end = (0, 0)  # sequence and number with which another job of the last run's origin would go on with it
        self._prefixes: list[str] = []
        self._origin_of: dict[str, int] = {}

    def add(self, sequence: int, prefix: str, number: int, count: int = 1) -> None:
        """So many jobs have arrived with this and the next sequences, and with this and the next numbers."""
        assert sequence >= self._end[0], f"{prefix}-{number} arrives with {sequence}, before one that is here"
        origin = self._origin_of.get(prefix)
        if origin is None:
            origin = self._origin_of[prefix] = len(self._prefixes)
            self._prefixes.append(prefix)
        if self._end != (sequence, number) or self._origins[-1] != origin:
            self._begin(sequence, origin, number)
        self._taken += _TAKEN * count
        self._end = (sequence + count, number + count)

    def _begin(self, sequence: int, origin: int, number: int) -> None:
        self._sequences.append(sequence)
        self._places.append(len(self._taken))
        self._origins.append(origin)
        self._numbers.append(number)

    @property
    def last(self) -> int:
        """The highest sequence that anybody has arrived with; 0 before."""
        return max(0, self._end[0] - 1)

    # --- looking -------------------------------------------------------------------------------------------------

    def ticket(self, sequence: int) -> str | None:
        """Who arrived then; None where nobody did, or that is over."""
        run = bisect_right(self._sequences, sequence) - 1
        return None if run < 0 or not self._is_taken(run, sequence) else self._ticket(run, sequence)

    def _is_taken(self, run: int, sequence: int) -> bool:
        place = self._places[run] + sequence - self._sequences[run]
        return place < self._end_of(run) and bool(self._taken[place])

    def _end_of(self, run: int) -> int:
        return self._places[run + 1] if run + 1 < len(self._places) else len(self._taken)

    def _ticket(self, run: int, sequence: int) -> str:
        return ticket(self._prefixes[self._origins[run]], self._numbers[run] + sequence - self._sequences[run])

    def first_behind(self, sequence: int) -> int | None:
        """The next sequence that is taken. So they can be gone through while some are removed."""
        place = self._taken.find(_TAKEN, self._place(sequence + 1))
        return None if place < 0 else self._sequence(place)

    def last_before(self, sequence: int | None) -> int | None:
        """The one before it that is taken; the last of all before None."""
        place = self._taken.rfind(_TAKEN, 0, len(self._taken) if sequence is None else self._place(sequence))
        return None if place < 0 else self._sequence(place)

    def _place(self, sequence: int) -> int:
        """The first place of this sequence or a higher one."""
        run = bisect_right(self._sequences, sequence) - 1
        return 0 if run < 0 else min(self._places[run] + sequence - self._sequences[run], self._end_of(run))

    def _sequence(self, place: int) -> int:
        run = bisect_right(self._places, place) - 1
        return self._sequences[run] + place - self._places[run]

    def sequence_of(self, name: str) -> int | None:
        """When this ticket arrived. It is looked for in every run: for what seldom happens."""
        prefix, number = parse_ticket(name) or ("", 0)
        origin = self._origin_of.get(prefix)
        for run, of in enumerate(self._origins):
            sequence = self._sequences[run] + number - self._numbers[run]
            if of == origin and number >= self._numbers[run] and self._is_taken(run, sequence):
                return sequence
        return None

    def __len__(self) -> int:
        return len(self._taken) - self._free

    # --- leaving -------------------------------------------------------------------------------------------------

    def remove(self, sequence: int, name: str) -> bool:
        """Gives up the place of this ticket. False, and nothing changes, where it has not got it."""
        run = bisect_right(self._sequences, sequence) - 1
        if run < 0 or not self._is_taken(run, sequence) or self._ticket(run, sequence) != name:
            return False
        self.vacate((sequence,))
        return True

    def vacate(self, sequences: Iterable[int]) -> None:
        """Gives up these places, which are taken."""
        places, firsts, taken, run, end = self._places, self._sequences, self._taken, 0, 0
        for sequence in sequences:
            if not firsts[run] <= sequence < end:  # mostly they are of the same run as the one before
                run = bisect_right(firsts, sequence) - 1
                end = firsts[run + 1] if run + 1 < len(firsts) else self._end[0]
            place = places[run] + sequence - firsts[run]
            assert taken[place], f"{sequence} is given up twice"
            taken[place] = 0
            self._free += 1
        if self._free >= _FREE_MIN and self._free * 2 >= len(taken):
            self._close_up()

    def _close_up(self) -> None:
        """What is taken moves together. A run of which some have gone is as many as there are pieces left of it."""
        sequences, places, origins, numbers = self._sequences, self._places, self._origins, self._numbers
        ends, taken = (*places[1:], len(self._taken)), self._taken
        self._sequences, self._places, self._origins, self._numbers = array("Q"), array("Q"), array("I"), array("Q")
        self._taken = bytearray()
        for run, end in enumerate(ends):
            place = taken.find(_TAKEN, places[run], end)
            while place >= 0:
                gap = taken.find(b"\0", place, end)
                upto = end if gap < 0 else gap
                self._begin(sequences[run] + place - places[run], origins[run], numbers[run] + place - places[run])
                self._taken += _TAKEN * (upto - place)
                place = taken.find(_TAKEN, upto, end)
        self._free = 0
        self._end = (self._end[0], 0)  # whoever comes begins a run
