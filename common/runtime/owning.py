"""Whose a data directory is: one process owns it, by an flock that goes with the process, however it ends.

LMDB itself would let two in. A reader that finds nobody there keeps others out while it reads.
"""

import errno
import fcntl
import os
from pathlib import Path


class StoreError(Exception):
    """The data directory cannot be used; the text says which, why, and what to do."""


class Damaged(StoreError):
    """The pages of the file are not whole: what is in it cannot be reached."""


class Failed(StoreError):
    """A commit could not be written: whether it can be read nobody knows, and the program must end."""


class InUse(StoreError):
    """Another process owns the directory."""


def share(directory: Path) -> tuple[int | None, bool]:
    """Keeps a directory that nobody uses from being taken while it is read; says whether somebody uses it."""
    if not (directory / "data.mdb").exists():
        raise StoreError(f"{directory} is no data directory: there is no data.mdb in it")
    try:
        fd = os.open(directory / "owner.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, False
    except OSError as error:
        raise StoreError(f"{directory} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return fd, True
    return fd, False


def own(directory: Path) -> int:
    """Takes the directory for this process; the lock goes with the process, however it ends."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(0o700)
        fd = os.open(directory / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise StoreError(f"{directory} cannot be locked: {error.strerror}") from error
        raise InUse(
            f"another process is using the data directory {directory}; set JOBYARD_DATA_DIR to another one"
        ) from None
    return fd
