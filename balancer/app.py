"""The balancer's composition root: settings in, a running program out. Everything that is real is opened here: the
data directory and the port.
"""

import time
from functools import partial
from pathlib import Path

import structlog
import trio

from balancer.assembly import Balancer
from common import __version__, certificates
from common.limits import HTTP_CONNECTIONS_MAX, HTTP_REFUSALS_MAX, LINKS_UNPROVEN_MAX
from common.runtime import logs
from common.runtime.observers import Health, Log, tell_quarantined, write_address
from common.runtime.outside import real
from common.runtime.ports import files_for, listen
from common.runtime.program import on_signals, run_program
from common.runtime.store import open_store
from common.runtime.tls import tell_readable_key
from common.settings import BalancerSettings, describe


def start(settings: BalancerSettings) -> int:
    """Makes this process the balancer; returns the exit status."""
    logs.configure(settings.log_format, settings.log_level, program="balancer")
    return run_program(partial(run, settings))


async def run(settings: BalancerSettings) -> int:
    """Runs until it is told to stop; returns the exit status."""
    log = structlog.get_logger()
    context = certificates.port_context(settings, demanding=True)
    tell_readable_key(settings)
    files_for(_connections_max(settings))
    store = open_store(settings.data_dir, settings.store_max_bytes, tell_quarantined)
    try:
        balancer = Balancer(settings, real(store, [Log(), Health(store.directory)]))
        (store.directory / "address").unlink(missing_ok=True)
        ports = await listen(settings.listen, context)
        address = write_address(store.directory, ports[0].listener)
        log.info(
            "balancer.started", version=__version__, address=address, ledger=balancer.ledger_id, **describe(settings)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on_signals, nursery.cancel_scope.cancel, nursery.cancel_scope.cancel)
            if settings.http_listen is not None:
                nursery.start_soon(_run_http, settings.http_listen, settings, balancer, store.directory)
            await balancer.run(ports)
        log.info("balancer.stopped")
        return 0
    finally:
        store.close()


def _connections_max(settings: BalancerSettings) -> int:
    """Those of nodes, and of strangers on either port."""
    over_http = 0 if settings.http_listen is None else HTTP_CONNECTIONS_MAX + HTTP_REFUSALS_MAX
    return settings.nodes_max + LINKS_UNPROVEN_MAX + over_http


def tell_no_token(settings: BalancerSettings) -> None:
    """Nodes may want a token of which this program does not know; over HTTP it shows what they guard."""
    if settings.client_token is None:
        advice = "whoever reaches this port reads jobs and their output; set JOBYARD_CLIENT_TOKEN here if nodes have it"
        structlog.get_logger().info("http.no_token", advice=advice)


async def _run_http(address: tuple[str, int], settings: BalancerSettings, balancer: Balancer, directory: Path) -> None:
    from common.runtime.http_side import Site, run_http_side
    from common.runtime.tally import Tally

    tally = Tally(time.time, balancer.dispatcher.census)
    balancer.driver.observe(tally)
    tell_no_token(settings)

    def make_site() -> Site:
        from balancer.web import site

        return site(settings, balancer.asking, tally, directory)

    await run_http_side(address, settings, directory, tally, make_site)
