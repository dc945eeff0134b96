"""`status`, `list` and `explain`: where jobs stand, and why."""

import time
from collections.abc import Iterable
from typing import Final

import click

from jobyard.cli import exits, records, selectors, tables, terminal
from jobyard.cli.texts import harmless
from jobyard.cli.verb import Session, verb
from jobyard.model import STATES, Status, Ticket

BRIEF: Final = {"succeeded": "success", "failed": "failed", "cancelled": "failed"}  # any other state: running


@verb(
    "status",
    records.JOB,
    examples="""
    jobyard status last
    jobyard status k3f7qa-1,k3f7qa-2 group:night
    jobyard status --brief last
    """,
)
@selectors.jobs_argument
@click.option("--brief", is_flag=True, help="One word for each: running, success or failed. For workflow engines.")
def status(session: Session, jobs: tuple[str, ...], group: str | None, brief: bool) -> int:
    """Show where jobs stand."""
    selection = selectors.selected(jobs, group)
    found: list[Status] = []
    code = selectors.for_each(selection.tickets, lambda ticket: found.append(session.client.status(ticket)))
    found += (each for each in selectors.statuses(session.client, selection) if each.ticket not in selection.tickets)
    if brief:
        terminal.lines(BRIEF.get(each.state, "running") for each in found)
    elif found:
        show(session, found)
    return code


@verb(
    "list",
    records.JOB,
    examples="""
    jobyard list --state failed --limit 20
    jobyard list --group night
    jobyard list --quiet --state failed | jobyard retry -
    """,
)
@click.option("--state", type=click.Choice(STATES), metavar="STATE", help=f"Only these: {', '.join(STATES)}.")
@click.option("-g", "--group", metavar="NAME", help="Only these.")
@click.option("-n", "--limit", type=int, metavar="N", help="At most so many.  [100]")
@click.option("--local", is_flag=True, help="Only those that the node asked holds itself.")
def list_jobs(session: Session, state: str | None, group: str | None, limit: int | None, local: bool) -> int:
    """List jobs, newest first."""
    listing = session.client.list(state=state, group=group, limit=limit, local=local)
    show(session, listing)
    if listing.partial:
        terminal.note("the node stopped looking before it had seen all of its jobs; there may be more that match")
    return exits.SUCCESS


def show(session: Session, jobs: Iterable[Status]) -> None:
    """Jobs as JSON, as tickets, or as a table."""
    if session.json:
        for each in jobs:
            session.print(records.of_status(each))
    elif session.quiet:
        terminal.lines(each.ticket for each in jobs)
    else:
        now_wall = time.time()
        rows = [tables.job_row(each, now_wall) for each in jobs]
        terminal.lines(tables.table(tables.JOB_COLUMNS, rows, terminal.width(), session.paint))


@verb(
    "explain",
    records.EXPLANATION,
    examples="""
    jobyard explain last
    jobyard explain --json all | jq -r '[.ticket, .reason] | @tsv'
    """,
)
@selectors.jobs_argument
def explain(session: Session, jobs: tuple[str, ...], group: str | None) -> int:
    """Say why jobs are where they are.

    What they wait for, behind how many, and what would change it; or why they ended as they did.
    """
    meant = selectors.tickets(session.client, selectors.selected(jobs, group))

    def tell(ticket: Ticket) -> None:
        explained = session.client.explain(ticket)
        if session.json:
            session.print(records.of_explanation(explained))
        elif session.quiet:
            terminal.line(explained.ticket)
        else:
            state = session.paint(explained.state, explained.state)
            terminal.line(f"{explained.ticket} {state}: {harmless(explained.reason)}")
            terminal.lines(f"  {harmless(line)}" for line in explained.text.splitlines())

    return selectors.for_each(meant, tell)
