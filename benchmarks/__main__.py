"""`make bench`: measures Jobyard and its peers side by side, and leaves tables, plots and the figures as JSON.

In every round each system is started afresh, measured and ended, one after the other, so that what changes on the
machine during the run changes for all of them.
"""

import argparse
import datetime
import signal
import sys
import traceback
from pathlib import Path
from typing import Final

from benchmarks import installing
from benchmarks.asking import SCALES
from benchmarks.drawing import draw
from benchmarks.measures import measures, quantities, selected
from benchmarks.report import report
from benchmarks.results import Result
from benchmarks.running import Run
from benchmarks.systems.catalogue import CATALOGUE, OURS, chosen
from common import __version__

HERE: Final = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Measures Jobyard and its peers side by side.",
        epilog=f"Peers: {', '.join(name for name in CATALOGUE if name != OURS)}. Measures: {', '.join(measures())}.",
    )
    parser.add_argument("--peers", default="all", help="names by commas; all; none")
    parser.add_argument("--only", default="all", help="measures by commas; all")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds")
    parser.add_argument("--scale", choices=SCALES, default="full", help="small: a few minutes, to see that it works")
    parser.add_argument("--to", type=Path, default=HERE / "results", metavar="DIR", help="where results go")
    parser.add_argument("--version", action="version", version=f"benchmarks {__version__}")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    scale = SCALES[given.scale]
    try:
        peers, takes = chosen(given.peers), selected(scale, given.only)
    except ValueError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 2
    when = datetime.datetime.now(datetime.UTC)
    directory = given.to / when.strftime("%Y-%m-%dT%H%M%SZ")
    directory.mkdir(parents=True)
    run = Run(scale, takes, max(1, given.repeats), directory)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def save() -> Result:
        result = run.result(f"{when:%Y-%m-%d %H:%M} UTC", quantities(takes))
        result.save(directory / "results.json")
        return result

    status = 0
    try:
        run.measure([CATALOGUE[OURS], *(CATALOGUE[name] for name in peers)], after_round=save)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
        status = 130
    except Exception:  # noqa: BLE001  (an hour's figures are worth more than the way in which it failed)
        traceback.print_exc()
        status = 1
    text = report(save())
    (directory / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{plots(directory)}\n{directory}")
    return status


def plots(directory: Path) -> str:
    try:
        return "\n".join(map(str, draw(directory)))
    except installing.CannotHave as reason:
        return f"no plots: {reason}"


if __name__ == "__main__":
    sys.exit(main())
