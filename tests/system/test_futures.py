"""JobyardExecutor held to what `concurrent.futures` documents: the same tests run with the standard library's own two.

And what only a cluster can show: that nothing is lost with a node, and what became of jobs that were killed.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cloudpickle
import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client, JobFailed
from jobyard.futures import JobyardExecutor, JobyardFuture
from tests.system.client import until
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

PATIENCE_S: Final = 30.0
MOMENT_S: Final = 0.1
WORKERS: Final = 2  # of each executor: calls that run at once

MakeExecutor = Callable[[], Executor]

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes do not have our tests

# --- what is called, wherever that is --------------------------------------------------------------------------


def double(number: int) -> int:
    return 2 * number


def add(one: int, *, other: int = 0) -> int:
    return one + other


def fail(text: str) -> None:
    raise LookupError(text)


def pass_gate(path: str, value: Any = None) -> Any:
    """Leaves a file beside the gate when it has come there, and waits until the gate is open."""
    Path(f"{path}.{os.urandom(8).hex()}").touch()
    ends_at = time.monotonic() + PATIENCE_S
    while not os.path.exists(path):
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    return value


class Gate:
    """Calls wait at it until it is opened."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "gate"
        self.call = partial(pass_gate, str(self._path))

    def open(self) -> None:
        self._path.touch()

    def came(self) -> int:
        """How many calls have come to it."""
        return len(list(self._path.parent.glob("gate.*")))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


# --- the executors ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(nodes=2, slots=WORKERS // 2)


@pytest.fixture(scope="module", params=["threads", "processes", "jobyard"])
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    """Makes an executor of the standard library, or ours."""
    if request.param == "threads":
        return partial(ThreadPoolExecutor, WORKERS)
    if request.param == "processes":
        return partial(ProcessPoolExecutor, WORKERS, mp_context=get_context("spawn"))
    return partial(JobyardExecutor, _url(request.getfixturevalue("cluster")))


def _url(cluster: LocalCluster) -> str:
    return ",".join(map(cluster.url, cluster.node_names))


@pytest.fixture(scope="module")
def yard(cluster: LocalCluster) -> Iterator[Client]:
    with Client(_url(cluster)) as yard:
        yield yard


@pytest.fixture(scope="module")
def shared(make: MakeExecutor) -> Iterator[Executor]:
    with make() as executor:
        yield executor


@pytest.fixture
def executor(shared: Executor, gate: Gate) -> Executor:
    """For tests that do not shut it down; their calls end with the gate."""
    return shared


@pytest.fixture
def busy(executor: Executor, gate: Gate) -> list[Future[Any]]:
    """Calls that wait at the gate, so many that the last have not begun, and will not before it is open."""
    futures = [executor.submit(gate.call, number) for number in range(WORKERS + 4)]
    until("the workers are busy", lambda: gate.came() == WORKERS)
    return futures


# --- submit and result -----------------------------------------------------------------------------------------


def test_a_call_gives_its_value(executor: Executor) -> None:
    future = executor.submit(add, 1, other=2)
    assert future.result(PATIENCE_S) == 3
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def test_an_exception_is_raised_where_the_result_is_asked_for(executor: Executor) -> None:
    future = executor.submit(fail, "no such thing")
    with pytest.raises(LookupError, match="no such thing"):
        future.result(PATIENCE_S)
    error = future.exception()
    assert isinstance(error, LookupError)
    if not isinstance(executor, ThreadPoolExecutor):
        assert "in fail" in str(error.__cause__), "the cause is the remote traceback"


def test_a_result_that_is_not_there_in_time_can_be_asked_for_again(executor: Executor, gate: Gate) -> None:
    future = executor.submit(gate.call, 7)
    with pytest.raises(TimeoutError):
        future.result(MOMENT_S)
    with pytest.raises(TimeoutError):
        future.exception(MOMENT_S)
    assert not future.done()
    gate.open()
    assert future.result(PATIENCE_S) == 7


def test_what_cannot_be_pickled_fails_its_future(executor: Executor) -> None:
    if isinstance(executor, ThreadPoolExecutor):
        pytest.skip("threads need not pickle")
    assert isinstance(executor.submit(type, threading.Lock()).exception(PATIENCE_S), TypeError)
    assert executor.submit(double, 1).result(PATIENCE_S) == 2


def test_thousands_of_calls_are_carried(executor: Executor) -> None:
    futures = [executor.submit(double, number) for number in range(2000)]
    assert [future.result(2 * PATIENCE_S) for future in futures] == [2 * number for number in range(2000)]


def test_values_may_be_large(executor: Executor) -> None:
    data = os.urandom(5_000_000)
    assert executor.submit(bytes, data).result(PATIENCE_S) == data


def test_an_event_loop_may_use_it(executor: Executor) -> None:
    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, double, number) for number in range(5)))

    assert asyncio.run(both()) == [0, 2, 4, 6, 8]


# --- cancel ----------------------------------------------------------------------------------------------------


def test_what_has_not_begun_can_be_cancelled(busy: list[Future[Any]], gate: Gate, yard: Client) -> None:
    last = busy[-1]
    if isinstance(last, JobyardFuture):
        until("it is submitted", lambda: last.ticket)  # one that is not is never heard of by the cluster
    assert last.cancel()
    assert last.cancelled()
    assert last.done()
    assert not last.running()
    with pytest.raises(CancelledError):
        last.result()
    with pytest.raises(CancelledError):
        last.exception()
    assert last.cancel(), "again, it is cancelled"
    if isinstance(last, JobyardFuture):
        until("the cluster knows", lambda: yard.status(str(last.ticket)).state == "cancelled")
    gate.open()
    assert [future.result(PATIENCE_S) for future in busy[:-1]] == list(range(len(busy) - 1))
    assert gate.came() == len(busy) - 1, "it never ran"


def test_what_runs_or_is_done_cannot_be_cancelled(executor: Executor, gate: Gate) -> None:
    future = executor.submit(gate.call, 7)
    until("it runs", future.running)
    assert not future.cancel()
    gate.open()
    assert future.result(PATIENCE_S) == 7
    assert not future.cancel()
    assert not future.cancelled()


def test_who_waits_hears_of_a_cancel(busy: list[Future[Any]], gate: Gate) -> None:
    busy[-1].cancel()
    gate.open()
    assert set(as_completed(busy, PATIENCE_S)) == set(busy)
    assert wait(busy, PATIENCE_S) == (set(busy), set())


# --- callbacks -------------------------------------------------------------------------------------------------


def test_callbacks_are_called_once_in_their_order_with_the_future(executor: Executor, gate: Gate) -> None:
    called: list[tuple[str, Future[Any]]] = []
    over = threading.Event()
    future = executor.submit(gate.call)
    future.add_done_callback(lambda of: called.append(("first", of)))
    future.add_done_callback(lambda of: called.append(("second", of)))
    future.add_done_callback(lambda of: over.set())
    gate.open()
    assert over.wait(PATIENCE_S)
    future.add_done_callback(lambda of: called.append(("late", of)))
    assert called == [("first", future), ("second", future), ("late", future)]


def test_a_callback_that_raises_is_logged_and_holds_up_nobody(
    executor: Executor, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()
    future = executor.submit(gate.call, 7)
    future.add_done_callback(lambda of: fail("of the callback"))
    future.add_done_callback(lambda of: over.set())
    gate.open()
    assert over.wait(PATIENCE_S)
    assert future.result() == 7
    assert "of the callback" in caplog.text


def test_callbacks_are_called_when_a_call_is_cancelled(busy: list[Future[Any]]) -> None:
    called = []
    busy[-1].add_done_callback(called.append)
    busy[-1].cancel()
    assert called == [busy[-1]]


# --- wait and as_completed -------------------------------------------------------------------------------------


def test_wait_returns_with_the_first_that_is_done(busy: list[Future[Any]], executor: Executor, gate: Gate) -> None:
    assert wait(busy, MOMENT_S, FIRST_COMPLETED).done == set()
    gate.open()
    assert wait(busy, PATIENCE_S, FIRST_COMPLETED).done
    assert wait(busy, PATIENCE_S) == (set(busy), set())


def test_wait_returns_with_the_first_exception(executor: Executor, gate: Gate) -> None:
    held, failed = executor.submit(gate.call), executor.submit(fail, "now")
    assert wait([held, failed], PATIENCE_S, FIRST_EXCEPTION) == ({failed}, {held})


def test_as_completed_gives_each_once_as_they_end(executor: Executor, gate: Gate) -> None:
    held = executor.submit(gate.call, -1)
    quick = [executor.submit(double, number) for number in range(10)]
    completed = as_completed([held, *quick, *quick], PATIENCE_S)
    assert {next(completed) for _ in quick} == set(quick)
    gate.open()
    assert list(completed) == [held]


def test_as_completed_says_when_the_time_is_over(busy: list[Future[Any]]) -> None:
    with pytest.raises(TimeoutError):
        list(as_completed(busy, MOMENT_S))


# --- map -------------------------------------------------------------------------------------------------------


def test_map_gives_values_in_order(executor: Executor) -> None:
    assert list(executor.map(double, range(20), timeout=PATIENCE_S)) == [2 * number for number in range(20)]
    assert list(executor.map(pow, [2, 3, 4], [5, 2], timeout=PATIENCE_S)) == [32, 9], "as long as the shortest"


@pytest.mark.parametrize("chunksize", [1, 7, 100])
def test_map_may_put_several_calls_into_one(executor: Executor, chunksize: int) -> None:
    values = executor.map(double, range(20), timeout=PATIENCE_S, chunksize=chunksize)
    assert list(values) == [2 * number for number in range(20)]


def test_map_raises_what_a_call_raised_in_its_place(executor: Executor) -> None:
    values = executor.map(int, ["1", "2", "x", "4"], timeout=PATIENCE_S)
    assert (next(values), next(values)) == (1, 2)
    with pytest.raises(ValueError, match="invalid literal"):
        next(values)


def test_map_reads_its_arguments_at_once_and_says_when_the_time_is_over(executor: Executor, gate: Gate) -> None:
    rest = iter(range(3))
    values = executor.map(gate.call, rest, timeout=MOMENT_S)
    assert next(rest, None) is None
    with pytest.raises(TimeoutError):
        next(values)


# --- shutdown --------------------------------------------------------------------------------------------------


def test_nothing_is_taken_after_a_shutdown(make: MakeExecutor) -> None:
    executor = make()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(double, [1])


def test_leaving_the_with_block_waits_for_what_is_under_way(make: MakeExecutor, gate: Gate) -> None:
    with make() as executor:
        futures = [executor.submit(gate.call, number) for number in range(4)]
        threading.Timer(MOMENT_S, gate.open).start()
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]


def test_a_shutdown_need_not_wait(make: MakeExecutor, gate: Gate) -> None:
    executor = make()
    futures = [executor.submit(gate.call, number) for number in range(4)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        executor.submit(double, 1)
    gate.open()
    assert [future.result(PATIENCE_S) for future in futures] == [0, 1, 2, 3]
    executor.shutdown()


def test_a_shutdown_may_cancel_what_has_not_begun(make: MakeExecutor, gate: Gate) -> None:
    executor = make()
    futures = [executor.submit(gate.call, number) for number in range(WORKERS + 8)]
    until("the workers are busy", lambda: all(future.running() for future in futures[:WORKERS]))
    threading.Timer(MOMENT_S, gate.open).start()
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures[:WORKERS]] == list(range(WORKERS))
    assert all(future.cancelled() for future in futures[-5:])


# --- what only a cluster can show ------------------------------------------------------------------------------


@pytest.fixture
def ours(cluster: LocalCluster, gate: Gate) -> Iterator[JobyardExecutor]:
    with JobyardExecutor(_url(cluster)) as ours:
        yield ours
        gate.open()


def end_itself(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def eat(megabytes: int) -> int:
    return len([bytearray(1 << 20) for _ in range(megabytes)])


def print_and_return(text: str) -> int:
    print(text)
    return len(text)


class Unpicklable(Exception):
    """It cannot travel."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("needs two to be made")
        self.lock = threading.Lock()


def raise_unpicklable() -> None:
    raise Unpicklable(1, 2)


def test_lambdas_and_closures_travel(ours: JobyardExecutor) -> None:
    factor = 3
    assert list(ours.map(lambda number: factor * number, range(3))) == [0, 3, 6]
    assert list(ours.map(lambda number: factor * number, range(10), chunksize=4)) == list(range(0, 30, 3))


def test_what_a_call_prints_is_in_its_logs(ours: JobyardExecutor, yard: Client) -> None:
    future = ours.submit(print_and_return, "hello")
    assert future.result(PATIENCE_S) == 5
    assert yard.logs(str(future.ticket)).stderr == b"hello\n"


def test_a_call_that_is_killed_says_how(ours: JobyardExecutor) -> None:
    error = ours.submit(end_itself, signal.SIGKILL).exception(PATIENCE_S)
    assert isinstance(error, JobFailed)
    assert (error.outcome.reason, error.outcome.exit) == ("signal", 128 + signal.SIGKILL)


def test_a_call_that_uses_more_than_it_may_says_what(cluster: LocalCluster) -> None:
    with JobyardExecutor(_url(cluster), memory_bytes=128 << 20) as modest:
        assert modest.submit(eat, 1).result(PATIENCE_S) == 1
        error = modest.submit(eat, 2000).exception(PATIENCE_S)
    assert isinstance(error, (JobFailed, MemoryError))
    assert not isinstance(error, JobFailed) or error.outcome.reason == "memory"


def test_an_exception_that_cannot_travel_is_told_as_text(ours: JobyardExecutor) -> None:
    error = ours.submit(raise_unpicklable).exception(PATIENCE_S)
    assert isinstance(error, JobFailed)
    assert "Unpicklable: needs two to be made" in str(error.__cause__)


def test_sys_exit_ends_a_call_and_no_worker(ours: JobyardExecutor) -> None:
    error = ours.submit(sys.exit, 3).exception(PATIENCE_S)
    assert isinstance(error, JobFailed)
    assert (error.outcome.reason, error.outcome.exit) == ("exit", 3)


def test_what_runs_can_be_killed(ours: JobyardExecutor, gate: Gate, yard: Client) -> None:
    future = ours.submit(gate.call)
    until("it runs", future.running)
    assert future.kill()
    with pytest.raises(CancelledError):
        future.result()
    assert not future.kill(), "it is done"
    until("the cluster knows", lambda: yard.status(str(future.ticket)).state == "cancelled")


def test_options_are_those_of_every_job(cluster: LocalCluster, yard: Client) -> None:
    with JobyardExecutor(_url(cluster), group="named", name="n", env={"COLOUR": "red"}) as executor:
        assert executor.submit(os.getenv, "COLOUR").result(PATIENCE_S) == "red"
    assert [job.name for job in yard.list(group="named")] == ["n"]


def test_nothing_is_lost_with_the_node_that_was_spoken_to(start_cluster: StartCluster, gate: Gate) -> None:
    cluster = start_cluster(nodes=2, slots=1)
    with JobyardExecutor(_url(cluster)) as executor:
        early = [executor.submit(double, number) for number in range(50)]
        held = [executor.submit(gate.call, number) for number in range(WORKERS)]
        until("all are taken", lambda: all(future.ticket for future in (*early, *held)))
        cluster.kill("node1")
        late = [executor.submit(double, number) for number in range(50)]
        gate.open()
        cluster.start("node1")  # what it had accepted and nobody else knew is on its disk
        assert [future.result(2 * PATIENCE_S) for future in (*early, *late)] == [2 * n for n in range(50)] * 2
        assert [future.result(2 * PATIENCE_S) for future in held] == [0, 1]


def test_an_interpreter_that_exits_waits_for_its_calls(cluster: LocalCluster) -> None:
    program = f"""if True:
        from jobyard.futures import JobyardExecutor
        executor = JobyardExecutor({_url(cluster)!r})
        executor.submit(pow, 2, 10).add_done_callback(lambda future: print(future.result()))
    """
    env = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'client'}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=env, capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "1024\n", "")
