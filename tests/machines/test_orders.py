"""RETRY, FORGET and CANCEL as questions: what the clerk hands on, what it refuses by itself, and whom it asks first."""

from collections.abc import Iterable

import attrs
import pytest

from balancer.group_orders import Orders
from balancer.ledger import Entry
from common.model import Outcome, Reason, State, Verdict
from tests.machines.asking import Asker
from tests.machines.cluster import Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5)


@attrs.define
class Superior:
    """Carries out what it is told: notes it, and says what a test wants it to say."""

    told: list[tuple[str, str]] = attrs.field(factory=list)
    state: State | None = State.QUEUED
    forgotten: bool = True

    def orders(self) -> Orders:
        return Orders(self.cancel, self.retry, self.retry_all, self.forget, self.forget_all)

    def cancel(self, entry: Entry) -> State:
        self.told.append(("cancel", entry.ticket))
        return State.CANCELLED

    def retry(self, ticket: str) -> State | None:
        self.told.append(("retry", ticket))
        return self.state

    def retry_all(self, tickets: Iterable[str]) -> int:
        return sum(self.retry(ticket) is not None for ticket in tickets)

    def forget(self, ticket: str) -> bool:
        self.told.append(("forget", ticket))
        return self.forgotten

    def forget_all(self, tickets: Iterable[str]) -> int:
        return sum(self.forget(ticket) for ticket in tickets)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(2, slots=1)


@pytest.fixture
def superior(cluster: Cluster) -> Superior:
    superior = Superior()
    assert cluster.balancer is not None
    clerk = cluster.balancer.machine._clerk
    clerk._orders = clerk._group_orders._orders = superior.orders()
    return superior


def failed(cluster: Cluster) -> str:
    ticket = cluster.submit("n1")
    ((runner, id),) = cluster.where(ticket)
    cluster.finish(runner, id, outcome=FAILED)
    return ticket


def test_what_has_ended_is_retried_and_forgotten(cluster: Cluster, superior: Superior) -> None:
    ticket = failed(cluster)
    asker = Asker(cluster, "n2")
    assert asker.say("retry", ticket=ticket) == f"OK {ticket} state=queued\n"
    assert asker.say("forget", ticket=ticket) == f"OK {ticket}\n"
    assert superior.told == [("retry", ticket), ("forget", ticket)]


def test_groups_are_retried_forgotten_and_cancelled_as_one(cluster: Cluster, superior: Superior) -> None:
    asker = Asker(cluster)
    ended = [cluster.submit("n1", f"group={'gh'[number % 2]} sh true") for number in range(4)]
    for ticket in ended:
        ((runner, id),) = cluster.where(ticket)
        cluster.finish(runner, id, outcome=FAILED)
    live = [cluster.submit("n1", f"group={'gh'[number % 2]} sh true") for number in range(6)]
    assert asker.say("retry", group="g") == "OK group=g state=queued count=2\n"
    assert asker.say("forget", group="g") == "OK group=g count=2\n"
    assert asker.say("cancel", group="g") == "OK group=g state=cancelled count=3\n"
    assert asker.say("cancel", group="nobody") == "OK group=nobody state=cancelled count=0\n"
    told = [("retry", ended[::2]), ("forget", ended[::2]), ("cancel", live[::2])]
    assert superior.told == [(verb, ticket) for verb, tickets in told for ticket in tickets]


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_a_live_job_is_neither_retried_nor_forgotten(cluster: Cluster, superior: Superior, verb: str) -> None:
    ticket = cluster.submit("n1")
    reply = Asker(cluster).say(verb, ticket=ticket)
    assert reply.startswith(f"ERR CONFLICT {ticket} is running; only ")
    assert superior.told == []


def test_what_the_ledger_will_not_do_is_a_conflict(cluster: Cluster, superior: Superior) -> None:
    ticket = failed(cluster)
    superior.state, superior.forgotten = None, False
    asker = Asker(cluster)
    assert asker.say("retry", ticket=ticket) == (
        f"ERR CONFLICT {ticket} is failed; only failed and cancelled jobs can be queued again\n"
    )
    assert asker.say("forget", ticket=ticket).startswith(f"ERR CONFLICT {ticket} is failed; only jobs that have ended")


@pytest.mark.parametrize("verb", ["retry", "forget", "cancel"])
def test_of_a_job_on_its_way_it_is_decided_when_it_is_here(cluster: Cluster, superior: Superior, verb: str) -> None:
    cluster.store_level("balancer", 0.9)
    ticket = cluster.submit("n1")
    asker = Asker(cluster, "n2")
    asked = asker.ask(verb, ticket=ticket)
    assert asker.reply(asked) is None
    cluster.store_level("balancer", 0.1)
    reply = asker.reply(asked) or ""
    assert reply.startswith(f"OK {ticket} state=cancelled" if verb == "cancel" else f"ERR CONFLICT {ticket} is queued;")


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_of_an_end_that_a_new_ledger_has_still_to_learn_it_is_decided_then(cluster: Cluster, verb: str) -> None:
    """The origin says that the job has ended; only the ledger can bring it back."""
    ticket = failed(cluster)
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    superior = Superior()
    assert cluster.balancer is not None
    cluster.balancer.machine._clerk._orders = superior.orders()
    cluster.store_level("balancer", 0.9)
    cluster.dial("n1")
    cluster.dial("n2")
    asker = Asker(cluster, "n2")
    asked = asker.ask(verb, ticket=ticket)
    assert asker.reply(asked) is None
    cluster.store_level("balancer", 0.1)
    assert (asker.reply(asked) or "").startswith(f"OK {ticket}")
    assert superior.told == [(verb, ticket)]


@pytest.mark.parametrize("verb", ["retry", "forget"])
def test_a_ticket_that_nobody_knows_is_unknown(cluster: Cluster, superior: Superior, verb: str) -> None:
    never_issued = cluster.submit("n1").replace("-1", "-77")
    asker = Asker(cluster, "n2")
    for ticket in (never_issued, "zzzzzz-1", "nonsense"):
        assert asker.say(verb, ticket=ticket).startswith("ERR UNKNOWN_TICKET ")
    assert superior.told == []


# --- a group in parts --------------------------------------------------------------------------------------------


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Seven jobs of a group that nobody can run; a step changes two."""
    monkeypatch.setattr("balancer.group_orders.ORDERS_PER_STEP_MAX", 2)
    cluster = Cluster(2, slots=0, awake_max=3)
    for _ in range(7):
        cluster.submit("n1", "group=g sh true")
    return cluster


def live_in(cluster: Cluster) -> int:
    assert cluster.balancer is not None
    return cluster.balancer.machine._ledger.all.count_in_group("g")


def test_a_large_group_is_changed_in_parts_and_answered_once_when_all_is_done(in_parts: Cluster) -> None:
    asker = Asker(in_parts)
    asked = asker.ask("cancel", group="g")
    assert asker.reply(asked) is None
    assert 0 < live_in(in_parts) < 7, "nothing of it was done yet, or all at once"
    late = in_parts.submit("n1", "group=g sh true")
    in_parts.advance(0.01)
    assert asker.reply(asked) == "OK group=g state=cancelled count=7\n"
    assert live_in(in_parts) == 1, f"{late} came after the order"
    for verb, reply in (
        ("retry", "OK group=g state=queued count=7\n"),
        ("cancel", "OK group=g state=cancelled count=8\n"),
    ):
        asked = asker.ask(verb, group="g")
        in_parts.advance(0.01)
        assert asker.reply(asked) == reply
    asked = asker.ask("forget", group="g")
    in_parts.advance(0.01)
    assert asker.reply(asked) == "OK group=g count=8\n"
    assert in_parts.say("n1", "list group=g") == "OK count=0 bytes=0\n\n"


@pytest.mark.parametrize("how", ["the client goes", "the link goes"])
def test_what_was_begun_for_a_group_is_done_although_nobody_waits_for_the_answer(in_parts: Cluster, how: str) -> None:
    asker = Asker(in_parts, "n2")
    asked = asker.ask("cancel", group="g")
    if how == "the client goes":
        asker.forget(asked)
    else:
        in_parts.kill_node("n2")
    in_parts.advance(0.01)
    assert live_in(in_parts) == 0
    assert asker.reply(asked) is None
    assert in_parts.balancer is not None
    assert in_parts.balancer.machine.statistics()["queries_open"] == 0


def test_others_are_served_between_the_parts_also_those_of_another_order(in_parts: Cluster) -> None:
    asker = Asker(in_parts)
    for _ in range(20):
        in_parts.submit("n1", "group=g sh true")
    first, second = asker.ask("cancel", group="g"), asker.ask("cancel", group="g")
    assert asker.say("stats").startswith("OK ")
    assert asker.reply(first) is None
    in_parts.advance(0.01)
    counts = [int((asker.reply(asked) or "").rpartition("count=")[2]) for asked in (first, second)]
    assert sum(counts) == 27, "a job was cancelled by both, or by none"


def test_what_ends_after_an_order_for_what_has_ended_is_not_meant(in_parts: Cluster) -> None:
    in_parts.say("n1", "cancel group=g")
    in_parts.advance(0.01)
    late = in_parts.submit("n1", "group=g sh true")
    asker = Asker(in_parts, "n2")
    in_parts.busy("n1")  # it takes note later, so that no step is taken for it
    asked = asker.ask("forget", group="g")
    assert asker.reply(asked) is None
    in_parts.say("n2", f"cancel {late}")
    in_parts.advance(0.01)
    assert asker.reply(asked) == "OK group=g count=7\n"
    assert (in_parts.say("n1", f"status {late}") or "").startswith(f"OK {late} state=cancelled")
