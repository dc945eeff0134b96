"""The faults, as plain values: a story is a plan of these, and a plan can be printed, shrunk and replayed.

`seconds` is how long it lasts; then it is undone. What each of them means is said at the disk, the network and the
process that suffer it.
"""

import attrs


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
    """The process is stopped where it stands (SIGSTOP): its kernel goes on, it does not."""

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
