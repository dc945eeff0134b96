"""A plan: which faults happen when. Plain data, which can be printed, read again, and made smaller.

    3.250 Crash process=n1 power_cut=yes down_s=2.0

Every fault of a plan but `GoneForEver` is undone by the end of its span, so that afterwards promise 3 holds.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from tests.simulation import faults
from tests.simulation.faults import Fault
from tests.simulation.knobs import Setting


@attrs.frozen
class Planned:
    at_s: float  # since the story began
    fault: Fault

    @property
    def over_s(self) -> float:
        """When it is undone. A clock that has jumped stays where it is."""
        if isinstance(self.fault, faults.Jump):
            return self.at_s
        return self.at_s + float(getattr(self.fault, "seconds", getattr(self.fault, "down_s", 0.0)))

    def __str__(self) -> str:
        fields = attrs.asdict(self.fault, recurse=False)
        return " ".join([f"{self.at_s:g}", type(self.fault).__name__, *(f"{n}={_shown(v)}" for n, v in fields.items())])


Plan: TypeAlias = tuple[Planned, ...]


def show(plan: Plan) -> list[str]:
    return [str(planned) for planned in plan]


def parse(lines: Sequence[str]) -> Plan:
    """What `show` has printed. Raises ValueError with the line that is none."""
    return tuple(map(_parse_line, lines))


def over_s(plan: Plan) -> float:
    """When the last fault is undone."""
    return max((planned.over_s for planned in plan), default=0.0)


def gone(plan: Plan) -> set[str]:
    """Who does not come back."""
    return {planned.fault.process for planned in plan if isinstance(planned.fault, faults.GoneForEver)}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


_READ: Final[dict[object, Callable[[str], Any]]] = {
    str: str,
    float: float,
    int: int,
    bool: lambda text: {"yes": True, "no": False}[text],
}


def _parse_line(line: str) -> Planned:
    try:
        at_s, name, *words = line.split()
        kind = getattr(faults, name)
        types = {field.name: field.type for field in attrs.fields(attrs.resolve_types(kind))}
        values = {key: _READ[types[key]](text) for key, text in (word.split("=") for word in words)}
        return Planned(float(at_s), kind(**values))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"'{line}' is no planned fault, such as '3.25 Crash process=n1 power_cut=yes down_s=2'"
        ) from error


# --- drawing -----------------------------------------------------------------------------------------------------

_DAY_S: Final = 86_400.0


class _Draw:
    """Faults at random, for one setting."""

    def __init__(self, chance: random.Random, setting: Setting) -> None:
        self._chance = chance
        self._setting = setting
        self._nodes = [f"n{number}" for number in range(1, setting.knobs.nodes + 1)]

    def one(self) -> Fault:
        kinds = {
            self._crash: 40, self._pause: 12, self._cut: 14, self._reset: 8, self._isolate: 10, self._disk_full: 4,
            self._disk_slow: 6, self._disk_error: 4, self._jump: 4, self._stop: 5, self._spawner_dies: 3,
        }  # fmt: skip
        (draw,) = self._chance.choices(list(kinds), list(kinds.values()))
        return draw()

    def last(self) -> Fault:
        return faults.GoneForEver(self._chance.choice(self._nodes))

    def _process(self, balancer: float = 0.35) -> str:
        """The balancer is met more often than its share: everybody depends on it."""
        return "balancer" if self._chance.random() < balancer else self._chance.choice(self._nodes)

    def _seconds(self, short: float = 0.5) -> float:
        """Shorter than the node timeout or longer, either about as often."""
        timeout_s = self._setting.knobs.node_timeout_s
        low, high = (0.05, timeout_s * 0.6) if self._chance.random() < short else (timeout_s * 0.8, timeout_s * 1.6)
        return round(self._chance.uniform(low, high), 2)

    def _crash(self) -> Fault:
        quick = round(self._chance.uniform(0.05, 1.0), 2)
        return faults.Crash(
            self._process(), self._chance.random() < 0.5, quick if self._chance.random() < 0.6 else self._seconds()
        )

    def _stop(self) -> Fault:
        return faults.Stop(self._process(0.2), round(self._chance.uniform(0.05, 1.0), 2))

    def _spawner_dies(self) -> Fault:
        return faults.SpawnerDies(self._chance.choice(self._nodes))

    def _pause(self) -> Fault:
        return faults.Pause(self._process(0.2), self._seconds(0.35))

    def _cut(self) -> Fault:
        one_way = self._chance.random() < 0.4
        pair = (self._chance.choice(self._nodes), "balancer")
        a, b = pair if self._chance.random() < 0.5 else pair[::-1]
        return faults.Cut(a, b, self._seconds(), one_way)

    def _reset(self) -> Fault:
        return faults.Reset(self._chance.choice(self._nodes), "balancer")

    def _isolate(self) -> Fault:
        return faults.Isolate(self._process(0.15), self._seconds(0.35))

    def _disk_full(self) -> Fault:
        return faults.DiskFull(self._process(), self._seconds(0.8))

    def _disk_slow(self) -> Fault:
        return faults.DiskSlow(self._process(0.5), self._seconds(0.7))

    def _disk_error(self) -> Fault:
        return faults.DiskError(self._process(), self._chance.randint(1, 20))

    def _jump(self) -> Fault:
        return faults.Jump(self._process(), self._chance.choice([-_DAY_S, -60.0, 60.0, _DAY_S]))


def draw(seed: int, setting: Setting) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan {seed}")
    span_s, count = setting.load.span_s, setting.load.faults
    make = _Draw(chance, setting)
    drawn = [make.one() for _ in range(chance.randint(0, 2 * count))]
    if setting.knobs.nodes > 1 and chance.random() < 0.15:
        drawn.append(make.last())
    plan = [Planned(round(chance.uniform(0.0, span_s), 3), fault) for fault in drawn]
    # Faults of one seed often come together: what breaks during a recovery is a kind of its own.
    if chance.random() < 0.5:
        plan = [_nearer(chance, plan, planned) for planned in plan]
    return tuple(sorted(plan, key=lambda planned: planned.at_s))


def _nearer(chance: random.Random, plan: Sequence[Planned], planned: Planned) -> Planned:
    near = chance.choice(plan).at_s + chance.uniform(0.0, 0.5)
    return attrs.evolve(planned, at_s=round(near, 3)) if chance.random() < 0.5 else planned
