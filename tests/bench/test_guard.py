"""`make bench-smoke`: what it compares, and when it fails."""

import tomllib
from collections.abc import Callable
from pathlib import Path

from benchmarks import smoke
from benchmarks.systems.jobyard import Jobyard


def test_the_guard_trips_below_half_of_what_is_recorded() -> None:
    recorded = {"py": 2.0, "exec": 1.0}
    assert smoke.slower({"py": 1.0, "exec": 0.6}, recorded) == []
    assert smoke.slower({"py": 0.99, "exec": 0.6}, recorded) == ["py"]


def test_the_guard_compares_medians_so_that_a_neighbour_in_some_of_the_repeats_is_no_defect() -> None:
    quiet, disturbed = smoke.Cost(0.001, 0.0005), smoke.Cost(0.050, 0.0006)
    ours = [quiet, disturbed, quiet, disturbed, quiet]
    found = dict(smoke.ratios("py", [smoke.Cost(0.0005, 0.0002)] * 5, ours))
    assert found == {"py": 0.5, "py_processor": 0.4}


def test_the_guard_takes_ours_and_the_yardstick_in_turn() -> None:
    taken: list[str] = []

    def of(name: str, wall_s: float) -> Callable[[object], smoke.Cost]:
        def take(_: object) -> smoke.Cost:
            taken.append(name)
            return smoke.Cost(wall_s)

        return take

    comparison = smoke.Comparison("trip", of("ours", 0.2), of("yardstick", 0.1))
    assert smoke.compare(comparison, Jobyard(), Path()) == {"trip": 0.5}
    assert taken == ["yardstick", "ours"] * smoke.REPEATS


def test_what_fell_is_taken_again_and_the_better_counts() -> None:
    assert smoke.better({"py": 1.0, "exec": 2.0}, {"py": 3.0, "exec": 1.0}) == {"py": 3.0, "exec": 2.0}


def test_every_ratio_of_the_guard_is_recorded(tmp_path: Path) -> None:
    recorded = tomllib.loads(smoke.RECORD.read_text())["ratios"]
    waiting = {"round_trip", "submit_each", "submit"}  # of which the wall alone is compared
    keys = {comparison.key for comparison in smoke.COMPARISONS}
    assert set(recorded) == keys | {f"{key}_processor" for key in keys - waiting}
    smoke.record(recorded, tmp_path / "smoke.toml")
    assert (tmp_path / "smoke.toml").read_text() == smoke.RECORD.read_text()
