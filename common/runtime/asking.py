"""How the HTTP side of a program asks its machine: a question is an event, the answer a `Reply`, as for any client.

So the machine is never looked at from beside: what is answered is true of one moment between two steps, also while a
commit is under way in another thread. Ids go down from -1, apart from those of clients. Whoever waits too long, or
goes away, takes the question back.
"""

import itertools
from collections.abc import Callable
from typing import Final

import trio

from common.events import Inquired, Uninquired
from common.limits import ANSWER_WAIT_S
from common.messages import Inquiry

WAIT_S: Final = ANSWER_WAIT_S + 1.0  # the machine itself waits for other nodes, and then says so


class TooSlow(Exception):
    """The machine has not answered in time: it waits for its disk, or for another node."""


class Asking:
    def __init__(self, post: Callable[[object], None], wall: Callable[[], float]) -> None:
        self._post = post
        self._wall = wall
        self._ids = itertools.count(-1, -1)
        self._waiting: dict[int, tuple[trio.Event, list[bytes]]] = {}

    async def ask(
        self,
        verb: str,
        ticket: str | None = None,
        *,
        group: str | None = None,
        state: str | None = None,
        limit: int = 0,
        since: str | None = None,
        wait_s: float = WAIT_S,
    ) -> bytes:
        """The machine's answer, whole; raises TooSlow."""
        id = next(self._ids)
        arrived, replies = self._waiting[id] = trio.Event(), []
        inquiry = Inquiry(id, verb, ticket=ticket, group=group, state=state, limit=limit, since=since)
        self._post(Inquired((inquiry,), self._wall()))
        try:
            with trio.move_on_after(wait_s):
                await arrived.wait()
        finally:
            del self._waiting[id]
            if not replies:
                self._post(Uninquired((id,)))
        if not replies:
            raise TooSlow(f"no answer to {verb} within {wait_s:g} s")
        return replies[0]

    def told(self, query_id: int, reply: bytes) -> None:
        """For the driver: the answer. Nothing happens where nobody waits for it any more."""
        waiting = self._waiting.get(query_id)
        if waiting is not None:
            waiting[1].append(reply)
            waiting[0].set()

    def __len__(self) -> int:
        return len(self._waiting)
