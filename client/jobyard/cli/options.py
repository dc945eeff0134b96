"""The options of a job: one for each of the protocol's, and which job they make.

    -- COMMAND [ARGUMENT ...]         the words exactly, no shell       kind argv
    --sh LINE                         a line for /bin/sh                kind sh
    --py MODULE:FUNCTION ['JSON']     a Python function                 kind py
    --sleep D                         occupies a slot                   kind sleep

A job works where its submitter stands: our working directory is passed on, unless --scratch or --dir says otherwise.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

import click

from jobyard.cli import selectors, words
from jobyard.client import Client
from jobyard.model import JobOptions
from jobyard.protocol import OPTION_BYTES_MAX, duration

F = TypeVar("F", bound=Callable[..., Any])
Described: TypeAlias = tuple[str, str, JobOptions]  # kind, line, and all else


def _duration(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, type=words.DURATION, metavar="D", help=text)


def _size(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, type=words.SIZE, metavar="SIZE", help=text)


def _number(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, type=int, metavar="N", help=text)


WHAT: Final = (
    click.option("--sh", metavar="LINE", help="A line for /bin/sh, instead of a command."),
    click.option("--py", metavar="MODULE:FUNCTION", help="A Python function; its arguments as JSON may follow."),
    _duration("--sleep", "Nothing but a slot, occupied for so long."),
    click.option("--stdin", is_flag=True, help="Our standard input becomes the job's."),
)
OWN: Final = (  # not of `map`, which needs them itself
    click.option("-g", "--group", metavar="NAME", help="A group that wait, list, cancel and others can name."),
    click.option("--key", metavar="TEXT", help="One key gives one job: with it, submitting again does no harm."),
    click.option("--array", metavar="1-9[:STEP][%MOST]", help="A job for each index, {} in its line; MOST at once."),
)
ALL: Final = (
    click.option("--name", metavar="TEXT", help="For people."),
    _number("--priority", "-100 to 100; higher runs first.  [0]"),
    _number("--slots", "Slots that it takes on its node.  [1]"),
    _duration("--timeout", "End an attempt that runs longer: 90s, 1h30m, 250ms, 1.5."),
    _number("--retries", "Attempts after one that failed.  [0]"),
    _duration("--backoff", "Wait before the first of them; doubles up to 5 min.  [1s]"),
    click.option("--crash-limit", type=words.CRASH_LIMIT, metavar="N|off",
                 help="Attempts that may be lost with a node.  [3]"),
    _duration("--delay", "Not before so much time has passed."),
    click.option("--after", multiple=True, metavar="JOBS", help="Not before these have succeeded; also `last`."),
    click.option("--input", multiple=True, metavar="JOBS",
                 help="The same, and what they printed is its standard input, in this order."),
    _duration("--cpu", "End an attempt that has used more CPU time."),
    _size("--memory", "End an attempt that takes more memory: 512MiB, 2G."),
    _number("--files", "Open files of a process."),
    _number("--processes", "End an attempt that has more processes."),
    _size("--output", "End an attempt that prints more."),
    click.option("-e", "--env", type=words.VARIABLE, multiple=True, metavar="NAME[=VALUE]",
                 help="A variable of its environment; NAME alone passes ours on."),
    click.option("--dir", metavar="PATH", help="Where it works, on its node.  [here]"),
    click.option("--scratch", is_flag=True, help="It works in an empty directory of its own, removed afterwards."),
)  # fmt: skip
_FIELDS: Final = {  # where an option and the field of a job differ
    "timeout": "timeout_s",
    "backoff": "backoff_s",
    "delay": "delay_s",
    "cpu": "cpu_s",
    "memory": "memory_bytes",
    "output": "output_bytes",
}
_PLAIN: Final = (
    "name", "group", "key", "array", "priority", "slots", "retries", "crash_limit", "files", "processes"
)  # fmt: skip


def added(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """A decorator that adds these options, in their order."""

    def add(act: F) -> F:
        for option in reversed(options):
            act = option(act)
        return act

    return add


def job_of(client: Client, given: dict[str, Any], command: Sequence[str]) -> Described:
    """Kind, line and options of the job that is described. Raises ValueError."""
    kind, line = _kind_and_line(given, command)
    options = options_of(client, given, has_directory=kind != "sleep")
    if given["stdin"]:
        options["body"] = sys.stdin.buffer.read()
    return kind, line, options


def options_of(client: Client, given: dict[str, Any], *, has_directory: bool) -> JobOptions:
    """All options but those that say what is to be run. Only `--after group:NAME` and the like ask the
    cluster."""
    fields: dict[str, Any] = {name: given.get(name) for name in _PLAIN}
    fields |= {field: given[name] for name, field in _FIELDS.items()}
    for name in ("after", "input"):
        if given[name]:
            fields[name] = selectors.tickets(client, selectors.selected(given[name]))
    fields["env"] = dict(map(_variable, given["env"])) or None
    if has_directory or given["dir"]:
        fields["dir"] = _directory(given["dir"], given["scratch"])
    return cast(JobOptions, fields)


def _kind_and_line(given: dict[str, Any], command: Sequence[str]) -> tuple[str, str]:
    ways = [name for name in ("sh", "py", "sleep") if given[name] is not None]
    if len(ways) > 1:
        raise ValueError(f"--{ways[0]} and --{ways[1]} are two jobs; give one of them")
    if "sh" in ways:
        _allow(command, 0, "--sh takes its one line, quoted, and nothing after it")
        return shell_job(given["sh"])
    if "py" in ways:
        _allow(command, 1, "--py takes MODULE:FUNCTION and one JSON text, quoted; our options stand before it")
        return "py", " ".join((given["py"], *command))
    if "sleep" in ways:
        _allow(command, 0, "--sleep takes a duration and nothing after it")
        return "sleep", duration(given["sleep"])
    if not command:
        raise ValueError("there is no command: write it after --, or use --sh, --py or --sleep")
    return argv_job(command)


def shell_job(line: str) -> tuple[str, str]:
    """Kind and line. A script of several lines cannot be the rest of one; a shell that gets it as a word does not
    mind."""
    return argv_job(("/bin/sh", "-c", line)) if "\n" in line or "\r" in line else ("sh", line)


def argv_job(command: Sequence[str]) -> tuple[str, str]:
    import json

    return "argv", json.dumps(list(command), ensure_ascii=False)


def _allow(command: Sequence[str], count_max: int, message: str) -> None:
    if len(command) > count_max:
        raise ValueError(f"{message} (there is {command[count_max]!r})")


def _variable(given: tuple[str, str | None]) -> tuple[str, str]:
    name, value = given
    value = os.environ.get(name) if value is None else value
    if value is None:
        raise ValueError(f"--env {name} passes our own variable on, and there is none; write {name}=VALUE")
    return name, value


def _directory(given: str | None, scratch: bool) -> str | None:
    if scratch and given:
        raise ValueError("--scratch and --dir exclude each other; give one of them")
    return None if scratch else os.path.abspath(given) if given else here()


def here() -> str:
    """Our working directory, by the name under which the user went there: another machine may know only that one."""
    known, real = os.environ.get("PWD", ""), os.getcwd()
    try:
        same = os.path.isabs(known) and os.path.samefile(known, real)
    except OSError:
        same = False
    path = known if same else real
    if (size := len(os.fsencode(path))) > OPTION_BYTES_MAX:
        raise ValueError(f"our working directory has a name of {size} bytes, and {OPTION_BYTES_MAX} can be passed on;"
                         " --scratch does without, --dir names another")  # fmt: skip
    return path
