"""Warm Python workers: the processes of the kinds `py` and `call`, each running one call at a time, many one after
another.

A worker is started when a call comes and none is idle; so there are as many as were ever needed at the same time.
One that has died is gone; one that a call left dirty, or whose module has changed, is killed with its whole group.
A call with limits of its own gets a worker of its own, which is killed after it: what the kernel holds of them is
for the life of a process. A single worker is in `worker.py`.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from common.codec import replace
from common.model import Reason
from node.executors import Limits, Start
from node.executors.calls import KINDS, Call, worker_setup
from node.executors.commands import YOUNG_S
from node.executors.guard import Guard
from node.executors.loop import Loop
from node.executors.processes import Family
from node.executors.scratch import Scratch
from node.executors.surroundings import Refused
from node.executors.wire import Setup
from node.executors.worker import Worker

CHILD: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
GIVEN_MIN: Final = 32  # so many that it will not be idle in the next half of a millisecond


class Workers:
    """The warm workers of one interpreter. `on_back` is given the calls that were given to a worker and that it has not
    begun, to give them away again; `is_full` says whether no slot is free."""

    def __init__(
        self,
        loop: Loop,
        family: Family,
        guard: Guard,
        scratch: Scratch,
        env: Mapping[str, str],
        setup: Setup,
        on_back: Callable[[Sequence[Call]], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._loop, self._family, self.guard, self.scratch, self.on_back = loop, family, guard, scratch, on_back
        self._is_full = is_full
        self._python = setup.python or sys.executable
        self._env = env
        self._setup = worker_setup([path for path in setup.pythonpath.split(os.pathsep) if path], env)
        self._most = setup.most
        self._may_be_given_ahead = setup.most.cpu_s is None and setup.most.memory_bytes is None
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._idle: list[Worker] = []
        self._busy: dict[Worker, None] = {}
        self._looks = False

    def begin(self, call: Call) -> None:
        """Give a call to a worker that is idle, or to a new one. Raises Refused."""
        if call.limits != self._most:
            worker = self._start(call.limits, for_one_call=True)
        elif self._idle:
            worker = self._idle.pop()
        else:
            worker = self._start(replace(self._most, cpu_s=None), for_one_call=False)
        self._busy[worker] = None
        if not self._looks:
            self._looks = True
            self._loop.after(YOUNG_S, self._look)
        worker.run(call)

    def may_go_ahead(self, start: Start) -> bool:
        """Whether this could be given to a worker that runs another call. Not a call whose processor time or memory is
        watched, because nobody would know where its use begins (its processes begin with it: who leaves any behind
        has no call after it); nor one that needs more slots than the call before it leaves, or a directory that is
        not there for all."""
        if not self._may_be_given_ahead or start.kind not in KINDS:
            return False
        return start.slots == 1 and start.dir is None and start.limits == self._most

    def able(self) -> list[Worker]:
        """Who runs a call, and may be given others to run after it."""
        return [worker for worker in self._busy if worker.takes_more]

    def take_back(self) -> None:
        """Have every worker hand back what it has not begun."""
        for worker in list(self._busy):
            worker.take_back()

    def hold_ahead(self, id: tuple[str, int]) -> bool:
        """Whether a worker was given this call ahead, and has not begun it."""
        return any(worker.holds_ahead(id) for worker in self._busy)

    @property
    def are_busy_for_long(self) -> bool:
        """Whether every worker that runs a call has others to run after it."""
        return bool(self._busy) and min([worker.given for worker in self._busy]) >= GIVEN_MIN

    def idle(self, worker: Worker) -> None:
        self._busy.pop(worker, None)
        self._idle.append(worker)

    def gone(self, worker: Worker) -> None:
        self._busy.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)

    def _look(self) -> None:
        for worker in list(self._busy):
            worker.look()
            if worker.given > 1 and not self._is_full():
                worker.take_back()  # or one would sit on many while another is idle
        self._looks = bool(self._busy)
        if self._looks:
            self._loop.after(YOUNG_S, self._look)

    def _start(self, limits: Limits, *, for_one_call: bool) -> Worker:
        worker = Worker(self, self._loop, limits, for_one_call=for_one_call)
        try:
            worker.begin(self._family, (self._python, CHILD, self._setup), self._env, self._null)
        except OSError as error:
            why = f"cannot start Python, {self._python!r}: {error.strerror}"
            raise Refused(Reason.CANNOT_START, why) from None
        return worker
