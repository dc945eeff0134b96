"""The executors: they carry out what a node orders, in virtual time, and die with their node without a word.

How a job behaves stands in its line, so that whoever submits it chooses:

    true                ends well after a short time          exit 3       ends so
    sleep 20            prints its body and takes 20 s        crash        takes its node down when it begins
    print 100           prints 100 bytes and ends well        cat          prints its body
    stubborn 20         takes 20 s and ignores SIGTERM        cannot       cannot be started
    say                 prints which attempt it is

A line that begins with none of these words does what `true` does. Where news is being reported while the node is
stopped, it waits in the pipe; the job itself goes on.
"""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import attrs
import trio

import node.backlog
from common.messages import AttemptId
from common.model import Outcome, Reason, Verdict
from node.executors import Begun, Kill, Order, Over, Peek, Printed, Returned, Start, TakeBack, Word
from node.executors.commands import outcome_of_exit
from tests.simulation.agenda import Agenda
from tests.simulation.network import Waiter

BEGIN_S: Final = (0.001, 0.01)  # from the order to the process
SHORT_S: Final = ((0.002, 0.2), (0.0005, 0.01))  # of a job that says nothing of its time, by the boot
CRASH_S: Final = (0.0, 0.05)
SIGNAL_S: Final = (0.0005, 0.01)  # from a signal to the end
STALL_S: Final = 0.05  # what is in line and does not move for so long goes back
REPORT_S: Final = (0.0001, 0.001)


@contextmanager
def soon_thought_short() -> Iterator[None]:
    """A few short attempts are enough to have others go ahead of a slot, or hardly any would in a story so short."""
    long_s = node.backlog.LONG_S
    node.backlog.LONG_S = 0.01  # type: ignore[misc]
    try:
        yield
    finally:
        node.backlog.LONG_S = long_s  # type: ignore[misc]


class Place(Protocol):
    """What the executors know of the boot that they belong to."""

    alive: bool

    def reaches(self, what: str) -> bool: ...

    def job_began(self, id: AttemptId, stdin: bytes) -> None: ...

    def job_over(self, id: AttemptId, outcome: Outcome, output: bytes) -> None: ...

    def job_crashes(self) -> None:
        """The node is killed by what it runs."""


@attrs.define(eq=False)
class Running:
    start: Start
    begun_at: float | None = None
    signals: list[int] = attrs.field(factory=list)  # that came before it began
    output: bytes = b""
    ended: bool = False

    @property
    def id(self) -> AttemptId:
        return (self.start.ticket, self.start.attempt)


class Executors:
    """All jobs of one boot of a node."""

    def __init__(self, agenda: Agenda, chance: random.Random, place: Place, slots: int) -> None:
        self._agenda = agenda
        self._chance = chance
        self._place = place
        self._short_s = chance.choice(SHORT_S)
        self._running: dict[AttemptId, Running] = {}
        self._free = slots
        self._line: list[Start] = []
        self._moved_at = 0.0
        self._news: list[Word] = []
        self._reporter = Waiter()

    def submit(self, batch: Sequence[Order]) -> None:
        if not self._place.alive:
            return
        for order in batch:
            if isinstance(order, Start):
                self._line.append(order)
                self._advance()
            elif isinstance(order, TakeBack):
                self._take_back(order)
            elif isinstance(order, Kill):
                self._kill(order)
            else:
                self._peek(order)

    async def report(self, report: Callable[[Sequence[Word]], None]) -> None:
        """Hands the node its news, in batches, as the task of a process does that reads a pipe."""
        while True:
            if not self._news:
                await self._reporter.wait()
            news, self._news = self._news, []
            report(news)
            await trio.lowlevel.checkpoint()

    def lose_all(self) -> int:
        """The spawner has died: nothing of what ran is left, and the node is told so. Returns how many ran."""
        lost, self._running = list(self._running.values()), {}
        line, self._line = self._line, []
        for job in lost:
            self._over(job, Outcome(Verdict.CRASHED), b"")
        for start in line:
            self._tell(Returned(start.ticket, start.attempt))
        return len(lost)

    # --- orders --------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        while self._line and self._line[0].slots <= self._free:
            self._free -= self._line[0].slots
            self._moved_at = trio.current_time()
            self._start(self._line.pop(0))
        if self._line:
            self._later((STALL_S, STALL_S), self._return_stalled)

    def _return_stalled(self) -> None:
        if trio.current_time() >= self._moved_at + STALL_S:
            line, self._line = self._line, []
            for start in line:
                self._tell(Returned(start.ticket, start.attempt))

    def _take_back(self, order: TakeBack) -> None:
        for start in self._line:
            if (start.ticket, start.attempt) == (order.ticket, order.attempt):
                self._line.remove(start)
                self._tell(Returned(order.ticket, order.attempt))
                return

    def _start(self, start: Start) -> None:
        job = Running(start)
        self._running[job.id] = job
        self._later(BEGIN_S, lambda: self._begin(job))

    def _kill(self, order: Kill) -> None:
        job = self._running.get((order.ticket, order.attempt))
        if job is None:
            return
        if job.begun_at is None:
            job.signals.append(order.signal)
        else:
            self._signal(job, order.signal)

    def _peek(self, order: Peek) -> None:
        job = self._running.get((order.ticket, order.attempt))
        if job is None:
            self._tell(Printed(order.query_id, running=False))
        else:
            self._tell(Printed(order.query_id, running=True, stdout=job.output[order.stdout_at :]))

    # --- the life of a job ---------------------------------------------------------------------------------------

    def _begin(self, job: Running) -> None:
        if job.ended or self._place.reaches("the start of a job"):
            return
        word, argument = _behaviour(job.start.line)
        if word == "cannot":
            text = b"jobyard: cannot start this\n"
            self._end(job, Outcome(Verdict.FAILED, Reason.CANNOT_START, stderr_bytes=len(text)), text)
            return
        job.begun_at = trio.current_time()
        self._place.job_began(job.id, job.start.body)
        self._tell(Begun(*job.id, pid=1))
        job.output = _output(word, argument, job.start)
        for number in job.signals:
            self._signal(job, number)
        if word == "crash":
            self._later(CRASH_S, lambda: None if job.ended else self._place.job_crashes())
        elif word in ("sleep", "stubborn"):
            self._agenda.after(argument, lambda: self._exit(job, 0))
        else:
            self._later(self._short_s, lambda: self._exit(job, int(argument) if word == "exit" else 0))

    def _signal(self, job: Running, number: int) -> None:
        if number == signal.SIGKILL or _behaviour(job.start.line)[0] != "stubborn":
            self._later(SIGNAL_S, lambda: self._exit(job, -number))

    def _exit(self, job: Running, code: int) -> None:
        if job.ended or not self._place.alive or self._place.reaches("the end of a job"):
            return
        assert job.begun_at is not None
        seconds = round(trio.current_time() - job.begun_at, 6)
        output = job.output if code >= 0 else b""
        self._end(job, outcome_of_exit(code, seconds, len(output)), output)

    def _end(self, job: Running, outcome: Outcome, output: bytes) -> None:
        del self._running[job.id]
        self._over(job, outcome, output)

    def _over(self, job: Running, outcome: Outcome, output: bytes) -> None:
        job.ended = True
        self._free += job.start.slots
        self._place.job_over(job.id, outcome, output)
        self._tell(Over(*job.id, outcome, output))
        self._advance()

    # --- time ----------------------------------------------------------------------------------------------------

    def _tell(self, news: Word) -> None:
        def arrives() -> None:
            self._news.append(news)
            self._reporter.wake()

        self._later(REPORT_S, arrives)

    def _later(self, range_s: tuple[float, float], call: Callable[[], object]) -> None:
        def unless_dead() -> None:
            if self._place.alive:
                call()

        self._agenda.after(self._chance.uniform(*range_s), unless_dead)


def _behaviour(line: str) -> tuple[str, float]:
    """What the line asks for, and its number."""
    word, *rest = line.split() or [""]
    if word not in _WORDS:
        return "true", 0.0
    try:
        return word, float(rest[0]) if rest else 0.0
    except ValueError:
        return "true", 0.0


_WORDS: Final = ("true", "exit", "sleep", "crash", "print", "cat", "stubborn", "cannot", "say")


def _output(word: str, argument: float, start: Start) -> bytes:
    if word == "print":
        return (b"0123456789" * (int(argument) // 10 + 1))[: int(argument)]
    if word == "say":
        return f"{start.ticket}.{start.attempt}\n".encode()
    return start.body if word in ("cat", "sleep") else b""
