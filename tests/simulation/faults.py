"""The faults, as plain values: a story is a plan of these, and a plan can be printed, shrunk and replayed.

`seconds` is how long it lasts; then it is undone. What each of them means is said at the disk, the network and the
process that suffer it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from tests.simulation import determinism

if TYPE_CHECKING:
    from tests.simulation.world import World


@attrs.frozen
class Crash:
    """The process dies, and is started again after `down_s`: killed, or with its host's power."""

    process: str
    power_cut: bool
    down_s: float


@attrs.frozen
class Stop:
    """The process is told to end as planned (SIGTERM), and is started again `down_s` after it has."""

    process: str
    down_s: float


@attrs.frozen
class Pause:
    """The process is stopped where it stands (SIGSTOP): its kernel and its jobs go on, it does not. Connections are
    taken for it and fill up; a commit under way is finished after it; news of its jobs waits in the pipe.

    Not as in earnest: of a deadline and of data that both came meanwhile, it sees the one that came first; a real
    process would see the data."""

    process: str
    seconds: float


@attrs.frozen
class Cut:
    """Nothing comes from `a` to `b`, nor back unless it is one way."""

    a: str
    b: str
    seconds: float
    one_way: bool = False


@attrs.frozen
class Reset:
    """Every connection between the two is reset at both ends; what was on its way is lost."""

    a: str
    b: str


@attrs.frozen
class Isolate:
    """Nothing comes to this host or from it: a long partition, of one host from all others, clients too."""

    process: str
    seconds: float


@attrs.frozen
class DiskFull:
    process: str
    seconds: float


@attrs.frozen
class DiskSlow:
    process: str
    seconds: float


@attrs.frozen
class DiskError:
    """The `nth` commit from now fails with an I/O error: the program must stop, and is started again."""

    process: str
    nth: int


@attrs.frozen
class Jump:
    """The calendar clock of the host is set, forward or back."""

    process: str
    seconds: float


@attrs.frozen
class SpawnerDies:
    """What the node runs is gone, and the node lives."""

    process: str


@attrs.frozen
class GoneForEver:
    """The host is gone, with its disk."""

    process: str


Fault = (
    Crash | Stop | Pause | Cut | Reset | Isolate | DiskFull | DiskSlow | DiskError | Jump | SpawnerDies | GoneForEver
)


class Faults:
    """Does faults to a world, and undoes those that last."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._undo: dict[int, Callable[[], None]] = {}
        self._number = 0

    def do(self, fault: Fault) -> None:
        world, network = self._world, self._world.network
        match fault:
            case Crash(process, power_cut, down_s):
                world.crash_and_restart(process, power_cut=power_cut, down_s=down_s)
            case Stop(process, down_s):
                world.stop(process, down_s=down_s)
            case Pause(process, seconds):
                self._pause(process, seconds)
            case Cut(a, b, seconds, one_way):
                network.cut(a, b, one_way=one_way)
                self._undo_after(seconds, lambda: network.heal(a, b, one_way=one_way))
            case Reset(a, b):
                network.reset(a, b)
            case Isolate(process, seconds):
                network.isolate(process)
                self._undo_after(seconds, lambda: network.unite(process))
            case DiskFull(process, seconds):
                self._spoil(process, "full", seconds)
            case DiskSlow(process, seconds):
                self._spoil(process, "slow", seconds)
            case DiskError(process, nth):
                world.disk(process).fails_in = nth
            case Jump(process, seconds):
                world.set_clock(process, seconds)
            case SpawnerDies(process):
                world.lose_jobs(process)
            case GoneForEver(process):
                world.lose(process)

    def undo_all(self) -> None:
        while self._undo:
            self._undo.pop(min(self._undo))()
        for process in self._world.processes:
            self._world.disk(process).fails_in = None

    def _undo_after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._number += 1
        number = self._number
        self._undo[number] = undo

        def unless_undone() -> None:
            if self._undo.pop(number, None) is not None:
                undo()

        self._world.agenda.after(seconds, unless_undone)

    def _pause(self, process: str, seconds: float) -> None:
        boot = self._world.boot_of(process)
        if boot is not None and not determinism.is_stopped(boot):
            determinism.stop(boot)
            self._undo_after(seconds, lambda: determinism.go_on(boot))

    def _spoil(self, process: str, what: str, seconds: float) -> None:
        disk = self._world.disk(process)

        def add(number: int) -> None:
            setattr(disk, what, getattr(disk, what) + number)

        add(1)
        self._undo_after(seconds, lambda: add(-1))
