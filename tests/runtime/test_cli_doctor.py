"""`jobyard doctor`: each thing that can be wrong with a cluster is found, and nothing else."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobyard.cli import doctor, findings
from jobyard.cli.findings import Exam, Trial, Ward
from jobyard.errors import Forbidden, Full
from jobyard.model import Node
from tests.runtime.fake_cluster import End
from tests.runtime.fake_node import FakeNode
from tests.runtime.shell import Shell
from tests.runtime.watched_cluster import WatchedCluster

NOWHERE = "tcp://127.0.0.1:1"


@pytest.fixture
def cluster() -> Iterator[WatchedCluster]:
    with WatchedCluster() as cluster:
        yield cluster


@pytest.fixture
def jobyard(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


def in_(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job(reason: str, state: str = "queued") -> str:
    return f"k-7 state={state} attempt=0 reason={reason}"


def node(**changed: object) -> Callable[[WatchedCluster], None]:
    fields = {"name": "n2", "state": "alive", "slots": 2, "running": 0, "waiting": 0, "last_seen_s": 0.3} | changed

    def change(cluster: WatchedCluster) -> None:
        cluster.nodes[1] = " ".join(f"{name}={value}" for name, value in fields.items())

    return change


def listed(*lines: str) -> Callable[[WatchedCluster], None]:
    return lambda cluster: cluster.listed.extend(lines)


def submitted_in(seconds: float) -> Callable[[WatchedCluster], None]:
    """Of now, when the cluster changes, and not when this module was read."""
    return lambda cluster: cluster.listed.append(f"{job('running', 'running')} submitted={in_(seconds)}")


def local(**numbers: object) -> Callable[[WatchedCluster], None]:
    return lambda cluster: cluster.local.update(numbers)


def stats(**numbers: object) -> Callable[[WatchedCluster], None]:
    return lambda cluster: cluster.stats.update(numbers)


def crashing(cluster: WatchedCluster) -> None:
    """One more with each look."""
    looks = itertools.count(1)
    asked = cluster._on_stats

    def on_stats(options: dict[str, str], rest: str, body: bytes) -> bytes:
        if "local" not in options:
            cluster.stats["attempts_crashed_total"] = next(looks)
        return asked(options, rest, body)

    cluster.__dict__["_on_stats"] = on_stats


def said(**changed: object) -> Callable[[WatchedCluster], None]:
    return lambda cluster: cluster.__dict__.update(changed)


WRONG: dict[str, tuple[Callable[[WatchedCluster], None], int, str]] = {
    "no balancer": (said(linked=False), 2, r"^error .*: has no link to the balancer\. To do: start the balancer"),
    "a full node": (local(store_fraction=0.76), 2, r"^error .*76% full: SUBMIT is refused with FULL\. To do: make"),
    "a node that fills": (local(store_fraction=0.61), 1, r"^warning .*61% full: ended jobs go before their time"),
    "a full balancer": (stats(store_fraction=0.8), 2, r"^error +balancer: .*80% full: new jobs stay with the nodes"),
    "a draining address": (local(draining=1), 1, r"^warning .*: drains: it takes no jobs\. To do: .* undrain` "),
    "outcomes pile up": (local(outcomes_unacknowledged=5000), 1, r"^warning .*keeps 5000 outcomes"),
    "an older node": (said(version="jobyard 0.0.9 protocol=1"), 1, r"^warning .*is of version 0\.0\.9.*upgrade"),
    "another protocol": (said(version="jobyard 9.0 protocol=2"), 2, r"^error .*speaks version 2 of the client prot"),
    "one older node": (node(version="0.0.9"), 1, r"^warning +cluster: nodes are of different versions: 0\.0\.9, "),
    "a lost node": (node(state="lost", last_seen_s=93), 1, r"^warning +n2: is lost: it was last heard 1m33s ago\. To"),
    "a draining node": (node(state="draining"), 1, r"^warning +n2: drains: 0 running, 0 waiting\. To do: .*undrain"),
    "a silent node": (node(last_seen_s=45), 1, r"^warning +n2: was last heard 45s ago, and is not lost yet\. To do: "),
    "two of one name": (node(name="n1"), 1, r"^warning +n1: 2 nodes have this name.*JOBYARD_NODE_NAME"),
    "no node": (said(nodes=[]), 2, r"^error +cluster: no node has ever been connected\. To do: start one"),
    "no slots": (
        said(nodes=["name=n1 state=alive slots=0 running=0 waiting=0 last_seen_s=0.1"]), 2,
        r"^error +cluster: no node that takes jobs has a slot",
    ),
    "crashes": (crashing, 1, r"^warning +cluster: 2 attempts were lost with their node.*, 1 of them while we looked"),
    "no node for a kind": (listed(job("kind_not_allowed")), 2, r"^error +k-7: 1 job waits, reason kind_not_allowed: "),
    "too wide": (listed(job("too_wide"), job("too_wide")), 2, r"^error +k-7: 2 jobs wait.*`jobyard explain k-7`$"),
    "all drain": (listed(job("draining")), 1, r"^warning +k-7: 1 job waits, reason draining"),
    "a clock ahead": (
        submitted_in(3600), 1,
        r"^warning +a node: its clock is 59m\d\ds ahead of this machine's\. To do: run NTP",
    ),
}  # fmt: skip


def test_a_cluster_that_is_well_has_no_other_finding(jobyard: Shell, cluster: WatchedCluster) -> None:
    assert jobyard(cluster.url, "doctor") == 0, jobyard.out
    address = cluster.url.removeprefix("tcp://")
    assert jobyard.lines == [
        f"ok       {address}: answers: {cluster.version}",
        f"ok       {address}: the node's store is 1% full",
        f"ok       cluster: the balancer answers, through {address}",
        "ok       balancer: the balancer's store is 2% full",
        "ok       cluster: 2 of 2 nodes take jobs",
        "ok       cluster: 0 live jobs",
    ]
    assert jobyard(cluster.url, "doctor", "--quiet") == 0
    assert jobyard.out == b""


@pytest.mark.parametrize(("wrong", "code", "told"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_first_and_alone(
    jobyard: Shell,
    cluster: WatchedCluster,
    wrong: Callable[[WatchedCluster], None],
    code: int,
    told: str,
) -> None:
    wrong(cluster)
    assert jobyard(cluster.url, "doctor", "--quiet") == code, jobyard.out
    first, *others = jobyard.lines
    assert re.search(told, first), first
    expected_others = 1 if told.startswith("^error .*: has no link") else 0  # nobody tells of the cluster then
    assert len(others) == expected_others, others


def test_jobs_that_only_wait_their_turn_are_counted_and_no_finding(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.listed = [job("no_free_slot"), job("no_free_slot"), job("delayed", "scheduled"), job("exit", "failed")]
    cluster.stats["jobs_live"] = 3
    assert jobyard(cluster.url, "doctor") == 0
    assert jobyard.lines[-1] == "ok       cluster: 3 live jobs (2 no_free_slot, 1 delayed)"
    cluster.stats["jobs_live"] = 9000
    assert jobyard(cluster.url, "doctor") == 0
    assert jobyard.lines[-1].endswith("9000 live jobs (of the newest 3: 2 no_free_slot, 1 delayed)")


def test_an_idle_node_of_a_long_period_and_an_old_crash_are_no_warnings(
    jobyard: Shell, cluster: WatchedCluster
) -> None:
    node(last_seen_s=20)(cluster)
    stats(attempts_crashed_total=1)(cluster)
    assert jobyard(cluster.url, "doctor") == 0
    assert (
        "ok       cluster: 1 attempt was lost with its node since the balancer's start, and none while we looked"
        in jobyard.lines
    )


def test_every_address_is_asked_by_itself(jobyard: Shell, cluster: WatchedCluster) -> None:
    with WatchedCluster(version="jobyard 0.0.9 protocol=1", linked=False) as other:
        assert jobyard(f"{NOWHERE},{other.url},{cluster.url},{other.url}", "doctor") == 2
    told = jobyard.out.decode()
    assert "error    127.0.0.1:1: cannot be reached ([Errno 111] Connection refused). To do: start the node" in told
    assert f"{other.url.removeprefix('tcp://')}: has no link to the balancer" in told
    assert f"ok       cluster: the balancer answers, through {cluster.url.removeprefix('tcp://')}" in told
    assert "warning  cluster: nodes are of different versions: 0.0.9, " in told
    severities = [line.split()[0] for line in jobyard.lines]
    assert severities == sorted(severities, key=["error", "warning", "ok"].index)


def test_a_token_that_is_wrong_or_missing_is_told_apart_from_a_node_that_is_gone(
    jobyard: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WatchedCluster(token="right") as cluster:
        monkeypatch.setenv("JOBYARD_CLIENT_TOKEN", "wrong")
        assert jobyard(cluster.url, "doctor") == 2
        (line,) = jobyard.lines
        assert "does not accept the token: that is not the token. To do: set JOBYARD_CLIENT_TOKEN" in line
        monkeypatch.setenv("JOBYARD_CLIENT_TOKEN", "right")
        assert jobyard(cluster.url, "doctor") == 0


def test_who_does_not_speak_our_protocol_is_no_node(jobyard: Shell) -> None:
    with FakeNode([(b"VERSION\n", b"HTTP/1.1 400 Bad Request\r\n\r\n")]) as node:
        assert jobyard(node.url, "doctor") == 2
    assert re.search(r"^error .*: speaks another protocol: .*JOBYARD_LISTEN", jobyard.lines[0])


def test_json_has_an_object_for_each_finding(jobyard: Shell, cluster: WatchedCluster) -> None:
    node(state="lost", last_seen_s=20)(cluster)
    assert jobyard(cluster.url, "doctor", "--json") == 1
    first, *others = map(json.loads, jobyard.lines)
    assert first == {
        "severity": "warning", "check": "nodes", "about": "n2", "text": "is lost: it was last heard 20s ago",
        "advice": "start it again, or leave it: only jobs that the balancer never got wait for it; where it is gone for"
                  " good, let a check look at errors alone (exit code 2), since it stays on the list",
    }  # fmt: skip
    assert {each["severity"] for each in others} == {"ok"}


def test_what_nodes_say_does_not_act_on_the_terminal(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.version = "jobyard \x1b[31m protocol=1"
    jobyard(cluster.url, "doctor")
    assert b"\x1b" not in jobyard.out
    assert b"\\x1b[31m" in jobyard.out


# --- --run -------------------------------------------------------------------------------------------------------


def test_run_times_a_job_at_each_address_and_leaves_nothing_behind(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.submitted = in_(0)
    assert jobyard(cluster.url, "doctor", "--run") == 0
    told = jobyard.out.decode()
    assert re.search(r"^ok .*: a job submitted here ran on n1 and ended after \d+ ms$", told, re.MULTILINE)
    assert "clocks agree with this machine's to 2 s" in told
    assert "SUBMIT name=doctor sleep 0" in cluster.heard
    assert cluster.jobs == {}


def test_run_finds_a_clock_that_is_behind(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.submitted = in_(-600)
    assert jobyard(cluster.url, "doctor", "--run", "--quiet") == 1
    assert "its clock is 10m00s behind this machine's" in jobyard.lines[0]


def test_a_job_that_does_not_end_is_cancelled_and_said_why(
    jobyard: Shell, cluster: WatchedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TRIAL_S_MAX", 0.05)
    cluster.runs = lambda job: None
    assert jobyard(cluster.url, "doctor", "--run", "--quiet") == 1
    assert re.search(r"a job that does nothing has not ended after 0\.\ds: running", jobyard.lines[0])
    assert "CANCEL k-1" in cluster.heard
    assert cluster.jobs == {}


@pytest.mark.parametrize("ends", [True, False])
def test_a_job_that_cannot_be_removed_changes_nothing_of_how_it_went(
    jobyard: Shell, cluster: WatchedCluster, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    def refuse(options: dict[str, str], rest: str, body: bytes) -> bytes:
        return b"ERR NOT_ENDED it has not ended\n"

    monkeypatch.setattr(doctor, "TRIAL_S_MAX", 0.05)
    for verb in ("_on_forget", "_on_cancel"):
        monkeypatch.setattr(cluster, verb, refuse)
    if not ends:
        cluster.runs = lambda job: None
    assert jobyard(cluster.url, "doctor", "--run") == (0 if ends else 1)
    assert "takes no job" not in jobyard.out.decode()
    assert ("a job that does nothing has not ended" in jobyard.out.decode()) is not ends
    assert any(line.startswith("FORGET") for line in cluster.heard)


def test_a_job_whose_end_cannot_be_told_is_removed_all_the_same(
    jobyard: Shell, cluster: WatchedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_on_status", lambda *_: b"ERR UNAVAILABLE ask again later\n")
    jobyard(cluster.url, "doctor", "--run")
    assert "FORGET k-1" in cluster.heard


def test_a_node_that_takes_no_job_is_an_error_and_one_that_may_not_run_it_a_warning() -> None:
    def found(trial: Trial) -> findings.Finding:
        exam = Exam("h:1", version=f"jobyard {findings.__version__} protocol=1", trial=trial)
        nodes = (Node("n", "alive", 1, 0, 0, 0.0),)
        return findings.findings([exam], Ward("h:1", nodes=nodes))[0]

    assert found(Trial(problem=Full("no room"))).severity == "error"
    assert found(Trial(problem=Forbidden("jobs of kind 'sleep' are not allowed"))).severity == "warning"
    assert found(Trial(took_s=6.0, ended=True, node="n")).severity == "warning"
    assert found(Trial(took_s=0.1, ended=True, node="n")).severity == "ok"


def test_the_balancers_clock_is_compared_too() -> None:
    trial = Trial(0.1, True, began_wall=100.0, taken_wall=101.0, ended_wall=102.0, recorded="1970-01-01T00:10:00.000Z")
    exam = Exam("h:1", version=f"jobyard {findings.__version__} protocol=1", trial=trial)
    first = findings.findings([exam], Ward("h:1", nodes=(Node("n", "alive", 1, 0, 0, 0.0),)))[0]
    assert (first.check, first.about, first.text) == (
        "clock", "balancer", "its clock is 8m18s ahead of this machine's",
    )  # fmt: skip


def test_an_end_that_is_no_success_is_an_end_all_the_same(jobyard: Shell, cluster: WatchedCluster) -> None:
    cluster.runs = lambda job: End(1)
    assert jobyard(cluster.url, "doctor", "--run") == 0
