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

When a process starts, whatever its disk holds that was not there is taken for one last commit of the boot before, and
must be as right as any other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs
import msgspec
import trio

from common.codec import glance, unpack
from common.effects import Delete, Exit, Put, Table, Write
from common.events import Stop as StopNode
from common.machine import Machine
from common.messages import Reported
from common.model import Ended, Outcome, Reason, State, Verdict, array_of, ticket_of
from common.runtime.driver import Step
from tests.simulation.faults import Fault, Pause, Stop
from tests.simulation.orders import Orders
from tests.simulation.silence import Silence

BALANCER: Final = "balancer"
LOOKED_AT: Final = (
    Table.META, Table.JOBS, Table.LIVE, Table.ENDED, Table.OUTCOMES, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES,
    Table.ORIGINS, Table.KEYS,
)  # fmt: skip
_FORGOTTEN: Final = b"forgotten"
_HAND_BACK_S: Final = 3.0

Tables = Mapping[Table, Mapping[bytes, bytes]]
Changes = dict[tuple[Table, bytes], bytes | None]


class Violation(AssertionError):
    """A promise is broken."""


class Asked(msgspec.Struct):
    """What matters here of a job."""

    kind: str = ""
    key: str | None = None
    group: str | None = None
    array: str | None = None
    after: tuple[str, ...] = ()
    crash_limit: int | None = 3


_NOTHING: Final = Asked()


class Live(msgspec.Struct):
    """What matters here of what the ledger has on disk of a live job."""

    attempt: int = 0
    leased: bool = False
    boot_id: str | None = None
    crashes: int = 0
    cancelled: bool = False
    retried: int = 0
    array: str | None = None
    waits_for: tuple[str, ...] = ()


class Disk:
    """One process' disk, as far as it is looked at."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in LOOKED_AT}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def live(self, key: bytes) -> Live | None:
        packed = self.get(Table.LIVE, key)
        return None if packed is None else glance(Live, packed)

    def apply(self, changes: Changes) -> None:
        for (table, key), value in changes.items():
            if value is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = value

    def difference(self, found: Tables) -> list[Write]:
        """What would have to be written to make it what was found."""
        writes: list[Write] = []
        for table in LOOKED_AT:
            mine, other = self.tables[table], found.get(table, {})
            writes += [Put(table, key, value) for key, value in other.items() if mine.get(key) != value]
            writes += [Delete(table, key) for key in mine if key not in other]
        return writes


class Auditor:
    """A watcher of the world. `tables` is what is durable on a process' disk; `expires` says whether a record may
    be older than its retention time in this story."""

    def __init__(self, tables: Callable[[str], Tables], *, node_timeout_s: float, expires: bool = False) -> None:
        self._tables = tables
        self._silence = Silence(node_timeout_s)
        self._expires = expires
        self.disks: dict[str, Disk] = {}
        self.boots: dict[str, str] = {}  # process → its boot, while it lives
        self._stopped_at: dict[str, float] = {}  # boot → when it was told to stop
        self._taken_leave: set[str] = set()  # boots that have ended as planned
        self._lost: set[str] = set()  # boots that have ended otherwise
        self._crashes: dict[str, set[tuple[int, str]]] = {}  # ticket → its leases that were lost
        self._stopping: set[str] = set()  # boots that were told to end as planned: they hand back what they run
        self.orders = Orders(self.first_name, lambda ticket: self.job(ticket).group)
        self.issued: dict[str, str] = {}  # ticket → the process that is its origin
        self.jobs: dict[str, Asked] = {}  # what was asked for under each ticket
        self.origins: dict[str, str] = {}  # ticket prefix → process
        self.leases: dict[tuple[str, int], dict[str, float]] = {}  # attempt → the boots that have it, and since when
        self.last_leased: dict[str, int] = {}  # ticket → its last attempt that was durably leased
        self.begun: dict[tuple[str, int], str] = {}  # attempt → the boot in which it began
        self.last_begun: dict[str, int] = {}  # ticket → its highest attempt that has begun
        self.over_: dict[tuple[str, int], tuple[str, Outcome]] = {}  # attempt → the boot that ran it, and how it ended
        self.ends: dict[str, dict[int, Ended]] = {}  # ticket → by how often it was retried, its recorded end
        self.cancelled: set[str] = set()  # tickets whose cancel was recorded at some time
        self.revived: set[str] = set()  # tickets that RETRY has brought back, at some time
        self.forgotten: set[str] = set()  # tickets that FORGET has erased
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
        return self.jobs.get(array_of(ticket), _NOTHING)

    # --- the world tells ---------------------------------------------------------------------------------------------

    def fault(self, fault: Fault) -> None:
        """One of the plan is about to happen."""
        if isinstance(fault, Pause) and fault.process == BALANCER:
            self._silence.pauses(trio.current_time())
        if isinstance(fault, Stop) and fault.process in self.boots:
            self._stopping.add(self.boots[fault.process])

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        changes: Changes = {
            (write.table, write.key): write.value if isinstance(write, Put) else None
            for write in writes
            if write.table in LOOKED_AT
        }
        if not changes:
            return
        self.changed_at = trio.current_time()
        if process == BALANCER:
            self._ledger_commits(self.ledger, changes)
        else:
            self._node_commits(process, self.disk(process), changes)
        self.disk(process).apply(changes)

    def booted(self, process: str, boot_id: str) -> None:
        self.committed(process, self.disk(process).difference(self._tables(process)))
        self.boots[process] = boot_id
        self.starts += 1
        if process == BALANCER:
            self._silence.begins(trio.current_time())

    def died(self, process: str, how: str) -> None:
        """Also as planned: then it is `stopped`."""
        boot = self.boots.pop(process, None)
        self.crashes += how != "stopped"
        if boot is not None and boot not in self._taken_leave:
            self._lost.add(boot)

    def stepped(self, process: str, step: Step, machine: Machine) -> None:
        machine.check()
        if process == BALANCER:
            self._silence.heard(step)
        elif self.boots.get(process) in self._stopping:
            self._stops(self.boots[process], step, machine)

    def _stops(self, boot: str, step: Step, machine: Machine) -> None:
        """A node that is told to stop can take its leave as long as it has a link. Without one, or where nothing comes
        through for HAND_BACK_S, the ledger cannot know that it was no crash."""
        if any(isinstance(event, StopNode) for event in step.events):
            self._stopped_at.setdefault(boot, step.now)
        if any(isinstance(action, Exit) for action in step.effects.actions):
            in_time = step.now < self._stopped_at.get(boot, 0.0) + _HAND_BACK_S
            if in_time and machine.statistics()["linked"]:
                self._taken_leave.add(boot)

    def began(self, process: str, boot_id: str, ticket: str, attempt: int) -> None:
        id = (ticket, attempt)
        must(id not in self.begun, f"{ticket}.{attempt} began twice: in boot {self.begun.get(id)} and in {boot_id}")
        must(self.boots.get(process) == boot_id, f"{ticket}.{attempt} began in a boot of {process} that is over")
        given = boot_id in self.leases.get(id, ())
        must(given, f"{ticket}.{attempt} began at {process} without a durable lease to this boot")
        self._must_have_what_it_waits_for(ticket)
        self.begun[id] = boot_id
        self.last_begun[ticket] = max(attempt, self.last_begun.get(ticket, 0))

    def _must_have_what_it_waits_for(self, ticket: str) -> None:
        """RETRY queues what it brings back, whatever it had waited for. And of what was forgotten in the step in which
        it succeeded, nobody sees the end."""
        for name in () if self.revived & {ticket, array_of(ticket)} else self.job(ticket).after:
            first = self.first_name(name)
            succeeded = any(ended.state is State.SUCCEEDED for ended in self.ends.get(first, {}).values())
            must(succeeded or array_of(first) in self.forgotten, f"{ticket} began before {name} had succeeded")

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome) -> None:
        id = (ticket, attempt)
        never = outcome.verdict is Verdict.CRASHED or outcome.reason is Reason.CANNOT_START
        must(id in self.begun or never, f"{ticket}.{attempt} is over and never began")
        must(id not in self.over_, f"{ticket}.{attempt} is over twice")
        self.over_[id] = (self.boots[process], outcome)

    # --- the ledger's disk -------------------------------------------------------------------------------------------

    def _ledger_commits(self, disk: Disk, changes: Changes) -> None:
        for (table, key), value in changes.items():
            if table is Table.TOMBSTONES and value == _FORGOTTEN:
                self.forgotten.add(ticket_of(key))
        for (table, key), value in changes.items():
            match table:
                case Table.JOBS if value is not None:
                    self._ledger_learns(disk, key, value)
                case Table.ENDED if value is not None:
                    self._ends(ticket_of(key), disk.live(key) or self._own_lease(key), unpack(Ended, value))
                case Table.ENDED:
                    self._end_goes(BALANCER, disk, key, changes)
                case Table.LIVE if value is not None:
                    self._ledger_changes(ticket_of(key), disk.live(key), glance(Live, value))
                case Table.LIVE if disk.live(key) is not None:
                    ended = changes.get((Table.ENDED, key)) is not None
                    must(
                        ended or self._is_erased(key, changes), f"the ledger lost {ticket_of(key)}, which had not ended"
                    )
                case Table.ALIASES:
                    must(disk.get(table, key) in (None, value), f"{ticket_of(key)} is another job's second name now")

    def _ledger_learns(self, disk: Disk, key: bytes, packed: bytes) -> None:
        ticket = ticket_of(key)
        must(ticket in self.issued, f"the ledger has the job {ticket}, which is on no origin's disk")
        origin = self.disk(self.issued[ticket])
        for known in (disk.get(Table.JOBS, key), origin.get(Table.JOBS, key)):
            must(known in (None, packed), f"{ticket} is another job now than what was submitted")
        sent = int(origin.get(Table.META, b"sent_number") or b"0")
        must(int(ticket.partition("-")[2]) <= sent, f"{ticket} was sent, and its origin may take it for its own")
        self.learned.add(ticket)

    def _ledger_changes(self, ticket: str, before: Live | None, after: Live) -> None:
        if after.retried > (before.retried if before is not None else 0):
            must(self.orders.retried(ticket), f"{ticket} was brought back, and nobody asked for it")
            self.revived.add(ticket)
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
        given = before if before is not None and before.leased else self._own_lease(key_of(ticket))
        if given is None and not after.leased:
            given = after  # leased and lost in one step
        if given is not None and (after.attempt, after.boot_id, after.leased) != (given.attempt, given.boot_id, True):
            crashed = self._note_crash(ticket, given)
            counted = after.crashes > (before.crashes if before is not None else 0)
            must(crashed or not counted, f"{ticket}.{given.attempt} is counted as a crash, and was none")
        if after.leased:
            self._ledger_leases(ticket, after)

    def _note_crash(self, ticket: str, live: Live | None) -> bool:
        """A lease is over; whether as a crash, which it is where its node died, or was silent for too long, or lost
        what it ran. A node that ends as planned, or hands something back, has not crashed."""
        if live is None or live.boot_id is None:
            return False
        id, boot = (ticket, live.attempt), live.boot_id
        _, outcome = self.over_.get(id, (None, None))
        crashed = outcome is not None and outcome.verdict is Verdict.CRASHED
        since = self.leases.get(id, {}).get(boot, 0.0)
        if crashed or boot in self._lost or self._silence.was_long(boot, since, trio.current_time()):
            self._crashes.setdefault(ticket, set()).add((live.attempt, boot))
            return True
        return False

    def _ledger_leases(self, ticket: str, live: Live) -> None:
        boots = self.leases.setdefault((ticket, live.attempt), {})
        assert live.boot_id is not None
        if live.boot_id in boots:
            return
        last = self.last_begun.get(ticket, 0)
        must(live.attempt > last, f"{ticket}.{live.attempt} was leased after {ticket}.{last} had begun")
        if last == self.last_leased.get(ticket) and not self.revived & {ticket, array_of(ticket)}:
            self._must_be_lost(ticket, last)
        boots[live.boot_id] = trio.current_time()
        self.last_leased[ticket] = live.attempt

    def _must_be_lost(self, ticket: str, attempt: int) -> None:
        """Slow is not dead: nothing is run again that runs, or whose outcome its node has, unless the ledger could
        not hear that node for a node timeout."""
        boot = self.begun.get((ticket, attempt))
        if boot is None or boot not in self.boots.values() or boot in self._stopping:
            return
        _, outcome = self.over_.get((ticket, attempt), (None, None))
        failed = outcome is not None and outcome.verdict is not Verdict.SUCCEEDED
        leased_at = self.leases[ticket, attempt][boot]
        lost = failed or self._silence.was_long(boot, leased_at, trio.current_time())
        must(lost, f"{ticket} was leased again, and {ticket}.{attempt} is at a node that was never silent")

    def _ends(self, ticket: str, live: Live | None, ended: Ended) -> None:
        """An end is on the disk of whoever decides of it. Its place among all ends only the ledger tells."""
        ended = attrs.evolve(ended, sequence=0)
        ends = self.ends.setdefault(ticket, {})
        known = ends.get(ended.retried)
        if known is not None:
            must(known == ended, f"{ticket} ended twice: {known}, and then {ended}")
            return
        must(not ends or ended.retried > max(ends), f"{ticket} ended as of before its RETRY: {ended}")
        must(not ended.retried or self.orders.retried(ticket), f"{ticket} ended again, and nobody asked for a RETRY")
        self._must_be_true(ticket, live, ended)
        ends[ended.retried] = ended

    def _must_be_true(self, ticket: str, live: Live | None, ended: Ended) -> None:
        """Nobody but an attempt, a client, a failed dependency or a crash brings about an end."""
        job = self.job(ticket)
        match ended.state, ended.reason:
            case _ if ended.counts:
                pass  # an array: its counts are compared in the end
            case State.CANCELLED, Reason.DEPENDENCY:
                must(bool(job.after), f"{ticket} was cancelled with what it does not wait for")
            case State.CANCELLED, _:
                must(self.orders.cancelled(ticket), f"{ticket} was cancelled, and nobody asked for it")
            case State.FAILED, Reason.CRASH_LIMIT:
                self._note_crash(ticket, live)
                crashes = len(self._crashes.get(ticket, ()))
                enough = job.crash_limit is not None and crashes >= job.crash_limit
                must(enough, f"{ticket} has reached its crash limit with {crashes} crashes")
            case _:
                self._must_be_how_it_ended(ticket, live, ended, sleeps=job.kind == "sleep")

    def _must_be_how_it_ended(self, ticket: str, live: Live | None, ended: Ended, *, sleeps: bool) -> None:
        id = (ticket, ended.attempt)
        is_last = live is not None and live.attempt == ended.attempt
        must(is_last, f"{ticket} ended with attempt {ended.attempt}, and the last lease is {live}")
        if sleeps:  # the node itself times it; nobody else sees it
            return
        boot, outcome = self.over_.get(id, ("", None))
        if outcome is None:
            raise Violation(f"{ticket}.{ended.attempt} is recorded as {ended.state}, and it is not over")
        must(boot in self.leases.get(id, ()), f"{ticket}.{ended.attempt} ended in a boot that it was not leased to")
        if ended.reason is not Reason.TIMEOUT:
            good = outcome.verdict is Verdict.SUCCEEDED
            true = good == (ended.state is State.SUCCEEDED) and ended.exit == outcome.exit
            must(true, f"{ticket}.{ended.attempt} ended with {outcome} and is recorded as {ended}")

    # --- a node's disk -----------------------------------------------------------------------------------------------

    def _node_commits(self, process: str, disk: Disk, changes: Changes) -> None:
        for (table, key), value in changes.items():
            match table:
                case Table.META:
                    self._node_counts(process, disk, key, value)
                case Table.JOBS if value is not None:
                    self._node_issues(process, disk, key, value, changes)
                case Table.JOBS if disk.get(Table.LIVE, key) is not None:
                    must(changes.get((Table.LIVE, key), b"") is None, f"{process} lost what {ticket_of(key)} is")
                case Table.LIVE if value:
                    self._node_leases(process, ticket_of(key), glance(Live, value))
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
            before = int(disk.get(Table.META, key) or b"0")
            must(int(value or b"0") >= before, f"{process} counts its tickets down from {before}")

    def _node_issues(self, process: str, disk: Disk, key: bytes, packed: bytes, changes: Changes) -> None:
        ticket = ticket_of(key)
        if disk.get(Table.JOBS, key) == packed:
            return
        must(self.origins.get(ticket[:6]) == process, f"{process} issued {ticket}, whose prefix is not its own")
        must(ticket not in self.issued, f"{process} issued {ticket} twice")
        must(changes.get((Table.LIVE, key)) is not None, f"{process} issued {ticket} without noting that it is live")
        self.issued[ticket] = process
        self.jobs[ticket] = glance(Asked, packed)

    def _node_lets_go(self, process: str, key: bytes, changes: Changes) -> None:
        ticket = ticket_of(key)
        ended = changes.get((Table.ENDED, key)) is not None or changes.get((Table.ALIASES, key)) is not None
        withdrawn = ticket not in self.orders.acknowledged and changes.get((Table.JOBS, key), b"") is None
        allowed = ended or self._is_erased(key, changes) or self.orders.forgotten(ticket) or withdrawn
        must(allowed, f"{process} let go of {ticket}, which has not ended")

    def _node_leases(self, process: str, ticket: str, live: Live) -> None:
        """Without a balancer a node gives itself what nobody else can know of."""
        assert live.boot_id is not None
        boots = self.leases.setdefault((ticket, live.attempt), {})
        if live.boot_id in boots:
            return
        must(live.boot_id == self.boots.get(process), f"{process} gave {ticket} to a boot that is not its own")
        must(ticket not in self.learned, f"{process} gave itself {ticket}, which the ledger has")
        must(not boots and live.attempt == 1, f"{process} gave itself {ticket}.{live.attempt} after {self.leases}")
        boots[live.boot_id] = trio.current_time()
        self.last_leased[ticket] = live.attempt

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
        true = recorded == attrs.evolve(ended, sequence=0)
        must(true, f"{process} has {ended} as the end of {ticket}, and the ledger {recorded}")

    def _node_keeps(self, process: str, key: bytes, reported: Reported) -> None:
        ticket = ticket_of(key[:-4])
        over = (ticket, reported.attempt) in self.over_ or self.job(ticket).kind == "sleep"
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

    def _is_erased(self, key: bytes, changes: Changes) -> bool:
        """Whether a tombstone is put up for it or for its array, and rightly."""
        ticket = ticket_of(key)
        for name in dict.fromkeys((ticket, array_of(ticket))):
            stone = changes.get((Table.TOMBSTONES, key_of(name)))
            if stone is not None:
                return self.orders.forgotten(ticket) if stone == _FORGOTTEN else self._expires
        return False


def must(held: bool, text: str) -> None:
    if not held:
        raise Violation(text)


def key_of(ticket: str) -> bytes:
    """The key of a ticket in every table, as `docs/tables.md` has it."""
    plain, _, index = ticket.partition("_")
    prefix, number = plain.split("-")
    key = prefix.encode() + int(number).to_bytes(8, "big")
    return key + int(index).to_bytes(6, "big") if index else key


def tickets(keys: Iterable[bytes]) -> list[str]:
    return sorted(map(ticket_of, keys))
