"""Which jobs a verb means: tickets in any number, `T1,T2`, `all`, `last`, `group:NAME`, and `-` for standard input.

    T  T_7         a job, an element of an array
    T1,T2          several; so are several words
    last           the one that `submit` or `run` got last here
    all            all that have not ended
    group:NAME     all of a group, and so does --group NAME
    -              tickets from standard input, one on a line: `jobyard list --quiet … | jobyard wait -`

A job is meant once, however often it is named, and jobs come in the order in which they were named.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from jobyard.cli import exits, last, terminal
from jobyard.client import Client
from jobyard.errors import Conflict, Expired, NotEnded, UnknownTicket
from jobyard.model import Status, Ticket

F = TypeVar("F", bound=Callable[..., Any])

ALL: Final = "all"
LAST: Final = "last"
STANDARD_INPUT: Final = "-"
GROUP: Final = "group:"
LIST_LIMIT: Final = 10_000  # the most that a node lists
LIST_LIMIT_FIRST: Final = 200  # mostly enough for all that live

_OF_ONE_JOB: Final = (UnknownTicket, Expired, Conflict, NotEnded)  # say nothing about the next


class Selection(NamedTuple):
    """Jobs by name. Groups are kept apart, for the verbs that know what to do with a whole one."""

    tickets: tuple[Ticket, ...] = ()
    groups: tuple[str, ...] = ()
    live: bool = False  # all that have not ended


def selected(words: Iterable[str], group: str | None = None) -> Selection:
    """What the words of a command line name. Raises ValueError."""
    parts = [part for word in words for part in (word.split(",") if not word.startswith(GROUP) else [word]) if part]
    if group is not None:
        parts.append(f"{GROUP}{group}")
    if not parts:
        raise ValueError("say which jobs: tickets, last, all, group:NAME, or - to read tickets from standard input")
    groups = [part.removeprefix(GROUP) for part in parts if part.startswith(GROUP)]
    if "" in groups:
        raise ValueError("group: needs a name after it")
    tickets = [ticket for part in parts if not part.startswith(GROUP) and part != ALL for ticket in _tickets(part)]
    return Selection(tuple(dict.fromkeys(tickets)), tuple(dict.fromkeys(groups)), ALL in parts)


def _tickets(part: str) -> list[Ticket]:
    if part == LAST:
        return [last.ticket()]
    if part == STANDARD_INPUT:
        return [Ticket(word) for line in sys.stdin for word in line.replace(",", " ").split()]
    return [Ticket(part)]


def statuses(client: Client, selection: Selection) -> Iterator[Status]:
    """Where the jobs of groups, and all live ones if these are meant, stand. Not the tickets that were named."""
    for group in selection.groups:
        listed = client.list(group=group, limit=LIST_LIMIT)
        if len(listed) == LIST_LIMIT:
            terminal.note(f"group {group} has more jobs than a node lists; these are the newest {LIST_LIMIT:,}")
        elif listed.partial:
            terminal.note(f"group {group} may have more jobs: the node stopped looking before the last of its own")
        yield from listed
    if selection.live:
        yield from live(client)


def live(client: Client) -> tuple[Status, ...]:
    """All jobs that have not ended. Nodes list them first, so a list in which one has ended has all that live."""
    for limit in (LIST_LIMIT_FIRST, LIST_LIMIT):
        listed = client.list(limit=limit)
        found = tuple(status for status in listed if not status.ended)
        if len(found) < limit:
            return found
    terminal.note(f"more jobs live than a node lists; these are the last {LIST_LIMIT:,} to arrive")
    return found


def tickets(client: Client, selection: Selection) -> tuple[Ticket, ...]:
    """The tickets of all that is meant."""
    others = (status.ticket for status in statuses(client, selection))
    return tuple(dict.fromkeys((*selection.tickets, *others)))


def for_each(meant: Sequence[Ticket], act: Callable[[Ticket], int | None]) -> int:
    """Does something for each job. What is wrong with one of them is told, and does not keep the others from it.

    The exit code is that of the first that went wrong."""
    first = exits.SUCCESS
    for ticket in meant:
        try:
            code = act(ticket) or exits.SUCCESS
        except _OF_ONE_JOB as error:
            code = exits.complain(error)
        first = first or code
    return first


# --- on a command line -------------------------------------------------------------------------------------------


def jobs_argument(act: F) -> F:
    """`JOBS...` and `--group`, as the parameters `jobs` and `group`."""
    act = click.option("-g", "--group", metavar="NAME", help="All jobs of a group; the same as group:NAME.")(act)
    return click.argument("jobs", nargs=-1, metavar="JOBS...", shell_complete=_complete)(act)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from jobyard.cli.completion import jobs

    return jobs(ctx, incomplete)
