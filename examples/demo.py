"""A real batch on a real cluster: a balancer, three nodes, and two jobs for each file of Python's standard library.

    python examples/demo.py                the batch, every result checked against Python's own count and hash
    python examples/demo.py --stay         the same cluster on fixed ports, to play with, until Ctrl-C

Jobs go to the three nodes in turn through their client ports; each result is fetched from another node than the one
that took the job in. The exit code is 0 only if every result came and every one is right.
"""

import argparse
import hashlib
import json
import shutil
import signal
import socket
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "client")]  # a checkout will do; nothing need be installed

from tqdm import tqdm  # noqa: E402

from examples.local_cluster import BALANCER, HOST, ClusterError, LocalCluster  # noqa: E402
from jobyard import Client, Expired, Job, JobyardError, NotEnded, Outcome, Ticket, UnknownTicket  # noqa: E402

NODES: Final = 3
FIXED_PORTS: Final = {BALANCER: 8080, "node1": 9001, "node2": 9002, "node3": 9003}
LEFT_OUT: Final = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests"})
PATIENCE_S: Final = 120.0  # for one job, while others end; far more than a hash takes
SHOWN_MAX: Final = 5  # of wrong results

# What can be asked of a file: the command, and what its first word of output must be. `wc -l` and not `wc -w`, because
# what counts as a word depends on the locale and on the version of wc; a line end is the same everywhere.
Expected = Callable[[bytes], str]
QUESTIONS: Final[dict[tuple[str, ...], Expected]] = {
    ("sha256sum",): lambda data: hashlib.sha256(data).hexdigest(),
    ("wc", "-l"): lambda data: str(data.count(b"\n")),
}


@dataclass(frozen=True)
class Asked:
    """One job of the batch: what was asked of which file, and the place of the node that took it in."""

    command: tuple[str, ...]
    path: Path
    node: int

    def job(self) -> Job:
        return Job("argv", json.dumps([*self.command, str(self.path)]), group="demo")

    def is_right(self, outcome: Outcome) -> bool:
        words = outcome.stdout.decode(errors="replace").split()
        expected = QUESTIONS[self.command](self.path.read_bytes())
        return outcome.succeeded and bool(words) and words[0] == expected


class Tally:
    """What came of the batch."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong = 0
        self.lost = 0
        self.by_node: Counter[str] = Counter()

    def add(self, asked: Asked, outcome: Outcome) -> None:
        self.by_node[outcome.node or "(none)"] += 1
        if asked.is_right(outcome):
            self.right += 1
        else:
            self.wrong += 1
            self._complain(self.wrong, f"wrong: {' '.join(asked.command)} {asked.path}: {outcome!r:.300}")

    def miss(self, ticket: Ticket, error: JobyardError) -> None:
        self.lost += 1
        self._complain(self.lost, f"lost: {ticket}: {error}")

    def verdict(self) -> str:
        jobs = self.right + self.wrong + self.lost
        return f"demo: {jobs:,} jobs, {self.right:,} right, {self.wrong:,} wrong, {self.lost:,} lost"

    def _complain(self, count: int, text: str) -> None:
        if count <= SHOWN_MAX:
            say(text)


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return stay() if arguments.stay else batch(arguments.files)
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        return 130
    except (ClusterError, JobyardError) as error:
        say(str(error))
        return 1


def say(text: str) -> None:
    tqdm.write(f"demo: {text}", file=sys.stdout)
    sys.stdout.flush()


# --- the batch -------------------------------------------------------------------------------------------------


def batch(files_max: int | None) -> int:
    """Runs the batch on a cluster of its own, in a directory that is removed afterwards."""
    missing = [command[0] for command in QUESTIONS if shutil.which(command[0]) is None]
    if missing:
        say(f"this demo runs {' and '.join(missing)} (GNU coreutils), which cannot be found here")
        return 1
    paths = sorted(library_files())[:files_max]
    with LocalCluster(NODES) as cluster, ExitStack() as stack:
        cluster.wait_until_joined()  # results are asked of another node than took the job in
        say(f"a balancer and {NODES} nodes are up: {_addresses(cluster)}")
        clients = [stack.enter_context(Client(cluster.url(name))) for name in cluster.node_names]
        began_at = time.monotonic()
        asked = _submit(clients, paths)
        say(f"{len(asked):,} jobs on {len(paths):,} files accepted in {time.monotonic() - began_at:.2f} s")
        tally = _collect(clients, asked)
        took_s = time.monotonic() - began_at
    for name, count in sorted(tally.by_node.items()):
        say(f"{name} ran {count:,}")
    say(f"{len(asked) / took_s:,.0f} jobs/s, submission and every check included")
    print(tally.verdict(), flush=True)
    return 0 if asked and tally.right == len(asked) else 1


def library_files() -> Iterator[Path]:
    """Python's standard library without its tests, and without what is installed beside it."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*.py"):
        if path.is_file() and LEFT_OUT.isdisjoint(path.relative_to(library).parts):
            yield path


def _submit(clients: Sequence[Client], paths: Sequence[Path]) -> dict[Ticket, Asked]:
    """Each file's jobs go to the next node."""
    asked = [Asked(command, path, place % NODES) for place, path in enumerate(paths) for command in QUESTIONS]
    by_ticket: dict[Ticket, Asked] = {}
    for node, client in enumerate(clients):
        its_own = [each for each in asked if each.node == node]
        tickets = client.submit_many(each.job() for each in its_own)
        by_ticket.update(zip(tickets, its_own, strict=True))
    if len(by_ticket) != len(asked):
        raise ClusterError(f"{len(asked):,} jobs were given {len(by_ticket):,} tickets: one was issued twice")
    return by_ticket


def _collect(clients: Sequence[Client], asked: dict[Ticket, Asked]) -> Tally:
    """Every result, from the node after the one that took the job in."""
    tally = Tally()
    for ticket in _with_progress(list(asked)):
        job = asked[ticket]
        try:
            # After a job that does not end there is no use in being patient with the others.
            outcome = clients[(job.node + 1) % NODES].wait(ticket, timeout_s=0.0 if tally.lost else PATIENCE_S)
        except (NotEnded, UnknownTicket, Expired) as error:
            tally.miss(ticket, error)
        else:
            tally.add(job, outcome)
    return tally


def _with_progress(tickets: Sequence[Ticket]) -> Iterator[Ticket]:
    """The tickets, with a bar on a terminal and elsewhere a line for every tenth."""
    if sys.stderr.isatty():
        yield from tqdm(tickets, unit=" jobs", desc="results", dynamic_ncols=True)
        return
    for done, ticket in enumerate(tickets, start=1):
        yield ticket
        if done * 10 // len(tickets) > (done - 1) * 10 // len(tickets):
            say(f"{done * 100 // len(tickets)} % ({done:,} results)")


# --- a cluster to play with --------------------------------------------------------------------------------------


def stay() -> int:
    """Keeps a cluster on fixed ports until Ctrl-C, its proper end. What it holds is there again the next time."""
    directory = REPOSITORY / "data" / "local"
    ports = {name: _free_or_any(name, port) for name, port in FIXED_PORTS.items()}
    with LocalCluster(NODES, directory, ports=ports) as cluster:
        host, port = cluster.address("node1").rsplit(":", 1)
        say(f"a balancer and {NODES} nodes are up, and keep their data in {directory}")
        print(_HOW_TO_TALK.format(host=host, port=port, addresses=_addresses(cluster), logs=directory), flush=True)
        try:
            _tell_of_ends(cluster)
        except KeyboardInterrupt:
            say("stopping")
    return 0


def _tell_of_ends(cluster: LocalCluster) -> None:
    """Watches, until it is interrupted."""
    told: set[str] = set()
    while True:
        time.sleep(0.5)
        for name, how in cluster.ended().items():
            if name not in told:
                say(f"{name} {how}")
            told.add(name)


_HOW_TO_TALK: Final = """
    addresses   {addresses}
    logs        {logs}/*.log

    nc {host} {port}
    run sh uname -a
    submit name=greeting exec echo hello
    list
    nodes
    help

    JOBYARD_URL=tcp://{host}:{port} jobyard run -- echo hello

Ctrl-C stops it all; what was accepted is kept.
"""


def _free_or_any(name: str, port: int) -> int:
    """The port where it is free, otherwise 0, and said so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            say(f"port {port} cannot be had for {name} ({error.strerror}); it takes a free one")
            return 0
    return port


# --- odds and ends -----------------------------------------------------------------------------------------------


def _addresses(cluster: LocalCluster) -> str:
    return ", ".join(f"{name} {cluster.address(name)}" for name in (BALANCER, *cluster.node_names))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A batch on a balancer and three nodes, every result checked.")
    parser.add_argument("--files", type=_count, metavar="N", help="take N files only (all, but for tests)")
    parser.add_argument("--stay", action="store_true", help="keep a cluster on fixed ports until Ctrl-C instead")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
