"""Jobs of the kind `py`: what a call finds, how it ends, and that the next in its worker finds nothing of it."""

import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.model import Outcome, Reason, Verdict
from node.executors import Over
from tests.runtime.executing import Yard, is_alive, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system

JOBS = """
import os, signal, subprocess, sys, threading, time

def add(a, b=0): return a + b
def pid(): return os.getpid()
def prints():
    print("to stdout"); print("to stderr", file=sys.stderr)
    os.write(1, b"by descriptor\\n"); subprocess.run(["echo", "by a child"]); print("last", end="")
def fails(): print("before"); raise LookupError("for the test")
def leaves(code): sys.exit(code)
def dies(code): os._exit(code)
def killed(number): os.kill(os.getpid(), number)
def body(): return [sys.stdin.readline(), len(sys.stdin.read())]
def no_json(): return object()
def not_a_number(): return float("nan")
def text(): return {"ä": ["\\u2713", None, True, 1.5]}
def surroundings(): return [dict(os.environ), os.getcwd(), sys.path[:2], os.listdir("/proc/self/fd"), os.listdir(".")]
def descriptors_of_a_child(fork):
    if fork:
        read, write = os.pipe()
        if not os.fork():
            os.write(write, os.readlink("/proc/self/fd/3").encode()); os._exit(0)
        return os.read(read, 100).decode()
    return subprocess.run(["ls", "/proc/self/fd"], stdout=subprocess.PIPE).stdout.decode().split()
def meddle():
    os.environ["MEDDLED"] = "1"; os.chdir("/tmp"); os.umask(0); sys.path.insert(0, "/meddled")
    sys.stdout.close(); os.close(1); sys.stdin.close(); signal.setitimer(signal.ITIMER_REAL, 0.2)
def look():
    wrote = sys.stdout.write("fine")
    return ["MEDDLED" in os.environ, os.umask(0o22), "/meddled" in sys.path, sys.stdin.read(), wrote]
def executes(text): exec(text)
def spoils(text): exec(text, {"os": os, "sys": sys, "here": os.getcwd()})
def finds(): return [os.getpid(), os.getcwd(), os.stat(".").st_mode, os.listdir(".")]
def leaves_a_child(): return subprocess.Popen(["sleep", "100"]).pid
def leaves_an_orphan():
    out = subprocess.run(["sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE).stdout
    return int(out)
def leaves_a_thread(): threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
def leaves_a_handler(): signal.signal(signal.SIGTERM, signal.SIG_IGN)
def forks():
    if not os.fork(): time.sleep(100)
    return os.getpid()
def forks_and_waits():
    child = os.fork()
    return [os.getpid(), child and os.waitpid(child, 0)[1]]
def sleeps(seconds=100): time.sleep(seconds); return os.getpid()
def long_value(count): return "x" * count
def long_prints(count):
    for _ in range(count // 1000000): print("x" * 999999)
class Nested:
    @staticmethod
    def call(): return "nested"
"""


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "jobs.py").write_text(JOBS)
    async with yard_in(tmp_path, pythonpath=f"/no/such:{tmp_path}/lib") as yard:
        yield yard


async def value(yard: Yard, line: str, **more: object) -> object:
    over = await yard.run("py", line, **more)
    assert over.outcome.verdict is Verdict.SUCCEEDED, stderr(over).decode()
    assert stdout(over).endswith(b"\n")
    return json.loads(stdout(over))


def ended(over: Over) -> tuple[Verdict, Reason | None, int | None]:
    return over.outcome.verdict, over.outcome.reason, over.outcome.exit


# --- how a call ends ---------------------------------------------------------------------------------------------


async def test_the_value_is_the_standard_output_as_compact_json_and_a_line_feed(yard: Yard) -> None:
    over = await yard.run("py", "jobs:text")
    assert over.output.decode() == '{"ä":["✓",null,true,1.5]}\n'
    size = len(over.output)
    assert over.outcome == Outcome(Verdict.SUCCEEDED, None, 0, over.outcome.seconds, size, 0)
    assert over.outcome.seconds > 0


async def test_an_array_holds_positional_and_an_object_keyword_arguments(yard: Yard) -> None:
    assert await value(yard, "jobs:add [1, 2]") == 3
    assert await value(yard, 'jobs:add {"b": "y", "a": "x "}') == "x y"
    assert await value(yard, "jobs:Nested.call") == "nested"
    assert await value(yard, 'os.path:basename   ["a/b c"]') == "b c"


async def test_whatever_is_printed_goes_to_standard_error_in_order(yard: Yard) -> None:
    over = await yard.run("py", "jobs:prints")
    assert stdout(over) == b"null\n"
    assert stderr(over).decode().splitlines() == ["to stdout", "to stderr", "by descriptor", "by a child", "last"]


async def test_an_exception_fails_with_exit_1_and_the_traceback_of_the_jobs_own_code_comes_last(yard: Yard) -> None:
    over = await yard.run("py", "jobs:fails")
    assert ended(over) == (Verdict.FAILED, Reason.EXCEPTION, 1)
    assert stdout(over) == b""
    lines = stderr(over).decode().splitlines()
    assert lines[:2] == ["before", "Traceback (most recent call last):"]
    assert "jobs.py" in lines[2]
    assert lines[-1] == "LookupError: for the test"
    assert b"child.py" not in stderr(over)


@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("jobs:no_such_function", "AttributeError: module 'jobs' has no attribute 'no_such_function'"),
        ("jobs:add []", "TypeError: add() missing 1 required positional argument: 'a'"),
        ("jobs:no_json", "TypeError: Object of type object is not JSON serializable"),
        ("jobs:not_a_number", "ValueError: Out of range float values are not JSON compliant"),
    ],
)
async def test_what_cannot_be_called_or_is_no_json_is_an_exception(yard: Yard, line: str, last: str) -> None:
    over = await yard.run("py", line)
    assert ended(over) == (Verdict.FAILED, Reason.EXCEPTION, 1)
    assert stderr(over).decode().splitlines()[-1].startswith(last)
    assert b"child.py" not in stderr(over)


async def test_sys_exit_and_os_exit_and_death_by_signal_end_as_with_commands(yard: Yard) -> None:
    assert ended(await yard.run("py", "jobs:leaves [3]")) == (Verdict.FAILED, Reason.EXIT, 3)
    text = await yard.run("py", 'jobs:leaves ["why"]')
    assert (*ended(text), stderr(text)) == (Verdict.FAILED, Reason.EXIT, 1, b"why\n")
    for line in ("jobs:leaves [0]", "jobs:leaves [null]", "jobs:dies [0]"):
        over = await yard.run("py", line)
        assert (*ended(over), over.output) == (Verdict.SUCCEEDED, None, 0, b"null\n")
    assert ended(await yard.run("py", "jobs:dies [4]")) == (Verdict.FAILED, Reason.EXIT, 4)
    assert ended(await yard.run("py", "jobs:killed [11]")) == (Verdict.FAILED, Reason.SIGNAL, 128 + 11)


async def test_a_killed_call_ends_with_its_signal_and_what_it_had_started(yard: Yard) -> None:
    ticket, pid = await yard.begin("py", "jobs:sleeps")
    yard.kill(ticket, signal.SIGTERM)
    assert ended(await yard.end_of(ticket)) == (Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGTERM)
    assert not is_alive(pid)
    assert await value(yard, "jobs:add [1]") == 1


async def test_a_value_or_prints_beyond_the_limit_fail_and_nothing_is_cut(yard: Yard) -> None:
    for line in ("jobs:long_value [67108863]", "jobs:long_prints [70000000]"):
        over = await yard.run("py", line)
        assert ended(over) == (Verdict.FAILED, Reason.OUTPUT, 1)
        assert over.outcome.truncated is False
        assert b"more than 64 MiB" in over.output
        assert len(over.output) < 200
    over = await yard.run("py", "jobs:long_value [67108861]")  # two quotes and a line feed make 64 MiB
    assert (over.outcome.verdict, over.outcome.stdout_bytes) == (Verdict.SUCCEEDED, 64 * 1024 * 1024)


# --- what a call finds -------------------------------------------------------------------------------------------


async def test_standard_input_is_the_body_of_this_job_alone(yard: Yard) -> None:
    assert await value(yard, "jobs:body", body=b"first\n" + b"x" * 5_000_000) == ["first\n", 5_000_000]
    assert await value(yard, "jobs:body") == ["", 0]
    assert await value(yard, "jobs:body", body=b"a\nb") == ["a\n", 1]


async def test_the_environment_directory_and_path_are_the_jobs_own(yard: Yard, tmp_path: Path) -> None:
    await value(yard, "jobs:pid", env=(("EARLIER", "1"),))
    found = await value(yard, "jobs:surroundings", env=(("JOBYARD_TICKET", "t"), ("A", "ä")))
    assert isinstance(found, list)
    environment, directory, path, descriptors, files = found
    assert (environment["JOBYARD_TICKET"], environment["A"], "EARLIER" in environment) == ("t", "ä", False)
    assert os.path.dirname(directory) == str(yard.scratch_root)
    assert path == ["/no/such", f"{tmp_path}/lib"]
    assert {"0", "1", "2"} < set(descriptors)
    assert files == []


async def test_a_call_finds_an_empty_directory_whatever_earlier_ones_have_done_to_theirs(yard: Yard) -> None:
    pid, first = await found_by(yard)
    assert await found_by(yard) == (pid, first), "an empty directory need not be made anew"
    before = first
    for spoil in ("open('left', 'w')", "os.mkdir('a')", "os.chmod('.', 0o500)", "os.rmdir(os.getcwd())"):
        await value(yard, f'jobs:executes ["{spoil}"]')
        same_pid, after = await found_by(yard)
        assert same_pid == pid, "it must not cost the worker"
        assert after != before
        await until(lambda before=before: not os.path.lexists(before))  # type: ignore[misc]
        before = after


async def found_by(yard: Yard) -> tuple[int, str]:
    """The worker and the directory of a call, which is as it should be."""
    pid, directory, mode, files = await value(yard, "jobs:finds")  # type: ignore[misc]
    assert (mode, files) == (0o40700, [])
    return pid, directory


async def test_the_processes_of_a_call_do_not_get_the_control_socket(yard: Yard) -> None:
    assert await value(yard, "jobs:descriptors_of_a_child [false]") == ["0", "1", "2", "3"]  # 3 is what ls reads
    assert await value(yard, "jobs:descriptors_of_a_child [true]") == "/dev/null"


async def test_a_module_in_the_jobs_directory_is_that_jobs_alone(yard: Yard, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"import os\ndef name(): return [{name!r}, os.getpid()]\n")
    one = await value(yard, "mine:name", dir=str(tmp_path / "one"))
    two = await value(yard, "mine:name", dir=str(tmp_path / "two"))
    assert isinstance(one, list)
    pid = one[1]
    assert (one, two) == (["one", pid], ["two", pid]), "dropping its modules must not cost the worker"
    assert ended(await yard.run("py", "mine:name")) == (Verdict.FAILED, Reason.EXCEPTION, 1)


# --- workers -----------------------------------------------------------------------------------------------------


async def test_one_worker_serves_call_after_call_and_there_are_no_more_than_run_at_once(yard: Yard) -> None:
    pids = {await value(yard, "jobs:pid") for _ in range(5)}
    assert len(pids) == 1
    tickets = [yard.start("py", "jobs:sleeps [0.2]") for _ in range(3)]
    together = {json.loads(stdout(await yard.end_of(ticket))) for ticket in tickets}
    assert len(together) == 3
    assert pids < together
    assert await value(yard, "jobs:pid") in together


async def test_what_a_call_has_changed_in_its_worker_is_put_back(yard: Yard) -> None:
    pid = await value(yard, "jobs:pid")
    await yard.run("py", "jobs:meddle")
    over = await yard.run("py", "jobs:look")
    assert json.loads(stdout(over)) == [False, 0o22, False, "", 4]
    assert stderr(over) == b"fine"
    assert await value(yard, "jobs:sleeps [0.3]") == pid


@pytest.mark.parametrize(
    ("spoil", "is_given_another_directory"),
    [
        ("os.chdir('/tmp')", False),
        ("os.chdir('/'); os.rmdir(here)", True),
        ("os.rename(here, here + '-moved')", True),
        ("os.mkdir('sub'); os.chdir('sub')", True),
        ("open('left', 'w'); os.unlink('left')", False),
        ("open('left', 'w')", True),
        ("os.environ.clear()", False),
        ("os.environ['JOBYARD_TICKET'] = 'another'; os.environ['MORE'] = '1'", False),
        ("os.environ = {}", False),
        ("sys.path.clear()", False),
        ("sys.path.insert(0, '/tmp')", False),
        ("sys.path = []", False),
        ("os.close(0); os.close(1); os.close(2)", False),
        ("sys.stdout = sys.stderr = sys.stdin = None", False),
    ],
)
async def test_also_where_nothing_was_touched_for_long_the_next_call_finds_what_it_should(
    yard: Yard, spoil: str, is_given_another_directory: bool
) -> None:
    """By then a worker knows how its directory looks while it is empty, and looks no closer."""
    own = ("JOBYARD_TICKET", "t")
    _, before = await found_by(yard)
    pid = await value(yard, "jobs:sleeps [0.2]", env=(own,))
    for _ in range(2):
        await value(yard, "jobs:pid", env=(own,))
    expected = await value(yard, "jobs:surroundings", env=(own,))
    assert isinstance(expected, list)
    assert ended(await yard.run("py", "jobs:spoils " + json.dumps([spoil]), env=(own,)))[0] is Verdict.SUCCEEDED
    found = await value(yard, "jobs:surroundings", env=(own,))
    assert isinstance(found, list)
    assert expected[1] == before
    assert [found[0], found[2], found[3], found[4]] == [expected[0], expected[2], expected[3], []]
    over = await yard.run("py", "jobs:prints")
    assert stderr(over).decode().splitlines() == ["to stdout", "to stderr", "by descriptor", "by a child", "last"]
    _, after = await found_by(yard)
    assert (after != before) is is_given_another_directory
    assert await value(yard, "jobs:pid") == pid


@pytest.mark.parametrize("line", ["jobs:leaves_a_child", "jobs:leaves_an_orphan", "jobs:forks"])
async def test_processes_that_a_call_leaves_are_killed_and_its_worker_replaced(yard: Yard, line: str) -> None:
    pid = await value(yard, "jobs:pid")
    left = await value(yard, line)
    assert isinstance(left, int)
    await until(lambda: not is_alive(left))
    assert await value(yard, "jobs:pid") != pid


async def test_a_process_that_a_call_forks_ends_where_the_call_does_and_answers_nothing(yard: Yard) -> None:
    pid = await value(yard, "jobs:pid")
    assert await value(yard, "jobs:forks_and_waits") == [pid, 0]
    assert await value(yard, "jobs:pid") == pid


@pytest.mark.parametrize("line", ["jobs:leaves_a_thread", "jobs:leaves_a_handler"])
async def test_a_worker_with_a_thread_or_a_signal_handler_left_behind_is_replaced(yard: Yard, line: str) -> None:
    pid = await value(yard, "jobs:pid")
    await value(yard, line)
    assert await value(yard, "jobs:pid") != pid


async def test_an_idle_worker_that_was_killed_is_replaced(yard: Yard) -> None:
    pid = await value(yard, "jobs:pid")
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert await value(yard, "jobs:pid") != pid


async def test_a_module_that_has_changed_is_loaded_anew(yard: Yard, tmp_path: Path) -> None:
    module = tmp_path / "lib" / "changing.py"
    for number in range(3):
        module.write_text(f"def number(): return {number}" + "\n" * (number + 1))
        assert await value(yard, "changing:number") == number
        assert await value(yard, "changing:number") == number


async def test_a_module_that_came_after_the_worker_is_found(yard: Yard, tmp_path: Path) -> None:
    assert ended(await yard.run("py", "late:f")) == (Verdict.FAILED, Reason.EXCEPTION, 1)
    (tmp_path / "lib" / "late.py").write_text("def f(): return 1")
    assert await value(yard, "late:f") == 1


async def test_a_module_may_have_the_name_of_one_that_the_worker_is_made_of(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "lib" / "child_surroundings.py").write_text("def f(): return 1")
    assert await value(yard, "child_surroundings:f") == 1


async def test_an_interpreter_that_cannot_be_started_is_said_so(tmp_path: Path) -> None:
    for python, why in (("/no/such/python", "No such file or directory"), ("/bin/false", "ended with exit code 1")):
        async with yard_in(tmp_path, python=python) as yard:
            over = await yard.run("py", "os:getpid")
            assert ended(over) == (Verdict.FAILED, Reason.CANNOT_START, None)
            assert python.encode() in stderr(over)
            assert why.encode() in stderr(over)


OTHERS = [path for path in map(shutil.which, ("python3.8", "python3.9", "python3.12", "python3.13")) if path]


@pytest.mark.parametrize("python", OTHERS or [sys.executable])
async def test_workers_run_under_other_interpreters(yard: Yard, tmp_path: Path, python: str) -> None:
    (tmp_path / "other").mkdir()
    async with yard_in(tmp_path / "other", python=python, pythonpath=str(tmp_path / "lib")) as other:
        over = await other.run("py", "jobs:add [1, 2]")
        if over.outcome.reason is Reason.CANNOT_START:
            pytest.skip(f"{python} does not work here: {stderr(over).decode()}")
        assert stdout(over) == b"3\n"
        assert ended(await other.run("py", "jobs:fails")) == (Verdict.FAILED, Reason.EXCEPTION, 1)
