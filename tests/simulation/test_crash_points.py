"""A crash at every point: a story in which nothing else breaks, told again with a process that dies at its first point,
its second, and so on, once killed and once with its power cut. Pairs of points are for `make soak`."""

from typing import Final

import pytest

from tests.simulation import crashes, pool
from tests.simulation.journal import Journal

SEED: Final = 17


def tell(crash_at: dict[int, bool]) -> str | None:
    verdict = crashes.tell(SEED, crash_at)
    if verdict.violation is None and verdict.crashes != len(crash_at):
        return f"nobody has died at {crashes.show(crash_at)}"
    return verdict.violation and f"make sim SEED={SEED} POINTS='{crashes.show(crash_at)}': {verdict.violation}"


@pytest.mark.timeout(600)
def test_a_crash_at_any_point_breaks_no_promise() -> None:
    at = crashes.at_each_point(SEED)
    assert len(at) > 600, "the story is too short to mean anything"
    wrong = [text for text in pool.told(tell, at) if text is not None]
    assert not wrong, "\n".join(wrong)


def test_all_sorts_of_points_are_passed() -> None:
    journal = Journal()
    verdict = crashes.tell(SEED, {}, journal=journal)
    assert {what for _, _, what in verdict.passed} == {
        "before a commit", "within a commit", "after a commit", "a send", "the start of a job", "the end of a job",
    }  # fmt: skip
    assert {process for _, process, _ in verdict.passed} == {"balancer", "n1", "n2"}


def test_points_are_read_as_they_are_shown() -> None:
    crash_at = {17: False, 230: True}
    assert crashes.show(crash_at) == "17 230p"
    assert crashes.parse("17 230p") == crash_at


def test_two_crashes_in_one_story_break_no_promise() -> None:
    assert [verdict.violation for verdict in map(crashes.tell_pair, range(20))] == [None] * 20
