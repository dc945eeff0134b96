"""Arrays: one ticket, a job for each index, and no more in the ledger than has begun."""

from collections import Counter

import attrs
import pytest

from balancer.arrays import Array
from common.arrays import Indexes, line_of, parse_indexes
from common.effects import Table
from common.model import Outcome, Reason, State, Verdict
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5)


def rows(cluster: Cluster, table: Table) -> int:
    assert cluster.balancer is not None
    return len(cluster.balancer.disk.tables[table])


def counts(cluster: Cluster, ticket: str) -> dict[str, int]:
    """What STATUS says of an array's elements, without the states that none is in."""
    reply = status(cluster, ticket)
    found = {state: int(field(reply, state) or 0) for state in State}
    return {str(state): count for state, count in found.items() if count}


def running(cluster: Cluster) -> set[str]:
    return {ticket for node in cluster.nodes.values() for ticket, _ in node.running}


# --- the range -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("1-3", [1, 2, 3]),
        ("0-9:3", [0, 3, 6, 9]),
        ("0-10:3%2", [0, 3, 6, 9]),
        ("5-5", [5]),
        ("1-1000000", None),
    ],
)
def test_a_range_is_read(text: str, indexes: list[int] | None) -> None:
    found = parse_indexes(text)
    if indexes is not None:
        assert [found.at(position) for position in range(len(found))] == indexes
        assert [found.position(index) for index in indexes] == list(range(len(found)))
        assert all(index in found for index in indexes)
        assert indexes[-1] + 1 not in found
    assert found.at_once_max == (2 if "%" in text else None)


@pytest.mark.parametrize(
    "text", ["", "1", "3-1", "1-3:0", "1-3%0", "1-1000001", "-1-3", "a-b", "1-3%", "1-3,5", "0-9 "]
)
def test_what_is_no_range_is_refused_and_told_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"indexes|holds no index"):
        parse_indexes(text)


def test_the_placeholder_in_the_line_becomes_the_index() -> None:
    assert line_of("convert {}.svg {}.png", 7) == "convert 7.svg 7.png"
    assert line_of("echo {}", None) == "echo {}"


# --- running ---------------------------------------------------------------------------------------------------


def test_every_element_runs_once_and_then_the_array_has_ended() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "array=1-10 sh work {}")
    while cluster.finish_all():
        pass
    assert cluster.starts == {(f"{ticket}_{index}", 1): 1 for index in range(1, 11)}
    assert field(status(cluster, ticket), "state") == "succeeded"
    assert counts(cluster, ticket) == {"succeeded": 10}


def test_each_element_has_its_index_in_its_line_and_in_its_environment() -> None:
    cluster = Cluster(1, slots=3)
    ticket = cluster.submit("n1", "array=0-20:10 env.A=b sh work {} of {}")
    starts = {start.ticket: start for start in cluster.nodes["n1"].running.values()}
    assert {name: start.line for name, start in starts.items()} == {
        f"{ticket}_{index}": f"work {index} of {index}" for index in (0, 10, 20)
    }
    assert dict(starts[f"{ticket}_10"].env) == {
        "A": "b",
        "JOBYARD_TICKET": f"{ticket}_10",
        "JOBYARD_ATTEMPT": "1",
        "JOBYARD_NODE": "n1",
        "JOBYARD_INDEX": "10",
    }


def test_a_hundred_thousand_elements_cost_one_row_until_they_begin() -> None:
    cluster = Cluster(1, slots=2, periods=attrs.evolve(PERIODS, backlog_max=3))
    ticket = cluster.submit("n1", "array=1-100000 sh work {}")
    assert rows(cluster, Table.LIVE) == 1 + 2 + 3, "the array, two that run and three that wait on the node"
    assert rows(cluster, Table.JOBS) == 1
    assert counts(cluster, ticket) == {"queued": 99_995, "dispatched": 3, "running": 2}


def test_elements_begin_in_the_order_of_their_indexes() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    ticket = cluster.submit("n1", "array=1-5 sh work {}")
    for index in range(1, 6):
        assert running(cluster) == {f"{ticket}_{index}"}
        cluster.finish("n1", (f"{ticket}_{index}", 1))


def test_no_more_elements_are_under_way_than_may_be_at_once() -> None:
    cluster = Cluster(3, slots=4)
    ticket = cluster.submit("n1", "array=1-50%5 sh work {}")
    seen = Counter[int]()
    while running(cluster):
        seen[sum(cluster.counts().values())] += 1
        name = next(name for name, node in cluster.nodes.items() if node.running)
        cluster.finish(name, next(iter(cluster.nodes[name].running)))
    assert max(seen) == 5
    assert counts(cluster, ticket) == {"succeeded": 50}


def test_an_array_shares_the_cluster_with_jobs_that_came_later_and_are_more_urgent() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    ticket = cluster.submit("n1", "array=1-5 sh work {}")
    urgent = cluster.submit("n1", "priority=5 sh urgent")
    cluster.finish("n1", (f"{ticket}_1", 1))
    assert running(cluster) == {urgent}
    cluster.finish("n1", (urgent, 1))
    assert running(cluster) == {f"{ticket}_2"}


def test_an_element_that_fails_is_retried_like_any_job_while_others_go_on() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    ticket = cluster.submit("n1", "array=1-3%1 retries=1 backoff=100 sh work {}")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=FAILED)
    assert running(cluster) == {f"{ticket}_2"}, "one that waits to be retried is not under way"
    assert counts(cluster, ticket) == {"queued": 1, "running": 1, "retrying": 1}
    cluster.finish("n1", (f"{ticket}_2", 1))
    cluster.finish("n1", (f"{ticket}_3", 1))
    cluster.advance(130)
    cluster.finish("n1", (f"{ticket}_1", 2))
    assert field(status(cluster, ticket), "state") == "succeeded"


def test_an_array_in_which_one_element_failed_has_failed_for_its_reason() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    cluster.finish("n1", (f"{ticket}_3", 1), outcome=FAILED)
    cluster.finish_all()
    reply = status(cluster, ticket)
    assert (field(reply, "state"), field(reply, "reason")) == ("failed", "exit")
    result = cluster.say("n1", f"result {ticket}")
    assert result == (
        f"OK {ticket} state=failed attempt=0 count=4 succeeded=3 failed=1 cancelled=0 reason=exit "
        "stdout=0 stderr=0 bytes=0\n\n"
    )


def test_wait_answers_when_the_last_element_has_ended() -> None:
    cluster = Cluster(1, slots=2)
    ticket = cluster.submit("n1", "array=1-2 sh work {}")
    query = cluster.ask("n1", f"wait {ticket}")
    cluster.finish("n1", (f"{ticket}_1", 1))
    assert cluster.reply("n1", query) is None
    cluster.finish("n1", (f"{ticket}_2", 1))
    assert (cluster.reply("n1", query) or "").startswith(f"OK {ticket} state=succeeded")


# --- elements by their tickets ---------------------------------------------------------------------------------


def test_each_element_can_be_asked_for_at_any_node() -> None:
    cluster = Cluster(2, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    ((name, id),) = cluster.where(f"{ticket}_1")
    cluster.finish(name, id, output=b"one")
    for asked in ("n1", "n2"):
        assert state_of(cluster, f"{ticket}_1", asked) == "succeeded"
        assert state_of(cluster, f"{ticket}_3", asked) == "running"
        assert state_of(cluster, f"{ticket}_4", asked) == "queued"
        assert (cluster.say(asked, f"result {ticket}_1") or "").endswith("bytes=3\none\n")
        for unknown in (f"{ticket}_0", f"{ticket}_5", f"{ticket[:-1]}9_1"):
            assert (cluster.say(asked, f"status {unknown}") or "").startswith("ERR UNKNOWN_TICKET")


def test_an_element_of_a_job_that_is_no_array_is_unknown() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1", "sh true")
    assert (cluster.say("n1", f"status {ticket}_1") or "").startswith("ERR UNKNOWN_TICKET")
    cluster.finish("n1", (ticket, 1))
    assert (cluster.say("n1", f"status {ticket}_1") or "").startswith("ERR UNKNOWN_TICKET")


def test_one_element_can_be_waited_for() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    query = cluster.ask("n1", f"wait {ticket}_2")
    cluster.finish("n1", (f"{ticket}_1", 1))
    assert cluster.reply("n1", query) is None
    cluster.finish("n1", (f"{ticket}_2", 1), output=b"two")
    assert (cluster.reply("n1", query) or "").endswith("bytes=3\ntwo\n")


def test_another_job_can_wait_for_one_element_or_for_all() -> None:
    cluster = Cluster(1, slots=3)
    ticket = cluster.submit("n1", "array=1-2 sh work {}")
    after_one = cluster.submit("n1", f"after={ticket}_2 sh one")
    after_all = cluster.submit("n1", f"after={ticket} sh all")
    never = cluster.submit("n1", f"after={ticket}_3 sh never")
    assert field(status(cluster, never), "reason") == "dependency"
    cluster.finish("n1", (f"{ticket}_2", 1))
    assert cluster.where(after_one)
    assert state_of(cluster, after_all) == "blocked"
    cluster.finish("n1", (f"{ticket}_1", 1))
    assert cluster.where(after_all)


# --- cancelling ------------------------------------------------------------------------------------------------


def test_cancelling_an_array_ends_what_runs_and_drops_the_rest() -> None:
    cluster = Cluster(1, slots=2)
    ticket = cluster.submit("n1", "array=1-1000 sh work {}")
    cluster.finish("n1", (f"{ticket}_1", 1))
    assert cluster.say("n1", f"cancel {ticket}") == f"OK {ticket} state=cancelled\n"
    killed = {kill.ticket for kill in cluster.nodes["n1"].killed}
    assert killed == {f"{ticket}_2", f"{ticket}_3"}
    assert state_of(cluster, f"{ticket}_900") == "cancelled"
    for name in sorted(killed):
        cluster.finish("n1", (name, 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 1.0))
    assert counts(cluster, ticket) == {"succeeded": 1, "cancelled": 999}
    assert field(status(cluster, ticket), "reason") == "user"
    assert state_of(cluster, f"{ticket}_900") == "cancelled"
    assert not cluster.nodes["n1"].running


def test_one_element_can_be_cancelled_before_its_turn() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    for index in (3, 2):
        assert cluster.say("n1", f"cancel {ticket}_{index}") == f"OK {ticket}_{index} state=cancelled\n"
    cluster.finish_all()
    assert {name for name, _ in cluster.starts} == {f"{ticket}_1", f"{ticket}_4"}
    assert counts(cluster, ticket) == {"succeeded": 2, "cancelled": 2}
    assert field(status(cluster, ticket), "state") == "cancelled"


def test_a_blocked_array_is_cancelled_with_what_it_waits_for() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    ticket = cluster.submit("n1", f"array=1-100 after={first} sh work {{}}")
    assert state_of(cluster, ticket) == "blocked"
    assert state_of(cluster, f"{ticket}_50") == "blocked"
    cluster.finish("n1", (first, 1), outcome=FAILED)
    assert field(status(cluster, ticket), "reason") == "dependency"
    assert field(status(cluster, f"{ticket}_50"), "reason") == "dependency"
    assert counts(cluster, ticket) == {"cancelled": 100}


# --- failures of machines --------------------------------------------------------------------------------------


def test_an_array_goes_on_where_it_was_when_the_balancer_is_back() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "array=1-40%6 sh work {}")
    for _ in range(5):
        name = next(name for name, node in cluster.nodes.items() if node.running)
        cluster.finish(name, next(iter(cluster.nodes[name].running)))
    before = counts(cluster, ticket)
    cluster.kill_balancer()
    cluster.start_balancer()
    for name in ("n1", "n2"):
        cluster.dial(name)
    assert counts(cluster, ticket) == before
    cluster.finish_all()
    assert counts(cluster, ticket) == {"succeeded": 40}
    assert set(cluster.starts.values()) == {1}


def test_elements_of_a_lost_node_run_elsewhere() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "array=1-8 sh work {}")
    cluster.kill_node("n2")
    cluster.advance(20)
    cluster.finish_all()
    assert counts(cluster, ticket) == {"succeeded": 8}


def test_an_array_survives_the_loss_of_the_ledgers_volume_with_what_its_nodes_hold() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "array=1-8 sh work {}")
    held = {name: set(node.running) for name, node in cluster.nodes.items()}
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    for name in ("n2", "n1"):
        cluster.dial(name)
    assert all(held[name] <= set(node.running) for name, node in cluster.nodes.items()), "what ran goes on"
    cluster.finish_all()
    assert counts(cluster, ticket) == {"succeeded": 8}
    assert set(cluster.starts.values()) == {1}


def test_elements_of_which_a_lost_ledger_had_given_out_attempts_run_again_when_their_node_is_gone() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "array=1-4 sh work {}")
    outcomes = [(name, id) for name, node in cluster.nodes.items() for id in list(node.running)]
    cluster.kill_balancer()
    for name, id in outcomes:
        cluster.finish(name, id)
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    cluster.kill_node("n2")  # it has told what it has, and is gone before the job is known
    cluster.dial("n1")
    cluster.add_node("n3", slots=2)
    cluster.advance(20)
    cluster.finish_all()
    assert counts(cluster, ticket) == {"succeeded": 4}


def test_a_backlog_of_elements_that_is_recalled_goes_to_the_idle_node_first_come_first_served() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1", "array=1-9 sh work {}")
    cluster.add_node("n2", slots=1)
    cluster.advance(1)
    loads = cluster.counts()
    assert abs(loads["n1"] - loads["n2"]) <= 1
    cluster.finish_all()
    assert counts(cluster, ticket) == {"succeeded": 9}


# --- the counting by itself ------------------------------------------------------------------------------------


def test_an_array_counts_elements_that_begin_out_of_turn() -> None:
    array = Array("aaaaaa-1", Indexes(1, 5))
    array.begin("aaaaaa-1_3")
    assert (array.next, array.ahead, array.unbegun) == (0, {2}, 4)
    for expected in ("aaaaaa-1_1", "aaaaaa-1_2", "aaaaaa-1_4", "aaaaaa-1_5"):
        assert array.next_number() == expected
        array.begin(expected)
    assert (array.next, array.ahead, array.unbegun) == (5, set(), 0)


def test_a_record_of_an_array_comes_back_as_it_was() -> None:
    array = Array("aaaaaa-1", Indexes(1, 50))
    for index in (1, 2, 9, 7):
        array.begin(f"aaaaaa-1_{index}")
    array.count(State.FAILED, 1, Reason.EXIT)
    again = Array.of("aaaaaa-1", Indexes(1, 50), array.record)
    assert again.record == array.record
    assert again.ahead == {6, 8}
