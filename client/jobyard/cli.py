"""The command `jobyard`: the client for a shell.

    jobyard submit --group night -- ffmpeg -i in.mkv out.mp4      → a ticket
    jobyard run --sh 'sort | uniq -c' --stdin < words.txt         → the job's own output and exit code

Rules: data goes to standard output, all else to standard error. What stands after `--` is the job's, never ours.
Exit codes: `run`, `wait` and `result` give the job's own; 1 it ended without one, or something else went wrong;
2 usage; 3 no node can be reached; 4 unknown or expired ticket; 5 refused; 124 the time was over; 130 interrupted.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from jobyard.client import URL_DEFAULT, Client
from jobyard.errors import Expired, JobyardError, NotEnded, ProtocolError, Unavailable, UnknownTicket, Unreachable
from jobyard.model import Node, Outcome, Status, Ticket
from jobyard.protocol import encode_option
from jobyard.version import __version__

EXIT_OTHER: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_UNKNOWN: Final = 4
EXIT_REFUSED: Final = 5
EXIT_TIMEOUT: Final = 124  # as timeout(1)
EXIT_INTERRUPTED: Final = 130

_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?)"
_UNITS_S: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in _UNITS_S))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words, command = _split(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    args = parser.parse_args(words)
    args.command = command
    try:
        with Client(args.url) as client:
            code: int = args.act(client, args)
        sys.stdout.flush()
        return code
    except ValueError as error:
        return _complain(error, EXIT_USAGE)
    except JobyardError as error:
        return _complain(error, _exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has read enough
        return EXIT_OTHER
    except OSError as error:  # of a token file or standard input; those of the network are JobyardErrors
        return _complain(error, EXIT_OTHER)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """Our words, and the job's, which follow the first `--`. argparse has changed its mind about `--` too often."""
    if "--" not in argv:
        return argv, None
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _complain(error: Exception, code: int) -> int:
    prefix = f"{error.code}: " if isinstance(error, JobyardError) else ""
    print(f"jobyard: {prefix}{error}", file=sys.stderr)
    return code


def _exit_code(error: JobyardError) -> int:
    match error:
        case Unreachable():
            return EXIT_UNREACHABLE
        case UnknownTicket() | Expired():
            return EXIT_UNKNOWN
        case NotEnded():
            return EXIT_TIMEOUT
        case ProtocolError():
            return EXIT_OTHER
        case _:
            return EXIT_REFUSED


# --- the commands ----------------------------------------------------------------------------------------------


def _submit(client: Client, args: argparse.Namespace) -> int:
    print(_send(client, args))
    return 0


def _run(client: Client, args: argparse.Namespace) -> int:
    ticket = _send(client, args)
    try:
        return _show(client.wait(ticket))
    except KeyboardInterrupt:
        print(f"jobyard: {ticket} goes on without us; see: jobyard wait {ticket}", file=sys.stderr)
        raise
    except (Unreachable, Unavailable):
        print(f"jobyard: {ticket} was taken and goes on; try later: jobyard wait {ticket}", file=sys.stderr)
        raise


def _wait(client: Client, args: argparse.Namespace) -> int:
    return _show(client.wait(args.ticket, args.timeout))


def _result(client: Client, args: argparse.Namespace) -> int:
    return _show(client.result(args.ticket))


def _status(client: Client, args: argparse.Namespace) -> int:
    for ticket in args.ticket:
        print(_status_line(client.status(ticket)))
    return 0


def _cancel(client: Client, args: argparse.Namespace) -> int:
    if bool(args.ticket) == (args.group is not None):
        raise ValueError("cancel takes tickets or --group, one of the two")
    if args.group is not None:
        print(f"count={client.cancel_group(args.group)}")
    for ticket in args.ticket:
        print(f"{ticket} state={client.cancel(ticket)}")
    return 0


def _list(client: Client, args: argparse.Namespace) -> int:
    jobs = client.list(state=args.state, group=args.group, limit=args.limit, local=args.local)
    return _print_lines(map(_status_line, jobs))


def _nodes(client: Client, args: argparse.Namespace) -> int:
    return _print_lines(map(_node_line, client.nodes()))


def _stats(client: Client, args: argparse.Namespace) -> int:
    return _print_lines(f"{name} {value}" for name, value in client.stats(local=args.local).items())


def _version(client: Client, args: argparse.Namespace) -> int:
    print(f"client jobyard {__version__}", flush=True)
    print(f"node {client.version()}")
    return 0


def _print_lines(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return 0


def _status_line(status: Status) -> str:
    return " ".join((status.ticket, *(encode_option(name, value) for name, value in status.fields.items())))


def _node_line(node: Node) -> str:
    fields = {name: getattr(node, name) for name in ("name", "state", "slots", "running", "waiting", "last_seen_s")}
    return " ".join(encode_option(name, value) for name, value in fields.items())


def _show(outcome: Outcome) -> int:
    """Prints what the job printed, where it printed it; returns its exit code."""
    sys.stdout.flush()
    sys.stdout.buffer.write(outcome.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.flush()
    sys.stderr.buffer.write(outcome.stderr)
    sys.stderr.buffer.flush()
    if outcome.truncated:
        print(f"jobyard: the output of {outcome.ticket} was cut (JOBYARD_OUTPUT_MAX)", file=sys.stderr)
    if outcome.reason not in (None, "exit"):
        print(f"jobyard: {outcome.ticket} {outcome.state}, reason {outcome.reason}", file=sys.stderr)
    if outcome.reason == "timeout":
        return EXIT_TIMEOUT
    return EXIT_OTHER if outcome.exit is None else outcome.exit


# --- a job from its words ----------------------------------------------------------------------------------------


def _send(client: Client, args: argparse.Namespace) -> Ticket:
    kind, line = _kind_and_line(args)
    return client.submit(
        kind,
        line,
        body=sys.stdin.buffer.read() if args.stdin else None,
        name=args.name,
        group=args.group,
        key=args.key,
        priority=args.priority,
        slots=args.slots,
        timeout_s=args.timeout,
        crash_limit=args.crash_limit,
        dir=args.dir,
        env=dict(args.env),
    )


def _kind_and_line(args: argparse.Namespace) -> tuple[str, str]:
    words: list[str] = [*args.words, *(args.command or ())]
    if args.sh is not None:
        _allow(words, 0, "--sh takes its one line and nothing after it")
        # A script of several lines cannot be the rest of one line; a shell that gets it as a word does not mind.
        return ("argv", _json(["/bin/sh", "-c", args.sh])) if "\n" in args.sh else ("sh", args.sh)
    if args.py is not None:
        _allow(words, 1, "--py takes MODULE:FUNCTION and one JSON text after it")
        return "py", " ".join((args.py, *words))
    if not words:
        raise ValueError("there is no command: write it after --, or use --sh or --py")
    return "argv", _json(words)


def _allow(words: list[str], count_max: int, message: str) -> None:
    if len(words) > count_max:
        raise ValueError(message)


def _json(words: list[str]) -> str:
    return json.dumps(words, ensure_ascii=False)


def _seconds(text: str) -> float:
    """A duration as the protocol has it: 90s, 1h30m, 250ms, or a plain number of seconds."""
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = _DURATION.fullmatch(text)
    if not text or parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write it like 90s, 1h30m, 250ms or 1.5")
    return sum(
        float(number) * unit_s for number, unit_s in zip(parts.groups(), _UNITS_S.values(), strict=True) if number
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _crash_limit(text: str) -> str | int:
    if text == "off":
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor off")
    return int(text)


# --- the words of the command line -------------------------------------------------------------------------------

_Act = Callable[[Client, argparse.Namespace], int]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jobyard", description="Hand jobs to a Jobyard cluster and fetch results.")
    where = f"nodes to ask, with commas between (JOBYARD_URL, or {URL_DEFAULT})"
    parser.add_argument("--url", metavar="tcp://HOST:PORT", help=where)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, act: _Act, text: str, usage: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, usage=usage)
        command.set_defaults(act=act)
        return command

    _add_job_words(add("submit", _submit, "queue a job; prints its ticket", _JOB_USAGE.format("submit")))
    _add_job_words(add("run", _run, "queue a job and wait for its output", _JOB_USAGE.format("run")))
    add("status", _status, "where jobs stand").add_argument("ticket", nargs="+")
    add("result", _result, "the output of a job that has ended").add_argument("ticket")
    wait = add("wait", _wait, "the output of a job, when it has ended")
    wait.add_argument("ticket")
    wait.add_argument("--timeout", type=_seconds, metavar="D", help="give up after 90s, 1h30m, …; then exit code 124")
    cancel = add("cancel", _cancel, "end jobs, whatever their state")
    cancel.add_argument("ticket", nargs="*")
    cancel.add_argument("--group", metavar="TEXT", help="all of a group")
    _add_list_words(add("list", _list, "jobs, newest first"))
    add("nodes", _nodes, "the nodes and their counts")
    add("stats", _stats, "numbers by name").add_argument("--local", action="store_true", help="of the node asked only")
    add("version", _version, "versions of this client and of the node")
    return parser


_JOB_USAGE: Final = """jobyard {0} [options] -- COMMAND [ARGUMENT ...]
       jobyard {0} [options] --sh 'LINE'
       jobyard {0} [options] --py MODULE:FUNCTION ['JSON']"""


def _add_job_words(command: argparse.ArgumentParser) -> None:
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--sh", metavar="LINE", help="a line for /bin/sh")
    kind.add_argument("--py", metavar="MODULE:FUNCTION", help="a Python function; JSON arguments may follow")
    command.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    command.add_argument("--stdin", action="store_true", help="our standard input becomes the job's")
    command.add_argument("--name", metavar="TEXT")
    command.add_argument("--group", metavar="TEXT")
    command.add_argument("--key", metavar="TEXT", help="one key gives one job: safe to send again")
    command.add_argument("--priority", type=int, metavar="N", help="-100..100; higher runs first (0)")
    command.add_argument("--slots", type=int, metavar="N", help="slots that it takes on its node (1)")
    command.add_argument("--timeout", type=_seconds, metavar="D", help="kill an attempt after 90s, 1h30m, …")
    command.add_argument("--crash-limit", type=_crash_limit, metavar="N|off", help="attempts lost with nodes (3)")
    command.add_argument("--dir", metavar="PATH", help="absolute directory to work in (an empty one of its own)")
    command.add_argument("--env", action="append", type=_variable, default=[], metavar="NAME=VALUE")


def _add_list_words(command: argparse.ArgumentParser) -> None:
    command.add_argument("--state", metavar="STATE")
    command.add_argument("--group", metavar="TEXT")
    command.add_argument("--limit", type=int, metavar="N", help="at most so many (100)")
    command.add_argument("--local", action="store_true", help="only those that the node asked holds itself")


if __name__ == "__main__":
    sys.exit(main())
