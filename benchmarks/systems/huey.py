"""Huey, as documented: a consumer with two worker processes, results stored.

A result is asked for every 0.2 ms where it is awaited: Huey's own blocking read starts with 100 ms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import Child, script
from benchmarks.systems.apps import huey as application
from benchmarks.systems.library import Library, poll
from benchmarks.systems.redis_server import RedisServer, version_with_redis


class Huey(Library):
    """See the module."""

    def version(self) -> str:
        return version("huey")

    def _connect(self, store: str, directory: Path, workers: int) -> None:
        self._store = store
        self._queue = application.queue(store)
        self._tasks = application.register(self._queue)
        if workers:
            command = [*script("huey_consumer"), "benchmarks.systems.apps.huey.app"]
            command += ["--worker-type", "process", "--workers", str(workers), "--quiet"]
            self._children.insert(0, Child(command, directory / "consumer.log", {"BENCH_STORE": store}))
            self.wait_for_workers()

    def send(self, task: str, *arguments: object) -> Any:
        return self._tasks[task](*arguments)

    def fetch(self, sent: Any) -> Any:
        return poll(lambda: sent.get(preserve=True))

    def done(self) -> int:
        return int(self._queue.storage.result_store_size())

    def forget(self) -> None:
        self._queue.storage.flush_results()


class Sqlite(Huey):
    """`fsync=True`: PRAGMA synchronous=FULL."""

    def start(self, directory: Path, workers: int) -> None:
        self._connect(str(directory / "huey.db"), directory, workers)

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        synced = self._tasks
        self._tasks = application.register(application.queue(self._store, synced=False))
        try:
            yield
        finally:
            self._tasks = synced


class Redis(Huey):
    """`appendfsync always`."""

    def version(self) -> str:
        return version_with_redis("huey")

    def start(self, directory: Path, workers: int) -> None:
        self._redis = RedisServer(directory, self._children)
        self._connect(str(self._redis.port), directory, workers)

    def unsynced(self) -> Any:
        return self._redis.unsynced()
