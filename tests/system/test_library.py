"""Both clients of the library with real clusters: thousands of jobs on one connection, and nodes that are killed."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from examples.local_cluster import LocalCluster
from jobyard import Client, Job
from tests.runtime.both_clients import Connect, InTrio
from tests.system.client import until
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

MANY: Final = 5000  # more than fit in one WATCH
PATIENCE_S: Final = 60.0


@pytest.fixture(params=[Client, InTrio], ids=["blocking", "trio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    connect: Connect = request.param
    return connect


def url_of(cluster: LocalCluster, *names: str) -> str:
    return ",".join(map(cluster.url, names or cluster.node_names))


@pytest.fixture(scope="module")
def url(start_cluster_of_module: StartCluster) -> str:
    return url_of(start_cluster_of_module(nodes=2, slots=2))


@pytest.fixture
def yard(connect: Connect, url: str) -> Iterator[Any]:
    with connect(url) as yard:
        yield yard


def test_thousands_of_jobs_are_awaited(yard: Any) -> None:
    tickets = yard.submit_many(Job("sleep", "0") for _ in range(MANY))
    ended = list(yard.wait_all([*tickets, "aaaaaa-1"], timeout_s=PATIENCE_S))
    assert len(ended) == MANY + 1
    assert {status.ticket: status.state for status in ended} == dict.fromkeys(tickets, "succeeded") | {
        "aaaaaa-1": "unknown"
    }


def test_a_group_is_watched_in_parts_that_make_a_whole(yard: Any, request: pytest.FixtureRequest) -> None:
    group = request.node.name
    tickets = set(yard.submit_many(Job("sh", f"exit {number % 2}", group=group) for number in range(20)))
    seen: dict[str, str] = {}
    cursor = None
    while len(seen) < len(tickets):
        part = yard.watch(group=group, since=cursor, timeout_s=PATIENCE_S)
        assert part.ended, "the time is over"
        assert not seen.keys() & {status.ticket for status in part.ended}, "nothing twice"
        seen |= {status.ticket: status.state for status in part.ended}
        cursor = part.cursor
    assert seen.keys() == tickets
    assert sorted(seen.values()) == ["failed"] * 10 + ["succeeded"] * 10


def test_output_is_followed_while_it_is_printed(yard: Any) -> None:
    ticket = yard.submit("sh", "for n in 1 2 3; do echo $n; sleep 0.4; done; echo end >&2; exit 7")
    parts = list(yard.follow_logs(ticket))
    assert b"".join(part.stdout for part in parts) == b"1\n2\n3\n"
    assert b"".join(part.stderr for part in parts) == b"end\n"
    assert [part.end for part in parts].count(True) == 1
    assert (parts[-1].state, parts[-1].end) == ("failed", True)
    assert len(parts) >= 3


def test_each_verb_answers_of_a_job_that_waits(yard: Any, request: pytest.FixtureRequest) -> None:
    group = request.node.name
    slow = yard.submit("sleep", "60", group=group, key=f"key of {group}")
    assert yard.submit("sleep", "60", group=group, key=f"key of {group}") == slow
    blocked = yard.submit("exec", "true", after=[slow], delay_s=0.5, retries=3, group=group)
    assert yard.status(blocked).reason in ("blocked", "delayed", "on_its_way")
    assert yard.explain(blocked).text
    assert yard.logs(blocked).attempt == 0
    assert yard.cancel(slow) == "cancelled"
    assert yard.wait(blocked, timeout_s=PATIENCE_S).reason == "dependency"
    assert yard.retry(slow) == "queued"
    assert yard.cancel_group(group) == 1
    assert yard.wait(slow, timeout_s=PATIENCE_S).state == "cancelled"  # its attempt may have had to be ended
    assert yard.forget_group(group) == 2
    assert yard.list(group=group) == ()


def test_an_array_is_one_ticket(yard: Any) -> None:
    array = yard.submit("sh", "test {} -ne 3", array="1-5%2")
    outcome = yard.wait(array, timeout_s=PATIENCE_S)
    assert (outcome.state, outcome.counts) == ("failed", {"succeeded": 4, "failed": 1, "cancelled": 0})
    assert yard.status(array).counts["failed"] == 1
    assert yard.result(f"{array}_3").exit == 1


def test_the_life_of_a_job_is_told_as_events(yard: Any) -> None:
    cursor = yard.events().cursor
    ticket = yard.submit("exec", "true")
    told = []
    events = yard.follow_events(cursor)
    for event in events:
        if event.get("ticket") == ticket:
            told.append(event["event"])
        if told[-1:] == ["job.succeeded"]:
            break
    events.close()
    assert told[0] == "job.submitted"
    assert told[-3:] == ["job.dispatched", "job.running", "job.succeeded"]


def test_a_node_drains_and_comes_back(connect: Connect, url: str) -> None:
    with connect(url.partition(",")[0]) as one, connect(url) as all_of_them:
        assert one.drain().state == "draining"
        ticket = all_of_them.submit("exec", "true")
        assert all_of_them.wait(ticket, timeout_s=PATIENCE_S).node == "node2"
        assert one.undrain() == "alive"


# --- when nodes are killed -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(start_cluster: StartCluster) -> LocalCluster:
    return start_cluster(nodes=2, slots=2)


def kill_soon(cluster: LocalCluster, name: str) -> threading.Timer:
    timer = threading.Timer(0.5, cluster.kill, (name,))
    timer.start()
    return timer


def elsewhere(cluster: LocalCluster, line: str) -> str:
    """A job that was submitted at node2 and runs there, while node1 is spoken to first."""
    with Client(cluster.url("node1")) as first, Client(cluster.url("node2")) as second:
        first.drain()
        ticket = second.submit("sh", line)
        until("it runs", lambda: second.status(ticket).state == "running")
        first.undrain()
    return ticket


def test_whoever_waits_at_a_node_that_is_killed_goes_on_at_the_next(cluster: LocalCluster, connect: Connect) -> None:
    tickets = [elsewhere(cluster, f"sleep 2; echo {number}") for number in range(2)]
    with connect(url_of(cluster)) as yard:
        yard.ping()
        kill_soon(cluster, "node1")
        assert yard.wait(tickets[0], timeout_s=PATIENCE_S).stdout == b"0\n"
        assert [status.ticket for status in yard.wait_all(tickets[1:], timeout_s=PATIENCE_S)] == tickets[1:]


def test_output_goes_on_at_the_next_node_without_a_gap(cluster: LocalCluster, connect: Connect) -> None:
    ticket = elsewhere(cluster, "for n in 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.3; done")
    with connect(url_of(cluster)) as yard:
        kill_soon(cluster, "node1")
        parts = list(yard.follow_logs(ticket))
    assert b"".join(part.stdout for part in parts) == b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"


def test_events_go_on_at_the_next_node_without_a_gap(cluster: LocalCluster, connect: Connect) -> None:
    with connect(url_of(cluster)) as yard, Client(cluster.url("node2")) as other:
        other.wait(other.submit("exec", "true"), timeout_s=PATIENCE_S)
        events = yard.follow_events()
        seen = [next(events)]
        cluster.kill("node1")
        ticket = other.submit("exec", "true")
        other.wait(ticket, timeout_s=PATIENCE_S)
        ends_at = time.monotonic() + PATIENCE_S
        while not (seen[-1].get("ticket") == ticket and seen[-1]["event"] == "job.succeeded"):
            seen.append(next(events))
            assert time.monotonic() < ends_at
        events.close()
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
