"""What the spawner adds to the price of a command: `exec true` by node/executors alone, without a node.

    python -m benchmarks.spawner_alone [--jobs N] [--rounds N] [--ahead N] [CHECKOUT …]

Two spawners at the same time, each given its next command when one is over; and in turns with them the limit, as many
programs that do nothing but posix_spawn and wait. What counts is processor time, apart for the spawner and for those
whom it has started: it says about the same on a busy machine, which jobs per second do not. Given CHECKOUTs, it
compares the spawners of these, which is how a change is judged.
"""

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks import yardsticks
from node.executors import Limits, Start
from node.executors.line import Tally
from node.executors.wire import Frames, news_of, order_frames

HERE: Final = Path(__file__).resolve().parents[1]
LIMITS: Final = Limits(processes=512, files=1024)  # what a node allows unless it is set otherwise
WARM_UP: Final = 20
READ_BYTES: Final = 64 * 1024


@attrs.frozen
class Cost:
    """Of one command."""

    own_us: float  # processor time of the spawner
    children_us: float  # and of whom it has started
    wall_us: float

    @property
    def us(self) -> float:
        return self.own_us + self.children_us


class Alone:
    """The spawner of a checkout, with us in the place of its node."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.node_end, theirs = socket.socketpair()
        directory.mkdir()
        setup = {
            "scratch_root": str(directory / "scratch"),
            "owner": "k3f7qa",
            "output_bytes_max": 1 << 20,
            "slots": 1,
            "python": sys.executable,
            "pythonpath": "",
        }
        self._tally = Tally.made()
        fds = theirs.fileno(), self._tally.fd
        with theirs:
            self._process = subprocess.Popen(  # as node/executors/handle.py does
                [sys.executable, "-P", "-m", "node.executors.spawner", *map(str, fds), json.dumps(setup)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(checkout)},
            )
        self._frames = Frames()
        self._given = self._over = self._target = 0
        self.node_end.recv(READ_BYTES)  # it is up

    def begin(self, count: int, ahead: int) -> None:
        self._target += count
        self._give(min(ahead, count))

    def go_on(self) -> bool:
        """Hear what it has to tell, and give it as much to do; False when all is over."""
        news = [news_of(frame) for frame in self._frames.feed(self.node_end.recv(READ_BYTES))]
        over = [each for heard in news for each in heard.over]
        assert all(each.outcome.exit == 0 for each in over), over
        self._over += len(over)
        self._give(min(len(over), self._target - self._given))
        self._send([returned.ticket for heard in news for returned in heard.returned])  # it had waited for too long
        return self._over < self._target

    def processor_s(self) -> float:
        """Its own, until now."""
        return _processor_s(self._process.pid)

    def close(self) -> float:
        """End it; the processor time of all that it had started."""
        self.node_end.close()
        self._tally.close()
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        own_s = self.processor_s()
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return used.ru_utime + used.ru_stime - own_s

    def _give(self, count: int) -> None:
        numbers = range(self._given, self._given + count)
        self._given += count
        self._send([f"k3f7qa-{number}" for number in numbers])

    def _send(self, tickets: Sequence[str]) -> None:
        for frame in order_frames([_start(ticket) for ticket in tickets]):
            self.node_end.sendall(frame)


def _start(ticket: str) -> Start:
    env = (("JOBYARD_TICKET", ticket), ("JOBYARD_ATTEMPT", "1"), ("JOBYARD_NODE", "node1"))
    return Start(ticket, 1, "exec", "true", env=env, limits=LIMITS)


def _processor_s(pid: int) -> float:
    """To the nanosecond, where `stat` counts hundredths; also of one that has ended and is not yet waited for."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def spawners(checkout: Path, jobs: int, ahead: int) -> Cost:
    """`jobs` commands for each of two."""
    with tempfile.TemporaryDirectory(prefix="jobyard-spawner-") as name:
        alone = [Alone(checkout, Path(name) / str(number)) for number in range(yardsticks.WORKERS)]
        _run(alone, WARM_UP, ahead)
        own_s, started = -sum(each.processor_s() for each in alone), time.perf_counter()
        _run(alone, jobs, ahead)
        wall_s = time.perf_counter() - started
        own_s += sum(each.processor_s() for each in alone)
        children_s = sum(each.close() for each in alone) * jobs / (jobs + WARM_UP)
    all_jobs = jobs * len(alone)
    return Cost(own_s / all_jobs * 1e6, children_s / all_jobs * 1e6, wall_s / all_jobs * 1e6)


def _run(alone: Sequence[Alone], jobs: int, ahead: int) -> None:
    busy = {each.node_end: each for each in alone}
    for each in alone:
        each.begin(jobs, ahead)
    while busy:
        for ready in select.select(list(busy), [], [])[0]:
            if not busy[ready].go_on():
                del busy[ready]


def limit(command: Sequence[str], jobs: int) -> Cost:
    """The same by two programs of the yardstick."""
    running = [
        subprocess.Popen([*command, str(jobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(yardsticks.WORKERS)
    ]
    started_s = sum(_processor_s(each.pid) for each in running)
    for each in running:
        assert each.stdin is not None
        each.stdin.write(b"go\n")
        each.stdin.flush()
    own_s, children_s, wall_s = -started_s, 0.0, 0.0
    for each in running:
        assert each.stdin is not None
        assert each.stdout is not None
        wall_s = max(wall_s, float(each.stdout.read()))
        each.stdin.close()
        each.stdout.close()
        os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
        itself_s = _processor_s(each.pid)
        _, status, used = os.wait4(each.pid, 0)
        each.returncode = os.waitstatus_to_exitcode(status)
        own_s += itself_s
        children_s += used.ru_utime + used.ru_stime - itself_s
    all_jobs = jobs * len(running)
    return Cost(own_s / all_jobs * 1e6, children_s / all_jobs * 1e6, wall_s / all_jobs * 1e6)


def table(costs: Mapping[str, Sequence[Cost]], of: str) -> str:
    """Medians, and the limit's cost as a share of each: 1 is as fast as the limit. Shares are taken round by round."""
    lines = [f"{'µs for each command':<24}{'own':>8}{'children':>10}{'both':>8}{'share':>8}{'wall share':>12}"]
    for name, each in costs.items():
        own, children, both = (statistics.median(map(take, each)) for take in _COLUMNS)
        share = statistics.median(best.us / cost.us for best, cost in zip(costs[of], each, strict=True))
        wall = statistics.median(best.wall_us / cost.wall_us for best, cost in zip(costs[of], each, strict=True))
        lines.append(f"{name[-24:]:<24}{own:>8.0f}{children:>10.0f}{both:>8.0f}{share:>8.2f}{wall:>12.2f}")
    return "\n".join(lines)


_COLUMNS: Final[tuple[Callable[[Cost], float], ...]] = (
    lambda cost: cost.own_us,
    lambda cost: cost.children_us,
    lambda cost: cost.us,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the spawner adds to the price of a command.")
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE], metavar="CHECKOUT")
    parser.add_argument("--jobs", type=int, default=300, metavar="N", help="for each of two spawners in a round")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--ahead", type=int, default=1, metavar="N", help="given to a spawner at once")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobyard-spawner-") as name:
        command = yardsticks.spawner_in_c(Path(name)) or yardsticks.spawner_in_python()
        costs: dict[str, list[Cost]] = {name: [] for name in ("the limit", *map(str, given.checkouts))}
        for _ in range(given.rounds):
            costs["the limit"].append(limit(command, given.jobs))
            for checkout in given.checkouts:
                costs[str(checkout)].append(spawners(checkout.resolve(), given.jobs, given.ahead))
    print(table(costs, "the limit"))


if __name__ == "__main__":
    main()
