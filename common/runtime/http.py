"""The HTTP port: connections from Hypercorn's hands into an ASGI application, in bounds that protect the program.

    Port ──► a place, of a few ──► TLS, where there is a certificate ──► Hypercorn (HTTP/1.1) ──► app

Whatever happens here stays here: an exception ends one connection; a client that does not read, or does not finish
its request, is cut; the program that is told to stop waits for nobody. HTTP/2 is never spoken: its windows let a client
stop reading in ways that the bounds here do not see. The only file that imports Hypercorn.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from common.limits import HANDSHAKE_S, HTTP_CONNECTIONS_MAX, HTTP_REFUSALS_MAX
from common.runtime.sockets import socket_of
from common.runtime.tls import HandshakeFailed, NotTls, handshake

IDLE_S: Final = 30.0  # for a whole request head to come in, and between two requests
SEND_S: Final = 10.0  # for one write to be taken by the other side
GONE_S: Final = 1.0  # for what is under way when the other side has gone
REQUEST_BYTES_MAX: Final = 16 * 1024  # of a request's head

App: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 5\r\n\r\n"
    b'{"error":{"code":"TOO_MANY_CONNECTIONS","message":"too many connections; try again later"}}\n'
)
_NO_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    b'{"error":{"code":"BAD_REQUEST","message":"this port speaks TLS: ask it as https://"}}\n'
)

log = structlog.get_logger()


class Server:
    """Serves one application on some listeners."""

    def __init__(
        self, app: App, *, connections_max: int = HTTP_CONNECTIONS_MAX, idle_s: float = IDLE_S, send_s: float = SEND_S
    ) -> None:
        self._app = ASGIWrapper(cast(Any, app))
        self._config = _config(idle_s)
        self._context = WorkerContext(None)
        self._connections_max = connections_max
        self._send_s = send_s
        self._open: set[Guarded] = set()
        self._refusing = 0

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until it is cancelled; then all connections end at once."""
        async with trio.open_nursery() as conversations:
            try:
                await trio.serve_listeners(
                    self._serve, list(listeners), handler_nursery=conversations, task_status=task_status
                )
            finally:  # Hypercorn shields its writes: who waits in one is woken by the end of its socket
                for stream in tuple(self._open):
                    stream.cut()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await self._converse(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, HandshakeFailed, OSError):
            pass  # the client went away, or was no client
        except* Exception:
            log.exception("http.connection_failed")
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        if len(self._open) >= self._connections_max:
            if self._refusing < HTTP_REFUSALS_MAX:
                await self._refuse(stream)
            return
        guarded = Guarded(stream, self._send_s)
        self._open.add(guarded)
        try:
            with trio.fail_after(HANDSHAKE_S):
                await handshake(stream)
            with guarded.life:
                await _Conversation(self._app, self._config, self._context, {}, cast(Any, guarded)).run()
        except NotTls as error:
            await error.answer(_NO_TLS)
        except trio.TooSlowError:
            pass
        finally:
            self._open.discard(guarded)

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        self._refusing += 1
        try:
            with trio.move_on_after(GONE_S):
                await handshake(stream)
                await stream.send_all(_BUSY)
        except NotTls as error:
            await error.answer(_NO_TLS)
        finally:
            self._refusing -= 1


class _Conversation(TCPServer):
    """Hypercorn's, but for the choice of the protocol: Hypercorn follows whoever asks for HTTP/2."""

    async def run(self) -> None:
        plain = self.stream.socket
        try:
            client = parse_socket_addr(plain.family, plain.getpeername())
            server = parse_socket_addr(plain.family, plain.getsockname())
            async with TaskGroup() as tasks:
                self._task_group = tasks
                state = ConnectionState(self.state)
                self.protocol = cast(
                    Any,
                    _Http1(
                        self.app, self.config, self.context, tasks, state, False, client, server, self.protocol_send
                    ),
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
        finally:
            await self._close()


class _Http1(H11Protocol):
    """HTTP/1.1 and 1.0. A wish for another protocol is not heard, as the standard allows; who speaks it is cut."""

    async def _check_protocol(self, event: Any) -> None:
        if not event.http_version.startswith(b"1."):
            raise trio.BrokenResourceError("the client speaks another version of HTTP")


class Guarded:
    """A connection as Hypercorn sees it: plain, and cut where the other side does not read."""

    def __init__(self, stream: trio.abc.Stream, send_s: float) -> None:
        self._stream = stream
        self._send_s = send_s
        plain = socket_of(stream)
        assert plain is not None, "HTTP is served on sockets"
        self.socket = plain.socket
        self.life = trio.CancelScope()  # of all that is done for it

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(self._send_s) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self.cut()
            raise trio.BrokenResourceError("the client does not read")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = b""
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        finally:
            if not data:  # Hypercorn would keep its place until it has been idle for long enough
                self.life.deadline = trio.current_time() + GONE_S
        return data

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        with trio.move_on_after(1):
            await self._stream.aclose()

    def cut(self) -> None:
        self.socket.close()


def _config(idle_s: float) -> Config:
    config = Config()
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = cast(Any, idle_s)
    config.h11_max_incomplete_size = REQUEST_BYTES_MAX
    return config
