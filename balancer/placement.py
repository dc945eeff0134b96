"""Who gets the next attempt, and how much a node may be given: placement policies.

    level ............ the least loaded by count per slot; jobs wait on the nodes, and move where counts drift apart
    random ........... any node with free slots, each as likely
    round-robin ...... the next node with free slots, from the last one used on
    least-loaded ..... the node with the most free slots, however many it has in all
    shortest-wait .... where it is expected to begin the soonest, as attempts have ended on each node of late

`level` binds early: a backlog on each node hides the round trip, and what waits there is called back when another node
runs dry. The others bind late: a job stays in the one queue until a slot is free for it, so none waits behind a long
one while another node idles. `shortest-wait` gives a node a little ahead: the next job, which begins where a slot falls
free without a round trip, and as many more as begin within one. Where rounds are only started by their timer all of
them give ahead what begins before the next, because a slot that falls free between two rounds would stand idle.

A policy says three things, and rounds do the rest: whether a node has `room`, which of those that have it comes first
(`rank`), and which `moves` of jobs that wait on nodes are worth their while. It may remember whom it has `chosen`.

Pure. A policy sees loads, never links; the time and chance are handed to it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol, TypeAlias

import attrs

from common.machine import Chance
from common.placements import PLACEMENTS

HIDDEN_S: Final = 0.05  # a round trip under load, with a commit at both ends
TURN_S_MIN: Final = 0.0002  # a node does some five a millisecond of the shortest jobs
_LATEST: Final = 1 / 8  # what the latest run time counts in the mean; as TCP takes the mean of its round trips


@attrs.frozen
class Terms:
    """What holds for a round. Seconds."""

    now: float = 0.0
    backlog_max: int = 1000  # attempts that may wait on a node
    apart_s: float = 0.0  # between two rounds; 0 where there is one whenever there is work and room


@attrs.define(eq=False)
class Load:
    """What placement knows of a node: its slots, how many attempts are on it (begun or waiting), how many were ever
    given to it; the slots that these need, and how those ended that it had before."""

    node_id: str
    slots: int
    count: int
    given: int = 0
    taken: int = 0  # slots; more than there are means that some attempts wait
    mean_s: float | None = None  # of the run times, the latest counting most; None before there is any
    ended_at: float = -math.inf

    @property
    def free(self) -> int:
        return self.slots - self.taken

    def ran(self, seconds: float, now: float) -> None:
        """An attempt has ended there that ran for so long."""
        self.mean_s = seconds if self.mean_s is None else self.mean_s + (seconds - self.mean_s) * _LATEST
        self.ended_at = now

    def turn_s(self, terms: Terms) -> float:
        """How long it takes, as it went so far, until another of its slots falls free. A node on which none has for
        longer has got long jobs: with skewed durations the best guess is that it goes on as long as it has."""
        if self.mean_s is None:
            return math.inf
        usual_s = max(self.mean_s / self.slots, TURN_S_MIN)
        return usual_s if terms.apart_s else max(usual_s, terms.now - self.ended_at)


Rank: TypeAlias = tuple[float, int, str]
Move: TypeAlias = tuple[Load, Load]


class Placement(Protocol):
    name: str
    late: bool  # jobs go to free slots; so one that needs several needs a node kept for it, or is overtaken for ever

    def room(self, load: Load, slots: int, terms: Terms) -> bool:
        """Whether a node may be given another job, which needs so many slots. What it is given never makes room."""
        ...

    def rank(self, load: Load, terms: Terms) -> Rank:
        """Of the nodes that may run a job and have room, it is given to the one of the lowest rank. No two are equal,
        and nothing that is given to any node lowers one."""
        ...

    def chosen(self, load: Load) -> None:
        """This one is given the job. Called before it is counted."""
        ...

    def moves(self, loads: Iterable[Load], terms: Terms) -> Iterator[Move]:
        """The pairs (busy, idle) where a job that waits on the one would do better on the other, the best first. None
        where nothing is to be gained, or the same job would be sent to and fro."""
        ...


# --- early -----------------------------------------------------------------------------------------------------


class Level:
    """The reference system's rule, weighted by slots: the node that would be the least loaded with it, (running +
    waiting + 1) / slots; among equals the one that was given the least so far. Greedy, and for equal jobs it is also
    the best that can be done: with loads 0, 0, 11 on equal nodes, ten jobs make it 5, 5, 11."""

    name = "level"
    late = False

    def room(self, load: Load, slots: int, terms: Terms) -> bool:
        return load.count - load.slots < terms.backlog_max

    def rank(self, load: Load, terms: Terms) -> Rank:
        return ((load.count + 1) / load.slots, load.given, load.node_id)

    def chosen(self, load: Load) -> None:
        pass

    def moves(self, loads: Iterable[Load], terms: Terms) -> Iterator[Move]:
        return _gains(loads, lambda load: (load.count + 1) / load.slots, lambda load: load.count / load.slots)


# --- late ------------------------------------------------------------------------------------------------------


class Late:
    """What the policies share that give jobs to free slots, and ahead only what begins before the next round."""

    late = True

    def room(self, load: Load, slots: int, terms: Terms) -> bool:
        over = load.taken + slots - load.slots
        if over <= 0:
            return True
        return slots == 1 and over <= terms.backlog_max and self._may_be_ahead(over, load, terms)

    def _may_be_ahead(self, number: int, load: Load, terms: Terms) -> bool:
        """Whether so many jobs may wait there, of one slot each."""
        return number * load.turn_s(terms) <= terms.apart_s

    def chosen(self, load: Load) -> None:
        pass

    def moves(self, loads: Iterable[Load], terms: Terms) -> Iterator[Move]:
        """What waits goes where it need not wait."""
        return _gains(loads, lambda load: 0 if load.free > 0 else math.inf, lambda load: -load.free)


class Random(Late):
    """A race: each node runs for an exponentially distributed time, the first to arrive gets the job and runs anew.
    Such times have no memory, so each of those that have room wins as likely as any other, whoever won before; and
    only the winner is drawn again, however many there are."""

    name = "random"

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._now = 0.0  # the time of the race: when the last winner arrived
        self._arrives: dict[str, float] = {}

    def rank(self, load: Load, terms: Terms) -> Rank:
        if self._arrives.get(load.node_id, 0.0) <= self._now:  # new, or it had no room when it arrived
            self._arrives[load.node_id] = self._now - math.log(1.0 - self._chance.uniform(0.0, 1.0))
        return (self._arrives[load.node_id], 0, load.node_id)

    def chosen(self, load: Load) -> None:
        self._now = self._arrives[load.node_id]


class RoundRobin(Late):
    """In the order of their ids, the search going on behind the node that was used last."""

    name = "round-robin"

    def __init__(self) -> None:
        self._lap, self._last = 0, ""

    def rank(self, load: Load, terms: Terms) -> Rank:
        return (self._lap + (load.node_id <= self._last), 0, load.node_id)

    def chosen(self, load: Load) -> None:
        self._lap += load.node_id <= self._last
        self._last = load.node_id


class LeastLoaded(Late):
    """The most free slots in absolute numbers: of 2 slots both free, and of 20 three, the latter. Among equals the one
    that was given the least so far."""

    name = "least-loaded"

    def rank(self, load: Load, terms: Terms) -> Rank:
        return (-load.free, load.given, load.node_id)


class ShortestWait(Late):
    """Where it begins the soonest: at once on a free slot, on the node that is the least filled; else where slots fall
    free the fastest for all that wait there already."""

    name = "shortest-wait"

    def rank(self, load: Load, terms: Terms) -> Rank:
        return (self._wait_s(load, terms), load.given, load.node_id)

    def _wait_s(self, load: Load, terms: Terms) -> float:
        """Of one more job. Below zero where it need not wait: the less, the fuller the node is with it."""
        if load.free > 0:
            return (load.taken + 1) / load.slots - 2
        return (1 - load.free) * load.turn_s(terms)

    def _may_be_ahead(self, number: int, load: Load, terms: Terms) -> bool:
        """The next one hides the round trip, however long jobs last; where its node gets stuck, it is called back."""
        return number == 1 or number * load.turn_s(terms) <= max(terms.apart_s, HIDDEN_S)

    def moves(self, loads: Iterable[Load], terms: Terms) -> Iterator[Move]:
        def last_waits_s(load: Load) -> float:
            return -load.free * load.turn_s(terms) if load.free < 0 else -math.inf

        return _gains(loads, lambda load: self._wait_s(load, terms), last_waits_s)


def _gains(loads: Iterable[Load], with_it: Callable[[Load], float], as_is: Callable[[Load], float]) -> Iterator[Move]:
    """The moves after which the one that got the job is, with it, still better off than the other was."""
    with_slots = [load for load in loads if load.slots]
    busiest = sorted(with_slots, key=as_is, reverse=True)
    for idle in sorted(with_slots, key=with_it):
        for busy in busiest:
            if with_it(idle) >= as_is(busy):
                break
            yield busy, idle


# --- by name ---------------------------------------------------------------------------------------------------

POLICIES: Final[Mapping[str, Callable[[Chance], Placement]]] = {
    "level": lambda chance: Level(),
    "random": Random,
    "round-robin": lambda chance: RoundRobin(),
    "least-loaded": lambda chance: LeastLoaded(),
    "shortest-wait": lambda chance: ShortestWait(),
}
assert tuple(POLICIES) == PLACEMENTS, "an operator can name other policies than there are"


class InForce:
    """The policy by which rounds go until an operator puts another in its place, and its terms. Seconds."""

    def __init__(self, placement: Placement, chance: Chance, *, backlog_max: int, apart_s: float) -> None:
        self.placement = placement
        self.terms = Terms(0.0, backlog_max, apart_s)  # of the latest round
        self._chance = chance

    def switch(self, name: str) -> None:
        """From now on this one, which must be one of POLICIES. What was given already stays where it is, unless the
        new one moves it."""
        self.placement = POLICIES[name](self._chance)

    def terms_at(self, now: float) -> Terms:
        self.terms = Terms(now, self.terms.backlog_max, self.terms.apart_s)
        return self.terms
