"""One end of a link: whole messages over any stream, both ways, without ever blocking who sends.

`send` puts messages into an outbox, and `flush` sends what has gathered there in one write, as far as the kernel takes
it at once; the rest a writer sends.
A peer that does not read is cut off when it has not taken a write within LINK_STALLED_S, or when LINK_UNSENT_BYTES_MAX
have gathered; it dials again. Whoever waits for a message gives a deadline; a message that comes in parts keeps the
link alive, but not for longer than LINK_MESSAGE_S_MAX.
"""

from collections import deque
from collections.abc import Callable, Sequence

import trio

from common.codec import Malformed
from common.frames import Parser, encode
from common.limits import FRAME_BYTES_MAX, LINK_MESSAGE_S_MAX, LINK_STALLED_S, LINK_UNSENT_BYTES_MAX
from common.messages import Message
from common.runtime.sockets import receive_some, send_what_fits
from common.runtime.tls import why_broken

_READ_BYTES = 256 * 1024
_WRITE_BYTES = 1024 * 1024  # gathered into one write; a larger frame goes in pieces
_SIGN_OF_LIFE_S = 1.0


class LinkLost(Exception):
    """The link is over; the text says why."""


class Link:
    """A framed conversation. Before `run`, `ask` and `send_now` serve the handshake; after it, `send`."""

    def __init__(self, stream: trio.abc.Stream, *, limit_bytes: int = FRAME_BYTES_MAX) -> None:
        self._stream = stream
        self._parser = Parser(limit_bytes)
        self._early: deque[Message] = deque()
        self._outbox: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._filled = trio.Event()
        self._is_written = False  # by the writer, at this moment
        self._closing: str | None = None
        self._writing = trio.CancelScope()
        self._part_since: float | None = None  # since when a message is coming in parts
        self._next_sign_of_life = 0.0

    # --- the handshake -------------------------------------------------------------------------------------------

    def proven(self) -> None:
        """The peer has shown the key: from here on frames may be large."""
        self._parser.limit_bytes = FRAME_BYTES_MAX

    async def send_now(self, message: Message) -> None:
        try:
            await self._stream.send_all(encode(message))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLost(why_broken(error)) from error

    async def receive(self) -> Message:
        """The next message; raises LinkLost or Malformed."""
        while not self._early:
            self._early.extend(await self._read())
        return self._early.popleft()

    async def _read(self) -> list[Message]:
        try:
            data = await receive_some(self._stream, _READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLost(self._closing or why_broken(error)) from error
        if not data:
            raise LinkLost(self._closing or "the other side closed the connection")
        return self._parser.feed(data)

    # --- the conversation ----------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queues a message, to be sent with the next `flush`; never blocks. Where too much is queued the link is
        over."""
        if self._closing is not None:
            return
        frame = encode(message)
        self._outbox.append(frame)
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > LINK_UNSENT_BYTES_MAX:
            self.close(f"the other side has not read {self._unsent_bytes} bytes")

    def flush(self) -> None:
        """Sends what is queued: as much as the kernel takes now, in one write; the writer sends the rest."""
        if not self._outbox:
            return
        if not self._is_written:
            data, size = self._gathered()
            sent = send_what_fits(self._stream, data)
            self._unsent_bytes -= sent
            if sent < size:
                self._outbox.appendleft(data[sent:])
        if self._outbox:
            self._filled.set()

    def close(self, reason: str) -> None:
        """Ends the link after what is queued, or at once where the peer does not read."""
        if self._closing is None:
            self._closing = reason
            self._writing.deadline = trio.current_time() + 1.0  # a courtesy to the peer, not a wait for it
            self._filled.set()

    async def run(self, receive: Callable[[Sequence[Message]], None], *, silence_s: float | None = None) -> str:
        """Talks until the link is over, and returns why. `receive` is called with what each read brought. With
        `silence_s`, a peer unheard for that long is gone. While a large message is coming in, `receive` is called
        with nothing now and then."""
        reason = "closed"

        async def read_all() -> None:
            nonlocal reason
            try:
                with trio.CancelScope() as silence:
                    while True:
                        batch = [*self._early] or await self._read_within(silence_s, silence)
                        self._early.clear()
                        receive(batch)
                reason = f"the other side was silent for {silence_s} s"
            except (LinkLost, Malformed) as error:
                reason = str(error)
            nursery.cancel_scope.cancel()

        async def write_all() -> None:
            nonlocal reason
            try:
                with self._writing:
                    await self._drain()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                reason = why_broken(error)
            else:
                reason = self._closing or reason
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all)
                nursery.start_soon(write_all)
        finally:
            await trio.aclose_forcefully(self._stream)
        return reason

    async def _read_within(self, silence_s: float | None, silence: trio.CancelScope) -> list[Message]:
        """What has come, once it is a message; or nothing, where parts of a large one come: that is a sign of life, and
        is told once in a while. `silence` ends after so long without any."""
        while True:
            if silence_s is not None:
                silence.deadline = trio.current_time() + silence_s
            messages = await self._read()
            now = trio.current_time()
            if messages or self._part_since is None:
                self._part_since = now if self._parser.in_the_middle else None
                self._next_sign_of_life = now + _SIGN_OF_LIFE_S
            elif now - self._part_since > LINK_MESSAGE_S_MAX:
                raise LinkLost(f"a message took longer than {LINK_MESSAGE_S_MAX:g} s")
            if messages or now >= self._next_sign_of_life:
                self._next_sign_of_life = now + _SIGN_OF_LIFE_S
                return messages

    async def _drain(self) -> None:
        while True:
            self._is_written = True
            while self._outbox:
                await self._send_gathered()
            self._is_written = False
            if self._closing is not None:
                return
            self._filled = trio.Event()
            await self._filled.wait()

    def _gathered(self) -> tuple[bytes, int]:
        """What one write should carry of what is queued, and how many bytes that are; there must be something."""
        gathered = [self._outbox.popleft()]
        size = len(gathered[0])
        while self._outbox and size + len(self._outbox[0]) <= _WRITE_BYTES:
            gathered.append(self._outbox.popleft())
            size += len(gathered[-1])
        return gathered[0] if len(gathered) == 1 else b"".join(gathered), size

    async def _send_gathered(self) -> None:
        data, size = self._gathered()
        for start in range(0, len(data), _WRITE_BYTES):
            await self._send_piece(data if len(data) <= _WRITE_BYTES else data[start : start + _WRITE_BYTES])
        self._unsent_bytes -= size

    async def _send_piece(self, piece: bytes) -> None:
        with trio.move_on_after(LINK_STALLED_S) as scope:
            await self._stream.send_all(piece)
        if scope.cancelled_caught:
            what = f"the other side did not take {len(piece)} bytes within {LINK_STALLED_S:g} s"
            self._closing = self._closing or what
            self._writing.cancel()
            await trio.lowlevel.checkpoint()
