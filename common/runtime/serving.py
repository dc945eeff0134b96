"""The shell around the client protocol: connections in, whole reads of queries to the driver, replies in order out.

    reader ── Parser ──► owed (ids in order) ──► ask(whole read) ──► driver … reply(id) ──► writer ── one send

Each connection has one reader and one writer, and no task or channel hop for a request. What the driver answers may
come in any order; what is sent goes in the order of the requests. A reply may come in parts (`more`): each is written
when its turn has come, and then asked to be followed by the next (`delivered`), so that one part at a time is held
for a client. The requests behind it wait for its last.

Nobody can make this grow: a client is not read from while it has REPLIES_UNREAD_BYTES_MAX of replies owed (those not
answered yet are guessed) or REQUESTS_OPEN_MAX requests open. Whoever owes a TLS handshake or the token has so long to
show it, and makes way when there are too many connections. What goes wrong in one conversation ends that conversation
alone. This module knows nothing of jobs: it passes queries on and bytes back.
"""

import hmac
import itertools
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Final, TypeAlias

import structlog
import trio

from common import lines
from common.errors import Code
from common.limits import (
    AUTH_WAIT_S,
    BODIES_BYTES_MAX,
    BODY_WAIT_S,
    ERRORS_IN_A_ROW_MAX,
    HANDSHAKE_S,
    KIB,
    MIB,
    READ_BYTES,
    REFUSALS_MAX,
    REPLIES_UNREAD_BYTES_MAX,
    REQUESTS_OPEN_MAX,
)
from common.runtime.bell import Bell
from common.runtime.bodies import Bodies
from common.runtime.sockets import GONE_CHECK_S, is_reset, part, peer_of, watch_for_reset
from common.runtime.tls import FIRST_BYTES, HandshakeFailed, NotTls, handshake
from common.runtime.unproven import Place, Refusals, Unproven

PROTOCOL: Final = 1
SEND_BYTES: Final = 1 * MIB  # replies are joined up to about this size
LINGER_S: Final = 1.0  # a client that is still sending when we close gets this long to read why

Ask: TypeAlias = Callable[[Sequence[tuple[int, lines.Query]]], None]
Gone: TypeAlias = Callable[[Sequence[int]], None]
Delivered: TypeAlias = Callable[[Sequence[int]], None]
Connection: TypeAlias = trio.abc.Stream

# What a reply may weigh while it is not known yet: so a read full of RESULTs is not all answered at once. A guess
# between what is usual and what is possible: too small costs memory, too large costs round trips to the driver.
_REPLY_BYTES: Final[dict[type, int]] = {
    lines.Result: 256 * KIB,
    lines.List: 512 * KIB,
    lines.Nodes: 32 * KIB,
    lines.Stats: 8 * KIB,
    lines.Watch: 64 * KIB,
    lines.Logs: 256 * KIB,
    lines.Events: 512 * KIB,
}

log = structlog.get_logger()


class Serving:
    """Every conversation of a node with its clients.

    `ask` takes the queries of one read and never blocks; each is answered by `reply` under its id, later and in any
    order: once, or with `more` in parts, of which the next is due when `delivered` has been told of the one before.
    `gone` says whose clients went away before their reply was complete.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        gone: Gone,
        delivered: Delivered,
        version: str,
        token: str | None,
        connections_max: int,
        body_bytes_max: int,
        kinds: Container[str],
    ) -> None:
        self.ask = ask
        self.gone = gone
        self.delivered = delivered
        self.token = token
        self.body_bytes_max = body_bytes_max
        self.kinds = kinds
        self.version_reply = lines.ok(None, "jobyard", version, protocol=PROTOCOL)
        self.unproven = Unproven(connections_max, AUTH_WAIT_S)
        self.refusals = Refusals(of_clients=True)
        self.bodies = Bodies(BODIES_BYTES_MAX, BODY_WAIT_S)
        self._connections_max = connections_max
        self._ids = itertools.count(1)
        self._asked: dict[int, Conversation] = {}
        self._connections = 0
        self._connections_total = 0
        self._connections_refused_total = 0
        self._turning_away = 0
        self._queries_total = 0

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Connection]],
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until cancelled. Where accept finds no file descriptor left, it is tried again shortly."""
        await trio.serve_listeners(self._serve, list(listeners), task_status=task_status)

    def reply(self, query_id: int, reply: bytes, more: bool = False) -> None:
        """The answer to a query, or with `more` a part of it. Nothing happens where its client has gone."""
        conversation = self._asked.get(query_id) if more else self._asked.pop(query_id, None)
        if conversation is not None:
            conversation.answered(query_id, reply, more)

    def statistics(self) -> dict[str, float]:
        return {
            "connections": self._connections,
            "connections_total": self._connections_total,
            "connections_refused_total": self._connections_refused_total,
            "queries_open": len(self._asked),
            "queries_total": self._queries_total,
        }

    # --- for conversations -------------------------------------------------------------------------------------

    def next_id(self) -> int:
        return next(self._ids)

    def expect(self, queries: Sequence[tuple[int, lines.Query]], conversation: "Conversation") -> None:
        """Hands queries to the driver."""
        for query_id, _ in queries:
            self._asked[query_id] = conversation
        self._queries_total += len(queries)
        self.ask(queries)

    def forget(self, query_ids: Sequence[int]) -> None:
        """Their client has gone."""
        open_ids = [query_id for query_id in query_ids if self._asked.pop(query_id, None) is not None]
        if open_ids:
            self.gone(open_ids)

    # --- connections -------------------------------------------------------------------------------------------

    async def _serve(self, stream: Connection) -> None:
        """One connection from accept to close. Whatever goes wrong in it stays in it."""
        peer = peer_of(stream)  # which a closed socket would not tell
        try:
            if self._connections < self._connections_max or self.unproven.make_way():
                await self._converse(stream, peer)
            else:
                await self._refuse(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away: its business
        except* HandshakeFailed as failures:
            self.refusals.tell(peer, str(failures.exceptions[0]))
        except* Exception:
            log.exception("conversation.failed")
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: Connection, peer: str) -> None:
        watch_for_reset(stream)
        self._connections += 1
        self._connections_total += 1
        greeted = False
        try:
            with self.unproven.place() as place:
                await _shake_hands(stream)
                greeted = True
                await Conversation(self, stream, place).run()
        finally:
            self._connections -= 1
        if place.ended:
            self.refusals.tell(peer, place.ended)
            if greeted:
                await self._turn_away(stream, lines.err(Code.UNAUTHORIZED, place.ended))

    async def _refuse(self, stream: Connection) -> None:
        self._connections_refused_total += 1
        message = f"this node serves {self._connections_max} connections at once; try again later or at another node"
        await self._turn_away(stream, lines.err(Code.TOO_MANY_CONNECTIONS, message), greeted=False)

    async def _turn_away(self, stream: Connection, reply: bytes, *, greeted: bool = True) -> None:
        """The last word to a client; where too many are told theirs already, the connection just ends."""
        if self._turning_away >= REFUSALS_MAX:
            return
        self._turning_away += 1
        try:
            with trio.move_on_after(LINGER_S):
                if not greeted:
                    await _shake_hands(stream)
                await stream.send_all(reply)
                await part(stream)
        finally:
            self._turning_away -= 1


class Conversation:
    """One connection: its requests in order, and the replies that are owed for them."""

    def __init__(self, serving: Serving, stream: Connection, place: Place) -> None:
        self._serving = serving
        self._stream = stream
        self._place = place
        self._authorized = False
        if serving.token is None:
            self._welcome()
        self._parser = lines.Parser(
            body_bytes_max=serving.body_bytes_max, kinds=serving.kinds, keep_bodies=self._authorized
        )
        self._queries: list[tuple[int, lines.Query]] = []  # taken, to be handed over with the rest of the read
        self._owed: deque[int] = deque()  # the ids of all requests whose reply is not being sent yet, in order
        self._ready: dict[int, bytes] = {}  # of these, what is answered
        self._in_parts: set[int] = set()  # of these, those that are not answered completely
        self._guessed_bytes: dict[int, int] = {}  # of these, what the others weigh meanwhile
        self._owed_bytes = 0  # answered and not sent, and guessed
        self._submitted: dict[int, int] = {}  # of these, the bodies that are on their way to the disk
        self._errors_in_a_row = 0
        self._ends = False  # no request will be taken any more: what is owed is answered, then the end
        self._to_write = Bell()
        self._room = Bell()

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                await self._write()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(LINGER_S):
                await part(self._stream)
        finally:
            self._serving.forget(self._owed)
            self._serving.bodies.hold(self, 0)

    def answered(self, request_id: int, reply: bytes, more: bool = False) -> None:
        self._ready[request_id] = self._ready.get(request_id, b"") + reply
        (self._in_parts.add if more else self._in_parts.discard)(request_id)
        self._owed_bytes += len(reply) - self._guessed_bytes.pop(request_id, 0)
        if self._submitted.pop(request_id, None) is not None:
            self._count_bodies()
        self._to_write.ring()
        self._room.ring()

    # --- reading -----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        await self._read()
        while not is_reset(self._stream):  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(GONE_CHECK_S)
        raise trio.BrokenResourceError("the client is gone")

    async def _read(self) -> None:
        data = bytes(await self._stream.receive_some(READ_BYTES))
        if data.startswith(FIRST_BYTES):
            await self._take_all([lines.Bad(Code.BAD_REQUEST, _NO_TLS, close=True)])
        while not self._ends:
            await self._take_all(self._parser.feed(data) if data else self._parser.eof())
            self._ends = self._ends or not data
            if not self._count_bodies() and self._parser.body_bytes and not await self._serving.bodies.room():
                self._parser.refuse_body(Code.FULL, _NO_ROOM)
                self._count_bodies()
            if not self._ends:
                data = bytes(await self._stream.receive_some(READ_BYTES))
        self._to_write.ring()

    async def _take_all(self, requests: Sequence[lines.Request]) -> None:
        """Takes the requests of one read, handing them over together unless the replies would be too much."""
        for request in requests:
            if not self._has_room():
                self._hand_over()
                await self._wait_for_room()
            self._take(request)
            if self._ends:
                break
        self._hand_over()
        await self._wait_for_room()

    def _count_bodies(self) -> bool:
        """Whether there is room for more than what all hold now."""
        bodies = self._serving.bodies
        bodies.hold(self, self._parser.body_bytes + sum(self._submitted.values()))
        return bodies.total <= bodies.most

    def _hand_over(self) -> None:
        if self._queries:
            queries, self._queries = self._queries, []
            self._serving.expect(queries, self)

    def _has_room(self) -> bool:
        return self._owed_bytes < REPLIES_UNREAD_BYTES_MAX and len(self._owed) < REQUESTS_OPEN_MAX

    async def _wait_for_room(self) -> None:
        while not self._has_room() and not self._ends:
            await self._room.wait()

    def _take(self, request: lines.Request) -> None:
        request_id = self._serving.next_id()
        self._owed.append(request_id)
        reply = self._reply_at_once(request)
        if reply is not None:
            self.answered(request_id, reply)
            return
        assert not isinstance(request, _Edge), f"{request} is answered here"
        self._queries.append((request_id, request))
        if isinstance(request, lines.Submit) and request.body and not request.wait:
            self._submitted[request_id] = len(request.body)
        weight_bytes = _weight_bytes(request)
        if weight_bytes:
            self._guessed_bytes[request_id] = weight_bytes
            self._owed_bytes += weight_bytes

    def _reply_at_once(self, request: lines.Request) -> bytes | None:
        """The reply to what is no query, or to anything from someone who may not ask."""
        if self._authorized and not isinstance(request, _Edge):
            return None
        match request:
            case lines.Quit():
                self._ends = True
                return lines.ok(None, "bye")
            case lines.Auth(token=token):
                return self._authorize(token)
            case lines.Bad(code=code, message=message, close=True):
                self._ends = True
                return lines.err(code, message)
            case _ if not self._authorized:
                return lines.err(Code.UNAUTHORIZED, "send AUTH and the token of this node first")
            case lines.Bad(code=code, message=message):
                return lines.err(code, message)
            case lines.Ping():
                return lines.ok(None, "pong")
            case lines.Version():
                return self._serving.version_reply
            case _:
                return lines.ok(body=lines.HELP_PAGE.encode())

    def _authorize(self, token: str) -> bytes:
        expected = self._serving.token
        if expected is None or hmac.compare_digest(token.encode(), expected.encode()):
            self._welcome()
            return lines.ok()
        self._ends = True
        self._serving.refusals.tell(peer_of(self._stream), "it showed another token than this node's")
        return lines.err(Code.UNAUTHORIZED, "this is not the token of this node")

    def _welcome(self) -> None:
        self._authorized = True
        self._serving.unproven.proven(self._place)

    # --- writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            replies, unfinished = self._replies_in_turn()
            if replies:
                data = b"".join(replies)
                await self._stream.send_all(data)
                self._owed_bytes -= len(data)
                self._room.ring()
            if unfinished is not None:
                self._serving.delivered([unfinished])
            if self._errors_in_a_row >= ERRORS_IN_A_ROW_MAX:
                return
            if not replies:
                if self._ends and not self._owed:
                    return
                await self._to_write.wait()

    def _replies_in_turn(self) -> tuple[list[bytes], int | None]:
        """Replies up to the first that is not known yet, but no more than one send should carry; and the request
        to which the last of them is only a part of the answer."""
        replies: list[bytes] = []
        size_bytes = 0
        while self._owed and size_bytes < SEND_BYTES and self._errors_in_a_row < ERRORS_IN_A_ROW_MAX:
            request_id = self._owed[0]
            reply = self._ready.pop(request_id, None)
            if reply is None:
                break
            replies.append(reply)
            size_bytes += len(reply)
            self._errors_in_a_row = self._errors_in_a_row + 1 if reply.startswith(b"ERR ") else 0
            if request_id in self._in_parts:
                return replies, request_id
            self._owed.popleft()
        return replies, None


_NO_ROOM: Final = "clients of this node are sending too much at once; try again, or at another node"
_NO_TLS: Final = "this node does not speak TLS; clients name it as tcp://HOST:PORT"
_Edge: Final = (lines.Auth, lines.Ping, lines.Version, lines.Help, lines.Quit, lines.Bad)


def _weight_bytes(query: lines.Query) -> int:
    """What an open query may hold in memory: its reply, or the body of a job until it is stored. RUN counts for
    nothing: it stays open long after that, and must not hold up the jobs behind it."""
    if isinstance(query, lines.Submit):
        return 0 if query.wait else len(query.body)
    return _REPLY_BYTES.get(type(query), 0)


async def _shake_hands(stream: Connection) -> None:
    """TLS, where this port speaks it; who does not is told so in the words of the protocol."""
    try:
        with trio.fail_after(HANDSHAKE_S):
            await handshake(stream)
    except trio.TooSlowError:
        raise HandshakeFailed(f"no TLS handshake within {HANDSHAKE_S:g} s") from None
    except NotTls as error:
        await error.answer(lines.err(Code.BAD_REQUEST, "this node speaks TLS; clients name it as tls://HOST:PORT"))
        raise
