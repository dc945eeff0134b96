"""A crash at every single point of a story: before, within and after each commit, at each send, at each job's start
and end; by kill, and by power cut. Pairs of crashes are for `make soak`."""

import pytest

from tests.simulation import crashes

BLOCKS = 16


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_promise_is_broken_by_a_crash_at_any_point(block: int) -> None:
    for crash_at in crashes.at_each_point(crashes.SEED)[block::BLOCKS]:
        verdict = crashes.tell(crashes.SEED, crash_at)
        again = f"make sim SEED={crashes.SEED} POINTS='{crashes.show(crash_at)}'"
        assert verdict.violation is None, f"{verdict}\nagain: {again}"


def test_there_are_hundreds_of_points_and_each_kills_somebody() -> None:
    every = crashes.at_each_point(crashes.SEED)
    assert len(every) > 400
    assert all(crashes.tell(crashes.SEED, crash_at).crashes for crash_at in every[::50])
