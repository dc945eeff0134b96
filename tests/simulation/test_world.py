"""The virtual world does to the shipped programs what each fault says, and tells of all of it."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest
import structlog
import trio

from balancer.dispatcher import Dispatcher
from common.effects import Table, Write
from common.limits import KILL_GRACE_S
from common.model import Outcome, Reason, Verdict
from common.runtime.driver import Step
from node.executors import Start
from node.worker import Worker
from tests.simulation import determinism
from tests.simulation.faults import (
    Crash,
    Cut,
    DiskError,
    DiskFull,
    DiskSlow,
    Fault,
    GoneForEver,
    Isolate,
    Jump,
    Pause,
    Reset,
    SpawnerDies,
    Stop,
)
from tests.simulation.world import WALL, Knobs, World

UP_S = 1.0  # after which every program is up and every node is linked
Story = Callable[["World"], Awaitable[Any]]


class Log:
    """Everything that a watcher is told, and when. Of who is dead, nothing may be told."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, str, Step]] = []
        self.commits: list[tuple[float, str, Sequence[Write]]] = []
        self.begun: list[tuple[float, str, str, str, int]] = []
        self.ended: list[tuple[float, str, str, int, Outcome]] = []
        self.lives: list[tuple[float, str, str]] = []
        self.alive: set[str] = set()

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        self.commits.append((trio.current_time(), process, writes))

    def stepped(self, process: str, step: Step, machine: Worker | Dispatcher) -> None:
        assert process in self.alive
        assert isinstance(machine, Dispatcher if process == "balancer" else Worker)
        self.steps.append((trio.current_time(), process, step))

    def began(self, process: str, boot_id: str, ticket: str, attempt: int, stdin: bytes) -> None:
        assert process in self.alive
        self.begun.append((trio.current_time(), process, boot_id, ticket, attempt))

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome, output: bytes) -> None:
        assert process in self.alive
        self.ended.append((trio.current_time(), process, ticket, attempt, outcome))

    def booted(self, process: str, boot_id: str) -> None:
        self.alive.add(process)
        self.lives.append((trio.current_time(), process, boot_id))

    def died(self, process: str, how: str) -> None:
        self.alive.discard(process)
        self.lives.append((trio.current_time(), process, how))

    def steps_of(self, process: str, start: float, end: float) -> int:
        return sum(who == process and start < at < end for at, who, _ in self.steps)

    def deaths(self) -> list[tuple[str, str]]:
        hows = ("killed", "power cut", "store failed", "stopped", "gone")
        return [(process, how) for _, process, how in self.lives if how in hows]


class Client:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    @classmethod
    async def at(cls, world: World, node: str, name: str = "c1") -> "Client":
        return cls(await world.connect(name, node))

    async def ask(self, line: str, within_s: float = 60.0) -> str:
        """The reply, without its last LF; "(silence)" where none comes in time, "(end)" where the connection does."""
        with trio.move_on_after(within_s):
            try:
                await self.stream.send_all(line.encode() + b"\n")
                return await self._reply()
            except (trio.BrokenResourceError, EOFError):
                return "(end)"
        return "(silence)"

    async def _reply(self) -> str:
        reply = b""
        while (size_bytes := _size_bytes(reply)) is None or len(reply) < size_bytes:
            if not (data := await self.stream.receive_some()):
                raise EOFError
            reply += data
        return reply.decode().removesuffix("\n")

    async def submit(self, line: str) -> str:
        """The ticket."""
        reply = await self.ask(f"submit {line}")
        assert reply.startswith("OK "), reply
        return reply.split()[1]

    async def run(self, line: str) -> dict[str, str]:
        """The fields of the result, and what was printed as `output`."""
        head, _, output = (await self.ask(f"run {line}")).partition("\n")
        return {**dict(word.split("=") for word in head.split()[2:]), "output": output}


def _size_bytes(reply: bytes) -> int | None:
    """Of a whole reply that begins so; None where that cannot be told yet."""
    head, ended, _ = reply.partition(b"\n")
    if not ended:
        return None
    body = re.search(rb" bytes=(\d+)", head)
    return len(head) + 1 + (int(body[1]) + 1 if body else 0)


def simulate(
    story: Story, *, seed: int = 1, log: Log | None = None, crash_at: dict[int, bool] | None = None, **knobs: Any
) -> World:
    """The world after the story, which begins when everything is up."""
    world = World(seed, attrs.evolve(Knobs(), **knobs), [log or Log()])
    world.crash_at = crash_at or {}

    async def when_up(world: World) -> None:
        await trio.sleep(UP_S)
        await story(world)

    determinism.run(world.run, when_up, seed=seed)
    return world


# --- without faults ----------------------------------------------------------------------------------------------


def test_a_job_goes_its_way_and_everything_is_told() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        ticket = await client.submit("sh sleep 2")
        assert "state=succeeded exit=0 attempt=1 node=" in await client.ask(f"wait timeout=30s {ticket}")
        ((began_at, runner, boot_id, *begun),) = log.begun
        ((over_at, *over),) = log.ended
        assert begun == [ticket, 1]
        assert over == [runner, ticket, 1, Outcome(Verdict.SUCCEEDED, None, 0, 2.0)]
        assert over_at - began_at == pytest.approx(2.0)
        assert [who for _, who, said in log.lives if said == boot_id] == [runner]
        assert any(write.table is Table.JOBS for _, who, writes in log.commits for write in writes if who == "n1")
        assert world.tables("balancer")[Table.JOBS]

    world = simulate(story, log=log)
    assert len(log.lives) == 4
    assert world.points == len(world.passed) > 30


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("sh true", "", {"state": "succeeded", "exit": "0"}),
        ("exec whatever else", "", {"state": "succeeded", "exit": "0"}),
        ("sh exit 3", "", {"state": "failed", "reason": "exit", "exit": "3"}),
        ("sh print 5", "", {"state": "succeeded", "stdout": "5", "output": "01234"}),
        ("bytes=3 sh cat", "abc", {"state": "succeeded", "output": "abc"}),
        ("sh cannot", "", {"state": "failed", "reason": "cannot_start"}),
        ("timeout=1s sh sleep 20", "", {"state": "failed", "reason": "timeout"}),
        ("sleep 1s", "", {"state": "succeeded"}),
    ],
)
def test_a_job_behaves_as_its_line_says(line: str, body: str, expected: dict[str, str]) -> None:
    async def story(world: World) -> None:
        result = await (await Client.at(world, "n1")).run(line + (f"\n{body}" if body else ""))
        assert {name: result.get(name) for name in expected} == expected

    simulate(story)


def test_a_stubborn_job_is_killed_after_the_grace() -> None:
    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        assert 0.9 < float((await client.run("timeout=1s sh sleep 20"))["seconds"]) < 1.1
        seconds = float((await client.run("timeout=1s sh stubborn 20"))["seconds"])
        assert 0.9 + KILL_GRACE_S < seconds < 1.1 + KILL_GRACE_S

    simulate(story)


def test_what_a_job_has_printed_so_far_can_be_followed() -> None:
    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        ticket = await client.submit("bytes=3 sh sleep 5\nabc")
        await trio.sleep(1)
        assert "state=running" in (printed := await client.ask(f"logs {ticket}"))
        assert printed.endswith("\nabc")

    simulate(story)


def test_a_job_that_crashes_its_node_does_so_and_the_node_comes_back() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n2")
        ticket = await client.submit("crash_limit=1 sh crash")
        await trio.sleep(3)
        (_, runner, *_), *_ = log.begun
        assert world.up(runner)
        state = await (await Client.at(world, "n3")).ask(f"wait timeout=30s {ticket}")
        assert "state=failed" in state
        assert f"reason={Reason.CRASH_LIMIT}" in state
        assert log.ended == [], "it died with its node, without a word"
        assert log.deaths() == [(runner, "killed")]

    simulate(story, log=log, restart_s=0.5)


# --- processes that die ------------------------------------------------------------------------------------------


def crash_of_a_node(power_cut: bool) -> Story:
    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        ticket = await client.submit("sh true")
        world.do(Crash("n1", power_cut, down_s=30.0))
        assert not world.up("n1")
        assert world.machine("n1") is None
        heard = await client.ask("ping", within_s=2.0)
        assert heard == ("(silence)" if power_cut else "(end)")
        with pytest.raises(OSError, match="does not answer" if power_cut else "refuses"):
            await world.connect("c1", "n1")
        await trio.sleep(31)
        assert world.up("n1")
        assert (await (await Client.at(world, "n1")).ask(f"status {ticket}")).startswith(f"OK {ticket}")

    return story


@pytest.mark.parametrize(("power_cut", "how"), [(False, "killed"), (True, "power cut")])
def test_a_process_that_crashes_is_down_and_comes_back_as_another_boot(power_cut: bool, how: str) -> None:
    log = Log()
    simulate(crash_of_a_node(power_cut), log=log)
    (first, died, second) = [said for _, process, said in log.lives if process == "n1"]
    assert died == how
    assert first != second


def test_two_can_die_at_once_and_one_while_it_recovers() -> None:
    log = Log()

    async def story(world: World) -> None:
        ticket = await (await Client.at(world, "n3")).submit("sh true")
        for process in ("balancer", "n3"):
            world.do(Crash(process, True, 0.0))
        await trio.sleep(0.01)
        assert world.up("n3")
        assert world.machine("n3") is None, "it has not read its disk yet"
        world.do(Crash("n3", False, 0.0))
        await trio.sleep(5)
        assert "state=succeeded" in await (await Client.at(world, "n3")).ask(f"wait timeout=60s {ticket}")

    simulate(story, log=log)
    assert log.deaths() == [("balancer", "power cut"), ("n3", "power cut"), ("n3", "killed")]


def test_a_process_that_is_crashed_by_hand_stays_down_until_it_is_booted() -> None:
    async def story(world: World) -> None:
        world.crash("n1", power_cut=False)
        await trio.sleep(60)
        assert not world.up("n1")
        world.boot("n1")
        world.boot("n1")
        assert world.up("n1")

    simulate(story)


def test_an_earlier_restart_does_not_cut_short_a_later_one() -> None:
    async def story(world: World) -> None:
        world.do(Crash("n1", False, down_s=5.0))
        world.boot("n1")
        await trio.sleep(1)
        world.do(Crash("n1", False, down_s=60.0))
        await trio.sleep(50)
        assert not world.up("n1")
        await trio.sleep(11)
        assert world.up("n1")

    simulate(story)


def test_a_node_that_is_told_to_stop_hands_back_what_it_runs_and_ends_as_planned() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        tickets = [await client.submit("sh sleep 20") for _ in range(6)]
        await trio.sleep(1)
        world.do(Stop("n2", down_s=1.0))
        world.do(Stop("balancer", down_s=0.1))
        assert world.up("n2"), "it drains"
        for ticket in tickets:
            assert "state=succeeded" in await client.ask(f"wait timeout=300s {ticket}", within_s=300)

    simulate(story, log=log, drain_grace_s=2.0)
    assert sorted(log.deaths()) == [("balancer", "stopped"), ("n2", "stopped")]
    assert len(log.lives) == 4 + 2 * 2


def test_a_node_that_is_gone_for_ever_stays_so_with_its_disk_and_its_jobs_go_to_others() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        tickets = [await client.submit("sh sleep 20") for _ in range(6)]
        await trio.sleep(1)
        world.do(GoneForEver("n3"))
        assert not any(world.tables("n3").values())
        for ticket in tickets:
            assert "state=succeeded" in await client.ask(f"wait timeout=300s {ticket}", within_s=300)
        world.boot("n3")
        world.heal()
        assert not world.up("n3")
        assert world.gone == {"n3"}

    simulate(story, log=log)
    assert log.deaths() == [("n3", "gone")]
    assert {runner for _, runner, *_ in log.begun} == {"n1", "n2", "n3"}


def test_a_spawner_that_dies_takes_its_jobs_along_and_leaves_the_node() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        ticket = await client.submit("sh sleep 5")
        await trio.sleep(1)
        ((_, runner, *_),) = log.begun
        world.do(SpawnerDies(runner))
        assert world.up(runner)
        assert "state=succeeded exit=0 attempt=2" in await client.ask(f"wait timeout=60s {ticket}")

    simulate(story, log=log)
    assert [outcome.verdict for *_, outcome in log.ended] == [Verdict.CRASHED, Verdict.SUCCEEDED]


def test_of_who_is_dead_nothing_is_heard_until_he_is_booted_again() -> None:
    async def story(world: World) -> None:
        async def hurry(name: str) -> None:
            while True:
                await trio.sleep(world.chance.uniform(0.0, 0.2))
                try:
                    client = await Client.at(world, world.chance.choice(("n1", "n2", "n3")), name)
                except OSError:
                    continue
                await client.ask("submit sh true", within_s=0.2)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(hurry, f"c{number}")
            for _ in range(30):
                await trio.sleep(world.chance.uniform(0.01, 0.3))
                process = world.chance.choice(world.processes)
                world.do(Crash(process, power_cut=world.chance.random() < 0.5, down_s=0.2))
            nursery.cancel_scope.cancel()

    for seed in range(3):
        log = Log()
        simulate(story, seed=seed, log=log, slots=10)
        assert len(log.deaths()) > 10


def test_what_a_dead_process_does_before_it_is_unwound_is_of_no_effect() -> None:
    log = Log()

    async def story(world: World) -> None:
        boot = world.boot_of("n1")
        assert boot is not None
        assert boot.executors is not None
        world.crash("n1", power_cut=False)
        boot._stepped(log.steps[-1][2])
        boot.executors.submit([Start("aaaaaa-1", 1, "sh", "true")])
        await trio.sleep(1)
        assert log.begun == []

    simulate(story, log=log)


# --- points ------------------------------------------------------------------------------------------------------


async def submit_one(world: World) -> None:
    """A client that is told OK says so in the world's `told`."""
    told = "(refused)"
    try:
        client = await Client.at(world, "n1")
        told = await client.ask("submit sh true", within_s=5)
    except ConnectionRefusedError:
        pass
    world.told = told  # type: ignore[attr-defined]
    await trio.sleep(5)


def points_of_the_commit(seed: int) -> list[int]:
    """The numbers of the points before, within and after the commit of the job at n1."""
    log = Log()
    passed = list(enumerate(simulate(submit_one, log=log, seed=seed).passed, 1))
    (at,) = [
        at for at, who, writes in log.commits if who == "n1" and any(write.table is Table.JOBS for write in writes)
    ][:1]
    before = max(number for number, (when, who, what) in passed if who == "n1" and what[0] == "b" and when < at)
    within = next(number for number, (_, who, what) in passed if who == "n1" and what[0] == "w" and number > before)
    after = next(number for number, (_, who, what) in passed if who == "n1" and what[:2] == "af" and number > within)
    return [before, within, after]


@pytest.mark.parametrize(
    ("place", "power_cut", "jobs"),
    [(0, False, {0}), (1, False, {1}), (2, False, {1}), (0, True, {0}), (1, True, {0, 1}), (2, True, {1})],
)
def test_what_a_crash_at_each_point_of_a_commit_leaves(place: int, power_cut: bool, jobs: set[int]) -> None:
    """And nobody was told OK."""
    left = set()
    for seed in range(6 if len(jobs) > 1 else 2):
        point = points_of_the_commit(seed)[place]
        world = simulate(submit_one, seed=seed, crash_at={point: power_cut})
        assert world.told in ("(end)", "(silence)")  # type: ignore[attr-defined]
        left.add(len(world.tables("n1")[Table.JOBS]))
    assert left == jobs


def test_a_process_dies_at_the_point_that_is_named_and_comes_back() -> None:
    log = Log()
    plain = simulate(submit_one)
    of = {who: [number for number, passed in enumerate(plain.passed, 1) if passed[1] == who] for who in plain.processes}
    chosen = sorted(number for numbers in of.values() for number in numbers[::7])
    for number in chosen:
        log = Log()
        world = simulate(submit_one, log=log, crash_at={number: bool(number % 2)})
        when, process, what = plain.passed[number - 1]
        assert world.passed[:number] == plain.passed[:number], "up to there it is the same run"
        ((died_at, who, how),) = [life for life in log.lives if life[2] in ("killed", "power cut")]
        assert (died_at, who) == (when, process), what
        assert how == ("power cut" if number % 2 else "killed")
        assert world.passed != plain.passed
    assert len(chosen) > 10


def test_every_kind_of_point_is_passed() -> None:
    kinds = {what for _, _, what in simulate(submit_one).passed}
    assert kinds == {
        "before a commit", "within a commit", "after a commit", "a send", "the start of a job", "the end of a job",
    }  # fmt: skip


# --- pauses ------------------------------------------------------------------------------------------------------


def test_a_paused_process_does_nothing_while_the_time_of_the_others_goes_on() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        ticket = await client.submit("sh sleep 3")
        await trio.sleep(1)
        ((began_at, runner, *_),) = log.begun
        paused_at = trio.current_time()
        world.do(Pause(runner, 20.0))
        other = await Client.at(world, runner, "c2")
        assert await other.ask("ping", within_s=19) == "(silence)", "its kernel takes the connection, and no more"
        await trio.sleep(0.9)
        now = trio.current_time()
        assert log.steps_of(runner, paused_at, now) == 0
        for process in world.processes:
            assert process == runner or log.steps_of(process, paused_at, now) >= 19, "a step a second at least"
        (first, *_) = log.ended
        assert first[0] == pytest.approx(began_at + 3.0), "the job itself was not paused"
        assert len(log.begun) == 2, "and after the node timeout it was given to another node"
        await trio.sleep(1)
        assert log.steps_of(runner, now, trio.current_time()) > 3
        assert "state=succeeded" in await (await Client.at(world, "n1")).ask(f"wait timeout=60s {ticket}")

    simulate(story, log=log, node_timeout_s=10.0)
    assert log.deaths() == []


def test_a_pause_within_a_commit_withholds_what_follows_it() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                assert (await client.ask("submit sh true")).startswith("OK ")
                assert trio.current_time() > 30

            nursery.start_soon(submit)
            await trio.sleep(0.2)
            assert [what for _, who, what in world.passed if who == "n1"][-1] == "before a commit"
            world.do(Pause("n1", 30.0))

    simulate(story, log=log, commit_s=(0.5, 0.5), delay_s=(0.001, 0.001))


def test_a_paused_process_can_be_killed() -> None:
    log = Log()

    async def story(world: World) -> None:
        world.do(Pause("n1", 1000.0))
        world.do(Pause("n1", 1000.0))
        await trio.sleep(1)
        world.do(Crash("n1", False, 1.0))
        await trio.sleep(5)
        assert (await (await Client.at(world, "n1")).ask("ping")) == "OK pong"

    simulate(story, log=log)
    assert log.deaths() == [("n1", "killed")]


# --- the network -------------------------------------------------------------------------------------------------


def test_a_cut_or_isolated_process_is_not_heard_and_is_heard_again_afterwards() -> None:
    async def story(world: World) -> None:
        for fault in (Cut("c1", "n1", 10.0), Cut("n1", "c1", 10.0, one_way=True), Isolate("n1", 10.0)):
            client = await Client.at(world, "n1")
            assert await client.ask("ping") == "OK pong"
            world.do(fault)
            assert await client.ask("ping", within_s=2) == "(silence)"
            with pytest.raises(OSError, match=r"does not answer|No route to host"):
                await world.connect("c1", "n1")
            await trio.sleep(8)
            assert await (await Client.at(world, "n1")).ask("ping") == "OK pong"

    simulate(story)


def test_who_is_cut_from_the_balancer_is_presumed_gone_by_it() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        assert (await client.ask("nodes")).count("state=alive") == 3
        world.do(Cut("n2", "balancer", 20.0))
        await trio.sleep(8)
        assert (await client.ask("nodes")).count("state=alive") == 2
        await trio.sleep(20)
        assert (await client.ask("nodes")).count("state=alive") == 3

    simulate(story, log=log, node_timeout_s=5.0)


def test_a_reset_breaks_the_link_and_the_node_dials_again() -> None:
    log = Log()

    async def story(world: World) -> None:
        log.steps.clear()
        world.do(Reset("balancer", "n1"))
        await trio.sleep(2)
        names = [type(event).__name__ for _, who, step in log.steps for event in step.events if who == "n1"]
        assert names.index("LinkClosed") < names.index("LinkOpened")

    simulate(story, log=log)


def test_a_power_cut_is_noticed_by_the_balancer_only_after_the_node_timeout_and_a_kill_at_once() -> None:
    for power_cut, noticed in ((True, False), (False, True)):
        log = Log()

        async def story(world: World, log: Log = log, power_cut: bool = power_cut, noticed: bool = noticed) -> None:
            log.steps.clear()
            world.crash("n1", power_cut=power_cut)
            await trio.sleep(4)
            names = {type(event).__name__ for _, who, step in log.steps for event in step.events if who == "balancer"}
            assert ("LinkClosed" in names) is noticed

        simulate(story, log=log, node_timeout_s=5.0)


# --- disks and clocks --------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_work_until_there_is_room_again() -> None:
    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        world.do(DiskFull("n1", 5.0))
        await trio.sleep(1)
        assert (await client.ask("submit sh true")).startswith("ERR FULL")
        await trio.sleep(5)
        assert (await client.ask("submit sh true")).startswith("OK ")

    simulate(story)


def test_a_slow_disk_makes_commits_long() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        world.do(DiskSlow("n1", 5.0))
        await client.submit("sh true")
        assert max(step.commit_s for _, who, step in log.steps if who == "n1") > 0.05
        await trio.sleep(10)
        log.steps.clear()
        await client.submit("sh true")
        assert max(step.commit_s for _, who, step in log.steps if who == "n1") < 0.01

    simulate(story, log=log)


def test_a_broken_disk_ends_the_program_unheard_and_it_comes_back() -> None:
    log = Log()

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        world.do(DiskError("n1", 1))
        assert await client.ask("submit sh true") == "(end)"
        assert not world.up("n1")
        await trio.sleep(2)
        assert (await (await Client.at(world, "n1")).ask("submit sh true")).startswith("OK ")

    simulate(story, log=log)
    assert log.deaths() == [("n1", "store failed")]


def test_a_node_that_cannot_write_at_its_first_start_ends_and_tries_again() -> None:
    log = Log()
    world = World(1, Knobs(), [log])

    async def story(world: World) -> None:
        world.do(DiskFull("n1", 3.0))
        await trio.sleep(6)
        assert world.machine("n1") is not None

    determinism.run(world.run, story, seed=1)
    assert set(log.deaths()) == {("n1", "store failed")}
    assert 2 <= len(log.deaths()) <= 5


def test_a_calendar_that_is_set_is_that_of_one_process_and_of_its_next_boot() -> None:
    log = Log()

    async def story(world: World) -> None:
        world.do(Jump("n1", -86400.0))
        world.do(Crash("n1", False, 0.1))
        await trio.sleep(2)
        now = WALL + trio.current_time()
        assert world.wall("n1") == now - 86400
        assert world.wall("n2") == world.wall("balancer") == now
        walls = [event.wall for _, who, step in log.steps for event in step.events if hasattr(event, "wall")]
        assert min(walls) < WALL - 80_000
        assert max(walls) > WALL

    simulate(story, log=log)


# --- the end of faults, and of worlds ----------------------------------------------------------------------------

LASTING: Sequence[Fault] = (
    Crash("n1", True, 50.0), Pause("n2", 50.0), Cut("balancer", "n3", 50.0), Isolate("balancer", 50.0),
    DiskFull("n2", 50.0), DiskSlow("n3", 50.0), DiskError("n3", 10_000), Stop("balancer", 50.0),
)  # fmt: skip


def test_after_heal_the_world_is_kind() -> None:
    async def story(world: World) -> None:
        for fault in LASTING:
            world.do(fault)
        await trio.sleep(30)
        assert not world.up("n1")
        assert not world.up("balancer")
        world.heal()
        await trio.sleep(3)
        for node in ("n1", "n2", "n3"):
            assert (await (await Client.at(world, node)).run("sh true"))["state"] == "succeeded"
        await trio.sleep(60)
        assert all(map(world.up, world.processes)), "nothing is undone twice"

    simulate(story)


@pytest.mark.parametrize("told", ["committed", "stepped", "began", "over", "booted", "died"])
def test_what_a_watcher_raises_ends_the_run_with_it(told: str) -> None:
    class Strict(Log):
        pass

    def refuse(self: Log, *_: object) -> None:
        raise AssertionError(f"{told} it was")

    setattr(Strict, told, refuse)

    async def story(world: World) -> None:
        client = await Client.at(world, "n1")
        await client.run("sh true")
        world.do(Crash("n2", False, 1.0))
        await trio.sleep(100)

    with pytest.raises(AssertionError, match=f"^{told} it was"):
        simulate(story, log=Strict())


def test_what_a_story_raises_ends_the_run_with_it() -> None:
    async def story(world: World) -> None:
        raise KeyError("a story's own")

    with pytest.raises(KeyError, match="a story's own"):
        simulate(story)


@pytest.mark.parametrize("machine", [Worker, Dispatcher])
def test_what_is_wrong_in_a_machine_ends_the_run_with_it(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: object, events: object, now: float) -> None:
        raise AssertionError("the machine is broken")

    monkeypatch.setattr(machine, "handle", handle)

    async def story(world: World) -> None:
        await trio.sleep(10)

    with pytest.raises(AssertionError, match="the machine is broken"):
        simulate(story)


def test_what_goes_wrong_in_a_conversation_and_is_only_logged_ends_the_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.runtime.serving import Conversation

    async def run(self: object) -> None:
        raise RuntimeError("a conversation failed")

    monkeypatch.setattr(Conversation, "run", run)

    async def story(world: World) -> None:
        await (await Client.at(world, "n1")).ask("ping")

    with pytest.raises(RuntimeError, match="a conversation failed"):
        simulate(story)


def test_logs_are_counted_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()

    async def story(world: World) -> None:
        world.do(Crash("balancer", False, 5.0))
        await trio.sleep(10)

    world = simulate(story)
    assert world.logged["balancer.unreachable"] >= 3
    assert capsys.readouterr() == ("", "")
    assert structlog.get_config() == before
