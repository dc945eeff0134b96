"""The benchmark's arithmetic and tables, without a peer and without a process: what is published must be right."""

import json
import resource
import socket
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks import idlers, publish, smoke, watching
from benchmarks.asking import FULL, MIB, SMALL, Asked, backlog, bodies, end_to_end, idle_connections, sized
from benchmarks.bars import BARS, Found, Growth, growths, judge
from benchmarks.driver import answer
from benchmarks.loads import LONGEST_SHARE, least_makespan_s, skewed
from benchmarks.measures import measures, quantities, selected, takes
from benchmarks.remote import NoAnswer, Remote
from benchmarks.report import number, report
from benchmarks.results import Absent, Figure, Measured, Quantity, Result, advantage, load, quantile
from benchmarks.running import COMMIT, COMMITS, POOL, SPAWN_C, YARDSTICKS
from benchmarks.systems.beanstalkd import TALKS
from benchmarks.systems.catalogue import CATALOGUE, OURS, chosen
from benchmarks.systems.jobyard import DIALECT, Jobyard
from benchmarks.systems.system import System, Unsupported, slope
from benchmarks.wire import Dialect

RATE = Quantity("noop_py", "noop", "No-op", "jobs/s", "more")
SLEEP = Quantity("noop_sleep", "noop", "No-op in a slot", "jobs/s", "more", stands_in="noop_py")
DELAY = Quantity("trip", "trip", "Round trip", "ms", "less")
ALONE = Quantity("nodes_rate_10", "nodes", "With ten nodes", "jobs/s", "more", ours_only=True)
US = Measured(OURS, "Jobyard", "synced", True)
SAFE = Measured("safe", "Safe", "synced", True)
FAST = Measured("fast", "Fast", "in memory", False)
LIMIT = Measured("pool", "The limit", "", False, yardstick=True)


def result(figures: Sequence[Figure], *, absent: Sequence[Absent] = ()) -> Result:
    systems = (US, SAFE, FAST, LIMIT)
    return Result("today", {"processors": "2"}, 3, (SLEEP, RATE, DELAY, ALONE), systems, tuple(figures), tuple(absent))


def rows(text: str, of: str) -> list[str]:
    return [line for line in text.splitlines() if of in line]


# --- arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 2.0, 3.0], 0.5, 2.0),
        ([7.0], 0.99, 7.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 501)], 0.99, 495.0),
    ],
)
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], fraction: float, expected: float
) -> None:
    assert quantile(values, fraction) == expected


def test_an_advantage_above_one_means_better_whichever_way_is_better() -> None:
    assert advantage(RATE, ours=300.0, theirs=100.0) == 3.0
    assert advantage(DELAY, ours=2.0, theirs=6.0) == 3.0
    assert advantage(DELAY, ours=6.0, theirs=2.0) == pytest.approx(1 / 3)


def test_an_advantage_over_nothing_is_infinite_and_can_be_shown() -> None:
    assert number(advantage(RATE, ours=1.0, theirs=0.0)) == "∞"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234_567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123"), (0.0, "0.00")],
)
def test_a_number_shows_about_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_skewed_durations_are_the_same_in_every_run_and_sum_up_to_the_work() -> None:
    durations = skewed(400, 12.0)
    assert durations == skewed(400, 12.0)
    assert sum(durations) == pytest.approx(12.0)
    assert max(durations) > 10 * sorted(durations)[200]
    assert max(durations) <= 12.0 * max(0.5, LONGEST_SHARE)


def test_no_schedule_beats_the_longest_job_nor_the_work_divided_by_the_slots() -> None:
    assert least_makespan_s([1.0, 1.0, 1.0, 1.0], slots=2) == 2.0
    assert least_makespan_s([5.0, 1.0], slots=2) == 5.0


def test_a_take_grows_until_it_lasts_and_then_takes_once() -> None:
    taken: list[int] = []

    def take(count: int) -> float:
        taken.append(count)
        return count / 1000

    assert sized(take, 100, take_s=4.0, jobs_max=20_000) == (4000, 4.0)
    assert taken == [100, 1000, 4000]
    taken.clear()
    assert sized(take, 4000, take_s=4.0, jobs_max=20_000) == (4000, 4.0)
    assert taken == [4000]


def test_a_take_never_has_more_jobs_than_allowed() -> None:
    assert sized(lambda count: count / 1e6, 100, take_s=4.0, jobs_max=20_000) == (20_000, 0.02)
    assert sized(lambda count: 0.0, 100, take_s=4.0, jobs_max=50) == (50, 0.0)


def test_a_queue_shrinks_by_what_is_seen_between_its_first_end_and_its_last_but_one() -> None:
    looks = [(0.0, 0), (0.5, 100), (0.6, 300), (0.7, 500), (0.9, 900), (1.5, 1000)]
    assert slope(looks) == {"seen": 800.0, "seconds": pytest.approx(0.4)}
    assert slope(looks[:3]) == {"seen": 300.0, "seconds": 0.6}


class Answers(Remote):
    """A driver that is none: what it is asked, and what it says."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def call(self, name: str, within_s: float = 0.0, **arguments: Any) -> Any:
        self.asked.append(name)
        answer = self._answers.get(name)
        answer = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def asked(answers: Answers) -> Asked:
    return Asked(answers, SMALL, Path("/somewhere"), {})


def test_a_short_queue_is_filled_and_drained_until_there_is_something_to_measure() -> None:
    drained = {"done": 1000.0, "seen": 800.0, "seconds": SMALL.drain_s / 8}
    remote = Answers(
        fill=1000, largest_bytes=(MIB, 2 * MIB), processor_s=[1.0, 1.1, 5.0, 5.3], drain=drained, restart=2.5
    )
    figures = backlog(asked(remote), 1000)
    assert figures == {
        "backlog_memory_1000": 1.0,
        "backlog_resident_1000": 2.0,
        "backlog_rate_1000": pytest.approx(1600 / (SMALL.drain_s / 4)),
        "backlog_us_1000": pytest.approx(0.4 / 2000 * 1e6),
        "backlog_restart_1000": 2.5,
    }
    assert remote.asked.count("hold") == remote.asked.count("drain") == 2


def test_a_queue_that_cannot_be_filled_in_time_has_no_figures_but_a_reason() -> None:
    with pytest.raises(NoAnswer, match="only 300 could be queued in 5 s"):
        backlog(asked(Answers(fill=300)), 1000)


def test_the_processor_time_is_that_of_the_jobs_whose_rate_is_told() -> None:
    remote = Answers(end_to_end=[0.01, 1.0], processor_s=[1.0, 1.5, 2.0, 2.2])
    figures = end_to_end(asked(remote), "noop_py", "py", "processor_py")
    assert figures == {"noop_py": 1000.0, "processor_py": pytest.approx(200.0)}


def test_a_system_without_a_process_that_stays_has_a_rate_all_the_same() -> None:
    remote = Answers(end_to_end=[1.0], processor_s=Unsupported("it has none"))
    assert end_to_end(asked(remote), "exec_true", "exec", "processor_exec") == {"exec_true": 100.0}


def test_what_connections_and_bodies_cost_is_told_for_each() -> None:
    remote = Answers(
        idle_connections={"bytes": 2048.0, "share": 0.5},
        bodies={"seconds": 4.0, "growth": {"balancer": MIB, "node": 3 * MIB, "spawner": 0}},
    )
    assert idle_connections(asked(remote), 10) == {"connections_memory_10": 2.0, "connections_idle_10": 0.5}
    assert bodies(asked(remote), 1024) == {
        "bodies_rate_1024": SMALL.bodies_jobs / 4,
        "bodies_growth_balancer_1024": 1.0,
        "bodies_growth_node_1024": 3.0,
        "bodies_growth_spawner_1024": 0.0,
    }


def test_every_take_brings_figures_for_its_quantities_and_no_others() -> None:
    """Those whose keys carry a number, of which a typing error would cost a night's run."""
    remote = Answers(
        idle_connections={"bytes": 1.0, "share": 1.0},
        bodies={"seconds": 1.0, "growth": {"balancer": 1, "node": 1, "spawner": 1}},
        cost_with_nodes={"rate": 1.0, "balancer_us": 1.0},
        fill=10**9,
        largest_bytes=(1, 1),
        processor_s=1.0,
        drain={"done": 1.0, "seen": 1.0, "seconds": 100.0},
        restart=1.0,
    )
    checked = [take for take in takes(FULL) if take.measure in ("connections", "bodies", "nodes", "backlog")]
    assert len(checked) > 10
    for take in checked:
        assert set(take.run(asked(remote))) == {quantity.key for quantity in take.quantities}


# --- connections and memory --------------------------------------------------------------------------------------


def test_more_connections_than_this_machine_has_files_for_are_refused_in_plain_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    with pytest.raises(Unsupported, match=r"lets a process open 4,096 files .* 10,000 connections need 10,0\d\d"):
        idlers.make_room(10_000)
    assert raised == []
    idlers.make_room(2_000)
    ((soft, hard),) = raised
    assert 2_000 < soft < 2_200
    assert hard == 4096


def test_the_server_that_takes_fewer_connections_is_told_of_with_its_own_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        clients: list[socket.socket] = []
        answers = (b"OK pong\n", b"ERR TOO_MANY_CONNECTIONS this node serves 1\n")

        def serve() -> None:
            for _ in answers:
                clients.append(listener.accept()[0])
            for client, answer in zip(clients, answers, strict=True):
                client.recv(100)
                client.sendall(answer)
                client.close()

        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        with (
            pytest.raises(Unsupported, match="took about 0 of 2 connections: ERR TOO_MANY_CONNECTIONS this node"),
            idlers.idle_connections(port, b"PING\n", b"OK pong", 2),
        ):
            raise AssertionError("it held them")
        server.join()


def test_growth_is_the_highest_that_was_seen_of_the_worst_of_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {1: [10, 70, 20], 2: [10, 30, 30], 3: [5, 5, 4]}

    def look(pid: int) -> tuple[int, int]:
        return (own[pid].pop(0) if len(own[pid]) > 1 else own[pid][0]), 0

    monkeypatch.setattr(watching, "memory_bytes", look)
    with watching.Memory({"nodes": [1, 2], "balancer": [3], "none": []}) as memory:
        while len(own[1]) > 1:
            pass
    assert memory.growth == {"nodes": 60, "balancer": 0, "none": 0}


# --- what is chosen ----------------------------------------------------------------------------------------------


def test_peers_are_chosen_by_name_or_by_group_without_repetition() -> None:
    assert chosen("huey,beanstalkd-f0,huey-redis") == ("huey-sqlite", "huey-redis", "beanstalkd-f0")
    assert chosen("none") == ()
    assert OURS not in chosen("all")
    assert len(chosen("all")) == len(CATALOGUE) - 1


def test_an_unknown_peer_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"PEERS=slurm is no peer; there are .*beanstalkd.*xargs, all and none"):
        chosen("huey,slurm")


def test_measures_are_chosen_by_name() -> None:
    assert {take.measure for take in selected(FULL, "noop,trip")} == {"noop", "trip"}
    assert quantities(selected(FULL, "all")) == quantities(takes(FULL))
    with pytest.raises(ValueError, match=r"ONLY=speed is no measure; there are trip, .*backlog, and all"):
        selected(FULL, "speed")


def test_every_quantity_has_a_key_of_its_own_and_stands_in_for_one_that_exists() -> None:
    for scale in (FULL, SMALL):
        every = quantities(takes(scale))
        keys = [quantity.key for quantity in every]
        assert len(set(keys)) == len(keys)
        assert {quantity.stands_in for quantity in every} - {""} <= set(keys)
        assert {quantity.measure for quantity in every} == set(measures())


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


def measured(figures: Mapping[tuple[str, str], float]) -> Result:
    """A run with every quantity of the full scale, the systems of the catalogue and the yardsticks."""
    systems = [Measured(e.name, e.title, e.durability, e.durable) for e in CATALOGUE.values()]
    values = tuple(Figure(key, system, (value,)) for (key, system), value in figures.items())
    everybody = (*systems, COMMIT, COMMITS, SPAWN_C, POOL)
    return Result("today", {}, 1, quantities(takes(FULL)), everybody, values, ())


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
    publish.publish(results, document)
    assert [path.name for path in sorted((tmp_path / "speed").iterdir())] == ["makespan.png", "results.json"]
    assert load(tmp_path / "speed" / "results.json") == load(results)
    assert publish.between(document.read_text()) == publish.published(tmp_path / "speed")
    assert "### Bars" in document.read_text()
    assert "![makespan](speed/makespan.png)" in document.read_text()


# --- the guard ---------------------------------------------------------------------------------------------------


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


# --- a system and its driver --------------------------------------------------------------------------------------


class Pretended(System):
    """Takes a second for each submission; its second queue breaks."""

    def submit(self, count: int, clients: int) -> float:
        return float(count)

    def done(self) -> int:
        raise KeyError("queue")


def test_a_driver_answers_with_a_value_a_reason_or_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    system = Pretended()
    assert answer(system, {"call": "submit", "with": {"count": 3, "clients": 1}}) == {"value": 3.0}
    assert answer(system, {"call": "submit_bulk", "with": {"count": 3}}) == {
        "unsupported": "it has no call for many jobs"
    }
    assert answer(system, {"call": "done", "with": {}}) == {"failed": "KeyError: 'queue'"}
    assert "KeyError" in capsys.readouterr().err


def test_a_driver_is_not_asked_for_what_is_not_a_measure() -> None:
    assert answer(Pretended(), {"call": "__init__", "with": {}}) == {"unsupported": "it is not asked this"}
    assert answer(Pretended(), {"call": "idle_nodes", "with": {}}) == {"unsupported": "it is not asked this"}


def test_what_has_no_process_uses_no_processor() -> None:
    told = {"unsupported": "it has no process of its own that stays"}
    assert answer(Pretended(), {"call": "processor_s", "with": {}}) == told


# --- the wire ----------------------------------------------------------------------------------------------------


def test_the_length_of_a_body_is_read_from_the_reply_of_either_server() -> None:
    def size(dialect: Dialect, line: bytes) -> int:
        return dialect.body_bytes(line)

    assert size(DIALECT, b"OK k3f7qa-1 state=succeeded bytes=3\n") == 4
    assert size(DIALECT, b"OK k3f7qa-1\n") == 0
    assert size(TALKS, b"RESERVED 12 5\r\n") == 7
    assert size(TALKS, b"INSERTED 12\r\n") == 0
