"""`python -m chaos`: a cluster is hit at random under load, and what was acknowledged is compared with what came of it.

The exit status is 0 only if nothing was lost, changed or duplicated. `CHAOS`, `CHAOS_SECONDS` and `CHAOS_SEED` in the
environment say what the options say. The seed decides who is hit when and how, and what is submitted; what the machine
makes of it is its own.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Final

import trio

from chaos import blows, display, trial
from chaos.blows import Blow
from chaos.containers import Compose, Containers, engine_problem
from chaos.evidence import Evidence
from chaos.processes import Processes
from chaos.verdict import judge
from chaos.victims import BALANCER, Cluster
from examples.local_cluster import REPOSITORY, ClusterError

SECONDS: Final = 60.0
NODE_TIMEOUT_S: Final = 3.0  # so short that a minute has many of them
SETTINGS: Final = {
    "JOBYARD_NODE_TIMEOUT": f"{NODE_TIMEOUT_S}s",
    "JOBYARD_LOCAL_FALLBACK": "2s",  # so short that nodes really run jobs without the balancer
    "JOBYARD_SLOTS": "8",  # most jobs only wait
    "JOBYARD_JOB_KINDS": "sh",
    "HEALTH_INTERVAL": "5s",  # of the compose file: it is up as soon as it is well
}
COMPOSE: Final = "compose"
LOCAL: Final = "local"
EXPECTED: Final = (KeyboardInterrupt, ClusterError)  # what may end a trial early
KEPT: Final = REPOSITORY / "data" / "chaos"  # the logs of runs that did not go as promised


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with _cluster(given.on or _whatever_is_here()) as cluster:
            return _try(cluster, given.seed, given.seconds)
    except KeyboardInterrupt:
        display.say("chaos: interrupted; everything is taken down")
        return 130
    except ClusterError as error:
        display.say(f"chaos: {error}")
        return 1


def _try(cluster: Cluster, seed: int, seconds: float) -> int:
    again = f"make chaos CHAOS_SEED={seed} CHAOS_SECONDS={seconds:g}"
    display.say(f"chaos: up; blows for {seconds:g} s. The same blows again: {again}")
    verdict = judge(_held(cluster, plan(cluster, seed, seconds), seed))
    if verdict.faults:
        kept = KEPT / f"{seed}-{os.getpid()}"
        kept.mkdir(parents=True)
        cluster.save_logs(kept)
        display.say(f"  logs           {kept}")
    display.say(display.in_words(verdict))
    return 1 if verdict.faults else 0


def _held(cluster: Cluster, planned: Sequence[Blow], seed: int) -> Evidence:
    """A trial; what ends it early is raised as it is, and not in groups."""
    try:
        return trio.run(trial.hold, cluster, planned, seed, f"chaos-{seed}", NODE_TIMEOUT_S)
    except BaseExceptionGroup as group:
        raise next((error for error in _leaves(group) if isinstance(error, EXPECTED)), group) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def plan(cluster: Cluster, seed: int, seconds: float) -> Sequence[Blow]:
    drawn = blows.draw(random.Random(seed), (BALANCER, *cluster.node_names), NODE_TIMEOUT_S)
    return list(takewhile(lambda blow: blow.at_s < seconds, drawn))


# --- on what ---------------------------------------------------------------------------------------------------


def _whatever_is_here() -> str:
    problem = engine_problem()
    if problem:
        display.say(f"chaos: on processes of this machine, for want of containers: {problem}")
    return LOCAL if problem else COMPOSE


@contextmanager
def _cluster(on: str) -> Iterator[Cluster]:
    """Up inside, and gone without a trace afterwards."""
    if on == COMPOSE:
        project = f"jobyard-chaos-{os.getpid()}"
        display.say(f"chaos: builds and starts the compose file as project {project}, beside whatever else runs here")
        with Compose(project, SETTINGS) as compose:
            yield Containers(compose)
    else:
        display.say("chaos: starts a balancer and three nodes as processes of this machine")
        with (
            tempfile.TemporaryDirectory(prefix="jobyard-chaos-") as directory,
            Processes(Path(directory), SETTINGS) as processes,
        ):
            yield processes


def _interrupt(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGINT)  # which is never let into the midst of something that has to be whole


def _version() -> str:
    """Of this checkout: who tries the cluster does not know its code."""
    version: str = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    return version


def _arguments() -> argparse.Namespace:
    environment = os.environ
    parser = argparse.ArgumentParser(
        prog="chaos", description="A cluster is hit at random under load, and then judged."
    )
    parser.add_argument(
        "--on", choices=[COMPOSE, LOCAL], default=environment.get("CHAOS") or None,
        help="containers of the compose file, or processes of this machine (containers, where an engine answers)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", default=environment.get("CHAOS_SECONDS") or SECONDS,
        help=f"how long it is hit ({SECONDS:g})",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="N", default=environment.get("CHAOS_SEED") or random.randrange(10**6),
        help="the blows of an earlier run (any)",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"chaos {_version()}")
    given = parser.parse_args()
    if given.on not in (None, COMPOSE, LOCAL):  # argparse does not look at a default
        parser.error(f"CHAOS={given.on}: allowed are {COMPOSE} and {LOCAL}")
    return given


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
