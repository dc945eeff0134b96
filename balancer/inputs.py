"""Inputs: the standard outputs of other jobs that a job is given as its standard input (`input=`).

    arrives ............. wants them: until it ends, none of them expires or is forgotten
    all have succeeded .. is weighed: what the input comes to
    is leased ........... its own body, then each output, in the order in which they are named; that of an array is
                          those of its elements by their indexes

An input is whole, or there is none: where an output was cut, is damaged, is no longer kept, or all come to more than a
body may, that is `Lacking`, and the job is cancelled. Nothing is copied before a lease: a thousand jobs may wait with
the same hundred outputs.

Pure; nothing here costs anything for jobs without an input.
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from balancer.elements import Elements
from balancer.records import Entry
from common.codec import glance
from common.effects import Table
from common.history import History
from common.limits import BODY_BYTES_MAX, INPUT_OUTPUTS_MAX
from common.memory import Memory
from common.model import Ended, Job, State, array_of, ticket_key, ticket_of


class Ledger(Protocol):
    """What is asked of the ledger."""

    elements: Elements

    def job(self, ticket: str) -> Job: ...

    def first_name(self, ticket: str) -> str: ...

    def live(self, ticket: str) -> Entry | None: ...

    def knows(self, ticket: str) -> bool: ...

    def end(self, ticket: str) -> Ended | None: ...


class Lacking(Exception):
    """An input is not to be had; the text says of which job, and why."""


class Seen(msgspec.Struct):
    """What is looked at in the end of a job whose output is wanted."""

    state: State
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


def cause(ticket: str, state: State | None) -> str:
    """Why nobody need wait any longer for a job that has not succeeded; None: how it ended is not known any more."""
    if state is None:  # also an index that its array does not have
        return f"{ticket} has expired, was forgotten, or never was"
    return f"{ticket} was cancelled" if state is State.CANCELLED else f"{ticket} {state}"


class Inputs:
    def __init__(self, memory: Memory, history: History, ledger: Ledger) -> None:
        self._memory = memory
        self._history = history
        self._ledger = ledger
        self._wants: dict[str, list[str]] = {}  # a live job or array → whose outputs it wants, arrays for elements
        self._wanted_by: dict[str, dict[str, None]] = {}  # and the other way round
        self._damaged: set[bytes] = set()  # keys of what was found so since the start: its bytes are in quarantine
        self._sizes: dict[str, tuple[int, int]] = {}  # of what was weighed in this step
        self._gathered: dict[str, bytes] = {}  # the last: the elements of an array have all the same
        self._goes_on = False  # it is an array's, whose next elements may want it in other steps

    # --- who wants what ------------------------------------------------------------------------------------------

    def want(self, ticket: str) -> None:
        """A job is live that takes an input; or what it takes may be known under another name. Elements are nothing of
        their own here."""
        if array_of(ticket) != ticket:
            return
        self.leave(ticket)
        names = [array_of(name) for name in self._names(ticket)]
        self._wants[ticket] = names
        for name in names:
            self._wanted_by.setdefault(name, {})[ticket] = None

    def leave(self, ticket: str) -> None:
        """It has ended."""
        self._gathered.pop(ticket, None)
        for name in self._wants.pop(ticket, ()):
            wanted_by = self._wanted_by.get(name, {})
            wanted_by.pop(ticket, None)
            if not wanted_by:
                self._wanted_by.pop(name, None)

    def is_wanted(self, ticket: str) -> bool:
        """Whether a live job takes its output, or the output of an element of the same array."""
        return bool(self._wanted_by) and array_of(ticket) in self._wanted_by

    def wanted_by(self, ticket: str) -> list[str]:
        return list(self._wanted_by.get(array_of(ticket), ()))

    def missing(self, ticket: str) -> str | None:
        """Why a job need not be tried: what it takes as its input has ended and is not to be had. None where it is, or
        can be waited for."""
        if not (names := self._names(ticket)):
            return None
        settled = [name for name in names if self._ledger.live(name) is None and self._ledger.knows(name)]
        try:
            for name in settled:
                self._size(name)
            if settled == names:
                self.weigh(ticket)
        except Lacking as lacking:
            return str(lacking)
        return None

    def _names(self, ticket: str) -> list[str]:
        return [self._ledger.first_name(name) for name in self._ledger.job(ticket).inputs]

    # --- what it comes to ----------------------------------------------------------------------------------------

    def weigh(self, ticket: str) -> int:
        """What the job weighs with its input, in bytes. Raises Lacking."""
        job, key = self._ledger.job(ticket), ticket_key(array_of(ticket))
        if key in self._damaged:
            raise Lacking("its own body is damaged")
        sizes = [self._size(name) for name in self._names(ticket)]
        outputs, input_bytes = sum(count for count, _ in sizes), job.body_bytes + sum(size for _, size in sizes)
        if input_bytes > BODY_BYTES_MAX:
            raise Lacking(f"its input comes to {input_bytes} bytes; {BODY_BYTES_MAX} are allowed")
        if outputs > INPUT_OUTPUTS_MAX:
            raise Lacking(f"its input is {outputs} outputs; {INPUT_OUTPUTS_MAX} are allowed")
        return len(self._memory.get(Table.JOBS, key) or b"") + input_bytes

    def _size(self, name: str) -> tuple[int, int]:
        """How many outputs a ticket stands for, and how many bytes."""
        if name not in self._sizes:
            sizes = [ended.stdout_bytes for _, ended in self._whole(name)]
            self._sizes[name] = len(sizes), sum(sizes)
        return self._sizes[name]

    def _whole(self, name: str) -> Iterator[tuple[bytes, Seen]]:
        """The jobs whose outputs a ticket stands for, by their keys. Raises Lacking where one cannot be had."""
        for key, ended in self._ends(name):
            if ended.state is not State.SUCCEEDED:
                raise Lacking(cause(ticket_of(key), ended.state))
            if ended.truncated:
                raise Lacking(f"the output of {ticket_of(key)} was cut (truncated=1)")
            if key in self._damaged:
                raise Lacking(f"the output of {ticket_of(key)} is damaged")
            yield key, ended

    def _ends(self, name: str) -> Iterator[tuple[bytes, Seen]]:
        ended = self._ledger.end(name)
        if ended is None:
            raise Lacking(cause(name, None))
        if not ended.counts:
            yield ticket_key(name), Seen(ended.state, ended.stdout_bytes, ended.stderr_bytes, ended.truncated)
            return
        missing = sum(count for _, count in ended.counts)
        for key, packed in self._ledger.elements.by_key(Table.ENDED, name):
            missing -= 1
            yield key, glance(Seen, packed)
        if missing:
            raise Lacking(f"the outputs of {missing} elements of {name} are no longer kept")

    # --- the input itself ----------------------------------------------------------------------------------------

    def at_hand_for(self, entry: Entry) -> bool:
        """Whether a job that is about to be sent to a node takes none, or can be given all of it. Also where its own
        record is damaged, so that nobody knows what it takes: the lease will find that."""
        own = ticket_key(array_of(entry.ticket))
        if not entry.record.takes_input or self._memory.get(Table.JOBS, own) is None:
            return True
        try:
            self.gather(entry.ticket)
        except Lacking:
            return False
        return True

    def gather(self, ticket: str) -> bytes:
        """The standard input of a job, or of an element of an array, all of which have the same. Raises Lacking."""
        whole = array_of(ticket)
        if whole not in self._gathered:
            self._gathered = {whole: b"".join(self._pieces(whole))}
            self._goes_on = whole != ticket
        return self._gathered[whole]

    def _pieces(self, ticket: str) -> Iterator[bytes]:
        self.weigh(ticket)
        body = self._memory.get(Table.BODIES, ticket_key(ticket)) or b""
        if len(body) != self._ledger.job(ticket).body_bytes:
            raise self._is_damaged(ticket_key(ticket))
        yield body
        for name in self._names(ticket):
            for key, ended in self._whole(name):
                printed = self._history.printed(key, ended.stdout_bytes, ended.stderr_bytes)
                if printed is None:
                    raise self._is_damaged(key)
                yield printed

    def _is_damaged(self, key: bytes) -> Lacking:
        """Remembered, so that it is known when the job is weighed again."""
        self._damaged.add(key)
        self._sizes.clear()
        return Lacking(f"what is stored of {ticket_of(key)} is damaged")

    def step_is_over(self) -> None:
        self._sizes.clear()
        if not self._goes_on:
            self._gathered.clear()
