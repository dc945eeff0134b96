"""One seed is one run, byte for byte, and what the simulation leans on in trio is there."""

import gc
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio._core import _run

from tests.simulation import determinism
from tests.simulation.faults import Crash, Cut, DiskError, DiskFull, DiskSlow, Fault, Isolate, Jump, Pause, Reset, Stop
from tests.simulation.world import Knobs, World

ROOT = Path(__file__).parents[2]
PLAN: tuple[Fault, ...] = (
    Pause("n1", 3.0), Cut("balancer", "n2", 2.0, one_way=True), DiskSlow("balancer", 1.0), Crash("n3", True, 0.5),
    Reset("n1", "balancer"), DiskFull("n2", 1.0), Jump("n1", 86400.0), DiskError("n2", 2), Stop("n1", 0.2),
    Crash("balancer", False, 0.5), Isolate("n2", 2.0),
)  # fmt: skip


async def submit(world: World, client: str, node: str, line: str) -> None:
    """Whatever comes of it."""
    with trio.move_on_after(2.0):
        try:
            stream = await world.connect(client, node)
            await stream.send_all(b"submit %s\n" % line.encode())
            await stream.receive_some()
            await stream.aclose()
        except (OSError, trio.BrokenResourceError):
            pass


def digest_of(seed: int, plan: tuple[Fault, ...] = PLAN) -> str:
    """The digest of 15 s with every kind of fault and two clients."""

    async def story(world: World) -> None:
        async with trio.open_nursery() as nursery:
            for number, fault in enumerate(plan):
                await trio.sleep(world.chance.uniform(0.1, 1.5))
                world.do(fault)
                nursery.start_soon(submit, world, "c1", f"n{1 + number % 3}", "sh true")
                nursery.start_soon(submit, world, "c2", f"n{1 + number % 2}", "sleep 1s")
            await trio.sleep(3)

    world = World(seed, attrs.evolve(Knobs(), split=0.5), [])
    determinism.run(world.run, story, seed=seed)
    return world.digest()


def digest_of_a_careless_story(seed: int) -> str:
    """As above, but in the order of a set of texts, which differs from process to process."""
    by_name = {fault.process: fault for fault in PLAN if isinstance(fault, Pause | Crash | Jump | Isolate)}
    return digest_of(seed, tuple(by_name[name] for name in {"n1", "n2", "n3", "balancer"} if name in by_name))


def elsewhere(function: Callable[..., str], hash_seed: str) -> str:
    """What a function of this module returns for seed 7 in a process of its own."""
    code = f"from tests.simulation.test_determinism import {function.__name__} as f; print(f(7))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


# --- one seed, one run -----------------------------------------------------------------------------------------


def test_one_seed_is_one_run_in_every_process_and_under_every_hash_seed() -> None:
    digests = {elsewhere(digest_of, hash_seed) for hash_seed in ("0", "1", "random")}
    assert digests == {digest_of(7)}


def test_one_seed_is_one_run_whatever_ran_before_it() -> None:
    first = digest_of(8)
    digest_of(9)
    junk = [[object()] for _ in range(1000)]
    assert digest_of(8) == first
    del junk


def test_seeds_differ() -> None:
    assert len({digest_of(seed) for seed in range(4)}) == 4


def test_a_run_that_depends_on_the_order_of_a_set_is_found_out() -> None:
    first = elsewhere(digest_of_a_careless_story, "0")
    found_out = any(elsewhere(digest_of_a_careless_story, hash_seed) != first for hash_seed in "123456")
    assert found_out, "or the tests above would not see what they look for"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (secrets, "token_bytes"), (os, "urandom"), (random, "_urandom"), (time, "time"),
        (random, "random"), (random, "uniform"), (random, "choice"), (random, "randrange"), (random, "shuffle"),
    ],
)  # fmt: skip
def test_no_program_draws_from_a_source_that_is_not_seeded(
    module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseeded(*_: object, **__: object) -> None:
        raise AssertionError(f"{module.__name__}.{name} is not seeded")

    monkeypatch.setattr(module, name, unseeded)
    digest_of(10)


# --- what it leans on ------------------------------------------------------------------------------------------


def test_this_trio_has_what_a_deterministic_run_needs() -> None:
    determinism.check_trio()


@pytest.mark.parametrize(
    "name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING", "Runner.reschedule", "Deadlines.expire", "GLOBAL_RUN_CONTEXT"]
)
def test_a_trio_without_it_is_refused_and_the_error_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, _, member = name.rpartition(".")
    monkeypatch.delattr(getattr(_run, cls) if cls else _run, member)
    with pytest.raises(RuntimeError, match="which the simulation needs to be deterministic") as raised:
        determinism.run(trio.sleep, 1, seed=1)
    assert name in str(raised.value)
    assert trio.__version__ in str(raised.value)


def order_of_ten(seed: int) -> list[int]:
    """In which order ten tasks run that could run in any."""
    order: list[int] = []

    async def main() -> None:
        async def join(number: int) -> None:
            await trio.sleep(1)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(join, number)

    determinism.run(main, seed=seed)
    return order


def test_the_order_of_tasks_is_drawn_from_the_seed() -> None:
    assert order_of_ten(1) == order_of_ten(1)
    assert len({tuple(order_of_ten(seed)) for seed in range(10)}) == 10


def test_after_a_run_trio_and_the_collector_are_as_they_were() -> None:
    _run._r.seed(5)
    before = _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING, gc.isenabled(), gc.freeze

    async def fail() -> None:
        assert not gc.isenabled()
        assert _run._ALLOW_DETERMINISTIC_SCHEDULING
        gc.freeze()
        determinism.OWNER.set("somebody")
        determinism.stop("somebody else")
        raise KeyError

    with pytest.raises(KeyError):
        determinism.run(fail, seed=1)
    after = _run._r.getstate(), _run._ALLOW_DETERMINISTIC_SCHEDULING, gc.isenabled(), gc.freeze
    assert after == before
    assert not determinism.is_stopped("somebody else")


def test_of_a_run_nothing_is_left_in_memory() -> None:
    for seed in range(2):
        digest_of(seed)  # whatever is made once and kept
    before = len(gc.get_objects())
    for seed in range(3):
        digest_of(seed)
    assert len(gc.get_objects()) < before + 10_000, "a run has some 30,000"


# --- time ------------------------------------------------------------------------------------------------------


def test_time_is_virtual_and_starts_at_nought() -> None:
    async def main() -> tuple[float, float]:
        started = trio.current_time()
        await trio.sleep(80_000)
        return started, trio.current_time()

    assert determinism.run(main, seed=1) == (0.0, 80_000.0)


def test_what_is_on_the_agenda_is_done_at_its_moment_in_the_order_of_asking() -> None:
    done: list[tuple[float, str]] = []

    async def main() -> None:
        virtual_time = determinism.virtual_time()

        def do(what: str) -> Callable[[], None]:
            return lambda: done.append((trio.current_time(), what))

        virtual_time.at(2.0, do("second"))
        virtual_time.at(2.0, do("third"))
        virtual_time.after(1.0, do("first"))
        virtual_time.after(1.0, lambda: virtual_time.after(0.0, do("asked for meanwhile")))
        await trio.sleep(1.5)
        done.append((trio.current_time(), "a task"))
        await trio.sleep(1.5)

    determinism.run(main, seed=1)
    assert done == [
        (1.0, "first"), (1.0, "asked for meanwhile"), (1.5, "a task"), (2.0, "second"), (2.0, "third"),
    ]  # fmt: skip


# --- processes that are stopped --------------------------------------------------------------------------------


def with_a_stopped_one(does: Callable[[list[str]], Awaitable[None]]) -> list[tuple[float, str]]:
    """Runs the same task for an owner that is stopped from 2.5 s to 7.5 s, and what it did when."""
    told: list[tuple[float, str]] = []

    class Log(list[str]):
        def append(self, what: str) -> None:
            told.append((trio.current_time(), what))

    async def owned() -> None:
        determinism.OWNER.set("stopped")
        await does(Log())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owned)
            await trio.sleep(2.5)
            determinism.stop("stopped")
            await trio.sleep(5)
            determinism.go_on("stopped")
            await trio.sleep(2)
            nursery.cancel_scope.cancel()

    determinism.run(main, seed=1)
    return told


def test_who_is_stopped_takes_no_step_and_goes_on_where_he_was() -> None:
    async def tick(log: list[str]) -> None:
        while True:
            await trio.sleep(1)
            log.append("tick")

    assert with_a_stopped_one(tick) == [(1, "tick"), (2, "tick"), (7.5, "tick"), (8.5, "tick")]


def test_the_children_of_who_is_stopped_are_stopped_too_and_nobody_else() -> None:
    async def with_a_child(log: list[str]) -> None:
        async def child() -> None:
            await trio.sleep(4)
            log.append("child")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    assert with_a_stopped_one(with_a_child) == [(7.5, "child")]


def test_a_deadline_that_passes_meanwhile_is_seen_afterwards() -> None:
    async def wait(log: list[str]) -> None:
        with trio.move_on_after(3):
            await trio.sleep_forever()
        log.append("too late")

    assert with_a_stopped_one(wait) == [(7.5, "too late")]


def test_who_could_run_when_he_is_stopped_runs_afterwards() -> None:
    async def spin(log: list[str]) -> None:
        await trio.sleep(2.5)  # as long as the other waits: both can run in the same instant
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        log.append("done")

    ((when, _),) = with_a_stopped_one(spin)
    assert when == 7.5
