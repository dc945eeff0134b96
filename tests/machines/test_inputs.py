"""Inputs: a job is given what others have printed, all of it and in the order in which it names it, or
does not run."""

import attrs
import pytest

from balancer import inputs, rounds
from balancer.inputs import Inputs
from balancer.records import LiveRecord
from common.codec import pack, replace, unpack
from common.effects import Table
from common.messages import Dispatch
from common.model import Ended, Outcome, Reason, State, Verdict, ticket_key
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.5)
KEPT_A_MINUTE = attrs.evolve(PERIODS, retention_s=60.0)


def end(cluster: Cluster, ticket: str, output: bytes = b"", *, stderr: bytes = b"", truncated: bool = False) -> None:
    """The attempt of a job that runs succeeds, having printed this."""
    ((name, id),) = cluster.where(ticket)
    sizes = (len(output), len(stderr), truncated)
    outcome = Outcome(Verdict.SUCCEEDED, None, 0, 0.5, *sizes)
    cluster.finish(name, id, output=output + stderr, outcome=outcome)


def given(cluster: Cluster, ticket: str) -> bytes:
    """The standard input with which the present attempt of a job was started."""
    ((name, id),) = cluster.where(ticket)
    return cluster.nodes[name].running[id].body


def record_of(cluster: Cluster, ticket: str) -> LiveRecord:
    """What the ledger has on disk of a live job."""
    assert cluster.balancer is not None
    return unpack(LiveRecord, cluster.balancer.disk.tables[Table.LIVE][ticket_key(ticket)])


def because(cluster: Cluster, ticket: str, name: str = "n1") -> str:
    """Why EXPLAIN says that a job was cancelled for what it waited for."""
    assert status(cluster, ticket, name).startswith(f"OK {ticket} state=cancelled")
    assert field(status(cluster, ticket, name), "reason") == "dependency"
    text = cluster.say(name, f"explain {ticket}")
    assert text is not None
    _, _, tail = text.partition("\nbecause")
    lines = tail.split("\n")
    return " ".join(line.strip() for line in (lines[0], *(line for line in lines[1:2] if line.startswith(" " * 10))))


# --- what is given -------------------------------------------------------------------------------------------------


def test_a_job_reads_its_own_body_and_then_what_others_have_printed_in_the_order_in_which_it_names_them() -> None:
    cluster = Cluster(2)
    first, second = cluster.submit("n1"), cluster.submit("n2")
    reply = cluster.say("n1", f"submit input={second},{first},{second} bytes=5 sh cat", b"own: ")
    assert reply is not None
    last = reply.split()[1]
    assert state_of(cluster, last) == "blocked"
    end(cluster, first, b"one ", stderr=b"and an error")
    assert state_of(cluster, last) == "blocked"
    end(cluster, second, b"two ")
    assert given(cluster, last) == b"own: two one two "


def test_an_output_that_was_there_before_is_given_as_well_and_an_empty_one_is_nothing() -> None:
    cluster = Cluster(1)
    first, silent = cluster.submit("n1"), cluster.submit("n1")
    end(cluster, first, b"one")
    end(cluster, silent, stderr=b"only an error")
    assert given(cluster, cluster.submit("n1", f"input={silent},{first} sh cat")) == b"one"


def test_what_an_array_has_printed_comes_in_the_order_of_its_indexes() -> None:
    cluster = Cluster(2, slots=4)
    array = cluster.submit("n1", "array=8-12:2 sh work {}")
    last = cluster.submit("n2", f"input={array} sh cat")
    for index in (12, 8, 10):
        assert state_of(cluster, last) == "blocked"
        end(cluster, f"{array}_{index}", b"%d " % index)
    assert given(cluster, last) == b"8 10 12 "


def test_one_element_of_an_array_is_an_input_too() -> None:
    cluster = Cluster(1, slots=3)
    array = cluster.submit("n1", "array=1-3 sh work {}")
    last = cluster.submit("n1", f"input={array}_2 sh cat")
    end(cluster, f"{array}_2", b"two")
    end(cluster, f"{array}_1", b"one")
    assert given(cluster, last) == b"two"


def test_each_element_of_an_array_is_given_the_whole_input() -> None:
    cluster = Cluster(1, slots=3)
    first = cluster.submit("n1")
    array = cluster.submit("n1", f"input={first} array=1-3 sh work {{}}")
    end(cluster, first, b"for all")
    assert [given(cluster, f"{array}_{index}") for index in (1, 2, 3)] == [b"for all"] * 3


def test_who_waits_for_some_and_reads_others_waits_for_all_and_reads_those() -> None:
    cluster = Cluster(1)
    waited_for, read = cluster.submit("n1"), cluster.submit("n1")
    last = cluster.submit("n1", f"after={waited_for} input={read} sh cat")
    end(cluster, read, b"read")
    assert state_of(cluster, last) == "blocked"
    end(cluster, waited_for, b"not read")
    assert given(cluster, last) == b"read"


def test_what_is_named_by_its_second_name_is_the_first_ones_output() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1", "key=k sh work")
    cluster.kill_balancer()
    second = cluster.submit("n2", "key=k sh work")
    last = cluster.submit("n2", f"input={second} sh cat")
    cluster.start_balancer()
    for name in ("n1", "n2"):
        cluster.dial(name)
    assert first != second
    end(cluster, first, b"printed once")
    assert given(cluster, last) == b"printed once"


def test_a_name_that_turns_out_to_be_a_second_one_has_the_first_one_kept() -> None:
    cluster = Cluster(2)
    link = cluster.nodes["n2"].link
    assert link is not None
    cluster.cut(link)
    first, second = cluster.submit("n1", "key=k sh work"), cluster.submit("n2", "key=k sh work")
    last = cluster.submit("n1", f"delay=60 input={second} sh cat")
    end(cluster, first, b"printed once")
    assert first != second
    cluster.dial("n2")
    assert (cluster.say("n1", f"forget {first}") or "").startswith(f"ERR CONFLICT {first} is succeeded, and its output")
    cluster.advance(61)
    assert given(cluster, last) == b"printed once"


# --- on every path -------------------------------------------------------------------------------------------------


def test_every_attempt_has_the_same_input() -> None:
    cluster = Cluster(2)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} retries=1 backoff=1 sh cat")
    end(cluster, first, b"same")
    assert given(cluster, last) == b"same"
    cluster.finish(*cluster.where(last)[0], outcome=FAILED)
    cluster.advance(2)
    assert given(cluster, last) == b"same"
    cluster.kill_node(cluster.where(last)[0][0])
    cluster.advance(PERIODS.node_timeout_s + 5)
    ((_, (_, attempt)),) = cluster.where(last)
    assert attempt == 3
    assert given(cluster, last) == b"same"


def test_retry_gives_the_same_input_again() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    end(cluster, first, b"same")
    cluster.finish("n1", (last, 1), outcome=FAILED)
    assert cluster.say("n1", f"retry {last}") == f"OK {last} state=queued\n"
    assert given(cluster, last) == b"same"


def test_retry_waits_for_an_input_that_is_being_retried_itself() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    cluster.finish("n1", (first, 1), outcome=FAILED)
    assert because(cluster, last) == f"{first} failed"
    assert cluster.say("n1", f"retry {last}") == (
        f"ERR CONFLICT {last} is cancelled, and its input is not to be had: {first} failed\n"
    )
    cluster.say("n1", f"retry {first}")
    cluster.say("n1", f"retry {last}")
    assert state_of(cluster, last) == "blocked"
    end(cluster, first, b"at last")
    assert given(cluster, last) == b"at last"


def test_the_elements_of_an_array_that_are_retried_have_the_same_input() -> None:
    cluster = Cluster(1, slots=3)
    first = cluster.submit("n1")
    array = cluster.submit("n1", f"input={first} array=1-2 sh work {{}}")
    end(cluster, first, b"same")
    for index in (1, 2):
        cluster.finish("n1", (f"{array}_{index}", 1), outcome=FAILED)
    cluster.say("n1", f"retry {array}_2")
    assert given(cluster, f"{array}_2") == b"same"
    assert cluster.balancer is not None
    (node,) = cluster.balancer.machine._roster
    assert node.weight_bytes == record_of(cluster, array).bytes, "an element weighs what it is given"
    end(cluster, f"{array}_2")
    cluster.say("n1", f"retry {array}")
    assert given(cluster, f"{array}_1") == b"same"


def test_an_input_outlives_the_balancer_and_is_kept_by_the_next_start() -> None:
    cluster = Cluster(1, slots=1, periods=KEPT_A_MINUTE)
    first, other, busy = cluster.submit("n1"), cluster.submit("n1"), cluster.submit("n1", "sh long")
    last = cluster.submit("n1", f"input={first},{busy} sh cat")
    end(cluster, first, b"kept ")
    end(cluster, other)
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    cluster.advance(90)
    assert (cluster.say("n1", f"status {other}") or "").startswith("ERR EXPIRED")
    end(cluster, busy, b"and new")
    assert given(cluster, last) == b"kept and new"


def test_a_lease_that_was_lost_on_the_way_is_sent_again_with_the_same_input() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    node = cluster.nodes["n1"]
    cluster.frozen = frozenset({"n1"})
    end(cluster, first, b"same")
    assert not cluster.where(last)
    assert record_of(cluster, last).leased
    assert node.link is not None
    cluster.frozen = frozenset()
    cluster._to_node[node.link].clear()
    cluster.dial("n1")
    assert given(cluster, last) == b"same"
    assert cluster.starts == {(first, 1): 1, (last, 1): 1}


def test_a_new_ledger_is_brought_the_inputs_by_their_origins() -> None:
    cluster = Cluster(2, slots=1)
    first, second = cluster.submit("n1"), cluster.submit("n2")
    last = cluster.submit("n1", f"input={first},{second} sh cat")
    end(cluster, first, b"one ")
    cluster.sync()
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n2")
    cluster.dial("n1")
    assert state_of(cluster, last) == "blocked"
    end(cluster, second, b"two")
    assert given(cluster, last) == b"one two"


def test_an_attempt_that_an_earlier_ledger_gave_out_waits_for_its_input_before_it_is_given_out_again() -> None:
    cluster = Cluster(1)
    cluster.add_node("n2", slots=0)
    first = cluster.submit("n2")
    last = cluster.submit("n1", f"input={first} sh cat")
    cluster.kill_node("n2")
    end(cluster, first, b"of which its origin never heard")
    assert given(cluster, last) == b"of which its origin never heard"
    cluster.sync()
    cluster.kill_balancer()
    cluster.start_balancer(volume_lost=True)
    cluster.restart_node("n2")
    cluster.dial("n1")
    assert state_of(cluster, last) == "running"
    cluster.kill_node("n1")
    cluster.restart_node("n1")
    assert state_of(cluster, last) == "blocked"
    end(cluster, first, b"printed again")
    assert given(cluster, last) == b"printed again"


# --- what cannot be an input ---------------------------------------------------------------------------------------


def test_who_reads_what_fails_is_cancelled_and_explain_says_which_it_was() -> None:
    cluster = Cluster(2)
    good, bad = cluster.submit("n1"), cluster.submit("n2")
    last = cluster.submit("n1", f"input={good},{bad} sh cat")
    later = cluster.submit("n2", f"after={last} sh true")
    end(cluster, good, b"fine")
    cluster.finish(*cluster.where(bad)[0], outcome=FAILED)
    assert because(cluster, last) == f"{bad} failed"
    assert because(cluster, later, "n2") == f"{last} was cancelled"
    assert because(cluster, later, "n1") == f"{last} was cancelled"


def test_an_array_that_reads_what_fails_says_so_as_a_whole_and_for_each_element() -> None:
    cluster = Cluster(1)
    bad = cluster.submit("n1")
    array = cluster.submit("n1", f"input={bad} array=1-3 sh work {{}}")
    cluster.finish("n1", (bad, 1), outcome=FAILED)
    assert because(cluster, array) == because(cluster, f"{array}_2") == f"{bad} failed"


def test_a_ticket_that_nobody_issued_is_no_input() -> None:
    cluster = Cluster(2)
    unknown = f"{cluster.nodes['n2'].who.prefix}-99"
    assert because(cluster, cluster.submit("n1", f"input={unknown} sh cat")) == f"there is no job {unknown}"


def test_jobs_that_read_each_other_are_cancelled() -> None:
    cluster = Cluster(2)
    one, two = f"{cluster.nodes['n1'].who.prefix}-1", f"{cluster.nodes['n2'].who.prefix}-1"
    cluster.busy("balancer")
    assert cluster.submit("n1", f"input={two} sh true") == one
    assert cluster.submit("n2", f"after={one} sh true") == two
    cluster.free("balancer")
    assert {because(cluster, one), because(cluster, two)} == {"it waits for itself", f"{two} was cancelled"}


def test_an_output_that_was_cut_is_no_input() -> None:
    cluster = Cluster(1, slots=3)
    array = cluster.submit("n1", "array=1-2 sh work {}")
    last = cluster.submit("n1", f"input={array} sh cat")
    end(cluster, f"{array}_1", b"whole")
    end(cluster, f"{array}_2", b"cut", truncated=True)
    assert because(cluster, last) == f"the output of {array}_2 was cut (truncated=1)"
    assert not cluster.where(last)


@pytest.mark.parametrize(("own", "is_given"), [(10, True), (11, False)])
def test_a_body_and_its_inputs_come_to_no_more_than_a_body_may(
    own: int, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BODY_BYTES_MAX", 100)
    cluster = Cluster(1, slots=3)
    array = cluster.submit("n1", "array=1-3 sh work {}")
    reply = cluster.say("n1", f"submit input={array} bytes={own} sh cat", b"x" * own)
    assert reply is not None
    last = reply.split()[1]
    for index in (1, 2, 3):
        end(cluster, f"{array}_{index}", b"y" * 30)
    if is_given:
        assert given(cluster, last) == b"x" * 10 + b"y" * 90
    else:
        assert because(cluster, last) == "its input comes to 101 bytes; 100 are allowed"


def lose(cluster: Cluster, table: Table, ticket: str) -> None:
    """A record is damaged on disk: whoever reads it finds nothing."""
    assert cluster.balancer is not None
    del cluster.balancer.disk.tables[table][ticket_key(ticket)]


@pytest.mark.parametrize("at_rest", [True, False])
def test_an_output_that_is_damaged_is_never_given_as_something_else(at_rest: bool) -> None:
    cluster = Cluster(1, slots=1)
    array = cluster.submit("n1", "array=1-2 sh work {}")
    end(cluster, f"{array}_1", b"one")
    busy = cluster.submit("n1", "priority=9 sh long") if at_rest else None
    last = cluster.submit("n1", f"input={array} sh cat")
    if at_rest:
        end(cluster, f"{array}_2", b"two")
        assert state_of(cluster, last) == "dispatched"
        assert busy is not None
    lose(cluster, Table.OUTPUTS, f"{array}_1")
    if at_rest:
        cluster.kill_node("n1")
        cluster.restart_node("n1")
    else:
        end(cluster, f"{array}_2", b"two")
    assert because(cluster, last) == f"the output of {array}_1 is damaged"


def test_a_body_that_is_damaged_is_never_left_out_of_an_input() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    reply = cluster.say("n1", f"submit input={first} bytes=3 sh cat", b"own")
    assert reply is not None
    last = reply.split()[1]
    lose(cluster, Table.BODIES, last)
    end(cluster, first, b"one")
    assert because(cluster, last) == "its own body is damaged"


def test_a_lease_whose_input_is_damaged_before_it_is_sent_again_is_taken_back() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    cluster.frozen = frozenset({"n1"})
    end(cluster, first, b"gone")
    link = cluster.nodes["n1"].link
    assert link is not None
    cluster.frozen = frozenset()
    cluster._to_node[link].clear()
    lose(cluster, Table.OUTPUTS, first)
    cluster.dial("n1")
    assert because(cluster, last) == f"the output of {first} is damaged"
    assert (last, 1) not in cluster.starts


def test_elements_of_an_array_that_a_lost_ledger_took_with_it_are_no_input() -> None:
    cluster = Cluster(1, slots=3)
    array = cluster.submit("n1", "array=1-2 sh work {}")
    for index in (1, 2):
        end(cluster, f"{array}_{index}", b"lost with the volume")
    cluster.sync()
    cluster.kill_balancer()
    last = cluster.submit("n1", f"input={array} sh cat")
    cluster.start_balancer(volume_lost=True)
    cluster.dial("n1")
    assert because(cluster, last) == f"the outputs of 2 elements of {array} are no longer kept"


def test_a_node_without_a_balancer_runs_no_job_with_an_input() -> None:
    cluster = Cluster(1, fallback_s=10.0)
    cluster.kill_balancer()
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    cluster.advance(11)
    end(cluster, first, b"one")
    cluster.advance(60)
    assert not cluster.where(last)
    cluster.start_balancer()
    cluster.dial("n1")
    assert given(cluster, last) == b"one"


# --- kept as long as they are wanted -------------------------------------------------------------------------------


def test_an_output_stays_as_long_as_a_live_job_wants_it_and_then_goes() -> None:
    cluster = Cluster(1, periods=KEPT_A_MINUTE)
    first, other = cluster.submit("n1"), cluster.submit("n1")
    delayed = cluster.submit("n1", f"input={first} delay=200 sh cat")
    end(cluster, first, b"kept")
    end(cluster, other)
    cluster.advance(199)
    assert (cluster.say("n1", f"result {other}") or "").startswith("ERR")
    cluster.advance(2)
    assert given(cluster, delayed) == b"kept"
    end(cluster, delayed)
    cluster.advance(3)
    assert (cluster.say("n1", f"result {first}") or "").startswith("ERR")


def test_what_an_array_has_printed_stays_with_it_and_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.history.EXPIRE_PER_STEP_MAX", 3)
    cluster = Cluster(1, slots=6, periods=KEPT_A_MINUTE)
    array = cluster.submit("n1", "array=1-5 sh work {}")
    delayed = cluster.submit("n1", f"input={array}_3 delay=200 sh cat")
    for index in range(1, 6):
        end(cluster, f"{array}_{index}", b"%d" % index)
    others = [cluster.submit("n1") for _ in range(4)]
    for ticket in others:
        end(cluster, ticket)
    cluster.advance(70)
    assert cluster.balancer is not None
    kept = cluster.balancer.disk.tables[Table.ENDED]
    assert not {ticket_key(ticket) for ticket in others} & set(kept)
    assert len(kept) == 6, "the array and its elements"
    cluster.store_level("balancer", 0.7)
    cluster.advance(131)
    assert given(cluster, delayed) == b"3"


def test_what_is_wanted_is_not_forgotten_and_the_refusal_says_by_whom() -> None:
    cluster = Cluster(1, slots=4)
    first, array = cluster.submit("n1", "group=g sh true"), cluster.submit("n1", "group=g array=1-2 sh true")
    loose = cluster.submit("n1", "group=g sh true")
    for ticket in (first, f"{array}_1", f"{array}_2", loose):
        end(cluster, ticket, b"x")
    last = cluster.submit("n1", f"delay=10 input={first},{array}_2 sh cat")
    for ticket in (first, array):
        assert cluster.say("n1", f"forget {ticket}") == (
            f"ERR CONFLICT {ticket} is succeeded, and its output is kept as input for {last}; "
            "it can be forgotten when that has ended\n"
        )
    assert cluster.say("n1", "forget group=g") == "OK group=g count=1\n"
    cluster.advance(11)
    assert given(cluster, last) == b"xx"
    end(cluster, last)
    assert cluster.say("n1", "forget group=g") == "OK group=g count=2\n"


def test_a_cancelled_job_wants_nothing_any_more() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    end(cluster, first, b"x")
    last = cluster.submit("n1", f"delay=10 input={first} sh cat")
    cluster.say("n1", f"cancel {last}")
    assert cluster.say("n1", f"forget {first}") == f"OK {first}\n"


def test_an_input_is_gathered_once_for_an_array_and_let_go_with_it() -> None:
    cluster = Cluster(1, slots=1)
    first = cluster.submit("n1")
    array = cluster.submit("n1", f"input={first} array=1-3%1 sh work {{}}")
    end(cluster, first, b"for all")
    assert cluster.balancer is not None
    held = cluster.balancer.machine._ledger.inputs
    for index in (1, 2, 3):
        assert given(cluster, f"{array}_{index}") == b"for all"
        assert held._gathered == {array: b"for all"}
        lose(cluster, Table.OUTPUTS, first) if index == 1 else None
        end(cluster, f"{array}_{index}")
    assert not held._gathered
    alone = cluster.submit("n1", f"input={array} sh cat")
    assert given(cluster, alone) == b""
    assert not held._gathered


# --- what it weighs ------------------------------------------------------------------------------------------------


def test_a_lease_weighs_its_input_too() -> None:
    cluster = Cluster(1)
    first = cluster.submit("n1")
    last = cluster.submit("n1", f"input={first} sh cat")
    lighter = record_of(cluster, last).bytes
    end(cluster, first, b"x" * 5000)
    assert record_of(cluster, last).bytes == lighter + 5000
    assert cluster.balancer is not None
    (node,) = cluster.balancer.machine._roster
    assert node.weight_bytes == lighter + 5000


def test_jobs_with_heavy_inputs_wait_until_their_node_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.rounds.WEIGHT_BYTES_MAX", 10_000)
    cluster = Cluster(1, slots=4)
    first = cluster.submit("n1")
    array = cluster.submit("n1", f"input={first} array=1-4 sh cat")
    end(cluster, first, b"x" * 4000)
    assert cluster.counts() == {"n1": 2}
    end(cluster, f"{array}_1")
    assert cluster.counts() == {"n1": 2}


def test_a_job_that_is_retried_weighs_its_input_before_it_is_given_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.rounds.WEIGHT_BYTES_MAX", 10_000)
    cluster = Cluster(1, slots=4)
    first = cluster.submit("n1")
    one, two = (cluster.submit("n1", f"input={first} sh cat") for _ in range(2))
    end(cluster, first, b"x" * 6000)
    cluster.finish("n1", (one, 1), outcome=FAILED)
    assert cluster.where(two)
    cluster.say("n1", f"retry {one}")
    assert not cluster.where(one)
    end(cluster, two)
    assert cluster.where(one)


def test_jobs_with_an_input_do_not_rest_and_their_inputs_are_wanted_after_a_restart() -> None:
    cluster = Cluster(1, slots=1, awake_max=0)
    first = cluster.submit("n1")
    end(cluster, first, b"x")
    cluster.store_level("balancer", 0.1)
    busy = cluster.submit("n1", "priority=9 sh long")
    plain = [cluster.submit("n1", "slots=2 sh never") for _ in range(3)]
    last = cluster.submit("n1", f"slots=2 input={first} sh never")
    assert cluster.balancer is not None
    assert last in cluster.balancer.machine._ledger._live.awake
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.dial("n1")
    assert cluster.balancer is not None
    awake = cluster.balancer.machine._ledger._live.awake
    assert last in awake
    assert not set(plain) & set(awake)
    assert busy in awake
    assert (cluster.say("n1", f"forget {first}") or "").startswith("ERR CONFLICT")


def test_an_old_end_without_a_cause_still_opens() -> None:
    ended = Ended(State.CANCELLED, 1.0)
    assert unpack(Ended, pack(ended)) == ended
    assert unpack(Ended, pack(replace(ended, because="k3f7qa-1 failed"))).because == "k3f7qa-1 failed"
    assert b"because" not in pack(ended)


# --- what is damaged, heavy, or weighed often ----------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("body", [b"", b"own: "])
def test_a_job_with_an_input_whose_own_record_is_damaged_fails(body: bytes) -> None:
    cluster = Cluster(1, slots=1, placement="least-loaded")
    source = cluster.submit("n1")
    end(cluster, source)
    busy = cluster.submit("n1")
    reply = cluster.say("n1", f"submit input={source} bytes={len(body)} sh cat", body)
    assert reply is not None
    reader = reply.split()[1]
    cluster.kill_balancer()
    del cluster._kept[0].tables[Table.JOBS][ticket_key(reader)]
    cluster.start_balancer()
    cluster.dial("n1")
    end(cluster, busy)
    assert state_of(cluster, reader) == "failed"


def test_the_input_of_an_array_is_weighed_once_and_not_for_each_element(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(1, slots=1)
    source = cluster.submit("n1", "array=1-20 sh true")
    for _ in range(20):
        cluster.finish_all()
    cluster.submit("n1", f"array=1-30%1 input={source} sh cat")
    monkeypatch.setattr(Inputs, "_ends", None)  # whoever looks at the ends again fails
    for _ in range(5):
        cluster.finish_all()


def test_a_step_gives_out_no_more_than_it_may_hold_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "STEP_BYTES_MAX", 10_000)
    cluster = Cluster(5, slots=1)
    source = cluster.submit("n1")
    end(cluster, source, b"x" * 9000)
    gate = cluster.submit("n1")
    readers = [cluster.submit("n1", f"after={gate} input={source} sh cat") for _ in range(5)]
    steps: list[int] = []
    cluster.observers.append(lambda step: steps.append(sum(map(given_bytes, step.effects.actions))))
    end(cluster, gate)
    assert max(steps) <= 2 * 9000
    assert {state_of(cluster, reader) for reader in readers} == {"running"}


def given_bytes(action: object) -> int:
    message = getattr(action, "message", None)
    return sum(len(lease.body) for lease in message.items) if isinstance(message, Dispatch) else 0
