"""`cancel`, `retry` and `forget`: what can be done to jobs, and to whole groups at once."""

from collections.abc import Callable

from jobyard.cli import exits, records, selectors, terminal
from jobyard.cli.texts import harmless
from jobyard.cli.verb import Session, verb
from jobyard.model import Ticket


@verb(
    "cancel",
    records.CHANGED,
    records.CHANGED_GROUP,
    examples="""
    jobyard cancel last
    jobyard cancel group:night
    jobyard cancel all
    """,
)
@selectors.jobs_argument
def cancel(session: Session, jobs: tuple[str, ...], group: str | None) -> int:
    """End jobs, whatever their state.

    One that runs gets SIGTERM, and SIGKILL 5 s later. The state that is printed is `cancelled`, or the one in which a
    job had ended already.
    """
    selection = selectors.selected(jobs, group)
    client = session.client
    others = tuple(status.ticket for status in selectors.live(client)) if selection.live else ()
    return _change(
        session, (*selection.tickets, *others), selection.groups, client.cancel, client.cancel_group, "cancelled"
    )


@verb(
    "retry",
    records.CHANGED,
    records.CHANGED_GROUP,
    examples="""
    jobyard retry last
    jobyard retry group:night
    """,
)
@selectors.jobs_argument
def retry(session: Session, jobs: tuple[str, ...], group: str | None) -> int:
    """Queue jobs again that failed or were cancelled.

    They keep their tickets. Of a group: all that failed or were cancelled.
    """
    selection = _ended(selectors.selected(jobs, group))
    client = session.client
    return _change(session, selection.tickets, selection.groups, client.retry, client.retry_group, "queued")


@verb(
    "forget",
    records.CHANGED,
    records.CHANGED_GROUP,
    examples="""
    jobyard forget last
    jobyard forget group:night
    """,
)
@selectors.jobs_argument
def forget(session: Session, jobs: tuple[str, ...], group: str | None) -> int:
    """Forget jobs that have ended, and what they printed.

    Their tickets are unknown from then on, and their keys are free again. Of a group: all that have ended.
    """
    selection = _ended(selectors.selected(jobs, group))
    client = session.client

    def one(ticket: Ticket) -> str:
        client.forget(ticket)
        return "forgotten"

    return _change(session, selection.tickets, selection.groups, one, client.forget_group, "forgotten")


def _ended(selection: selectors.Selection) -> selectors.Selection:
    if selection.live:
        raise ValueError("`all` means jobs that have not ended, and this is for such as have; name tickets or a group")
    return selection


def _change(
    session: Session,
    tickets: tuple[Ticket, ...],
    groups: tuple[str, ...],
    one: Callable[[Ticket], str],
    whole: Callable[[str], int],
    done: str,
) -> int:
    """Does it to each ticket, then to each group. `done` is what is said of a group."""

    def change(ticket: Ticket) -> None:
        state = one(ticket)
        if session.json:
            session.print({"ticket": ticket, "state": state})
        else:
            terminal.line(ticket if session.quiet else f"{ticket} {session.paint(state, state)}")

    code = selectors.for_each(tuple(dict.fromkeys(tickets)), change)
    for group in groups:
        count = whole(group)
        if session.json:
            session.print({"group": group, "count": count})
        elif not session.quiet:
            terminal.line(f"group {harmless(group)}: {count} {done}")
    return code or exits.SUCCESS
