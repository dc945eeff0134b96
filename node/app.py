"""The node's composition root: settings in, a running program out. Everything that is real is opened here: the data
directory, the port, the executors, the way to the balancer.

The order of the start is a promise: what an older boot left running is ended before this one says hello, and clients
are served only when the store is open.
"""

import time
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from common import __version__, certificates
from common.runtime import logs
from common.runtime.observers import Health, Log, tell_quarantined, write_address
from common.runtime.outside import real
from common.runtime.ports import files_for, listen
from common.runtime.program import on_signals, run_program
from common.runtime.pulse import idle_alone_s_max
from common.runtime.store import Store, open_store
from common.runtime.tls import dial, tell_readable_key
from common.settings import NodeSettings, describe
from common.values import format_address
from node.assembly import Node, identity_of, maxima
from node.dial import Connect
from node.executors.handle import Executors
from node.executors.leftovers import end_leftovers


def start(settings: NodeSettings) -> int:
    """Makes this process a node; returns the exit status."""
    logs.configure(settings.log_format, settings.log_level, program="node", node=settings.node_name)
    return run_program(partial(run, settings))


async def run(settings: NodeSettings) -> int:
    """Runs until it is told to stop; returns the exit status. Asked once it drains, asked again it ends at once."""
    store = open_store(settings.data_dir, settings.store_max_bytes, tell_quarantined)
    try:
        status = await _run(settings, store)
        structlog.get_logger().info("node.stopped")
        return status
    finally:
        store.close()


async def _run(settings: NodeSettings, store: Store) -> int:
    log = structlog.get_logger()
    tell_readable_key(settings)
    if settings.serves_tls and not settings.dials_by_tls:
        log.warning("link.plain", advice="JOBYARD_TLS_CA is not set, so only the clients' port speaks TLS")
    settings = attrs.evolve(settings, connections_max=files_for(settings.connections_max))
    outside = real(store, [Log(), Health(store.directory, idle_alone_s_max(settings.node_timeout_s))])
    who = identity_of(settings, outside)
    scratch = store.directory / "scratch"
    ended = end_leftovers(scratch, who.node_id)
    if ended:
        log.warning("leftovers.ended", processes=ended)
    node = Node(settings, who, outside, _way_to_the_balancer(settings))
    executors = Executors(
        scratch_root=scratch,
        owner=who.node_id,
        output_bytes_max=settings.output_bytes_max,
        python=settings.python,
        pythonpath=settings.pythonpath,
        most=maxima(settings).limits,
        slots=settings.slots,
        report=node.report,
    )
    (store.directory / "address").unlink(missing_ok=True)
    ports = await listen(settings.listen, certificates.port_context(settings, demanding=False))
    status = 0  # also of one that was told twice to stop, and has not finished what runs
    async with executors.running(), trio.open_nursery() as nursery:
        address = write_address(store.directory, ports[0].listener)
        log.info("node.started", version=__version__, address=address, balancer=format_address(settings.balancer),
                 id=who.node_id, boot=who.boot_id, prefix=who.prefix, **describe(settings))  # fmt: skip
        nursery.start_soon(on_signals, node.stop, nursery.cancel_scope.cancel)
        if settings.http_listen is not None:
            nursery.start_soon(_run_http, settings.http_listen, settings, node, store.directory)
        status = await node.run(ports, executors.submit)
        nursery.cancel_scope.cancel()
    return status


async def _run_http(address: tuple[str, int], settings: NodeSettings, node: Node, directory: Path) -> None:
    from common.runtime.http_side import Site, run_http_side
    from common.runtime.tally import Tally

    tally = Tally(time.time)
    node.driver.observe(tally)

    def make_site() -> Site:
        from node.web import site

        return site(settings, node.asking, tally, directory, node.serving.statistics)

    await run_http_side(address, settings, directory, tally, make_site)


def _way_to_the_balancer(settings: NodeSettings) -> Connect:
    host, port = settings.balancer
    return partial(dial, host, port, certificates.dialling_context(settings))
