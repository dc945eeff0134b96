"""Evidence: what clients were told, what ran and what was done to the cluster. Pure, and without judgement.

Times are seconds since the beginning of the trial.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.blows import Blow
from chaos.jobs import Job
from chaos.replies import Reply


@dataclass(frozen=True)
class Acknowledgement:
    """A node's `OK <ticket>` to a submission. A job with a key may have several, and under several tickets."""

    number: int
    ticket: str
    node: str
    at_s: float


@dataclass(frozen=True)
class Execution:
    """A line of the journal: an attempt that began."""

    ticket: str
    attempt: int
    number: int


@dataclass
class Evidence:
    """`now` is the clock. Everything else grows only."""

    now: Callable[[], float] = lambda: 0.0
    jobs: dict[int, Job] = field(default_factory=dict)  # by number; all that a client ever sent
    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    readings: dict[str, list[Reply]] = field(default_factory=dict)  # ticket → different ends that RESULT or WAIT told
    watched: dict[str, list[str]] = field(default_factory=dict)  # ticket → different states that WATCH told
    last_words: dict[str, str] = field(default_factory=dict)  # ticket → the last reply that was no end
    denials: dict[str, str] = field(default_factory=dict)  # ticket → an error that says there is no such job
    open: dict[str, Acknowledgement] = field(default_factory=dict)  # by ticket: those of whose end nobody has heard
    ends_at_s: dict[str, float] = field(default_factory=dict)  # ticket → when a client first heard of its end
    in_doubt: set[int] = field(default_factory=set)  # numbers: sent, and no reply ever came
    refused: list[str] = field(default_factory=list)  # replies to a submission that no client has to expect
    executions: list[Execution] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)  # as they were really dealt
    misconduct: list[str] = field(default_factory=list)
    load_over_at_s: float = 0.0

    # --- noting ------------------------------------------------------------------------------------------------

    def acknowledged(self, number: int, ticket: str, node: str) -> None:
        it = Acknowledgement(number, ticket, node, self.now())
        self.acknowledgements.append(it)
        if ticket not in self.ends_at_s:
            self.open[ticket] = it

    def read(self, ticket: str, reply: Reply) -> None:
        """What RESULT or WAIT answered."""
        if not reply.ok:
            self.last_words[ticket] = reply.line
            if reply.code and not reply.later:
                self.denials.setdefault(ticket, reply.line)
            return
        different = self.readings.setdefault(ticket, [])
        if reply not in different:
            different.append(reply)
        self._ended(ticket, reply.ticket)

    def heard(self, ticket: str, state: str) -> None:
        """What WATCH told."""
        different = self.watched.setdefault(ticket, [])
        if state not in different:
            different.append(state)
        self._ended(ticket)

    def _ended(self, *tickets: str) -> None:
        for ticket in tickets:
            self.ends_at_s.setdefault(ticket, self.now())
            self.open.pop(ticket, None)

    def ran(self, journal: str) -> None:
        """The journal of all executions."""
        for line in journal.splitlines():
            ticket, attempt, number = line.split()
            self.executions.append(Execution(ticket, int(attempt), int(number)))

    def untold(self) -> set[str]:
        """Tickets whose end was read, and of which no WATCH has told."""
        return {reading.ticket for readings in self.readings.values() for reading in readings} - self.watched.keys()
