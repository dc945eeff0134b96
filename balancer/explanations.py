"""Why a job is where it is: the code that STATUS, LIST and EXPLAIN show, and the page for people.

A queued job is told by what its prospects are: each node that is connected fails at one of these, or at none, and the
node that comes furthest says why the job waits.

    allows the kind ─► has the slots ─► takes jobs ─► has room ─► the next round hands it out

The rules are those of the rounds, and what a code means is said in `common/why.py`. Pure; nothing here changes
anything.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Final

import attrs

from balancer.arrays import Array
from balancer.books import Books, Found
from balancer.placement import InForce
from balancer.queue import Needs
from balancer.records import Entry
from balancer.roster import Node
from balancer.rounds import can_run, kept_from, room_bytes
from common.durations import format_duration
from common.limits import EXPLAIN_LOOKED_AT_MAX
from common.model import State, array_of, index_of
from common.status import explain_ended, explain_reply, moment
from common.why import BY_STATE, Row, Why, page

_NAMED_MAX: Final = 10  # nodes, or jobs that are waited for; of the others it is said how many there are
_STAGES: Final = (Why.KIND_NOT_ALLOWED, Why.TOO_WIDE, Why.DRAINING, Why.NO_FREE_SLOT, Why.NEXT_ROUND)
_BEHIND_ALL: Final = (1_000_000, 0)  # a place
_HELD: Final = frozenset({State.BLOCKED, State.SCHEDULED})


@attrs.frozen
class _Ahead:
    """How many jobs go first. Where that is not `exact` an array is one of them, and some may have been cancelled."""

    count: int
    exact: bool

    def __str__(self) -> str:
        if not self.exact:
            return f"behind about {self.count} queued jobs and arrays"
        return f"behind {_count(self.count, 'queued job')}" if self.count else "the first in the queue"


@attrs.frozen
class Rules:
    """The settings by which jobs are handed out. Seconds."""

    eager: bool
    round_s: float
    jobs_per_round_max: int
    node_timeout_s: float
    nodes_max: int


class Reasons:
    """Why live jobs are where they are. Good for one answer: what is found out of a kind and a width is kept."""

    def __init__(self, books: Books, in_force: InForce) -> None:
        self._books = books
        self._in_force = in_force
        self._prospects: dict[Needs, tuple[Why, float]] = {}

    def of(self, entry: Entry) -> Why:
        if entry.state in BY_STATE:
            return BY_STATE[entry.state]
        if (parent := self._books.ledger.live(array_of(entry.ticket))) is not None and parent.state in _HELD:
            return BY_STATE[parent.state]  # an element that was retried alone waits with its array
        array = self._books.ledger.elements.array(entry.ticket)
        if array is not None and not _may_begin_more(array):
            return Why.ARRAY_LIMIT
        needs = (entry.record.kind, entry.record.slots)
        if needs not in self._prospects:
            self._prospects[needs] = self._prospect(needs)
        why, room = self._prospects[needs]
        return Why.NO_FREE_SLOT if why is Why.NEXT_ROUND and entry.record.bytes > room else why

    def _prospect(self, needs: Needs) -> tuple[Why, float]:
        """How far the jobs with these needs come, and what one may weigh that comes all the way."""
        nodes = _here(self._books)
        queue = self._books.ledger.queue
        place = next((head for head, line in queue.heads() if line == needs), _BEHIND_ALL)
        kept = kept_from(place, queue.heads(), self._books.roster, self._in_force)
        obstacles = [obstacle(node, needs, 0, self._in_force, kept) for node in nodes]
        why = max(obstacles, key=_STAGES.index, default=Why.NO_NODE)
        with_room = (node for node, obstacle in zip(nodes, obstacles, strict=True) if obstacle is Why.NEXT_ROUND)
        return why, max((room_bytes(node) for node in with_room), default=0)


def obstacle(node: Node, needs: Needs, weight_bytes: int, in_force: InForce, kept: Set[str] = frozenset()) -> Why:
    """What keeps a node that is connected from being given a job with these needs; NEXT_ROUND where nothing does."""
    kind, slots = needs
    if kind not in node.record.kinds:
        return Why.KIND_NOT_ALLOWED
    if not can_run(node, kind, slots):
        return Why.TOO_WIDE
    if not node.takes_jobs:
        return Why.DRAINING
    has_room = node.id not in kept and in_force.placement.room(node.load, slots, in_force.terms)
    return Why.NEXT_ROUND if has_room and weight_bytes <= room_bytes(node) else Why.NO_FREE_SLOT


def _here(books: Books) -> list[Node]:
    return [node for node in books.roster.connected() if node.ready]


class Explanations:
    """Answers EXPLAIN."""

    def __init__(self, books: Books, rules: Rules, in_force: InForce) -> None:
        self._books = books
        self._rules = rules
        self._in_force = in_force

    def reasons(self) -> Reasons:
        return Reasons(self._books, self._in_force)

    def reply(self, found: Found, now: float) -> bytes:
        """The reply to EXPLAIN of a job that the ledger has, and that has not expired."""
        if found.entry is not None:
            return self._of_live(found.entry, now)
        assert found.ended is not None, f"{found.ticket} has expired and is to be explained"
        return explain_ended(found.ticket, found.ended)

    def of_expected(self, ticket: str) -> bytes:
        """The reply for a job that its origin has, and the ledger has still to learn of."""
        text = page(ticket, State.QUEUED, Why.ON_ITS_WAY)
        return explain_reply(ticket, State.QUEUED, Why.ON_ITS_WAY, text)

    # --- live jobs -----------------------------------------------------------------------------------------------

    def _of_live(self, entry: Entry, now: float) -> bytes:
        why = self.reasons().of(entry)
        rows = [*self._rows(entry, now), ("elements", self._elements(entry)), ("attempts", _attempts(entry))]
        return explain_reply(entry.ticket, entry.state, why, page(entry.ticket, entry.state, why, rows))

    def _rows(self, entry: Entry, now: float) -> list[Row]:
        match entry.state:
            case State.QUEUED:
                return self._queued(entry, now)
            case State.SCHEDULED:
                return [("not before", moment(entry.record.due_wall))]
            case State.RETRYING:
                return [("tried again at", moment(entry.record.due_wall))]
            case State.BLOCKED:
                return [("waits for", self._waited_for(entry.record.waits_for))]
            case _:
                return self._given(entry, now)

    def _queued(self, entry: Entry, now: float) -> list[Row]:
        ahead = self._ahead(entry)
        rows: list[Row] = [("position", str(ahead))]
        if not self._rules.eager:
            rows.append(("rounds", self._rounds(ahead.count)))
        array = self._books.ledger.elements.array(entry.ticket)
        if array is not None and array.indexes.at_once_max is not None:
            under_way = f"{len(array.leased)} under way, of {array.indexes.at_once_max} that may be at once"
            rows.append(("array", under_way))
        rows += [("needs", _needs(entry)), ("placement", self._placement())]
        return [*rows, ("nodes", list(self._nodes(entry, now)))]

    def _placement(self) -> str:
        placement, terms = self._in_force.placement, self._in_force.terms
        if placement.late:
            return f"{placement.name}: a job waits in the queue until a node has a slot for it"
        return f"{placement.name}: jobs wait on the nodes, {terms.backlog_max} on each at most (JOBYARD_BACKLOG_MAX)"

    def _ahead(self, entry: Entry) -> "_Ahead":
        """How many queued jobs go first: those before it in every line from which a node that may run this one is
        fed, too; in all lines where there is no such node. Elements of arrays count one by one, unless there is too
        much to look at."""
        record = entry.record
        ledger = self._books.ledger
        able = [node for node in _here(self._books) if can_run(node, record.kind, record.slots)]
        competing = [needs for needs in ledger.queue.lines() if not able or any(can_run(node, *needs) for node in able)]
        place = (-record.priority, record.sequence)
        if (places := ledger.queue.count_ahead_of(place, competing)) > EXPLAIN_LOOKED_AT_MAX:
            return _Ahead(places, exact=False)
        others = (ledger.all.arrived(sequence) for sequence in set(ledger.queue.ahead_of(place, competing)))
        ahead = sum(_in_line(other) for other in others if other is not None and other.waits_for_a_node)
        array = ledger.elements.array(entry.ticket)
        return _Ahead(ahead if array is None else ahead + _before_in_array(array, entry), exact=True)

    def _rounds(self, ahead: int) -> str:
        most = self._rules.jobs_per_round_max
        number = ahead // most + 1
        return (
            f"every {format_duration(self._rules.round_s)} (DISPATCH_PERIOD), {most} jobs each "
            f"(MAX_NUM_JOBS_DISPATCH): where there is room, it goes out with {_ordinal(number)}"
        )

    def _nodes(self, entry: Entry, now: float) -> Iterator[str]:
        """What keeps each node from being given the job."""
        nodes = sorted(self._books.roster, key=lambda node: (node.link is None, node.record.name))
        if not nodes:
            yield f"none was ever met; {self._rules.nodes_max} may be connected at once (MAX_NUM_NODES)"
        place = (-entry.record.priority, entry.record.sequence)
        kept = kept_from(place, self._books.ledger.queue.heads(), self._books.roster, self._in_force)
        for node in nodes[:_NAMED_MAX]:
            yield f"{node.record.name}: {self._keeps(node, entry, kept, now)}"
        if len(nodes) > _NAMED_MAX:
            yield f"and {len(nodes) - _NAMED_MAX} more"

    def _keeps(self, node: Node, entry: Entry, kept: Set[str], now: float) -> str:
        if node.link is None or not node.ready:
            return f"{'lost' if node.lost else 'not connected'}, last heard {_ago(node, now)} ago"
        record = entry.record
        match obstacle(node, (record.kind, record.slots), record.bytes, self._in_force, kept):
            case Why.KIND_NOT_ALLOWED:
                return f"does not allow {record.kind} (JOBYARD_JOB_KINDS)"
            case Why.TOO_WIDE:
                return f"has {_count(node.record.slots, 'slot')} (JOBYARD_SLOTS), and {record.slots} are needed"
            case Why.DRAINING:
                return "is draining and takes no new jobs (UNDRAIN)"
            case Why.NEXT_ROUND:
                return "has room"
            case _ if node.id in kept and node.load.free > 0:
                return f"{_count(node.load.free, 'free slot')}, kept for a job that goes first and needs more"
            case _:
                return self._busy(node, record.slots)

    def _busy(self, node: Node, slots: int) -> str:
        running = sum(entry.begun for entry in node.leases.values())
        waiting = len(node.leases) - running
        text = f"busy: {running} running on {_count(node.record.slots, 'slot')}, {waiting} waiting there"
        terms = self._in_force.terms
        if self._in_force.placement.late and node.load.free < slots:
            return text
        if node.load.count - node.record.slots >= terms.backlog_max:
            return f"{text} (JOBYARD_BACKLOG_MAX={terms.backlog_max})"
        return f"{text}, which together with this one are more than it may hold in memory"

    def _waited_for(self, tickets: Sequence[str]) -> list[str]:
        named = [f"{ticket} ({self._standing(ticket)})" for ticket in tickets[:_NAMED_MAX]]
        return [*named, f"and {len(tickets) - _NAMED_MAX} more"] if len(tickets) > _NAMED_MAX else named

    def _standing(self, ticket: str) -> str:
        found = self._books.find(ticket)
        if found is None:
            return "not in the ledger yet"
        known = found.entry or found.ended
        return "expired" if known is None else known.state

    def _given(self, entry: Entry, now: float) -> list[Row]:
        node = self._books.runner(entry)
        if node is None:
            return []
        rows: list[Row] = [("node", self._presence(node, now))]
        if entry.state is State.DISPATCHED:
            before = _before_it(node, entry)
            rows.append(("position", f"behind {_count(before, 'job')} waiting there" if before else "the next there"))
        return rows

    def _presence(self, node: Node, now: float) -> str:
        if node.link is not None:
            return f"{node.record.name}, {_count(node.record.slots, 'slot')}"
        return (
            f"{node.record.name}, not connected, last heard {_ago(node, now)} ago: after "
            f"{format_duration(self._rules.node_timeout_s)} (JOBYARD_NODE_TIMEOUT) its jobs are given to others"
        )

    def _elements(self, entry: Entry) -> str:
        return _counted((entry.counts or {}).items())


def _attempts(entry: Entry) -> str:
    record = entry.record
    parts = [str(entry.attempts_begun) if entry.attempts_begun else "none yet"]
    if record.failures:
        last = f", the last with reason={record.last_reason}" if record.last_reason is not None else ""
        parts.append(f"{record.failures} failed{last}")
    if record.crashes:
        limit = "off" if record.crash_limit is None else record.crash_limit
        parts.append(f"{record.crashes} lost with their node (crash_limit={limit})")
    return "; ".join(parts)


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts if count)


def _may_begin_more(array: Array) -> bool:
    return array.indexes.at_once_max is None or len(array.leased) < array.indexes.at_once_max


def _in_line(entry: Entry) -> int:
    """How many jobs go first where this one does: of an array as many elements as may begin."""
    array = entry.array
    if array is None:
        return 1
    waiting = array.counts()[State.QUEUED]
    return waiting if array.indexes.at_once_max is None else min(waiting, array.indexes.at_once_max - len(array.leased))


def _before_in_array(array: Array, entry: Entry) -> int:
    """Elements that wait again go first, by their index, and then those whose turn has not come."""
    index = index_of(entry.ticket)
    assert index is not None, f"{entry.ticket} is no element"
    back = [index_of(other.ticket) or 0 for other in array.live.values() if other.state is State.QUEUED]
    if not array.is_number(entry.ticket):
        return sum(other < index for other in back)
    position = array.indexes.position(index)
    return len(back) + position - array.next - sum(other < position for other in array.ahead)


def _needs(entry: Entry) -> str:
    record = entry.record
    return f"kind {record.kind}, {_count(record.slots, 'slot')}, priority {record.priority}"


def _before_it(node: Node, entry: Entry) -> int:
    """How many attempts wait on the node and begin before this one."""
    return [other for other in node.in_order() if not other.begun].index(entry)


def _ordinal(number: int) -> str:
    return "the next" if number == 1 else f"number {number} from now"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _ago(node: Node, now: float) -> str:
    return format_duration(round(max(0.0, now - node.last_heard), 1))
