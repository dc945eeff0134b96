"""Clients: they speak the real protocol, in bytes, over the simulated network, and tell the auditor all of it.

Each is a task with a chance of its own. It asks whichever node it likes, and where the connection ends before the
answer has come, it asks another one, as a client library does: a submission under a key is asked again until it is
answered, one without a key is not, because it would be another job.
"""

import math
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol

import attrs
import trio

from tests.simulation.knobs import Load
from tests.simulation.talk import ENDS, Hung, Reader, Reply, Request
from tests.simulation.told import Told

_LINES: Final = (
    ("sh true", 30), ("sh exit 3", 5), ("sleep 0.5", 6), ("retries=1 backoff=0.5 sh exit 3", 3),
    ("timeout=1 sh sleep 20", 3), ("priority=5 sh true", 4), ("delay=2 sh true", 3), ("group=g sh true", 5),
    ("group=g sh sleep 2", 2), ("after={} sh true", 4), ("array=1-3 sh true", 3), ("array=1-9:2%2 sh sleep 0.3", 2),
    ("crash_limit=1 sh sleep 0.5", 5), ("after={} array=1-2 sh true", 1),
    ("group=g array=1-4%1 crash_limit=1 sh true", 1), ("sh say", 6), ("array=1-3 sh say", 2), ("input={} sh cat", 5),
    ("input={},{} retries=1 sh cat", 2), ("input={} after={} array=1-2 sh cat", 1),
)  # fmt: skip
_SLOTS: Final = ("slots=2 sh sleep 1", 3)
_LONG: Final = ("sh sleep {s}", "sh sleep {s}", "sleep {s}", "crash_limit=off sh sleep {s}")
_CRASHING: Final = ("sh crash", "crash_limit=1 sh crash", "retries=2 sh crash")
_KEYED: Final = ("sh true", "sh sleep 1", "array=1-3 sh true")
_ELEMENT: Final = Request("", "")
_KEEPALIVE_S: Final = 2.0
_OTHER_TEXT: Final = "sh exit 0"  # a client that takes a key for another job than its owner did


class World(Protocol):
    """What clients need of the world."""

    async def connect(self, client: str, node: str) -> trio.abc.Stream: ...


@attrs.define
class Crowd:
    """What all clients of a story share. `goes_on` ends when nobody is to begin anything new."""

    world: World
    told: Told
    load: Load
    nodes: Sequence[str]
    slots: int
    timeout_s: float  # of a node
    gone: Collection[str]  # nodes that will be gone for ever: whoever waits has to end that himself
    boot_of: Callable[[str], str | None]  # which boot of a node lives
    say: Callable[[str], None]


class Client:
    def __init__(self, name: str, crowd: Crowd, chance: random.Random) -> None:
        self.name = name
        self._crowd = crowd
        self._chance = chance
        self.doing: str | None = None  # for whoever asks why it does not come to an end

    async def run(self) -> None:
        for _ in range(self._crowd.load.operations):
            await trio.sleep(self._chance.expovariate(1 / self._crowd.load.pause_s))
            await self._operation()()

    # --- operations --------------------------------------------------------------------------------------------------

    def _operation(self) -> Callable[[], Awaitable[object]]:
        kinds = {
            self._submit: 30, self._submit_with_key: 10, self._run: 5, self._wait: 14, self._look: 14,
            self._cancel: 5, self._retry: 6, self._forget: 3, self._walk_away: 4, self._drain: 1,
        }  # fmt: skip
        (operation,) = self._chance.choices(list(kinds), list(kinds.values()))
        return operation

    async def _submit(self) -> None:
        count = self._chance.randint(1, self._crowd.load.burst)
        await self.ask([Request(f"SUBMIT {self._line()}", "SUBMIT") for _ in range(count)], self._node())

    async def _submit_with_key(self) -> None:
        number = self._chance.randint(1, self._crowd.load.keys)
        line = _KEYED[number % len(_KEYED)] if self._chance.random() < 0.9 else _OTHER_TEXT
        await self._insist(Request(f"SUBMIT key=k{number} {line}", "SUBMIT", key=f"k{number}"))

    async def _run(self) -> None:
        patience_s = None if self._may_wait_for_ever() else self._crowd.timeout_s
        with trio.move_on_after(math.inf if patience_s is None else patience_s):
            await self.ask([Request(f"RUN {self._line()}", "RUN", patience_s=None)], self._node())

    async def _wait(self) -> None:
        """Until the job has ended, wherever it takes asking; or for some time."""
        ticket = self._some_ticket()
        if ticket is None:
            return
        if self._may_wait_for_ever():
            await self._insist(Request(f"WAIT {ticket}", "WAIT", ticket, patience_s=None))
            return
        seconds = round(self._chance.uniform(0.0, 2 * self._crowd.timeout_s), 1)
        await self._insist(Request(f"WAIT timeout={seconds} {ticket}", "WAIT", ticket, patience_s=seconds))

    async def _look(self) -> None:
        ticket = self._some_ticket(element=True)
        if ticket is not None:
            is_array = "array=" in self._crowd.told.acknowledged.get(ticket, _ELEMENT).line
            verb = self._chance.choice(
                ["STATUS", "RESULT", "STATUS", "RESULT", "EXPLAIN", "STATUS" if is_array else "LOGS"]
            )
            await self._insist(Request(f"{verb} {ticket}", verb, ticket))

    async def _cancel(self) -> None:
        await self._order("CANCEL")

    async def _retry(self) -> None:
        """Mostly of what somebody was told has not succeeded, or nothing would come of it."""
        failed = [ticket for ticket, state in self._crowd.told.ends.items() if state != "succeeded"]
        if failed and self._chance.random() < 0.8:
            ticket = self._chance.choice(failed)
            await self.ask([Request(f"RETRY {ticket}", "RETRY", ticket)], self._node())
        else:
            await self._order("RETRY")

    async def _forget(self) -> None:
        await self._order("FORGET")

    async def _order(self, verb: str) -> None:
        ticket = self._some_ticket(element=verb != "FORGET")
        if self._chance.random() < 0.1:
            await self.ask([Request(f"{verb} group=g", verb, group="g")], self._node())
        elif ticket is not None:
            await self.ask([Request(f"{verb} {ticket}", verb, ticket)], self._node())

    async def _drain(self) -> None:
        """For a moment. The mark is on the node's disk, so it is asked until it has taken it away."""
        node = self._node()
        await self.ask([Request("DRAIN", "DRAIN")], node)
        while node not in self._crowd.gone:
            await trio.sleep(self._chance.uniform(0.0, 2.0))
            replies = await self.ask([Request("UNDRAIN", "UNDRAIN")], node)
            if replies and replies[0].word == "OK":
                break

    async def _walk_away(self) -> None:
        """Goes while its answer is awaited."""
        ticket = self._some_ticket()
        with trio.move_on_after(self._chance.uniform(0.0, 0.1)):
            if ticket is None or self._chance.random() < 0.5:
                await self.ask([Request(f"SUBMIT {self._line()}", "SUBMIT")], self._node())
            else:
                await self.ask([Request(f"WAIT {ticket}", "WAIT", ticket, patience_s=None)], self._node())

    # --- choices -----------------------------------------------------------------------------------------------------

    def _node(self) -> str:
        return self._chance.choice(self._crowd.nodes)

    def _may_wait_for_ever(self) -> bool:
        return not self._crowd.gone and self._chance.random() < 0.4

    def _line(self) -> str:
        load, draw = self._crowd.load, self._chance.random()
        if draw < load.crashing_jobs:
            return self._chance.choice(_CRASHING)
        if draw < load.crashing_jobs + load.long_jobs:
            seconds = round(self._crowd.timeout_s * self._chance.uniform(0.3, 1.8), 1)
            return self._chance.choice(_LONG).format(s=seconds)
        lines = (*_LINES, _SLOTS) if self._crowd.slots > 1 else _LINES
        (line,) = self._chance.choices([line for line, _ in lines], [weight for _, weight in lines])
        while "{}" in line:
            ticket = self._some_printer() if line.startswith("input=") else self._some_ticket()
            line = line.replace("{}", ticket or "aaaaaa-1", 1)
        return line

    def _some_printer(self) -> str | None:
        """Mostly of a job that prints something, or nothing would come of reading it."""
        acknowledged = self._crowd.told.acknowledged
        printers = [ticket for ticket, asked in acknowledged.items() if asked.line.endswith((" say", " cat"))]
        return self._chance.choice(printers) if printers and self._chance.random() < 0.8 else self._some_ticket()

    def _some_ticket(self, *, element: bool = False) -> str | None:
        """Of a job that somebody was told of; mostly one of the last."""
        known = list(self._crowd.told.acknowledged)
        if not known:
            return None
        ticket = self._chance.choice(known[-12:] if self._chance.random() < 0.7 else known)
        if element and " array=1-" in self._crowd.told.acknowledged[ticket].line and self._chance.random() < 0.4:
            return f"{ticket}_1"
        return ticket

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _insist(self, request: Request) -> Reply:
        """Asks until there is an answer that is one; every time at any node."""
        while True:
            replies = await self.ask([request], self._node())
            if replies and not self._wants_more(request, replies[0]):
                return replies[0]
            await trio.sleep(self._chance.uniform(0.1, 1.0))

    def _wants_more(self, request: Request, reply: Reply) -> bool:
        if reply.code is not None:
            return request.verb == "SUBMIT" and reply.code not in ("CONFLICT",)
        return request.verb == "WAIT" and request.patience_s is None and reply.state not in ENDS

    async def ask(self, requests: Sequence[Request], node: str) -> list[Reply]:
        """The replies that came before the connection ended. All of them are sent in one go."""
        self.doing = f"{requests[0].line!r} at {node}"
        replies: list[Reply] = []
        try:
            stream = await self._crowd.world.connect(self.name, node)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive, node, nursery.cancel_scope)
                await self._converse(stream, requests, node, replies)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, Hung) as errors:
            self._crowd.say(f"{self.name}: {requests[len(replies)].line} → {node} → {errors.exceptions[0]!r}")
        self.doing = None
        return replies

    async def _keep_alive(self, node: str, connection: trio.CancelScope) -> None:
        """As a kernel does: finds out in the end whether whom it is connected to is still there. As long as it is,
        nobody gives up, so that an answer that does not come is noticed."""
        boot = self._crowd.boot_of(node)
        while self._crowd.boot_of(node) == boot is not None:  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(_KEEPALIVE_S)
        self._crowd.say(f"{self.name}: finds that {node} is gone")
        connection.cancel()

    async def _converse(
        self, stream: trio.abc.Stream, requests: Sequence[Request], node: str, replies: list[Reply]
    ) -> None:
        told = self._crowd.told
        asks = [told.asked(request, node) for request in requests]
        try:
            await stream.send_all("".join(f"{request.line}\n" for request in requests).encode())
            reader = Reader(stream.receive_some)
            for ask in asks:
                reply = await reader.reply()
                self._crowd.say(f"{self.name}: {ask.request.line} → {node} → {reply}")
                told.heard(ask, reply)
                replies.append(reply)
        finally:
            for ask in asks[len(replies) :]:
                told.unanswered(ask)
            await trio.aclose_forcefully(stream)
