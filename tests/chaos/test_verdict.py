"""The verdict can fail: evidence made up by hand, with one thing wrong in each, and the fault that must be found."""

from collections.abc import Callable
from typing import Final

import pytest

from chaos.blows import Blow, Kind
from chaos.evidence import Evidence
from chaos.jobs import Job
from chaos.replies import Reply
from chaos.verdict import Verdict, judge, longest_gap_s

KEYED: Final = 1
PLAIN: Final = 2
FAILING: Final = 3
TICKETS: Final = {KEYED: "aaaaaa-1", PLAIN: "aaaaaa-2", FAILING: "bbbbbb-1"}


def job(number: int, *, key: str = "", exit_code: int = 0) -> Job:
    return Job(number, key, "sh …", None, b"%d" % (number * 7 + 1), exit_code)


def end(ticket: str, number: int, attempt: int = 1, *, exit_code: int = 0, prints: bytes | None = None) -> Reply:
    """What RESULT says of a job that came to what it should come to, or printed something else."""
    body = b"%d %d %s\n" % (number, attempt, b"%d" % (number * 7 + 1) if prints is None else prints)
    state = "failed" if exit_code else "succeeded"
    size = len(body)
    return Reply(f"OK {ticket} state={state} exit={exit_code} attempt={attempt} stdout={size} bytes={size}", body)


def good() -> Evidence:
    """Three jobs that came to what they should come to, one of them by its second attempt, after one blow."""
    evidence = Evidence()
    evidence.jobs = {KEYED: job(KEYED, key="k"), PLAIN: job(PLAIN), FAILING: job(FAILING, exit_code=3)}
    evidence.blows = [Blow(1.0, "node1", Kind.KILL, 0.5)]
    for number, ticket in TICKETS.items():
        evidence.acknowledged(number, ticket, "node1")
    evidence.read(TICKETS[KEYED], end(TICKETS[KEYED], KEYED))
    evidence.read(TICKETS[PLAIN], end(TICKETS[PLAIN], PLAIN, attempt=2))
    evidence.read(TICKETS[FAILING], end(TICKETS[FAILING], FAILING, exit_code=3))
    evidence.heard(TICKETS[KEYED], "succeeded")
    evidence.heard(TICKETS[PLAIN], "succeeded")
    evidence.heard(TICKETS[FAILING], "failed")
    evidence.ran("aaaaaa-1 1 1\naaaaaa-2 1 2\naaaaaa-2 2 2\nbbbbbb-1 1 3\n")
    return evidence


def test_good_evidence_has_no_fault_and_is_counted() -> None:
    evidence = good()
    evidence.load_over_at_s = 10.0
    assert judge(evidence) == Verdict(
        acknowledged=3, keyed=1, finished=3, in_doubt=0, ran_in_doubt=0, executions=((1, 2), (2, 1)),
        blows=((Kind.KILL, 1),), longest_without_end_s=10.0, longest_without_acknowledgement_s=10.0,
        lost=(), changed=(), duplicated=(), untold=(), amiss=(), in_vain=(),
    )  # fmt: skip
    assert judge(evidence).faults == ()


# --- one thing wrong in each -----------------------------------------------------------------------------------


def never_ended(evidence: Evidence) -> None:
    evidence.acknowledged(PLAIN, "aaaaaa-9", "node2")
    evidence.read("aaaaaa-9", Reply("PENDING aaaaaa-9 state=running"))


def never_answered_for(evidence: Evidence) -> None:
    evidence.acknowledged(PLAIN, "aaaaaa-9", "node2")


def denied_and_then_read_after_all(evidence: Evidence) -> None:
    evidence.read(TICKETS[PLAIN], Reply("ERR UNKNOWN_TICKET no job has the ticket"))


def read_in_two_ways(evidence: Evidence) -> None:
    evidence.ran("aaaaaa-1 2 1\n")
    evidence.read(TICKETS[KEYED], end(TICKETS[KEYED], KEYED, attempt=2))


def printed_what_another_job_prints(evidence: Evidence) -> None:
    evidence.readings[TICKETS[KEYED]] = [end(TICKETS[KEYED], KEYED, prints=b"15")]


def printed_what_another_attempt_prints(evidence: Evidence) -> None:
    reading = end(TICKETS[PLAIN], PLAIN, attempt=1)
    evidence.readings[TICKETS[PLAIN]] = [Reply(reading.line.replace("attempt=1", "attempt=2"), reading.body)]


def failed_although_it_should_succeed(evidence: Evidence) -> None:
    evidence.readings[TICKETS[KEYED]] = [end(TICKETS[KEYED], KEYED, exit_code=1)]


def succeeded_although_it_should_fail(evidence: Evidence) -> None:
    evidence.readings[TICKETS[FAILING]] = [end(TICKETS[FAILING], FAILING)]


def watched_and_read_differently(evidence: Evidence) -> None:
    evidence.watched[TICKETS[KEYED]] = ["failed"]


def watched_in_two_ways(evidence: Evidence) -> None:
    evidence.heard(TICKETS[KEYED], "cancelled")


def key_became_two_jobs_that_were_read(evidence: Evidence) -> None:
    evidence.acknowledged(KEYED, "bbbbbb-7", "node2")
    evidence.read("bbbbbb-7", end("bbbbbb-7", KEYED))
    evidence.heard("bbbbbb-7", "succeeded")


def key_became_two_jobs_of_which_one_was_never_acknowledged(evidence: Evidence) -> None:
    evidence.ran("bbbbbb-7 1 1\n")


def submission_in_doubt_ran_as_two_jobs(evidence: Evidence) -> None:
    evidence.jobs[9] = job(9)
    evidence.in_doubt.add(9)
    evidence.ran("aaaaaa-5 1 9\nbbbbbb-5 1 9\n")


def ticket_was_given_to_two_submissions(evidence: Evidence) -> None:
    evidence.acknowledged(PLAIN, TICKETS[KEYED], "node2")


def ticket_ran_as_a_submission_that_it_was_not_given_to(evidence: Evidence) -> None:
    evidence.jobs[9] = job(9)
    evidence.ran("aaaaaa-1 2 9\n")


def attempt_began_twice(evidence: Evidence) -> None:
    evidence.ran("aaaaaa-1 1 1\n")


def attempt_began_after_the_end(evidence: Evidence) -> None:
    evidence.ran("aaaaaa-1 2 1\n")


def end_of_an_attempt_that_never_began(evidence: Evidence) -> None:
    evidence.executions = [each for each in evidence.executions if each.ticket != TICKETS[KEYED]]


def no_watch_told_of_an_end(evidence: Evidence) -> None:
    del evidence.watched[TICKETS[KEYED]]


def submission_was_refused(evidence: Evidence) -> None:
    evidence.refused.append("submit sh …: ERR INTERNAL")


def program_ended_by_itself(evidence: Evidence) -> None:
    evidence.misconduct.append("node1 ended by itself")


def nothing_was_done(evidence: Evidence) -> None:
    evidence.blows.clear()


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (never_ended, "lost"),
        (never_answered_for, "lost"),
        (denied_and_then_read_after_all, "lost"),
        (read_in_two_ways, "changed"),
        (printed_what_another_job_prints, "changed"),
        (printed_what_another_attempt_prints, "changed"),
        (failed_although_it_should_succeed, "changed"),
        (succeeded_although_it_should_fail, "changed"),
        (watched_and_read_differently, "changed"),
        (watched_in_two_ways, "changed"),
        (key_became_two_jobs_that_were_read, "duplicated"),
        (key_became_two_jobs_of_which_one_was_never_acknowledged, "duplicated"),
        (submission_in_doubt_ran_as_two_jobs, "duplicated"),
        (ticket_was_given_to_two_submissions, "duplicated"),
        (ticket_ran_as_a_submission_that_it_was_not_given_to, "duplicated"),
        (attempt_began_twice, "duplicated"),
        (attempt_began_after_the_end, "duplicated"),
        (end_of_an_attempt_that_never_began, "duplicated"),
        (no_watch_told_of_an_end, "untold"),
        (submission_was_refused, "amiss"),
        (program_ended_by_itself, "amiss"),
        (nothing_was_done, "in_vain"),
    ],
)
def test_what_is_not_as_promised_is_found(spoil: Callable[[Evidence], None], kind: str) -> None:
    evidence = good()
    spoil(evidence)
    verdict = judge(evidence)
    assert getattr(verdict, kind), verdict
    assert verdict.faults


def test_a_run_in_which_nobody_got_through_is_no_proof() -> None:
    assert judge(Evidence(blows=good().blows)).in_vain


# --- what is allowed -------------------------------------------------------------------------------------------


def test_a_second_ticket_of_a_key_is_another_name_of_the_same_job() -> None:
    evidence = good()
    evidence.acknowledged(KEYED, "bbbbbb-7", "node2")
    evidence.read("bbbbbb-7", end(TICKETS[KEYED], KEYED))
    verdict = judge(evidence)
    assert verdict.faults == ()
    assert (verdict.acknowledged, verdict.finished) == (3, 3)


def test_a_submission_in_doubt_may_run_or_not() -> None:
    evidence = good()
    evidence.jobs |= {8: job(8), 9: job(9)}
    evidence.in_doubt |= {8, 9}
    evidence.ran("aaaaaa-9 1 9\n")
    verdict = judge(evidence)
    assert (verdict.faults, verdict.acknowledged, verdict.in_doubt, verdict.ran_in_doubt) == ((), 3, 2, 1)


def test_a_submission_that_was_in_doubt_and_acknowledged_at_last_is_not_in_doubt() -> None:
    evidence = good()
    evidence.in_doubt.add(KEYED)
    assert judge(evidence).in_doubt == 0


def test_not_now_is_no_denial() -> None:
    evidence = good()
    evidence.read(TICKETS[KEYED], Reply("ERR UNAVAILABLE the balancer cannot be reached"))
    assert judge(evidence).faults == ()


# --- the longest stall -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moments", "gap_s"),
    [
        ([], 10.0),
        ([1.0, 2.0, 5.0], 5.0),  # up to the end of the load
        ([4.0, 5.0, 9.0], 4.0),  # from the beginning, and in between
        ([9.0, 4.0], 5.0),  # in any order
        ([4.0, 8.0, 30.0], 4.0),  # what happens afterwards is no matter
    ],
)
def test_the_longest_stall_is_between_two_moments_or_at_the_edges(moments: list[float], gap_s: float) -> None:
    assert longest_gap_s(moments, 10.0) == gap_s
