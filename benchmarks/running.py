"""A run: rounds over all systems, sessions within a round, and every figure or the reason why there is none."""

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import yardsticks
from benchmarks.asking import START_S_MAX, WORKERS, Asked, Scale
from benchmarks.installing import CannotHave, Site, site_of
from benchmarks.measures import Session, Take
from benchmarks.remote import REPOSITORY, NoAnswer, Remote
from benchmarks.report import number
from benchmarks.results import Absent, Figure, Measured, Quantity, Result
from benchmarks.systems.catalogue import OURS, Entry
from benchmarks.systems.system import Unsupported

SESSIONS: Final[tuple[Session, ...]] = ("working", "taking_in", "own")
END_S_MAX: Final = 60.0

COMMIT: Final = Measured("commit", "one synced LMDB commit", "", True, yardstick=True)
COMMITS: Final = Measured("commits", "three synced LMDB commits", "", True, yardstick=True)
SPAWN: Final = Measured("spawn", "posix_spawn of true from Python, two at a time", "", False, yardstick=True)
SPAWN_C: Final = Measured("spawn-c", "posix_spawn of true from C, two at a time", "", False, yardstick=True)
POOL: Final = Measured("pool", "ProcessPoolExecutor.submit, two workers", "", False, yardstick=True)


def _spawns(directory: Path) -> tuple[Measured, float]:
    in_c = yardsticks.spawner_in_c(directory)
    return (SPAWN_C if in_c else SPAWN), yardsticks.spawns_per_s(in_c or yardsticks.spawner_in_python())


# What the machine gives, by the quantity that it is a row of.
YARDSTICKS: Final[Mapping[str, Callable[[Path], tuple[Measured, float]]]] = {
    "submit_each_p50": lambda directory: (COMMIT, yardsticks.commit_ms(directory)),
    "trip_sleep_p50": lambda directory: (COMMITS, 3 * yardsticks.commit_ms(directory)),
    "exec_true": _spawns,
    "noop_py": lambda directory: (POOL, yardsticks.pool_calls_per_s()),
}


class Run:
    """Collects what is measured. What fails once for a system is not tried again in later rounds."""

    def __init__(self, scale: Scale, takes: Sequence[Take], repeats: int, directory: Path) -> None:
        self._scale = scale
        self._takes = takes
        self._repeats = repeats
        self._directory = directory
        self._machine = machine(scale)
        self._values: dict[tuple[str, str], list[float]] = {}
        self._absent: dict[tuple[str, str], str] = {}
        self._measured: dict[str, Measured] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def measure(self, entries: Sequence[Entry], after_round: Callable[[], object]) -> None:
        sites = self._install(entries)
        for number_of_round in range(1, self._repeats + 1):
            print(f"\nround {number_of_round} of {self._repeats}")
            for entry in entries:
                if entry.name in sites:
                    self._take_all(entry, sites[entry.name], number_of_round)
            after_round()

    def _install(self, entries: Sequence[Entry]) -> dict[str, Site]:
        """Where each can be run; the others are absent with the reason."""
        sites = {}
        for entry in entries:
            self._measured[entry.name] = Measured(entry.name, entry.title, entry.durability, entry.durable)
            try:
                sites[entry.name] = site_of(entry)
            except CannotHave as reason:
                self._lack(entry.name, "", str(reason))
        return sites

    # --- one round -----------------------------------------------------------------------------------------------

    def _take_all(self, entry: Entry, site: Site, number_of_round: int) -> None:
        for session in SESSIONS:
            due = [take for take in self._takes if self._is_due(take, entry, number_of_round)]
            takes = [take for take in due if take.session == session]
            if takes and entry.name == OURS:
                self._take_yardsticks({quantity.key for take in takes for quantity in take.quantities})
            if takes:
                self._hold_session(entry, site, session, takes)

    def _is_due(self, take: Take, entry: Entry, number_of_round: int) -> bool:
        if number_of_round > take.rounds_max or (take.ours_only and entry.name != OURS):
            return False
        return all((entry.name, quantity.key) not in self._absent for quantity in take.quantities)

    def _hold_session(self, entry: Entry, site: Site, session: Session, takes: Sequence[Take]) -> None:
        """One start for all of them, or one driver for each where a take starts the system itself. A driver that is
        lost with one take is replaced for the next; what keeps a session from being held is a reason for all."""
        log = self._directory / f"{entry.name}.log"
        counts = self._counts.setdefault(entry.name, {})
        left = deque(takes)
        while left:
            try:
                with _directory() as directory, Remote(entry.name, [site.python], log, site.env) as remote:
                    self._ask_version(entry, remote)
                    asked = Asked(remote, self._scale, directory, counts)
                    if session == "own":
                        self._take(entry, left.popleft(), asked)
                    else:
                        self._take_in_session(entry, session, asked, left)
            except (NoAnswer, Unsupported) as reason:
                for take in left:
                    self._lack_all(entry.name, take, str(reason))
                return

    def _take_in_session(self, entry: Entry, session: Session, asked: Asked, left: deque[Take]) -> None:
        workers = WORKERS if session == "working" else 0
        asked.call("start", START_S_MAX, directory=str(asked.directory), workers=workers)
        while left and asked.remote.is_alive():
            self._take(entry, left.popleft(), asked)
        if asked.remote.is_alive():
            asked.call("kill", END_S_MAX)

    def _take(self, entry: Entry, take: Take, asked: Asked) -> None:
        try:
            self._add(entry.name, take.run(asked))
        except (NoAnswer, Unsupported) as reason:
            self._lack_all(entry.name, take, str(reason))

    def _ask_version(self, entry: Entry, remote: Remote) -> None:
        known = self._measured[entry.name]
        if not known.version:
            with contextlib.suppress(NoAnswer, Unsupported):
                version = str(remote.call("version"))
                self._measured[entry.name] = Measured(
                    known.name, known.title, known.durability, known.durable, version, known.yardstick
                )

    def _take_yardsticks(self, wanted: Container[str]) -> None:
        """Right before the session of ours that they are held against: a disk has its moods."""
        for key, taken in YARDSTICKS.items():
            if key in wanted:
                with _directory() as directory:
                    try:
                        which, value = taken(directory)
                    except Exception as failure:  # noqa: BLE001  (whatever fails here costs one row of the tables)
                        print(f"  no yardstick of {key}: {failure}", flush=True)
                    else:
                        self._measured[which.name] = which
                        self._add(which.name, {key: value})

    # --- what came of it -----------------------------------------------------------------------------------------

    def _add(self, system: str, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            self._values.setdefault((key, system), []).append(value)
            print(f"  {system:<18}{key:<26}{number(value):>14}", flush=True)

    def _lack_all(self, system: str, take: Take, reason: str) -> None:
        for quantity in take.quantities:
            if (quantity.key, system) not in self._values:
                self._lack(system, quantity.key, reason, aloud=not quantity.stands_in)  # whose figure is shown instead

    def _lack(self, system: str, key: str, reason: str, aloud: bool = True) -> None:
        self._absent[system, key] = reason
        if aloud:
            print(f"  {system:<18}{key or 'nothing':<26}{'—':>14}  {reason}", flush=True)

    def result(self, when: str, quantities: Sequence[Quantity]) -> Result:
        return Result(
            when,
            self._machine,
            self._repeats,
            tuple(quantities),
            tuple(self._measured.values()),
            tuple(Figure(key, system, tuple(values)) for (key, system), values in self._values.items()),
            tuple(Absent(system, reason, key) for (system, key), reason in self._absent.items()),
        )


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A temporary directory; a peer that still writes into it does not keep it from going."""
    name = tempfile.mkdtemp(prefix="jobyard-bench-")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


def machine(scale: Scale) -> dict[str, str]:
    """What the figures depend on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    commit = _first_line(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"])
    file_system = _first_line(["stat", "--file-system", "--format", "%T", tempfile.gettempdir()])
    return {
        "commit": commit,
        "scale": scale.name,
        "processors": str(os.cpu_count()),
        "model": _model(),
        "memory": f"{pages / 2**30:.0f} GiB",
        "file system": file_system,
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[2]:.1f}",
    }


def _model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: Sequence[str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return "unknown"
