"""`make bench-smoke`: has a change made it slow? In about a minute, so that it can be asked before every commit.

Absolute figures move with the machine and with its neighbours, so each is divided by what the machine itself gives in
the same minute and that is limited by the same: waiting by a synced commit, commands by started processes, throughput
by calls to a process pool. Ours and the yardstick are taken in turn, several times, and their medians are compared.
Where many jobs are run, their processor time is compared as well: it hardly depends on who else is at work.

Such a ratio may not fall below half of the one in `smoke.toml`; `--record` writes those of this run there. What fails
is taken once more, and the better of both counts: a neighbour's minute of load is no defect.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks import yardsticks
from benchmarks.processes import processor_s
from benchmarks.results import quantile
from benchmarks.systems.jobyard import Jobyard
from benchmarks.systems.system import until_done

RECORD: Final = Path(__file__).resolve().parent / "smoke.toml"
WORKERS: Final = 2
REPEATS: Final = 5
SUBMISSIONS: Final = 2_000
LEAST_SHARE: Final = 0.5
PROCESSOR: Final = "_processor"  # ends the name of a ratio of processor times

HEAD: Final = """\
# Jobyard's speed divided by the machine's, as `make bench-smoke` found it when this was last recorded; more is better.
# `make bench-smoke` fails where a ratio has fallen to less than half. To record anew, on a quiet machine:
#     make bench-smoke RECORD=1

"""


@attrs.frozen
class Cost:
    """Of one job, or one call: seconds on the wall, and of processors, 0 where these say nothing."""

    wall_s: float
    processor_s: float = 0.0


@attrs.frozen
class Comparison:
    """A measure of ours and what the machine gives for it; both are told what one costs."""

    key: str
    ours: Callable[[Jobyard], Cost]
    yardstick: Callable[[Path], Cost]


# --- ours --------------------------------------------------------------------------------------------------------


def _each(call: Callable[[Jobyard], Sequence[float]]) -> Callable[[Jobyard], Cost]:
    """The median of single calls: they wait for the disk."""
    return lambda system: Cost(quantile(call(system), 0.5))


def _many(count: int, run: Callable[[Jobyard, int], float]) -> Callable[[Jobyard], Cost]:
    """One of many that are under way together."""

    def take(system: Jobyard) -> Cost:
        before_s = processor_s(system.roots())
        wall_s = run(system, count)
        return Cost(wall_s / count, (processor_s(system.roots()) - before_s) / count)

    return take


def _submit(system: Jobyard) -> Cost:
    """Submissions alone: what they leave behind is done before the next, and nobody counts it."""
    before = system.done()
    wall_s = system.submit(SUBMISSIONS, clients=1)
    until_done(system.done, before + SUBMISSIONS)
    return Cost(wall_s / SUBMISSIONS)


# --- the machine -------------------------------------------------------------------------------------------------


def _commit(directory: Path) -> Cost:
    return Cost(yardsticks.commit_ms(directory) / 1000)


def _pool_call(directory: Path) -> Cost:
    return _rated(yardsticks.pool_calls_per_s, yardsticks.CALLS)


def _spawn(directory: Path) -> Cost:
    return _rated(lambda: yardsticks.spawns_per_s(yardsticks.spawner_in_python()), yardsticks.SPAWNS)


def _rated(rate: Callable[[], float], count: int) -> Cost:
    """The start and the end of the yardstick's own processes are in the processor time: the same in every run."""
    before_s = _used_s()
    wall_s = 1 / rate()
    return Cost(wall_s, (_used_s() - before_s) / count)


def _used_s() -> float:
    """Processor time of this process and of those that it has started and that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


# --- the list ----------------------------------------------------------------------------------------------------

COMPARISONS: Final = (
    Comparison("round_trip", _each(lambda system: system.round_trips("sleep", 30)), _commit),
    Comparison("submit_each", _each(lambda system: system.submit_each(50)), _commit),
    Comparison("sleep", _many(2_000, lambda system, count: system.end_to_end("sleep", count)), _pool_call),
    Comparison("py", _many(1_000, lambda system, count: system.end_to_end("py", count)), _pool_call),
    Comparison("exec", _many(400, lambda system, count: system.end_to_end("exec", count)), _spawn),
    Comparison("submit", _submit, _pool_call),
)


def take() -> dict[str, float]:
    """Every ratio, of one cluster that is started afresh."""
    system = Jobyard()
    with tempfile.TemporaryDirectory(prefix="jobyard-smoke-") as name:
        try:
            system.start(Path(name), WORKERS)
            system.end_to_end("py", 100)  # warm
            found: dict[str, float] = {}
            for comparison in COMPARISONS:
                found |= compare(comparison, system, Path(name))
            return found
        finally:
            system.kill()


def compare(comparison: Comparison, system: Jobyard, directory: Path) -> dict[str, float]:
    """In turn, so that whatever else the machine does falls on both."""
    pairs = [(comparison.yardstick(directory), comparison.ours(system)) for _ in range(REPEATS)]
    return dict(ratios(comparison.key, [yardstick for yardstick, _ in pairs], [ours for _, ours in pairs]))


def ratios(key: str, yardstick: Sequence[Cost], ours: Sequence[Cost]) -> Iterator[tuple[str, float]]:
    """What the yardstick costs / what ours costs, by their medians: more is better."""

    def of(costs: Sequence[Cost], part: Callable[[Cost], float]) -> float:
        return statistics.median(map(part, costs))

    yield key, of(yardstick, lambda cost: cost.wall_s) / of(ours, lambda cost: cost.wall_s)
    if (used_s := of(ours, lambda cost: cost.processor_s)) > 0:
        yield f"{key}{PROCESSOR}", of(yardstick, lambda cost: cost.processor_s) / used_s


def slower(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Which ratios have fallen to less than half of what is recorded; KeyError where one is not recorded."""
    return [key for key, value in found.items() if value < LEAST_SHARE * recorded[key]]


def better(found: Mapping[str, float], again: Mapping[str, float]) -> dict[str, float]:
    return {key: max(value, again.get(key, 0.0)) for key, value in found.items()}


def show(found: Mapping[str, float], recorded: Mapping[str, float]) -> str:
    lines = [f"{'ratio':<20}{'found':>10}{'recorded':>10}{'share':>8}"]
    for key, value in found.items():
        known = recorded.get(key)
        told = f"{known:>10.3f}{value / known:>8.2f}" if known else f"{'—':>10}{'':>8}"
        lines.append(f"{key:<20}{value:>10.3f}{told}")
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
        found = better(found, take())
    print(show(found, recorded))
    if fallen := slower(found, recorded):
        print(f"slower than half of what is recorded: {', '.join(fallen)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
