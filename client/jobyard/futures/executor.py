"""JobyardExecutor: what `concurrent.futures` documents of executors and futures, with a cluster behind it.

Where the standard library's executors differ from each other it does as ProcessPoolExecutor: what cannot be pickled
fails its future and not `submit`, and an exception comes with the text of the remote traceback as its cause.

A future is running once the cluster has been seen to run it, which is asked once a second. Until then `cancel` gives
True; should the job have begun all the same, it is killed. `kill` is ours: it ends what runs, too.
"""

import enum
import functools
import itertools
import secrets
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any, Final, ParamSpec, TypeVar, Unpack

from jobyard.futures.courier import Courier
from jobyard.futures.pickles import call_bytes, exception_of, in_chunks, name_of, value_of
from jobyard.model import CallOptions, Job, Outcome, Ticket
from jobyard.protocol import encode_submit
from jobyard.settings import FilePath

P = ParamSpec("P")
T = TypeVar("T")

RANDOM_BYTES: Final = 12  # of what makes keys and groups unique


class Fate(enum.Enum):
    """What has been decided of a call, by whoever came first."""

    PENDING = enum.auto()
    RUNNING = enum.auto()
    CANCELLED = enum.auto()
    DONE = enum.auto()


class JobyardFuture(Future[T]):
    """A call on a cluster."""

    def __init__(self, end_job: Callable[[], None]) -> None:
        super().__init__()
        self._end_job = end_job
        self._ticket: Ticket | None = None
        self._fate = Fate.PENDING
        self._deciding = threading.Lock()

    @property
    def ticket(self) -> Ticket | None:
        """The ticket of its job; None until a node has taken it in."""
        return self._ticket

    def cancel(self) -> bool:
        """Cancels the call, unless it runs or is done; then False. Its job is not run, or killed where it has begun
        without our having heard of it."""
        if not self._decide(Fate.PENDING, Fate.CANCELLED):
            return self._fate is Fate.CANCELLED
        super().cancel()
        self.set_running_or_notify_cancel()  # tells those who wait
        self._end_job()
        return True

    def kill(self) -> bool:
        """Cancels the call, also while it runs: then its job is killed, and its exception is a CancelledError. False
        where it is done."""
        if self.cancel():
            return True
        if not self._decide(Fate.RUNNING, Fate.DONE):
            return False
        self.set_exception(CancelledError("killed while it ran"))
        self._end_job()
        return True

    # --- for the courier -------------------------------------------------------------------------------------------

    def taken(self, ticket: Ticket) -> None:
        """A node has its job."""
        self._ticket = ticket

    def begin(self) -> None:
        """It runs."""
        if self._decide(Fate.PENDING, Fate.RUNNING):
            self.set_running_or_notify_cancel()

    def settle(self, how: Outcome | BaseException) -> None:
        """It has ended."""
        self.begin()
        if not self._decide(Fate.RUNNING, Fate.DONE):
            return
        if isinstance(how, BaseException):
            self.set_exception(how)
        elif how.succeeded:
            self._open(how)
        else:
            self.set_exception(exception_of(how))

    def _open(self, outcome: Outcome) -> None:
        try:
            value = value_of(outcome)
        except BaseException as error:  # noqa: BLE001  opening a pickle may do anything
            self.set_exception(error)
        else:
            self.set_result(value)

    def _decide(self, now: Fate, then: Fate) -> bool:
        """Whether we are the one who brings it from one fate to the other."""
        with self._deciding:
            if self._fate is not now:
                return False
            self._fate = then
            return True


class JobyardExecutor(Executor):
    """Runs calls as jobs of the kind `call`. `url`, `token` and `tls_ca` as for Client; `options` are those of the
    jobs: `JobyardExecutor(retries=2, memory_bytes=2**30)`. Their `group` is a random one, unless it is given; by it
    they can be listed. One connection and, while calls are under way, one thread serve them all.

    When its node is lost, it goes on at the next of the url, with every future. When none has answered for a minute,
    the futures fail with Unreachable, and `submit` raises BrokenExecutor.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        group: str | None = None,
        tls_ca: FilePath | None = None,
        **options: Unpack[CallOptions],
    ) -> None:
        self._random = secrets.token_hex(RANDOM_BYTES)
        self._group = group or f"executor-{self._random}"
        self._options = options
        encode_submit(Job("call", "", **options))  # says now what is wrong with them
        self._courier = Courier(url, token, tls_ca, self._group)
        self._numbers = itertools.count(1)
        self._shut_down = False
        self._submitting = threading.Lock()
        self._finalizer = weakref.finalize(self, self._courier.close)

    @property
    def group(self) -> str:
        """The group of its jobs."""
        return self._group

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobyardFuture[T]:
        """The future of `fn(*args, **kwargs)`, which some node will call."""
        self._check_open()
        number = next(self._numbers)
        key = f"{self._random}-{number}"
        future: JobyardFuture[T] = JobyardFuture(functools.partial(self._courier.cancel, number))
        try:
            request = self._request(key, fn, args, kwargs)
        except Exception as error:  # noqa: BLE001  of cloudpickle, or of a method that it calls
            future.settle(error)
            return future
        with self._submitting:
            self._check_open()
            self._courier.submit(number, key, request, future)
        return future

    def _check_open(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._courier.broken is not None:
            raise BrokenExecutor(f"no more calls are taken: {self._courier.broken}") from self._courier.broken

    def _request(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        body = call_bytes(fn, args, kwargs)
        return encode_submit(Job("call", name_of(fn), body=body, key=key, group=self._group, **self._options))

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """`fn` of the items of the iterables, in their order. `chunksize` of them make one job."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = super().map(in_chunks(fn), _chunks(zip(*iterables, strict=False), chunksize), timeout=timeout)
        return itertools.chain.from_iterable(chunks)

    def kill_all(self) -> None:
        """Ends everything that is under way, also what runs. More calls may follow."""
        for future in self._courier.recipients():
            future.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls are taken. What is under way goes on; `cancel_futures` cancels what has not begun; `wait` waits
        until nothing is under way."""
        with self._submitting:
            self._shut_down = True
        if cancel_futures:
            for future in self._courier.recipients():
                future.cancel()
        if wait:
            self._courier.join()
        self._courier.close()


def _chunks(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    while chunk := tuple(itertools.islice(rows, size)):
        yield chunk
