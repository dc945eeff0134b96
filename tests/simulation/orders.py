"""What clients have asked for, as far as it excuses what becomes of jobs: a job is cancelled, retried or forgotten only
where somebody asked for that. An order counts from the moment at which it is sent, because nobody can tell when it
arrives.
"""

from collections.abc import Callable

from common.model import array_of
from tests.simulation.talk import Request


class Orders:
    """`first_name` and `group_of` are looked up when an order is looked for: both may become known after it was
    given."""

    def __init__(self, first_name: Callable[[str], str], group_of: Callable[[str], str | None]) -> None:
        self._first_name = first_name
        self._group_of = group_of
        self._tickets: dict[str, set[str]] = {"CANCEL": set(), "RETRY": set(), "FORGET": set()}
        self._groups: dict[str, set[str]] = {"CANCEL": set(), "RETRY": set(), "FORGET": set()}
        self.acknowledged: dict[str, Request] = {}  # tickets of which a client was told

    def given(self, request: Request) -> None:
        if request.verb in self._tickets and request.ticket is not None:
            self._tickets[request.verb].add(request.ticket)
        elif request.verb in self._groups and request.group is not None:
            self._groups[request.verb].add(request.group)

    def cancelled(self, ticket: str) -> bool:
        """Whether it, its array or its group was to be cancelled."""
        return self._meant("CANCEL", {ticket, array_of(ticket)})

    def forgotten(self, ticket: str) -> bool:
        return self._meant("FORGET", {ticket, array_of(ticket)})

    def retried(self, ticket: str) -> bool:
        """Also an array of which an element was to be retried, because it is live with it."""
        elements = {name for name in self._tickets["RETRY"] if array_of(self._first_name(name)) == ticket}
        return bool(elements) or self._meant("RETRY", {ticket, array_of(ticket)})

    def _meant(self, verb: str, names: set[str]) -> bool:
        if names & self._tickets[verb] or any(self._first_name(name) in names for name in self._tickets[verb]):
            return True
        return any(self._group_of(name) in self._groups[verb] for name in names)
