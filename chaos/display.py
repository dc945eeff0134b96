"""What is shown: phases, a line for each blow, a bar that moves, and the verdict in words.

On a terminal the bar stays at the bottom; elsewhere it is a line every ten seconds.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import trio
from tqdm import tqdm

from chaos.blows import Blow, Kind
from chaos.evidence import Evidence
from chaos.verdict import Verdict

TICK_S: Final = 0.25
LINE_S: Final = 10.0  # between two lines where there is no terminal
SHOWN_MAX: Final = 10  # of each kind of fault
BAR: Final = "  {desc:<8}|{bar:30}| {n:.0f}/{total:.0f}{unit}{postfix}"

IN_WORDS: Final = {
    Kind.KILL: "killed, started again after",
    Kind.STOP: "told to stop, started again after",
    Kind.PAUSE: "paused for",
    Kind.CUT: "cut off from the network for",
}


def say(text: str) -> None:
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def say_blow(blow: Blow) -> None:
    say(f"  {blow.at_s:6.1f} s  {blow.victim:<9} {IN_WORDS[blow.kind]} {blow.lasts_s:.1f} s")


@asynccontextmanager
async def bar(name: str, total: float, unit: str, evidence: Evidence, done: Callable[[], float]) -> AsyncIterator[None]:
    """Inside, a bar goes from 0 to `total`, as `done` says, with what is known so far beside it."""
    it: tqdm[NoReturn] = tqdm(
        total=total, desc=name, unit=unit, bar_format=BAR, dynamic_ncols=True, leave=False,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_in_lines if it.disable else _keep_moving, it, evidence, done)
            yield
            nursery.cancel_scope.cancel()


async def _keep_moving(it: "tqdm[NoReturn]", evidence: Evidence, done: Callable[[], float]) -> None:
    while True:
        it.n = done()
        it.set_postfix_str(_known(evidence))
        await trio.sleep(TICK_S)


async def _keep_in_lines(it: "tqdm[NoReturn]", evidence: Evidence, done: Callable[[], float]) -> None:
    while True:
        await trio.sleep(LINE_S)
        say(f"  {evidence.now():6.1f} s  … {_known(evidence)}")


def _known(evidence: Evidence) -> str:
    return f"{len(evidence.acknowledgements):,} acknowledged, {len(evidence.open):,} under way"


# --- the verdict -----------------------------------------------------------------------------------------------


def in_words(verdict: Verdict) -> str:
    """The verdict for people; the last line alone says whether all is well."""
    return "\n".join([*_table(verdict), *_faults(verdict), "", _last_line(verdict)])


def _table(verdict: Verdict) -> Iterator[str]:
    blows = ", ".join(f"{count} × {kind}" for kind, count in verdict.blows)
    yield f"  blows          {sum(count for _, count in verdict.blows)}: {blows}"
    yield f"  submitted      {verdict.acknowledged:,} acknowledged, {verdict.keyed:,} of them with a key"
    yield f"  finished       {verdict.finished:,}"
    yield f"  lost           {len(verdict.lost):,}"
    yield f"  changed        {len(verdict.changed):,}"
    yield f"  duplicated     {len(verdict.duplicated):,}"
    yield f"  executions     {', '.join(f'{times}: {count:,}' for times, count in verdict.executions)}"
    yield "                 (how often a job began: how many jobs. Execution is at least once: a job begins again when"
    yield "                 its node is killed or presumed gone; the outcome of one attempt is recorded, once)"
    yield f"  in doubt       {verdict.in_doubt:,} submissions without a key whose reply never came, so that nothing was"
    yield f"                 promised; {verdict.ran_in_doubt:,} of them ran"
    yield f"  longest stall  {verdict.longest_without_end_s:.1f} s without the end of a job,"
    yield f"                 {verdict.longest_without_acknowledgement_s:.1f} s without an acknowledgement"


def _faults(verdict: Verdict) -> Iterator[str]:
    named = {"lost": verdict.lost, "changed": verdict.changed, "duplicated": verdict.duplicated}
    named |= {"untold": verdict.untold, "amiss": verdict.amiss, "in vain": verdict.in_vain}
    for name, faults in named.items():
        for fault in faults[:SHOWN_MAX]:
            yield f"  {name}: {fault}"
        if len(faults) > SHOWN_MAX:
            yield f"  {name}: and {len(faults) - SHOWN_MAX:,} more"


def _last_line(verdict: Verdict) -> str:
    told = (
        f"chaos: {verdict.acknowledged:,} submitted, {verdict.finished:,} finished, {len(verdict.lost):,} lost, "
        f"{len(verdict.changed):,} changed, {len(verdict.duplicated):,} duplicated"
    )
    return told if not verdict.faults else f"{told}: NOT AS PROMISED"
