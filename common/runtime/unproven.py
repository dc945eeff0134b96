"""Connections that have shown nothing yet: no TLS, no token, no key. Strangers may make as many as they like, so these
are bounded in number and in time, and where there are too many the oldest makes way for the newest.

That order is what keeps the door open: somebody who means it shows what he has in a few milliseconds, while somebody
who only holds places grows old in them. Turning away the newest would let a few silent connections shut everybody out.
"""

from types import TracebackType
from typing import Final, Self

import attrs
import structlog
import trio

_LOGGED_EVERY_S: Final = 1.0
_log = structlog.get_logger()


@attrs.define(eq=False)
class Place:
    """Of one connection. What happens inside is cancelled when its time is over, or when the place is wanted; not any
    more once `Unproven.proven` was told. `ended` then says which of the two it was, and is empty otherwise."""

    _of: "Unproven"
    scope: trio.CancelScope
    ended: str = ""

    def __enter__(self) -> Self:
        self._of.taken(self)
        self.scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            return self.scope.__exit__(kind, error, traceback)
        finally:
            self._of.left(self)


class Unproven:
    """The places of a port: `most` of them, each for `wait_s`."""

    def __init__(self, most: int, wait_s: float) -> None:
        self._most = most
        self._wait_s = wait_s
        self._places: dict[Place, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._places)

    def place(self) -> Place:
        """A place to be entered at once."""
        return Place(self, trio.CancelScope(deadline=trio.current_time() + self._wait_s))

    def taken(self, place: Place) -> None:
        if len(self._places) >= self._most:
            self.make_way()
        self._places[place] = None

    def left(self, place: Place) -> None:
        self._places.pop(place, None)
        if place.scope.cancelled_caught:
            place.ended = place.ended or f"showed nothing within {self._wait_s:g} s"

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
