"""Jobs that rest on disk: nobody can tell them from those in memory, and a million of them cost next to nothing."""

import attrs
import pytest

from balancer.ledger import Ledger
from common.effects import Table
from common.limits import ENDS_ASKED_MAX, ENDS_ASKED_PERIOD_S
from common.messages import Answer, Jobs, Message, RequestOfRes, Taken
from common.model import ticket, ticket_key
from tests.machines.alone import PREFIX, Alone
from tests.machines.asking import Asker, body, field
from tests.machines.cluster import PERIODS, Cluster
from tests.machines.test_in_flight import Story

QUESTIONS = ("status {}", "explain {}", "list", "list state=queued", "list state=running", "list group=g", "stats")


class Curious(Story):
    """A story in which much is asked. `transcript` is all that anybody could notice."""

    def __init__(self, seed: int, **memory: int) -> None:
        super().__init__(seed, **memory)
        self.transcript: list[object] = []
        self._noted = 0

    def one_event(self) -> None:
        super().one_event()
        if self.chance.random() < 0.3 and (name := self.some(self.cluster.nodes)) is not None:
            question = self.chance.choice(QUESTIONS).format(self.some(self.acknowledged) or "aaaaab-1")
            self.cluster.ask(str(name), question)
        self.note()

    def note(self) -> None:
        new = [(to, _without_id(message)) for to, message in self.cluster.sent[self._noted :]]
        self._noted = len(self.cluster.sent)
        balancer = self.cluster.balancer
        replies = {name: dict(node.replies) for name, node in self.cluster.nodes.items()}
        disks = {name: _records(node.disk.tables) for name, node in self.cluster.nodes.items()}
        if balancer is not None:
            disks["balancer"] = _records(balancer.disk.tables)
        self.transcript.append((new, replies, disks))

    def tell(self) -> None:
        super().tell()
        self.note()


def _without_id(message: Message) -> object:
    """The tests ask under numbers that go on from one story to the next."""
    return message.reply if isinstance(message, Answer) else message


def _records(tables: dict[Table, dict[bytes, bytes]]) -> int:
    return hash(tuple((table, tuple(sorted(records.items()))) for table, records in tables.items()))


@pytest.mark.parametrize("seed", range(16))
def test_nobody_can_tell_whether_jobs_rest_at_the_balancer(seed: int) -> None:
    told = Curious(seed, awake_max=20_000, own_awake_max=20_000)
    told.tell()
    for awake_max in (0, 1, 5):
        again = Curious(seed, awake_max=awake_max, own_awake_max=20_000)
        again.tell()
        for at, (before, after) in enumerate(zip(told.transcript, again.transcript, strict=True)):
            assert before == after, f"seed {seed}, event {at}: with awake_max={awake_max} something else was done"


@pytest.mark.parametrize("seed", range(100, 108))
def test_nobody_can_tell_whether_jobs_rest_at_their_origin(seed: int) -> None:
    told = Quiet(seed, awake_max=20_000, own_awake_max=20_000)
    told.tell()
    for awake_max in (0, 1, 5):
        again = Quiet(seed, awake_max=20_000, own_awake_max=awake_max)
        again.tell()
        assert told.transcript == again.transcript, f"seed {seed}: with awake_max={awake_max} something else was done"


class Quiet(Curious):
    """Nobody asks what the origin last heard, of which it forgets some where many jobs rest."""

    def one_event(self) -> None:
        Story.one_event(self)
        self.note()


# --- at the balancer ---------------------------------------------------------------------------------------------


def ledger_of(cluster: Cluster) -> Ledger:
    assert cluster.balancer is not None
    return cluster.balancer.machine._ledger


def started(cluster: Cluster) -> list[str]:
    return [name for name, _ in cluster.starts]


def finish_all(cluster: Cluster) -> None:
    while any(node.running for node in cluster.nodes.values()):
        cluster.finish_all()


def restarted(cluster: Cluster) -> None:
    cluster.kill_balancer()
    cluster.start_balancer()
    for name in cluster.nodes:
        cluster.dial(name)


def test_as_many_are_in_memory_as_may_be_and_the_others_wake_when_it_is_their_turn() -> None:
    cluster = Cluster(1, slots=0, awake_max=3)
    tickets = [cluster.submit("n1") for _ in range(8)]
    assert list(ledger_of(cluster).all.awake) == tickets[:3]
    assert len(ledger_of(cluster)) == 8
    cluster.add_node("n2", slots=1)
    finish_all(cluster)
    assert started(cluster) == tickets
    assert len(ledger_of(cluster)) == 0


@pytest.mark.parametrize("awake_max", [0, 2, 20_000])
def test_after_a_restart_all_stand_where_they_stood(awake_max: int) -> None:
    cluster = Cluster(2, slots=0, awake_max=awake_max)
    lines = ("sh 1", "priority=3 sh 2", "group=g sh 3", "array=1-2 sh 4", "delay=1h sh 5", "group=g priority=3 sh 6")
    first = [cluster.submit(name, line) for line in lines for name in ("n1", "n2")]
    cluster.say("n1", f"cancel {first[0]}")
    before = cluster.say("n1", "list"), cluster.say("n2", "list group=g")
    restarted(cluster)
    assert (cluster.say("n1", "list"), cluster.say("n2", "list group=g")) == before
    assert ledger_of(cluster).all.count_in_group("g") == 4
    late = cluster.submit("n1", "priority=3 sh 7")
    cluster.add_node("n3", slots=1)
    finish_all(cluster)
    high, low = [*first[2:4], *first[10:], late], [first[1], *first[4:6], *(f"{first[6]}_{at}" for at in (1, 2))]
    assert started(cluster) == [*high, *low, *(f"{first[7]}_{at}" for at in (1, 2))]


def test_after_a_restart_as_many_are_live_as_before() -> None:
    cluster = Cluster(1, slots=0)
    tickets = [cluster.submit("n1", f"group=g priority={number // 6} sh true") for number in range(9)]
    cluster.say("n1", f"cancel {tickets[3]}")
    restarted(cluster)
    assert (len(ledger_of(cluster)), ledger_of(cluster).all.count_in_group("g")) == (8, 8)
    assert ledger_of(cluster).all.awake == {}
    for name in tickets[:3]:
        cluster.say("n1", f"cancel {name}")
    assert (len(ledger_of(cluster)), ledger_of(cluster).all.count_in_group("g")) == (5, 5)


def test_within_a_step_whoever_asks_for_a_job_that_rests_is_given_the_same_entry() -> None:
    cluster = Cluster(1, slots=0, awake_max=0)
    name, _ = cluster.submit("n1"), cluster.submit("n1")
    ledger = ledger_of(cluster)
    held = ledger.live(name)
    assert held is not None
    assert ledger.live(name) is held
    ledger.lease(held, "id-n1", "boot")
    assert ledger.live(name) is held
    ledger.release(held, crashed=False, wall=0.0)
    assert ledger.live(name) is held, "it rests again, and somebody holds it"
    ledger.cancel(held, 0.0)
    assert ledger.live(name) is None, "it has ended"


def test_an_entry_that_was_kept_from_another_step_is_not_changed() -> None:
    """The record may say more than it does."""
    cluster = Cluster(1, slots=0, awake_max=0)
    name = cluster.submit("n1")
    ledger = ledger_of(cluster)
    held = ledger.live(name)
    assert held is not None
    cluster.advance(10)
    with pytest.raises(AssertionError, match=f"an old entry of {name} is being changed"):
        ledger.lease(held, "id-n1", "boot")


def test_jobs_that_are_cancelled_while_they_rest_leave_no_place_behind() -> None:
    cluster = Cluster(1, slots=0, awake_max=1)
    tickets = [cluster.submit("n1", "group=g sh true") for _ in range(6)]
    for name in tickets[1:4]:
        cluster.say("n1", f"cancel {name}")
    assert (len(ledger_of(cluster)), ledger_of(cluster).all.count_in_group("g")) == (3, 3)
    assert field(cluster.say("n1", "cancel group=g"), "count") == "3"
    assert (len(ledger_of(cluster)), ledger_of(cluster).all.count_in_group("g")) == (0, 0)
    cluster.add_node("n2")
    assert started(cluster) == []
    assert not ledger_of(cluster).queue, "what was cancelled is still in line"


@pytest.mark.parametrize("asked", [True, False])
def test_a_job_whose_record_is_damaged_while_it_rests_fails_and_holds_nobody_up(asked: bool) -> None:
    """It is noticed by whoever reads it first: an origin that is back and asks for its end, or the round."""
    cluster = Cluster(1, slots=0, awake_max=0)
    first, damaged, last = (cluster.submit("n1", "group=g sh true") for _ in range(3))
    assert cluster.balancer is not None
    del cluster.balancer.disk.tables[Table.LIVE][ticket_key(damaged)]
    if asked:
        cluster.dial("n1")
        assert field(cluster.say("n1", f"result {damaged}"), "reason") == "cannot_start"
    cluster.add_node("n2", slots=1)
    finish_all(cluster)
    assert started(cluster) == [first, last]
    assert field(cluster.say("n1", f"result {damaged}"), "reason") == "cannot_start"
    assert (len(ledger_of(cluster)), ledger_of(cluster).all.count_in_group("g")) == (0, 0)
    cluster.say("n1", f"retry {damaged}")
    assert (damaged, 1001) in cluster.starts, "an attempt of a lost number may be running"


def test_what_runs_is_listed_however_many_wait_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.listing.LIST_SCAN_MAX", 5)
    cluster = Cluster(1, slots=1, awake_max=2, periods=attrs.evolve(PERIODS, backlog_max=0))
    running, *waiting = [cluster.submit("n1", "group=g sh true") for _ in range(20)]
    assert [line.split()[0] for line in body(cluster.say("n1", "list state=running"))] == [running]
    assert [line.split()[0] for line in body(cluster.say("n1", "list state=running group=g"))] == [running]
    listed = cluster.say("n1", "list state=queued")
    assert [line.split()[0] for line in body(listed)] == waiting[:-6:-1]
    assert field(listed, "partial") == "1"


def test_a_place_far_behind_is_counted_and_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.explanations.EXPLAIN_LOOKED_AT_MAX", 10)
    cluster = Cluster(1, slots=0, awake_max=0)
    tickets = [cluster.submit("n1") for _ in range(13)]
    cluster.say("n1", f"cancel {tickets[1]}")
    asker = Asker(cluster)
    assert "behind 9 queued jobs" in asker.say("explain", ticket=tickets[10])
    assert "behind about 11 queued jobs and arrays" in asker.say("explain", ticket=tickets[11])


# --- at the origin -----------------------------------------------------------------------------------------------


def sent(actions: list[object]) -> list[str]:
    return [item.ticket for message in actions if isinstance(message, Jobs) for item in message.items]


def asked_for(actions: list[object]) -> list[str]:
    return [name for message in actions if isinstance(message, RequestOfRes) for name in message.tickets]


@pytest.mark.parametrize("awake_max", [0, 3, 20_000])
def test_what_was_taken_in_without_a_balancer_is_sent_in_the_order_of_its_tickets(awake_max: int) -> None:
    node = Alone(linked=False, awake_max=awake_max)
    tickets = [node.submit(taken=False) for _ in range(10)]
    node.boot()
    tickets += [node.submit(taken=False) for _ in range(10)]
    assert sent(node.open_link()) == tickets
    node.receive(Taken(tuple(tickets[:5])))
    node.cut()
    node.boot()
    tickets.append(node.submit(taken=False))
    assert sent(node.open_link()) == tickets[5:]
    assert sent(node.receive(Taken(tuple(tickets[5:])))) == []
    node.cut()
    assert sent(node.open_link()) == []


@pytest.mark.parametrize("awake_max", [0, 2, 4, 20_000])
def test_what_the_window_has_no_room_for_is_not_counted_as_acknowledged(
    awake_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.delivery._WINDOW_ITEMS", 4)
    node = Alone(linked=False, awake_max=awake_max)
    tickets = [node.submit(taken=False) for _ in range(10)]
    assert sent(node.open_link()) == tickets[:4]
    assert sent(node.receive(Taken(tuple(tickets[:4])))) == tickets[4:8]
    assert node.disk.tables[Table.META][b"acknowledged_number"] == b"4"
    node.boot()
    assert sent(node.open_link()) == tickets[4:8]


def test_a_new_ledger_is_told_of_every_job_also_of_those_of_which_nothing_is_remembered() -> None:
    node = Alone(awake_max=2)
    tickets = [node.submit() for _ in range(9)]
    node.end(tickets[4])
    node.cut()
    again = sent(node.open_link("ledger-2"))
    assert again == [*tickets[:4], *tickets[5:], tickets[4]]


def test_ends_that_were_missed_are_asked_for_in_parts_and_each_once() -> None:
    node = Alone(awake_max=10)
    many = 2 * ENDS_ASKED_MAX + 500
    tickets = [ticket(PREFIX, number) for number in range(1, many + 1)]
    node.ask(*["submit sh true"] * many)
    node.receive(Taken(tuple(tickets)))
    node.end(tickets[0])
    node.cut()
    node.advance(1)
    asked = asked_for(node.open_link())
    assert asked == tickets[1 : ENDS_ASKED_MAX + 1]
    node.submit()
    asked += asked_for(node.advance(ENDS_ASKED_PERIOD_S))
    assert asked == tickets[1 : 2 * ENDS_ASKED_MAX + 1]
    asked += asked_for(node.advance(5))
    assert asked == tickets[1:], "what is sent on this link need not be asked for"


def test_no_end_is_asked_for_where_the_link_has_gone_again() -> None:
    node = Alone()
    many = ENDS_ASKED_MAX + 1
    node.ask(*["submit sh true"] * many)
    node.receive(Taken(tuple(ticket(PREFIX, number) for number in range(1, many + 1))))
    node.cut()
    node.open_link()
    node.cut()
    assert asked_for(node.advance(5)) == []
    assert len(asked_for(node.open_link())) == ENDS_ASKED_MAX


def test_of_a_job_that_rests_its_origin_says_what_it_was_when_it_was_submitted() -> None:
    node = Alone(awake_max=1)
    first, second, blocked = node.submit(), node.submit(), node.submit(f"after={PREFIX}-1 sh true")
    node.advance(7)
    node.cut()
    for name, state in ((first, "queued"), (second, "queued"), (blocked, "blocked")):
        reply = node.say(f"status {name}")
        assert (field(reply, "state"), field(reply, "as_of_s")) == (state, "7.000"), name
    node.boot()
    node.advance(1)
    assert field(node.say(f"status {second}"), "as_of_s") == "8.000"


def test_what_was_heard_first_is_forgotten_first() -> None:
    node = Alone(awake_max=2)
    tickets = [node.submit() for _ in range(4)]
    for name in tickets[1:]:
        inquiry = node.inquiry(f"status {name}")
        node.receive(Answer(inquiry.id, f"OK {name} state=running attempt=2\n".encode()))
    node.advance(3)
    node.cut()
    states = [field(node.say(f"status {name}"), "state") for name in tickets]
    assert states == ["queued", "queued", "running", "running"]
    assert node.worker.statistics()["jobs_live"] == 4
    for name in tickets:
        assert node.worker._intake.live(name) is not None


def test_a_million_waiting_jobs_are_a_handful_of_numbers_in_memory() -> None:
    """Each entry, name or place of its own would be one for each job."""
    cluster = Cluster(1, slots=0, awake_max=5, own_awake_max=5)
    many = 300
    for _ in range(many):
        cluster.submit("n1", "group=g sh true")
    live, intake = ledger_of(cluster).all, cluster.nodes["n1"].machine._intake
    assert (len(live), len(intake)) == (many, many)
    assert (len(live.awake), len(live._looked_at)) == (5, 0)
    assert (len(live._order._sequences), len(live._groups["g"]._sequences)) == (1, 1)
    assert (len(intake._live._heard), len(intake._live._held)) == (5, 0)
    assert (len(intake.delivery._unsent), len(intake.delivery._in_flight)) == (0, 0)
