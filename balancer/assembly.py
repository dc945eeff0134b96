"""What the balancer is made of, put together: machine, driver and door. Everything outside of it is handed over, so
the same balancer runs in earnest (`balancer/app.py`) and in the simulation (`tests/simulation`).
"""

from collections.abc import Sequence

import trio

from balancer.dispatcher import Dispatcher, Periods
from balancer.door import Door
from balancer.placement import POLICIES
from common.effects import Hangup, Reply, Send
from common.limits import ENTRIES_AWAKE_MAX
from common.memory import Memory
from common.runtime import identity
from common.runtime.asking import Asking
from common.runtime.driver import Driver
from common.runtime.outside import Outside
from common.settings import BalancerSettings


class Balancer:
    """One boot of the balancer. `run` is its life. Its whole state is on disk at every moment, so stopping is nothing
    more than ending."""

    def __init__(self, settings: BalancerSettings, outside: Outside, *, awake_max: int = ENTRIES_AWAKE_MAX) -> None:
        self.ledger_id = identity.directory_id(outside.tables, outside.nonce)
        self.dispatcher = Dispatcher(
            Memory(outside.tables),
            periods(settings),
            POLICIES[settings.placement](outside.chance),
            nodes_max=settings.nodes_max,
            chance=outside.chance,
            awake_max=awake_max,
        )
        self.driver = Driver(
            self.dispatcher,
            outside.tables,
            observers=outside.observers,
            run_blocking=outside.run_blocking,
            run_here=outside.run_here,
            wall=outside.wall,
        )
        self.asking = Asking(self.driver.post, outside.wall)
        self._door = Door(
            key=settings.cluster_key,
            ledger_id=self.ledger_id,
            tell=self.driver.tell,
            wall=outside.wall,
            nonce=outside.nonce,
        )

    async def run(self, listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> None:
        """Lives until it is cancelled."""
        self.driver.perform(
            {
                Reply: lambda action: self.asking.told(action.query_id, action.reply),
                Send: lambda action: self._door.send(action.link, action.message, can_wait=action.can_wait),
                Hangup: lambda action: self._door.hang_up(action.link, action.reason),
            },
            performed=self._door.flush,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._door.run, listeners)
            await self.driver.run()
            nursery.cancel_scope.cancel()


def periods(settings: BalancerSettings) -> Periods:
    """The settings that are of time and of sizes."""
    return Periods(
        eager=settings.dispatch_mode == "eager",
        round_s=settings.dispatch_period_s,
        jobs_per_round_max=settings.jobs_per_round_max,
        result_s=settings.result_period_s,
        info_s=settings.info_period_s,
        node_timeout_s=settings.node_timeout_s,
        backlog_max=settings.backlog_max,
        retention_s=settings.retention_s,
    )
