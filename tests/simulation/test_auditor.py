"""The auditor notices: each rule is broken by hand, in a history of a few commits. Where none is, it says nothing."""

import attrs
import msgspec
import pytest
import trio

from common.codec import pack, replace
from common.effects import Delete, Effects, Put, Table, Write
from common.events import Knocked, LinkClosed, Received
from common.messages import PROTOCOL, Hello, Info, Reported
from common.model import Ended, Job, Outcome, Reason, State, Verdict
from common.runtime.driver import Step
from tests.simulation.auditor import Auditor
from tests.simulation.bounds import Bounds
from tests.simulation.ending import Ending
from tests.simulation.faults import Pause
from tests.simulation.records import BALANCER, Live, Tables, Violation, key_of
from tests.simulation.talk import Reply, Request, head
from tests.simulation.told import Told

PREFIX = "k3f7qa"
TICKET = f"{PREFIX}-1"
READER = f"{PREFIX}-2"
KEY = key_of(TICKET)
TIMEOUT_S = 5.0
GOOD = Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.5)
SUCCEEDED = Ended(State.SUCCEEDED, 1.0, attempt=1, exit=0, node="n1", seconds=0.5, begun=1, sequence=1)
JOB = Job("sh", "true")


@attrs.define
class History:
    """A cluster of one node, told commit by commit. Two boots of the node: first and second."""

    auditor: Auditor
    told: Told
    disks: dict[str, dict[Table, dict[bytes, bytes]]]

    def boot(self, process: str, boot_id: str) -> None:
        self.auditor.booted(process, boot_id)

    def commit(self, process: str, *writes: Write) -> None:
        self.auditor.committed(process, writes)
        disk = self.disks.setdefault(process, {table: {} for table in Table})
        for write in writes:
            if isinstance(write, Put):
                disk[write.table][write.key] = write.value
            else:
                disk[write.table].pop(write.key, None)

    # --- what usually happens ----------------------------------------------------------------------------------------

    def issue(self, ticket: str = TICKET, job: Job = JOB) -> None:
        key, number = key_of(ticket), ticket.partition("-")[2].encode()
        self.commit("n1", Put(Table.META, b"last_number", number), Put(Table.META, b"sent_number", number),
                    Put(Table.JOBS, key, pack(job)), Put(Table.LIVE, key, b""))  # fmt: skip

    def arrive(self, ticket: str = TICKET, job: Job = JOB) -> None:
        self.commit(BALANCER, Put(Table.JOBS, key_of(ticket), pack(job)), live(ticket))

    def lease(self, attempt: int = 1, boot_id: str = "first") -> None:
        self.commit(BALANCER, live(attempt=attempt, leased=True, boot_id=boot_id, node_id="n"))

    def run(self, attempt: int = 1, boot_id: str = "first", outcome: Outcome = GOOD, stdin: bytes = b"") -> None:
        self.auditor.began("n1", boot_id, TICKET, attempt, stdin)
        self.auditor.over("n1", TICKET, attempt, outcome, b"")

    def end(self, ended: Ended = SUCCEEDED) -> None:
        self.commit(BALANCER, Delete(Table.LIVE, KEY), Put(Table.ENDED, KEY, pack(ended)))

    def say(self, line: str, reply: str) -> None:
        verb, *words = line.split()
        ticket = words[-1] if verb in ("STATUS", "RESULT", "WAIT", "CANCEL", "RETRY", "FORGET") else None
        key = next((word[4:] for word in words if word.startswith("key=")), None)
        ask = self.told.asked(Request(line, verb, ticket, key=key), "n1")
        self.told.heard(ask, said(reply))


def said(line: str) -> Reply:
    reply, _ = head(line)
    return reply


def live(ticket: str = TICKET, **fields: object) -> Put:
    record = {"sequence": 1, "kind": "sh", **fields}
    return Put(Table.LIVE, key_of(ticket), msgpack(record))


def msgpack(record: dict[str, object]) -> bytes:
    return msgspec.msgpack.encode(record)


@pytest.fixture
async def history() -> History:
    disks: dict[str, dict[Table, dict[bytes, bytes]]] = {}

    def tables(process: str) -> Tables:
        return disks.get(process, {})

    auditor = Auditor(tables, Bounds(lambda process: 1, clocks_agree=True), node_timeout_s=TIMEOUT_S)
    begun = History(auditor, Told(auditor, ()), disks)
    begun.commit(BALANCER, Put(Table.META, b"id", b"ledger"), Put(Table.ORIGINS, PREFIX.encode(), b"n"))
    begun.boot(BALANCER, "ledger")
    begun.commit("n1", Put(Table.META, b"prefix", PREFIX.encode()))
    begun.boot("n1", "first")
    return begun


@pytest.fixture
async def leased(history: History) -> History:
    history.issue()
    history.arrive()
    history.lease()
    return history


@pytest.fixture
async def ended(leased: History) -> History:
    leased.run()
    leased.end()
    return leased


# --- nothing is wrong ------------------------------------------------------------------------------------------------


async def test_a_job_that_is_run_once_and_told_everywhere_is_as_it_should_be(ended: History) -> None:
    ended.say("SUBMIT sh true", f"OK {TICKET}")
    ended.commit("n1", Delete(Table.LIVE, KEY), Put(Table.ENDED, KEY, pack(SUCCEEDED)))
    ended.say(f"RESULT {TICKET}", f"OK {TICKET} state=succeeded exit=0 attempt=1 node=n1 seconds=0.500 stdout=0")
    ending = Ending(ended.auditor, ended.told, ["n1"], [])
    assert list(ending.unfinished()) == []
    ending.audit()


async def test_an_attempt_that_is_handed_back_may_be_given_to_another_boot(leased: History) -> None:
    leased.commit(BALANCER, live(attempt=1, unused=True))
    leased.lease(attempt=1, boot_id="another")


# --- tickets and jobs ------------------------------------------------------------------------------------------------


async def test_a_ticket_that_is_issued_twice_is_noticed(history: History) -> None:
    history.issue()
    with pytest.raises(Violation, match="issued k3f7qa-1 twice"):
        history.issue(job=Job("sh", "another"))


async def test_numbers_of_tickets_that_go_back_are_noticed(history: History) -> None:
    history.issue("k3f7qa-7")
    with pytest.raises(Violation, match="counts its tickets down from 7"):
        history.issue("k3f7qa-6")


async def test_an_acknowledgement_without_a_record_is_noticed(history: History) -> None:
    with pytest.raises(Violation, match="was acknowledged, and is on no disk"):
        history.say("SUBMIT sh true", f"OK {TICKET}")


async def test_a_ticket_that_two_clients_get_is_noticed(history: History) -> None:
    history.issue()
    history.say("SUBMIT sh true", f"OK {TICKET}")
    with pytest.raises(Violation, match="was given to two clients"):
        history.say("SUBMIT sh true", f"OK {TICKET}")


async def test_a_job_that_its_origin_lets_go_of_is_noticed(history: History) -> None:
    history.issue()
    history.say("SUBMIT sh true", f"OK {TICKET}")
    with pytest.raises(Violation, match="n1 let go of k3f7qa-1, which has not ended"):
        history.commit("n1", Delete(Table.LIVE, KEY), Delete(Table.JOBS, KEY))


async def test_a_job_that_a_power_cut_has_taken_is_noticed_at_the_next_boot(history: History) -> None:
    history.issue()
    history.say("SUBMIT sh true", f"OK {TICKET}")
    history.disks["n1"][Table.LIVE].clear()
    history.auditor.died("n1", "power cut")
    with pytest.raises(Violation, match="n1 let go of k3f7qa-1"):
        history.boot("n1", "second")


async def test_a_job_that_the_ledger_loses_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="the ledger lost k3f7qa-1, which had not ended"):
        leased.commit(BALANCER, Delete(Table.LIVE, KEY))


async def test_a_job_that_changes_on_its_way_is_noticed(history: History) -> None:
    history.issue()
    with pytest.raises(Violation, match="is another job now"):
        history.arrive(job=Job("sh", "rm -rf /"))


async def test_a_job_that_was_sent_and_is_not_marked_so_is_noticed(history: History) -> None:
    history.commit(
        "n1", Put(Table.META, b"last_number", b"1"), Put(Table.JOBS, KEY, pack(JOB)), Put(Table.LIVE, KEY, b"")
    )
    with pytest.raises(Violation, match="its origin may take it for its own"):
        history.arrive()


# --- leases and beginnings -------------------------------------------------------------------------------------------


async def test_a_beginning_without_a_durable_lease_is_noticed(history: History) -> None:
    history.issue()
    history.arrive()
    with pytest.raises(Violation, match="began at n1 without a durable lease"):
        history.run()


async def test_a_beginning_in_another_boot_than_the_leased_one_is_noticed(leased: History) -> None:
    leased.auditor.died("n1", "killed")
    leased.boot("n1", "second")
    with pytest.raises(Violation, match="without a durable lease to this boot"):
        leased.run(boot_id="second")


async def test_an_attempt_that_begins_twice_is_noticed(leased: History) -> None:
    leased.run()
    with pytest.raises(Violation, match=r"k3f7qa-1\.1 began twice"):
        leased.run()


async def test_a_job_that_begins_before_what_it_waits_for_is_noticed(history: History) -> None:
    history.issue(job=Job("sh", "true", after=(f"{PREFIX}-9",)))
    history.arrive(job=Job("sh", "true", after=(f"{PREFIX}-9",)))
    history.lease()
    with pytest.raises(Violation, match="began before k3f7qa-9 had succeeded"):
        history.run()


def reads_what_the_first_has_printed(history: History) -> History:
    """The first job has printed `one`, and another that is to read it is about to begin."""
    history.issue()
    history.arrive()
    history.lease()
    history.auditor.began("n1", "first", TICKET, 1, b"")
    history.auditor.over("n1", TICKET, 1, Outcome(Verdict.SUCCEEDED, exit=0, seconds=0.5, stdout_bytes=3), b"oneerror")
    history.end()
    reader = Job("sh", "cat", inputs=(TICKET,))
    history.issue(READER, reader)
    history.arrive(READER, reader)
    history.commit(BALANCER, live(READER, attempt=1, leased=True, boot_id="first", node_id="n"))
    return history


async def test_what_is_read_is_what_was_printed(history: History) -> None:
    reads_what_the_first_has_printed(history).auditor.began("n1", "first", READER, 1, b"one")


@pytest.mark.parametrize("stdin", [b"", b"oneerror", b"two"])
async def test_a_job_that_is_given_something_else_than_was_printed_is_noticed(history: History, stdin: bytes) -> None:
    with pytest.raises(Violation, match="its inputs have printed b'one'"):
        reads_what_the_first_has_printed(history).auditor.began("n1", "first", READER, 1, stdin)


async def test_an_output_that_goes_while_a_live_job_wants_it_is_noticed(history: History) -> None:
    reads_what_the_first_has_printed(history)
    history.told.asked(Request(f"FORGET {TICKET}", "FORGET", TICKET), "n1")
    with pytest.raises(Violation, match="k3f7qa-2 wants what it has printed"):
        history.commit(BALANCER, Delete(Table.ENDED, KEY), Put(Table.TOMBSTONES, KEY, b"forgotten"))


async def test_attempt_numbers_that_go_back_are_noticed(leased: History) -> None:
    leased.commit(BALANCER, live(attempt=2))
    with pytest.raises(Violation, match="went back from attempt 2 to 1"):
        leased.commit(BALANCER, live(attempt=1))


async def test_a_number_that_is_used_again_is_noticed(leased: History) -> None:
    leased.run()
    leased.auditor.died("n1", "killed")
    leased.boot("n1", "second")
    with pytest.raises(Violation, match=r"k3f7qa-1\.1 was leased after k3f7qa-1\.1 had begun"):
        leased.lease(attempt=1, boot_id="second")


async def test_a_job_that_is_run_again_because_it_is_slow_is_noticed(leased: History) -> None:
    leased.auditor.began("n1", "first", TICKET, 1, b"")
    with pytest.raises(Violation, match="is at a node that was never silent"):
        leased.lease(attempt=2, boot_id="another")


async def test_a_job_of_a_node_that_was_silent_may_be_run_again(leased: History, autojump_clock: object) -> None:
    leased.auditor.began("n1", "first", TICKET, 1, b"")
    await trio.sleep(TIMEOUT_S + 0.1)
    leased.lease(attempt=2, boot_id="another")


async def test_a_balancer_that_was_stopped_itself_has_to_listen_first(leased: History, autojump_clock: object) -> None:
    leased.auditor.began("n1", "first", TICKET, 1, b"")
    heard_by(leased.auditor)
    await trio.sleep(0.1)
    leased.auditor.fault(Pause(BALANCER, TIMEOUT_S + 1))
    await trio.sleep(TIMEOUT_S + 1)
    with pytest.raises(Violation, match="is at a node that was never silent"):
        leased.lease(attempt=2, boot_id="another")


def heard_by(auditor: Auditor) -> None:
    """The ledger hears the first boot of the node."""
    hello = Hello(PROTOCOL, "n", "first", PREFIX, "n1", 1, ("sh",), "1", b"")
    events = (Knocked(1, hello), Received(1, (Info(0, 0),), 0.0), LinkClosed(2, "another"))
    auditor.stepped(BALANCER, Step(events, Effects(), 0.0, trio.current_time()), Quiet())  # type: ignore[arg-type]


class Quiet:
    """A machine that is content."""

    def check(self) -> None:
        pass


async def test_a_crash_that_is_none_is_not_counted(leased: History) -> None:
    with pytest.raises(Violation, match=r"k3f7qa-1\.1 is counted as a crash, and was none"):
        leased.commit(BALANCER, live(attempt=1, boot_id="first", crashes=1))


async def test_a_machine_whose_invariants_do_not_hold_is_noticed(history: History) -> None:
    class Broken(Quiet):
        def check(self) -> None:
            raise AssertionError("the count is off")

    with pytest.raises(AssertionError, match="the count is off"):
        history.auditor.stepped("n1", Step((), Effects(), 0.0, 0.0), Broken())  # type: ignore[arg-type]


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_an_end_that_changes_is_noticed(ended: History) -> None:
    with pytest.raises(Violation, match="ended twice"):
        ended.commit(BALANCER, Put(Table.ENDED, KEY, pack(replace(SUCCEEDED, exit=1))))


async def test_an_end_of_an_attempt_that_is_not_over_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="is recorded as succeeded, and it is not over"):
        leased.end()


async def test_an_end_of_another_attempt_than_the_last_is_noticed(leased: History) -> None:
    leased.run(outcome=replace(GOOD, verdict=Verdict.FAILED, reason=Reason.EXIT, exit=1))
    leased.lease(attempt=2)
    with pytest.raises(Violation, match="ended with attempt 1, and the last lease is"):
        leased.end()


async def test_an_end_that_tells_another_outcome_is_noticed(leased: History) -> None:
    leased.run(outcome=replace(GOOD, verdict=Verdict.FAILED, reason=Reason.EXIT, exit=3))
    with pytest.raises(Violation, match="is recorded as"):
        leased.end()


async def test_a_cancel_that_nobody_asked_for_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="was cancelled, and nobody asked for it"):
        leased.end(Ended(State.CANCELLED, 1.0, Reason.USER))


async def test_a_crash_limit_that_is_reached_without_crashes_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="has reached its crash limit with 0 crashes"):
        leased.end(Ended(State.FAILED, 1.0, Reason.CRASH_LIMIT, attempt=1))


async def test_an_ended_job_that_is_live_again_is_noticed(ended: History) -> None:
    with pytest.raises(Violation, match="is live again after its end"):
        ended.commit(BALANCER, live(attempt=1))


async def test_a_retry_that_nobody_asked_for_is_noticed(ended: History) -> None:
    with pytest.raises(Violation, match="brought back, and nobody asked for it"):
        ended.commit(BALANCER, live(attempt=1, retried=1), Delete(Table.ENDED, KEY))


async def test_a_retry_that_was_asked_for_is_not_complained_of(ended: History) -> None:
    ended.told.asked(Request(f"RETRY {TICKET}", "RETRY", TICKET), "n1")
    ended.commit(BALANCER, live(attempt=1, retried=1), Delete(Table.ENDED, KEY))


async def test_an_end_that_is_lost_is_noticed(ended: History) -> None:
    with pytest.raises(Violation, match="balancer lost the end of k3f7qa-1"):
        ended.commit(BALANCER, Delete(Table.ENDED, KEY))


async def test_an_origin_that_knows_another_end_is_noticed(ended: History) -> None:
    other = replace(SUCCEEDED, seconds=0.7)
    with pytest.raises(Violation, match="as the end of k3f7qa-1, and the ledger"):
        ended.commit("n1", Delete(Table.LIVE, KEY), Put(Table.ENDED, KEY, pack(other)))


async def test_an_outcome_that_is_dropped_while_it_is_waited_for_is_noticed(leased: History) -> None:
    leased.run()
    key = KEY + (1).to_bytes(4, "big")
    leased.commit("n1", Put(Table.OUTCOMES, key, pack(Reported(1, "first", GOOD))))
    with pytest.raises(Violation, match=r"dropped the outcome of k3f7qa-1\.1"):
        leased.commit("n1", Delete(Table.OUTCOMES, key))


async def test_a_node_that_gives_itself_what_the_ledger_has_is_noticed(history: History) -> None:
    history.issue()
    history.arrive()
    with pytest.raises(Violation, match="gave itself k3f7qa-1, which the ledger has"):
        history.commit("n1", Put(Table.LIVE, KEY, msgpack({"attempt": 1, "boot_id": "first"})))


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_an_end_that_is_told_before_it_is_recorded_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="is said to have ended, and that is on no disk"):
        leased.say(f"STATUS {TICKET}", f"OK {TICKET} state=succeeded attempt=1")


async def test_an_end_that_is_told_otherwise_is_noticed(ended: History) -> None:
    with pytest.raises(Violation, match="is said to have ended as"):
        ended.say(f"RESULT {TICKET}", f"OK {TICKET} state=succeeded exit=1 attempt=1")


async def test_a_job_that_runs_again_in_the_eyes_of_a_client_is_noticed(ended: History) -> None:
    ended.say(f"STATUS {TICKET}", f"OK {TICKET} state=succeeded attempt=1")
    ended.say(f"RESULT {TICKET}", f"PENDING {TICKET} state=running as_of_s=3.000")  # says how old that is
    with pytest.raises(Violation, match="had ended, which somebody was told"):
        ended.say(f"RESULT {TICKET}", f"PENDING {TICKET} state=running")


async def test_who_asked_before_another_was_told_may_be_answered_as_of_before(ended: History) -> None:
    ask = ended.told.asked(Request(f"RESULT {TICKET}", "RESULT", TICKET), "n1")
    ended.say(f"STATUS {TICKET}", f"OK {TICKET} state=succeeded attempt=1")
    ended.told.heard(ask, said(f"PENDING {TICKET} state=running"))


async def test_a_job_that_is_said_to_be_unknown_is_noticed(history: History) -> None:
    history.issue()
    with pytest.raises(Violation, match="was acknowledged, and n1 says ERR UNKNOWN_TICKET"):
        history.say(f"STATUS {TICKET}", "ERR UNKNOWN_TICKET no job has this ticket")


async def test_an_error_that_nothing_explains_is_noticed(history: History) -> None:
    with pytest.raises(Violation, match="was answered with ERR FULL"):
        history.say("SUBMIT sh true", "ERR FULL the disk is full")


async def test_a_cancel_that_is_said_to_be_done_and_is_not_recorded_is_noticed(leased: History) -> None:
    with pytest.raises(Violation, match="is said to be cancelled, and that is on no disk"):
        leased.say(f"CANCEL {TICKET}", f"OK {TICKET} state=cancelled")


# --- in the end ------------------------------------------------------------------------------------------------------


async def test_what_is_left_over_in_the_end_is_told(leased: History) -> None:
    leased.run()
    leased.commit("n1", Put(Table.OUTCOMES, KEY + (1).to_bytes(4, "big"), pack(Reported(1, "first", GOOD))))
    leased.commit(BALANCER, Put(Table.NOTICES, KEY, b"revived"))
    ending = Ending(leased.auditor, leased.told, ["n1"], [])
    assert list(ending.unfinished()) == [
        f"{TICKET} has not ended: {Live(attempt=1, leased=True, boot_id='first')}",
        f"the origin of {TICKET} has not noted that it was revived",
        f"n1 does not know of an end of {TICKET}",
        f"n1 still has the outcome of {TICKET}",
    ]


async def test_a_key_that_becomes_two_jobs_is_noticed(history: History) -> None:
    for number in (1, 2):
        history.issue(f"{PREFIX}-{number}", Job("sh", "true", key="k1"))
        history.say("SUBMIT key=k1 sh true", f"OK {PREFIX}-{number}")
    with pytest.raises(Violation, match="the key k1 has become 2 jobs"):
        Ending(history.auditor, history.told, ["n1"], [])._one_job_for_each_key()


async def test_only_what_a_node_alone_had_is_lost_with_it(history: History) -> None:
    history.issue(f"{PREFIX}-1")
    history.issue(f"{PREFIX}-2")
    history.arrive(f"{PREFIX}-2")
    for number in (1, 2):
        history.say("SUBMIT sh true", f"OK {PREFIX}-{number}")
    ending = Ending(history.auditor, history.told, ["n1"], ["n1"])
    assert ending.is_excused(f"{PREFIX}-1")
    assert not ending.is_excused(f"{PREFIX}-2")
    with pytest.raises(Violation, match="k3f7qa-2 was acknowledged, and has not ended"):
        ending.audit()


async def test_an_array_that_counts_other_ends_than_it_has_is_noticed(history: History) -> None:
    job = Job("sh", "true", array="1-2")
    history.issue(job=job)
    history.arrive(job=job)
    whole = Ended(State.SUCCEEDED, 1.0, counts=(("succeeded", 2), ("failed", 0), ("cancelled", 0)))
    history.end(whole)
    with pytest.raises(Violation, match="and 0 of it are succeeded"):
        Ending(history.auditor, history.told, ["n1"], []).audit()
