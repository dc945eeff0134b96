"""The flow: jobs that wait for other jobs (`after=`, and `input=`, which wants what they have printed besides).

    arrived ──► each ticket of `after`: succeeded → ticked off · live → waited for · not known → its origin is asked
                                        failed, cancelled, expired, unknown → this job is cancelled (`dependency`)
    all have succeeded ──► it gets in line; unless the input that they make is not to be had: cancelled, as above
    ended   ──► whoever waits for it hears of it, and those whom that ends, too

What a blocked job still waits for is in its record, so that a restart need not know what has succeeded long ago.
Pure.
"""

from collections.abc import Callable
from itertools import chain

from balancer.inputs import Lacking, cause
from balancer.ledger import Ledger
from balancer.records import Entry
from common.model import Ended, Reason, State, array_of


class Flow:
    """`locate` has the origin of a ticket asked whether it issued it; `unknown` is called when it did not."""

    def __init__(self, ledger: Ledger, locate: Callable[[str, float], None]) -> None:
        self._ledger = ledger
        self._locate = locate
        # A ticket → who waits for it. It stands with its array: the elements of one arrive, and are dropped, with it.
        self._dependants: dict[str, dict[str, dict[str, None]]] = {}
        self._unchecked: dict[str, None] = {}  # blocked jobs of which it has to be found out what they wait for

    def arrived(self, ticket: str) -> None:
        """A job has arrived, or what was waited for is known under another name."""
        if self._dependants and self._ledger.live(ticket) is None:  # it has ended, or is another job's second name
            self._check_again(ticket)

    def dropped(self, array: str) -> None:
        """Elements of an array have ended before they began."""
        self._check_again(array)

    def _check_again(self, ticket: str) -> None:
        for dependants in self._dependants.pop(ticket, {}).values():
            self._unchecked |= dependants

    def _take(self, ticket: str) -> dict[str, None]:
        """Who waits for it, and from now on does not."""
        of_array = self._dependants.get(array_of(ticket))
        if of_array is None:
            return {}
        dependants = of_array.pop(ticket, {})
        if dependants and not of_array:
            del self._dependants[array_of(ticket)]
        return dependants

    def unknown(self, ticket: str, wall: float) -> None:
        """Its origin never issued it."""
        for name in self._take(ticket):
            self._give_up(name, wall, f"there is no job {ticket}")

    def ended(self, ticket: str, ended: Ended) -> None:
        for name in self._take(ticket):
            entry = self._ledger.live(name)
            if entry is None or ticket not in entry.record.waits_for:
                continue
            if ended.state is State.SUCCEEDED:
                left = tuple(other for other in entry.record.waits_for if other != ticket)
                self._go_on(entry, left, ended.ended_wall)
            else:
                self._give_up(name, ended.ended_wall, cause(ticket, ended.state))

    def settle(self, now: float, wall: float) -> None:
        """Finds out for whom the new ones have to wait."""
        if held := self._ledger.take_held():
            self._unchecked |= dict.fromkeys(held)
        while self._unchecked:
            unchecked, self._unchecked = self._unchecked, {}
            for ticket in unchecked:
                entry = self._ledger.live(ticket)
                if entry is not None and entry.record.waits_for:
                    self._check(entry, now, wall)

    def _check(self, entry: Entry, now: float, wall: float) -> None:
        if entry.record.takes_input:
            self._ledger.inputs.want(entry.ticket)
        left: list[str] = []
        unknown: list[str] = []
        for name in dict.fromkeys(map(self._ledger.first_name, entry.record.waits_for)):
            if self._ledger.live(name) is not None:
                left.append(name)
                continue
            ended = self._ledger.end(name)
            if ended is None and not self._ledger.knows(name):
                left.append(name)
                unknown.append(name)
            elif ended is None or ended.state is not State.SUCCEEDED:
                # It failed or was cancelled; or it expired, was forgotten, or is an index that its array does not have.
                return self._give_up(entry.ticket, wall, cause(name, ended.state if ended is not None else None))
        for name in left:
            self._dependants.setdefault(array_of(name), {}).setdefault(name, {})[entry.ticket] = None
        if tuple(left) != entry.record.waits_for:
            self._go_on(entry, tuple(left), wall)
        if self._is_its_own_dependant(entry):
            return self._give_up(entry.ticket, wall, "it waits for itself")
        for name in unknown:
            self._locate(name, now)
        return None

    def _is_its_own_dependant(self, entry: Entry) -> bool:
        """Whether it waits, through others, for itself: possible where tickets were guessed."""
        if entry.ticket not in self._dependants:
            return False
        to_follow, followed = list(entry.record.waits_for), set[str]()
        while to_follow:
            name = to_follow.pop()
            if array_of(name) == entry.ticket:
                return True
            other = self._ledger.live(name) if name not in followed else None
            followed.add(name)
            to_follow += other.record.waits_for if other is not None else ()
        return False

    def _go_on(self, entry: Entry, left: tuple[str, ...], wall: float) -> None:
        """It waits for nobody but these."""
        try:
            self._ledger.unblock(entry, left)
        except Lacking as lacking:
            self._give_up(entry.ticket, wall, str(lacking))

    def _give_up(self, ticket: str, wall: float, because: str) -> None:
        entry = self._ledger.live(ticket)
        if entry is not None and entry.state is State.BLOCKED:
            self._ledger.cancel(entry, wall, Reason.DEPENDENCY, because)

    def __bool__(self) -> bool:
        """Whether anybody waits for another job."""
        return bool(self._dependants)

    def check(self) -> None:
        for name, dependants in chain.from_iterable(names.items() for names in self._dependants.values()):
            for ticket in dependants:
                entry = self._ledger.live(ticket)
                assert entry is None or name in entry.record.waits_for or not entry.record.waits_for, (
                    f"{ticket} is noted as waiting for {name}, and does not"
                )
