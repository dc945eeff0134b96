"""Clusters of real processes: each is stopped whatever happens, and a test that fails shows the ends of their logs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from chaos.containers import engine_problem
from examples.local_cluster import LocalCluster
from tests.system.client import missing

LOG_LINES_SHOWN: Final = 30
Logs = Callable[[], list[tuple[str, str]]]  # a title and a text for each process
_UP: Final = pytest.StashKey[list[Logs]]()

StartCluster = Callable[..., LocalCluster]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds the ends of the logs of everything that is up to the report of a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for logs in item.session.stash.get(_UP, []):
            report.sections += logs()


@contextmanager
def shown_on_failure(session: pytest.Session, logs: Logs) -> Iterator[None]:
    """Whatever fails inside the `with` shows these logs."""
    up = session.stash.setdefault(_UP, [])
    up.append(logs)
    try:
        yield
    finally:
        up.remove(logs)


def log_tails(cluster: LocalCluster) -> list[tuple[str, str]]:
    paths = (cluster.log_path(name) for name in ("balancer", *cluster.node_names))
    return [(f"the end of {path}", _tail(path)) for path in paths if path.exists()]


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN:])


@pytest.fixture(scope="module")
def start_cluster_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartCluster]:
    """Starts clusters that all tests of a module share."""
    yield from _starting(request.session, lambda: tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def start_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartCluster]:
    """`start_cluster(nodes=3, slots=2, env=…)`: a cluster with a directory of its own, stopped after the test. All its
    nodes have joined, but with `joined=False`, where they cannot."""
    yield from _starting(request.session, lambda: tmp_path_factory.mktemp("cluster"))


def _starting(session: pytest.Session, make_directory: Callable[[], Path]) -> Iterator[StartCluster]:
    with ExitStack() as stack:

        def start(
            nodes: int = 3,
            *,
            slots: int = 2,
            env: Mapping[str, str] | None = None,
            cls: type[LocalCluster] = LocalCluster,
            joined: bool = True,
        ) -> LocalCluster:
            cluster = cls(nodes, make_directory(), env, slots)
            stack.enter_context(cluster)
            stack.enter_context(shown_on_failure(session, lambda: log_tails(cluster)))
            if joined:
                cluster.wait_until_joined()
            return cluster

        yield start


@pytest.fixture(scope="session")
def docker() -> str:
    """The docker program, where an engine and compose answer; otherwise the test is skipped, or fails where
    JOBYARD_TEST_DOCKER=required."""
    if problem := engine_problem():
        missing(problem)
    return "docker"
