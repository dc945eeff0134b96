"""`docs/python.md` leaves nothing out: every public name, method, option and error of the client is there.

That its examples run is held by `tests/system/test_python_document.py`.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import jobyard
import jobyard.aio
import jobyard.futures
import jobyard.joblib
from jobyard import Client, JobOptions
from jobyard.aio import AsyncClient
from jobyard.aio.reducing import MapReduce as AsyncMapReduce
from jobyard.reducing import MapReduce

DOCUMENT: Final = Path(__file__).parents[1] / "docs/python.md"

_WORD = re.compile(r"\w+")


def code() -> str:
    """What stands in backticks, in a line or fenced."""
    text = DOCUMENT.read_text()
    return " ".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))


def public_names() -> Iterator[str]:
    for module in (jobyard, jobyard.aio, jobyard.futures):
        yield from module.__all__
    yield from (name for name, value in vars(jobyard.joblib).items() if _is_own(name, value))
    for of in (Client, MapReduce, jobyard.futures.JobyardExecutor, jobyard.futures.JobyardFuture):
        yield from (name for name in vars(of) if not name.startswith("_") and name not in _FOR_OTHERS)
    yield from JobOptions.__optional_keys__


_FOR_OTHERS: Final = {"taken", "begin", "settle", "close", "shutdown"}  # the courier's, and what every such class has


def _is_own(name: str, value: Any) -> bool:
    return not name.startswith("_") and (name == "NAME" or getattr(value, "__module__", "") == "jobyard.joblib")


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_every_public_name_is_documented(name: str) -> None:
    assert name in _WORD.findall(code()), f"docs/python.md does not tell of {name}"


def test_the_async_client_has_the_methods_of_the_blocking_one() -> None:
    def signatures(of: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(of).items()
            if not name.startswith("_")
        }

    assert signatures(Client) == signatures(AsyncClient)
    assert signatures(MapReduce) == signatures(AsyncMapReduce)
