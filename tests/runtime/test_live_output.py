"""What a running attempt has printed so far: asked for by Peek, answered by Printed, whatever became of the attempt."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.limits import KIB, MIB
from node.executors import Begun, Over, Peek, Printed, Start
from node.executors.spawner import PEEK_BYTES_MAX
from tests.runtime.executing import OWNER, Yard, is_alive, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system

JOBS = """
import sys, time
def prints(path):
    print("one"); print("two", file=sys.stderr)
    open(path, "w").close()
    time.sleep(60)
def says(text): print(text)
"""


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    (tmp_path / "jobs.py").write_text(JOBS)
    async with yard_in(tmp_path, pythonpath=str(tmp_path)) as yard:
        yield yard


async def begun(yard: Yard, line: str, tmp_path: Path) -> str:
    """The ticket of a command that has printed, and sleeps."""
    ready = tmp_path / "ready"
    ticket = yard.start("sh", f"{line}; touch {ready}; sleep 60")
    await until(ready.exists)
    return ticket


async def settled(yard: Yard, ticket: str, stdout_bytes: int) -> None:
    """Until so much is in; a command's own last write is not yet ours."""
    for _ in range(1000):
        if len((await yard.peek(ticket)).stdout) >= min(stdout_bytes, PEEK_BYTES_MAX):
            return
    raise AssertionError(f"{ticket} has not printed {stdout_bytes} bytes")


async def test_a_peek_shows_what_was_printed_so_far_and_the_next_one_what_is_new(yard: Yard, tmp_path: Path) -> None:
    more = tmp_path / "more"
    waits = f"until [ -e {more} ]; do sleep 0.01; done"
    ticket = yard.start("sh", f"echo oops >&2; echo first; {waits}; echo second; sleep 60")
    await settled(yard, ticket, 6)
    shown = await yard.peek(ticket)
    assert (shown.running, shown.stdout, shown.stderr) == (True, b"first\n", b"oops\n")
    more.touch()
    await settled(yard, ticket, 13)
    shown = await yard.peek(ticket, stdout_at=6, stderr_at=5)
    assert (shown.running, shown.stdout, shown.stderr) == (True, b"second\n", b"")


async def test_looking_takes_nothing_away(yard: Yard) -> None:
    ticket = yard.start("sh", "echo first; sleep 0.3; echo second")
    await settled(yard, ticket, 6)
    over = await yard.end_of(ticket)
    assert stdout(over) == b"first\nsecond\n"


async def test_an_answer_holds_a_part_of_each_stream_and_the_next_the_next_part(yard: Yard, tmp_path: Path) -> None:
    counted = b"".join(b"%d\n" % number for number in range(1, 100_001))
    ticket = await begun(yard, "seq 100000; seq 100000 >&2", tmp_path)
    await settled(yard, ticket, len(counted))
    out = err = b""
    sizes = []
    while (shown := await yard.peek(ticket, len(out), len(err))).stdout or shown.stderr:
        out, err = out + shown.stdout, err + shown.stderr
        sizes.append((len(shown.stdout), len(shown.stderr)))
    assert (out, err) == (counted, counted)
    assert max(sizes) == (256 * KIB, 256 * KIB)
    assert len(sizes) == 3


async def test_only_what_is_kept_is_shown(yard: Yard, tmp_path: Path) -> None:
    ticket = await begun(yard, f"head -c {2 * MIB} /dev/zero", tmp_path)
    await settled(yard, ticket, MIB)
    assert (await yard.peek(ticket, stdout_at=MIB - 1)).stdout == b"\0"
    shown = await yard.peek(ticket, stdout_at=MIB)
    assert (shown.running, shown.stdout) == (True, b"")
    assert (await yard.peek(ticket, stdout_at=10 * MIB)).stdout == b""


async def test_what_a_call_prints_is_standard_error_and_the_value_comes_at_the_end(yard: Yard, tmp_path: Path) -> None:
    await yard.run("py", 'jobs:says ["somebody else\'s"]')
    ready = tmp_path / "ready"
    ticket = yard.start("py", f'jobs:prints ["{ready}"]')
    await until(ready.exists)
    shown = await yard.peek(ticket)
    assert (shown.running, shown.stdout, shown.stderr) == (True, b"", b"one\ntwo\n")
    assert (await yard.peek(ticket, stderr_at=4)).stderr == b"two\n"
    yard.kill(ticket, signal.SIGKILL)
    assert stderr(await yard.end_of(ticket)) == b"one\ntwo\n"


async def test_an_attempt_that_does_not_run_here_is_said_not_to(yard: Yard) -> None:
    over = await yard.run("sh", "echo done")
    for ticket in (over.ticket, f"{OWNER}-99"):
        shown = await yard.peek(ticket)
        assert (shown.running, shown.stdout, shown.stderr) == (False, b"", b"")


async def test_a_peek_in_the_batch_of_its_start_finds_it_started(yard: Yard) -> None:
    ticket = f"{OWNER}-50"
    yard.executors.submit([Peek(1, ticket, 1), Start(ticket, 1, "exec", "sleep 60")])
    assert (await yard.answer_to(1)).running


async def test_whoever_is_told_that_an_attempt_does_not_run_was_told_its_end_before(yard: Yard) -> None:
    spawner = yard.executors.spawner_pid
    assert spawner is not None
    ticket, pid = await yard.begin("exec", "sleep 60")
    os.kill(spawner, signal.SIGSTOP)  # so that it finds the end and the question together
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_alive(pid))
    yard.executors.submit([Peek(1, ticket, 1)])
    os.kill(spawner, signal.SIGCONT)
    assert not (await yard.answer_to(1)).running
    assert [type(report) for report in yard.reports] == [Begun, Over, Printed]


async def test_a_peek_that_the_spawner_dies_with_is_answered(yard: Yard) -> None:
    spawner = yard.executors.spawner_pid
    assert spawner is not None
    ticket, _ = await yard.begin("exec", "sleep 60")
    os.kill(spawner, signal.SIGSTOP)
    yard.executors.submit([Peek(1, ticket, 1), Peek(2, ticket, 1)])
    os.kill(spawner, signal.SIGKILL)
    assert not (await yard.answer_to(1)).running
    assert not (await yard.answer_to(2)).running
    assert ticket in yard.over
    assert not (await yard.peek(ticket)).running, "asked while there is no spawner, it is the next that answers"
