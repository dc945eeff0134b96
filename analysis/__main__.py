"""`make analysis`: every policy gets the same workloads; tables, figures and plots of what became of them.

python -m analysis --seeds 20                  what is published in docs/placement.md
python -m analysis --quick                     to see that it works, in seconds
"""

import argparse
import datetime
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tqdm import tqdm

from analysis import drawing, publish, report, results
from analysis.loads import LOADS
from analysis.running import Done, all_real, all_virtual, foretold, gather, real_tasks, virtual_tasks
from common import __version__

HERE: Final = Path(__file__).resolve().parent
QUICK_TIMES: Final = 10  # fewer requests


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make analysis", description="Compares the placement policies.")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="of each workload")
    parser.add_argument("--real-seeds", type=int, default=3, metavar="N", help="on processes of this machine; 0: none")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, 3 seeds, to see that it works")
    parser.add_argument("--only", default="", help="loads by commas")
    parser.add_argument("--no-plots", action="store_true", help="tables and figures alone")
    parser.add_argument(
        "--publish", action="store_true", help="write docs/placement/ and the figures in docs/placement.md"
    )
    parser.add_argument("--to", type=Path, default=HERE / "results", metavar="DIR", help="where results go")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--version", action="version", version=f"analysis {__version__}")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    times = QUICK_TIMES if given.quick else 1
    seeds, real_seeds = (
        (min(given.seeds, 3), min(given.real_seeds, 1)) if given.quick else (given.seeds, given.real_seeds)
    )
    wanted = given.only.split(",") if given.only else [load.name for load in LOADS]
    if unknown := set(wanted) - {load.name for load in LOADS}:
        print(f"make analysis: no load {', '.join(sorted(unknown))}; there are"
              f" {', '.join(load.name for load in LOADS)}", file=sys.stderr)  # fmt: skip
        return 2
    loads = [load if times == 1 else load.smaller(times) for load in LOADS if load.name in wanted]
    real = real_tasks(loads, real_seeds, times)
    tasks = virtual_tasks(loads, seeds) + foretold(real)
    done: list[Done] = []
    try:
        for one in _shown(all_virtual(tasks, given.processes), len(tasks), "in virtual time"):
            done.append(one)
        for one in _shown(all_real(real), len(real), "on processes"):
            done.append(one)
    except KeyboardInterrupt:
        print("make analysis: stopped; this is what was done so far", file=sys.stderr)
    result = gather(loads, done, f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC")
    results.save(result, given.to)
    print(report.report(result))
    if not given.no_plots:
        for path in drawing.draw(given.to):
            print(path)
    if given.publish:
        publish.publish(given.to)
    return 0


def _shown(done: Iterable[Done], total: int, what: str) -> Iterable[Done]:
    bar: Callable[..., Iterable[Done]] = tqdm
    return bar(done, total=total, desc=what, disable=None if total else True)


if __name__ == "__main__":
    sys.exit(main())
