"""The HTTP side of a program, beside its scheduler and never in its way.

It comes up after the program serves, with its libraries imported in another thread; an address that cannot be had, or
an error, is logged, and it is tried again while everything else goes on. Where JOBYARD_HTTP_LISTEN is off, nothing of
it is imported. `<data dir>/http-address` says where it listens.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from common import certificates
from common.certificates import TlsSettings
from common.runtime.observers import write_address
from common.runtime.ports import CannotListen, Port, listen
from common.runtime.tally import Tally

TRY_AGAIN_S: Final = 5.0
FILE: Final = "http-address"

log = structlog.get_logger()


@attrs.frozen
class Site:
    """What is served, and what has to run beside it."""

    app: Any
    beside: Sequence[Callable[[], Awaitable[None]]] = ()


async def run_http_side(
    address: tuple[str, int],
    settings: TlsSettings,
    directory: Path,
    tally: Tally,
    make_site: Callable[[], Site],
    *,
    try_again_s: float = TRY_AGAIN_S,
) -> None:
    """Until it is cancelled. `make_site` is called in another thread, because it imports what takes a while."""
    (directory / FILE).unlink(missing_ok=True)
    told = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tally.run_clock)
        while True:
            try:
                await _serve(address, settings, directory, make_site)
            except* CannotListen as errors:
                problem = str(errors.exceptions[0])
                if problem != told:
                    log.error("http.unavailable", problem=problem, advice="see JOBYARD_HTTP_LISTEN; jobs go on")
                told = problem
            except* Exception:
                log.exception("http.failed", again_s=try_again_s)
            await trio.sleep(try_again_s)


async def _serve(
    address: tuple[str, int], settings: TlsSettings, directory: Path, make_site: Callable[[], Site]
) -> None:
    ports = await listen(address, certificates.port_context(settings, demanding=False))
    try:
        site, run = await trio.to_thread.run_sync(_prepare, make_site)
        log.info("http.started", address=write_address(directory, ports[0].listener, FILE))
        async with trio.open_nursery() as nursery:
            for task in site.beside:
                nursery.start_soon(task)
            await run(site.app, ports)
    finally:
        for port in ports:
            port.listener.socket.close()


def _prepare(make_site: Callable[[], Site]) -> tuple[Site, Callable[[Any, Sequence[Port]], Awaitable[None]]]:
    from common.runtime.http import Server

    async def run(app: Any, ports: Sequence[Port]) -> None:
        await Server(app).run(ports)

    return make_site(), run
