"""Shrinking and keeping what was found: what is left of a plan, and how it is written down."""

from typing import get_args

import attrs
import pytest

from tests.simulation import faults, found, knobs, mutants, plan, shrink, story
from tests.simulation.plan import Plan, Planned

ONE_OF_EACH: Plan = (
    Planned(0.25, faults.Crash("n1", True, 2.0)),
    Planned(1.0, faults.Stop("n2", 0.5)),
    Planned(1.5, faults.Pause("balancer", 6.31)),
    Planned(2.0, faults.Cut("n1", "balancer", 3.0, True)),
    Planned(2.125, faults.Reset("n1", "balancer")),
    Planned(3.0, faults.Isolate("n3", 1.0)),
    Planned(4.0, faults.DiskFull("n1", 1.0)),
    Planned(5.0, faults.DiskSlow("balancer", 1.0)),
    Planned(6.0, faults.DiskError("n2", 7)),
    Planned(7.0, faults.Jump("n2", -86400.0)),
    Planned(8.0, faults.SpawnerDies("n1")),
    Planned(9.0, faults.GoneForEver("n3")),
)


def test_only_the_faults_that_matter_are_left() -> None:
    first, second = ONE_OF_EACH[3], ONE_OF_EACH[9]
    assert shrink.shrink(ONE_OF_EACH, lambda faults: {first, second} <= set(faults)) == (first, second)


def test_nothing_is_left_where_nothing_matters() -> None:
    assert shrink.shrink(ONE_OF_EACH, lambda faults: True) == ()


def test_what_is_left_is_made_simpler() -> None:
    drawn = (Planned(3.257, faults.Crash("n1", True, 2.37)),)
    assert shrink.shrink(drawn, lambda faults: len(faults) == 1) == (Planned(3.3, faults.Crash("n1", False, 2.0)),)


def test_it_is_tried_only_so_often() -> None:
    tries: list[Plan] = []

    def fails(faults: Plan) -> bool:
        tries.append(faults)
        return len(faults) == 600

    many = tuple(Planned(float(at), faults.Reset("n1", "balancer")) for at in range(600))
    assert shrink.shrink(many, fails) == many
    assert len(tries) == shrink.TRIES_MAX


def test_what_is_left_of_a_real_story_is_what_it_takes() -> None:
    seed = next(seed for seed in range(100) if fails_with_a_power_cut(seed))
    setting = knobs.draw(seed)
    drawn = plan.draw(seed, setting)

    def fails(faults: Plan) -> bool:
        return story.tell(seed, setting=setting, faults=faults).violation is not None

    with mutants.MUTANTS["no fsync"]():
        left = shrink.shrink(drawn, fails)
        assert fails(left)
        assert not any(fails(left[:at] + left[at + 1 :]) for at in range(len(left)))
    assert len(left) < len(drawn)
    assert not fails(left), "it takes the mutant, too"


def fails_with_a_power_cut(seed: int) -> bool:
    """Whether this story goes wrong with the mutant, and has power cuts to choose from."""
    power_cuts = [True for planned in plan.draw(seed, knobs.draw(seed)) if getattr(planned.fault, "power_cut", False)]
    return len(power_cuts) > 1 and mutants.tell(("no fsync", seed)).violation is not None


# --- plans and findings as text --------------------------------------------------------------------------------------


def test_a_plan_is_read_as_it_is_shown() -> None:
    assert plan.parse(plan.show(ONE_OF_EACH)) == ONE_OF_EACH
    assert plan.show(ONE_OF_EACH)[0] == "0.25 Crash process=n1 power_cut=yes down_s=2"
    kinds: set[object] = {type(planned.fault) for planned in ONE_OF_EACH}
    assert kinds == set(get_args(faults.Fault))


def test_drawn_plans_and_settings_are_read_as_they_are_kept() -> None:
    for seed in range(50):
        setting = knobs.draw(seed)
        drawn = plan.draw(seed, setting)
        text = found.entry(seed, setting, drawn, 'a job "x" \\ was lost')
        (kept,) = found.read(text)
        assert (kept.seed, kept.what, kept.faults) == (seed, "a job 'x' \\ was lost", drawn)
        assert kept.setting == attrs.evolve(setting, temper=())


@pytest.mark.parametrize(
    "line", ["", "3.0 Explosion process=n1", "soon Reset a=n1 b=n2", "1 Reset a=n1", "1 Pause process=n1 seconds=x"]
)
def test_a_line_that_is_no_fault_is_refused_with_what_one_looks_like(line: str) -> None:
    with pytest.raises(ValueError, match=r"is no planned fault, such as '3\.25 Crash"):
        plan.parse([line])


def test_every_fault_is_undone_but_the_last_one_and_a_clock_that_was_set() -> None:
    assert plan.over_s(ONE_OF_EACH) == 9.0
    assert plan.over_s((Planned(1.5, faults.Pause("balancer", 6.5)),)) == 8.0
    assert plan.over_s((Planned(7.0, faults.Jump("n2", 86400.0)),)) == 7.0
    assert plan.gone(ONE_OF_EACH) == {"n3"}
