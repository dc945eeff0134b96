"""Hunting: thousands of stories, and one of them again.

    make sim SEED=17       tells one story, with a log of what happened
    make sim N=1000        tells a thousand, of seeds that nobody has chosen before
    make soak              ten thousand, and crashes at pairs of points

The last line says what came of it: `<n> seeds, <c> crashes, <j> jobs, <v> violations`. A story that goes wrong is
shrunk, and printed with the command that tells it again.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from tests.simulation import crashes, found, plan, pool, shrink, story
from tests.simulation.journal import Journal
from tests.simulation.story import Verdict


def main() -> int:
    arguments = _arguments()
    if arguments.seed is not None:
        return _tell_one(arguments.seed, arguments.points)
    if arguments.pairs is not None:
        return _report(_told(crashes.tell_pair, range(arguments.first, arguments.first + arguments.pairs)), "pairs")
    kept = [_again(one) for one in found.found()]
    return _report(_told(story.tell, range(arguments.first, arguments.first + arguments.n)), "seeds", kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim", description="Tells stories of a cluster in which things break.")
    parser.add_argument("--seed", type=int, help="tell this one, with a log of all that happened")
    parser.add_argument("--points", default="", help="with crashes at these points, as `17 23p`; p is a power cut")
    parser.add_argument("--n", type=int, default=1000, help="how many stories (1000)")
    parser.add_argument("--first", type=int, default=1_000_000, help="the first seed (1000000)")
    parser.add_argument("--pairs", type=int, help="instead: this many stories of crashes at two points")
    return parser.parse_args()


def _tell_one(seed: int, points: str) -> int:
    journal = Journal(lines_max=None)
    if points:
        verdict = crashes.tell(seed, crashes.parse(points), journal=journal)
    else:
        verdict = story.tell(seed, journal=journal)
    print(*journal.lines(), "", *plan.show(verdict.plan), "", verdict, sep="\n")
    return int(verdict.violation is not None)


def _again(kept: found.Found) -> Verdict:
    return story.tell(kept.seed, setting=kept.setting, faults=kept.faults)


def _told(tell: Callable[[int], Verdict], numbers: range) -> Iterator[Verdict]:
    """With a progress bar on a terminal."""
    yield from tqdm(pool.told(tell, numbers), total=len(numbers), unit=" stories", disable=not sys.stderr.isatty())


def _report(verdicts: Iterable[Verdict], of: str, kept: Iterable[Verdict] = ()) -> int:
    told = count = jobs = violations = 0
    for verdict in (*kept, *verdicts):
        told, jobs, count = told + 1, jobs + verdict.jobs, count + verdict.crashes
        if verdict.violation is not None:
            violations += 1
            print(*_explained(verdict), sep="\n", flush=True)
    print(f"{told} {of}, {count} crashes, {jobs} jobs, {violations} violations")
    return int(violations > 0)


def _explained(verdict: Verdict) -> Iterator[str]:
    """A story that went wrong: how, with what, and how to tell it again."""
    yield f"\n{verdict}"
    if verdict.crash_at:
        yield f"  again: make sim SEED={verdict.seed} POINTS='{crashes.show(verdict.crash_at)}'"
        return
    fewest = shrink.shrink(verdict.plan, lambda faults: _fails(verdict, faults))
    last = story.tell(verdict.seed, setting=verdict.setting, faults=fewest)
    yield f"  again: make sim SEED={verdict.seed}"
    yield f"  shrunk to {len(fewest)} of {len(verdict.plan)} faults, and kept in tests/simulation/found.toml as:\n"
    yield found.entry(verdict.seed, verdict.setting, fewest, last.violation or "")
    yield "\n  it ends with:"
    yield from last.tail


def _fails(verdict: Verdict, faults: plan.Plan) -> bool:
    return story.tell(verdict.seed, setting=verdict.setting, faults=faults).violation is not None


if __name__ == "__main__":
    sys.exit(main())
