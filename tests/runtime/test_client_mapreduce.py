"""`map_reduce` of both clients, against a cluster in miniature that calls what it is sent, or as the test says.

That it survives the death of balancer and nodes is held by `tests/system/test_word_frequencies.py`.
"""

import functools
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import cloudpickle
import pytest
import trio

from jobyard import Client, Conflict, JobFailed, NotAllSubmitted, graphs, mapreduce
from jobyard.aio import AsyncClient
from jobyard.futures import RemoteTraceback
from jobyard.travelling import stable_hash
from tests.runtime.both_clients import Connect
from tests.runtime.fake_cluster import End, FakeCluster, FakeJob
from tests.runtime.shell import interrupted

WORKER: Final = """
import sys
sys.modules["jobyard"] = None  # it is not there
import io, pickle, cloudpickle
stdin = sys.stdin.buffer
function, args, kwargs = pickle.load(stdin)
sys.stdout.buffer.write(cloudpickle.dumps(function(*args, **kwargs)))
"""


def called(job: FakeJob) -> End:
    """A call that is made in this process, with its own standard input."""
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BufferedReader(io.BytesIO(job.body)))  # type: ignore[arg-type]
    try:
        function, args, kwargs = pickle.load(sys.stdin.buffer)
        return End(0, cloudpickle.dumps(function(*args, **kwargs)))
    except Exception as error:  # noqa: BLE001  as a worker does
        return End(1, cloudpickle.dumps(error), b"Traceback: here", reason="exception")
    finally:
        sys.stdin = stdin


def called_elsewhere(job: FakeJob) -> End:
    """The same in a process of its own, to which this package cannot be imported."""
    done = subprocess.run([sys.executable, "-c", WORKER], input=job.body, capture_output=True, check=False)
    return End(done.returncode, done.stdout, done.stderr)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapreduce, "PIECE_S", 0.3)
    monkeypatch.setattr(mapreduce, "GLANCE_S", 0.02)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(called) as cluster:
        yield cluster


def square(number: int) -> int:
    return number * number


def words(text: str) -> list[tuple[str, int]]:
    return [(word, 1) for word in text.split()]


def total(word: str, counts: list[int]) -> int:
    return sum(counts)


def refuse(number: int) -> int:
    if number == 3:
        raise LookupError(f"not {number}")
    return number


def jobs_of(cluster: FakeCluster, what: str) -> list[FakeJob]:
    return [job for job in cluster.jobs.values() if f".{what}" in job.options["key"]]


# --- values ------------------------------------------------------------------------------------------------------


def test_the_reduce_gets_all_values_in_the_order_of_the_items(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        assert yard.map_reduce(square, list, range(1000)) == [number * number for number in range(1000)]
        assert yard.map_reduce(lambda text: text + "!", "".join, iter("abc")) == "a!b!c!"
        assert yard.map_reduce(square, len, []) == 0


def test_each_key_is_reduced_once_whoever_has_it(connect: Connect, cluster: FakeCluster) -> None:
    texts = ["a b a", "b c", "", "a"]
    with connect(cluster.url) as yard:
        for reducers in (1, 2, 7):
            counts = yard.map_reduce_by_key(words, total, texts, chunk_size=1, reducers=reducers)
            assert counts == {"a": 3, "b": 2, "c": 1}
        assert yard.map_reduce_by_key(words, lambda key, values: (key, values), []) == {}


def test_values_of_a_key_come_in_the_order_of_the_items(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        got = yard.map_reduce_by_key(
            lambda n: [(n % 3, n)], lambda key, values: values, range(30), chunk_size=4, reducers=2
        )
    assert got == {key: list(range(key, 30, 3)) for key in range(3)}


def test_what_travels_needs_nothing_of_ours_where_it_runs(connect: Connect) -> None:
    with FakeCluster(called_elsewhere) as cluster, connect(cluster.url) as yard:
        assert yard.map_reduce(lambda number: number + 1, sum, [1, 2], chunk_size=1) == 5
        counted = yard.map_reduce_by_key(lambda text: [(text, 1)], lambda key, ones: sum(ones), "aba", reducers=2)
        assert counted == {"a": 2, "b": 1}


def test_results_of_maps_do_not_travel_through_the_client(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        assert yard.map_reduce(square, sum, range(10), chunk_size=2) == 285
    (reduce,) = jobs_of(cluster, "reduce")
    asked = [line.split()[-1] for line in cluster.heard if line.startswith(("RESULT", "WAIT"))]
    assert set(asked) == {reduce.ticket}


# --- chunks and jobs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "size", "chunks"), [(3, None, 3), (256, None, 256), (1000, None, 250), (10, 4, 3)])
def test_items_go_in_chunks(connect: Connect, cluster: FakeCluster, items: int, size: int | None, chunks: int) -> None:
    with connect(cluster.url) as yard:
        assert yard.map_reduce(square, len, range(items), chunk_size=size) == items
    assert len(jobs_of(cluster, "map")) == chunks


def test_more_chunks_than_a_job_may_read_are_gathered_by_levels(
    connect: Connect, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapreduce, "INPUTS_MAX", 3)
    monkeypatch.setattr(mapreduce, "in_groups", functools.partial(graphs.in_groups, most=3))
    with connect(cluster.url) as yard:
        assert yard.map_reduce(square, list, range(20), chunk_size=1) == [number * number for number in range(20)]
        counts = yard.map_reduce_by_key(words, total, ["a b"] * 11, chunk_size=1, reducers=3)
    assert counts == {"a": 11, "b": 11}
    assert max(len(job.options.get("input", "").split(",")) for job in cluster.jobs.values()) == 3
    assert {len(jobs_of(cluster, f"gather{level}")) for level in (1, 2)} != {0}


def test_jobs_are_calls_with_a_name_for_people_a_group_and_the_options(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        yard.map_reduce(square, sum, [1, 2], group="squares", retries=2, timeout_s=60)
    lines = [job.line.rpartition(".")[2] for job in cluster.jobs.values()]
    assert lines == ["square", "square", "sum"]
    assert {job.kind for job in cluster.jobs.values()} == {"call"}
    assert {job.options["group"] for job in cluster.jobs.values()} == {"squares"}
    assert {(job.options["retries"], job.options["timeout"]) for job in cluster.jobs.values()} == {("2", "60")}


@pytest.mark.parametrize("wrong", [{"chunk_size": 0}, {"reducers": 0}, {"reducers": 1001}])
def test_sizes_that_cannot_be_are_refused_before_anything_is_asked(
    connect: Connect, deaf_url: str, wrong: dict[str, int]
) -> None:
    with connect(deaf_url) as yard, pytest.raises(ValueError, match=next(iter(wrong))):
        yard.map_reduce_by_key(words, total, ["a"], **wrong)


# --- keys of pairs -------------------------------------------------------------------------------------------------


def test_equal_keys_have_one_hash() -> None:
    assert len({stable_hash(key) for key in (1, 1.0, True, Fraction(1), Decimal(1))}) == 1
    assert stable_hash(frozenset("abc")) == stable_hash(frozenset("cba"))
    assert stable_hash(("a", 1)) == stable_hash(("a", 1.0))
    different = ["1", b"1", 1, None, ("1",), ("1", "1"), ("11",), frozenset(["1"]), "", ()]
    assert len({stable_hash(key) for key in different}) == len(different)


def test_a_key_has_its_hash_in_every_process() -> None:
    keys = ["word", b"word", 7, 0.5, None, ("a", ("b", 1)), frozenset("abc")]
    program = f"from jobyard.travelling import stable_hash; print(*map(stable_hash, {keys!r}))"
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(stable_hash(key)) for key in keys]


def test_a_key_without_a_stable_hash_is_refused_where_it_would_matter(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        with pytest.raises(TypeError, match="a key is a str"):
            yard.map_reduce_by_key(lambda n: [(range(n), n)], total, [1], reducers=2)
        assert yard.map_reduce_by_key(lambda n: [(range(n), n)], total, [1], reducers=1) == {range(1): 1}


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_the_exception_of_a_map_ends_the_whole_and_the_rest_is_cancelled(connect: Connect) -> None:
    def runs(job: FakeJob) -> End | None:
        return called(job) if job.number == 4 else None  # the others go on

    with FakeCluster(runs) as cluster, connect(cluster.url) as yard:
        with pytest.raises(LookupError, match="not 3") as raised:
            yard.map_reduce(refuse, sum, range(6), chunk_size=1, group="doomed")
        assert isinstance(raised.value.__cause__, RemoteTraceback)
        assert not cluster.live
    assert "CANCEL group=doomed" in cluster.heard


def test_the_exception_of_a_reduce_is_raised(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard, pytest.raises(TypeError, match="unsupported operand"):
        yard.map_reduce(str, sum, range(3))


def test_a_call_that_was_killed_says_how(connect: Connect) -> None:
    with FakeCluster(lambda job: End(137, reason="memory")) as cluster, connect(cluster.url) as yard:
        error = _raised_by(lambda: yard.map_reduce(square, sum, range(3)))
    assert isinstance(error, JobFailed)
    assert error.outcome.reason == "memory"


def _raised_by(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011  it is looked at by whoever asks
        call()
    return raised.value


def test_where_nobody_failed_the_cluster_is_asked_why(connect: Connect) -> None:
    def runs(job: FakeJob) -> End:
        return End(state="cancelled", reason="dependency") if job.line.endswith("sum") else called(job)

    with FakeCluster(runs) as cluster, connect(cluster.url) as yard:
        error = _raised_by(lambda: yard.map_reduce(square, sum, range(3)))
    assert isinstance(error, JobFailed)
    assert "this is why of k-4" in str(error)


def test_a_chunk_that_did_not_arrive_is_an_error_and_no_answer(connect: Connect) -> None:
    with FakeCluster(called) as cluster, connect(cluster.url) as yard:
        cluster._output = lambda ticket: b""  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="0 of 3 chunks came"):
            yard.map_reduce(square, sum, range(3))


def test_a_node_that_refuses_leaves_nothing_behind(connect: Connect) -> None:
    with FakeCluster(lambda job: None, full_at=2) as cluster, connect(cluster.url) as yard:
        with pytest.raises(NotAllSubmitted, match="no room"):
            yard.map_reduce(square, sum, range(5))
        assert not cluster.live


# --- taken up again ------------------------------------------------------------------------------------------------


def test_under_a_key_the_same_call_submits_nothing_twice(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        for _ in range(2):
            assert yard.map_reduce(square, sum, range(10), chunk_size=2, key="squares") == 285
    assert len(cluster.jobs) == 6
    assert sum(line.startswith("SUBMIT") for line in cluster.heard) == 6


def test_what_was_half_submitted_is_taken_up_even_where_its_pickles_differ(connect: Connect) -> None:
    with FakeCluster(called) as cluster:
        with connect(cluster.url) as yard:
            yard.map_reduce(square, sum, range(10), chunk_size=2, key="squares")
        last = cluster.jobs.popitem()[1]
        del cluster._by_key[last.options["key"]]  # as if it had not been submitted
        for job in cluster.jobs.values():
            job.line = "pickled in another process"
        with connect(cluster.url) as yard:
            assert yard.map_reduce(square, sum, range(10), chunk_size=2, key="squares") == 285
    assert len(cluster.jobs) == 6


def test_two_that_begin_the_same_at_once_share_its_jobs(connect: Connect) -> None:
    """The other has been quicker between our look and our submission."""

    def runs(job: FakeJob) -> End:
        job.line = "pickled in another process"
        return called(job)

    with FakeCluster(runs) as cluster:
        with Client(cluster.url) as first:
            assert first.map_reduce(square, sum, range(3), key="squares") == 5
        listed = cluster._on_list
        empty = iter([b"OK count=0 bytes=0\n\n"])
        cluster._on_list = lambda *asked: next(empty, None) or listed(*asked)  # type: ignore[method-assign]
        with connect(cluster.url) as yard:
            assert yard.map_reduce(square, sum, range(3), key="squares") == 5
        assert len(cluster.jobs) == 4


def test_a_key_of_a_call_of_other_sizes_or_another_kind_is_a_conflict(connect: Connect, cluster: FakeCluster) -> None:
    with connect(cluster.url) as yard:
        yard.map_reduce(square, sum, range(10), key="squares")
        with pytest.raises(Conflict, match="other sizes"):
            yard.map_reduce(square, sum, range(11), key="squares")
        with pytest.raises(Conflict, match="another kind"):
            yard.map_reduce_by_key(words, total, range(10), key="squares", reducers=1, group="mapreduce-squares")
    assert len(cluster.jobs) == 11


# --- whoever waits is stopped ----------------------------------------------------------------------------------------


def test_ctrl_c_cancels_what_nobody_could_take_up_and_leaves_what_has_a_key() -> None:
    for key, live in ((None, 0), ("kept", 3)):
        with FakeCluster(lambda job: None) as cluster, Client(cluster.url) as yard:
            pressed = interrupted(_when_watched(cluster), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                yard.map_reduce(square, sum, [1, 2], key=key)
            pressed.join()
            assert len(cluster.live) == live


async def test_a_task_that_is_cancelled_cancels_what_nobody_could_take_up() -> None:
    for key, live in ((None, 0), ("kept", 3)):
        with FakeCluster(lambda job: None) as cluster:
            async with AsyncClient(cluster.url) as yard, trio.open_nursery() as nursery:
                nursery.start_soon(functools.partial(yard.map_reduce, square, sum, [1, 2], key=key))
                await trio.to_thread.run_sync(_when_watched(cluster))
                nursery.cancel_scope.cancel()
            assert len(cluster.live) == live


def _when_watched(cluster: FakeCluster) -> Callable[[], Any]:
    return lambda: cluster.until(lambda: any(line.startswith("WATCH") for line in cluster.heard))


def test_a_call_goes_on_while_the_balancer_is_away(connect: Connect, cluster: FakeCluster) -> None:
    watch = cluster._on_watch
    away = iter([b"ERR UNAVAILABLE the balancer is away\n"] * 3)
    cluster._on_watch = lambda *asked: next(away, None) or watch(*asked)  # type: ignore[method-assign]
    with connect(cluster.url) as yard:
        assert yard.map_reduce(square, sum, range(3)) == 5
