"""What all verbs have in common: `--url`, `--json`, `--quiet`, examples in their help, and the session that they get.

A verb is a function of a session and of its own words that returns an exit code. `verb` makes a command of it:

    @verb("explain", records.EXPLANATION, examples="jobyard explain last", quiet=None)
    @jobs_argument
    def explain(session: Session, words: tuple[str, ...], group: str | None) -> int:
        \"\"\"Say why jobs are where they are.\"\"\"
"""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import click

from jobyard.cli import terminal
from jobyard.cli.records import Json, Record
from jobyard.client import Client

Act: TypeAlias = Callable[..., int]  # of a session, and of its own words by name

URL_HELP: Final = (
    "Nodes to ask, with commas between; the first that answers is used. tls:// for nodes with TLS.  "
    "[JOBYARD_URL, tcp://127.0.0.1:9000]"
)
URL_METAVAR: Final = "tcp://HOST:PORT"


class Session:
    """What a verb needs besides its words: the cluster, and how to print."""

    def __init__(self, url: str | None, json: bool, quiet: bool) -> None:
        self.url = url
        self.json = json
        self.quiet = quiet
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self.url)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def print(self, record: Json) -> None:
        """One object of --json."""
        terminal.line(json_line(record))

    def paint(self, text: str, word: str) -> str:
        return terminal.painted(text, word) if terminal.has_colours() else text

    def note(self, text: str) -> None:
        """Something that people should know; --quiet leaves it out."""
        if not self.quiet:
            terminal.note(text)


def json_line(record: Json) -> str:
    import json

    # What is not ASCII is escaped: so the line is the same in every locale, and acts on no terminal.
    return json.dumps(record)


class Verb(click.Command):
    """A command that also knows what documents say of it."""

    def __init__(self, *words: Any, records: tuple[Record, ...], examples: str, **attributes: Any) -> None:
        super().__init__(*words, **attributes)
        self.records = records
        self.examples = examples.strip().splitlines()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example.strip()}\n")


def verb(
    name: str,
    *records: Record,
    examples: str,
    quiet: str | None = "Print tickets only.",
    interspersed: bool = True,
) -> Callable[[Act], Verb]:
    """The command of a verb. `records` is what --json prints, and `quiet` what --quiet does, if the verb has it.
    `interspersed`: our options may follow other words, which they must not where these are a job's."""

    def decorate(act: Act) -> Verb:
        @functools.wraps(act)
        def run(url: str | None, json: bool, quiet: bool = False, **words: Any) -> int:
            session = Session(url or click.get_current_context().obj, json, quiet)
            try:
                return act(session, **words)
            finally:
                session.close()

        settings = {"allow_interspersed_args": interspersed, "help_option_names": ["-h", "--help"]}
        make = click.command(name, cls=Verb, records=records, examples=examples, context_settings=settings)
        command: Verb = make(run)
        command.params += _common(quiet)
        return command

    return decorate


def _common(quiet: str | None) -> list[click.Parameter]:
    """The options that every verb has, after its own."""
    options = [click.Option(["--json"], is_flag=True, help="Print JSON, an object on each line; see docs/cli.md.")]
    if quiet is not None:
        options.append(click.Option(["-q", "--quiet"], is_flag=True, help=quiet))
    return [*options, click.Option(["--url"], metavar=URL_METAVAR, help=URL_HELP)]
