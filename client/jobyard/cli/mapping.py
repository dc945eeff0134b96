"""`map`: a job for each input, as GNU parallel does it on one machine.

The jobs have a group of their own, which one WATCH follows, and a key each: so a submission whose answer was lost is
repeated at the next node and still makes one job. Ctrl-C cancels the group, and so does the end of whoever reads our
output. When no node can be reached any more, what was submitted goes on.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from jobyard.cli import exits, options, records, terminal, words
from jobyard.cli.campaign import AT_ONCE_MAX, Campaign, Item, halt_of
from jobyard.cli.inputs import Args, Inputs, inputs_of, taken_apart
from jobyard.cli.interrupts import Interrupts, Stopped
from jobyard.cli.joblog import Joblog
from jobyard.cli.output import tell
from jobyard.cli.templates import Template
from jobyard.cli.verb import Session, verb
from jobyard.errors import Expired, Full, JobyardError, NotAllSubmitted, NotEnded, Unavailable, UnknownTicket
from jobyard.model import Job, JobOptions, Outcome, Ticket

_PIECE_S: Final = 5.0  # one question about the group
_GLANCE_S: Final = 0.2  # the same while more inputs may come
_CANCEL_S: Final = 5.0  # for the jobs that were just being submitted to be known


@verb(
    "map",
    records.MAPPED,
    quiet="Print the ticket of each job as it ends, instead of its output.",
    interspersed=False,
    examples="""
    jobyard map 'convert {} {.}.png' ::: *.svg
    find . -name '*.log' | jobyard map -j 20 gzip
    jobyard map --keep-order --tag 'grep -c {1} {2}' ::: error warning ::: *.log
    jobyard map --joblog jobs.tsv --halt now,fail=1 < commands.txt
    """,
)
@click.option("-a", "--arg-file", "arg_files", multiple=True, metavar="FILE", help="Inputs from a file, one on a line.")
@click.option("-0", "--null", is_flag=True, help="Inputs end with NUL instead of a line end.")
@click.option("-n", "-N", "--max-args", type=click.IntRange(1), metavar="N", help="So many inputs for each job.  [1]")
@click.option("-j", "--jobs", "at_once", type=click.IntRange(1), metavar="N", help="At most so many at once.")
@click.option("-k", "--keep-order", is_flag=True, help="Output in the order of the inputs.  [as jobs end]")
@click.option("--tag", is_flag=True, help="Each line of output begins with the inputs and a tab.")
@click.option(
    "--halt",
    type=words.option(halt_of),
    metavar="WHEN",
    help="now,fail=1: cancel the rest after the first that fails; soon,…: submit no more; also success, done.",
)
@click.option("--joblog", metavar="FILE", help="A line for each job that has ended, as GNU parallel writes it.")
@click.option("--dry-run", is_flag=True, help="Print the lines, and submit nothing.")
@click.option("--progress/--no-progress", default=None, help="A progress bar.  [if standard error is a terminal]")
@options.added(options.ALL)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [::: INPUT... | :::: FILE...]")
def map_inputs(
    session: Session,
    words: tuple[str, ...],
    arg_files: tuple[str, ...],
    null: bool,
    max_args: int | None,
    dry_run: bool,
    **given: Any,
) -> int:
    """Run a command once for each input, as GNU parallel does.

    In the command {} is the input, {.} the same without its extension, {/} without its directory, {//} the directory,
    {/.} without either, {#} the number of the job, and {1} {2} … one of several. Each is quoted for the shell, so it
    must not stand between quotes. Without any of them the input goes to the end, and without a command the inputs are
    commands. Inputs follow :::, are lines of the files after ::::, or come from standard input; several ::: make all
    combinations.

    Exit code 0 if all succeeded, 1 if some failed (GNU parallel's is how many). Ctrl-C cancels all of it.
    """
    delimiter = b"\0" if null else b"\n"
    command = taken_apart(words, arg_files, delimiter)
    inputs = inputs_of(command, max_args, delimiter)
    template = Template(command.template, inputs.width)
    if dry_run:
        for seq, args in enumerate(_all(inputs), 1):
            terminal.raw(os.fsencode(f"{template.line(args, seq)}\n"), b"")
        return exits.SUCCESS
    if not command.sources and sys.stdin.isatty():
        session.note("reading inputs from the terminal; Ctrl-D ends them")
    shown = terminal.is_terminal(sys.stderr) if given["progress"] is None else given["progress"]
    items = _Items(inputs, template)
    campaign = Campaign(given["at_once"] or AT_ONCE_MAX, given["keep_order"], given["halt"])
    described = options.options_of(session.client, given, has_directory=True)
    with Joblog(given["joblog"]) as joblog, terminal.Bar(shown, inputs.total) as bar, Interrupts() as interrupts:
        printer = _Printer(session, given["tag"], joblog, bar)
        return _Map(session, items, campaign, described, printer, interrupts).to_the_end()


def _all(inputs: Inputs) -> Iterator[Args]:
    while not inputs.exhausted:
        yield from inputs.take(AT_ONCE_MAX, None)


class _Items:
    """The jobs that are still to be submitted: those that a full node did not take, and what the inputs have."""

    def __init__(self, inputs: Inputs, template: Template) -> None:
        self._inputs = inputs
        self._template = template
        self._numbers = itertools.count(1)
        self._back: list[Item] = []

    @property
    def exhausted(self) -> bool:
        return self._inputs.exhausted and not self._back

    @property
    def may_come(self) -> bool:
        """Whether more may be there at any moment."""
        return not self._inputs.exhausted

    def take(self, count_max: int, patience_s: float | None) -> list[Item]:
        taken, self._back = self._back[:count_max], self._back[count_max:]
        if len(taken) < count_max and not self._inputs.exhausted:
            more = self._inputs.take(count_max - len(taken), 0.0 if taken else patience_s)
            taken += (Item(seq := next(self._numbers), args, self._template.line(args, seq)) for args in more)
        return taken

    def put_back(self, items: list[Item]) -> None:
        self._back = items + self._back


class _Printer:
    """Tells of each job that has ended: its output, its line in the job log."""

    def __init__(self, session: Session, tag: bool, joblog: Joblog, bar: terminal.Bar) -> None:
        self._session = session
        self._tag = tag
        self._joblog = joblog
        self.bar = bar

    def print(self, item: Item, outcome: Outcome) -> None:
        self._joblog.add(item, outcome)
        if self._session.json:
            self._session.print(records.of_mapped(item.seq, item.args, item.line, outcome))
        elif self._session.quiet:
            terminal.line(outcome.ticket)
        elif self._tag:
            tag = os.fsencode(" ".join(item.args)) + b"\t"
            self.bar.print(_tagged(outcome.stdout, tag), _tagged(outcome.stderr, tag))
        else:
            self.bar.print(outcome.stdout, outcome.stderr)
        self.bar.clear()
        tell(self._session, outcome)


def _tagged(output: bytes, tag: bytes) -> bytes:
    return b"".join(tag + line for line in output.splitlines(keepends=True))


class _Map:
    """All that one `map` does with the cluster. What is under way and what is due is the campaign's to know."""

    def __init__(
        self,
        session: Session,
        items: _Items,
        campaign: Campaign,
        described: JobOptions,
        printer: _Printer,
        interrupts: Interrupts,
    ) -> None:
        self._session = session
        self._client = session.client
        self._items = items
        self._campaign = campaign
        self._described = described
        self._printer = printer
        self._interrupts = interrupts
        self._group = f"map-{os.urandom(4).hex()}"
        self._cursor: str | None = None
        self._was_full = False

    def to_the_end(self) -> int:
        try:
            self._go()
        except (Stopped, BrokenPipeError):
            self._give_up()
            raise
        except JobyardError:
            if self._campaign.under_way:
                self._session.note(f"what was submitted goes on: jobyard wait group:{self._group}")
            raise
        return exits.SUCCESS if self._campaign.went_well else exits.FAILURE

    def _go(self) -> None:
        campaign = self._campaign
        while campaign.under_way or (campaign.room and not self._items.exhausted):
            if campaign.room and not self._items.exhausted:
                self._submit()
            if campaign.under_way:
                self._watch()
            self._print_due()
            if campaign.halted_now:
                self._cancel()
                return

    def _give_up(self) -> None:
        self._printer.bar.clear()
        self._client.close()  # an answer may be owed on this connection
        if self._campaign.under_way:
            self._session.note(f"cancelling {len(self._campaign.under_way)} jobs; once more leaves them to themselves")
            try:
                self._cancel()
            except JobyardError as error:
                exits.complain(error)

    # --- submitting ----------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """As many jobs as there is room for and as have inputs. Not cut in two by Ctrl-C: what has been submitted
        must be known, so that it can be cancelled."""
        items = self._items.take(self._campaign.room, 0.0 if self._campaign.under_way else None)
        refused = None
        with self._interrupts.held():
            try:
                tickets: tuple[Ticket | None, ...] = self._client.submit_many(self._jobs(items)) if items else ()
            except NotAllSubmitted as error:
                tickets, refused = error.tickets, error
            for item, ticket in zip(items, tickets, strict=False):
                if ticket is not None:
                    self._campaign.begin(item, ticket)
        self._items.put_back([item for item, ticket in itertools.zip_longest(items, tickets) if ticket is None])
        if refused is not None:
            self._wait_for_room(refused)

    def _jobs(self, items: list[Item]) -> Iterator[Job]:
        for item in items:
            if self._interrupts.number is not None:
                return
            own: JobOptions = {"group": self._group, "key": f"{self._group}-{item.seq}"}
            yield Job(*options.shell_job(item.line), **(self._described | own))

    def _wait_for_room(self, refused: NotAllSubmitted) -> None:
        """A full node has room again when jobs have ended; if none of ours are to end, it is not for us to wait."""
        if not isinstance(refused.__cause__, Full) or not self._campaign.under_way:
            raise refused
        if not self._was_full:
            self._session.note(f"FULL: {refused.__cause__}; going on as jobs end")
        self._was_full = True

    # --- what has ended ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Takes the ends of jobs, as soon as there are any."""
        more_may_come = self._campaign.room and self._items.may_come
        try:
            patience_s = _GLANCE_S if more_may_come else _PIECE_S
            watched = self._client.watch(group=self._group, since=self._cursor, timeout_s=patience_s)
        except Unavailable:
            time.sleep(_GLANCE_S)  # the balancer is away; nodes go on, and so do we when it is back
            return
        self._cursor = watched.cursor
        for status in watched.ended:
            self._end(status.ticket, status.state)
        if not watched.live and not watched.ended and not more_may_come:
            self._ask_after_the_rest()

    def _ask_after_the_rest(self) -> None:
        """The group has nobody left, and we have: somebody made the cluster forget a job, or a job has two tickets,
        since it was submitted again while no balancer could say that it was known."""
        for ticket in tuple(self._campaign.under_way):
            try:
                status = self._client.status(ticket)
            except (UnknownTicket, Expired) as error:
                exits.complain(error)
                self._end(ticket, "unknown")
            else:
                if status.ended:
                    self._end(ticket, status.state)

    def _end(self, ticket: Ticket, state: str) -> None:
        if self._campaign.end(ticket, succeeded=state == "succeeded"):
            self._printer.bar.count(succeeded=state == "succeeded")

    def _print_due(self) -> None:
        for item, ticket in self._campaign.due():
            try:
                outcome = self._client.result(ticket)
            except (UnknownTicket, Expired, NotEnded) as error:
                exits.complain(error)
            else:
                self._printer.print(item, outcome)
            self._printer.bar.draw()

    # --- the end -------------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        """All that is under way; again for what had not yet arrived when the cluster was asked."""
        ends_at = time.monotonic() + _CANCEL_S
        while self._campaign.under_way and time.monotonic() < ends_at:
            self._client.cancel_group(self._group)
            watched = self._client.watch(group=self._group, since=self._cursor, timeout_s=_GLANCE_S)
            self._cursor = watched.cursor
            for status in watched.ended:
                self._campaign.end(status.ticket, succeeded=status.state == "succeeded")
