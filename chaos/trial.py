"""A trial: the load on a cluster, the blows that hit it, the calm afterwards, and the evidence of it all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import trio

from chaos import display
from chaos.blows import BREATH_S, Blow
from chaos.evidence import Evidence
from chaos.load import Load, read_all_ends
from chaos.victims import Cluster

END_S_MAX: Final = 120.0  # after the last blow was undone: for all jobs to end, and to be read everywhere
HEARING_S: Final = 3.0  # for WATCH to have told of the last ends


async def hold(cluster: Cluster, blows: Sequence[Blow], seed: int, run: str, node_timeout_s: float) -> Evidence:
    """Everything that happened. `run` is a name that no other run on this cluster has."""
    began_at = trio.current_time()
    evidence = Evidence(lambda: trio.current_time() - began_at)
    load = Load(cluster, evidence, seed, run, node_timeout_s)
    async with load.listening():
        async with load.submitting():
            await _strike_all(cluster, blows, evidence)
            evidence.load_over_at_s = evidence.now()
        await _read_everything(cluster, evidence)
    evidence.ran(await trio.to_thread.run_sync(cluster.executions))
    evidence.misconduct += await trio.to_thread.run_sync(cluster.misconduct)
    return evidence


async def _strike_all(cluster: Cluster, blows: Sequence[Blow], evidence: Evidence) -> None:
    """Every blow at its time; those of one victim one after another. All are undone at the end."""
    lasts_s = max((blow.at_s + blow.lasts_s for blow in blows), default=0.0)
    async with display.bar("blows", lasts_s, " s", evidence, evidence.now), trio.open_nursery() as nursery:
        for its_own in _by_victim(blows):
            nursery.start_soon(_strike_one_by_one, cluster, its_own, evidence)


def _by_victim(blows: Sequence[Blow]) -> Iterable[Sequence[Blow]]:
    grouped: defaultdict[str, list[Blow]] = defaultdict(list)
    for blow in blows:
        grouped[blow.victim].append(blow)
    return grouped.values()


async def _strike_one_by_one(cluster: Cluster, blows: Sequence[Blow], evidence: Evidence) -> None:
    for blow in blows:
        await trio.sleep(blow.at_s - evidence.now() if blow.at_s > evidence.now() else 0.0)
        evidence.blows.append(replace(blow, at_s=evidence.now()))
        display.say_blow(evidence.blows[-1])
        await trio.to_thread.run_sync(cluster.strike, blow.victim, blow.kind)
        try:
            await trio.sleep(blow.lasts_s)
        finally:
            with trio.CancelScope(shield=True):  # also where the trial ends early: the cluster may be somebody's yet
                await trio.to_thread.run_sync(cluster.mend, blow.victim, blow.kind)
        await trio.sleep(BREATH_S)  # also where it took longer than planned, as a drain may


async def _read_everything(cluster: Cluster, evidence: Evidence) -> None:
    """Until every acknowledged job has ended and its end was read at every node, and WATCH has had time to tell."""
    display.say(f"  {evidence.now():6.1f} s  all is mended; every result is read at every node")
    read = 0

    def told(it_was_read: bool) -> None:
        nonlocal read
        read += it_was_read

    tickets = len({each.ticket for each in evidence.acknowledgements})
    async with display.bar("results", tickets * len(cluster.node_names), "", evidence, lambda: read):
        await read_all_ends(cluster, evidence, END_S_MAX, told)
        with trio.move_on_after(HEARING_S):
            while evidence.untold():  # noqa: ASYNC110
                await trio.sleep(display.TICK_S)
