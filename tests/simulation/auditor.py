"""The auditor: looks on at every commit, every beginning of a job and every reply, and knows nothing of the machines.

It has a model of its own: what is on which disk, what was leased, what began, how it ended, what was asked. The model
is small, and made from `docs/guarantees.md` and `docs/tables.md`; records are read by their documented fields. What
is checked here holds at every moment. What clients may be told is checked in `told.py`, and what holds in the end, when
nothing breaks any more, in `ending.py`.

    a ticket is issued once ............. at the origin's disk, over all boots
    no job is lost ...................... what leaves LIVE has ended, or got another name, or was to be forgotten
    one outcome for each end ............ at the ledger's disk; another only after RETRY; origins' copies are the same
    an end is true ...................... there was such an attempt, it was the one leased, and it ended like that
    a beginning ......................... once for each attempt, in the boot that has it, when that is durable
    numbers go up ....................... of attempts and of tickets
    an outcome is kept .................. until the ledger's disk needs it no more
    an input is whole ................... what its jobs have printed, to the byte, and kept as long as it is wanted

When a process starts, whatever its disk holds that was not there is taken for one last commit of the boot before, and
must be as right as any other.
"""

from collections.abc import Callable, Mapping, Sequence

import trio

from common.codec import glance, replace, unpack
from common.effects import Put, Table, Write
from common.machine import Machine
from common.messages import Reported
from common.model import Ended, Outcome, Reason, State, Verdict, array_of, ticket_of
from common.runtime.driver import Step
from tests.simulation.bounds import Bounds
from tests.simulation.faults import Fault
from tests.simulation.inputs import Inputs
from tests.simulation.leases import Leases
from tests.simulation.orders import Orders
from tests.simulation.records import (
    BALANCER,
    FORGOTTEN,
    LOOKED_AT,
    NOTHING,
    Asked,
    Changes,
    Disk,
    Live,
    Tables,
    Violation,
    key_of,
    must,
)


class Auditor:
    """A watcher of the world. `tables` is what is durable on a process' disk; `expires` says whether a record may
    be older than its retention time in this story."""

    def __init__(
        self, tables: Callable[[str], Tables], bounds: Bounds, *, node_timeout_s: float, expires: bool = False
    ) -> None:
        self._bounds = bounds
        self._tables = tables
        self._expires = expires
        self.leases = Leases(node_timeout_s)
        self._inputs = Inputs(self)
        self.disks: dict[str, Disk] = {}
        self._given_out: set[str] = set()  # arrays of which this commit leases more
        self.orders = Orders(self.first_name, lambda ticket: self.job(ticket).group)
        self.issued: dict[str, str] = {}  # ticket → the process that is its origin
        self.jobs: dict[str, Asked] = {}  # what was asked for under each ticket
        self.origins: dict[str, str] = {}  # ticket prefix → process
        self.ends: dict[str, dict[int, Ended]] = {}  # ticket → by how often it was retried, its recorded end
        self.cancelled: set[str] = set()  # tickets whose cancel was recorded at some time
        self.revived: set[str] = set()  # tickets that RETRY has brought back, at some time
        self.forgotten: set[str] = set()  # tickets that FORGET has erased
        self._unwritten: dict[str, bytes] = {}  # jobs that the ledger has, and whose origin has not got to writing them
        self._highest: dict[str, int] = {}  # process → the highest number of a ticket of its own that anybody has seen
        self.learned: set[str] = set()  # tickets of which the ledger has the job, or had it
        self.crashes = 0
        self.starts = 0
        self.changed_at = 0.0  # when a disk was last written to, or a job began

    # --- what is known -----------------------------------------------------------------------------------------------

    def disk(self, process: str) -> Disk:
        return self.disks.setdefault(process, Disk())

    @property
    def ledger(self) -> Disk:
        return self.disk(BALANCER)

    def first_name(self, ticket: str) -> str:
        """The first name of a job, as far as the ledger or its origin knows on disk."""
        followed = {ticket}
        array, _, index = ticket.partition("_")
        while (name := self._other_name(array)) is not None and name not in followed:
            array = name
            followed.add(name)
        return f"{array}_{index}" if index else array

    def _other_name(self, ticket: str) -> str | None:
        key = key_of(ticket)
        for process in (BALANCER, self.issued.get(ticket)):
            name = None if process is None else self.disk(process).get(Table.ALIASES, key)
            if name is not None:
                return name.decode()
        return None

    def job(self, ticket: str) -> Asked:
        """What was asked for."""
        return self.jobs.get(array_of(ticket), NOTHING)

    @property
    def boots(self) -> Mapping[str, str]:
        """Each process that lives, and its boot."""
        return self.leases.boots

    # --- the world tells ---------------------------------------------------------------------------------------------

    def fault(self, fault: Fault) -> None:
        """One of the plan is about to happen."""
        self.leases.fault(fault)

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        changes: Changes = {
            (write.table, write.key): write.value if isinstance(write, Put) else None
            for write in writes
            if write.table in LOOKED_AT
        }
        if not changes:
            return
        self.changed_at = trio.current_time()
        self._rename(self.disk(process), changes)
        if process == BALANCER:
            self._ledger_commits(self.ledger, changes)
        else:
            self._node_commits(process, self.disk(process), changes)
        self.disk(process).apply(changes)
        self._count_what_is_given_out()

    def _count_what_is_given_out(self) -> None:
        arrays, self._given_out = sorted(self._given_out), set()
        for array in arrays:
            prefix, live = key_of(array), self.ledger.tables[Table.LIVE]
            elements = [ticket_of(key) for key in live if key.startswith(prefix) and key != prefix]
            self._bounds.leased(self.ledger, elements, self.job(array))

    def booted(self, process: str, boot_id: str) -> None:
        self.committed(process, self.disk(process).difference(self._tables(process)))
        self.leases.booted(process, boot_id)
        self.starts += 1

    def died(self, process: str, how: str) -> None:
        """Also as planned: then it is `stopped`."""
        self.leases.died(process)
        self.crashes += how != "stopped"

    def stepped(self, process: str, step: Step, machine: Machine) -> None:
        machine.check()
        self.leases.stepped(process, step, machine)

    def began(self, process: str, boot_id: str, ticket: str, attempt: int, stdin: bytes) -> None:
        self.changed_at = trio.current_time()
        self.leases.began(process, boot_id, (ticket, attempt))
        self._must_have_what_it_waits_for(ticket)
        self._bounds.began(process, boot_id, (ticket, attempt), self.job(ticket))
        self._inputs.given(ticket, attempt, stdin)

    def _must_have_what_it_waits_for(self, ticket: str) -> None:
        """RETRY queues what it brings back, whatever it had waited for, unless it reads it. And of what was forgotten
        in the step in which it succeeded, nobody sees the end."""
        job = self.job(ticket)
        for name in job.inputs if self._is_revived(ticket) else job.inputs + job.after:
            first = self.first_name(name)
            succeeded = any(ended.state is State.SUCCEEDED for ended in self.ends.get(first, {}).values())
            must(succeeded or array_of(first) in self.forgotten, f"{ticket} began before {name} had succeeded")

    def _is_revived(self, ticket: str) -> bool:
        """Whether RETRY has brought it, or its array, back at some time."""
        return not self.revived.isdisjoint((ticket, array_of(ticket)))

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome, output: bytes) -> None:
        self.leases.over(process, (ticket, attempt), outcome)
        self._bounds.over(self.boots[process], (ticket, attempt))
        self._inputs.printed((ticket, attempt), output[: outcome.stdout_bytes])

    def _rename(self, disk: Disk, changes: Changes) -> None:
        """Second names count from the very commit with which they are known."""
        for (table, key), value in changes.items():
            if table is Table.ALIASES:
                must(disk.get(table, key) in (None, value), f"{ticket_of(key)} is another job's second name now")
                disk.apply({(table, key): value})

    # --- the ledger's disk -------------------------------------------------------------------------------------------

    def _ledger_commits(self, disk: Disk, changes: Changes) -> None:
        for (table, key), value in changes.items():
            if table is Table.TOMBSTONES and value == FORGOTTEN:
                self.forgotten.add(ticket_of(key))
        for (table, key), value in _jobs_first(changes):
            match table:
                case Table.JOBS if value is not None:
                    self._ledger_learns(disk, key, value)
                case Table.ENDED if value is not None:
                    self._ends(ticket_of(key), disk.live(key) or self._own_lease(key), unpack(Ended, value))
                case Table.ENDED:
                    self._end_goes(BALANCER, disk, key, changes)
                case Table.ATTEMPTS if value is not None and not unpack(Ended, value).sequence:
                    ticket = ticket_of(key[:-5])
                    self._bounds.failed(ticket, self.job(ticket))
                case Table.LIVE if value is not None:
                    self._ledger_changes(ticket_of(key), disk.live(key), glance(Live, value))
                case Table.LIVE if disk.live(key) is not None:
                    ended = changes.get((Table.ENDED, key)) is not None
                    must(
                        ended or self._is_erased(key, changes), f"the ledger lost {ticket_of(key)}, which had not ended"
                    )

    def _ledger_learns(self, disk: Disk, key: bytes, packed: bytes) -> None:
        ticket = ticket_of(key)
        if ticket not in self.issued:
            self._is_told_before_it_is_written(ticket, packed)
        origin = self.disk(self.issued[ticket])
        for known in (disk.get(Table.JOBS, key), origin.get(Table.JOBS, key)):
            must(known in (None, packed), f"{ticket} is another job now than what was submitted")
        sent = int(origin.get(Table.META, b"sent_number") or b"0")
        is_safe = _number(ticket) <= sent or origin.get(Table.JOBS, key) is None
        must(is_safe, f"{ticket} was sent, and its origin may take it for its own")
        self.learned.add(ticket)

    def _is_told_before_it_is_written(self, ticket: str, packed: bytes) -> None:
        """Its origin may crash and know nothing of it, but must not issue the ticket again."""
        origin = self.origins.get(ticket[:6])
        assert origin is not None, f"nobody issues tickets like {ticket}"
        self._unwritten[ticket] = packed
        self._is_issued(ticket, origin, packed)
        set_aside = int(self.disk(origin).get(Table.META, b"last_number") or b"0")
        must(_number(ticket) <= set_aside, f"the ledger has {ticket}, which its origin may issue again")

    def _is_issued(self, ticket: str, origin: str, packed: bytes) -> None:
        self.issued[ticket] = origin
        self.jobs[ticket] = glance(Asked, packed)
        self._highest[origin] = max(_number(ticket), self._highest.get(origin, 0))

    def _ledger_changes(self, ticket: str, before: Live | None, after: Live) -> None:
        if after.retried > (before.retried if before is not None else 0):
            must(self.orders.retried(ticket), f"{ticket} was brought back, and nobody asked for it")
            self.revived.add(ticket)
            self._bounds.retried(ticket)
        elif before is None:
            must(ticket not in self.ends, f"{ticket} is live again after its end, and was not retried")
        else:
            must(after.retried == before.retried, f"it was forgotten that {ticket} had been retried")
            must(
                after.attempt >= before.attempt, f"{ticket} went back from attempt {before.attempt} to {after.attempt}"
            )
            undone = before.cancelled and not after.cancelled and after.array is None
            must(not undone, f"the cancel of {ticket} was undone")
        if after.cancelled:
            self.cancelled.add(ticket)
        self._ledger_releases(ticket, before, after)
        if after.leased and self.leases.given(ticket, after, revived=self._is_revived(ticket)):
            self._given_out |= {array_of(ticket)} - {ticket}

    def _ledger_releases(self, ticket: str, before: Live | None, after: Live) -> None:
        """Where a lease is over, it is counted as a crash only if it was one."""
        given = before if before is not None and before.leased else self._own_lease(key_of(ticket))
        if given is None and not after.leased:
            given = after  # leased and lost in one step
        if given is not None and (after.attempt, after.boot_id, after.leased) != (given.attempt, given.boot_id, True):
            crashed = self.leases.is_crash(ticket, given)
            counted = after.crashes > (before.crashes if before is not None else 0)
            must(crashed or not counted, f"{ticket}.{given.attempt} is counted as a crash, and was none")

    def _ends(self, ticket: str, live: Live | None, ended: Ended) -> None:
        """An end is on the disk of whoever decides of it. Its place among all ends only the ledger tells."""
        ended = replace(ended, sequence=0)
        ends = self.ends.setdefault(ticket, {})
        known = ends.get(ended.retried)
        if known is not None:
            must(known == ended, f"{ticket} ended twice: {known}, and then {ended}")
            return
        must(not ends or ended.retried > max(ends), f"{ticket} ended as of before its RETRY: {ended}")
        must(not ended.retried or self.orders.retried(ticket), f"{ticket} ended again, and nobody asked for a RETRY")
        self._must_be_true(ticket, live, ended)
        self.revived |= {ticket} if ended.retried else set()  # it may have ended again in the same step
        ends[ended.retried] = ended

    def _must_be_true(self, ticket: str, live: Live | None, ended: Ended) -> None:
        """Nobody but an attempt, a client, a failed dependency or a crash brings about an end."""
        job = self.job(ticket)
        match ended.state, ended.reason:
            case _ if ended.counts:
                pass  # an array: its counts are compared in the end
            case State.CANCELLED, Reason.DEPENDENCY:
                must(bool(job.after or job.inputs), f"{ticket} was cancelled with what it does not wait for")
            case State.CANCELLED, _:
                must(self.orders.cancelled(ticket), f"{ticket} was cancelled, and nobody asked for it")
            case State.FAILED, Reason.CRASH_LIMIT:
                self._must_have_crashed(ticket, live, job.crash_limit)
            case _:
                self._must_be_how_it_ended(ticket, live, ended, sleeps=job.kind == "sleep")

    def _must_have_crashed(self, ticket: str, live: Live | None, limit: int | None) -> None:
        if live is not None:
            self.leases.is_crash(ticket, live)
        crashes = len(self.leases.crashes(ticket))
        must(limit is not None and crashes >= limit, f"{ticket} has reached its crash limit with {crashes} crashes")

    def _must_be_how_it_ended(self, ticket: str, live: Live | None, ended: Ended, *, sleeps: bool) -> None:
        is_last = live is not None and live.attempt == ended.attempt
        must(is_last, f"{ticket} ended with attempt {ended.attempt}, and the last lease is {live}")
        if sleeps:  # the node itself times it; nobody else sees it
            return
        outcome = self.leases.outcome((ticket, ended.attempt))
        if outcome is None:
            raise Violation(f"{ticket}.{ended.attempt} is recorded as {ended.state}, and it is not over")
        if ended.reason is not Reason.TIMEOUT:
            good = outcome.verdict is Verdict.SUCCEEDED
            true = good == (ended.state is State.SUCCEEDED) and ended.exit == outcome.exit
            must(true, f"{ticket}.{ended.attempt} ended with {outcome} and is recorded as {ended}")

    # --- a node's disk -----------------------------------------------------------------------------------------------

    def _node_commits(self, process: str, disk: Disk, changes: Changes) -> None:
        for (table, key), value in _jobs_first(changes):
            match table:
                case Table.META:
                    self._node_counts(process, disk, key, value)
                case Table.JOBS if value is not None:
                    self._node_issues(process, disk, key, value, changes)
                case Table.JOBS if disk.get(Table.LIVE, key) is not None:
                    must(changes.get((Table.LIVE, key), b"") is None, f"{process} lost what {ticket_of(key)} is")
                case Table.LIVE if value:
                    self._node_leases(process, ticket_of(key), glance(Live, value))
                case Table.LIVE if value == b"" and (given := disk.get(table, key)):
                    self.leases.let_go_by_its_origin(ticket_of(key), glance(Live, given))
                case Table.LIVE if value is None and disk.get(table, key) is not None:
                    self._node_lets_go(process, key, changes)
                case Table.LIVE if (Table.JOBS, key) not in changes and disk.get(table, key) is None:
                    must(
                        self.orders.retried(ticket_of(key)),
                        f"{process} revived {ticket_of(key)}, and nobody asked for it",
                    )
                case Table.ENDED if value is not None:
                    self._node_ends(process, key, unpack(Ended, value))
                case Table.ENDED:
                    self._end_goes(process, disk, key, changes)
                case Table.OUTCOMES if value is not None:
                    self._node_keeps(process, key, unpack(Reported, value))
                case Table.OUTCOMES:
                    self._node_drops(process, disk, key)

    def _node_counts(self, process: str, disk: Disk, key: bytes, value: bytes | None) -> None:
        if key == b"prefix" and value is not None:
            must(self.origins.setdefault(value.decode(), process) == process, f"two nodes issue tickets of {value!r}")
        if key == b"last_number":
            seen = self._highest.get(process, 0)
            must(int(value or b"0") >= seen, f"{process} counts its tickets down from {seen}")

    def _node_issues(self, process: str, disk: Disk, key: bytes, packed: bytes, changes: Changes) -> None:
        ticket = ticket_of(key)
        if disk.get(Table.JOBS, key) == packed:
            return
        must(self.origins.get(ticket[:6]) == process, f"{process} issued {ticket}, whose prefix is not its own")
        if ticket in self._unwritten:
            must(self._unwritten.pop(ticket) == packed, f"{process} issued {ticket} again, which the ledger has")
        else:
            must(ticket not in self.issued, f"{process} issued {ticket} twice")
        stands = any(changes.get((table, key)) is not None for table in (Table.LIVE, Table.ENDED, Table.ALIASES))
        must(stands, f"{process} issued {ticket} without noting that it is live, or how it ended meanwhile")
        self._is_issued(ticket, process, packed)

    def _node_lets_go(self, process: str, key: bytes, changes: Changes) -> None:
        ticket = ticket_of(key)
        ended = changes.get((Table.ENDED, key)) is not None or changes.get((Table.ALIASES, key)) is not None
        withdrawn = ticket not in self.orders.acknowledged and changes.get((Table.JOBS, key), b"") is None
        allowed = ended or self._is_erased(key, changes) or self.orders.forgotten(ticket) or withdrawn
        must(allowed, f"{process} let go of {ticket}, which has not ended")

    def _node_leases(self, process: str, ticket: str, live: Live) -> None:
        must(ticket not in self.learned, f"{process} gave itself {ticket}, which the ledger has")
        self.leases.given_by_its_origin(process, ticket, live)

    def _own_lease(self, key: bytes) -> Live | None:
        """What the origin of a job has given itself of it."""
        origin = self.issued.get(ticket_of(key))
        packed = None if origin is None else self.disk(origin).get(Table.LIVE, key)
        return glance(Live, packed) if packed else None

    def _node_ends(self, process: str, key: bytes, ended: Ended) -> None:
        """What the ledger has recorded; or what this node alone has decided, because nobody else knows of the job."""
        ticket = ticket_of(key)
        if ticket not in self.learned:
            self._ends(ticket, self._own_lease(key), ended)
            return
        recorded = self.ends.get(ticket, {}).get(ended.retried)
        true = recorded == replace(ended, sequence=0)
        must(true, f"{process} has {ended} as the end of {ticket}, and the ledger {recorded}")

    def _node_keeps(self, process: str, key: bytes, reported: Reported) -> None:
        ticket = ticket_of(key[:-4])
        over = self.leases.is_over((ticket, reported.attempt)) or self.job(ticket).kind == "sleep"
        must(over, f"{process} has an outcome of {ticket}.{reported.attempt}, which is not over")

    def _node_drops(self, process: str, disk: Disk, key: bytes) -> None:
        """An outcome goes when the ledger has it on its disk, or does not want it."""
        packed, ticket = disk.get(Table.OUTCOMES, key), ticket_of(key[:-4])
        live = self.ledger.live(key[:-4])
        if packed is None:
            return
        reported = unpack(Reported, packed)
        if live is None:
            wanted = ticket not in self.ends and array_of(ticket) not in self.forgotten
        else:
            wanted = live.leased and (live.attempt, live.boot_id) == (reported.attempt, reported.boot_id)
        must(not wanted, f"{process} dropped the outcome of {ticket}.{reported.attempt}, which is waited for")

    # --- both --------------------------------------------------------------------------------------------------------

    def _end_goes(self, process: str, disk: Disk, key: bytes, changes: Changes) -> None:
        """An ended job changes only by RETRY and FORGET; and after the retention time it is no longer kept."""
        ticket = ticket_of(key)
        if disk.get(Table.ENDED, key) is None:
            return
        retried = changes.get((Table.LIVE, key)) is not None and self.orders.retried(ticket)
        allowed = retried or self.orders.forgotten(ticket) or self._is_erased(key, changes)
        must(allowed, f"{process} lost the end of {ticket}")
        if process == BALANCER and not retried:
            self._inputs.goes(ticket, changes)

    def _is_erased(self, key: bytes, changes: Changes) -> bool:
        """Whether a tombstone is put up for it or for its array, and rightly."""
        ticket = ticket_of(key)
        for name in dict.fromkeys((ticket, array_of(ticket))):
            stone = changes.get((Table.TOMBSTONES, key_of(name)))
            if stone is not None:
                return self.orders.forgotten(ticket) if stone == FORGOTTEN else self._expires
        return False


def _jobs_first(changes: Changes) -> list[tuple[tuple[Table, bytes], bytes | None]]:
    """What was asked for is to be known before it is looked at what became of it."""
    return sorted(changes.items(), key=lambda change: change[0][0] is not Table.JOBS)


def _number(ticket: str) -> int:
    return int(ticket.partition("-")[2].partition("_")[0])
