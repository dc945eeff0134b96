"""Many jobs of one group, from their submission to their ends: what `map`, `mapreduce` and `dag` do with the cluster.

One WATCH follows the group, and each job has a key: so a submission whose answer was lost is repeated at the next node
and still makes one job. Ctrl-C cancels the group, and so does the end of whoever reads our output. When no node can be
reached any more, what was submitted goes on.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Protocol

from jobyard.cli import exits
from jobyard.cli.campaign import Campaign, Item
from jobyard.cli.interrupts import Interrupts, Stopped
from jobyard.cli.terminal import Bar
from jobyard.cli.verb import Session
from jobyard.errors import Expired, Full, JobyardError, NotAllSubmitted, Unavailable, UnknownTicket
from jobyard.model import Job, JobOptions, Status, Ticket

_PIECE_S: Final = 5.0  # one question about the group
_GLANCE_S: Final = 0.2  # the same while more inputs may come
_CANCEL_S: Final = 5.0  # for the jobs that were just being submitted to be known


class Source(Protocol):
    """The jobs that are still to be submitted."""

    @property
    def exhausted(self) -> bool: ...

    @property
    def may_come(self) -> bool: ...

    def take(self, count_max: int, patience_s: float | None) -> list[Item]: ...

    def put_back(self, items: list[Item]) -> None: ...


class Run:
    """What is under way and what is due is the campaign's to know. Verbs differ in `job`, `ended` and `print_due`."""

    def __init__(
        self,
        session: Session,
        group: str,
        items: Source,
        campaign: Campaign,
        bar: Bar,
        interrupts: Interrupts,
    ) -> None:
        self.session = session
        self.client = session.client
        self.items = items
        self.campaign = campaign
        self.bar = bar
        self._interrupts = interrupts
        self.group = group
        self._cursor: str | None = None
        self._was_full = False
        self._early: dict[Ticket, Status] = {}  # ends of jobs that were begun by another, which we may yet come to

    def to_the_end(self) -> int:
        try:
            self._go()
        except (Stopped, BrokenPipeError):
            self._give_up()
            raise
        except JobyardError:
            if self.campaign.under_way:
                self.session.note(f"what was submitted goes on: jobyard wait group:{self.group}")
            raise
        return exits.SUCCESS if self.campaign.went_well else exits.FAILURE

    def _go(self) -> None:
        campaign = self.campaign
        while campaign.under_way or (campaign.room and not self.items.exhausted):
            while campaign.room and not self.items.exhausted:
                if not self._submit() or self.items.may_come:
                    break
            if campaign.under_way:
                self._watch()
            self.print_due()
            if campaign.halted_now:
                self._cancel()
                return

    def _give_up(self) -> None:
        self.bar.clear()
        self.client.close()  # an answer may be owed on this connection
        if self.campaign.under_way:
            self.session.note(f"cancelling {len(self.campaign.under_way)} jobs; once more leaves them to themselves")
            try:
                self._cancel()
            except JobyardError as error:
                exits.complain(error)

    # --- submitting ----------------------------------------------------------------------------------------------

    def _submit(self) -> bool:
        """As many jobs as there is room for and as are there; whether some were taken. Not cut in two by Ctrl-C: what
        has been submitted must be known, so that it can be cancelled."""
        items = self.items.take(self.campaign.room, 0.0 if self.campaign.under_way else None)
        refused = None
        with self._interrupts.held():
            try:
                tickets: tuple[Ticket | None, ...] = self.client.submit_many(self._jobs(items)) if items else ()
            except NotAllSubmitted as error:
                tickets, refused = error.tickets, error
            for item, ticket in zip(items, tickets, strict=False):
                if ticket is not None:
                    self.campaign.begin(item, ticket)
        for ticket in tickets:
            if ticket is not None and (status := self._early.pop(ticket, None)) is not None:
                self._end(status)
        self.items.put_back([item for item, ticket in itertools.zip_longest(items, tickets) if ticket is None])
        if refused is not None:
            self._wait_for_room(refused)
        return bool(items) and refused is None

    def _jobs(self, items: list[Item]) -> Iterator[Job]:
        for item in items:
            if self._interrupts.number is not None:
                return
            yield self.job(item)

    def job(self, item: Item) -> Job:
        """The job that an item is, known by `known_by`."""
        raise NotImplementedError

    def known_by(self, name: object) -> JobOptions:
        return {"group": self.group, "key": f"{self.group}-{name}"}

    def _wait_for_room(self, refused: NotAllSubmitted) -> None:
        """A full node has room again when jobs have ended; if none of ours are to end, it is not for us to wait."""
        if not isinstance(refused.__cause__, Full) or not self.campaign.under_way:
            raise refused
        if not self._was_full:
            self.session.note(f"FULL: {refused.__cause__}; going on as jobs end")
        self._was_full = True

    # --- what has ended ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Takes the ends of jobs, as soon as there are any."""
        more_may_come = self.campaign.room and self.items.may_come
        try:
            patience_s = _GLANCE_S if more_may_come else _PIECE_S
            watched = self.client.watch(group=self.group, since=self._cursor, timeout_s=patience_s)
        except Unavailable:
            time.sleep(_GLANCE_S)  # the balancer is away; nodes go on, and so do we when it is back
            return
        self._cursor = watched.cursor
        for status in watched.ended:
            self._end(status)
        if not watched.live and not watched.ended and not more_may_come:
            self._ask_after_the_rest()

    def _ask_after_the_rest(self) -> None:
        """The group has nobody left, and we have: somebody made the cluster forget a job, or a job has two tickets,
        since it was submitted again while no balancer could say that it was known."""
        for ticket in tuple(self.campaign.under_way):
            try:
                status = self.client.status(ticket)
            except (UnknownTicket, Expired) as error:
                exits.complain(error)
                self._end(Status(ticket, "unknown"))
            else:
                if status.ended:
                    self._end(replace(status, ticket=ticket))

    def _end(self, status: Status) -> None:
        succeeded = status.state == "succeeded"
        if self.campaign.end(status.ticket, succeeded=succeeded):
            self.bar.count(succeeded=succeeded)
            self.ended(status)
        else:
            self._early[status.ticket] = status

    def ended(self, status: Status) -> None:
        """Of each job once, when it is known to have ended."""

    def print_due(self) -> None:
        """After all that could be heard."""

    # --- the end -------------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        """All that is under way; again for what had not yet arrived when the cluster was asked."""
        ends_at = time.monotonic() + _CANCEL_S
        while self.campaign.under_way and time.monotonic() < ends_at:
            self.client.cancel_group(self.group)
            watched = self.client.watch(group=self.group, since=self._cursor, timeout_s=_GLANCE_S)
            self._cursor = watched.cursor
            for status in watched.ended:
                self.campaign.end(status.ticket, succeeded=status.state == "succeeded")
