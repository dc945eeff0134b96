"""`map`: a job for each input, as GNU parallel does it on one machine.

What becomes of the jobs, and of Ctrl-C, is in `running.py`.
"""

import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from jobyard.cli import exits, options, records, terminal, words
from jobyard.cli.campaign import AT_ONCE_MAX, Campaign, Item, halt_of
from jobyard.cli.inputs import Args, Inputs, inputs_of, taken_apart
from jobyard.cli.interrupts import Interrupts
from jobyard.cli.joblog import Joblog
from jobyard.cli.output import tell
from jobyard.cli.running import Run
from jobyard.cli.templates import Template
from jobyard.cli.verb import Session, verb
from jobyard.errors import Expired, NotEnded, UnknownTicket
from jobyard.model import Job, JobOptions, Outcome


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
    items = Items(inputs, template)
    campaign = Campaign(given["at_once"] or AT_ONCE_MAX, given["keep_order"], given["halt"])
    described = options.options_of(session.client, given, has_directory=True)
    with Joblog(given["joblog"]) as joblog, terminal.Bar(shown, inputs.total) as bar, Interrupts() as interrupts:
        printer = Printer(session, given["tag"], joblog, bar)
        group = f"map-{os.urandom(4).hex()}"
        return Map(session, group, items, campaign, described, printer, interrupts).to_the_end()


def _all(inputs: Inputs) -> Iterator[Args]:
    while not inputs.exhausted:
        yield from inputs.take(AT_ONCE_MAX, None)


class Items:
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


class Printer:
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


class Map(Run):
    """One `map`."""

    def __init__(
        self,
        session: Session,
        group: str,
        items: Items,
        campaign: Campaign,
        described: JobOptions,
        printer: Printer,
        interrupts: Interrupts,
    ) -> None:
        super().__init__(session, group, items, campaign, printer.bar, interrupts)
        self._described = described
        self._printer = printer

    def job(self, item: Item) -> Job:
        return Job(*options.shell_job(item.line), **(self._described | self.known_by(item.seq)))

    def print_due(self) -> None:
        for item, ticket in self.campaign.due():
            try:
                outcome = self.client.result(ticket)
            except (UnknownTicket, Expired, NotEnded) as error:
                exits.complain(error)
            else:
                self._printer.print(item, outcome)
            self.bar.draw()
