"""Client: a method for each verb, spoken to whichever node of several answers.

Rules
- One connection at a time, dialled when it is needed, and another for each stream that is followed. When one is lost,
  the next address is tried; a node that drains or has too many connections is passed over likewise.
- A request is repeated at another node only where that does no harm. A submission without a key is not: it raises
  Unconfirmed. A submission with a key is.
- What waits for long is asked in pieces, so that a node that is gone without a word is noticed while a job takes hours.

A Client belongs to one thread at a time. `aio/client.py` is its twin for trio; what they ask, and what they make of
answers, is in files that both share.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from jobyard import verbs, watching
from jobyard.addresses import URL_DEFAULT as URL_DEFAULT  # where others look for it
from jobyard.batch import Batch
from jobyard.connection import Connection, Dialler
from jobyard.errors import (
    TRY_NEXT,
    Expired,
    JobyardError,
    NotEnded,
    Unavailable,
    UnknownTicket,
    lost_before_answer,
)
from jobyard.following import EventsFollowing, Following, LogsFollowing
from jobyard.model import (
    Drained,
    Event,
    Events,
    Explanation,
    Job,
    JobOptions,
    Listing,
    Logs,
    Node,
    Outcome,
    Status,
    Ticket,
    Watched,
)
from jobyard.reducing import MapReduce
from jobyard.settings import FilePath
from jobyard.verbs import Ask
from jobyard.watching import Deadline, Watching

TIMEOUT_S: Final = 30.0  # a node answers everything but WAIT and the like within 5 s, or says why not

T = TypeVar("T")


class Client(MapReduce):
    """A cluster, seen from outside. `url` names one node or several, with commas between; the environment's
    JOBYARD_URL, JOBYARD_CLIENT_TOKEN (or JOBYARD_CLIENT_TOKEN_FILE) and JOBYARD_TLS_CA fill in what is not given.

    `timeout_s` is how long a node may take to accept a connection, and to answer what it need not wait for. `tls_ca` is
    the PEM file of the CA that has certified the nodes at `tls://` addresses.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        *,
        tls_ca: FilePath | None = None,
    ) -> None:
        self._dialler = Dialler(url, token, tls_ca, timeout_s)
        self._route = self._dialler.route
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up. The client can still be used: it dials again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- submitting --------------------------------------------------------------------------------------------

    def submit(self, kind: str, line: str, **options: Unpack[JobOptions]) -> Ticket:
        """The ticket of a new job, once it is safe on a node's disk.

        Raises Unconfirmed where the connection is lost before the answer and the job has no key.
        """
        return self._ask(verbs.submit(Job(kind, line, **options)))

    def submit_many(self, jobs: Iterable[Job]) -> tuple[Ticket, ...]:
        """Their tickets, in order: over one connection, without waiting for one answer before the next job.

        Raises NotAllSubmitted, which has the tickets of those that were taken; Unreachable when nothing was sent.
        """
        batch = Batch(jobs)
        self._connected()
        while not batch.done:
            try:
                with self._in_use() as connection:
                    self._exchange(connection, batch)
            except OSError as error:
                batch.lost(error)
            except JobyardError as error:
                batch.fail(error)
        return batch.tickets()

    def _exchange(self, connection: Connection, batch: Batch) -> None:
        while not batch.done:
            if requests := batch.requests():
                connection.send(requests)
            if not batch.done:
                for reply in connection.replies():
                    batch.take(reply)

    def run(self, kind: str, line: str, **options: Unpack[JobOptions]) -> Outcome:
        """Submits a job and waits for its end. The two are asked one after the other, so that the ticket is known
        when a node goes away half-way and the waiting goes on at the next."""
        return self.wait(self.submit(kind, line, **options))

    # --- asking after a job --------------------------------------------------------------------------------------

    def status(self, ticket: str) -> Status:
        return self._ask(verbs.status(ticket))

    def result(self, ticket: str) -> Outcome:
        """How a job ended, with its output. Raises NotEnded while it has not."""
        return self._ask(verbs.result(ticket))

    def explain(self, ticket: str) -> Explanation:
        """Why a job is where it is, and what would change that."""
        return self._ask(verbs.explain(ticket))

    def logs(self, ticket: str) -> Logs:
        """What the present attempt, or the last, has printed so far."""
        return self._ask(verbs.logs(ticket))

    def follow_logs(self, ticket: str) -> Generator[Logs, None, None]:
        """What a job prints, as it prints it; ends with the job. A new attempt begins anew, which `attempt` tells.
        On a connection of its own; when that is lost, it goes on at the next node where it was."""
        return self._follow(LogsFollowing(ticket, len(self._route) + 1))

    # --- waiting -------------------------------------------------------------------------------------------------

    def wait(self, ticket: str, timeout_s: float | None = None) -> Outcome:
        """How a job ended, as soon as it has. Raises NotEnded after `timeout_s`, or Unavailable where
        nobody could be asked until then; without a timeout it waits for ever. Unreachable when no node answers."""
        deadline = Deadline(timeout_s, time.monotonic())
        while True:
            left_s = deadline.left_s(time.monotonic())
            try:
                return self._ask(verbs.wait(ticket, min(left_s, watching.WAIT_PIECE_S)))
            except NotEnded:
                if deadline.over(time.monotonic()):
                    raise
            except Unavailable:
                if deadline.over(time.monotonic() + watching.UNAVAILABLE_PAUSE_S):
                    raise
                time.sleep(watching.UNAVAILABLE_PAUSE_S)

    def watch(
        self,
        tickets: Iterable[str] = (),
        *,
        group: str | None = None,
        since: str | None = None,
        timeout_s: float | None = None,
    ) -> Watched:
        """Who of these tickets (as many as fit in a line, some 4,000), or of this group, has ended since the cursor
        `since`: as soon as there is one, or when `timeout_s` is over. Tickets: also when none is left that lives."""
        tickets = tuple(tickets)
        if bool(tickets) == (group is not None):
            raise ValueError("watch takes tickets or a group, one of the two")
        deadline = Deadline(timeout_s, time.monotonic())
        while True:
            left_s = deadline.left_s(time.monotonic())
            try:
                watched = self._ask(verbs.watch(tickets, group, since, min(left_s, watching.WAIT_PIECE_S)))
            except Unavailable:
                if deadline.over(time.monotonic() + watching.UNAVAILABLE_PAUSE_S):
                    raise
                time.sleep(watching.UNAVAILABLE_PAUSE_S)
            else:
                if watched.ended or not (watched.live or group) or deadline.over(time.monotonic()):
                    return watched

    def wait_all(self, tickets: Iterable[str], timeout_s: float | None = None) -> Generator[Status, None, None]:
        """Each of these jobs once, as they end; thousands are fine. Tickets of which no job is known, or known any
        more, come as well, with the state `unknown` or `expired`. The client may be used in between.

        Raises NotEnded after `timeout_s`, when some are left, or Unavailable where nobody could be asked until then.
        """
        deadline = Deadline(timeout_s, time.monotonic())
        progress = Watching(tickets)
        while not progress.done:
            now = time.monotonic()
            if deadline.over(now) and progress.lap_over:
                raise progress.not_ended()
            time.sleep(progress.pause_s(now))
            try:
                watched = self._ask(progress.ask(deadline.left_s(time.monotonic())))
            except (UnknownTicket, Expired) as error:
                yield from progress.refused(error)
            except Unavailable:
                if deadline.over(time.monotonic() + watching.UNAVAILABLE_PAUSE_S):
                    raise
                time.sleep(watching.UNAVAILABLE_PAUSE_S)
            else:
                yield from progress.take(watched, time.monotonic())

    # --- changing a job ------------------------------------------------------------------------------------------

    def cancel(self, ticket: str) -> str:
        """The state that the job has ended in: `cancelled`, or what it was before."""
        return self._ask(verbs.cancel(ticket))

    def cancel_group(self, group: str) -> int:
        """Cancels what has not ended of a group; how many jobs that were."""
        return self._ask(verbs.cancel_group(group))

    def retry(self, ticket: str) -> str:
        """Queues a failed or cancelled job again, under its ticket; its new state. Raises Conflict for any other."""
        return self._ask(verbs.retry(ticket))

    def retry_group(self, group: str) -> int:
        """Queues again what failed or was cancelled of a group; how many jobs that were."""
        return self._ask(verbs.retry_group(group))

    def forget(self, ticket: str) -> None:
        """Removes an ended job and its output; its key is free again. Raises Conflict where it has not ended."""
        self._ask(verbs.forget(ticket))

    def forget_group(self, group: str) -> int:
        """Removes what has ended of a group; how many jobs that were."""
        return self._ask(verbs.forget_group(group))

    # --- asking after the cluster --------------------------------------------------------------------------------

    def list(
        self, *, state: str | None = None, group: str | None = None, limit: int | None = None, local: bool = False
    ) -> Listing:
        """Jobs, newest first, 100 unless told otherwise. `local`: only those that the node asked holds itself."""
        return self._ask(verbs.list_jobs(state, group, limit, local))

    def nodes(self) -> tuple[Node, ...]:
        return self._ask(verbs.nodes())

    def stats(self, *, local: bool = False) -> dict[str, str]:
        """Numbers by name, of the cluster or of the node asked."""
        return self._ask(verbs.stats(local))

    def placement(self, policy: str | None = None) -> str:
        """The policy by which jobs are given to nodes: `level`, `random`, `round-robin`, `least-loaded` or
        `shortest-wait`. Named, it is in force from now on, until the balancer starts again."""
        return self._ask(verbs.placement(policy))

    def events(self, since: str | None = None) -> Events:
        """What has happened behind the cursor `since`, or as far back as it is kept; 10,000 events at most."""
        return self._ask(verbs.events(since))

    def follow_events(self, since: str | None = None) -> Generator[Event, None, None]:
        """What happens behind the cursor `since`, or as far back as it is kept, and from now on, without an end. On a
        connection of its own; when that is lost, it goes on at the next node where it was.

        Where events are no longer kept that were not told yet, `{"event": "events.lost"}` stands for them."""
        return self._follow(EventsFollowing(since, len(self._route) + 1))

    def drain(self) -> Drained:
        """Tells the node to take no more jobs, finish what runs and give back what waits. The client must have been
        given one address; a ValueError otherwise, since nobody could tell which node it would be."""
        self._only_node("drain")
        return self._ask(verbs.drain())

    def undrain(self) -> str:
        """Tells the node, likewise, to take jobs again; its state."""
        self._only_node("undrain")
        return self._ask(verbs.undrain())

    def _only_node(self, verb: str) -> None:
        if len(self._route) > 1:
            raise ValueError(f"{verb} is for one node, and this client has the addresses of {len(self._route)}")

    def ping(self) -> None:
        """Returns when a node has answered."""
        self._ask(verbs.ping())

    def version(self) -> str:
        """What the node says of itself: `jobyard 0.1.0 protocol=1`."""
        return self._ask(verbs.version())

    # --- asking at all -------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask[T]) -> T:
        """What the first node says that gives an answer; each is tried, and the first once more, for it may be back."""
        for _ in range(len(self._route) + 1):
            try:
                with self._in_use() as connection:
                    reply = connection.request(ask.data, ask.patience_s)
                    if isinstance(reply.error, TRY_NEXT):
                        raise reply.error
            except TRY_NEXT as error:
                failure: JobyardError = error
            except OSError as error:
                failure = lost_before_answer(connection.address, error, ask.repeatable)
                if not ask.repeatable:
                    raise failure from error
            else:
                if reply.error is not None:
                    raise reply.error
                return ask.read(reply)
        raise failure

    def _follow(self, following: Following[T]) -> Generator[T, None, None]:
        """What replies tell that come one after another, from one node or, when it is lost, from the next."""
        while not following.done:
            connection = self._dialler.dial()
            try:
                connection.send(following.request())
                while not following.done:
                    yield from following.take(connection.follow())
            except Unavailable:
                time.sleep(watching.UNAVAILABLE_PAUSE_S)
            except (OSError, *TRY_NEXT) as error:
                self._route.pass_over(connection.address)
                following.lost(connection.address, error)
            finally:
                connection.close()

    # --- connections -----------------------------------------------------------------------------------------------

    @contextmanager
    def _in_use(self) -> Iterator[Connection]:
        """A connection for as long as replies are owed on it. What goes wrong meanwhile ends it; and where its node is
        gone, or takes nothing, the next address has its turn."""
        connection = self._connected()
        try:
            yield connection
        except (OSError, *TRY_NEXT):
            self.close()
            self._route.pass_over(connection.address)
            raise
        except BaseException:
            self.close()  # a reply is owed on it that nobody will read
            raise

    def _connected(self) -> Connection:
        """The connection there is, or a new one."""
        if self._connection is not None and self._connection.is_stale():
            self.close()  # its node stopped or started anew while we were silent
        if self._connection is None:
            self._connection = self._dialler.dial()
        return self._connection
