"""Client: a method for each verb, spoken to whichever node of several answers.

Rules
- One connection at a time, dialled when it is needed. When it is lost, the next address is tried; a node that drains
  or has too many connections is passed over likewise.
- A request is repeated at another node only where that does no harm. A submission without a key is not: it raises
  Unconfirmed. A submission with a key is.
- WAIT is asked in pieces, so that a node that is gone without a word is noticed while a job takes hours.

A Client belongs to one thread at a time.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack

from jobyard.batch import Batch
from jobyard.connection import Address, Connection, parse_url
from jobyard.errors import Draining, JobyardError, NotEnded, TooManyConnections, Unavailable, Unconfirmed, Unreachable
from jobyard.model import Job, JobOptions, Node, Outcome, Status, Ticket
from jobyard.protocol import (
    Reply,
    body_lines,
    duration,
    encode,
    encode_submit,
    node_of,
    outcome_of,
    status_of,
    ticket_of,
)

URL_DEFAULT: Final = "tcp://127.0.0.1:9000"
TIMEOUT_S: Final = 30.0  # a node answers everything but WAIT within 5 s, or says why not
WAIT_PIECE_S: Final = 30.0
UNAVAILABLE_PAUSE_S: Final = 0.2

_TRY_NEXT: Final = (Draining, TooManyConnections)


class Client:
    """A cluster, seen from outside. `url` names one node or several, with commas between; the environment's
    JOBYARD_URL and JOBYARD_CLIENT_TOKEN (or JOBYARD_CLIENT_TOKEN_FILE) fill in what is not given.

    `timeout_s` is how long a node may take to accept a connection, and to answer what it need not wait for.
    """

    def __init__(self, url: str | None = None, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._addresses = parse_url(url or os.environ.get("JOBYARD_URL") or URL_DEFAULT)
        self._token = token or _token_of_environment()
        self._timeout_s = timeout_s
        self._at = 0  # the address in use
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
        job = Job(kind, line, **options)
        return ticket_of(self._ask(encode_submit(job), repeatable=job.key is not None))

    def submit_many(self, jobs: Iterable[Job]) -> tuple[Ticket, ...]:
        """Their tickets, in order: over one connection, without waiting for one answer before the next job.

        Raises NotAllSubmitted, which has the tickets of those that were taken; Unreachable when nothing was sent.
        """
        batch = Batch(jobs)
        self._connected()
        while not batch.done:
            try:
                self._exchange(self._connected(), batch)
            except OSError as error:
                self._pass_over()
                batch.lost(error)
            except JobyardError as error:
                self.close()
                batch.fail(error)
            except BaseException:
                self.close()  # answers are owed on it that nobody will read
                raise
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
        return status_of(self._ask(encode("STATUS", ticket)).text)

    def result(self, ticket: str) -> Outcome:
        """How a job ended, with its output. Raises NotEnded while it has not."""
        return self._outcome(ticket, self._ask(encode("RESULT", ticket)))

    def wait(self, ticket: str, timeout_s: float | None = None) -> Outcome:
        """How a job ended, as soon as it has. Raises NotEnded after `timeout_s`, or Unavailable where
        nobody could be asked until then; without a timeout it waits for ever. Unreachable when no node answers."""
        ends_at = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, ends_at - time.monotonic())
            try:
                return self._wait_piece(ticket, min(left_s, WAIT_PIECE_S))
            except NotEnded:
                if time.monotonic() >= ends_at:
                    raise
            except Unavailable:
                if time.monotonic() + UNAVAILABLE_PAUSE_S >= ends_at:
                    raise
                time.sleep(UNAVAILABLE_PAUSE_S)

    def _wait_piece(self, ticket: str, piece_s: float) -> Outcome:
        request = encode("WAIT", ticket, options={"timeout": duration(piece_s)})
        return self._outcome(ticket, self._ask(request, patience_s=piece_s))

    def _outcome(self, ticket: str, reply: Reply) -> Outcome:
        if reply.status == "PENDING":
            raise NotEnded(ticket, reply.fields.get("state", "not ended"))
        return outcome_of(reply)

    def cancel(self, ticket: str) -> str:
        """The state that the job has ended in: `cancelled`, or what it was before."""
        return status_of(self._ask(encode("CANCEL", ticket)).text).state

    def cancel_group(self, group: str) -> int:
        """Cancels what has not ended of a group; how many jobs that were."""
        return int(self._ask(encode("CANCEL", options={"group": group})).fields.get("count", "0"))

    # --- asking after the cluster --------------------------------------------------------------------------------

    def list(
        self, *, state: str | None = None, group: str | None = None, limit: int | None = None, local: bool = False
    ) -> tuple[Status, ...]:
        """Jobs, newest first, 100 unless told otherwise. `local`: only those that the node asked holds itself."""
        options = {"state": state, "group": group, "limit": limit, "local": 1 if local else None}
        return tuple(map(status_of, body_lines(self._ask(encode("LIST", options=options)))))

    def nodes(self) -> tuple[Node, ...]:
        return tuple(map(node_of, body_lines(self._ask(encode("NODES")))))

    def stats(self, *, local: bool = False) -> dict[str, str]:
        """Numbers by name, of the cluster or of the node asked."""
        reply = self._ask(encode("STATS", options={"local": 1 if local else None}))
        pairs = (line.partition(" ") for line in body_lines(reply))
        return {name: value for name, _, value in pairs}

    def ping(self) -> None:
        """Returns when a node has answered."""
        self._ask(encode("PING"))

    def version(self) -> str:
        """What the node says of itself: `jobyard 0.1.0 protocol=1`."""
        return self._ask(encode("VERSION")).text

    # --- asking at all -------------------------------------------------------------------------------------------

    def _ask(self, request: bytes, *, repeatable: bool = True, patience_s: float = 0.0) -> Reply:
        """The reply of the first node that gives one; each is tried, and the first once more, for it may be back."""
        for tries_left in reversed(range(len(self._addresses) + 1)):
            connection = self._connected()
            try:
                reply = connection.request(request, patience_s)
            except OSError as error:
                self._pass_over()
                lost = _lost(connection.address, error, repeatable)
                if not repeatable:
                    raise lost from error
                continue
            except BaseException:
                self.close()  # a reply is owed on it that nobody will read
                raise
            if reply.error is None:
                return reply
            if not isinstance(reply.error, _TRY_NEXT) or not tries_left:
                raise reply.error
            lost = reply.error
            self._pass_over()
        raise lost

    def _connected(self) -> Connection:
        """The connection in use, or a new one to the first node that takes it. Raises Unreachable, Unauthorized."""
        if self._connection is not None and self._connection.is_stale():
            self.close()  # its node stopped or started anew while we were silent
        failures = []
        for _ in self._addresses if self._connection is None else ():
            try:
                self._connection = self._dial(self._addresses[self._at])
                break
            except (OSError, *_TRY_NEXT) as error:
                failures.append(f"{self._addresses[self._at]} ({error})")
                self._pass_over()
        if self._connection is None:
            raise Unreachable(f"no node can be reached: {', '.join(failures)}. JOBYARD_URL says where nodes are")
        return self._connection

    def _dial(self, address: Address) -> Connection:
        connection = Connection(address, self._timeout_s)
        try:
            if self._token is not None and (error := connection.request(encode("AUTH", self._token)).error):
                raise error
        except BaseException:
            connection.close()
            raise
        return connection

    def _pass_over(self) -> None:
        """Hangs up, and looks to the next address."""
        self.close()
        self._at = (self._at + 1) % len(self._addresses)


def _lost(address: Address, error: OSError, repeatable: bool) -> JobyardError:
    if repeatable:
        return Unreachable(f"the connection to {address} was lost before it answered ({error}); no other node answered")
    message = f"the connection to {address} was lost before it answered ({error}): the job may have been taken or not."
    return Unconfirmed(f"{message} Give it a key (key=) to make sending it again safe")


def _token_of_environment() -> str | None:
    token = os.environ.get("JOBYARD_CLIENT_TOKEN")
    path = os.environ.get("JOBYARD_CLIENT_TOKEN_FILE")
    if token is None and path:
        token = Path(path).read_text(encoding="utf-8").strip()
    return token or None
