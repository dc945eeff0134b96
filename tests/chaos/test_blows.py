"""The plan of blows: decided by its seed, fair to kinds and victims, and never two at once for the same victim."""

from collections import Counter
from itertools import islice, pairwise
from random import Random
from typing import Final

from chaos.blows import BREATH_S, Blow, Kind, draw

VICTIMS: Final = ("balancer", "node1", "node2", "node3")
TIMEOUT_S: Final = 3.0


def drawn(seed: int, count: int) -> list[Blow]:
    return list(islice(draw(Random(seed), VICTIMS, TIMEOUT_S), count))


def test_the_same_seed_deals_the_same_blows_and_another_one_others() -> None:
    assert drawn(7, 100) == drawn(7, 100)
    assert drawn(7, 100) != drawn(8, 100)


def test_a_short_plan_is_the_beginning_of_a_long_one() -> None:
    assert drawn(7, 100)[:10] == drawn(7, 10)


def test_so_many_cycles_have_every_kind_so_many_times() -> None:
    for seed in range(20):
        assert Counter(blow.kind for blow in drawn(seed, 5 * len(Kind))) == dict.fromkeys(Kind, 5)


def test_everybody_is_hit_about_as_often() -> None:
    counts = Counter(blow.victim for blow in drawn(1, 4000))
    assert all(900 < counts[victim] < 1100 for victim in VICTIMS)


def test_nobody_is_hit_before_the_blow_before_is_over_and_a_breath_was_taken() -> None:
    for victim in VICTIMS:
        for one, other in pairwise(blow for blow in drawn(2, 1000) if blow.victim == victim):
            assert other.at_s >= one.at_s + one.lasts_s + BREATH_S


def test_a_pause_always_outlasts_the_node_timeout_and_every_kind_does_at_times() -> None:
    blows = drawn(3, 1000)
    assert all(blow.lasts_s > TIMEOUT_S for blow in blows if blow.kind is Kind.PAUSE)
    assert {blow.kind for blow in blows if blow.lasts_s > TIMEOUT_S} == set(Kind)
    assert {blow.kind for blow in blows if blow.lasts_s < TIMEOUT_S} == set(Kind) - {Kind.PAUSE}


def test_now_and_then_all_are_down_at_the_same_time() -> None:
    together = Counter(blow.at_s for blow in drawn(4, 1000))
    assert set(together.values()) >= {1, 2, len(VICTIMS)}
