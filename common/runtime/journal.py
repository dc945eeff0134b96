"""The journal: the last commits, which LMDB does not have yet, in a file beside it.

LMDB waits for the disk twice: for its pages, and for the page that makes them count. A small commit is appended here
instead, in one write that returns when it is on the disk, and many of them become one transaction of LMDB later. So a
store is what LMDB has, and over it what is here.

- The file has its whole length from the beginning, and every byte of it was written once: what is appended changes
  neither its length nor its places on the disk, which would be a second wait. It is written around the kernel's cache
  where the file system allows that, in whole blocks: the rest of a block is written again as it is.
- Its records lie one after the other, from the start of the file on: `length | CRC-32 | number | content`, each to a
  multiple of 16 bytes. The content is the commit as MessagePack: of each table, the keys and their values, nil for one
  that goes.
- Numbers go up by one. LMDB has a *mark*: the journal's id, and the number of the last commit of it that LMDB has.
  What counts are the records that follow the mark, without a gap; what lies in the file from before does not. Once
  LMDB has all of it, the next record goes to the start of the file again.
- LMDB says so too where nothing is to be read from the journal (`NO_MARK`): a mark whose key the disk has damaged must
  not read as none.
- The id is drawn anew whenever a store is opened, and every checksum begins with it. So a journal never counts for an
  LMDB file that it was not written for.
- A record that is not whole was being written when the power went, and nobody was told of it: it is the end. Only the
  last can be: where a later one is whole, the disk has damaged what it had (`Damaged`).

Knows nothing of LMDB (that is `common/runtime/tables.py`), nor when LMDB is to get what (`common/runtime/store.py`).
"""

import errno
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self, TypeAlias

import attrs
import msgspec

from common.effects import Writes
from common.limits import KIB
from common.runtime.owning import Damaged, Failed, StoreError

FILE: Final = "journal"
JOURNAL_BYTES: Final = 256 * KIB
_BLOCK_BYTES: Final = 4 * KIB
COMMIT_BYTES_MAX: Final = 32 * KIB  # for a larger one two waits are little, and to write it twice is much
COMMIT_WRITES_MAX: Final = 500
_HEAD: Final = struct.Struct(">IIQ")  # length of the content, CRC, number
_STEP_BYTES: Final = _HEAD.size
_ID_BYTES: Final = 8
NO_MARK: Final = b""  # where nothing is to be read
_MARK: Final = struct.Struct(f">{_ID_BYTES}sQI")  # id, number, CRC of both

Late: TypeAlias = Mapping[str, Mapping[bytes, bytes | None]]
"""What LMDB has not got yet: by table and key, None where a record goes."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, dict[bytes, bytes | None]]).decode


@attrs.frozen
class Mark:
    """How much of which journal LMDB has."""

    id: bytes
    number: int = 0

    def pack(self) -> bytes:
        head = self.id + self.number.to_bytes(8, "big")
        return head + zlib.crc32(head).to_bytes(4, "big")

    @classmethod
    def unpack(cls, stored: bytes) -> Self:
        """Raises Damaged: whoever took a mark for another would do without what follows it."""
        if len(stored) == _MARK.size:
            id, number, crc = _MARK.unpack(stored)
            if zlib.crc32(stored[: _MARK.size - 4]) == crc:
                return cls(id, number)
        raise Damaged("the mark of the journal is damaged, and nobody knows what of it is to be read")


class Journal:
    """The file of a directory that is ours, to be appended to."""

    def __init__(self, directory: Path) -> None:
        """For an LMDB file that has everything already. Raises StoreError, mostly because the disk is full."""
        self._path = directory / FILE
        try:
            _see_to(self._path)
            self._fd = _opened(self._path)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be made: {error.strerror}") from error
        self._image = memoryview(mmap.mmap(-1, JOURNAL_BYTES))  # of the file, but for what is not ours in it
        self._id = os.urandom(_ID_BYTES)
        self._number = self._end = 0

    @property
    def mark(self) -> Mark:
        """Of an LMDB file that has everything up to the last record."""
        return Mark(self._id, self._number)

    def append(self, writes: Writes) -> bool:
        """A commit, which is on the disk when this returns. False, and nothing is done, where it is too large, or there
        is no room before LMDB has what is here. Raises Failed."""
        if not _is_small(writes):
            return False
        record = _record(self._id, self._number + 1, _encode(writes.tables))
        if self._end + len(record) > JOURNAL_BYTES:
            return False
        self._image[self._end : self._end + len(record)] = record
        begins = self._end // _BLOCK_BYTES * _BLOCK_BYTES
        ends = _up_to(_BLOCK_BYTES, self._end + len(record))
        try:
            written = os.pwrite(self._fd, self._image[begins:ends], begins)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # on file systems that write everything to a new place
                self._give_up_record()
                return False
            raise Failed(f"{self._path} cannot be written: {error.strerror}") from error
        if written != ends - begins:
            raise Failed(f"{self._path} cannot be written: {written} bytes of {ends - begins} went into it")
        self._number += 1
        self._end += _up_to(_STEP_BYTES, len(record))
        return True

    def _give_up_record(self) -> None:
        """Nobody knows whether it can be read: its number is not used again, and none follows it before LMDB has it."""
        self._number += 1
        self._end = JOURNAL_BYTES

    def restart(self) -> None:
        """LMDB has everything up to the last record, and says so."""
        self._end = 0

    def close(self) -> None:
        os.close(self._fd)


def contents(directory: Path) -> bytes | None:
    """The whole file, of a directory that may be in use; None where there is none. To be read before LMDB is: then
    what LMDB has and what is here leave nothing out between them."""
    try:
        return (directory / FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{directory / FILE} cannot be read: {error.strerror}") from error


def following(mark: Mark, found: bytes | None, *, in_use: bool = False) -> Late:
    """What the commits after this mark have written, all in one; `found` are the contents of the file. Raises Damaged
    where one is missing, except in a file that is written meanwhile: there a gap may be one between two looks."""
    if found is None or len(found) < JOURNAL_BYTES:
        how = "missing" if found is None else f"{JOURNAL_BYTES - len(found)} bytes too short"
        raise Damaged(f"the file {FILE} is {how}, and it held what was committed last")
    late: dict[str, dict[bytes, bytes | None]] = {}
    at, number = 0, mark.number + 1
    while (content := _content(mark.id, number, found, at)) is not None:
        for table, written in _decode(content).items():
            late.setdefault(table, {}).update(written)
        at += _up_to(_STEP_BYTES, _HEAD.size + len(content))
        number += 1
    if not in_use and _has_later(mark.id, number, found, at):
        raise Damaged(f"in the file {FILE} commit {number} is damaged, and a later one is there")
    return late


def _up_to(multiple: int, size: int) -> int:
    return -(-size // multiple) * multiple


def _is_small(writes: Writes) -> bool:
    if len(writes) > COMMIT_WRITES_MAX:
        return False
    return sum(map(_size_bytes, writes.tables.values())) <= COMMIT_BYTES_MAX


def _size_bytes(written: Mapping[bytes, bytes | None]) -> int:
    return sum(len(key) + len(value or b"") for key, value in written.items())


def _record(id: bytes, number: int, content: bytes) -> bytes:
    return _HEAD.pack(len(content), _crc(id, number, content), number) + content


def _crc(id: bytes, number: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(b"%b%d" % (id, number)))


def _content(id: bytes, number: int, found: bytes, at: int) -> bytes | None:
    """Of the record that is there, if it is the one with this number, and whole."""
    if at + _HEAD.size > len(found):
        return None
    length, crc, its_number = _HEAD.unpack_from(found, at)
    content = found[at + _HEAD.size : at + _HEAD.size + length]
    whole = its_number == number and len(content) == length and _crc(id, number, content) == crc
    return content if whole else None


def _has_later(id: bytes, number: int, found: bytes, at: int) -> bool:
    return any(_content(id, later, found, place) is not None for later, place in _later_heads(number, found, at))


def _later_heads(number: int, found: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where a record with this or a higher number may begin. There are fewer than fit into the file."""
    highest = number + len(found) // _STEP_BYTES
    for place in range(at, len(found) - _HEAD.size + 1, _STEP_BYTES):
        _, _, its_number = _HEAD.unpack_from(found, place)
        if number <= its_number <= highest:
            yield its_number, place


def _opened(path: Path) -> int:
    """To be written so that it is on the disk when a write returns; its first block is empty then."""
    try:
        return _opened_for(path, os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system does not allow it, or has other blocks
            raise
        return _opened_for(path, 0)


def _opened_for(path: Path, way: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC | way)
    try:
        os.pwrite(fd, mmap.mmap(-1, _BLOCK_BYTES), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def _see_to(path: Path) -> None:
    """A file of the whole length, all of it written, which is there after a power cut, too."""
    if not path.exists() or path.stat().st_size != JOURNAL_BYTES:
        _make(path)
    sync_names(path.parent)  # whoever made it may have been killed before he came to that


def _make(path: Path) -> None:
    """Under another name until it is whole."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, bytes(JOURNAL_BYTES)) != JOURNAL_BYTES:
                raise OSError(0, "there is no room for it")
            os.fsync(fd)
        finally:
            os.close(fd)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def sync_names(directory: Path) -> None:
    """What the files of a directory are called is on the disk when this returns."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
