"""Calls and what became of them, as bytes: cloudpickle, so that closures, lambdas and what `__main__` defines travel.

A function of a module travels as the name of its module, which must be there where the call runs; nothing of ours has
to be. What comes back is opened here, which runs what it says: it comes from where one's own code runs.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobyard.errors import JobFailed
from jobyard.model import Outcome

try:
    import cloudpickle
except ImportError as error:
    raise ImportError(
        "functions travel as cloudpickle bytes, and it is not here: pip install 'jobyard[call]'"
    ) from error


class RemoteTraceback(Exception):
    """Where an exception was raised, as text: the cause of an exception that comes from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def call_bytes(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The body of a job of the kind `call`. Raises what cloudpickle raises for what it cannot write."""
    data: bytes = cloudpickle.dumps((function, args, dict(kwargs)))
    return data


def name_of(function: Callable[..., Any]) -> str:
    """What people see of a call: its module and name, in one line."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    text = f"{getattr(function, '__module__', None) or '?'}.{name}"
    return "".join(character if character.isprintable() and character != " " else "_" for character in text)[:200]


def value_of(outcome: Outcome) -> Any:
    """What a call returned. Raises whatever opening it raises."""
    return pickle.loads(outcome.stdout)


def exception_of(outcome: Outcome) -> BaseException:
    """What stands for a call that did not succeed: its exception, with the remote traceback as cause, or JobFailed."""
    text = outcome.stderr.decode(errors="replace")
    if outcome.reason != "exception":
        return JobFailed(outcome)
    if not outcome.stdout:
        return _caused(JobFailed(outcome, "its exception cannot be pickled"), RemoteTraceback(text))
    try:
        error = pickle.loads(outcome.stdout)
    except Exception as reason:  # noqa: BLE001  its class may do anything, or not be here
        return _caused(JobFailed(outcome, f"its exception cannot be opened here ({reason!r})"), RemoteTraceback(text))
    if not isinstance(error, BaseException):
        return JobFailed(outcome, f"a {type(error).__name__} came where an exception should be")
    return _caused(error, RemoteTraceback(text))


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def in_chunks(function: Callable[..., Any]) -> Callable[[Iterable[tuple[Any, ...]]], list[Any]]:
    """A function of many calls' arguments, which gives a list of their values. It is made here, so that it travels as
    it stands, and need not be there where it runs."""

    def chunk(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
        return [function(*row) for row in rows]

    return chunk
