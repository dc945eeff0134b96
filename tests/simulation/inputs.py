"""Inputs: what every attempt is started with is known, because it is known what every attempt has printed.

began .... with exactly what the recorded attempts of its inputs have printed, in their order
goes ..... nothing that a live job still wants
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from common.arrays import parse_indexes
from common.effects import Table
from common.model import Ended, array_of, element, ticket_of
from tests.simulation.records import Asked, Changes, Disk, must


class Model(Protocol):
    """What the auditor knows."""

    ends: dict[str, dict[int, Ended]]

    @property
    def ledger(self) -> Disk: ...

    def first_name(self, ticket: str) -> str: ...

    def job(self, ticket: str) -> Asked: ...


class Inputs:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._printed: dict[tuple[str, int], bytes] = {}  # by attempt
        self.given_total = 0  # inputs that were not empty

    def printed(self, attempt: tuple[str, int], stdout: bytes) -> None:
        self._printed[attempt] = stdout

    def given(self, ticket: str, attempt: int, stdin: bytes) -> None:
        """An attempt has begun; clients send no bodies."""
        expected = b"".join(map(self._output, self._sources(ticket)))
        must(stdin == expected, f"{ticket}.{attempt} was given {stdin!r}, and its inputs have printed {expected!r}")
        self.given_total += bool(stdin)

    def _sources(self, ticket: str) -> Iterator[str]:
        """The jobs whose outputs it reads, one by one."""
        for name in map(self._model.first_name, self._model.job(ticket).inputs):
            array = self._model.job(name).array if array_of(name) == name else None
            if array is None:
                yield name
            else:
                indexes = parse_indexes(array)
                yield from (element(name, indexes.at(position)) for position in range(len(indexes)))

    def _output(self, ticket: str) -> bytes:
        ends: Mapping[int, Ended] = self._model.ends.get(ticket, {})
        must(bool(ends), f"{ticket} is read, and has not ended")
        last = ends[max(ends)]
        return self._printed.get((ticket, last.attempt), b"")

    def goes(self, ticket: str, changes: Changes) -> None:
        """An end leaves the ledger's disk, by FORGET or because it has expired."""
        for key in self._model.ledger.tables[Table.LIVE]:
            if changes.get((Table.LIVE, key), b"") is None:
                continue
            names = map(self._model.first_name, self._model.job(ticket_of(key)).inputs)
            wanted = array_of(ticket) in map(array_of, names)
            must(not wanted, f"the ledger lets {ticket} go, and {ticket_of(key)} wants what it has printed")
