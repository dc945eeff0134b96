"""A request for each verb, and how its reply is read: what both clients, the blocking and the async one, ask.

Pure. An Ask says all that a client must know to send it: whether it may be sent again, and how long a reply may take.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from jobyard.decoding import (
    body_lines,
    count_of,
    drained_of,
    events_of,
    explanation_of,
    listing_of,
    logs_of,
    node_of,
    outcome_of,
    placement_of,
    state_of,
    stats_of,
    status_of,
    ticket_of,
    watched_of,
)
from jobyard.errors import NotEnded
from jobyard.model import Drained, Events, Explanation, Job, Listing, Logs, Node, Outcome, Status, Ticket, Watched
from jobyard.protocol import Reply, as_ticket, duration, encode, encode_submit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One request, and how the reply to it is read. `read` may raise what the reply means."""

    data: bytes
    read: Callable[[Reply], T]
    repeatable: bool = True  # asking it twice does no harm
    patience_s: float = 0.0  # how much longer than others its reply may take


# --- jobs --------------------------------------------------------------------------------------------------------


def submit(job: Job) -> Ask[Ticket]:
    return Ask(encode_submit(job), ticket_of, repeatable=job.key is not None)


def status(ticket: str) -> Ask[Status]:
    return Ask(encode("STATUS", ticket), lambda reply: status_of(reply.text))


def result(ticket: str) -> Ask[Outcome]:
    return Ask(encode("RESULT", ticket), lambda reply: _outcome(ticket, reply))


def wait(ticket: str, timeout_s: float) -> Ask[Outcome]:
    data = encode("WAIT", ticket, options={"timeout": duration(timeout_s)})
    return Ask(data, lambda reply: _outcome(ticket, reply), patience_s=timeout_s)


def _outcome(ticket: str, reply: Reply) -> Outcome:
    if reply.status == "PENDING":
        raise NotEnded(ticket, reply.fields.get("state", "not ended"))
    return outcome_of(reply)


def watch(tickets: Iterable[str], group: str | None, since: str | None, timeout_s: float) -> Ask[Watched]:
    words = [",".join(map(as_ticket, tickets))] if group is None else []
    options = {"timeout": duration(timeout_s), "since": since, "group": group}
    return Ask(encode("WATCH", *words, options=options), watched_of, patience_s=timeout_s)


def cancel(ticket: str) -> Ask[str]:
    return Ask(encode("CANCEL", ticket), state_of)


def cancel_group(group: str) -> Ask[int]:
    return Ask(encode("CANCEL", options={"group": group}), count_of)


def retry(ticket: str) -> Ask[str]:
    return Ask(encode("RETRY", ticket), state_of, repeatable=False)


def retry_group(group: str) -> Ask[int]:
    return Ask(encode("RETRY", options={"group": group}), count_of, repeatable=False)


def forget(ticket: str) -> Ask[None]:
    return Ask(encode("FORGET", ticket), _nothing, repeatable=False)


def forget_group(group: str) -> Ask[int]:
    return Ask(encode("FORGET", options={"group": group}), count_of)


def explain(ticket: str) -> Ask[Explanation]:
    return Ask(encode("EXPLAIN", ticket), explanation_of)


def logs(ticket: str) -> Ask[Logs]:
    return Ask(encode("LOGS", ticket), logs_of)


# --- the cluster -------------------------------------------------------------------------------------------------


def events(since: str | None) -> Ask[Events]:
    return Ask(encode("EVENTS", options={"since": since}), events_of)


def list_jobs(state: str | None, group: str | None, limit: int | None, local: bool) -> Ask[Listing]:
    options = {"state": state, "group": group, "limit": limit, "local": _flag(local)}
    return Ask(encode("LIST", options=options), listing_of)


def nodes() -> Ask[tuple[Node, ...]]:
    return Ask(encode("NODES"), lambda reply: tuple(map(node_of, body_lines(reply))))


def stats(local: bool) -> Ask[dict[str, str]]:
    return Ask(encode("STATS", options={"local": _flag(local)}), stats_of)


def placement(policy: str | None) -> Ask[str]:
    return Ask(encode("PLACEMENT", *([] if policy is None else [policy])), placement_of)


def drain() -> Ask[Drained]:
    return Ask(encode("DRAIN"), drained_of)


def undrain() -> Ask[str]:
    return Ask(encode("UNDRAIN"), state_of)


def auth(token: str) -> Ask[None]:
    return Ask(encode("AUTH", token), _nothing)


def ping() -> Ask[None]:
    return Ask(encode("PING"), _nothing)


def version() -> Ask[str]:
    return Ask(encode("VERSION"), lambda reply: reply.text)


def _flag(given: bool) -> int | None:
    return 1 if given else None


def _nothing(reply: Reply) -> None:
    """There is nothing to read in it."""
