"""Attempts handed to the spawner ahead of a free slot: which may go, and what becomes of them."""

import pytest

from common.messages import AttemptId
from common.model import Job, Outcome, Verdict
from common.timers import Timers
from node.backlog import AHEAD_MAX, LONG_S, Backlog
from node.executors import Begun, Kill, Order, Over, Returned, Start, TakeBack, Word
from node.held import Stop

TRUE = Job("exec", "true")


class Bench:
    """A backlog with two slots, of which short attempts have been seen or not."""

    def __init__(self, *, short_ones: int = 50) -> None:
        self.timers = Timers()
        self.backlog = Backlog(slots=2, node_name="n1", timers=self.timers)
        self._number = 0
        self.now = 0.0
        for _ in range(short_ones):
            (id,) = self.take(1)
            assert started(self.fill()) == [id]
            self.hear(over(id))

    def take(self, count: int, job: Job = TRUE) -> list[AttemptId]:
        ids = [(f"aaaaaa-{self._number + number}", 1) for number in range(1, count + 1)]
        self._number += count
        for id in ids:
            self.backlog.take(id, job, b"body")
        return ids

    def fill(self) -> list[Order]:
        self.backlog.fill(self.now)
        return self.orders()

    def orders(self) -> list[Order]:
        self.backlog.check()
        orders, self.backlog.commands = list(self.backlog.commands), []
        return orders

    def hear(self, *words: Word) -> list[AttemptId]:
        """What has begun by it, as the ledger is told."""
        self.backlog.hear(words, self.now)
        self.backlog.check()
        begun, self.backlog.begun = self.backlog.begun, []
        return begun

    def two_and_ahead(self, count: int) -> tuple[list[AttemptId], list[AttemptId]]:
        """Two that have begun, and some that were handed ahead."""
        ids = self.take(2 + count)
        assert started(self.fill()) == ids
        self.hear()
        return ids[:2], ids[2:]

    @property
    def counts(self) -> tuple[int, int]:
        report = self.backlog.report()
        return report.running, report.waiting


def started(orders: list[Order]) -> list[AttemptId]:
    return [(order.ticket, order.attempt) for order in orders if isinstance(order, Start)]


def over(id: AttemptId, seconds: float = 0.001) -> Over:
    return Over(*id, Outcome(Verdict.SUCCEEDED, exit=0, seconds=seconds))


# --- who goes ----------------------------------------------------------------------------------------------------


def test_where_attempts_are_short_more_are_handed_over_than_there_are_slots_and_count_as_waiting() -> None:
    bench = Bench()
    ids = bench.take(100)
    ahead = started(bench.fill())
    assert ahead == ids[: len(ahead)]
    assert 30 < len(ahead) <= 42, "20 ms of attempts of 1 ms, in two slots"
    assert bench.counts == (2, 98)


def test_the_shortest_are_bounded_in_number() -> None:
    bench = Bench(short_ones=0)
    for _ in range(100):
        (id,) = bench.take(1)
        bench.fill()
        bench.hear(over(id, seconds=0.0))
    bench.take(1000)
    assert len(started(bench.fill())) <= 2 + AHEAD_MAX


def test_nothing_goes_ahead_where_none_was_seen_or_the_last_ones_were_long() -> None:
    bench = Bench(short_ones=0)
    ids = bench.take(10)
    assert started(bench.fill()) == ids[:2]
    bench = Bench()
    (id,) = bench.take(1)
    bench.fill()
    bench.hear(over(id, seconds=1.0))
    ids = bench.take(10)
    assert started(bench.fill()) == ids[:2]


@pytest.mark.parametrize("job", [Job("sleep", "60"), Job("exec", "true", slots=2)])
def test_a_sleep_and_a_wide_job_do_not_go_ahead_and_are_not_overtaken(job: Job) -> None:
    bench = Bench()
    begun, ahead = bench.two_and_ahead(1)
    bench.take(1, job)
    bench.take(5)
    assert bench.fill() == []
    bench.hear(*map(over, [*begun, *ahead]))
    assert bench.counts == (0, 6)
    bench.fill()
    assert bench.counts[0] >= 1


def test_while_one_sleeps_nothing_goes_ahead() -> None:
    bench = Bench()
    bench.take(1, Job("sleep", "60"))
    ids = bench.take(5)
    assert started(bench.fill()) == ids[:1]


# --- what becomes of them ----------------------------------------------------------------------------------------


def test_one_that_was_ahead_counts_as_running_and_has_its_timeout_from_when_it_has_begun() -> None:
    bench = Bench()
    begun, _ = bench.two_and_ahead(0)
    (id,) = bench.take(1, Job("exec", "true", timeout_s=5.0))
    bench.fill()
    assert (bench.counts, bench.timers.next()) == ((2, 1), None)
    bench.now = 3.0
    assert bench.hear(Begun(*id, pid=7), over(begun[0])) == [id]
    assert (bench.counts, bench.timers.next()) == ((2, 0), 8.0)


def test_one_that_was_over_before_it_could_be_said_to_have_begun_has_ended_like_any_other() -> None:
    bench = Bench()
    _, (id, *others) = bench.two_and_ahead(3)
    before = bench.backlog.begun_total
    bench.backlog.finished.clear()
    assert bench.hear(over(id)) == []
    assert [done.id for done in bench.backlog.finished] == [id]
    assert (bench.backlog.begun_total, bench.counts) == (before + 1, (2, len(others)))


def test_what_is_returned_waits_again_in_its_old_place_and_nothing_goes_ahead_for_a_while() -> None:
    bench = Bench()
    begun, ahead = bench.two_and_ahead(3)
    bench.hear(*(Returned(*id) for id in ahead))
    assert bench.counts == (2, 3)
    later = bench.take(2)
    assert bench.fill() == []
    bench.hear(*map(over, begun))
    (first, second) = [order for order in bench.fill() if isinstance(order, Start)]
    assert [(one.ticket, one.attempt) for one in (first, second)] == ahead[:2]
    assert first.body == b"body"
    assert bench.backlog.waiting() == [ahead[2], *later]


def test_a_recall_gets_those_that_wait_here_and_no_others() -> None:
    bench = Bench()
    begun, ahead = bench.two_and_ahead(1)
    (wide,) = bench.take(1, Job("exec", "true", slots=2))
    assert bench.fill() == []
    assert bench.backlog.give_back([*begun, *ahead, wide]) == [wide]
    assert bench.orders() == []


def test_a_cancelled_one_is_taken_back_and_let_go_when_it_has_not_begun() -> None:
    bench = Bench()
    _, (id, other) = bench.two_and_ahead(2)
    assert bench.backlog.end(id, Stop.CANCELLED, bench.now)
    assert bench.orders() == [TakeBack(*id), Kill(*id, 15)]
    bench.hear(Returned(*id))
    assert (bench.backlog.let_go, bench.counts, bench.timers.next()) == ([id], (2, 1), None)
    assert bench.fill() == []
    assert bench.backlog.waiting() == [other]


def test_a_dropped_one_is_let_go_without_a_word() -> None:
    bench = Bench()
    _, (id,) = bench.two_and_ahead(1)
    assert bench.backlog.end(id, Stop.DROPPED, bench.now)
    bench.hear(Returned(*id))
    assert (bench.backlog.let_go, bench.counts) == ([], (2, 0))


def test_a_cancelled_one_that_had_begun_is_ended_and_killed_after_its_grace() -> None:
    bench = Bench()
    begun, (id,) = bench.two_and_ahead(1)
    bench.backlog.end(id, Stop.CANCELLED, bench.now)
    assert bench.orders() == [TakeBack(*id), Kill(*id, 15)]
    bench.hear(over(begun[0]), Begun(*id, pid=7))
    assert bench.orders() == [Kill(*id, 15)], "the first may have found nobody"
    (due,) = bench.timers.due(bench.timers.next() or 0.0)
    assert isinstance(due, tuple)
    bench.backlog.due(*due, bench.now)
    assert bench.orders() == [Kill(*id, 9)]


def test_a_drain_asks_all_back_and_what_has_begun_meanwhile_goes_on() -> None:
    bench = Bench()
    begun, (first, second) = bench.two_and_ahead(2)
    (wide,) = bench.take(1, Job("exec", "true", slots=2))
    assert bench.backlog.give_back_all() == [wide]
    assert bench.orders() == [TakeBack(*first), TakeBack(*second)]
    assert bench.backlog.give_back_all() == []
    assert bench.orders() == [], "they were asked back already"
    bench.hear(over(begun[0]), Begun(*first, pid=7), Returned(*second))
    assert (bench.backlog.let_go, bench.backlog.running()) == ([second], [begun[1], first])


def test_one_that_was_told_to_begin_at_once_and_did_not_when_its_spawner_died_has_crashed() -> None:
    bench = Bench()
    (begun, _), (ahead,) = bench.two_and_ahead(1)
    bench.backlog.finished.clear()
    bench.hear(Returned(*begun), Returned(*ahead))
    (done,) = bench.backlog.finished
    assert (done.id, done.outcome.verdict) == (begun, Verdict.CRASHED)
    assert bench.backlog.waiting() == [ahead]


def test_a_dozen_short_ones_are_seen_before_the_first_goes_ahead() -> None:
    assert LONG_S > 0.02, "or what follows proves nothing"
    for seen in (1, 5):
        bench = Bench(short_ones=seen)
        ids = bench.take(10)
        assert started(bench.fill()) == ids[:2]


@pytest.mark.parametrize("slots", [1, 8, 64])
def test_nothing_goes_ahead_behind_long_ones_however_many_slots_there_are(slots: int) -> None:
    """Or it would come and go between node and spawner, and no recall would find it."""
    timers = Timers()
    backlog = Backlog(slots=slots, node_name="n1", timers=timers)
    ids = [(f"aaaaaa-{number}", 1) for number in range(1, slots + 20)]
    for id in ids:
        backlog.take(id, Job("exec", "true"), b"")
    backlog.fill(0.0)
    assert len(backlog.commands) == slots
    assert backlog.give_back(ids) == ids[slots:]


def test_ends_without_a_duration_say_nothing_of_how_long_attempts_take() -> None:
    timers = Timers()
    backlog = Backlog(slots=8, node_name="n1", timers=timers)
    for number in range(1, 100):
        backlog.take((f"aaaaaa-{number}", 1), Job("exec", "true"), b"")
        backlog.fill(0.0)
        backlog.hear([Over(f"aaaaaa-{number}", 1, Outcome(Verdict.CRASHED))], 0.0)
    for number in range(100, 120):
        backlog.take((f"aaaaaa-{number}", 1), Job("exec", "true"), b"")
    backlog.commands.clear()
    backlog.fill(0.0)
    assert len(backlog.commands) == 8
