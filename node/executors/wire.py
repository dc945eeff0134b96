"""What travels between node and spawner, and how: values ↔ frames, one batch in each.

A frame is its length (4 bytes, big-endian), then that many bytes of MessagePack. Rules: pure, so that both ends of
the socket and the tests share it. msgspec encodes the attrs classes as they are: both ends are the same program on
the same machine, so there is no foreign version to refuse and nobody to distrust.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import attrs
import msgspec

from common.codec import Record
from common.limits import BATCH_BYTES, BATCH_ITEMS_MAX
from node.executors import NO_LIMITS, Begun, Kill, Limits, Order, Over, Peek, Printed, Returned, Start, TakeBack

HEADER_BYTES: Final = 4


@attrs.frozen
class Setup:
    """What a spawner must know from its first moment; it is the last word of its command line."""

    scratch_root: str  # absolute; the lock is beside it
    owner: str  # marks our processes; unique to the data directory
    output_bytes_max: int  # of each stream of a command
    python: str
    pythonpath: str  # directories separated by colons
    most: Limits = NO_LIMITS  # what the node allows: calls that have no others share their workers
    slots: int = sys.maxsize  # what is started beyond these waits in line


class Orders(Record, frozen=True):
    """Node to spawner. The starts of one frame come first, then what is taken back, then kills, then peeks."""

    starts: Sequence[Start] = ()
    back: Sequence[TakeBack] = ()
    kills: Sequence[Kill] = ()
    peeks: Sequence[Peek] = ()


class News(Record, frozen=True):
    """Spawner to node. What has been printed comes first, then what is over; who has begun is not over. An empty one
    says that the spawner is up."""

    begun: Sequence[Begun] = ()
    returned: Sequence[Returned] = ()
    printed: Sequence[Printed] = ()
    over: Sequence[Over] = ()


T = TypeVar("T", Start, Over, Printed)

_encode = msgspec.msgpack.Encoder().encode
orders_of = msgspec.msgpack.Decoder(Orders).decode
news_of = msgspec.msgpack.Decoder(News).decode


def order_frames(batch: Sequence[Order]) -> Iterator[bytes]:
    """The frames that carry a batch. The starts come first: a kill or peek of an attempt of this batch finds it."""
    starts = [order for order in batch if isinstance(order, Start)]
    for part in _parts(starts, [len(start.body) for start in starts]):
        yield _frame(Orders(starts=part))
    if len(starts) == len(batch):
        return
    back = [order for order in batch if isinstance(order, TakeBack)]
    kills = [order for order in batch if isinstance(order, Kill)]
    peeks = [order for order in batch if isinstance(order, Peek)]
    yield _frame(Orders((), back, kills, peeks))


def news_frames(
    begun: Sequence[Begun], returned: Sequence[Returned], printed: Sequence[Printed], over: Sequence[Over]
) -> Iterator[bytes]:
    """The frames that carry what has happened, at least one. What has begun is in the last: it may have the slot of
    what is over."""
    for shown in _parts(printed, [len(one.stdout) + len(one.stderr) for one in printed]):
        yield _frame(News(printed=shown))
    *parts, last = list(_parts(over, [len(one.output) for one in over])) or [[]]
    for part in parts:
        yield _frame(News(over=part))
    if begun or returned or last or not printed:
        yield _frame(News(begun, returned, over=last))


def _parts(values: Sequence[T], sizes: Sequence[int]) -> Iterator[Sequence[T]]:
    """Cut a batch so that no frame is much longer than its longest member; `sizes` are their bytes."""
    if 0 < len(values) <= BATCH_ITEMS_MAX and sum(sizes) < BATCH_BYTES:
        yield values  # as nearly always
        return
    part: list[T] = []
    part_bytes = 0
    for value, size in zip(values, sizes, strict=True):
        if part and (part_bytes >= BATCH_BYTES or len(part) == BATCH_ITEMS_MAX):
            yield part
            part, part_bytes = [], 0
        part.append(value)
        part_bytes += size
    if part:
        yield part


def _frame(value: Orders | News) -> bytes:
    data = _encode(value)
    return len(data).to_bytes(HEADER_BYTES, "big") + data


class Frames:
    """Cuts what was read from a stream into the frames it is made of, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The contents of every frame that is whole now."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            end = start + HEADER_BYTES + int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
            if len(buffer) < end:
                break
            frames.append(bytes(memoryview(buffer)[start + HEADER_BYTES : end]))
            start = end
        if start:
            del buffer[:start]
        return frames
