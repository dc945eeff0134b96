"""Observers: health that means progress, and the address that is written."""

import os
import socket
import time
from pathlib import Path

import trio

from common.effects import Effects
from common.runtime.driver import Step
from common.runtime.observers import UNHEALTHY_AFTER_S, Health, health_problem, write_address


def step(now: float) -> Step:
    return Step((), Effects(), 0.0, now)


def grow_old(directory: Path, age_s: float) -> None:
    past = time.time() - age_s
    os.utime(directory / "health", (past, past))


def test_a_program_is_healthy_while_its_steps_succeed(tmp_path: Path) -> None:
    assert "nothing has run" in (health_problem(tmp_path) or "")
    health = Health(tmp_path)
    health(step(100.0))
    assert health_problem(tmp_path) is None
    grow_old(tmp_path, UNHEALTHY_AFTER_S + 5)
    assert "no progress for 15 s" in (health_problem(tmp_path) or "")
    health(step(100.5))
    assert health_problem(tmp_path) is not None, "at most once a second"
    health(step(101.0))
    assert health_problem(tmp_path) is None


def test_on_a_shared_volume_each_host_looks_at_its_own(tmp_path: Path) -> None:
    for name, host in (("1", "another-host"), ("2", socket.gethostname())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "health").write_text(host)
    grow_old(tmp_path / "2", 60)
    assert "no progress" in (health_problem(tmp_path / "*") or "")
    assert "nothing has run" in (health_problem(tmp_path / "elsewhere" / "*") or "")


def test_a_full_disk_does_not_end_the_program(tmp_path: Path) -> None:
    Health(tmp_path / "gone")(step(1.0))


async def test_the_address_is_one_line_of_host_and_port(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        address = write_address(tmp_path, listener)
        assert (tmp_path / "address").read_text() == f"{address}\n"
        assert address == f"127.0.0.1:{listener.socket.getsockname()[1]}"
