"""The node's composition root: settings in, a running program out. Everything is put together here and nowhere
else, so this is the file to read to see what there is.

The order of the start is a promise: what an older boot left running is ended before this one says hello, and clients
are served only when the store is open.
"""

import random
import time
from collections.abc import Sequence

import structlog
import trio

from common import __version__
from common.effects import Hangup, Reply, Send
from common.events import Asked, ClientsGone, Delivered, Stop
from common.memory import Memory
from common.runtime import identity
from common.runtime.driver import Driver, in_one_thread
from common.runtime.observers import Health, Log, tell_quarantined, write_address
from common.runtime.program import listen, on_signals
from common.runtime.serving import Serving
from common.runtime.store import Store, open_store
from common.settings import NodeSettings, describe
from node.backlog import Maxima
from node.dial import Dial
from node.executors import Begun, Limits, Over, Printed
from node.executors.handle import Executors
from node.executors.leftovers import end_leftovers
from node.worker import Executed, Identity, RunNow, Worker


async def run(settings: NodeSettings) -> int:
    """Runs until it is told to stop; returns the exit status. Asked once it drains, asked again it ends at once."""
    log = structlog.get_logger()
    store = open_store(settings.data_dir, settings.store_max_bytes, tell_quarantined)
    try:
        who = Identity(
            identity.directory_id(store), identity.boot_id(), identity.ticket_prefix(store), settings.node_name
        )
        return await _run(settings, store, who)
    finally:
        store.close()
        log.info("node.stopped")


async def _run(settings: NodeSettings, store: Store, who: Identity) -> int:
    log = structlog.get_logger()
    scratch = store.directory / "scratch"
    ended = end_leftovers(scratch, who.node_id)
    if ended:
        log.warning("leftovers.ended", processes=ended)
    maxima = _maxima(settings)
    worker = Worker(
        who,
        Memory(store),
        slots=settings.slots,
        retention_s=settings.retention_s,
        drain_grace_s=settings.drain_grace_s,
        maxima=maxima,
    )
    driver = Driver(
        worker,
        store,
        observers=[Log(), Health(store.directory)],
        run_blocking=in_one_thread(),
        wall=time.time,
    )
    serving = _serving(settings, driver)
    dial = _dial(settings, who, driver)

    def report(reports: Sequence[Begun | Over | Printed]) -> None:
        driver.post(Executed(reports, time.time()))

    (store.directory / "address").unlink(missing_ok=True)
    listeners = await listen(*settings.listen)
    async with (
        Executors(
            scratch_root=scratch,
            owner=who.node_id,
            output_bytes_max=settings.output_bytes_max,
            python=settings.python,
            pythonpath=settings.pythonpath,
            most=maxima.limits,
            report=report,
        ).running() as executors,
        trio.open_nursery() as nursery,
    ):
        driver.perform(
            {
                Reply: lambda action: serving.reply(action.query_id, action.reply, action.more),
                Send: lambda action: dial.send(action.link, action.message),
                Hangup: lambda action: dial.hang_up(action.link, action.reason),
                RunNow: lambda action: executors.submit(action.batch),
            }
        )
        address = write_address(store.directory, listeners[0])
        log.info("node.started", version=__version__, address=address, id=who.node_id, boot=who.boot_id,
                 prefix=who.prefix, **describe(settings))  # fmt: skip
        nursery.start_soon(serving.run, listeners)
        nursery.start_soon(dial.run)
        nursery.start_soon(on_signals, lambda: driver.post(Stop()), nursery.cancel_scope.cancel)
        await driver.run()
        nursery.cancel_scope.cancel()
    return 0


def _maxima(settings: NodeSettings) -> Maxima:
    limits = Limits(
        settings.cpu_s_max,
        settings.memory_bytes_max,
        settings.files_max,
        settings.processes_max,
        settings.printed_bytes_max,
    )
    return Maxima(limits, settings.timeout_s_max)


def _serving(settings: NodeSettings, driver: Driver) -> Serving:
    return Serving(
        ask=lambda queries: driver.post(Asked(queries, time.time())),
        gone=lambda query_ids: driver.post(ClientsGone(query_ids)),
        delivered=lambda query_ids: driver.post(Delivered(query_ids)),
        version=__version__,
        token=settings.client_token,
        connections_max=settings.connections_max,
        body_bytes_max=settings.body_bytes_max,
        kinds=settings.kinds,
    )


def _dial(settings: NodeSettings, who: Identity, driver: Driver) -> Dial:
    host, port = settings.balancer

    async def connect() -> trio.abc.Stream:
        return await trio.open_tcp_stream(host, port)

    return Dial(
        connect,
        who,
        slots=settings.slots,
        kinds=sorted(settings.kinds),
        key=settings.cluster_key,
        node_timeout_s=settings.node_timeout_s,
        post=driver.post,
        wall=time.time,
        chance=random.Random(),
    )
