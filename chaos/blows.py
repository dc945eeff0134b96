"""Blows: what happens to which program, when and for how long; the whole plan follows from a seed.

Rules: every kind comes equally often (they are dealt from a deck), and every program is hit as often as any other. A
program that has not got over one blow is not hit by another. Pure: it knows names and times and does nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

GAP_S: Final = (1.0, 4.0)  # between the beginnings of two rounds of blows
SHORT_S: Final = (0.2, 1.5)  # over before anybody is presumed gone
BEYOND_S: Final = (0.5, 2.0)  # by how much a long one outlasts the node timeout
BREATH_S: Final = 1.5  # after a blow: to start again, and to be back in the cluster now and then
AT_ONCE: Final = (1, 1, 1, 1, 1, 1, 2, 2, None)  # how many are hit together; None is all who stand: a power cut


class Kind(StrEnum):
    KILL = "kill"  # SIGKILL; started again afterwards, with the same directory
    STOP = "stop"  # SIGTERM, as an administrator would; likewise
    PAUSE = "pause"  # not one step for longer than the node timeout, and then on as if nothing had been
    CUT = "cut"  # nothing comes through the network


# How often a blow outlasts the node timeout, so that its victim is presumed gone and its jobs go to others.
LONG: Final = {Kind.KILL: 0.25, Kind.STOP: 0.25, Kind.PAUSE: 1.0, Kind.CUT: 0.5}


@dataclass(frozen=True)
class Blow:
    at_s: float  # since the beginning; later, where the victim is not yet over the one before
    victim: str
    kind: Kind
    lasts_s: float


def draw(chance: Random, victims: Sequence[str], node_timeout_s: float) -> Iterator[Blow]:
    """Blows without end, in the order of time."""
    deck = _dealt(chance)
    standing_at = dict.fromkeys(victims, 0.0)
    now = 0.0
    while True:
        now += chance.uniform(*GAP_S)
        standing = [victim for victim in victims if standing_at[victim] <= now]
        count = chance.choice(AT_ONCE)
        for victim in chance.sample(standing, min(len(standing), count or len(standing))):
            kind = next(deck)
            blow = Blow(now, victim, kind, _length_s(chance, kind, node_timeout_s))
            standing_at[victim] = now + blow.lasts_s + BREATH_S
            yield blow


def _dealt(chance: Random) -> Iterator[Kind]:
    while True:
        yield from chance.sample(list(Kind), len(Kind))


def _length_s(chance: Random, kind: Kind, node_timeout_s: float) -> float:
    if chance.random() < LONG[kind]:
        return node_timeout_s + chance.uniform(*BEYOND_S)
    return chance.uniform(*SHORT_S)
