"""A spawner with a node of a few lines around it, for the tests of the executors."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from common.limits import MIB
from node.executors import NO_LIMITS, Begun, Kill, Limits, Over, Peek, Printed, Returned, Start, TakeBack, Word
from node.executors.handle import Executors

OWNER = "k3f7qa"
BOUND_S = 30.0  # no test waits longer for anything; what it waits for comes in milliseconds


class Yard:
    """Submits attempts one ticket after another, and keeps what was reported of each."""

    def __init__(
        self, data_directory: Path, *, output_bytes_max: int, python: str, pythonpath: str, most: Limits, slots: int
    ) -> None:
        self._most = most
        self.scratch_root = data_directory / "scratch"
        self.executors = Executors(
            scratch_root=self.scratch_root,
            owner=OWNER,
            output_bytes_max=output_bytes_max,
            report=self._report,
            python=python,
            pythonpath=pythonpath,
            most=most,
            slots=slots,
        )
        self.begun: dict[str, Begun] = {}
        self.over: dict[str, Over] = {}
        self.returned: dict[str, Returned] = {}
        self.printed: dict[int, Printed] = {}
        self.reports: list[Word] = []  # all of them, in order
        self.insists = False  # what is returned is started again
        self._starts: dict[str, Start] = {}
        self._news = trio.Event()
        self._number = 0

    def start(self, kind: str, line: str, **more: object) -> str:
        """`limits` are within the yard's, as those of a job are within its node's."""
        self._number += 1
        ticket = f"{OWNER}-{self._number}"
        limits = Limits(**more.pop("limits", {})).within(self._most)  # type: ignore[arg-type]
        self._starts[ticket] = Start(ticket, 1, kind, line, limits=limits, **more)  # type: ignore[arg-type]
        self.executors.submit([self._starts[ticket]])
        return ticket

    def kill(self, ticket: str, signal: int) -> None:
        self.executors.submit([Kill(ticket, 1, signal)])

    def take_back(self, *tickets: str) -> None:
        self.executors.submit([TakeBack(ticket, 1) for ticket in tickets])

    async def peek(self, ticket: str, stdout_at: int = 0, stderr_at: int = 0) -> Printed:
        self._number += 1
        query_id = self._number
        self.executors.submit([Peek(query_id, ticket, 1, stdout_at, stderr_at)])
        return await self.answer_to(query_id)

    async def answer_to(self, query_id: int) -> Printed:
        await self._until(lambda: query_id in self.printed)
        return self.printed[query_id]

    async def run(self, kind: str, line: str, **more: object) -> Over:
        return await self.end_of(self.start(kind, line, **more))

    async def begin(self, kind: str, line: str, **more: object) -> tuple[str, int]:
        """Ticket and pid."""
        ticket = self.start(kind, line, **more)
        await self._until(lambda: ticket in self.begun)
        return ticket, self.begun[ticket].pid

    async def end_of(self, ticket: str) -> Over:
        await self._until(lambda: ticket in self.over)
        return self.over[ticket]

    async def return_of(self, ticket: str) -> None:
        await self._until(lambda: ticket in self.returned)

    async def _until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(BOUND_S):
            while not condition():
                await self._news.wait()

    def _report(self, news: Sequence[Word]) -> None:
        self.reports += news
        for value in news:
            if isinstance(value, Begun):
                assert value.ticket not in self.begun, f"{value.ticket} has begun twice"
                self.begun[value.ticket] = value
            elif isinstance(value, Printed):
                assert value.query_id not in self.printed, f"query {value.query_id} was answered twice"
                self.printed[value.query_id] = value
            elif isinstance(value, Returned):
                assert value.ticket not in {**self.begun, **self.over}, f"{value.ticket} had begun"
                if self.insists:
                    self.executors.submit([self._starts[value.ticket]])
                else:
                    self.returned[value.ticket] = value
            else:
                assert value.ticket not in {**self.over, **self.returned}, f"{value.ticket} was over twice"
                self.over[value.ticket] = value
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def yard_in(
    data_directory: Path,
    *,
    output_bytes_max: int = MIB,
    python: str = "",
    pythonpath: str = "",
    most: Limits = NO_LIMITS,
    slots: int = sys.maxsize,
) -> AsyncIterator[Yard]:
    yard = Yard(
        data_directory, output_bytes_max=output_bytes_max, python=python, pythonpath=pythonpath, most=most, slots=slots
    )
    async with yard.executors.running():
        yield yard


def stdout(over: Over) -> bytes:
    return over.output[: over.outcome.stdout_bytes]


def stderr(over: Over) -> bytes:
    assert len(over.output) == over.outcome.stdout_bytes + over.outcome.stderr_bytes
    return over.output[over.outcome.stdout_bytes :]


def is_alive(pid: int) -> bool:
    """Zombies do not live."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


async def until(condition: Callable[[], object], within_s: float = 5.0) -> float:
    """Wait for what no event tells of; how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        await trio.sleep(0.005)
    return time.monotonic() - began


def pids_in(path: Path, count: int) -> list[int]:
    """The numbers that jobs have written to a file, once there are so many; none before."""
    pids = [int(word) for word in path.read_text().split()] if path.exists() else []
    return pids if len(pids) >= count else []
