"""docs/cli.md, written from the code: `python -m jobyard.cli.reference > docs/cli.md`. A test compares the two."""

import inspect
from collections.abc import Container
from typing import Final

import click

from jobyard.cli import exits
from jobyard.cli.records import RECORDS, Record
from jobyard.cli.root import NAME, VERBS, jobyard
from jobyard.cli.verb import Verb

QUIET: Final = "--quiet"  # means something else to each verb that has it

OPENING: Final = """\
# The command `jobyard`

Written from the code by `python -m jobyard.cli.reference > docs/cli.md`; change it there.

Data goes to standard output, everything else to standard error. What stands after `--` is the job's, never ours.

## Where the cluster is

`JOBYARD_URL`, or `--url` before or after the verb, says where nodes are: `tcp://host:9000`, several with commas
between. The first that answers is used; when it goes away, the next one is, and waiting, following and `map` go on
there.
`JOBYARD_CLIENT_TOKEN`, or the file that `JOBYARD_CLIENT_TOKEN_FILE` names, has the token, where nodes want one.
`tls://host:9000` is a node with TLS. Its certificate must be of the CA in the PEM file `JOBYARD_TLS_CA`, or, where that
is not set, of one that this machine trusts.

## Which jobs

Wherever jobs are named, each word is one of these, and a job is meant once however often it is named.

| word | jobs |
|---|---|
| `k3f7qa-1` | the job with this ticket |
| `k3f7qa-1_7` | an element of an array |
| `k3f7qa-1,k3f7qa-2` | several; so are several words |
| `last` | the one that `submit` or `run` got last here, by this user (it is in `$XDG_STATE_HOME/jobyard/last`) |
| `all` | all that have not ended |
| `group:NAME` | all of a group; so does `--group NAME` |
| `-` | tickets from standard input: `jobyard list --quiet --state failed \\| jobyard retry -` |

## Where a job works

By default in the directory in which it is submitted, by the same path on whichever node runs it: so files are found
where machines share them. `--dir PATH` names another, `--scratch` an empty one of its own that is removed afterwards.
A job whose directory is not there fails with the reason `no_directory`.
"""

GRAPHS: Final = """\
## Files of tasks

What `jobyard dag` reads, as TOML; as JSON it is the same tables. This one fetches, counts twice
side by side, and tells of it:

```toml
[defaults]
timeout = "1h"

[tasks.fetch]
sh = "curl -fsS https://example.org/words.txt"
retries = 3

[tasks.lines]
argv = ["wc", "-l"]
input = ["fetch"]

[tasks.words]
argv = ["wc", "-w"]
input = ["fetch"]

[tasks.tell]
sh = "mail -s counted you@example.org"
input = ["lines", "words"]
```

| in a task | value |
|---|---|
| `sh` | a line for `/bin/sh`, or a script of several |
| `argv` | a list of words, exactly |
| `exec` | words as a shell would split them, no shell |
| `py`, `args` | `"module:function"`, and a list of its arguments or a table of them by name |
| `sleep` | a duration |
| `after` | a list of tasks that must succeed first, 1,000 at most |
| `input` | the same, and what they print is its standard input, in this order, 64 MiB at most in all |
| `stdin` | a text, the beginning of its standard input |
| `env` | a table of variables |
| `name` `dir` `array` `priority` `slots` `retries` `crash_limit` `files` `processes` | as the options of a job |
| `timeout` `backoff` `delay` `cpu` | a text such as `"1h30m"`, or seconds |
| `memory` `output` | a text such as `"2GiB"`, or bytes |

One of the first five says what is run. The options of the last four rows may stand in `[defaults]`, for all tasks.

All tasks are jobs of the group `dag-KEY`, each with its name in its key. So the same file under the same `--key` is the
same work, whoever submits it and however often; another text under a known name is a `CONFLICT`. What failed is queued
again by `jobyard retry group:dag-KEY`, and then watched by calling `dag` again.
"""

WATCHING: Final = """\
## Watching a cluster

`jobyard top` on 80 columns and 24 lines, while jobs run on three nodes of four slots. node2 was killed three seconds
ago: it is silent, and will be `lost` when `JOBYARD_NODE_TIMEOUT` is over.

```
jobyard top  127.0.0.1:46343 · 23:03:41 · every 1.0s
jobs   29 live: 12 running, 17 in backlogs, 0 queued
rates  in 6.3/s, ended 3.4/s
ended  31 succeeded, 4 failed, 0 cancelled since the balancer's start
nodes  3 alive, 8 slots · balancer's store 0% full

NODE  STATE    RUNNING                  WAITING                            SEEN
node1 alive    4/4 ███████████████████  4 (1.0/slot) ▒▒▒▒▒▒▒▒              0.0s
node2 alive    4/4 ███████████████████  9 (2.2/slot) ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒   3.3s
node3 alive    4/4 ███████████████████  4 (1.0/slot) ▒▒▒▒▒▒▒▒              0.4s

FAILED    TICKET     REASON   EXIT  NODE   NAME
23:03:36  kfphyl-64  timeout  143   node2  nightly report
23:03:35  kfphyl-62  signal   137   node3  convert b.svg
23:03:35  kfphyl-63  exit     127   node1  upload
23:03:35  kfphyl-61  exit     3     node3  convert a.svg







q quit  p pause  s sort nodes (by name)
```

- The bar of RUNNING is as long as the node has slots; that of WAITING is the longest where most waits for each slot.
- Of live jobs, those `in backlogs` have been given to a node and not begun, those `queued` wait for a node, and those
  `not ready` are delayed, blocked by others, or to be tried again.
- A failure from before `top` was started is `before`: only events tell when, and they are read from there on.
- Rates are over ten seconds. Ends are counted from the balancer's start; what came is what is live and what has ended.
- While no node with a link to its balancer answers, the second line says since when and why; below it is what was seen
  last. Every address in `JOBYARD_URL` is tried, so give it several.
- It needs curses of the standard library, which Python on Linux and macOS has; nothing else has to be installed.
  `--once` and `--json` need no terminal at all. `NO_COLOR` and a locale without block letters are respected.

`jobyard doctor` is for when something is wrong, and for `cron`: a line for each finding, with what to do. It looks from
outside, as a client does. What the log of each program says is in docs/operating.md.
"""

ENGINES: Final = """\
## Workflow engines

`jobyard status --brief` prints one word for each job, `running`, `success` or `failed`: what Snakemake and others ask
for. `examples/snakemake/` is a Snakemake profile; `snakemake --profile examples/snakemake` runs every job of a workflow
on the cluster, tells of those that fail, and cancels them on Ctrl-C.
"""

JSON: Final = """\
## JSON

`--json`, which every verb has, prints JSON Lines: one object on one line for each job, node or event that the verb
tells of. `jq` reads that as it is (`jobyard list --json | jq -r .ticket`), and `jq -s` makes an array of it.

**These names and their meaning stay.** Later versions may add fields. A field that does not apply is left out (`jq`
gives null for it); what a node says beyond these is passed on as text under its own name. Moments are ISO 8601 in UTC.
"""

ERRORS: Final = """\
Besides, `run`, and `result` of one job, have the exit code of the job. An error is one line on standard error,
`jobyard: CODE: message`; the code is one of the protocol's, or `USAGE`, `UNREACHABLE`, `UNCONFIRMED`, `PENDING`,
`PROTOCOL` or `ERROR`.
"""

FOR_PEOPLE: Final = """\
## For people

Tables fit the terminal; into a pipe they are as wide as they need to be. There are colours where standard output is a
terminal and `NO_COLOR` is not set, and a progress bar where standard error is one. What is printed for people may
change in any version; scripts use `--json` or `--quiet`.
"""


def reference() -> str:
    """The whole document."""
    verbs = {name: _verb(name) for name in VERBS}
    of_a_job, of_all = _shared(verbs["submit"], verbs["map"]), _shared(*verbs.values())
    sections = [
        *(OPENING, _exit_codes(), FOR_PEOPLE),
        f"## Options of every verb\n\n{_table(of_all)}",
        f"## Options of a job\n\nOf `submit`, `run`, `map` and `mapreduce`.\n\n{_table(of_a_job, of_all)}",
        "## Verbs\n",
        *(_section(verb, of_a_job if "--slots" in _rows(verb) else of_all) for verb in verbs.values()),
        *(GRAPHS, WATCHING, ENGINES, JSON, *map(_record, RECORDS)),
    ]
    return "\n".join(sections)


def _exit_codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exits.MEANINGS.items())
    return f"## Exit codes\n\n| code | meaning |\n|---|---|\n{rows}\n{ERRORS}"


def _verb(name: str) -> Verb:
    command = jobyard.get_command(click.Context(jobyard), name)
    assert isinstance(command, Verb), f"{name} is not made by verb()"
    return command


def _rows(verb: Verb) -> dict[str, str]:
    """Name → row in a table, of each option."""
    with verb.make_context(verb.name, [], resilient_parsing=True) as ctx:
        options = [each for each in verb.get_params(ctx) if isinstance(each, click.Option)]
        told = [(option.opts[-1], option.get_help_record(ctx) or ("", "")) for option in options]
    return {name: f"| `{_text(left)}` | {_text(right)} |" for name, (left, right) in told}


def _shared(*verbs: Verb) -> dict[str, str]:
    """The rows that all of them have."""
    first, *others = map(_rows, verbs)
    return {name: row for name, row in first.items() if name != QUIET and all(name in other for other in others)}


def _table(rows: dict[str, str], without: Container[str] = ()) -> str:
    left = "".join(f"{row}\n" for name, row in rows.items() if name not in without)
    return f"| option | meaning |\n|---|---|\n{left}" if left else ""


def _section(verb: Verb, elsewhere: Container[str]) -> str:
    """What there is to say of a verb; options that are told of elsewhere are left out."""
    with verb.make_context(f"{NAME} {verb.name}", [], resilient_parsing=True) as ctx:
        usage = " ".join((ctx.command_path, *verb.collect_usage_pieces(ctx)))
    printed = " or ".join(f"[{record.name}](#{_anchor(record)})" for record in verb.records)
    own = {name: row for name, row in _rows(verb).items() if name not in elsewhere}
    examples = "\n".join(example.strip() for example in verb.examples)
    parts = (
        f"### {verb.name}",
        f"`{usage}`",
        inspect.cleandoc(verb.help or ""),
        _table(own).rstrip(),
        f"JSON: {printed}.",
        f"```\n{examples}\n```",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _record(record: Record) -> str:
    rows = "".join(f"| `{field.name}` | {field.type} | {_text(field.meaning)} |\n" for field in record.fields)
    return f"### JSON: {record.name}\n\n{record.meaning}\n\n| field | type | meaning |\n|---|---|---|\n{rows}"


def _anchor(record: Record) -> str:
    return f"json-{record.name.replace(' ', '-')}"


def _text(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
