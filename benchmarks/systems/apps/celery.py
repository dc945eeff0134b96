"""The Celery application: BENCH_BROKER and BENCH_RESULTS say where its Redis is."""

import os
from typing import Any

from celery import Celery

from benchmarks.systems import tasks


def application(broker: str, results: str) -> Any:
    app: Any = Celery("bench", broker=broker, backend=results)
    app.conf.task_acks_late = True
    for task in (tasks.root, tasks.command, tasks.sleep, tasks.gate):
        app.task(name=task.__name__)(task)
    return app


if "BENCH_BROKER" in os.environ:  # in a worker
    app = application(os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"])
