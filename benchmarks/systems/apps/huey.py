"""The Huey application: BENCH_STORE says where its queue is, a file of SQLite or a port of Redis."""

import os
from typing import Any, Final

from huey import RedisHuey, SqliteHuey

from benchmarks.systems import tasks


def queue(store: str, synced: bool = True) -> Any:
    if store.isdigit():
        return RedisHuey("bench", host="127.0.0.1", port=int(store))
    return SqliteHuey("bench", filename=store, fsync=synced)


def register(queue: Any) -> dict[str, Any]:
    return {task.__name__: queue.task()(task) for task in (tasks.root, tasks.command, tasks.sleep, tasks.gate)}


if "BENCH_STORE" in os.environ:  # in a consumer
    app: Final = queue(os.environ["BENCH_STORE"])
    registered: Final = register(app)
