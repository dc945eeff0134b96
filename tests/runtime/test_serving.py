"""Conversations with clients: order, coalescing, back-pressure, half-close, authority, and what ends one."""

import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from common import lines
from common.errors import Code
from common.limits import ERRORS_IN_A_ROW_MAX, LINE_BYTES_MAX, MIB, REPLIES_UNREAD_BYTES_MAX, REQUESTS_OPEN_MAX
from common.runtime.bodies import Bodies
from common.runtime.conversation import SEND_BYTES
from common.runtime.serving import LINGER_S, Serving
from common.runtime.sockets import GONE_CHECK_S

Stapled = trio.StapledStream[Any, Any]
Queries = Sequence[tuple[int, lines.Query]]


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Connections inside this process. A `fault` is raised by accept in place of the next connection."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream | Exception](1000)

    async def accept(self) -> trio.abc.Stream:
        accepted = await self._receive.receive()
        if isinstance(accepted, Exception):
            raise accepted
        return accepted

    def fail(self, fault: Exception) -> None:
        self._send.send_nowait(fault)

    def connect(self) -> Stapled:
        """A connection of unlimited buffers, so that only Serving's own limits are seen."""
        client, server = trio.testing.memory_stream_pair()
        self._send.send_nowait(server)
        return client

    def connect_tightly(self) -> Stapled:
        """A connection whose every byte sent waits for its reader: a client that does not read stops us."""
        client, server = trio.testing.lockstep_stream_pair()
        self._send.send_nowait(server)
        return client

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()


class Yard:
    """A Serving with a driver that keeps what it is asked."""

    def __init__(self, **settings: Any) -> None:
        self.batches: list[Queries] = []
        self.gone: list[int] = []
        self.delivered: list[int] = []
        self.listener = MemoryListener()
        defaults: dict[str, Any] = {
            "version": "9.9",
            "token": None,
            "connections_max": 100,
            "body_bytes_max": MIB,
            "kinds": ("sh", "sleep"),
        }
        self.serving = Serving(
            ask=self.take, gone=self.gone.extend, delivered=self.delivered.extend, **{**defaults, **settings}
        )
        self.answer: Callable[[lines.Query], bytes] | None = None  # None: leave it open

    def take(self, queries: Queries) -> None:
        self.batches.append(queries)
        for query_id, query in queries if self.answer else ():
            assert self.answer is not None
            self.reply(query_id, self.answer(query))

    def reply(self, query_id: int, reply: bytes, more: bool = False) -> None:
        """One answer, alone in its step."""
        self.serving.reply(query_id, reply, more)
        self.serving.flush()

    @property
    def queries(self) -> list[tuple[int, lines.Query]]:
        return [query for batch in self.batches for query in batch]


@asynccontextmanager
async def open_yard(**settings: Any) -> AsyncIterator[Yard]:
    yard = Yard(**settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: yard.serving.run([yard.listener], task_status=task_status))
        yield yard
        nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def read_all(client: Stapled) -> bytes:
    data = b""
    while piece := await client.receive_some(MIB):
        data += piece
    return data


async def read_lines(client: Stapled, count: int) -> bytes:
    data = b""
    while data.count(b"\n") < count:
        piece = await client.receive_some(MIB)
        assert piece, f"closed after {data!r}"
        data += piece
    return data


async def say(client: Stapled, data: bytes) -> bytes:
    """Everything that is answered to `data`, said by a client that then closes its sending side."""
    await client.send_all(data)
    await client.send_eof()
    return await read_all(client)


# --- order -----------------------------------------------------------------------------------------------------


async def test_replies_come_in_the_order_of_the_requests_whatever_the_order_of_the_answers() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\nPING\nSTATUS b\nNOPE\nSTATUS c\n")
        await settle()
        (a, _), (b, _), (c, _) = yard.queries
        yard.reply(c, b"OK c\n")
        yard.reply(b, b"OK b\n")
        await settle()
        yard.reply(a, b"OK a\n")
        replies = await read_lines(client, 5)
        assert replies.startswith(b"OK a\nOK pong\nOK b\nERR UNKNOWN_COMMAND ")
        assert replies.endswith(b"\nOK c\n")


async def test_a_whole_read_is_handed_over_at_once_and_its_replies_are_sent_at_once() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"SUBMIT sleep 0\n" * 500)
        await settle()
        assert [len(batch) for batch in yard.batches] == [500]
        for query_id, _ in yard.queries:
            yard.reply(query_id, b"OK\n")
        await settle()
        assert await client.receive_some(MIB) == b"OK\n" * 500


async def test_query_ids_are_unique_over_all_connections() -> None:
    async with open_yard() as yard:
        for client in [yard.listener.connect() for _ in range(3)]:
            await client.send_all(b"STATUS a\nSTATUS b\n")
        await settle()
        assert len({query_id for query_id, _ in yard.queries}) == 6


async def test_a_reply_to_an_unknown_query_or_a_second_reply_is_ignored() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\n")
        await settle()
        ((query_id, _),) = yard.queries
        yard.reply(query_id + 1000, b"OK wrong\n")
        yard.reply(query_id, b"OK first\n")
        yard.reply(query_id, b"OK second\n")
        await client.send_eof()
        assert await read_all(client) == b"OK first\n"


# --- replies in parts ------------------------------------------------------------------------------------------


async def test_a_part_is_written_at_once_and_the_next_is_asked_for_when_it_is() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"LOGS follow=1 a\n")
        await settle()
        ((query_id, _),) = yard.queries
        for part in (b"OK a 1\n", b"OK a 2\n"):
            yard.reply(query_id, part, more=True)
            assert await read_lines(client, 1) == part
        await settle()
        assert yard.delivered == [query_id, query_id]
        yard.reply(query_id, b"OK a end=1\n")
        await settle()
        assert await client.receive_some(MIB) == b"OK a end=1\n"
        assert yard.delivered == [query_id, query_id], "nothing follows the last"
        assert yard.serving.statistics()["queries_open"] == 0


async def test_what_is_asked_behind_a_reply_in_parts_is_answered_behind_its_last() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\nLOGS follow=1 b\nPING\nSTATUS c\n")
        await settle()
        (a, _), (b, _), (c, _) = yard.queries
        yard.reply(b, b"OK b 1\n", more=True)
        yard.reply(c, b"OK c\n")
        await settle()
        assert yard.delivered == [], "its turn has not come"
        yard.reply(a, b"OK a\n")
        assert await read_lines(client, 2) == b"OK a\nOK b 1\n"
        await settle()
        assert yard.delivered == [b]
        yard.reply(b, b"OK b 2\n", more=True)
        assert await read_lines(client, 1) == b"OK b 2\n"
        yard.reply(b, b"OK b end=1\n")
        assert await read_lines(client, 3) == b"OK b end=1\nOK pong\nOK c\n"


async def test_a_last_part_that_comes_before_its_turn_goes_with_the_one_before_it() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\nLOGS follow=1 b\nPING\n")
        await settle()
        (a, _), (b, _) = yard.queries
        yard.reply(b, b"OK b 1\n", more=True)
        yard.reply(b, b"OK b end=1\n")
        yard.reply(a, b"OK a\n")
        assert await read_lines(client, 4) == b"OK a\nOK b 1\nOK b end=1\nOK pong\n"
        assert yard.delivered == []


async def test_a_client_that_sends_no_more_gets_every_part() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"LOGS follow=1 a\n")
        await client.send_eof()
        await settle()
        ((query_id, _),) = yard.queries
        for number in range(3):
            yard.reply(query_id, b"OK %d\n" % number, more=True)
            await settle()
        yard.reply(query_id, b"OK end=1\n")
        assert await read_all(client) == b"OK 0\nOK 1\nOK 2\nOK end=1\n"
        await settle()
        assert yard.gone == []


async def test_a_client_that_goes_away_between_two_parts_is_reported() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"EVENTS follow=1\nSTATUS a\n")
        await settle()
        (events, _), (a, _) = yard.queries
        yard.reply(events, b"OK 1\n", more=True)
        await settle()
        await client.aclose()
        yard.reply(events, b"OK 2\n", more=True)
        await settle()
        assert yard.delivered == [events]
        assert yard.gone == [events, a]
        yard.reply(events, b"OK 3\n", more=True)
        assert yard.serving.statistics()["queries_open"] == 0


async def test_a_client_that_reads_slowly_is_sent_one_part_at_a_time() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect_tightly()
        await client.send_all(b"EVENTS follow=1\n")
        await settle()
        ((query_id, _),) = yard.queries
        for number in range(3):
            yard.reply(query_id, b"x" * 10 + b"\n", more=True)
            await settle()
            assert len(yard.delivered) == number, "it has not read the part yet"
            assert await client.receive_some(MIB) == b"x" * 10 + b"\n"
            await settle()
            assert len(yard.delivered) == number + 1


async def test_parts_that_wait_for_their_turn_count_against_their_client() -> None:
    async with open_yard() as yard:
        yard.answer = None
        client = yard.listener.connect()
        await client.send_all(b"WAIT a\n" + b"LOGS follow=1 b\n" * 100)
        await settle()
        assert 1 < len(yard.queries) < 30, "the parts of a hundred are not all asked for at once"
        for query_id, query in yard.queries[1:]:
            assert isinstance(query, lines.Logs)
            yard.reply(query_id, b"x" * MIB, more=True)
        await settle()
        assert len(yard.queries) < 30


async def test_a_part_between_errors_shows_that_our_protocol_is_spoken() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        errors = b"NOPE\n" * (ERRORS_IN_A_ROW_MAX - 1)
        await client.send_all(errors + b"LOGS follow=1 a\n" + errors)
        await settle()
        ((query_id, _),) = yard.queries
        yard.reply(query_id, b"OK 1\n", more=True)
        await settle()
        yard.reply(query_id, b"OK end=1\n")
        await client.send_all(b"PING\n")
        assert (await read_lines(client, 2 * ERRORS_IN_A_ROW_MAX + 1)).endswith(b"OK pong\n")


async def test_a_client_that_has_left_without_a_word_is_noticed_although_nothing_is_sent_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever closes looks like one that only sends no more; nothing is written that would tell the difference."""
    yard = Yard()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: yard.serving.run(listeners, task_status=task_status))
        client = await trio.testing.open_stream_to_socket_listener(listeners[0])
        await client.send_all(b"LOGS follow=1 a\n")
        await client.send_eof()
        await settle()
        await trio.sleep(2 * GONE_CHECK_S)
        assert yard.gone == [], "it only sends no more"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        await trio.sleep(2 * GONE_CHECK_S)
        assert yard.gone == [yard.queries[0][0]]
        nursery.cancel_scope.cancel()


# --- answered at the edge --------------------------------------------------------------------------------------


async def test_what_needs_no_machine_is_answered_at_once() -> None:
    async with open_yard() as yard:
        page = lines.HELP_PAGE.encode()
        replies = await say(yard.listener.connect(), b"ping\nVersion\nHELP\nAUTH whatever\n")
        help_reply = b"OK bytes=%d\n%b\n" % (len(page), page)
        assert replies == b"OK pong\nOK jobyard 9.9 protocol=1\n" + help_reply + b"OK\n"
        assert yard.queries == []


async def test_after_quit_nothing_is_executed_and_the_connection_is_closed() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"PING\nQUIT\nSUBMIT sleep 0\n")
        assert await read_all(client) == b"OK pong\nOK bye\n"
        assert yard.queries == []


async def test_quit_waits_for_the_replies_before_it() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"WAIT a\nQUIT\n")
        await settle()
        yard.reply(yard.queries[0][0], b"OK a\n")
        assert await read_all(client) == b"OK a\nOK bye\n"


# --- the end of a conversation ---------------------------------------------------------------------------------


async def test_after_a_half_close_every_whole_line_is_answered_also_one_that_waits() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"PING\nWAIT a\nSTATUS b\nPIN")
        await client.send_eof()
        await settle()
        (a, _), (b, _) = yard.queries
        yard.reply(b, b"OK b\n")
        assert await client.receive_some(MIB) == b"OK pong\n"
        await settle()
        yard.reply(a, b"OK a\n")
        replies = await read_all(client)
        assert replies.startswith(b"OK a\nOK b\nERR BAD_REQUEST ")
        assert yard.gone == []


async def test_a_broken_framing_is_answered_in_turn_and_ends_the_conversation() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\nSUBMIT bytes=x sh cat\nPING\n")
        await settle()
        yard.reply(yard.queries[0][0], b"OK a\n")
        replies = (await read_all(client)).splitlines()
        assert replies[0] == b"OK a"
        assert replies[1].startswith(b"ERR BAD_REQUEST ")
        assert len(replies) == 2


async def test_an_endless_line_is_refused_and_the_connection_closed_while_the_client_still_sends() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"x" * (LINE_BYTES_MAX + 1))
        assert (await read_all(client)).startswith(b"ERR TOO_LARGE ")


async def test_a_client_that_goes_away_is_reported_once_with_what_it_still_waited_for() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"STATUS a\nWAIT b\nWAIT c\n")
        await settle()
        (a, _), (b, _), (c, _) = yard.queries
        await client.aclose()
        await settle()
        yard.reply(a, b"OK a\n")  # which cannot be sent
        await settle()
        assert yard.gone == [b, c]
        yard.reply(b, b"OK b\n")
        assert yard.serving.statistics()["queries_open"] == 0
        assert yard.serving.statistics()["connections"] == 0


async def test_a_reset_by_the_client_ends_its_conversation_at_once() -> None:
    async with open_yard() as yard:
        client, server = trio.testing.memory_stream_pair()
        yard.listener._send.send_nowait(server)
        await client.send_all(b"WAIT a\n")
        await settle()
        receiving = server.receive_stream
        assert isinstance(receiving, trio.testing.MemoryReceiveStream)
        receiving.close()
        await settle()
        assert yard.gone == [yard.queries[0][0]]


async def test_a_thousand_errors_in_a_row_end_the_conversation() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        yard.answer = lambda query: lines.err(Code.UNKNOWN_TICKET, "no job has that ticket")
        await client.send_all(b"NOPE\nSTATUS a\n" * ERRORS_IN_A_ROW_MAX)
        replies = await read_all(client)
        assert replies.count(b"\n") == replies.count(b"ERR ") == ERRORS_IN_A_ROW_MAX


async def test_errors_with_a_success_between_them_end_nothing() -> None:
    async with open_yard() as yard:
        data = (b"NOPE\n" * (ERRORS_IN_A_ROW_MAX - 1) + b"PING\n") * 2
        assert (await say(yard.listener.connect(), data)).count(b"\n") == 2 * ERRORS_IN_A_ROW_MAX


async def test_a_client_that_never_closes_is_closed_a_moment_after_the_last_reply(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"QUIT\n")
        assert await read_all(client) == b"OK bye\n"
        await trio.sleep(LINGER_S / 2)
        assert yard.serving.statistics()["connections"] == 1
        await trio.sleep(LINGER_S)
        assert yard.serving.statistics()["connections"] == 0


# --- authority -------------------------------------------------------------------------------------------------


async def test_nothing_but_auth_and_quit_is_served_before_auth() -> None:
    async with open_yard(token="s3cret") as yard:
        said = b"PING\nHELP\nSUBMIT bytes=5 sh cat\nPING\n\nnonsense\nQUIT\n"
        replies = (await say(yard.listener.connect(), said)).splitlines()
        assert [reply.split()[:2] for reply in replies] == [[b"ERR", b"UNAUTHORIZED"]] * 4 + [[b"OK", b"bye"]]
        assert yard.queries == []


async def test_the_token_opens_the_conversation_also_for_what_is_pipelined_behind_it() -> None:
    async with open_yard(token="s3cret") as yard:
        yard.answer = lambda query: lines.ok("k3f7qa-1")
        replies = await say(yard.listener.connect(), b"AUTH s3cret\nSUBMIT bytes=3 sh cat\nabc\nPING\n")
        assert replies == b"OK\nOK k3f7qa-1\nOK pong\n"
        ((_, query),) = yard.queries
        assert isinstance(query, lines.Submit)
        assert query.body == b"abc"


@pytest.mark.parametrize("token", [b"wrong", b"s3cre", b"s3cret1", "s3crét".encode()])
async def test_a_wrong_token_ends_the_conversation(token: bytes) -> None:
    async with open_yard(token="s3cret") as yard:
        client = yard.listener.connect()
        await client.send_all(b"AUTH " + token + b"\nSUBMIT sleep 0\n")
        replies = await read_all(client)
        assert replies.startswith(b"ERR UNAUTHORIZED ")
        assert replies.count(b"\n") == 1
        assert yard.queries == []


# --- limits ----------------------------------------------------------------------------------------------------


async def test_one_connection_too_many_is_told_so_and_closed_and_room_is_used_again() -> None:
    async with open_yard(connections_max=2) as yard:
        first, second, third = (yard.listener.connect() for _ in range(3))
        await settle()
        assert (await say(third, b"")).startswith(b"ERR TOO_MANY_CONNECTIONS this node serves 2 connections at once")
        assert await say(first, b"PING\n") == b"OK pong\n"
        await settle()  # until its connection is closed
        assert await say(yard.listener.connect(), b"PING\n") == b"OK pong\n"
        assert await say(second, b"PING\n") == b"OK pong\n"
        assert yard.serving.statistics()["connections_refused_total"] == 1


async def test_a_client_that_does_not_read_is_not_read_from_and_blocks_nobody() -> None:
    async with open_yard() as yard:
        output = b"x" * 100_000
        yard.answer = lambda query: lines.ok(body=output)
        deaf = yard.listener.connect_tightly()
        asked = 2000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deaf.send_all, b"RESULT a\n" * asked)
            await settle()
            owed_bytes = len(yard.queries) * len(output)
            assert owed_bytes < REPLIES_UNREAD_BYTES_MAX + SEND_BYTES + MIB
            assert await say(yard.listener.connect(), b"PING\n") == b"OK pong\n"
            total_bytes = 0
            while total_bytes < asked * len(output):  # it reads after all, and gets everything
                total_bytes += len(await deaf.receive_some(MIB))
        assert len(yard.queries) == asked


async def test_a_read_full_of_requests_with_large_replies_is_handed_over_in_parts() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"LIST\n" * 100)
        await settle()
        assert 1 <= len(yard.queries) < 20
        yard.answer = lambda query: lines.ok(count=0, body=b"")
        for query_id, query in list(yard.queries):
            yard.reply(query_id, yard.answer(query))
        await client.send_eof()
        assert (await read_all(client)).count(b"OK count=0 bytes=0\n\n") == 100


async def test_bodies_that_are_not_stored_yet_are_bounded() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        submission = b"SUBMIT bytes=%d sh cat\n%b\n" % (MIB, b"x" * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, submission * 20)
            await settle()
            assert len(yard.queries) == REPLIES_UNREAD_BYTES_MAX // MIB
            for done in range(20):
                yard.reply(yard.queries[done][0], b"OK\n")
                await settle()
        assert await read_lines(client, 20) == b"OK\n" * 20


async def test_a_run_holds_up_the_jobs_behind_it_until_it_is_stored_and_not_until_it_ends() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"RUN bytes=%d sh cat\n%b\n" % (MIB, b"x" * MIB) * 10)
        await settle()
        assert len(yard.queries) == REPLIES_UNREAD_BYTES_MAX // MIB
        assert yard.serving.bodies.total >= REPLIES_UNREAD_BYTES_MAX
        yard.serving.flush()  # of a step that may have begun before they came
        await settle()
        assert len(yard.queries) == REPLIES_UNREAD_BYTES_MAX // MIB
        for _ in range(4):
            yard.serving.flush()
            await settle()
        assert len(yard.queries) == 10, "and none was answered"
        yard.serving.flush()
        yard.serving.flush()
        assert yard.serving.bodies.total == 0
        for query_id, _ in yard.queries:
            yard.reply(query_id, b"OK\n")
        assert await read_lines(client, 10) == b"OK\n" * 10


async def test_open_requests_are_bounded() -> None:
    async with open_yard() as yard:
        client = yard.listener.connect()
        await client.send_all(b"WAIT a\n" * (REQUESTS_OPEN_MAX + 10))
        await settle()
        assert len(yard.queries) == REQUESTS_OPEN_MAX
        yard.reply(yard.queries[0][0], b"OK\n")
        await settle()
        assert len(yard.queries) == REQUESTS_OPEN_MAX + 1


# --- nothing ends the server -----------------------------------------------------------------------------------


async def test_a_failure_in_one_conversation_ends_that_conversation_alone_and_is_logged() -> None:
    def fail(query: lines.Query) -> bytes:
        raise RuntimeError("a mistake of ours")

    async with open_yard() as yard:
        yard.answer = fail
        other = yard.listener.connect()
        with structlog.testing.capture_logs() as logged:
            assert await say(yard.listener.connect(), b"STATUS a\n") == b""
        assert [entry["event"] for entry in logged] == ["conversation.failed"]
        assert await say(other, b"PING\n") == b"OK pong\n"
        await settle()
        statistics = yard.serving.statistics()
        assert (statistics["connections"], statistics["queries_open"]) == (0, 0)


async def test_no_file_descriptor_left_at_accept_does_not_end_the_server(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_yard() as yard:
        yard.listener.fail(OSError(errno.EMFILE, "Too many open files"))
        assert await say(yard.listener.connect(), b"PING\n") == b"OK pong\n"


async def test_real_sockets_the_last_reply_arrives_although_the_client_was_still_sending() -> None:
    yard = Yard()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: yard.serving.run(listeners, task_status=task_status))
        client = await trio.testing.open_stream_to_socket_listener(listeners[0])
        async with client:
            await client.send_all(b"x" * (8 * LINE_BYTES_MAX))
            data = b""
            while piece := await client.receive_some(MIB):
                data += piece
        assert data.startswith(b"ERR TOO_LARGE ")
        nursery.cancel_scope.cancel()


# --- bodies ------------------------------------------------------------------------------------------------------


async def test_bodies_of_those_who_stop_half_way_bound_the_memory_and_hold_up_nobody_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_yard() as yard:
        yard.serving.bodies = Bodies(1000, 5.0)
        yard.answer = lambda query: b"OK k3f7qa-1\n"
        stopped, client = yard.listener.connect(), yard.listener.connect()
        await stopped.send_all(b"SUBMIT bytes=2000 sh cat\n" + b"x" * 1500)
        await settle()
        started = trio.current_time()
        await trio.sleep(1.0)
        await client.send_all(b"SUBMIT sh true\nSUBMIT bytes=800 sh cat\n" + b"x" * 700)
        assert await read_lines(client, 1) == b"OK k3f7qa-1\n", "what has no body waits for nobody"
        await client.send_all(b"x" * 100 + b"\nPING\n")
        assert await read_lines(client, 2) == b"OK k3f7qa-1\nOK pong\n"
        assert 4.9 < trio.current_time() - started < 5.1
        await stopped.send_all(b"PING\n" * 100 + b"\nPING\n")
        refused, pong = (await read_lines(stopped, 2)).splitlines()
        assert refused.startswith(b"ERR FULL clients of this node are sending too much at once; ")
        assert pong == b"OK pong", "what is not kept is not taken for commands either"
        assert yard.serving.bodies.total == 0


async def test_who_waits_for_room_goes_on_as_soon_as_there_is_some(autojump_clock: trio.testing.MockClock) -> None:
    async with open_yard() as yard:
        yard.serving.bodies = Bodies(1000, 5.0)
        large, client = yard.listener.connect(), yard.listener.connect()
        await large.send_all(b"SUBMIT bytes=1100 sh cat\n" + b"x" * 1100 + b"\n")
        await settle()
        ((first, _),) = yard.queries
        assert yard.serving.bodies.total == 1100, "until it is on disk"
        await client.send_all(b"SUBMIT bytes=800 sh cat\n" + b"x" * 700)
        await settle()
        await trio.sleep(4.0)
        yard.reply(first, b"OK k3f7qa-1\n")
        await client.send_all(b"x" * 100 + b"\n")
        await settle()
        second, query = yard.queries[1]
        assert isinstance(query, lines.Submit)
        assert query.body == b"x" * 800
        yard.reply(second, b"OK k3f7qa-2\n")
        await settle()
        assert yard.serving.bodies.total == 0
        await client.send_all(b"SUBMIT bytes=800 sh cat\n" + b"x" * 700)
        await settle()
        assert yard.serving.bodies.total == 700
        await client.aclose()
        await settle()
        assert yard.serving.bodies.total == 0, "who goes away leaves nothing"
