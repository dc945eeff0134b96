"""What a node is made of, put together: machine, driver, clients' port and link. Everything outside of it is handed
over, so the same node runs in earnest (`node/app.py`) and in the simulation (`tests/simulation`).
"""

from collections.abc import Callable, Sequence

import trio

from common import __version__
from common.effects import Hangup, Reply, Send
from common.events import Asked, ClientsGone, Delivered, Stop
from common.limits import JOBS_APART_S, OWN_JOBS_AWAKE_MAX
from common.memory import Memory
from common.runtime import identity
from common.runtime.asking import Asking
from common.runtime.driver import Driver
from common.runtime.outside import Outside
from common.runtime.serving import Serving
from common.settings import NodeSettings
from node.dial import Connect, Dial
from node.executors import Limits, Order, Word
from node.maxima import Maxima
from node.worker import Executed, Identity, RunNow, Worker

Submit = Callable[[Sequence[Order]], None]


def identity_of(settings: NodeSettings, outside: Outside) -> Identity:
    """Who the node of this data directory is, with a new boot id."""
    return Identity(
        identity.directory_id(outside.tables, outside.nonce),
        identity.boot_id(outside.nonce),
        identity.ticket_prefix(outside.tables, outside.nonce),
        settings.node_name,
    )


class Node:
    """One boot of a node. `run` is its life; `stop` asks it to drain and end."""

    def __init__(
        self,
        settings: NodeSettings,
        who: Identity,
        outside: Outside,
        connect: Connect,
        *,
        awake_max: int = OWN_JOBS_AWAKE_MAX,
    ) -> None:
        self.who = who
        self.worker = Worker(
            who,
            Memory(outside.tables),
            slots=settings.slots,
            retention_s=settings.retention_s,
            drain_grace_s=settings.drain_grace_s,
            maxima=maxima(settings),
            kinds=settings.kinds,
            fallback_s=settings.local_fallback_s,
            awake_max=awake_max,
            jobs_apart_s=JOBS_APART_S,
        )
        self.driver = Driver(
            self.worker,
            outside.tables,
            observers=outside.observers,
            run_blocking=outside.run_blocking,
            run_here=outside.run_here,
            wall=outside.wall,
        )
        self._wall = outside.wall
        self.asking = Asking(self.driver.post, outside.wall)
        self.serving = _serving(settings, self.driver, outside)
        self._dial = _dial(settings, who, self.driver, outside, connect)

    def report(self, reports: Sequence[Word]) -> None:
        """For the executors: news of attempts."""
        self.driver.post(Executed(reports, self._wall()))

    def stop(self) -> None:
        self.driver.post(Stop())

    async def run(self, listeners: Sequence[trio.abc.Listener[trio.abc.Stream]], submit: Submit) -> int:
        """Lives until the machine says that it is over; returns the exit status."""
        self.driver.perform(
            {
                Reply: self._reply,
                Send: lambda action: self._dial.send(action.link, action.message),
                Hangup: lambda action: self._dial.hang_up(action.link, action.reason),
                RunNow: lambda action: submit(action.batch),
            },
            performed=self._sent_off,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serving.run, listeners)
            nursery.start_soon(self._dial.run)
            status = await self.driver.run()
            nursery.cancel_scope.cancel()
        return status

    def _reply(self, action: Reply) -> None:
        if action.query_id < 0:
            self.asking.told(action.query_id, action.reply)
        else:
            self.serving.reply(action.query_id, action.reply, action.more)

    def _sent_off(self) -> None:
        self.serving.flush()  # first, because somebody waits for it
        self._dial.flush()


def maxima(settings: NodeSettings) -> Maxima:
    """What any attempt may use here."""
    limits = Limits(
        settings.cpu_s_max,
        settings.memory_bytes_max,
        settings.files_max,
        settings.processes_max,
        settings.printed_bytes_max,
    )
    return Maxima(limits, settings.timeout_s_max)


def _serving(settings: NodeSettings, driver: Driver, outside: Outside) -> Serving:
    return Serving(
        ask=lambda queries: driver.tell(Asked(queries, outside.wall())),
        gone=lambda query_ids: driver.post(ClientsGone(query_ids)),
        delivered=lambda query_ids: driver.post(Delivered(query_ids)),
        version=__version__,
        token=settings.client_token,
        connections_max=settings.connections_max,
        body_bytes_max=settings.body_bytes_max,
        kinds=settings.kinds,
    )


def _dial(settings: NodeSettings, who: Identity, driver: Driver, outside: Outside, connect: Connect) -> Dial:
    return Dial(
        connect,
        who,
        slots=settings.slots,
        kinds=sorted(settings.kinds),
        key=settings.cluster_key,
        node_timeout_s=settings.node_timeout_s,
        tell=driver.tell,
        wall=outside.wall,
        chance=outside.chance,
        nonce=outside.nonce,
    )
