"""`wait`: tells of each job as it ends. Goes on at another node when one goes away."""

import sys
import time
from collections.abc import Iterator
from typing import Final

import click

from jobyard.cli import exits, records, selectors, tables, terminal, words
from jobyard.cli.verb import Session, verb
from jobyard.client import Client
from jobyard.errors import Expired, JobyardError, NotEnded, UnknownTicket
from jobyard.model import Status

_PIECE_S: Final = 30.0  # one question about a group; so that a node that is gone without a word is noticed
_ERRORS: Final[dict[str, type[JobyardError]]] = {"EXPIRED": Expired}  # what a job that cannot be found comes to


@verb(
    "wait",
    records.JOB,
    quiet="Print tickets only, and no progress.",
    examples="""
    jobyard wait last
    jobyard wait --timeout 1h group:night && ./publish
    jobyard wait --json all | jq -r 'select(.state == "failed") | .ticket'
    """,
)
@selectors.jobs_argument
@click.option("--timeout", type=words.DURATION, metavar="D", help="Give up after 90s, 1h30m, …; then exit code 124.")
def wait(session: Session, jobs: tuple[str, ...], group: str | None, timeout: float | None) -> int:
    """Wait until jobs have ended; tell of each as it does.

    Exit code 0 if all succeeded, 1 if some failed or were cancelled. What jobs printed is fetched by `jobyard result`.
    """
    waiting = _Waiting(session, selectors.selected(jobs, group), timeout)
    with terminal.Bar(terminal.is_terminal(sys.stderr) and not session.quiet, waiting.total) as bar:
        waiting.to_the_end(bar)
    return waiting.code


class _Waiting:
    """What is waited for, and what has come of it so far."""

    def __init__(self, session: Session, selection: selectors.Selection, timeout_s: float | None) -> None:
        self._session = session
        self._ends_at = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._groups = selection.groups
        live = (status.ticket for status in selectors.live(session.client)) if selection.live else ()
        self._tickets = tuple(dict.fromkeys((*selection.tickets, *live)))
        self._failed = self._astray = False

    @property
    def total(self) -> int | None:
        """How many jobs these are; None where only the cluster knows."""
        return None if self._groups else len(self._tickets)

    @property
    def code(self) -> int:
        return exits.UNKNOWN if self._astray else exits.FAILURE if self._failed else exits.SUCCESS

    def to_the_end(self, bar: terminal.Bar) -> None:
        for status in self._ends():
            bar.count(succeeded=status.state == "succeeded")
            bar.clear()
            self._tell(status)
            bar.draw()

    def _ends(self) -> Iterator[Status]:
        client = self._session.client
        if self._tickets:
            yield from client.wait_all(self._tickets, self._left_s())
        for group in self._groups:
            yield from self._ends_of(client, group)

    def _ends_of(self, client: Client, group: str) -> Iterator[Status]:
        """All of a group: first those that have ended already, then each as it ends."""
        cursor, patience_s = None, 0.0  # a group in which nothing ends any more would be waited for in vain
        while True:
            watched = client.watch(group=group, since=cursor, timeout_s=patience_s)
            yield from watched.ended
            cursor = watched.cursor
            if not watched.live and not watched.ended:
                return
            left_s = self._left_s()
            if watched.live and left_s == 0.0:
                raise NotEnded(f"group {group}", "live", watched.live - 1)
            patience_s = min(_PIECE_S, _PIECE_S if left_s is None else left_s) if watched.live else 0.0

    def _left_s(self) -> float | None:
        return None if self._ends_at == float("inf") else max(0.0, self._ends_at - time.monotonic())

    def _tell(self, status: Status) -> None:
        if error := status.fields.get("error"):
            self._astray = True
            exits.complain(_ERRORS.get(error, UnknownTicket)(f"no job has the ticket {status.ticket!r}"))
            return
        self._failed |= status.state != "succeeded"
        if self._session.json:
            self._session.print(records.of_status(status))
        elif self._session.quiet:
            terminal.line(status.ticket)
        else:
            terminal.line(tables.ended_line(status, self._session.paint))
