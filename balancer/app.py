"""The balancer's composition root: settings in, a running program out. Everything is put together here and nowhere
else, so this is the file to read to see what there is.
"""

import random
import time

import structlog
import trio

from balancer.dispatcher import Dispatcher, Periods
from balancer.door import Door
from balancer.placement import Level
from common import __version__
from common.effects import Hangup, Send
from common.memory import Memory
from common.runtime import identity
from common.runtime.driver import Driver, in_one_thread
from common.runtime.observers import Health, Log, tell_quarantined, write_address
from common.runtime.program import listen, on_signals
from common.runtime.store import Store, open_store
from common.settings import BalancerSettings, describe


async def run(settings: BalancerSettings) -> int:
    """Runs until it is told to stop; returns the exit status. Its whole state is on disk at every moment, so
    stopping is nothing more than ending."""
    log = structlog.get_logger()
    store = open_store(settings.data_dir, settings.store_max_bytes, tell_quarantined)
    try:
        ledger_id = identity.directory_id(store)
        driver = _driver(settings, store)
        door = Door(key=settings.cluster_key, ledger_id=ledger_id, post=driver.post, wall=time.time)
        driver.perform(
            {
                Send: lambda action: door.send(action.link, action.message),
                Hangup: lambda action: door.hang_up(action.link, action.reason),
            }
        )
        (store.directory / "address").unlink(missing_ok=True)
        listeners = await listen(*settings.listen)
        address = write_address(store.directory, listeners[0])
        log.info("balancer.started", version=__version__, address=address, ledger=ledger_id, **describe(settings))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.run, listeners)
            nursery.start_soon(on_signals, nursery.cancel_scope.cancel, nursery.cancel_scope.cancel)
            await driver.run()
        log.info("balancer.stopped")
        return 0
    finally:
        store.close()


def _driver(settings: BalancerSettings, store: Store) -> Driver:
    periods = Periods(
        eager=settings.dispatch_mode == "eager",
        round_s=settings.dispatch_period_s,
        jobs_per_round_max=settings.jobs_per_round_max,
        result_s=settings.result_period_s,
        info_s=settings.info_period_s,
        node_timeout_s=settings.node_timeout_s,
        backlog_max=settings.backlog_max,
        retention_s=settings.retention_s,
    )
    dispatcher = Dispatcher(Memory(store), periods, Level(), nodes_max=settings.nodes_max, chance=random.Random())
    return Driver(
        dispatcher,
        store,
        observers=[Log(), Health(store.directory)],
        run_blocking=in_one_thread(),
        wall=time.time,
    )
