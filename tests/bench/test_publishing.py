"""What is made of figures: tables, bars and documents. What is published must be right."""

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from benchmarks import publish
from benchmarks.asking import FULL
from benchmarks.bars import BARS, Found, Growth, growths, judge
from benchmarks.measures import quantities, takes
from benchmarks.report import report
from benchmarks.results import Absent, Figure, joined, load
from benchmarks.running import YARDSTICKS
from benchmarks.systems.catalogue import OURS
from tests.bench.examples import RATE, measured, result, rows

# --- results and tables ------------------------------------------------------------------------------------------


def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    saved = result([Figure("noop_py", OURS, (3.0, 1.0, 2.0))], absent=[Absent("safe", "no such program")])
    saved.save(tmp_path / "results.json")
    assert load(tmp_path / "results.json") == saved


def test_a_result_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    attrs.evolve(result([]), format=99).save(path)
    with pytest.raises(ValueError, match="has format 99"):
        load(path)
    assert json.loads(path.read_text())["format"] == 99


def test_of_two_runs_that_took_the_same_the_first_counts_and_what_it_did_not_take_is_the_others() -> None:
    first = result([Figure("noop_py", OURS, (3.0,)), Figure("noop_py", "safe", (1.0,))])
    second = result([Figure("noop_py", "fast", (9.0,)), Figure("more", OURS, (5.0,))])
    more = attrs.evolve(RATE, key="more")
    both = joined([first, attrs.evolve(second, quantities=(RATE, more))])
    assert both.figures == (*first.figures, Figure("more", OURS, (5.0,)))
    assert both.quantities == (*first.quantities, more)
    assert both.systems == first.systems


def test_runs_on_two_machines_are_not_joined() -> None:
    with pytest.raises(ValueError, match="different machines"):
        joined([result([]), attrs.evolve(result([]), machine={"processors": "64"})])


def test_a_table_has_the_median_the_spread_and_how_many_times_better_we_are() -> None:
    text = report(result([Figure("noop_py", OURS, (400.0, 200.0, 300.0)), Figure("noop_py", "safe", (100.0,))]))
    assert "| **Jobyard** | yes | 300 | 200 | 400 | 3 |  |" in text
    assert "| Safe | yes | 100 | 100 | 100 | 1 | 3.00 × |" in text


def test_a_table_is_sorted_with_the_best_first() -> None:
    figures = [Figure("trip", OURS, (2.0,)), Figure("trip", "safe", (9.0,)), Figure("trip", "fast", (1.0,))]
    lines = report(result(figures)).partition("## Round trip")[2].splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith(("| Fast", "| **Jobyard", "| Safe"))] == [
        "| Fast",
        "| **Jobyard**",
        "| Safe",
    ]


def test_the_summary_compares_with_the_best_durable_peer_and_with_the_best_of_all() -> None:
    figures = [
        Figure("noop_py", OURS, (300.0,)),
        Figure("noop_py", "safe", (100.0,)),
        Figure("noop_py", "fast", (600.0,)),
        Figure("noop_py", "pool", (3000.0,)),
    ]
    (row,) = rows(report(result(figures)), "| No-op, jobs/s |")
    assert row == ("| No-op, jobs/s | 300 | 100 (Safe) | 3.00 × | 600 (Fast) | 0.50 × | 3,000 (The limit) | 0.10 × |")


def test_the_same_work_of_a_peer_stands_in_where_it_has_no_other_but_never_a_yardstick() -> None:
    figures = [
        Figure("noop_sleep", OURS, (300.0,)),
        Figure("noop_py", "safe", (100.0,)),
        Figure("noop_py", "pool", (9.0,)),
    ]
    text = report(result(figures)).partition("## No-op in a slot")[2].partition("##")[0]
    assert len(rows(text, "3.00 ×")) == 1
    assert not rows(text, "The limit")


def test_what_could_not_be_measured_is_in_the_table_with_the_reason() -> None:
    figures = [Figure("noop_py", OURS, (300.0,))]
    text = report(result(figures, absent=[Absent("safe", "took longer\nthan 60 s | twice", "noop_py")]))
    assert "| Safe |  | — |  |  |  | took longer than 60 s / twice |" in text


def test_a_system_that_could_not_be_had_is_told_of_in_every_table_and_at_the_end() -> None:
    figures = [Figure("noop_py", OURS, (300.0,)), Figure("trip", OURS, (3.0,))]
    text = report(result(figures, absent=[Absent("safe", "there is no apt-get here")]))
    assert len(rows(text, "there is no apt-get here")) == 3
    assert "| Safe | there is no apt-get here |" in text.partition("## Not measured")[2]


def test_what_only_we_are_asked_has_no_comparison() -> None:
    text = report(result([Figure("nodes_rate_10", OURS, (5.0, 7.0))], absent=[Absent("safe", "gone")]))
    assert "| With ten nodes | jobs/s | 6.00 | 5.00 | 7.00 | 2 |" in text.partition("## Jobyard alone")[2]
    assert "## Summary" not in text


def test_a_measure_of_ours_that_could_not_be_taken_is_told_of_with_the_reason() -> None:
    text = report(result([Figure("trip", OURS, (3.0,))], absent=[Absent(OURS, "too few files", "nodes_rate_10")]))
    assert "| With ten nodes | jobs/s | — too few files |  |  |  |" in text.partition("## Jobyard alone")[2]


def test_a_reason_names_no_place_on_somebodys_machine() -> None:
    text = report(result([Figure("trip", OURS, (3.0,))], absent=[Absent("safe", "no /tmp/x-1/y/safe.log or a/b")]))
    assert "| Safe | no …/safe.log or a/b |" in text


# --- the bars ----------------------------------------------------------------------------------------------------


def reached(figures: Mapping[tuple[str, str], float]) -> dict[str, tuple[str, str]]:
    found = measured(figures)
    return {bar.key: (judge(found, bar.first).reached, judge(found, bar.heading).reached) for bar in BARS}


def test_every_bar_is_of_a_quantity_that_is_measured_and_says_what_it_asks_for() -> None:
    keys = {quantity.key for quantity in quantities(takes(FULL))}
    assert {bar.key for bar in BARS} <= keys
    assert set(YARDSTICKS) <= keys
    assert len({bar.title for bar in BARS}) == len(BARS) == 11
    for bar in BARS:
        for condition in (*bar.first, *bar.heading):
            assert (condition.at_least is None) != (condition.at_most is None)
            assert "≥" in condition.text or "≤" in condition.text


def test_a_run_in_which_nothing_was_measured_reaches_no_bar() -> None:
    assert set(reached({}).values()) == {("not measured", "not measured")}


def test_a_throughput_is_held_against_the_best_durable_peer_of_the_same_run() -> None:
    figures = {
        ("noop_sleep", OURS): 9000.0,
        ("noop_py", "huey-sqlite"): 1000.0,
        ("noop_py", "huey-redis"): 1400.0,
        ("noop_py", "dask"): 8000.0,  # which is not durable
        ("noop_py", "beanstalkd-f50"): 7000.0,
    }
    assert reached(figures)["noop_sleep"] == ("yes", "no")
    assert reached({**figures, ("noop_py", "huey-redis"): 1501.0})["noop_sleep"] == ("no", "no")
    assert reached({**figures, ("noop_sleep", OURS): 21_000.0})["noop_sleep"] == ("yes", "yes")
    (best,) = judge(measured(figures), BARS[0].first).found
    assert best[1] == Found(pytest.approx(9000 / 1400), "Huey, Redis always")


def test_a_condition_that_fails_decides_and_one_that_is_missing_leaves_it_open() -> None:
    figures = {("noop_py", OURS): 3500.0, ("noop_py", "huey-sqlite"): 1000.0}
    assert reached(figures)["noop_py"] == ("not measured", "no")
    assert reached({**figures, ("noop_py", "pool"): 3000.0})["noop_py"] == ("yes", "no")
    assert reached({**figures, ("noop_py", "pool"): 4000.0})["noop_py"] == ("no", "no")


def test_delays_are_held_against_synced_commits_and_their_own_median() -> None:
    figures = {
        ("submit_each_p50", OURS): 0.5,
        ("submit_each_p50", "commit"): 0.2,
        ("trip_sleep_p50", OURS): 1.0,
        ("trip_sleep_p99", OURS): 2.9,
        ("trip_sleep_p50", "commits"): 0.6,
        ("trip_py_p50", "huey-redis"): 2.4,
    }
    assert reached(figures)["submit_each_p50"] == ("yes", "no")
    assert reached(figures)["trip_sleep_p50"] == ("yes", "no")
    assert reached({**figures, ("trip_sleep_p99", OURS): 3.1})["trip_sleep_p50"] == ("no", "no")
    assert reached({**figures, ("trip_py_p50", "rq"): 0.9})["trip_sleep_p50"] == ("no", "no")
    assert reached({**figures, ("trip_py_p50", "beanstalkd-f0"): 0.9})["trip_sleep_p50"] == ("yes", "no")  # in C
    assert reached({**figures, ("trip_sleep_p50", "commits"): 0.7})["trip_sleep_p50"] == ("yes", "yes")


def test_commands_are_held_against_the_limit_the_durable_and_xargs() -> None:
    figures = {
        ("exec_true", OURS): 1000.0,
        ("exec_true", "spawn-c"): 2000.0,
        ("exec_true", "huey-redis"): 700.0,
        ("exec_true", "xargs"): 1100.0,
    }
    assert reached(figures)["exec_true"] == ("yes", "no")
    assert reached({**figures, ("exec_true", "huey-redis"): 1001.0})["exec_true"] == ("no", "no")
    assert reached({**figures, ("exec_true", "spawn-c"): 1300.0})["exec_true"] == ("yes", "yes")


def test_a_long_queue_is_held_against_a_short_one() -> None:
    figures = {("backlog_rate_1000000", OURS): 900.0, ("backlog_rate_1000", OURS): 1000.0}
    assert reached(figures)["backlog_rate_1000000"] == ("yes", "no")
    assert reached({**figures, ("backlog_rate_1000000", OURS): 799.0})["backlog_rate_1000000"] == ("no", "no")


def test_the_report_has_a_line_for_each_bar_with_what_was_found() -> None:
    text = report(measured({("makespan", OURS): 1.1, ("idle_balancer_10", OURS): 0.4}))
    table = text.partition("## Bars")[2].partition("##")[0]
    assert len(rows(table, " | ")) == len(BARS) + 1
    assert "| ≤ 1.15: **1.10** | yes | ≤ 1.05: **1.10** | no |" in table
    assert "| ≤ 2 %: **0.40** | yes | ≤ 0.5 %: **0.40** | yes |" in table


def test_growth_is_told_from_the_smallest_to_the_largest_number() -> None:
    figures = {(f"nodes_balancer_us_{nodes}", OURS): us for nodes, us in ((100, 150.0), (2, 50.0), (10, 60.0))}
    (grown,) = growths(measured(figures))
    assert grown == Growth("Balancer's time for each, N light nodes", "µs", 2, 100, 50.0, 150.0)
    assert "| Balancer's time for each, N light nodes | µs | 2 | 100 | 50.0 | 150 | 3.00 |" in report(measured(figures))


# --- what is published -------------------------------------------------------------------------------------------


def test_the_published_tables_are_those_of_the_published_result() -> None:
    text = publish.DOCUMENT.read_text()
    assert publish.between(text) == publish.published(publish.DOCUMENT.with_suffix(""))


def test_publishing_replaces_what_stands_between_the_markers_and_nothing_else() -> None:
    document = f"# Above\n\n{publish.BEGIN}\n\nold\n\n{publish.END}\n\nbelow\n"
    new = publish.replaced(document, "new\n")
    assert new == document.replace("old", "new")
    assert publish.replaced(new, "new") == new
    assert publish.between(new) == "new"


@pytest.mark.parametrize(
    "document", ["no marker", f"{publish.BEGIN}", f"{publish.END}{publish.BEGIN}", f"{publish.BEGIN * 2}{publish.END}"]
)
def test_a_document_without_its_markers_is_not_written_to(document: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        publish.replaced(document, "new")


def test_publishing_keeps_the_result_and_makes_the_document_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, results = tmp_path / "speed.md", tmp_path / "results.json"
    document.write_text(f"{publish.BEGIN}\n{publish.END}\n")
    measured({("makespan", OURS): 1.1}).save(results)

    def draw(directory: Path) -> list[Path]:
        (directory / "makespan.png").touch()
        return [directory / "makespan.png"]

    monkeypatch.setattr(publish, "draw", draw)
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "trip.png").touch()  # of an earlier run, that had more
    publish.publish([results], document)
    assert [path.name for path in sorted((tmp_path / "speed").iterdir())] == ["makespan.png", "results.json"]
    assert load(tmp_path / "speed" / "results.json") == load(results)
    assert publish.between(document.read_text()) == publish.published(tmp_path / "speed")
    assert "### Bars" in document.read_text()
    assert "![makespan](speed/makespan.png)" in document.read_text()
