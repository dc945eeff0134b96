"""The directories that jobs get for themselves: made, reused when they come back as they were given, else removed.

Rules: nothing outside the scratch root is ever touched: symbolic links are removed and never followed, and names are
looked up in open directories only. Nothing here takes long: what a job leaves is moved aside at once and removed a
few entries at a time. A directory found in another is moved up beside it first, so that no tree is too deep.

Reuse: making and removing a directory costs a quarter of what starting a small program costs (the file system's
journal), and even renaming it a twentieth. So a directory is lent to one attempt after another and stays where it is,
as long as it comes back empty, with its mode, and with nobody left in the process group that had it. Most jobs leave
it untouched, which the time of its last change tells without a look inside. One that nobody has needed from one `sweep`
to the next is removed.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

SPARE_MAX: Final = 64  # directories kept for reuse: about as many as attempts end at once
ENTRIES_PER_TURN: Final = 200  # removed between two looks at what else is to be done: a few milliseconds
ASIDE: Final = ".aside"
SETTLED_NS: Final = 3_000_000_000  # longer than the clock of any file system stands still: FAT's moves every 2 s
SETTLED_FINE_NS: Final = 100_000_000  # and one that counts in less than FINE_NS: it moves with the kernel, every 10 ms
FINE_NS: Final = 10_000_000
MISSING: Final = (FileNotFoundError, NotADirectoryError)
_MODE: Final = 0o700
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Scratch:
    """The scratch root of one data directory. `lost` is what could not be removed; the next start tries again."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._aside = f"{root}/{ASIDE}"
        self._open()
        self._number = max((int(name) for name in os.listdir(self._aside_fd) if name.isdecimal()), default=0)
        self._spare: list[str] = []  # names; who comes back last is lent first
        self._settled: dict[str, tuple[int, int, int]] = {}  # as they were found empty: inode, mode, last change
        self._unneeded = 0  # so many of them, the first ones, were not needed since the last sweep
        self._condemned: list[str] = []
        self._work: Iterator[None] | None = None
        self.lost: list[OSError] = []

    def _open(self) -> None:
        os.makedirs(self._aside, mode=_MODE, exist_ok=True)
        self._root_fd = os.open(self._root, _DIRECTORY)
        self._aside_fd = os.open(ASIDE, _DIRECTORY, dir_fd=self._root_fd)

    def _mend(self) -> None:
        """Something is not where it was: jobs may remove or replace what they like of ours. Trust nothing spare."""
        if not (_is_there(self._root, self._root_fd) and _is_there(self._aside, self._aside_fd)):
            self._open_anew()
        self._work = None
        self._condemned = os.listdir(self._aside_fd)
        self._condemn(self._spare)
        self._spare, self._unneeded = [], 0

    def _open_anew(self) -> None:
        before = self._root_fd, self._aside_fd
        for path in (self._root, self._aside):
            if os.path.islink(path) or os.path.isfile(path):
                os.unlink(path)
        self._open()
        for fd in before:
            os.close(fd)

    def close(self) -> None:
        os.close(self._aside_fd)
        os.close(self._root_fd)

    def path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def lend(self) -> str:
        """The name of an empty directory, until it is given back. Raises OSError."""
        if self._spare:
            name = self._spare.pop()
            self._unneeded = min(self._unneeded, len(self._spare))
            return name
        self._number += 1
        name = str(self._number)
        self.make(name)
        return name

    def make(self, name: str) -> str:
        """The path of a new, empty directory of that name. Raises OSError."""
        try:
            self._make(name)
        except MISSING:
            self._mend()
            self._make(name)
        return self.path(name)

    def _make(self, name: str) -> None:
        try:
            os.mkdir(self.path(name), _MODE)
        except FileExistsError:
            self._condemned.append(self._put_aside(name, self._root_fd))
            os.mkdir(self.path(name), _MODE)

    def give_back(self, name: str, *, unused: bool) -> None:
        """The attempt is over; `unused` says that no process of its group is left."""
        try:
            if unused and len(self._spare) < SPARE_MAX and self._is_pristine(name):
                self._spare.append(name)
            else:
                self._condemned.append(self._put_aside(name, self._root_fd))
        except MISSING:  # the job has removed it, or something that it is in
            self.missing(name)
        except OSError as error:
            self.lost.append(error)

    def _is_pristine(self, name: str) -> bool:
        """Nobody can set back the time of a last change. So where that was long past when the directory was last found
        empty, it still is if the time is the same."""
        path = self.path(name)
        found = os.lstat(path)
        state = found.st_ino, found.st_mode, found.st_ctime_ns
        if self._settled.get(name) == state:
            return True
        if found.st_mode != stat.S_IFDIR | _MODE or os.listdir(path):
            return False
        if time.time_ns() - found.st_ctime_ns > settling_ns(found.st_ctime_ns):
            self._settled[name] = state
        return True

    def missing(self, name: str) -> None:
        """A directory is not where it should be. Whatever it is that stands there goes, and what else was spare."""
        try:
            self._mend()
        except OSError as error:
            self.lost.append(error)
        self._condemn([name])

    def _condemn(self, names: Sequence[str]) -> None:
        """Those of them that are there."""
        for name in names:
            try:
                self._condemned.append(self._put_aside(name, self._root_fd))
            except MISSING:
                continue
            except OSError as error:
                self.lost.append(error)

    def sweep(self) -> bool:
        """Condemn what nobody has needed since the last call; whether there is anything spare left to be swept."""
        self._condemn(self._spare[: self._unneeded])
        del self._spare[: self._unneeded]
        self._unneeded = len(self._spare)
        return bool(self._spare)

    @property
    def untidy(self) -> bool:
        """Whether there is something for `tidy` to do."""
        return bool(self._condemned or self._work)

    def tidy(self) -> None:
        """Remove some of what was condemned."""
        for _ in range(ENTRIES_PER_TURN):
            if self._work is None:
                if not self._condemned:
                    return
                self._work = self._remove(self._condemned.pop())
            if next(self._work, self) is self:
                self._work = None

    def clear(self) -> None:
        """Remove everything, however long it takes: before the first job of a boot."""
        self._spare, self._unneeded = [], 0
        self._condemned = os.listdir(self._aside_fd)
        for name in os.listdir(self._root_fd):
            if name != ASIDE:
                self._condemned.append(self._put_aside(name, self._root_fd))
        while self.untidy:
            self.tidy()

    def _put_aside(self, name: str, parent_fd: int) -> str:
        """Rename into the directory aside; the new name."""
        if parent_fd == self._root_fd:
            self._settled.pop(name, None)
        self._number += 1
        aside = str(self._number)
        try:
            os.rename(name, aside, src_dir_fd=parent_fd, dst_dir_fd=self._aside_fd)
        except PermissionError:  # to move a directory elsewhere one must be allowed to write in it
            _unlock(name, parent_fd)
            os.rename(name, aside, src_dir_fd=parent_fd, dst_dir_fd=self._aside_fd)
        return aside

    def _remove(self, name: str) -> Iterator[None]:
        """Remove one of those aside, with a pause after each entry. What cannot be removed is noted and left."""
        try:
            if stat.S_ISDIR(os.lstat(name, dir_fd=self._aside_fd).st_mode):
                yield from self._empty(name)
                os.rmdir(name, dir_fd=self._aside_fd)
            else:
                os.unlink(name, dir_fd=self._aside_fd)
        except OSError as error:
            self.lost.append(error)

    def _empty(self, name: str) -> Iterator[None]:
        _unlock(name, self._aside_fd)
        fd = os.open(name, _DIRECTORY, dir_fd=self._aside_fd)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        self._condemned.append(self._put_aside(entry.name, fd))
                    else:
                        os.unlink(entry.name, dir_fd=fd)
                    yield
        finally:
            os.close(fd)


def settling_ns(change_ns: int) -> int:
    """How long after a change, from the time that it bears, no other can bear the same."""
    return SETTLED_FINE_NS if change_ns % FINE_NS else SETTLED_NS


def _is_there(path: str, fd: int) -> bool:
    """Whether an open directory still is what stands at its path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except MISSING:
        return False


def _unlock(name: str, parent_fd: int) -> None:
    """Give a directory back the rights of its owner. Opened by path only, so that no link is followed."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", _MODE)
    finally:
        os.close(fd)
