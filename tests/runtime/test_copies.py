"""What is put back from a copy goes on apart from what it was: no ticket is issued twice, no job is lost."""

import shutil
from pathlib import Path

import lmdb
import pytest
import structlog.testing

from common.copies import LEAP
from common.effects import Delete, Put, Table
from common.limits import MIB
from common.migrations import FORMAT
from common.runtime.identity import directory_id, ticket_prefix
from common.runtime.owning import StoreError
from common.runtime.store import Store
from common.runtime.tables import copy_to
from tests.golden.make import link, machines, settle, unpack
from tests.golden.story import LEDGER_ID, PREFIXES
from tests.machines.asking import state_of
from tests.machines.cluster import Cluster

GOLDEN = Path(__file__).parents[1] / "golden" / f"format-{FORMAT}"
NOW = 100_000.0


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    unpack(GOLDEN, tmp_path / "yard")
    settle(tmp_path / "yard")
    return tmp_path / "yard"


def opened(directory: Path) -> Store:
    return Store(directory, 64 * MIB)


def meta(directory: Path) -> dict[str, str]:
    store = opened(directory)
    found = {key.decode(): value.decode(errors="replace") for key, value in store.scan(Table.META, limit=99)}
    store.close()
    return found


def damage(directory: Path, key: bytes) -> None:
    with lmdb.open(str(directory), max_dbs=30, lib_version=0) as env, env.begin(write=True) as transaction:
        table = env.open_db(b"meta", transaction)
        transaction.put(key, transaction.get(key, db=table)[:-1] + b"\xff", db=table)


# --- what is noticed ---------------------------------------------------------------------------------------------


def test_a_directory_that_is_opened_again_goes_on_as_it_was(yard: Path) -> None:
    before = meta(yard / "n1")
    with structlog.testing.capture_logs() as logged:
        assert meta(yard / "n1") == before
    assert logged == []


def test_a_copy_by_the_program_numbers_its_tickets_on_beyond_what_can_have_been_issued(yard: Path) -> None:
    before = meta(yard / "n1")
    copy_to(yard / "n1", yard / "copy")
    last = int(before["last_number"])
    with structlog.testing.capture_logs() as logged:
        copied = meta(yard / "copy")
    assert copied == before | {"last_number": f"{last + LEAP}", "sent_number": f"{last}"}
    assert [line["event"] for line in logged] == ["store.goes_on_apart"]
    assert meta(yard / "copy") == copied, "once"
    assert meta(yard / "n1") == before, "the original is as it was"


def test_any_other_copy_is_noticed_by_its_file(yard: Path) -> None:
    last = int(meta(yard / "n1")["last_number"])
    shutil.copytree(yard / "n1", yard / "copy")
    assert int(meta(yard / "copy")["last_number"]) == last + LEAP
    assert int(meta(yard / "copy")["last_number"]) == last + LEAP


def test_a_moved_directory_is_no_copy(yard: Path) -> None:
    before = meta(yard / "n1")
    (yard / "n1").rename(yard / "elsewhere")
    assert meta(yard / "elsewhere") == before


def test_a_copied_balancer_is_another_ledger(yard: Path) -> None:
    before = meta(yard / "balancer")
    copy_to(yard / "balancer", yard / "copy")
    store = opened(yard / "copy")
    assert directory_id(store) != before["id"]
    assert store.get(Table.META, b"tag") is None, "a new one is drawn, so that cursors of the lost time are told"
    store.close()


def test_a_directory_that_nobody_has_used_yet_can_be_copied(tmp_path: Path) -> None:
    opened(tmp_path / "new").close()
    copy_to(tmp_path / "new", tmp_path / "copy")
    assert meta(tmp_path / "copy") == {}


@pytest.mark.timeout(60)
def test_a_large_directory_is_copied_with_what_is_in_its_journal(tmp_path: Path) -> None:
    """An LMDB environment that is opened with no size of its own has room for 10 MiB."""
    store = opened(tmp_path / "large")
    for number in range(12):
        store.commit([Put(Table.OUTPUTS, b"%d" % number, bytes(MIB))])
    for number in range(10):
        store.commit([Put(Table.BODIES, b"%d" % number, bytes(20_000)), Delete(Table.OUTPUTS, b"11")])
    shutil.copytree(tmp_path / "large", tmp_path / "killed")
    store.close()
    copy_to(tmp_path / "killed", tmp_path / "copy")
    copied = opened(tmp_path / "copy")
    assert (copied.count(Table.OUTPUTS), copied.count(Table.BODIES)) == (11, 10)
    copied.close()


def test_a_copy_is_never_written_over_something(yard: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: File exists"):
        copy_to(yard / "n1", yard / "n2")
    with pytest.raises(StoreError, match=r"no data\.mdb"):
        copy_to(yard / "nowhere", yard / "copy")
    assert not (yard / "copy").exists()


# --- numbers that were damaged -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"last_number", b"sent_number"])
def test_a_node_whose_numbers_are_damaged_issues_no_ticket_twice(yard: Path, key: bytes) -> None:
    sent = int(meta(yard / "n1")["sent_number"])  # what is between this and `last_number` was set aside for more
    damage(yard / "n1", key)
    found = meta(yard / "n1")
    assert int(found["last_number"]) >= sent + LEAP
    assert int(found["sent_number"]) >= sent, "any of them may have been sent"
    with lmdb.open(str(yard / "n1"), max_dbs=30, lib_version=0) as env, env.begin() as transaction:
        assert transaction.get(b"meta/" + key, db=env.open_db(b"quarantine", transaction)) is not None


def test_a_damaged_number_is_no_lower_than_what_was_sent_even_where_no_job_is_left(tmp_path: Path) -> None:
    store = opened(tmp_path / "n")
    numbers = {b"last_number": b"2000", b"sent_number": b"1500"}
    ticket_prefix(store)
    directory_id(store)
    store.commit([Put(Table.META, key, value) for key, value in numbers.items()])
    store.close()
    damage(tmp_path / "n", b"last_number")
    found = meta(tmp_path / "n")
    assert (int(found["sent_number"]), int(found["last_number"])) == (1500, 1500 + LEAP)


@pytest.mark.parametrize("key", [b"id", b"last_end"])
def test_a_balancer_whose_numbers_are_damaged_is_another_ledger(yard: Path, key: bytes) -> None:
    damage(yard / "balancer", key)
    found = meta(yard / "balancer")
    assert "id" not in found
    assert int(found["last_end"]) >= LEAP


def test_a_node_that_does_not_know_its_ledger_any_more_tells_the_next_everything(yard: Path) -> None:
    damage(yard / "n1", b"ledger_id")
    assert meta(yard / "n1")["ledger_id"] == "?"


@pytest.mark.parametrize("key", [b"id", b"prefix"])
def test_a_node_that_does_not_know_who_it_is_does_not_start(yard: Path, key: bytes) -> None:
    damage(yard / "n1", key)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"the record {key.decode()} is damaged"):
            opened(yard / "n1")


# --- what becomes of the jobs ------------------------------------------------------------------------------------


def test_a_node_from_a_copy_issues_no_ticket_that_was_issued_after_it(yard: Path) -> None:
    copy_to(yard / "n1", yard / "older")
    with machines(yard, NOW) as (cluster, _):
        link(cluster)
        since = [cluster.submit("n1") for _ in range(5)]
        run_all(cluster)
    put_back(yard, "n1")
    with machines(yard, NOW + 100) as (cluster, _):
        link(cluster)
        new = [cluster.submit("n1") for _ in range(5)]
        assert not set(new) & set(since)
        run_all(cluster)
        for ticket in since + new:
            assert state_of(cluster, ticket, "n2") == "succeeded"


def test_a_balancer_from_a_copy_loses_no_job_that_it_took_in_since(yard: Path) -> None:
    """Under its old id it would answer nodes that ask for these that they lapsed long ago."""
    copy_to(yard / "balancer", yard / "older")
    with machines(yard, NOW) as (cluster, _):
        link(cluster)
        live = [cluster.submit(name) for name in ("n1", "n3")]
        ended = cluster.submit("n3")
        while not (where := cluster.where(ended)):  # what arrived before it begins before it
            name, id = next(
                (name, id) for name, node in cluster.nodes.items() for id in node.running if id[0] not in live
            )
            cluster.finish(name, id)
        ((name, id),) = where
        cluster.finish(name, id, output=b"kept")
        cluster.sync()
    put_back(yard, "balancer")
    with machines(yard, NOW + 100) as (cluster, stores):
        ledger_id = directory_id(stores["balancer"])
        assert ledger_id != LEDGER_ID
        cluster._kept = (cluster._kept[0], ledger_id)
        link(cluster)
        run_all(cluster)
        for ticket in live:
            assert state_of(cluster, ticket, "n1") == "succeeded"
        assert (cluster.say("n1", f"result {ended}") or "").endswith("bytes=4\nkept\n")


def test_a_node_restored_over_its_own_file_is_told_by_the_mark_of_its_copy(yard: Path) -> None:
    """`cp` onto a file keeps its number: only a copy that the program made is noticed then."""
    last = int(meta(yard / "n1")["last_number"])
    copy_to(yard / "n1", yard / "older")
    shutil.copyfile(yard / "older" / "data.mdb", yard / "n1" / "data.mdb")
    assert int(meta(yard / "n1")["last_number"]) == last + LEAP


def put_back(yard: Path, name: str) -> None:
    shutil.rmtree(yard / name)
    (yard / "older").rename(yard / name)


def run_all(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.finish_all()
        cluster.advance(20)


def test_identity_is_made_once_and_is_in_the_copy(tmp_path: Path) -> None:
    store = opened(tmp_path / "n")
    prefix, node_id = ticket_prefix(store), directory_id(store)
    store.commit([Put(Table.META, b"last_number", b"3"), Delete(Table.META, b"nothing")])
    store.close()
    copy_to(tmp_path / "n", tmp_path / "copy")
    store = opened(tmp_path / "copy")
    assert (ticket_prefix(store), directory_id(store)) == (prefix, node_id)
    assert prefix not in PREFIXES.values()
    store.close()
