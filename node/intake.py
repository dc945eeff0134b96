"""Tickets issued here: from `OK` on, this node holds each of its jobs until it knows the end.

    issued ──► live ──► ended (a copy stays for the retention time)
                ▲         │
                └─revived ┴──► forgotten

How a live job gets to the ledger is the delivery's business (`node/delivery.py`). What becomes of an ended job the
ledger decides: its notices revive it, or have it forgotten.

Numbers are set aside on disk some hundreds at a time, and a boot goes on above all that were set aside before it. So
a ticket that somebody has seen is never issued twice, even if the job that had it never came to our own disk.

Of an array only the array is held here. Its elements are the ledger's; all that is known of them is whether the array
has them.

Pure; everything durable goes through the Memory.
"""

from collections.abc import Iterator, Sequence
from itertools import compress, groupby
from typing import Final

from common.arrays import parse_indexes
from common.codec import Record, pack, replace, unpack
from common.effects import Table
from common.history import History
from common.keys import Claim, Keys, fingerprint, first_name
from common.memory import Memory
from common.messages import Pair, Submission
from common.model import (
    Ended,
    Job,
    State,
    array_of,
    element,
    fresh_key,
    index_of,
    parse_ticket,
    prefix_key,
    ticket,
    ticket_key,
    ticket_of,
)
from node.delivery import Delivery, number_of
from node.live import Live, Own, own_lease

_LAST: Final = b"last_number"
_LOST: Final = b"lost_numbers"
SET_ASIDE: Final = 1000  # numbers at once: what is lost of them with a boot, and what a busy step may use up
LOST_MAX: Final = 64  # boots that crashed; what one before them lost is unknown here, and known to the ledger


class LostNumbers(Record, frozen=True):
    """The first and last of the numbers that each boot had set aside and left no trace of."""

    ranges: tuple[tuple[int, int], ...]


class Intake:
    """The jobs of which this data directory is the origin."""

    def __init__(self, prefix: str, memory: Memory, history: History, awake_max: int) -> None:
        self.prefix = prefix
        self._memory = memory
        self._history = history
        self._keys = Keys(memory)
        self._last = 0  # issued
        self._set_aside = 0  # the highest number that this boot may issue without setting aside more
        self._set_aside_on_disk = self._last_on_disk = 0
        self._lost: tuple[tuple[int, int], ...] = ()
        self._live = Live(prefix, memory, awake_max)
        self.delivery = Delivery(prefix, memory, history, self._live, awake_max)

    def restore(self, now: float, wall: float) -> None:
        self._last = self._set_aside = int(self._memory.get(Table.META, _LAST) or b"0")
        self.committed()
        self._note_what_is_lost()
        self._live.restore(now, wall, self._last)
        self.delivery.restore(self._last)

    # --- issuing -----------------------------------------------------------------------------------------------

    def issue(self, job: Job, body: bytes, now: float) -> str:
        """A new ticket for this job, durable with the step."""
        self._last += 1
        if self._last > self._set_aside - SET_ASIDE // 2:
            self._set_numbers_aside(self._last + SET_ASIDE)
        name = ticket(self.prefix, self._last)
        key = ticket_key(name)
        self._memory.put(Table.JOBS, key, pack(job))
        if body:
            self._memory.put(Table.BODIES, key, body)
        self._memory.put(Table.LIVE, key, b"")
        if job.key is not None:
            self._keys.claim(job.key, Claim(name, fingerprint(job, body)))
        self._live.enter(name, Own(first_state(job), 0, now), hold=bool(job.delay_s))
        self.delivery.add(name, self._last, of_group=job.group is not None)
        return name

    def issue_in_a_row(self, jobs: Sequence[Job], wall: float, now: float) -> list[str]:
        """As above, for jobs submitted together that are `is_plain`, in their order."""
        first, prefix, begins = self._last + 1, self.prefix, prefix_key(self.prefix)
        self._last += len(jobs)
        while self._last >= (due := max(first, self._set_aside - SET_ASIDE // 2 + 1)):
            self._set_numbers_aside(due + SET_ASIDE)
        records, live = self._memory.writes_to(Table.JOBS), self._memory.writes_to(Table.LIVE)
        names: list[str] = []
        packed, before = [], None
        for number, job in enumerate(jobs, first):
            if job is not before:  # what is typed again and again is read once
                before, record = job, pack(replace(job, submitted_wall=wall))
            key = begins + number.to_bytes(8, "big")
            records[key] = record
            live[key] = b""
            names.append(ticket(prefix, number))
            packed.append(record)
        self._live.enter_in_a_row(names, Own(None, 0, now))
        self.delivery.add_in_a_row(names, packed, self._last, wall)
        return names

    def _set_numbers_aside(self, upto: int) -> None:
        self._set_aside = upto
        self._memory.put(Table.META, _LAST, b"%d" % upto)

    def give_numbers_back(self) -> None:
        """Nothing more is issued in this boot."""
        if self._set_aside > self._last:
            self._set_numbers_aside(self._last)

    def committed(self) -> None:
        """All that was written is on disk."""
        self._last_on_disk, self._set_aside_on_disk = self._last, self._set_aside

    def may_be_told_of(self, submissions: Sequence[Submission]) -> bool:
        """Whether the ledger may have these jobs before they are on our own disk. They may not where another boot could
        issue their tickets again; nor those that are on it already, of which it would find there that nobody knows;
        nor where a client may be told of the ticket by another node, because it has the key."""
        numbers = [number_of(item.ticket) for item in submissions]
        if not self._last_on_disk < min(numbers) <= max(numbers) <= self._set_aside_on_disk:
            return False
        return all(item.told for item in submissions)

    def claimed(self, key: str) -> Claim | None:
        """Which job this node knows under a key."""
        return self._keys.find(key)

    def same_name(self, name: str) -> str:
        """The first name of a job whose ticket, or whose array's, may be an alias."""
        if parse_ticket(name) is None:
            return name
        index = index_of(name)
        if index is None:
            return first_name(self._memory, name)
        return element(first_name(self._memory, array_of(name)), index)

    # --- what is known -----------------------------------------------------------------------------------------

    def issued(self, name: str) -> bool:
        """Whether this ticket was ever given out here."""
        parsed = parse_ticket(name)
        return parsed is not None and parsed[0] == self.prefix and parsed[1] <= self._last

    def _note_what_is_lost(self) -> None:
        """The numbers that the last boot had set aside, and of which nothing is on disk: some of them the ledger may
        know."""
        packed = self._memory.get(Table.META, _LOST)
        self._lost = unpack(LostNumbers, packed).ranges if packed else ()
        newest = self._memory.scan(Table.JOBS, limit=1, backwards=True)
        highest = max([self._lost[-1][1] if self._lost else 0, *(number_of(ticket_of(key)) for key, _ in newest)])
        if highest < self._last:
            self._lost = (*self._lost, (highest + 1, self._last))[-LOST_MAX:]
            self._memory.put(Table.META, _LOST, pack(LostNumbers(self._lost)))

    def may_be_lost(self, name: str) -> bool:
        """Whether an earlier boot may have told the ledger of such a job of ours, and crashed before it was on disk."""
        if not self._lost:
            return False
        number = number_of(name)
        return any(first <= number <= last for first, last in self._lost)

    def ours(self, name: str) -> bool:
        parsed = parse_ticket(name)
        return parsed is not None and parsed[0] == self.prefix

    def is_live(self, name: str) -> bool:
        return name in self._live

    def live(self, name: str) -> Own | None:
        """What we last knew of a live job of ours."""
        return self._live.get(name)

    def heard(self, name: str, state: State, attempt: int | None, now: float) -> None:
        """The ledger says how a job stands."""
        self._live.hear(name, state, attempt, now)

    def state(self, name: str) -> State:
        """Where a live job of ours stood when we last heard of it."""
        own = self._live.get(name)
        assert own is not None, f"{name} is not live here"
        return first_state(self.job(name)) if own.state is None else own.state

    def has_element(self, name: str) -> bool:
        """Whether the array that this element's ticket names is one of ours, and has it."""
        array, index = self.job(array_of(name)).array, index_of(name)
        return array is not None and index is not None and index in parse_indexes(array)

    def live_newest_first(self) -> Iterator[str]:
        return self._live.newest_first()

    def live_behind(self, number: int, limit: int) -> list[str]:
        """The live jobs with the next higher numbers."""
        return self._live.behind(number, limit)

    def job(self, name: str) -> Job:
        packed = self._memory.get(Table.JOBS, ticket_key(name))
        return Job("", "") if packed is None else unpack(Job, packed)

    def __len__(self) -> int:
        return len(self._live)

    # --- without a balancer ------------------------------------------------------------------------------------

    def unleased_here(self, name: str) -> bool:
        """Whether this is a job that was never sent, and that we have not leased to ourselves."""
        return self.delivery.never_sent(name) and not self._memory.get(Table.LIVE, ticket_key(name))

    def lease_here(self, name: str, boot_id: str, now: float) -> int:
        """Gives this boot the first attempt of such a job; returns its number."""
        assert self.unleased_here(name), f"{name} is not ours alone to lease"
        self._memory.put(Table.LIVE, ticket_key(name), own_lease(1, boot_id))
        self._live.hold(name, Own(State.RUNNING, 1, now))
        self.delivery.leased_here(name)
        return 1

    def let_go_here(self, name: str, now: float) -> None:
        """This attempt of such a job has not begun and will not: it is not leased any more."""
        self._memory.put(Table.LIVE, ticket_key(name), b"")
        self._live.hold(name, Own(State.QUEUED, 0, now))

    def waits_again(self, name: str, now: float) -> None:
        """The attempt that we gave ourselves is over, and the ledger has to say how it goes on."""
        self._live.hold(name, Own(State.QUEUED, 1, now))

    def end(self, name: str) -> Ended | None:
        """How one of our jobs ended, if it has and that is still known."""
        return self._history.find(name) if self.ours(name) else None

    def ended_here(self, name: str, ended: Ended, output: bytes) -> None:
        """A job that was never sent has ended: it is sent with its end."""
        assert self.delivery.never_sent(name), f"{name} was sent, and is the ledger's to end"
        self.ended(name, ended, output)
        self.delivery.ended_here(name)

    # --- ends --------------------------------------------------------------------------------------------------

    def ended(self, name: str, ended: Ended, output: bytes) -> bool:
        """Keeps a copy of the end of one of our jobs; False when it was known or is not ours. An end that comes
        after a RETRY of which we have not heard takes the place of the former one."""
        if not self._live.leave(name):
            known = self.end(name)
            if known is None or known.retried >= ended.retried:
                return False
            self._history.revive(name)
        self.delivery.ended(name)
        self._memory.delete(Table.LIVE, ticket_key(name))
        self._history.record(name, ended, output)
        return True

    def ended_in_a_row(self, ends: Sequence[tuple[str, Ended, Pair]]) -> list[tuple[str, Ended, Pair]]:
        """As above, of many that the ledger tells of; returns those that were news."""
        were_live = self._live.leave_in_a_row(name for name, _, _ in ends)
        left = list(compress(ends, were_live))
        self.delivery.ended_in_a_row([name for name, _, _ in left])
        live = self._memory.writes_to(Table.LIVE)
        for wall, together in groupby(left, key=lambda end: end[1].ended_wall):
            records: list[tuple[bytes, bytes, bytes]] = []
            for name, _, pair in together:
                key = fresh_key(name)
                if key in live and number_of(name) > self._last_on_disk:
                    del live[key]  # it never came to the disk, and need not
                else:
                    live[key] = None
                records.append((key, pair.record, pair.output))
            self._history.record_in_a_row(wall, records)
        return [
            end
            for was_live, end in zip(were_live, ends, strict=True)
            if was_live or self.ended(end[0], end[1], end[2].output)
        ]

    def revive(self, name: str, now: float) -> None:
        """One of our ended jobs is live again, and the ledger has it. Doing it twice changes nothing. What became
        another name meanwhile is no job of ours."""
        if not self.issued(name) or index_of(name) is not None or name in self._live or self.same_name(name) != name:
            return
        if self.may_be_lost(name):
            return  # it is all the ledger's
        ended = self._history.revive(name)
        self._memory.put(Table.LIVE, ticket_key(name), b"")
        self._live.enter(name, Own(State.QUEUED, 0 if ended is None else max(ended.attempt, ended.begun), now))
        self.delivery.revived(name)

    def forget(self, name: str) -> None:
        """One of our jobs is to be as if it had never been, but that its ticket is not issued again."""
        if not self.issued(name):
            return
        self._live.leave(name)
        self._memory.delete(Table.LIVE, ticket_key(name))
        self._history.forget(name)
        self.delivery.gone(name)

    def lapsed(self, name: str, wall: float) -> None:
        """The job ended and was expired while we were away."""
        if self._live.leave(name):
            self._forget(name)
            self._history.entomb(name, wall)

    def alias(self, name: str, first: str) -> None:
        """A keyed job of ours turned out to be another name of the first one. The key is the other's: only the
        ledger knows for how long."""
        self._memory.put(Table.ALIASES, ticket_key(name), first.encode())
        self.withdraw(name)

    def withdraw(self, name: str) -> None:
        """This ticket is no job of its own any more."""
        job = self.job(name)
        if job.key is not None:
            self._keys.release(job.key, name)
        if self._live.leave(name):
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.delivery.gone(name)
        key = ticket_key(name)
        for table in (Table.LIVE, Table.JOBS, Table.BODIES):
            self._memory.delete(table, key)

    def check(self) -> None:
        self._live.check()
        self.delivery.check()


def is_plain(job: Job) -> bool:
    """Whether nothing of this job has to be looked at when it is issued: its key, its group, its delay. (Its body has,
    too.)"""
    return job.key is None and job.group is None and not job.delay_s


def first_state(job: Job) -> State:
    """Where a job stands when it is submitted, as far as its origin can tell."""
    if job.delay_s:
        return State.SCHEDULED
    return State.BLOCKED if job.after or job.inputs else State.QUEUED
