"""Outcomes kept: a runner keeps how its attempts ended until the ledger has acknowledged it.

They are on disk, with the boot that ran them, so that an outcome survives its node's restart and the ledger can
still tell whether it is the one that it waits for.
"""

from collections.abc import Iterable

from common.codec import pack, unpack
from common.effects import Table
from common.memory import Memory
from common.messages import AttemptId, Pair, Reported
from common.model import Outcome, ticket_key, ticket_of
from node.held import Finished

_SCAN = 1000


class Outcomes:
    """The outcomes of this data directory that the ledger has not acknowledged."""

    def __init__(self, boot_id: str, memory: Memory) -> None:
        self._boot_id = boot_id
        self._memory = memory
        self._kept: dict[AttemptId, str] = {}  # → the boot that ran it
        self._by_ticket: dict[str, AttemptId] = {}
        self._with_output: set[AttemptId] = set()  # or perhaps
        self._on_disk_too: set[AttemptId] = set()  # or perhaps: kept a second time, behind what was written before

    def restore(self) -> None:
        after = b""
        while chunk := self._memory.scan(Table.OUTCOMES, after=after, limit=_SCAN):
            for key, packed in chunk:
                ticket = ticket_of(key[:-4])
                reported = unpack(Reported, packed)
                self._note((ticket, reported.attempt), reported.boot_id)
                self._with_output.add((ticket, reported.attempt))
            after = chunk[-1][0]

    def keep(self, finished: Iterable[Finished]) -> list[Pair]:
        """Keeps them from here on; returns them as they travel."""
        records, outputs = self._memory.writes_to(Table.OUTCOMES), self._memory.writes_to(Table.OUTCOME_OUTPUTS)
        pairs: list[Pair] = []
        record = b""
        before: tuple[int, Outcome] | None = None
        for done in finished:
            id, key = done.id, _key(done.id)
            ticket, attempt = id
            if (attempt, done.outcome) != before:  # those that slept for no time at all have all ended alike
                before = attempt, done.outcome
                record = pack(Reported(attempt, self._boot_id, done.outcome))
            if key in records or id in self._kept:
                self._on_disk_too.add(id)
            records[key] = record
            if done.output:
                outputs[key] = done.output
                self._with_output.add(id)
            self._note(id, self._boot_id)
            pairs.append(Pair(ticket, record, done.output))
        return pairs

    def _note(self, id: AttemptId, boot_id: str) -> None:
        self._kept[id] = boot_id
        self._by_ticket[id[0]] = id

    def acknowledged(self, ids: Iterable[AttemptId]) -> None:
        """The ledger has settled these: they need not be kept."""
        records, outputs = self._memory.writes_to(Table.OUTCOMES), self._memory.writes_to(Table.OUTCOME_OUTPUTS)
        for id in ids:
            if self._kept.pop(id, None) is None:
                continue
            if self._by_ticket.get(id[0]) == id:
                del self._by_ticket[id[0]]
            key = _key(id)
            if key in records and id not in self._on_disk_too:
                del records[key]  # it never came to the disk, and need not
                outputs.pop(key, None)
            else:
                records[key] = None
                if id in self._with_output:
                    outputs[key] = None
            self._with_output.discard(id)
            self._on_disk_too.discard(id)

    def pair(self, id: AttemptId) -> Pair:
        """The outcome as it travels."""
        key = _key(id)
        record = self._memory.get(Table.OUTCOMES, key)
        assert record is not None, f"the outcome of {id} is listed and not kept"
        return Pair(id[0], record, self._memory.get(Table.OUTCOME_OUTPUTS, key) or b"")

    def of(self, tickets: Iterable[str]) -> list[AttemptId]:
        """Those of these jobs whose outcome is here."""
        return [id for ticket in tickets if (id := self._by_ticket.get(ticket)) is not None]

    def all(self) -> list[AttemptId]:
        return list(self._kept)

    def listed(self) -> tuple[tuple[str, int, str], ...]:
        """For Holdings: what is kept, and which boot ran it."""
        return tuple((ticket, attempt, boot) for (ticket, attempt), boot in self._kept.items())

    def __contains__(self, id: object) -> bool:
        return id in self._kept

    def __len__(self) -> int:
        return len(self._kept)


def _key(id: AttemptId) -> bytes:
    return ticket_key(id[0]) + id[1].to_bytes(4, "big")
