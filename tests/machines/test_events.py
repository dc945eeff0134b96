"""EVENTS: what happened, numbered and in order, in one record for each step, kept within bounds."""

import gc
import json
import random
from datetime import datetime
from types import GeneratorType
from urllib.parse import quote

import attrs
import pytest

from balancer import chronicle
from balancer.chronicle import Chronicle
from common.effects import Table
from common.events import Received
from common.memory import Memory
from common.messages import Info
from common.model import Outcome, Reason, Verdict
from tests.machines.asking import Asker, body, field, head
from tests.machines.cluster import PERIODS, WALL, Cluster, Disk


def events_of(reply: str | None) -> list[dict[str, object]]:
    return [json.loads(line) for line in body(reply)]


def story(cluster: Cluster, name: str = "n1", since: str | None = None) -> list[str]:
    """The events that are kept, without numbers and times: `job.running aaaaab-1 attempt=1 node=n1`."""
    told = []
    for event in events_of(Asker(cluster, name).say("events", since=since)):
        rest = [f"{key}={value}" for key, value in event.items() if key not in ("seq", "at", "event", "ticket")]
        told.append(" ".join([str(event["event"]), *([str(event["ticket"])] if "ticket" in event else []), *rest]))
    return told


def of_job(cluster: Cluster, ticket: str) -> list[str]:
    return [line for line in story(cluster) if ticket in line.split()]


def kept(cluster: Cluster) -> list[dict[str, object]]:
    """All events, asked of the balancer's chronicle itself: nodes need not be there."""
    assert cluster.balancer is not None
    records = cluster.balancer.disk.scan(Table.EVENTS, limit=10_000)
    return [json.loads(line) for _, record in records for line in record[8:].splitlines()]


# --- what is told -------------------------------------------------------------------------------------------------


def test_the_life_of_a_job_is_told_in_order() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "name=two%20words group=g sh false")
    cluster.finish("n1", (ticket, 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.25))
    told = [line for line in of_job(cluster, ticket) if not line.startswith("job.queued")]
    assert told == [
        f"job.submitted {ticket} kind=sh name=two words group=g",
        f"job.dispatched {ticket} attempt=1 node=n1",
        f"job.running {ticket} attempt=1 node=n1",
        f"job.failed {ticket} attempt=1 node=n1 reason=exit exit=3 seconds=0.25",
    ]


def test_a_name_is_told_as_it_is_and_yet_acts_on_no_terminal() -> None:
    cluster = Cluster(1)
    name = "ö \x1b[2J\x7f\x9b2J\u202e\U000e0001 end"
    cluster.submit("n1", f"name={quote(name)} sh true")
    reply = Asker(cluster, "n1").say("events")
    assert name in [event.get("name") for event in events_of(reply)]
    assert all(line.isprintable() for line in body(reply))
    assert any("ö \\u001b[2J\\u007f\\u009b2J\\u202e\\udb40\\udc01 end" in line for line in body(reply))


def test_what_happens_while_all_are_silent_has_its_own_moment_and_not_that_of_the_last_message() -> None:
    cluster = Cluster(2)
    cluster.frozen = frozenset({"n1", "n2"})
    silent_at = cluster.wall
    cluster.advance(PERIODS.node_timeout_s + 1)
    told = [event for event in kept(cluster) if event["event"] == "node.lost"]
    assert len(told) == 2
    for event in told:
        at_wall = datetime.fromisoformat(str(event["at"])).timestamp()
        assert at_wall - silent_at == pytest.approx(PERIODS.node_timeout_s, abs=1.0)


def test_a_node_that_joins_is_told_with_its_slots() -> None:
    cluster = Cluster()
    cluster.add_node("n1", slots=7)
    assert [event["slots"] for event in kept(cluster) if event["event"] == "node.joined"] == [7]


def test_a_job_that_comes_late_is_told_with_its_age() -> None:
    cluster = Cluster(1)
    cluster.submit("n1")
    cluster.kill_balancer()
    cluster.submit("n1")
    cluster.advance(60.0)
    cluster.store_level("n1", 0.1)  # as the driver says four times in a second: a node takes the time of day from it
    cluster.start_balancer()
    cluster.dial("n1")
    ages = [event.get("age_s") for event in kept(cluster) if event["event"] == "job.submitted"]
    assert ages == [None, pytest.approx(60.0, abs=0.5)]


def test_each_end_is_told_by_its_state_and_what_is_not_known_is_left_out() -> None:
    cluster = Cluster(1, slots=1)
    done, cancelled = cluster.submit("n1"), cluster.submit("n1")
    cluster.say("n1", f"cancel {cancelled}")
    cluster.finish_all()
    assert of_job(cluster, done)[-1] == f"job.succeeded {done} attempt=1 node=n1 exit=0 seconds=0.5"
    assert of_job(cluster, cancelled)[-1] == f"job.cancelled {cancelled} reason=user"


def test_an_attempt_that_runs_is_told_once_however_often_its_node_says_so() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.dial("n1")
    cluster.dial("n1")
    assert sum(line.startswith("job.running") for line in of_job(cluster, ticket)) == 1


def test_an_attempt_that_began_while_the_link_was_cut_is_told_when_it_is_back() -> None:
    cluster = Cluster(1, slots=1)
    first, second = cluster.submit("n1"), cluster.submit("n1")
    cluster.cut(cluster.nodes["n1"].link or 0)
    cluster.finish("n1", (first, 1))
    assert cluster.where(second)
    cluster.dial("n1")
    assert f"job.running {second} attempt=1 node=n1" in of_job(cluster, second)


def test_a_node_that_comes_drains_and_goes_is_told() -> None:
    cluster = Cluster(2)
    link = cluster.nodes["n1"].link
    assert link is not None
    for draining in (True, True, False):
        cluster._step_balancer(Received(link, [Info(0, 0, draining=draining)], cluster.wall))
    cluster.kill_node("n1")
    cluster.advance(20)
    told = [line.partition(" node=n1 id=id-n1")[0] for line in story(cluster, "n2") if " node=n1 " in line]
    assert told == ["node.joined", "node.draining", "node.undrained", "node.disconnected", "node.lost"]


def test_an_event_begins_with_its_number_its_moment_and_its_name() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    lines = body(Asker(cluster).say("events"))
    (line,) = [line for line in lines if "job.submitted" in line]
    number = lines.index(line) + 1
    assert line == (
        f'{{"seq":{number},"at":"2027-01-15T08:16:40.000Z","event":"job.submitted","ticket":"{ticket}","kind":"sh"}}'
    )
    assert [event["seq"] for event in events_of(Asker(cluster).say("events"))] == list(range(1, len(lines) + 1))


# --- cursors ------------------------------------------------------------------------------------------------------


def test_a_cursor_goes_on_behind_what_was_told_also_after_a_restart() -> None:
    cluster = Cluster(1)
    cluster.submit("n1")
    reply = Asker(cluster).say("events")
    cursor = field(reply, "cursor")
    assert head(Asker(cluster).say("events", since=cursor)) == f"OK count=0 cursor={cursor} bytes=0"
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    again = Asker(cluster).say("events", since=cursor)
    first, last = events_of(again)[0], events_of(reply)[-1]
    assert (first["event"], first["seq"]) == ("node.joined", int(str(last["seq"])) + 1)
    assert field(again, "lost") is None
    assert body(Asker(cluster).say("events")) == body(reply) + body(again)


@pytest.mark.parametrize("since", ["nonsense", "????.1", "zzzzz.1", "{tag}.9999", "{other}.1"])
def test_a_cursor_that_is_none_of_this_ledger_has_lost_what_it_stood_for(since: str) -> None:
    cluster = Cluster(1)
    whole = Asker(cluster).say("events")
    tag = (field(whole, "cursor") or "").partition(".")[0]
    reply = Asker(cluster).say("events", since=since.format(tag=tag, other=tag[1:] + "ab"[tag[1:] + "a" == tag]))
    assert body(reply) == body(whole)
    assert head(reply).startswith(f"OK count={len(body(whole))} lost=1 cursor={tag}.")


def test_one_answer_holds_so_many_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "EVENTS_PER_REPLY_MAX", 3)
    cluster = Cluster(1)
    for _ in range(3):
        cluster.submit("n1")
    cluster.finish_all()
    seen: list[object] = []
    cursor = None
    while count := int(field(reply := Asker(cluster).say("events", since=cursor), "count") or 0):
        assert count <= 3
        seen += [event["seq"] for event in events_of(reply)]
        cursor = field(reply, "cursor")
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 12


# --- following ----------------------------------------------------------------------------------------------------


def test_who_follows_is_told_by_the_step_in_which_something_happens() -> None:
    cluster = Cluster(2)
    cursor = field(Asker(cluster).say("events"), "cursor")
    followers = [Asker(cluster, name) for name in ("n1", "n2")]
    following = [(asker, asker.ask("follow", since=cursor)) for asker in followers]
    cluster.advance(10)
    assert [asker.reply(id) for asker, id in following] == [None, None], "nothing has happened"
    ticket = cluster.submit("n1")
    told = [asker.reply(id) for asker, id in following]
    assert told[0] == told[1]
    assert events_of(told[0])[0]["ticket"] == ticket
    rest = followers[0].say("follow", since=field(told[0], "cursor"))
    assert body(told[0]) + body(rest) == body(Asker(cluster).say("events", since=cursor))


def test_who_follows_without_a_cursor_is_told_from_the_beginning() -> None:
    cluster = Cluster(1)
    assert body(Asker(cluster).say("follow")) == body(Asker(cluster).say("events"))


def test_from_now_on_is_told_by_the_cursor_of_the_moment() -> None:
    cluster = Cluster(1)
    cluster.submit("n1")
    asker = Asker(cluster)
    for verb in ("events", "follow"):
        reply = asker.say(verb, since="now")
        assert body(reply) == []
        following = asker.ask("follow", since=field(reply, "cursor"))
        assert asker.reply(following) is None, "nothing has happened since"
        ticket = cluster.submit("n1")
        assert {event.get("ticket") for event in events_of(asker.reply(following))} == {ticket}


def test_who_follows_no_longer_is_told_nothing() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    cursor = field(asker.say("events"), "cursor")
    following = asker.ask("follow", since=cursor)
    asker.forget(following)
    cluster.submit("n1")
    assert asker.answers(following) == []
    assert cluster.balancer is not None
    assert cluster.balancer.machine.statistics()["queries_open"] == 0


# --- the record on disk -------------------------------------------------------------------------------------------


class Book:
    """A chronicle and its disk, without a balancer."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.memory = Memory(self.disk)
        self.chronicle = Chronicle(self.memory)
        self.chronicle.restore("aaaa")

    def step(self, *names: str) -> None:
        for name in names:
            self.chronicle.tell(name, None, name="x" * 20)
        self.chronicle.flush(WALL)
        self.disk.commit(list(self.memory.take()))
        self.memory.committed()

    @property
    def records(self) -> dict[bytes, bytes]:
        return self.disk.tables[Table.EVENTS]

    @property
    def bytes_kept(self) -> int:
        return sum(len(record) - 8 for record in self.records.values())


def test_a_step_writes_one_record_and_one_without_events_none() -> None:
    book = Book()
    book.step("a", "b", "c")
    book.step()
    book.step("d")
    assert [int.from_bytes(key, "big") for key in book.records] == [1, 4]
    told = book.chronicle.read("aaaa.1")
    assert (told.count, told.cursor, told.lost) == (3, "aaaa.4", False)


def test_of_a_step_nothing_stays_in_memory() -> None:
    book = Book()

    def generators() -> int:
        gc.collect()
        return sum(isinstance(thing, GeneratorType) for thing in gc.get_objects())

    before = generators()
    for _ in range(100):
        book.step("a", "b", "c")
    assert generators() < before + 10


def test_the_oldest_go_when_there_is_too_much_and_their_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 2000)
    book = Book()
    for number in range(100):
        book.step(*["event"] * (1 + number % 3))
        assert book.bytes_kept <= 2000
    assert book.bytes_kept > 1500
    oldest = min(int.from_bytes(key, "big") for key in book.records)
    told = book.chronicle.read("aaaa.5")
    assert told.lost
    assert json.loads(told.lines.splitlines()[0])["seq"] == oldest
    assert told.cursor == "aaaa.199"
    assert not book.chronicle.read(None).lost, "who has seen nothing has lost nothing"
    assert not book.chronicle.read(f"aaaa.{oldest - 1}").lost
    assert book.chronicle.read(f"aaaa.{oldest - 2}").lost


def test_a_restart_goes_on_with_its_numbers_and_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 2000)
    chance = random.Random(1)
    book = Book()
    told = 0
    for _ in range(100):
        count = chance.randint(1, 4)
        book.step(*["event"] * count)
        told += count
        if chance.random() < 0.3:
            book = Book(book.disk)
        assert book.bytes_kept <= 2000
    assert book.chronicle.read(None).cursor == f"aaaa.{told}"
    assert book.bytes_kept > 1500


def test_a_restart_drops_nothing_for_which_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 2000)
    book = Book()
    for _ in range(100):
        book.step("event")
    kept = list(book.records)
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 2500)
    book = Book(book.disk)
    book.step("event")
    assert list(book.records)[:-1] == kept


def test_one_step_beyond_the_bound_drops_all_before_it_and_keeps_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 500)
    book = Book()
    book.step("small")
    book.step(*["event"] * 50)
    assert len(book.records) == 1
    assert Book(book.disk).chronicle.read("aaaa.50").count == 1


def test_a_step_drops_no_more_than_so_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()
    for _ in range(200):
        book.step("event")
    monkeypatch.setattr(chronicle, "EVENTS_BYTES_MAX", 0)
    monkeypatch.setattr(chronicle, "_DROP_SCANS_MAX", 2)
    book.step("event")
    assert len(book.records) == 201 - 1 - 16
    for _ in range(12):
        book.step("event")
    assert len(book.records) == 1


def test_a_record_that_was_set_aside_is_a_gap_and_no_end() -> None:
    book = Book()
    for _ in range(5):
        book.step("a", "b")
    del book.records[(5).to_bytes(8, "big")]
    del book.records[(9).to_bytes(8, "big")]
    seqs = [json.loads(line)["seq"] for line in Book(book.disk).chronicle.read("aaaa.1").lines.splitlines()]
    assert seqs == [2, 3, 4, 7, 8]


def test_periodic_rounds_tell_of_the_same_life() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, eager=False))
    ticket = cluster.submit("n1")
    cluster.advance(6)
    cluster.finish_all()
    cluster.advance(6)
    told = [line.split()[0] for line in of_job(cluster, ticket) if not line.startswith("job.queued")]
    assert told == ["job.submitted", "job.dispatched", "job.running", "job.succeeded"]
