"""`completion`: what a shell needs to complete our words, and the jobs that it proposes."""

import click

from jobyard.cli import exits, records, selectors, terminal
from jobyard.cli.verb import Session, verb
from jobyard.client import Client
from jobyard.model import Listing

SHELLS = ("bash", "zsh", "fish")
PATIENCE_S = 1.0  # somebody has pressed Tab
PROPOSED_MAX = 50


@verb(
    "completion",
    records.COMPLETION,
    quiet=None,
    examples="""
    eval "$(jobyard completion bash)"                                    # in ~/.bashrc
    eval "$(jobyard completion zsh)"                                     # in ~/.zshrc
    jobyard completion fish > ~/.config/fish/completions/jobyard.fish
    """,
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(session: Session, shell: str) -> int:
    """Print a script that makes a shell complete our words.

    Verbs, options, tickets and groups.
    """
    from click.shell_completion import get_completion_class

    from jobyard.cli.root import COMPLETE_VARIABLE, NAME, jobyard

    kind = get_completion_class(shell)
    assert kind is not None, f"{shell} is one of {SHELLS}"
    script = kind(jobyard, {}, NAME, COMPLETE_VARIABLE).source()
    if session.json:
        session.print({"shell": shell, "script": script})
    else:
        terminal.line(script.rstrip("\n"))
    return exits.SUCCESS


def jobs(ctx: click.Context, incomplete: str) -> list[str]:
    """What could be meant where jobs are named. A shell that waits for us gets what is there, or nothing."""
    known = [selectors.ALL, selectors.LAST]
    try:
        with Client(ctx.obj or ctx.params.get("url"), timeout_s=PATIENCE_S) as client:
            found = client.list(limit=PROPOSED_MAX)
    except Exception:  # noqa: BLE001  (an error would only spoil the line that is being typed)
        found = Listing()
    known += (status.ticket for status in found)
    known += dict.fromkeys(f"{selectors.GROUP}{status.group}" for status in found if status.group)
    return [word for word in known if word.startswith(incomplete)]
