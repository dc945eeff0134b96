"""What the async client has beyond its twin: tasks share it, and may be cancelled at any moment.

That it says and understands the same is held by `test_client.py` and `test_client_waiting.py`, which run with both.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
import trio

from jobyard.aio import AsyncClient, client
from tests.runtime.fake_node import PATIENCE_S, with_body

DONE = with_body("OK k-1 state=succeeded exit=0 attempt=1 node=n1 seconds=0.5 stdout=3 stderr=0", "hi\n")
PART = with_body("OK k-1 state=running attempt=1 stdout=1 stderr=0", "a")

Answer = Callable[[bytes], Awaitable[bytes]]


class Node:
    """Answers every line as `answer` says, in any number of connections; knows how many there are and were."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.open_now = self.open_most = self.opened = 0
        self.hung_up = trio.Event()
        self.url = ""

    async def converse(self, stream: trio.SocketStream) -> None:
        self.opened += 1
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        async with stream:
            while line := bytes(await stream.receive_some(1000)):
                await stream.send_all(await self._answer(line))
        self.open_now -= 1
        self.hung_up.set()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Node]:
    node = Node(answer)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, node.converse, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            node.url = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
            yield node
            nursery.cancel_scope.cancel()


async def pong(line: bytes) -> bytes:
    assert line == b"PING\n"
    return b"OK pong\n"


async def test_a_task_that_waits_holds_up_no_other() -> None:
    asked, over = trio.Event(), trio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"PING\n":
            return b"OK pong\n"
        assert line == b"WAIT timeout=30 k-1\n"
        asked.set()
        await over.wait()
        return DONE

    async with serving(answer) as node, AsyncClient(node.url) as yard, trio.open_nursery() as nursery:
        nursery.start_soon(yard.wait, "k-1")
        await asked.wait()
        await yard.ping()
        await yard.ping()
        over.set()
    assert node.opened == 2, "the second ping found the connection of the first"


async def test_a_request_that_is_cancelled_takes_its_connection_with_it() -> None:
    asked = trio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"PING\n":
            return b"OK pong\n"
        asked.set()
        return b""  # it owes the reply

    async with serving(answer) as node, AsyncClient(node.url) as yard:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(yard.wait, "k-1")
            await asked.wait()
            nursery.cancel_scope.cancel()
        await node.hung_up.wait()
        await yard.ping()
        assert node.opened == 2


async def test_more_tasks_than_connections_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECTIONS_MAX", 3)
    async with serving(pong) as node, AsyncClient(node.url) as yard:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(yard.ping)
        assert (node.opened, node.open_most) == (3, 3)


async def test_whoever_leaves_a_stream_early_hangs_up() -> None:
    async def answer(line: bytes) -> bytes:
        assert line == b"LOGS follow=1 k-1\n"
        return PART

    async with serving(answer) as node, AsyncClient(node.url) as yard:
        async with aclosing(yard.follow_logs("k-1")) as parts:
            assert (await anext(parts)).stdout == b"a"
        await node.hung_up.wait()


async def test_a_client_that_is_closed_dials_again() -> None:
    async with serving(pong) as node, AsyncClient(node.url) as yard:
        await yard.ping()
        yard.close()
        await node.hung_up.wait()
        await yard.ping()
        assert node.opened == 2
