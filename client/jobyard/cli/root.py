"""The command itself: the verbs by name, each in a file that is imported only when it is needed, and how all ends."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from jobyard.cli import exits
from jobyard.cli.verb import URL_HELP, URL_METAVAR
from jobyard.errors import JobyardError
from jobyard.version import __version__

NAME: Final = "jobyard"
COMPLETE_VARIABLE: Final = "_JOBYARD_COMPLETE"  # set by the scripts of `jobyard completion` when they call us

VERBS: Final = {  # verb → file and name there; in the order of the help
    "submit": "submitting:submit",
    "run": "submitting:run",
    "map": "mapping:map_inputs",
    "mapreduce": "reducing:mapreduce",
    "dag": "graph:dag",
    "status": "asking:status",
    "list": "asking:list_jobs",
    "explain": "asking:explain",
    "wait": "waiting:wait",
    "result": "output:result",
    "logs": "output:logs",
    "cancel": "changing:cancel",
    "retry": "changing:retry",
    "forget": "changing:forget",
    "top": "top:top",
    "doctor": "doctor:doctor",
    "nodes": "cluster:nodes",
    "stats": "cluster:stats",
    "placement": "cluster:placement",
    "events": "cluster:events",
    "drain": "cluster:drain",
    "undrain": "cluster:undrain",
    "generate": "generate:generate",
    "version": "cluster:version",
    "completion": "completion:completion",
}


class Root(click.Group):
    """The group of all verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"jobyard.cli.{module}"), name)
        return command


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", metavar=URL_METAVAR, help=URL_HELP)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
@click.pass_context
def jobyard(ctx: click.Context, url: str | None) -> None:
    """Hand jobs to a Jobyard cluster, and fetch their results, at any node.

    Data goes to standard output, everything else to standard error. JOBYARD_CLIENT_TOKEN, or the file
    JOBYARD_CLIENT_TOKEN_FILE, has the token, where nodes want one; JOBYARD_TLS_CA the CA of nodes at tls://.
    """
    ctx.obj = url


def run(argv: Sequence[str] | None) -> int:
    """Runs one command; returns its exit code. Whatever goes wrong is said in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale is no reason to fail
    try:
        code = _act(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
    except click.UsageError as error:
        _complain(error)
    except BrokenPipeError:
        return _read_by_nobody()
    except (JobyardError, ValueError, OSError) as error:
        return exits.complain(error)
    except KeyboardInterrupt as interrupt:
        return getattr(interrupt, "exit_code", exits.INTERRUPTED)
    return exits.USAGE


def _act(words: list[str]) -> int:
    """What click's own `main` does, which would also decide how errors and broken pipes end."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(jobyard, {}, NAME, COMPLETE_VARIABLE, instruction)
    try:
        with jobyard.make_context(NAME, words) as ctx:
            return int(jobyard.invoke(ctx) or exits.SUCCESS)
    except click.exceptions.Exit as done:  # of --help and --version
        return done.exit_code


def _complain(error: click.UsageError) -> None:
    command = error.ctx.command_path if error.ctx else NAME
    message = " ".join(error.format_message().split())
    print(f"jobyard: USAGE: {message.rstrip('.')}; see: {command} --help", file=sys.stderr)


def _read_by_nobody() -> int:
    """Whoever read our output has read enough. What is still in our buffers must not be written when we exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return exits.BROKEN_PIPE
