"""STATUS, LIST and NODES: how jobs and nodes stand, a line for each.

Pure. An array is one line; its elements are asked for by their own tickets.
"""

from collections.abc import Iterator

from balancer.books import Books
from balancer.explanations import Explanations, Reasons
from balancer.records import Entry
from balancer.roster import Node
from common import lines
from common.limits import LIST_SCAN_MAX
from common.messages import Inquiry
from common.model import Ended, State, index_of
from common.status import ended_fields, live_fields, status_reply


class Listing:
    def __init__(self, books: Books, explanations: Explanations) -> None:
        self._books = books
        self._explanations = explanations

    # --- one job -------------------------------------------------------------------------------------------------

    def live(self, entry: Entry) -> bytes:
        """The reply to STATUS of a job that has not ended."""
        return status_reply(entry.ticket, self.live_fields(entry, self._explanations.reasons()))

    def ended(self, ticket: str, ended: Ended) -> bytes:
        return status_reply(ticket, ended_fields(self._books.job(ticket), ended))

    def live_fields(self, entry: Entry, reasons: Reasons) -> dict[str, object]:
        """What STATUS says of a job that has not ended."""
        runner = self._books.runner(entry)
        return live_fields(
            self._books.job(entry.ticket),
            entry.state,
            entry.attempts_begun,
            None if runner is None else runner.record.name,
            reason=reasons.of(entry),
            due_wall=entry.record.due_wall,
            failures=entry.record.failures,
            counts=entry.counts,
        )

    # --- all jobs ------------------------------------------------------------------------------------------------

    def jobs(self, inquiry: Inquiry) -> bytes:
        """The reply to LIST: the newest first, live ones before those that have ended. One that stops because it has
        looked at LIST_SCAN_MAX records says `partial=1`."""
        listed: list[bytes] = []
        partial = False
        for looked_at, line in enumerate(self._lines(inquiry)):
            partial = looked_at == LIST_SCAN_MAX
            if partial or len(listed) == inquiry.limit:
                break
            if line is not None:
                listed.append(line)
        return lines.ok(count=len(listed), partial=partial or None, body=b"".join(listed))

    def _lines(self, inquiry: Inquiry) -> Iterator[bytes | None]:
        """A line for each job that is looked at; None for one that was not asked for."""
        reasons = self._explanations.reasons()
        resting = inquiry.state in (None, State.QUEUED)
        for entry in self._books.ledger.all.newest_first(inquiry.group, resting=resting):
            wanted = inquiry.state in (None, entry.state) and index_of(entry.ticket) is None
            yield lines.job_line(entry.ticket, self.live_fields(entry, reasons)) if wanted else None
        if inquiry.state is None or State(inquiry.state).ended:
            for ticket, ended in self._ended_newest_first(inquiry.group):
                wanted = inquiry.state in (None, ended.state) and index_of(ticket) is None
                yield lines.job_line(ticket, ended_fields(self._books.job(ticket), ended)) if wanted else None

    def _ended_newest_first(self, group: str | None) -> Iterator[tuple[str, Ended]]:
        if group is None:
            yield from self._books.history.newest()
            return
        for ticket in self._books.groups.newest(group):
            ended = self._books.history.find(ticket)
            if ended is not None:
                yield ticket, ended

    # --- nodes ---------------------------------------------------------------------------------------------------

    def nodes(self, now: float) -> bytes:
        """The reply to NODES."""
        nodes = sorted(self._books.roster, key=lambda node: (node.record.name, node.id))
        told = (node_fields(node, now) | {"version": node.version or None} for node in nodes)
        body = "".join(f"{lines.status_fields(fields)}\n" for fields in told)
        return lines.ok(count=len(nodes), body=body.encode())


def node_fields(node: Node, now: float) -> dict[str, object]:
    """What NODES says of a node."""
    running = sum(entry.begun for entry in node.leases.values())
    return {
        "name": node.record.name,
        "state": node.state,
        "slots": node.record.slots,
        "running": running,
        "waiting": len(node.leases) - running,
        "last_seen_s": round(max(0.0, now - node.last_heard), 3),
    }
