"""Inspections: what machines write is sound, and whatever is missing, foreign or damaged is told of, record by record.

(That everything that machines write is sound is also asserted after each step in test_any_order.py.)
"""

from collections.abc import Callable

import pytest

from balancer.arrays import ArrayRecord
from balancer.records import LiveRecord
from balancer.roster import NodeRecord
from common.codec import pack, replace, unpack
from common.effects import Table
from common.inspection import Finding
from common.keys import Claim
from common.messages import Reported
from common.model import Ended, Job, Outcome, State, Verdict, ticket_key
from node.delivery import OwnLease
from tests.golden.story import NODE_IDS, Story
from tests.machines.sound import Tables, assert_all_sound, findings, tables_of

Damage = Callable[[Tables], object]
STORY = Story()
TICKETS = STORY.tickets
KEYS = {what: ticket_key(ticket) for what, ticket in TICKETS.items()}
LIVE_ELEMENT = ticket_key(f"{TICKETS['array that is live']}_3")
EXPIRES = next(key for key in STORY.disks["n1"].tables[Table.EXPIRY] if key.endswith(KEYS["succeeded"]))
OUTCOME = KEYS["running 2"] + (1).to_bytes(4, "big")


def problems(name: str, damage: Damage) -> list[Finding]:
    tables = tables_of(STORY.disks[name])
    damage(tables)
    return [found for found in findings(tables, "balancer" if name == "balancer" else "node") if found.is_problem]


def without(table: Table, key: bytes) -> Damage:
    return lambda tables: tables[table].pop(key)


def put(table: Table, key: bytes, value: bytes) -> Damage:
    return lambda tables: tables[table].update({key: value})


def changed(table: Table, key: bytes, cls: type, **fields: object) -> Damage:
    return lambda tables: tables[table].update({key: pack(replace(unpack(cls, tables[table][key]), **fields))})


@pytest.mark.parametrize("name", STORY.disks)
def test_everything_that_leaves_a_record_is_sound(name: str) -> None:
    assert findings(tables_of(STORY.disks[name]), "balancer" if name == "balancer" else "node") == []


def test_the_disks_of_a_cluster_are_looked_at_up_and_down() -> None:
    story = Story()
    assert_all_sound(story.cluster)
    story.disks["n3"].tables[Table.JOBS].clear()
    with pytest.raises(AssertionError, match="on the disk of n3"):
        assert_all_sound(story.cluster)


ENDED = pack(Ended(State.FAILED, 1.0))
JOB = pack(Job("sh", "true"))
OF_A_NODE: list[tuple[str, Damage, str]] = [
    ("jobs", without(Table.LIVE, KEYS["never sent"]), "neither live nor ended"),
    ("jobs", without(Table.BODIES, KEYS["never sent, with a body"]), "has no body"),
    ("bodies", put(Table.BODIES, KEYS["never sent, with a body"], b"short"), "its job says 6"),
    ("bodies", put(Table.BODIES, ticket_key("aaaaab-999"), b"x"), "of a job that is not there"),
    ("live", without(Table.JOBS, KEYS["blocked"]), "its job is not there"),
    ("ended", without(Table.JOBS, KEYS["succeeded"]), "its job is not there"),
    ("ended", put(Table.LIVE, KEYS["succeeded"], b""), "and is live"),
    ("ended", without(Table.OUTPUTS, KEYS["succeeded"]), "has no output"),
    ("ended", without(Table.EXPIRY, EXPIRES), "will never expire"),
    ("ended", changed(Table.ENDED, KEYS["succeeded"], Ended, state=State.RUNNING), "no end"),
    ("outputs", put(Table.OUTPUTS, KEYS["succeeded"], b"longer than it was"), "18 bytes"),
    ("outputs", put(Table.OUTPUTS, KEYS["blocked"], b"x"), "has not ended"),
    ("expiry", without(Table.ENDED, KEYS["succeeded"]), "an end that is not there"),
    ("expiry", changed(Table.ENDED, KEYS["succeeded"], Ended, ended_wall=1.0), "at another moment"),
    ("expiry", put(Table.EXPIRY, EXPIRES, b"x"), "of the kind b'x'"),
    ("tombstones", put(Table.TOMBSTONES, KEYS["expired"], b"why"), "says b'why'"),
    ("keys", without(Table.JOBS, KEYS["first of its key"]), "never be free"),
    ("keys", put(Table.KEYS, b"another", pack(Claim(TICKETS["first of its key"], b""))), "whose key is 'once'"),
    ("keys", put(Table.KEYS, b"another", pack(Claim("nonsense", b""))), "cannot be read: 'nonsense' is no ticket"),
    ("aliases", put(Table.ALIASES, KEYS["forgotten"], TICKETS["forgotten"].encode()), "another name of itself"),
    ("jobs", put(Table.JOBS, KEYS["blocked"], pack(Claim("x", b""))), "cannot be read: not a Job"),
    ("jobs", put(Table.JOBS, KEYS["blocked"], pack(Job("sh", "x", array="9-1"))), "its array is none"),
    ("jobs", put(Table.JOBS, b"short", JOB), "is no ticket"),
    ("jobs", put(Table.JOBS, ticket_key("aaaaab-3_4"), JOB), "job of an element"),
    ("jobs", put(Table.JOBS, ticket_key("zzzzzz-1"), JOB), "was not issued here"),
    ("ended", put(Table.META, b"last_number", b"12"), "will be issued again: the last number is 12"),
    ("meta", put(Table.META, b"sent_number", b"99999"), "no ticket above"),
    ("meta", put(Table.META, b"acknowledged_number", b"many"), "is no number"),
    ("meta", put(Table.META, b"draining", b"yes"), "can be b'1'"),
    ("meta", put(Table.META, b"prefix", b"UPPER"), "no ticket can begin"),
    ("live", put(Table.LIVE, KEYS["blocked"], pack(OwnLease(0, ""))), "leased here as attempt 0"),
    ("outcomes", changed(Table.OUTCOMES, OUTCOME, Reported, attempt=2), "says that it is of 2"),
    ("outcomes", without(Table.OUTCOME_OUTPUTS, OUTCOME), "has no output"),
    ("outcome_outputs", without(Table.OUTCOMES, OUTCOME), "whose outcome is not there"),
    ("outcome_outputs", changed(Table.OUTCOMES, OUTCOME, Reported, outcome=Outcome(Verdict.SUCCEEDED)), "another size"),
    ("jobs", lambda tables: tables["jobs"].update({KEYS["blocked"]: None}), "does not match its checksum"),
    ("events", put(Table.EVENTS, b"x", b"y"), "does not use"),
]
LAST_EVENTS = max(STORY.disks["balancer"].tables[Table.EVENTS])
OF_A_BALANCER: list[tuple[str, Damage, str]] = [
    ("meta", put(Table.META, b"last_end", b"x"), "is no number"),
    ("meta", put(Table.META, b"tag", b"toolong"), "four letters"),
    ("ended", put(Table.META, b"last_end", b"3"), "the last end had 3"),
    ("live", without(Table.JOBS, KEYS["blocked"]), "its job is not there"),
    ("live", without(Table.LIVE, KEYS["array that is live"]), "its array is not live"),
    ("live", changed(Table.LIVE, KEYS["with limits"], LiveRecord, boot_id=None), "to the boot None"),
    ("live", changed(Table.LIVE, KEYS["with limits"], LiveRecord, node_id="nobody"), "which nobody has met"),
    ("live", changed(Table.LIVE, KEYS["with limits"], LiveRecord, due_wall=5.0), "still to wait"),
    ("live", changed(Table.LIVE, KEYS["blocked"], LiveRecord, cancelled=True), "has not ended"),
    ("live", changed(Table.LIVE, KEYS["blocked"], LiveRecord, waits_for=("x",)), "no ticket"),
    ("live", changed(Table.LIVE, KEYS["blocked"], LiveRecord, array="x"), "its array is none"),
    ("live", changed(Table.LIVE, KEYS["blocked"], LiveRecord, takes_input=True), "an input, and its job names none"),
    ("arrays", without(Table.LIVE, LIVE_ELEMENT), "2 have ended and 1 are live"),
    ("arrays", changed(Table.ARRAYS, KEYS["array that is live"], ArrayRecord, next=999), "below nothing"),
    ("arrays", put(Table.ARRAYS, KEYS["blocked"], pack(ArrayRecord())), "and is none"),
    ("arrays", put(Table.ARRAYS, ticket_key("aaaaab-999"), pack(ArrayRecord())), "whose job is not there"),
    ("outputs", put(Table.OUTPUTS, KEYS["blocked"], b"x"), "no attempt has failed"),
    ("outputs", put(Table.OUTPUTS, ticket_key("aaaaab-999"), b"x"), "neither ended nor live"),
    ("ended", lambda tables: tables["groups"].clear(), "not found among the ends of its group 'night'"),
    ("groups", without(Table.ENDED, KEYS["of a group"]), "which has not ended"),
    ("groups", put(Table.GROUPS, b"night\0" + bytes(8), KEYS["of a group"]), "whose end has the number"),
    ("groups", put(Table.GROUPS, b"night", KEYS["of a group"]), "cannot be read"),
    ("attempts", changed(Table.ATTEMPTS, KEYS["tried twice"] + b"\0\0\0\0\1", Ended, attempt=9), "says that it is 9"),
    ("notices", put(Table.NOTICES, KEYS["succeeded"], b"gone"), "says b'gone'"),
    ("origins", put(Table.ORIGINS, b"zzzzzz", b"nobody"), "nobody has met"),
    ("origins", put(Table.ORIGINS, b"UPPER!", NODE_IDS["n1"].encode()), "no beginning of tickets"),
    ("nodes", without(Table.ORIGINS, b"aaaaac"), "which belongs to nobody"),
    ("nodes", put(Table.NODES, b"x", pack(NodeRecord("n", "aaaaac", "b", 1, ()))), f"belongs to {NODE_IDS['n2']}"),
    ("events", put(Table.EVENTS, LAST_EVENTS, bytes(8) + b"{no json\n"), "is no JSON"),
    ("events", put(Table.EVENTS, LAST_EVENTS, bytes(8) + b'{"seq":1}\n'), "under another number"),
    ("events", put(Table.EVENTS, b"key", b""), "no record of events"),
]


@pytest.mark.parametrize(("table", "damage", "told"), OF_A_NODE, ids=[told for _, _, told in OF_A_NODE])
def test_what_is_wrong_with_a_nodes_records_is_told(table: str, damage: Damage, told: str) -> None:
    assert any(found.table == table and told in found.what for found in problems("n1", damage)), problems("n1", damage)


@pytest.mark.parametrize(("table", "damage", "told"), OF_A_BALANCER, ids=[told for _, _, told in OF_A_BALANCER])
def test_what_is_wrong_with_a_balancers_records_is_told(table: str, damage: Damage, told: str) -> None:
    found = problems("balancer", damage)
    assert any(each.table == table and told in each.what for each in found), found


def test_what_was_set_aside_is_remarked_once_and_what_points_at_it_is_no_problem() -> None:
    tables = tables_of(STORY.disks["balancer"])
    tables["quarantine"] = {b"jobs/" + KEYS["succeeded"]: tables[Table.JOBS].pop(KEYS["succeeded"])}
    (found,) = findings(tables, "balancer")
    assert not found.is_problem
    assert found.table == "quarantine"
    assert "did not match its checksum" in found.what


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (put(Table.META, b"colour", b"red"), "nothing that this version knows"),
        (without(Table.TOMBSTONES, KEYS["forgotten"]), "tombstone that has gone"),
        (without(Table.EVENTS, sorted(STORY.disks["balancer"].tables[Table.EVENTS])[3]), "the one before ended at"),
        (lambda tables: tables.update({"unheard of": {}}), "no table that this version knows"),
    ],
)
def test_what_does_no_harm_is_remarked(damage: Damage, told: str) -> None:
    tables = tables_of(STORY.disks["balancer"])
    damage(tables)
    (found,) = findings(tables, "balancer")
    assert told in found.what
    assert not found.is_problem
