"""Mutants of what both programs do around their disks: durable, then visible; and one key, one job."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio

from balancer.dispatcher import Dispatcher
from common.codec import replace
from common.effects import Effects, Reply, Send, Write
from common.keys import Claim, Keys
from common.messages import Dispatch
from common.runtime.driver import Driver
from node.worker import Worker
from tests.simulation.disk import Disk
from tests.simulation.mutants.patching import patched

_PATIENCE_S: Final = 0.1


@contextmanager
def acknowledge_before_commit() -> Iterator[None]:
    """A node answers its clients first, and writes down afterwards what it has promised them."""
    with patched(Worker, "handle", _at_once(Worker.handle, lambda action: isinstance(action, Reply))):
        yield


@contextmanager
def dispatch_sent_before_commit() -> Iterator[None]:
    """The balancer sends a lease first, and writes down afterwards whom it has given the job to."""

    def is_dispatch(action: object) -> bool:
        return isinstance(action, Send) and isinstance(action.message, Dispatch)

    with patched(Dispatcher, "handle", _at_once(Dispatcher.handle, is_dispatch)):
        yield


def _at_once(handle: Callable[..., Effects], which: Callable[[object], bool]) -> Callable[..., Effects]:
    """Steps whose actions of one sort do not wait for the writes."""

    def handle_hastily(machine: Any, events: Sequence[object], now: float) -> Effects:
        effects = handle(machine, events, now)
        hasty = tuple(filter(which, effects.actions))
        patient = tuple(action for action in effects.actions if not which(action))
        return replace(effects, actions=patient, at_once=(*effects.at_once, *hasty))

    return handle_hastily


@contextmanager
def no_fsync() -> Iterator[None]:
    """A commit returns when the kernel has it; the disk gets it some day."""
    with patched(Disk, "syncs", False):
        yield


class _GivenUp(Exception):
    """The commit took too long for whoever waited for it."""


@contextmanager
def follow_up_lost_when_the_waiter_is_cancelled() -> Iterator[None]:
    """Who waits for a commit is cancelled when it takes long. The commit is made all the same; what was to be said
    after it is not."""
    commit, step = Driver.__dict__["_commit"], Driver.__dict__["_step"]

    async def commit_in_time(driver: Any, writes: Sequence[Write]) -> None:
        with trio.move_on_after(_PATIENCE_S) as scope:
            await commit(driver, writes)
        if scope.cancel_called:
            raise _GivenUp

    async def take_step(driver: Any) -> None:
        try:
            await step(driver)
        except _GivenUp:
            driver._machine.committed()

    with patched(Driver, "_commit", commit_in_time), patched(Driver, "_step", take_step):
        yield


@contextmanager
def no_key_dedupe() -> Iterator[None]:
    """Nobody looks whether a key belongs to a job already."""

    def find(keys: Keys, key: str) -> Claim | None:
        return None

    with patched(Keys, "find", find):
        yield
