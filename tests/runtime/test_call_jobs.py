"""Jobs of the kind `call`: a pickled function with its arguments comes in, the pickle of its value goes out.

Only the tests open pickles here; the spawner and the node pass on bytes. What a call has in common with one by name
(surroundings, prints, what is left behind) is held by test_python_jobs.py; here is what differs, and that the rest is
the same.
"""

import functools
import json
import os
import pickle
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from common.limits import MIB
from common.model import Reason, Verdict
from node.executors import Over
from tests.runtime.executing import Yard, is_alive, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system

ENDS = (Verdict.FAILED, Reason.EXCEPTION, 1)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    (tmp_path / "lib").mkdir()
    async with yard_in(tmp_path, pythonpath=f"{tmp_path}/lib") as yard:
        yield yard


def pickled(function: Callable[..., object], *args: object, **kwargs: object) -> bytes:
    """By value, whatever it is made of: the worker knows nothing of this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return cloudpickle.dumps((function, args, kwargs))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


async def call(yard: Yard, function: Callable[..., object], *args: object, **kwargs: object) -> Over:
    return await yard.run("call", getattr(function, "__qualname__", "?"), body=pickled(function, *args, **kwargs))


async def value(yard: Yard, function: Callable[..., object], *args: object, **kwargs: object) -> Any:
    over = await call(yard, function, *args, **kwargs)
    assert over.outcome.verdict is Verdict.SUCCEEDED, stderr(over).decode()
    return pickle.loads(stdout(over))


def ended(over: Over) -> tuple[Verdict, Reason | None, int | None]:
    return over.outcome.verdict, over.outcome.reason, over.outcome.exit


class Refusal(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)
        self.code = code


class WithoutPickle(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not me")


class OpensNoMore(Exception):
    """Its pickle is made, and then cannot be opened: it calls itself with one argument."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def large_error() -> Exception:
    error = LookupError("short")
    error.payload = b"x" * (64 * MIB)  # type: ignore[attr-defined]
    return error


def raises(error: BaseException) -> None:
    print("before")
    raise error


# --- how a call ends ---------------------------------------------------------------------------------------------


async def test_any_function_can_be_called_and_any_value_comes_back(yard: Yard) -> None:
    offset = 1j
    assert await value(yard, lambda x, *, y: {x + y + offset}, 1, y=2) == {3 + 1j}
    assert await value(yard, functools.partial(int, base=2), "101") == 5
    assert await value(yard, os.path.basename, "a/b") == "b"
    assert await value(yard, lambda: None) is None


async def test_the_line_is_for_people_only(yard: Yard) -> None:
    over = await yard.run("call", "whatever:this {} [is", body=pickled(len, "abc"))
    assert pickle.loads(stdout(over)) == 3
    assert pickle.loads(stdout(await yard.run("call", "", body=pickled(len, "abcd")))) == 4


async def test_an_exception_comes_back_and_its_traceback_is_the_last_thing_printed(yard: Yard) -> None:
    over = await call(yard, raises, Refusal(7, "for the test"))
    assert ended(over) == ENDS
    error = pickle.loads(stdout(over))
    assert (type(error).__name__, error.code, error.args) == ("Refusal", 7, (7, "for the test"))
    lines = stderr(over).decode().splitlines()
    assert lines[:2] == ["before", "Traceback (most recent call last):"]
    assert lines[-1].endswith("Refusal: (7, 'for the test')")
    assert b"child.py" not in stderr(over)


@pytest.mark.parametrize(
    "function", [lambda: raises(WithoutPickle()), lambda: raises(OpensNoMore(1, 2)), lambda: raises(large_error())]
)
async def test_an_exception_that_nobody_could_open_or_hold_leaves_only_its_traceback(
    yard: Yard, function: Callable[[], None]
) -> None:
    over = await call(yard, function)
    assert (*ended(over), stdout(over)) == (*ENDS, b"")
    assert stderr(over).splitlines()[-1].partition(b":")[0].split(b".")[-1] in {
        b"WithoutPickle",
        b"OpensNoMore",
        b"LookupError",
    }


async def test_a_value_that_has_no_pickle_is_an_exception_that_says_which(yard: Yard) -> None:
    over = await call(yard, lambda: (number for number in range(3)))
    assert ended(over) == ENDS
    last = stderr(over).decode().splitlines()[-1]
    assert last.startswith("TypeError: the returned value, of type generator, has no pickle: ")
    assert isinstance(pickle.loads(stdout(over)), TypeError)
    assert b"child.py" not in stderr(over)


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (b"no pickle", "UnpicklingError: "),
        (pickle.dumps(17), "TypeError: the body of a call must be the cloudpickle of (function, args, kwargs)"),
        (pickle.dumps((len, ())), "TypeError: the body of a call must be the cloudpickle of (function, args, kwargs)"),
        (b"cno_such_module\nfunction\n.", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
async def test_a_body_that_cannot_be_opened_is_an_exception(yard: Yard, body: bytes, last: str) -> None:
    over = await yard.run("call", "", body=body)
    assert ended(over) == ENDS
    assert last in stderr(over).decode().splitlines()[-1]
    assert isinstance(pickle.loads(stdout(over)), Exception)


async def test_a_call_without_a_body_cannot_be_started(yard: Yard) -> None:
    over = await yard.run("call", "len")
    assert ended(over) == (Verdict.FAILED, Reason.CANNOT_START, None)
    assert over.output == (
        b"jobyard: cannot start this: call needs a body, the cloudpickle of (function, args, kwargs)\n"
    )


async def test_leaving_and_dying_end_as_with_other_kinds(yard: Yard) -> None:
    for leave in (sys.exit, os._exit):
        assert ended(await call(yard, leave, 3)) == (Verdict.FAILED, Reason.EXIT, 3)
        over = await call(yard, leave, 0)
        assert over.outcome.verdict is Verdict.SUCCEEDED
        assert pickle.loads(stdout(over)) is None
    dies = await call(yard, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    assert (*ended(dies), stdout(dies)) == (Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGSEGV, b"")


async def test_a_value_beyond_the_limit_fails_and_nothing_is_cut(yard: Yard) -> None:
    over = await call(yard, lambda: b"x" * (64 * MIB))
    assert ended(over) == (Verdict.FAILED, Reason.OUTPUT, 1)
    assert b"more than 64 MiB" in over.output
    whole = await call(yard, lambda: b"x" * (64 * MIB - 100))
    assert (whole.outcome.verdict, len(pickle.loads(stdout(whole)))) == (Verdict.SUCCEEDED, 64 * MIB - 100)


# --- what a call finds, and leaves -------------------------------------------------------------------------------


async def test_a_call_finds_its_own_environment_and_directory_and_no_input(yard: Yard) -> None:
    def look() -> tuple[str | None, str, list[str], str]:
        return os.environ.get("JOBYARD_TICKET"), os.getcwd(), os.listdir("."), sys.stdin.read()

    over = await yard.run("call", "look", body=pickled(look), env=(("JOBYARD_TICKET", "t"),))
    assert pickle.loads(stdout(over)) == ("t", f"{yard.scratch_root}/1", [], "")


# --- what follows the pickle -------------------------------------------------------------------------------------


def lines_read() -> list[str]:
    return [line.rstrip() for line in sys.stdin]


def values_read() -> list[Any]:
    """As outputs of calls are read, one after the other."""
    values = []
    while sys.stdin.buffer.peek(1):  # type: ignore[attr-defined]
        values.append(pickle.load(sys.stdin.buffer))
    return values


def read_in_a_child() -> str:
    import subprocess

    return subprocess.run(["wc", "-c"], capture_output=True, text=True, check=True).stdout.strip()


def bytes_read_and_peak_kib() -> tuple[int, int]:
    import resource

    count = 0
    while some := sys.stdin.buffer.read(1 << 16):
        count += len(some)
    return count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def with_input(yard: Yard, input: bytes, function: Callable[..., object]) -> Any:
    over = await yard.run("call", "reads", body=pickled(function) + input)
    assert over.outcome.verdict is Verdict.SUCCEEDED, stderr(over).decode()
    return pickle.loads(stdout(over))


async def test_what_follows_the_pickle_is_the_standard_input_of_the_call(yard: Yard) -> None:
    assert await with_input(yard, "one\ntwö\n".encode(), lines_read) == ["one", "twö"]
    assert await with_input(yard, b"12345", read_in_a_child) == "5"
    assert await value(yard, lines_read) == []


async def test_outputs_of_calls_are_read_one_after_the_other(yard: Yard) -> None:
    printed = [pickle.dumps(value) for value in (1, "two", [3, 3, 3])]
    assert await with_input(yard, b"".join(printed), values_read) == [1, "two", [3, 3, 3]]


async def test_a_call_can_be_given_as_much_as_a_body_may_be_and_needs_no_more_memory_than_by_name(yard: Yard) -> None:
    by_name = await yard.run("py", "resource:getrusage [0]", body=bytes(64 * MIB))
    whole = 64 * MIB - len(pickled(bytes_read_and_peak_kib))
    count, peak_kib = await with_input(yard, bytes(whole), bytes_read_and_peak_kib)
    assert count == whole
    assert peak_kib - json.loads(stdout(by_name))[2] < 16 * 1024, "it was copied once more"


async def test_the_next_call_finds_nothing_of_an_input_that_was_not_read(yard: Yard) -> None:
    assert await with_input(yard, b"left over\n", functools.partial(pow, 2, 10)) == 1024
    assert await value(yard, lines_read) == []


async def test_prints_go_to_standard_error(yard: Yard) -> None:
    def prints() -> str:
        print("by print")
        os.write(1, b"by descriptor\n")
        return "value"

    over = await call(yard, prints)
    assert (pickle.loads(stdout(over)), stderr(over)) == ("value", b"by print\nby descriptor\n")


async def test_calls_by_name_and_pickled_ones_share_warm_workers(yard: Yard) -> None:
    pids = {await value(yard, os.getpid) for _ in range(3)}
    assert pids == {int(stdout(await yard.run("py", "os:getpid")))}


async def test_a_worker_that_a_call_left_dirty_is_replaced(yard: Yard) -> None:
    pid = await value(yard, os.getpid)
    left = await value(yard, lambda: os.posix_spawn("/bin/sleep", ["sleep", "100"], {}))
    await until(lambda: not is_alive(left))
    assert await value(yard, os.getpid) != pid


async def test_a_module_that_a_pickled_call_uses_is_loaded_anew_when_it_has_changed(yard: Yard, tmp_path: Path) -> None:
    module = tmp_path / "lib" / "changing.py"
    body = b"\x80\x02cchanging\nnumber\n)}\x87."  # (changing.number, (), {}), which is in no path of ours
    for number in range(3):
        module.write_text(f"def number(): return {number}" + "\n" * (number + 1))
        for _ in range(2):
            assert pickle.loads(stdout(await yard.run("call", "number", body=body))) == number


async def test_an_interpreter_without_cloudpickle_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "yard").mkdir()
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(bare.stat().st_mode | stat.S_IXUSR)
    async with yard_in(tmp_path / "yard", python=str(bare)) as yard:
        over = await call(yard, len, "abc")
        assert ended(over) == (Verdict.FAILED, Reason.CANNOT_START, None)
        assert stdout(over) == b""
        assert b"the kind call needs cloudpickle in " in stderr(over)
        assert stderr(over).endswith(b"install it there: python -m pip install cloudpickle\n")
        assert stdout(await yard.run("py", "math:sqrt [4]")) == b"2.0\n", "the worker serves on"
