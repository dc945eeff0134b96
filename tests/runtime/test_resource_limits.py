"""What an attempt may use: whoever uses more is ended with the reason of it, and the others go on.

Everything here that grows is bounded in itself too, so that a limit that does not hold fails a test and hurts nobody.
"""

import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from common.limits import GIB, MIB
from common.model import Reason, Verdict
from node.executors import NO_LIMITS, Limits, Over
from node.executors import guard as guarding
from node.executors import table as process_table
from node.executors.commands import ended_by_fence
from node.executors.guard import TICK_S, Guard, Ward
from node.executors.loop import Loop
from node.executors.processes import Family
from node.executors.table import TICKS_PER_S, Beat, Pulse, Seen, Table, everybody
from tests.runtime.executing import Yard, is_alive, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system

KILLED = 128 + signal.SIGKILL
JOBS = """
import os, resource, sys, time

def fork_ten_times(own_groups=False):
    "1024 processes for ten seconds, if nobody minds."
    until = time.monotonic() + 10
    for _ in range(10):
        os.fork()
        if own_groups and os.getpid() != os.getsid(0): os.setpgid(0, 0)
    time.sleep(max(0, until - time.monotonic()))
def hold(mib, children=0, seconds=10):
    kept = b"x" * (mib << 20)
    for _ in range(children):
        if not os.fork(): break
    time.sleep(seconds)
    return len(kept) >> 20
def each_holds(mib, children):
    for _ in range(children):
        if not os.fork(): break
    hold(mib)
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return os.getpid()
def pid(): return os.getpid()
def prints(count): print("x" * (count - 1))
def files(): return resource.getrlimit(resource.RLIMIT_NOFILE)
if __name__ == "__main__": globals()[sys.argv[1]](*map(int, sys.argv[2:]))
"""


def yard_of(directory: Path, *, slots: int = sys.maxsize, **most: Any) -> AbstractAsyncContextManager[Yard]:
    (directory / "jobs.py").write_text(JOBS)
    return yard_in(directory, pythonpath=str(directory), most=Limits(**most), slots=slots)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard_of(tmp_path) as yard:
        yield yard


async def beside_another(yard: Yard, kind: str, line: str, **limits: Any) -> Over:
    """How an attempt ended that had a neighbour, who must not notice. Nobody of it may be left."""
    other = yard.start("sh", "sleep 0.5; echo fine")
    ticket, pid = await yard.begin(kind, line, limits=limits)
    over = await yard.end_of(ticket)
    await until(lambda: not any(seen.session == pid and seen.lives for seen in everybody()))
    assert stdout(await yard.end_of(other)) == b"fine\n"
    return over


def ended(over: Over) -> tuple[Verdict, Reason | None, int | None]:
    return over.outcome.verdict, over.outcome.reason, over.outcome.exit


def script(yard: Yard, words: str) -> str:
    """A line of kind `sh` that calls one of JOBS."""
    return f"{sys.executable} {yard.scratch_root.parent}/jobs.py {words}"


# --- processor time ----------------------------------------------------------------------------------------------


async def test_who_uses_more_processor_time_than_allowed_is_ended(yard: Yard) -> None:
    over = await beside_another(yard, "sh", "while :; do :; done", cpu_s=0.3)
    assert ended(over) == (Verdict.FAILED, Reason.CPU, KILLED)


async def test_processor_time_is_that_of_all_processes_together_dead_or_alive(yard: Yard) -> None:
    for line in (
        "for i in 1 2 3; do (while :; do :; done) & done; wait",
        script(yard, "burn 1") + "; sleep 10",  # used by a child that has ended
    ):
        over = await beside_another(yard, "sh", line, cpu_s=0.5)
        assert ended(over) == (Verdict.FAILED, Reason.CPU, KILLED), line
        assert over.outcome.seconds < 9


async def test_who_stays_within_its_processor_time_is_left_alone_however_long_it_runs(yard: Yard) -> None:
    over = await yard.run("sh", "sleep 1.5; echo done", limits={"cpu_s": 1})
    assert stdout(over) == b"done\n"


async def test_the_kernel_ends_a_process_that_has_left_its_session_at_a_fence_behind_the_limit(
    yard: Yard, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    left = f"setsid sh -c 'ulimit -St; ulimit -Ht; echo $$ > {pids}; while :; do :; done' &"
    over = await yard.run("sh", f"sleep 0.3; {left} sleep 0.5", limits={"cpu_s": 0.1})
    assert stdout(over) == b"2\n3\n"
    await until(lambda: not is_alive(int(pids.read_text())), within_s=25)


async def test_the_fence_holds_while_nobody_watches(yard: Yard) -> None:
    spawner = yard.executors.spawner_pid
    assert spawner is not None
    ticket, pid = await yard.begin("exec", script(yard, "burn 60"), limits={"cpu_s": 0.1})
    os.kill(spawner, signal.SIGSTOP)
    await until(lambda: not is_alive(pid), within_s=25)
    os.kill(spawner, signal.SIGCONT)
    assert ended(await yard.end_of(ticket)) == (Verdict.FAILED, Reason.CPU, 128 + signal.SIGXCPU)


@pytest.fixture
def our_own_limit_of_files() -> Iterator[None]:
    """Whoever starts processes raises it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("our_own_limit_of_files")
def test_what_a_leader_and_its_children_have_used_is_known_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    loop = Loop()
    ends: list[int] = []
    line = f"{sys.executable} {tmp_path}/jobs.py burn 1; exit 3"
    process = Family(loop).launch(
        ("/bin/sh", "-c", line), {}, (0, 1, 2), NO_LIMITS, lambda code, group_is_empty: ends.append(code)
    )
    while not ends:
        loop.turn()
    assert ends == [3]
    assert 1 <= process.cpu_s < 3


def test_a_leader_that_the_fence_has_ended_has_failed_for_its_processor_time() -> None:
    limits = Limits(cpu_s=1.5)
    for code in (-signal.SIGXCPU, 128 + signal.SIGXCPU, -signal.SIGKILL, KILLED):
        assert ended_by_fence(code, 3.0, limits)
        assert not ended_by_fence(code, 1.5, limits)
        assert not ended_by_fence(code, 3.0, Limits())
    assert not ended_by_fence(1, 3.0, limits)


async def test_a_signal_of_its_own_making_is_not_taken_for_the_fence(yard: Yard) -> None:
    over = await yard.run("sh", "kill -XCPU $$", limits={"cpu_s": 5})
    assert ended(over) == (Verdict.FAILED, Reason.SIGNAL, 128 + signal.SIGXCPU)


LEADER, CHILD, ORPHAN = 10, 11, 12


def seen(pid: int, cpu_s: float, parent: int = LEADER) -> Seen:
    return Seen(pid, b"S", parent, LEADER, LEADER, 0, round(cpu_s * TICKS_PER_S), pid, 0)


def test_what_an_orphan_has_used_is_not_forgotten_with_it_and_nothing_counts_twice() -> None:
    ward = Ward(LEADER, Limits(cpu_s=10), lambda reason: None)
    leader = seen(LEADER, 1, parent=1)
    assert ward.see([leader, seen(CHILD, 2), seen(ORPHAN, 3, parent=1)]) is None
    assert ward.cpu_s == 6
    ward.see([seen(LEADER, 3.5, parent=1)])  # the child's 2 s and half a second more are the leader's now
    assert ward.cpu_s == 6.5
    ward.see([leader := seen(LEADER, 3.5, parent=1)])
    assert ward.cpu_s == 6.5
    assert ward.see([leader, seen(ORPHAN, 3.5, parent=1)]) is None
    assert ward.see([leader, seen(ORPHAN, 4, parent=1)]) is Reason.CPU


# --- memory ------------------------------------------------------------------------------------------------------


async def test_who_holds_more_memory_than_allowed_is_ended(yard: Yard) -> None:
    over = await beside_another(yard, "sh", script(yard, "hold 300"), memory_bytes=100 * MIB)
    assert ended(over) == (Verdict.FAILED, Reason.MEMORY, KILLED)


async def test_memory_is_that_of_all_processes_together(yard: Yard) -> None:
    over = await beside_another(yard, "sh", script(yard, "each_holds 60 2"), memory_bytes=150 * MIB)
    assert ended(over) == (Verdict.FAILED, Reason.MEMORY, KILLED)


async def test_memory_that_processes_share_counts_once(yard: Yard) -> None:
    over = await yard.run("sh", script(yard, "hold 80 3 1"), limits={"memory_bytes": 150 * MIB})
    assert over.outcome.verdict is Verdict.SUCCEEDED, stderr(over)


async def test_the_kernel_is_told_to_take_a_job_before_the_node(yard: Yard) -> None:
    ours = await trio.Path("/proc/self/oom_score_adj").read_text()
    over = await yard.run("exec", "cat /proc/self/oom_score_adj")
    assert int(stdout(over)) == min(int(ours) + 500, 1000)


# --- processes ---------------------------------------------------------------------------------------------------


async def test_a_fork_bomb_is_ended_whole(yard: Yard) -> None:
    over = await beside_another(yard, "sh", script(yard, "fork_ten_times"), processes=50)
    assert ended(over) == (Verdict.FAILED, Reason.PROCESSES, KILLED)
    assert over.outcome.seconds < 9


async def test_a_fork_bomb_in_many_process_groups_is_ended_whole(yard: Yard) -> None:
    over = await beside_another(yard, "sh", script(yard, "fork_ten_times 1"), processes=50)
    assert ended(over) == (Verdict.FAILED, Reason.PROCESSES, KILLED)
    assert over.outcome.seconds < 9


async def test_zombies_take_numbers_and_count(yard: Yard) -> None:
    forks = "import os, time; [os.fork() or os._exit(0) for _ in range(60)]; time.sleep(10)"
    over = await beside_another(yard, "exec", f"{sys.executable} -c '{forks}'", processes=50)
    assert ended(over) == (Verdict.FAILED, Reason.PROCESSES, KILLED)


async def test_as_many_processes_as_allowed_are_allowed(yard: Yard) -> None:
    line = "for i in $(seq 19); do sleep 1.5 & done; wait; echo done"
    assert stdout(await yard.run("sh", line, limits={"processes": 20})) == b"done\n"


async def test_many_that_follow_each_other_are_not_many_at_once(yard: Yard) -> None:
    line = "for i in $(seq 300); do /bin/true; done; echo done"
    assert stdout(await yard.run("sh", line, limits={"processes": 10})) == b"done\n"


async def test_a_busy_job_that_was_held_to_be_counted_goes_on(yard: Yard) -> None:
    """Many are born, and most of the newest live on, as with a fork bomb; but they are no more than allowed."""
    line = "for i in $(seq 150); do /bin/true; done; for i in $(seq 120); do sleep 1 & done; wait; echo done"
    assert stdout(await yard.run("sh", line, limits={"processes": 200})) == b"done\n"


def test_only_who_may_have_been_given_a_number_since_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = {7: 7, 8: 7, 20: 20, 21: 20}
    looked_at: list[int] = []

    def look_at(pid: int) -> Seen:
        looked_at.append(pid)
        return Seen(pid, b"S", 1, sessions[pid], sessions[pid], 0, 0, 0, 0)

    def look(last_pid: int) -> tuple[list[int], list[int]]:
        """Whom it finds, and whom it has looked at."""
        looked_at.clear()
        found = table.members({7}, Beat(4, last_pid)).get(7, [])
        return [seen.pid for seen in found], looked_at[:]

    monkeypatch.setattr(process_table, "_pids", lambda: iter(sorted(sessions)))
    monkeypatch.setattr(process_table, "look_at", look_at)
    table = Table()
    assert look(21) == ([7, 8], [7, 8, 20, 21])
    assert look(25) == ([7, 8], [7, 8])
    sessions[20] = 7  # its number was given anew, when the circle had been run through
    assert look(20) == ([7, 8, 20], [7, 8, 20])
    assert look(20) == ([7, 8, 20], [7, 8, 20])
    table.forget()
    assert look(20) == ([7, 8, 20], [7, 8, 20, 21])
    for _ in range(2):
        assert look(0) == ([7, 8, 20], [7, 8, 20, 21]), "where the kernel does not tell, everybody is looked at"


def test_the_kernel_tells_how_many_there_are_and_who_was_born_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse()
    before = pulse.beat()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert before.threads > 1
    assert before.last_pid != pulse.beat().last_pid
    for told in (b"", b"0.1 0.2 0.3 4\n", b"0.1 0.2 0.3 1/x 7\n"):
        monkeypatch.setattr(os, "pread", lambda *_, told=told: told)
        assert pulse.beat() == Beat(0, 0)


async def test_nobody_is_looked_after_where_nothing_runs_or_nothing_is_limited(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    async with yard_of(tmp_path, processes=50) as limited, yard_of(tmp_path / "2", files=50) as unlimited:
        await trio.sleep(0.1)  # they have just come up
        assert await wakes_in(0.4, limited) == 0
        ticket = limited.start("exec", "sleep 60")
        unlimited.start("exec", "sleep 60")
        await trio.sleep(0.1)
        assert await wakes_in(1.5, limited) > 5
        assert await wakes_in(0.4, unlimited) == 0
        limited.kill(ticket, signal.SIGKILL)
        await limited.end_of(ticket)
        await trio.sleep(0.3)
        assert await wakes_in(0.4, limited) == 0


class Ticking:
    """A loop in which nothing happens but the guard's tick, and a machine with its clock and its births."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.threads, self.last_pid, self.looks = 0.0, 100, 1000, 0
        self.sessions: set[int] = set()
        monkeypatch.setattr(guarding.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(Pulse, "beat", lambda _: Beat(self.threads, self.last_pid))
        monkeypatch.setattr(Table, "members", lambda *_: self._look())
        self._due: Callable[[], None] | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        assert self._due is None
        self._due = call

    def tick(self) -> int:
        """How many looks it came to."""
        before, due, self._due = self.looks, self._due, None
        self.now += TICK_S
        assert due is not None
        due()
        return self.looks - before

    def _look(self) -> dict[int, list[Seen]]:
        self.looks += 1
        return {}


def test_nobody_is_looked_at_for_the_sake_of_attempts_that_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Ticking(monkeypatch)
    guard = Guard(machine, machine)

    def begin(session: int) -> None:
        guard.watch(session, Limits(processes=50), lambda _: None, is_new=True)

    for session in range(100):  # somebody is there at each tick, but never for long
        begin(session)
        machine.last_pid += 40
        assert machine.tick() == 0
        guard.forget(session)
    begin(200)
    assert [machine.tick() for _ in range(9)] == [0] * 9
    assert sum(machine.tick() for _ in range(4)) == 1, "it has been there for a second"
    begin(201)
    machine.last_pid += 51
    assert machine.tick() == 1, "so many have been born that one could have more than it may"


def test_who_is_looked_at_can_settle_before_and_may_find_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Ticking(monkeypatch)
    guard = Guard(machine, machine)
    ended: list[int] = []
    monkeypatch.setattr(
        Table, "members", lambda *_: {pid: [seen(pid, 0.0, parent) for parent in range(9)] for pid in (1, 2)}
    )
    guard.watch(1, Limits(processes=5), lambda _: ended.append(1), lambda: guard.forget(1), is_new=False)
    guard.watch(2, Limits(processes=5), lambda _: ended.append(2), lambda: None, is_new=False)
    for _ in range(13):
        machine.tick()
    assert set(ended) == {2}


async def wakes_in(seconds: float, yard: Yard) -> int:
    """How often the spawner has gone to sleep, so how often it was woken."""

    def sleeps() -> int:
        lines = Path(f"/proc/{yard.executors.spawner_pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))

    before = sleeps()
    await trio.sleep(seconds)
    return sleeps() - before


# --- output ------------------------------------------------------------------------------------------------------


async def test_ten_gigabytes_of_output_are_ended_and_what_was_kept_stays(tmp_path: Path) -> None:
    async with yard_of(tmp_path, output_bytes=GIB // 4) as yard:
        over = await beside_another(yard, "exec", "head -c 10000000000 /dev/zero")
    assert ended(over) == (Verdict.FAILED, Reason.OUTPUT, KILLED)
    assert (over.outcome.truncated, over.output) == (True, bytes(MIB))


async def test_output_is_counted_over_both_streams_whether_or_not_it_is_kept(yard: Yard) -> None:
    line = "head -c 600 /dev/zero; head -c 600 /dev/zero >&2"
    beyond = await yard.run("sh", line, limits={"output_bytes": 1199})
    within = await yard.run("sh", line, limits={"output_bytes": 1200})
    assert (*ended(beyond), beyond.outcome.truncated) == (Verdict.FAILED, Reason.OUTPUT, KILLED, True)
    assert (*ended(within), within.outcome.truncated) == (Verdict.SUCCEEDED, None, 0, False)
    assert beyond.output == within.output == bytes(1200)


async def test_no_stream_keeps_more_than_the_whole_job_may_print(yard: Yard) -> None:
    over = await yard.run("sh", "yes", limits={"output_bytes": 1000})
    assert (*ended(over), over.outcome.truncated) == (Verdict.FAILED, Reason.OUTPUT, KILLED, True)
    assert over.output == b"y\n" * 500


# --- open files --------------------------------------------------------------------------------------------------


async def test_more_open_files_than_allowed_are_refused_to_the_job_and_cannot_be_had(yard: Yard) -> None:
    line = f"ulimit -Sn; sleep 0.3; ulimit -Hn; {sys.executable} -c \"files = [open('/dev/null') for _ in range(50)]\""
    over = await yard.run("sh", line, limits={"files": 32})
    assert ended(over) == (Verdict.FAILED, Reason.EXIT, 1)
    assert stdout(over) == b"32\n32\n"
    assert b"Too many open files" in stderr(over)


async def test_the_limit_of_open_files_is_the_jobs_and_not_the_spawners(tmp_path: Path) -> None:
    async with yard_of(tmp_path, files=16) as yard:
        held = [yard.start("sh", "sleep 1; echo done") for _ in range(20)]  # three descriptors of the spawner for each
        for ticket in held:
            assert stdout(await yard.end_of(ticket)) == b"done\n"


async def test_without_a_limit_a_job_may_open_what_the_node_may(yard: Yard) -> None:

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert stdout(await yard.run("sh", "ulimit -Sn; ulimit -Hn")).split() == [b"%d" % soft, b"%d" % hard]


# --- calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "limits", "reason"),
    [
        ("jobs:burn [30]", {"cpu_s": 0.4}, Reason.CPU),
        ("jobs:hold [300]", {"memory_bytes": 100 * MIB}, Reason.MEMORY),
        ("jobs:fork_ten_times", {"processes": 50}, Reason.PROCESSES),
        ("jobs:prints [2000]", {"output_bytes": 1000}, Reason.OUTPUT),
    ],
)
async def test_a_call_that_uses_more_than_allowed_is_ended(
    yard: Yard, line: str, limits: dict[str, float], reason: Reason
) -> None:
    over = await beside_another(yard, "py", line, **limits)
    assert ended(over) == (Verdict.FAILED, reason, KILLED)
    assert over.output == (b"x" * 1000 if reason is Reason.OUTPUT else b"")


async def test_the_maxima_of_the_node_hold_in_warm_workers_for_each_call_anew(tmp_path: Path) -> None:
    async with yard_of(tmp_path, cpu_s=1.0, processes=50) as yard:
        pids = {stdout(await yard.run("py", "jobs:burn [0.6]")) for _ in range(3)}
        assert len(pids) == 1, "one warm worker, though it has used more by now than one call may"
        assert ended(await yard.run("py", "jobs:burn [30]")) == (Verdict.FAILED, Reason.CPU, KILLED)
        assert ended(await yard.run("py", "jobs:fork_ten_times")) == (Verdict.FAILED, Reason.PROCESSES, KILLED)
        assert (await yard.run("py", "jobs:burn [0.6]")).outcome.verdict is Verdict.SUCCEEDED


async def test_of_calls_that_a_worker_was_given_together_only_the_one_that_exceeds_is_ended(tmp_path: Path) -> None:
    async with yard_of(tmp_path, slots=1, processes=50) as yard:
        yard.insists = True
        await yard.run("py", "jobs:pid")
        lines = ["jobs:fork_ten_times" if number == 25 else "time:sleep [0.001]" for number in range(60)]
        for line, ticket in [(line, yard.start("py", line)) for line in lines]:
            over = await yard.end_of(ticket)
            if line == "jobs:fork_ten_times":
                assert ended(over) == (Verdict.FAILED, Reason.PROCESSES, KILLED)
            else:
                assert over.outcome.verdict is Verdict.SUCCEEDED


async def test_a_call_with_limits_of_its_own_has_a_worker_of_its_own_that_is_not_used_again(tmp_path: Path) -> None:
    async with yard_of(tmp_path, files=100) as yard:
        warm = stdout(await yard.run("py", "jobs:pid"))
        ticket, own = await yard.begin("py", "jobs:files", limits={"files": 50})
        assert stdout(await yard.end_of(ticket)) == b"[50,50]\n"
        assert int(warm) != own
        await until(lambda: not is_alive(own))
        assert stdout(await yard.run("py", "jobs:files", limits={"files": 100})) == b"[100,100]\n"
        assert stdout(await yard.run("py", "jobs:pid")) == warm


# --- the processor, among themselves -----------------------------------------------------------------------------


async def test_jobs_stand_back_behind_the_node(yard: Yard) -> None:
    expected = min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)
    assert int(stdout(await yard.run("sh", "sleep 0.3; nice"))) == expected
    assert int(stdout(await yard.run("py", "os:getpriority [0, 0]"))) == expected
