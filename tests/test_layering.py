"""The layers, read from the imports: who may know whom is a rule of the design, so a test enforces it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("balancer", "node", "common", "client")

# Files that wait or touch the outside; all others of the three packages decide, and are pure.
IMPERATIVE = {
    "common/runtime",
    "common/settings.py",  # reads the files of secrets that it is told to read
    "common/environment.py",
    "common/certificates.py",  # and this one those of TLS
    "balancer/app.py",
    "balancer/assembly.py",
    "balancer/door.py",
    "balancer/web.py",
    "balancer/__main__.py",
    "node/app.py",
    "node/assembly.py",
    "node/dial.py",
    "node/web.py",
    "node/__main__.py",
    "node/executors",
}
OUTSIDE = {
    "trio", "lmdb", "socket", "time", "random", "secrets", "logging", "structlog", "os", "subprocess", "threading",
    "select", "selectors", "asyncio", "tempfile", "starlette", "hypercorn", "prometheus_client",
}  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "build" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def is_pure(path: Path) -> bool:
    name = str(path.relative_to(ROOT))
    return not any(name == known or name.startswith(f"{known}/") for known in IMPERATIVE)


def test_the_rules_have_something_to_say() -> None:
    assert sum(map(is_pure, (path for package in PROGRAMS[:3] for path in modules(package)))) > 20


@pytest.mark.parametrize("path", modules("balancer"), ids=str)
def test_the_balancer_never_imports_a_node(path: Path) -> None:
    assert roots(path).isdisjoint({"node", "jobyard", "tests"})


@pytest.mark.parametrize("path", modules("node"), ids=str)
def test_a_node_never_imports_the_balancer(path: Path) -> None:
    assert roots(path).isdisjoint({"balancer", "jobyard", "tests"})


@pytest.mark.parametrize("path", modules("common"), ids=str)
def test_what_is_common_knows_neither_program(path: Path) -> None:
    assert roots(path).isdisjoint({"balancer", "node", "jobyard", "tests"})


@pytest.mark.parametrize("path", modules("client"), ids=str)
def test_the_client_shares_no_package_with_the_cluster(path: Path) -> None:
    assert roots(path).isdisjoint({"balancer", "node", "common", "tests"})


@pytest.mark.parametrize(
    "path", [path for package in PROGRAMS[:3] for path in modules(package) if is_pure(path)], ids=str
)
def test_what_decides_is_pure(path: Path) -> None:
    touched = roots(path) & OUTSIDE
    assert not touched, f"{path.relative_to(ROOT)} decides, and imports {', '.join(sorted(touched))}"


@pytest.mark.parametrize(
    "path", [path for package in PROGRAMS[:3] for path in modules(package) if is_pure(path)], ids=str
)
def test_what_decides_does_not_reach_into_the_runtime(path: Path) -> None:
    assert not any(name.startswith("common.runtime") for name in imports(path))


@pytest.mark.parametrize("path", modules("chaos"), ids=str)
def test_who_tries_the_cluster_is_a_stranger_to_its_code(path: Path) -> None:
    assert roots(path).isdisjoint({"balancer", "node", "common", "jobyard", "tests"})


@pytest.mark.parametrize("name", ["blows", "jobs", "replies", "evidence", "verdict"])
def test_who_judges_the_cluster_is_pure(name: str) -> None:
    assert roots(ROOT / "chaos" / f"{name}.py").isdisjoint(OUTSIDE - {"random"})


@pytest.mark.parametrize("name", ["loads", "story", "measures", "intervals"])
def test_what_measures_placement_is_pure(name: str) -> None:
    touched = roots(ROOT / "analysis" / f"{name}.py") & (OUTSIDE | {"balancer", "node"})
    assert not touched, f"analysis/{name}.py measures, and imports {', '.join(sorted(touched))}"


def test_lmdb_is_imported_in_one_file() -> None:
    users = [path for package in PROGRAMS for path in modules(package) if "lmdb" in roots(path)]
    assert users == [ROOT / "common/runtime/tables.py"]


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("starlette", {"common/runtime/web.py", "balancer/web.py", "node/web.py"}),
        ("hypercorn", {"common/runtime/http.py"}),
        ("prometheus_client", {"common/runtime/metrics.py"}),
    ],
)
def test_what_serves_http_is_imported_where_it_belongs(library: str, files: set[str]) -> None:
    """So that where JOBYARD_HTTP_LISTEN is off, nobody waits for it and nobody has it in memory."""
    users = {str(path.relative_to(ROOT)) for package in PROGRAMS for path in modules(package) if library in roots(path)}
    assert users == files


def test_no_file_outgrows_a_reader() -> None:
    """A file is read in one sitting: 400 lines, but for the machines and the ledger, which are the subject itself, and
    for the one file that may know LMDB."""
    allowed = {
        "balancer/dispatcher.py": 750,
        "balancer/ledger.py": 550,
        "node/worker.py": 560,
        "common/messages.py": 450,
    }
    for package in PROGRAMS:
        for path in modules(package):
            name = str(path.relative_to(ROOT))
            lines = len(path.read_text().splitlines())
            assert lines <= allowed.get(name, 420), f"{name} has {lines} lines"
