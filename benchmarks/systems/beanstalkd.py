"""beanstalkd with its binlog, and two Python workers that reserve, run and delete, one job at a time.

It keeps no results: the end of many jobs is seen from its count of deletions; where the result of one is wanted, the
worker puts it into a tube for answers, as its users do.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import idlers
from benchmarks.processes import HOST, Child, free_port, wait_until
from benchmarks.systems.system import (
    CLIENTS_START_S,
    System,
    Work,
    each,
    fill_in_chunks,
    task_of,
    until_done,
)
from benchmarks.wire import Conversation, Dialect, crowd

JOBS: Final = b"jobs"
ANSWERS: Final = b"answers"


def _body_bytes(line: bytes) -> int:
    words = line.split()
    return int(words[-1]) + 2 if words and words[0] in (b"OK", b"RESERVED") else 0


PUTS: Final = Dialect(b"INSERTED", lambda line: 0)
TALKS: Final = Dialect(b"", _body_bytes)


def put(task: str, *arguments: object, answer: bool = False) -> bytes:
    body = json.dumps([task, arguments, answer]).encode()
    return b"put 100 0 600 %d\r\n%s\r\n" % (len(body), body)


class Beanstalkd(System):
    """See the module; `sync_ms` is what its option -f says."""

    sync_ms: int

    def version(self) -> str:
        return subprocess.run(["beanstalkd", "-v"], capture_output=True, text=True, check=True).stdout.split()[-1]

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self, directory: Path, workers: int) -> None:
        self._port = port = free_port()
        binlog = directory / "binlog"
        binlog.mkdir(exist_ok=True)
        command = ["beanstalkd", "-l", HOST, "-p", str(port), "-b", str(binlog), f"-f{self.sync_ms}"]
        server = Child(command, directory / "beanstalkd.log")
        self._children.append(server)
        wait_until(lambda: server.accepts(port), CLIENTS_START_S, "starting beanstalkd")
        worker = [sys.executable, "-m", "benchmarks.systems.apps.beanstalkd", str(port)]
        for number in range(workers):
            self._children.insert(0, Child(worker, directory / f"worker{number}.log"))
        self._talk = Conversation(port, TALKS)
        self._talk.ask(b"use %s\r\n" % JOBS)
        self._talk.ask(b"watch %s\r\n" % ANSWERS)
        wait_until(lambda: self._count("current-workers", b"stats") >= workers, CLIENTS_START_S, "starting the workers")

    # --- taking jobs in ------------------------------------------------------------------------------------------

    def submit(self, count: int, clients: int) -> float:
        if clients > 1:
            return crowd(self._port, PUTS, put("root"), count, clients)
        return self._talk.pipeline([put("root")] * count)

    def submit_each(self, count: int) -> list[float]:
        return each([lambda: self._talk.ask(put("root"))] * count)

    # --- having them done ----------------------------------------------------------------------------------------

    def end_to_end(self, work: Work, count: int) -> float:
        return self._run([put(task_of(work))] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        return self._run([put("sleep", duration) for duration in durations])

    def _run(self, requests: Sequence[bytes]) -> float:
        before = self.done()
        started = time.perf_counter()
        self._talk.pipeline(requests)
        until_done(self.done, before + len(requests))
        return time.perf_counter() - started

    def round_trips(self, work: Work, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            self._talk.ask(put(task_of(work), answer=True))
            line, _ = self._talk.ask(b"reserve\r\n")
            taken.append(time.perf_counter() - started)
            self._talk.ask(b"delete %s\r\n" % line.split()[1])
        return taken

    # --- a long queue --------------------------------------------------------------------------------------------

    def send_gate(self, begun: Path, opened: Path) -> None:
        self._talk.ask(put("gate", str(begun), str(opened)))

    def fill(self, count: int, seconds_max: float) -> int:
        return fill_in_chunks(lambda size: self._talk.pipeline([put("root")] * size), count, seconds_max)

    def idle_connections(self, count: int, seconds: float) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="jobyard-bench-") as name:
            idlers.make_room(count)  # which the server inherits
            self.start(Path(name), 0)
            try:
                return idlers.cost(self._port, b"use t\r\n", b"USING", count, self._children[0].pid, seconds)
            finally:
                self.stop()

    def done(self) -> int:
        return self._count("cmd-delete", b"stats-tube %s" % JOBS)

    def _count(self, name: str, question: bytes) -> int:
        _, body = self._talk.ask(question + b"\r\n")
        values = dict(line.split(": ", 1) for line in body.decode().splitlines() if ": " in line)
        return int(values.get(name, "0"))


class Synced(Beanstalkd):
    """Every write synced before it is acknowledged."""

    sync_ms = 0


class Periodic(Beanstalkd):
    """As it comes: a sync every 50 ms, so that up to 50 ms of acknowledged jobs can be lost."""

    sync_ms = 50
