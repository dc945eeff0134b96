"""LocalCluster with programs of four lines in place of the real ones: what it promises of any process it starts."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from examples import local_cluster
from examples.local_cluster import ClusterError, LocalCluster

pytestmark = pytest.mark.system

LISTENS = """
import os, signal, socket, sys
from pathlib import Path
directory = Path(os.environ["JOBYARD_DATA_DIR"])
host, port = os.environ["JOBYARD_LISTEN"].split(":")
listener = socket.create_server((host, int(port)))
(directory / "said").write_text(f"{sys.argv[1:]} {os.environ.get('JOBYARD_NODE_NAME')} {os.environ.get('EXTRA')}")
(directory / "address").write_text("%s:%d\\n" % listener.getsockname())
"""
PAUSES = "signal.pause()\n"
IS_STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()\n"
TELLS_WHO_JOINS = """
import json
while True:
    joined = {"event": "node.joined", "node": listener.accept()[0].recv(99).decode()}
    print(json.dumps(joined), file=sys.stderr, flush=True)
"""
JOINS_WHEN_IT_MAY = """
import time
while not (directory.parent / "gate").exists():
    time.sleep(0.01)
socket.create_connection(tuple(sys.argv[1:])).sendall(os.environ["JOBYARD_NODE_NAME"].encode())
"""
FAILS = "import sys\nprint('the data directory is in use', file=sys.stderr)\nsys.exit(7)\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    _write(root, "balancer", LISTENS + PAUSES)
    _write(root, "node", LISTENS + PAUSES)
    return root


def _write(root: Path, package: str, program: str) -> None:
    (root / package).mkdir(parents=True, exist_ok=True)
    (root / package / "__init__.py").touch()  # or another package of this name would go before it
    (root / package / "__main__.py").write_text(program)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def answers(cluster: LocalCluster, name: str) -> bool:
    host, _, port = cluster.address(name).rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_every_process_is_ready_inside_and_gone_afterwards(repository: Path) -> None:
    with LocalCluster(2, repository=repository) as cluster:
        names = ("balancer", *cluster.node_names)
        assert names == ("balancer", "node1", "node2")
        assert all(answers(cluster, name) for name in names)
        assert len({cluster.url(name) for name in names}) == 3
        pids = [cluster.pid(name) for name in names]
        directory = cluster.log_path("node1").parent
    assert all(map(is_gone, pids))
    assert not directory.exists()


def test_each_process_is_told_its_name_and_where_the_balancer_is(repository: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    with LocalCluster(2, directory, env={"EXTRA": "more"}, repository=repository) as cluster:
        host, _, port = cluster.address("balancer").rpartition(":")
    assert (directory / "balancer" / "said").read_text() == "['0'] None more"
    assert (directory / "node2" / "said").read_text() == f"[{host!r}, {port!r}] node2 more"


def test_a_killed_process_starts_again_at_its_former_address(repository: Path) -> None:
    with LocalCluster(1, repository=repository) as cluster:
        before = {name: (cluster.address(name), cluster.pid(name)) for name in ("balancer", "node1")}
        for name, (address, pid) in before.items():
            cluster.kill(name)
            assert is_gone(pid)
            assert not answers(cluster, name)
            cluster.start(name)
            assert cluster.address(name) == address
            assert answers(cluster, name)


def test_an_address_left_by_a_former_process_is_not_believed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster" / "balancer").mkdir(parents=True)
    (tmp_path / "cluster" / "balancer" / "address").write_text("127.0.0.1:1\n")
    with LocalCluster(1, tmp_path / "cluster", repository=repository) as cluster:
        assert cluster.address("balancer") != "127.0.0.1:1"


def test_a_process_that_ends_early_is_reported_with_its_log_and_the_others_are_stopped(
    repository: Path, tmp_path: Path
) -> None:
    _write(repository, "node", FAILS)
    cluster = LocalCluster(1, tmp_path / "cluster", repository=repository)
    with pytest.raises(ClusterError, match=r"node1 did not start: ended with exit code 7(.|\n)*directory is in use"):
        cluster.__enter__()
    with pytest.raises(ClusterError, match="balancer does not run"):
        cluster.pid("balancer")


def test_a_process_that_never_listens_is_given_up(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "START_S_MAX", 0.2)
    _write(repository, "balancer", "import signal\n" + PAUSES)
    with pytest.raises(ClusterError, match=r"balancer took no connections in 0\.2 s(.|\n)*it logged nothing"):
        LocalCluster(1, repository=repository).__enter__()


def test_a_process_that_ignores_sigterm_is_killed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "STOP_GRACE_S", 0.2)
    _write(repository, "node", LISTENS + IS_STUBBORN)
    with LocalCluster(1, repository=repository) as cluster:
        pid = cluster.pid("node1")
    assert is_gone(pid)


def test_sigterm_to_one_process_tells_how_it_ended_and_it_can_be_started_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "STOP_GRACE_S", 0.2)
    with LocalCluster(1, repository=repository) as cluster:
        assert cluster.terminate("balancer") == -signal.SIGTERM
        assert cluster.ended() == {}
        cluster.start("balancer")
        _write(repository, "balancer", LISTENS + IS_STUBBORN)
        cluster.kill("balancer")
        cluster.start("balancer")
        pid = cluster.pid("balancer")
        assert cluster.terminate("balancer") is None
        assert is_gone(pid)
        with pytest.raises(ClusterError, match="balancer does not run"):
            cluster.terminate("balancer")


def test_a_node_looks_for_the_balancer_where_it_is_told_to(repository: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    with LocalCluster(2, directory, dials={"node2": 4711}, repository=repository) as cluster:
        _, _, port = cluster.address("balancer").rpartition(":")
    assert (directory / "node1" / "said").read_text() == f"['127.0.0.1', {port!r}] node1 None"
    assert (directory / "node2" / "said").read_text() == "['127.0.0.1', '4711'] node2 None"


def test_a_process_that_ended_by_itself_is_told_of(repository: Path) -> None:
    with LocalCluster(1, repository=repository) as cluster:
        assert cluster.ended() == {}
        os.kill(cluster.pid("node1"), signal.SIGKILL)
        ends_at = time.monotonic() + 10
        while not (ended := cluster.ended()):
            assert time.monotonic() < ends_at
            time.sleep(0.01)
        assert list(ended) == ["node1"]
        assert "killed by SIGKILL" in ended["node1"]


def test_a_running_member_is_not_started_twice(repository: Path) -> None:
    with LocalCluster(1, repository=repository) as cluster, pytest.raises(ClusterError, match="node1 runs already"):
        cluster.start("node1")


def test_a_node_has_joined_when_the_balancer_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _joining(repository, tmp_path) as cluster:
        with monkeypatch.context() as impatient:
            impatient.setattr(local_cluster, "JOIN_S_MAX", 0.2)
            with pytest.raises(ClusterError, match=r"node1 has not joined in 0\.2 s"):
                cluster.wait_until_joined()
        (tmp_path / "gate").touch()
        cluster.wait_until_joined()


@pytest.mark.parametrize("restarted", ["balancer", "node2"])
def test_what_was_said_of_a_former_process_or_by_one_is_not_believed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: str
) -> None:
    with _joining(repository, tmp_path) as cluster:
        (tmp_path / "gate").touch()
        cluster.wait_until_joined()
        (tmp_path / "gate").unlink()
        cluster.kill(restarted)
        cluster.start(restarted)
        monkeypatch.setattr(local_cluster, "JOIN_S_MAX", 0.2)
        with pytest.raises(ClusterError, match="node2 has not joined"):
            cluster.wait_until_joined("node2")
        if restarted == "node2":
            cluster.wait_until_joined("node1")


def test_a_node_that_has_ended_is_not_waited_for(repository: Path, tmp_path: Path) -> None:
    with _joining(repository, tmp_path) as cluster:
        os.kill(cluster.pid("node1"), signal.SIGKILL)
        with pytest.raises(ClusterError, match=r"node1 has not joined: node1 killed by SIGKILL(.|\n)*logged nothing"):
            cluster.wait_until_joined()


def _joining(repository: Path, directory: Path) -> LocalCluster:
    """Its nodes go to the balancer once, as soon as there is a file `gate`."""
    _write(repository, "balancer", LISTENS + TELLS_WHO_JOINS)
    _write(repository, "node", LISTENS + JOINS_WHEN_IT_MAY + PAUSES)
    return LocalCluster(2, directory, repository=repository)
