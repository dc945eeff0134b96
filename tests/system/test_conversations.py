"""A stranger with nothing but `nc` can do everything that the protocol has, at any node, and break nothing.

What is asserted is what `docs/protocol.md` promises. The kinds and the surroundings of jobs are in test_jobs.py.
"""

import re
import subprocess
from contextlib import ExitStack
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import Line, Reply, ask, fields, nc, parse, submit, until, wait
from tests.system.conftest import StartCluster

pytestmark = pytest.mark.system

LINE_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 320
DIALOGUE: Final = ((b"ping\n", b"OK pong\n"), (b"status x\n", b"ERR UNKNOWN_TICKET no job"), (b"exit\n", b"OK bye\n"))


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(3, slots=2, env={"JOBYARD_CONNECTIONS_MAX": str(CONNECTIONS_MAX)})


@pytest.fixture(scope="module")
def node(cluster: LocalCluster) -> str:
    return cluster.address("node1")


def type_in(address: str, *lines: str) -> list[Reply]:
    """The replies to lines that are typed into `nc`, and followed by the end of its input."""
    return parse(nc(address, "".join(f"{line}\n" for line in lines)))


def ends(cluster: LocalCluster, ticket: str) -> dict[str, Reply]:
    """The result of an ended job as each node tells it."""
    wait(cluster.address("node1"), ticket)
    return {name: ask(cluster.address(name), f"result {ticket}") for name in cluster.node_names}


# --- every verb ------------------------------------------------------------------------------------------------


def test_a_job_submitted_at_one_node_is_read_at_any_other(cluster: LocalCluster) -> None:
    (submitted,) = type_in(cluster.address("node1"), "submit sh echo hello")
    assert re.fullmatch(r"OK [a-z2-7]{6}-\d+", submitted.line)
    (waited,) = type_in(cluster.address("node2"), f"wait timeout=20s {submitted.ticket}")
    (result,) = type_in(cluster.address("node3"), f"result {submitted.ticket}")
    assert waited == result
    assert result.body == b"hello\n"
    assert re.fullmatch(
        rf"OK {submitted.ticket} state=succeeded exit=0 attempt=1 node=node\d seconds=[\d.]+ stdout=6 stderr=0 bytes=6",
        result.line,
    )


def test_run_answers_with_the_result_itself(node: str) -> None:
    (reply,) = type_in(node, 'run priority=5 timeout=10s exec echo "two  words"')
    assert (reply.field("state"), reply.body) == ("succeeded", b"two  words\n")


def test_status_tells_what_the_job_was_called_and_how_it_ended(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "name=count%20words group=demo sh exit 3")
    for reply in ends(cluster, ticket).values():
        assert reply.field("reason") == "exit"
    told = fields(ask(cluster.address("node2"), f"status {ticket}").line)
    assert (told["state"], told["attempt"], told["exit"], told["reason"]) == ("failed", "1", "3", "exit")
    assert (told["name"], told["group"]) == ("count%20words", "demo")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", told["submitted"])


def test_a_bare_number_is_a_sleep_of_so_many_milliseconds(cluster: LocalCluster, node: str) -> None:
    (submitted,) = type_in(node, "150")
    result = ends(cluster, submitted.ticket)["node3"]
    assert result.field("state") == "succeeded"
    assert float(result.field("seconds") or 0) >= 0.15


def test_wait_tells_how_a_job_stands_when_its_time_is_over(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "sleep 60s")
    for name in cluster.node_names:
        until("it runs", lambda: ask(node, f"status {ticket}").field("state") == "running")
        (waited, result) = type_in(cluster.address(name), f"wait timeout=0.1s {ticket}", f"result {ticket}")
        assert waited == result == Reply(f"PENDING {ticket} state=running")
    assert ask(cluster.address("node2"), f"cancel {ticket}").line == f"OK {ticket} state=cancelled"


def test_a_cancelled_job_ends_as_cancelled_wherever_it_is_asked_for(cluster: LocalCluster, node: str) -> None:
    ticket = submit(node, "sh sleep 60")
    until("it runs", lambda: ask(node, f"status {ticket}").field("state") == "running")
    (cancelled,) = type_in(cluster.address("node3"), f"cancel {ticket}")
    assert cancelled.line == f"OK {ticket} state=cancelled"
    for reply in ends(cluster, ticket).values():
        assert (reply.field("state"), reply.field("reason")) == ("cancelled", "user")


def test_a_whole_group_is_cancelled_and_what_had_ended_stays(cluster: LocalCluster, node: str) -> None:
    done = submit(node, "group=g1 sh true")
    wait(node, done)
    live = [submit(cluster.address(name), "group=g1 sleep 60s") for name in cluster.node_names]
    until("all are listed", lambda: ask(node, "list group=g1").field("count") == "4")
    assert ask(node, "cancel group=g1").ok
    assert {wait(node, ticket).field("state") for ticket in live} == {"cancelled"}
    assert wait(node, done).field("state") == "succeeded"


def test_list_shows_the_jobs_of_the_cluster_the_newest_first(cluster: LocalCluster, node: str) -> None:
    tickets = []
    for name in cluster.node_names:  # one ends before the next begins: the order is that of the ends
        tickets.append(submit(cluster.address(name), f"group=listed name=from-{name} sh true"))
        wait(node, tickets[-1])
    listed = ask(cluster.address("node2"), "list group=listed state=succeeded limit=2")
    rows = listed.body.decode().splitlines()
    assert listed.field("count") == "2"
    assert [row.split()[0] for row in rows] == [tickets[2], tickets[1]]
    assert fields(rows[0])["name"] == "from-node3"
    assert ask(cluster.address("node2"), "list group=listed local=1").body.decode().split()[0] == tickets[1]


def test_nodes_and_stats_tell_of_the_whole_cluster(cluster: LocalCluster, node: str) -> None:
    nodes, stats = type_in(node, "nodes", "stats")
    (local,) = type_in(node, "stats local=1")  # now that there is a link: it was the ledger that has answered
    rows = [fields(row) for row in nodes.body.decode().splitlines()]
    assert {row["name"] for row in rows} == set(cluster.node_names)
    assert all(set(row) == {"name", "state", "slots", "running", "waiting", "last_seen_s", "version"} for row in rows)
    assert {row["state"] for row in rows} == {"alive"}
    assert dict(row.split() for row in stats.body.decode().splitlines())["nodes_connected"] == "3"
    assert dict(row.split() for row in local.body.decode().splitlines())["linked"] == "1"


def test_the_small_verbs_answer_in_any_case_and_quit_ends_the_conversation(node: str) -> None:
    ping, version, help_, bye = type_in(node, "PING", "Version", "help", "quit", "ping")
    assert ping.line == "OK pong"
    assert re.fullmatch(r"OK jobyard \S+ protocol=1", version.line)
    assert b"SUBMIT" in help_.body
    assert bye.line == "OK bye"


def test_what_cannot_be_done_is_refused_with_its_code_and_the_conversation_goes_on(node: str) -> None:
    refused = type_in(node, "status nope", "frobnicate", "submit colour=red sh true", "submit sh", "watch", "ping")
    assert [reply.code or reply.line for reply in refused] == [
        "UNKNOWN_TICKET", "UNKNOWN_COMMAND", "BAD_REQUEST", "BAD_REQUEST", "BAD_REQUEST", "OK pong",
    ]  # fmt: skip
    assert refused[0].line == "ERR UNKNOWN_TICKET no job has the ticket 'nope'"
    assert "colour" in refused[2].line


def test_a_ticket_that_was_never_issued_is_unknown_at_every_node(cluster: LocalCluster, node: str) -> None:
    prefix = submit(node, "sh true").partition("-")[0]
    for name in cluster.node_names:
        for ticket in (f"{prefix}-999999", "aaaaaa-1"):
            assert ask(cluster.address(name), f"result {ticket}").code == "UNKNOWN_TICKET"


def test_one_key_is_one_job_in_the_whole_cluster(cluster: LocalCluster) -> None:
    tickets = {submit(cluster.address(name), "key=once sh echo once") for name in cluster.node_names}
    assert len(tickets) == 1
    assert ask(cluster.address("node2"), "submit key=once sh echo twice").code == "CONFLICT"


# --- framing ---------------------------------------------------------------------------------------------------


def test_a_person_at_a_terminal_gets_each_reply_at_once(node: str) -> None:
    host, _, port = node.rpartition(":")
    nc(node, "ping\n")  # skips, or fails, where there is none
    with subprocess.Popen(["nc", host, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for typed, said in DIALOGUE:
            process.stdin.write(typed)
            process.stdin.flush()
            assert process.stdout.readline().startswith(said)
        process.stdin.close()
        assert process.wait(10) == 0


def test_requests_may_be_pipelined_and_are_answered_in_their_order(node: str) -> None:
    lines = [line for number in range(200) for line in (f"submit sh echo {number}", "ping")]
    replies = type_in(node, *lines)
    numbers = [int(reply.ticket.partition("-")[2]) for reply in replies[::2]]
    assert numbers == list(range(numbers[0], numbers[0] + 200))
    assert {reply.line for reply in replies[1::2]} == {"OK pong"}


def test_a_pipelined_run_holds_back_replies_and_not_requests(node: str) -> None:
    slow, quick, pong = type_in(node, "run sh sleep 0.3; echo slow", "run sh echo quick", "ping")
    assert (slow.body, quick.body, pong.line) == (b"slow\n", b"quick\n", "OK pong")


def test_a_body_is_the_input_of_the_job_whatever_is_in_it(node: str) -> None:
    body = bytes(range(256)) * 40 + b"\nquit\n"
    typed = b"run bytes=%d exec cat\n%b\nping\n" % (len(body), body)
    result, pong = parse(nc(node, typed))
    assert result.body == body
    assert pong.line == "OK pong"


def test_lines_may_end_as_telnet_ends_them(node: str) -> None:
    ping, result = parse(nc(node, b"ping\r\n\r\nrun sh echo x\r\n"))
    assert (ping.line, result.body) == ("OK pong", b"x\n")


def test_everything_whole_is_answered_after_the_client_has_closed_its_side(node: str) -> None:
    pong, late, cut = parse(nc(node, b"ping\nrun sh sleep 0.2; echo late\nsubmit sh echo never"))
    assert (pong.line, late.body, cut.code) == ("OK pong", b"late\n", "BAD_REQUEST")


def test_a_body_that_is_cut_off_is_not_executed(node: str) -> None:
    before = ask(node, "list group=cut").field("count")
    (cut,) = parse(nc(node, b"submit group=cut bytes=10 exec cat\nshort"))
    assert cut.code == "BAD_REQUEST"
    assert before == ask(node, "list group=cut").field("count") == "0"


@pytest.mark.parametrize("ending", [b"\n", b""], ids=["a line", "no end in sight"])
def test_an_over_long_line_is_refused_and_the_connection_closed(node: str, ending: bytes) -> None:
    longest = b"submit group=long sh : " + b"x" * (LINE_BYTES_MAX - 23)
    pong, accepted, refused = parse(nc(node, b"ping\n" + longest + b"\n" + b"x" * (LINE_BYTES_MAX + 1) + ending))
    assert (pong.line, accepted.ok, refused.code) == ("OK pong", True, "TOO_LARGE")


def test_binary_garbage_is_refused_and_a_normal_client_served_beside_it(node: str) -> None:
    garbage = bytes(range(256)) * 64
    with Line(node) as normal:
        replies = parse(nc(node, garbage + b"\n"))
        assert normal.ask("run sh echo well").body == b"well\n"
    assert replies
    assert {reply.code for reply in replies} <= {"BAD_REQUEST", "UNKNOWN_COMMAND", "TOO_LARGE"}


def test_a_thousand_errors_in_a_row_end_a_conversation(node: str) -> None:
    replies = type_in(node, *["nonsense"] * 1200)
    assert len(replies) == 1000
    assert {reply.code for reply in replies} == {"UNKNOWN_COMMAND"}


# --- many clients ----------------------------------------------------------------------------------------------


def test_hundreds_of_clients_are_served_at_once_and_those_over_the_limit_are_told(node: str) -> None:
    with ExitStack() as clients:
        first = [clients.enter_context(Line(node)) for _ in range(300)]
        assert {client.ask("ping").line for client in first} == {"OK pong"}
        assert ask(node, "run sh echo beside").body == b"beside\n"
        *_, last = [clients.enter_context(Line(node)) for _ in range(CONNECTIONS_MAX - len(first) + 1)]
        assert last.reply().code == "TOO_MANY_CONNECTIONS"
        assert last.ended()
        assert {client.ask("ping").line for client in first} == {"OK pong"}, "who was there first is served on"
    until("there is room again", lambda: not _refused(node))


def _refused(address: str) -> bool:
    with Line(address) as client:
        try:
            return client.ask("ping").line != "OK pong"
        except ConnectionError:
            return True


# --- a client token --------------------------------------------------------------------------------------------


def test_without_the_token_of_the_node_nothing_is_said_or_done(start_cluster: StartCluster) -> None:
    address = start_cluster(1, env={"JOBYARD_CLIENT_TOKEN": "open-sesame"}).address("node1")
    refused = type_in(address, "ping", "submit sh true", "list", "quit")
    assert [reply.code for reply in refused[:-1]] == ["UNAUTHORIZED"] * 3
    assert refused[-1].line == "OK bye"
    (wrong,) = type_in(address, "auth open-barley", "ping")
    assert wrong.code == "UNAUTHORIZED"
    welcome, result = type_in(address, "auth open-sesame", "run sh env")
    assert welcome.ok
    assert b"sesame" not in result.body
    assert type_in(address, "auth open-sesame", "list")[1].field("count") == "1", "the refused job was not taken in"
