"""What the kernel itself holds of a job: its open files, its processor time as a last fence, and its place behind the
node and us where processors or memory are short.

`posix_spawn` knows no resource limits, and a wrapper that sets them would cost each job another exec. But they are
inherited: so the soft limit of open files is lowered on ourselves for the time of the call, when we open nothing, and
what cannot be changed back on ourselves is changed on the child as soon as it is there, some instants after its birth.
"""

import contextlib
import math
import os
import resource
from collections.abc import Sequence
from resource import RLIMIT_CPU, RLIMIT_NOFILE
from typing import Final

from node.executors import Limits

NICER: Final = 10  # a hundred jobs that compute, or a fork bomb, still leave us the processor when we wake
CPU_BEYOND_S: Final = 1  # the fence stands behind the limit: who watches (guard.py) comes first, and knows the reason
OOM_SCORE_RAISED: Final = 500  # as if they held half of the machine's memory more
OOM_SCORE_MAX: Final = 1000
_OOM_SCORE: Final = "/proc/self/oom_score_adj"


class Fences:
    """For the only thread of a process that starts children."""

    def __init__(self) -> None:
        """From now on we ourselves may open as many files as anybody may."""
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICER  # above the greatest, the kernel takes that
        self._files_given, self._files_most = resource.getrlimit(RLIMIT_NOFILE)
        self._all_files = self._files_most, self._files_most
        self.lift()

    def lower(self, limits: Limits, fds: Sequence[int]) -> None:
        """Before a child is started with these descriptors, which must have room. Until `lift` we open nothing."""
        files = self._files_given if limits.files is None else min(limits.files, self._files_most)
        resource.setrlimit(RLIMIT_NOFILE, (max(files, max(fds) + 1, len(fds)), self._files_most))

    def lift(self) -> None:
        resource.setrlimit(RLIMIT_NOFILE, self._all_files)

    def close_behind(self, pid: int, limits: Limits) -> None:
        """After a child was started: what it can no longer change."""
        try:
            os.setpriority(os.PRIO_PROCESS, pid, self._niceness)
        except OSError:
            pass  # it runs as somebody else
        if limits.files is not None:
            files = min(limits.files, self._files_most)  # of files there is no such thing as no limit
            _set(pid, RLIMIT_NOFILE, files, files)
        if limits.cpu_s is not None:
            fence_s = math.ceil(limits.cpu_s) + CPU_BEYOND_S
            _set(pid, RLIMIT_CPU, fence_s, fence_s + 1)


def _set(pid: int, what: int, soft: int, hard: int) -> None:
    try:
        resource.prlimit(pid, what, (soft, hard))
    except (OSError, ValueError):
        pass  # it runs as somebody else, or has a lower limit already


def be_taken_first() -> None:
    """Should memory run out, let the kernel end one of us, of which the largest is a job, rather than the node. All
    that we start inherits it."""
    with contextlib.suppress(OSError), open(_OOM_SCORE, "r+") as file:
        raised = min(int(file.read()) + OOM_SCORE_RAISED, OOM_SCORE_MAX)
        file.seek(0)
        file.write(str(raised))
