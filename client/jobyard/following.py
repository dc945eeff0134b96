"""What follows one request for as long as somebody listens: the output of a job, the events of a cluster.

    request() ──► node ──► replies, one after another ──► take(reply) ──► what is new
        ▲                                  │
        └────────── lost(), ask again ─────┘   at any node: nothing is told twice, and nothing is left out

Pure: the caller dials, sends, receives and waits.
"""

from typing import Final, Generic, TypeVar

from jobyard.addresses import Address
from jobyard.decoding import events_of, logs_of
from jobyard.errors import Unreachable
from jobyard.model import Event, Logs
from jobyard.protocol import Reply, encode

T = TypeVar("T")

EVENTS_LOST: Final = "events.lost"  # our own event: what came next is no longer kept


class Following(Generic[T]):
    """Where a stream of replies stands. `tries_max` connections may be lost one after another without a reply."""

    def __init__(self, tries_max: int) -> None:
        self.done = False
        self._tries_max = tries_max
        self._losses = 0

    def request(self) -> bytes:
        """What is to be sent on a new connection."""
        raise NotImplementedError

    def take(self, reply: Reply) -> list[T]:
        """What is new in a reply. Raises what an ERR stands for."""
        if (error := reply.error) is not None:
            raise error
        self._losses = 0
        return self._new(reply)

    def _new(self, reply: Reply) -> list[T]:
        raise NotImplementedError

    def lost(self, address: Address, error: Exception) -> None:
        """A connection is gone, or its node takes nothing. Raises Unreachable when that went on for long enough."""
        self._losses += 1
        if self._losses >= self._tries_max:
            raise Unreachable(f"the connection to {address} was lost ({error}); no other node answered") from error


class LogsFollowing(Following[Logs]):
    """What a job prints. A node that is asked anew tells all that the attempt has printed: as many bytes as we have
    seen are dropped. A new attempt begins anew; an older one, of a node that is behind, is not told again."""

    def __init__(self, ticket: str, tries_max: int) -> None:
        super().__init__(tries_max)
        self._ticket = ticket
        self._attempt = 0
        self._seen_bytes = [0, 0]  # of this attempt, on standard output and error
        self._skip_bytes = [0, 0]  # of these, what the present connection will tell again
        self._told: tuple[str, int] | None = None  # state and attempt

    def request(self) -> bytes:
        self._skip_bytes = list(self._seen_bytes)
        return encode("LOGS", self._ticket, options={"follow": 1})

    def _new(self, reply: Reply) -> list[Logs]:
        logs = logs_of(reply)
        self.done = logs.end
        if logs.attempt < self._attempt and not logs.end:
            return []
        if logs.attempt > self._attempt:
            self._attempt, self._seen_bytes, self._skip_bytes = logs.attempt, [0, 0], [0, 0]
        outdated = logs.attempt < self._attempt
        stdout, stderr = (b"", b"") if outdated else (self._unseen(0, logs.stdout), self._unseen(1, logs.stderr))
        stands = logs.state, logs.attempt
        if stands == self._told and not (stdout or stderr or logs.end):
            return []
        self._told = stands
        return [Logs(logs.ticket, logs.state, logs.attempt, stdout, stderr, logs.end)]

    def _unseen(self, stream: int, data: bytes) -> bytes:
        skipped = min(self._skip_bytes[stream], len(data))
        self._skip_bytes[stream] -= skipped
        self._seen_bytes[stream] += len(data) - skipped
        return data[skipped:]


class EventsFollowing(Following[Event]):
    """What happens in a cluster, behind a cursor. Where a part of it is no longer kept, `events.lost` stands for it."""

    def __init__(self, since: str | None, tries_max: int) -> None:
        super().__init__(tries_max)
        self._cursor = since

    def request(self) -> bytes:
        return encode("EVENTS", options={"follow": 1, "since": self._cursor})

    def _new(self, reply: Reply) -> list[Event]:
        part = events_of(reply)
        self._cursor = part.cursor
        return [*([{"event": EVENTS_LOST}] if part.lost else ()), *part.events]
