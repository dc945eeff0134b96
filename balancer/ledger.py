"""The record of every job: from its acknowledgement on, this alone (and for jobs in a row `balancer/plain.py`)
decides a job's state and attempt.

The life of a job is drawn in `balancer/records.py`.

- An attempt is a *lease*: it names the node and the boot that it was given to. An outcome is recorded only when it
  is of the current attempt, from that boot; any other is acknowledged and dropped.
- A lease that was lost stays in the record as the last one until the job is leased again, so that a node that was
  only cut off may come back with it.
- A cancel is recorded at once and wins; the job is over when its attempt is, because its slot is taken until then.
- Attempts that crash with their node are counted; at the job's limit it fails with `crash_limit`. Attempts that fail
  are counted apart; while the job has retries left it waits and is queued again.
- The elements of an array are only numbers until they begin (`balancer/elements.py`).

Ended jobs are in the History, on disk, and so are most of those that only wait for a node (`balancer/live.py`). Pure.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from balancer.arrays import Array
from balancer.chronicle import Chronicle
from balancer.elements import Elements
from balancer.ends import Ends, how_it_counts
from balancer.inputs import Inputs, Lacking
from balancer.known import Known
from balancer.live import Live
from balancer.queue import Queue
from balancer.records import TRANSITIONS, Entry, LiveRecord
from common.codec import replace, unpack
from common.effects import Table
from common.history import History
from common.keys import first_name
from common.limits import ATTEMPTS_PER_LEDGER, BACKOFF_JITTER, BACKOFF_MAX_S
from common.machine import Chance
from common.memory import Memory
from common.messages import Lease, Reported
from common.model import (
    Ended,
    Job,
    Outcome,
    Reason,
    State,
    Verdict,
    array_of,
    element,
    end_of_attempt,
    index_of,
    ticket_key,
)

End: TypeAlias = tuple[str, Ended, bytes, bytes]  # ticket, end, output, and the end as it is on disk
_NOT_HELD_BACK: Final[dict[str, object]] = {"waits_for": (), "due_wall": 0.0, "due_s": 0.0, "retrying": False}


class Ledger:
    """Every job of the cluster. Methods change the record and the queue; they send nothing."""

    def __init__(
        self,
        memory: Memory,
        history: History,
        chronicle: Chronicle,
        chance: Chance,
        *,
        awake_max: int,
    ) -> None:
        self._memory = memory
        self._history = history
        self._chronicle = chronicle
        self._chance = chance
        self._live = Live(memory, awake_max)
        self._known = Known(memory, self._live)
        self.elements = Elements(memory, self._live.awake)
        self._sequence = 0
        self.ends = Ends(memory, history, chronicle, chance)
        self.inputs = Inputs(memory, history, self)
        self.queue = Queue()
        self._ended: list[End] = []  # since it was last asked
        self._dropped: list[str] = []
        self._waits: list[tuple[str, float]] = []
        self._held: list[str] = []
        self.counts = {"succeeded": 0, "failed": 0, "cancelled": 0, "stale": 0, "crashes": 0, "leases": 0, "retries": 0}

    def restore(self, wall: float) -> None:
        self.ends.restore()
        entries, resting = self._live.restore()
        self._sequence = self._live.last
        for run in resting:
            self.queue.extend(run.shape.needs, run.shape.priority, run.sequences)
        for entry in entries:
            self.elements.open(entry)
        for entry in entries:
            self._live.note(entry)
            self._restore_wait(entry, wall)
            self._offer(entry)
            self._hold(entry)
        arrays = [entry.array for entry in entries if entry.array is not None]
        for entry in [lost for array in arrays for lost in self.elements.lost(array)]:
            self.fail_unreadable(entry, wall)

    def _restore_wait(self, entry: Entry, wall: float) -> None:
        if entry.record.due_wall:
            left_s = min(max(0.0, entry.record.due_wall - wall), entry.record.due_s)
            self._waits.append((entry.ticket, left_s))

    @property
    def tag(self) -> str:
        """What the cursors of this ledger begin with; another ledger counts anew."""
        return self.ends.tag

    # --- looking -----------------------------------------------------------------------------------------------

    @property
    def all(self) -> Live:
        """The live jobs, to be looked through; they change by the ledger alone."""
        return self._live

    @property
    def census(self) -> Mapping[State, int]:
        """How many live jobs are in each state."""
        return self._live.census.counts

    def live(self, ticket: str) -> Entry | None:
        """The entry of a job that has not ended. For an element that has not begun, one that is kept nowhere."""
        entry = self._live.get(ticket)
        return self.elements.virtual(ticket) if entry is None and index_of(ticket) is not None else entry

    def end(self, ticket: str) -> Ended | None:
        """How a job has ended, if it has and that can be read; also of an element that never began."""
        array = array_of(ticket)
        if array != ticket and array not in self._live and self._history.find(array) is None:
            return None  # expired with its array, although its own turn has not come
        return self._history.find(ticket) or self.elements.dropped(ticket)

    def leased(self) -> list[Entry]:
        """Everything that is leased, in the order of arrival."""
        return [entry for entry in self._live.awake.values() if entry.record.leased]

    def job(self, ticket: str) -> Job:
        return unpack(Job, packed) if (packed := self._packed(ticket)) is not None else Job("", "")

    def can_be_read(self, entry: Entry) -> bool:
        """Whether it is known what was asked for; not where the record was damaged and set aside."""
        return self._packed(entry.ticket) is not None

    def _packed(self, ticket: str) -> bytes | None:
        return self._memory.get(Table.JOBS, ticket_key(array_of(ticket)))

    def first_name(self, ticket: str) -> str:
        """The ticket under which the ledger knows a job; another for an alias, or for an element of one."""
        first, index = first_name(self._memory, array_of(ticket)), index_of(ticket)
        return first if index is None else element(first, index)

    def learn_alias(self, ticket: str, first: str) -> None:
        """An origin tells that this ticket of its own is another name of a job."""
        if not self.knows(ticket):
            self.has_arrived(ticket)
            self._memory.put(Table.ALIASES, ticket_key(ticket), first.encode())

    def knows(self, ticket: str) -> bool:
        """Whether this ticket, or the array that it is an element of, has arrived: live, ended, expired, forgotten a
        moment ago, or as another name."""
        return ticket in self._known

    def is_newest(self, prefix: str, number: int) -> bool:
        """Whether no ticket of this origin has arrived with this number or a higher one."""
        return self._known.is_newest(prefix, number)

    def has_arrived(self, ticket: str) -> None:
        """Something is about to be written down under this ticket, which was not known."""
        self._known.arrived(ticket)

    def __len__(self) -> int:
        return len(self._live)

    def step_is_over(self) -> None:
        """What was kept at hand for this step is let go."""
        self._live.step_is_over()
        self.ends.step_is_over()
        self.inputs.step_is_over()

    # --- from birth to the queue -----------------------------------------------------------------------------------

    def next_in_order(self, count: int = 1) -> int:
        """The sequence of the next that arrives; of the first of so many."""
        self._sequence += count
        return self._sequence - count + 1

    def begin_life(self, entry: Entry, why: str) -> None:
        """Takes in a new job, or one that RETRY has brought back."""
        self._live.enter(entry)
        self.elements.open(entry)
        self._live.note(entry)
        self._save(entry)
        if entry.record.waits_for:
            self._hold(entry)
        if entry.record.due_s:
            self._waits.append((entry.ticket, entry.record.due_s))
        self._goes_on(entry, why)

    def _hold(self, entry: Entry) -> None:
        if entry.record.takes_input:
            self.inputs.want(entry.ticket)
        if entry.record.waits_for:
            self._held.append(entry.ticket)

    def take_held(self) -> list[str]:
        """Jobs that began to wait for others since this was last asked."""
        held, self._held = self._held, []
        return held

    def go_on(self, array: Entry) -> None:
        """One of its elements is live again. If the array was cancelled, and only what ran of it not over yet, it is
        an array like any other again; what had not begun stays dropped."""
        if array.record.cancelled:
            self._update(array, cancelled=False)

    def _goes_on(self, entry: Entry, why: str) -> None:
        """Where a live job stands now is told, and what waits for a node gets in line."""
        if (state := entry.state) in (State.BLOCKED, State.SCHEDULED, State.QUEUED):
            self._chronicle.tell(f"job.{state}", entry.ticket, reason=why)
        self._offer(entry)
        self._live.may_rest(entry)

    def _save(self, entry: Entry) -> None:
        self._memory.put(Table.LIVE, entry.key, entry.packed)

    def _offer(self, entry: Entry) -> None:
        """Puts a job that waits for a node into the queue. An array stands in it once, also for its elements."""
        if not entry.waits_for_a_node:
            return
        if entry.is_element and (array := self.elements.array(entry.ticket)) is not None:
            array.come_back(entry.ticket)
            entry = self._live.awake[array.ticket]
        if entry.array is not None:
            if entry.array.in_line or not entry.array.has_room:
                return
            entry.array.in_line = True
        record = entry.record
        self.queue.push((record.kind, record.slots), record.priority, record.sequence)

    # --- waiting for a moment, or for other jobs -----------------------------------------------------------------

    def take_waits(self) -> list[tuple[str, float]]:
        """Jobs that began to wait since this was last asked, and for how many seconds; then `due` is to be called."""
        waits, self._waits = self._waits, []
        return waits

    def due(self, ticket: str) -> None:
        """A delay, or the wait before another try, is over."""
        entry = self._live.get(ticket)
        if entry is not None and entry.record.due_wall:
            why = "retry" if entry.record.retrying else "delay_over"
            self._update(entry, due_wall=0.0, due_s=0.0, retrying=False)
            self._goes_on(entry, why)

    def unblock(self, entry: Entry, waits_for: tuple[str, ...]) -> None:
        """Some of the jobs that it waits for have succeeded; these have not. Raises Lacking, where all have and yet
        what it takes as its input is not to be had."""
        if waits_for or not entry.record.takes_input:
            self._update(entry, waits_for=waits_for)
        else:
            self._update(entry, waits_for=waits_for, bytes=self.inputs.weigh(entry.ticket))
        if not waits_for:
            self._goes_on(entry, "unblocked")

    def wait_again(self, entry: Entry) -> None:
        """Its input is not at hand: what it waits for is to be found out anew. Elements of an array wait with it."""
        if (array := self.elements.array(entry.ticket)) is not None:
            self._offer(entry)
            entry = self._live.awake[array.ticket]
        self._update(entry, waits_for=tuple(dict.fromkeys(self.job(entry.ticket).inputs)))
        self._hold(entry)
        self._goes_on(entry, "input")

    # --- leases ------------------------------------------------------------------------------------------------

    def out_of_line(self, entry: Entry) -> Entry:
        """The entry was taken out of the queue. What is to be leased for it: the job itself, or of an array the next
        element."""
        if entry.array is None:
            return entry
        entry.array.in_line = False
        return self.elements.next(entry.array) if entry.waits_for_a_node else entry

    def in_line_again(self, element: Entry) -> None:
        """An array whose element has just been leased waits for the next node, if it has room for more."""
        if element.is_element and (array := self.elements.array(element.ticket)) is not None:
            self._offer(self._live.awake[array.ticket])

    def lease(self, entry: Entry, node_id: str, boot_id: str) -> Lease | None:
        """The next attempt of a queued job, given to one boot of a node. None where the job's own record is damaged:
        the job fails, because nobody can run it."""
        assert State.DISPATCHED in TRANSITIONS[entry.state], f"{entry.ticket} is {entry.state} and was leased"
        if (packed := self._packed(entry.ticket)) is None:
            return None
        if entry.record.takes_input:
            entry.record.bytes = self._weight_bytes(entry)
        self._update(
            entry,
            attempt=entry.next_attempt,
            unused=False,
            leased=True,
            node_id=node_id,
            boot_id=boot_id,
            crash_counted=False,
        )
        entry.begun = False
        self.counts["leases"] += 1
        return self.lease_of(entry, packed)

    def _weight_bytes(self, entry: Entry) -> int:
        """What a job weighs whose input is at hand. Elements weigh what their array does, which was found out when it
        could begin: an input may be of a hundred thousand outputs."""
        array = self.elements.array(entry.ticket)
        return self.inputs.weigh(entry.ticket) if array is None else self._live.awake[array.ticket].record.bytes

    def lease_of(self, entry: Entry, packed: bytes | None = None) -> Lease:
        """The present lease, as it travels."""
        packed = packed or self._packed(entry.ticket) or b""
        record, body = entry.record, b""
        if record.takes_input:
            body = self.inputs.gather(entry.ticket)
        elif record.bytes != len(packed):  # else there is none, and no table need be asked
            body = self._memory.get(Table.BODIES, ticket_key(array_of(entry.ticket))) or b""
        return Lease(entry.ticket, record.attempt, packed, body, record.sequence)

    def resume(self, entry: Entry) -> None:
        """The node that held the last lease is back with it, in the same boot: the lease goes on."""
        assert not entry.record.leased
        crashes = entry.record.crashes - int(entry.record.crash_counted)
        self._update(entry, leased=True, crashes=crashes, crash_counted=False)

    def adopt(self, entry: Entry, node_id: str, boot_id: str, attempt: int) -> None:
        """A runner holds an attempt of a job that is not leased, given to it by an earlier ledger: it becomes the
        lease, and numbering goes on above it."""
        assert not entry.record.leased
        assert attempt > entry.record.attempt
        if entry.record.takes_input:
            with suppress(Lacking):  # it runs with what it was given; and weighs what can be known
                entry.record.bytes = self._weight_bytes(entry)
        self._update(
            entry,
            leased=True,
            node_id=node_id,
            boot_id=boot_id,
            attempt=attempt,
            unused=False,
            crash_counted=False,
            **_NOT_HELD_BACK,
        )

    def raise_attempt(self, entry: Entry, attempt: int) -> None:
        """An earlier ledger got as far as this attempt: numbers are never used twice."""
        record = entry.record
        if record.leased and attempt >= record.attempt and attempt > record.outnumbered:
            self._update(entry, outnumbered=attempt)
        elif not record.leased and attempt > record.attempt:
            self._update(entry, attempt=attempt, unused=False, node_id=None, boot_id=None)

    def release(self, entry: Entry, *, crashed: bool, wall: float, why: str = "lost") -> None:
        """The attempt is over without an outcome: lost with its node, returned or interrupted. The job is queued
        again, unless it is cancelled or has crashed too often."""
        assert entry.record.leased, f"{entry.ticket} is {entry.state} and its lease was released"
        crashes = entry.record.crashes + int(crashed)
        self._update(entry, leased=False, crashes=crashes, crash_counted=crashed)
        entry.begun = False
        self.counts["crashes"] += int(crashed)
        limit = entry.record.crash_limit
        if entry.record.cancelled:
            self._end(entry, Ended(State.CANCELLED, wall, Reason.USER), b"")
        elif crashed and limit is not None and crashes >= limit:
            self._end(entry, Ended(State.FAILED, wall, Reason.CRASH_LIMIT, attempt=entry.record.attempt), b"")
        else:
            self._goes_on(entry, "crashed" if crashed else why)

    def hand_back(self, entry: Entry, wall: float) -> None:
        """The node let go of the attempt before it began. Nothing was executed, so its number is not used up."""
        self._update(entry, unused=True, boot_id=None, node_id=None)
        self.release(entry, crashed=False, wall=wall, why="returned")

    def _update(self, entry: Entry, **changes: object) -> None:
        begins = (known := self._live.awake.get(entry.ticket)) is None
        assert begins or known is entry, f"an old entry of {entry.ticket} is being changed"
        if begins and entry.is_element:
            self.elements.begin(entry)
        elif begins:
            self._live.wake(entry)
        for name, value in changes.items():
            setattr(entry.record, name, value)
        self._save(entry)
        if entry.is_element:
            self.elements.note(entry)
        self._live.note(entry)
        if begins and entry.is_element:
            self._offer(entry)

    # --- ends --------------------------------------------------------------------------------------------------

    def current(self, entry: Entry, reported: Reported) -> bool:
        """Whether an outcome is of the current attempt, from the boot that it was given to."""
        return reported.attempt == entry.record.attempt and reported.boot_id == entry.record.boot_id

    def settle(self, entry: Entry, outcome: Outcome, output: bytes, node_name: str, wall: float) -> None:
        """Records how the current attempt ended: the end of the job, or one more attempt that is made again."""
        if outcome.verdict in (Verdict.INTERRUPTED, Verdict.CRASHED):
            if not entry.record.leased:
                self.resume(entry)
            self.release(entry, crashed=outcome.verdict is Verdict.CRASHED, wall=wall, why="interrupted")
            return
        state, reason = how_it_counts(outcome, cancelled=entry.record.cancelled)
        ended = end_of_attempt(outcome, state, reason, entry.record.attempt, node_name, wall)
        if state is State.FAILED and entry.record.failures < entry.record.retries:
            self._try_again_later(entry, ended, output)
        else:
            self._end(entry, ended, output)

    def _try_again_later(self, entry: Entry, ended: Ended, output: bytes) -> None:
        """Waits the job's back-off, doubled for each failure after the first, up to BACKOFF_MAX_S, with jitter."""
        backoff_s = self.job(entry.ticket).backoff_s
        doubled_s = backoff_s * 2.0 ** min(entry.record.failures, 40)
        wait_s = min(doubled_s, max(backoff_s, BACKOFF_MAX_S)) * self._chance.uniform(
            1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER
        )
        self.ends.record_attempt(entry.ticket, ended, output, wait_s)
        self._update(
            entry,
            leased=False,
            node_id=None,
            boot_id=None,
            retrying=True,
            due_wall=ended.ended_wall + wait_s,
            due_s=wait_s,
            failures=entry.record.failures + 1,
            last_reason=ended.reason,
        )
        entry.begun = False
        self._waits.append((entry.ticket, wait_s))
        self.counts["retries"] += 1
        self.in_line_again(entry)

    def cancel(
        self, entry: Entry, wall: float, reason: Reason = Reason.USER, because: str | None = None
    ) -> list[Entry]:
        """Records the cancel, which wins over whatever happens later. Returns the attempts that have to be ended
        first, whose jobs are over when they are."""
        ended = Ended(State.CANCELLED, wall, reason, because=because)
        if entry.array is not None:
            return self._cancel_array(entry, entry.array, ended)
        if entry.record.leased:
            self._update(entry, cancelled=True)
            return [entry]
        self._end(entry, ended, b"")
        return []

    def _cancel_array(self, entry: Entry, array: Array, ended: Ended) -> list[Entry]:
        self._update(entry, cancelled=True)
        if array.unbegun and array.dropped is None:
            self._drop(entry, array, ended)
        wall, reason = ended.ended_wall, ended.reason or Reason.USER
        running = [
            leased for one in list(array.live.values()) for leased in self.cancel(one, wall, reason, ended.because)
        ]
        if array.over and entry.ticket in self._live:
            self._end(entry, replace(array.end(wall, reason), because=ended.because), b"")
        return running

    def _drop(self, entry: Entry, array: Array, ended: Ended) -> None:
        """What has not begun of an array ends at one moment, and is no more than that end."""
        array.dropped = self._numbered(entry, ended)
        self.elements.save(array)
        self._live.note(entry)
        self._dropped.append(array.ticket)

    def fail_lost(self, ticket: str, wall: float) -> bool:
        """Whether this is a job that was taken in, and of which no record says how it stands: that was damaged, and
        set aside. It ends, because nobody can say whether it runs."""
        packed = self._memory.get(Table.JOBS, ticket_key(ticket))
        if packed is None or self._history.expired(ticket):
            return False
        self.has_arrived(ticket)
        job = unpack(Job, packed)
        sequence = self._live.arrived_as(ticket) or self.next_in_order()
        record = LiveRecord(sequence, job.kind, group=job.group, outnumbered=ATTEMPTS_PER_LEDGER)
        self.fail_unreadable(Entry(ticket, record), wall)
        return True

    def fail_unreadable(self, entry: Entry, wall: float) -> None:
        """The record of the job, or of how it stands, was damaged on disk and is in quarantine."""
        text = b"jobyard: the stored record of this job is damaged; it was set aside and cannot be run\n"
        ended = Ended(State.FAILED, wall, Reason.CANNOT_START, stderr_bytes=len(text))
        self._end(entry, ended, text)

    def _end(self, entry: Entry, ended: Ended, output: bytes) -> None:
        assert ended.state in TRANSITIONS[entry.state] or entry.array is not None or entry.record.cancelled, (
            f"{entry.state} → {ended.state}"
        )
        record, ended = entry.record, self._numbered(entry, ended)
        if record.failures and not output:
            self.ends.drop_output(entry.ticket)
        array = self.elements.array(entry.ticket) if entry.is_element else None
        self._live.leave(entry)
        if record.takes_input:
            self.inputs.leave(entry.ticket)
        self._memory.delete(Table.LIVE, entry.key)
        packed = self.ends.record(entry.ticket, ended, output, record.group if array is None else None)
        self._ended.append((entry.ticket, ended, output, packed))
        self.counts[ended.state] += 1
        if array is not None:
            self.elements.end(array, entry.ticket, ended)
            self._live.note(self._live.awake[array.ticket])
            self._look_at_array(self._live.awake[array.ticket], array, ended)

    def _numbered(self, entry: Entry, ended: Ended) -> Ended:
        begun = max(entry.attempts_begun, entry.record.outnumbered)
        return replace(ended, sequence=self.ends.next_number(), begun=begun, retried=entry.record.retried)

    def _look_at_array(self, parent: Entry, array: Array, ended: Ended) -> None:
        """One of its elements has ended: it is over with the last, and else there may be room for another."""
        if array.over:
            cause = ended.reason if ended.reason is Reason.DEPENDENCY else Reason.USER
            self._end(parent, replace(array.end(ended.ended_wall, cause), because=ended.because), b"")
        else:
            self._offer(parent)

    def have_succeeded(self, ends: Sequence[End]) -> None:
        """These were recorded as ended, and are no longer among the live jobs."""
        self.counts["succeeded"] += len(ends)
        self._ended += ends

    def take_ends(self) -> list[End]:
        """What has ended since it was last asked, for whoever is to be told."""
        ended, self._ended = self._ended, []
        return ended

    def take_dropped(self) -> list[str]:
        """Arrays of which elements ended since it was last asked that had not begun."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def check(self) -> None:
        self._live.check()
        for ticket, entry in self._live.awake.items():
            entry.check()
            if entry.array is not None:
                entry.array.check()
                assert not entry.array.over, f"all of {ticket} has ended, and it has not"
                assert entry.array.in_line or not entry.waits_for_a_node, f"{ticket} has room and is not in line"
