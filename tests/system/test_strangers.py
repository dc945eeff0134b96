"""Those who hold connections, and those who claim to be somebody: whoever means it is served all the same, at once."""

import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from common.codec import replace
from common.messages import Challenge, Proof, Refused, Welcome
from examples.local_cluster import LocalCluster
from tests.system.client import Line, ask, submit, until, wait
from tests.system.conftest import StartCluster
from tests.system.crowd import Crowd, resident_bytes_grown, slow_s
from tests.system.programs import address_in, data_dir, running
from tests.system.stranger import HELLO, Stranger

pytestmark = pytest.mark.system

KEY: Final = "the-key-of-this-cluster"
TOKEN: Final = "open-sesame-open-sesame"
ANSWERED_S_MAX: Final = 1.0
FOR_S: Final = 60.0 if os.environ.get("JOBYARD_SOAK") else 1.2
FILES: Final = 256
LINE_BYTES_MAX: Final = 64 * 1024
MIB: Final = 1 << 20


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    return start_cluster_of_module(
        1, env={"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_CONNECTIONS_MAX": "2000", "MAX_NUM_NODES": "50"}
    )


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest, cluster: LocalCluster) -> Iterator[None]:
    log = cluster.log_path("node1")
    until("the link is open", lambda: '"link.opened"' in log.read_text())
    yield
    assert not cluster.ended()
    assert log.read_text().count('"link.opened"') == 1, "the real link was displaced"
    for name in ("node1", "balancer"):
        assert "Traceback" not in cluster.log_path(name).read_text()


def a_client(address: str, *, token: str = "") -> None:
    """What a normal client does, in a connection of its own."""
    with Line(address) as line:
        if token:
            assert line.ask(f"auth {token}").ok
        assert line.ask("ping").line == "OK pong"
        assert line.ask("submit sleep 0").ok


def a_node(address: str) -> None:
    """What a node does when it comes: from its Hello to its Welcome."""
    with Stranger(address) as node:
        admitted = node.shake_hands(KEY.encode(), node_id="visitor", prefix="vvvvvv", name="visitor")
        assert isinstance(admitted, Welcome), admitted


CLIENTS: Final = ("node1", a_client)
NODES: Final = ("balancer", a_node)
BOTH = pytest.mark.parametrize(("name", "somebody"), [CLIENTS, NODES], ids=["clients' port", "cluster port"])
Somebody = Callable[[str], None]


# --- who holds connections ---------------------------------------------------------------------------------------


@BOTH
def test_a_byte_a_second_on_300_connections_holds_nobody_up(
    cluster: LocalCluster, name: str, somebody: Somebody
) -> None:
    address = cluster.address(name)
    with Crowd(address, 300) as drip:
        took_s = slow_s(lambda: somebody(address), lambda: drip.send(b"\0"), for_s=FOR_S, every_s=1.0)
    assert took_s < ANSWERED_S_MAX


@BOTH
def test_a_thousand_idle_connections_hold_nobody_up(cluster: LocalCluster, name: str, somebody: Somebody) -> None:
    address = cluster.address(name)
    with Crowd(address, 1000):
        took_s = slow_s(lambda: somebody(address), lambda: None, for_s=FOR_S, every_s=1.0)
    assert took_s < ANSWERED_S_MAX


@BOTH
@pytest.mark.parametrize("data", [b"x" * (LINE_BYTES_MAX + 1), b"x" * LINE_BYTES_MAX], ids=["64 KiB + 1", "no end"])
def test_lines_too_long_fill_no_memory_and_hold_nobody_up(
    cluster: LocalCluster, name: str, somebody: Somebody, data: bytes
) -> None:
    address = cluster.address(name)
    with resident_bytes_grown(cluster.pid(name), 64 * MIB), Crowd(address, 50) as flood:
        ended = 0

        def shout() -> bool:
            nonlocal ended
            ended += flood.send(data)
            return ended >= 50

        took_s = slow_s(lambda: somebody(address), shout, for_s=FOR_S, every_s=0.1)
        until("each was closed", shout)
    assert took_s < ANSWERED_S_MAX


@contextmanager
def with_few_files(program: str, *words: str, env: dict[str, str], directory: Path) -> Iterator[str]:
    """A program that may open FILES files and not one more; where it listens."""
    data, log = directory / program, directory / f"{program}.log"
    own = {"JOBYARD_LISTEN": "127.0.0.1:0", "JOBYARD_HTTP_LISTEN": "off", "JOBYARD_DATA_DIR": str(data)}
    with running(program, *words, env=own | env, log=log, files=FILES):
        yield address_in(data)
    assert '"files.few"' in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_node_with_few_files_answers_who_comes_and_runs_jobs_whoever_holds_the_rest(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Without a token nobody can tell a stranger from a client: those over the limit are told so, and at once."""
    env = {"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_NODE_NAME": "poor"}
    host, _, port = cluster.address("balancer").rpartition(":")
    with with_few_files("node", host, port, env=env, directory=tmp_path) as address, Line(address) as first:
        assert first.ask("ping").ok
        with Crowd(address, 2 * FILES):
            until("the crowd has been turned away", lambda: newcomer(address) == "TOO_MANY_CONNECTIONS")

            def both() -> None:
                assert newcomer(address) == "TOO_MANY_CONNECTIONS", "told so, and not left waiting"
                assert first.ask("run sh echo well").body == b"well\n"

            assert slow_s(both, lambda: None, for_s=FOR_S, every_s=1.0) < ANSWERED_S_MAX
        until("there is room again", lambda: newcomer(address) == "OK pong")


def newcomer(address: str) -> str:
    """What somebody is told who comes now."""
    try:
        with Line(address) as line:
            line.send(b"ping\n")
            reply = line.reply()
            return reply.code or reply.line
    except ConnectionError:
        return "nothing: too many are being told"


def test_a_node_with_few_files_and_a_token_serves_who_has_it(cluster: LocalCluster, tmp_path: Path) -> None:
    env = {"JOBYARD_CLUSTER_KEY": KEY, "JOBYARD_CLIENT_TOKEN": TOKEN}
    host, _, port = cluster.address("balancer").rpartition(":")
    with with_few_files("node", host, port, env=env, directory=tmp_path) as address, Crowd(address, 2 * FILES) as crowd:
        took_s = slow_s(lambda: a_client(address, token=TOKEN), lambda: crowd.send(b"ping\n"), for_s=FOR_S, every_s=0.5)
    assert took_s < ANSWERED_S_MAX


def test_a_balancer_with_few_files_admits_who_has_the_key(tmp_path: Path) -> None:
    env = {"JOBYARD_CLUSTER_KEY": KEY}
    with with_few_files("balancer", env=env, directory=tmp_path) as address, Crowd(address, 2 * FILES):
        assert slow_s(lambda: a_node(address), lambda: None, for_s=FOR_S, every_s=1.0) < ANSWERED_S_MAX


# --- who claims to be somebody -----------------------------------------------------------------------------------


def field(cluster: LocalCluster, name: str) -> str:
    return cluster.log_path("node1").read_text().partition(f'"{name}": "')[2].partition('"')[0]


@pytest.fixture
def as_node1(cluster: LocalCluster) -> dict[str, str]:
    """What the real node says of itself, and what its log tells everybody who can read it."""
    return {"node_id": field(cluster, "id"), "boot_id": field(cluster, "boot"), "prefix": field(cluster, "prefix")}


@pytest.mark.parametrize("boot", ["the same", "an old one"])
@pytest.mark.parametrize("key", [b"", b"the-key-of-another-cluster"], ids=["no key", "wrong key"])
def test_an_impostor_without_the_key_is_refused_and_logged(
    cluster: LocalCluster, as_node1: dict[str, str], key: bytes, boot: str
) -> None:
    changes = as_node1 if boot == "the same" else as_node1 | {"boot_id": "0" * 32}
    logged_before = wrong_keys_logged(cluster)

    def one_more_is_logged() -> bool:
        """Not each is: a line a second tells of all."""
        with Stranger(cluster.address("balancer")) as impostor:
            said = impostor.shake_hands(key, **changes)
            assert isinstance(said, Refused)
            assert impostor.receive() is None
        return wrong_keys_logged(cluster) > logged_before

    until("one is logged", one_more_is_logged)


def wrong_keys_logged(cluster: LocalCluster) -> int:
    return log_of(cluster, "balancer").count('"peer": "127.0.0.1", "reason": "wrong cluster key"')


def log_of(cluster: LocalCluster, name: str) -> str:
    return cluster.log_path(name).read_text()


class Eavesdropper:
    """Stands between a real node and the balancer, and keeps what the node said."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        node, _ = self._listener.accept()
        balancer = socket.create_connection(self._to)
        self._sockets = [node, balancer]
        threading.Thread(target=self._copy, args=(balancer, node, False), daemon=True).start()
        self._copy(node, balancer, True)

    def _copy(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        try:
            while data := source.recv(65536):
                self.heard += data if keep else b""
                sink.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            each.close()


def test_a_recorded_handshake_of_a_real_node_opens_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    tap = Eavesdropper(cluster.address("balancer"))
    env = {
        "JOBYARD_DATA_DIR": str(tmp_path / "tapped"),
        "JOBYARD_LISTEN": "127.0.0.1:0",
        "JOBYARD_NODE_NAME": "tapped",
        "JOBYARD_CLUSTER_KEY": KEY,
    }
    log = tmp_path / "tapped.log"
    with running("node", "127.0.0.1", str(tap.port), env=env, log=log):
        until("it is linked", lambda: '"link.opened"' in log.read_text())
        assert KEY.encode() not in tap.heard
        for _ in range(2):  # while the real one is there, and again
            with Stranger(cluster.address("balancer")) as replay:
                replay.send_bytes(tap.heard)
                assert isinstance(replay.receive(), Challenge)
                said = replay.receive()
                assert isinstance(said, Refused)
                assert "cluster key" in said.reason
                assert replay.receive() is None
        assert '"link.closed"' not in log.read_text(), "the real link was displaced"
    tap.close()


def test_a_challenge_cannot_be_answered_by_asking_the_balancer_itself(cluster: LocalCluster) -> None:
    """Reflection: what the balancer shows to one connection serves on no other, nor does it serve as a node's proof."""
    with Stranger(cluster.address("balancer")) as first, Stranger(cluster.address("balancer")) as second:
        hello = replace(HELLO, nonce=secrets.token_bytes(32))
        first.send(hello)
        challenge = first.receive()
        assert isinstance(challenge, Challenge)
        second.send(replace(hello, nonce=challenge.nonce))
        oracle = second.receive()
        assert isinstance(oracle, Challenge)
        for stranger, proof in ((first, oracle.proof), (second, challenge.proof)):
            stranger.send(Proof(proof))
            assert isinstance(stranger.receive(), Refused)


def test_an_insider_with_an_old_boot_of_a_living_node_is_refused(
    cluster: LocalCluster, as_node1: dict[str, str]
) -> None:
    """One who has the key, and the id of a node that lives: the node is asked whether it does."""
    with Stranger(cluster.address("balancer")) as impostor:
        said = impostor.shake_hands(KEY.encode(), **(as_node1 | {"boot_id": "f" * 32}))
        assert isinstance(said, Refused)
        assert "is this one a copy of it?" in said.reason
    until("it is logged", lambda: '"node.refused"' in log_of(cluster, "balancer"))


def test_a_copy_of_a_living_nodes_directory_is_refused_and_says_so(cluster: LocalCluster, tmp_path: Path) -> None:
    shutil.copytree(data_dir(cluster, "node1"), tmp_path / "copy", ignore=shutil.ignore_patterns("scratch"))
    (tmp_path / "copy" / "address").unlink()
    env = {
        "JOBYARD_DATA_DIR": str(tmp_path / "copy"),
        "JOBYARD_LISTEN": "127.0.0.1:0",
        "JOBYARD_NODE_NAME": "copy",
        "JOBYARD_CLUSTER_KEY": KEY,
    }
    host, _, port = cluster.address("balancer").rpartition(":")
    log = tmp_path / "copy.log"
    with running("node", host, port, env=env, log=log):
        until("it is refused", lambda: '"link.refused"' in log.read_text())
        assert "is this one a copy of it?" in log.read_text()
        assert wait(cluster.address("node1"), submit(cluster.address("node1"), "sh echo well")).body == b"well\n"
        assert ask(address_in(tmp_path / "copy"), "submit sh true").code == "UNAVAILABLE"
    until("it is logged", lambda: '"node": "copy"' in log_of(cluster, "balancer"))
