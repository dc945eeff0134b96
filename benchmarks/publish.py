"""Writes a result into the documents: `python -m benchmarks.publish RESULTS.json …`. Nobody types a figure. Of several
runs, which took different quantities, one result is made.

What goes to `docs/performance/` is the result itself and a plot of each measure; what stands between two markers in
`docs/performance.md` is made from that copy, and a test makes it again and compares.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks import installing
from benchmarks.drawing import draw
from benchmarks.report import publication
from benchmarks.results import Result, joined, load

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = REPOSITORY / "docs" / "performance.md"
BEGIN: Final = "<!-- figures begin: `python -m benchmarks.publish` writes what follows -->"
END: Final = "<!-- figures end -->"
NOTHING_YET: Final = "No result has been published yet: `python -m benchmarks.publish RESULTS.json` puts one here."


def figures(result: Result, directory: Path) -> str:
    """What stands between the markers: tables one rank below the document's, and links to the pictures."""
    tables = publication(result).replace("\n## ", "\n### ")
    return "\n".join([tables, *_links(directory, _pictures(result, directory))])


def _links(directory: Path, pictures: list[str]) -> Iterator[str]:
    yield "### Plots\n"
    yield "Bars and dots are medians, with lines from the lowest to the highest value. A dashed line is a yardstick.\n"
    for name in pictures:
        yield f"![{name.removesuffix('.png')}]({directory.name}/{name})\n"


def replaced(document: str, text: str) -> str:
    """The document with this between its markers. Raises ValueError where it has not just one of each."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"the document needs one line {BEGIN!r} and below it one line {END!r}")
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.partition(END)[2]}"


def between(document: str) -> str:
    """What stands between the markers."""
    return document.partition(BEGIN)[2].partition(END)[0].strip()


def published(directory: Path) -> str:
    """What must stand there, made from what is published."""
    if not (directory / "results.json").exists():
        return NOTHING_YET
    return figures(load(directory / "results.json"), directory).strip()


def _pictures(result: Result, directory: Path) -> list[str]:
    """In the order of the measures."""
    measures = dict.fromkeys(quantity.measure for quantity in result.quantities)
    return [f"{name}.png" for name in measures if (directory / f"{name}.png").exists()]


def publish(results: Sequence[Path], document: Path) -> list[Path]:
    """Returns what was written. A result that cannot be read, or a document without its markers, changes nothing."""
    result = joined([load(path) for path in results])
    directory = document.resolve().with_suffix("")
    replaced(document.read_text(encoding="utf-8"), "")
    directory.mkdir(exist_ok=True)
    result.save(directory / "results.json")
    drawn = draw(directory)
    for old in {*directory.glob("*.png")} - {path.resolve() for path in drawn}:
        old.unlink()
    document.write_text(replaced(document.read_text(encoding="utf-8"), published(directory)), encoding="utf-8")
    return [document, directory / "results.json", *drawn]


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the tables and plots of a result into docs/performance.md.")
    parser.add_argument("results", type=Path, nargs="+")
    try:
        for path in publish(parser.parse_args().results, DOCUMENT):
            print(path)
    except (OSError, ValueError, installing.CannotHave) as reason:
        print(f"python -m benchmarks.publish: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
