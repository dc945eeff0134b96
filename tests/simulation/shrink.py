"""Shrinking: the fewest and simplest faults of a plan with which the story still goes wrong.

First faults are left out, in halves, quarters, and so on down to one (delta debugging: Zeller and Hildebrandt,
"Simplifying and Isolating Failure-Inducing Input", 2002); then what is left is made simpler one by one. The seed stays
the same, and with it all that the faults do not change, so that the same violation is found again or none. Nothing is
drawn: the same plan shrinks to the same plan.
"""

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from tests.simulation.faults import Crash, Fault
from tests.simulation.plan import Plan, Planned

TRIES_MAX: Final = 200

Fails = Callable[[Plan], bool]


class _Tried:
    """Whether a plan fails; each is tried once, and TRIES_MAX of them at most."""

    def __init__(self, fails: Fails) -> None:
        self._fails = fails
        self._known: dict[Plan, bool] = {}

    def __call__(self, plan: Plan) -> bool:
        if plan not in self._known:
            if len(self._known) >= TRIES_MAX:
                return False
            self._known[plan] = self._fails(plan)
        return self._known[plan]


def shrink(plan: Plan, fails: Fails) -> Plan:
    """A plan that fails, too: none of its faults can be left out, nor made simpler, unless TRIES_MAX tries were not
    enough to find out. `plan` itself must fail."""
    tried = _Tried(fails)
    smaller: Plan | None = plan
    while smaller is not None:
        plan = _fewest(smaller, tried)
        smaller = next((simpler for simpler in _simpler(plan) if tried(simpler)), None)
    return plan


def _fewest(plan: Plan, fails: Fails) -> Plan:
    parts = 2
    while plan:
        size = -(-len(plan) // parts)
        without = [plan[:start] + plan[start + size :] for start in range(0, len(plan), size)]
        found = next(filter(fails, without), None)
        if found is not None:
            plan, parts = found, max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts *= 2
    return plan


def _simpler(plan: Plan) -> Iterator[Plan]:
    for at, planned in enumerate(plan):
        for simpler in _simpler_faults(planned):
            yield (*plan[:at], simpler, *plan[at + 1 :])


def _simpler_faults(planned: Planned) -> Iterator[Planned]:
    fault = planned.fault
    if isinstance(fault, Crash) and fault.power_cut:
        yield attrs.evolve(planned, fault=attrs.evolve(fault, power_cut=False))
    for name in ("seconds", "down_s"):
        seconds: float | None = getattr(fault, name, None)
        if seconds is not None and seconds > 1.0 and seconds != round(seconds):
            rounded: Fault = attrs.evolve(fault, **{name: float(round(seconds))})  # type: ignore[arg-type]
            yield attrs.evolve(planned, fault=rounded)
    if planned.at_s != round(planned.at_s, 1):
        yield attrs.evolve(planned, at_s=round(planned.at_s, 1))
