"""What people use from a shell on one machine: task-spooler, GNU parallel, xargs. Commands only; nothing is durable."""

import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.processes import wait_until
from benchmarks.systems.system import CLIENTS_START_S, System, Unsupported, Work, each

TRUE = "/bin/true"
SLEEP = "/bin/sleep"


def only_commands(work: Work) -> None:
    if work != "exec":
        raise Unsupported("it runs commands")


class Started(System):
    """A program that is given all jobs at once, runs them two at a time, and ends."""

    def start(self, directory: Path, workers: int) -> None:
        if not workers:
            raise Unsupported("it acknowledges nothing")
        self._workers = workers
        self.directory = directory

    def end_to_end(self, work: Work, count: int) -> float:
        only_commands(work)
        return self._run(TRUE, ["" for _ in range(count)])

    def makespan(self, durations: Sequence[float]) -> float:
        return self._run(SLEEP, [f"{duration:f}" for duration in durations])

    def command(self, program: str) -> list[str]:
        """What reads one argument of `program` from each line."""
        raise NotImplementedError

    def _run(self, program: str, arguments: Iterable[str]) -> float:
        lines = "".join(f"{argument or 0}\n" for argument in arguments).encode()
        started = time.perf_counter()
        subprocess.run(self.command(program), input=lines, stdout=subprocess.DEVNULL, check=True, cwd=self.directory)
        return time.perf_counter() - started


class Xargs(Started):
    """It passes the output of its jobs on as it comes."""

    def version(self) -> str:
        return _first_line(["xargs", "--version"]).split()[-1]

    def command(self, program: str) -> list[str]:
        return ["xargs", f"-P{self._workers}", "-n1", program]


class Parallel(Started):
    """It keeps the output of every job apart."""

    def version(self) -> str:
        return _first_line(["parallel", "--version"]).split()[-1]

    def command(self, program: str) -> list[str]:
        return ["parallel", "--will-cite", f"-j{self._workers}", program]


class TaskSpooler(System):
    """Each job is handed over by a process of its own, `tsp COMMAND`, which prints its number."""

    def version(self) -> str:
        return _first_line(["tsp", "-V"]).split(" - ")[0].split()[-1].lstrip("v")

    def start(self, directory: Path, workers: int) -> None:
        if not workers:
            raise Unsupported("it acknowledges nothing that is on disk")
        self._workers = workers
        os.environ.update(TS_SOCKET=str(directory / "socket"), TMPDIR=str(directory))
        self._ask("-S", str(workers))

    def stop(self) -> None:
        if "TS_SOCKET" in os.environ:
            self._ask("-K")
            del os.environ["TS_SOCKET"]

    def kill(self) -> None:
        self.stop()

    def end_to_end(self, work: Work, count: int) -> float:
        only_commands(work)
        return self._run([(TRUE,)] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        return self._run([(SLEEP, f"{duration:f}") for duration in durations])

    def _run(self, commands: Sequence[Sequence[str]]) -> float:
        started = time.perf_counter()
        for command in commands:
            self._ask(*command)
        wait_until(self._is_idle, CLIENTS_START_S, "the end of the queue", 0.005)
        taken = time.perf_counter() - started
        self._ask("-C")  # forgets what has ended
        return taken

    def _is_idle(self) -> bool:
        listed = self._ask("-l")
        return " queued " not in listed and " running " not in listed

    def round_trips(self, work: Work, count: int) -> list[float]:
        only_commands(work)
        return each([lambda: self._ask("-f", TRUE)] * count)

    def _ask(self, *arguments: str) -> str:
        return subprocess.run(["tsp", *arguments], capture_output=True, text=True, check=True).stdout


def _first_line(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
