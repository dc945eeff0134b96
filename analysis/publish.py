"""Writes a result into the documents: `python -m analysis --publish`. Nobody types a figure.

What goes to `docs/placement/` is the result itself with its plots; what stands between two markers in
`docs/placement.md` is made from that copy, and a test makes it again and compares.
"""

import shutil
from pathlib import Path
from typing import Final

from analysis.report import report
from analysis.results import CURVES, RUNS, load

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = REPOSITORY / "docs" / "placement.md"
BEGIN: Final = "<!-- figures begin: `make analysis PUBLISH=1` writes what follows -->"
END: Final = "<!-- figures end -->"


def published(directory: Path) -> str:
    """What must stand between the markers: tables one rank below the document's."""
    result = load(directory)
    text = report(result).replace("\n## ", "\n### ").replace("## ", "### ", 1)
    return f"Measured {result.when}.\n\n{text}".strip()


def between(document: str) -> str:
    return document.partition(BEGIN)[2].partition(END)[0].strip()


def publish(results: Path, document: Path = DOCUMENT) -> None:
    """Raises ValueError, and changes nothing, where the document has not just one of each marker."""
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{document} needs one line {BEGIN!r} and below it one line {END!r}")
    directory = document.with_suffix("")
    directory.mkdir(exist_ok=True)
    for path in (results / RUNS, results / CURVES, *sorted(results.glob("*.png"))):
        shutil.copyfile(path, directory / path.name)
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n\n{published(directory)}\n\n{END}{after}", encoding="utf-8")
