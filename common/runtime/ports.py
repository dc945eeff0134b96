"""The port that a program listens on in earnest, with TLS or without, and the file descriptors that it may cost.

A connection is a file descriptor, and a process that has none left is deaf. So the limit is raised to what the
settings may need, as far as the system lets us; where it does not, fewer connections are served (`files_for`), and
those beyond are told so. What is left for everything else is never given to strangers.
"""

import errno
import resource
import ssl
from typing import Final

import attrs
import structlog
import trio

from common.runtime.sockets import Settling

FILES_RESERVED: Final = 192  # of store, spawner and logs, and of those who are being turned away
ACCEPT_AGAIN_S: Final = 0.1
_TOLD_EVERY_S: Final = 10.0
_OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_log = structlog.get_logger()


class CannotListen(Exception):
    """The address that we were told to listen on cannot be had."""


@attrs.define(eq=False)
class Port(trio.abc.Listener[trio.abc.Stream]):
    """Gives each connection its TLS, whose handshake is still to come. Where the system has no room for another
    connection, those that wait are accepted as soon as it has."""

    listener: trio.SocketListener
    context: ssl.SSLContext | None = None
    _told_at: float = -_TOLD_EVERY_S

    async def accept(self) -> trio.abc.Stream:
        stream = await self._accept()
        return stream if self.context is None else trio.SSLStream(Settling(stream), self.context, server_side=True)

    async def _accept(self) -> trio.SocketStream:
        while True:
            try:
                return await self.listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                self._tell(error)
            await trio.sleep(ACCEPT_AGAIN_S)

    def _tell(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            _log.warning("accept.failed", problem=error.strerror)

    async def aclose(self) -> None:
        await self.listener.aclose()


async def listen(address: tuple[str, int], context: ssl.SSLContext | None) -> list[Port]:
    """Listens on one address, by TLS where there is a context; port 0 takes a free one. Raises CannotListen."""
    host, port = address
    try:
        return [Port(listener, context) for listener in await trio.open_tcp_listeners(port, host=host)]
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def files_for(connections: int) -> int:
    """How many of so many connections can be served, once this process may open as many files as it can get."""
    wanted = connections + FILES_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    served = max(1, soft - FILES_RESERVED, soft // 2)
    _log.warning("files.few", files=soft, files_wanted=wanted, connections=served)
    return served
