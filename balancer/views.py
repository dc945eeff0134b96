"""What the HTTP side of the balancer shows of the books: numbers for metrics, nodes, jobs page by page, one job.

Every answer is JSON, made of the same values as those of STATUS, LIST, NODES and EXPLAIN, and costs little: numbers
are counted already, a page looks at LIST_SCAN_MAX records at most, and of an array it shows one row. What only another
node knows is left to the clerk.

Pages are told from the newest to the oldest, live jobs before ended ones. A cursor names the last that was looked at,
so nothing is missed; a job that ends between two pages may be shown twice, because it has moved.

Pure; nothing here changes anything.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import attrs
import msgspec

from balancer.books import Books, Found
from balancer.explanations import Explanations, Rules
from balancer.listing import Listing, node_fields
from balancer.placement import InForce
from balancer.records import Entry
from balancer.roster import Node
from common.errors import Code, shown
from common.events import StoreLevel
from common.limits import LIST_SCAN_MAX, STORE_FULL_FRACTION
from common.messages import Inquiry
from common.model import Ended, Job, State, index_of, parse_ticket
from common.replies import err, read_reply
from common.status import ended_fields, moment

NODES_MAX: Final = 1000  # shown at once: those heard last
ATTEMPTS_MAX: Final = 100  # shown of one job: the last
LINE_CHARACTERS_MAX: Final = 4096  # of a job's text
_SKIPPED_MAX: Final = 20_000  # places looked at for the oldest job: those in front may have been cancelled
_LOOKED_UP_MAX: Final = 100
_CURSOR: Final = re.compile(r"(?:l(?P<live>[1-9][0-9]{0,17})|e(?P<ended>(?:[0-9a-f]{2}){8,64}))")

VERBS: Final = frozenset({"figures", "overview", "ready", "view nodes", "view jobs", "view job", "view life"})
_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen
class Place:
    """Where a page begins: behind a live job, or among those that have ended."""

    live: int | None = None  # behind the one that arrived as this; None: from the newest
    ended: bytes | None = None  # behind this one; empty: from the newest; None: live jobs come first


class Views:
    def __init__(
        self,
        books: Books,
        rules: Rules,
        in_force: InForce,
        level: Callable[[], StoreLevel],
        statistics: Callable[[], dict[str, float]],
    ) -> None:
        self._books = books
        self._explanations = Explanations(books, rules, in_force)
        self._listing = Listing(books, self._explanations)
        self._level = level
        self._statistics = statistics

    def answer(self, inquiry: Inquiry, now: float, wall: float) -> bytes | None:
        """JSON, or an ERR line. None where the ledger has nothing to show: another node may."""
        match inquiry.verb:
            case "figures":
                return _encode(self.figures(now, wall))
            case "overview":
                return _encode(self.overview(now, wall))
            case "ready":
                return _encode(self._ready())
            case "view nodes":
                return _encode({"nodes": self._nodes(now)})
            case "view jobs":
                return self._page(inquiry)
            case "view life":
                return self._life(inquiry.ticket or "")
            case _:
                return self._job(inquiry.ticket or "", now)

    # --- numbers -------------------------------------------------------------------------------------------------

    def figures(self, now: float, wall: float) -> dict[str, Any]:
        """What the metrics are made of."""
        nodes = _heard_last(self._books)
        return {
            "jobs": dict(self._books.ledger.census),
            "oldest_queued_s": self.oldest_queued_s(wall),
            "nodes": _by_state(list(self._books.roster)),
            "slots": _slots(list(self._books.roster)),
            "last_seen_s": {name: max(0.0, now - node.last_heard) for name, node in _named(nodes)},
            "store_fraction": self._level().fraction,
            "statistics": self._statistics(),
        }

    def overview(self, now: float, wall: float) -> dict[str, Any]:
        """The whole cluster at a glance."""
        statistics = self._statistics()
        ends = ("jobs_succeeded_total", "jobs_failed_total", "jobs_cancelled_total")
        return {
            "at": moment(wall),
            "jobs": dict(self._books.ledger.census),
            "ended_since_start": {name.split("_")[1]: statistics[name] for name in ends},
            "oldest_queued_s": round(self.oldest_queued_s(wall), 3),
            "slots": _slots(list(self._books.roster)),
            "nodes": self._nodes(now),
            "store_fraction": round(self._level().fraction, 6),
            "ready": self._ready()["ready"],
        }

    def oldest_queued_s(self, wall: float) -> float:
        """How long ago the queued job that has been in line longest was submitted, or its delay was over; 0 where
        none is queued."""
        live = self._books.ledger.all
        if not live.census.counts[State.QUEUED]:
            return 0.0
        names = (live.name(sequence) for sequence in islice(self._books.ledger.queue.oldest(), _SKIPPED_MAX))
        for name in islice((name for name in names if name is not None), _LOOKED_UP_MAX):
            entry = live.get(name)
            if entry is not None and entry.waits_for_a_node:
                job = self._books.job(name)
                return max(0.0, wall - job.submitted_wall - job.delay_s)
        return 0.0

    def _ready(self) -> dict[str, Any]:
        level = self._level()
        if level.disk_full:
            why = "the disk is full: jobs are left with their nodes until there is room"
        elif level.fraction >= STORE_FULL_FRACTION:
            why = f"the store is {level.fraction:.0%} full (JOBYARD_STORE_MAX): jobs are left with their nodes"
        else:
            nodes = len(self._books.roster.connected())
            return {"ready": True, "why": f"takes jobs; nodes connected: {nodes}"}
        return {"ready": False, "why": why}

    def _nodes(self, now: float) -> list[dict[str, object]]:
        nodes = sorted(_heard_last(self._books), key=lambda node: (node.record.name, node.id))
        return [
            {"id": node.id, **node_fields(node, now), "connected": node.link is not None, "kinds": node.record.kinds}
            for node in nodes
        ]

    # --- jobs ----------------------------------------------------------------------------------------------------

    def _page(self, inquiry: Inquiry) -> bytes:
        place = _place(inquiry.since)
        if place is None:
            said = shown(inquiry.since or "")
            return err(Code.BAD_REQUEST, f"cursor={said} is none; allowed is what an earlier page said, or no cursor")
        jobs: list[dict[str, object]] = []
        cursor: str | None = None
        for looked_at, (cursor_here, row) in enumerate(self._rows(inquiry, place), 1):
            if row is not None:
                jobs.append(row)
            if len(jobs) == inquiry.limit or looked_at == LIST_SCAN_MAX:
                cursor = cursor_here
                break
        return _encode({"jobs": jobs, "cursor": cursor})

    def _rows(self, inquiry: Inquiry, place: Place) -> Iterator[tuple[str, dict[str, object] | None]]:
        """The cursor behind each job that is looked at, and its row; None for one that was not asked for."""
        wanted = None if inquiry.state is None else State(inquiry.state)
        if place.ended is None and (wanted is None or wanted in self._books.ledger.census):
            reasons = self._explanations.reasons()
            live = self._books.ledger.all
            resting = wanted in (None, State.QUEUED) or 2 * self._books.ledger.census[wanted] > len(live)
            for entry in live.newest_first(inquiry.group, resting=resting, before=place.live, state=wanted):
                asked_for = wanted in (None, entry.state) and not entry.is_element
                row = {"ticket": entry.ticket, **self._listing.live_fields(entry, reasons)} if asked_for else None
                yield f"l{entry.record.sequence}", _known(row)
        if wanted is None or wanted.ended:
            for behind, ticket, ended in self._ended(inquiry.group, place.ended or b""):
                asked_for = wanted in (None, ended.state) and index_of(ticket) is None
                yield f"e{behind.hex()}", _known(self._ended_row(ticket, ended)) if asked_for else None

    def _ended(self, group: str | None, before: bytes) -> Iterator[tuple[bytes, str, Ended]]:
        history = self._books.history
        if group is None:
            for ticket, ended in history.newest(before):
                yield history.place(ticket, ended), ticket, ended
            return
        for ticket in self._books.groups.newest(group, before):
            if (found := history.find(ticket)) is not None:
                yield found.sequence.to_bytes(8, "big"), ticket, found

    def _ended_row(self, ticket: str, ended: Ended) -> dict[str, object]:
        return {"ticket": ticket, **ended_fields(self._books.job(ticket), ended), **_took(ended)}

    def _job(self, text: str, now: float) -> bytes | None:
        found = self._books.find(text.lower()) if parse_ticket(text.lower()) is not None else None
        if found is None or (found.entry is None and found.ended is None):
            return None
        job = self._books.job(found.ticket)
        told = read_reply(self._explanations.reply(found, now))
        return _encode(
            {
                **(_known(self._row(found)) or {}),
                **(_known(_asked_for(job)) or {}),
                "attempts": [_known(attempt) for attempt in self._attempts(found)[-ATTEMPTS_MAX:]],
                "explanation": {"code": told.fields["reason"], "text": told.body.decode()},
            }
        )

    def _life(self, ticket: str) -> bytes:
        """What happened to a job, as far as events tell; of one that nobody knows, nothing."""
        name = ticket.lower()
        lines, whole = ([], False) if parse_ticket(name) is None else self._books.chronicle.of(name)
        return _encode({"events": [msgspec.Raw(line) for line in lines], "whole": whole})

    def _row(self, found: Found) -> dict[str, object]:
        if found.entry is not None:
            fields = self._listing.live_fields(found.entry, self._explanations.reasons())
            return {"ticket": found.ticket, **fields}
        assert found.ended is not None, f"{found.ticket} has expired and is shown"
        return self._ended_row(found.ticket, found.ended)

    def _attempts(self, found: Found) -> list[dict[str, object]]:
        """Those that have ended and are still known, and the present one."""
        ends = self._books.history.attempts(found.ticket)
        if found.ended is not None and found.ended.attempt and not found.ended.counts:
            ends = [*ends, found.ended]
        attempts = [_attempt(ended) for ended in ends if ended.attempt]
        if found.entry is not None and found.entry.record.leased:
            attempts.append(self._present(found.entry))
        return attempts

    def _present(self, entry: Entry) -> dict[str, object]:
        node = self._books.runner(entry)
        state = State.RUNNING if entry.begun else State.DISPATCHED
        return {"attempt": entry.record.attempt, "state": state, "node": None if node is None else node.record.name}


def _attempt(ended: Ended) -> dict[str, object]:
    return {
        "attempt": ended.attempt,
        "state": ended.state,
        "node": ended.node,
        "reason": ended.reason,
        "exit": ended.exit,
        **_took(ended),
    }


def _took(ended: Ended) -> dict[str, object]:
    return {
        "seconds": ended.seconds,
        "ended": moment(ended.ended_wall) or None,
        "stdout_bytes": ended.stdout_bytes,
        "stderr_bytes": ended.stderr_bytes,
        "truncated": ended.truncated or None,
    }


def _asked_for(job: Job) -> dict[str, object]:
    """What the job is. Not its environment: that is where people put secrets."""
    return {
        "kind": job.kind,
        "line": job.line[:LINE_CHARACTERS_MAX],
        "line_cut": len(job.line) > LINE_CHARACTERS_MAX or None,
        "priority": job.priority,
        "slots": job.slots,
        "retries": job.retries or None,
        "crash_limit": job.crash_limit,
        "timeout_s": job.timeout_s,
        "after": job.after or None,
        "array": job.array,
        "body_bytes": job.body_bytes,
    }


def _known(row: dict[str, object] | None) -> dict[str, object] | None:
    """Fields that have no value are left out, as in STATUS."""
    return None if row is None else {name: value for name, value in row.items() if value is not None}


def _place(cursor: str | None) -> Place | None:
    """Where a page begins; None for what is no cursor."""
    if cursor is None:
        return Place()
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        return None
    if match["live"]:
        return Place(live=int(match["live"]))
    return Place(ended=bytes.fromhex(match["ended"] or ""))


def _heard_last(books: Books) -> list[Node]:
    nodes = list(books.roster)
    return nodes if len(nodes) <= NODES_MAX else sorted(nodes, key=lambda node: -node.last_heard)[:NODES_MAX]


def _named(nodes: list[Node]) -> Iterator[tuple[str, Node]]:
    """Each under its name; those that share one, under name and id."""
    names = [node.record.name for node in nodes]
    shared = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set[str]()
    for name, node in zip(names, nodes, strict=True):
        yield (f"{name} ({node.id})" if name in shared else name), node


def _by_state(nodes: list[Node]) -> dict[str, int]:
    counts = {"alive": 0, "draining": 0, "lost": 0}
    for node in nodes:
        counts[node.state] += 1
    return counts


def _slots(nodes: list[Node]) -> dict[str, int]:
    """Busy: leased, as far as there are slots. Away: those of nodes that are given no jobs at present."""
    slots = {"busy": 0, "free": 0, "away": 0}
    for node in nodes:
        busy = min(node.load.taken, node.record.slots)
        slots["busy"] += busy
        slots["free" if node.takes_jobs else "away"] += node.record.slots - busy
    return slots
