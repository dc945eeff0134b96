"""CANCEL, RETRY and FORGET of a group: a part in each step, because a group may be a million jobs.

What is meant is what was in the group when the order was given. What was begun is carried on to its end, whether or not
somebody still waits for the answer; where the balancer restarts meanwhile, whoever waits asks again. Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Final

import attrs

from balancer.books import Books
from balancer.questions import Parked, Question, done_for
from balancer.records import Entry
from common import lines
from common.limits import ORDERS_PER_STEP_MAX
from common.model import State

VERBS: Final = frozenset({"cancel", "retry", "forget"})


@attrs.frozen
class Orders:
    """What changes the ledger when it is asked for. By ticket; None and False: it is not in a state for that. Of
    several: how many it was done to."""

    cancel: Callable[[Entry], State]
    retry: Callable[[str], State | None]
    retry_all: Callable[[Iterable[str]], int]
    forget: Callable[[str], bool]
    forget_all: Callable[[Iterable[str]], int]


@attrs.define(eq=False)
class _Order:
    """One that is being carried out. `next` does a part, and says of how many jobs, and how many of them changed."""

    question: Question
    group: str
    next: Callable[[], tuple[int, int]]
    count: int = 0


class GroupOrders:
    def __init__(self, books: Books, orders: Orders, parked: Parked, answer: Callable[[Question, bytes], None]) -> None:
        self._books = books
        self._orders = orders
        self._parked = parked
        self._answer = answer
        self._open: list[_Order] = []

    def give(self, question: Question, group: str) -> bool:
        """Carries out the first part, which mostly is all; whether there is more."""
        parts = {"cancel": self._cancel, "retry": self._retry, "forget": self._forget}
        self._open.append(_Order(question, group, parts[question.verb](group)))
        self._parked.park(question, done_for(group))
        return self._part(self._open[-1])

    def carry_on(self) -> bool:
        """The next part of each; whether there is more."""
        goes_on = [self._part(order) for order in list(self._open)]
        return any(goes_on)

    def _part(self, order: _Order) -> bool:
        looked_at, changed = order.next()
        order.count += changed
        if looked_at == ORDERS_PER_STEP_MAX:
            return True
        self._open.remove(order)
        if order.question in self._parked:
            state = {"cancel": State.CANCELLED, "retry": State.QUEUED}.get(order.question.verb)
            self._answer(order.question, lines.ok(group=order.group, state=state, count=order.count))
        return False

    def _cancel(self, group: str) -> Callable[[], tuple[int, int]]:
        live = self._books.ledger.all
        upto, rest = live.last, live.in_group(group)
        entries = takewhile(lambda entry: entry.record.sequence <= upto, rest)

        def part() -> tuple[int, int]:
            cancelled = [self._orders.cancel(entry) for entry in islice(entries, ORDERS_PER_STEP_MAX)]
            return len(cancelled), len(cancelled)

        return part

    def _retry(self, group: str) -> Callable[[], tuple[int, int]]:
        return self._of_ended(group, self._orders.retry_all)

    def _forget(self, group: str) -> Callable[[], tuple[int, int]]:
        return self._of_ended(group, self._orders.forget_all)

    def _of_ended(self, group: str, change: Callable[[Iterable[str]], int]) -> Callable[[], tuple[int, int]]:
        tickets = self._ended(group)

        def part() -> tuple[int, int]:
            next_ones = list(islice(tickets, ORDERS_PER_STEP_MAX))
            return len(next_ones), change(next_ones)

        return part

    def _ended(self, group: str) -> Iterator[str]:
        upto = self._books.ledger.ends.last
        ends = takewhile(lambda end: end[0] <= upto, self._books.groups.ends(group, -1))
        return (ticket for _, ticket in ends)
