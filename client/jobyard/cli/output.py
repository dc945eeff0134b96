"""`result` and `logs`: what jobs have printed, to where they printed it."""

import time
from collections.abc import Iterator
from typing import Final

import click

from jobyard.cli import exits, records, selectors, terminal, words
from jobyard.cli.verb import Session, verb
from jobyard.model import Outcome, Ticket

# Of these the job's own exit code and standard error tell enough.
_TOLD_BY_THE_JOB: Final = frozenset({None, "exit", "signal", "exception", "cannot_start"})
_ADVICE: Final = {
    "no_directory": "; a job works where it is submitted, unless --dir or --scratch says otherwise",
    "crash_limit": "; its node was lost each time",
}


@verb(
    "result",
    records.OUTCOME,
    quiet="Leave out our own remarks on standard error.",
    examples="""
    jobyard result last
    jobyard result --wait last > report.txt
    jobyard result --json group:night | jq -r 'select(.state == "failed") | .ticket'
    """,
)
@selectors.jobs_argument
@click.option("-w", "--wait", is_flag=True, help="Wait until they have ended.")
@click.option("--timeout", type=words.DURATION, metavar="D", help="Wait at most so long; then exit code 124.")
def result(session: Session, jobs: tuple[str, ...], group: str | None, wait: bool, timeout: float | None) -> int:
    """Print what jobs that have ended printed.

    The exit code is the job's own, of several 0 if all succeeded and 1 otherwise. A job that has not ended is exit
    code 124, unless --wait is given.
    """
    ends_at = float("inf") if timeout is None else time.monotonic() + timeout
    meant = selectors.tickets(session.client, selectors.selected(jobs, group))

    def show(ticket: Ticket) -> int:
        if wait or timeout is not None:
            left_s = None if timeout is None else max(0.0, ends_at - time.monotonic())
            outcome = session.client.wait(ticket, left_s)
        else:
            outcome = session.client.result(ticket)
        code = print_outcome(session, outcome)
        return code if len(meant) == 1 else min(code, exits.FAILURE)

    return selectors.for_each(meant, show)


def print_outcome(session: Session, outcome: Outcome) -> int:
    """All of it; returns the exit code that it comes to."""
    if session.json:
        session.print(records.of_outcome(outcome))
    else:
        terminal.raw(outcome.stdout, outcome.stderr)
    tell(session, outcome)
    return exits.code_of_outcome(outcome)


def tell(session: Session, outcome: Outcome) -> None:
    """What neither the job's output nor its exit code says."""
    for text in about(outcome):
        session.note(text)


def about(outcome: Outcome) -> Iterator[str]:
    if outcome.truncated:
        yield f"the output of {outcome.ticket} is cut: it is longer than a node keeps (JOBYARD_OUTPUT_MAX)"
    if outcome.counts:
        counts = ", ".join(f"{count} {state}" for state, count in outcome.counts.items() if count)
        yield f"{outcome.ticket} is an array: {counts}; its elements are {outcome.ticket}_INDEX"
    elif outcome.reason not in _TOLD_BY_THE_JOB:
        yield f"{outcome.ticket} {outcome.state}, reason {outcome.reason}{_ADVICE.get(outcome.reason or '', '')}"


@verb(
    "logs",
    records.LOGS,
    quiet="Leave out our own remarks on standard error.",
    examples="""
    jobyard logs last
    jobyard logs --follow k3f7qa-1
    """,
)
@selectors.jobs_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until they have ended; several one after another.")
def logs(session: Session, jobs: tuple[str, ...], group: str | None, follow: bool) -> int:
    """Print what jobs have printed so far, ended or not."""
    meant = selectors.tickets(session.client, selectors.selected(jobs, group))

    def show(ticket: Ticket) -> None:
        attempt = 0
        for piece in session.client.follow_logs(ticket) if follow else (session.client.logs(ticket),):
            if session.json:
                session.print(records.of_logs(piece))
                continue
            if 0 < attempt < piece.attempt:
                session.note(f"attempt {piece.attempt} of {ticket} begins")
            attempt = piece.attempt
            terminal.raw(piece.stdout, piece.stderr)

    return selectors.for_each(meant, show)
