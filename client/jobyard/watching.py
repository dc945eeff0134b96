"""Waiting for many jobs over one connection: which tickets to ask after next, and what the answers come to.

    tickets ──► pieces, each fits in one request ──► ask() ──► WATCH ──► take(watched) ──► who has ended

One piece is asked to wait for long. Several are asked in turn, each for a moment, so that an end in any of them is
heard of soon; 10,000 tickets make three. Who has been told of is not asked after again, so that nothing is told twice
whichever node answers. And a piece is asked no more often than its size allows: while jobs end one after another,
their ends gather instead of costing the cluster a look at every ticket each time.

Pure: time is an argument, the caller asks and waits.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from jobyard import verbs
from jobyard.errors import JobyardError, NotEnded
from jobyard.model import Status, Ticket, Watched
from jobyard.protocol import LINE_BYTES_MAX, Reply, as_ticket
from jobyard.verbs import Ask

WAIT_PIECE_S: Final = 30.0  # one WAIT or WATCH; so that a node that is gone without a word is noticed
TURN_S: Final = 0.25  # one of several pieces: 100,000 tickets are asked after once in 7 s
GAP_S: Final = 20e-6  # between two requests for a piece, for each ticket in it: 4,000 of them are 0.08 s
UNAVAILABLE_PAUSE_S: Final = 0.2
PIECE_TICKETS_MAX: Final = 4000  # a node takes 5,000
PIECE_BYTES_MAX: Final = LINE_BYTES_MAX - 1024  # leaves room for the verb and its options

UNKNOWN: Final = "unknown"  # the two states of tickets of which no job is known, or known any more
EXPIRED: Final = "expired"


class Deadline:
    """When waiting is over. Without a timeout it never is."""

    def __init__(self, timeout_s: float | None, now: float) -> None:
        self._at = float("inf") if timeout_s is None else now + timeout_s

    def left_s(self, now: float) -> float:
        return max(0.0, self._at - now)

    def over(self, now: float) -> bool:
        return now >= self._at


@dataclass(slots=True)
class Piece:
    """Tickets that one WATCH asks after, by the way nodes write them, which is in lower case."""

    tickets: dict[str, Ticket]
    cursor: str | None = None
    asked_again_at: float = 0.0  # not before
    renamed: bool = False  # one ticket, of a job that ended and was told of under another name


class Watching:
    """The progress of one `wait_all`."""

    def __init__(self, tickets: Iterable[str]) -> None:
        self._pieces = deque(_cut({as_ticket(text).lower(): Ticket(text) for text in tickets}))
        self._asked = 0  # pieces that are left and had their turn in this lap

    @property
    def done(self) -> bool:
        return not self._pieces

    @property
    def lap_over(self) -> bool:
        """Whether each ticket has been asked after."""
        return self._asked >= len(self._pieces)

    def not_ended(self) -> NotEnded:
        """The exception that says who is left."""
        first, *others = (ticket for piece in self._pieces for ticket in piece.tickets.values())
        return NotEnded(first, "live", len(others))

    # --- the piece whose turn it is ------------------------------------------------------------------------------

    def pause_s(self, now: float) -> float:
        """How long to wait before it is asked."""
        return max(0.0, self._pieces[0].asked_again_at - now)

    def ask(self, timeout_s: float) -> Ask[Watched]:
        """The request for it, which waits for `timeout_s` at most."""
        if self.lap_over:
            self._asked = 0
        piece = self._pieces[0]
        if piece.renamed:
            return _by_status(*piece.tickets.values())
        wait_s = WAIT_PIECE_S if len(self._pieces) == 1 else TURN_S
        return verbs.watch(piece.tickets, None, piece.cursor, min(wait_s, timeout_s))

    def take(self, watched: Watched, now: float) -> list[Status]:
        """The answer for it: who has ended, under the name by which it was asked for."""
        piece = self._pieces.popleft()
        gap_s = GAP_S * len(piece.tickets)
        told = [*watched.ended, *(_astray(ticket, code) for ticket, code in watched.errors.items())]
        ended = [
            replace(status, ticket=ticket)
            for status in told
            if (ticket := piece.tickets.pop(status.ticket, None)) is not None
        ]
        if piece.tickets and not watched.live and not piece.renamed:
            self._pieces.extendleft(
                Piece({name: ticket}, renamed=True) for name, ticket in reversed(piece.tickets.items())
            )
        elif piece.tickets:
            self._put_back(Piece(piece.tickets, None if piece.renamed else watched.cursor, now + gap_s))
        return ended

    def refused(self, error: JobyardError) -> list[Status]:
        """There is a ticket in it of which no job is known. Finds out which, by halves."""
        tickets = list(self._pieces.popleft().tickets.items())
        if len(tickets) == 1:
            return [_astray(tickets[0][1], error.code)]
        half = len(tickets) // 2
        self._pieces.extendleft((Piece(dict(tickets[half:])), Piece(dict(tickets[:half]))))
        return []

    def _put_back(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._asked += 1
        left = sum(len(piece.tickets) for piece in self._pieces)
        if len(self._pieces) > 1 and left <= PIECE_TICKETS_MAX // 2:
            tickets = {name: ticket for piece in self._pieces for name, ticket in piece.tickets.items()}
            self._pieces = deque(_cut(tickets))


def _cut(tickets: dict[str, Ticket]) -> Iterator[Piece]:
    """As few pieces as will do."""
    piece: dict[str, Ticket] = {}
    size_bytes = 0
    for name, ticket in tickets.items():
        size_bytes += len(name.encode()) + 1
        if piece and (size_bytes > PIECE_BYTES_MAX or len(piece) == PIECE_TICKETS_MAX):
            yield Piece(piece)
            piece, size_bytes = {}, len(name.encode()) + 1
        piece[name] = ticket
    if piece:
        yield Piece(piece)


def _by_status(ticket: Ticket) -> Ask[Watched]:
    """The question after one job, answered as a WATCH would be."""
    status = verbs.status(ticket)

    def read(reply: Reply) -> Watched:
        told = status.read(reply)
        return Watched((replace(told, ticket=Ticket(ticket.lower())),) if told.ended else (), 0, "")

    return Ask(status.data, read)


def _astray(ticket: Ticket, code: str) -> Status:
    """What is told of a ticket of which no job is known."""
    return Status(ticket, EXPIRED if code == "EXPIRED" else UNKNOWN, fields={"error": code})
