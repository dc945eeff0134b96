"""`dag`: the tasks of a file, each when those that it waits for have succeeded.

The file is checked as a whole, by `../graphs.py`, before anything is submitted; then all tasks are, level by level,
each with the tickets of those that it waits for. From then on the cluster needs us no more: we tell of ends, and count.
"""

import json
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from jobyard.cli import exits, options, records, terminal, words
from jobyard.cli.campaign import AT_ONCE_MAX, Campaign, Item
from jobyard.cli.interrupts import Interrupts
from jobyard.cli.running import Run
from jobyard.cli.selectors import LIST_LIMIT
from jobyard.cli.texts import harmless
from jobyard.cli.verb import Session, verb
from jobyard.errors import JobyardError
from jobyard.graphs import Graph, Task, because_of, graph_of, levels
from jobyard.model import ENDED_STATES, STATES, Job, JobOptions, Status, Ticket
from jobyard.protocol import encode_submit

_LOOK_S: Final = 1.0  # how often the states of all are asked for, where somebody sees them
_STANDARD_INPUT: Final = "-"
_TICKET_CHARACTERS_MAX: Final = 40  # a guess for tickets that are not known yet; an element's has some 26


@verb(
    "dag",
    records.TASK,
    quiet="Print tickets only.",
    examples="""
    jobyard dag nightly.toml
    jobyard dag --dry-run nightly.toml
    jobyard dag --key nightly-2026-11-21 nightly.toml
    """,
)
@click.argument("file", metavar="FILE")
@click.option("--key", metavar="TEXT", help="Called again with it, it takes up what was begun.")
@click.option("--dry-run", is_flag=True, help="Print the tasks in their order, and submit nothing.")
@click.option("--scratch", is_flag=True, help="A task without a `dir` works in an empty directory of its own.  [here]")
@click.option("--progress/--no-progress", default=None, help="A progress bar.  [if standard error is a terminal]")
def dag(session: Session, file: str, key: str | None, dry_run: bool, scratch: bool, progress: bool | None) -> int:
    """Run the tasks of a file, each after those that it waits for.

    FILE is TOML, or JSON where its name ends in .json or its text begins with {; - is standard input. A task is a table
    [tasks.NAME] with what is to be run: sh = "a line", argv = ["the", "words"], exec = "words for no shell",
    py = "module:function" with args = [...], or sleep = "1s". after = ["NAME", ...] names the tasks that it waits for;
    input = ["NAME", ...] too, and what those print is its standard input, in this order, behind the text of stdin.
    The options of jobs stand beside these (timeout = "1h", retries = 3, memory = "2GiB", env = { A = "b" }, array,
    dir, ...), and in a table [defaults] for all.

    All of it is checked before anything is submitted; tasks that wait for each other are refused with their names. A
    line tells of each task that ends. Exit code 0 if all succeeded, 1 if not; a task that fails cancels those that wait
    for it, and no others. Ctrl-C cancels all of it. `jobyard retry group:dag-KEY` queues again what failed.
    """
    graph = graph_of(_read(file), words.seconds_of, words.bytes_of)
    group = f"dag-{key or os.urandom(4).hex()}"
    directory = None if scratch else options.here()
    jobs = _Jobs(graph, group, directory)
    jobs.check()
    if dry_run:
        _tell_order(session, graph)
        return exits.SUCCESS
    shown = terminal.is_terminal(sys.stderr) if progress is None else progress
    with terminal.Bar(shown, len(graph)) as bar, Interrupts() as interrupts:
        return _Dag(session, jobs, bar, interrupts).to_the_end()


# --- the file ------------------------------------------------------------------------------------------------------


def _read(file: str) -> Mapping[str, Any]:
    """What it says. Raises ValueError, also for a name that stands in it twice."""
    text = sys.stdin.read() if file == _STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
    try:
        if file.endswith(".json") or text.lstrip().startswith("{"):
            document = json.loads(text, object_pairs_hook=_once)
        else:
            document = tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file}: an object with `tasks` was due")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice")
    return table


def _tell_order(session: Session, graph: Graph) -> None:
    for task in graph.values():
        if session.json:
            needs: Mapping[str, Any] = {"after": list(task.after), "input": list(task.input)}
            session.print({"task": task.name, "command": f"{task.kind} {task.line}", **needs})
        else:
            waits = f"  after {', '.join(map(harmless, task.needs))}" if task.needs else ""
            terminal.line(f"{harmless(task.name)}: {harmless(f'{task.kind} {task.line}')}{waits}")


# --- its jobs ------------------------------------------------------------------------------------------------------


class _Jobs:
    """The jobs that are still to be submitted: level by level, since a job names the tickets of those that it waits
    for."""

    def __init__(self, graph: Graph, group: str, directory: str | None) -> None:
        self.graph = graph
        self.group = group
        self.tickets: dict[str, Ticket] = {}
        self._directory = directory
        self._items = {task.name: Item(seq, (task.name,), task.line) for seq, task in enumerate(graph.values(), 1)}
        self._levels = levels(graph)
        self._next: list[Item] = []

    def check(self) -> None:
        """Raises ValueError, or TooLarge, for a job that no node would take."""
        unknown = Ticket("x" * _TICKET_CHARACTERS_MAX)
        for task in self.graph.values():
            try:
                encode_submit(self.job(task, dict.fromkeys(task.needs, unknown)))
            except (ValueError, JobyardError) as error:
                raise ValueError(f"task {task.name!r}: {error}") from None

    def job(self, task: Task, tickets: Mapping[str, Ticket]) -> Job:
        own: JobOptions = {"group": self.group, "key": f"{self.group}.{task.name}"}
        if task.after:
            own["after"] = [tickets[name] for name in task.after]
        if task.input:
            own["input"] = [tickets[name] for name in task.input]
        directory = task.options.get("dir") or (None if task.kind == "sleep" else self._directory)
        if directory is not None:
            own["dir"] = os.path.abspath(directory)
        return Job(task.kind, task.line, **(task.options | own))

    def job_of(self, item: Item) -> Job:
        return self.job(self.graph[item.args[0]], self.tickets)

    @property
    def exhausted(self) -> bool:
        return not self._levels and not self._next

    may_come: Final = False

    def take(self, count_max: int, patience_s: float | None) -> list[Item]:
        if not self._next and self._levels:
            self._next = [self._items[task.name] for task in self._levels.pop(0)]
        taken, self._next = self._next[:count_max], self._next[count_max:]
        return taken

    def put_back(self, items: list[Item]) -> None:
        self._next = items + self._next


class _Roll(Campaign):
    """Keeps the tickets."""

    def __init__(self, jobs: _Jobs) -> None:
        super().__init__(AT_ONCE_MAX, keep_order=False, halt=None)
        self._jobs = jobs

    def begin(self, item: Item, ticket: Ticket) -> None:
        super().begin(item, ticket)
        self._jobs.tickets[item.args[0]] = ticket


# --- what becomes of them ----------------------------------------------------------------------------------------


class _Dag(Run):
    """One `dag`."""

    def __init__(self, session: Session, jobs: _Jobs, bar: terminal.Bar, interrupts: Interrupts) -> None:
        super().__init__(session, jobs.group, jobs, _Roll(jobs), bar, interrupts)
        self._tasks = jobs
        self._ends: dict[Ticket, Status] = {}
        self._states: dict[str, str] = {}  # by task, of those that have ended
        self._looked_at = 0.0

    def job(self, item: Item) -> Job:
        return self._tasks.job_of(item)

    def ended(self, status: Status) -> None:
        self._ends[status.ticket] = status

    def to_the_end(self) -> int:
        code = super().to_the_end()
        self.bar.clear()
        if code and not self.session.json and not self.session.quiet:
            for state in ("failed", "cancelled", "unknown"):
                names = [name for name in self._tasks.graph if self._states.get(name) == state]
                if names:
                    self.session.note(f"{len(names)} {state}: {', '.join(map(harmless, names))}")
        return code

    def print_due(self) -> None:
        due = [(item.args[0], self._ends[ticket]) for item, ticket in self.campaign.due()]
        self._states |= {name: status.state for name, status in due}
        for name, status in due:
            self.bar.clear()
            self._tell(name, status)
        self._look()
        self.bar.draw()

    def _tell(self, name: str, status: Status) -> None:
        if self.session.json:
            self.session.print({"task": name, **records.of_status(status), **self._because(name, status)})
        elif self.session.quiet:
            terminal.line(status.ticket)
        else:
            terminal.line(self._line(name, status))

    def _line(self, name: str, status: Status) -> str:
        state = self.session.paint(status.state, status.state)
        told = f"{harmless(name)}  {state}  {harmless(status.ticket)}"
        if status.state == "succeeded":
            return told
        code, need = status.fields.get("exit"), self._because(name, status).get("because_of")
        how = f"exit code {code}" if status.reason == "exit" and code else status.reason or ""
        return f"{told}  {harmless(how if need is None else f'{how}: {need}')}".rstrip()

    def _because(self, name: str, status: Status) -> dict[str, str]:
        if status.reason != "dependency":
            return {}
        need = because_of(self._tasks.graph[name], self._states)
        return {} if need is None else {"because_of": need}

    def _look(self) -> None:
        """The states of the others, for whoever looks at the bar."""
        now = time.monotonic()
        if not self.bar.shown or now < self._looked_at + _LOOK_S:
            return
        self._looked_at = now
        try:
            listed = self.client.list(group=self.group, limit=LIST_LIMIT)
        except JobyardError:
            return  # the next look will tell
        counts = Counter(status.state for status in listed if status.state not in ENDED_STATES)
        self.bar.more = "".join(f", {counts[state]} {state}" for state in STATES if counts[state])
