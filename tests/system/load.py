"""Clients that keep submitting and reading while the cluster dies around them, and the checker of what they were told.

    Load      threads that submit jobs and read results; remembers every `OK` and the first reading of every result
    audit     waits for every acknowledged job at another node than its origin, and counts what was not kept

Each job tells its number to a journal file when it begins (`<ticket> <attempt> <pid> <number>`, appended in one
write), and prints what can be computed from that number, so that the outcome of one job is never taken for another's.
Where jobs have no file in common, there is no journal, and only what clients read is judged.

A submission whose reply never came is in doubt. With a key it is submitted again, anywhere, until its ticket is
known; without one, it is left alone: it may run or not, and nothing was promised.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tests.system.client import Line, Reply

PAUSE_S: Final = 0.01  # between two requests of a client: enough load, and two cores can still breathe
LATER: Final = frozenset({"UNAVAILABLE", "FULL", "DRAINING"})  # errors that promise nothing and ask to come again
WAITS_AT_ONCE: Final = 200


class Nodes(Protocol):
    """What is needed of a cluster: its nodes by name, and where they serve clients."""

    @property
    def node_names(self) -> tuple[str, ...]: ...

    def address(self, name: str) -> str: ...


@dataclass(frozen=True)
class Job:
    """A submission: its request line without SUBMIT, what it prints, and its key, if it has one."""

    number: int
    line: str
    prints: bytes
    key: str | None
    body: bytes | None = None


@dataclass
class Told:
    """What clients were told. `tickets` and `origins` grow only; a job in doubt has neither."""

    jobs: dict[str, Job] = field(default_factory=dict)  # by ticket
    origins: dict[str, str] = field(default_factory=dict)  # ticket → the node that said OK
    results: dict[str, Reply] = field(default_factory=dict)  # ticket → as it was read first
    in_doubt: int = 0
    submitted: int = 0
    broken: list[str] = field(default_factory=list)  # promises, in words


class Load:
    """`submitters` clients that submit and one that reads, at nodes chosen at random, until `stop`."""

    def __init__(self, cluster: Nodes, journal: Path | None, seed: int, *, submitters: int = 2) -> None:
        self.told = Told()
        self.journal = journal
        self._cluster = cluster
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._submit_all, args=(random.Random(f"{seed} submitter {number}"),))
            for number in range(submitters)
        ] + [threading.Thread(target=self._read_all, args=(random.Random(f"{seed} reader"),))]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    # --- submitting --------------------------------------------------------------------------------------------

    def _submit_all(self, chance: random.Random) -> None:
        with _Anywhere(self._cluster, chance) as client:
            while not self._over.is_set():
                self._submit(client, self._next_job(chance))

    def _next_job(self, chance: random.Random) -> Job:
        with self._lock:
            self.told.submitted += 1
            number = self.told.submitted
        key = f"key-{number}" if chance.random() < 0.4 else None
        options = "crash_limit=off" + (f" key={key}" if key else "")
        told = f'echo "$JOBYARD_TICKET $JOBYARD_ATTEMPT $$ {number}" >>{self.journal or "/dev/null"}'
        match chance.randrange(4):
            case 0:
                return Job(number, f"{options} sleep {chance.randrange(5, 300)}ms", b"", key)
            case 1:
                return Job(number, f"{options} sh {told}; sleep 0.{chance.randrange(1, 4)}; echo $(({number} * 7 + 1))",
                           b"%d\n" % (number * 7 + 1), key)  # fmt: skip
            case 2:
                body = b"job number %d" % number
                return Job(number, f"{options} bytes={len(body)} sh {told}; tr a-z A-Z", body.upper(), key, body)
            case _:
                return Job(number, f"{options} sh {told}; echo $(({number} * 7 + 1))", b"%d\n" % (number * 7 + 1), key)

    def _submit(self, client: "_Anywhere", job: Job) -> None:
        """Until the job is acknowledged; one without a key, only until its fate is in doubt."""
        doubtful = False
        while not self._over.is_set() or doubtful:
            time.sleep(PAUSE_S)
            reply = client.ask(f"submit {job.line}", job.body)
            if reply is None:
                if client.sent and job.key is None:
                    self.told.in_doubt += 1
                    return
                doubtful = doubtful or client.sent
            elif reply.ok:
                self._acknowledged(job, reply.ticket, client.node)
                return
            elif reply.code not in LATER:
                self.told.broken.append(f"submit {job.line}: {reply.line}")
                return

    def _acknowledged(self, job: Job, ticket: str, origin: str) -> None:
        with self._lock:
            known = self.told.jobs.setdefault(ticket, job)
            self.told.origins.setdefault(ticket, origin)
        if known is not job:
            self.told.broken.append(f"{ticket} was issued for job {known.number} and for job {job.number}")

    # --- reading -----------------------------------------------------------------------------------------------

    def _read_all(self, chance: random.Random) -> None:
        with _Anywhere(self._cluster, chance) as client:
            while not self._over.is_set():
                time.sleep(PAUSE_S)
                with self._lock:
                    tickets = list(self.told.jobs)
                if tickets:
                    ticket = chance.choice(tickets)
                    note(self.told, ticket, client.ask(f"result {ticket}"))


def note(told: Told, ticket: str, reply: Reply | None) -> None:
    """A reading of a result: it is as it was, or it is the first."""
    if reply is None or reply.pending or reply.code in LATER:
        return
    if reply.code:
        told.broken.append(f"result {ticket}: {reply.line}")
        return
    first = told.results.setdefault(ticket, reply)
    if first != reply:
        told.broken.append(f"{ticket} was read as {first}, and later as {reply}")


class _Anywhere:
    """A client that talks to one node until that breaks, and then to another."""

    def __init__(self, cluster: Nodes, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._line: Line | None = None
        self._left = 0  # requests until it looks for another node
        self.node = ""
        self.sent = False  # whether a node may have got the last request

    def __enter__(self) -> "_Anywhere":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def ask(self, line: str, body: bytes | None = None) -> Reply | None:
        """The reply; None where there was no node, or it went away."""
        self.sent = False
        try:
            client = self._connected()
            self.sent = True
            return client.ask(line, body)
        except OSError:
            self._leave()
            return None

    def _connected(self) -> Line:
        if self._left <= 0:
            self._leave()
        self._left -= 1
        if self._line is None:
            self.node, self._left = self._chance.choice(self._cluster.node_names), self._chance.randrange(1, 40)
            self._line = Line(self._cluster.address(self.node))
        return self._line

    def _leave(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


# --- afterwards ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What an audit found. All but the last three have to be empty."""

    lost: list[str]
    wrong: list[str]
    duplicated: list[str]  # keys or attempts
    broken: list[str]
    acknowledged: int
    run_again: int  # jobs of which more than one attempt began: allowed when a node was killed, and worth knowing
    in_doubt: int

    @property
    def not_kept(self) -> list[str]:
        """Everything that was promised and not kept."""
        return [*self.lost, *self.wrong, *self.duplicated, *self.broken]

    def __str__(self) -> str:
        return f"{self.acknowledged} acknowledged, {self.in_doubt} in doubt, {self.run_again} run more than once"


def audit(cluster: Nodes, load: Load, *, within_s: float) -> Verdict:
    """Reads every acknowledged job to its end at a node that is not its origin, then once more at the origin."""
    told = load.told
    ends_at = time.monotonic() + within_s
    for foreign in (True, False):
        for node in cluster.node_names:
            tickets = [ticket for ticket, origin in told.origins.items() if (origin == node) is not foreign]
            _read_ends(cluster.address(node), told, tickets, ends_at)
    begun = [line.split() for line in load.journal.read_text().splitlines()] if load.journal else []
    return Verdict(
        lost=[f"{ticket}, from {told.origins[ticket]}" for ticket in told.jobs if ticket not in told.results],
        wrong=[_what_is_wrong(told, ticket) for ticket in told.results if _what_is_wrong(told, ticket)],
        duplicated=[*_duplicated_attempts(begun), *_duplicated_jobs(told, begun)],
        broken=told.broken,
        acknowledged=len(told.jobs),
        run_again=sum(len(attempts) > 1 for attempts in _by(begun, 0, 1).values()),
        in_doubt=told.in_doubt,
    )


def _read_ends(address: str, told: Told, tickets: Sequence[str], ends_at: float) -> None:
    with Line(address, timeout_s=60) as client:
        for start in range(0, len(tickets), WAITS_AT_ONCE):
            some = tickets[start : start + WAITS_AT_ONCE]
            left_s = max(0.0, ends_at - time.monotonic())
            client.send("".join(f"wait timeout={left_s:.3f}s {ticket}\n" for ticket in some).encode())
            for ticket in some:
                note(told, ticket, client.reply())


def _what_is_wrong(told: Told, ticket: str) -> str:
    job, reply = told.jobs[ticket], told.results[ticket]
    if reply.field("state") == "succeeded" and reply.field("exit") == "0" and reply.body == job.prints:
        return ""
    return f"{job} should print {job.prints!r}: {reply}"


def _duplicated_attempts(begun: Sequence[Sequence[str]]) -> list[str]:
    counts = Counter((ticket, attempt) for ticket, attempt, _, _ in begun)
    return [
        f"attempt {ticket}.{attempt} began {count} times" for (ticket, attempt), count in counts.items() if count > 1
    ]


def _duplicated_jobs(told: Told, begun: Sequence[Sequence[str]]) -> Iterator[str]:
    """A submission that was acknowledged, however often it was sent, is one job: under one ticket it is read, and
    under one ticket it ran."""
    ran_as = _by(begun, 3, 0)
    read_as: defaultdict[int, set[str]] = defaultdict(set)
    for ticket, reply in told.results.items():
        read_as[told.jobs[ticket].number].add(reply.ticket)
    for number, tickets in read_as.items():
        if len(tickets | ran_as.get(str(number), set())) != 1:
            yield f"job {number} is read as {tickets} and ran as {ran_as.get(str(number))}"


def _by(rows: Sequence[Sequence[str]], of: int, what: int) -> dict[str, set[str]]:
    grouped: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        grouped[row[of]].add(row[what])
    return grouped
