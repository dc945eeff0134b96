"""RQ, as documented: two workers, each of which forks for every job."""

from pathlib import Path
from typing import Any

from rq import Queue

from benchmarks.processes import Child, script
from benchmarks.systems import tasks
from benchmarks.systems.library import RESULT_S_MAX, Library
from benchmarks.systems.redis_server import RedisServer, version_with_redis
from benchmarks.systems.system import each


class Rq(Library):
    """See the module."""

    def version(self) -> str:
        return version_with_redis("rq")

    def start(self, directory: Path, workers: int) -> None:
        self._redis = RedisServer(directory, self._children)
        self._queue: Any = Queue(connection=self._redis.queues)
        command = [*script("rq"), "worker", "--quiet", "--url", self._redis.url(0)]
        for number in range(workers):
            self._children.insert(0, Child(command, directory / f"worker{number}.log"))
        if workers:
            self.wait_for_workers()

    def send(self, task: str, *arguments: object) -> Any:
        return self._queue.enqueue(getattr(tasks, task), *arguments)

    def fetch(self, sent: Any) -> Any:
        return sent.latest_result(timeout=int(RESULT_S_MAX)).return_value

    def send_many(self, count: int) -> None:
        self._queue.enqueue_many([Queue.prepare_data(tasks.root) for _ in range(count)])

    def submit_bulk(self, count: int) -> float:
        return each([lambda: self.send_many(count)])[0]

    def done(self) -> int:
        return int(self._redis.queues.zcard(self._queue.finished_job_registry.key))

    def unsynced(self) -> Any:
        return self._redis.unsynced()
