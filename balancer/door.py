"""The cluster port of the balancer: who dials in proves the key, is announced to the machine, and gets a link.

Everything before the proof is bounded: frames of 4 KiB, HANDSHAKE_S in all, LINKS_UNPROVEN_MAX at once. A refusal is
logged with the address, at a bounded rate, so that a scan cannot fill a disk.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from common import auth
from common.codec import Malformed
from common.events import Knocked, LinkClosed, Received
from common.limits import FRAME_BYTES_MAX_UNPROVEN, HANDSHAKE_S, LINKS_UNPROVEN_MAX
from common.messages import PROTOCOL, Challenge, Hello, Message, Proof, Refused
from common.runtime.link import Link, LinkLost
from common.runtime.outside import Nonce

_REFUSALS_LOGGED_PER_S: Final = 1.0
_log = structlog.get_logger()


class Door:
    """Opens links and performs what the machine says of them."""

    def __init__(
        self,
        *,
        key: bytes | None,
        ledger_id: str,
        post: Callable[[object], None],
        wall: Callable[[], float],
        nonce: Nonce = secrets.token_bytes,
    ) -> None:
        self._key = key
        self._ledger_id = ledger_id
        self._post = post
        self._wall = wall
        self._nonce = nonce
        self._links: dict[int, Link] = {}
        self._last = 0
        self._unproven = 0
        self._next_log = 0.0
        self._unlogged = 0

    async def run(self, listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> None:
        await trio.serve_listeners(self._converse, list(listeners))

    def send(self, link: int, message: Message) -> None:
        if (opened := self._links.get(link)) is not None:
            opened.send(message)

    def hang_up(self, link: int, reason: str) -> None:
        if (opened := self._links.get(link)) is not None:
            opened.close(reason)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        link = Link(stream, limit_bytes=FRAME_BYTES_MAX_UNPROVEN)
        try:
            hello = await self._prove(link)
        except (LinkLost, Malformed) as error:
            self._log_refusal(stream, str(error))
            await trio.aclose_forcefully(stream)
            return
        link.proven()
        await self._serve(link, hello)

    async def _prove(self, link: Link) -> Hello:
        """The handshake, to the node's proof of the key; raises LinkLost with what was wrong."""
        if self._unproven >= LINKS_UNPROVEN_MAX:
            raise LinkLost(f"{LINKS_UNPROVEN_MAX} connections are already waiting to prove the key")
        self._unproven += 1
        try:
            with trio.fail_after(HANDSHAKE_S):
                return await self._challenge(link)
        except trio.TooSlowError:
            raise LinkLost(f"the handshake took longer than {HANDSHAKE_S:g} s") from None
        finally:
            self._unproven -= 1

    async def _challenge(self, link: Link) -> Hello:
        hello = await link.receive()
        if not isinstance(hello, Hello):
            raise LinkLost(f"began with a {type(hello).__name__} where a Hello is due")
        if hello.protocol != PROTOCOL:
            await link.send_now(Refused(f"protocol {hello.protocol}; this balancer speaks {PROTOCOL}"))
            raise LinkLost(f"speaks protocol {hello.protocol}")
        nonce = self._nonce(auth.NONCE_BYTES)
        shown = auth.balancer_proof(self._key, hello, self._ledger_id, nonce)
        await link.send_now(Challenge(self._ledger_id, nonce, shown))
        proof = await link.receive()
        expected = auth.node_proof(self._key, hello, self._ledger_id, nonce)
        if not isinstance(proof, Proof) or not auth.matches(expected, proof.proof):
            await link.send_now(Refused("the cluster key does not match (JOBYARD_CLUSTER_KEY)"))
            raise LinkLost("wrong cluster key")
        return hello

    async def _serve(self, link: Link, hello: Hello) -> None:
        self._last += 1
        number = self._last
        self._links[number] = link
        self._post(Knocked(number, hello))

        def receive(messages: Sequence[Message]) -> None:
            self._post(Received(number, messages, self._wall()))

        reason = "the balancer stops"
        try:
            reason = await link.run(receive)
        finally:
            del self._links[number]
            self._post(LinkClosed(number, reason))

    def _log_refusal(self, stream: trio.abc.Stream, reason: str) -> None:
        now = trio.current_time()
        if now < self._next_log:
            self._unlogged += 1
            return
        _log.warning("link.refused", peer=_peer(stream), reason=reason, unlogged_before=self._unlogged)
        self._next_log, self._unlogged = now + 1 / _REFUSALS_LOGGED_PER_S, 0


def _peer(stream: trio.abc.Stream) -> str:
    """The address of whoever dialled; it cannot be had any more where the connection was reset."""
    try:
        return str(stream.socket.getpeername()[0]) if isinstance(stream, trio.SocketStream) else "?"
    except OSError:
        return "?"
