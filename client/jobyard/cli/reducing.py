"""`mapreduce`: a job for each input, and one that reads what all of them have printed.

    inputs ──► map jobs ──► [`cat` jobs, where there are more than 1,000] ──► one array of reduces ──► standard output

What maps print goes from node to node, by the option `input`, and not through here. The reduces are submitted as soon
as all maps are, so that from then on all goes on without us.
"""

import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from jobyard.cli import exits, options, records, terminal
from jobyard.cli.campaign import AT_ONCE_MAX, Campaign, Halt, Item
from jobyard.cli.inputs import Inputs, inputs_of, taken_apart
from jobyard.cli.interrupts import Interrupts
from jobyard.cli.mapping import Items
from jobyard.cli.output import tell
from jobyard.cli.running import Run
from jobyard.cli.templates import Template
from jobyard.cli.verb import Session, verb
from jobyard.errors import Expired, NotEnded, UnknownTicket
from jobyard.graphs import INPUTS_MAX, in_groups
from jobyard.model import Job, JobOptions, Outcome, Status, Ticket

_GATHER: Final = "cat"
_AT_THE_FIRST_FAILURE: Final = Halt(now=True, what="fail", limit=1)


@verb(
    "mapreduce",
    records.MAPPED,
    quiet="Print the tickets of the reduces as they end, instead of their output.",
    interspersed=False,
    examples="""
    jobyard mapreduce --map 'grep -c ERROR {}' --reduce 'paste -sd+ | bc' *.log
    find . -name '*.py' | jobyard mapreduce --map 'tr -cs a-z "\\n" <' --reduce 'sort | uniq -c'
    jobyard mapreduce --map './shuffle 4' --reduce "awk '\\$1 == {}' | ./merge" --reducers 4 ::: part-*
    """,
)
@click.option(
    "--map", "map_line", metavar="COMMAND", required=True, help="Run for each input; {} and the like as in `map`."
)
@click.option(
    "--reduce",
    "reduce_line",
    metavar="COMMAND",
    required=True,
    help="Gets what all of them print, in the order of the inputs.",
)
@click.option(
    "--reducers", type=click.IntRange(1, 1000), default=1, metavar="N", help="So many reduces, each gets all.  [1]"
)
@click.option("-a", "--arg-file", "arg_files", multiple=True, metavar="FILE", help="Inputs from a file, one on a line.")
@click.option("-0", "--null", is_flag=True, help="Inputs end with NUL instead of a line end.")
@click.option("-n", "-N", "--max-args", type=click.IntRange(1), metavar="N", help="So many inputs for each map.  [1]")
@click.option("-j", "--jobs", "at_once", type=click.IntRange(1), metavar="N", help="At most so many at once.")
@click.option("--key", metavar="TEXT", help="Called again with it and the same inputs, it takes up what was begun.")
@click.option("--dry-run", is_flag=True, help="Print the lines, and submit nothing.")
@click.option("--progress/--no-progress", default=None, help="A progress bar.  [if standard error is a terminal]")
@options.added(options.ALL)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[INPUT...] [::: INPUT... | :::: FILE...]")
def mapreduce(
    session: Session,
    words: tuple[str, ...],
    map_line: str,
    reduce_line: str,
    reducers: int,
    arg_files: tuple[str, ...],
    null: bool,
    max_args: int | None,
    at_once: int | None,
    key: str | None,
    dry_run: bool,
    **given: Any,
) -> int:
    """Run a command once for each input, and another on all that they print.

    Inputs are those of `map`, and so is what {} stands for; without any the input goes to the end of the command. They
    follow the options, or :::, are lines of the files after ::::, or come from standard input.

    A reduce has what the maps print on its standard input, in the order of the inputs, and what it prints is what we
    print. With several reducers each of them gets all of it; {} in its command, and JOBYARD_INDEX in its environment,
    are its number, from 0.

    The first job that fails ends the whole: the rest is cancelled, and the exit code is 1. Ctrl-C cancels all of it.
    """
    delimiter = b"\0" if null else b"\n"
    marked = words if not words or words[0] in (":::", "::::") else (":::", *words)
    command = taken_apart(marked, arg_files, delimiter)
    inputs = inputs_of(command, max_args, delimiter)
    if not map_line.strip() or not reduce_line.strip():
        raise ValueError("--map and --reduce take a command each, and one of them is empty")
    phases = _Phases(inputs, Template(map_line, inputs.width), reduce_line)
    if dry_run:
        for line in phases.lines():
            terminal.raw(os.fsencode(f"{line}\n"), b"")
        return exits.SUCCESS
    if not command.sources and sys.stdin.isatty():
        session.note("reading inputs from the terminal; Ctrl-D ends them")
    shown = terminal.is_terminal(sys.stderr) if given["progress"] is None else given["progress"]
    group = f"mapreduce-{key or os.urandom(4).hex()}"
    described = options.options_of(session.client, given, has_directory=True)
    with terminal.Bar(shown, phases.total) as bar, Interrupts() as interrupts:
        run = _MapReduce(session, group, phases, at_once, described, reducers, bar, interrupts)
        return run.to_the_end()


class _Phases:
    """The jobs that are still to be submitted: the maps, and when all of them have tickets, those that read them."""

    def __init__(self, inputs: Inputs, template: Template, reduce: str) -> None:
        self.maps = Items(inputs, template)
        self.reduce: Item | None = None  # once its turn has come
        self.read: dict[int, tuple[Ticket, ...]] = {}  # by number of the job that reads these
        self._inputs, self._reduce = inputs, reduce
        self._level: dict[int, Ticket | None] = {}  # by number: what the next level reads
        self._next: list[Item] = []

    @property
    def total(self) -> int | None:
        """How many jobs there will be, where that is known."""
        maps = self._inputs.total
        gathers = len(in_groups(range(maps))) if maps is not None and maps > INPUTS_MAX else 0
        return None if maps is None else maps + gathers + 1

    def lines(self) -> Iterator[str]:
        """All that would be run, but for `cat`."""
        while not self.maps.exhausted:
            yield from (item.line for item in self.maps.take(AT_ONCE_MAX, None))
        yield self._reduce

    @property
    def exhausted(self) -> bool:
        return self.reduce is not None and not self._next

    @property
    def may_come(self) -> bool:
        return self.maps.may_come

    def take(self, count_max: int, patience_s: float | None) -> list[Item]:
        if not self.maps.exhausted:
            taken = self.maps.take(count_max, patience_s)
            self._level |= {item.seq: None for item in taken}
            if taken or not self.maps.exhausted:
                return taken
        if not self._next:
            self._go_up()
        taken, self._next = self._next[:count_max], self._next[count_max:]
        return taken

    def put_back(self, items: list[Item]) -> None:
        if self.read:
            self._next = items + self._next
        else:
            self.maps.put_back(items)

    def taken(self, item: Item, ticket: Ticket) -> None:
        if item.seq in self._level:
            self._level[item.seq] = ticket

    def _go_up(self) -> None:
        """The jobs that read those of the level below."""
        tickets = [self._level[seq] for seq in sorted(self._level)]
        numbers = itertools.count(max(self._level, default=0) + 1)
        read = [ticket for ticket in tickets if ticket is not None]
        assert len(read) == len(tickets), "what was not taken was not put back"
        if len(read) > INPUTS_MAX:
            groups = in_groups(read)
            self._next = [Item(next(numbers), (), _GATHER) for _ in groups]
        else:
            groups = [read]
            self.reduce = Item(next(numbers), (), self._reduce)
            self._next = [self.reduce]
        self._level = {item.seq: None for item in self._next}
        self.read |= {item.seq: tuple(group) for item, group in zip(self._next, groups, strict=True)}


class _Roll(Campaign):
    """Tells the phases of tickets."""

    def __init__(self, phases: _Phases, at_once_max: int) -> None:
        super().__init__(at_once_max, keep_order=False, halt=_AT_THE_FIRST_FAILURE)
        self._phases = phases

    def begin(self, item: Item, ticket: Ticket) -> None:
        super().begin(item, ticket)
        self._phases.taken(item, ticket)


class _MapReduce(Run):
    """One `mapreduce`."""

    def __init__(
        self,
        session: Session,
        group: str,
        phases: _Phases,
        at_once: int | None,
        described: JobOptions,
        reducers: int,
        bar: terminal.Bar,
        interrupts: Interrupts,
    ) -> None:
        super().__init__(session, group, phases, _Roll(phases, at_once or AT_ONCE_MAX), bar, interrupts)
        self._phases = phases
        self._described = described
        self._reducers = reducers
        self._astray: dict[Ticket, str | None] = {}  # with the reason, of those that did not succeed

    def job(self, item: Item) -> Job:
        own = self.known_by(item.seq)
        if read := self._phases.read.get(item.seq):
            own["input"] = read
        if item is self._phases.reduce:
            own["array"] = f"0-{self._reducers - 1}"
        return Job(*options.shell_job(item.line), **(self._described | own))

    def ended(self, status: Status) -> None:
        if status.state != "succeeded":
            self._astray[status.ticket] = status.reason

    def print_due(self) -> None:
        for item, ticket in self.campaign.due():
            if item is self._phases.reduce and self._astray.get(ticket) != "dependency":
                for place in range(self._reducers):
                    self._print(item, Ticket(f"{ticket}_{place}"))
            elif ticket in self._astray:
                self._tell_of(item, ticket)
            self.bar.draw()

    def _tell_of(self, item: Item, ticket: Ticket) -> None:
        """What fails for a reason of its own is shown; what only waited for it is not, unless there is nothing else."""
        if self._astray[ticket] != "dependency":
            self._print(item, ticket)
        elif set(self._astray.values()) == {"dependency"}:
            self.bar.clear()
            self.session.note(self.client.explain(ticket).in_one_line)

    def _print(self, item: Item, ticket: Ticket) -> None:
        try:
            outcome = self.client.result(ticket)
        except (UnknownTicket, Expired, NotEnded) as error:
            exits.complain(error)
        else:
            self._show(item, outcome)

    def _show(self, item: Item, outcome: Outcome) -> None:
        if self.session.json:
            self.session.print(records.of_mapped(item.seq, item.args, item.line, outcome))
        elif self.session.quiet:
            terminal.line(outcome.ticket)
        else:
            is_reduce = item is self._phases.reduce
            self.bar.print(outcome.stdout if is_reduce else b"", outcome.stderr)
        self.bar.clear()
        tell(self.session, outcome)
        if not outcome.succeeded:
            self.session.note(f"{outcome.ticket} {outcome.state}: {item.line}")
