"""Both ports of live processes against what is malformed: nothing falls, nothing grows, nobody else notices.

1,000 of each by default, 100,000 with JOBYARD_SOAK=1.
"""

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from common.messages import Refused, Welcome
from examples.local_cluster import LocalCluster
from tests.system import hostile
from tests.system.client import Line, ask, parse, until
from tests.system.conftest import StartCluster
from tests.system.stranger import Stranger

pytestmark = [pytest.mark.system, pytest.mark.timeout(6 * 3600 if os.environ.get("JOBYARD_SOAK") else 120)]

KEY: Final = "the-key-of-this-cluster"
EXAMPLES: Final = 100_000 if os.environ.get("JOBYARD_SOAK") else 1000
ANSWERED_S_MAX: Final = 1.0
PATIENCE_S: Final = 5.0
GROWN_BYTES_MAX: Final = 24 << 20  # what such jobs weigh that were taken in, and no more
RESET: Final = struct.pack("ii", 1, 0)

CONVERSATIONS_OF_INSIDERS: Final = EXAMPLES // 3  # of some messages each; each costs some commits, too

hostility = settings(
    max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(start_cluster_of_module: StartCluster) -> LocalCluster:
    """Whatever is submitted to it by accident does nothing."""
    env = {"JOBYARD_JOB_KINDS": "sleep", "JOBYARD_TIMEOUT_MAX": "50ms", "JOBYARD_RETENTION": "1s"}
    return start_cluster_of_module(1, slots=2, env=env | {"JOBYARD_CLUSTER_KEY": KEY})


@pytest.fixture(autouse=True)
def unharmed(cluster: LocalCluster) -> Iterator[None]:
    """The processes are the same afterwards, on the same link, with nothing in their logs that is our mistake, and
    not larger than what they were given."""
    until("the link is open", lambda: ask(cluster.address("node1"), "stats local=1").body.find(b"linked 1") >= 0)
    before = {name: (cluster.pid(name), resident_bytes(cluster.pid(name))) for name in ("balancer", "node1")}
    yield
    assert not cluster.ended()
    for name, (pid, bytes_before) in before.items():
        log = cluster.log_path(name).read_text()
        assert cluster.pid(name) == pid
        assert not re.search(r"Traceback|conversation\.failed", log)
        assert all(character.isprintable() or character == "\n" for character in log)
        assert resident_bytes(pid) - bytes_before < GROWN_BYTES_MAX, f"{name} grew"
    assert cluster.log_path("node1").read_text().count('"link.opened"') == 1, "the real link was displaced"
    assert ask(cluster.address("node1"), "run priority=100 slots=1 sleep 0").field("state") == "succeeded"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def say(connection: socket.socket, pieces: list[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)


def said_in_full(connection: socket.socket) -> bytes:
    """Everything until the other side closes, which it has to."""
    said = b""
    try:
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(1 << 16):
            said += data
    except TimeoutError:
        raise AssertionError(f"the connection was left open after {said!r}") from None
    except OSError:
        pass  # closed before we had said everything
    return said


def hang_up(connection: socket.socket, *, rudely: bool) -> None:
    if rudely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


@pytest.fixture(scope="module")
def bystander(cluster: LocalCluster) -> Iterator[Line]:
    with Line(cluster.address("node1"), timeout_s=PATIENCE_S) as line:
        yield line


def is_served(bystander: Line) -> None:
    asked_at = time.monotonic()
    assert bystander.ask("ping").line == "OK pong"
    assert time.monotonic() - asked_at < ANSWERED_S_MAX


# --- the clients' port -------------------------------------------------------------------------------------------


@hostility
@given(hostile.CONVERSATIONS, hostile.CUTS, st.booleans())
def test_no_conversation_breaks_a_node_and_each_is_answered_in_whole_replies(
    cluster: LocalCluster, bystander: Line, conversation: bytes, cuts: list[int], rudely: bool
) -> None:
    with connect(cluster.address("node1")) as connection:
        say(connection, hostile.cut(conversation, cuts))
        if hostile.waits(conversation):
            event("left alone")
            hang_up(connection, rudely=rudely)
        else:
            for reply in parse(said_in_full(connection)):
                event(reply.code or reply.line.split()[0])
                assert re.match(r"OK\b|PENDING\b|ERR [A-Z_]+ .", reply.line)
                assert reply.line.isprintable(), "nothing that acts on a terminal, nor begins a line of its own"
    is_served(bystander)


# --- the cluster port --------------------------------------------------------------------------------------------


@hostility
@given(hostile.FRAMES, hostile.CUTS, st.booleans())
def test_no_frames_of_a_stranger_break_the_balancer_and_each_connection_ends(
    cluster: LocalCluster, bystander: Line, said: bytes, cuts: list[int], rudely: bool
) -> None:
    with connect(cluster.address("balancer")) as connection:
        say(connection, hostile.cut(said, cuts))
        if rudely:
            hang_up(connection, rudely=True)
        else:
            said_in_full(connection)
    is_served(bystander)


@settings(hostility, max_examples=CONVERSATIONS_OF_INSIDERS)
@given(hostile.FRAMES, hostile.CUTS, st.booleans())
def test_no_messages_of_one_who_has_the_key_break_the_balancer(
    cluster: LocalCluster, bystander: Line, said: bytes, cuts: list[int], greets: bool
) -> None:
    """He may do what nodes do, and so much more than a stranger; but a program of his that errs takes nobody down."""
    with Stranger(cluster.address("balancer")) as insider:
        admitted = insider.shake_hands(KEY.encode())
        assert isinstance(admitted, Welcome | Refused)
        event(type(admitted).__name__)
        for piece in hostile.cut((hostile.holdings() if greets else b"") + said, cuts):
            insider.send_bytes(piece)
        insider.finish()
        while insider.receive() is not None:
            pass
    is_served(bystander)
