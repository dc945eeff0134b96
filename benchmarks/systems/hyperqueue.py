"""HyperQueue from its Python package: server and one worker of two cores, in this process. Without its journal."""

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from benchmarks.systems.system import System, Unsupported, Work, each


class HyperQueue(System):
    """See the module. It writes the output of every task to a file."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster: Any = None

    def version(self) -> str:
        return version("hyperqueue")

    def start(self, directory: Path, workers: int) -> None:
        if not workers:
            raise Unsupported("without its journal it acknowledges nothing that is on disk")
        os.chdir(directory)
        self._cluster = LocalCluster(str(directory / "server"), WorkerConfig(cores=workers))
        self._client: Any = self._cluster.client()
        self._run(["/bin/true"], 1)

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster = None

    def kill(self) -> None:
        self.stop()

    def roots(self) -> list[int]:
        return [os.getpid()]

    def end_to_end(self, work: Work, count: int) -> float:
        if work != "exec":
            raise Unsupported("its tasks are processes")
        started = time.perf_counter()
        self._run(["/bin/true"], count)
        return time.perf_counter() - started

    def round_trips(self, work: Work, count: int) -> list[float]:
        if work != "exec":
            raise Unsupported("its tasks are processes")
        return each([lambda: self._run(["/bin/true"], 1)] * count)

    def makespan(self, durations: Sequence[float]) -> float:
        job = Job()
        for duration in durations:
            job.program(["sleep", f"{duration:f}"])
        started = time.perf_counter()
        self._client.wait_for_jobs([self._client.submit(job)])
        return time.perf_counter() - started

    def _run(self, command: list[str], count: int) -> None:
        job = Job()
        for _ in range(count):
            job.program(command)
        self._client.wait_for_jobs([self._client.submit(job)])
