"""EXPLAIN, and the reason that every line of a live job has: why it waits, behind how many, what would change it."""

import random

import attrs
import pytest

from balancer.ledger import Entry
from common.codec import replace
from common.events import Received
from common.messages import Info
from common.model import Outcome, Reason, State, Verdict
from common.why import MEANINGS, PAGE_CHARACTERS, Why, page
from tests.machines.asking import Asker, body, field, head
from tests.machines.cluster import PERIODS, Cluster

PERIODIC = attrs.evolve(PERIODS, eager=False)


def entry_of(cluster: Cluster, ticket: str) -> Entry:
    assert cluster.balancer is not None
    entry = cluster.balancer.machine._ledger.live(ticket)
    assert entry is not None
    return entry


def alter(cluster: Cluster, ticket: str, **changes: object) -> None:
    entry = entry_of(cluster, ticket)
    assert cluster.balancer is not None
    entry.record = replace(entry.record, **changes)  # type: ignore[arg-type]
    cluster.balancer.machine._ledger.all.note(entry)


def drain(cluster: Cluster, name: str) -> None:
    link = cluster.nodes[name].link
    assert link is not None
    cluster._step_balancer(Received(link, [Info(0, 0, draining=True)], cluster.wall))


def explained(cluster: Cluster, ticket: str, name: str = "n1") -> tuple[str, list[str]]:
    """The code, and the page."""
    reply = Asker(cluster, name).say("explain", ticket=ticket)
    status = Asker(cluster, name).say("status", ticket=ticket)
    assert field(reply, "state") == field(status, "state")
    assert field(reply, "reason") == field(status, "reason") or field(status, "state") == "succeeded"
    assert head(reply).startswith(f"OK {ticket} state={field(status, 'state')} reason=")
    assert all(len(line) <= PAGE_CHARACTERS for line in body(reply)), "wider than a terminal"
    return field(reply, "reason") or "", body(reply)


def row(lines: list[str], label: str) -> str:
    """What stands behind a label, its lines joined."""
    (at,) = [number for number, line in enumerate(lines) if line.startswith(label)]
    text = [lines[at].removeprefix(label)]
    for line in lines[at + 1 :]:
        if not line.startswith(" "):
            break
        text.append(line)
    return " ".join(part.strip() for part in text)


# --- queued -------------------------------------------------------------------------------------------------------


def full(cluster: Cluster, count: int = 2) -> None:
    """Fills every slot and backlog."""
    for _ in range(count):
        cluster.submit("n1")


NARROW = attrs.evolve(PERIODS, backlog_max=1)


def test_a_job_for_which_every_node_is_busy_says_how_busy_and_its_place() -> None:
    cluster = Cluster(1, slots=1, periods=NARROW)
    full(cluster)
    first, second = cluster.submit("n1"), cluster.submit("n1")
    urgent = cluster.submit("n1", "priority=3 sh true")
    code, lines = explained(cluster, second)
    assert code == Why.NO_FREE_SLOT
    assert lines[0] == f"{second} is queued: every node that may run it is busy."
    assert row(lines, "position") == "behind 2 queued jobs"
    assert row(lines, "needs") == "kind sh, 1 slot, priority 0"
    assert row(lines, "nodes") == "n1: busy: 1 running on 1 slot, 1 waiting there (JOBYARD_BACKLOG_MAX=1)"
    assert row(lines, "attempts") == "none yet"
    assert "JOBYARD_SLOTS" in row(lines, "would change it")
    assert row(explained(cluster, first)[1], "position") == "behind 1 queued job"
    assert row(explained(cluster, urgent)[1], "position") == "the first in the queue"


def test_without_a_node_it_says_so() -> None:
    cluster = Cluster(1, slots=1, periods=NARROW)
    full(cluster)
    ticket = cluster.submit("n1", "priority=-3 sh true")
    cluster.add_node("n2", slots=1, kinds=("sleep",))
    cluster.kill_node("n1")
    cluster.advance(20)
    code, lines = explained(cluster, ticket, "n2")
    assert code == Why.KIND_NOT_ALLOWED
    assert row(lines, "position") == "behind 2 queued jobs"
    assert row(lines, "nodes").split("ago")[0].startswith("n2: does not allow sh (JOBYARD_JOB_KINDS) n1: lost, last")
    cluster.kill_balancer()
    cluster.start_balancer()
    assert cluster.balancer is not None
    reasons = cluster.balancer.machine._clerk._explanations.reasons()
    assert reasons.of(entry_of(cluster, ticket)) is Why.NO_NODE


def test_a_job_too_wide_for_every_node_says_how_wide_they_are() -> None:
    cluster = Cluster(2, slots=2)
    ticket = cluster.submit("n1", "slots=3 sh true")
    code, lines = explained(cluster, ticket)
    assert code == Why.TOO_WIDE
    needed = "has 2 slots (JOBYARD_SLOTS), and 3 are needed"
    assert row(lines, "nodes") == f"n1: {needed} n2: {needed}"


def test_the_node_that_comes_furthest_says_why_it_waits() -> None:
    cluster = Cluster(1, slots=1, periods=NARROW)
    cluster.add_node("n2", slots=4, kinds=("sleep",))
    ticket = cluster.submit("n1", "slots=2 sh true")
    assert explained(cluster, ticket)[0] == Why.TOO_WIDE
    cluster.add_node("n3", slots=2, kinds=("sh",))
    other = cluster.submit("n1", "slots=2 sh true")
    assert explained(cluster, other)[0] == Why.NODE_BACKLOG
    full(cluster, 4)
    waiting = cluster.submit("n1", "slots=2 sh true")
    assert explained(cluster, waiting)[0] == Why.NO_FREE_SLOT
    drain(cluster, "n3")
    assert explained(cluster, waiting)[0] == Why.DRAINING
    assert "n3: is draining and takes no new jobs (UNDRAIN)" in row(explained(cluster, waiting)[1], "nodes")


def test_what_no_round_has_handed_out_yet_waits_for_the_next_one() -> None:
    cluster = Cluster(1, slots=4, periods=attrs.evolve(PERIODIC, jobs_per_round_max=2))
    tickets = [cluster.submit("n1") for _ in range(5)]
    code, lines = explained(cluster, tickets[4])
    assert code == Why.NEXT_ROUND
    assert row(lines, "position") == "behind 4 queued jobs"
    assert row(lines, "rounds") == (
        "every 5s (DISPATCH_PERIOD), 2 jobs each (MAX_NUM_JOBS_DISPATCH): where there is room, it goes out with "
        "number 3 from now"
    )
    assert row(explained(cluster, tickets[1])[1], "rounds").endswith("it goes out with the next")
    assert row(lines, "nodes") == "n1: has room"


def test_a_job_too_heavy_for_the_memory_that_is_left_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.rounds.WEIGHT_BYTES_MAX", 5000)
    cluster = Cluster(1, slots=1)
    asker = Asker(cluster)
    cluster.ask("n1", "submit bytes=3000 sh cat", b"x" * 3000)
    heavy = (cluster.say("n1", "submit bytes=3000 sh cat", b"x" * 3000) or "").split()[1]
    code, lines = explained(cluster, heavy)
    assert code == Why.NO_FREE_SLOT
    assert "more than it may hold in memory" in row(lines, "nodes")
    assert field(asker.say("list", limit=10, state="queued"), "count") == "1"


@pytest.mark.parametrize("seed", range(20))
def test_the_place_is_the_number_of_jobs_that_go_first(seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(1, slots=0)
    priorities: dict[str, int] = {}
    for _ in range(12):
        priority, slots = chance.choice([-1, 0, 0, 2]), chance.choice([1, 1, 2])
        kind = chance.choice(["sh true", "exec true"])
        priorities[cluster.submit("n1", f"priority={priority} slots={slots} {kind}")] = priority
    for ticket in chance.sample(list(priorities), 3):
        cluster.say("n1", f"cancel {ticket}")
        del priorities[ticket]
    in_order = sorted(priorities, key=lambda ticket: -priorities[ticket])  # stable: then as they were submitted
    said = [row(explained(cluster, ticket)[1], "position") for ticket in in_order]
    assert said == ["the first in the queue", "behind 1 queued job", *(f"behind {n} queued jobs" for n in range(2, 9))]
    cluster.add_node("n2", slots=2)
    assert cluster.where(in_order[0]), "the first in the queue goes first"


def test_jobs_that_other_nodes_run_are_not_ahead() -> None:
    cluster = Cluster(0)
    cluster.add_node("n1", slots=0)
    cluster.add_node("n2", slots=1, kinds=("sleep",))
    for _ in range(3):
        cluster.submit("n1", "sh true")
    cluster.submit("n1", "slots=2 sleep 1")
    ticket = cluster.submit("n1", "slots=2 sleep 1")
    assert row(explained(cluster, ticket)[1], "position") == "behind 4 queued jobs", "nobody can run it: one queue"
    drain(cluster, "n2")
    narrow = cluster.submit("n1", "sleep 1")
    assert row(explained(cluster, narrow)[1], "position") == "the first in the queue", "n2 could run it, and only it"


# --- given to a node ----------------------------------------------------------------------------------------------


def test_a_dispatched_job_says_where_it_waits_and_behind_how_many() -> None:
    cluster = Cluster(1, slots=1)
    _, first, second = (cluster.submit("n1") for _ in range(3))
    urgent = cluster.submit("n1", "priority=2 sh true")
    code, lines = explained(cluster, second)
    assert code == Why.NODE_BACKLOG
    assert lines[0] == f"{second} is dispatched: it was given to a node, and waits there for a free slot."
    assert row(lines, "node") == "n1, 1 slot"
    assert row(lines, "position") == "behind 2 jobs waiting there"
    assert row(explained(cluster, urgent)[1], "position") == "the next there"
    assert row(explained(cluster, first)[1], "position") == "behind 1 job waiting there"


def test_a_running_job_says_where_and_whether_its_node_is_away() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((runner, _),) = cluster.where(ticket)
    other = "n2" if runner == "n1" else "n1"
    assert explained(cluster, ticket)[0] == Why.RUNNING
    cluster.cut(cluster.nodes[runner].link or 0)
    cluster.now += 3
    _, lines = explained(cluster, ticket, other)
    assert row(lines, "node") == (
        f"{runner}, not connected, last heard 3s ago: after 15s (JOBYARD_NODE_TIMEOUT) its jobs are given to others"
    )
    assert row(lines, "attempts") == "1"


def test_a_cancelled_job_whose_processes_resist_is_ending() -> None:
    cluster = Cluster(1)
    ticket = cluster.submit("n1")
    cluster.say("n1", f"cancel {ticket}")
    code, lines = explained(cluster, ticket)
    assert code == Why.ENDING
    assert lines[0] == f"{ticket} was cancelled: its processes are being ended."


def test_attempts_lost_with_their_node_are_counted() -> None:
    cluster = Cluster(2, slots=1)
    ticket = cluster.submit("n1")
    ((runner, _),) = cluster.where(ticket)
    cluster.kill_node(runner)
    cluster.advance(20)
    (name,) = cluster.nodes
    assert row(explained(cluster, ticket, name)[1], "attempts") == "2; 1 lost with their node (crash_limit=3)"


# --- not queued yet -----------------------------------------------------------------------------------------------


def test_a_delayed_job_says_until_when() -> None:
    cluster = Cluster(1, slots=0)
    ticket = cluster.submit("n1")
    alter(cluster, ticket, due_wall=1_800_001_060.5)
    code, lines = explained(cluster, ticket)
    assert code == Why.DELAYED
    assert lines[:2] == [f"{ticket} is scheduled: its delay is not over.", "not before       2027-01-15T08:17:40.500Z"]
    status = Asker(cluster).say("status", ticket=ticket)
    assert "reason=delayed not_before=2027-01-15T08:17:40.500Z " in status
    assert field(status, "retry_at") is None


def test_a_job_that_failed_says_when_it_is_tried_again_and_how_it_failed() -> None:
    cluster = Cluster(1, slots=0)
    ticket = cluster.submit("n1", "key=k sh true")
    alter(cluster, ticket, due_wall=1_800_001_060.5, retrying=True, failures=2, attempt=3, last_reason=Reason.TIMEOUT)
    code, lines = explained(cluster, ticket)
    assert code == Why.RETRY
    assert row(lines, "tried again at") == "2027-01-15T08:17:40.500Z"
    assert row(lines, "attempts") == "3; 2 failed, the last with reason=timeout"
    status = Asker(cluster).say("status", ticket=ticket)
    assert (
        "state=retrying attempt=3 reason=retry retry_at=2027-01-15T08:17:40.500Z failures=2 key=k submitted=" in status
    )


def test_a_blocked_job_names_what_it_waits_for_and_how_that_stands() -> None:
    cluster = Cluster(1, slots=1)
    running, waiting = cluster.submit("n1"), cluster.submit("n1")
    ticket = cluster.submit("n1", "slots=9 sh true")
    unknown = ticket.replace("-3", "-99")
    alter(cluster, ticket, waits_for=(running, waiting, unknown))
    code, lines = explained(cluster, ticket)
    assert code == Why.BLOCKED
    assert row(lines, "waits for") == f"{running} (running) {waiting} (dispatched) {unknown} (not in the ledger yet)"
    alter(cluster, ticket, waits_for=tuple(f"aaaaab-{number}" for number in range(100, 117)))
    assert row(explained(cluster, ticket)[1], "waits for").endswith("aaaaab-109 (not in the ledger yet) and 7 more")


# --- arrays -------------------------------------------------------------------------------------------------------


def test_an_element_that_waits_for_others_of_its_array_says_so() -> None:
    cluster = Cluster(1, slots=4)
    array = cluster.submit("n1", "array=1-9%2 sh true")
    code, lines = explained(cluster, f"{array}_5")
    assert code == Why.ARRAY_LIMIT
    assert lines[0].startswith(f"{array}_5 is queued: as many elements of its array are under way")
    assert row(lines, "array") == "2 under way, of 2 that may be at once"
    assert row(lines, "position") == "behind 2 queued jobs", "elements 3 and 4"


def test_an_array_counts_its_elements_by_state() -> None:
    cluster = Cluster(1, slots=2, periods=attrs.evolve(PERIODS, backlog_max=0))
    array = cluster.submit("n1", "name=n array=1-9 sh true")
    cluster.finish("n1", (f"{array}_1", 1))
    code, lines = explained(cluster, array)
    assert code == Why.RUNNING
    assert row(lines, "elements") == "6 queued, 2 running, 1 succeeded"
    counts = "scheduled=0 blocked=0 queued=6 dispatched=0 running=2 retrying=0 succeeded=1 failed=0 cancelled=0"
    for reply in (Asker(cluster).say("status", ticket=array), Asker(cluster).say("list", limit=9)):
        assert reply.rstrip().endswith(f" count=9 {counts}")
    cluster.finish_all()
    assert row(explained(cluster, array)[1], "elements") == "9 succeeded"
    assert f" count=9 {counts.replace('queued=6', 'queued=0').replace('running=2', 'running=0')}".replace(
        "succeeded=1", "succeeded=9"
    ) in Asker(cluster).say("status", ticket=array)


def test_an_array_that_failed_says_how_many_of_it_and_whose_reason_it_has() -> None:
    cluster = Cluster(1, slots=3)
    array = cluster.submit("n1", "array=1-3 sh true")
    cluster.finish("n1", (f"{array}_2", 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5))
    cluster.finish_all()
    code, lines = explained(cluster, array)
    assert code == Reason.EXIT
    assert row(lines, "elements") == "2 succeeded, 1 failed"
    assert row(lines, "which").startswith("the reason is of the first that failed;")
    assert not any(line.startswith("attempts") for line in lines), "an array has none of its own"


def test_elements_are_queued_jobs_like_others() -> None:
    cluster = Cluster(1, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    running = cluster.submit("n1")
    many, few = cluster.submit("n1", "array=0-49 sh true"), cluster.submit("n1", "array=0-49%3 sh true")
    last = cluster.submit("n1")

    def position(ticket: str) -> str:
        return row(explained(cluster, ticket)[1], "position")

    assert position(f"{many}_0") == "the first in the queue"
    assert position(f"{many}_20") == "behind 20 queued jobs"
    assert position(few) == position(f"{few}_0") == "behind 50 queued jobs"
    assert position(last) == "behind 53 queued jobs", "no more than three of the second array are let in before it"
    cluster.say("n1", f"cancel {many}_3")
    cluster.say("n1", f"cancel {many}_30")
    assert position(f"{many}_20") == "behind 19 queued jobs"
    cluster.finish("n1", (running, 1))
    assert position(f"{many}_20") == "behind 18 queued jobs", "the first of them runs"
    cluster.finish("n1", (f"{many}_0", 1), outcome=Outcome(Verdict.INTERRUPTED))
    assert position(f"{many}_20") == "behind 18 queued jobs", "it was tried again at once"


# --- ended --------------------------------------------------------------------------------------------------------


def test_an_ended_job_says_how_and_why_it_ended() -> None:
    cluster = Cluster(1, slots=3)
    good, bad, cancelled = (cluster.submit("n1") for _ in range(3))
    cluster.finish("n1", (good, 1))
    cluster.finish("n1", (bad, 1), outcome=Outcome(Verdict.FAILED, Reason.EXIT, 3, 2.5))
    cluster.say("n1", f"cancel {cancelled}")
    cluster.finish("n1", (cancelled, 1), outcome=Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 2.5))
    code, lines = explained(cluster, good)
    assert code == "done"
    assert lines[0].startswith(f"{good} succeeded: ")
    code, lines = explained(cluster, bad)
    assert code == "exit"
    assert lines[0] == f"{bad} failed: it ended with an exit code that is not 0."
    assert [row(lines, label) for label in ("ended", "exit code", "ran", "attempts")] == [
        "2027-01-15T08:16:40.000Z", "3", "2.500 s on n1", "1",
    ]  # fmt: skip
    assert "RETRY" in row(lines, "would change it")
    assert explained(cluster, cancelled)[0] == "user"


def test_a_job_that_expired_or_was_never_there_is_not_explained() -> None:
    cluster = Cluster(1, periods=attrs.evolve(PERIODS, retention_s=100.0))
    ticket = cluster.submit("n1")
    cluster.finish_all()
    cluster.advance(150)
    assert Asker(cluster).say("explain", ticket=ticket).startswith("ERR EXPIRED ")
    assert Asker(cluster).say("explain", ticket="zzzzzz-1").startswith("ERR UNKNOWN_TICKET ")


def test_a_job_that_its_origin_has_still_to_send_is_on_its_way() -> None:
    cluster = Cluster(2)
    cluster.store_level("balancer", 0.9)
    ticket = cluster.submit("n1")
    reply = Asker(cluster, "n2").say("explain", ticket=ticket)
    assert head(reply).startswith(f"OK {ticket} state=queued reason=on_its_way as_of_s=")


# --- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*Why, *Reason])
def test_every_code_has_words_that_fit_a_terminal(code: Why | Reason) -> None:
    meaning = MEANINGS[code]
    assert meaning.text.endswith(".")
    assert not meaning.change.endswith(".")
    lines = page(
        "k3f7qa-123456", State.QUEUED, code, [("position", "behind 3 queued jobs"), ("array", "")]
    ).splitlines()
    assert all(len(line) <= PAGE_CHARACTERS for line in lines)
    assert not any(line.startswith("array") for line in lines), "a row without text is left out"


def test_what_is_said_of_a_kind_and_a_width_is_worked_out_once_for_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(2, slots=1, periods=attrs.evolve(PERIODS, backlog_max=0))
    for number in range(60):
        cluster.submit("n1", f"slots={1 + number % 2} sh true")
    looked_at = []

    def counting(*arguments: object) -> Why:
        looked_at.append(arguments)
        return Why.NO_FREE_SLOT

    monkeypatch.setattr("balancer.explanations.obstacle", counting)
    reply = Asker(cluster).say("list", limit=100)
    assert sum(" reason=no_free_slot " in line for line in body(reply)) == 58
    assert len(looked_at) == 2 * 2, "two nodes, for each of two widths"
