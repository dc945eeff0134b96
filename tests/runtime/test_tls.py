"""TLS on both ports: who gets through, what others hear, and that nobody waits for what never comes."""

import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.lowlevel
import trio.testing

from balancer.door import Door
from common import certificates, lines
from common.certificates import TlsSettings
from common.events import Knocked, LinkOpened, LinkRefused
from common.limits import HANDSHAKE_S, LINE_BYTES_MAX, LINKS_UNPROVEN_MAX
from common.messages import Welcome
from common.runtime.ports import Port, listen
from common.runtime.serving import LINGER_S, Serving
from common.runtime.sockets import Settling, is_reset, socket_of, watch_for_reset
from common.runtime.tls import dial
from node.dial import Dial
from node.worker import Identity
from tests.certified import Certified, certified

SOON_S = 5.0  # real time; no test waits for it unless it fails
WHO = Identity("id-1", "boot-1", "aaaaaa", "n1")


def settings(files: Certified, *, ca: bool = True, own: bool = True) -> TlsSettings:
    given = {"tls_cert": files.cert, "tls_key": files.key} if own else {}
    return TlsSettings(**given, **({"tls_ca": files.ca} if ca else {}))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("ours"))


@pytest.fixture
def trusting(ours: Certified) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ours.ca))


# --- the clients' port -----------------------------------------------------------------------------------------


def make_serving(token: str | None = None, connections_max: int = 10) -> Serving:
    """One that knows PING and its like; queries wait for ever."""
    return Serving(
        ask=lambda queries: None, gone=lambda ids: None, delivered=lambda ids: None, version="0", token=token,
        connections_max=connections_max, body_bytes_max=1000, kinds={"sh"},
    )  # fmt: skip


@asynccontextmanager
async def served(files: Certified | None, token: str | None = None) -> AsyncIterator[int]:
    """The port of a node, in plain where there are no files."""
    context = None if files is None else certificates.port_context(settings(files, ca=False), demanding=False)
    ports = await listen(("127.0.0.1", 0), context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_serving(token).run, ports)
        with trio.fail_after(SOON_S):
            yield ports[0].listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some(65536):
        received += data
    return received


class ByHand:
    """A client whose every TLS record is its own affair: it can say its end and go on reading."""

    def __init__(self, plain: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._plain, self._in, self._out = plain, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def act(self, act: Callable[[], Any]) -> Any:
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._plain.receive_some(65536)
                self._in.write(data) if data else self._in.write_eof()
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        if self._out.pending:
            await self._plain.send_all(self._out.read())

    async def shake_hands(self) -> None:
        await self.act(self._object.do_handshake)

    async def write(self, data: bytes) -> None:
        await self.act(partial(self._object.write, data))

    async def say_the_end(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._object.unwrap()
        await self._flush()

    async def read_all(self) -> bytes:
        received = b""
        try:
            while data := await self.act(partial(self._object.read, 65536)):
                received += data
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # both have said their end, or the other side has closed
        await self._plain.aclose()
        return received


async def test_a_conversation_by_tls_is_the_same_conversation(ours: Certified, trusting: ssl.SSLContext) -> None:
    async with served(ours) as port:
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), trusting, server_hostname="127.0.0.1")
        await stream.send_all(b"ping\nquit\n")
        assert await read_all(stream) == b"OK pong\nOK bye\n"
        await stream.aclose()


async def test_who_says_its_end_is_answered_first(ours: Certified, trusting: ssl.SSLContext) -> None:
    async with served(ours) as port:
        client = ByHand(await trio.open_tcp_stream("127.0.0.1", port), trusting)
        await client.shake_hands()
        await client.write(b"ping\nversion\npi")
        await client.say_the_end()
        assert (await client.read_all()).startswith(b"OK pong\nOK jobyard 0 protocol=1\nERR BAD_REQUEST ")


async def test_the_last_reply_is_read_although_the_client_goes_on_sending(
    ours: Certified, trusting: ssl.SSLContext
) -> None:
    """Closing with input unread would reset the connection, and the reply be lost on its way."""
    async with served(ours) as port:
        client = ByHand(await trio.open_tcp_stream("127.0.0.1", port), trusting)
        await client.shake_hands()
        for _ in range(LINE_BYTES_MAX // 1000 + 200):
            await client.write(b"x" * 1000)
        assert (await client.read_all()).startswith(b"ERR TOO_LARGE ")


async def test_who_speaks_plainly_is_told_so_in_plain_words(ours: Certified) -> None:
    async with served(ours) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"ping\n" * 1000)
        assert await read_all(stream) == b"ERR BAD_REQUEST this node speaks TLS; clients name it as tls://HOST:PORT\n"
        await stream.aclose()


async def test_who_speaks_tls_to_a_plain_port_is_answered_and_not_left_waiting(trusting: ssl.SSLContext) -> None:
    async with served(None) as port:
        with pytest.raises(OSError, match="the other side does not speak TLS"):
            await dial("127.0.0.1", port, trusting)


@pytest.mark.parametrize(
    ("names", "by", "expired", "why", "logged"),
    [
        (("localhost",), "ours", False, "IP address mismatch", "refuses our certificate"),
        ((), "another", False, "unable to get local issuer certificate", "does not know the CA of our certificate"),
        ((), "ours", True, "certificate has expired", "refuses our certificate: it has expired"),
    ],
    ids=["another host", "another CA", "expired"],
)
async def test_a_certificate_that_is_not_right_is_refused_by_who_dials_with_the_reason(
    trusting: ssl.SSLContext, tmp_path: Path, names: tuple[str, ...], by: str, expired: bool, why: str, logged: str
) -> None:
    bad = certified(tmp_path, *names, by=by, expired=expired)
    with structlog.testing.capture_logs() as logs:
        async with served(bad) as port:
            with pytest.raises(OSError, match=f"certificate of the other side is refused: .*{why}"):
                await dial("127.0.0.1", port, trusting)
            while not logs:
                await trio.lowlevel.checkpoint()
    (refused,) = logs
    assert (refused["event"], refused["peer"]) == ("client.refused", "127.0.0.1")
    assert refused["reason"].startswith(f"the TLS handshake failed: the other side {logged}")


async def test_a_socket_is_found_beneath_tls(ours: Certified, trusting: ssl.SSLContext) -> None:
    context = ours.served()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with Port(listener, context) as port:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        stream = await port.accept()
        plain = socket_of(stream)
        assert isinstance(stream, trio.SSLStream)
        assert plain is not None
        watch_for_reset(stream)
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert not is_reset(stream)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()  # with a reset
        with trio.fail_after(SOON_S):
            while not is_reset(stream):
                await trio.lowlevel.checkpoint()
        await trio.aclose_forcefully(stream)


# --- strangers who hold places ---------------------------------------------------------------------------------


class Arrivals(trio.abc.Listener[trio.abc.Stream]):
    """Connections inside this process, with their TLS still to come."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](1000)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    def connect(self) -> trio.StapledStream[Any, Any]:
        client, server = trio.testing.memory_stream_pair()
        self._send.send_nowait(
            server if self._context is None else trio.SSLStream(Settling(server), self._context, server_side=True)
        )
        return client

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_handshake_that_never_comes_is_given_up(
    ours: Certified, autojump_clock: trio.testing.MockClock
) -> None:
    arrivals, serving = Arrivals(ours.served()), make_serving()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving.run, [arrivals])
            client = arrivals.connect()
            started = trio.current_time()
            assert await read_all(client) == b""
            assert trio.current_time() - started == pytest.approx(HANDSHAKE_S)
            nursery.cancel_scope.cancel()
    assert logs[0]["reason"] == f"no TLS handshake within {HANDSHAKE_S:g} s"


async def test_places_of_silent_strangers_go_to_those_who_speak(
    ours: Certified, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    """On a TLS port as many as it takes may connect and be silent: a newcomer is served at once."""
    arrivals, serving = Arrivals(ours.served()), make_serving(connections_max=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving.run, [arrivals])
        silent = [arrivals.connect() for _ in range(50)]
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        client = trio.SSLStream(arrivals.connect(), trusting, server_hostname="localhost")
        await client.send_all(b"ping\n")
        assert await client.receive_some(100) == b"OK pong\n"
        assert trio.current_time() - started < 0.1
        assert serving.statistics()["connections"] <= 3 + 1
        nursery.cancel_scope.cancel()
    assert silent


async def test_who_has_the_token_is_served_however_many_have_not(autojump_clock: trio.testing.MockClock) -> None:
    arrivals, serving = Arrivals(None), make_serving(token="open-sesame", connections_max=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving.run, [arrivals])
        proven = [arrivals.connect() for _ in range(2)]
        for client in proven:
            await client.send_all(b"auth open-sesame\n")
            assert await client.receive_some(100) == b"OK\n"
        strangers = [arrivals.connect() for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        newcomer = arrivals.connect()
        await newcomer.send_all(b"auth open-sesame\nping\n")
        assert await newcomer.receive_some(100) == b"OK\nOK pong\n"
        for client in proven:
            await client.send_all(b"ping\n")
            assert await client.receive_some(100) == b"OK pong\n", "whoever has shown the token keeps his place"
        one_more = arrivals.connect()
        assert (await read_all(one_more)).startswith(b"ERR TOO_MANY_CONNECTIONS "), "all places are of those who have"
        nursery.cancel_scope.cancel()
    assert strangers


async def test_who_does_not_show_the_token_is_sent_away_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    arrivals, serving = Arrivals(None), make_serving(token="open-sesame")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving.run, [arrivals])
        client = arrivals.connect()
        await client.send_all(b"ping\n")
        started = trio.current_time()
        said = await read_all(client)
        assert said.endswith(b"\nERR UNAUTHORIZED showed nothing within 60 s\n")
        assert trio.current_time() - started == pytest.approx(60, abs=LINGER_S)
        nursery.cancel_scope.cancel()


async def test_a_wrong_token_is_logged_with_its_address_and_at_a_bounded_rate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    arrivals, serving = Arrivals(None), make_serving(token="open-sesame")
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving.run, [arrivals])
            for _ in range(100):
                client = arrivals.connect()
                await client.send_all(b"auth open-barley\n")
                await client.send_eof()
                assert (await read_all(client)).startswith(b"ERR UNAUTHORIZED ")
            nursery.cancel_scope.cancel()
    (refused,) = logs
    assert (refused["event"], refused["unlogged_before"]) == ("client.refused", 0)
    assert "barley" not in repr(refused)


# --- the cluster port ------------------------------------------------------------------------------------------


class Balancer:
    """A door that welcomes whoever it hears of."""

    def __init__(self, tls: TlsSettings) -> None:
        self.names: list[str] = []
        self._tls = tls
        self._door = Door(key=None, ledger_id="ledger-1", tell=self._post, wall=lambda: 1.0)

    def _post(self, event: object) -> None:
        if isinstance(event, Knocked):
            self.names.append(event.hello.name)
            self._door.send(event.link, Welcome(1000.0, eager=True))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        ports = await listen(("127.0.0.1", 0), certificates.port_context(self._tls, demanding=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._door.run, ports)
            with trio.fail_after(SOON_S):
                yield ports[0].listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def meet(
    balancer: TlsSettings, node: TlsSettings, refused: str = ""
) -> tuple[object, Sequence[Mapping[str, Any]]]:
    """What a node hears first of this balancer, which says in its log that the node is `refused`."""
    events: list[object] = []
    with structlog.testing.capture_logs() as logs:
        async with Balancer(balancer).running() as port, trio.open_nursery() as nursery:
            connect = partial(dial, "127.0.0.1", port, certificates.dialling_context(node))
            dialling = Dial(
                connect, WHO, slots=1, kinds=["sh"], key=None, node_timeout_s=15.0, tell=events.append,
                wall=lambda: 1.0, chance=random.Random(1),
            )  # fmt: skip
            nursery.start_soon(dialling.run)
            while not events and not any(line["event"] == "balancer.unreachable" for line in logs):  # noqa: ASYNC110
                await trio.sleep(0.001)
            while refused and not any(refused in str(line.get("reason")) for line in logs):  # noqa: ASYNC110
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    return (events or [next(line["problem"] for line in logs if line["event"] == "balancer.unreachable")])[0], logs


async def test_both_ends_of_a_link_show_their_certificates(ours: Certified, tmp_path: Path) -> None:
    node = certified(tmp_path, "node.example")
    heard, _ = await meet(settings(ours), settings(node))
    assert heard == LinkOpened(1, "ledger-1", True)


async def test_a_balancer_without_a_ca_demands_no_certificate(ours: Certified) -> None:
    heard, _ = await meet(settings(ours, ca=False), settings(ours, own=False))
    assert isinstance(heard, LinkOpened)


async def test_a_node_without_a_certificate_is_refused_and_hears_why(ours: Certified) -> None:
    heard, _ = await meet(settings(ours), settings(ours, own=False), refused="showed no certificate, and must")
    assert "wants to see a certificate (JOBYARD_TLS_CERT)" in str(heard)


async def test_a_node_with_a_certificate_of_another_ca_is_refused(ours: Certified, tmp_path: Path) -> None:
    stranger = attrs.evolve(settings(certified(tmp_path, by="another")), tls_ca=ours.ca)
    heard, logs = await meet(settings(ours), stranger, refused="unable to get local issuer certificate")
    assert "does not know the CA of our certificate" in str(heard)
    assert any(line["event"] == "link.refused" and line["peer"] == "127.0.0.1" for line in logs)


async def test_a_node_does_not_talk_to_a_balancer_of_another_ca(ours: Certified, tmp_path: Path) -> None:
    another = settings(certified(tmp_path, by="another"))
    heard, _ = await meet(another, settings(ours), refused="does not know the CA of our certificate")
    assert "certificate of the other side is refused" in str(heard)


async def test_a_node_that_dials_plainly_is_told_that_the_balancer_speaks_tls(ours: Certified) -> None:
    heard, _ = await meet(settings(ours), TlsSettings(), refused="it does not speak TLS, and this port does")
    assert heard == LinkRefused("this balancer speaks TLS; JOBYARD_TLS_CA has to say whom to trust")


async def test_a_node_that_dials_by_tls_learns_that_the_balancer_does_not(ours: Certified) -> None:
    heard, _ = await meet(TlsSettings(), settings(ours), refused="it speaks TLS, and this port does not")
    assert str(heard).endswith("the other side closed the connection: does it serve TLS?")


async def test_a_node_gets_in_past_strangers_who_hold_all_places(ours: Certified) -> None:
    async with Balancer(settings(ours)).running() as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3 * LINKS_UNPROVEN_MAX)]
        started = trio.current_time()
        events: list[object] = []
        async with trio.open_nursery() as nursery:
            connect = partial(dial, "127.0.0.1", port, certificates.dialling_context(settings(ours)))
            dialling = Dial(
                connect, WHO, slots=1, kinds=["sh"], key=None, node_timeout_s=15.0, tell=events.append,
                wall=lambda: 1.0, chance=random.Random(1),
            )  # fmt: skip
            nursery.start_soon(dialling.run)
            while not events:  # noqa: ASYNC110
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert isinstance(events[0], LinkOpened)
        assert trio.current_time() - started < 1.0
        for stream in silent:
            await stream.aclose()


def test_no_request_begins_as_tls_does() -> None:
    """Otherwise a plain port could not tell them apart."""
    assert all(not verb.encode().startswith(b"\x16") for verb in lines.HELP_PAGE.split())
