"""What holds in the end: nothing breaks any more, a balancer is there and nodes are connected to it, and some time has
passed. Then every job has ended, and nothing is left over that somebody would still have to hear of.

Where a node is gone for ever with its disk, what only it held is excused, exactly as `docs/guarantees.md` says: jobs of
its own that the ledger had not acknowledged, who waits for one of those, and what it would have had to note.
"""

from collections.abc import Collection, Iterator

import msgspec

from common.arrays import parse_indexes
from common.codec import glance, unpack
from common.effects import Table
from common.model import Ended, State, array_of, index_of, ticket_of
from tests.simulation.auditor import Auditor
from tests.simulation.records import BALANCER, Disk, key_of, must
from tests.simulation.told import Told


class _Claim(msgspec.Struct):
    """What matters here of whose a key is."""

    ticket: str


class Ending:
    def __init__(self, auditor: Auditor, told: Told, nodes: Collection[str], gone: Collection[str]) -> None:
        self._auditor = auditor
        self._told = told
        self._gone = set(gone)
        self._nodes = [name for name in nodes if name not in self._gone]

    # --- what is still to come ---------------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[str]:
        """What has still to happen, in words; nothing of it is left in bounded time."""
        auditor = self._auditor
        for process in (BALANCER, *self._nodes):
            if process not in auditor.boots:
                yield f"{process} is not up"
        for key in auditor.ledger.tables[Table.LIVE]:
            if not self._waits_for_the_lost(ticket_of(key)):
                yield f"{ticket_of(key)} has not ended: {auditor.ledger.live(key)}"
        for key, what in auditor.ledger.tables[Table.NOTICES].items():
            if auditor.origins.get(key[:6].decode()) not in self._gone:
                yield f"the origin of {ticket_of(key)} has not noted that it was {what.decode()}"
        for name in self._nodes:
            yield from self._unfinished_at(name, auditor.disk(name))

    def _unfinished_at(self, name: str, disk: Disk) -> Iterator[str]:
        for key in disk.tables[Table.LIVE]:
            if not self._waits_for_the_lost(ticket_of(key)):
                yield f"{name} does not know of an end of {ticket_of(key)}"
        for key in disk.tables[Table.OUTCOMES]:
            yield f"{name} still has the outcome of {ticket_of(key[:-4])}"

    def is_lost(self, ticket: str) -> bool:
        """Whether only a node that is gone had this job."""
        name = self._auditor.first_name(array_of(ticket))
        return name not in self._auditor.learned and self._auditor.issued.get(name) in self._gone

    def _is_beyond_reach(self, ticket: str) -> bool:
        """Whether nobody is left who could tell of it: also a job whose record the ledger has let expire, and then the
        mark that it had, so that it would have to ask the origin whether it ever was."""
        key, tables = key_of(self._auditor.first_name(array_of(ticket))), self._auditor.ledger.tables
        known = any(key in tables[table] for table in (Table.LIVE, Table.ENDED, Table.TOMBSTONES))
        return not known and self._auditor.issued.get(ticket_of(key)) in self._gone

    def is_excused(self, ticket: str) -> bool:
        name = self._auditor.first_name(ticket)
        return self.is_lost(name) or self._waits_for_the_lost(name)

    def _waits_for_the_lost(self, ticket: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether it waits for a job that nobody has any more, directly or through others that are live."""
        live = self._auditor.ledger.live(key_of(ticket))
        job = self._auditor.job(ticket)
        after = job.after + job.inputs if live is None else live.waits_for
        if not self._gone or ticket in seen or (live is None and ticket in self._auditor.ends):
            return False
        return any(
            self._is_beyond_reach(name) or self._waits_for_the_lost(array_of(name), seen | {ticket})
            for name in map(self._auditor.first_name, after)
        )

    # --- what must be so when nothing is -----------------------------------------------------------------------------

    def audit(self) -> None:
        """To be called when nothing is unfinished."""
        for ticket in self._told.acknowledged:
            self._must_be_accounted_for(ticket)
        self._one_job_for_each_key()
        self._every_end_of_an_array_is_the_sum_of_its_elements()
        for ticket in self._auditor.cancelled:
            self._must_be_cancelled(ticket)

    def _must_be_accounted_for(self, ticket: str) -> None:
        auditor, name = self._auditor, self._auditor.first_name(ticket)
        ended = name in auditor.ends or name in auditor.forgotten
        must(ended or self.is_excused(ticket), f"{ticket} was acknowledged, and has not ended")

    def _one_job_for_each_key(self) -> None:
        """Until the job whose the key is has been forgotten. Whoever took the key in without the balancer, for another
        job than that, has a job of its own."""
        auditor = self._auditor
        for (key, text), told in self._told.keys.items():
            names = {auditor.first_name(ticket) for ticket in told if not self.is_lost(ticket)}
            under = [
                auditor.first_name(name) for (k, _), given in self._told.keys.items() if k == key for name in given
            ]
            free = any(auditor.orders.forgotten(name) or self._has_expired(name) for name in under)
            apart = set(under) != names and self._owner(key) not in names
            must(
                free or apart or len(names) <= 1,
                f"the key {key} has become {len(names)} jobs of {text!r}: {sorted(names)}",
            )

    def _owner(self, key: str) -> str | None:
        packed = self._auditor.ledger.get(Table.KEYS, key.encode())
        return None if packed is None else glance(_Claim, packed).ticket

    def _has_expired(self, ticket: str) -> bool:
        return ticket in self._auditor.ends and self._auditor.ledger.get(Table.ENDED, key_of(ticket)) is None

    def _every_end_of_an_array_is_the_sum_of_its_elements(self) -> None:
        elements: dict[str, list[Ended]] = {}
        for name, ends in self._auditor.ends.items():
            if array_of(name) != name:
                elements.setdefault(array_of(name), []).append(ends[max(ends)])
        for key, packed in self._auditor.ledger.tables[Table.ENDED].items():
            ticket, ended = ticket_of(key), unpack(Ended, packed)
            spec = self._auditor.job(ticket).array
            if spec is not None and array_of(ticket) == ticket:
                self._must_be_the_sum(ticket, dict(ended.counts), len(parse_indexes(spec)), elements.get(ticket, []))

    def _must_be_the_sum(self, ticket: str, counts: dict[str, int], total: int, ends: list[Ended]) -> None:
        """Elements that were cancelled before they began have no end of their own."""
        must(sum(counts.values()) == total, f"{ticket} has {total} elements and counts {counts}")
        for state in (State.SUCCEEDED, State.FAILED):
            found = sum(ended.state is state for ended in ends)
            must(found == counts.get(state, 0), f"{ticket} counts {counts}, and {found} of it are {state}")

    def _must_be_cancelled(self, ticket: str) -> None:
        """A cancel that was recorded wins over whatever happened later, but a RETRY."""
        auditor = self._auditor
        if auditor.job(ticket).array is not None and index_of(ticket) is None:
            return
        for ended in auditor.ends.get(ticket, {}).values():
            if ended.state is State.CANCELLED:
                return
        must(auditor.orders.retried(ticket), f"{ticket} was cancelled, and ended as {auditor.ends.get(ticket)}")
