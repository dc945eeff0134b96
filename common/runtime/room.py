"""How much room a store has: what it may hold, what the disk has left, and a little of its file to spare.

Knows nothing of LMDB but how long its file is.
"""

import os
from pathlib import Path
from typing import Final

import attrs

from common.limits import MIB
from common.runtime.owning import StoreError

_DISK_RESERVE_BYTES: Final = 64 * MIB  # of a large disk; of a small one a twentieth
_DISK_RESERVE_FRACTION: Final = 0.05
_SPARE_BYTES_MAX: Final = 4 * MIB  # of the file, behind its last page; on a small disk twice the reserve


@attrs.frozen
class Room:
    """How full the store is. It may hold more than it should for a while, until ended jobs have expired."""

    used_bytes: int
    max_bytes: int
    disk_full: bool

    @property
    def fraction(self) -> float:
        return self.used_bytes / self.max_bytes


def disk_is_full(directory: Path) -> bool:
    """Whether less is left than the reserve."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize < _reserve_bytes(disk)


def _reserve_bytes(disk: os.statvfs_result) -> int:
    return min(_DISK_RESERVE_BYTES, int(disk.f_blocks * disk.f_frsize * _DISK_RESERVE_FRACTION))


class NoRoom(StoreError):
    """The disk is full: nothing of the transaction was written, and it can be tried again."""


class Spare:
    """Sees to it that the next megabytes of a file are ours already. Outcomes and acknowledgements still come in when
    everything else has filled the disk, and a commit that has no room makes all others wait. Where nothing can be had,
    or the file system promises nothing, it goes on without."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = min(_SPARE_BYTES_MAX, 2 * _reserve_bytes(os.statvfs(path.parent)))
        self._until = self._refused_at = 0  # bytes of the file

    def keep(self, end: int) -> None:
        """`end`: behind the last byte that is in use."""
        if self._until - end >= self._bytes // 2 or end == self._refused_at:
            return
        fd = os.open(self._path, os.O_RDWR)
        try:
            os.posix_fallocate(fd, end, self._bytes)
            self._until = end + self._bytes
        except OSError:
            self._refused_at = end  # tried again when the file has grown
        finally:
            os.close(fd)
