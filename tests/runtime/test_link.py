"""Links: the handshake with its proofs, and a conversation that never blocks who sends."""

import itertools
import random
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
import trio
import trio.testing

from balancer.door import WAIT_S, Door
from common import auth
from common.codec import replace
from common.events import Knocked, LinkClosed, LinkOpened, LinkRefused, Received
from common.frames import encode
from common.limits import (
    FRAME_BYTES_MAX_UNPROVEN,
    HANDSHAKE_S,
    KIB,
    LINK_MESSAGE_S_MAX,
    LINK_STALLED_S,
    LINKS_UNPROVEN_MAX,
    MIB,
)
from common.messages import (
    PROTOCOL,
    Challenge,
    Hello,
    Info,
    Message,
    Pair,
    Poll,
    Proof,
    Refused,
    Result,
    Taken,
    Welcome,
)
from common.runtime import link as link_module
from common.runtime.link import Link
from node.dial import Dial
from node.worker import Identity

KEY = b"0123456789abcdef"
WHO = Identity("id-1", "boot-1", "aaaaaa", "n1")
HELLO = Hello(PROTOCOL, "id-1", "boot-1", "aaaaaa", "n1", 2, ("sh",), "test", b"n" * 32)


class Balancer:
    """A door that welcomes whoever it hears of, on in-memory streams."""

    def __init__(self, key: bytes | None = None) -> None:
        self.events: list[object] = []
        self.door = Door(key=key, ledger_id="ledger-1", tell=self._post, wall=lambda: 1.0)

    def _post(self, event: object) -> None:
        self.events.append(event)
        if isinstance(event, Knocked):
            self.door.send(event.link, Welcome(2.0, eager=True))
            self.door.flush()

    def of(self, cls: type) -> list[object]:
        return [event for event in self.events if isinstance(event, cls)]


def make_dial(nursery: trio.Nursery, balancer: Balancer, events: list[object], key: bytes | None = None) -> Dial:
    async def connect() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(balancer.door._converse, theirs)
        return ours

    return Dial(
        connect, WHO, slots=2, kinds=["sh"], key=key, node_timeout_s=15.0, tell=events.append, wall=lambda: 1.0,
        chance=random.Random(1),
    )  # fmt: skip


@pytest.mark.parametrize("key", [None, KEY])
async def test_who_shares_the_key_gets_a_link(key: bytes | None, autojump_clock: trio.testing.MockClock) -> None:
    balancer, events = Balancer(key), list[object]()
    async with trio.open_nursery() as nursery:
        dial = make_dial(nursery, balancer, events, key)
        nursery.start_soon(dial.run)
        await trio.sleep(1)
        assert events == [LinkOpened(1, "ledger-1", True)]
        (knocked,) = balancer.of(Knocked)
        assert isinstance(knocked, Knocked)
        assert replace(knocked.hello, nonce=b"", version="") == replace(HELLO, nonce=b"", version="")
        dial.send(1, Info(1, 2))
        dial.flush()
        await trio.sleep(0.1)
        assert balancer.of(Received) == [Received(1, [Info(1, 2)], 1.0)]
        nursery.cancel_scope.cancel()


async def test_what_can_wait_goes_with_the_next_message_or_a_little_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    balancer = Balancer()
    taken = [Taken((f"aaaaaa-{number}",)) for number in (1, 2, 3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_dial(nursery, balancer, events := list[object]()).run)
        nursery.start_soon(balancer.door._flush_what_waits)
        await trio.sleep(1)
        number = balancer.of(Knocked)[0].link  # type: ignore[attr-defined]
        events.clear()

        async def heard() -> list[object]:
            """What has come by now."""
            await trio.sleep(WAIT_S / 4)
            came = [message for event in events if isinstance(event, Received) for message in event.messages]
            events.clear()
            return came

        balancer.door.send(number, taken[0], can_wait=True)
        balancer.door.flush()
        assert await heard() == []
        balancer.door.send(number, taken[1])
        balancer.door.flush()
        assert await heard() == [taken[0], taken[1]], "in the order in which they were sent"
        balancer.door.send(number, taken[2], can_wait=True)
        balancer.door.flush()
        assert await heard() == []
        await trio.sleep(WAIT_S)
        assert await heard() == [taken[2]]
        nursery.cancel_scope.cancel()


async def test_a_large_message_may_come_with_the_welcome(autojump_clock: trio.testing.MockClock) -> None:
    balancer, events = Balancer(KEY), list[object]()
    large = Taken(tuple(f"aaaaaa-{number}" for number in range(1, FRAME_BYTES_MAX_UNPROVEN // 8)))
    send = balancer.door.send
    balancer.door.send = lambda link, message: (send(link, message), send(link, large))  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_dial(nursery, balancer, events, KEY).run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert events[:2] == [LinkOpened(1, "ledger-1", True), Received(1, [large], 1.0)]


@pytest.mark.parametrize(("ours", "theirs"), [(None, KEY), (KEY, None), (KEY, b"fedcba9876543210")])
async def test_who_has_not_the_key_is_refused_and_no_machine_hears_of_it(
    ours: bytes | None, theirs: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    balancer, events = Balancer(theirs), list[object]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_dial(nursery, balancer, events, ours).run)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert balancer.events == []
    assert {type(event) for event in events} == {LinkRefused}


async def test_a_node_dials_again_for_ever_and_at_least_every_second(autojump_clock: trio.testing.MockClock) -> None:
    attempts: list[float] = []

    async def connect() -> trio.abc.Stream:
        attempts.append(trio.current_time())
        raise OSError("connection refused")

    dial = Dial(
        connect, WHO, slots=1, kinds=["sh"], key=None, node_timeout_s=15.0, tell=lambda event: None,
        wall=lambda: 1.0, chance=random.Random(1),
    )  # fmt: skip
    with trio.move_on_after(600):
        await dial.run()
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert len(attempts) > 600
    assert max(waits) <= 1.0
    assert waits[0] <= 0.05, "the first attempts come quickly"


async def test_a_silent_balancer_is_left_and_dialled_again(autojump_clock: trio.testing.MockClock) -> None:
    balancer, events = Balancer(), list[object]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_dial(nursery, balancer, events).run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    opened = [event.link for event in events if isinstance(event, LinkOpened)]
    closed = [event for event in events if isinstance(event, LinkClosed)]
    assert len(opened) >= 3
    assert "silent for 2.0 s" in closed[0].reason


async def talk(balancer: Balancer, *frames: bytes, wait_s: float = 1.0) -> list[Message]:
    """Sends raw bytes to the door and returns what it says."""
    said: list[Message] = []
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.door._converse, theirs)
        for frame in frames:
            await ours.send_all(frame)
        link = Link(ours)
        with trio.move_on_after(wait_s):
            while True:
                try:
                    said.append(await link.receive())
                except link_module.LinkLost:
                    break
        nursery.cancel_scope.cancel()
    return said


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 64,
        b"\xff" * 64,
        encode(Poll()),
        encode(Proof(b"")),
        (FRAME_BYTES_MAX_UNPROVEN + 1).to_bytes(4, "big") + b"\x01\x01" + b"x" * 5000,
        encode(HELLO)[:-3] + b"\xc1\xc1\xc1",
        encode(HELLO) + encode(Info(1, 1)),
        encode(replace(HELLO, protocol=9)),
    ],
)
async def test_garbage_before_the_proof_ends_that_connection_alone(
    garbage: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    balancer = Balancer(KEY)
    said = await talk(balancer, garbage)
    assert balancer.events == []
    assert all(isinstance(message, Challenge | Refused) for message in said)


async def test_a_handshake_that_takes_too_long_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    balancer = Balancer(KEY)
    started = trio.current_time()
    ours, theirs = trio.testing.memory_stream_pair()
    await balancer.door._converse(theirs)
    assert trio.current_time() - started == pytest.approx(HANDSHAKE_S)
    await ours.aclose()


async def test_of_more_than_a_bounded_number_of_unproven_links_the_oldest_makes_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever only holds places holds nobody up."""
    balancer = Balancer(KEY)
    ended: list[int] = []

    async def stranger(number: int, stream: trio.abc.Stream) -> None:
        await balancer.door._converse(stream)
        ended.append(number)

    async with trio.open_nursery() as nursery:
        pairs = [trio.testing.memory_stream_pair() for _ in range(LINKS_UNPROVEN_MAX + 2)]
        for number, (_, theirs) in enumerate(pairs):
            nursery.start_soon(stranger, number, theirs)
            await trio.testing.wait_all_tasks_blocked()
        assert ended == [0, 1]
        assert len(await talk(balancer, encode(HELLO))) == 1, "who comes now is heard"
        assert ended == [0, 1, 2]
        nursery.cancel_scope.cancel()


async def test_a_recorded_handshake_cannot_be_replayed(autojump_clock: trio.testing.MockClock) -> None:
    balancer = Balancer(KEY)
    recorded = auth.node_proof(KEY, HELLO, "ledger-1", b"an earlier nonce")
    said = await talk(balancer, encode(HELLO) + encode(Proof(recorded)))
    assert isinstance(said[-1], Refused)
    assert balancer.events == []


def test_proofs_depend_on_everything_that_was_said() -> None:
    def proofs(**changes: object) -> tuple[bytes, bytes]:
        hello = replace(HELLO, **{k: v for k, v in changes.items() if k in ("node_id", "boot_id", "nonce", "slots")})  # type: ignore[arg-type]
        arguments = (changes.get("key", KEY), hello, changes.get("ledger", "ledger-1"), changes.get("theirs", b"m"))
        return auth.balancer_proof(*arguments), auth.node_proof(*arguments)  # type: ignore[arg-type]

    variants = [
        proofs(), proofs(key=b"x" * 16), proofs(node_id="id-2"), proofs(boot_id="b"), proofs(nonce=b"z"),
        proofs(slots=9), proofs(ledger="ledger-2"), proofs(theirs=b"other"),
    ]  # fmt: skip
    every = [proof for pair in variants for proof in pair]
    assert len(set(every)) == len(every), "no proof serves in another place, nor in the other direction"


async def test_sending_never_blocks_and_a_peer_that_does_not_read_is_cut(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "LINK_UNSENT_BYTES_MAX", 1000)
    ours, _theirs = trio.testing.lockstep_stream_pair()
    link = Link(ours)
    reasons: list[str] = []

    async def run() -> None:
        reasons.append(await link.run(lambda messages: None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(500):
            link.send(Info(1, 1))
    assert "has not read" in reasons[0]


async def test_what_gathers_leaves_in_order_and_arrives_whole(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    sender, receiver = Link(ours), Link(theirs)
    received: list[Message] = []

    def receive(messages: Sequence[Message]) -> None:
        received.extend(messages)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run, lambda messages: None)
        nursery.start_soon(receiver.run, receive)
        for number in range(1000):
            sender.send(Info(number, 0))
            sender.flush()
        sender.close("done")
    assert received == [Info(number, 0) for number in range(1000)]


async def test_what_the_kernel_does_not_take_at_once_follows_in_order() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    dialled = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    ours, theirs = Link(dialled), Link(await listeners[0].accept())
    sent = [Result((Pair(f"aaaaaa-{number}", b"", bytes([number]) * MIB),)) for number in range(1, 31)]
    received: list[Message] = []

    def receive(messages: Sequence[Message]) -> None:
        received.extend(messages)
        if len(received) == len(sent):
            ours.close("all is said")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run, lambda messages: None)
        for number, message in enumerate(sent):
            ours.send(message)
            if number % 3 == 0:
                ours.flush()
        nursery.start_soon(theirs.run, receive)
        await trio.testing.wait_all_tasks_blocked()
        ours.flush()
    await listeners[0].aclose()
    assert received == sent


async def test_closing_closes_also_where_the_peer_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    link = Link(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, lambda messages: None)
        link.send(Info(1, 1))
        link.flush()
        await trio.testing.wait_all_tasks_blocked()
        link.close("enough")
        await trio.sleep(2)
        assert not nursery.child_tasks


async def test_a_connection_that_was_reset_ends_nothing_but_itself() -> None:
    balancer = Balancer(KEY)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.door.run, listeners)
        port = listeners[0].socket.getsockname()[1]
        for _ in range(3):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            link = Link(stream)
            await link.send_now(HELLO)
            assert isinstance(await link.receive(), Challenge)
        await stream.aclose()
        nursery.cancel_scope.cancel()


# --- every wait has an end ---------------------------------------------------------------------------------------


async def run_link(link: Link, told: list[str], heard: list[Sequence[Message]], silence_s: float | None = None) -> None:
    told.append(await link.run(heard.append, silence_s=silence_s))


async def test_a_peer_that_takes_nothing_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    link, told = Link(ours), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_link, link, told, [])
        link.send(Info(1, 1))
        link.flush()
        await trio.sleep(LINK_STALLED_S - 1)
        assert not told
        await trio.sleep(2)
        assert "did not take" in told[0]
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_a_large_message_slowly_is_not(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    link, told = Link(ours), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_link, link, told, [])
        link.send(Result((Pair("aaaaaa-1", b"", bytes(6 * MIB)),)))
        link.flush()
        taken = 0
        while taken < 6 * MIB:
            taken += len(await theirs.receive_some(256 * KIB))
            await trio.sleep(LINK_STALLED_S / 8)
        assert not told
        nursery.cancel_scope.cancel()


async def test_a_message_that_comes_slowly_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link, told, heard = Link(ours), list[str](), list[Sequence[Message]]()
    frame = encode(Result((Pair("aaaaaa-1", b"", bytes(MIB)),)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_link, link, told, heard, 2.0)
        for start in range(0, len(frame), 32 * KIB):
            await theirs.send_all(frame[start : start + 32 * KIB])
            await trio.sleep(0.5)
        assert not told
        assert isinstance(heard[-1][0], Result)
        assert all(not batch for batch in heard[:-1])
        assert 10 <= len(heard) <= 20, "about once a second, for whoever counts the silence"
        await trio.sleep(3)
        assert "silent for 2.0 s" in told[0]
        nursery.cancel_scope.cancel()


async def test_a_message_that_never_ends_is_not(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link, told = Link(ours), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_link, link, told, [], 15.0)
        await theirs.send_all((100 * MIB).to_bytes(4, "big"))
        with trio.fail_after(LINK_MESSAGE_S_MAX + 60):
            while not told:
                await theirs.send_all(b"x")
                await trio.sleep(10)
        assert "a message took longer than 600 s" in told[0]
        nursery.cancel_scope.cancel()


async def test_a_way_to_the_balancer_that_leads_nowhere_is_given_up_and_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A name that nobody resolves, or a connection that nobody accepts or refuses."""
    begun: list[float] = []

    async def connect() -> trio.abc.Stream:
        begun.append(trio.current_time())
        return await trio.sleep_forever()

    dial = Dial(
        connect, WHO, slots=1, kinds=["sh"], key=None, node_timeout_s=15.0, tell=lambda event: None,
        wall=lambda: 1.0, chance=random.Random(1),
    )  # fmt: skip
    with trio.move_on_after(60):
        await dial.run()
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(begun) >= 60 / (HANDSHAKE_S + 1)
    assert max(waits) <= HANDSHAKE_S + 1


@pytest.mark.parametrize("answered", [0, 1])
async def test_a_balancer_that_accepts_and_says_nothing_is_left(
    answered: int, autojump_clock: trio.testing.MockClock
) -> None:
    begun: list[float] = []
    answers = [encode(Challenge("ledger-1", b"n" * 32, b"p" * 32))][:answered]

    async def connect() -> trio.abc.Stream:
        begun.append(trio.current_time())
        ours, theirs = trio.testing.memory_stream_pair()
        for answer in answers:
            await theirs.send_all(answer)
        return ours

    dial = Dial(
        connect, WHO, slots=1, kinds=["sh"], key=None, node_timeout_s=15.0, tell=lambda event: None,
        wall=lambda: 1.0, chance=random.Random(1),
    )  # fmt: skip
    with trio.move_on_after(60):
        await dial.run()
    assert len(begun) >= 60 / (HANDSHAKE_S + 1)


async def test_a_balancer_hears_no_news_of_a_node_that_is_only_there(autojump_clock: trio.testing.MockClock) -> None:
    """The machine counts the silence of links (test_a_node_that_is_admitted_and_says_nothing_is_let_go)."""
    balancer = Balancer()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(balancer.door._converse, theirs)
        link = Link(ours)
        await link.send_now(HELLO)
        challenge = await link.receive()
        assert isinstance(challenge, Challenge)
        await link.send_now(Proof(auth.node_proof(None, HELLO, challenge.ledger_id, challenge.nonce)))
        assert isinstance(await link.receive(), Welcome)
        await trio.sleep(100)
        assert balancer.of(Received) == []
        balancer.door.hang_up(1, "silent for longer than JOBYARD_NODE_TIMEOUT")
        await trio.sleep(2)
        assert balancer.of(LinkClosed) == [LinkClosed(1, "silent for longer than JOBYARD_NODE_TIMEOUT")]
        nursery.cancel_scope.cancel()


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    """A link over a plain socket, and the other end of that."""
    ours, theirs = socket.socketpair()
    with theirs:
        yield Link(trio.SocketStream(trio.socket.from_stdlib_socket(ours))), theirs


async def test_over_a_plain_socket_messages_come_also_in_parts(pair: tuple[Link, socket.socket]) -> None:
    link, theirs = pair
    received: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, received.extend)
        for part in (encode(Poll()) + encode(Info(1, 2))[:5], encode(Info(1, 2))[5:]):
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(part)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert received == [Poll(), Info(1, 2)]


async def test_the_end_of_a_plain_socket_is_told_in_words(pair: tuple[Link, socket.socket]) -> None:
    link, theirs = pair
    theirs.send(encode(Poll()))
    theirs.close()
    received: list[object] = []
    assert await link.run(received.extend) == "the other side closed the connection"
    assert received == [Poll()]
    with pytest.raises(link_module.LinkLost):
        await link.receive()


async def test_a_plain_socket_that_is_silent_is_given_up(
    pair: tuple[Link, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    link, theirs = pair
    theirs.send(encode(Poll()))
    received: list[tuple[float, object]] = []
    note = lambda messages: received.append((trio.current_time(), *messages))  # noqa: E731
    assert await link.run(note, silence_s=2.0) == "the other side was silent for 2.0 s"
    assert received == [(0.0, Poll())]
    assert trio.current_time() == pytest.approx(2.0)
