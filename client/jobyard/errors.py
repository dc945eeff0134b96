"""What can go wrong, an exception class for each code of the protocol and a few of this side's own.

Pure. Every error has a `code`: scripts compare it, people read the message. A value that no request could carry (a
line break in a line, an option that is too long) is a plain ValueError, raised before anything is sent.
"""

from collections.abc import Sequence
from typing import Final

from jobyard.model import Outcome, Ticket


class JobyardError(Exception):
    """A node refused a request, or could not be asked. `str(error)` is for people, `error.code` for programs."""

    code: str = "ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- what a node answers ---------------------------------------------------------------------------------------


class BadRequest(JobyardError):
    code = "BAD_REQUEST"


class UnknownCommand(JobyardError):
    code = "UNKNOWN_COMMAND"


class UnknownTicket(JobyardError):
    code = "UNKNOWN_TICKET"


class Expired(JobyardError):
    code = "EXPIRED"


class Conflict(JobyardError):
    code = "CONFLICT"


class TooLarge(JobyardError):
    code = "TOO_LARGE"


class Full(JobyardError):
    code = "FULL"


class Draining(JobyardError):
    code = "DRAINING"


class Unauthorized(JobyardError):
    code = "UNAUTHORIZED"


class Forbidden(JobyardError):
    code = "FORBIDDEN"


class Unavailable(JobyardError):
    code = "UNAVAILABLE"


class TooManyConnections(JobyardError):
    code = "TOO_MANY_CONNECTIONS"


class Internal(JobyardError):
    code = "INTERNAL"


class NotEnded(JobyardError):
    """The job has not ended yet, or not before the time was over. `state` is where it stood; `others` is how many
    more of those that were waited for have not ended."""

    code = "PENDING"

    def __init__(self, ticket: str, state: str, others: int = 0) -> None:
        told = f"{ticket} has not ended; it is {state}"
        super().__init__(f"{told}. {others} more have not ended" if others else told)
        self.ticket = Ticket(ticket)
        self.state = state
        self.others = others


# --- what happens on this side ---------------------------------------------------------------------------------


class Unreachable(JobyardError):
    """No node could be reached; nothing was asked, or asking it again does no harm."""

    code = "UNREACHABLE"


class Unconfirmed(JobyardError):
    """The connection was lost before a request was answered that must not be sent twice, such as a submission
    without a key: it may have been taken or not."""

    code = "UNCONFIRMED"


class ProtocolError(JobyardError):
    """Whoever answered does not speak version 1 of the client protocol."""

    code = "PROTOCOL"


class JobFailed(JobyardError):
    """A call ended without a value and without an exception of its own: it was killed, crashed too often, used more
    than it may, or was cancelled by somebody else. `outcome` has the reason, and what was printed."""

    code = "JOB_FAILED"

    def __init__(self, outcome: Outcome, because: str = "") -> None:
        how = ", ".join(
            f"{name} {value}"
            for name, value in (("reason", outcome.reason), ("exit", outcome.exit), ("on", outcome.node))
            if value is not None
        )
        said = outcome.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        super().__init__(": ".join(filter(None, (f"{outcome.ticket} {outcome.state} ({how})", because, said))))
        self.outcome = outcome


class NotAllSubmitted(JobyardError):
    """`submit_many` stopped. `tickets` has a place for each job that was taken from the iterable, in order: its
    ticket, or None where it was refused or where nobody can tell. The cause is the first error."""

    def __init__(self, tickets: Sequence[Ticket | None], cause: Exception) -> None:
        taken = sum(ticket is not None for ticket in tickets)
        super().__init__(f"{taken} of {len(tickets)} jobs were taken, then: {cause}")
        self.tickets = tuple(tickets)
        self.code = cause.code if isinstance(cause, JobyardError) else "BAD_REQUEST"


TRY_NEXT: Final = (Draining, TooManyConnections)  # the node asked takes nothing just now; another may

_BY_CODE: Final[dict[str, type[JobyardError]]] = {
    refused.code: refused
    for refused in (
        BadRequest,
        UnknownCommand,
        UnknownTicket,
        Expired,
        Conflict,
        TooLarge,
        Full,
        Draining,
        Unauthorized,
        Forbidden,
        Unavailable,
        TooManyConnections,
        Internal,
    )
}


def refusal(code: str, message: str) -> JobyardError:
    """The exception of an ERR reply. A code of a later version becomes a JobyardError that carries it."""
    error = _BY_CODE.get(code, JobyardError)(message or code)
    error.code = code
    return error


# --- what is said when no node answers ---------------------------------------------------------------------------


def unreachable(failures: Sequence[str]) -> Unreachable:
    """`failures` has an address for each node that was tried, and what became of it."""
    return Unreachable(f"no node can be reached: {', '.join(failures)}. JOBYARD_URL says where nodes are")


def lost_before_answer(address: object, error: OSError, repeatable: bool) -> JobyardError:
    """A connection was lost while a reply was owed on it."""
    told = f"the connection to {address} was lost before it answered ({error})"
    if repeatable:
        return Unreachable(f"{told}; no other node answered")
    return Unconfirmed(f"{told}: it may have been taken or not. A submission with a key (key=) is sent again")
