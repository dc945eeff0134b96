"""Mutants of what a node must remember."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from node.drain import Drain
from node.held import Finished
from node.intake import Intake
from node.worker import Worker
from tests.simulation.mutants.patching import patched


@contextmanager
def outbox_dropped_on_send() -> Iterator[None]:
    """An outcome that was sent is taken for delivered: nobody waits for the word that it is on the ledger's disk."""
    keep = Worker._keep

    def keep_and_forget(worker: Worker, finished: Sequence[Finished], now: float) -> None:
        keep(worker, finished, now)
        if worker._outbox.link is not None:
            worker._outcomes.acknowledged([done.id for done in finished])

    with patched(Worker, "_keep", keep_and_forget):
        yield


@contextmanager
def ticket_sequence_in_memory() -> Iterator[None]:
    """The number of the last ticket is not on disk: after a restart it is that of the last job that has not ended."""
    restore = Intake.restore

    def restore_without(intake: Intake, now: float, wall: float) -> None:
        restore(intake, now, wall)
        intake._last = max((int(name.partition("-")[2]) for name in intake.live_newest_first()), default=0)

    with patched(Intake, "restore", restore_without):
        yield


@contextmanager
def no_farewell_before_a_planned_stop() -> Iterator[None]:
    """A node that is told to stop and has nothing left ends at once, whatever is on its way from it or to it."""

    def exit_when_done(drain: Drain, now: float) -> None:
        if drain.stopping and not len(drain._backlog) and not len(drain._outcomes):
            drain.exit()

    with patched(Drain, "exit_when_done", exit_when_done):
        yield
