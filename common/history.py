"""Ended jobs: kept for the retention time, then answered with EXPIRED for as long again, then forgotten.

Both programs keep a history: the ledger of every job, an origin of its own. It lives on disk only; in memory there
is nothing that grows with it. The expiry index is ordered by the moment of the end, so that the oldest are found
without looking at the rest.

    recorded ── retention ──► tombstone ── retention ──► forgotten
"""

from collections.abc import Callable, Iterator, Sequence

from common.codec import pack, unpack
from common.effects import Table
from common.keys import Keys
from common.limits import ATTEMPTS_KEPT_MAX, EXPIRE_AGAIN_S, EXPIRE_PER_STEP_MAX, EXPIRE_PERIOD_S
from common.memory import Memory
from common.model import Ended, Job, array_of, ticket_key, ticket_of

_RECORD = b"r"  # an expiry entry of a job that can be read
_TOMBSTONE = b"t"  # of one that is only known to have been
_EXPIRED = b""  # what a tombstone says
_FORGOTTEN = b"forgotten"
_SCAN = 500
_SEQUENCE_BYTES = 8


class History:
    """The ended jobs of one data directory. Moments are calendar seconds, because retention outlives a boot."""

    def __init__(self, memory: Memory, retention_s: float) -> None:
        self._memory = memory
        self._keys = Keys(memory)
        self._retention_s = retention_s
        self.taken_out = 0  # ends of jobs that live again or were forgotten, ever
        self._looked_at = b""  # the expiry entries up to this one were kept; after the last they are looked at again
        self.expire_in_s = EXPIRE_PERIOD_S

    def record(self, ticket: str, ended: Ended, output: bytes, group: str | None = None) -> bytes:
        """Remembers how a job ended. Its output is standard output followed by standard error. Where the ends are
        numbered, those of a group can be found in their order. Returns the end as it is on disk."""
        key = ticket_key(ticket)
        if group is not None and ended.sequence:
            self.enter_group(group, ended.sequence, key)
        packed = pack(ended)
        self.record_in_a_row(ended.ended_wall, ((key, packed, output),))
        return packed

    def record_in_a_row(self, ended_wall: float, ends: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """How jobs have ended at one moment: of each its key, packed Ended, and output. Not, in which groups."""
        ended, outputs, expiry = map(self._memory.writes_to, (Table.ENDED, Table.OUTPUTS, Table.EXPIRY))
        moment = _moment(ended_wall)
        for key, packed, output in ends:
            ended[key] = packed
            if output:
                outputs[key] = output
            expiry[moment + key] = _RECORD

    def revive(self, ticket: str) -> Ended | None:
        """The job is live again: its end and its output are taken out, and the end is returned."""
        self.taken_out += 1
        ended = self.find(ticket)
        if ended is not None:
            key = ticket_key(ticket)
            self._memory.delete(Table.EXPIRY, _moment(ended.ended_wall) + key)
            self._leave_group(ticket, ended)
            self._memory.delete(Table.ENDED, key)
            self._memory.delete(Table.OUTPUTS, key)
        return ended

    def forget(self, ticket: str) -> None:
        """Everything of an ended job goes, also what would have said that it was."""
        self.taken_out += 1
        ended = self.find(ticket)
        if ended is not None:
            self._memory.delete(Table.EXPIRY, _moment(ended.ended_wall) + ticket_key(ticket))
        self._erase(ticket)
        self._memory.delete(Table.TOMBSTONES, ticket_key(ticket))

    def find(self, ticket: str) -> Ended | None:
        packed = self.packed(ticket)
        return None if packed is None else unpack(Ended, packed)

    def packed(self, ticket: str) -> bytes | None:
        """How it has ended, as it is on disk."""
        return self._memory.get(Table.ENDED, ticket_key(ticket))

    def output(self, ticket: str, ended: Ended) -> bytes:
        """Standard output followed by standard error. Where the stored bytes are damaged and set aside, zeros of
        the same length stand for them: the outcome is known although its output is not."""
        size = ended.stdout_bytes + ended.stderr_bytes
        output = self._memory.get(Table.OUTPUTS, ticket_key(ticket)) if size else b""
        return bytes(size) if output is None else output

    def printed(self, key: bytes, stdout_bytes: int, stderr_bytes: int) -> bytes | None:
        """The standard output alone of the job with this key, for others to go on with; None where that is damaged and
        set aside."""
        output = self._memory.get(Table.OUTPUTS, key) if stdout_bytes else b""
        if output is None or (output and len(output) != stdout_bytes + stderr_bytes):
            return None
        return output[:stdout_bytes] if stderr_bytes else output

    def expired(self, ticket: str) -> bool:
        """Whether it ended and was expired, and that is still known."""
        return self._memory.get(Table.TOMBSTONES, ticket_key(ticket)) == _EXPIRED

    def place(self, ticket: str, ended: Ended) -> bytes:
        """Where it stands in the order of the ends."""
        return _moment(ended.ended_wall) + ticket_key(ticket)

    def newest(self, before: bytes = b"") -> Iterator[tuple[str, Ended]]:
        """Ended jobs, and arrays without their elements, the latest end first; those that ended before a place, where
        one is named. In chunks, so that a caller may stop."""
        after = before
        while chunk := self._memory.scan(Table.EXPIRY, after=after, limit=_SCAN, backwards=True):
            for index, kind in chunk:
                ticket = ticket_of(index[8:])
                ended = self.find(ticket) if kind == _RECORD and array_of(ticket) == ticket else None
                if ended is not None:
                    yield ticket, ended
            after = chunk[-1][0]

    def entomb(self, ticket: str, wall: float, *, forgotten: bool = False) -> None:
        """Remembers that a job ended and can no longer be read; or that it was forgotten, which is told to nobody but
        to a runner that comes with an outcome of it."""
        key = ticket_key(ticket)
        self._memory.put(Table.TOMBSTONES, key, _FORGOTTEN if forgotten else _EXPIRED)
        self._memory.put(Table.EXPIRY, _moment(wall) + key, _TOMBSTONE)

    def expire(self, wall: float, *, early: bool = False, keeps: Callable[[str], bool] = lambda ticket: False) -> int:
        """Takes the next step of what is due, EXPIRE_PER_STEP_MAX at most; returns how many records went. `expire_in_s`
        says when the next step should be taken.

        With `early`, the oldest records go although they are not due: the store needs room. What the caller `keeps`
        stays in any case, and holds nothing up.
        """
        gone = handled = 0
        self.expire_in_s = EXPIRE_PERIOD_S
        oldest = self._memory.scan(Table.EXPIRY, limit=1)
        if not early and not any(self._is_due(index, wall) for index, _ in oldest):
            return gone
        after, self._looked_at = self._looked_at, b""
        for index, kind in self._memory.scan(Table.EXPIRY, after=after, limit=EXPIRE_PER_STEP_MAX):
            if not early and not self._is_due(index, wall):
                break
            handled += 1
            ticket = ticket_of(index[8:])
            if keeps(ticket):
                continue
            self._memory.delete(Table.EXPIRY, index)
            if kind == _RECORD:
                self._erase(ticket)
                self.entomb(ticket, wall)
                gone += 1
            else:
                self._bury(ticket, due=self._is_due(index, wall))
        if handled == EXPIRE_PER_STEP_MAX:
            self._looked_at = index
            self.expire_in_s = EXPIRE_AGAIN_S
        return gone

    def _bury(self, ticket: str, *, due: bool) -> None:
        """The last of a job goes. So does, in its time, what its origin was to be told: its copy has expired, too."""
        self._memory.delete(Table.TOMBSTONES, ticket_key(ticket))
        if due and self._memory.get(Table.NOTICES, ticket_key(ticket)) is not None:
            self._memory.delete(Table.NOTICES, ticket_key(ticket))

    def _is_due(self, index: bytes, wall: float) -> bool:
        return int.from_bytes(index[:8], "big") / 1000 + self._retention_s <= wall

    def _erase(self, ticket: str) -> None:
        key = ticket_key(ticket)
        ended = self.find(ticket)
        if ended is not None:
            self._leave_group(ticket, ended)
        packed = self._memory.get(Table.JOBS, key)
        if packed is not None and (named := unpack(Job, packed).key) is not None:
            self._keys.release(named, ticket)
        if ended is None or ended.begun > 1 or ended.begun > ended.attempt or ended.retried:
            for attempt, _ in self._memory.scan(Table.ATTEMPTS, prefix=key, limit=ATTEMPTS_KEPT_MAX):
                self._memory.delete(Table.ATTEMPTS, attempt)
        for table in (Table.ENDED, Table.OUTPUTS, Table.JOBS, Table.BODIES, Table.ARRAYS):
            self._memory.delete(table, key)

    # --- groups --------------------------------------------------------------------------------------------------

    def enter_group(self, group: str, sequence: int, key: bytes) -> None:
        """The job with this key has ended, as the `sequence`-th of all."""
        self._memory.put(Table.GROUPS, _in_group(group, sequence), key)

    def _leave_group(self, ticket: str, ended: Ended) -> None:
        packed = self._memory.get(Table.JOBS, ticket_key(ticket)) if ended.sequence else None
        if packed is not None and (group := unpack(Job, packed).group) is not None:
            self._memory.delete(Table.GROUPS, _in_group(group, ended.sequence))

    # --- earlier attempts ------------------------------------------------------------------------------------------

    def remember_attempt(self, ticket: str, ended: Ended) -> None:
        """An attempt that failed and is not the job's end, or the end of a job that RETRY brings back."""
        self._memory.put(Table.ATTEMPTS, _attempt_key(ticket, ended.attempt), pack(ended))

    def attempts(self, ticket: str) -> list[Ended]:
        """The earlier attempts that are remembered, in order, ATTEMPTS_KEPT_MAX at most."""
        found = self._memory.scan(Table.ATTEMPTS, prefix=ticket_key(ticket), limit=ATTEMPTS_KEPT_MAX)
        length = len(_attempt_key(ticket, 0))  # an element's key begins with its array's
        return [unpack(Ended, packed) for key, packed in found if len(key) == length]


def _in_group(group: str, sequence: int) -> bytes:
    return group.encode() + b"\0" + sequence.to_bytes(_SEQUENCE_BYTES, "big")


def _attempt_key(ticket: str, attempt: int) -> bytes:
    return ticket_key(ticket) + b"\0" + attempt.to_bytes(4, "big")


def _moment(wall: float) -> bytes:
    """Milliseconds, big-endian: sorts as time does."""
    return max(0, int(wall * 1000)).to_bytes(8, "big")
