"""The shell around the client protocol: connections in, whole reads of queries to the driver, replies in order out.

    wire ──► Conversation ──► ask(whole read) ──► driver … reply(id) … flush ──► Conversation ──► one send

A plain connection has one task, which waits for its end, and no task switch or channel hop for what is said over it
(`common/runtime/wires.py`). What the driver answers may come in any order; what is sent goes in the order of the
requests. Answers are gathered while a step is performed, and with `flush` each client is sent all that it was answered
in one piece. A reply may come in parts (`more`): each is written when its turn has come, and then asked to be followed
by the next (`delivered`), so that one part at a time is held for a client. The requests behind it wait for its last.

Nobody can make this grow: what a conversation may hold is bounded (`common/runtime/conversation.py`). Whoever owes a
TLS handshake or the token has so long to show it, and makes way when there are too many connections. What goes wrong
in one conversation ends that conversation alone. This module knows nothing of jobs: it passes queries on and bytes
back.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import structlog
import trio

from common import lines
from common.errors import Code
from common.limits import AUTH_WAIT_S, BODIES_BYTES_MAX, BODY_WAIT_S, HANDSHAKE_S, REFUSALS_MAX
from common.runtime.bodies import Bodies
from common.runtime.conversation import Conversation, Owed
from common.runtime.sockets import part, peer_of, watch_for_reset
from common.runtime.tls import HandshakeFailed, NotTls, handshake
from common.runtime.unproven import Place, Refusals, Unproven
from common.runtime.wires import Switchboard, wire_of

PROTOCOL: Final = 1
LINGER_S: Final = 1.0  # a client that is still sending when we close gets this long to read why

Ask: TypeAlias = Callable[[Sequence[tuple[int, lines.Query]]], None]
Gone: TypeAlias = Callable[[Sequence[int]], None]
Delivered: TypeAlias = Callable[[Sequence[int]], None]
Connection: TypeAlias = trio.abc.Stream

log = structlog.get_logger()


class Serving:
    """Every conversation of a node with its clients.

    `ask` takes the queries of one read and never blocks; each is answered by `reply` under its id, later and in any
    order: once, or with `more` in parts, of which the next is due when `delivered` has been told of the one before.
    Clients hear of it with the next `flush`.
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
        kinds: Iterable[str],
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
        self.ids: Iterator[int] = itertools.count(1)
        self._switchboard = Switchboard()
        self._asked: dict[int, Owed] = {}
        self._answered: dict[Conversation, None] = {}  # since the last flush
        self._storing: list[Owed] = []  # asked since the last flush, and perhaps while its step was being committed
        self._stored_next: list[Owed] = []  # asked before that, so with the next step they are on disk
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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._switchboard.run)
            await trio.serve_listeners(self._serve, list(listeners), task_status=task_status)

    def reply(self, query_id: int, reply: bytes, more: bool = False) -> None:
        """The answer to a query, or with `more` a part of it. Nothing happens where its client has gone."""
        owed = self._asked.get(query_id) if more else self._asked.pop(query_id, None)
        if owed is not None:
            owed.conversation.answered(owed, reply, more)
            self._answered[owed.conversation] = None

    def flush(self) -> None:
        """Sends what was answered since the last time. Once after each step: whatever was asked before the last one was
        over is in the next at the latest, and on disk with it."""
        for owed in self._stored_next:
            owed.conversation.stored(owed)
            self._answered[owed.conversation] = None
        self._stored_next, self._storing = self._storing, []
        answered, self._answered = self._answered, {}
        for conversation in answered:
            conversation.go_on()

    def statistics(self) -> dict[str, float]:
        return {
            "connections": self._connections,
            "connections_total": self._connections_total,
            "connections_refused_total": self._connections_refused_total,
            "queries_open": len(self._asked),
            "queries_total": self._queries_total,
        }

    # --- for conversations -------------------------------------------------------------------------------------

    def expect(self, queries: Sequence[tuple[int, lines.Query]], owed: Sequence[Owed]) -> None:
        """Hands queries to the driver."""
        for one in owed:
            self._asked[one.query_id] = one
        self._queries_total += len(queries)
        self.ask(queries)

    def storing(self, owed: Owed) -> None:
        self._storing.append(owed)

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
                await self._talk(stream, place, peer)
        finally:
            self._connections -= 1
        if place.ended:
            self.refusals.tell(peer, place.ended)
            if greeted:
                await self._turn_away(stream, lines.err(Code.UNAUTHORIZED, place.ended))

    async def _talk(self, stream: Connection, place: Place, peer: str) -> None:
        await Conversation(self, wire_of(stream, self._switchboard), place, peer).run()
        with trio.move_on_after(LINGER_S):
            await part(stream)

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
