"""Looking at a cluster again and again: its numbers, its nodes, how fast jobs come and go, and which have failed.

    addresses ──► Lookout.look() ──► Sight      the first node with a link to the balancer tells of the whole cluster

Rules: a look costs the cluster four small answers, however many jobs it has; events are read only where the number of
failures has changed. A node that is gone, or has no balancer, is passed over for the next address; where none is left
the look raises, and the next one begins anew.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from jobyard.addresses import Address
from jobyard.client import Client
from jobyard.errors import TRY_NEXT, Expired, JobyardError, Unavailable, UnknownTicket, Unreachable
from jobyard.model import Event, Node, Status
from jobyard.settings import route_of

ANSWER_S_MAX: Final = 7.0  # a node says within 5 s that its balancer does not answer
RATE_WINDOW_S: Final = 10.0
FAILURES_KEPT: Final = 50
NAMES_PER_LOOK_MAX: Final = 10  # failures of one look that are asked after; of others the name is not shown
EVENT_PAGES_MAX: Final = 5  # 10,000 events each; who is further behind passes over the rest


@dataclass(frozen=True)
class Failure:
    """A job that has failed. `at` is when, in UTC as the ledger said it; of one from before our first look, unknown."""

    ticket: str
    reason: str = ""
    exit: str = ""
    node: str = ""
    name: str = ""
    at: str = ""


@dataclass(frozen=True)
class Sight:
    """What one look saw. Rates are jobs a second over the latest looks; None while there was only one."""

    address: str  # of the node that told it
    at_wall: float
    stats: Mapping[str, str]
    nodes: tuple[Node, ...]
    failures: tuple[Failure, ...] = ()  # the latest first
    in_per_s: float | None = None
    out_per_s: float | None = None

    def number(self, name: str) -> float:
        """One of STATS; 0 where the cluster does not tell it."""
        try:
            return float(self.stats.get(name, "0"))
        except ValueError:
            return 0.0

    @property
    def live(self) -> int:
        return int(self.number("jobs_live"))

    @property
    def running(self) -> int:
        return sum(node.running for node in self.nodes)

    @property
    def waiting(self) -> int:
        return sum(node.waiting for node in self.nodes)

    @property
    def queued(self) -> int:
        """Those that wait for a node."""
        return int(self.number("jobs_queued"))

    @property
    def resting(self) -> int:
        """All others that live: delayed, blocked, or to be tried again. What was counted a moment apart may differ."""
        return max(0, self.live - int(self.number("jobs_leased")) - self.queued)

    @property
    def oldest_queued_s(self) -> float:
        return self.number("oldest_queued_s")


class Rates:
    """How many jobs came and ended a second, by the differences of what STATS told."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()  # moment, jobs that had come, jobs that had ended

    def take(self, at: float, live: int, ended: int) -> tuple[float | None, float | None]:
        """`at` is monotonic. A balancer that has started again counts ends from 0, and so do we."""
        if self._seen and ended < self._seen[-1][2]:
            self._seen.clear()
        self._seen.append((at, live + ended, ended))
        while len(self._seen) > 2 and at - self._seen[1][0] >= RATE_WINDOW_S:
            self._seen.popleft()
        before_at, come, gone = self._seen[0]
        if at <= before_at:
            return None, None
        took_s = at - before_at
        return max(0.0, (live + ended - come) / took_s), (ended - gone) / took_s


class Failures:
    """The latest jobs that failed, as events tell; of those before our first look, as LIST does."""

    def __init__(self) -> None:
        self.latest: tuple[Failure, ...] = ()
        self._cursor: str | None = None  # behind it is all that happened after the look before
        self._total: int | None = None
        self._seq = 0

    def take(self, client: Client, cursor: str, total: int) -> None:
        """`cursor` was asked for before `total`, the number of all failures, so no failure falls between the two."""
        if self._cursor is None:
            self.latest = tuple(map(_listed, client.list(state="failed", limit=FAILURES_KEPT)))
        elif total != self._total:
            self._read(client, self._cursor)
        self._cursor, self._total = cursor, total

    def _read(self, client: Client, cursor: str) -> None:
        found: list[Event] = []
        for _ in range(EVENT_PAGES_MAX):
            part = client.events(cursor)
            found += (each for each in part.events if each.get("event") == "job.failed" and self._is_new(each))
            if not part.events:
                break
            cursor = part.cursor
        new = [_told(event) for event in found[-FAILURES_KEPT:]]
        new[-NAMES_PER_LOOK_MAX:] = [_named(client, each) for each in new[-NAMES_PER_LOOK_MAX:]]
        tickets = {each.ticket for each in new}
        self.latest = (*reversed(new), *(old for old in self.latest if old.ticket not in tickets))[:FAILURES_KEPT]

    def _is_new(self, event: Event) -> bool:
        seq = event.get("seq", 0)
        new = isinstance(seq, int) and seq > self._seq
        self._seq = seq if new else self._seq
        return new


def _told(event: Event) -> Failure:
    ticket, reason, code, node, at = (str(event.get(name, "")) for name in ("ticket", "reason", "exit", "node", "at"))
    return Failure(ticket, reason, code, node, at=at)


def _listed(status: Status) -> Failure:
    code = status.fields.get("exit", "")
    return Failure(status.ticket, status.reason or "", code, status.node or "", status.name or "")


def _named(client: Client, failure: Failure) -> Failure:
    """Events do not tell what a job is called."""
    try:
        name = client.status(failure.ticket).name or ""
    except (UnknownTicket, Expired):
        name = ""
    return Failure(failure.ticket, failure.reason, failure.exit, failure.node, name, failure.at)


class Lookout:
    """The addresses of JOBYARD_URL, and whom of them we look through."""

    def __init__(self, url: str | None) -> None:
        self._addresses = route_of(url).addresses
        self._clients: dict[Address, Client] = {}
        self._at = 0
        self._rates = Rates()
        self._failures = Failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for client in list(self._clients.values()):  # a thread that looks may add one
            client.close()

    def look(self) -> Sight:
        """Raises what the node said that was asked last, or that none could be reached."""
        failures: list[JobyardError] = []
        for _ in self._addresses:
            address = self._addresses[self._at]
            try:
                return self._look(address)
            except (Unreachable, Unavailable, *TRY_NEXT) as error:
                failures.append(error)
                self._at = (self._at + 1) % len(self._addresses)
        raise _worst(failures)

    def _look(self, address: Address) -> Sight:
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = Client(url_of(address), timeout_s=ANSWER_S_MAX)
        if client.stats(local=True).get("linked") == "0":
            raise Unavailable(f"the node at {address} has no link to the balancer")
        cursor = client.events("now").cursor
        stats, at = client.stats(), time.monotonic()
        nodes = client.nodes()
        sight = Sight(str(address), time.time(), stats, nodes)
        self._failures.take(client, cursor, int(sight.number("jobs_failed_total")))
        ended = sum(int(sight.number(f"jobs_{state}_total")) for state in ("succeeded", "failed", "cancelled"))
        rates = self._rates.take(at, sight.live, ended)
        return Sight(str(address), sight.at_wall, stats, nodes, self._failures.latest, *rates)


def _worst(failures: list[JobyardError]) -> JobyardError:
    """What is to be said where no address helps: a node that answers tells more than one that does not."""
    told = next((error for error in failures if not isinstance(error, Unreachable)), None)
    if told is not None or len(failures) == 1:
        return told or failures[0]
    return Unreachable(f"none of the {len(failures)} nodes in JOBYARD_URL can be reached; {failures[-1].message}")


def url_of(address: Address) -> str:
    return f"{'tls' if address.tls else 'tcp'}://{address}"
