"""What was asked for is kept to: slots, a delay, how many of an array are under way, how often is tried again."""

from collections.abc import Callable, Iterable

import trio

from common.arrays import parse_indexes
from common.model import array_of
from tests.simulation.records import Asked, Disk, Live, key_of, must
from tests.simulation.world import WALL


class Bounds:
    """`slots_of` each node. `clocks_agree`: nobody sets a calendar clock in this story, or a delay might be any."""

    def __init__(self, slots_of: Callable[[str], int], *, clocks_agree: bool) -> None:
        self._slots_of = slots_of
        self._clocks_agree = clocks_agree
        self._running: dict[str, dict[tuple[str, int], int]] = {}  # boot → its attempts, and the slots of each
        self._failures: dict[str, int] = {}  # ticket → attempts that others have followed, since it was last retried

    def began(self, process: str, boot: str, id: tuple[str, int], job: Asked) -> None:
        running = self._running.setdefault(boot, {})
        running[id] = job.slots
        used, slots = sum(running.values()), self._slots_of(process)
        must(used <= slots, f"{used} slots are in use in boot {boot[:6]}, which has {slots}")
        early_s = job.submitted_wall + job.delay_s - WALL - trio.current_time()
        must(not self._clocks_agree or early_s < 0.001, f"{id[0]} began {early_s:.3f} s before its delay was over")

    def over(self, boot: str, id: tuple[str, int]) -> None:
        self._running.get(boot, {}).pop(id, None)

    def retried(self, ticket: str) -> None:
        self._failures.pop(ticket, None)

    def failed(self, ticket: str, job: Asked) -> None:
        """An attempt has failed, and another is to follow."""
        count = self._failures[ticket] = self._failures.get(ticket, 0) + 1
        must(count <= job.retries, f"{ticket} is tried again after {count} failures, and may be {job.retries} times")

    def leased(self, ledger: Disk, tickets: Iterable[str], job_of_array: Asked) -> None:
        """Elements of an array have been given out; `tickets` are all that are live."""
        if job_of_array.array is None:
            return
        most = parse_indexes(job_of_array.array).at_once_max
        given = [ticket for ticket in tickets if _is_leased(ledger.live(key_of(ticket)))]
        of = array_of(given[0]) if given else ""
        must(most is None or len(given) <= most, f"{len(given)} elements of {of} are given out, and {most} may be")


def _is_leased(live: Live | None) -> bool:
    return live is not None and live.leased
