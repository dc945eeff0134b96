"""Dask.distributed: a local cluster of two processes with one thread each. All of it is in memory."""

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.systems import tasks
from benchmarks.systems.system import System, Unsupported, Work, each, task_of


class Dask(System):
    """See the module. Its scheduler is in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None

    def version(self) -> str:
        return version("distributed")

    def start(self, directory: Path, workers: int) -> None:
        if not workers:
            raise Unsupported("it acknowledges nothing that is on disk")
        os.chdir(directory)
        cluster: Any = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(directory),
        )
        self._client = Client(cluster)
        self._client.submit(tasks.root, pure=False).result()

    def stop(self) -> None:
        if self._client is not None:
            self._client.cluster.close()
            self._client.close()
            self._client = None

    def kill(self) -> None:
        self.stop()

    def roots(self) -> list[int]:
        return [os.getpid()]

    def end_to_end(self, work: Work, count: int) -> float:
        return self._run(getattr(tasks, task_of(work)), count)

    def makespan(self, durations: Sequence[float]) -> float:
        started = time.perf_counter()
        self._client.gather(self._client.map(tasks.sleep, durations, pure=False))
        return time.perf_counter() - started

    def _run(self, task: Any, count: int) -> float:
        started = time.perf_counter()
        self._client.gather([self._client.submit(task, pure=False) for _ in range(count)])
        return time.perf_counter() - started

    def round_trips(self, work: Work, count: int) -> list[float]:
        return each([lambda: self._client.submit(getattr(tasks, task_of(work)), pure=False).result()] * count)
