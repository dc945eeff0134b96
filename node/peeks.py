"""Peeks: what an attempt has printed so far, told by the node that runs it.

    inquiry ──► the attempt runs here ........ Peek ──► executors ──► Printed ──► answer
            ──► it is over, outcome kept ..... from the outcome
            ──► it needs no process (sleep) .. nothing printed

What the asker has already is said by attempt and byte counts, and only what lies behind them is answered. An attempt
that ends while it is looked at has its output in its outcome; what has ended must be among the outcomes before anything
here is called. Whether a job has ended is not for its runner to say: the answers here say `running`.

Pure: the caller sends the answers and hands on the commands.
"""

import attrs

from common import lines
from common.codec import unpack
from common.messages import Answer, AttemptId, Inquiry, Reported
from common.model import State
from common.status import places
from node.backlog import Backlog
from node.executors import Peek, Printed
from node.held import Held
from node.outcomes import Outcomes


@attrs.frozen
class Look:
    """An inquiry, and the attempt at which the executors look for it."""

    inquiry: Inquiry
    id: AttemptId


class Peeks:
    """The LOGS that the ledger asks of this node as the runner. `commands` collects what the executors are to do."""

    def __init__(self, backlog: Backlog, outcomes: Outcomes) -> None:
        self._backlog = backlog
        self._outcomes = outcomes
        self._under_way: dict[int, Look] = {}
        self._last = 0
        self.commands: list[Peek] = []

    def ask(self, inquiry: Inquiry) -> Answer | None:
        """The answer; None where the executors have to look first. What the asker has not got of the attempt that
        it follows comes before anything of a later one."""
        assert inquiry.ticket is not None, "LOGS names a ticket"
        left = self._left(inquiry, (inquiry.ticket, inquiry.attempt))
        if left is not None:
            return left
        held = self._begun(inquiry.ticket)
        if held is None:
            kept = self._outcomes.of([inquiry.ticket])
            return (self._left(inquiry, kept[0]) if kept else None) or _nothing(inquiry)
        if held.job.kind == "sleep":
            return Answer(inquiry.id, lines.logs_reply(inquiry.ticket, State.RUNNING, held.id[1]))
        self._last += 1
        self._under_way[self._last] = Look(inquiry, held.id)
        self.commands.append(Peek(self._last, *held.id, *places(inquiry, held.id[1])))
        return None

    def printed(self, report: Printed) -> Answer | None:
        """The executors have looked; None where nobody waits for it any more."""
        look = self._under_way.pop(report.query_id, None)
        if look is None:
            return None
        if not report.running:
            return self._left(look.inquiry, look.id) or _nothing(look.inquiry)
        ticket, attempt = look.id
        return Answer(look.inquiry.id, lines.logs_reply(ticket, State.RUNNING, attempt, report.stdout, report.stderr))

    def link_closed(self) -> None:
        """Whoever asked will ask again."""
        self._under_way.clear()

    def knows(self, ticket: str) -> bool:
        """Whether an attempt of this job runs here, or has its outcome here."""
        return self._begun(ticket) is not None or bool(self._outcomes.of([ticket]))

    def _begun(self, ticket: str) -> Held | None:
        """The begun attempt of a job, the latest where there are two."""
        begun = [held for held in self._backlog if held.id[0] == ticket and held.begun_at is not None]
        return max(begun, key=lambda held: held.id[1], default=None)

    def _left(self, inquiry: Inquiry, id: AttemptId) -> Answer | None:
        """What a kept outcome has behind the places asked for; None where there is nothing."""
        if id not in self._outcomes:
            return None
        pair, (stdout_at, stderr_at) = self._outcomes.pair(id), places(inquiry, id[1])
        stdout_bytes = unpack(Reported, pair.record).outcome.stdout_bytes
        stdout, stderr = pair.output[:stdout_bytes][stdout_at:], pair.output[stdout_bytes:][stderr_at:]
        if not stdout and not stderr:
            return None
        return Answer(inquiry.id, lines.logs_reply(id[0], State.RUNNING, id[1], stdout, stderr))


def _nothing(inquiry: Inquiry) -> Answer:
    assert inquiry.ticket is not None, "LOGS names a ticket"
    return Answer(inquiry.id, lines.logs_reply(inquiry.ticket, State.RUNNING, inquiry.attempt))
