"""A conversation with a node over a plain socket: what `nc` is, for a program. It knows `docs/protocol.md` only.

Rules: whoever asks says how long the answer may take. A node that takes longer, closes or cannot be reached is Gone,
and so is the conversation.
"""

from types import TracebackType
from typing import Final, Self

import trio

from chaos.replies import Reply, body_bytes

DIAL_S_MAX: Final = 2.0
REPLY_S_MAX: Final = 8.0  # longer than a node looks for the balancer on behalf of a client (5 s)
PIECE_BYTES: Final = 65536


class Gone(Exception):
    """The node went away, or does not answer. `sent` says whether it may have read the request."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Conversation:
    """One connection. Made by `dial`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._unread = b""

    @classmethod
    async def dial(cls, address: str) -> Self:
        host, _, port = address.rpartition(":")
        try:
            with trio.fail_after(DIAL_S_MAX):
                return cls(await trio.open_tcp_stream(host, int(port)))
        except (OSError, trio.TooSlowError) as error:
            raise Gone(f"cannot be reached: {error}", sent=False) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await trio.aclose_forcefully(self._stream)

    async def ask(self, line: str, body: bytes | None = None, *, within_s: float = REPLY_S_MAX) -> Reply:
        """Sends a request and reads the one reply."""
        data = line.encode() + b"\n" + (body + b"\n" if body is not None else b"")
        try:
            with trio.fail_after(within_s):
                await self._stream.send_all(data)
                return await self._reply()
        except (trio.BrokenResourceError, trio.TooSlowError, EOFError) as error:
            raise Gone(f"no reply to {line!r}: {error!r}", sent=True) from error

    async def _reply(self) -> Reply:
        line = (await self._until_line_end()).decode()
        size = body_bytes(line)
        if size is None:
            return Reply(line)
        while len(self._unread) <= size:
            await self._read_more()
        body, end, self._unread = self._unread[:size], self._unread[size : size + 1], self._unread[size + 1 :]
        assert end == b"\n", f"no LF after the {size} bytes of {line!r}"
        return Reply(line, body)

    async def _until_line_end(self) -> bytes:
        while b"\n" not in self._unread:
            await self._read_more()
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def _read_more(self) -> None:
        data = await self._stream.receive_some(PIECE_BYTES)
        if not data:
            raise EOFError("the node closed the connection")
        self._unread += data
