"""Many at a time: what a node makes of a batch is what it makes of its items one by one, and by the general path.

Plain jobs, and ends and attempts that come together, are handled in loops of their own. A story is told three times:
each of its rounds in one step; item by item, each in a step of its own; and item by item where nothing counts as plain
and every end is looked at alone. Replies, messages and records must be the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.codec import pack, replace
from common.effects import Hangup, Reply, Table
from common.events import Asked, ClientsGone, Received
from common.messages import (
    Acknowledged,
    AttemptId,
    Cancel,
    Dispatch,
    Drop,
    Holdings,
    Inquiry,
    Jobs,
    Lapsed,
    Lease,
    Notices,
    Pair,
    Recall,
    Reported,
    Result,
    Returned,
    Taken,
)
from common.model import Ended, Job, Outcome, Reason, State, Verdict
from node import reception
from node.executors import Over, Start
from node.live import Live
from node.worker import Executed
from tests.machines.alone import LEDGER, PREFIX, Alone, query

Item: TypeAlias = Any  # what one step may be about
Round: TypeAlias = list[Item]  # what comes together

LINES: Final = (
    *("run sleep 0", "run exec render 7", "submit sleep 0", "submit sh true", "1500"),  # plain ones
    *("submit bytes=2 sh cat\nhi", "run bytes=2 sh cat\nhi"),
    *("run key=k1 sleep 0", "submit key=k1 sleep 0", "submit key=k1 sh false", "submit group=g sleep 0"),
    *("run delay=3 sleep 0", "submit priority=3 sh true", "run after=aaaaaa-2 sleep 0", "submit array=1-3 sh echo {}"),
    *("wait aaaaaa-2", "wait timeout=4 aaaaaa-3", "status aaaaaa-1", "result aaaaaa-4", "cancel aaaaaa-2"),
    *("wait bbbbbb-1", "result aaaaaa-99", "status nonsense", "forget aaaaaa-1", "drain", "undrain"),
)
JOBS: Final = (Job("sleep", "0", 5.0), Job("sleep", "0.0", 5.0), Job("sleep", "2", 5.0), Job("sh", "true", 5.0))
OUTCOMES: Final = (
    (Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.5, stdout_bytes=2), b"ok"),
    (Outcome(Verdict.FAILED, Reason.EXIT, 3), b""),
)

tickets = st.builds("{}-{}".format, st.sampled_from([PREFIX, PREFIX, PREFIX, "bbbbbb"]), st.integers(1, 6))
ids = st.tuples(tickets, st.integers(1, 2))


@st.composite
def ends(draw: st.DrawFn) -> Pair:
    output = draw(st.sampled_from([b"", b"", b"out"]))
    retried = draw(st.sampled_from([0, 0, 0, 1]))
    wall = draw(st.sampled_from([7.0, 8.0]))
    ended = Ended(State.SUCCEEDED, wall, None, 1, 0, "n2", 0.5, stdout_bytes=len(output), begun=1, retried=retried)
    return Pair(draw(tickets), pack(ended), output)


def leased(id: AttemptId) -> Item:
    """An attempt, and what it is to do, which is the same each time that it is told of."""
    return id, JOBS[(int(id[0][-1]) + id[1]) % len(JOBS)]


def rounds_of(*items: st.SearchStrategy[Item]) -> st.SearchStrategy[Round]:
    """Where items may come together, whose order alone matters and not whether there is a step between them."""
    return st.lists(st.one_of(items), min_size=1, max_size=8)


ROUNDS: Final = st.one_of(
    rounds_of(st.sampled_from(LINES)),
    rounds_of(tickets.map(lambda name: Taken((name,))), ends().map(lambda pair: Result((pair,)))),
    rounds_of(ends().map(lambda pair: Result((pair,))), ids.map(lambda id: Acknowledged((id,)))),
    st.lists(ids, min_size=1, max_size=8, unique=True).map(lambda ids: list(map(leased, ids))),
    ids.map(lambda id: [Cancel((id,))]),  # one by one, the slot of the first might be the second's
    ids.map(lambda id: [Drop((id,))]),
    rounds_of(ids.map(lambda id: Recall((id,)))),
    rounds_of(st.builds(lambda id, how: Over(*id, *how), ids, st.sampled_from(OUTCOMES))),
    rounds_of(tickets.map(lambda name: Notices((name,))), tickets.map(lambda name: Notices((), (name,)))),
    rounds_of(tickets.map(lambda name: Lapsed((name,)))),
    rounds_of(st.integers(1, 20)),  # clients that go away
    st.sampled_from(["cut", "link", "another ledger", "boot", "pass"]).map(lambda what: [(what,)]),
)
STORIES: Final = st.builds(
    lambda submits, rounds: [submits, *rounds], rounds_of(st.sampled_from(LINES[:7])), st.lists(ROUNDS, max_size=12)
)


class Telling:
    """One way to tell a story to a node of its own, and what came of it."""

    def __init__(self, *, together: bool, awake_max: int) -> None:
        self.node = Alone(slots=2, awake_max=awake_max)
        self.together = together
        self.orders = 0
        self.replies: list[tuple[int, bytes, bool]] = []
        self.messages: list[Any] = []

    def tell(self, story: Sequence[Round]) -> None:
        for items in story:
            if isinstance(items[0], tuple) and isinstance(items[0][0], str):
                self._turn(items[0][0])
                continue
            events = [self._event(item) for item in items if not isinstance(item, Over) or self._runs(item)]
            for step in [merged(events)] if self.together else [[event] for event in events]:
                self._note(self.node.step(*step))
        self._note(self.node.advance(1.0))  # and all is on disk

    def _turn(self, what: str) -> None:
        """What comes alone."""
        if what == "cut" and self.node.link is not None:
            self._note(self.node.cut())
        elif what == "pass":
            self._note(self.node.advance(2.5))
        elif what == "boot":
            self._note(self.node.advance(0.1))  # what nobody waits for is on disk after that
            self.node.boot()
        elif self.node.link is None:
            self._note(self.node.open_link(LEDGER if what == "link" else "ledger-2"))

    def _runs(self, over: Over) -> bool:
        """Executors tell of nothing that they were not given."""
        return ("start", over.ticket, over.attempt, "true") in self.messages

    def _event(self, item: Item) -> object:
        wall, link = self.node.wall, self.node.link or 0
        match item:
            case str():
                self.node.last += 1
                return Asked([(self.node.last, query(item))], wall)
            case int():
                return ClientsGone([item])
            case Over():
                return Executed([item], wall)
            case ((str(ticket), int(attempt)), Job() as job):
                self.orders += 1
                return Received(link, [Dispatch((Lease(ticket, attempt, pack(job), b"", self.orders),))], wall)
        return Received(link, [item], wall)

    def _note(self, done: Sequence[object]) -> None:
        """What is the same however it was cut: of what a message lists, each by itself."""
        for what in done:
            match what:
                case Reply():
                    self.replies.append((what.query_id, what.reply, what.more))
                case Jobs(items=items) | Result(items=items):
                    self.messages += items
                case Returned(attempts=attempts):
                    self.messages += [("returned", *id) for id in attempts]
                case Start():
                    self.messages.append(("start", what.ticket, what.attempt, what.line))
                case Inquiry() | Hangup():
                    self.messages.append(what)
                case Holdings():
                    self.messages.append((*sorted(what.begun), *sorted(what.waiting), *sorted(what.outcomes)))

    @property
    def records(self) -> dict[Table, dict[bytes, bytes]]:
        return {table: dict(records) for table, records in self.node.disk.tables.items() if records}

    @property
    def came_to(self) -> tuple[object, ...]:
        statistics = self.node.worker.statistics()
        del statistics["attempts_begun_total"]  # a lease that is told of twice may be over when it is told of again
        return sorted(self.replies), set(map(repr, self.messages)), self.records, statistics


def merged(events: Sequence[Any]) -> list[object]:
    """As one read of a client, of the link or of the executors brings them."""
    steps: list[Any] = []
    for event in events:
        before = steps[-1] if steps else None
        match before, event:
            case Asked(), Asked():
                steps[-1] = Asked([*before.queries, *event.queries], event.wall)
            case Executed(), Executed():
                steps[-1] = Executed([*before.reports, *event.reports], event.wall)
            case Received(), Received():
                steps[-1] = Received(event.link, joined(before.messages, event.messages[0]), event.wall)
            case _:
                steps.append(event)
    return steps


def joined(messages: Sequence[Any], message: Any) -> list[Any]:
    """Messages of one kind as one that says what both do."""
    last = messages[-1]
    if type(last) is not type(message) or isinstance(message, Notices):
        return [*messages, message]
    (field,) = [name for name in ("items", "tickets", "attempts") if hasattr(message, name)]
    both = (*getattr(last, field), *getattr(message, field))
    return [*messages[:-1], replace(message, **{field: both})]


@contextmanager
def all_in_a_row() -> Iterator[None]:
    """One job is many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reception, "FEW", 1)
        yield


@contextmanager
def nothing_in_a_row() -> Iterator[None]:
    """No job counts as plain, and of no end it is known beforehand whether it is news."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reception, "_is_plain", lambda asked: False)
        patch.setattr(Live, "leave_in_a_row", lambda live, names: [False for _ in names])
        yield


def told(retried: int) -> Result:
    """The end of the first job, as it was before and after it was retried."""
    ended = Ended(State.SUCCEEDED, 7.0, None, 1, 0, "n2", 0.5, begun=1, retried=retried)
    return Result((Pair(A, pack(ended)),))


A: Final = f"{PREFIX}-1"
_SLEEPS: Final = [leased((f"{PREFIX}-{number}", 1)) for number in (3, 4, 7)]


@given(STORIES, st.sampled_from([2, 20_000]))
@example([["run sleep 0", "submit key=k1 sleep 0", "run exec a", "drain", "run sleep 0", "undrain", "submit sh b"]], 2)
@example([["run sleep 0", "wait aaaaaa-1"], [told(0)] * 2, ["result aaaaaa-1"]], 20_000)
@example([["run sleep 0"], [told(0), told(1)], [("boot",)]], 20_000)
@example([["run sleep 0"], [told(0), Notices((A,)), told(1)]], 20_000)
@example([_SLEEPS, [Acknowledged((id,)) for id, _ in _SLEEPS], _SLEEPS[:1]], 20_000)
@example([_SLEEPS[:1], [("pass",)], _SLEEPS[:1], [Acknowledged((_SLEEPS[0][0],))]], 20_000)
@example([_SLEEPS[:1], [("boot",)], [("link",)], _SLEEPS[:1], [Acknowledged((_SLEEPS[0][0],))]], 20_000)
@example([[("cut",)], ["run sleep 0", "submit sh true"], [("another ledger",)], [Taken((A,))]], 20_000)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_comes_together_comes_to_the_same_as_one_by_one(story: list[Round], awake_max: int) -> None:
    together, one_by_one, alone = (Telling(together=together, awake_max=awake_max) for together in (True, False, False))
    with all_in_a_row():
        together.tell(story)
        one_by_one.tell(story)
    with nothing_in_a_row():
        alone.tell(story)
    assert together.came_to == one_by_one.came_to
    assert together.came_to == alone.came_to


def test_ends_before_one_that_cannot_be_read_count() -> None:
    node = Alone()
    first, second = node.submit(), node.submit()
    node.ask(f"wait {first}", f"wait {second}")
    ended = pack(Ended(State.SUCCEEDED, 7.0, None, 1, 0, "n2", 0.5))
    done = node.receive(Result((Pair(first, ended), Pair(second, b"\xc1"), Pair(second, ended))))
    assert [type(what) for what in done] == [Reply, Hangup]
    assert "state=succeeded" in node.say(f"result {first}")
    assert node.inquiry(f"result {second}").ticket == second


def test_an_outcome_that_is_settled_before_the_next_commit_is_never_written() -> None:
    node = Alone()
    id = ("bbbbbb-1", 1)
    node.dispatch(id[0])
    assert [type(what) for what in node.step(Executed([Over(*id, *OUTCOMES[0])], node.wall))] == [Result]
    node.receive(Acknowledged((id,)))
    assert not any(node.worker._memory.writes_to(table) for table in (Table.OUTCOMES, Table.OUTCOME_OUTPUTS))


def test_the_output_of_an_outcome_goes_also_where_a_later_one_of_the_same_attempt_had_none() -> None:
    node = Alone()
    id = ("bbbbbb-1", 1)
    for how in OUTCOMES:
        node.dispatch(id[0])
        node.step(Executed([Over(*id, *how)], node.wall))
        node.advance(1.0)
    assert node.disk.tables[Table.OUTCOME_OUTPUTS]
    node.receive(Acknowledged((id,)))
    node.advance(1.0)
    assert not node.disk.tables[Table.OUTCOME_OUTPUTS]


@pytest.mark.parametrize("settled_between", [False, True])
def test_an_outcome_that_is_kept_again_before_the_next_commit_goes_from_the_disk_too(settled_between: bool) -> None:
    node = Alone()
    node.dispatch("bbbbbb-1", job=JOBS[0])
    node.advance(1.0)
    (key,) = node.disk.tables[Table.OUTCOMES]
    if settled_between:
        node.receive(Acknowledged((("bbbbbb-1", 1),)))
    node.dispatch("bbbbbb-1", job=JOBS[0])
    node.receive(Acknowledged((("bbbbbb-1", 1),)))
    assert key in node.disk.tables[Table.OUTCOMES], "nothing of this was committed yet"
    node.advance(1.0)
    assert not node.disk.tables[Table.OUTCOMES]


def test_an_outcome_of_an_earlier_boot_goes_from_the_disk_with_its_output_when_it_is_settled() -> None:
    node = Alone()
    id = ("bbbbbb-1", 1)
    node.dispatch(id[0])
    node.step(Executed([Over(*id, *OUTCOMES[0])], node.wall))
    node.advance(1.0)
    assert node.disk.tables[Table.OUTCOME_OUTPUTS]
    node.boot()
    node.open_link()
    node.receive(Acknowledged((id,)))
    node.advance(1.0)
    assert not node.disk.tables[Table.OUTCOMES]
    assert not node.disk.tables[Table.OUTCOME_OUTPUTS]


def test_outcomes_that_are_alike_are_told_each_with_its_own_attempt() -> None:
    node = Alone(slots=2)
    leases = tuple(Lease(f"bbbbbb-{n}", n, pack(JOBS[0]), b"", n) for n in (1, 2, 2, 3))
    (result,) = node.receive(Dispatch(leases))
    slept = Outcome(Verdict.SUCCEEDED, exit=0)
    assert result == Result(tuple(Pair(f"bbbbbb-{n}", pack(Reported(n, "boot-1", slept))) for n in (1, 2, 3)))


def test_when_a_delayed_job_was_submitted_is_not_forgotten_where_too_many_came_before_it() -> None:
    node = Alone(awake_max=2)
    asked = ["submit sleep 0"] * 3 + ["submit delay=5 sleep 0"]
    node.step(Asked([(id, query(line)) for id, line in enumerate(asked, 1)], node.wall + 100.0))
    own = node.worker._intake.live(f"{PREFIX}-4")
    assert own is not None
    assert own.as_of == node.now, "by the calendar, which is set wrong, it was later"


def test_a_delayed_job_that_ends_among_others_is_held_no_longer() -> None:
    node = Alone(awake_max=1)
    tickets = [node.submit(line) for line in ("sleep 0", "delay=5 sleep 0", "sleep 0")]
    ended = pack(Ended(State.SUCCEEDED, 7.0, None, 1, 0, "n2", 0.5))
    node.receive(Result(tuple(Pair(ticket, ended) for ticket in tickets)))
    node.worker.check()
    assert len(node.worker._intake) == 0
    assert not any(node.worker._intake.is_live(ticket) for ticket in tickets)


def test_who_waits_for_a_while_and_is_answered_leaves_no_timer() -> None:
    node = Alone()
    ticket = node.submit()
    node.ask(f"wait timeout=5 {ticket}")
    timer = ("ask", node.last)
    assert timer in node.worker._timers
    node.end(ticket)
    assert timer not in node.worker._timers


def outcomes_of(done: Sequence[object]) -> list[str]:
    return [pair.ticket for what in done if isinstance(what, Result) for pair in what.items]


def test_a_sleep_for_no_time_that_was_given_again_does_not_go_in_its_former_place() -> None:
    node = Alone(slots=1)
    node.dispatch("bbbbbb-9")
    nap, command = pack(JOBS[0]), pack(JOBS[3])
    node.receive(Dispatch((Lease("bbbbbb-1", 1, nap, b"", 1), Lease("bbbbbb-2", 1, nap, b"", 2))))
    node.receive(Recall((("bbbbbb-2", 1),)))
    node.receive(Dispatch((Lease("bbbbbb-3", 1, command, b"", 3), Lease("bbbbbb-2", 1, nap, b"", 4))))
    done = node.step(Executed([Over("bbbbbb-9", 1, *OUTCOMES[1])], node.wall))
    assert outcomes_of(done) == ["bbbbbb-9", "bbbbbb-1"]
    done = node.step(Executed([Over("bbbbbb-3", 1, *OUTCOMES[1])], node.wall))
    assert outcomes_of(done) == ["bbbbbb-3", "bbbbbb-2"]


def test_a_wide_sleep_for_no_time_waits_for_its_slots_behind_a_narrow_one() -> None:
    node = Alone(slots=2)
    node.dispatch("bbbbbb-9")
    narrow, wide = pack(JOBS[0]), pack(replace(JOBS[0], slots=2))
    done = node.receive(Dispatch((Lease("bbbbbb-1", 1, narrow, b"", 1), Lease("bbbbbb-2", 1, wide, b"", 2))))
    assert outcomes_of(done) == ["bbbbbb-1"]
    done = node.step(Executed([Over("bbbbbb-9", 1, *OUTCOMES[1])], node.wall))
    assert outcomes_of(done) == ["bbbbbb-9", "bbbbbb-2"]


def test_what_has_ended_is_not_at_hand_for_the_ledger_any_more() -> None:
    node = Alone()
    asked = Asked([(id, query("submit sleep 0")) for id in (1, 2, 3)], node.wall)
    done = node.step(asked, Received(node.link or 0, [told(0)], node.wall))
    (jobs,) = [what for what in done if isinstance(what, Jobs)]
    assert [item.ticket for item in jobs.items] == [f"{PREFIX}-2", f"{PREFIX}-3"]
