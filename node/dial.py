"""The node's way to its balancer: dial, prove the key, talk, and when it is over dial again, for ever.

The balancer may start last, die and come back. The wait between two attempts doubles from REDIAL_S_MIN, with jitter
so that a hundred nodes do not come back in one instant; it is at most a second and at most a quarter of the node
timeout, so that a node that lives is back before it is given up.
"""

import os
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import structlog
import tenacity
import trio

from common import __version__, auth
from common.codec import Malformed
from common.events import LinkClosed, LinkOpened, LinkRefused, Received
from common.limits import FRAME_BYTES_MAX_UNPROVEN, HANDSHAKE_S, REDIAL_S_MAX, REDIAL_S_MIN
from common.messages import PROTOCOL, Challenge, Hello, Message, Proof, Refused, Welcome
from common.runtime.link import Link, LinkLost
from common.runtime.outside import Nonce
from node.worker import Identity

_log = structlog.get_logger()

_M = TypeVar("_M", bound=Message)
Connect = Callable[[], Awaitable[trio.abc.Stream]]


class Dial:
    """Keeps one link to the balancer open, as far as that is possible."""

    def __init__(
        self,
        connect: Connect,
        identity: Identity,
        *,
        slots: int,
        kinds: Sequence[str],
        key: bytes | None,
        node_timeout_s: float,
        tell: Callable[[object], None],
        wall: Callable[[], float],
        chance: random.Random,
        nonce: Nonce = secrets.token_bytes,
    ) -> None:
        self._connect = connect
        self._identity = identity
        self._slots = slots
        self._kinds = tuple(sorted(kinds))
        self._key = key
        self._redial_s_max = min(REDIAL_S_MAX, node_timeout_s / 4)
        self._tell = tell
        self._wall = wall
        self._chance = chance
        self._nonce = nonce
        self._number = 0
        self._link: Link | None = None
        self._problem: str | None = None

    def send(self, link: int, message: Message) -> None:
        if self._link is not None and link == self._number:
            self._link.send(message)

    def flush(self) -> None:
        """Sends off what was given to `send` since the last time."""
        if self._link is not None:
            self._link.flush()

    def hang_up(self, link: int, reason: str) -> None:
        if self._link is not None and link == self._number:
            self._link.close(reason)

    async def run(self) -> NoReturn:
        while True:
            link, challenge, welcome = await self._retrying(self._open)
            await self._talk(link, challenge, welcome)

    def _retrying(
        self, dial: Callable[[], Awaitable[tuple[Link, Challenge, Welcome]]]
    ) -> Awaitable[tuple[Link, Challenge, Welcome]]:
        def wait(state: tenacity.RetryCallState) -> float:
            doubled = REDIAL_S_MIN * 2.0 ** min(state.attempt_number - 1, 16)
            return min(doubled, self._redial_s_max) * self._chance.uniform(0.5, 1.0)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((OSError, LinkLost, Malformed)),
            wait=wait,
            sleep=trio.sleep,
            before_sleep=self._log_problem,
        )
        return retrying(dial)

    def _log_problem(self, state: tenacity.RetryCallState) -> None:
        """Once for each problem, not once for each attempt."""
        problem = _in_words(state.outcome.exception()) if state.outcome is not None else ""
        if problem != self._problem:
            _log.warning("balancer.unreachable", problem=problem)
            self._problem = problem

    async def _open(self) -> tuple[Link, Challenge, Welcome]:
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(HANDSHAKE_S):
                stream = await self._connect()
                return await self._shake_hands(Link(stream, limit_bytes=FRAME_BYTES_MAX_UNPROVEN))
        except trio.TooSlowError:
            await _drop(stream)
            raise LinkLost(f"the balancer did not answer within {HANDSHAKE_S:g} s") from None
        except BaseException:
            await _drop(stream)
            raise

    async def _shake_hands(self, link: Link) -> tuple[Link, Challenge, Welcome]:
        who = self._identity
        nonce = self._nonce(auth.NONCE_BYTES)
        hello = Hello(
            PROTOCOL, who.node_id, who.boot_id, who.prefix, who.name, self._slots, self._kinds, __version__, nonce
        )
        await link.send_now(hello)
        challenge = await self._expect(link, Challenge)
        shown = auth.balancer_proof(self._key, hello, challenge.ledger_id, challenge.nonce)
        if not auth.matches(shown, challenge.proof):
            raise self._refused("the balancer does not know our cluster key (JOBYARD_CLUSTER_KEY)")
        link.proven()  # now: whatever comes behind the Welcome may come with it
        await link.send_now(Proof(auth.node_proof(self._key, hello, challenge.ledger_id, challenge.nonce)))
        welcome = await self._expect(link, Welcome)
        return link, challenge, welcome

    async def _expect(self, link: Link, cls: type[_M]) -> _M:
        message = await link.receive()
        if isinstance(message, Refused):
            raise self._refused(message.reason)
        if not isinstance(message, cls):
            raise LinkLost(f"the balancer sent a {type(message).__name__} where a {cls.__name__} is due")
        return message

    def _refused(self, reason: str) -> LinkLost:
        self._tell(LinkRefused(reason))
        return LinkLost(f"refused: {reason}")

    async def _talk(self, link: Link, challenge: Challenge, welcome: Welcome) -> None:
        self._problem = None
        self._number += 1
        number, self._link = self._number, link
        self._tell(LinkOpened(number, challenge.ledger_id, welcome.eager))

        def receive(messages: Sequence[Message]) -> None:
            self._tell(Received(number, messages, self._wall()))

        reason = "the node stops"
        try:
            reason = await link.run(receive, silence_s=welcome.node_timeout_s)
        finally:
            self._link = None
            self._tell(LinkClosed(number, reason))


async def _drop(stream: trio.abc.Stream | None) -> None:
    if stream is not None:
        await trio.aclose_forcefully(stream)


def _in_words(error: BaseException | None) -> str:
    """Of several addresses that failed trio says only that they have; why is in what that was raised from."""
    cause = error.__cause__ if isinstance(error, OSError) else None
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    why = sorted({os.strerror(one.errno) for one in causes if isinstance(one, OSError) and one.errno})
    return f"{error}: {', '.join(why)}" if why else str(error)
