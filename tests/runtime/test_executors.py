"""Commands: how they are started, what they find, how they end, and that none outlives its node."""

import gc
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from common.limits import MIB
from common.model import Outcome, Reason, Verdict
from node.executors import Printed, Start, handle
from node.executors.commands import Commands
from node.executors.guard import Guard
from node.executors.loop import Loop
from node.executors.processes import Family
from tests.runtime.executing import OWNER, Yard, is_alive, pids_in, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard_in(tmp_path) as yard:
        yield yard


# --- how a command ends ------------------------------------------------------------------------------------------


async def test_a_command_that_exits_with_0_has_succeeded_and_its_streams_are_kept_apart(yard: Yard) -> None:
    over = await yard.run("sh", "echo out; echo err >&2")
    assert over.output == b"out\nerr\n"
    assert 0 < over.outcome.seconds < 20
    assert over.outcome == Outcome(Verdict.SUCCEEDED, None, 0, over.outcome.seconds, 4, 4)


async def test_another_exit_code_fails_with_the_reason_exit(yard: Yard) -> None:
    outcome = (await yard.run("sh", "exit 3")).outcome
    assert (outcome.verdict, outcome.reason, outcome.exit) == (Verdict.FAILED, Reason.EXIT, 3)


async def test_a_command_killed_by_a_signal_fails_with_128_and_the_signal(yard: Yard) -> None:
    outcome = (await yard.run("sh", "kill -SEGV $$")).outcome
    assert (outcome.verdict, outcome.reason, outcome.exit) == (Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGSEGV)


async def test_a_begun_attempt_names_the_leader_of_its_own_session(yard: Yard) -> None:
    ticket, pid = await yard.begin("exec", "sleep 60")
    assert os.getsid(pid) == pid == os.getpgid(pid)
    yard.kill(ticket, signal.SIGTERM)
    outcome = (await yard.end_of(ticket)).outcome
    assert (outcome.verdict, outcome.reason, outcome.exit) == (Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGTERM)


async def test_a_kill_reaches_the_whole_process_group(yard: Yard, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ticket = yard.start("sh", f"sleep 60 & echo $! >> {pids}; sleep 60 & echo $! >> {pids}; wait")
    await until(lambda: pids_in(pids, 2))
    yard.kill(ticket, signal.SIGTERM)
    assert (await yard.end_of(ticket)).outcome.exit == 128 + signal.SIGTERM
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids, 2)))


async def test_a_command_that_ignores_sigterm_is_ended_by_sigkill(yard: Yard, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ticket = yard.start("sh", f"trap '' TERM; touch {ready}; while :; do sleep 0.01; done")
    await until(ready.exists)
    yard.kill(ticket, signal.SIGTERM)
    await trio.sleep(0.05)
    assert ticket not in yard.over
    yard.kill(ticket, signal.SIGKILL)
    assert (await yard.end_of(ticket)).outcome.exit == 128 + signal.SIGKILL


async def test_a_kill_in_the_batch_of_its_start_finds_it_started_and_one_that_comes_too_late_does_nothing(
    yard: Yard,
) -> None:
    ticket = yard.start("exec", "sleep 60")
    yard.kill(ticket, signal.SIGKILL)
    assert (await yard.end_of(ticket)).outcome.exit == 128 + signal.SIGKILL
    yard.kill(ticket, signal.SIGKILL)
    assert (await yard.run("exec", "true")).outcome.verdict is Verdict.SUCCEEDED


async def test_what_a_command_leaves_in_its_group_is_killed_and_delays_nothing(yard: Yard, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    over = await yard.run("sh", f"sleep 60 & echo $! > {pids}; echo done")
    assert stdout(over) == b"done\n"
    assert over.outcome.seconds < 5
    await until(lambda: not is_alive(pids_in(pids, 1)[0]))


async def test_somebody_who_left_the_session_with_the_pipes_delays_the_outcome_by_a_moment_only(
    yard: Yard, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    began = trio.current_time()
    over = await yard.run("sh", f"setsid sh -c 'echo $$ > {pids}; exec sleep 60' & sleep 0.1; echo done")
    assert stdout(over) == b"done\n"
    assert trio.current_time() - began < 5
    os.kill(pids_in(pids, 1)[0], signal.SIGKILL)


# --- what cannot be started --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "line", "sentence"),
    [
        ("exec", "no-such-program", "jobyard: cannot start 'no-such-program': No such file or directory\n"),
        ("exec", "/etc/passwd x", "jobyard: cannot start '/etc/passwd': Permission denied\n"),
        ("exec", "'open", "jobyard: cannot start this: exec cannot split its line into words: no closing quotation\n"),
        (
            "argv",
            '"ls"',
            "jobyard: cannot start this: argv needs a JSON array of strings after it, and not an empty one\n",
        ),
        ("py", "nothing", "jobyard: cannot start this: py needs module:function after it, not 'nothing'\n"),
    ],
)
async def test_what_cannot_be_started_says_so_and_has_no_exit_code(
    yard: Yard, kind: str, line: str, sentence: str
) -> None:
    over = await yard.run(kind, line)
    assert over.output.decode() == sentence
    assert over.outcome == Outcome(Verdict.FAILED, Reason.CANNOT_START, None, 0.0, 0, len(sentence))
    assert over.ticket not in yard.begun


@pytest.mark.parametrize(
    ("path", "why"), [("/no/such", "No such file"), ("/etc/hostname", "Not a dir"), ("x", "absolute")]
)
async def test_a_directory_that_cannot_be_entered_fails_with_its_own_reason(yard: Yard, path: str, why: str) -> None:
    for kind, line in (("exec", "true"), ("py", "os:getcwd")):
        over = await yard.run(kind, line, dir=path)
        assert (over.outcome.verdict, over.outcome.reason) == (Verdict.FAILED, Reason.NO_DIRECTORY)
        assert over.outcome.exit is None
        assert path.encode() in stderr(over)
        assert why.encode() in stderr(over)


async def test_an_environment_that_no_program_can_have_does_not_hurt_the_others(yard: Yard) -> None:
    other = yard.start("exec", "sleep 0.2")
    over = await yard.run("exec", "true", env=(("A=B", "x"),))
    assert over.outcome.reason is Reason.CANNOT_START
    assert (await yard.end_of(other)).outcome.verdict is Verdict.SUCCEEDED


# --- what a command finds ----------------------------------------------------------------------------------------


async def test_the_environment_holds_exactly_what_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - {"PATH", "HOME"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("JOBYARD_CLUSTER_KEY", "secret")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    async with yard_in(tmp_path) as yard:
        over = await yard.run("exec", "env", env=(("JOBYARD_TICKET", "t"), ("HOME", "/h"), ("MINE", "ä b")))
    assert dict(line.split("=", 1) for line in stdout(over).decode().splitlines()) == {
        "PATH": os.environ["PATH"],
        "HOME": "/h",
        "LANG": "C.UTF-8",
        "JOBYARD_TICKET": "t",
        "JOBYARD_OWNER": f"{OWNER}:{yard.scratch_root}",
        "MINE": "ä b",
    }


async def test_a_program_is_looked_for_on_the_path_that_the_job_brings(yard: Yard, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert (await yard.run("exec", "tool")).outcome.reason is Reason.CANNOT_START
    path = (("PATH", f"{tool.parent}:/usr/bin:/bin"),)
    assert stdout(await yard.run("exec", "tool", env=path)) == b"mine\n"
    assert (await yard.run("exec", "tool2", env=path)).outcome.reason is Reason.CANNOT_START


async def test_a_command_has_descriptors_0_1_and_2_and_no_other(yard: Yard) -> None:
    held = [yard.start("sh", "sleep 0.3", body=b"x") for _ in range(3)]
    await yard.run("py", "os:getpid")
    over = await yard.run("sh", "ls /proc/$$/fd")
    assert stdout(over).split() == [b"0", b"1", b"2"]
    for ticket in held:
        await yard.end_of(ticket)


async def test_no_signal_is_blocked_or_ignored(yard: Yard) -> None:
    over = await yard.run("exec", "cat /proc/self/status")
    status = dict(line.split(b":\t", 1) for line in stdout(over).splitlines())
    reserved = 1 << 31 | 1 << 32  # the C library keeps 32 and 33 for itself
    assert [int(status[name], 16) & ~reserved for name in (b"SigBlk", b"SigIgn", b"SigCgt")] == [0, 0, 0]


async def test_standard_input_is_the_body_and_empty_without_one(yard: Yard) -> None:
    assert stdout(await yard.run("exec", "wc -c", body=b"x" * 5_000_000)).strip() == b"5000000"
    assert stdout(await yard.run("exec", "cat")) == b""


async def test_each_attempt_has_an_empty_directory_of_its_own_that_is_gone_afterwards(yard: Yard) -> None:
    directories = []
    for line in (
        "pwd",
        "pwd; mkdir -p a/b; touch a/b/c .hidden",
        "pwd; ln -s / root",
        "pwd; chmod 500 .",
        "pwd",
        "pwd",
    ):
        over = await yard.run("sh", f"ls -A; stat -c %a .; {line}")
        mode, directory = stdout(over).decode().split()
        assert (mode, os.path.dirname(directory)) == ("700", str(yard.scratch_root))
        directories.append(directory)
    assert len(set(directories[1:5])) == 4, "what was not left as it was found is nobody else's"
    for directory in set(directories):
        await until(lambda directory=directory: not os.path.lexists(directory))  # type: ignore[misc]


async def test_a_job_that_removes_its_own_directory_ends_like_any_other(yard: Yard) -> None:
    assert (await yard.run("sh", 'rmdir "$PWD"')).outcome.verdict is Verdict.SUCCEEDED
    assert (await yard.run("exec", "true")).outcome.verdict is Verdict.SUCCEEDED


async def test_many_files_left_behind_hold_up_nobody_and_are_removed(yard: Yard) -> None:
    await yard.run("sh", "mkdir -p $(seq -s/ 1 200); seq 1 20000 | xargs touch")
    assert (await yard.run("exec", "true")).outcome.verdict is Verdict.SUCCEEDED
    await until(lambda: leftovers_of(yard) == 0, within_s=20)


def leftovers_of(yard: Yard) -> int:
    """What is still in directories that were moved aside."""
    return sum(
        len(names) + len(files) for path, names, files in os.walk(yard.scratch_root / ".aside") if path[-6:] != ".aside"
    )


# --- what a command prints ---------------------------------------------------------------------------------------


async def test_more_output_than_is_kept_is_cut_and_said_to_be_and_the_command_is_not_held_up(yard: Yard) -> None:
    over = await yard.run("sh", "head -c 10000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo end >&2")
    outcome = over.outcome
    assert (outcome.verdict, outcome.truncated) == (Verdict.SUCCEEDED, True)
    assert (outcome.stdout_bytes, outcome.stderr_bytes) == (MIB, MIB)
    assert over.output == bytes(2 * MIB)


async def test_output_of_exactly_what_is_kept_is_whole(tmp_path: Path) -> None:
    async with yard_in(tmp_path, output_bytes_max=100_000) as yard:
        whole = await yard.run("sh", "head -c 100000 /dev/zero")
        cut = await yard.run("sh", "head -c 100001 /dev/zero")
    assert (whole.outcome.stdout_bytes, whole.outcome.truncated) == (100_000, False)
    assert (cut.outcome.stdout_bytes, cut.outcome.truncated) == (100_000, True)


def test_nothing_of_a_command_that_is_over_waits_for_the_garbage_collector() -> None:
    loop = Loop()
    family = Family(loop)
    commands = Commands(loop, family, Guard(loop, family), MIB)
    over: list[Outcome] = []
    gc.disable()
    try:
        command = commands.begin(
            Start("k3f7qa-1", 1, "sh", "echo it; sleep 0.02"), {}, lambda outcome, *_: over.append(outcome)
        )
        left = weakref.ref(command)
        del command
        while not over:
            loop.turn()
        assert left() is None
    finally:
        gc.enable()


async def test_many_attempts_at_once_keep_their_outputs_apart(yard: Yard) -> None:
    tickets = [yard.start("sh", f"sleep 0.0{number % 7}; echo {number}", body=b"x" * number) for number in range(60)]
    for number, ticket in enumerate(tickets):
        assert stdout(await yard.end_of(ticket)) == b"%d\n" % number


# --- none outlives its node --------------------------------------------------------------------------------------

STAND_IN = """
import sys, trio
from pathlib import Path
from node.executors import Start
from node.executors.handle import Executors

async def main(data_directory, pids):
    executors = Executors(scratch_root=Path(data_directory) / "scratch", owner="k3f7qa", output_bytes_max=1000,
                          report=lambda news: None, pythonpath=data_directory)
    async with executors.running():
        executors.submit([
            Start("k3f7qa-1", 1, "sh", f"echo $$ >> {pids}; sleep 100 & echo $! >> {pids}; wait"),
            Start("k3f7qa-2", 1, "sh", f"trap '' TERM HUP; sh -c 'echo $$ >> {pids}; sleep 100; true' & wait"),
            Start("k3f7qa-3", 1, "sh", f"set -m; sleep 100 & echo $! >> {pids}; wait"),
            Start("k3f7qa-4", 1, "py", f'sleeper:sleep ["{pids}"]'),
            Start("k3f7qa-5", 1, "exec", "yes"),
        ])
        print(executors.spawner_pid, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""

SLEEPER = """
import os, subprocess, time
def sleep(path):
    child = subprocess.Popen(["sleep", "100"])
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {child.pid} ")
    time.sleep(100)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_when_a_node_is_killed_nothing_it_had_started_is_alive_after_2_seconds(
    tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    pids = tmp_path / "pids"
    program = [sys.executable, "-c", STAND_IN, str(tmp_path), str(pids)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as node:  # noqa: ASYNC220  it starts in a millisecond
        assert node.stdout is not None
        spawner = int(await trio.to_thread.run_sync(node.stdout.readline))
        await until(lambda: len(pids_in(pids, 6)) == 6, within_s=20)
        node.send_signal(how)
    everybody = [spawner, *pids_in(pids, 6)]
    assert len(everybody) == 7
    await until(lambda: not any(is_alive(pid) for pid in everybody), within_s=2)


async def test_closing_kills_what_still_runs_and_ends_the_spawner(tmp_path: Path) -> None:
    async with yard_in(tmp_path) as yard:
        _, pid = await yard.begin("sh", "sleep 100; true")
        spawner = yard.executors.spawner_pid
        assert spawner is not None
        assert is_alive(spawner)
    assert not is_alive(spawner)
    await until(lambda: not is_alive(pid), within_s=2)


async def test_the_signals_that_stop_a_node_do_not_reach_its_spawner(yard: Yard) -> None:
    spawner = yard.executors.spawner_pid
    assert spawner is not None
    assert os.getsid(spawner) == spawner
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(spawner, number)
    assert (await yard.run("exec", "true")).outcome.verdict is Verdict.SUCCEEDED
    assert yard.executors.spawner_pid == spawner


async def test_when_the_spawner_is_killed_its_attempts_have_crashed_and_another_runs_the_next(
    yard: Yard, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    first = yard.executors.spawner_pid
    assert first is not None
    ticket, pid = await yard.begin("sh", f"env -i sleep 100 & echo $! > {pids}; wait")
    strayed, _ = await yard.begin("sh", f"cd /; exec env -i sh -c 'echo $$ >> {pids}; sleep 100; true'", dir="/")
    await until(lambda: pids_in(pids, 2))
    os.kill(first, signal.SIGKILL)
    for lost in (ticket, strayed):
        assert (await yard.end_of(lost)).outcome == Outcome(Verdict.CRASHED)
    assert not any(is_alive(pid) for pid in (pid, *pids_in(pids, 2)))
    assert (await yard.run("exec", "echo again")).output == b"again\n"
    assert yard.executors.spawner_pid != first


async def test_a_spawner_that_answers_nothing_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "PROBE_PERIOD_S", 0.2)
    async with yard_in(tmp_path) as yard:
        stuck = yard.executors.spawner_pid
        assert stuck is not None
        ticket, pid = await yard.begin("exec", "sleep 100")
        await trio.sleep(1.0)
        assert yard.executors.spawner_pid == stuck, "one that answers is left alone"
        os.kill(stuck, signal.SIGSTOP)
        assert (await yard.end_of(ticket)).outcome == Outcome(Verdict.CRASHED)
        assert not is_alive(stuck)
        assert not is_alive(pid)
        assert (await yard.run("exec", "echo again")).output == b"again\n"
        assert not any(isinstance(report, Printed) for report in yard.reports), "nobody hears of the questions"


async def test_orders_given_while_there_is_no_spawner_are_carried_out_by_the_next(yard: Yard) -> None:
    assert yard.executors.spawner_pid is not None
    ticket, _ = await yard.begin("exec", "sleep 100")
    os.kill(yard.executors.spawner_pid, signal.SIGKILL)
    await yard.end_of(ticket)
    assert (await yard.run("exec", "true")).outcome.verdict is Verdict.SUCCEEDED


async def test_a_spawner_that_cannot_come_up_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("not a directory")
    with pytest.raises(ExceptionGroup) as failure:
        async with yard_in(tmp_path):
            pytest.fail("there is no spawner")
    assert failure.group_contains(RuntimeError, match="did not come up")
