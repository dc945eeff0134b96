"""The cluster port of the balancer: who dials in proves the key, is announced to the machine, and gets a link.

Everything before the proof is bounded: frames of 4 KiB, HANDSHAKE_S in all, LINKS_UNPROVEN_MAX at once, of which the
oldest makes way. A refusal is logged with the address, at a bounded rate, so that a scan cannot fill a disk.
"""

import secrets
from collections.abc import Callable, Sequence

import trio

from common import auth
from common.codec import Malformed
from common.events import Knocked, LinkClosed, Received
from common.frames import encode
from common.limits import FRAME_BYTES_MAX_UNPROVEN, HANDSHAKE_S, LINKS_UNPROVEN_MAX
from common.messages import PROTOCOL, Challenge, Hello, Message, Proof, Refused
from common.runtime.bell import Bell
from common.runtime.link import Link, LinkLost
from common.runtime.outside import Nonce
from common.runtime.sockets import peer_of
from common.runtime.tls import HandshakeFailed, NotTls, handshake
from common.runtime.unproven import Refusals, Unproven

WAIT_S = 0.002  # of what can wait: longer than a job that does nothing takes from a node to another and back


class Door:
    """Opens links and performs what the machine says of them."""

    def __init__(
        self,
        *,
        key: bytes | None,
        ledger_id: str,
        tell: Callable[[object], None],
        wall: Callable[[], float],
        nonce: Nonce = secrets.token_bytes,
    ) -> None:
        self._key = key
        self._ledger_id = ledger_id
        self._tell = tell
        self._wall = wall
        self._nonce = nonce
        self._links: dict[int, Link] = {}
        self._spoken_to: dict[Link, None] = {}  # since the last flush
        self._can_wait: dict[Link, None] = {}  # spoken to, and nobody waits for it
        self._some_wait = Bell()
        self._last = 0
        self._unproven = Unproven(LINKS_UNPROVEN_MAX, HANDSHAKE_S)
        self._refusals = Refusals(of_clients=False)

    async def run(self, listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_what_waits)
            await trio.serve_listeners(self._converse, list(listeners))

    def send(self, link: int, message: Message, *, can_wait: bool = False) -> None:
        if (opened := self._links.get(link)) is not None:
            opened.send(message)
            if can_wait:
                self._can_wait[opened] = None
                self._some_wait.ring()
            else:
                self._spoken_to[opened] = None

    def flush(self) -> None:
        """Sends off what was given to `send` since the last time, and what has waited on the same links."""
        spoken_to, self._spoken_to = self._spoken_to, {}
        for link in spoken_to:
            link.flush()

    async def _flush_what_waits(self) -> None:
        while True:
            await self._some_wait.wait()
            await trio.sleep(WAIT_S)
            waiting, self._can_wait = self._can_wait, {}
            for link in waiting:
                link.flush()

    def hang_up(self, link: int, reason: str) -> None:
        if (opened := self._links.get(link)) is not None:
            opened.close(reason)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        peer = peer_of(stream)  # which a closed socket would not tell
        link = Link(stream, limit_bytes=FRAME_BYTES_MAX_UNPROVEN)
        hello: Hello | None = None
        with self._unproven.place() as place:
            try:
                hello = await self._prove(stream, link)
            except (LinkLost, Malformed, HandshakeFailed) as error:
                place.ended = str(error)
        if hello is None:
            self._refusals.tell(peer, place.ended)
            await trio.aclose_forcefully(stream)
            return
        link.proven()
        await self._serve(link, hello)

    async def _prove(self, stream: trio.abc.Stream, link: Link) -> Hello:
        """The handshakes, to the node's proof of the key. Raises what was wrong."""
        try:
            await handshake(stream)
        except NotTls as error:
            await error.answer(encode(Refused("this balancer speaks TLS; JOBYARD_TLS_CA has to say whom to trust")))
            raise
        return await self._challenge(link)

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
        self._tell(Knocked(number, hello))

        def receive(messages: Sequence[Message]) -> None:
            self._tell(Received(number, messages, self._wall()))

        reason = "the balancer stops"
        try:
            reason = await link.run(receive)
        finally:
            del self._links[number]
            self._tell(LinkClosed(number, reason))
