"""The verdict: what follows from the evidence. Pure.

    lost         an acknowledged job whose end nobody could read, or which a node denied
    changed      an end that was told in two ways, or that is not what the job comes to
    duplicated   a submission that became two jobs, a ticket given to two, an attempt that began twice or after the end
    untold       an end that no WATCH told of, although the others of its group were told
    amiss        a submission that was refused for no good reason; a program that ended by itself
    in vain      nothing was tested: no blow, or nobody got through

Any of these is a fault. Execution is at least once: that an attempt began while another, of a node that was presumed
gone, had begun before, is counted, and is none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chaos.blows import Kind
from chaos.evidence import Acknowledgement, Evidence, Execution
from chaos.replies import Reply


@dataclass(frozen=True)
class Verdict:
    acknowledged: int  # jobs, however often submitted and under how many names
    keyed: int  # of these
    finished: int  # of these: an end was read
    in_doubt: int  # submissions whose reply never came; nothing was promised
    ran_in_doubt: int  # of these: ran nevertheless
    executions: tuple[tuple[int, int], ...]  # how often, and how many acknowledged jobs so often
    blows: tuple[tuple[Kind, int], ...]
    longest_without_end_s: float
    longest_without_acknowledgement_s: float
    lost: tuple[str, ...]
    changed: tuple[str, ...]
    duplicated: tuple[str, ...]
    untold: tuple[str, ...]
    amiss: tuple[str, ...]
    in_vain: tuple[str, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        return (*self.lost, *self.changed, *self.duplicated, *self.untold, *self.amiss, *self.in_vain)


def judge(evidence: Evidence) -> Verdict:
    numbers = {each.number for each in evidence.acknowledgements}
    read = {each.number for each in evidence.acknowledgements if each.ticket in evidence.readings}
    ran = _attempts(evidence)
    doubtful = evidence.in_doubt - numbers
    return Verdict(
        acknowledged=len(numbers),
        keyed=sum(bool(evidence.jobs[number].key) for number in numbers),
        finished=len(read),
        in_doubt=len(doubtful),
        ran_in_doubt=len(doubtful & ran.keys()),
        executions=tuple(sorted(Counter(len(ran.get(number, ())) for number in numbers).items())),
        blows=tuple(sorted(Counter(blow.kind for blow in evidence.blows).items())),
        longest_without_end_s=longest_gap_s(evidence.ends_at_s.values(), evidence.load_over_at_s),
        longest_without_acknowledgement_s=longest_gap_s(
            (each.at_s for each in evidence.acknowledgements), evidence.load_over_at_s
        ),
        lost=tuple(_lost(evidence)),
        changed=tuple(_changed(evidence)),
        duplicated=tuple(_duplicated(evidence)),
        untold=tuple(_untold(evidence)),
        amiss=(*evidence.refused, *evidence.misconduct),
        in_vain=tuple(_in_vain(evidence)),
    )


def longest_gap_s(moments: Iterable[float], over_at_s: float) -> float:
    """The longest time from 0 to `over_at_s` in which there was none of these moments."""
    inside = sorted(moment for moment in moments if moment < over_at_s)
    return max(later - earlier for earlier, later in zip([0.0, *inside], [*inside, over_at_s], strict=True))


# --- what can be wrong -----------------------------------------------------------------------------------------


def _lost(evidence: Evidence) -> Iterator[str]:
    origins = {each.ticket: each for each in evidence.acknowledgements}
    for ticket, acknowledged in origins.items():
        who = f"{ticket} (job {acknowledged.number}, acknowledged by {acknowledged.node} at {acknowledged.at_s:.1f} s)"
        if ticket in evidence.denials:
            yield f"{who} was denied: {evidence.denials[ticket]}"
        elif ticket not in evidence.readings:
            yield f"{who} has not ended: {evidence.last_words.get(ticket, 'no node ever answered for it')}"


def _changed(evidence: Evidence) -> Iterator[str]:
    for acknowledged in {each.ticket: each for each in evidence.acknowledgements}.values():
        readings = evidence.readings.get(acknowledged.ticket, [])
        job = evidence.jobs[acknowledged.number]
        if len(readings) > 1:
            yield f"{acknowledged.ticket} was read in {len(readings)} ways: {_in_words(readings)}"
        for reading in readings:
            if problem := job.problem(reading):
                yield f"{acknowledged.ticket} (job {job.number}) {problem}: {reading.line}"
            told = evidence.watched.get(reading.ticket, [])
            if told and told != [reading.field("state")]:
                yield f"{acknowledged.ticket} was told by WATCH as {', then '.join(told)}, and read as {reading.line}"


def _duplicated(evidence: Evidence) -> Iterator[str]:
    yield from _tickets_of_two(evidence)
    yield from _jobs_of_two_tickets(evidence)
    yield from _attempts_twice(evidence)
    yield from _attempts_out_of_place(evidence)


def _tickets_of_two(evidence: Evidence) -> Iterator[str]:
    issued: defaultdict[str, set[int]] = defaultdict(set)
    known: Sequence[Acknowledgement | Execution] = [*evidence.acknowledgements, *evidence.executions]
    for each in known:
        issued[each.ticket].add(each.number)
    for ticket, numbers in issued.items():
        if len(numbers) > 1:
            yield f"{ticket} stands for several submissions: jobs {_and(numbers)}"


def _jobs_of_two_tickets(evidence: Evidence) -> Iterator[str]:
    """A submission is one job, however often it was sent: it is read under one ticket, and ran under one. A second
    ticket that was given for a key is another name of the first, and says so when it is read."""
    names: defaultdict[int, set[str]] = defaultdict(set)
    for each in evidence.acknowledgements:
        names[each.number] |= {reading.ticket for reading in evidence.readings.get(each.ticket, [])}
    for execution in evidence.executions:
        names[execution.number].add(execution.ticket)
    for number, tickets in names.items():
        if len(tickets) > 1:
            key = evidence.jobs[number].key
            yield f"job {number} ({f'key {key}' if key else 'no key'}) became several: {_and(tickets)}"


def _attempts_twice(evidence: Evidence) -> Iterator[str]:
    for execution, count in Counter(evidence.executions).items():
        if count > 1:
            yield f"attempt {execution.ticket}.{execution.attempt} (job {execution.number}) began {count} times"


def _attempts_out_of_place(evidence: Evidence) -> Iterator[str]:
    """What is recorded was executed, and nothing began after it: attempts are numbered in the order of their leases."""
    ran = _attempts(evidence)
    for acknowledged in {each.ticket: each for each in evidence.acknowledgements}.values():
        for reading in evidence.readings.get(acknowledged.ticket, []):
            recorded = int(reading.field("attempt") or 0)
            begun = {attempt for _, attempt in ran.get(acknowledged.number, ())}
            if recorded not in begun:
                yield f"{acknowledged.ticket} has an end of attempt {recorded}, and began {_and(begun) or 'never'}"
            elif max(begun) > recorded:
                yield f"{acknowledged.ticket} ended with attempt {recorded}, and began attempt {max(begun)}"


def _untold(evidence: Evidence) -> Iterator[str]:
    for ticket in sorted(evidence.untold()):
        yield f"{ticket} ended, and no WATCH told of it"


def _in_vain(evidence: Evidence) -> Iterator[str]:
    if not evidence.blows:
        yield "nothing was done to the cluster, so nothing was tested"
    if not evidence.acknowledgements:
        yield "no submission was acknowledged, so nothing was tested"


# --- odds and ends ---------------------------------------------------------------------------------------------


def _attempts(evidence: Evidence) -> dict[int, set[tuple[str, int]]]:
    """The attempts that began, by number of the job."""
    ran: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    for each in evidence.executions:
        ran[each.number].add((each.ticket, each.attempt))
    return dict(ran)


def _in_words(readings: Sequence[Reply]) -> str:
    return "; ".join(f"{reading.line} {reading.body!r:.80}" for reading in readings)


def _and(several: Iterable[object]) -> str:
    return " and ".join(map(str, sorted(several, key=str)))
