"""The virtual world: the real node and balancer code in one `trio.run`, everything around it drawn from one seed.

    clients (a story) ══ network ══ n1, n2, … ══ network ══ balancer
                                     │  jobs                   │
                                    disk                      disk

Programs, drivers, links and handshakes are the shipped ones, unchanged. A story submits, does faults and looks;
watchers are told of everything at the very moment it happens. Every commit, send and job is a numbered point, at
which a process can be made to die.
"""

import hashlib
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import attrs
import structlog
import trio

from balancer.dispatcher import Dispatcher
from common.effects import Delete, Table, Write
from common.model import Outcome
from common.runtime.driver import Step
from common.settings import BalancerSettings, NodeSettings
from node.worker import Worker
from tests.simulation import determinism
from tests.simulation.agenda import Agenda
from tests.simulation.disk import Disk
from tests.simulation.faults import Fault, Faults
from tests.simulation.jobs import soon_thought_short
from tests.simulation.network import Manners, Network
from tests.simulation.process import BALANCER, Boot

T = TypeVar("T")
WALL: Final = 1_800_000_000.0  # calendar time at the start of every world
KEY: Final = b"the key of the virtual world"


@attrs.frozen
class Knobs:
    """What makes seeds differ in kind."""

    nodes: int = 3
    slots: int = 2
    slots_each: tuple[int, ...] = ()  # of n1, n2 and so on, and from the beginning; where it is not the same for all
    eager: bool = True
    placement: str = "level"
    key: bool = True
    dispatch_period_s: float = 5.0
    result_period_s: float = 3.0
    info_period_s: float = 1.0
    node_timeout_s: float = 15.0
    jobs_per_round_max: int = 30
    backlog_max: int = 1000
    local_fallback_s: float | None = 10.0
    retention_s: float = 86400.0
    drain_grace_s: float = 10.0
    delay_s: tuple[float, float] = (0.0005, 0.005)  # of a piece of data on its way
    split: float = 0.2  # how often a write arrives in pieces
    buffer_bytes: int = 65536  # of a connection, each way; who sends waits when it is full
    commit_s: tuple[float, float] = (0.0002, 0.002)
    awake_max: int = 20_000  # jobs of which more is in memory than their place, in the balancer and in each origin
    restart_s: float = 1.0  # after a death that no fault has asked for: at a point, by a job, of a broken disk

    def slots_of(self, process: str) -> int:
        """Of a node."""
        return self.slots_each[(int(process[1:]) - 1) % len(self.slots_each)] if self.slots_each else self.slots


class Watcher(Protocol):
    """Told of everything, synchronously, at the very moment. What it raises ends the run."""

    def committed(self, process: str, writes: Sequence[Write]) -> None:
        """Durable from now on. Told at the crash, where the crash left it so."""

    def stepped(self, process: str, step: Step, machine: Worker | Dispatcher) -> None: ...

    def began(self, process: str, boot_id: str, ticket: str, attempt: int, stdin: bytes) -> None: ...

    def over(self, process: str, ticket: str, attempt: int, outcome: Outcome, output: bytes) -> None: ...

    def booted(self, process: str, boot_id: str) -> None:
        """The balancer has no boot id; it says its ledger's."""

    def died(self, process: str, how: str) -> None:
        """`killed`, `power cut`, `store failed`, `stopped` or `gone`."""


class World:
    """See the module."""

    def __init__(self, seed: int, knobs: Knobs, watchers: Sequence[Watcher] = ()) -> None:
        self.seed = seed
        self.knobs = knobs
        self.watchers = list(watchers)
        self.chance = random.Random(seed)  # a story's
        self.jobs_chance = random.Random(f"{seed}/jobs")
        self.disk_chance = random.Random(f"{seed}/disks")
        self.processes = (BALANCER, *(f"n{number}" for number in range(1, knobs.nodes + 1)))
        self.gone: set[str] = set()
        self.points = 0
        self.passed: list[tuple[float, str, str]] = []  # each point: when, who, what
        self.crash_at: Mapping[int, bool] = {}
        self.logged: Counter[str] = Counter()
        self.agenda = Agenda(self.fail)
        manners = Manners(knobs.delay_s, knobs.split, knobs.buffer_bytes)
        self.network = Network(self.agenda, random.Random(f"{seed}/network"), manners, self)
        self._disks = {process: Disk() for process in self.processes}
        self._boots: dict[str, Boot] = {}
        self._boots_total: Counter[str] = Counter()
        self._clock_offset_s: defaultdict[str, float] = defaultdict(float)
        self._faults = Faults(self)
        self._trace = hashlib.sha256()
        self._failure: BaseException | None = None
        self._is_over = False

    async def run(self, story: Callable[["World"], Awaitable[T]]) -> T:
        """Boots everything, runs the story, ends everything. Raises what the story, a watcher or a program raised."""
        with self._quiet(), soon_thought_short():
            try:
                async with trio.open_nursery() as self._nursery:
                    for process in self.processes:
                        self.boot(process)
                    result = await story(self)
                    self._end()
            except BaseException as error:  # noqa: BLE001 - raised again, or what has caused it
                self._end()
                raise self._failure or _innermost(error) from None
        if self._failure is not None:
            raise self._failure
        return result

    def _end(self) -> None:
        self._is_over = True
        self.agenda.end()
        for boot in self._boots.values():
            boot.die()
        self._nursery.cancel_scope.cancel()

    def fail(self, error: BaseException) -> None:
        """Something is wrong with what is being tested: nothing goes on."""
        if not self._is_over:
            self._failure = _innermost(error)
            self._end()

    # --- processes -----------------------------------------------------------------------------------------------

    def boot(self, process: str) -> None:
        """Starts it, unless it is up or gone."""
        if process in self._boots or process in self.gone or self._is_over:
            return
        self._boots_total[process] += 1
        boot = self._boots[process] = Boot(self, process, self._boots_total[process])
        self.network.on(process)
        self._nursery.start_soon(boot.live)

    def crash(self, process: str, *, power_cut: bool) -> None:
        """Ends it where it stands; nothing happens where it is down."""
        boot = self._boots.get(process)
        if boot is not None:
            self._bury(boot, "power cut" if power_cut else "killed", power_cut=power_cut)

    def crash_and_restart(self, process: str, *, power_cut: bool, down_s: float | None = None) -> None:
        boot = self._boots.get(process)
        if boot is not None:
            boot.restart_s = self.knobs.restart_s if down_s is None else down_s
            self.crash(process, power_cut=power_cut)

    def stop(self, process: str, *, down_s: float | None = None) -> None:
        """Tells it to end as planned; it is started again `down_s` after it has, or not at all."""
        if (boot := self._boots.get(process)) is not None:
            boot.restart_s = down_s
            boot.stop()

    def lose_jobs(self, process: str) -> None:
        """What runs there is gone, and the node is told so."""
        boot = self._boots.get(process)
        if boot is not None and boot.executors is not None:
            boot.executors.lose_all()

    def ended(self, boot: Boot, how: str) -> None:
        """The program has come to its end by itself."""
        if boot.alive:
            if how == "store failed" and boot.restart_s is None:
                boot.restart_s = self.knobs.restart_s
            self._bury(boot, how, power_cut=False)

    def _bury(self, boot: Boot, how: str, *, power_cut: bool) -> None:
        process, disk = boot.process, self._disks[boot.process]
        del self._boots[process]
        boot.die()
        self.network.died(process, power_cut=power_cut)
        boot.durable(disk.after_a_power_cut(self.disk_chance) if power_cut else disk.after_a_kill())
        self.tell("died", process, how)
        if boot.restart_s is not None:
            self.agenda.after(boot.restart_s, lambda: self._boot_after(boot))

    def _boot_after(self, boot: Boot) -> None:
        if self._boots_total[boot.process] == boot.number:  # or it was started, and died, meanwhile
            self.boot(boot.process)

    def up(self, process: str) -> bool:
        return process in self._boots

    def machine(self, process: str) -> Worker | Dispatcher | None:
        """None while it is down, or has not read its disk yet."""
        boot = self._boots.get(process)
        return None if boot is None else boot.machine

    def boot_of(self, process: str) -> Boot | None:
        return self._boots.get(process)

    def tables(self, process: str) -> Mapping[Table, Mapping[bytes, bytes]]:
        """What is durable on its disk."""
        return self._disks[process].durable

    def disk(self, process: str) -> Disk:
        return self._disks[process]

    def wall(self, process: str) -> float:
        """Its calendar clock, which may have been set."""
        return WALL + trio.current_time() + self._clock_offset_s[process]

    # --- faults --------------------------------------------------------------------------------------------------

    def do(self, fault: Fault) -> None:
        """Nothing happens to a process that is not up, but for its disk, its host and its clock."""
        self._note("fault", fault)
        self._faults.do(fault)

    def heal(self) -> None:
        """Undoes every fault that lasts, and starts what is down: from here on the world is kind. Who is gone for ever
        stays so."""
        self._note("heal")
        self._faults.undo_all()
        for process in self.processes:
            self.boot(process)

    def set_clock(self, process: str, seconds: float) -> None:
        """Its calendar clock, forward or back."""
        self._clock_offset_s[process] += seconds

    def lose(self, process: str) -> None:
        """Its host, with the disk, for ever."""
        self.gone.add(process)
        boot = self._boots.get(process)
        if boot is not None:
            boot.restart_s = None
            self._bury(boot, "gone", power_cut=True)
        else:
            self.network.died(process, power_cut=True)
        self._disks[process] = Disk()

    # --- clients -------------------------------------------------------------------------------------------------

    async def connect(self, client: str, node: str) -> trio.abc.Stream:
        """A client's connection. Raises OSError where the node is down or cut off, at once or after a while."""
        return await self.network.connect(client, node)

    # --- points --------------------------------------------------------------------------------------------------

    def reaches(self, boot: Boot, what: str) -> bool:
        """Passes a numbered point. Where it is one of `crash_at`, the process dies there, and the answer is true."""
        if self._dies_at_next_point(boot.process, what):
            self.kill(boot.process)
            return True
        return False

    def dies_sending(self, host: str) -> bool:
        return host in self._boots and self._dies_at_next_point(host, "a send")

    def kill(self, host: str) -> None:
        """At the point that was just passed."""
        self.crash_and_restart(host, power_cut=self.crash_at[self.points])

    def _dies_at_next_point(self, process: str, what: str) -> bool:
        self.points += 1
        self.passed.append((trio.current_time(), process, what))
        return self.points in self.crash_at

    # --- the trace -----------------------------------------------------------------------------------------------

    def digest(self) -> str:
        """Of everything that was told to watchers and sent over the network, in order: two runs that have the same
        digest were the same."""
        return self._trace.hexdigest()

    def note(self, data: bytes) -> None:
        self._trace.update(b"%d\n" % len(data))
        self._trace.update(data)

    def _note(self, *what: object) -> None:
        self.note(repr((trio.current_time(), *what)).encode())

    def tell(self, what: str, process: str, *told: Any) -> None:
        """Tells every watcher."""
        if self._is_over:
            return
        self._note(what, process, *_TRACED[what](*told))
        try:
            for watcher in self.watchers:
                getattr(watcher, what)(process, *told)
        except BaseException as error:
            self.fail(error)
            raise

    # --- logs ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Log lines are counted, not written; one that tells of a failure of the program itself is a failure here."""
        before = structlog.get_config()
        structlog.configure(processors=[self._log], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)

    def _log(self, _: object, level: str, event: Mapping[str, Any]) -> Any:
        owner = determinism.OWNER.get()
        if not isinstance(owner, Boot) or owner.alive:
            self.logged[str(event.get("event"))] += 1
            if event.get("exc_info"):
                self.fail(sys.exc_info()[1] or AssertionError(f"{level}: {dict(event)}"))
        raise structlog.DropEvent

    # --- settings ------------------------------------------------------------------------------------------------

    def node_settings(self, process: str) -> NodeSettings:
        knobs = self.knobs
        return NodeSettings(
            node_name=process,
            slots=knobs.slots_of(process),
            data_dir=Path("/nowhere") / process,
            cluster_key=KEY if knobs.key else None,
            node_timeout_s=knobs.node_timeout_s,
            retention_s=knobs.retention_s,
            drain_grace_s=knobs.drain_grace_s,
            local_fallback_s=knobs.local_fallback_s,
            python="python3",
        )

    def balancer_settings(self) -> BalancerSettings:
        knobs = self.knobs
        return BalancerSettings(
            data_dir=Path("/nowhere/balancer"),
            cluster_key=KEY if knobs.key else None,
            dispatch_mode="eager" if knobs.eager else "periodic",
            dispatch_period_s=knobs.dispatch_period_s,
            result_period_s=knobs.result_period_s,
            info_period_s=knobs.info_period_s,
            node_timeout_s=knobs.node_timeout_s,
            jobs_per_round_max=knobs.jobs_per_round_max,
            placement=knobs.placement,
            backlog_max=knobs.backlog_max,
            retention_s=knobs.retention_s,
            nodes_max=max(knobs.nodes, 1),
        )


def _writes(writes: Sequence[Write]) -> Iterator[object]:
    for write in writes:
        yield (write.table.value, write.key, None if isinstance(write, Delete) else write.value)


def _step(step: Step, machine: object) -> Iterator[object]:
    yield step.commit_s
    yield [type(event).__name__ for event in step.events]
    yield [type(action).__name__ for action in (*step.effects.at_once, *step.effects.actions)]


_TRACED: Final[dict[str, Callable[..., Iterator[object] | tuple[object, ...]]]] = {
    "committed": _writes,
    "stepped": _step,
    "began": lambda *told: told,
    "over": lambda *told: told,
    "booted": lambda *told: told,
    "died": lambda *told: told,
}


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
