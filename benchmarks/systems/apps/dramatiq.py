"""The Dramatiq application: BENCH_BROKER and BENCH_RESULTS say where its Redis is."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.systems import tasks


def application(broker: str, results: str) -> tuple[Any, dict[str, Any]]:
    """The broker, and the actors by name."""
    made = RedisBroker(url=broker)
    made.add_middleware(Results(backend=RedisBackend(url=results), store_results=True))
    dramatiq.set_broker(made)
    actors = (tasks.root, tasks.command, tasks.sleep, tasks.gate)
    return made, {task.__name__: dramatiq.actor(task, broker=made) for task in actors}


if "BENCH_BROKER" in os.environ:  # in a worker
    broker, _ = application(os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"])
