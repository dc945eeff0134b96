"""Workloads: the same from the same seed, in the shapes that were asked for, and played when their moments come."""

import hashlib
import itertools
import json
import math
import random
import statistics
from pathlib import Path

import pytest

from jobyard import workload
from jobyard.client import Client
from jobyard.playing import play
from jobyard.workload import YACS, Recipe, Request, generate, read
from tests.runtime.fake_cluster import FakeCluster
from tests.runtime.shell import Shell

# Of the bytes; another version of Python, or another machine, that made others would break every comparison.
GOLDEN = {
    "--yacs": "88d00eace1bc04d6e1a1",
    "--arrivals poisson:3 --durations exponential:4": "50b793c5e4f1270de876",
    "--arrivals bursts:20:10 --durations pareto:1.5:1:5.6 --maps 1-3": "fa6d0e070afcc4720fb3",
}


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


def requests(recipe: Recipe, count: int = 2000, seed: int = 1) -> list[Request]:
    return list(generate(count, seed, recipe))


def durations(how: str, count: int = 4000) -> list[float]:
    draw = random.Random(5).random
    distribution = workload.distribution_of(how)
    return [distribution(draw) for _ in range(count)]


# --- the same again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", GOLDEN)
def test_the_same_words_make_the_same_bytes_with_every_version_of_python(jobyard: Shell, words: str) -> None:
    assert jobyard("tcp://nobody:1", "generate", "200", "--seed", "7", *words.split()) == 0
    assert hashlib.sha256(jobyard.out).hexdigest()[:20] == GOLDEN[words]


def test_only_the_method_whose_stream_is_guaranteed_is_asked_for_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    real = random.Random

    class OnlyRandom:
        def __init__(self, seed: int) -> None:
            self.random = real(seed).random

    expected = requests(YACS, 50)
    monkeypatch.setattr(random, "Random", OnlyRandom)
    assert requests(YACS, 50) == expected


def test_another_seed_makes_another_workload_and_a_longer_one_begins_alike() -> None:
    assert requests(YACS, 50, seed=1) != requests(YACS, 50, seed=2)
    assert requests(YACS, 80)[:50] == requests(YACS, 50)


def test_other_arrivals_change_no_duration() -> None:
    shapes = [
        [(request.maps_s, request.reduces_s) for request in requests(Recipe(arrivals, YACS.durations, (1, 4), (1, 2)))]
        for arrivals in (workload.at_once, workload.poisson(5), workload.bursts(10, 2.0))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


# --- the shapes --------------------------------------------------------------------------------------------------


def test_the_shape_of_yacs_is_that_of_its_generator() -> None:
    made = requests(YACS)
    assert {len(request.maps_s) for request in made} == {1, 2, 3, 4}
    assert {len(request.reduces_s) for request in made} == {1, 2}
    assert {seconds for request in made for seconds in (*request.maps_s, *request.reduces_s)} == {1.0, 2.0, 3.0, 4.0}
    assert made[-1].at_s / len(made) == pytest.approx(1.0, rel=0.05)


def test_poisson_arrivals_have_waits_with_the_spread_of_an_exponential() -> None:
    moments = [request.at_s for request in requests(Recipe(workload.poisson(4), workload.constant(1)))]
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert statistics.fmean(waits) == pytest.approx(0.25, rel=0.05)
    assert statistics.stdev(waits) == pytest.approx(0.25, rel=0.1)


def test_bursts_come_together() -> None:
    made = requests(Recipe(workload.bursts(3, 10.0), workload.constant(1)), 8)
    assert [request.at_s for request in made] == [0, 0, 0, 10, 10, 10, 20, 20]


def test_durations_have_the_distribution_that_was_asked_for() -> None:
    assert set(durations("constant:2.5")) == {2.5}
    assert set(durations("whole:2-3")) == {2.0, 3.0}
    exponential = durations("exponential:4")
    assert statistics.fmean(exponential) == pytest.approx(4.0, rel=0.05)
    assert statistics.median(exponential) == pytest.approx(4.0 * math.log(2), rel=0.05)
    pareto = durations("pareto:1.5:2")
    assert min(pareto) >= 2.0
    assert statistics.median(pareto) == pytest.approx(2.0 * 2 ** (1 / 1.5), rel=0.05)
    assert max(durations("pareto:1.5:2:9")) == 9.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["5", "--durations", "normal:3"], "'normal:3' is no distribution"),
        (["5", "--durations", "constant:-1"], "'-1' is no number above 0"),
        (["5", "--durations", "exponential:inf"], "'inf' is no number above 0"),
        (["5", "--durations", "pareto:1.5:4:2"], "is less than the least"),
        (["5", "--arrivals", "bursts:0:3"], "no arrival process"),
        (["5", "--maps", "0-3"], "goes from 1 or more"),
        (["5", "--reduces", "3-2"], "does not go down"),
        (["5", "--submit", "--output", "x"], "give one of them"),
        ([], "how many requests?"),
    ],
)  # fmt: skip
def test_what_makes_no_workload_is_refused_with_a_sentence(jobyard: Shell, words: list[str], said: str) -> None:
    assert jobyard("tcp://nobody:1", "generate", *words) != 0
    assert said in jobyard.err.decode()
    assert not jobyard.out


# --- traces ------------------------------------------------------------------------------------------------------


def test_a_workload_that_was_written_is_read_as_it_was(jobyard: Shell, tmp_path: Path) -> None:
    path = tmp_path / "yacs.jsonl"
    assert jobyard("tcp://nobody:1", "generate", "30", "--yacs", "--output", str(path)) == 0
    assert not jobyard.out
    assert jobyard("tcp://nobody:1", "generate", "--arrivals", f"trace:{path}") == 0
    assert jobyard.out == path.read_bytes()
    assert jobyard("tcp://nobody:1", "generate", "2", "--arrivals", f"trace:{path}") == 0
    assert jobyard.lines == path.read_text().splitlines()[:2]


def test_a_trace_of_moments_gets_tasks_of_the_seed(jobyard: Shell, tmp_path: Path) -> None:
    (tmp_path / "moments").write_text("2.5\n\n0\n1\n")
    words = ["generate", "--arrivals", f"trace:{tmp_path / 'moments'}", "--durations", "constant:3"]
    assert jobyard("tcp://nobody:1", *words) == 0
    assert [json.loads(line) for line in jobyard.lines] == [{"at_s": at_s, "maps_s": [3.0]} for at_s in (0, 1, 2.5)]


def test_jobs_as_yacs_takes_them_come_a_second_apart() -> None:
    line = {
        "job_id": "0",
        "map_tasks": [{"task_id": "0_M0", "duration": 4}, {"task_id": "0_M1", "duration": 3}],
        "reduce_tasks": [{"task_id": "0_R0", "duration": 2}],
    }
    found, moments = read([json.dumps(line), json.dumps(line | {"reduce_tasks": []})])
    assert found == [Request(0.0, (4.0, 3.0), (2.0,)), Request(1.0, (4.0, 3.0), ())]
    assert moments == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1", "x"], "line 2 of the trace"),
        (['{"at_s": 1}'], "it has no 'maps_s'"),
        (['{"at_s": -1, "maps_s": [1]}'], "-1 is no number of seconds"),
        (['{"maps_s": []}'], "has 1 to 1000 maps, and this one 0"),
        (["true"], "True is no number"),
        (["1", '{"maps_s": [1]}'], "has both"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_by_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(ValueError, match="trace") as refused:
        read(lines)
    assert said in str(refused.value)


# --- played ------------------------------------------------------------------------------------------------------


class Clock:
    """Time passes only by sleeping, and by what submitting is said to take."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_each_request_is_submitted_at_its_moment_and_reduces_wait_for_its_maps() -> None:
    clock = Clock()
    work = [Request(0.0, (1.0, 2.0), (0.25,)), Request(0.0, (3.0,)), Request(2.5, (4.0,), (5.0, 6.0))]
    with FakeCluster() as cluster, Client(cluster.url) as client:
        played = list(play(client, work, "load", clock=clock, sleep=clock.sleep))
    assert clock.slept == [0.0, 2.5]
    assert cluster.heard == [
        "SUBMIT name=map group=load-1 sleep 1",
        "SUBMIT name=map group=load-1 sleep 2",
        "SUBMIT name=map group=load-2 sleep 3",
        "SUBMIT name=reduce group=load-1 after=k-1,k-2 sleep 0.25",
        "SUBMIT name=map group=load-3 sleep 4",
        "SUBMIT name=reduce group=load-3 after=k-5 sleep 5",
        "SUBMIT name=reduce group=load-3 after=k-5 sleep 6",
    ]
    assert [(one.maps, one.reduces, one.late_s) for one in played] == [
        (("k-1", "k-2"), ("k-4",), 0.0),
        (("k-3",), (), 0.0),
        (("k-5",), ("k-6", "k-7"), 0.0),
    ]


def test_who_plays_late_leaves_nothing_out_and_says_by_how_much() -> None:
    clock = Clock()
    work = [Request(0.0, (1.0,)), Request(1.0, (1.0,)), Request(2.0, (1.0,))]
    with FakeCluster() as cluster, Client(cluster.url) as client:
        playing = play(client, work, "load", clock=clock, sleep=clock.sleep)
        assert next(playing).late_s == 0.0
        clock.now += 4.0  # the cluster was slow to answer
        assert [played.late_s for played in playing] == [3.0, 2.0]
    assert len(cluster.jobs) == 3


def test_submit_prints_the_tickets_of_each_request_and_a_summary(jobyard: Shell) -> None:
    with FakeCluster() as cluster:
        assert jobyard(cluster.url, "generate", "3", "--maps", "2", "--reduces", "1", "--submit") == 0
        assert [line.split()[1:] for line in jobyard.lines] == [
            ["k-1", "k-2", "k-7"], ["k-3", "k-4", "k-8"], ["k-5", "k-6", "k-9"]
        ]  # fmt: skip
        assert b"9 jobs of 3 requests" in jobyard.err
        assert jobyard(cluster.url, "generate", "1", "--submit", "--json") == 0
        (told,) = map(json.loads, jobyard.lines)
        assert told["maps"] == ["k-10"]
        assert "reduces" not in told
