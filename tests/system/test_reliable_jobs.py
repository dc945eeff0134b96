"""What people rely on, typed into `nc` at real nodes: waiting, trying again, arrays, watching, explaining, forgetting.

What is asserted is what `docs/protocol.md` promises. The last tests kill processes in the middle of it.
"""

import json
import re
import time

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Line, Reply, ask, fields, nc, parse, submit, until, wait
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(3, slots=2)


@pytest.fixture(scope="module")
def node(cluster: LocalCluster) -> str:
    return cluster.address("node1")


def type_in(address: str, *lines: str) -> list[Reply]:
    """The replies to lines that are typed into `nc`, and followed by the end of its input."""
    return parse(nc(address, "".join(f"{line}\n" for line in lines)))


def state_of(address: str, ticket: str) -> str | None:
    return ask(address, f"status {ticket}").field("state")


def is_in(address: str, ticket: str, state: str) -> bool:
    return state_of(address, ticket) == state


# --- waiting and trying again ------------------------------------------------------------------------------------


def test_a_job_that_fails_is_tried_again_until_it_succeeds(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "retries=3 backoff=100ms sh echo $JOBYARD_ATTEMPT; test $JOBYARD_ATTEMPT = 3")
    result = wait(cluster.address("node2"), ticket)
    assert (result.field("state"), result.field("attempt"), result.body) == ("succeeded", "3", b"3\n")


def test_a_job_that_waits_to_be_tried_again_says_when_and_what_it_printed_last(node: str) -> None:
    ticket = submit(node, "retries=1 backoff=1h sh echo not yet; exit 7")
    until("it has failed once", lambda: is_in(node, ticket, "retrying"))
    told = fields(ask(node, f"status {ticket}").line)
    assert (told["reason"], told["failures"]) == ("retry", "1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", told["retry_at"])
    assert ask(node, f"logs {ticket}").body == b"not yet\n"
    assert ask(node, f"cancel {ticket}").field("state") == "cancelled"


def test_jobs_wait_for_their_moment_and_for_each_other_across_nodes(cluster: LocalCluster, node: str) -> None:
    first = submit(node, "delay=700ms sh echo first")
    second = submit(cluster.address("node2"), f"after={first} sh echo second")
    third = submit(cluster.address("node3"), f"after={first},{second} sh echo third")
    assert [state_of(node, ticket) for ticket in (first, second, third)] == ["scheduled", "blocked", "blocked"]
    assert wait(node, third).body == b"third\n"


def test_a_chain_is_cancelled_with_its_first_link(node: str) -> None:
    first = submit(node, "sh sleep 0.2; exit 1")
    second = submit(node, f"after={first} sh true")
    third = submit(node, f"after={second} sh true")
    result = wait(node, third)
    assert (result.field("state"), result.field("reason"), result.field("attempt")) == ("cancelled", "dependency", "0")


# --- arrays ------------------------------------------------------------------------------------------------------


def test_an_array_is_one_ticket_and_each_element_has_its_own_result(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "array=1-12:3%2 group=squares sh echo $(({} * JOBYARD_INDEX)); test {} != 7")
    whole = wait(cluster.address("node3"), ticket)
    assert re.fullmatch(
        rf"OK {ticket} state=failed attempt=0 count=4 succeeded=3 failed=1 cancelled=0 reason=exit "
        "stdout=0 stderr=0 bytes=0",
        whole.line,
    )
    for index in (1, 4, 7, 10):
        assert ask(cluster.address("node2"), f"result {ticket}_{index}").body == b"%d\n" % index**2
    assert ask(node, f"result {ticket}_2").code == "UNKNOWN_TICKET"
    assert ask(node, f"retry {ticket}").field("state") == "queued"
    until("it has failed again", lambda: is_in(node, ticket, "failed"))
    assert ask(node, f"status {ticket}_7").field("attempt") == "2"
    assert ask(node, f"status {ticket}_4").field("attempt") == "1"


def test_a_hundred_thousand_elements_are_taken_at_once_and_cancelled_at_once(node: str) -> None:
    began_at = time.monotonic()
    ticket = submit(node, "array=1-100000%2 sleep 1h")
    until("two of them run", lambda: ask(node, f"status {ticket}").field("running") == "2")
    assert ask(node, f"status {ticket}").field("queued") == "99998"
    assert ask(node, f"cancel {ticket}").field("state") == "cancelled"
    assert wait(node, ticket).field("cancelled") == "100000"
    assert time.monotonic() - began_at < 20


# --- watching ----------------------------------------------------------------------------------------------------


def test_hundreds_of_jobs_are_awaited_by_a_cursor_that_goes_on_at_any_node(cluster: LocalCluster, node: str) -> None:
    with Line(node) as line:
        for _ in range(300):
            line.send(b"submit group=watched sh true\n")
        tickets = {line.reply().ticket for _ in range(300)}
    told: list[str] = []
    cursor = ""
    for turn in range(1000):
        address = cluster.address(f"node{1 + turn % 3}")
        reply = ask(address, f"watch timeout=10s {cursor} group=watched")
        told += [row.split()[0] for row in (reply.body or b"").decode().splitlines()]
        cursor = f"since={reply.field('cursor')}"
        if reply.field("live") == "0" and len(told) >= len(tickets):
            break
    assert sorted(told) == sorted(tickets), "each of them, and each once"


def test_a_watch_of_tickets_answers_as_soon_as_one_has_ended_and_at_its_timeout_with_none(node: str) -> None:
    quick, slow = submit(node, "sh true"), submit(node, "sleep 1h")
    reply = ask(node, f"watch timeout=10s {quick},{slow}")
    assert (reply.field("count"), reply.field("live")) == ("1", "1")
    again = ask(node, f"watch timeout=200ms since={reply.field('cursor')} {quick},{slow}")
    assert (again.field("count"), again.field("live"), again.body) == ("0", "1", b"")
    ask(node, f"cancel {slow}")


# --- explaining, and what is printed -----------------------------------------------------------------------------


def test_explain_says_why_and_what_would_change_it(node: str) -> None:
    wide = submit(node, "slots=3 sh true")
    reply = ask(node, f"explain {wide}")
    assert (reply.field("state"), reply.field("reason")) == ("queued", "too_wide")
    text = (reply.body or b"").decode()
    assert text.startswith(f"{wide} is queued: ")
    assert "JOBYARD_SLOTS" in text
    assert max(map(len, text.splitlines())) <= 80
    ask(node, f"cancel {wide}")


def test_logs_are_followed_from_another_node_until_the_end(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "sh for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done")
    parts = type_in(cluster.address("node2"), f"logs follow=1 {ticket}")
    stdout, stderr = b"", b""
    for part in parts:
        size = int(part.field("stdout") or 0)
        stdout, stderr = stdout + (part.body or b"")[:size], stderr + (part.body or b"")[size:]
    assert (stdout, stderr) == (b"1\n2\n3\n", b"e1\ne2\ne3\n")
    assert parts[-1].field("end") == "1"
    assert len(parts) > 2, "it came while the job ran"


def test_the_life_of_a_job_can_be_read_as_json_lines(node: str) -> None:
    cursor = ask(node, "events since=now").field("cursor")
    ticket = submit(node, "name=told retries=1 backoff=50ms sh exit 3")
    wait(node, ticket)
    told = [json.loads(row) for row in (ask(node, f"events since={cursor}").body or b"").splitlines()]
    names = [event["event"] for event in told if event.get("ticket") == ticket]
    one_attempt = ["job.dispatched", "job.running"]
    assert [name for name in names if name != "job.queued"] == [
        "job.submitted", *one_attempt, "job.retrying", *one_attempt, "job.failed"
    ]  # fmt: skip
    assert [event["seq"] for event in told] == sorted(event["seq"] for event in told)


# --- changing one's mind -----------------------------------------------------------------------------------------


def test_a_failed_job_is_retried_and_later_forgotten_at_every_node(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "key=once sh exit 3")
    wait(node, ticket)
    assert ask(cluster.address("node2"), f"retry {ticket}").line == f"OK {ticket} state=queued"
    assert wait(node, ticket).field("attempt") == "2"
    assert ask(cluster.address("node3"), f"forget {ticket}").line == f"OK {ticket}"
    for name in cluster.node_names:
        until(
            f"{name} knows it no more",
            lambda name=name: ask(cluster.address(name), f"status {ticket}").code == "UNKNOWN_TICKET",  # type: ignore[misc]
        )
    assert submit(node, "key=once sh another") != ticket


def test_a_drained_node_takes_no_jobs_gives_back_what_waits_and_finishes_what_runs(cluster: LocalCluster) -> None:
    second = cluster.address("node2")
    running = [submit(second, "group=drained sh sleep 1; echo done") for _ in range(12)]
    assert ask(second, "drain").field("state") == "draining"
    assert ask(second, "submit sh true").code == "DRAINING"
    rows = (ask(cluster.address("node1"), "nodes").body or b"").decode().splitlines()
    assert next(row for row in rows if "state=draining" in row).startswith("name=node2 ")
    results = [wait(cluster.address("node1"), ticket) for ticket in running]
    assert {result.body for result in results} == {b"done\n"}
    assert {result.field("attempt") for result in results} == {"1"}, "what was given back had not begun"
    assert ask(second, "undrain").line == "OK state=alive"
    assert ask(second, "run sh echo back").body == b"back\n"


# --- in the middle of it -----------------------------------------------------------------------------------------


def test_arrays_chains_and_retries_go_on_when_the_balancer_is_killed_again_and_again(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(2, slots=2)
    first, second = cluster.address("node1"), cluster.address("node2")
    array = submit(
        first, "array=1-40%3 retries=2 backoff=100ms sh sleep 0.05; test $JOBYARD_ATTEMPT = 2 || test {} != 5"
    )
    chain = submit(second, f"after={array} retries=1 backoff=100ms sh test $JOBYARD_ATTEMPT = 2")
    last = submit(first, f"delay=1s after={chain} sh echo {array}")
    for _ in range(4):
        time.sleep(0.4)
        cluster.kill("balancer")
        cluster.start("balancer")
    assert wait(second, last, timeout_s=60.0).body == f"{array}\n".encode()
    assert ask(second, f"status {array}").field("succeeded") == "40"
    assert ask(first, f"status {array}_5").field("attempt") == "2"
    assert ask(first, f"status {chain}").field("attempt") == "2"


def test_a_node_that_was_drained_is_still_drained_after_kill_9(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, slots=1)
    assert ask(cluster.address("node2"), "drain").ok
    cluster.kill("node2")
    cluster.start("node2")
    until("it is back", lambda: b"name=node2 state=draining" in (ask(cluster.address("node1"), "nodes").body or b""))
    assert ask(cluster.address("node2"), "submit sh true").code == "DRAINING"
    assert ask(cluster.address("node1"), "run sh echo $JOBYARD_NODE").body == b"node1\n"
