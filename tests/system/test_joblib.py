"""The joblib backend, with real joblib, a real cluster, and a grid search of scikit-learn as its users run it."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cloudpickle
import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import jobyard.joblib
from examples.local_cluster import LocalCluster
from jobyard import Client
from jobyard.futures import RemoteTraceback
from jobyard.joblib import JobyardBackend
from tests.system.client import until
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

SLOTS: Final = 2
ENDED: Final = {"succeeded", "failed", "cancelled"}

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes do not have our tests

# --- what is called on the nodes -------------------------------------------------------------------------------


def square(number: int) -> int:
    return number * number


def variable(name: str) -> str | None:
    return os.environ.get(name)


def fail_at(number: int, bad: int, gate: str) -> int:
    if number == bad:
        raise LookupError(f"no {number} here")
    return wait_at(gate)


def wait_at(gate: str) -> int:
    Path(f"{gate}.{os.urandom(8).hex()}").touch()
    ends_at = time.monotonic() + 60
    while not os.path.exists(gate):
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    return 0


def squares_within(number: int) -> tuple[list[int], str]:
    """A Parallel inside a call, and which backend it had."""
    inner = Parallel(n_jobs=2)
    return inner(delayed(square)(each) for each in range(number)), type(inner._backend).__name__


# --- the cluster -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(start_cluster_of_module: StartCluster) -> str:
    cluster: LocalCluster = start_cluster_of_module(nodes=2, slots=SLOTS // 2)
    return ",".join(map(cluster.url, cluster.node_names))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    jobyard.joblib.register()
    yield
    del joblib.parallel.BACKENDS["jobyard"]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    gate = tmp_path / "gate"
    yield gate
    gate.touch()


def states(url: str, group: str) -> list[str]:
    with Client(url) as yard:
        return [job.state for job in yard.list(group=group, limit=10_000)]


def test_calls_give_their_values_in_order_from_the_nodes(url: str) -> None:
    with parallel_config("jobyard", url=url, group="order"):
        assert Parallel()(delayed(square)(number) for number in range(20)) == [n * n for n in range(20)]
        names = Parallel()(delayed(variable)("JOBYARD_NODE") for _ in range(8))
    assert set(names) <= {"node1", "node2"}
    assert set(states(url, "order")) == {"succeeded"}


def test_there_are_as_many_workers_as_slots(url: str) -> None:
    with parallel_config("jobyard", url=url):
        assert joblib.effective_n_jobs() == SLOTS
        assert joblib.effective_n_jobs(-2) == SLOTS - 1
        assert joblib.effective_n_jobs(7) == 7
        with pytest.raises(ValueError, match="no meaning"):
            joblib.effective_n_jobs(0)


def test_one_worker_is_the_caller(url: str) -> None:
    with parallel_config("jobyard", url=url):
        assert Parallel(n_jobs=1)(delayed(os.getpid)() for _ in range(3)) == [os.getpid()] * 3


def test_small_calls_share_a_job(url: str) -> None:
    with parallel_config("jobyard", url=url, group="small"):
        assert Parallel()(delayed(square)(number) for number in range(2000)) == [n * n for n in range(2000)]
    assert len(states(url, "small")) < 500


def test_closures_and_arrays_travel(url: str) -> None:
    data = np.arange(300_000).reshape(1000, 300)
    with parallel_config("jobyard", url=url):
        sums = Parallel()(delayed(lambda row: int((data[row] * 2).sum()))(row) for row in (0, 7, 999))
    assert sums == [int(data[row].sum()) * 2 for row in (0, 7, 999)]


def test_an_exception_is_raised_with_its_remote_traceback_and_the_others_are_killed(url: str, gate: Path) -> None:
    with parallel_config("jobyard", url=url, group="failing"):
        with pytest.raises(LookupError, match="no 3 here") as caught:
            Parallel(n_jobs=8)(delayed(fail_at)(number, bad=3, gate=str(gate)) for number in (3, *range(6)))
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in fail_at" in str(caught.value.__cause__)
        until("nothing of it lives", lambda: set(states(url, "failing")) <= ENDED)
        assert "cancelled" in states(url, "failing")
        assert Parallel()(delayed(square)(number) for number in range(3)) == [0, 1, 4], "the backend goes on"


def test_a_parallel_that_takes_too_long_is_killed(url: str, gate: Path) -> None:
    with parallel_config("jobyard", url=url, group="slow"):
        with pytest.raises(multiprocessing.TimeoutError):
            Parallel(timeout=0.5)(delayed(wait_at)(str(gate)) for _ in range(3))
        until("nothing of it lives", lambda: set(states(url, "slow")) <= ENDED)


def test_values_come_as_they_are_asked_for(url: str) -> None:
    with parallel_config("jobyard", url=url):
        values = Parallel(return_as="generator")(delayed(square)(number) for number in range(10))
        assert [next(values) for _ in range(3)] == [0, 1, 4]
        assert sum(values) == 285 - 5
        unordered = Parallel(return_as="generator_unordered")(delayed(square)(number) for number in range(10))
        assert sorted(unordered) == [number * number for number in range(10)]


def test_a_parallel_inside_a_call_stays_in_its_job(url: str) -> None:
    with parallel_config("jobyard", url=url, group="nested"):
        outer = Parallel(n_jobs=2)(delayed(squares_within)(number) for number in (2, 3))
    assert outer == [([0, 1], "SequentialBackend"), ([0, 1, 4], "SequentialBackend")]
    assert len(states(url, "nested")) == 2


def test_numeric_libraries_are_told_how_many_threads_they_have(url: str) -> None:
    def threads(**config: Any) -> list[str | None]:
        with parallel_config("jobyard", url=url, **config):
            values: list[str | None] = Parallel(n_jobs=2)(delayed(variable)("OMP_NUM_THREADS") for _ in range(2))
        return values

    assert threads() == ["1", "1"]
    assert threads(inner_max_num_threads=3) == ["3", "3"]
    assert threads(env={"OMP_NUM_THREADS": "5"}) == ["5", "5"]


def test_a_call_inside_a_job_with_several_slots_may_use_threads() -> None:
    nested, n_jobs = JobyardBackend(slots=4).get_nested_backend()
    assert (type(nested).__name__, nested.nesting_level, n_jobs) == ("ThreadingBackend", 1, 4)


def test_a_grid_search_of_scikit_learn_finds_what_it_finds_here(url: str) -> None:
    data, target = load_iris(return_X_y=True)
    grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.01, 0.1]}
    here = GridSearchCV(SVC(), grid, cv=3).fit(data, target)
    with parallel_config("jobyard", url=url, group="search"):
        there = GridSearchCV(SVC(), grid, cv=3).fit(data, target)
    assert there.best_params_ == here.best_params_
    assert np.array_equal(there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])
    assert states(url, "search"), "it was the cluster that searched"
