"""Clients and TLS: what `tls://` demands of a node, and how its failures are said. Both clients, and the futures."""

import select
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from jobyard import Client, Unreachable
from jobyard.addresses import Address, parse_url
from jobyard.connection import Connection
from jobyard.errors import BadRequest
from jobyard.settings import trust_of
from tests.certified import Certified, certified
from tests.runtime.both_clients import Connect
from tests.runtime.fake_node import FakeNode, Handler

PING = b"PING\n"
PONG = b"OK pong\n"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("ours"))


def secured(files: Certified, *talk: tuple[bytes, bytes], tickets: int = 0) -> Handler:
    """A conversation by TLS; one that cannot begin is the client's affair."""
    context = files.served()
    context.num_tickets = tickets

    def handler(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                for expected, answer in talk:
                    heard = b""
                    while len(heard) < len(expected) and (data := stream.recv(1000)):
                        heard += data
                    assert heard == expected
                    stream.sendall(answer)
                stream.recv(1000)
        except ssl.SSLError:
            pass

    return handler


def tls(node: FakeNode, host: str = "127.0.0.1") -> str:
    return node.url.replace("tcp://127.0.0.1", f"tls://{host}")


def refuses(client: Any, told: str) -> None:
    """The client makes no connection, and says why."""
    with client as yard, pytest.raises(Unreachable, match=told):
        yard.ping()


def test_the_scheme_of_an_address_says_whether_it_has_tls() -> None:
    assert parse_url("tls://node1, tcp://node2:1,node3") == (
        Address("node1", 9000, tls=True),
        Address("node2", 1),
        Address("node3", 9000),
    )
    with pytest.raises(ValueError, match="'ssl://node1' is not the address of a node"):
        parse_url("ssl://node1")


def test_a_certified_node_is_talked_to(connect: Connect, ours: Certified) -> None:
    with FakeNode(secured(ours, (PING, PONG), (PING, PONG))) as node, connect(tls(node), tls_ca=ours.ca) as yard:
        yard.ping()
        yard.ping()


def test_the_ca_is_found_in_the_environment(connect: Connect, ours: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_TLS_CA", str(ours.ca))
    with FakeNode(secured(ours, (PING, PONG))) as node, connect(tls(node, "localhost")) as yard:
        yard.ping()


def test_the_token_goes_only_to_a_node_that_is_certified(connect: Connect, tmp_path: Path, ours: Certified) -> None:
    stranger = certified(tmp_path, by="another")
    heard: list[bytes] = []

    def eavesdrop(connection: socket.socket) -> None:
        try:
            with stranger.served().wrap_socket(connection, server_side=True) as stream:
                heard.append(stream.recv(1000))
        except (ssl.SSLError, ConnectionError):
            pass

    with FakeNode(eavesdrop) as node:
        refuses(connect(tls(node), "open-sesame", tls_ca=ours.ca), "no TLS")
    assert b"".join(heard) == b""


@pytest.mark.parametrize(
    ("names", "by", "expired", "why"),
    [
        (("node1.example",), "ours", False, "IP address mismatch"),
        ((), "another", False, "unable to get local issuer certificate"),
        ((), "ours", True, "certificate has expired"),
    ],
    ids=["another host", "another CA", "expired"],
)
def test_a_node_with_another_certificate_is_not_talked_to(
    connect: Connect, ours: Certified, tmp_path: Path, names: tuple[str, ...], by: str, expired: bool, why: str
) -> None:
    bad = certified(tmp_path, *names, by=by, expired=expired)
    with FakeNode(secured(bad)) as node:
        told = rf"no TLS: its certificate is refused: .*{why}.* \(JOBYARD_TLS_CA says"
        refuses(connect(tls(node), tls_ca=ours.ca), told)


def test_a_node_that_does_not_speak_tls_is_said_to_be_so(connect: Connect, ours: Certified) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(5)
        connection.sendall(b"ERR BAD_REQUEST this node does not speak TLS; clients name it as tcp://HOST:PORT\n")

    with FakeNode(plain) as node:
        refuses(connect(tls(node), tls_ca=ours.ca), "no TLS: the node does not speak it; tcp:// addresses it without")


def test_what_a_node_with_tls_says_to_a_plain_client_is_the_error(connect: Connect) -> None:
    said = b"ERR BAD_REQUEST this node speaks TLS; clients name it as tls://HOST:PORT\n"
    with FakeNode([(PING, said)]) as node, connect(node.url) as yard, pytest.raises(BadRequest, match="as tls://"):
        yard.ping()


def test_a_silent_node_is_given_up_in_the_handshake(connect: Connect, ours: Certified) -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    with FakeNode(silent) as node:
        refuses(connect(tls(node), timeout_s=0.2, tls_ca=ours.ca), "timed out")


@pytest.mark.parametrize(("content", "why"), [(None, "cannot be read: No such file"), (b"x", "holds no PEM")])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OSError, match=rf"ca\.pem' \(JOBYARD_TLS_CA\) {why}"):
        Client("tls://127.0.0.1", tls_ca=path)


def test_without_a_tls_address_no_ca_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_TLS_CA", "/nowhere")
    Client("tcp://127.0.0.1:9")


def test_a_connection_is_not_stale_for_what_tls_sends_on_its_own(ours: Certified) -> None:
    """Some servers follow a handshake with tickets; nothing is owed, and yet something has come."""
    with FakeNode(secured(ours, (PING, PONG), tickets=2)) as node:
        (address,) = parse_url(tls(node))
        connection = Connection(address, 5.0, trust_of(ours.ca))
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        assert poller.poll(5000), "no ticket has come"
        assert not connection.is_stale()
        assert connection.request(PING).error is None
        connection.close()


def test_a_poller_gets_every_reply_and_waits_for_none(ours: Certified) -> None:
    """As the futures do it: nothing of a large answer stays behind in TLS while the socket has nothing to tell."""
    many = PONG * 50_000
    with FakeNode(secured(ours, (PING, many))) as node:
        (address,) = parse_url(tls(node))
        connection = Connection(address, 5.0, trust_of(ours.ca))
        assert connection.replies_now() == []
        assert connection.send_now(memoryview(PING)) == len(PING)
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        replies = 0
        while replies < 50_000:
            assert poller.poll(5000), f"only {replies} replies, and nothing more to read"
            replies += len(connection.replies_now())
        connection.close()
