"""`submit` and `run`.

What happens to a job of `run` when we are told to stop: the first Ctrl-C, and likewise SIGTERM, cancels it, and we
wait until it has ended, so that it does not go on behind the back of whoever stopped it. The second leaves at once.
Whoever wants a job to go on uses `submit`. When the reader of our output goes away (`jobyard run -- yes | head`), the
job is cancelled too: a local command would be ended by SIGPIPE.
"""

import sys
from typing import Any, Final

import click

from jobyard.cli import exits, last, options, records, terminal
from jobyard.cli.interrupts import Interrupts, Stopped
from jobyard.cli.live import Live
from jobyard.cli.output import print_outcome, tell
from jobyard.cli.verb import Session, verb
from jobyard.client import Client
from jobyard.errors import JobyardError, NotEnded, Unavailable, Unreachable
from jobyard.model import Outcome, Ticket

MOMENT_S: Final = 0.3  # output that comes is first looked for after it

COMMAND = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")


@verb(
    "submit",
    records.SUBMITTED,
    quiet="Print the ticket only, as is done anyway.",
    interspersed=False,
    examples="""
    jobyard submit -- ffmpeg -i in.mkv out.mp4
    jobyard submit --sh 'sort words.txt | uniq -c > counts.txt'
    jobyard submit --py math:factorial '[20]'
    jobyard submit --group night --retries 3 --after last -- ./report
    jobyard submit --array 1-100%10 -- ./simulate --seed {}
    """,
)
@options.added((*options.WHAT, *options.OWN, *options.ALL))
@COMMAND
def submit(session: Session, command: tuple[str, ...], **given: Any) -> int:
    """Queue a job, and print its ticket.

    The job is safe on a node's disk when the ticket is printed. It works in the directory in which this is called, by
    the same path on whichever node runs it, unless --scratch or --dir says otherwise.
    """
    ticket = _submitted(session.client, options.job_of(session.client, given, command))
    if session.json:
        session.print({"ticket": ticket})
    else:
        terminal.line(ticket)
    return exits.SUCCESS


def _submitted(client: Client, job: options.Described) -> Ticket:
    kind, line, described = job
    ticket = client.submit(kind, line, **described)
    last.keep(ticket)
    return ticket


@verb(
    "run",
    records.OUTCOME,
    quiet="Leave out our own remarks on standard error.",
    interspersed=False,
    examples="""
    jobyard run -- make -j2
    jobyard run --stdin --sh 'sort | uniq -c' < words.txt
    jobyard run --timeout 10m --memory 2G -- ./simulate --seed 7
    """,
)
@options.added((*options.WHAT, *options.OWN, *options.ALL))
@click.option("--live/--no-live", default=None, help="Print output as it comes, or at the end that of the last attempt."
              "  [as it comes; at the end if --retries is given and standard output is no terminal]")  # fmt: skip
@COMMAND
def run(session: Session, command: tuple[str, ...], live: bool | None, **given: Any) -> int:
    """Queue a job, and give its output and exit code.

    As if it ran here: its standard output and standard error go to ours, and our exit code is its own, 128 and the
    number of the signal where one ended it; 124 where --timeout did, 127 where it could not be started. Ctrl-C cancels
    the job and waits for its end; once more leaves at once.
    """
    if live is None:
        live = sys.stdout.isatty() or not given["retries"]
    job = options.job_of(session.client, given, command)
    running = None
    with Interrupts() as interrupts:
        try:
            with interrupts.held():
                running = _Running(session, _submitted(session.client, job))
            return running.to_its_end(live=live and not session.json and not given["array"])
        except Stopped as stopped:
            if running is None:
                session.note("nobody has answered yet: the job may have been taken or not")
                return stopped.exit_code
            return running.cancelled(stopped)


class _Running:
    """A job of ours, and what has been printed of it."""

    def __init__(self, session: Session, ticket: Ticket) -> None:
        self._session = session
        self._ticket = ticket
        self._live = Live()

    def to_its_end(self, *, live: bool) -> int:
        try:
            outcome = self._followed() if live else None
            return self._end(outcome or self._session.client.wait(self._ticket))
        except BrokenPipeError:
            self._session.client.cancel(self._ticket)
            raise
        except (Unreachable, Unavailable):
            self._session.note(f"the job goes on; try later: jobyard result --wait {self._ticket}")
            raise

    def _followed(self) -> Outcome | None:
        """Prints output as it comes; but most jobs are short, and the outcome of one that ends in a moment is all."""
        client = self._session.client
        try:
            return client.wait(self._ticket, MOMENT_S)
        except (NotEnded, Unavailable):
            pass
        try:
            for piece in client.follow_logs(self._ticket):
                self._print(self._live.take(piece))
        except JobyardError:
            pass  # waiting does without, or meets the same error and tells of it
        return None

    def _end(self, outcome: Outcome) -> int:
        if self._session.json:
            return print_outcome(self._session, outcome)
        self._print(self._live.end(outcome))
        tell(self._session, outcome)
        return exits.code_of_outcome(outcome)

    def _print(self, output: tuple[bytes, bytes]) -> None:
        if self._live.differs:
            self._session.note(f"{self._ticket} began again, and prints something else:")
        terminal.raw(*output)

    def cancelled(self, stopped: Stopped) -> int:
        client = self._session.client
        client.close()  # an answer is owed on this connection
        try:
            self._session.note(f"cancelling {self._ticket}; once more, and we do not wait for its end")
            client.cancel(self._ticket)
            self._end(client.wait(self._ticket))
        except Stopped:
            self._session.note(f"not waiting for {self._ticket}")
        return stopped.exit_code
