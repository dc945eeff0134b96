"""Every call of an executor on its way over one connection: what is to be sent now, and what replies come to.

    submit() ──► SUBMIT ──► taken ──────────────── WATCH tells its end ──► RESULT ──► settled
                    ▲         │ STATUS: has begun        (one for all, by group and cursor)
                    │         └ cancel() ──► CANCEL ──► gone
                    └ lost(): whatever is owed is asked again at the next node; keys and the cursor make that safe

Requests are pipelined, and replies come in their order. So one connection will do, as long as a WATCH that waits is
the last thing sent: it waits only when nothing is known that would be sent behind it, and for a moment only after a
submission, because whatever is submitted meanwhile has its answer behind it.

Pure: time is an argument; the caller dials, sends and receives. What is told comes as `Taken`, `Begun` and `Settled`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from jobyard import verbs
from jobyard.decoding import outcome_of, status_of, ticket_of, watched_of
from jobyard.errors import (
    TRY_NEXT,
    Expired,
    JobyardError,
    TooManyConnections,
    Unauthorized,
    Unavailable,
    UnknownTicket,
)
from jobyard.model import Outcome, Ticket
from jobyard.protocol import Reply, encode

SUBMISSIONS_MAX: Final = 1000  # owed an answer; a node allows 4,096 requests on one connection
RESULTS_MAX: Final = 64  # likewise: each may be long
SEND_BYTES: Final = 256 * 1024  # what is asked for at once is cut after about so much
WATCH_S_MIN: Final = 0.1  # how long a WATCH waits right after a submission;
WATCH_S_MAX: Final = 0.5  # it doubles up to this
LOOK_S: Final = 1.0  # how often STATUS is asked, for some calls:
LOOK_AHEAD: Final = 32  # the oldest that have not begun, as far as we know,
LOOK_AROUND: Final = 8  # and a few of all, in turn
REFUSED_S: Final = 5.0  # until a node that took nothing may be tried again
AGAIN_S: Final = 0.2  # until what nobody could answer is asked again


@dataclass(frozen=True, slots=True)
class Taken:
    """A call has a ticket."""

    number: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Begun:
    """A call has been seen running."""

    number: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A call has ended, or nothing can be learnt of it."""

    number: int
    how: Outcome | JobyardError


Told: TypeAlias = Taken | Begun | Settled


class Elsewhere(Exception):
    """The node that we talk to takes nothing. What is owed has to be asked of another."""


@dataclass(slots=True, eq=False)
class Call:
    """One call. `request` is its SUBMIT, until that is answered."""

    number: int
    key: str
    request: bytes
    sent: bool = False  # a node may have it
    ticket: Ticket | None = None
    begun: bool = False
    ended: bool = False
    cancelled: bool = False

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come, under a ticket that we know."""
        return self.ticket is not None and not (self.ended or self.cancelled)


class Calls:
    """What is under way for one executor, whose jobs are those of `group`; it may be tried at so many `nodes`."""

    def __init__(self, group: str, nodes: int) -> None:
        self._group = group
        self._nodes = nodes
        self._calls: dict[int, Call] = {}  # in the order in which they were submitted
        self._by_name: dict[str, Call] = {}  # by ticket and by key
        self._around: deque[Call] = deque()  # those with a ticket, in turn
        self._to_submit: deque[Call] = deque()
        self._to_cancel: deque[Call] = deque()
        self._to_fetch: deque[Call] = deque()
        self._again: deque[tuple[float, deque[Call], Call]] = deque()  # when, and whereto
        self._owed: deque[Callable[[Reply], Iterable[Told]]] = deque()  # who reads the next replies
        self._submissions_owed = 0
        self._results_owed = 0
        self._watch_owed = False
        self._watch_s = WATCH_S_MIN
        self._cursor: str | None = None
        self._early: set[str] = set()  # ended under tickets that we do not know yet
        self._refusals = 0  # by nodes, one after another
        self._refused_at = 0.0
        self._look_at = 0.0
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._calls)

    # --- what the executor wants -----------------------------------------------------------------------------------

    def submit(self, number: int, key: str, request: bytes) -> None:
        """A call under a number of its own. Its request is a SUBMIT with this key, and with the group."""
        call = Call(number, key, request)
        self._calls[number] = self._by_name[key] = call
        self._to_submit.append(call)
        self._watch_s = WATCH_S_MIN

    def cancel(self, number: int) -> None:
        """Nobody waits for this call any more: it is not submitted, or it is ended wherever it may be."""
        call = self._calls.get(number)
        if call is not None and not call.cancelled:
            call.cancelled = True
            if call.ticket is not None:
                self._to_cancel.append(call)
            elif not call.sent:
                self._drop(call)

    def fail(self, error: JobyardError) -> list[Told]:
        """There is no way to go on: every call ends so."""
        told: list[Told] = [Settled(call.number, error) for call in self._calls.values() if not call.cancelled]
        self._calls.clear()
        self._by_name.clear()
        self.lost()
        return told

    # --- out -------------------------------------------------------------------------------------------------------

    def requests(self, now: float) -> bytes:
        """What is to be sent now; empty when there is nothing, or enough is on its way."""
        self._now = now
        while self._again and self._again[0][0] <= now:
            _, queue, call = self._again.popleft()
            queue.append(call)
        data = bytearray()
        while self._to_cancel:
            data += self._ask("CANCEL", self._to_cancel.popleft())
        while self._to_fetch and self._results_owed < RESULTS_MAX:
            self._results_owed += 1
            data += self._ask("RESULT", self._to_fetch.popleft())
        while self._to_submit and self._submissions_owed < SUBMISSIONS_MAX and len(data) < SEND_BYTES:
            data += self._submission(self._to_submit.popleft())
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for call in self._looked_at():
                data += self._ask("STATUS", call)
        if self._calls and not self._watch_owed:
            data += self._watch()
        return bytes(data)

    def _ask(self, verb: str, call: Call) -> bytes:
        """The request that asks after a call, whose reply will be read by the method for its verb."""
        assert call.ticket is not None, f"{verb} of a call without a ticket"
        self._owed.append(partial(_READ[verb], self, call))
        return encode(verb, call.ticket)

    def _submission(self, call: Call) -> bytes:
        if call.number not in self._calls:
            return b""  # cancelled before it was sent
        call.sent = True
        self._submissions_owed += 1
        self._owed.append(partial(self._on_submitted, call))
        return call.request

    def _looked_at(self) -> Iterable[Call]:
        waiting = (call for call in self._calls.values() if call.is_open and not call.begun)
        looked_at = dict.fromkeys(islice(waiting, LOOK_AHEAD))
        for _ in range(min(LOOK_AROUND, len(self._around))):
            call = self._around.popleft()
            if call.number in self._calls:
                self._around.append(call)
                if call.is_open:
                    looked_at[call] = None
        return looked_at

    def _watch(self) -> bytes:
        wait_s = 0.0 if self._to_submit or self._to_fetch or self._early else self._watch_s
        self._watch_s = min(2 * self._watch_s, WATCH_S_MAX)
        self._watch_owed = True
        self._owed.append(self._on_watched)
        return verbs.watch((), self._group, self._cursor, wait_s).data

    # --- in --------------------------------------------------------------------------------------------------------

    def take(self, reply: Reply, now: float) -> list[Told]:
        """What the next reply tells. Raises Elsewhere, or a JobyardError after which there is no way to go on."""
        self._now = now
        if isinstance(reply.error, TooManyConnections) or not self._owed:
            raise Elsewhere(str(reply.error or reply.text)) from reply.error
        if isinstance(reply.error, Unauthorized):
            raise reply.error
        return list(self._owed.popleft()(reply))

    def lost(self) -> None:
        """The connection is gone. What was owed on it will be asked again."""
        calls = self._calls.values()
        self._owed.clear()
        self._again.clear()
        self._submissions_owed = self._results_owed = 0
        self._watch_owed = False
        self._to_submit = deque(call for call in calls if call.ticket is None)
        self._to_cancel = deque(call for call in calls if call.cancelled and call.ticket is not None)
        self._to_fetch = deque(call for call in calls if call.ended and not call.cancelled)
        self._watch_s, self._look_at = WATCH_S_MIN, 0.0

    def _on_submitted(self, call: Call, reply: Reply) -> Iterator[Told]:
        self._submissions_owed -= 1
        error = reply.error
        if isinstance(error, (*TRY_NEXT, Unavailable)) and self._may_try_another():
            raise Elsewhere(str(error)) from error
        if error is not None:
            yield from self._settle(call, error)
            return
        self._refusals = 0
        ticket = ticket_of(reply)
        yield from self._name(call, ticket)
        if call.cancelled:
            self._to_cancel.append(call)
        elif ticket in self._early:
            self._has_ended(call)
        if not self._submissions_owed and not self._to_submit:
            self._early.clear()  # the rest are others' of the same group

    def _on_watched(self, reply: Reply) -> Iterator[Told]:
        self._watch_owed = False
        if isinstance(reply.error, Unavailable):
            return
        if reply.error is not None:
            raise reply.error
        watched = watched_of(reply)
        self._cursor = watched.cursor
        for status in watched.ended:
            call = self._by_name.get(status.ticket) or self._by_name.get(status.key or "")
            if call is not None:
                yield from self._name(call, status.ticket)
                self._has_ended(call)
            elif self._submissions_owed or self._to_submit:
                self._early.add(status.ticket)

    def _on_status(self, call: Call, reply: Reply) -> Iterator[Told]:
        if isinstance(reply.error, (UnknownTicket, Expired)):
            yield from self._settle(call, reply.error)
        elif reply.error is None:
            status = status_of(reply.text)
            if status.ended:
                self._has_ended(call)
            elif status.state == "running" and call.is_open and not call.begun:
                call.begun = True
                yield Begun(call.number)

    def _on_result(self, call: Call, reply: Reply) -> Iterator[Told]:
        self._results_owed -= 1
        if reply.status == "PENDING":
            call.ended = False  # somebody has brought it back; it will end again
        elif isinstance(reply.error, Unavailable):
            self._again.append((self._now + AGAIN_S, self._to_fetch, call))
        else:
            yield from self._settle(call, reply.error or outcome_of(reply))

    def _on_cancel(self, call: Call, reply: Reply) -> Iterator[Told]:
        if isinstance(reply.error, Unavailable):
            self._again.append((self._now + AGAIN_S, self._to_cancel, call))
        else:
            self._drop(call)
        return iter(())

    def _may_try_another(self) -> bool:
        """Whether there is a node that has not refused just now, as this one does."""
        if self._now - self._refused_at > REFUSED_S:
            self._refusals = 0
        self._refused_at = self._now
        self._refusals += 1
        return self._refusals < self._nodes

    # --- one call --------------------------------------------------------------------------------------------------

    def _name(self, call: Call, ticket: Ticket) -> Iterator[Told]:
        """The ticket of a call, by which it is asked after from now on. Should it have another, the first stays."""
        if call.ticket is None:
            call.ticket, call.request = ticket, b""
            self._by_name[ticket] = call
            self._around.append(call)
            yield Taken(call.number, ticket)

    def _has_ended(self, call: Call) -> None:
        if call.is_open:
            call.ended = True
            self._to_fetch.append(call)

    def _settle(self, call: Call, how: Outcome | JobyardError) -> Iterator[Told]:
        if call.number in self._calls and not call.cancelled:
            yield Settled(call.number, how)
        self._drop(call)

    def _drop(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        for name in (call.key, call.ticket):
            self._by_name.pop(name or "", None)


_READ: Final[dict[str, Callable[[Calls, Call, Reply], Iterable[Told]]]] = {
    "STATUS": Calls._on_status,
    "RESULT": Calls._on_result,
    "CANCEL": Calls._on_cancel,
}
