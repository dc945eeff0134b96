"""Questions that cannot be answered yet, by what they wait for.

A place is what somebody waits for: the end of a job, its arrival, the return of a node, the next end of a group, the
next event. A question may wait in many places, as WATCH does. It leaves them all at once: when it is answered, when
its client went away, or with the link that brought it; each at the cost of its own places, whoever else waits.

Pure.
"""

from collections.abc import Hashable
from typing import Final, TypeAlias

import attrs

from common.messages import Inquiry
from common.model import array_of

Place: TypeAlias = tuple[str, Hashable]


OURS: Final = 0  # the link of questions that nobody asked us
HERE: Final = -1  # and of those that come from this program's own HTTP side


@attrs.frozen(eq=False)
class Question:
    """An inquiry, and the link on which its answer is owed."""

    link: int
    inquiry: Inquiry

    @property
    def verb(self) -> str:
        return self.inquiry.verb

    @property
    def ticket(self) -> str:
        assert self.inquiry.ticket is not None, f"{self.verb} is not about one ticket"
        return self.inquiry.ticket


def end_of(ticket: str) -> Place:
    return "end", ticket


def watched_end_of(ticket: str) -> Place:
    return "watched end", ticket


def end_of_array(element: str) -> Place:
    """An element that has not begun when its array ends is over with it."""
    return "end of array", array_of(element)


def next_end_in(group: str) -> Place:
    return "next end", group


def arrival_of(ticket: str) -> Place:
    """The elements of an array arrive with it."""
    return "arrival", array_of(ticket)


def return_of(node_id: str) -> Place:
    return "return", node_id


def done_for(group: str) -> Place:
    """What was ordered for a group is carried out."""
    return "done for", group


NEXT_EVENT: Final[Place] = ("next event", None)


class Parked:
    """The questions that wait."""

    def __init__(self) -> None:
        self._waiting: dict[Place, dict[Question, None]] = {}
        self._places: dict[Question, dict[Place, None]] = {}
        self._by_link: dict[int, dict[int, Question]] = {}

    def park(self, question: Question, place: Place) -> None:
        """Lets it wait here, too."""
        if question not in self._places:
            assert self.find(question.link, question.inquiry.id) is None, f"{question} has the id of another"
            self._places[question] = {}
            self._by_link.setdefault(question.link, {})[question.inquiry.id] = question
        self._places[question][place] = None
        self._waiting.setdefault(place, {})[question] = None

    def at(self, place: Place) -> list[Question]:
        """Who waits here, in the order of asking."""
        return list(self._waiting.get(place, ()))

    def take(self, place: Place) -> list[Question]:
        """Who waits here, and from now on here no longer. Whoever takes a question answers it, or parks it again."""
        if place not in self._waiting:
            return []
        questions = self.at(place)
        for question in questions:
            self.leave_place(question, place)
        return questions

    def waits_at(self, question: Question, place: Place) -> bool:
        return place in self._places.get(question, ())

    def leave_place(self, question: Question, place: Place) -> None:
        """What it waited for here has come, or is no longer waited for."""
        del self._places[question][place]
        self._vacate(question, place)

    def leave(self, question: Question) -> None:
        """It has been answered, or nobody waits for its answer."""
        if question not in self._places:
            return
        for place in self._places.pop(question):
            self._vacate(question, place)
        of_link = self._by_link[question.link]
        del of_link[question.inquiry.id]
        if not of_link:
            del self._by_link[question.link]

    def find(self, link: int, id: int) -> Question | None:
        """What waits under the id that this link gave it."""
        return self._by_link.get(link, {}).get(id)

    def on_link(self, link: int) -> list[Question]:
        return list(self._by_link.get(link, {}).values())

    def __contains__(self, key: Question | Place) -> bool:
        """Whether a question waits; whether somebody waits at a place."""
        return key in self._places if isinstance(key, Question) else key in self._waiting

    def __len__(self) -> int:
        return len(self._places)

    def _vacate(self, question: Question, place: Place) -> None:
        waiting = self._waiting[place]
        del waiting[question]
        if not waiting:
            del self._waiting[place]

    def check(self) -> None:
        assert all(self._by_link.values()), "a link is listed that asks nothing"
        for place, waiting in self._waiting.items():
            assert waiting, f"nobody waits for the {place[0]} of {place[1]}, and it is listed"
            assert all(place in self._places[question] for question in waiting), f"{place} lists who waits elsewhere"
        for question, places in self._places.items():
            assert places, f"{question} waits for nothing"
            assert all(question in self._waiting[place] for place in places), f"{question} is not listed at its places"
            assert self.find(question.link, question.inquiry.id) is question, f"{question} cannot be found by its id"
