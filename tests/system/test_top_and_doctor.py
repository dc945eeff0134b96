"""`jobyard top` and `jobyard doctor` on a real cluster: empty, busy, failing, without its balancer, and back."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster
from tests.runtime.terminal_emulator import Terminal
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.jobyard import Done, Jobyard

pytestmark = pytest.mark.system

NODE_TIMEOUT = {"JOBYARD_NODE_TIMEOUT": "2s", "JOBYARD_INFO_PERIOD": "200ms"}


@pytest.fixture
def cluster(start_cluster: StartCluster) -> LocalCluster:
    return start_cluster(2, slots=2, env=NODE_TIMEOUT)


@pytest.fixture
def jobyard(cluster: LocalCluster, tmp_path: Path) -> Iterator[Jobyard]:
    with Jobyard(cluster, tmp_path) as jobyard:
        yield jobyard


def top(jobyard: Jobyard, columns: int = 80, rows: int = 24) -> Terminal:
    env = {"JOBYARD_URL": jobyard.env["JOBYARD_URL"]}
    return Terminal(columns, rows, "top", "--interval", "200ms", env=env)


def found(done: Done, severity: str) -> list[str]:
    return [line for line in done.lines if line.startswith(severity)]


def test_top_follows_a_cluster_from_empty_to_busy_to_failing_and_over_a_restart_of_its_balancer(
    cluster: LocalCluster, jobyard: Jobyard
) -> None:
    with top(jobyard) as person:
        empty = person.until(lambda text: text.count("0/2") == 2)
        assert "0 live: 0 running, 0 in backlogs, 0 queued" in empty
        assert "no job has failed" in empty

        jobyard("submit", "--group", "g", "--array", "1-40", "--sleep", "60")
        busy = person.until(lambda text: text.count("2/2 █") == 2)
        assert "4 running" in busy
        assert "▒" in person.until("/slot")

        jobyard("submit", "--priority", "99", "--name", "bad \x1b[2J 漢字", "--scratch", "--sh", "exit 7")
        jobyard("cancel", "--group", "g")
        failing = person.until(r"\d\d:\d\d:\d\d  \S+  exit +7     node[12]  bad \\x1b\[2J 漢字")
        assert "1 failed" in failing

        cluster.kill("balancer")
        person.until(r"not connected since \d\d:\d\d:\d\d .*below what was seen last")
        assert "exit    7" in person.text

        cluster.start("balancer")
        back = person.until(lambda text: "not connected" not in text and text.count("alive    0/2") == 2)
        assert "0 failed, 0 cancelled since the balancer's start" in back
        assert "exit    7" in back

        person.press("q")
        assert person.end() == 0
        assert person.after == person.before


def test_top_looks_through_another_node_when_its_own_is_gone(cluster: LocalCluster, jobyard: Jobyard) -> None:
    first, second = (cluster.url(name).removeprefix("tcp://") for name in cluster.node_names)
    with top(jobyard, 200, 50) as person:
        person.until(rf"jobyard top  {first}")
        cluster.kill("node1")
        person.until(rf"jobyard top  {second}")
        person.until(r"node1 lost")
        cluster.kill("node2")
        person.until(r"not connected since .*\n  none of the 2 nodes in JOBYARD_URL can be reached")
        cluster.start("node1")
        person.until(rf"jobyard top  {first}")


def test_once_and_json_agree_with_nodes_and_stats(jobyard: Jobyard) -> None:
    jobyard("submit", "--array", "1-9", "--sleep", "60")
    until("slots are taken", lambda: jobyard("top", "--once", "--interval", "100ms").out.decode().count("2/2") == 2)
    (line,) = jobyard("top", "--once", "--json", "--interval", "100ms").lines
    seen = json.loads(line)
    assert (seen["running"], seen["waiting"]) == (4, 5)
    assert [node["name"] for node in seen["nodes"]] == ["node1", "node2"]


def test_doctor_finds_what_was_done_to_a_cluster_and_that_it_was_undone(
    cluster: LocalCluster, jobyard: Jobyard
) -> None:
    well = jobyard("doctor", "--run")
    assert well.code == 0, well.out.decode()
    assert len(re.findall(r"a job submitted here ran on node[12] and ended after \d+ ms", well.out.decode())) == 2
    assert "clocks agree" in well.out.decode()
    assert jobyard("list", "--quiet").lines == []

    wide = jobyard("submit", "--slots", "9", "--sleep", "0").ticket
    stuck = jobyard("doctor", "--quiet")
    assert stuck.code == 2
    assert found(stuck, "error") == stuck.lines
    assert f"{wide}: 1 job waits, reason too_wide" in stuck.out.decode()
    jobyard("cancel", wide)

    jobyard("--url", cluster.url("node1"), "drain")
    until("it drains", lambda: jobyard("nodes", "--json").out.decode().count("draining"))
    draining = jobyard("doctor", "--quiet")
    assert draining.code == 1
    assert len(found(draining, "warning")) == len(draining.lines) == 2  # as the node says, and as the balancer does
    jobyard("--url", cluster.url("node1"), "undrain")

    cluster.kill("node2")
    until("it is lost", lambda: "node2: is lost" in jobyard("doctor").out.decode())
    assert "cannot be reached ([Errno 111] Connection refused)" in jobyard("doctor").out.decode()
    cluster.start("node2")
    until("it is back", lambda: jobyard("doctor").code == 0)

    cluster.kill("balancer")
    until("nodes notice", lambda: jobyard("doctor").out.decode().count("has no link to the balancer") == 2)
    away = jobyard("doctor", "--json")
    assert away.code == 2
    assert "the balancer cannot be asked" in away.out.decode()
    cluster.start("balancer")
    until("the links are back", lambda: jobyard("doctor", "--run").code == 0)
