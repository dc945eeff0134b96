"""The measure of the spawner alone: it runs what it says, and its table says what was found."""

from pathlib import Path

import pytest

from benchmarks import yardsticks
from benchmarks.spawner_alone import HERE, Cost, limit, spawners, table

pytestmark = pytest.mark.system


def test_both_are_run_and_their_processor_time_is_found(tmp_path: Path) -> None:
    cost = spawners(HERE, jobs=10, ahead=2)
    assert min(cost.own_us, cost.children_us, cost.wall_us) > 0
    assert limit(yardsticks.spawner_in_c(tmp_path) or yardsticks.spawner_in_python(), jobs=10).children_us > 0


def test_the_table_holds_each_against_the_limit_of_its_own_round() -> None:
    costs = {
        "limit": [Cost(100, 400, 600), Cost(200, 800, 1200)],
        "ours": [Cost(500, 500, 1200), Cost(1000, 1000, 2400)],
    }
    ours = table(costs, of="limit").splitlines()[2].split()
    assert ours == ["ours", "750", "750", "1500", "0.50", "0.50"]
