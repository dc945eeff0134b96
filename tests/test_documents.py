"""The documents say what is so: what they name exists, and what must be in them is there, word for word.

A path in backticks is a path of this repository, and what stands after `::` is in that file. The tables of settings,
numbers, messages and tables are compared with the code in both directions; those of events have files of their own.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import yaml

from common import limits, messages
from common.effects import Table
from common.environment import Setting, settings_of
from common.errors import Code
from common.migrations import FORMAT
from common.runtime import program
from common.settings import BalancerSettings, NodeSettings
from tests.machines.cluster import Cluster

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SOURCES: Final = sorted(path for name in ("balancer", "node", "common") for path in (ROOT / name).rglob("*.py"))

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_TOP = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
_PATH = re.compile(rf"((?:{_TOP})/[\w./-]*)(?:::([\w.]+))?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCED.sub("", document.read_text())


def code_spans(document: Path) -> list[str]:
    return _CODE.findall(prose(document))


def rows(document: Path, heading: str) -> Iterator[list[str]]:
    """The cells of every row of the tables under a heading, down to the next heading of its rank."""
    rank = heading.split()[0]
    section = re.split(rf"^{heading}$", document.read_text(), flags=re.MULTILINE)[1]
    section = re.split(rf"^#{{1,{len(rank)}}} ", section, flags=re.MULTILINE)[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def named(cell: str) -> tuple[str, ...]:
    return tuple(_CODE.findall(cell))


# --- what is named exists --------------------------------------------------------------------------------------


def definitions(path: Path) -> set[str]:
    """The classes, functions and constants of a file, methods and fields as `Class.name`."""
    return set(_defined(ast.parse(path.read_text()).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{node.name}.")
        targets = (
            [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        )
        yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def test_the_documents_are_found_and_name_files() -> None:
    assert len(DOCUMENTS) > 15
    found = [span for document in DOCUMENTS for span in code_spans(document) if _PATH.fullmatch(span)]
    assert len(found) > 100


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_function_and_test_that_a_document_names_exists(document: Path) -> None:
    for span in code_spans(document):
        match = _PATH.fullmatch(span)
        if match is None:
            continue
        path = ROOT / match[1]
        assert path.exists(), f"{document.name} names {match[1]}, which does not exist"
        if match[2] is not None:
            assert match[2] in definitions(path), f"{document.name} names {span}, and the file has no {match[2]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (document.parent / name).resolve() if name else document
        assert other.exists(), f"{document.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(other), f"{document.name} links to {target}, and there is no such heading"


def anchors(document: Path) -> set[str]:
    """The anchors that headings get: lower case, words joined by hyphens, other characters dropped."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", document.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_place_on_somebodys_machine(document: Path) -> None:
    text = document.read_text()
    assert str(ROOT) not in text
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|tmp|opt|work|mnt)\b", text)


def test_every_decision_that_the_code_cites_is_written_and_listed() -> None:
    decisions = DOCS / "decisions"
    numbers = sorted(path.name[:4] for path in decisions.glob("[0-9]*.md"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)], "a number is missing or used twice"
    cited = {number for path in SOURCES for number in re.findall(r"decisions/(\d{4})", path.read_text())}
    assert cited <= set(numbers)
    listed = (decisions / "README.md").read_text()
    assert all(path.name in listed for path in decisions.glob("[0-9]*.md"))


# --- settings, statuses, errors --------------------------------------------------------------------------------


def settings(heading: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Names → default and unit, as the document has them."""
    table = rows(DOCS / "operating.md", heading)
    return {named(name): (default, unit) for name, default, unit, _ in table if named(name)}


def default_in(cell: str, told: Setting, who: str) -> bool:
    """Whether a cell says the default: alone, or `balancer … node …` where the two differ."""
    if cell == "empty":
        return told.default == ""
    return f"{who} `{told.default}`" in cell if "balancer" in cell else cell == f"`{told.default}`"


@pytest.mark.parametrize(("cls", "who"), [(BalancerSettings, "balancer"), (NodeSettings, "node")])
def test_every_setting_is_documented_with_its_names_default_and_unit(cls: type, who: str) -> None:
    documented = settings("### Both programs") | settings(f"### {who.title()}")
    for told in settings_of(cls).values():
        assert told.variables in documented, f"{told.variables} is not in docs/operating.md"
        default, unit = documented[told.variables]
        assert default_in(default, told, who), f"{told.names[0]} has the default {told.default!r}, not {default}"
        assert unit == told.unit


def test_no_setting_is_documented_that_does_not_exist() -> None:
    both = [{told.variables for told in settings_of(cls).values()} for cls in (BalancerSettings, NodeSettings)]
    assert set(settings("### Both programs")) == both[0] & both[1]
    assert set(settings("### Balancer")) == both[0] - both[1]
    assert set(settings("### Node")) == both[1] - both[0]


def test_the_four_settings_of_the_readme_have_their_defaults() -> None:
    told = {name: setting for setting in settings_of(BalancerSettings).values() for name in setting.names}
    shown = {name: default for cells in rows(ROOT / "README.md", "## Settings") for name in named(cells[0])
             for default in [cells[1]]}  # fmt: skip
    assert shown == {
        name: f"{told[name].default} {told[name].unit}" if told[name].unit == "ms" else told[name].default
        for name in ("DISPATCH_PERIOD", "MAX_NUM_JOBS_DISPATCH", "REQUEST_RESULT_PERIOD", "MAX_NUM_NODES")
    }


def test_every_exit_status_of_the_programs_is_documented() -> None:
    statuses = {int(cells[0]) for cells in rows(DOCS / "operating.md", "### Exit statuses") if cells[0].isdigit()}
    assert statuses == {0, 1, 2} | {value for name, value in vars(program).items() if name.startswith("EX_")}


def test_a_symptom_names_the_alerts_that_lead_to_it_and_no_others() -> None:
    alerts: dict[str, set[str]] = {}
    for rule in yaml.safe_load((DOCS / "monitoring/alerts.yaml").read_text())["groups"][0]["rules"]:
        alerts.setdefault(rule["annotations"]["runbook_url"].partition("#")[2], set()).add(rule["alert"])
    symptoms = (DOCS / "operating.md").read_text().partition("\n## By symptom\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### (.*)$", symptoms, flags=re.MULTILINE)[1:]
    named_in = {
        heading.lower().replace(" ", "-"): set(re.findall(r"`(Jobyard[A-Z]\w+)`", text))
        for heading, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert {heading: names for heading, names in named_in.items() if names} == alerts


@pytest.mark.parametrize("document", ["protocol.md", "operating.md"])
def test_every_error_code_is_documented_with_what_to_do(document: str) -> None:
    heading = {"protocol.md": "## Errors", "operating.md": "## Errors that clients see"}[document]
    listed = [code for cells in rows(DOCS / document, heading) for code in named(cells[0])]
    assert sorted(listed) == sorted(Code)


# --- numbers -----------------------------------------------------------------------------------------------------


def test_every_number_of_stats_is_documented_and_no_other() -> None:
    cluster = Cluster(1)
    for who, question in (("balancer", "stats"), ("node", "stats local=1")):
        numbers = {line.split()[0] for line in (cluster.say("n1", question) or "").splitlines()[1:] if line}
        table = rows(DOCS / "operating.md", "## Numbers")
        assert {name for cells in table if cells[1] in (who, "both") for name in named(cells[0])} == numbers


# --- protocol and store ----------------------------------------------------------------------------------------


def test_every_message_is_documented_with_its_code_and_all_of_its_fields() -> None:
    documented = {
        named(cells[1])[0]: (int(cells[0]), named(cells[3]))
        for cells in rows(DOCS / "protocol.md", "## Messages")
        if cells[0].isdigit()
    }
    assert set(documented) == {cls.__name__ for cls in messages.CODES}
    parts = {"Submission", "Lease", "Pair"}
    for cls, code in messages.CODES.items():
        number, fields = documented[cls.__name__]
        assert number == code
        assert [name for name in fields if name not in parts] == [field.name for field in msgspec.structs.fields(cls)]


@pytest.mark.parametrize("cls", [messages.Submission, messages.Lease, messages.Pair, messages.Reported])
def test_every_part_of_a_message_is_documented_with_all_of_its_fields(cls: type) -> None:
    (fields,) = (
        named(cells[1]) for cells in rows(DOCS / "protocol.md", "## Messages") if cells[0] == f"`{cls.__name__}`"
    )
    assert list(fields) == [field.name for field in msgspec.structs.fields(cls)]


def test_the_limits_of_the_cluster_protocol_are_those_of_the_code() -> None:
    units = {"KiB": limits.KIB, "MiB": limits.MIB, "s": 1}
    table = [cells for cells in rows(DOCS / "protocol.md", "## Limits") if named(cells[0])]
    assert len(table) >= 8
    for name, value, _ in table:
        number, _, unit = value.replace(",", "").partition(" ")
        assert getattr(limits, named(name)[0]) == int(number) * units.get(unit, 1)


def test_every_table_is_documented_and_no_other() -> None:
    documented = {name for cells in rows(DOCS / "tables.md", "## Tables") for name in named(cells[0])}
    assert documented == {*Table, "quarantine"}
    assert f"**{FORMAT}**" in (DOCS / "tables.md").read_text()


# --- promises --------------------------------------------------------------------------------------------------


def test_each_of_the_eight_promises_names_a_test() -> None:
    promised = {cells[0]: cells[2] for cells in rows(ROOT / "README.md", "## Promises") if cells[0].isdigit()}
    assert sorted(promised) == [str(number) for number in range(1, 9)]
    assert all(_names_a_test(text) for text in promised.values())
    sections = re.split(r"^## (\d)\. ", (DOCS / "guarantees.md").read_text(), flags=re.MULTILINE)[1:]
    assert sections[::2] == [str(number) for number in range(1, 9)]
    assert all(_names_a_test(section.partition("\n## ")[0]) for section in sections[1::2])


def _names_a_test(text: str) -> bool:
    return any(span.startswith("tests/") and "::" in span for span in _CODE.findall(text))
