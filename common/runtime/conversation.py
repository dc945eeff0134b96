"""One client's connection: its requests in order, and the replies that are owed for them.

    received ──► Parser ──► untaken ──► owed (in order) ──► queries of the whole read
                               │            │
                               └ has room?  └ answered? ──► one send

It never waits: a wire calls it when something was read or sent, the Serving when something was answered, and each time
it goes on as far as it can. Replies that are known in one step, or to one read, leave in one send.

A client is not read from while it has REPLIES_UNREAD_BYTES_MAX of replies owed (those not answered yet are guessed) or
REQUESTS_OPEN_MAX requests open. What cannot be done at once, to wait for room for a body, is left to the task of the
connection, in `live`.
"""

import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from common import lines
from common.errors import Code
from common.limits import ERRORS_IN_A_ROW_MAX, KIB, MIB, REPLIES_UNREAD_BYTES_MAX, REQUESTS_OPEN_MAX
from common.runtime.bell import Bell
from common.runtime.bodies import Bodies
from common.runtime.tls import FIRST_BYTES
from common.runtime.unproven import Place, Refusals, Unproven
from common.runtime.wires import Wire

SEND_BYTES: Final = 1 * MIB  # replies are joined up to about this size

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
_EDGE: Final = (lines.Auth, lines.Ping, lines.Version, lines.Help, lines.Quit, lines.Bad)
_NO_ROOM: Final = "clients of this node are sending too much at once; try again, or at another node"
_NO_TLS: Final = "this node does not speak TLS; clients name it as tcp://HOST:PORT"
_HELP: Final = lines.ok(body=lines.HELP_PAGE.encode())
_PONG: Final = lines.ok(None, "pong")
_BYE: Final = lines.ok(None, "bye")


class Owed(msgspec.Struct, eq=False):
    """A request whose reply is not being sent yet."""

    conversation: "Conversation"
    query_id: int
    reply: bytes | None = None  # what is answered of it
    more: bool = False  # that is only a part of the answer
    guessed_bytes: int = 0  # what it weighs meanwhile
    body_bytes: int = 0  # of a job that is on its way to the disk, and as much of what was guessed


class Server(Protocol):
    """What the conversations of a port have in common."""

    token: str | None
    version_reply: bytes
    body_bytes_max: int
    kinds: Iterable[str]
    bodies: Bodies
    unproven: Unproven
    refusals: Refusals
    ids: Iterator[int]

    def expect(self, queries: Sequence[tuple[int, lines.Query]], owed: Sequence[Owed]) -> None:
        """Hands queries to the driver; each is answered later, by `Conversation.answered`."""

    def storing(self, owed: Owed) -> None:
        """The body of a RUN is on its way to the disk. `Conversation.stored` tells that it is there, long before the
        answer."""

    def forget(self, query_ids: Sequence[int]) -> None:
        """Their client has gone."""

    def delivered(self, query_ids: Sequence[int]) -> None:
        """The client has this part of the answer to each of these queries."""


class Conversation:
    """See the module. `peer` is for the log."""

    def __init__(self, server: Server, wire: Wire, place: Place, peer: str) -> None:
        self._server = server
        self._wire = wire
        self._place = place
        self._peer = peer
        self._authorized = False
        if server.token is None:
            self._welcome()
        self._parser = lines.Parser(
            body_bytes_max=server.body_bytes_max, kinds=server.kinds, keep_bodies=self._authorized
        )
        self._untaken: list[lines.Request] = []  # read, and there was no room for them yet
        self._owed: list[Owed] = []  # in order; lists, because most connections are silent and a deque weighs 760 bytes
        self._owed_bytes = 0  # answered and not sent, and guessed
        self._submitted_bytes = 0  # the bodies of these that are on their way to the disk
        self._held_bytes = 0  # of bodies, as the server counts them
        self._sending_bytes = 0  # of what the wire has not said yet
        self._unfinished: Owed | None = None  # that was a part of the answer to this
        self._errors_in_a_row = 0
        self._has_begun = False
        self._heard_all = False
        self._ends = False  # no request will be taken any more: what is owed is answered, then the end
        self._over = False
        self._crowded = False  # the body that is being read finds no room
        self._failure: Exception | None = None
        self._goes_on = False
        self._called = Bell()

    # --- the task of the connection ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns when all is said. Raises what has broken the conversation."""
        try:
            await self._wire.carry(self)
        finally:
            self._over = True
            self._server.forget([owed.query_id for owed in self._owed])
            self._server.bodies.hold(self, 0)

    async def live(self) -> None:
        while not self._over:
            await self._called.wait()
            if self._crowded:
                if not await self._server.bodies.room():
                    self._parser.refuse_body(Code.FULL, _NO_ROOM)
                    self._hold_bodies()
                self._crowded = False
                self.go_on()
        if self._failure is not None:
            raise self._failure

    # --- called back ---------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self.go_on(data)

    def sent(self) -> None:
        self._said()
        self.go_on()

    def failed(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._finish()

    def answered(self, owed: Owed, reply: bytes, more: bool) -> None:
        """The answer to a request, or with `more` a part of it. `go_on` sends it, when its turn has come."""
        owed.reply = reply if owed.reply is None else owed.reply + reply
        self._owed_bytes += len(reply)
        if owed.more is not more:
            owed.more = more
        if owed.guessed_bytes:
            self._owed_bytes -= owed.guessed_bytes
            self._submitted_bytes -= owed.body_bytes
            owed.guessed_bytes = owed.body_bytes = 0

    def stored(self, owed: Owed) -> None:
        """A job is on disk, and holds nothing up any more, though its client waits for the end."""
        self._owed_bytes -= owed.body_bytes
        self._submitted_bytes -= owed.body_bytes
        owed.guessed_bytes -= owed.body_bytes
        owed.body_bytes = 0

    def go_on(self, data: bytes | None = None) -> None:
        """Takes what there is room for and says what is answered, until neither is possible. `data` is what was
        read."""
        if self._goes_on or self._over:
            return
        self._goes_on = True
        try:
            if data is not None:
                self._untaken.extend(self._read(data))
            while self._take() or self._say():
                pass
            self._mind_bodies()
            self._wire.listen(not (self._untaken or self._ends or self._crowded))
        except Exception as error:  # noqa: BLE001 - it ends this conversation alone, whose task raises it
            self.failed(error)
        finally:
            self._goes_on = False
        if self._is_done():
            self._finish()

    def _is_done(self) -> bool:
        if self._sending_bytes:
            return False
        return self._errors_in_a_row >= ERRORS_IN_A_ROW_MAX or (self._ends and not self._owed)

    def _finish(self) -> None:
        self._over = True
        self._called.ring()

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> Sequence[lines.Request]:
        begins, self._has_begun = not self._has_begun, True
        if not data:
            self._heard_all = True
            return self._parser.eof()
        if begins and data.startswith(FIRST_BYTES):
            return [lines.Bad(Code.BAD_REQUEST, _NO_TLS, close=True)]
        return self._parser.feed(data)

    def _mind_bodies(self) -> None:
        """Counts what is held here, and whether a body that is not complete finds room for more."""
        if not (self._parser.body_bytes or self._submitted_bytes or self._held_bytes):
            return  # as most often
        has_room = self._hold_bodies()
        self._crowded = not has_room and self._parser.body_bytes > 0
        if self._crowded:
            self._called.ring()

    def _hold_bodies(self) -> bool:
        """Whether there is room for more than what all hold now."""
        bodies, held_bytes = self._server.bodies, self._parser.body_bytes + self._submitted_bytes
        if held_bytes != self._held_bytes:
            self._held_bytes = held_bytes
            bodies.hold(self, held_bytes)
        return bodies.total <= bodies.most

    def _take(self) -> bool:
        """Takes requests while there is room for what they may be answered with; hands the queries over together."""
        untaken, ids = self._untaken, self._server.ids
        if not untaken and not self._heard_all:
            return False
        queries: list[tuple[int, lines.Query]] = []
        asked: list[Owed] = []
        taken = 0
        for request in untaken[: REQUESTS_OPEN_MAX - len(self._owed)]:
            if self._ends or self._owed_bytes >= REPLIES_UNREAD_BYTES_MAX:
                break
            taken += 1
            owed = Owed(self, next(ids))
            self._owed.append(owed)
            if type(request) is lines.Submit and not request.body and self._authorized:
                pass  # as most often: it holds nothing until it is answered
            elif isinstance(request, _EDGE) or not self._authorized:
                self.answered(owed, self._reply_at_once(request), more=False)
                continue
            else:
                self._guess(owed, request)
            queries.append((owed.query_id, request))
            asked.append(owed)
        del untaken[:taken]
        if queries:
            self._server.expect(queries, asked)
        self._ends = self._ends or (self._heard_all and not untaken)
        if self._ends:
            untaken.clear()
        return taken > 0

    def _guess(self, owed: Owed, query: lines.Query) -> None:
        """What an open query may hold in memory: its reply, or the body of a job until it is stored."""
        if isinstance(query, lines.Submit):
            owed.guessed_bytes = owed.body_bytes = len(query.body)
            self._submitted_bytes += owed.body_bytes
            if query.wait and query.body:
                self._server.storing(owed)
        else:
            owed.guessed_bytes = _REPLY_BYTES.get(type(query), 0)
        self._owed_bytes += owed.guessed_bytes

    def _reply_at_once(self, request: lines.Request) -> bytes:
        """The reply to what is no query, or to anything from someone who may not ask."""
        match request:
            case lines.Quit():
                self._ends = True
                return _BYE
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
                return _PONG
            case lines.Version():
                return self._server.version_reply
            case _:
                return _HELP

    def _authorize(self, token: str) -> bytes:
        expected = self._server.token
        if expected is None or hmac.compare_digest(token.encode(), expected.encode()):
            self._welcome()
            return lines.ok()
        self._ends = True
        self._server.refusals.tell(self._peer, "it showed another token than this node's")
        return lines.err(Code.UNAUTHORIZED, "this is not the token of this node")

    def _welcome(self) -> None:
        self._authorized = True
        self._server.unproven.proven(self._place)

    # --- writing -------------------------------------------------------------------------------------------------

    def _say(self) -> bool:
        """Says what is answered and has its turn, unless the wire is still busy with what was said before."""
        if self._sending_bytes or not self._owed or self._owed[0].reply is None:
            return False
        replies = self._replies_in_turn()
        if not replies:
            return False
        data = b"".join(replies)
        self._sending_bytes = len(data)
        if self._wire.send(data):
            self._said()
        return True

    def _said(self) -> None:
        self._owed_bytes -= self._sending_bytes
        self._sending_bytes = 0
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            self._server.delivered([unfinished.query_id])

    def _replies_in_turn(self) -> list[bytes]:
        """Replies up to the first that is not known yet, but no more than one send should carry. The last of them may
        be only a part of the answer."""
        replies: list[bytes] = []
        size_bytes = done = 0
        for owed in self._owed:
            reply = owed.reply
            if reply is None or size_bytes >= SEND_BYTES or self._errors_in_a_row >= ERRORS_IN_A_ROW_MAX:
                break
            replies.append(reply)
            size_bytes += len(reply)
            self._errors_in_a_row = self._errors_in_a_row + 1 if reply.startswith(b"ERR ") else 0
            if owed.more:
                owed.reply, self._unfinished = None, owed
                break
            done += 1
        del self._owed[:done]
        return replies
