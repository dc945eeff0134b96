"""Each promise about failures on its own: one thing dies, stops or is lost, and what was promised of it holds.

Random deaths under load are in test_kill.py; these say what exactly went wrong. A journal file gets a line from each
attempt that begins, so that an execution too many is seen even if nobody hears of its outcome.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.system.client import ask, is_alive, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.load import Load, audit
from tests.system.programs import children, data_dir, job_processes, run_to_its_end, terminate
from tests.system.reach import reach, seed
from tests.system.watching import begun, other, statistic, told, where

pytestmark = pytest.mark.system

SHORT_TIMEOUT: Final = {"JOBYARD_NODE_TIMEOUT": "1s"}
TERM_CYCLES: Final = reach("TERM_CYCLES", 3, soak=50)


# --- a node dies -----------------------------------------------------------------------------------------------


def test_two_seconds_after_kill_9_of_a_node_nothing_of_its_jobs_is_left(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, slots=3)
    node, directory = cluster.address("node1"), data_dir(cluster, "node1")
    submit(node, "sh sleep 300")
    submit(node, "sh trap '' TERM HUP; sleep 301 & sh -c 'sleep 302 & sleep 303' & wait")
    submit(node, 'py subprocess:run [["sh", "-c", "sleep 304 & sleep 305"]]')
    until("all of them run", lambda: len(job_processes(directory)) >= 9)
    left = job_processes(directory)
    cluster.kill("node1")
    until("none is left", lambda: not any(map(is_alive, left)), within_s=2)
    assert job_processes(directory) == set()


def test_what_survives_its_node_and_its_spawner_ends_before_the_node_says_hello(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(1, slots=1)
    node, directory = cluster.address("node1"), data_dir(cluster, "node1")
    ticket = submit(node, f"sh {told(tmp_path / 'journal')}; [ $JOBYARD_ATTEMPT = 2 ] || sleep 300; echo second")
    until("it runs", lambda: begun(tmp_path / "journal") or None)
    left = job_processes(directory)
    for spawner in children(cluster.pid("node1")):
        os.kill(spawner, signal.SIGSTOP)  # so that it cannot see its node's end
    cluster.kill("node1")
    assert left
    assert all(map(is_alive, left)), "with its spawner stopped, the job has to go on"
    cluster.start("node1")
    assert not any(map(is_alive, left))
    assert wait(node, ticket).body == b"second\n"


def test_a_node_that_stays_away_longer_than_the_timeout_has_its_jobs_run_elsewhere(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, slots=1, env=SHORT_TIMEOUT)
    ticket = submit(cluster.address("node1"), "sh [ $JOBYARD_ATTEMPT = 2 ] || sleep 300; echo $JOBYARD_NODE")
    victim = where(cluster, ticket, asked="node1")
    survivor = other(cluster, victim)
    cluster.kill(victim)
    reply = wait(cluster.address(survivor), ticket)
    assert (reply.field("attempt"), reply.body.decode().strip()) == ("2", survivor)


def test_a_job_that_takes_its_node_with_it_fails_at_the_crash_limit(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, slots=1)
    node = cluster.address("node1")
    ticket = submit(node, "crash_limit=2 sh sleep 300")
    for _ in range(2):
        where(cluster, ticket, asked="node1")
        cluster.kill("node1")
        cluster.start("node1")
    reply = wait(node, ticket)
    assert (reply.field("state"), reply.field("reason")) == ("failed", "crash_limit")
    assert wait(node, submit(node, "sh echo well")).body == b"well\n"


# --- a node stops to answer ------------------------------------------------------------------------------------


@contextmanager
def stopped(cluster: LocalCluster, name: str, *, asked: str) -> Iterator[None]:
    """SIGSTOP until the node counts as lost; SIGCONT at the end."""
    os.kill(cluster.pid(name), signal.SIGSTOP)
    try:
        until("it counts as lost", lambda: f"name={name} state=lost" in ask(asked, "nodes").body.decode())
        yield
    finally:
        os.kill(cluster.pid(name), signal.SIGCONT)


@pytest.mark.parametrize("second_s", [0.1, 0.6, 3.0], ids=["ended", "ended a moment ago", "running"])
def test_the_late_outcome_of_a_node_presumed_gone_is_acknowledged_and_not_recorded(
    start_cluster: StartCluster, second_s: float
) -> None:
    """Whether the second attempt has ended by then, or still runs."""
    cluster = start_cluster(2, slots=1, env=SHORT_TIMEOUT)
    command = f"[ $JOBYARD_ATTEMPT = 1 ] && sleep 0.5 || sleep {second_s}; echo attempt $JOBYARD_ATTEMPT"
    ticket = submit(cluster.address("node1"), f"sh {command}")
    runner = where(cluster, ticket, asked="node1")
    address, late = cluster.address(other(cluster, runner)), cluster.address(runner)
    with stopped(cluster, runner, asked=address):
        where(cluster, ticket, asked=other(cluster, runner)) if second_s > 1 else wait(address, ticket)
    until("the late outcome arrives", lambda: statistic(address, "outcomes_stale_total") == 1)
    until("it is acknowledged", lambda: statistic(late, "outcomes_unacknowledged", local=True) == 0)
    for node in (address, late):
        reply = wait(node, ticket)
        assert (reply.field("attempt"), reply.body) == ("2", b"attempt 2\n")


def test_what_a_node_presumed_gone_still_runs_is_ended_when_it_was_given_to_another(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(2, slots=1, env=SHORT_TIMEOUT)
    command = f"{told(tmp_path / 'journal')}; [ $JOBYARD_ATTEMPT = 2 ] || sleep 300; sleep 1; echo $JOBYARD_ATTEMPT"
    ticket = submit(cluster.address("node1"), f"sh {command}")
    runner = where(cluster, ticket, asked="node1")
    first = job_processes(data_dir(cluster, runner))
    address = cluster.address(other(cluster, runner))
    with stopped(cluster, runner, asked=address):
        where(cluster, ticket, asked=other(cluster, runner))
        assert any(map(is_alive, first)), "nobody could have ended it yet"
    until("the first attempt is ended", lambda: not any(map(is_alive, first)))
    reply = wait(address, ticket)
    assert (reply.field("attempt"), reply.body) == ("2", b"2\n")
    assert begun(tmp_path / "journal") == {ticket: 2}


# --- a planned stop --------------------------------------------------------------------------------------------


@pytest.mark.timeout(60 + 12 * TERM_CYCLES)
def test_sigterm_under_load_hands_back_what_waits_and_nothing_is_lost_or_run_again(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(3, slots=2, env={"JOBYARD_DRAIN_GRACE": "5s"})
    load = Load(cluster, tmp_path / "journal", seed("TERM_SEED"))
    with load.running():
        for name in islice(cycle(("node1", "balancer", "node2", "node3")), TERM_CYCLES):
            time.sleep(0.7)
            assert terminate(cluster, name, within_s=9) == "ended with exit code 0"
            cluster.start(name)
    verdict = audit(cluster, load, within_s=20 + TERM_CYCLES)
    print(f"{TERM_CYCLES} planned stops: {verdict}")
    assert verdict.acknowledged > 15 * TERM_CYCLES
    assert verdict.not_kept == []
    assert verdict.run_again == 0, "what ran was given the time to end, and what waited was handed back"
    assert statistic(cluster.address("node1"), "attempts_crashed_total") == 0


def test_an_attempt_that_outlasts_the_grace_is_handed_back_and_counts_as_no_crash(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, slots=1, env={"JOBYARD_DRAIN_GRACE": "0.5s"})
    ticket = submit(cluster.address("node1"), "crash_limit=1 sh [ $JOBYARD_ATTEMPT = 2 ] || sleep 300; echo done")
    runner = where(cluster, ticket, asked="node1")
    waiting = [submit(cluster.address(runner), f"crash_limit=1 sh echo {number}") for number in range(20)]
    assert terminate(cluster, runner, within_s=5) == "ended with exit code 0"
    survivor = cluster.address(other(cluster, runner))
    assert wait(survivor, ticket).body == b"done\n"
    assert [wait(survivor, ticket).body for ticket in waiting] == [b"%d\n" % number for number in range(20)]
    assert statistic(survivor, "attempts_crashed_total") == 0


def test_a_node_that_drains_takes_no_new_jobs_and_says_so(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1, slots=1)
    node = cluster.address("node1")
    ticket = submit(node, "sh sleep 0.8; echo ended")
    where(cluster, ticket, asked="node1")
    os.kill(cluster.pid("node1"), signal.SIGTERM)
    until("it drains", lambda: ask(node, "submit sh true").code == "DRAINING")
    until("it has stopped", lambda: cluster.ended().get("node1"))
    cluster.start("node1")
    reply = wait(node, ticket)
    assert (reply.field("attempt"), reply.body) == ("1", b"ended\n"), "what ran was waited for"


# --- the balancer dies -----------------------------------------------------------------------------------------


def test_without_a_balancer_nodes_accept_and_run_on_and_nothing_is_run_again(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    cluster = start_cluster(3, slots=2, env=SHORT_TIMEOUT)
    spread = [cluster.address(name) for name in cluster.node_names] * 4
    before = [submit(address, f"sh {told(journal)}; sleep 0.8; echo {n}") for n, address in enumerate(spread)]
    until("the nodes have them all", lambda: sum(map(_held_by, spread[:3])) == len(before))
    cluster.kill("balancer")
    during = [submit(address, f"sh {told(journal)}; echo {n}") for n, address in enumerate(spread, len(before))]
    until("what the nodes had is run", lambda: set(begun(journal)) == set(before))
    assert ask(cluster.address("node1"), f"status {during[0]}").field("as_of_s") is not None
    time.sleep(1.5)  # longer than the node timeout: silence of a balancer that is away is nobody's death
    cluster.start("balancer")
    for number, ticket in enumerate(before + during):
        reply = wait(cluster.address("node2"), ticket)
        assert (reply.field("attempt"), reply.body) == ("1", b"%d\n" % number)
    assert begun(journal) == Counter(before + during), "each ran once"


def _held_by(address: str) -> float:
    """Attempts that a node has, by its own word; what the balancer says may still be on the way to it."""
    return sum(statistic(address, f"attempts_{which}", local=True) for which in ("running", "waiting"))


def test_the_balancer_may_start_last(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2)
    for name in ("balancer", *cluster.node_names):
        cluster.kill(name)
        shutil.rmtree(data_dir(cluster, name))
    for name in cluster.node_names:
        cluster.start(name)
    tickets = [submit(cluster.address("node1"), f"sh echo {number}") for number in range(5)]
    assert ask(cluster.address("node1"), f"result {tickets[0]}").pending
    cluster.start("balancer")
    cluster.wait_until_joined()  # a ledger that never met a ticket's origin knows nothing of the ticket
    assert [wait(cluster.address("node2"), ticket).body for ticket in tickets] == [b"%d\n" % n for n in range(5)]


def test_without_the_balancers_volume_every_job_ends_whose_origin_lives(start_cluster: StartCluster) -> None:
    cluster = start_cluster(3, slots=1)
    one, two, three = (cluster.address(name) for name in cluster.node_names)
    ended = {ticket: wait(two, ticket) for ticket in (submit(one, f"key=k{n} sh echo {n}") for n in range(5))}
    live = [submit(address, f"sh sleep 0.5; echo {n}") for n, address in enumerate([one, two, three] * 4)]
    where(cluster, live[0], asked="node1")
    cluster.kill("balancer")
    shutil.rmtree(data_dir(cluster, "balancer"))
    cluster.start("balancer")
    cluster.wait_until_joined()  # a ledger that never met a ticket's origin knows nothing of the ticket
    for number, ticket in enumerate(live):
        reply = wait(two, ticket)
        assert (reply.field("state"), reply.body) == ("succeeded", b"%d\n" % number)
    assert {ticket: wait(three, ticket) for ticket in ended} == ended, "the new ledger learned what had ended"
    assert [submit(three, f"key=k{n} sh echo {n}") for n in range(5)] == list(ended), "and whose the keys are"


def test_results_survive_a_restart_of_everything(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2)
    address = cluster.address("node1")
    results = {ticket: wait(address, ticket) for ticket in (submit(address, f"sh seq {n}") for n in range(20))}
    for name in ("balancer", *cluster.node_names):
        cluster.kill(name)
    for name in (*cluster.node_names, "balancer"):
        cluster.start(name)
    for name in cluster.node_names:
        again = {ticket: wait(cluster.address(name), ticket) for ticket in results}
        assert again == results


# --- more than there should be ---------------------------------------------------------------------------------


def test_a_second_node_on_a_data_directory_leaves_at_once_and_the_first_is_unharmed(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(1)
    directory = data_dir(cluster, "node1")
    host, _, port = cluster.address("balancer").rpartition(":")
    env = {"JOBYARD_DATA_DIR": str(directory), "JOBYARD_LISTEN": "127.0.0.1:0"}
    running = submit(cluster.address("node1"), "sh sleep 0.5; echo unharmed")
    second = run_to_its_end("node", host, port, env=env)
    assert second.status == 75
    assert f"another process is using the data directory {directory}" in second.said
    assert (directory / "address").read_text().strip() == cluster.address("node1")
    assert wait(cluster.address("node1"), running).body == b"unharmed\n"


def test_a_second_balancer_on_a_data_directory_leaves_at_once_and_the_first_is_unharmed(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(1)
    directory = data_dir(cluster, "balancer")
    env = {"JOBYARD_DATA_DIR": str(directory), "JOBYARD_HTTP_LISTEN": "off"}
    second = run_to_its_end("balancer", "0", env=env)
    assert (second.status, str(directory) in second.said) == (75, True)
    assert (directory / "address").read_text().strip() == cluster.address("balancer")
    assert wait(cluster.address("node1"), submit(cluster.address("node1"), "sh true")).ok


def test_a_node_beyond_max_num_nodes_is_refused_and_its_clients_hear_why(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, env={"MAX_NUM_NODES": "1"}, joined=False)

    def refused() -> str | None:
        answers = {name: ask(cluster.address(name), "submit sh true") for name in cluster.node_names}
        refusals = [name for name, reply in answers.items() if reply.code == "UNAVAILABLE"]
        assert len(refusals) < 2, answers
        return refusals[0] if refusals and "MAX_NUM_NODES=1" in answers[refusals[0]].line else None

    name = until("one of them is refused", refused)
    assert "MAX_NUM_NODES=1" in cluster.log_path(name).read_text()
    first = other(cluster, name)
    assert wait(cluster.address(first), submit(cluster.address(first), "sh echo served")).body == b"served\n"
    cluster.kill(first)
    until("there is room for it now", lambda: ask(cluster.address(name), "submit sh true").ok)
