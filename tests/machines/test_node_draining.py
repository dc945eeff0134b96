"""DRAIN and UNDRAIN: a node takes no more, hands back what waits and finishes what runs; and how a stop differs."""

import random
import signal

from common.effects import Exit, Note, Reply
from common.events import Stop
from common.messages import Acknowledged, Drop, Farewell, Info, Poll, Result, Returned
from common.model import Outcome, Verdict
from node.executors import Kill, Over, Start
from node.executors import Returned as HasReturned
from node.worker import Executed
from tests.machines.alone import Alone
from tests.machines.cluster import Cluster
from tests.machines.test_in_flight import InFlight

T1, T2, T3 = "bbbbbb-1", "bbbbbb-2", "bbbbbb-3"


def test_a_drained_node_says_so_at_once_and_hands_back_what_waits() -> None:
    node = Alone(slots=1)
    node.dispatch(T1, T2, T3)
    assert node.ask("drain") == [
        Note("node.draining", "info", {"running": 1}),
        Info(running=1, waiting=2, draining=True),
        Returned(((T2, 1), (T3, 1))),
        Reply(node.last, b"OK state=draining running=1 waiting=0\n"),
    ]
    assert node.worker.statistics()["draining"] == 1
    assert node.receive(Poll()) == [Info(running=1, waiting=0, draining=True)]


def test_to_drain_twice_tells_only_how_far_it_is() -> None:
    node = Alone(slots=1)
    node.dispatch(T1)
    node.ask("drain")
    assert node.say("drain") == "OK state=draining running=1 waiting=0\n"
    node.step(Executed([Over(T1, 1, Outcome(Verdict.SUCCEEDED, exit=0))], node.wall))
    assert node.say("drain") == "OK state=draining running=0 waiting=0\n"


def test_what_is_dispatched_to_a_drained_node_is_handed_back() -> None:
    node = Alone()
    node.ask("drain")
    assert node.dispatch(T1, T2) == [Returned(((T1, 1), (T2, 1)))]


def test_what_runs_on_a_drained_node_goes_on_and_so_does_the_node() -> None:
    node = Alone()
    node.dispatch(T1)
    node.ask("drain")
    assert node.advance(100.0) == []
    (reported,) = node.step(Executed([Over(T1, 1, Outcome(Verdict.SUCCEEDED, exit=0))], node.wall))
    assert isinstance(reported, Result)
    assert node.advance(100.0) == []


def test_a_drained_node_takes_no_jobs_and_answers_everything_else() -> None:
    node = Alone()
    ticket = node.submit()
    node.ask("drain")
    for line in ("submit sh true", "run sh true", "1500", "submit key=k sh true"):
        assert node.say(line).startswith("ERR DRAINING this node was drained and takes no new jobs; "), line
    assert node.inquiry(f"status {ticket}").verb == "status"
    assert node.say("status nope").startswith("ERR UNKNOWN_TICKET")


def test_a_read_that_drains_is_obeyed_in_its_order() -> None:
    node = Alone(linked=False)
    replies = [action.reply for action in node.ask("submit sh 1", "drain", "submit sh 2", "undrain", "submit sh 3")
               if isinstance(action, Reply)]  # fmt: skip
    assert [reply[:12] for reply in replies] == [
        b"OK aaaaaa-1\n", b"OK state=dra", b"ERR DRAINING", b"OK state=ali", b"OK aaaaaa-2\n",
    ]  # fmt: skip


def test_a_drained_node_is_drained_after_its_restart() -> None:
    node = Alone()
    node.ask("drain")
    node.boot()
    assert node.worker.statistics()["draining"] == 1
    assert node.say("submit sh true").startswith("ERR DRAINING")
    assert node.holdings().draining
    assert node.dispatch(T1) == [Returned(((T1, 1),))]
    node.ask("undrain")
    node.boot()
    assert node.worker.statistics()["draining"] == 0
    assert not node.holdings().draining


def test_a_node_without_a_link_is_drained_and_says_so_on_the_next() -> None:
    node = Alone()
    node.dispatch(T1, T2)
    node.cut()
    assert node.ask("drain") == [
        Note("node.draining", "info", {"running": 1}),
        Reply(node.last, b"OK state=draining running=1 waiting=0\n"),
    ]
    holdings = node.holdings()
    assert (holdings.begun, holdings.waiting, holdings.draining) == (((T1, 1),), (), True)


def test_an_undrained_node_says_so_at_once_and_takes_jobs_again() -> None:
    node = Alone()
    node.ask("drain")
    assert node.ask("undrain") == [
        Note("node.undrained"),
        Info(running=0, waiting=0, draining=False),
        Reply(node.last, b"OK state=alive\n"),
    ]
    assert isinstance(node.dispatch(T1)[0], Start)
    node.submit()
    assert node.say("undrain") == "OK state=alive\n"


def test_a_stopping_node_cannot_be_undrained() -> None:
    node = Alone()
    node.dispatch(T1)
    node.step(Stop())
    assert node.say("undrain") == "ERR DRAINING this node is stopping, and drains until it ends\n"
    assert node.say("submit sh true") == "ERR DRAINING this node is stopping; submit to another one\n"
    assert node.dispatch(T2) == [Returned(((T2, 1),))]


def test_a_stop_leaves_no_mark() -> None:
    node = Alone()
    node.step(Stop())
    assert Exit() in node.receive(Farewell(1))
    assert node.worker.statistics()["draining"] == 1
    node.boot()
    assert node.worker.statistics()["draining"] == 0
    assert not node.holdings().draining


def test_a_node_that_is_drained_while_it_stops_is_drained_when_it_starts_again() -> None:
    node = Alone()
    node.dispatch(T1)
    node.step(Stop())
    assert node.ask("drain")[-1] == Reply(node.last, b"OK state=draining running=1 waiting=0\n")
    node.boot()
    assert node.holdings().draining


def test_a_drained_node_that_is_told_to_stop_exits_when_nothing_runs() -> None:
    node = Alone()
    node.ask("drain")
    assert node.step(Stop())[-1] == Farewell(1)
    assert node.receive(Farewell(1)) == [Exit()]


def test_a_stopping_node_leaves_when_its_last_farewell_is_echoed_and_hands_back_what_comes_before() -> None:
    node = Alone()
    assert node.step(Stop())[-1] == Farewell(1)
    assert node.dispatch(T1) == [Returned(((T1, 1),)), Farewell(2)]
    assert node.receive(Farewell(1)) == []
    assert node.receive(Farewell(2)) == [Exit()]


def test_a_balancer_that_says_no_farewell_is_waited_for_three_seconds() -> None:
    node = Alone()
    node.step(Stop())
    assert node.advance(2.9) == []
    assert node.advance(0.2) == [Exit()]


def test_without_a_link_nobody_is_told_farewell() -> None:
    node = Alone()
    node.step(Stop())
    assert Exit() in node.cut()


def test_a_planned_stop_is_no_crash_although_an_attempt_was_on_its_way() -> None:
    cluster = InFlight(1, slots=1)
    cluster.calm = True
    cluster.settle()
    node, balancer = cluster.nodes["n1"], cluster.balancer
    assert balancer is not None
    cluster.calm = False
    query = cluster.ask("n1", "submit crash_limit=1 sh true")
    while not balancer.machine.statistics()["jobs_leased"]:
        cluster.deliver_one(random.Random(1))
    ticket = node.replies[query].split()[1].decode()
    assert cluster.where(ticket) == [], "it is leased, and on its way"
    cluster.stop("n1")
    cluster.calm = True
    cluster.settle()
    assert node.exited
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert cluster.where(ticket) == [("n1", (ticket, 1))]


def test_the_work_of_a_drained_node_is_done_by_the_others() -> None:
    cluster = Cluster(2, slots=1)
    tickets = [cluster.submit("n1") for _ in range(6)]
    assert (cluster.say("n1", "drain") or "").startswith("OK state=draining running=1 waiting=0")
    runs_here = set(cluster.nodes["n1"].started)
    cluster.finish_all()
    assert set(cluster.nodes["n1"].started) == runs_here
    for ticket in tickets:
        assert "state=succeeded" in (cluster.say("n2", f"status {ticket}") or "")
    assert "name=n1 state=draining" in (cluster.say("n2", "nodes") or "")
    cluster.say("n1", "undrain")
    cluster.submit("n2")
    cluster.submit("n2")
    assert cluster.counts() == {"n1": 1, "n2": 1}


def with_one_ahead() -> Alone:
    """Two run, and the third was handed to the executors ahead of a slot."""
    node = Alone(slots=2)
    for number in range(100, 150):
        node.dispatch(f"bbbbbb-{number}")
        node.step(Executed([Over(f"bbbbbb-{number}", 1, Outcome(Verdict.SUCCEEDED, exit=0))], node.wall))
        node.receive(Acknowledged(((f"bbbbbb-{number}", 1),)))
    started = [done.ticket for done in node.dispatch(T1, T2, T3) if isinstance(done, Start)]
    assert started == [T1, T2, T3]
    return node


def test_when_the_grace_is_over_what_went_ahead_and_may_have_begun_is_ended_too() -> None:
    node = with_one_ahead()
    node.step(Stop())
    killed = [done.ticket for done in node.advance(10.0) if isinstance(done, Kill) and done.signal == signal.SIGTERM]
    assert sorted(killed) == [T1, T2, T3]


def test_a_stopping_node_whose_last_one_was_dropped_before_it_began_leaves_at_once() -> None:
    node = with_one_ahead()
    node.step(Stop())
    node.receive(Drop(((T3, 1),)))
    node.step(Executed([Over(ticket, 1, Outcome(Verdict.SUCCEEDED, exit=0)) for ticket in (T1, T2)], node.wall))
    assert not any(isinstance(done, Farewell) for done in node.receive(Acknowledged(((T1, 1), (T2, 1)))))
    left = node.step(Executed([HasReturned(T3, 1)], node.wall))
    assert any(isinstance(done, Farewell) for done in left)
