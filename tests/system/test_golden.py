"""Today's programs start on data directories of every released format, and everything in them goes on."""

import json
from pathlib import Path
from typing import Final

import pytest

from examples.local_cluster import LocalCluster
from tests.golden.make import unpack
from tests.golden.story import FINAL
from tests.system.client import ask, wait
from tests.system.conftest import shown_on_failure

pytestmark = pytest.mark.system

FORMATS: Final = sorted((Path(__file__).parents[1] / "golden").glob("format-*"))
NAMES: Final = {"n1": "node1", "n2": "node2", "n3": "node3"}
KEPT: Final = {"JOBYARD_RETENTION": "3650d"}  # the golden jobs ended long ago


@pytest.mark.parametrize("golden", FORMATS, ids=lambda path: path.name)
def test_todays_programs_go_on_where_a_released_version_was_killed(
    golden: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    manifest = json.loads((golden / "expected.json").read_text())
    unpack(golden, tmp_path)
    for old, new in NAMES.items():
        (tmp_path / old).rename(tmp_path / new)
    with LocalCluster(3, tmp_path, KEPT, slots=4) as cluster, shown_on_failure(request.session, lambda: logs(cluster)):
        for asked, line in manifest["alone"].items():
            name, verb, ticket = asked.replace(":", "").split()
            if verb == "result" and line.startswith("OK") and "while its origin was away" not in what(manifest, ticket):
                assert ask(cluster.address(NAMES[name]), f"result {ticket}").line == line.partition("\n")[0]
        for name in manifest["live"]:
            state, output = FINAL[name]
            reply = wait(cluster.address("node1"), manifest["tickets"][name])
            assert reply.field("state") == state, f"{name}: {reply.line}"
            assert reply.body.decode() == output, name
        forgotten = manifest["tickets"]["forgotten while its origin was away"]
        assert ask(cluster.address("node3"), f"status {forgotten}").code == "UNKNOWN_TICKET"


def what(manifest: dict[str, dict[str, str]], ticket: str) -> str:
    return next(what for what, named in manifest["tickets"].items() if named == ticket)


def logs(cluster: LocalCluster) -> list[tuple[str, str]]:
    return [(name, cluster.log_path(name).read_text()) for name in ("balancer", *cluster.node_names)]
