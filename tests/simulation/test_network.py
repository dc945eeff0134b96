"""The virtual network does what it says, fault by fault: a fault that does nothing would prove nothing."""

import errno
import random
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.simulation import determinism
from tests.simulation.agenda import Agenda
from tests.simulation.network import CONNECT_S, End, Manners, Network

SEEDS = range(40)
PLAIN = Manners(split=0.0)


@attrs.define
class Quiet:
    """A world that asks nothing of its network."""

    noted: int = 0

    def dies_sending(self, host: str) -> bool:
        return False

    def kill(self, host: str) -> None:
        raise AssertionError("nobody is to die here")

    def note(self, data: bytes) -> None:
        self.noted += 1


def on_a_network(does: Callable[[Network], Awaitable[Any]], seed: int = 1, manners: Manners = PLAIN) -> Any:
    async def main() -> Any:
        failures: list[BaseException] = []
        network = Network(Agenda(failures.append), random.Random(seed), manners, Quiet())
        result = await does(network)
        assert failures == []
        return result

    return determinism.run(main, seed=seed)


async def connected(network: Network) -> tuple[End, End]:
    """From a to b."""
    listener = network.listen("b")
    ours = await network.connect("a", "b")
    return ours, await listener.accept()


async def quiet(end: End, seconds: float) -> bool:
    """Whether nothing comes of reading for so long."""
    with trio.move_on_after(seconds):
        await end.receive_some()
        return False
    return True


async def ended_by(end: End, seconds: float = 10.0) -> str:
    """What reading comes to, in the end."""
    with trio.move_on_after(seconds):
        try:
            while await end.receive_some():
                pass
        except trio.BrokenResourceError:
            return "reset"
        return "end"
    return "silence"


# --- when nothing is wrong ---------------------------------------------------------------------------------------


def test_the_streams_keep_the_contract_of_trio() -> None:
    async def check(network: Network) -> None:
        async def pair() -> tuple[End, End]:
            return await connected(network)

        async def clogged() -> tuple[End, End]:
            ours, theirs = await connected(network)
            with trio.move_on_after(1):
                await ours.send_all(b"x" * 2 * network.manners.buffer_bytes)
            with trio.move_on_after(1):
                await theirs.send_all(b"x" * 2 * network.manners.buffer_bytes)
            return ours, theirs

        await trio.testing.check_half_closeable_stream(pair, clogged)

    on_a_network(check, manners=Manners((0.0, 0.0), split=0.0, buffer_bytes=4096))


def test_what_is_sent_arrives_later_whole_and_in_order_and_often_in_pieces() -> None:
    async def talk(network: Network) -> int:
        ours, theirs = await connected(network)
        sent = b"".join(b"%d " % number for number in range(2000))
        received, reads = b"", 0

        async def send() -> None:
            for start in range(0, len(sent), 100):
                await ours.send_all(sent[start : start + 100])
                await trio.sleep(0.01)
            await ours.send_eof()

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for data in theirs:
                assert trio.current_time() >= started + network.manners.delay_s[0]
                received, reads = received + data, reads + 1
        assert received == sent
        return reads

    whole = on_a_network(talk, manners=Manners(split=0.0))
    assert on_a_network(talk, manners=Manners(split=0.8)) > 1.3 * whole


def test_who_sends_more_than_is_read_waits() -> None:
    async def flood(network: Network) -> None:
        ours, theirs = await connected(network)
        await ours.send_all(b"x" * 1000)
        with trio.move_on_after(60) as waited:
            await ours.send_all(b"y")
        assert waited.cancelled_caught
        assert len(await theirs.receive_some(400)) == 400
        with trio.fail_after(1):
            await ours.send_all(b"z" * 400)

    on_a_network(flood, manners=Manners(split=0.0, buffer_bytes=1000))


def test_what_is_closed_arrives_first_and_then_the_end() -> None:
    async def close(network: Network) -> None:
        ours, theirs = await connected(network)
        await ours.send_all(b"last words")
        await ours.aclose()
        await trio.sleep(1)
        assert await theirs.receive_some(4) == b"last"
        assert await theirs.receive_some() == b" words"
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"is anybody there?")
        assert await ended_by(theirs, 0.1) == "end"
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"!")

    on_a_network(close)


def test_who_closes_with_something_unread_resets_the_connection() -> None:
    async def close(network: Network) -> None:
        ours, theirs = await connected(network)
        await ours.send_all(b"a question")
        await trio.sleep(1)
        await theirs.send_all(b"an answer that is never seen")
        await theirs.aclose()
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()

    on_a_network(close)


def test_nobody_listens_and_so_it_is_refused() -> None:
    async def connect(network: Network) -> None:
        with pytest.raises(ConnectionRefusedError):
            await network.connect("a", "b")
        listener = network.listen("b")
        await network.connect("a", "b")
        await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            await network.connect("a", "b")
        assert trio.current_time() < 1

    on_a_network(connect)


# --- resets and deaths -------------------------------------------------------------------------------------------


def test_a_reset_breaks_both_ends_and_what_was_on_its_way_is_lost() -> None:
    async def reset(network: Network) -> None:
        ours, theirs = await connected(network)
        other = await network.connect("c", "b")
        await ours.send_all(b"lost")
        assert network.reset("b", "a") == 1
        for end in (ours, theirs):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await end.send_all(b"x")
        await other.send_all(b"not struck")

    on_a_network(reset)


def test_a_reset_wakes_who_waits() -> None:
    async def reset(network: Network) -> None:
        ours, _ = await connected(network)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await ours.receive_some()

            async def write() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await ours.send_all(b"x" * 2 * network.manners.buffer_bytes)

            nursery.start_soon(read)
            nursery.start_soon(write)
            await trio.sleep(1)
            network.reset("a", "b")

    on_a_network(reset)


async def after_a_death(network: Network, *, power_cut: bool) -> tuple[str, float]:
    """How the other end hears of it, and when."""
    ours, theirs = await connected(network)
    await theirs.send_all(b"last words")
    network.died("b", power_cut=power_cut)
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"of a dead man")
    started = trio.current_time()
    how = await ended_by(ours, 100.0)
    return how, trio.current_time() - started


def test_the_kernel_of_a_killed_process_ends_its_connections_at_once_in_either_way() -> None:
    ends = [on_a_network(lambda network: after_a_death(network, power_cut=False), seed) for seed in SEEDS]
    assert {how for how, _ in ends} == {"reset", "end"}
    assert all(seconds < 0.1 for _, seconds in ends)


def test_a_host_without_power_says_nothing() -> None:
    ends = [on_a_network(lambda network: after_a_death(network, power_cut=True), seed) for seed in SEEDS]
    assert {how for how, _ in ends} == {"silence"}


def test_a_host_that_is_back_resets_what_it_does_not_know() -> None:
    async def come_back(network: Network) -> list[str]:
        ours, _ = await connected(network)
        idle = await network.connect("a", "b")
        network.died("b", power_cut=True)
        await ours.send_all(b"are you there?")
        assert await quiet(ours, 60)
        network.on("b")
        heard = [await ended_by(ours), await ended_by(idle)]
        await idle.send_all(b"and you?")
        return [*heard, await ended_by(idle)]

    assert on_a_network(come_back) == ["reset", "silence", "reset"]


def test_connections_that_nobody_has_accepted_die_with_their_listener() -> None:
    async def die(network: Network) -> str:
        network.listen("b")
        ours = await network.connect("a", "b")
        network.died("b", power_cut=False)
        return await ended_by(ours)

    assert {on_a_network(die, seed) for seed in SEEDS} == {"reset", "end"}


# --- cuts --------------------------------------------------------------------------------------------------------


async def across_a_cut(network: Network) -> bytes:
    """What arrives after a cut of a minute, within which nothing does; empty where the connection was reset."""
    ours, theirs = await connected(network)
    await ours.send_all(b"before ")
    network.cut("a", "b")
    await ours.send_all(b"within ")
    await theirs.send_all(b"back ")
    assert await quiet(ours, 30)
    assert await quiet(theirs, 30)
    network.heal("a", "b")
    try:
        await ours.send_all(b"after")
        await ours.send_eof()
        await trio.sleep(1)
        assert await ours.receive_some() == b"back "
        return await theirs.receive_some()
    except trio.BrokenResourceError:
        return b""


def test_what_is_sent_across_a_cut_arrives_after_it_in_order_or_the_connection_is_reset() -> None:
    arrived = [on_a_network(across_a_cut, seed) for seed in SEEDS]
    assert set(arrived) == {b"before within after", b""}
    assert arrived.count(b"") < len(arrived) / 2


def test_a_cut_of_one_way_lets_the_other_through() -> None:
    async def cut(network: Network) -> None:
        ours, theirs = await connected(network)
        network.cut("a", "b", one_way=True)
        await ours.send_all(b"not heard")
        await theirs.send_all(b"heard")
        assert await ours.receive_some() == b"heard"
        assert await quiet(theirs, 60)

    on_a_network(cut)


def test_word_that_there_is_room_again_is_cut_off_too() -> None:
    async def cut(network: Network) -> bool:
        ours, theirs = await connected(network)
        network.cut("b", "a", one_way=True)
        await ours.send_all(b"x" * 1000)
        await trio.sleep(1)
        assert len(await theirs.receive_some()) == 1000
        with trio.move_on_after(60) as waited:
            await ours.send_all(b"y")
        assert waited.cancelled_caught
        network.heal("b", "a", one_way=True)
        await trio.sleep(1)
        try:
            with trio.fail_after(1):
                await ours.send_all(b"y")
        except trio.BrokenResourceError:
            return False
        return True

    manners = Manners(split=0.0, buffer_bytes=1000)
    assert {on_a_network(cut, seed, manners) for seed in SEEDS} == {True, False}


def test_cuts_add_up() -> None:
    async def cut(network: Network) -> None:
        for _ in range(2):
            network.cut("a", "b")
        network.isolate("a")
        network.heal("a", "b")
        assert network.is_cut("a", "b")
        network.heal("a", "b")
        assert network.is_cut("a", "b")
        assert network.is_cut("c", "a")
        network.unite("a")
        assert not network.is_cut("a", "b")
        assert not network.is_cut("c", "a")

    on_a_network(cut)


@pytest.mark.parametrize("why", ["two ways", "one way", "the other way", "isolated", "no power"])
def test_to_connect_across_a_cut_hangs_or_is_said_to_be_impossible(why: str) -> None:
    async def connect(network: Network) -> tuple[int | None, float]:
        network.listen("b")
        {
            "two ways": lambda: network.cut("a", "b"),
            "one way": lambda: network.cut("a", "b", one_way=True),
            "the other way": lambda: network.cut("b", "a", one_way=True),
            "isolated": lambda: network.isolate("b"),
            "no power": lambda: network.died("b", power_cut=True),
        }[why]()
        started = trio.current_time()
        try:
            await network.connect("a", "b")
        except OSError as error:
            return error.errno, trio.current_time() - started
        raise AssertionError("it was connected")

    ends = [on_a_network(connect, seed) for seed in SEEDS]
    silent = [seconds for number, seconds in ends if number == errno.ETIMEDOUT]
    told = [seconds for number, seconds in ends if number == errno.EHOSTUNREACH]
    assert len(silent) + len(told) == len(ends)
    assert all(seconds >= CONNECT_S for seconds in silent)
    assert silent
    assert all(seconds < 0.1 for seconds in told)
    assert bool(told) == (why != "no power")


def test_to_connect_goes_on_where_the_cut_is_healed_in_time() -> None:
    async def connect(network: Network) -> str:
        network.listen("b")
        network.cut("a", "b")
        network.agenda.after(1.5, lambda: network.heal("a", "b"))
        try:
            await network.connect("a", "b")
        except OSError:
            return "unreachable"
        return "late" if trio.current_time() > 1.5 else "early"

    assert {on_a_network(connect, seed) for seed in SEEDS} == {"late", "unreachable"}
