"""A joblib backend: what `joblib.Parallel` runs, and so scikit-learn and others, runs on a cluster.

    import joblib
    import jobyard.joblib

    jobyard.joblib.register()
    with joblib.parallel_config(backend="jobyard", retries=1):      # url=…, and the options of jobs
        GridSearchCV(SVC(), grid).fit(data, target)

A batch of joblib's is a job of the kind `call`. How many calls make a batch joblib finds out by itself, so that a batch
takes long enough to be worth a job. It needs joblib 1.5 and cloudpickle, `pip install jobyard[joblib]`; where jobs run,
joblib and whatever the calls need.
"""

from collections.abc import Callable
from typing import Any, Final, Unpack

from joblib import register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)

from jobyard.client import Client
from jobyard.futures import JobyardExecutor, JobyardFuture
from jobyard.model import CallOptions
from jobyard.settings import FilePath

NAME: Final = "jobyard"


def register(*, make_default: bool = False) -> None:
    """Makes `backend="jobyard"` known to joblib; as the default, if you like."""
    register_parallel_backend(NAME, JobyardBackend, make_default=make_default)


class JobyardBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """The arguments are those of JobyardExecutor; those of joblib come by name.

    `n_jobs` is by default -1: as many as there are slots in the cluster. A job has its slots, one unless `slots` says
    more, for all it does: numeric libraries are told to use as many threads, and a Parallel inside a call runs in as
    many threads. `inner_max_num_threads` says otherwise for the former.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        group: str | None = None,
        tls_ca: FilePath | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Unpack[CallOptions],
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._url = url
        self._token = token
        self._group = group
        self._tls_ca = tls_ca
        self._options = options
        self._executor: JobyardExecutor | None = None
        self.parallel: Any = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls may run at once: `n_jobs`, where negative numbers count down from the slots of the cluster."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is not None and n_jobs > 0:
            return n_jobs
        slots = self._cluster_slots()
        return max(slots + 1 + (self.default_n_jobs if n_jobs is None else n_jobs), min(1, slots))

    def _cluster_slots(self) -> int:
        """Of the nodes that take jobs."""
        with Client(self._url, self._token, tls_ca=self._tls_ca) as client:
            return sum(node.slots for node in client.nodes() if node.state == "alive")

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """At the beginning of a Parallel call, or of a with block of it."""
        self.parallel = parallel
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> JobyardFuture[Any]:
        """One batch."""
        if self._executor is None:
            options = self._options | {"env": self._environment()}
            self._executor = JobyardExecutor(self._url, self._token, group=self._group, tls_ca=self._tls_ca, **options)
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: JobyardFuture[Any]) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call has failed, or the caller was interrupted: nobody waits for the others any more."""
        if self._executor is not None:
            self._executor.kill_all()

    def terminate(self) -> None:
        """At the end of a Parallel call, or of its with block. The executor stays: it has no thread while it is idle,
        and hangs up when this backend is gone."""
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """For a Parallel inside a call. It never submits: jobs that wait for jobs would fill the slots."""
        level = (self.nesting_level or 0) + 1
        slots = self._slots()
        if slots == 1:
            return SequentialBackend(nesting_level=level), None
        return ThreadingBackend(nesting_level=level), slots

    def _slots(self) -> int:
        return self._options.get("slots") or 1

    def _environment(self) -> dict[str, str]:
        """Tells numeric libraries how many threads they may use; what the caller has set is stronger."""
        threads = self.inner_max_num_threads or self._slots()
        return dict.fromkeys(self.MAX_NUM_THREADS_VARS, str(threads)) | dict(self._options.get("env") or {})
