"""Python functions on a cluster, as `concurrent.futures` has them.

    from jobyard.futures import JobyardExecutor

    with JobyardExecutor() as executor:                   # JOBYARD_URL, or tcp://127.0.0.1:9000
        future = executor.submit(pow, 2, 10)
        print(future.result(), future.ticket)
        print(list(executor.map(lambda n: n * n, range(1000), chunksize=50)))

Callables, closures and lambdas travel as cloudpickle bytes: `pip install jobyard[call]`, here and where jobs run.

    calls.py     which requests all calls come to, over one connection    pure
    courier.py   the thread that carries them
    pickles.py   calls and their outcomes as bytes
    executor.py  JobyardExecutor and its futures
"""

from jobyard.futures.executor import JobyardExecutor, JobyardFuture
from jobyard.futures.pickles import RemoteTraceback

__all__ = ["JobyardExecutor", "JobyardFuture", "RemoteTraceback"]
