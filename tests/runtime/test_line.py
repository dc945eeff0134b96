"""More is started than there are slots: it waits in the spawner's line, or in the hands of a worker that is busy."""

import json
import os
import signal
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import trio

from common.model import Outcome, Reason, Verdict
from common.settings import load_node
from node.assembly import maxima
from node.executors import NO_LIMITS
from node.executors.spawner import NEWS_WAIT_S
from node.executors.worker import Worker
from node.executors.workers import Workers
from tests.runtime.executing import Yard, stderr, stdout, until, yard_in

pytestmark = pytest.mark.system

JOBS = """
import os, time

def says(what): print(what); return [what, os.getpid()]
def shouts(what): os.write(2, b"x" * what); return [what, os.getpid()]
def sleeps(seconds): time.sleep(seconds); return os.getpid()
def notes(path, number):
    with open(path, "a") as log: print(number, file=log)
    return number
def naps_and_notes(path):
    time.sleep(0.002)
    with open(path, "a") as log: print(file=log)
def dies(code): os._exit(code)
def litters():
    open("left", "w").close()
    return os.listdir(".")
def looks(): return os.listdir(".")
def leaves_a_child():
    if not os.fork(): time.sleep(100)
"""


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    """Two slots and two warm workers."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "jobs.py").write_text(JOBS)
    async with yard_in(tmp_path, pythonpath=f"{tmp_path}/lib", slots=2) as yard:
        for ticket in [yard.start("py", "jobs:sleeps [0.2]") for _ in range(2)]:
            await yard.end_of(ticket)
        yield yard


@pytest.fixture
def insisting(yard: Yard) -> Yard:
    """As a node, it starts again what was returned because a new worker took its time."""
    yard.insists = True
    return yard


@asynccontextmanager
async def one_warm_slot(directory: Path) -> AsyncIterator[Yard]:
    """Under what a node allows unless it is told otherwise."""
    most = maxima(load_node({}, "127.0.0.1", 1)).limits
    assert most != NO_LIMITS
    (directory / "jobs.py").write_text(JOBS)
    async with yard_in(directory, pythonpath=str(directory), most=most, slots=1) as yard:
        assert await value(yard, yard.start("py", "jobs:sleeps [0]"))
        yield yard


async def value(yard: Yard, ticket: str) -> object:
    over = await yard.end_of(ticket)
    assert over.outcome.verdict is Verdict.SUCCEEDED, stderr(over).decode()
    return json.loads(stdout(over))


# --- the line ----------------------------------------------------------------------------------------------------


async def test_no_more_run_at_once_than_there_are_slots_and_all_run_in_order(insisting: Yard, tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [f"echo + {number} >> {log}; sleep 0.01; echo - {number} >> {log}" for number in range(12)]
    for ticket in [insisting.start("sh", line, slots=2 if number == 5 else 1) for number, line in enumerate(lines)]:
        assert (await insisting.end_of(ticket)).outcome.verdict is Verdict.SUCCEEDED
    running: set[int] = set()
    begun = []
    for sign, number in (line.split() for line in log.read_text().splitlines()):
        if sign == "+":
            running.add(int(number))
            begun.append(int(number))
        else:
            running.remove(int(number))
        assert sum(2 if number == 5 else 1 for number in running) <= 2
    assert all(abs(number - place) <= 1 for place, number in enumerate(begun)), "two that begin together may swap"


async def test_what_stands_behind_a_long_attempt_is_returned_without_being_asked_for(yard: Yard) -> None:
    for _ in range(2):
        await yard.begin("exec", "sleep 100")
    tickets = [yard.start("exec", "true"), yard.start("py", "jobs:says [1]")]
    for ticket in tickets:
        await yard.return_of(ticket)
    assert not yard.begun.keys() & set(tickets)


async def test_what_is_taken_back_never_begins_and_what_has_begun_goes_on(yard: Yard, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    running = [yard.start("sh", f"sleep 0.04; echo {number}") for number in range(2)]
    waiting = [yard.start("sh", f"echo >> {mark}") for _ in range(3)]
    yard.take_back(*running, *waiting[:2], "unknown-1")
    for ticket in waiting[:2]:
        await yard.return_of(ticket)
    for ticket in running:
        assert (await yard.end_of(ticket)).outcome.verdict is Verdict.SUCCEEDED
    await until(lambda: waiting[2] in {**yard.over, **yard.returned})  # where all is slow, it comes back unasked
    assert (mark.read_text() if mark.exists() else "") == "\n" * (waiting[2] in yard.over)


async def test_what_had_not_begun_when_the_spawner_was_killed_is_returned_and_the_rest_has_crashed(yard: Yard) -> None:
    assert yard.executors.spawner_pid is not None
    os.kill(yard.executors.spawner_pid, signal.SIGSTOP)
    unread = [yard.start("exec", "true") for _ in range(3)]
    os.kill(yard.executors.spawner_pid, signal.SIGKILL)
    for ticket in unread:
        await yard.return_of(ticket)
    begun = [(await yard.begin("exec", "sleep 100"))[0] for _ in range(2)]
    in_line = yard.start("exec", "true")
    os.kill(yard.executors.spawner_pid, signal.SIGKILL)
    await yard.return_of(in_line)
    for ticket in begun:
        assert (await yard.end_of(ticket)).outcome == Outcome(Verdict.CRASHED)


# --- calls in the hands of a worker ------------------------------------------------------------------------------


async def test_calls_go_to_the_workers_that_run_already_and_each_keeps_what_it_printed(insisting: Yard) -> None:
    tickets = [insisting.start("py", f"jobs:{'says' if number % 3 else 'shouts'} [{number}]") for number in range(300)]
    pids = Counter[int]()
    for number, ticket in enumerate(tickets):
        what, pid = await value(insisting, ticket)  # type: ignore[misc]
        assert what == number
        assert stderr(insisting.over[ticket]) == (b"%d\n" % number if number % 3 else b"x" * number)
        pids[pid] += 1
    assert len(pids) == 2
    assert min(pids.values()) > 30, "both have worked"


async def test_a_worker_goes_on_for_a_while_without_the_spawner_under_what_a_node_allows_by_default(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    async with one_warm_slot(tmp_path) as yard:
        yard.insists = True
        first, *tickets = [yard.start("py", f'jobs:naps_and_notes ["{log}"]') for _ in range(600)]
        await yard.end_of(first)
        spawner = yard.executors.spawner_pid
        assert spawner is not None
        os.kill(spawner, signal.SIGSTOP)
        known = len(log.read_text())
        await until(lambda: len(log.read_text()) >= known + 5)
        os.kill(spawner, signal.SIGCONT)
        for ticket in tickets:
            assert await value(yard, ticket) is None
    assert len(log.read_text()) == 600


@pytest.mark.parametrize(
    ("line", "verdict", "reason"),
    [
        ("jobs:dies [4]", Verdict.FAILED, Reason.EXIT),
        ("jobs:leaves_a_child", Verdict.SUCCEEDED, None),
        ("jobs:litters", Verdict.SUCCEEDED, None),
    ],
)
async def test_what_a_call_does_to_its_worker_or_its_directory_hurts_none_of_those_behind_it(
    insisting: Yard, line: str, verdict: Verdict, reason: Reason | None
) -> None:
    tickets = [insisting.start("py", line if number % 20 == 3 else "jobs:looks") for number in range(100)]
    for number, ticket in enumerate(tickets):
        over = await insisting.end_of(ticket)
        if number % 20 == 3:
            assert (over.outcome.verdict, over.outcome.reason) == (verdict, reason)
        else:
            assert stdout(over) == b"[]\n"


async def test_calls_behind_a_long_one_are_run_by_another_worker(insisting: Yard) -> None:
    long = insisting.start("py", "jobs:sleeps [100]")
    tickets = [insisting.start("py", f"jobs:sleeps [0.00{number % 3}]") for number in range(30)]
    assert len({await value(insisting, ticket) for ticket in tickets}) == 1
    assert long in insisting.begun
    assert long not in insisting.over


async def test_ends_of_short_calls_are_not_held_back_by_a_long_one_behind_them(tmp_path: Path) -> None:
    async with one_warm_slot(tmp_path) as yard:
        short = [yard.start("py", f"jobs:says [{number}]") for number in range(10)]
        long = yard.start("py", "jobs:sleeps [100]")
        behind = yard.start("py", "jobs:says [10]")
        with trio.fail_after(2):
            for ticket in short:
                await yard.end_of(ticket)
            await yard.return_of(behind)
        assert long in yard.begun
        assert long not in yard.over


async def test_a_worker_that_is_killed_takes_one_call_with_it_and_none_is_made_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with one_warm_slot(tmp_path) as yard:
        yard.insists = True
        pid = int(stdout(await yard.run("py", "os:getpid")))
        tickets = [yard.start("py", f'jobs:notes ["{log}", {number}]') for number in range(500)]
        await yard.end_of(tickets[20])
        os.kill(pid, signal.SIGKILL)
        ends = [(await yard.end_of(ticket)).outcome.verdict for ticket in tickets]
    assert ends.count(Verdict.SUCCEEDED) == 499
    made = Counter(map(int, log.read_text().split()))
    assert set(made.values()) == {1}
    assert {number for number, verdict in enumerate(ends) if verdict is Verdict.SUCCEEDED} <= made.keys()


async def test_a_kill_ends_the_call_it_is_meant_for_and_no_other_of_its_worker(insisting: Yard) -> None:
    killed = 0
    for _ in range(10):
        tickets = [insisting.start("py", f"jobs:sleeps [{0.002 if number else 0.03}]") for number in range(20)]
        for ticket in tickets[::4]:
            insisting.kill(ticket, signal.SIGTERM)
        for number, ticket in enumerate(tickets):
            over = await insisting.end_of(ticket)
            if number % 4:
                assert over.outcome.verdict is Verdict.SUCCEEDED
        killed += insisting.over[tickets[0]].outcome.reason is Reason.SIGNAL
    assert killed, "all kills came too late, so nothing was tested"


async def test_calls_taken_back_from_a_worker_do_not_begin(yard: Yard) -> None:
    first = [yard.start("py", "jobs:sleeps [0.1]") for _ in range(2)]
    behind = [yard.start("py", "jobs:says [1]") for _ in range(20)]
    yard.take_back(*behind)
    await until(lambda: yard.returned.keys() | yard.over.keys() >= set(behind))
    assert len(yard.returned.keys() & set(behind)) > 15, "two at most are in front of them"
    for ticket in first:
        await value(yard, ticket)


async def test_each_call_is_made_once_however_often_workers_are_asked_for_those_they_have_not_begun(
    insisting: Yard, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    tickets = []
    for number in range(1500):
        tickets.append(insisting.start("py", f'jobs:notes ["{log}", {number}]'))
        if number % 3 == 0:
            insisting.take_back("unknown-1")
        if number % 50 == 0:
            await trio.lowlevel.checkpoint()
    for number, ticket in enumerate(tickets):
        assert await value(insisting, ticket) == number
        insisting.take_back("unknown-1")
    assert sorted(map(int, log.read_text().split())) == list(range(1500))


async def test_a_look_at_a_call_finds_what_it_has_printed_and_nothing_of_others(insisting: Yard) -> None:
    tickets = [insisting.start("py", f"jobs:says [{number}]") for number in range(20)]
    long = insisting.start("sh", "echo here; sleep 0.04")
    await insisting.peek(tickets[-1])
    for number, ticket in enumerate(tickets):
        await value(insisting, ticket)
        assert stderr(insisting.over[ticket]) == b"%d\n" % number
    await insisting.end_of(long)


async def test_what_has_waited_too_long_is_returned_although_the_line_moves(yard: Yard) -> None:
    tickets = [yard.start("sh", "sleep 0.03") for _ in range(60)]
    await until(lambda: len(yard.over) + len(yard.returned) == len(tickets) + 2)
    assert len(yard.returned) > 20, "all of them would take a second"


def test_nothing_is_taken_back_from_a_worker_that_has_still_to_take_up_its_first_call() -> None:
    """It could take up another meanwhile, of which we would not know."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with giving, taking:
        back: list[object] = []
        worker = object.__new__(Worker)
        worker._giving, worker._taking = giving, taking
        worker._home, worker.process = SimpleNamespace(on_back=back.extend), SimpleNamespace(ended=False)  # type: ignore[assignment]
        calls = [SimpleNamespace(number=number) for number in (1, 2, 3)]
        worker._calls = deque(calls)  # type: ignore[arg-type]
        packets = [struct.pack(">III", 8, 0, call.number) for call in calls]
        for packet in packets:
            giving.send(packet)
        worker.take_back()
        assert back == []
        assert taking.recv(100) == packets[0], "it takes up its first"
        worker.take_back()
        assert back == calls[1:]
        assert list(worker._calls) == calls[:1]


@pytest.mark.parametrize(("given", "is_full", "hands_back"), [(2, False, True), (2, True, False), (1, False, False)])
def test_a_worker_hands_back_what_it_has_not_begun_when_a_slot_is_free(
    given: int, is_full: bool, hands_back: bool
) -> None:
    """Whoever has done what it was given is idle otherwise, beside another that has still a lot to do."""
    worker = Mock(given=given)
    workers = object.__new__(Workers)
    workers._busy, workers._is_full = {worker: None}, lambda: is_full
    workers._loop = SimpleNamespace(after=lambda *_: None)  # type: ignore[assignment]
    workers._look()
    assert worker.take_back.called is hands_back


async def test_nobody_hears_of_the_beginning_of_what_is_over_soon_whatever_else_there_is_to_tell(yard: Yard) -> None:
    yard.insists = True
    long, _ = await yard.begin("exec", "sleep 0.05")
    short = [yard.start("exec", "true") for _ in range(40)]
    for ticket in [long, *short]:
        await yard.end_of(ticket)
    told = [ticket for ticket in [long, *short] if ticket in yard.begun]
    assert told[0] == long
    assert min(yard.over[ticket].outcome.seconds for ticket in told) >= NEWS_WAIT_S
