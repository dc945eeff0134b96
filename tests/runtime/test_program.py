"""How a program ends: an exit status, and a last word in the log that a machine can read like the others."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import lmdb
import pytest
import structlog
import trio

from common.runtime import logs, program
from common.runtime.owning import Failed, InUse, StoreError
from common.runtime.ports import CannotListen
from common.runtime.program import run_program


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def status_of(main: Callable[[], Awaitable[int]]) -> int:
    """The exit status of a program that logs to the standard error of this moment."""
    logs.configure("json", "info", program="node")
    return run_program(main)


def raising(error: BaseException) -> Callable[[], Awaitable[int]]:
    """A program that fails while a task of it runs, as both do."""

    async def main() -> int:
        async def fail() -> None:
            raise error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        return 0

    return main


def raising_alone(error: BaseException) -> Callable[[], Awaitable[int]]:
    async def main() -> int:
        raise error

    return main


def last_word(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().err.splitlines()
    entry: dict[str, Any] = json.loads(line)
    return entry


@pytest.mark.parametrize(
    ("error", "status", "event"),
    [
        (InUse("taken"), program.EX_TEMPFAIL, "store.in_use"),
        (StoreError("no"), program.EX_IOERR, "store.unusable"),
        (Failed("no"), program.EX_IOERR, "store.failed"),
        (CannotListen("no"), program.EX_UNAVAILABLE, "address.unusable"),
        (lmdb.MapFullError("full"), program.EX_IOERR, "store.failed"),
        (ValueError("a mistake"), program.OUR_MISTAKE, "program.failed"),
    ],
)
def test_what_ends_a_program_has_a_status_and_one_line_of_json(
    error: Exception, status: int, event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(raising_alone(error)) == status
    entry = last_word(capsys)
    assert (entry["event"], entry["level"]) == (event, "critical")


def test_a_mistake_in_a_task_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raising(ValueError("a mistake"))) == program.OUR_MISTAKE
    entry = last_word(capsys)
    assert entry["event"] == "program.failed"
    assert "ValueError: a mistake" in entry["exception"]
    assert "in fail" in entry["exception"]


def test_the_store_that_fails_in_a_task_is_still_told_as_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raising(StoreError("gone"))) == program.EX_IOERR
    assert last_word(capsys)["problem"] == "gone"


def test_an_interrupt_before_signals_are_ours_ends_the_program_as_python_does() -> None:
    with pytest.raises(KeyboardInterrupt):
        status_of(raising_alone(KeyboardInterrupt()))
