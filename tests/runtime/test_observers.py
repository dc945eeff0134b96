"""Observers: health that means progress, and the address that is written."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from common.effects import Effects, Put, Table, Write
from common.events import LinkClosed, LinkOpened, Received
from common.messages import Poll
from common.runtime.driver import Driver, Step
from common.runtime.observers import Health, write_address
from common.runtime.pulse import UNHEALTHY_AFTER_S, Pulse, health_problem, idle_alone_s_max
from common.runtime.room import NoRoom, Room

ALONE_S_MAX = 15.0
WRITES = [Put(Table.JOBS, b"key", b"value")]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def step(*events: object, writes: Sequence[Write] = ()) -> Step:
    return Step(events, Effects(writes), 0.0, 0.0)


def read(directory: Path) -> Pulse:
    return Pulse(**json.loads((directory / "health").read_bytes()))


def test_a_program_is_healthy_while_its_steps_succeed(tmp_path: Path) -> None:
    clock = Clock()
    assert "nothing has run" in (health_problem(tmp_path) or "")
    health = Health(tmp_path, clock=clock)
    health(step())
    assert health_problem(tmp_path, clock.now) is None
    clock.now += UNHEALTHY_AFTER_S + 5
    assert "no progress for 15 s" in (health_problem(tmp_path, clock.now) or "")
    health(step())
    assert health_problem(tmp_path, clock.now) is None


def test_it_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, clock=clock)
    for _ in range(30):
        health(step())
        clock.now += 0.1
    assert read(tmp_path).stepped_at < clock.now - 0.5
    clock.now += 0.5
    health(step())
    assert read(tmp_path).stepped_at == clock.now


def test_a_balancer_without_nodes_and_work_is_well(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, clock=clock)
    for _ in range(100):
        clock.now += 5.0
        health(step())
        assert health_problem(tmp_path, clock.now) is None


def test_an_idle_node_without_a_balancer_is_told_as_such(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, ALONE_S_MAX, clock)
    for _ in range(14):
        clock.now += 1
        health(step())
        assert health_problem(tmp_path, clock.now) is None
    clock.now += 2
    health(step())
    assert health_problem(tmp_path, clock.now) == (
        "no balancer for 16 s, and nothing to do; 15 s is allowed. It still takes jobs in"
    )
    health(step(writes=WRITES))
    clock.now += 1
    health(step())
    assert health_problem(tmp_path, clock.now) is None, "it works without one"


def test_a_linked_node_is_well_however_seldom_it_is_polled(tmp_path: Path) -> None:
    """The link itself is closed when it is silent for too long, by the balancer's own measure."""
    clock = Clock()
    health = Health(tmp_path, ALONE_S_MAX, clock)
    health(step(LinkOpened(1, "ledger", True)))
    for _ in range(100):
        clock.now += 2
        health(step())
        assert health_problem(tmp_path, clock.now) is None


def test_a_link_is_told_of_at_once_so_that_a_node_which_dies_then_is_no_node_without_a_balancer(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, UNHEALTHY_AFTER_S, clock)
    health(step())
    clock.now += 0.1
    health(step(LinkOpened(1, "ledger", True)))
    clock.now += UNHEALTHY_AFTER_S
    assert health_problem(tmp_path, clock.now) is None, "it was there ten seconds ago, and had its balancer"
    clock.now += 0.1
    assert "no progress" in (health_problem(tmp_path, clock.now) or "")


def test_alone_counts_from_what_was_heard_last(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, ALONE_S_MAX, clock)
    health(step(LinkOpened(1, "ledger", True)))
    clock.now += 50
    health(step(Received(1, [Poll()], 0.0)))
    clock.now += 15
    health(step(LinkClosed(1, "the other side was silent for 15 s")))
    assert health_problem(tmp_path, clock.now) is None
    clock.now += 1
    health(step())
    assert "no balancer for 16 s" in (health_problem(tmp_path, clock.now) or "")
    health(step(LinkOpened(2, "ledger", True), LinkClosed(1, "late news of the old one")))
    clock.now += 60
    health(step())
    assert health_problem(tmp_path, clock.now) is None


@pytest.mark.parametrize(("node_timeout_s", "allowed_s"), [(0.1, 10.0), (15.0, 15.0), (600.0, 600.0)])
def test_what_is_allowed_follows_the_node_timeout(node_timeout_s: float, allowed_s: float) -> None:
    assert idle_alone_s_max(node_timeout_s) == allowed_s


class Steady:
    """A machine that writes when it is told something."""

    def restore(self, now: float, wall: float) -> None: ...
    def committed(self) -> None: ...
    def check(self) -> None: ...
    def next_deadline(self) -> float | None:
        return None

    def handle(self, events: Sequence[object], now: float) -> Effects:
        return Effects(WRITES if "write" in events else ())

    def statistics(self) -> dict[str, float]:
        return {}


class Disk:
    """Commits that fail while it is full."""

    full = False

    def commit(self, writes: Sequence[Write]) -> None:
        if self.full:
            raise NoRoom("full")

    def room(self) -> Room:
        return Room(1, 4, disk_full=self.full)


@pytest.mark.parametrize("how", ["full", "hangs"])
async def test_a_driver_that_waits_for_its_disk_is_found(
    how: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disk, hangs_s = Disk(), 60.0 if how == "hangs" else 0.0
    disk.full = how == "full"

    async def run_blocking(call: Callable[[], None]) -> None:
        await trio.sleep(hangs_s)
        call()

    driver = Driver(
        Steady(),
        disk,
        observers=[Health(tmp_path, clock=trio.current_time)],
        run_blocking=run_blocking,
        wall=lambda: 0.0,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(30)
        assert health_problem(tmp_path, trio.current_time()) is None, "idle and well"
        driver.post("write")
        await trio.sleep(9)
        assert health_problem(tmp_path, trio.current_time()) is None
        await trio.sleep(3)
        assert "waits for its disk" in (health_problem(tmp_path, trio.current_time()) or "")
        disk.full = False
        await trio.sleep(60)
        assert health_problem(tmp_path, trio.current_time()) is None, "well again"
        nursery.cancel_scope.cancel()


def test_what_ran_before_the_machine_was_started_does_not_count(tmp_path: Path) -> None:
    clock = Clock()
    Health(tmp_path, clock=clock)(step())
    pulse = read(tmp_path)._replace(machine="the last time")
    (tmp_path / "health").write_text(json.dumps(pulse._asdict()))
    assert "since this machine was started" in (health_problem(tmp_path, clock.now) or "")


@pytest.mark.parametrize("content", [b"", b"a host name, as older versions wrote", b"[1]", b'{"host": "x"}', b"\xff"])
def test_a_file_that_says_nothing_is_no_pulse(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "health").write_bytes(content)
    assert "nothing has run" in (health_problem(tmp_path) or "")


def test_the_file_is_written_over_in_place_so_that_a_full_disk_does_not_empty_it(tmp_path: Path) -> None:
    clock = Clock()
    health = Health(tmp_path, clock=clock)
    health(step())
    before = (tmp_path / "health").stat()
    clock.now += 123456.789
    health(step())
    after = (tmp_path / "health").stat()
    assert (before.st_ino, before.st_size, before.st_blocks) == (after.st_ino, after.st_size, after.st_blocks)
    assert read(tmp_path).stepped_at == clock.now


def test_on_a_shared_volume_each_host_looks_at_its_own(tmp_path: Path) -> None:
    clock = Clock()
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        Health(tmp_path / name, clock=clock)(step())
        clock.now += 60
    other = read(tmp_path / "2")._replace(host=f"not-{socket.gethostname()}")
    (tmp_path / "2" / "health").write_text(json.dumps(other._asdict()))
    assert "no progress for 60 s" in (health_problem(tmp_path / "*", clock.now - 60) or "")
    assert "nothing has run" in (health_problem(tmp_path / "elsewhere" / "*") or "")


def test_a_directory_that_is_gone_does_not_end_the_program(tmp_path: Path) -> None:
    Health(tmp_path / "gone")(step())


async def test_the_address_is_one_line_of_host_and_port(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        address = write_address(tmp_path, listener)
        assert (tmp_path / "address").read_text() == f"{address}\n"
        assert address == f"127.0.0.1:{listener.socket.getsockname()[1]}"
