"""Strangers at the balancer's port, and programs set up wrongly: refused with a reason, and nothing harmed."""

import secrets
from pathlib import Path
from typing import Final

import pytest

from common.codec import replace
from common.messages import PROTOCOL, Challenge, Hello, Poll, Proof, Refused
from examples.local_cluster import LocalCluster
from tests.system.client import ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.programs import address_in, run_to_its_end, running
from tests.system.stranger import Stranger

pytestmark = pytest.mark.system

KEY: Final = "the-key-of-this-cluster"


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(1, env={"JOBYARD_CLUSTER_KEY": KEY})


@pytest.fixture(autouse=True)
def unharmed(cluster: LocalCluster) -> object:
    """After each of these tests the one real node is still the one, on the link that it had."""
    log, pid = cluster.log_path("node1"), cluster.pid("balancer")
    until("the link is open", lambda: '"link.opened"' in log.read_text())
    yield
    assert log.read_text().count('"link.opened"') == 1, "the real link was displaced"
    assert cluster.pid("balancer") == pid
    assert wait(cluster.address("node1"), submit(cluster.address("node1"), "sh echo well")).body == b"well\n"


def hello(cluster: LocalCluster, **changes: object) -> Hello:
    """What the real node says of itself, as somebody might guess it."""
    fields = log_field(cluster, "id"), log_field(cluster, "boot"), log_field(cluster, "prefix")
    real = Hello(PROTOCOL, *fields, "node1", 2, ("sh",), "0.1.0", secrets.token_bytes(32))
    return replace(real, **changes)  # type: ignore[arg-type]


def log_field(cluster: LocalCluster, name: str) -> str:
    return cluster.log_path("node1").read_text().partition(f'"{name}": "')[2].partition('"')[0]


def balancer_log(cluster: LocalCluster) -> str:
    return cluster.log_path("balancer").read_text()


# --- bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 100,
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff" + bytes(1000),
        b"\x00\x00\x10\x00\x01\x01" + b"\xc1" * 4094,
        b"\x00\x00\x00\x02\x01\xfa",
        b"\x00\x00\x00\x02\x63\x01",
    ],
    ids=["http", "noise", "no length", "4 GiB", "bad payload", "unknown code", "unknown version"],
)
def test_what_is_no_frame_ends_its_connection(cluster: LocalCluster, data: bytes) -> None:
    with Stranger(cluster.address("balancer")) as stranger:
        stranger.send_bytes(data)
        assert stranger.receive() is None


def test_a_connection_that_says_nothing_is_closed_after_a_while(cluster: LocalCluster) -> None:
    with Stranger(cluster.address("balancer")) as silent, Stranger(cluster.address("balancer")) as slow:
        slow.send_bytes(b"\x00\x00")
        assert silent.receive() is None
        assert slow.receive() is None


# --- messages --------------------------------------------------------------------------------------------------


def test_a_message_out_of_turn_ends_its_connection(cluster: LocalCluster) -> None:
    with Stranger(cluster.address("balancer")) as stranger:
        stranger.send(Poll())
        assert stranger.receive() is None


def test_another_protocol_version_is_refused_with_a_reason(cluster: LocalCluster) -> None:
    with Stranger(cluster.address("balancer")) as stranger:
        stranger.send(hello(cluster, protocol=PROTOCOL + 1))
        refused = stranger.receive()
        assert isinstance(refused, Refused)
        assert str(PROTOCOL) in refused.reason


@pytest.mark.parametrize("boot_id", [None, "another boot"])
def test_who_claims_to_be_a_node_and_has_no_key_is_refused(cluster: LocalCluster, boot_id: str | None) -> None:
    """Refused before the machine hears of it, so the real link cannot be displaced."""
    with Stranger(cluster.address("balancer")) as impostor:
        impostor.send(hello(cluster) if boot_id is None else hello(cluster, boot_id=boot_id))
        challenge = impostor.receive()
        assert isinstance(challenge, Challenge)
        impostor.send(Proof(challenge.proof))
        refused = impostor.receive()
        assert isinstance(refused, Refused)
        assert "JOBYARD_CLUSTER_KEY" in refused.reason
        assert impostor.receive() is None


def test_a_node_with_another_key_is_refused_and_its_log_says_why(cluster: LocalCluster, tmp_path: Path) -> None:
    host, _, port = cluster.address("balancer").rpartition(":")
    env = {
        "JOBYARD_DATA_DIR": str(tmp_path / "stranger"),
        "JOBYARD_LISTEN": "127.0.0.1:0",
        "JOBYARD_NODE_NAME": "stranger",
        "JOBYARD_CLUSTER_KEY": "the-key-of-another-cluster",
    }
    log = tmp_path / "stranger.log"
    with running("node", host, port, env=env, log=log):
        address = address_in(tmp_path / "stranger")
        until("it is refused", lambda: '"link.refused"' in log.read_text())
        answer = ask(address, "submit sh true")
    assert "JOBYARD_CLUSTER_KEY" in log.read_text()
    assert (answer.code, "JOBYARD_CLUSTER_KEY" in answer.line) == ("UNAVAILABLE", True)
    assert "another-cluster" not in log.read_text()
    assert "stranger" not in ask(cluster.address("node1"), "nodes").body.decode()
    assert '"link.refused"' in balancer_log(cluster)


# --- settings --------------------------------------------------------------------------------------------------


def test_each_bad_setting_has_a_line_of_its_own_and_the_program_does_not_start(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    env = {
        "JOBYARD_DATA_DIR": str(tmp_path / "data"),
        "DISPATCH_PERIOD": "soon",
        "MAX_NUM_NODES": "0",
        "JOBYARD_SLOTSS": "4",
        "JOBYARD_CLUSTER_KEY": "short",
    }
    refused = run_to_its_end("balancer", "0", env=env)
    assert refused.status == 78
    lines = refused.said.splitlines()
    names = ("DISPATCH_PERIOD", "MAX_NUM_NODES", "JOBYARD_SLOTSS", "JOBYARD_CLUSTER_KEY")
    assert sorted(next(name for name in names if name in line) for line in lines) == sorted(names)
    assert "short" not in next(line for line in lines if "JOBYARD_CLUSTER_KEY" in line).replace("shorter", "")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("program", "secret"), [("balancer", "JOBYARD_CLUSTER_KEY"), ("node", "JOBYARD_CLIENT_TOKEN")])
def test_a_port_that_others_can_reach_needs_a_secret_or_a_waiver(
    cluster: LocalCluster, tmp_path: Path, program: str, secret: str
) -> None:
    env = {"JOBYARD_DATA_DIR": str(tmp_path / "data"), "JOBYARD_LISTEN": "0.0.0.0:0", "JOBYARD_HTTP_LISTEN": "off"}
    refused = run_to_its_end(program, env=env)
    assert refused.status == 78
    assert secret in refused.said
    assert "JOBYARD_INSECURE=" in refused.said


def test_an_address_in_use_is_told_and_the_program_leaves(cluster: LocalCluster, tmp_path: Path) -> None:
    env = {"JOBYARD_DATA_DIR": str(tmp_path / "data"), "JOBYARD_LISTEN": cluster.address("node1")}
    refused = run_to_its_end("node", "127.0.0.1", "1", env=env)
    assert (refused.status, cluster.address("node1") in refused.said) == (69, True)
