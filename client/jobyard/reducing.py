"""What Client has for maps and reduces; what they come to is in `mapreduce.py`, which is imported when it is needed: it
wants cloudpickle, as nothing else of the client does. `aio/reducing.py` is the same for AsyncClient.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, cast

from jobyard.model import CallOptions

if TYPE_CHECKING:
    from jobyard.mapreduce import Steps

REDUCERS: Final = 4  # jobs that share the keys of a map_reduce_by_key

A = TypeVar("A")
B = TypeVar("B")
K = TypeVar("K")
T = TypeVar("T")


class MapReduce:
    """The part of Client that is about maps and reduces."""

    def map_reduce(
        self,
        map_fn: Callable[[A], B],
        reduce_fn: Callable[[list[B]], T],
        items: Iterable[A],
        *,
        chunk_size: int | None = None,
        group: str | None = None,
        key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> T:
        """`reduce_fn` of the list of `map_fn` of each item, in their order, all of it called in the cluster; the list
        never travels through here. `chunk_size` items make one job. The jobs are in `group`, which is theirs alone.

        Under a `key` the same call can be made again, by another process too, and nothing is done twice; without one,
        all ends with whoever waits. Raises what the first call that failed raised, or JobFailed; the rest is cancelled.
        """
        from jobyard.mapreduce import Run, work_of

        run = Run(work_of(map_fn, reduce_fn, items, chunk_size), key, group, options)
        (value,) = go_through(self, run.steps())
        return cast(T, value)

    def map_reduce_by_key(
        self,
        map_fn: Callable[[A], Iterable[tuple[K, B]]],
        reduce_fn: Callable[[K, list[B]], T],
        items: Iterable[A],
        *,
        reducers: int = REDUCERS,
        chunk_size: int | None = None,
        group: str | None = None,
        key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> dict[K, T]:
        """`reduce_fn(key, values)` for each key of the pairs that `map_fn` gives for the items, as a dict. The keys are
        shared out among `reducers` jobs; all else is as for `map_reduce`."""
        from jobyard.mapreduce import Run, work_by_key_of

        run = Run(work_by_key_of(map_fn, reduce_fn, items, chunk_size, reducers), key, group, options)
        return dict(ChainMap(*go_through(self, run.steps())))


def go_through(yard: Any, steps: "Steps[T]") -> T:
    """What the steps come to."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step(yard)
            except BaseException as error:  # noqa: BLE001  the steps know what to do about it, or raise it
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
