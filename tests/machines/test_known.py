"""Which tickets have ever arrived, without looking through the tables for those that surely have not."""

import random

import pytest

from balancer.known import Known
from common.codec import pack
from common.effects import Table
from common.memory import Memory
from common.model import Job, ticket_key
from tests.machines.cluster import Cluster, Disk

TABLES = (Table.ENDED, Table.ALIASES, Table.TOMBSTONES, Table.NOTICES)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_known_is_what_is_live_or_in_a_table_whatever_was_asked_before(seed: int) -> None:
    chance = random.Random(seed)
    disk, live = Disk(), set[str]()
    tickets = [f"{prefix}-{number}" for prefix in ("aaaaaa", "aaaaab") for number in range(1, 30)]
    arrived = set(chance.sample(tickets, 30))
    for ticket in arrived:
        table = chance.choice((Table.LIVE, *TABLES))
        disk.tables[table][ticket_key(ticket)] = b""
        if table is Table.LIVE:
            live.add(ticket)
    known = Known(Memory(disk), live)
    for _ in range(200):
        ticket = f"{chance.choice(('aaaaaa', 'aaaaab', 'aaaaac'))}-{chance.randrange(1, 45)}"
        assert (ticket in known) == (ticket in arrived)
        if chance.random() < 0.3:
            known.arrived(ticket)
            arrived.add(ticket)
            live.add(ticket)
        elif ticket in live and chance.random() < 0.5:
            live.discard(ticket)
            disk.tables[chance.choice(TABLES)][ticket_key(ticket)] = b""


def test_an_element_is_known_by_its_array() -> None:
    disk = Disk()
    disk.tables[Table.LIVE][ticket_key("aaaaaa-3")] = b""
    known = Known(Memory(disk), {"aaaaaa-3"})
    assert "aaaaaa-3_7" in known
    assert "aaaaaa-4_7" not in known


def test_to_ask_for_what_nobody_has_leaves_nothing_behind() -> None:
    known = Known(Memory(Disk()), set())
    known.arrived("aaaaaa-3")
    for number in range(100):
        assert f"aaaa{'abcdefghij'[number // 10]}{'abcdefghij'[number % 10]}-7" not in known
    assert "aaaaaa-999999999999999999" not in known
    assert known._newest == {"aaaaaa": 3}


def test_the_ledger_knows_another_name_that_it_has_learned_and_a_job_of_which_only_the_job_is_left() -> None:
    cluster = Cluster(1)
    assert cluster.balancer is not None
    ledger = cluster.balancer.machine._ledger
    ledger.has_arrived("aaaaaz-1")
    ledger.learn_alias("aaaaaz-5", "aaaaaa-1")
    assert ledger.knows("aaaaaz-5")
    cluster.balancer.disk.tables[Table.JOBS][ticket_key("aaaaaz-9")] = pack(Job("sh", "true"))
    assert ledger.fail_lost("aaaaaz-9", cluster.wall)
    assert ledger.knows("aaaaaz-9")
