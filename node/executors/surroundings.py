"""What a job finds around it: its environment, its directory, its standard input.

Rules: the environment is clean. A job gets the few names below, the mark by which a later boot finds what is left of
this one, and what came with the job; no setting, secret or descriptor of ours.
"""

import os
from collections.abc import Mapping
from typing import Final

from common.model import Outcome, Reason, Verdict
from node.executors import Start
from node.executors.processes import PATH_DEFAULT
from node.executors.scratch import Scratch

INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL")
MARK: Final = "JOBYARD_OWNER"


class Refused(Exception):
    """An attempt that cannot be started; the text is a sentence for whoever submitted the job."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    @property
    def stderr(self) -> bytes:
        return said(str(self))

    @property
    def outcome(self) -> Outcome:
        return Outcome(Verdict.FAILED, self.reason, stderr_bytes=len(self.stderr))


def said(sentence: str) -> bytes:
    """A line of ours in a job's standard error."""
    return f"jobyard: {sentence}\n".encode(errors="backslashreplace")


def mark_of(owner: str, scratch_root: str) -> str:
    """The value of MARK: the id of a data directory and its place, so that a copy elsewhere is another."""
    return f"{owner}:{scratch_root}"


def base_environment(ours: Mapping[str, str], mark: str) -> dict[str, str]:
    """What every job gets of our environment, and the mark."""
    base = {name: ours[name] for name in INHERITED if name in ours}
    base.setdefault("PATH", PATH_DEFAULT)
    base[MARK] = mark
    return base


def enter_directory(start: Start, scratch: Scratch) -> str | None:
    """Make the attempt's directory the current one. Answers the name of what it was lent, if it brings none of its own.
    Raises Refused."""
    if start.dir is not None:
        _enter_given(start.dir)
        return None
    try:
        return _enter_lent(scratch)
    except OSError as error:
        raise Refused(Reason.CANNOT_START, f"cannot make a directory for the job: {error.strerror}") from None


def _enter_lent(scratch: Scratch) -> str:
    name = scratch.lend()
    try:
        os.chdir(scratch.path(name))
    except OSError:  # a job has removed or locked it while it was nobody's
        scratch.missing(name)
        name = scratch.lend()
        os.chdir(scratch.path(name))
    return name


def _enter_given(path: str) -> None:
    if not path.startswith("/"):
        raise Refused(Reason.NO_DIRECTORY, f"the directory {path!r} is not an absolute path")
    try:
        os.chdir(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Refused(Reason.NO_DIRECTORY, f"cannot enter the directory {path!r}: {why}") from None


def memory_file(body: bytes) -> int:
    """A descriptor of an unnamed file in memory that holds `body`, at its beginning."""
    fd = os.memfd_create("body")
    with memoryview(body) as rest:
        written = 0
        while written < len(body):
            written += os.write(fd, rest[written:])
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
