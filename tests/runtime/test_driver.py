"""The driver: durable, then visible; batches that grow under load; and what happens when the disk fails."""

from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from common.effects import Effects, Exit, Note, Put, Reply, Table, Write
from common.events import StoreLevel
from common.runtime.driver import (
    BUSY_S,
    QUIET_FRACTION,
    QUIET_S,
    ROOM_CHECK_IDLE_S,
    ROOM_CHECK_PERIOD_S,
    Driver,
    InPlaceWhileQuick,
    Step,
    in_one_thread,
)
from common.runtime.room import NoRoom, Room


class Script:
    """A machine that writes and replies once for each event that is a number, and ends on None."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.deadline: float | None = None
        self.committed_count = 0
        self.levels: list[StoreLevel] = []

    def restore(self, now: float, wall: float) -> None:
        self.restored_at = (now, wall)

    def handle(self, events: Sequence[object], now: float) -> Effects:
        self.levels += [event for event in events if isinstance(event, StoreLevel)]
        numbers = [event for event in events if not isinstance(event, StoreLevel)]
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            numbers.append("woken")
        if not numbers:
            return Effects()
        self.batches.append(numbers)
        actions: list[object] = [Exit(3) if event is None else Reply(hash(event), b"") for event in numbers]
        return Effects([Put(Table.JOBS, str(event).encode(), b"") for event in numbers], actions)

    def committed(self) -> None:
        self.committed_count += 1

    def next_deadline(self) -> float | None:
        return self.deadline

    def check(self) -> None: ...

    def statistics(self) -> dict[str, float]:
        return {}


class Disk:
    """Commits that take time, or fail."""

    def __init__(self, log: list[str], errors: Sequence[Exception] = ()) -> None:
        self.log = log
        self.errors = list(errors)

    def commit(self, writes: Sequence[Write]) -> None:
        if self.errors:
            self.log.append("failed")
            raise self.errors.pop(0)
        self.log.append("commit " + " ".join(write.key.decode() for write in writes))

    def room(self) -> Room:
        return Room(1, 4, disk_full=bool(self.errors))


def slow(seconds: float) -> Callable[[Callable[[], None]], object]:
    async def run(call: Callable[[], None]) -> None:
        await trio.sleep(seconds)
        call()

    return run


def make(machine: Script, disk: Disk, *, commit_s: float = 0.0, steps: list[Step] | None = None) -> Driver:
    driver = Driver(
        machine,
        disk,
        observers=[] if steps is None else [steps.append],
        run_blocking=slow(commit_s),  # type: ignore[arg-type]
        wall=lambda: 5e9,
    )
    driver.perform({Reply: lambda action: disk.log.append(f"reply {action.query_id}")})
    return driver


async def test_an_action_is_performed_only_after_its_writes_are_committed(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    driver = make(Script(), Disk(log))
    for event in (1, 2, None):
        driver.post(event)
    assert await driver.run() == 3
    assert log == ["commit 1 2 None", "reply 1", "reply 2"]


async def test_what_need_not_wait_for_the_writes_does_not(autojump_clock: trio.abc.Clock) -> None:
    class Hasty(Script):
        def handle(self, events: Sequence[object], now: float) -> Effects:
            effects = super().handle(events, now)
            return Effects(effects.writes, effects.actions, at_once=(Reply(99, b""),) if effects.writes else ())

    log: list[str] = []
    driver = make(Hasty(), Disk(log))
    driver.post(1)
    driver.post(None)
    await driver.run()
    assert log == ["reply 99", "commit 1 None", "reply 1"]


async def test_what_comes_in_during_a_commit_is_the_next_batch(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    machine = Script()
    driver = make(machine, Disk(log), commit_s=0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        for event in range(5):
            driver.post(event)
            await trio.sleep(0.04)
        driver.post(None)
    assert [len(batch) for batch in machine.batches] == [1, 2, 2, 1] or sum(map(len, machine.batches)) == 6
    assert len(machine.batches) < 6, "events gathered while a commit was under way"


async def test_a_deadline_wakes_the_machine_in_time(autojump_clock: trio.abc.Clock) -> None:
    machine, steps = Script(), list[Step]()
    driver = make(machine, Disk([]), steps=steps)
    machine.deadline = trio.current_time() + 7.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(6.9)
        assert machine.batches == []
        await trio.sleep(0.2)
        assert machine.batches == [["woken"]]
        driver.post(None)
    assert machine.restored_at[1] == 5e9
    assert [step.commit_s for step in steps if step.effects.writes] == [0.0, 0.0]


async def test_a_cancelled_waiter_does_not_part_a_commit_from_its_actions(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    driver = make(Script(), Disk(log), commit_s=1.0)
    driver.post(1)
    with trio.move_on_after(0.5):
        await driver.run()
    assert log == ["commit 1", "reply 1"]


async def test_a_full_disk_is_waited_out_and_nothing_is_said_meanwhile(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    driver = make(Script(), Disk(log, [NoRoom("full")] * 3))
    driver.post(1)
    driver.post(None)
    await driver.run()
    assert log == ["failed"] * 3 + ["commit 1 None", "reply 1"]


async def test_any_other_failure_of_the_store_ends_the_program_unheard(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    driver = make(Script(), Disk(log, [OSError("I/O error")]))
    driver.post(1)
    with pytest.raises(OSError, match="I/O error"):
        await driver.run()
    assert log == ["failed"]


async def test_the_machine_is_told_how_full_the_store_is(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    driver = make(machine, Disk([]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(10 * ROOM_CHECK_IDLE_S)
        driver.post(None)
    assert 10 <= len(machine.levels) <= 12
    assert machine.levels[0].fraction == 0.25


async def test_what_ends_a_pause_is_taken_in_by_a_machine_that_knows_how_full_the_disk_is(
    autojump_clock: trio.abc.Clock,
) -> None:
    steps: list[Step] = []
    disk = Disk([])
    driver = make(Script(), disk, steps=steps)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(ROOM_CHECK_IDLE_S + 0.9 * ROOM_CHECK_IDLE_S)
        disk.errors = [NoRoom("full")]
        driver.post(1)
        await trio.sleep(0.01)
        driver.post(None)
    [taken] = [step.events for step in steps if 1 in step.events]
    assert isinstance(taken[0], StoreLevel)
    assert taken[0].disk_full


async def test_the_room_is_looked_at_often_while_something_comes_in(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    driver = make(machine, Disk([]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        for event in range(40):
            driver.post(event)
            await trio.sleep(ROOM_CHECK_PERIOD_S / 4)
        driver.post(None)
    assert 8 <= len(machine.levels) <= 12, "each time that a quarter of a second has passed"


async def test_a_look_at_the_room_is_one_step(autojump_clock: trio.abc.Clock) -> None:
    steps: list[Step] = []
    driver = make(Script(), Disk([]), steps=steps)
    with trio.move_on_after(10 * ROOM_CHECK_IDLE_S + 0.01):
        await driver.run()
    assert [len(step.events) for step in steps] == [1] * 11, "a step without any event is taken for nothing"


async def test_notes_are_for_observers_alone(autojump_clock: trio.abc.Clock) -> None:
    class Noting(Script):
        def handle(self, events: Sequence[object], now: float) -> Effects:
            return Effects((), (Note("something", fields={"a": 1}), Exit(0)))

    steps: list[Step] = []
    await make(Noting(), Disk([]), steps=steps).run()
    assert [action for step in steps for action in step.effects.actions if isinstance(action, Note)]


async def test_blocking_calls_run_one_at_a_time() -> None:
    run, running, most = in_one_thread(), 0, 0

    def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run, call)
    assert most == 1


class Clock:
    """Calls that take as long as they are told to, in place or in a thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self.where: list[str] = []
        self._took = 0.0
        self.calls = InPlaceWhileQuick(self._in_thread, lambda: self.now, quick_s=0.002)

    async def _in_thread(self, call: Callable[[], None]) -> None:
        call()
        self.where[-1] = "thread"

    def _call(self) -> None:
        self.now += self._took
        self.where.append("here")

    async def run(self, took_s: float) -> str:
        self._took = took_s
        await self.calls.run(self._call)
        return self.where[-1]


async def test_a_call_runs_in_place_until_one_is_slow_and_then_for_a_while_in_a_thread() -> None:
    clock = Clock()
    assert [await clock.run(took_s) for took_s in (0.001, 0.002, 0.03)] == ["here"] * 3
    assert [await clock.run(0.001) for _ in range(6)] == ["thread"] * 4 + ["here"] * 2
    assert not clock.calls._in_thread_yet


async def test_the_slower_a_disk_stays_the_longer_calls_stay_in_a_thread() -> None:
    clock = Clock()
    slow = [await clock.run(0.03) for _ in range(3)]
    assert slow == ["here", "thread", "thread"]
    assert [await clock.run(0.001) for _ in range(17)] == ["thread"] * 16 + ["here"], "4, then 8, then 16"
    for _ in range(1000):
        await clock.run(0.03)
    assert [await clock.run(0.001) for _ in range(65)] == ["thread"] * 64 + ["here"]
    assert await clock.run(0.03) == "here"
    assert [await clock.run(0.001) for _ in range(33)] == ["thread"] * 32 + ["here"], "it has been quick once"
    assert [await clock.run(took_s) for took_s in [0.001] * 3 + [0.03]] == ["here"] * 4
    assert [await clock.run(0.001) for _ in range(5)] == ["thread"] * 4 + ["here"], "it has been quick several times"


async def test_who_may_not_wait_has_a_call_run_here_or_not_at_all() -> None:
    clock = Clock()
    assert clock.calls.run_here(lambda: None)
    await clock.run(0.03)
    assert not clock.calls.run_here(lambda: clock.where.append("never"))
    assert "never" not in clock.where


# --- who tells makes the step -----------------------------------------------------------------------------------


def made(machine: Script, log: list[str], *, here: bool = True, errors: Sequence[Exception] = ()) -> Driver:
    """A driver whose commits are run by who tells, or take a second elsewhere."""

    def run_here(call: Callable[[], None]) -> bool:
        if here:
            call()
        return here

    driver = Driver(
        machine,
        Disk(log, errors),
        run_blocking=slow(1.0),  # type: ignore[arg-type]
        run_here=run_here,
        wall=lambda: 5e9,
    )
    driver.perform({Reply: lambda action: log.append(f"reply {action.query_id}")})
    return driver


async def test_who_tells_after_a_moment_of_quiet_makes_the_step_himself(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    machine = Script()
    driver = made(machine, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        assert log == ["commit 1", "reply 1"], "no other task was needed for it"
        steps = machine.committed_count
        assert steps > 0
        await trio.sleep(QUIET_S / 2)
        assert machine.committed_count == steps, "and the driver's has nothing to do"
        driver.tell(2)
        driver.tell(3)
        assert log[2:] == [], "who comes before the driver has had its turn makes none"
        await trio.sleep(5)
        assert machine.batches == [[1], [2, 3]]
        driver.tell(None)
    assert driver.exit_status == 3


@pytest.mark.parametrize("tellers", [2, 16])
async def test_of_many_who_tell_in_one_moment_only_the_first_makes_a_step_of_his_own(
    autojump_clock: trio.abc.Clock, tellers: int
) -> None:
    machine = Script()
    driver = made(machine, [], here=True)

    async def tell(number: int) -> None:
        driver.tell(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        for number in range(tellers):
            nursery.start_soon(tell, number)
        await trio.sleep(5)
        assert [len(batch) for batch in machine.batches] == [1, tellers - 1]
        driver.tell(None)


async def test_where_several_come_together_the_next_that_come_do_so_too(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    log: list[str] = []
    driver = made(machine, log)
    driver._run_blocking = slow(0.0)  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        for number in (1, 2, 3):
            driver.tell(number)
        await trio.sleep(BUSY_S / 2)
        assert machine.batches == [[1], [2, 3]]
        driver.tell(4)
        assert machine.batches == [[1], [2, 3]], "there may be more to come"
        await trio.sleep(BUSY_S * 2)
        driver.tell(5)
        assert machine.batches == [[1], [2, 3], [4], [5]]
        await trio.sleep(0.1)
        driver.tell(None)


async def test_after_several_that_were_posted_together_the_next_gather_too(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    driver = made(machine, [])
    driver._run_blocking = slow(0.0)  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.post(1)
        driver.post(2)
        await trio.sleep(BUSY_S / 2)
        driver.tell(3)
        assert machine.batches == [[1, 2]]
        await trio.sleep(0.1)
        driver.tell(None)


async def test_where_one_comes_close_behind_another_the_next_gather_too(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    driver = made(machine, [])
    driver._run_blocking = slow(0.0)  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        driver.tell(2)
        await trio.sleep(BUSY_S / 2)
        assert machine.batches == [[1], [2]]
        driver.tell(3)
        assert machine.batches == [[1], [2]]
        await trio.sleep(0.1)
        driver.tell(None)


@pytest.mark.parametrize("took_s", [0.0, 0.02])
async def test_the_longer_a_step_took_the_longer_those_that_follow_it_gather(
    autojump_clock: trio.testing.MockClock, took_s: float
) -> None:
    machine = Script()
    driver = made(machine, [])
    driver.perform({Reply: lambda action: autojump_clock.jump(took_s)})
    quiet_s = max(QUIET_S, took_s * QUIET_FRACTION)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        await trio.sleep(quiet_s / 2)
        driver.tell(2)
        assert machine.batches == [[1]]
        await trio.sleep(2.3)
        driver.tell(3)
        await trio.sleep(quiet_s * 1.5)
        driver.tell(4)
        assert machine.batches == [[1], [2], [3], [4]]
        await trio.sleep(0.1)
        driver.tell(None)


async def test_a_commit_that_may_take_long_is_left_to_the_driver_and_nothing_comes_between(
    autojump_clock: trio.abc.Clock,
) -> None:
    log: list[str] = []
    machine = Script()
    driver = made(machine, log, here=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        driver.tell(2)
        assert (log, machine.batches) == ([], [[1]]), "decided, and not durable: nobody has seen it"
        await trio.sleep(0.5)
        driver.tell(3)
        await trio.sleep(5)
        assert log == ["commit 1", "reply 1", "commit 2 3", "reply 2", "reply 3"]
        driver.tell(None)


async def test_a_full_disk_is_waited_out_also_where_the_step_was_told(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    driver = made(Script(), log, errors=[NoRoom("full")] * 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        assert log == ["failed"]
        await trio.sleep(10)
        assert log == ["failed"] * 3 + ["commit 1", "reply 1"]
        driver.tell(None)


class Failing(Script):
    def handle(self, events: Sequence[object], now: float) -> Effects:
        if "bad" in events:
            raise ValueError("nobody thought of it")
        return super().handle(events, now)


async def test_what_fails_in_a_step_that_was_told_fails_the_driver_and_not_who_told(
    autojump_clock: trio.abc.Clock,
) -> None:
    driver = made(Failing(), [])

    async def tell() -> None:
        await trio.sleep(0.5)
        driver.tell("bad")
        driver.tell("later")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        with pytest.raises(ValueError, match="nobody thought of it"):
            await driver.run()


async def test_a_deadline_that_comes_with_a_step_that_was_told_is_kept(autojump_clock: trio.abc.Clock) -> None:
    machine = Script()
    driver = made(machine, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.1)
        machine.deadline = trio.current_time() + 0.2
        driver.tell(1)
        await trio.sleep(0.3)
        assert machine.batches == [[1], ["woken"]]
        driver.tell(None)


async def test_a_step_that_gathers_company_is_not_made_by_who_tells(autojump_clock: trio.abc.Clock) -> None:
    machine = Patient()
    driver = made(machine, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(0.5)
        driver.tell(1)
        await trio.sleep(0.05)
        driver.tell(2)
        await trio.sleep(0.03)
        driver.tell(3)
        await trio.sleep(0.1)
        assert machine.batches == [[1], [2, 3]]
        driver.tell(None)


class Patient(Script):
    """Once it was told 1, it can wait a tenth of a second."""

    def handle(self, events: Sequence[object], now: float) -> Effects:
        effects = super().handle(events, now)
        return Effects(effects.writes, effects.actions, gather_s=0.1 if 1 in events else 0.0)


async def batches_of(machine: Script, driver: Driver) -> list[list[object]]:
    """How the numbers from 1 to 5 were taken together that came every 40 ms."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        for event in (1, 2, 3, 4, 5, None):
            driver.post(event)
            await trio.sleep(0.04)
    posted = [[event for event in batch if event in (1, 2, 3, 4, 5)] for batch in machine.batches]
    return [batch for batch in posted if batch]


async def test_a_step_that_nobody_waits_for_gathers_company(autojump_clock: trio.abc.Clock) -> None:
    machine = Patient()
    assert await batches_of(machine, make(machine, Disk([]))) == [[1], [2, 3], [4], [5]]


async def test_what_has_gathered_while_a_step_took_long_waits_for_no_more(autojump_clock: trio.abc.Clock) -> None:
    machine = Patient()
    assert await batches_of(machine, make(machine, Disk([]), commit_s=0.1)) == [[1], [2, 3], [4, 5]]
