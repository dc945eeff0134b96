"""Dramatiq with Redis for queue and results; two worker processes with one thread each."""

from pathlib import Path
from typing import Any

from benchmarks.processes import Child, script
from benchmarks.systems.apps.dramatiq import application
from benchmarks.systems.library import RESULT_S_MAX, Library
from benchmarks.systems.redis_server import RedisServer, version_with_redis


class Dramatiq(Library):
    """See the module."""

    def version(self) -> str:
        return version_with_redis("dramatiq")

    def start(self, directory: Path, workers: int) -> None:
        self._redis = RedisServer(directory, self._children)
        broker, results = self._redis.url(0), self._redis.url(1)
        _, self._actors = application(broker, results)
        if workers:
            command = [*script("dramatiq"), "benchmarks.systems.apps.dramatiq:broker"]
            command += ["--processes", str(workers), "--threads", "1"]
            env = {"BENCH_BROKER": broker, "BENCH_RESULTS": results}
            self._children.insert(0, Child(command, directory / "worker.log", env))
            self.wait_for_workers()

    def send(self, task: str, *arguments: object) -> Any:
        return self._actors[task].send(*arguments)

    def fetch(self, sent: Any) -> Any:
        return sent.get_result(block=True, timeout=int(RESULT_S_MAX * 1000))

    def done(self) -> int:
        return int(self._redis.results.dbsize())

    def forget(self) -> None:
        self._redis.results.flushdb()

    def unsynced(self) -> Any:
        return self._redis.unsynced()
