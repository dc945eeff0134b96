"""What a map_reduce runs in the cluster: functions that travel whole, since nothing of ours need be there.

    items ──► mapped            ──► (1, [values])                      a chunk: how many of them, and a list of parts
    items ──► mapped_by_key     ──► (1, [[bytes], [bytes], …])         one part for each reducer, opened by it alone
    chunks ─► gathered          ──► (n, the same parts, longer)
    chunks ─► reduced           ──► reduce_fn(values)
    chunks ─► reduced_by_key    ──► {key: reduce_fn(key, values)}

Chunks come on standard input, a pickle each, in the order of the items. Who reduces counts them: rather an error than
an answer that something is missing from.

Rules: the standard library and cloudpickle only, and nothing at module level but functions, which find each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias

import cloudpickle

Chunk: TypeAlias = tuple[int, list[list[Any]]]


def mapped(map_fn: Callable[[Any], Any], items: list[Any]) -> Chunk:
    return 1, [[map_fn(item) for item in items]]


def mapped_by_key(map_fn: Callable[[Any], Iterable[tuple[Hashable, Any]]], reducers: int, items: list[Any]) -> Chunk:
    parts: list[dict[Hashable, list[Any]]] = [{} for _ in range(reducers)]
    for item in items:
        for key, value in map_fn(item):
            parts[stable_hash(key) % reducers if reducers > 1 else 0].setdefault(key, []).append(value)
    return 1, [[cloudpickle.dumps(part)] for part in parts]


def gathered(chunks: int) -> Chunk:
    return chunks, arrived(chunks)


def reduced(reduce_fn: Callable[[list[Any]], Any], chunks: int) -> Any:
    (values,) = arrived(chunks)
    return reduce_fn(values)


def reduced_by_key(
    reduce_fn: Callable[[Any, list[Any]], Any], place: int, reducers: int, chunks: int
) -> dict[Hashable, Any]:
    import pickle

    values: dict[Hashable, list[Any]] = {}
    for part in arrived(chunks, reducers)[place]:
        for key, some in pickle.loads(part).items():
            values.setdefault(key, []).extend(some)
    return {key: reduce_fn(key, all_of_it) for key, all_of_it in values.items()}


def arrived(expected: int, reducers: int = 1) -> list[list[Any]]:
    """The parts of all chunks on standard input, in order. Raises RuntimeError where some are not there."""
    import pickle

    count = 0
    parts: list[list[Any]] = []
    stream: Any = sys.stdin.buffer  # which can peek
    while stream.peek(1):
        chunks, more = pickle.load(stream)
        count += chunks
        parts = parts or [[] for _ in more]
        for part, values in zip(parts, more, strict=True):
            part += values
    if count != expected:
        raise RuntimeError(f"{count} of {expected} chunks came on standard input")
    return parts or [[] for _ in range(reducers)]


def stable_hash(key: Any) -> int:
    """The same in every process, and for all that are equal. Raises TypeError for what no such hash is known of."""
    import hashlib
    import numbers

    def digest(kind: bytes, data: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(kind + data, digest_size=8).digest(), "big")

    if isinstance(key, str):
        return digest(b"s", key.encode("utf-8", "surrogatepass"))
    if isinstance(key, bytes):
        return digest(b"b", key)
    if isinstance(key, numbers.Number):  # Python hashes equal numbers alike, whatever their class and the hash seed
        return digest(b"n", b"%d" % hash(key)) if key == key else 0  # nan has no such hash
    if key is None:
        return 0
    if isinstance(key, tuple):
        return digest(b"t", b"".join(b"%d," % stable_hash(each) for each in key))
    if isinstance(key, frozenset):
        return digest(b"f", b"".join(b"%d," % each for each in sorted(map(stable_hash, key))))
    raise TypeError(
        f"a key is a str, bytes, a number, None, or a tuple or frozenset of these, not {key!r} of type"
        f" {type(key).__qualname__}; with reducers=1 it may be anything that a dict takes"
    )


cloudpickle.register_pickle_by_value(sys.modules[__name__])
