"""`nodes`, `stats`, `placement`, `events`, `drain`, `undrain` and `version`: the cluster, and the node that answers."""

from collections.abc import Callable
from typing import TypeVar

import click

from jobyard.cli import exits, records, tables, terminal
from jobyard.cli.verb import Session, verb
from jobyard.following import EVENTS_LOST
from jobyard.model import Event
from jobyard.version import __version__

T = TypeVar("T")


@verb(
    "nodes",
    records.NODE_RECORD,
    quiet="Print names only.",
    examples="""
    jobyard nodes
    jobyard nodes --json | jq -r 'select(.state == "alive") | .name'
    """,
)
def nodes(session: Session) -> int:
    """Show the nodes: what runs, what waits there, and slots."""
    found = session.client.nodes()
    if session.json:
        for node in found:
            session.print(records.of_node(node))
    elif session.quiet:
        terminal.lines(node.name for node in found)
    else:
        rows = map(tables.node_row, found)
        terminal.lines(tables.table(tables.NODE_COLUMNS, list(rows), terminal.width(), session.paint))
    return exits.SUCCESS


@verb("stats", records.STATS, quiet=None, examples="jobyard stats\njobyard stats --local --json | jq .queued")
@click.option("--local", is_flag=True, help="Of the node asked, not of the balancer.")
def stats(session: Session, local: bool) -> int:
    """Show numbers by name, of the cluster or of a node."""
    numbers = session.client.stats(local=local)
    if session.json:
        session.print(records.of_stats(numbers))
    else:
        terminal.lines(tables.table(tables.STAT_COLUMNS, list(numbers.items()), terminal.width(), session.paint))
    return exits.SUCCESS


@verb(
    "placement",
    records.PLACEMENT,
    quiet=None,
    examples="""
    jobyard placement
    jobyard placement shortest-wait
    """,
)
@click.argument("policy", required=False)
def placement(session: Session, policy: str | None) -> int:
    """Show by which policy nodes are given jobs, or choose another.

    POLICY is `level`, `random`, `round-robin`, `least-loaded` or `shortest-wait`. It is in force from now on, until the
    balancer starts again and goes by JOBYARD_PLACEMENT.
    """
    in_force = session.client.placement(policy)
    if session.json:
        session.print({"placement": in_force})
    else:
        terminal.line(in_force)
    return exits.SUCCESS


@verb(
    "events",
    records.EVENT,
    quiet=None,
    examples="""
    jobyard events --follow
    jobyard events --json | jq -r 'select(.event == "job.failed") | .ticket'
    """,
)
@click.option("-f", "--follow", is_flag=True, help="Go on, with each event as it happens, until Ctrl-C.")
@click.option("--since", metavar="CURSOR", help="Only what happened behind it; `now`: only what is to come.")
@click.option("--show-cursor", is_flag=True, help="Afterwards print the cursor, for --since, on standard error.")
def events(session: Session, follow: bool, since: str | None, show_cursor: bool) -> int:
    """Show what has happened to jobs and nodes, oldest first."""
    if follow:
        if show_cursor:
            raise ValueError("--show-cursor tells where the events end, and with --follow they do not")
        for event in session.client.follow_events(since):
            _show(session, event)
        return exits.SUCCESS
    part = session.client.events(since)
    if part.lost:
        _show(session, {"event": EVENTS_LOST})
    for event in part.events:
        _show(session, event)
    if show_cursor:
        terminal.note(f"cursor {part.cursor}")
    return exits.SUCCESS


def _show(session: Session, event: Event) -> None:
    if event.get("event") == EVENTS_LOST:
        terminal.note("events before this are no longer kept")
    elif session.json:
        session.print(event)
    else:
        terminal.line(tables.event_line(event, session.paint))


@verb("drain", records.DRAINED, quiet=None, examples="jobyard --url tcp://node3:9000 drain")
def drain(session: Session) -> int:
    """Tell a node to take no new jobs.

    It finishes what runs, and gives back what waits. It stays so over a restart, until `undrain`. The node is the one
    at --url, or JOBYARD_URL if that names one alone.
    """
    drained = _of_one_node(session.client.drain)
    if session.json:
        session.print(records.of_drained(drained))
    else:
        terminal.line(f"{drained.state}: finishes {drained.running} and gives back {drained.waiting}")
    return exits.SUCCESS


@verb("undrain", records.DRAINED, quiet=None, examples="jobyard --url tcp://node3:9000 undrain")
def undrain(session: Session) -> int:
    """Tell a node to take jobs again."""
    state = _of_one_node(session.client.undrain)
    if session.json:
        session.print({"state": state})
    else:
        terminal.line(state)
    return exits.SUCCESS


def _of_one_node(ask: Callable[[], T]) -> T:
    """Any node answers a question, but not any node is the one to be drained."""
    try:
        return ask()
    except ValueError as error:
        raise ValueError(f"{error}; say which by --url tcp://HOST:PORT") from None


@verb("version", records.VERSION, quiet=None, examples="jobyard version\njobyard --version")
def version(session: Session) -> int:
    """Show the versions of this command and of a node.

    The node is the one that answers; `jobyard --version` asks none.
    """
    if session.json:
        session.print(records.of_version(__version__, session.client.version()))
    else:
        terminal.line(f"client jobyard {__version__}")
        terminal.line(f"node {session.client.version()}")
    return exits.SUCCESS
