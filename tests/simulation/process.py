"""A process of the virtual world: one boot of a real node or balancer, from its start to its death.

The program is the shipped one; only what is outside of it is virtual. A boot that is dead is cut from the world at
once: what its tasks still do until they are unwound is seen by nobody, and where they would touch something they are
told that they are Killed.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import lmdb
import outcome
import trio

from balancer.assembly import Balancer
from balancer.dispatcher import Dispatcher
from common.effects import Write
from common.messages import AttemptId
from common.model import Outcome
from common.runtime.driver import Step
from common.runtime.outside import Outside
from common.runtime.owning import StoreError
from node.assembly import Node, identity_of
from node.worker import Worker
from tests.simulation import determinism
from tests.simulation.disk import Killed, Tables
from tests.simulation.jobs import Executors

if TYPE_CHECKING:
    from tests.simulation.world import World

BALANCER: Final = "balancer"
START_S: Final = (0.02, 0.2)  # from exec to the first look at the disk


class Boot:
    """One life of a process."""

    def __init__(self, world: "World", process: str, number: int) -> None:
        self.world = world
        self.process = process
        self.number = number
        self.alive = True
        self.boot_id: str | None = None  # known when it has read its disk
        self.machine: Worker | Dispatcher | None = None
        self.executors: Executors | None = None
        self.restart_s: float | None = None  # after its end, whatever ends it; None: it is not started again
        self._scope = trio.CancelScope()
        self._stop: Callable[[], None] = self._scope.cancel
        self._writing: trio.lowlevel.Task | None = None
        self._chance = random.Random(f"{world.seed}/{process}/{number}")

    # --- for the world -------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """From the start to the end, whichever it is. What the program itself gets wrong ends the whole run."""
        determinism.OWNER.set(self)
        try:
            with self._scope:
                await trio.sleep(self._chance.uniform(*START_S))
                await (self._be_balancer() if self.process == BALANCER else self._be_node())
        except* Killed:
            pass
        except* (lmdb.Error, StoreError):
            self.world.ended(self, "store failed")
        except* trio.Cancelled:
            raise
        except* BaseException as group:  # noqa: BLE001 - what a dead process makes of its death is nobody's concern
            if self.alive:
                self.world.fail(group)
        self.world.ended(self, "stopped")

    def stop(self) -> None:
        """As SIGTERM."""
        self._stop()

    def die(self) -> None:
        """Whatever it waits for, it waits no more."""
        self.alive = False
        determinism.go_on(self)
        self._scope.cancel()
        if self._writing is not None:
            task, self._writing = self._writing, None
            trio.lowlevel.reschedule(task, outcome.Error(Killed()))

    # --- the programs --------------------------------------------------------------------------------------------

    async def _be_node(self) -> None:
        world, settings = self.world, self.world.node_settings(self.process)
        outside = self._outside()
        node = Node(
            settings,
            identity_of(settings, outside),
            outside,
            self._connect,
            awake_max=self.world.knobs.awake_max,
        )
        self.executors = Executors(world.agenda, world.jobs_chance, self, settings.slots)
        self._stop = node.stop
        self._is_up(node.worker, node.who.boot_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.executors.report, node.report)
            await node.run([world.network.listen(self.process)], self.executors.submit)
            nursery.cancel_scope.cancel()

    async def _be_balancer(self) -> None:
        balancer = Balancer(self.world.balancer_settings(), self._outside(), awake_max=self.world.knobs.awake_max)
        self._is_up(balancer.dispatcher, balancer.ledger_id)
        await balancer.run([self.world.network.listen(self.process)])

    def _is_up(self, machine: Worker | Dispatcher, boot_id: str) -> None:
        self.machine, self.boot_id = machine, boot_id
        self.world.tell("booted", self.process, boot_id)

    def _outside(self) -> Outside:
        tables = Tables(self.world.disk(self.process), self, self.world.knobs.commit_s, self.world.disk_chance)
        return Outside(
            tables=tables,
            wall=lambda: self.world.wall(self.process),
            chance=self._chance,
            nonce=self._chance.randbytes,
            run_blocking=tables.run_blocking,
            observers=[self._stepped],
        )

    async def _connect(self) -> trio.abc.Stream:
        stream = await self.world.network.connect(self.process, BALANCER)
        if not self.alive:
            raise Killed
        return stream

    def _stepped(self, step: Step) -> None:
        if self.alive:
            self.world.tell("stepped", self.process, step, self.machine)

    # --- for the disk and the jobs -------------------------------------------------------------------------------

    def reaches(self, what: str) -> bool:
        return self.world.reaches(self, what)

    async def takes(self, seconds: float) -> None:
        self.world.agenda.after(seconds, self._written)
        self._writing = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        if not self.alive:
            raise Killed

    def _written(self) -> None:
        if self._writing is not None:
            task, self._writing = self._writing, None
            trio.lowlevel.reschedule(task)

    def durable(self, transactions: Sequence[Sequence[Write]]) -> None:
        for writes in transactions:
            self.world.tell("committed", self.process, writes)

    def job_began(self, id: AttemptId, stdin: bytes) -> None:
        self.world.tell("began", self.process, self.boot_id, *id, stdin)

    def job_over(self, id: AttemptId, outcome: Outcome, output: bytes) -> None:
        self.world.tell("over", self.process, *id, outcome, output)

    def job_crashes(self) -> None:
        self.world.crash_and_restart(self.process, power_cut=False)
