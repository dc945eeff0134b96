"""Every row of `docs/coming-from.md` that says what to type here is typed, at a real cluster.

The language of its checks is in rows.py. Rows share a cluster; each finds it without any live job but its own, in a
directory of its own.
"""

import ast
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from examples.local_cluster import REPOSITORY, LocalCluster
from jobyard import Client, JobOptions, Ticket
from tests.system.client import until
from tests.system.conftest import StartCluster
from tests.system.rows import TICKET, Check, Row, RowError, Section, sections
from tests.system.shells import Shell

pytestmark = pytest.mark.system

DOCUMENT: Final = REPOSITORY / "docs" / "coming-from.md"
SECTIONS: Final = sections(DOCUMENT.read_text())
ROWS: Final = [pytest.param(section, row, id=f"{section.name}, line {row.line}") for section in SECTIONS
               for row in section.rows if row.is_here]  # fmt: skip
GROUP: Final = "night"  # of the job T; rows may speak of it
NODES: Final = 2
SLOTS: Final = 4  # of a node
FILES: Final = {
    "work.sh": '#!/bin/sh\necho "worked $*"\n',
    "a.txt": "3\n1\n2\n",
    "b.txt": "5\n4\n",
    "c.txt": "6\n",
    "inputs.txt": "a.txt\nb.txt\nc.txt\n",
    "commands.txt": "echo one\necho two\n",
}
COMMANDS: Final = {  # of the job T, by the state in which the row finds it
    "succeeded": "echo hello; echo careful >&2",
    "failed": "echo hello; exit 3",
    "running": "echo hello; sleep 600",
    "queued": "echo hello",
    "scheduled": "echo hello",
    "brief": "echo hello; sleep 0.3",
}


class World:
    """A cluster, a shell that is its client, and the Python of each section."""

    def __init__(self, cluster: LocalCluster, home: Path) -> None:
        self.cluster = cluster
        self.yard = Client(cluster.url("node1"))
        self.other = cluster.url("node2")
        self.shell = Shell(cluster, home)
        self._namespaces: dict[str, dict[str, Any]] = {}

    def namespace(self, section: Section) -> dict[str, Any]:
        """The names that a section's Python block defines; a copy for each row."""
        if section.name not in self._namespaces:
            names: dict[str, Any] = {"__name__": "__main__", "NODE": self.other}
            exec(section.python, names)
            self._namespaces[section.name] = names
        return dict(self._namespaces[section.name])

    def job(self, state: str) -> Ticket:
        """The job T of a row."""
        options: JobOptions = {"group": GROUP}
        if state == "scheduled":
            options["delay_s"] = 3600.0
        if state == "queued":
            options["slots"] = SLOTS + 1  # more than any node has
        ticket = self.yard.submit("sh", COMMANDS[state], **options)
        if state in ("succeeded", "failed"):
            assert self.yard.wait(ticket, 20).state == state
        elif state == "running":
            until("T runs", lambda: self.yard.logs(ticket).stdout == b"hello\n")
        return ticket

    def tidy_up(self) -> None:
        """No live job, and nothing that is known of T, is left to the next row."""
        live = [status.ticket for status in self.yard.list(limit=1000) if not status.ended]
        for ticket in live:
            self.yard.cancel(ticket)
        assert len(list(self.yard.wait_all(live, 20))) == len(live)
        self.yard.forget_group(GROUP)
        for failed in self.yard.list(state="failed"):
            self.yard.forget(failed.ticket)

    def close(self) -> None:
        self.yard.close()
        for names in self._namespaces.values():
            for name in ("executor", "yard"):
                names[name].__exit__(None, None, None)


@pytest.fixture(scope="module")
def world(start_cluster_of_module: StartCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster = start_cluster_of_module(NODES, slots=SLOTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBYARD_URL", cluster.url("node1"))
        world = World(cluster, tmp_path_factory.mktemp("home"))
        yield world
        world.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "work.sh").chmod(0o755)
    return tmp_path


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "world" in request.fixturenames:
        request.getfixturevalue("world").tidy_up()


# --- the rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "row"), ROWS)
def test_a_row_does_here_what_it_says(world: World, directory: Path, section: Section, row: Row) -> None:
    check = row.check
    ticket = world.job(check.job) if row.speaks_of_the_job else Ticket("none")
    if section.language(row) == "python":
        in_python(world, section, row, ticket)
    else:
        in_shell(world, row, ticket, directory)
    if check.then is not None:
        done = world.shell.bash(check.then, cwd=directory, T=ticket, NODE=world.other)
        assert done.code == 0, f"`{row.code}` went well, and then `{check.then}` did not: {done}"


def in_shell(world: World, row: Row, ticket: Ticket, directory: Path) -> None:
    done = world.shell.bash(row.code, cwd=directory, T=ticket, NODE=world.other)
    assert done.code == row.check.exits, f"`{row.code}` ended with {done}"
    assert_printed(row.code, row.check, ticket, done.stdout, done.stderr)


def in_python(world: World, section: Section, row: Row, ticket: Ticket) -> None:
    names = world.namespace(section) | {"T": ticket}
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        at_the_prompt(row.code, names)
    assert_printed(row.code, row.check, ticket, stdout.getvalue(), "")


def at_the_prompt(code: str, names: dict[str, Any]) -> None:
    """Runs lines as Python's prompt does: the value of the last, if that is an expression, is printed."""
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<row>", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<row>", "eval"), names)
        if value is not None:
            print(repr(value))


def assert_printed(code: str, check: Check, ticket: Ticket, stdout: str, stderr: str) -> None:
    for wanted, found in ((check.prints, stdout), (check.says, stderr)):
        if wanted is not None:
            pattern = wanted.replace("TICKET", TICKET).replace("$T", re.escape(ticket))
            assert re.search(pattern, found, re.MULTILINE), f"no {pattern!r} in what `{code}` printed: {found!r}"


# --- the document ------------------------------------------------------------------------------------------------


def test_each_of_the_six_tools_has_a_table_of_its_daily_commands() -> None:
    assert [section.name for section in SECTIONS] == ["HyperQueue", "pueue", "GNU parallel", "Slurm", "Celery", "Dask"]
    for section in SECTIONS:
        assert 10 <= sum(row.is_here for row in section.rows) <= 30


def test_no_line_of_a_table_is_passed_over() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    titles = 2 * len(SECTIONS)
    not_here = sum(line.count("| *not here* |") for line in lines)
    assert len(ROWS) == len(lines) - titles - not_here


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("| `there` | here | <!-- check: prints x --> |", "neither code"),
        ("| `there` | `here`, `or here` | <!-- check: prints x --> |", "neither code"),
        ("| `there` | `here` | it works |", "does not end with"),
        ("| `there` | `here` | <!-- check: exits 0 --> |", "nothing is said"),
        ("| `there` | `here` | <!-- check: looks good --> |", "begins with one of"),
        ("| `there` | `here` | <!-- check: T is well; prints x --> |", "can be 'well'"),
        ("| `there` | `here` | <!-- check: prints --x --> |", "would be seen"),
        ("| `there` | `here | there` | <!-- check: prints x --> |", "4 cells"),
    ],
)
def test_a_row_that_nothing_can_be_seen_of_is_an_error(line: str, wrong: str) -> None:
    with pytest.raises(RowError, match=wrong):
        read_wholly(f"## Somewhere\n| there | here | note |\n|---|---|---|\n{line}\n")


def read_wholly(text: str) -> list[tuple[str, Check]]:
    return [(row.code, row.check) for section in sections(text) for row in section.rows]


def test_a_row_is_read_as_people_read_it() -> None:
    line = "| `a \\| b` | `y = x`<br>`y \\| 2` | so <!-- check: prints 3 --> |"
    (section,) = sections(f"## Here\n```python\nx = 1\n```\n{line}\n")
    (row,) = section.rows
    assert (row.there, row.code, row.check) == ("`a | b`", "y = x\ny | 2", Check(prints="3"))
    assert section.language(row) == "python"


@pytest.mark.parametrize(
    ("prints", "printed", "agrees"),
    [("^$T gone$", "k3f7qa-1 gone\n", True), ("^$T gone$", "k3f7qa-12 gone\n", False), ("^TICKET$", "k3f7qa-8\n", True),
     ("^TICKET$", "\n", False)],
)  # fmt: skip
def test_what_is_printed_is_compared(prints: str, printed: str, agrees: bool) -> None:
    expect: Callable[..., Any] = contextlib.nullcontext if agrees else lambda: pytest.raises(AssertionError)
    with expect():
        assert_printed("code", Check(prints=prints), Ticket("k3f7qa-1"), printed, "")
