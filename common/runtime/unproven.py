"""Connections that have shown nothing yet: no TLS, no token, no key. Strangers may make as many as they like, so these
are bounded in number and in time, and where there are too many the oldest makes way for the newest.

That order is what keeps the door open: somebody who means it shows what he has in a few milliseconds, while somebody
who only holds places grows old in them. Turning away the newest would let a few silent connections shut everybody out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import structlog
import trio

_LOGGED_EVERY_S: Final = 1.0
_log = structlog.get_logger()


@attrs.define(eq=False)
class Place:
    """Of one connection. `ended` says why it had to leave; empty while it need not."""

    scope: trio.CancelScope
    ended: str = ""


class Unproven:
    """The places of a port: `most` of them, each for `wait_s`."""

    def __init__(self, most: int, wait_s: float) -> None:
        self._most = most
        self._wait_s = wait_s
        self._places: dict[Place, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """What happens inside is cancelled when the time is over, or when the place is wanted; not any more once
        `proven` was told. `ended` then says which of the two it was."""
        if len(self._places) >= self._most:
            self.make_way()
        place = Place(trio.CancelScope(deadline=trio.current_time() + self._wait_s))
        self._places[place] = None
        try:
            with place.scope:
                yield place
            if place.scope.cancelled_caught:
                place.ended = place.ended or f"showed nothing within {self._wait_s:g} s"
        finally:
            self._places.pop(place, None)

    def proven(self, place: Place) -> None:
        """It may stay for as long as it likes."""
        self._places.pop(place, None)
        place.scope.deadline = float("inf")

    def make_way(self) -> bool:
        """Ends the oldest; False where there is none."""
        for place in self._places:
            place.ended = "made way for a newer connection, of too many that had shown nothing"
            place.scope.cancel()
            del self._places[place]
            return True
        return False


class Refusals:
    """Log lines about those who were refused, with their address and at a bounded rate, so that a scan cannot fill a
    disk. What they sent is not in them."""

    def __init__(self, *, of_clients: bool) -> None:
        self._of_clients = of_clients
        self._next_at = 0.0
        self._unlogged = 0

    def tell(self, peer: str, reason: str) -> None:
        now = trio.current_time()
        if now < self._next_at:
            self._unlogged += 1
            return
        _log.warning(
            "client.refused" if self._of_clients else "link.refused",
            peer=peer, reason=reason, unlogged_before=self._unlogged,
        )  # fmt: skip
        self._next_at, self._unlogged = now + _LOGGED_EVERY_S, 0
