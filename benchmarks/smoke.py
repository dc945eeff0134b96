"""`make bench-smoke`: has a change made it slow? In less than a minute, so that it can be asked before every commit.

Absolute figures move with the machine, so each is divided by what the machine itself gives in the same minute and that
is limited by the same: waiting by a synced commit, commands by started processes, throughput by calls to a process
pool. Such a ratio may not fall below half of the one in `smoke.toml`;
`--record` writes those of this run there. What fails is taken once more, and the better of both counts: a neighbour's
minute of load is no defect.
"""

import argparse
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import yardsticks
from benchmarks.results import quantile
from benchmarks.systems.jobyard import Jobyard

RECORD: Final = Path(__file__).resolve().parent / "smoke.toml"
WORKERS: Final = 2
REPEATS: Final = 3
LEAST_SHARE: Final = 0.5

HEAD: Final = """\
# Jobyard's speed divided by the machine's, as `make bench-smoke` found it when this was last recorded; more is better.
# `make bench-smoke` fails where a ratio has fallen to less than half. To record anew, on a quiet machine:
#     make bench-smoke RECORD=1

"""

Ratio = Callable[[Jobyard, Path], float]


def _submit(system: Jobyard, directory: Path) -> float:
    """Pipelined durable submissions / calls to a process pool: many share a commit, so the processor decides."""
    count = 2_000
    return count / system.submit(count, clients=1) / yardsticks.pool_calls_per_s()


def _submit_each(system: Jobyard, directory: Path) -> float:
    """A synced commit / one durable submission."""
    commit_ms = yardsticks.commit_ms(directory)
    return commit_ms / (quantile(system.submit_each(50), 0.5) * 1000)


def _round_trip(system: Jobyard, directory: Path) -> float:
    """Three synced commits / one idle RUN."""
    commit_ms = yardsticks.commit_ms(directory)
    return 3 * commit_ms / (quantile(system.round_trips("sleep", 50), 0.5) * 1000)


def _sleep(system: Jobyard, directory: Path) -> float:
    """No-ops run / calls to a process pool."""
    count = 2_000
    return count / system.end_to_end("sleep", count) / yardsticks.pool_calls_per_s()


def _python(system: Jobyard, directory: Path) -> float:
    """Python calls / the same calls through a process pool."""
    count = 500
    return count / system.end_to_end("py", count) / yardsticks.pool_calls_per_s()


def _command(system: Jobyard, directory: Path) -> float:
    """Commands run / processes started by posix_spawn."""
    count = 400
    return count / system.end_to_end("exec", count) / yardsticks.spawns_per_s(yardsticks.spawner_in_python())


RATIOS: Final[Mapping[str, Ratio]] = {
    "round_trip": _round_trip,
    "submit_each": _submit_each,
    "sleep": _sleep,
    "py": _python,
    "exec": _command,
    "submit": _submit,  # last: it leaves a queue behind
}


def take() -> dict[str, float]:
    """The median of a few takes of each ratio."""
    system = Jobyard()
    with tempfile.TemporaryDirectory(prefix="jobyard-smoke-") as name:
        try:
            system.start(Path(name), WORKERS)
            system.end_to_end("py", 100)  # warm
            return {
                key: statistics.median(ratio(system, Path(name)) for _ in range(REPEATS))
                for key, ratio in RATIOS.items()
            }
        finally:
            system.kill()


def slower(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Which ratios have fallen to less than half of what is recorded; KeyError where one is not recorded."""
    return [key for key, value in found.items() if value < LEAST_SHARE * recorded[key]]


def show(found: Mapping[str, float], recorded: Mapping[str, float]) -> str:
    lines = [f"{'ratio':<14}{'found':>10}{'recorded':>10}{'share':>8}"]
    for key, value in found.items():
        known = recorded.get(key)
        told = f"{known:>10.3f}{value / known:>8.2f}" if known else f"{'—':>10}{'':>8}"
        lines.append(f"{key:<14}{value:>10.3f}{told}")
    return "\n".join(lines)


def record(found: Mapping[str, float], path: Path = RECORD) -> None:
    path.write_text(HEAD + "[ratios]\n" + "".join(f"{key} = {value:.3g}\n" for key, value in found.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Fails when Jobyard has become slow, measured by the machine.")
    parser.add_argument("--record", action="store_true", help="write what this run finds to smoke.toml")
    given = parser.parse_args()
    found = take()
    if given.record:
        record(found)
        print(show(found, {}))
        return 0
    recorded: dict[str, float] = tomllib.loads(RECORD.read_text())["ratios"]
    if slower(found, recorded):
        print(show(found, recorded), "\nonce more, as the machine may have been busy", sep="")
        found = {key: max(found[key], again) for key, again in take().items()}
    print(show(found, recorded))
    if fallen := slower(found, recorded):
        print(f"slower than half of what is recorded: {', '.join(fallen)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
