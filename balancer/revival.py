"""RETRY and FORGET: the two ways in which an ended job changes.

Its origin keeps a copy of the outcome and has to hear of it: a notice stays on the ledger's disk, and is sent on every
link of the origin, until it says that it has taken note.

    retry   ended ──► queued, under its ticket; numbers of attempts go on, other counts begin anew
    forget  ended ──► nothing: the ticket is unknown, and its key is free

Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from balancer.arrays import Array
from balancer.arrivals import record_of
from balancer.chronicle import Chronicle
from balancer.ledger import Ledger
from balancer.outbox import Outbox
from balancer.records import Entry, LiveRecord
from balancer.roster import Node, Roster
from common.codec import replace, unpack
from common.effects import Table
from common.frames import batches
from common.history import History
from common.memory import Memory
from common.messages import Noticed, Notices
from common.model import Ended, State, array_of, index_of, ticket_key, ticket_of

_REVIVED: Final = b"revived"
_FORGOTTEN: Final = b"forgotten"
_SCAN: Final = 1000
_CAN_BE_RETRIED: Final = frozenset({State.FAILED, State.CANCELLED})


class Revival:
    def __init__(
        self,
        memory: Memory,
        history: History,
        ledger: Ledger,
        roster: Roster,
        outbox: Outbox,
        chronicle: Chronicle,
        wall: Callable[[], float],
    ) -> None:
        self._memory = memory
        self._history = history
        self._ledger = ledger
        self._roster = roster
        self._outbox = outbox
        self._chronicle = chronicle
        self._wall = wall
        self._sent: dict[str, int] = {}  # notices of a ticket that its origin was sent on its link and has not noted
        self._gathering = False
        self._to_tell: dict[str, list[tuple[str, bytes]]] = {}  # by ticket prefix

    # --- retry -----------------------------------------------------------------------------------------------------

    def retry(self, ticket: str) -> State | None:
        """Queues a failed or cancelled job again; None where it is neither. Of an array: what failed or was cancelled
        of it. Of an element: that one alone, and its array is live with it."""
        ended = self._ledger.end(ticket)
        if self._ledger.live(ticket) is not None or ended is None or ended.state not in _CAN_BE_RETRIED:
            return None
        if self._memory.get(Table.JOBS, ticket_key(array_of(ticket))) is None:
            return None  # it was damaged and set aside: nobody can run it
        if self._ledger.inputs.missing(array_of(ticket)) is not None:
            return None  # it would be cancelled at once
        if index_of(ticket) is not None:
            self._retry_element(ticket, ended)
        elif ended.counts:
            if not self._retry_array(ticket, ended):
                return None
        else:
            self._revive(ticket, ended)
        return State.QUEUED

    def retry_all(self, tickets: Iterable[str]) -> int:
        """How many of these are queued again."""
        with self._told_together():
            return sum(self.retry(ticket) is not None for ticket in tickets)

    def _revive(self, ticket: str, ended: Ended) -> Entry:
        """The job or array itself is live again, with its elements as they are."""
        key = ticket_key(ticket)
        stored = [self._memory.get(table, key) or b"" for table in (Table.JOBS, Table.BODIES)]
        job = self._ledger.job(ticket)
        record = record_of(job, self._ledger.next_in_order(), sum(map(len, stored)))
        record.waits_for = tuple(dict.fromkeys(job.inputs))  # they have to be there; what else it waited for has been
        _go_on(record, ended)
        self._take_out(ticket, ended)
        entry = Entry(ticket, record)
        self._notify(ticket, _REVIVED)
        self._chronicle.tell("job.retried", ticket)
        self._ledger.begin_life(entry, "retried")
        return entry

    def _take_out(self, ticket: str, ended: Ended) -> None:
        self._history.remember_attempt(ticket, ended)
        self._history.revive(ticket)

    def _retry_array(self, ticket: str, ended: Ended) -> bool:
        array = self._ledger.elements.stored(ticket, self._ledger.job(ticket).array or "")
        elements = self._ended_elements(ticket)
        if not elements and not (array.dropped and array.unbegun):
            return False  # what failed of it is no longer kept
        array.dropped = None
        self._ledger.elements.save(array)
        parent = self._revive(ticket, ended)
        for name, end in elements:
            self._revive_element(parent, name, end)
        return True

    def _ended_elements(self, ticket: str) -> list[tuple[str, Ended]]:
        """Those that failed or were cancelled."""
        recorded = self._ledger.elements.rows(Table.ENDED, ticket)
        ends = [(name, unpack(Ended, packed)) for name, packed in recorded]
        return [(name, ended) for name, ended in ends if ended.state in _CAN_BE_RETRIED]

    def _retry_element(self, ticket: str, ended: Ended) -> None:
        parent = self._ledger.live(array_of(ticket))
        if parent is None:
            whole = self._history.find(array_of(ticket))
            assert whole is not None, f"{ticket} has ended, and its array is unknown"
            parent = self._revive(array_of(ticket), whole)
        self._revive_element(parent, ticket, ended)

    def _revive_element(self, parent: Entry, ticket: str, ended: Ended) -> None:
        array = parent.array
        assert array is not None, f"{parent.ticket} is no array"
        self._ledger.go_on(parent)
        record = replace(parent.record, array=None, waits_for=(), due_wall=0.0, due_s=0.0)
        _go_on(record, ended)
        entry = Entry(ticket, record)
        if array.is_number(ticket):  # it was dropped with its array
            self._ledger.elements.begin(entry)
        else:
            self._take_out(ticket, ended)
            self._uncount(array, ended)
        self._chronicle.tell("job.retried", ticket)
        self._ledger.begin_life(entry, "retried")

    def _uncount(self, array: Array, ended: Ended) -> None:
        array.count(ended.state, -1)
        self._ledger.elements.save(array)

    # --- forget ----------------------------------------------------------------------------------------------------

    def forget(self, ticket: str) -> bool:
        """Erases an ended job or array with everything of it; False where it is live, or an element, or wanted."""
        ended = self._history.find(ticket)
        if ended is None or index_of(ticket) is not None or self._ledger.inputs.wanted_by(ticket):
            return False
        elements = list(self._ledger.elements.rows(Table.ENDED, ticket)) if ended.counts else []
        for name in (*(name for name, _ in elements), ticket):
            self._history.forget(name)
        self._history.entomb(ticket, self._wall(), forgotten=True)
        self._notify(ticket, _FORGOTTEN)
        self._chronicle.tell("job.forgotten", ticket)
        return True

    def forget_all(self, tickets: Iterable[str]) -> int:
        """How many of these were erased."""
        with self._told_together():
            return sum(self.forget(ticket) for ticket in tickets)

    # --- notices to origins ------------------------------------------------------------------------------------------

    def _notify(self, ticket: str, what: bytes) -> None:
        self._memory.put(Table.NOTICES, ticket_key(ticket), what)
        self._to_tell.setdefault(ticket.partition("-")[0], []).append((ticket, what))
        if not self._gathering:
            self._tell()

    @contextmanager
    def _told_together(self) -> Iterator[None]:
        """What becomes of a group is told to each origin in as few messages as it takes."""
        self._gathering = True
        yield
        self._gathering = False
        self._tell()

    def _tell(self) -> None:
        to_tell, self._to_tell = self._to_tell, {}
        for prefix, told in to_tell.items():
            origin = self._roster.get(self._roster.origin(prefix))
            if origin is None or not origin.ready:
                continue  # it will be told when it is back
            for items in batches(told, lambda _: 40):
                self._outbox.send(origin, _notices(items))
                for ticket, _ in items:
                    self._sent[ticket] = self._sent.get(ticket, 0) + 1

    def origin_back(self, node: Node) -> None:
        """It hears everything that it has not taken note of."""
        prefix = after = node.record.prefix.encode()
        while chunk := self._memory.scan(Table.NOTICES, prefix=prefix, after=after, limit=_SCAN):
            for items in batches([(ticket_of(key), what) for key, what in chunk], lambda _: 40):
                self._outbox.send(node, _notices(items))
                self._sent |= {ticket: 1 for ticket, _ in items}
            after = chunk[-1][0]

    def noticed(self, message: Noticed) -> None:
        """Only the last notice of a ticket stands for what was sent before it."""
        for tickets, what in ((message.revived, _REVIVED), (message.forgotten, _FORGOTTEN)):
            for ticket in tickets:
                if left := self._sent.pop(ticket, 1) - 1:
                    self._sent[ticket] = left
                elif self._memory.get(Table.NOTICES, ticket_key(ticket)) == what:
                    self._memory.delete(Table.NOTICES, ticket_key(ticket))


def _go_on(record: LiveRecord, ended: Ended) -> None:
    """Numbers go on above those that were used."""
    record.attempt = max(ended.begun, ended.attempt)
    record.retried = ended.retried + 1


def _notices(items: Sequence[tuple[str, bytes]]) -> Notices:
    return Notices(
        tuple(ticket for ticket, what in items if what == _REVIVED),
        tuple(ticket for ticket, what in items if what == _FORGOTTEN),
    )
