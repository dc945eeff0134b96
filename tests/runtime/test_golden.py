"""Data directories of every format that was released open with today's code, and everything in them can be read.

Today's machines are restored over real stores, on a copy; see tests/golden/README.md.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from common.effects import Table
from common.migrations import FORMAT
from tests.golden.make import ask_alone, ask_together, link, machines, unpack
from tests.golden.story import Story
from tests.machines.asking import state_of
from tests.machines.cluster import Cluster

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted(GOLDEN.glob("format-*"), key=lambda path: int(path.name.partition("-")[2]))


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def manifest(golden: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((golden / "expected.json").read_text())
    return read


@pytest.fixture
def copy(golden: Path, tmp_path: Path) -> Path:
    unpack(golden, tmp_path)
    return tmp_path


def test_there_is_a_golden_directory_of_every_format() -> None:
    assert [path.name for path in FORMATS] == [f"format-{number}" for number in range(1, FORMAT + 1)]


def test_each_origin_reads_what_it_kept_without_a_balancer(copy: Path, manifest: dict[str, Any]) -> None:
    with machines(copy, manifest["now"]) as (cluster, _):
        agree(manifest["alone"], ask_alone(cluster, manifest["tickets"]))


def test_the_ledger_reads_everything_that_had_ended(copy: Path, manifest: dict[str, Any]) -> None:
    with machines(copy, manifest["now"]) as (cluster, _):
        link(cluster)
        agree(manifest["together"], ask_together(cluster, manifest["tickets"]))


def test_what_happened_can_be_read(copy: Path, manifest: dict[str, Any]) -> None:
    with machines(copy, manifest["now"]) as (cluster, _):
        link(cluster)
        reply = cluster.say("n1", "events")
        assert reply is not None
        told = {event["seq"]: event for event in map(json.loads, filter(None, reply.splitlines()[1:]))}
        for event in manifest["events"]:
            assert told[event["seq"]].items() >= event.items()


def test_what_had_not_ended_goes_on_to_its_end(copy: Path, manifest: dict[str, Any]) -> None:
    tickets = manifest["tickets"]
    assert len(manifest["live"]) >= 10
    with machines(copy, manifest["now"]) as (cluster, stores):
        link(cluster)
        for what in manifest["live"]:
            assert state_of(cluster, tickets[what], "n3") not in ("succeeded", "failed", "cancelled"), what
        run_all(cluster)
        for what in manifest["live"]:
            expected = "failed" if what == "array that is live" else "succeeded"
            assert state_of(cluster, tickets[what], "n3") == expected, what
        for name, store in stores.items():
            for table in (Table.LIVE, Table.OUTCOMES, Table.OUTCOME_OUTPUTS, Table.NOTICES):
                assert store.scan(table, limit=9) == [], f"{table} of {name}"


def test_no_ticket_attempt_or_end_is_numbered_twice(copy: Path, manifest: dict[str, Any]) -> None:
    with machines(copy, manifest["now"]) as (cluster, stores):
        before = {key for key, _ in stores["balancer"].scan(Table.ATTEMPTS, limit=999)}
        link(cluster)
        assert cluster.submit("n1") not in manifest["tickets"].values()
        cluster.submit("n3")
        run_all(cluster)
        assert all(count == 1 for count in cluster.starts.values())
        begun_then = {(ticket, 1) for ticket in had_begun(manifest)}
        assert not begun_then & set(cluster.starts)
        assert had_begun(manifest) <= {ticket for ticket, _ in cluster.starts}
        assert before <= {key for key, _ in stores["balancer"].scan(Table.ATTEMPTS, limit=999)}


def had_begun(manifest: dict[str, Any]) -> set[str]:
    begun = ("lost with its node", "revived while its origin was away", "of a group, live", "with limits", "retrying")
    return {manifest["tickets"][what] for what in begun}


def run_all(cluster: Cluster) -> None:
    cluster.finish_all()
    cluster.advance(30)
    cluster.finish_all()
    cluster.advance(30)


def test_the_story_is_the_same_each_time() -> None:
    first, second = Story(), Story()
    assert {name: disk.tables for name, disk in first.disks.items()} == {
        name: disk.tables for name, disk in second.disks.items()
    }


def agree(expected: dict[str, str], found: dict[str, str]) -> None:
    """Every reply has the words and the body that it had. A later version may say more, and word its errors anew."""
    for asked, reply in expected.items():
        line, _, body = reply.partition("\n")
        told, _, told_body = found.get(asked, "no reply").partition("\n")
        words = line.split()[:2] if line.startswith("ERR") else line.split()
        assert set(words) <= set(told.split()), f"{asked}: {line} became {told}"
        assert told_body == body, asked
