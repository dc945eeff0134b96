"""What the event log tells of a run: when each request came and ended, and what was on each node at any moment. Pure.

It reads events as docs/events.md describes them, and no more; so it does not matter whether they come from virtual
time, from a cluster of processes on this machine, or from yours (`jobyard events --json`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs

Event = Mapping[str, Any]

_ENDS: Final = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


@attrs.frozen
class Request:
    """From the arrival of its first task to the end of its last. `number` is its place in the workload, from 1."""

    number: int
    arrived_s: float
    ended_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.arrived_s


@attrs.frozen
class Moment:
    """How it stands from here on: attempts on each node (begun or waiting), attempts begun, jobs that wait for a slot,
    wherever they are."""

    at_s: float
    counts: tuple[int, ...]
    running: int
    waiting: int


@attrs.frozen
class Story:
    nodes: tuple[str, ...]
    slots: tuple[int, ...]
    requests: tuple[Request, ...]
    moments: tuple[Moment, ...]
    jobs: int
    moved: int  # attempts that were called back from a node before they had begun

    def spread(self, moment: Moment) -> float:
        """By how many jobs for each slot the busiest node has more than the idlest."""
        loads = [count / slots for count, slots in zip(moment.counts, self.slots, strict=True)]
        return max(loads) - min(loads)


def slots_of(events: Iterable[Event]) -> dict[str, int]:
    """The slots of every node that has joined."""
    return {event["node"]: event["slots"] for event in events if event["event"] == "node.joined"}


def read(events: Iterable[Event], slots: Mapping[str, int], name: str) -> Story:
    """The story of the requests whose groups begin with this name. Seconds count from the first arrival."""
    reader = _Reader(dict(slots), f"{name}-")
    for event in events:
        reader.take(event)
    return reader.story()


class _Reader:
    def __init__(self, slots: dict[str, int], prefix: str) -> None:
        self._slots = slots
        self._prefix = prefix
        self._groups: dict[str, str] = {}  # of each job
        self._arrived: dict[str, float] = {}  # by group
        self._ended: dict[str, float] = {}
        self._on: dict[str, str] = {}  # job → the node that has it
        self._running: set[str] = set()
        self._waiting: set[str] = set()
        self._counts = dict.fromkeys(slots, 0)
        self._moments: list[Moment] = []
        self._moved = 0

    def take(self, event: Event) -> None:
        ticket = event.get("ticket", "")
        what, at_s = event["event"], datetime.fromisoformat(event["at"]).timestamp()
        if what == "job.submitted" and str(event.get("group", "")).startswith(self._prefix):
            self._groups[ticket] = event["group"]
            self._arrived.setdefault(event["group"], at_s - event.get("age_s", 0.0))
        if ticket not in self._groups:
            return
        match what:
            case "job.queued":
                if self._leave(ticket) and event["reason"] == "returned":
                    self._moved += 1
                self._waiting.add(ticket)
            case "job.dispatched":
                self._on[ticket] = event["node"]
                self._counts[event["node"]] += 1
            case "job.running":
                self._running.add(ticket)
                self._waiting.discard(ticket)
            case _ if what in _ENDS:
                self._leave(ticket)
                self._waiting.discard(ticket)
                self._ended[self._groups[ticket]] = at_s
            case _:
                return
        self._note(at_s)

    def _leave(self, ticket: str) -> bool:
        """The job is no longer where it was; whether it was on a node."""
        self._running.discard(ticket)
        node = self._on.pop(ticket, None)
        if node is not None:
            self._counts[node] -= 1
        return node is not None

    def _note(self, at_s: float) -> None:
        moment = Moment(at_s, tuple(self._counts.values()), len(self._running), len(self._waiting))
        if self._moments and self._moments[-1].at_s == at_s:
            self._moments[-1] = moment  # only how it stands after all that happened at one moment counts
        else:
            self._moments.append(moment)

    def story(self) -> Story:
        assert not self._waiting, "some jobs have not begun"
        assert not self._running, "some jobs have not ended"
        began_s = min(self._arrived.values())
        requests = [
            Request(int(group.removeprefix(self._prefix)), arrived_s - began_s, self._ended[group] - began_s)
            for group, arrived_s in self._arrived.items()
        ]
        return Story(
            tuple(self._slots),
            tuple(self._slots.values()),
            tuple(sorted(requests, key=lambda request: request.number)),
            tuple(attrs.evolve(moment, at_s=moment.at_s - began_s) for moment in self._moments),
            len(self._groups),
            self._moved,
        )
