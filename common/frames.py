"""Messages ↔ bytes on the cluster port: length, version, code, payload.

    ┌──────────────┬─────────┬──────┬─────────────────────┐
    │ length  u32  │ version │ code │ payload (MessagePack)│      big-endian; length counts what follows it
    └──────────────┴─────────┴──────┴─────────────────────┘

Sans-I/O: a Parser is fed what was read, in any segmentation, and gives whole messages. A frame over the limit, of
another version or of an unknown code is Malformed, and the connection it came from is over.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from common.codec import Malformed, pack, unpack
from common.limits import BATCH_BYTES, BATCH_ITEMS_MAX, FRAME_BYTES_MAX
from common.messages import CODES, PROTOCOL, Message

T = TypeVar("T")

_HEADER: Final = struct.Struct(">IBB")
_LENGTH: Final = struct.Struct(">I")
_TLS_BEGINS: Final = 0x1603  # with these bytes; as a length they would be far beyond any limit
_CLASSES: Final = {code: cls for cls, code in CODES.items()}


def encode(message: Message) -> bytes:
    """The frame of a message. What does not fit into FRAME_BYTES_MAX is the sender's bug."""
    payload = pack(message)
    assert len(payload) + 2 <= FRAME_BYTES_MAX, f"a {type(message).__name__} of {len(payload)} bytes fits no frame"
    return _HEADER.pack(len(payload) + 2, PROTOCOL, CODES[type(message)]) + payload


class Parser:
    """Bytes of one connection → messages. `limit_bytes` may be raised once the peer has proved itself."""

    def __init__(self, limit_bytes: int = FRAME_BYTES_MAX) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    @property
    def in_the_middle(self) -> bool:
        """Whether a part of a message has come, and its rest has not."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """The messages that `data` completes; raises Malformed."""
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            if not 2 <= length <= self.limit_bytes:
                raise Malformed(_wrong_length(length, self.limit_bytes))
            end = position + _LENGTH.size + length
            if end > len(self._buffer):
                break
            messages.append(_message(bytes(memoryview(self._buffer)[position + _LENGTH.size : end])))
            position = end
        if position:
            del self._buffer[:position]
        return messages


def _wrong_length(length: int, limit_bytes: int) -> str:
    if length >> 16 == _TLS_BEGINS:
        return "it speaks TLS, and this port does not"
    return f"a frame of {length} bytes; 2 to {limit_bytes} are allowed here"


def _message(frame: bytes) -> Message:
    version, code = frame[0], frame[1]
    if version != PROTOCOL:
        raise Malformed(f"protocol version {version}; this is version {PROTOCOL}")
    cls = _CLASSES.get(code)
    if cls is None:
        raise Malformed(f"no message has the code {code}")
    return unpack(cls, frame[2:])


def batches(items: Iterable[T], size_bytes: Callable[[T], int]) -> Iterator[tuple[T, ...]]:
    """Cuts items into batches of about BATCH_BYTES and at most BATCH_ITEMS_MAX, never an empty one."""
    whole = tuple(items)
    sizes = list(map(size_bytes, whole))
    if 0 < len(whole) <= BATCH_ITEMS_MAX and sum(sizes) <= BATCH_BYTES:
        yield whole
        return
    batch: list[T] = []
    total = 0
    for item, size in zip(whole, sizes, strict=True):
        if batch and (total + size > BATCH_BYTES or len(batch) == BATCH_ITEMS_MAX):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield tuple(batch)
