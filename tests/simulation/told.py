"""What clients are told: nothing that is not durable, and nothing that contradicts what was told before.

    OK for a submission .... the job is on the disk of its origin, or under its first name in the ledger
    an end ................. is one that the ledger recorded; the same end for ever, but for RETRY
    not ended yet .......... not after somebody was told of an end, unless it is said how old that knowledge is
    UNKNOWN_TICKET ......... never of a job that was acknowledged, unless it was forgotten
    an error ............... only one that something in the story explains

Who asked before another was told may be answered as of before: a reply is compared with what had been told when its
request was sent.
"""

import itertools
from collections.abc import Collection
from typing import Final

import attrs

from common.effects import Table
from common.model import Ended, State, array_of
from tests.simulation.auditor import Auditor
from tests.simulation.records import key_of, must
from tests.simulation.talk import ENDS, Reply, Request

_COMPARED: Final = ("state", "exit", "attempt", "node", "reason", "seconds", "stdout", "stderr")
_STATES: Final = frozenset(map(str, State))
_NOT_OUR_FAULT: Final = frozenset({"UNAVAILABLE", "CONFLICT"})  # anybody may be away; a key or a state may not fit


@attrs.frozen
class Ask:
    """A request on its way. `number` is its place among all that was asked and told."""

    number: int
    request: Request
    node: str
    must_know: bool  # whether the node that is asked can find out about the ticket


class Told:
    """`may_say`: the error codes that this story explains."""

    def __init__(self, auditor: Auditor, may_say: Collection[str]) -> None:
        self._auditor = auditor
        self._may_say = _NOT_OUR_FAULT | set(may_say)
        self._moments = itertools.count(1)
        self._ends_told: dict[str, int] = {}  # first names → when somebody was first told of an end
        self.keys: dict[tuple[str, str], list[str]] = {}  # key and text → the tickets that were told
        self._drained: set[str] = set()  # nodes to which somebody has said DRAIN
        self.open: dict[int, Ask] = {}
        self.ends: dict[str, str] = {}  # tickets → how somebody was told that they have ended

    @property
    def acknowledged(self) -> dict[str, Request]:
        return self._auditor.orders.acknowledged

    def asked(self, request: Request, node: str) -> Ask:
        """A client is about to send this."""
        ask = Ask(next(self._moments), request, node, self._can_know(node, request.ticket))
        self.open[ask.number] = ask
        self._drained |= {node} if request.verb == "DRAIN" else set()
        self._auditor.orders.given(request)
        return ask

    def unanswered(self, ask: Ask) -> None:
        """Its connection is gone."""
        self.open.pop(ask.number, None)

    def heard(self, ask: Ask, reply: Reply) -> None:
        """A client has read this."""
        del self.open[ask.number]
        if reply.code is not None:
            self._refused(ask, reply)
            return
        must(reply.word in ("OK", "PENDING"), f"{ask.request.line!r} was answered with {reply}")
        match ask.request.verb:
            case "SUBMIT":
                self._accepted(ask, reply)
            case "RUN":
                self._accepted(ask, reply)
                self._stands(ask, reply)
            case "STATUS" | "RESULT" | "WAIT":
                self._stands(ask, reply)
            case "CANCEL" if reply.ticket is not None:
                self._cancelled(reply.ticket, reply)
            case "RETRY" if reply.ticket is not None:
                name = self._auditor.first_name(reply.ticket)
                must(name in self._auditor.revived, f"{name} is said to be retried, and that is on no disk")
            case "FORGET" if reply.ticket is not None:
                name = self._auditor.first_name(reply.ticket)
                must(name in self._auditor.forgotten, f"{name} is said to be forgotten, and that is on no disk")

    # --- what stands behind a word -----------------------------------------------------------------------------------

    def _accepted(self, ask: Ask, reply: Reply) -> None:
        ticket = reply.ticket
        assert ticket is not None, f"{reply} names no ticket"
        if ask.request.key is None:
            must(ticket not in self.acknowledged, f"the ticket {ticket} was given to two clients")
        else:
            told = self.keys.setdefault((ask.request.key, ask.request.text), [])
            told += [] if ticket in told else [ticket]
        self.acknowledged.setdefault(ticket, ask.request)
        must(self._is_durable(ticket), f"{ticket} was acknowledged, and is on no disk")

    def _is_durable(self, ticket: str) -> bool:
        auditor = self._auditor
        names = dict.fromkeys((ticket, auditor.first_name(ticket)))
        disks = [auditor.ledger, *(auditor.disk(auditor.issued[name]) for name in names if name in auditor.issued)]
        tables = (Table.LIVE, Table.ENDED)
        held = any(disk.get(table, key_of(name)) is not None for disk in disks for table in tables for name in names)
        return held or self._may_be_gone(ticket)

    def _may_be_gone(self, ticket: str) -> bool:
        name = self._auditor.first_name(ticket)
        return self._auditor.orders.forgotten(name) or name in self._auditor.forgotten or "EXPIRED" in self._may_say

    def _stands(self, ask: Ask, reply: Reply) -> None:
        ticket, state = reply.ticket, reply.state
        assert ticket is not None, f"{reply} names no ticket"
        must(state in _STATES, f"{reply} has no state")
        if "as_of_s" in reply.fields:
            return
        name = self._auditor.first_name(ticket)
        if state in ENDS and reply.word == "OK":
            self._has_ended(name, reply)
            self._ends_told.setdefault(name, next(self._moments))
            self.ends[ticket] = state or ""
        elif state not in ENDS and not self._auditor.orders.retried(name):
            told = self._ends_told.get(name)
            must(told is None or told > ask.number, f"{name} had ended, which somebody was told, and is now {reply}")

    def _has_ended(self, name: str, reply: Reply) -> None:
        ends = self._auditor.ends.get(name, {})
        if reply.state == State.CANCELLED and self._is_cancelled(name):
            return
        must(bool(ends), f"{name} is said to have ended, and that is on no disk: {reply}")
        agrees = any(_is_told_as(ended, reply) for ended in ends.values())
        must(agrees, f"{name} is said to have ended as {reply}, and the ledger has {list(ends.values())}")

    def _is_cancelled(self, name: str) -> bool:
        """Whether its cancel is recorded, although its attempt may still have to end; or it was an element that had
        not begun when its array was cancelled, which has no record of its own."""
        array = array_of(name)
        gone = array != name and (array in self._auditor.ends or array in self._auditor.cancelled)
        return name in self._auditor.cancelled or (gone and name not in self._auditor.ends)

    def _cancelled(self, ticket: str, reply: Reply) -> None:
        """The cancel, or the end that was there before it."""
        name = self._auditor.first_name(ticket)
        if array_of(name) == name and self._auditor.job(name).array is not None:
            return
        ends = {ended.state for ended in self._auditor.ends.get(name, {}).values()}
        recorded = reply.state in ends or (reply.state == State.CANCELLED and self._is_cancelled(name))
        must(recorded, f"{name} is said to be {reply.state}, and that is on no disk")

    # --- errors ------------------------------------------------------------------------------------------------------

    def _refused(self, ask: Ask, reply: Reply) -> None:
        ticket, code = ask.request.ticket, reply.code
        if code == "UNKNOWN_TICKET" and ticket is not None:
            gone = not ask.must_know or self._may_be_gone(self._auditor.first_name(array_of(ticket)))
            must(gone, f"{ticket} was acknowledged, and {ask.node} says {reply}")
            return
        drained = code == "DRAINING" and ask.node in self._drained
        must(drained or code in self._may_say, f"{ask.request.line!r} at {ask.node} was answered with {reply}")

    def _can_know(self, node: str, ticket: str | None) -> bool:
        """It is the origin itself, or the ledger has met the origin."""
        origin = None if ticket is None else self._auditor.issued.get(self._auditor.first_name(array_of(ticket)))
        if ticket is None or origin is None:
            return False
        return origin == node or self._auditor.ledger.get(Table.ORIGINS, ticket[:6].encode()) is not None


def _is_told_as(ended: Ended, reply: Reply) -> bool:
    """Whether all that a reply tells of an end is so."""
    is_ = {
        "state": ended.state,
        "exit": ended.exit,
        "attempt": ended.attempt,
        "node": ended.node,
        "reason": ended.reason,
        "seconds": None if ended.seconds is None else f"{ended.seconds:.3f}",
        "stdout": ended.stdout_bytes,
        "stderr": ended.stderr_bytes,
    }
    return all(reply.fields[name] == str(is_[name]) for name in _COMPARED if name in reply.fields)
