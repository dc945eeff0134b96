"""The relay: bytes in both directions, nothing while it is cut, all of it afterwards, and ends that are passed on."""

import socket
from collections.abc import Iterator

import pytest

from chaos.relay import Relay

pytestmark = pytest.mark.system


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def relay(target: socket.socket) -> Iterator[Relay]:
    with Relay(lambda: f"127.0.0.1:{target.getsockname()[1]}") as relay:
        yield relay


def dialled(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=10)


def test_bytes_and_ends_are_passed_on_in_both_directions(relay: Relay, target: socket.socket) -> None:
    with dialled(relay) as here:
        there, _ = target.accept()
        with there:
            here.sendall(b"question")
            assert there.recv(100) == b"question"
            there.sendall(b"answer")
            assert here.recv(100) == b"answer"
        assert here.recv(100) == b""


def test_nothing_comes_through_while_it_is_cut_and_all_of_it_afterwards(relay: Relay, target: socket.socket) -> None:
    with dialled(relay) as here:
        there, _ = target.accept()
        with there:
            there.settimeout(0.2)
            relay.cut()
            here.sendall(b"late")
            with pytest.raises(TimeoutError):
                there.recv(100)
            relay.mend()
            there.settimeout(10)
            assert there.recv(100) == b"late"


def test_who_dials_while_it_is_cut_is_connected_when_it_is_mended(relay: Relay, target: socket.socket) -> None:
    relay.cut()
    with dialled(relay) as here:
        target.settimeout(0.2)
        with pytest.raises(TimeoutError):
            target.accept()
        relay.mend()
        target.settimeout(10)
        there, _ = target.accept()
        with there:
            there.sendall(b"welcome")
            assert here.recv(100) == b"welcome"


def test_where_nobody_listens_the_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    with Relay(lambda: nobody) as relay, dialled(relay) as here:
        assert here.recv(100) == b""


def test_its_end_is_the_end_of_every_connection_also_of_one_that_is_cut(target: socket.socket) -> None:
    with Relay(lambda: f"127.0.0.1:{target.getsockname()[1]}") as relay:
        here = dialled(relay)
        there, _ = target.accept()
        relay.cut()
    with here, there:
        assert here.recv(100) == there.recv(100) == b""
