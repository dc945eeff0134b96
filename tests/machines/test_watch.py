"""WATCH at the ledger: each end is told once to whoever goes on behind his cursor, and nobody is told of an end that
was none."""

import random
import sys
from collections.abc import Callable
from types import FrameType

import attrs
import pytest

from balancer import watches
from common.codec import pack
from common.effects import Table
from common.events import Received
from common.messages import Forget, Inquiry, Jobs, Submission
from common.model import Ended, Job, Outcome, Reason, State, Verdict, ticket_key
from tests.machines.asking import Asker, body, field, head
from tests.machines.cluster import PERIODS, Cluster


def ended_tickets(reply: str | None) -> list[str]:
    return [line.split()[0] for line in body(reply) if "error=" not in line]


def finish(cluster: Cluster, ticket: str) -> None:
    ((runner, id),) = cluster.where(ticket)
    cluster.finish(runner, id)


# --- tickets ------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_told_at_once_as_list_tells_it() -> None:
    cluster = Cluster(1, slots=4)
    asker = Asker(cluster)
    first, second = cluster.submit("n1", "name=one sh true"), cluster.submit("n1")
    cluster.finish("n1", (first, 1))
    reply = asker.say("watch", first, second)
    assert head(reply).startswith("OK count=1 live=1 cursor=")
    (listed,) = [line for line in (cluster.say("n1", "list state=succeeded") or "").splitlines() if first in line]
    assert body(reply) == [listed]


def test_nothing_is_told_before_the_first_of_them_ends() -> None:
    cluster = Cluster(1, slots=4)
    asker = Asker(cluster)
    tickets = [cluster.submit("n1") for _ in range(3)]
    other = cluster.submit("n1")
    watching = asker.ask("watch", *tickets)
    finish(cluster, other)
    assert asker.reply(watching) is None
    finish(cluster, tickets[1])
    assert ended_tickets(asker.reply(watching)) == [tickets[1]]
    assert field(asker.reply(watching), "live") == "2"


def test_what_ends_in_one_step_is_told_in_one_answer_in_the_order_of_the_ends() -> None:
    cluster = Cluster(1, slots=4)
    asker = Asker(cluster)
    tickets = [cluster.submit("n1") for _ in range(4)]
    watching = asker.ask("watch", *tickets)
    cluster.busy("balancer")
    for ticket in (tickets[2], tickets[0], tickets[3]):
        finish(cluster, ticket)
    assert asker.reply(watching) is None
    cluster.free("balancer")
    assert ended_tickets(asker.reply(watching)) == [tickets[2], tickets[0], tickets[3]]
    assert field(asker.reply(watching), "live") == "1"


def test_a_cursor_goes_on_where_it_was_at_any_node_and_after_a_restart() -> None:
    cluster = Cluster(2, slots=4)
    tickets = [cluster.submit("n1") for _ in range(4)]
    finish(cluster, tickets[0])
    cursor = field(Asker(cluster, "n1").say("watch", *tickets), "cursor")
    finish(cluster, tickets[2])
    reply = Asker(cluster, "n2").say("watch", *tickets, since=cursor)
    assert ended_tickets(reply) == [tickets[2]]
    cursor = field(reply, "cursor")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    asker = Asker(cluster, "n1")
    watching = asker.ask("watch", *tickets, since=cursor)
    assert asker.reply(watching) is None
    finish(cluster, tickets[1])
    assert ended_tickets(asker.reply(watching)) == [tickets[1]]


def test_when_all_have_ended_and_been_told_the_answer_is_at_once_and_empty() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    cursor = field(asker.say("watch", ticket), "cursor")
    assert head(asker.say("watch", ticket, since=cursor)) == f"OK count=0 live=0 cursor={cursor} bytes=0"


@pytest.mark.parametrize("cursor", ["nonsense", "", "????.1", ".1", "7", "{tag}.99", "{tag}.01", "{other}.1"])
def test_a_cursor_that_is_none_of_this_ledger_begins_at_the_beginning(cursor: str) -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1", "group=g sh true")
    cluster.finish_all()
    tag = (field(asker.say("watch", ticket), "cursor") or "").partition(".")[0]
    since = cursor.format(tag=tag, other=tag[1:] + "ab"[tag[1:] + "a" == tag])
    assert ended_tickets(asker.say("watch", ticket, since=since)) == [ticket]
    assert ended_tickets(asker.say("watch", group="g", since=since)) == [ticket]


def test_a_ticket_named_twice_is_told_once() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1")
    watching = asker.ask("watch", ticket, ticket)
    cluster.finish_all()
    assert head(asker.reply(watching)).startswith("OK count=1 live=0 ")


def test_another_name_is_told_under_the_name_that_was_asked_for() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1", "key=k sh true")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh true")
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.dial("n2")
    asker = Asker(cluster)
    watching = asker.ask("watch", second, first)
    cluster.finish_all()
    assert sorted(ended_tickets(asker.reply(watching))) == sorted([first, second])
    assert field(asker.reply(watching), "live") == "0"


def test_a_cancelled_job_counts_as_live_until_its_processes_are_gone() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1")
    watching = asker.ask("watch", ticket)
    cluster.say("n1", f"cancel {ticket}")
    assert asker.reply(watching) is None
    assert field(asker.say("watched", ticket), "live") == "1"
    finish(cluster, ticket)
    assert "state=cancelled" in body(asker.reply(watching))[0]


# --- tickets that the ledger does not know ------------------------------------------------------------------------


def test_a_job_on_its_way_counts_as_live_and_is_told_when_it_ends() -> None:
    cluster = Cluster(2)
    asker = Asker(cluster, "n2")
    cluster.store_level("balancer", 0.9)  # the ledger has no room for the job
    ticket = cluster.submit("n1")
    assert head(asker.say("watched", ticket)).startswith("OK count=0 live=1 ")
    watching = asker.ask("watch", ticket)
    cluster.advance(10)
    assert asker.reply(watching) is None
    cluster.store_level("balancer", 0.1)
    assert asker.reply(watching) is None
    cluster.finish_all()
    assert ended_tickets(asker.reply(watching)) == [ticket]


def test_unknown_is_told_only_when_the_origin_has_said_so() -> None:
    cluster = Cluster(2)
    ticket = cluster.submit("n1")
    never_issued = ticket.replace("-1", "-77")
    asker = Asker(cluster, "n2")
    cluster.frozen = frozenset({"n1"})  # the origin does not get to answer
    watching = asker.ask("watch", ticket, never_issued)
    assert field(asker.say("watched", ticket, never_issued), "live") == "2"
    assert asker.reply(watching) is None
    cluster.frozen = frozenset()
    cluster.settle()
    assert asker.reply(watching) is None, "an error alone is no reason to answer while something is live"
    finish(cluster, ticket)
    assert head(asker.reply(watching)).startswith("OK count=1 live=0 ")
    assert body(asker.reply(watching))[1:] == [f"{never_issued} error=UNKNOWN_TICKET"]


def test_where_nothing_is_live_the_errors_alone_are_the_answer() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    asker = Asker(cluster)
    cursor = field(asker.say("watch", ticket), "cursor")
    unknown = ["aaaaab-77", "aaaaab-x", "zzzzzz-1"]  # never issued, no ticket, of a node that was never met
    reply = asker.say("watch", ticket, *unknown, since=cursor)
    assert head(reply).startswith(f"OK count=0 live=0 cursor={cursor} ")
    assert sorted(body(reply)) == [f"{name} error=UNKNOWN_TICKET" for name in unknown]


def test_a_ticket_whose_origin_is_away_counts_as_live_until_it_is_back() -> None:
    cluster = Cluster(2)
    lost = cluster.submit("n1")
    cluster.finish_all()
    cluster.kill_balancer()
    waiting = cluster.submit("n1")
    never_issued = waiting.replace("-2", "-77")
    cluster.kill_node("n1")
    cluster.start_balancer()
    cluster.dial("n2")
    asker = Asker(cluster, "n2")
    cursor = field(asker.say("watch", lost), "cursor")
    watching = asker.ask("watch", lost, waiting, never_issued, since=cursor)
    cluster.advance(60)
    assert asker.reply(watching) is None
    cluster.restart_node("n1")
    assert asker.reply(watching) is None
    cluster.finish_all()
    reply = asker.reply(watching)
    assert head(reply).startswith("OK count=1 live=0 ")
    assert ended_tickets(reply) == [waiting]
    assert body(reply)[1] == f"{never_issued} error=UNKNOWN_TICKET"


def test_an_origin_that_goes_away_before_it_has_answered_is_asked_again() -> None:
    cluster = Cluster(2)
    asker = Asker(cluster, "n2")
    never_issued = cluster.submit("n1").replace("-1", "-77")
    cluster.frozen = frozenset({"n1"})
    watching = asker.ask("watch", never_issued)
    cluster.cut(cluster.nodes["n1"].link or 0)
    cluster.frozen = frozenset()
    cluster.settle()
    assert asker.reply(watching) is None
    cluster.dial("n1")
    assert body(asker.reply(watching)) == [f"{never_issued} error=UNKNOWN_TICKET"]


def test_what_has_expired_is_told_as_expired() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, retention_s=100.0))
    asker = Asker(cluster)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    cluster.advance(150)
    assert body(asker.say("watch", ticket)) == [f"{ticket} error=EXPIRED"]


def test_an_end_that_only_the_origin_knows_is_told_as_it_stands() -> None:
    """The ledger's own record of it was damaged and set aside."""
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket, other = cluster.submit("n1"), cluster.submit("n1")
    finish(cluster, ticket)
    assert cluster.balancer is not None
    del cluster.balancer.disk.tables[Table.ENDED][ticket_key(ticket)]
    watching = asker.ask("watch", ticket, other)
    assert asker.reply(watching) is None
    finish(cluster, other)
    assert ended_tickets(asker.reply(watching)) == [other, ticket]
    assert head(asker.reply(watching)).startswith("OK count=2 live=0 ")


def test_a_second_name_that_a_new_ledger_has_to_learn_first_is_followed() -> None:
    cluster = Cluster(3)
    first = cluster.submit("n1", "key=k sh true")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh true")
    cluster.start_balancer()
    for name in cluster.nodes:
        cluster.dial(name)
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    cluster.dial("n3")
    asker = Asker(cluster, "n3")
    watching = asker.ask("watch", second)
    cluster.dial("n1")
    cluster.finish_all()
    assert ended_tickets(asker.reply(watching)) == [second]
    assert first != second


def test_an_end_that_was_recorded_before_ends_were_numbered_is_told_once() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1")
    cluster.finish_all()
    assert cluster.balancer is not None
    old = pack(Ended(State.SUCCEEDED, cluster.wall, attempt=1))
    cluster.balancer.disk.tables[Table.ENDED][ticket_key(ticket)] = old
    reply = asker.say("watch", ticket)
    assert ended_tickets(reply) == [ticket]
    assert ended_tickets(asker.say("watch", ticket, since=field(reply, "cursor"))) == []


def test_a_new_ledger_tells_of_the_ends_that_origins_bring_it() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "group=g sh true")
    cluster.finish_all()
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.add_node("n2")
    asker = Asker(cluster, "n2")
    of_group = asker.ask("watch", group="g")
    of_ticket = asker.ask("watch", ticket)
    assert asker.reply(of_group) is None
    assert body(asker.reply(of_ticket)) == [f"{ticket} error=UNKNOWN_TICKET"], "no node with its prefix was ever met"
    cluster.dial("n1")
    assert ended_tickets(asker.reply(of_group)) == [ticket]
    assert ended_tickets(asker.say("watch", ticket)) == [ticket]


# --- arrays -------------------------------------------------------------------------------------------------------


def test_an_array_is_told_of_when_it_ends_and_its_elements_when_they_do() -> None:
    cluster = Cluster(1, slots=9)
    asker = Asker(cluster)
    array = cluster.submit("n1", "group=g array=1-3 sh true")
    of_array, of_group = asker.ask("watch", array), asker.ask("watch", group="g")
    of_elements = asker.ask("watch", f"{array}_2", f"{array}_3", f"{array}_4")
    finish(cluster, f"{array}_2")
    assert ended_tickets(asker.reply(of_elements)) == [f"{array}_2"]
    assert body(asker.reply(of_elements))[1] == f"{array}_4 error=UNKNOWN_TICKET"
    assert field(asker.reply(of_elements), "live") == "1"
    assert asker.reply(of_array) is asker.reply(of_group) is None
    cluster.finish_all()
    for id in (of_array, of_group):
        (line,) = body(asker.reply(id))
        assert line.startswith(f"{array} state=succeeded ")
        assert " count=3 " in line


def test_elements_that_have_not_begun_are_told_of_when_their_array_is_cancelled_and_once() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    asker = Asker(cluster)
    array = cluster.submit("n1", "array=1-9 sh true")
    other, dropped = f"{array}_1", f"{array}_3"
    watching, waiting = asker.ask("watch", dropped, array), asker.ask("wait", ticket=dropped)
    cluster.say("n1", f"cancel {array}")
    assert ended_tickets(asker.reply(watching)) == [dropped]
    assert field(asker.reply(watching), "live") == "1", "the first of them still runs"
    assert (asker.reply(waiting) or "").startswith(f"OK {dropped} state=cancelled ")
    watching = asker.ask("watch", dropped, array, since=field(asker.reply(watching), "cursor"))
    assert asker.reply(watching) is None
    finish(cluster, other)
    assert ended_tickets(asker.reply(watching)) == [array]
    cursor = field(asker.reply(watching), "cursor")
    assert head(asker.say("watch", dropped, array, since=cursor)).startswith("OK count=0 live=0 ")


def test_the_result_of_an_array_is_its_counts() -> None:
    cluster = Cluster(1, slots=9)
    array = cluster.submit("n1", "array=1-3 sh true")
    cluster.finish("n1", (f"{array}_2", 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5))
    cluster.finish_all()
    assert head(Asker(cluster).say("result", ticket=array)) == (
        f"OK {array} state=failed attempt=0 count=3 succeeded=2 failed=1 cancelled=0 reason=exit "
        "stdout=0 stderr=0 bytes=0"
    )


def test_a_job_that_is_retried_is_told_of_again_when_it_ends_again() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    ticket = cluster.submit("n1", "group=g sh true")
    cluster.finish("n1", (ticket, 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5))
    cursor = field(asker.say("watch", group="g"), "cursor")
    watching = asker.ask("watch", group="g", since=cursor)
    assert asker.say("retry", ticket=ticket) == f"OK {ticket} state=queued\n"
    of_ticket = asker.ask("watch", ticket, since=cursor)
    assert asker.reply(of_ticket) is asker.reply(watching) is None
    cluster.finish_all()
    for id in (watching, of_ticket):
        assert ended_tickets(asker.reply(id)) == [ticket]
        assert "state=succeeded" in body(asker.reply(id))[0]


# --- groups -------------------------------------------------------------------------------------------------------


def test_a_group_is_waited_for_although_nothing_of_it_is_live() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    watching = asker.ask("watch", group="g")
    cluster.submit("n1", "group=other sh true")
    cluster.finish_all()
    assert asker.reply(watching) is None
    ticket = cluster.submit("n1", "group=g sh true")
    cluster.submit("n1", "group=g sh true")
    finish(cluster, ticket)
    assert ended_tickets(asker.reply(watching)) == [ticket]
    assert field(asker.reply(watching), "live") == "1"


def test_a_group_goes_on_behind_its_cursor_also_with_jobs_that_came_later() -> None:
    cluster = Cluster(2, slots=8)
    asker = Asker(cluster)
    told: list[str] = []
    cursor = None
    submitted = []
    for number in range(6):
        submitted.append(cluster.submit(f"n{1 + number % 2}", "group=g sh true"))
        cluster.submit("n1", "group=gg sh true")
        if number % 2:
            cluster.finish_all()
            reply = asker.say("watch", group="g", since=cursor)
            told += ended_tickets(reply)
            cursor = field(reply, "cursor")
    assert sorted(told) == sorted(submitted)
    assert asker.reply(asker.ask("watch", group="g", since=cursor)) is None
    assert head(asker.say("watched", group="g", since=cursor)) == f"OK count=0 live=0 cursor={cursor} bytes=0"


def test_everybody_who_watches_a_group_is_told() -> None:
    cluster = Cluster(2)
    askers = [Asker(cluster, name) for name in ("n1", "n2", "n2")]
    watching = [(asker, asker.ask("watch", group="g")) for asker in askers[:2]]
    watching.append((askers[1], askers[1].ask("watch", group="g")))
    ticket = cluster.submit("n1", "group=g sh true")
    cluster.finish_all()
    assert [ended_tickets(asker.reply(id)) for asker, id in watching] == [[ticket]] * 3


def test_expired_ends_of_a_group_are_no_longer_told() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, retention_s=100.0))
    asker = Asker(cluster)
    cluster.submit("n1", "group=g sh true")
    cluster.finish_all()
    cluster.advance(150)
    assert head(asker.say("watched", group="g")).startswith("OK count=0 live=0 ")
    assert cluster.balancer is not None
    assert not cluster.balancer.disk.tables[Table.GROUPS]


def test_list_of_a_group_does_not_look_at_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.listing.LIST_SCAN_MAX", 4)
    cluster = Cluster(1, slots=4)
    wanted = [cluster.submit("n1", "group=g sh true")]
    cluster.finish_all()
    for _ in range(10):
        cluster.submit("n1")
    cluster.finish_all()
    wanted.append(cluster.submit("n1", "group=g sh true"))
    cluster.finish_all()
    wanted.append(cluster.submit("n1", "group=g sh true"))
    reply = Asker(cluster).say("list", group="g", limit=100)
    assert head(reply).startswith("OK count=3 bytes=")
    assert [line.split()[0] for line in body(reply)] == wanted[::-1]
    assert field(Asker(cluster).say("list", limit=100), "partial") == "1"


# --- one answer holds so much -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["tickets", "group"])
@pytest.mark.parametrize(("name", "value"), [("WATCH_LINES_MAX", 3), ("BATCH_BYTES", 300)])
def test_what_one_answer_does_not_hold_is_behind_its_cursor(
    monkeypatch: pytest.MonkeyPatch, name: str, value: int, asked: str
) -> None:
    monkeypatch.setattr(watches, name, value)
    cluster = Cluster(1, slots=20)
    asker = Asker(cluster)
    tickets = [cluster.submit("n1", "group=g sh true") for _ in range(10)]
    order = sorted(tickets, key=lambda ticket: random.Random(ticket).random())
    for ticket in order:
        finish(cluster, ticket)
    told: list[str] = []
    cursor, answers = None, 0
    while len(told) < 10:
        watched: tuple[str, ...] = tuple(tickets) if asked == "tickets" else ()
        reply = asker.say("watch", *watched, group="g" if asked == "group" else None, since=cursor)
        cursor, answers = field(reply, "cursor"), answers + 1
        assert 0 < len(ended_tickets(reply)) <= 4
        told += ended_tickets(reply)
    assert told == order
    assert answers >= 3


def test_what_one_step_ends_beyond_one_answer_is_behind_the_cursor_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "WATCH_LINES_MAX", 2)
    cluster = Cluster(1, slots=20)
    asker = Asker(cluster)
    tickets = [cluster.submit("n1", "group=g sh true") for _ in range(5)]
    watching = [asker.ask("watch", group="g"), asker.ask("watch", *tickets)]
    cluster.busy("balancer")
    cluster.finish_all()
    cluster.free("balancer")
    for id in watching:
        assert ended_tickets(asker.reply(id)) == tickets[:2]
        rest = asker.say("watch", *tickets, since=field(asker.reply(id), "cursor"))
        assert ended_tickets(rest) == tickets[2:4]


# --- who asks no longer -------------------------------------------------------------------------------------------


def queries_open(cluster: Cluster) -> float:
    assert cluster.balancer is not None
    return cluster.balancer.machine.statistics()["queries_open"]


def test_a_watch_that_is_forgotten_leaves_nothing_behind() -> None:
    cluster = Cluster(2, slots=1)
    asker = Asker(cluster, "n2")
    tickets = [cluster.submit("n1") for _ in range(3)]
    never_issued, away = tickets[0].replace("-1", "-77"), "zzzzzz-1"
    cluster.frozen = frozenset({"n1"})
    ids = [
        asker.ask("watch", *tickets, never_issued, away),
        asker.ask("watch", group="g"),
        asker.ask("watch", never_issued),
    ]
    assert queries_open(cluster) == 3
    for id in ids:
        asker.forget(id)
    assert queries_open(cluster) == 0
    cluster.frozen = frozenset()
    cluster.settle()
    cluster.finish_all()
    assert [asker.answers(id) for id in ids] == [[], [], []]


def test_watches_go_with_the_link_that_brought_them() -> None:
    cluster = Cluster(2, slots=1)
    asker, other = Asker(cluster, "n1"), Asker(cluster, "n2")
    ticket = cluster.submit("n1")
    asker.ask("watch", ticket)
    asker.ask("watch", group="g")
    staying = other.ask("watch", ticket)
    cluster.cut(cluster.nodes["n1"].link or 0)
    assert queries_open(cluster) == 1
    cluster.dial("n1")
    cluster.finish_all()
    assert ended_tickets(other.reply(staying)) == [ticket]


def test_a_watch_whose_time_is_over_says_what_it_has_learned() -> None:
    """`watched` takes the place of the `watch` that was asked under its id."""
    cluster = Cluster(2)
    asker = Asker(cluster, "n2")
    ticket = cluster.submit("n1")
    never_issued = ticket.replace("-1", "-77")
    watching = asker.ask("watch", ticket, never_issued)
    assert asker.reply(watching) is None
    asker.ask("watched", ticket, never_issued, id=watching)
    assert head(asker.reply(watching)).startswith("OK count=0 live=1 ")
    assert body(asker.reply(watching)) == [f"{never_issued} error=UNKNOWN_TICKET"]
    assert queries_open(cluster) == 0


def test_what_was_learned_for_other_tickets_is_not_told() -> None:
    cluster = Cluster(2)
    asker = Asker(cluster, "n2")
    ticket, other = cluster.submit("n1"), cluster.submit("n1")
    watching = asker.ask("watch", ticket, ticket.replace("-1", "-77"))
    asker.ask("watched", other, id=watching)
    assert head(asker.reply(watching)).startswith("OK count=0 live=1 ")
    assert body(asker.reply(watching)) == []
    assert queries_open(cluster) == 0


# --- what it costs ------------------------------------------------------------------------------------------------


def calls_during(act: Callable[[], object]) -> int:
    """How many calls of Python functions something takes: what time would say, were it not for the machine."""
    count = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def cost_of_an_end_and_of_a_forget(watches_of_others: int) -> tuple[int, int]:
    cluster = Cluster(1, slots=4)
    asker = Asker(cluster)
    ended, other, third = (cluster.submit("n1", "group=g sh true") for _ in range(3))
    for _ in range(watches_of_others):
        asker.ask("watch", other, third)
    for number in range(watches_of_others):
        asker.ask("watch", group=f"group{number}")
    watching = asker.ask("watch", ended, other)
    forgotten = asker.ask("watch", ended)
    assert cluster.balancer is not None
    machine, link = cluster.balancer.machine, cluster.nodes["n1"].link
    assert link is not None

    def step(message: object) -> int:
        def act() -> None:
            effects = machine.handle([Received(link, [message], cluster.wall)], cluster.now)  # type: ignore[list-item]
            assert cluster.balancer is not None
            cluster.balancer.disk.commit(list(effects.writes))
            machine.committed()

        return calls_during(act)

    of_forget = step(Forget(forgotten))
    cluster.busy("balancer")
    cluster.finish("n1", (ended, 1))
    assert cluster.balancer.gathered is not None
    (event,) = cluster.balancer.gathered
    cluster.balancer.gathered = None
    of_end = step(event.messages[0])  # type: ignore[attr-defined]
    assert machine.statistics()["queries_open"] == 2 * watches_of_others, f"{watching} was answered"
    return of_end, of_forget


def test_an_end_and_a_forget_cost_the_same_however_many_watch_other_jobs() -> None:
    """Were it linear, 400 watches more would cost at least 400 calls more."""
    few, many = cost_of_an_end_and_of_a_forget(2), cost_of_an_end_and_of_a_forget(202)
    assert many[0] - few[0] < 40, (few, many)
    assert many[1] - few[1] < 40, (few, many)


# --- any order ----------------------------------------------------------------------------------------------------


class Listener:
    """Somebody who follows his cursor, at any node, and asks again whenever he has been answered."""

    def __init__(self, cluster: Cluster, chance: random.Random, *tickets: str, group: str | None = None) -> None:
        self.cluster, self.chance = cluster, chance
        self.tickets, self.group = tickets, group
        self.heard: list[str] = []
        self.live = -1
        self._cursor: str | None = None
        self._open: tuple[Asker, int] | None = None

    def listen(self) -> None:
        if self._open is not None:
            asker, id = self._open
            reply = asker.reply(id)
            if reply is None:
                return
            self.heard += ended_tickets(reply)
            self.live = int(field(reply, "live") or -1)
            self._cursor = field(reply, "cursor")
        asker = Asker(self.cluster, self.chance.choice(list(self.cluster.nodes)))
        self._open = asker, asker.ask("watch", *self.tickets, group=self.group, since=self._cursor)

    def lose_the_link(self) -> None:
        self.listen()
        self._open = None


@pytest.mark.parametrize("seed", range(20))
def test_whoever_follows_his_cursor_hears_of_each_end_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(3, slots=3)
    jobs = [cluster.submit(chance.choice(["n1", "n2", "n3"]), "group=g sh true") for _ in range(20)]
    listeners = [Listener(cluster, chance, *jobs), Listener(cluster, chance, group="g")]
    ends: list[str] = []
    while len(ends) < len(jobs):
        running = [ticket for ticket in jobs if cluster.where(ticket)]
        batch = chance.sample(running, min(len(running), chance.randint(1, 3)))
        cluster.busy("balancer")
        for ticket in batch:
            finish(cluster, ticket)
        cluster.free("balancer")
        ends += batch
        if chance.random() < 0.7:
            chance.choice(listeners).listen()
        if chance.random() < 0.1:
            for listener in listeners:
                listener.lose_the_link()
            cluster.kill_balancer()
            cluster.start_balancer()
            for name in cluster.nodes:
                cluster.dial(name)
    for listener in listeners * 3:
        listener.listen()
    assert [listener.heard for listener in listeners] == [ends, ends]
    assert [listener.live for listener in listeners] == [0, 0]


def test_ends_that_arrive_in_a_batch_of_a_thousand_wake_each_watch_once() -> None:
    cluster = Cluster(1, slots=0)
    asker = Asker(cluster)
    of_group = asker.ask("watch", group="g")
    job = pack(Job("sh", "true", group="g"))
    ended = pack(Ended(State.SUCCEEDED, cluster.wall, attempt=1))
    tickets = [f"aaaaab-{number}" for number in range(1, 1001)]
    of_tickets = asker.ask("watch", *tickets[:500])
    assert body(asker.reply(of_tickets))[0] == "aaaaab-1 error=UNKNOWN_TICKET"
    link = cluster.nodes["n1"].link
    assert link is not None
    items = tuple(Submission(ticket, job, ended=ended) for ticket in tickets)
    cluster._step_balancer(Received(link, [Jobs(items)], cluster.wall))
    assert ended_tickets(asker.reply(of_group)) == tickets
    assert ended_tickets(asker.say("watch", *tickets)) == tickets


def test_a_question_without_tickets_and_group_is_answered_with_nothing() -> None:
    cluster = Cluster(1)
    asker = Asker(cluster)
    inquiry = asker.ask("watch")
    assert head(asker.reply(inquiry)).startswith("OK count=0 live=0 ")
    assert isinstance(Inquiry(1, "watch").tickets, tuple)
