"""Celery with Redis for queue and results, acks_late so that a killed worker loses no job; two prefork workers."""

from pathlib import Path
from typing import Any

from benchmarks.processes import Child, script
from benchmarks.systems.apps.celery import application
from benchmarks.systems.library import RESULT_S_MAX, Library
from benchmarks.systems.redis_server import RedisServer, version_with_redis


class Celery(Library):
    """See the module."""

    def version(self) -> str:
        return version_with_redis("celery")

    def start(self, directory: Path, workers: int) -> None:
        self._redis = RedisServer(directory, self._children)
        broker, results = self._redis.url(0), self._redis.url(1)
        self._app = application(broker, results)
        if workers:
            command = [*script("celery"), "-A", "benchmarks.systems.apps.celery:app", "worker"]
            command += ["--pool", "prefork", "--concurrency", str(workers), "--loglevel", "ERROR"]
            env = {"BENCH_BROKER": broker, "BENCH_RESULTS": results}
            self._children.insert(0, Child(command, directory / "worker.log", env))
            self.wait_for_workers()

    def send(self, task: str, *arguments: object) -> Any:
        return self._app.tasks[task].delay(*arguments)

    def fetch(self, sent: Any) -> Any:
        return sent.get(timeout=RESULT_S_MAX)

    def done(self) -> int:
        return int(self._redis.results.dbsize())

    def forget(self) -> None:
        self._redis.results.flushdb()

    def unsynced(self) -> Any:
        return self._redis.unsynced()
