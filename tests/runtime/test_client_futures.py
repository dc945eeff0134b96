"""The executor and its futures, against a cluster that is played: when nodes hang up, refuse or go away.

That it does as `concurrent.futures` documents is held by `tests/system/test_futures.py`, with a real one.
"""

import functools
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, as_completed, wait
from typing import Any

import pytest

from jobyard import Draining, JobFailed, Unauthorized, Unreachable
from jobyard.futures import JobyardExecutor, RemoteTraceback, calls, courier
from tests.runtime.fake_node import PATIENCE_S, FakeNode
from tests.runtime.fake_yard import FakeYard


@pytest.fixture
def yard() -> Iterator[FakeYard]:
    with FakeYard(nodes=2) as yard:
        yield yard


@pytest.fixture
def executor(yard: FakeYard) -> Iterator[JobyardExecutor]:
    with JobyardExecutor(yard.url) as executor:
        yield executor


class Gate:
    """Calls wait at it, in this process. It pickles as its number."""

    _all: "dict[int, Gate]" = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.event = threading.Event()
        self.number = len(self._all)
        self._all[self.number] = self

    def __reduce__(self) -> tuple[Callable[[int], "Gate"], tuple[int]]:
        return Gate.of, (self.number,)

    @staticmethod
    def of(number: int) -> "Gate":
        return Gate._all[number]

    def passed(self, value: Any = None) -> Any:
        assert self.event.wait(PATIENCE_S)
        return value


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.event.set()


def until(true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends_at, "it did not happen"
        time.sleep(0.002)


def fail() -> None:
    raise LookupError("no such thing")


def test_a_call_has_a_ticket_a_name_and_a_value(yard: FakeYard, executor: JobyardExecutor) -> None:
    future = executor.submit(divmod, 7, 2)
    assert future.result(PATIENCE_S) == (3, 1)
    assert future.ticket == "fakeab-1"
    assert executor.submit(lambda: 1).result(PATIENCE_S) == 1
    assert executor.submit(functools.partial(pow, 2), 5).result(PATIENCE_S) == 32
    assert yard.calls[0] == "builtins.divmod"
    assert yard.calls[1].endswith("<lambda>")
    assert yard.calls[2] == "functools.partial"
    assert {job.group for job in yard.jobs.values()} == {executor.group}


def test_thousands_of_futures_share_one_connection_and_one_thread(yard: FakeYard, executor: JobyardExecutor) -> None:
    futures = [executor.submit(abs, -number) for number in range(2000)]
    assert len(_couriers()) == 1
    assert [future.result(PATIENCE_S) for future in futures] == list(range(2000))
    assert (yard.connections(0), yard.connections(1)) == (1, 0)
    assert yard.heard.count("WATCH") < 500


def test_an_exception_has_the_remote_traceback_as_its_cause(executor: JobyardExecutor) -> None:
    error = executor.submit(fail).exception(PATIENCE_S)
    assert isinstance(error, LookupError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)


def test_a_call_that_cannot_be_pickled_fails_its_future(yard: FakeYard, executor: JobyardExecutor) -> None:
    future = executor.submit(lambda lock: None, threading.Lock())
    assert isinstance(future.exception(PATIENCE_S), TypeError)
    assert not yard.jobs


def test_wrong_options_are_said_when_the_executor_is_made(yard: FakeYard) -> None:
    with pytest.raises(TypeError):
        JobyardExecutor(yard.url, colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="no duration"):
        JobyardExecutor(yard.url, timeout_s=-1)


# --- cancelling ------------------------------------------------------------------------------------------------


def test_what_has_not_begun_is_cancelled_in_the_cluster_too(
    yard: FakeYard, executor: JobyardExecutor, gate: Gate
) -> None:
    running = [executor.submit(gate.passed) for _ in range(2)]
    future = executor.submit(abs, -1)
    until(lambda: future.ticket is not None)
    assert future.cancel()
    assert future.cancel(), "as often as you like"
    assert future.cancelled()
    assert future in wait([*running, future], PATIENCE_S, FIRST_COMPLETED).done, "who waits hears of it at once"
    with pytest.raises(CancelledError):
        future.result()
    until(lambda: yard.jobs[str(future.ticket)].state == "cancelled")
    gate.event.set()
    wait(running, PATIENCE_S)


def test_a_call_that_has_been_seen_running_is_not_cancelled(
    yard: FakeYard, executor: JobyardExecutor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LOOK_S", 0.0)
    future = executor.submit(gate.passed, 7)
    until(future.running)
    assert not future.cancel()
    gate.event.set()
    assert future.result(PATIENCE_S) == 7
    assert "CANCEL" not in yard.heard


def test_shutdown_cancels_what_has_not_begun_and_waits_until_the_cluster_knows(yard: FakeYard, gate: Gate) -> None:
    executor = JobyardExecutor(yard.url)
    futures = [executor.submit(gate.passed) for _ in range(10)]
    until(lambda: all(future.ticket for future in futures))
    threading.Timer(0.1, gate.event.set).start()
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert sum(future.cancelled() for future in futures) >= 8
    assert all(job.state.ended for job in yard.jobs.values())


# --- when nodes go away ----------------------------------------------------------------------------------------


def test_every_future_survives_the_loss_of_its_node(yard: FakeYard, executor: JobyardExecutor, gate: Gate) -> None:
    first = [executor.submit(abs, -number) for number in range(100)]
    held = executor.submit(gate.passed, "held")
    until(lambda: held.ticket is not None)
    yard.stop(0)
    later = executor.submit(abs, -7)
    gate.event.set()
    assert [future.result(PATIENCE_S) for future in (*first, held, later)] == [*range(100), "held", 7]
    assert len(yard.jobs) == 102, "no job was made twice"


def test_every_future_survives_a_connection_that_is_lost_again_and_again(
    yard: FakeYard, executor: JobyardExecutor
) -> None:
    futures = []
    for number in range(300):
        futures.append(executor.submit(abs, -number))
        if number % 30 == 0:
            yard.hang_up(0)
            yard.hang_up(1)
    assert [future.result(PATIENCE_S) for future in futures] == list(range(300))
    assert len(yard.jobs) == 300, "no job was made twice"


def test_a_node_that_drains_is_passed_over(yard: FakeYard, executor: JobyardExecutor) -> None:
    yard.refuse = lambda node: b"ERR DRAINING it stops\n" if node == 0 else None
    assert executor.submit(abs, -1).result(PATIENCE_S) == 1


def test_when_all_nodes_drain_the_future_says_so_and_the_executor_goes_on(
    yard: FakeYard, executor: JobyardExecutor
) -> None:
    yard.refuse = lambda node: b"ERR DRAINING it stops\n"
    assert isinstance(executor.submit(abs, -1).exception(PATIENCE_S), Draining)
    yard.refuse = lambda node: None
    assert executor.submit(abs, -1).result(PATIENCE_S) == 1


def test_when_no_node_answers_futures_fail_and_no_more_are_taken(
    deaf_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "UNREACHABLE_S", 0.1)
    with JobyardExecutor(deaf_url) as executor:
        assert isinstance(executor.submit(abs, -1).exception(PATIENCE_S), Unreachable)
        with pytest.raises(BrokenExecutor, match="no node has answered"):
            executor.submit(abs, -1)


def test_a_node_that_hangs_up_each_time_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "UNREACHABLE_S", 0.0)
    with FakeNode([]) as node, JobyardExecutor(node.url) as executor:
        assert isinstance(executor.submit(abs, -1).exception(PATIENCE_S), Unreachable)


def test_a_node_that_says_nothing_is_given_up(yard: FakeYard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "TIMEOUT_S", 0.2)

    def says_nothing(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    with FakeNode(says_nothing) as silent, JobyardExecutor(f"{silent.url},{yard.url}") as executor:
        first = executor.submit(abs, -1)
        until(lambda: executor.submit(abs, -2).done() or first.done())
        assert first.result(PATIENCE_S) == 1


def test_a_wrong_token_fails_at_once() -> None:
    with (
        FakeNode([(b"AUTH wrong\n", b"ERR UNAUTHORIZED wrong token\n")]) as node,
        JobyardExecutor(node.url, "wrong") as executor,
    ):
        assert isinstance(executor.submit(abs, -1).exception(PATIENCE_S), Unauthorized)


# --- threads ---------------------------------------------------------------------------------------------------


def test_the_thread_ends_with_the_last_call_and_the_next_call_starts_another(executor: JobyardExecutor) -> None:
    for _ in range(3):
        assert executor.submit(abs, -1).result(PATIENCE_S) == 1
        until(lambda: not _couriers())


def test_an_executor_that_nobody_holds_hangs_up(yard: FakeYard) -> None:
    executor = JobyardExecutor(yard.url)
    future = executor.submit(abs, -1)
    del executor
    gc.collect()
    assert future.result(PATIENCE_S) == 1
    until(lambda: not yard.connections())


def test_callbacks_may_submit(executor: JobyardExecutor) -> None:
    done = threading.Event()
    second: list[Any] = []

    def again(future: Any) -> None:
        second.append(executor.submit(abs, -future.result()))
        second[0].add_done_callback(lambda _: done.set())

    executor.submit(abs, -5).add_done_callback(again)
    assert done.wait(PATIENCE_S)
    assert second[0].result() == 5


def test_an_interpreter_that_exits_waits_for_what_is_under_way(yard: FakeYard) -> None:
    program = f"""if True:
        from jobyard.futures import JobyardExecutor
        executor = JobyardExecutor({yard.url!r})
        executor.submit(pow, 2, 10).add_done_callback(lambda future: print(future.result()))
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=20,
                          env={"PYTHONPATH": ":".join(sys.path)}, check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "1024\n", "")


def _couriers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobyard-courier"]


def test_as_completed_tells_each_once(executor: JobyardExecutor) -> None:
    futures = [executor.submit(abs, -number) for number in range(50)]
    assert sorted(future.result() for future in as_completed(futures, PATIENCE_S)) == list(range(50))


def test_a_job_that_somebody_else_cancels_fails_its_future(
    yard: FakeYard, executor: JobyardExecutor, gate: Gate
) -> None:
    future = executor.submit(gate.passed)
    until(lambda: future.ticket is not None)
    yard._cancel(str(future.ticket))
    error = future.exception(PATIENCE_S)
    assert isinstance(error, JobFailed)
    assert (error.outcome.state, error.outcome.reason) == ("cancelled", "user")
    assert str(error).startswith(f"{future.ticket} cancelled (reason user")
