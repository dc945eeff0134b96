"""The bytes of a connection: read in rounds, written at once, and told to whoever speaks over it and to nobody else."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from common.limits import MIB, READ_BYTES
from common.runtime import wires
from common.runtime.bell import Bell
from common.runtime.wires import SocketWire, StreamWire, Switchboard, Wire, wire_of

LARGE = 16 * MIB  # more than the buffers of a connection take


class Listener:
    """A Talk that keeps what it is told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.heard: list[bytes] = []
        self.sends_done = 0
        self.failure: Exception | None = None
        self._over = trio.Event()

    def received(self, data: bytes) -> None:
        self.heard.append(data)
        if not data:
            self.wire.listen(False)

    def sent(self) -> None:
        self.sends_done += 1

    def failed(self, error: Exception) -> None:
        self.failure = error
        self._over.set()

    async def live(self) -> None:
        await self._over.wait()

    def end(self) -> None:
        self._over.set()


class Pair:
    """A client and what talks to it."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream, talk: Listener) -> None:
        self.client = client
        self.server = server
        self.talk = talk

    @property
    def heard(self) -> bytes:
        return b"".join(self.talk.heard)


@asynccontextmanager
async def connected(count: int = 1) -> AsyncIterator[list[Pair]]:
    """So many connections over one switchboard."""
    board = Switchboard()
    pairs: list[Pair] = []
    async with AsyncExitStack() as opened, trio.open_nursery() as nursery:
        nursery.start_soon(board.run)
        for _ in range(count):
            client, server = await connect(opened)
            wire = wire_of(server, board)
            pairs.append(Pair(client, server, Listener(wire)))
            nursery.start_soon(wire.carry, pairs[-1].talk)
        await settle()
        yield pairs
        nursery.cancel_scope.cancel()


async def connect(opened: AsyncExitStack) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a connection, closed with the stack."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await opened.enter_async_context(await trio.testing.open_stream_to_socket_listener(listener))
        server = await opened.enter_async_context(await listener.accept())
    return client, server


async def settle() -> None:
    """What was sent over a real socket needs a moment of the kernel's."""
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked(0.005)


async def take(stream: trio.SocketStream, size: int) -> int:
    taken = 0
    while taken < size:
        taken += len(await stream.receive_some(MIB))
    return taken


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_a_plain_socket_is_read_without_a_task_of_its_own() -> None:
    async with connected(3) as pairs:
        for number, pair in enumerate(pairs):
            assert isinstance(pair.talk.wire, SocketWire)
            await pair.client.send_all(b"%d" % number)
        await settle()
        assert [pair.talk.heard for pair in pairs] == [[b"0"], [b"1"], [b"2"]]


async def test_what_the_kernel_takes_is_sent_at_once() -> None:
    async with connected() as (pair,):
        assert pair.talk.wire.send(b"OK\n")
        with trio.fail_after(5):
            assert await pair.client.receive_some() == b"OK\n"
        assert pair.talk.sends_done == 0, "whoever was told so need not be told again"


async def test_what_it_does_not_take_is_sent_when_the_client_reads_and_then_told() -> None:
    async with connected() as (pair,):
        assert not pair.talk.wire.send(b"x" * LARGE)
        await settle()
        assert pair.talk.sends_done == 0
        with trio.fail_after(10):
            assert await take(pair.client, LARGE) == LARGE
        await settle()
        assert pair.talk.sends_done == 1
        assert pair.talk.wire.send(b"y"), "nothing is before it any more"


async def test_who_sends_while_it_is_sent_to_is_heard() -> None:
    async with connected() as (pair,):
        assert not pair.talk.wire.send(b"x" * LARGE)
        await pair.client.send_all(b"PING\n")
        await settle()
        assert pair.heard == b"PING\n"


async def test_nothing_is_read_while_it_is_not_listened_to_and_nothing_is_lost() -> None:
    async with connected() as (pair,):
        pair.talk.wire.listen(False)
        await pair.client.send_all(b"PING\n")
        await settle()
        assert pair.heard == b""
        pair.talk.wire.listen(True)
        await settle()
        assert pair.heard == b"PING\n"


async def test_who_sends_without_end_has_no_more_than_his_share_of_a_round() -> None:
    async with connected(2) as (much, little):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(much.client.send_all, b"x" * LARGE)
            with trio.fail_after(10):
                while not much.talk.heard:
                    await trio.lowlevel.checkpoint()
                await little.client.send_all(b"y")
                while not little.heard:
                    await trio.lowlevel.checkpoint()
            before = len(much.heard)
        await settle()
        assert max(map(len, much.talk.heard)) <= READ_BYTES
        assert before < len(much.heard) == LARGE


async def test_the_end_of_what_a_client_sends_is_told_once_and_it_may_still_be_answered() -> None:
    async with connected() as (pair,):
        await pair.client.send_eof()
        await settle()
        assert pair.talk.heard == [b""]
        assert pair.talk.wire.send(b"OK\n")
        assert await pair.client.receive_some() == b"OK\n"


@pytest.mark.parametrize("listens", [True, False])
async def test_a_client_that_is_gone_is_noticed_at_once_whether_it_is_listened_to_or_not(listens: bool) -> None:
    async with connected(2) as (pair, other):
        pair.talk.wire.listen(listens)
        reset(pair.client)
        await settle()
        assert isinstance(pair.talk.failure, trio.BrokenResourceError)
        await other.client.send_all(b"PING\n")
        await settle()
        assert (other.talk.failure, other.heard) == (None, b"PING\n")


async def test_sending_to_a_client_that_is_gone_raises_nothing_where_it_is_sent() -> None:
    async with connected() as (pair,):
        reset(pair.client)
        pair.server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.fail_after(5):
            while pair.talk.failure is None:
                pair.talk.wire.send(b"OK\n")
                await trio.lowlevel.checkpoint()
        assert isinstance(pair.talk.failure, trio.BrokenResourceError)


async def test_when_all_is_said_the_socket_can_be_closed_and_its_number_used_again() -> None:
    async with connected() as (pair,):
        pair.talk.end()
        await settle()
        await pair.server.aclose()
        await pair.client.aclose()
        async with connected() as (again,):
            await again.client.send_all(b"PING\n")
            await settle()
            assert (again.heard, pair.heard) == (b"PING\n", b"")


async def test_a_connection_may_come_before_the_switchboard_runs() -> None:
    board = Switchboard()
    async with AsyncExitStack() as opened, trio.open_nursery() as nursery:
        client, server = await connect(opened)
        wire = wire_of(server, board)
        talk = Listener(wire)
        nursery.start_soon(wire.carry, talk)
        await client.send_all(b"PING\n")
        await settle()
        assert talk.heard == []
        nursery.start_soon(board.run)
        await settle()
        assert talk.heard == [b"PING\n"]
        nursery.cancel_scope.cancel()


async def test_any_other_stream_is_carried_by_tasks_to_the_same_end() -> None:
    client, server = trio.testing.lockstep_stream_pair()
    wire = wire_of(server, Switchboard())
    assert isinstance(wire, StreamWire)
    talk = Listener(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.carry, talk)
        await client.send_all(b"PING\n")
        await trio.testing.wait_all_tasks_blocked()
        assert talk.heard == [b"PING\n"]
        assert not wire.send(b"OK pong\n")
        assert await client.receive_some(MIB) == b"OK pong\n"
        await trio.testing.wait_all_tasks_blocked()
        assert talk.sends_done == 1
        wire.listen(False)
        await trio.testing.wait_all_tasks_blocked()
        talk.end()


async def test_a_bell_that_is_rung_before_anybody_waits_is_heard() -> None:
    bell = Bell()
    bell.ring()
    with trio.fail_after(1):
        await bell.wait()


async def test_whoever_says_much_is_not_read_to_its_end_before_others_have_had_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wires, "ROUND_S", -1.0)
    told: list[str] = []
    board = Switchboard()

    async def tick() -> None:
        while True:
            told.append("turn")
            await trio.lowlevel.checkpoint()

    async with AsyncExitStack() as open_, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        for name in ("one", "other"):
            client = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
            server = await listeners[0].accept()
            for stream in (client, server):
                await open_.enter_async_context(stream)
            await client.send_all(bytes(2 * READ_BYTES))
            wire = SocketWire(board, server)
            talk = Listener(wire)
            talk.received = lambda data, name=name: told.append(name)  # type: ignore[method-assign,misc]
            nursery.start_soon(wire.carry, talk)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(tick)
        nursery.start_soon(board.run)
        with trio.fail_after(5):
            while len(told) - told.count("turn") < 4:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await listeners[0].aclose()
    heard = [at for at, what in enumerate(told) if what != "turn"]
    # Tasks that are ready together run in either order, so two reads may follow each other, three may not.
    assert all(later - before > 2 for before, later in zip(heard, heard[2:], strict=False)), "turns between reads"
