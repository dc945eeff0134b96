"""map_reduce: which jobs it comes to, what is asked of the cluster one step after another, and what it all came to.

    items ─ chunks ──► map jobs ──► [gathering jobs, where there are more than a job may read] ──► reduce jobs ──► value

All are jobs of the kind `call` in a group of their own. What a map returns is read by the reduces as their standard
input (the option `input`), in the order of the items, and never travels through the client. All are submitted at once:
from then on the cluster needs us no more, and under a `key` another process can take the same up again.

Rules: each job has a key, so that nothing is submitted twice, however often connections are lost. What is pickled twice
need not be the same bytes (sets, classes of `__main__`); therefore whoever takes a key up looks first which of its jobs
there are, and submits the others only. The first that fails for a reason of its own is what the whole ends with.

Nothing here waits: `Steps` are questions for a client, which `reducing.py` asks of the blocking one, and
`aio/reducing.py` of the other.
"""

import functools
import itertools
import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from operator import methodcaller as ask
from typing import Any, Final, TypeAlias, TypeVar

from jobyard import travelling
from jobyard.errors import Conflict, Expired, JobFailed, JobyardError, NotAllSubmitted, Unavailable, UnknownTicket
from jobyard.futures.pickles import call_bytes, exception_of, name_of, value_of
from jobyard.graphs import INPUTS_MAX, in_groups
from jobyard.model import CallOptions, Job, Outcome, Status, Ticket, Watched

CHUNKS: Final = 256  # map jobs, at most, unless a chunk size is given: enough for all slots to be busy to the end
LISTED_MAX: Final = 10_000  # the most that a node lists
PIECE_S: Final = 5.0  # one question about the group
GLANCE_S: Final = 0.2
CANCELS_MAX: Final = 5  # for jobs that were just being submitted to be known
RANDOM_BYTES: Final = 12

T = TypeVar("T")
Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
Step: TypeAlias = Callable[[Any], Any]  # of a client: asks it for something; what an async one gives is to be awaited
Steps: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True)
class Work:
    """What is to be done: a call for each chunk of the items, and for each reducer, given how many chunks there are."""

    kind: str  # `list` or `keys`: what the reduces get
    name: str  # of the function that people know
    maps: Sequence[Call]
    reduces: Sequence[Callable[..., Any]]
    reduce_name: str


def work_of(
    map_fn: Callable[[Any], Any], reduce_fn: Callable[[list[Any]], Any], items: Iterable[Any], chunk_size: int | None
) -> Work:
    maps = [(travelling.mapped, (map_fn, chunk)) for chunk in chunks_of(items, chunk_size)]
    return Work("list", name_of(map_fn), maps, [functools.partial(travelling.reduced, reduce_fn)], name_of(reduce_fn))


def work_by_key_of(
    map_fn: Callable[[Any], Iterable[tuple[Any, Any]]],
    reduce_fn: Callable[[Any, list[Any]], Any],
    items: Iterable[Any],
    chunk_size: int | None,
    reducers: int,
) -> Work:
    if not 1 <= reducers <= INPUTS_MAX:
        raise ValueError(f"reducers={reducers}: there may be 1 to {INPUTS_MAX}")
    maps = [(travelling.mapped_by_key, (map_fn, reducers, chunk)) for chunk in chunks_of(items, chunk_size)]
    reduce = functools.partial(travelling.reduced_by_key, reduce_fn)
    reduces = [functools.partial(reduce, place, reducers) for place in range(reducers)]
    return Work("keys", name_of(map_fn), maps, reduces, name_of(reduce_fn))


def chunks_of(items: Iterable[Any], size: int | None) -> list[list[Any]]:
    """Without a size: CHUNKS at most, all but the last of the same length."""
    every = list(items)
    if size is None:
        size = max(1, -(-len(every) // CHUNKS))
    if size < 1:
        raise ValueError(f"chunk_size={size}: a chunk has one item at least")
    return [every[at : at + size] for at in range(0, len(every), size)]


# --- the steps ---------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One map_reduce on its way. `key` is what others know it by; without one it is nobody's but ours."""

    work: Work
    key: str | None
    group: str | None
    options: CallOptions
    _known: dict[str, Ticket] = field(default_factory=dict)  # by key
    _cursor: str | None = None

    def __post_init__(self) -> None:
        self._name = self.key or secrets.token_hex(RANDOM_BYTES)
        self._group = self.group or f"mapreduce-{self._name}"

    def steps(self) -> Steps[list[Any]]:
        """The values of the reduces. Raises what the first call that failed raised, or JobFailed."""
        try:
            if self.key is not None:
                yield from self._look()
            reduces = yield from self._submit()
            failed = yield from self._wait(reduces)
        except BaseException:
            if self.key is None:  # nobody could take it up again
                yield from self._cancel()
            raise
        if failed is not None:
            yield from self._cancel()
            raise (yield from self._error(failed))
        outcomes: list[Outcome] = []
        for ticket in reduces:
            outcomes.append((yield ask("wait", ticket)))
        return [value_of(outcome) for outcome in outcomes]

    def _look(self) -> Steps[None]:
        """Which jobs of this key there are already. Raises Conflict where they are of something else."""
        listed: Sequence[Status] = yield ask("list", group=self._group, limit=LISTED_MAX)
        self._known |= {status.key: status.ticket for status in listed if status.key is not None}
        ours = {key for level in self._levels() for key in level}
        for key in self._known:
            if key.startswith(f"{self._name}.") and key not in ours:
                raise Conflict(
                    f"the key {self.key!r} belongs to a map_reduce of other sizes or another kind (job {key!r});"
                    " take the items, chunk_size and reducers of the first call, or another key"
                )

    def _levels(self) -> list[list[str]]:
        """The keys of all jobs, level by level. Kind and sizes are in them, so that another work has others."""
        maps, reduces = len(self.work.maps), len(self.work.reduces)
        levels, count = [self._keys("map", maps)], maps
        while count > INPUTS_MAX:
            count = len(in_groups([Ticket()] * count))
            levels.append(self._keys(f"gather{len(levels)}", count))
        return [*levels, self._keys("reduce", reduces)]

    def _keys(self, what: str, count: int) -> list[str]:
        shape = f"{self.work.kind}-{len(self.work.maps)}-{len(self.work.reduces)}"
        return [f"{self._name}.{shape}.{what}.{number}" for number in range(1, count + 1)]

    def _submit(self) -> Steps[Sequence[Ticket]]:
        """All jobs; the tickets of the reduces."""
        maps, *gathers, reduces = self._levels()
        work = self.work
        tickets = yield from self._level(maps, work.name, work.maps, ())
        held = [1] * len(tickets)  # chunks in each
        for keys in gathers:
            groups = in_groups(tickets)
            numbers = iter(held)
            held = [sum(itertools.islice(numbers, len(group))) for group in groups]
            calls = [(travelling.gathered, (count,)) for count in held]
            tickets = yield from self._level(keys, "gather", calls, groups)
        calls = [(reduce, (len(maps),)) for reduce in work.reduces]
        return (yield from self._level(reduces, work.reduce_name, calls, [tickets] * len(reduces)))

    def _level(
        self, keys: Sequence[str], name: str, calls: Sequence[Call], inputs: Sequence[Sequence[Ticket]]
    ) -> Steps[Sequence[Ticket]]:
        """The tickets of these calls; those that nobody has submitted are."""

        def job(place: int) -> Job:
            function, args = calls[place]
            body, read = call_bytes(function, args, {}), inputs[place] if inputs else None
            return Job("call", name, body=body, input=read, key=keys[place], group=self._group, **self.options)

        for is_last in (self.key is None, True):
            places = [place for place, key in enumerate(keys) if key not in self._known]
            try:
                tickets = yield ask("submit_many", map(job, places))
            except NotAllSubmitted as error:
                self._keep(keys, places, error.tickets)
                if is_last or not isinstance(error.__cause__, Conflict):
                    raise
                yield from self._look()  # somebody takes up the same at this moment
            else:
                self._keep(keys, places, tickets)
                break
        return [self._known[key] for key in keys]

    def _keep(self, keys: Sequence[str], places: Sequence[int], tickets: Sequence[Ticket | None]) -> None:
        taken = zip(places, tickets, strict=False)
        self._known |= {keys[place]: ticket for place, ticket in taken if ticket is not None}

    # --- what becomes of them ------------------------------------------------------------------------------------

    def _wait(self, reduces: Sequence[Ticket]) -> Steps[Status | None]:
        """Returns when all reduces have succeeded, with None, or with the first job that ended otherwise: rather one
        that failed by itself than one that only waited for it."""
        left, names = set(reduces), set(self._known.values())
        behind: Status | None = None
        while left:
            watched = yield from self._watch(PIECE_S)
            told: Sequence[Status] = watched.ended
            if not told and not watched.live:  # they are in no group any more, or have another name
                told = yield from self._each(left)
            for status in told:
                if status.ticket in left and status.state == "succeeded":
                    left.discard(status.ticket)
                elif status.ticket in names and status.state != "succeeded":
                    if status.reason != "dependency":
                        return status
                    behind = behind or status
            if behind is not None and not watched.live:
                return behind
        return None

    def _watch(self, patience_s: float) -> Steps[Watched]:
        try:
            watched: Watched = yield ask("watch", group=self._group, since=self._cursor, timeout_s=patience_s)
        except Unavailable:
            return Watched((), 1, self._cursor or "")  # the balancer is away; nodes go on, and so do we
        self._cursor = watched.cursor
        return watched

    def _each(self, tickets: Iterable[Ticket]) -> Steps[list[Status]]:
        """Where they stand, of those that have ended. Raises UnknownTicket or Expired."""
        told = []
        for ticket in sorted(tickets):
            try:
                status: Status = yield ask("status", ticket)
            except Unavailable:
                continue
            if status.ended:
                told.append(_under(ticket, status))
        return told

    def _cancel(self) -> Steps[None]:
        """All that lives; again for what had not yet arrived when the cluster was asked."""
        for _ in range(CANCELS_MAX):
            try:
                yield ask("cancel_group", self._group)
                watched = yield from self._watch(GLANCE_S)
            except JobyardError:
                return  # the cluster is out of reach; there is something worse to tell
            if not watched.live:
                return

    def _error(self, failed: Status) -> Steps[BaseException]:
        outcome: Outcome = yield ask("wait", failed.ticket)
        if failed.reason != "dependency":
            return exception_of(outcome)
        try:
            explained = yield ask("explain", failed.ticket)
        except (Unavailable, UnknownTicket, Expired):
            return JobFailed(outcome)
        return JobFailed(outcome, explained.in_one_line)


def _under(ticket: Ticket, status: Status) -> Status:
    return Status(ticket, status.state, status.attempt, reason=status.reason, fields=status.fields)
