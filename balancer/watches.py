"""WATCH: thousands of jobs awaited by one question, told as they end, and gone on with behind a cursor.

    ask ─┬─ something of it has ended behind the cursor, or nothing of it is live ──► answered at once
         └─ parked ── an end ──► told at the end of the step, with whatever else of it ended in the same step

Every end has a place in the order of all ends (`Ended.sequence`), and a cursor says up to which of them one was told.
So a client may go on at any node, after any time, and a job that RETRY brought back is told of again when it ends
again. The cost of an end does not grow with those who watch other jobs.

A ticket that the ledger does not know counts as live until its origin has said that there is no such job: it may be on
its way. Nobody is kept waiting for that word when there is an end to be told. Pure.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

import attrs

from balancer.books import Books, Found
from balancer.cursors import read_cursor, write_cursor
from balancer.questions import Parked, Question, arrival_of, end_of_array, next_end_in, watched_end_of
from balancer.referrals import Referrals
from common import lines
from common.errors import Code
from common.limits import BATCH_BYTES, WATCH_LINES_MAX
from common.model import Ended, array_of, index_of, parse_ticket
from common.status import ended_fields


@attrs.frozen
class End:
    """An end to be told, under the name by which the job was asked for."""

    sequence: int
    name: str
    ticket: str
    ended: Ended


@attrs.define(eq=False)
class Watch:
    """A question about tickets. Names are tickets as they were asked for: one job may have several."""

    question: Question
    after: int  # ends up to this sequence were told before
    live: dict[str, list[str]] = attrs.field(factory=dict)  # by the ledger's ticket of the job: its names
    unknown: dict[str, dict[str, list[str]]] = attrs.field(factory=dict)  # by what has to arrive, by ticket: names
    ends: list[End] = attrs.field(factory=list)
    hearsay: dict[str, bytes] = attrs.field(factory=dict)  # by name: the line of an end that only the origin knows
    errors: dict[str, bytes] = attrs.field(factory=dict)  # by name: the line of one that is not waited for

    @property
    def can_be_answered(self) -> bool:
        return bool(self.ends) or not (self.live or self.unknown)

    def reply(self, tell: "Teller") -> bytes:
        unknown = chain.from_iterable(tickets.values() for tickets in self.unknown.values())
        live = sum(map(len, self.live.values())) + sum(map(len, unknown))
        ends = sorted(self.ends, key=lambda end: end.sequence)
        return tell.reply(ends, live, (*self.hearsay.values(), *self.errors.values()), also=len(self.hearsay))


class Teller:
    """Puts ends into words. A job that several ask for is put once in a step."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._lines: dict[tuple[str, int], bytes] = {}

    def reply(self, ends: Iterable[End], live: int, lines_behind: Iterable[bytes] = (), *, also: int = 0) -> bytes:
        """The reply that tells these ends, in this order, as far as one reply goes: then the cursor stays behind the
        last one told. `also` is how many of the lines behind them are ends, too."""
        ledger = self._books.ledger
        told: list[bytes] = []
        room = BATCH_BYTES
        at, last = -1, ledger.ends.last
        for end, line in ((end, self._line(end)) for end in ends):
            if told and (len(told) >= WATCH_LINES_MAX or len(line) > room) and end.sequence > at:
                last = at
                break
            told.append(line)
            room -= len(line)
            at = end.sequence
        cursor = write_cursor(ledger.tag, last)
        return lines.ok(count=len(told) + also, live=live, cursor=cursor, body=b"".join((*told, *lines_behind)))

    def _line(self, end: End) -> bytes:
        line = self._lines.get((end.name, end.sequence))
        if line is None:
            line = lines.job_line(end.name, ended_fields(self._books.job(end.ticket), end.ended))
            self._lines[end.name, end.sequence] = line
        return line

    def forget(self) -> None:
        self._lines.clear()


class Watches:
    """Asked by the clerk; answers through `answer`."""

    def __init__(
        self, books: Books, referrals: Referrals, parked: Parked, answer: Callable[[Question, bytes], None]
    ) -> None:
        self._books = books
        self._referrals = referrals
        self._parked = parked
        self._answer = answer
        self._tell = Teller(books)
        self._watches: dict[Question, Watch] = {}  # of tickets, parked
        self._woken: dict[Question, Watch] = {}  # those to be answered at the end of this step
        self._group_watches: dict[Question, str] = {}  # of groups, parked
        self._ends_in: dict[str, list[End]] = {}  # the ends of this step in groups that are watched

    # --- asking --------------------------------------------------------------------------------------------------

    def ask(self, question: Question, earlier: Question | None) -> None:
        """`watch` waits until there is something to tell, `watched` tells what there is. `earlier` is a question that
        this one takes the place of: where it was about the same, it has learned more of its tickets by now."""
        watch = self._watches.get(earlier) if earlier is not None else None
        if watch is not None and watch.question.inquiry.tickets != question.inquiry.tickets:
            watch = None
        if question.inquiry.group is not None:
            self._ask_of_group(question, question.inquiry.group)
        elif watch is not None and question.verb == "watched":
            self._answer(question, watch.reply(self._tell))
        else:
            self._ask_of_tickets(question)

    def _ask_of_group(self, question: Question, group: str) -> None:
        ends = self._ends_behind(group, self._after(question))
        first = next(ends, None)
        if first is None and question.verb == "watch":
            self._group_watches[question] = group
            self._parked.park(question, next_end_in(group))
            return
        live = self._books.ledger.all.count_in_group(group)
        self._answer(question, self._tell.reply(() if first is None else chain((first,), ends), live))

    def _ends_behind(self, group: str, after: int) -> Iterator[End]:
        for sequence, ticket in self._books.groups.ends(group, after):
            ended = self._books.history.find(ticket)
            if ended is not None:
                yield End(sequence, ticket, ticket, ended)

    def _ask_of_tickets(self, question: Question) -> None:
        watch = Watch(question, self._after(question))
        for name in dict.fromkeys(question.inquiry.tickets):
            self._look_up(watch, name)
        if watch.can_be_answered or question.verb == "watched":
            self._answer(question, watch.reply(self._tell))
            return
        self._watches[question] = watch
        for ticket in watch.live:
            self._await_end(question, ticket)
        for ticket in chain.from_iterable(watch.unknown.values()):
            self._await_word(question, ticket)

    def _after(self, question: Question) -> int:
        """Without a cursor of this ledger everything is told, also what ended before ends were numbered."""
        ledger = self._books.ledger
        seen = read_cursor(ledger.tag, question.inquiry.since, ledger.ends.last)
        return -1 if seen is None else seen

    def _look_up(self, watch: Watch, name: str) -> Found | None:
        """Puts a name where it belongs: live, ended, told of before, unknown, or nothing to be waited for."""
        found = self._books.find(name) if parse_ticket(name) is not None else None
        if found is None:
            self._expect(watch, name)
        elif found.entry is not None or self._ends_with_its_array(found):
            watch.live.setdefault(found.ticket, []).append(name)
        elif found.ended is None:
            watch.errors[name] = _error(name, Code.EXPIRED)
        elif found.ended.sequence > watch.after:
            watch.ends.append(End(found.ended.sequence, name, found.ticket, found.ended))
        return found

    def _ends_with_its_array(self, found: Found) -> bool:
        """An element that was cancelled before it began gets its place in the order of the ends when its array ends;
        until then it counts as live."""
        ended = found.ended
        return ended is not None and not ended.sequence and self._books.ledger.live(array_of(found.ticket)) is not None

    def _expect(self, watch: Watch, name: str) -> None:
        """The ledger has nothing of it. Whether it may still come is for its origin to say, be it here or away; unless
        it was forgotten, or is no element of its array."""
        ledger = self._books.ledger
        first = ledger.first_name(name) if parse_ticket(name) is not None else None
        nobody = self._books.roster.origin(name.partition("-")[0]) is None
        if first is None or nobody or ledger.knows(first):
            watch.errors[name] = _error(name, Code.UNKNOWN_TICKET)
        else:
            watch.unknown.setdefault(array_of(first), {}).setdefault(first, []).append(name)

    def _await_end(self, question: Question, ticket: str) -> None:
        self._parked.park(question, watched_end_of(ticket))
        if index_of(ticket) is not None:
            self._parked.park(question, end_of_array(ticket))

    def _await_word(self, question: Question, ticket: str) -> None:
        self._parked.park(question, arrival_of(ticket))
        self._referrals.to_origin(question, ticket)

    # --- what becomes of those that wait -------------------------------------------------------------------------

    def __contains__(self, question: Question) -> bool:
        return question in self._watches

    def drop(self, question: Question) -> None:
        """Nobody waits for its answer any more."""
        self._watches.pop(question, None)
        self._woken.pop(question, None)
        self._group_watches.pop(question, None)

    def ended(self, ticket: str, ended: Ended) -> None:
        """A job has ended."""
        for question in self._parked.take(watched_end_of(ticket)):
            watch = self._watches[question]
            watch.ends += [End(ended.sequence, name, ticket, ended) for name in watch.live.pop(ticket)]
            self._woken[question] = watch
        watched = self._group_watches and index_of(ticket) is None  # elements are told of under their own names only
        group = self._books.job(ticket).group if watched else None
        if group is not None and next_end_in(group) in self._parked:
            self._ends_in.setdefault(group, []).append(End(ended.sequence, ticket, ticket, ended))

    def array_ended(self, question: Question, array: str) -> None:
        """Elements that have not begun are over with their array."""
        watch = self._watches[question]
        for ticket in [ticket for ticket in watch.live if array_of(ticket) == array]:
            self._parked.leave_place(question, watched_end_of(ticket))
            for name in watch.live.pop(ticket):
                self._look_again(watch, name)

    def arrived(self, question: Question, ticket: str) -> None:
        """Something that the ledger did not know has come: a job, an array with its elements, or another name."""
        watch = self._watches[question]
        for name in list(chain.from_iterable(watch.unknown.pop(ticket, {}).values())):
            self._look_again(watch, name)

    def node_back(self, question: Question, node_id: str) -> None:
        """The origin of some of its tickets is here again."""
        for ticket in list(self._watches[question].unknown):
            if self._books.roster.origin(ticket.partition("-")[0]) == node_id:
                self.arrived(question, ticket)

    def unanswered(self, question: Question, ticket: str) -> None:
        """The origin of a ticket went away before it answered."""
        watch = self._watches[question]
        for name in self._no_longer_unknown(watch, ticket):
            self._look_again(watch, name)

    def told(self, question: Question, ticket: str, reply: bytes) -> None:
        """What an origin says of a ticket that the ledger did not know. An end that only it knows is told as it
        stands: it has no place in the order of the ends. A job that has not ended is on its way."""
        watch = self._watches[question]
        for name in self._no_longer_unknown(watch, ticket):
            if self._books.ledger.knows(ticket):
                self._look_again(watch, name)
            elif reply.startswith(b"ERR"):
                code = Code.EXPIRED if reply.startswith(b"ERR EXPIRED") else Code.UNKNOWN_TICKET
                watch.errors[name] = _error(name, code)
            elif (ended := _ENDED.fullmatch(reply)) is not None:
                watch.hearsay[name] = b"%b %b" % (name.encode(), ended[1])
            else:
                watch.unknown.setdefault(array_of(ticket), {}).setdefault(ticket, []).append(name)
        self._wake_if_done(watch)

    def _no_longer_unknown(self, watch: Watch, ticket: str) -> list[str]:
        """The names of a ticket, which have to be put elsewhere."""
        tickets = watch.unknown.get(array_of(ticket), {})
        names = tickets.pop(ticket, [])
        if names and not tickets:
            del watch.unknown[array_of(ticket)]
        return names

    def _look_again(self, watch: Watch, name: str) -> None:
        found = self._look_up(watch, name)
        if found is not None and found.ticket in watch.live:
            self._await_end(watch.question, found.ticket)
        elif found is None and name not in watch.errors:
            self._await_word(watch.question, self._books.ledger.first_name(name))
        self._wake_if_done(watch)

    def _wake_if_done(self, watch: Watch) -> None:
        if watch.can_be_answered:
            self._woken[watch.question] = watch

    # --- answering -----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """The end of a step: whoever has something to be told is told, once for all that ended in it."""
        woken, self._woken = self._woken, {}
        for question, watch in woken.items():
            self._answer(question, watch.reply(self._tell))
        ends_in, self._ends_in = self._ends_in, {}
        for group, ends in ends_in.items():
            reply = self._tell.reply(ends, self._books.ledger.all.count_in_group(group))
            for question in self._parked.at(next_end_in(group)):
                self._answer(question, reply)
        self._tell.forget()

    def check(self) -> None:
        """Between steps."""
        assert not self._woken, "a watch has something to tell and was not answered"
        assert not self._ends_in, "ends of a group were not told"
        for question in (*self._watches, *self._group_watches):
            assert question in self._parked, f"{question} is watched for nobody"


def _error(name: str, code: Code) -> bytes:
    return f"{name} error={code}\n".encode()


_ENDED: Final = re.compile(rb"OK \S+ (state=(?:succeeded|failed|cancelled) (?!.* as_of_s=).*\n)")
