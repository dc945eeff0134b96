"""What makes seeds differ in kind: the settings of the cluster, and what its clients do to it.

A seed turns a few of these knobs far from where they usually are. Ten thousand stories of one kind find what one
story of that kind finds.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import attrs

from common.placements import PLACEMENTS
from tests.simulation.world import Knobs


@attrs.frozen
class Load:
    """What clients do, and for how long something may break."""

    clients: int = 2
    operations: int = 12  # of each client
    pause_s: float = 0.7  # between two operations, on average
    burst: int = 3  # submissions at once, at most
    keys: int = 3  # how many there are; few are met again sooner
    long_jobs: float = 0.15  # how many outlast a node timeout
    crashing_jobs: float = 0.01  # how many take their node with them
    faults: int = 8  # of a plan, on average
    planned: float = 0.05  # how many of them are planned stops
    span_s: float = 15.0  # after which nothing breaks any more


@attrs.frozen
class Setting:
    """Where a story takes place. `temper` is how the seed differs from the usual, for whoever reads of it."""

    knobs: Knobs = attrs.field(factory=Knobs)
    load: Load = attrs.field(factory=Load)
    temper: tuple[str, ...] = ()


_Turn = Callable[[random.Random], tuple[dict[str, Any], dict[str, Any]]]


def _slow_disks(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"commit_s": (0.005, chance.choice([0.05, 0.3]))}, {}


def _slow_network(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"delay_s": (0.01, chance.choice([0.1, 0.8])), "split": 0.5}, {}


def _short_leases(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"node_timeout_s": chance.choice([1.0, 2.0]), "info_period_s": 0.3}, {}


def _shipped_times(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of `docs/operating.md`, three times as long as usual here."""
    periods = {"dispatch_period_s": 5.0, "result_period_s": 3.0, "info_period_s": 1.0}
    return {"node_timeout_s": 15.0, "local_fallback_s": 10.0, **periods}, {"span_s": 30.0}


def _periodic(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    periods = {"dispatch_period_s": chance.choice([0.5, 3.0]), "result_period_s": chance.choice([0.4, 2.0])}
    return {"eager": False, **periods}, {}


def _few_slots(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"slots": 1}, {}


def _many_slots(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"slots": 8}, {"burst": 8}


def _small_backlog(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"backlog_max": chance.choice([0, 1, 2])}, {}


def _small_rounds(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"jobs_per_round_max": chance.choice([1, 3])}, {}


def _one_node(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"nodes": 1}, {}


def _five_nodes(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"nodes": 5}, {"clients": 3}


def _no_fallback(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"local_fallback_s": None}, {}


def _short_fallback(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"local_fallback_s": chance.choice([0.2, 1.0, 3.0])}, {}


def _no_key(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"key": False}, {}


def _short_retention(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"retention_s": chance.choice([5.0, 20.0])}, {}


def _bursts(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"burst": 25, "operations": 6, "pause_s": 1.5}


def _haste(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"pause_s": 0.05, "operations": 25, "span_s": 6.0}


def _long_jobs(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"long_jobs": 0.5}


def _one_key(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"keys": 1, "clients": 3}


def _poison(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"crashing_jobs": 0.12}


def _upgrades(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything is stopped and started again, one after the other, while clients go on."""
    return {"delay_s": (0.01, chance.choice([0.1, 0.3]))}, {"planned": 0.9, "faults": 15, "burst": 8, "pause_s": 0.3}


def _little_memory(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """As where a million jobs wait: nearly all of them rest on disk."""
    return {"awake_max": chance.choice([0, 1, 3])}, {"burst": 8}


def _calm(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"faults": 2}


def _storm(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"faults": 25}


# Times are short, so that much happens in few virtual seconds: an idle second costs as much as a busy one.
_USUAL: Final = {
    "node_timeout_s": 5.0, "dispatch_period_s": 2.0, "result_period_s": 1.0, "info_period_s": 0.5,
    "local_fallback_s": 3.0, "drain_grace_s": 2.0,
}  # fmt: skip

# How likely each is. Short leases stand out: what goes wrong when a node is given up goes wrong there first.
_TURNS: Final[dict[str, tuple[float, _Turn]]] = {
    "slow disks": (0.15, _slow_disks),
    "slow network": (0.10, _slow_network),
    "shipped times": (0.12, _shipped_times),
    "short leases": (0.25, _short_leases),
    "periodic": (0.20, _periodic),
    "few slots": (0.20, _few_slots),
    "many slots": (0.08, _many_slots),
    "small backlog": (0.20, _small_backlog),
    "small rounds": (0.12, _small_rounds),
    "one node": (0.05, _one_node),
    "five nodes": (0.05, _five_nodes),
    "no fallback": (0.20, _no_fallback),
    "short fallback": (0.35, _short_fallback),
    "no key": (0.10, _no_key),
    "short retention": (0.05, _short_retention),
    "bursts": (0.10, _bursts),
    "haste": (0.15, _haste),
    "long jobs": (0.25, _long_jobs),
    "one key": (0.08, _one_key),
    "poison": (0.05, _poison),
    "upgrades": (0.08, _upgrades),
    "little memory": (0.25, _little_memory),
    "calm": (0.10, _calm),
    "storm": (0.20, _storm),
}

# Drawn apart, so that what is drawn above stays what it was.
_POLICIES: Final = ("level",) * 4 + tuple(name for name in PLACEMENTS if name != "level")
_UNEVEN: Final = (5, 7, 3)
_UNEVEN_LIKELY: Final = 0.15

TEMPERS: Final = (*_TURNS, *(name for name in PLACEMENTS if name != "level"), "uneven slots")


def draw(seed: int) -> Setting:
    """The setting of a seed."""
    chance = random.Random(f"setting {seed}")
    knobs: dict[str, Any] = dict(_USUAL)
    load: dict[str, Any] = {}
    temper = [name for name, (likely, _) in _TURNS.items() if chance.random() < likely]
    for name in temper:
        of_cluster, of_clients = _TURNS[name][1](chance)
        knobs |= of_cluster
        load |= of_clients
    chance = random.Random(f"placement {seed}")
    if (policy := chance.choice(_POLICIES)) != "level":
        knobs["placement"] = policy
        temper.append(policy)
    if chance.random() < _UNEVEN_LIKELY:
        knobs["slots_each"] = _UNEVEN
        load["burst"] = max(load.get("burst", 0), 8)
        temper.append("uneven slots")
    return Setting(Knobs(**knobs), Load(**load), tuple(temper))
