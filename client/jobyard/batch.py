"""Many submissions over one connection: which are to be sent now, which are owed an answer, which have a ticket.

    jobs ── requests() ──► owed ── take(reply) ──► tickets, in the order of the jobs
     ▲                      │
     └──── lost(), all of them have keys

Pure: the caller sends, receives and dials. At most WINDOW submissions are owed, so that a node never has more
replies in hand for us than it is willing to keep, and half of them are answered before more are sent, so that sends
are few and large. After the first error nothing more is sent, but what is owed is still taken.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from jobyard.decoding import ticket_of
from jobyard.errors import JobyardError, NotAllSubmitted, Unconfirmed
from jobyard.model import Job, Ticket
from jobyard.protocol import Reply, encode_submit

WINDOW: Final = 2000  # submissions owed an answer; a node allows 4,096 on one connection
SEND_BYTES: Final = 256 * 1024  # a send is cut after about so much
LOSSES_MAX: Final = 5  # connections lost one after another without one answer between


class Batch:
    """The progress of one `submit_many`."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._tickets: list[Ticket | None] = []
        self._owed: deque[tuple[int, Job]] = deque()  # place in tickets, job
        self._again: deque[tuple[int, Job]] = deque()  # owed by a connection that was lost
        self._exhausted = False
        self._error: Exception | None = None
        self._losses = 0

    @property
    def done(self) -> bool:
        return not self._owed and (self._error is not None or (self._exhausted and not self._again))

    def requests(self) -> bytes:
        """What is to be sent now; empty while enough is on its way, or when there is nothing more."""
        data = bytearray()
        if len(self._owed) > WINDOW // 2:
            return b""
        while len(self._owed) < WINDOW and len(data) < SEND_BYTES and (following := self._following()):
            try:
                data += encode_submit(following[1])
            except (ValueError, JobyardError) as error:
                self._error = error
            else:
                self._owed.append(following)
        return bytes(data)

    def _following(self) -> tuple[int, Job] | None:
        if self._error is not None:
            return None
        if self._again:
            return self._again.popleft()
        job = next(self._jobs, None)
        if job is None:
            self._exhausted = True
            return None
        self._tickets.append(None)
        return len(self._tickets) - 1, job

    def take(self, reply: Reply) -> None:
        """The answer to the oldest submission that is owed one."""
        place, _ = self._owed.popleft()
        self._losses = 0
        if reply.error is None:
            self._tickets[place] = ticket_of(reply)
        elif self._error is None:
            self._error = reply.error

    def lost(self, error: Exception) -> None:
        """The connection is gone. What is owed is sent again if every job of it has a key; otherwise we stop."""
        self._losses += 1
        if all(job.key is not None for _, job in self._owed) and self._losses < LOSSES_MAX and self._error is None:
            self._again.extendleft(reversed(self._owed))
        elif self._error is None:
            message = f"the connection was lost with {len(self._owed)} submissions unanswered ({error}); they may have"
            self._error = Unconfirmed(f"{message} been taken or not. Submissions with a key are sent again")
        self._owed.clear()

    def fail(self, error: Exception) -> None:
        """There is no way to go on."""
        self._error = self._error or error
        self._owed.clear()

    def tickets(self) -> tuple[Ticket, ...]:
        """A ticket for each job. Raises NotAllSubmitted."""
        tickets = tuple(ticket for ticket in self._tickets if ticket is not None)
        if self._error is not None:
            raise NotAllSubmitted(self._tickets, self._error) from self._error
        assert len(tickets) == len(self._tickets), "a job was neither taken nor refused"
        return tickets
