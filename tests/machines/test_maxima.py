"""What a node allows its attempts, and what an element of an array is told of itself."""

import pytest

from common.model import Job, Outcome, Reason, Verdict
from common.timers import Timers
from node.backlog import Backlog
from node.executors import Kill, Limits, Order, Over, Start
from node.maxima import Maxima


class Bench:
    """A backlog with a slot for every attempt, and its timers."""

    def __init__(self, maxima: Maxima | None = None) -> None:
        self.timers = Timers()
        more = {} if maxima is None else {"maxima": maxima}
        self.backlog = Backlog(slots=10, node_name="n1", timers=self.timers, **more)
        self._taken = 0

    def start(self, job: Job, ticket: str = "aaaaaa-1") -> Start:
        """Take an attempt in at 0 s and begin it."""
        self._taken += 1
        self.backlog.take((ticket, self._taken), job, b"body")
        self.backlog.fill(0.0)
        (order,) = self.orders()
        assert isinstance(order, Start)
        return order

    def orders(self) -> list[Order]:
        orders, self.backlog.commands = list(self.backlog.commands), []
        self.backlog.check()
        return orders

    def wake(self, now: float) -> list[Order]:
        for name in self.timers.due(now):
            assert isinstance(name, tuple)
            self.backlog.due(*name, now)
        return self.orders()


# --- limits ------------------------------------------------------------------------------------------------------


def test_without_maxima_an_attempt_has_the_limits_of_its_job_and_no_others() -> None:
    assert Bench().start(Job("sh", "x")).limits == Limits()
    asked = Job("sh", "x", cpu_s=1.5, memory_bytes=2, files=3, processes=4, output_bytes=5)
    assert Bench().start(asked).limits == Limits(cpu_s=1.5, memory_bytes=2, files=3, processes=4, output_bytes=5)


def test_the_smaller_of_what_the_job_asks_for_and_the_node_allows_holds() -> None:
    bench = Bench(Maxima(Limits(cpu_s=10, memory_bytes=1000, processes=512, output_bytes=5)))
    asked = Job("sh", "x", cpu_s=11, memory_bytes=999, files=64)
    assert bench.start(asked).limits == Limits(cpu_s=10, memory_bytes=999, files=64, processes=512, output_bytes=5)


@pytest.mark.parametrize(("asked_s", "allowed_s", "holds_s"), [(5, None, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7)])
@pytest.mark.parametrize("kind", ["sh", "sleep"])
def test_no_attempt_runs_longer_than_the_node_allows(
    kind: str, asked_s: float | None, allowed_s: float | None, holds_s: float
) -> None:
    bench = Bench(Maxima(timeout_s=allowed_s))
    bench.backlog.take(("aaaaaa-1", 1), Job(kind, "60", timeout_s=asked_s), b"")
    bench.backlog.fill(0.0)
    bench.orders()
    assert (bench.wake(holds_s - 0.1), bench.backlog.finished) == ([], [])
    killed = bench.wake(holds_s)
    if kind == "sh":
        assert killed == [Kill("aaaaaa-1", 1, 15)]
        bench.backlog.hear([Over("aaaaaa-1", 1, Outcome(Verdict.FAILED, Reason.SIGNAL, 143))], holds_s)
    (done,) = bench.backlog.finished
    assert (done.outcome.verdict, done.outcome.reason, done.outcome.exit) == (Verdict.FAILED, Reason.TIMEOUT, 143)


def test_without_any_timeout_nothing_is_waited_for() -> None:
    bench = Bench()
    bench.start(Job("sh", "x"))
    assert bench.timers.next() is None


# --- elements of arrays ------------------------------------------------------------------------------------------


def test_an_element_finds_its_index_in_its_line_and_in_its_environment() -> None:
    job = Job("sh", "render {} > {}.png", array="1-9", env=(("A", "b"),))
    order = Bench().start(job, "aaaaaa-1_7")
    assert (order.ticket, order.line) == ("aaaaaa-1_7", "render 7 > 7.png")
    assert dict(order.env) == {
        "A": "b",
        "JOBYARD_TICKET": "aaaaaa-1_7",
        "JOBYARD_ATTEMPT": "1",
        "JOBYARD_NODE": "n1",
        "JOBYARD_INDEX": "7",
    }


def test_the_first_index_may_be_0() -> None:
    order = Bench().start(Job("sh", "x {}"), "aaaaaa-1_0")
    assert (order.line, dict(order.env)["JOBYARD_INDEX"]) == ("x 0", "0")


def test_any_other_job_keeps_its_braces_and_has_no_index() -> None:
    order = Bench().start(Job("sh", "find -exec ls {} +"))
    assert order.line == "find -exec ls {} +"
    assert "JOBYARD_INDEX" not in dict(order.env)


def test_an_element_may_sleep_for_its_index() -> None:
    bench = Bench()
    bench.backlog.take(("aaaaaa-1_3", 1), Job("sleep", "{}s"), b"")
    bench.backlog.fill(0.0)
    bench.wake(2.9)
    assert bench.backlog.finished == []
    bench.wake(3.0)
    (done,) = bench.backlog.finished
    assert done.outcome == Outcome(Verdict.SUCCEEDED, exit=0, seconds=3.0)
