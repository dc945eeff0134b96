"""Outcomes kept: a runner keeps how its attempts ended until the ledger has acknowledged it.

They are on disk, with the boot that ran them, so that an outcome survives its node's restart and the ledger can
still tell whether it is the one that it waits for.
"""

from collections.abc import Iterable

import msgspec

from common.codec import pack, unpack
from common.effects import Table
from common.memory import Memory
from common.messages import AttemptId, Pair, Reported
from common.model import Outcome, fresh_key, ticket_of
from node.held import Finished

_SCAN = 1000


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What is known of an outcome beside its record."""

    boot_id: str  # the boot that ran it
    key: bytes
    has_output: bool  # or may have: of what an earlier boot has kept, that is not known
    is_on_disk: bool  # or may be, though what is written of it was not committed yet: it was kept before


class Outcomes:
    """The outcomes of this data directory that the ledger has not acknowledged."""

    def __init__(self, boot_id: str, memory: Memory) -> None:
        self._boot_id = boot_id
        self._memory = memory
        self._kept: dict[AttemptId, Kept] = {}
        self._by_ticket: dict[str, AttemptId] = {}

    def restore(self) -> None:
        after = b""
        while chunk := self._memory.scan(Table.OUTCOMES, after=after, limit=_SCAN):
            for key, packed in chunk:
                ticket = ticket_of(key[:-4])
                reported = unpack(Reported, packed)
                id = (ticket, reported.attempt)
                self._kept[id] = Kept(reported.boot_id, key, has_output=True, is_on_disk=True)
                self._by_ticket[ticket] = id
            after = chunk[-1][0]

    def keep(self, finished: Iterable[Finished]) -> list[Pair]:
        """Keeps them from here on; returns them as they travel."""
        records, outputs = self._memory.writes_to(Table.OUTCOMES), self._memory.writes_to(Table.OUTCOME_OUTPUTS)
        kept, by_ticket, boot_id = self._kept, self._by_ticket, self._boot_id
        pairs: list[Pair] = []
        record = b""
        before: tuple[int, Outcome] | None = None
        for done in finished:
            id = ticket, attempt = done.id
            if (attempt, done.outcome) != before:  # those that slept for no time at all have all ended alike
                before = attempt, done.outcome
                record = pack(Reported(attempt, boot_id, done.outcome))
            key, former = _key(id), kept.get(id)
            has_output = bool(done.output) or (former is not None and former.has_output)
            kept[id] = Kept(boot_id, key, has_output, former is not None or key in records)
            by_ticket[ticket] = id
            records[key] = record
            if done.output:
                outputs[key] = done.output
            pairs.append(Pair(ticket, record, done.output))
        return pairs

    def acknowledged(self, ids: Iterable[AttemptId]) -> None:
        """The ledger has settled these: they need not be kept."""
        records, outputs = self._memory.writes_to(Table.OUTCOMES), self._memory.writes_to(Table.OUTCOME_OUTPUTS)
        for id in ids:
            kept = self._kept.pop(id, None)
            if kept is None:
                continue
            if self._by_ticket.get(id[0]) == id:
                del self._by_ticket[id[0]]
            if kept.key in records and not kept.is_on_disk:
                del records[kept.key]  # it never came to the disk, and need not
                outputs.pop(kept.key, None)
            else:
                records[kept.key] = None
                if kept.has_output:
                    outputs[kept.key] = None

    def pair(self, id: AttemptId) -> Pair:
        """The outcome as it travels. Where its output is damaged and set aside, zeros of the same length stand for it:
        how the attempt has ended is known all the same."""
        key = _key(id)
        record = self._memory.get(Table.OUTCOMES, key)
        assert record is not None, f"the outcome of {id} is listed and not kept"
        outcome = unpack(Reported, record).outcome
        size = outcome.stdout_bytes + outcome.stderr_bytes
        output = self._memory.get(Table.OUTCOME_OUTPUTS, key) if size else b""
        return Pair(id[0], record, bytes(size) if output is None else output)

    def of(self, tickets: Iterable[str]) -> list[AttemptId]:
        """Those of these jobs whose outcome is here."""
        return [id for ticket in tickets if (id := self._by_ticket.get(ticket)) is not None]

    def all(self) -> list[AttemptId]:
        return list(self._kept)

    def listed(self) -> tuple[tuple[str, int, str], ...]:
        """For Holdings: what is kept, and which boot ran it."""
        return tuple((ticket, attempt, kept.boot_id) for (ticket, attempt), kept in self._kept.items())

    def __contains__(self, id: object) -> bool:
        return id in self._kept

    def __len__(self) -> int:
        return len(self._kept)


def _key(id: AttemptId) -> bytes:
    return fresh_key(id[0]) + id[1].to_bytes(4, "big")
