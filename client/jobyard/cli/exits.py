"""Exit codes, and the one line that tells of an error: `jobyard: CODE: message`."""

import sys
from typing import Final

from jobyard.cli.texts import harmless
from jobyard.errors import (
    BadRequest,
    Expired,
    Internal,
    JobyardError,
    NotAllSubmitted,
    NotEnded,
    ProtocolError,
    Unauthorized,
    UnknownTicket,
    Unreachable,
)
from jobyard.model import Outcome

SUCCESS: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
UNKNOWN: Final = 4
REFUSED: Final = 5
TIMED_OUT: Final = 124  # as timeout(1)
NOT_STARTED: Final = 127  # as a shell
SIGNAL: Final = 128  # and the number of the signal
INTERRUPTED: Final = SIGNAL + 2
BROKEN_PIPE: Final = SIGNAL + 13

MEANINGS: Final = {
    SUCCESS: "all went well; of `wait`, `map`, `mapreduce` and `dag`: every job succeeded",
    FAILURE: "some job failed or was cancelled (the same four), or something else went wrong; of `doctor`: warnings",
    USAGE: "the command line is wrong, or a node cannot make sense of the request; of `doctor`: errors",
    UNREACHABLE: "no node can be reached",
    UNKNOWN: "a ticket is unknown or expired",
    REFUSED: "refused: full, draining, unauthorised, forbidden, or in conflict with the state of a job",
    TIMED_OUT: "the time was over: of a wait, or of a job, by its `--timeout`; or `result` of a job that goes on",
    NOT_STARTED: "`run`, `result`: the job could not be started",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "whoever read our output has gone",
}

_HINTS: Final[dict[type[JobyardError], str]] = {
    NotEnded: "`jobyard wait` waits for it",
    Unauthorized: "JOBYARD_CLIENT_TOKEN or JOBYARD_CLIENT_TOKEN_FILE has the token",
    Internal: "that is a mistake in the node, whose log says more",
}


def complain(error: Exception) -> int:
    """Prints an error in one line; returns the exit code that it comes to."""
    code = error.code if isinstance(error, JobyardError) else "USAGE" if isinstance(error, ValueError) else "ERROR"
    hint = next((f"; {text}" for kind, text in _HINTS.items() if isinstance(_cause(error), kind)), "")
    sys.stdout.flush()
    print(f"jobyard: {code}: {harmless(' '.join(str(error).split()))}{hint}", file=sys.stderr, flush=True)
    return code_of(error)


def code_of(error: Exception) -> int:
    match _cause(error):
        case Unreachable():
            return UNREACHABLE
        case UnknownTicket() | Expired():
            return UNKNOWN
        case NotEnded():
            return TIMED_OUT
        case BadRequest() | ValueError():
            return USAGE
        case ProtocolError():
            return FAILURE
        case JobyardError():
            return REFUSED
        case _:
            return FAILURE


def code_of_outcome(outcome: Outcome) -> int:
    """The job's own exit code, wherever it has one."""
    if outcome.reason == "timeout":
        return TIMED_OUT
    if outcome.reason == "cannot_start":
        return outcome.exit or NOT_STARTED
    if outcome.succeeded:
        return outcome.exit or SUCCESS
    return outcome.exit or FAILURE  # one that failed may have exit code 0: it printed too much, for instance


def _cause(error: Exception) -> Exception:
    """What stopped a batch tells more than that it was stopped."""
    return error.__cause__ if isinstance(error, NotAllSubmitted) and isinstance(error.__cause__, Exception) else error
