"""The rows of `docs/coming-from.md`: what is to be run, and what it must come to.

    | there | here | note <!-- check: T is failed; exits 1; prints ^$T +failed --> |

A cell "here" is code, in one span or in several with `<br>` between, or it says *not here* and runs nothing. The check
is a comment at the end of the note, so that people who read the page do not see it; its parts, with "; " between:

    T is STATE       the state in which the row finds the job T: one of JOBS, or succeeded, if it is not said
    exits N          the exit code, 0 if it is not said; of Python nothing but 0 can be
    prints REGEX     what is found in its standard output, $T standing for the ticket and TICKET for any
    says REGEX       the same of its standard error
    then COMMAND     what afterwards must succeed, in the same shell, where `last` is what the row submitted

Whatever is not so is an error that names the line: a row that nothing is seen of is none that a test could fail.
Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

TICKET: Final = r"[a-z2-7]{6}-\d+"
JOBS: Final = frozenset({"succeeded", "failed", "running", "queued", "scheduled", "brief"})  # brief: it ends soon
NOT_HERE: Final = "*not here*"
TITLES: Final = ["there", "here", "note"]

_ROW: Final = re.compile(r"(?<!\\)\|")
_CODE: Final = re.compile(r"`([^`]+)`")
_CHECK: Final = re.compile(r"<!-- check: (.*) -->$")
_PARTS: Final = {"T is": "job", "exits": "exits", "prints": "prints", "says": "says", "then": "then"}


class RowError(Exception):
    """A row that cannot be run, or of which nothing would be seen."""


@dataclass(frozen=True)
class Check:
    job: str = "succeeded"
    exits: int = 0
    prints: str | None = None
    says: str | None = None
    then: str | None = None


@dataclass(frozen=True)
class Row:
    line: int  # in the document, from 1
    there: str
    here: str  # the cell as it stands
    note: str

    @property
    def is_here(self) -> bool:
        return not self.here.startswith(NOT_HERE)

    @property
    def code(self) -> str:
        spans = _CODE.findall(self.here)
        if not spans or self.here != "<br>".join(f"`{span}`" for span in spans):
            raise RowError(f"line {self.line}: {self.here!r} is neither code, with <br> between lines, nor {NOT_HERE}")
        return "\n".join(spans)

    @property
    def speaks_of_the_job(self) -> bool:
        """Whether there has to be a job T."""
        return re.search(r"\bT\b|\bnight\b", f"{self.here} {self._check}") is not None

    @property
    def check(self) -> Check:
        said = dict(self._part(text) for text in self._check.split("; "))
        job = said.get("job", "succeeded")
        if job not in JOBS:
            raise RowError(f"line {self.line}: no job T can be {job!r}; allowed: {', '.join(sorted(JOBS))}")
        if said.keys() <= {"job", "exits"} and said.get("exits", "0") == "0":
            raise RowError(f"line {self.line}: nothing is said of what it prints or does")
        return Check(job, int(said.get("exits", "0")), said.get("prints"), said.get("says"), said.get("then"))

    @property
    def _check(self) -> str:
        match = _CHECK.search(self.note)
        if match is None:
            raise RowError(f"line {self.line}: the note does not end with <!-- check: … -->")
        if "--" in match[1]:
            raise RowError(f"line {self.line}: a comment with -- in it is none in Markdown, and would be seen")
        return match[1]

    def _part(self, text: str) -> tuple[str, str]:
        for word, name in _PARTS.items():
            if text.startswith(f"{word} "):
                return name, text.removeprefix(f"{word} ")
        raise RowError(f"line {self.line}: a check begins with one of {', '.join(_PARTS)}, and not like {text!r}")


@dataclass
class Section:
    """One tool that people come from."""

    name: str
    python: str = ""  # what its fenced Python blocks say, to be run before its rows
    rows: list[Row] = field(default_factory=list)

    def language(self, row: Row) -> Literal["shell", "python"]:
        """A section with a Python block has rows in Python, but for those that call our command."""
        return "python" if self.python and not row.code.startswith("jobyard ") else "shell"


def sections(text: str) -> list[Section]:
    """The sections that have a table, and all rows of it."""
    found = [Section("")]
    fenced: str | None = None  # the language of the block that we are in
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = line.removeprefix("```") if fenced is None else None
        elif fenced == "python":
            found[-1].python += line + "\n"
        elif fenced is None and line.startswith("## "):
            found.append(Section(line.removeprefix("## ")))
        elif fenced is None and line.startswith("|"):
            found[-1].rows += _rows(number, line)
    return [section for section in found if section.rows]


def _rows(number: int, line: str) -> Iterator[Row]:
    cells = [cell.strip().replace("\\|", "|") for cell in _ROW.split(line)[1:-1]]
    if len(cells) != len(TITLES):
        raise RowError(f"line {number}: {len(cells)} cells, where there are {len(TITLES)} columns")
    if cells != TITLES and not line.startswith("|---"):
        yield Row(number, *cells)
