"""The load: clients that submit, read and watch while the cluster is being hit, and note what they are told.

Rules: an `OK` that was not read counts for nothing. A job whose `OK` did not come is in doubt: with a key it is
submitted again, at another node, until its ticket is known; without one it is left alone, for nothing was promised.
Clients of a node stay with it through everything, so that a silence of all of them is the cluster's and not their own.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import trio

from chaos import jobs
from chaos.conversation import Conversation, Gone
from chaos.evidence import Evidence
from chaos.jobs import Job
from chaos.replies import Reply, fields
from chaos.victims import Cluster

SUBMITTERS: Final = 4  # clients of each node that submit; one more reads, and one watches
SUBMIT_PAUSE_S: Final = 0.3  # of a client between two submissions: enough load, and a small machine can breathe
READ_PAUSE_S: Final = 0.03  # and between two readings
AGAIN_S: Final = 0.2  # until a client tries again whose node is not to be had
OPEN_MAX: Final = 300  # jobs under way: more than come in during an outage, and no more than soon come to their end
RESUBMITTED: Final = 0.05  # of the submissions: an old key once more, at whatever node
WATCH_S: Final = 2.0
DOUBT_S_MAX: Final = 30.0  # after everything was mended, for the last submissions
FINAL_READERS: Final = 4  # clients of each node that share the results between them
ENDED_AGAIN: Final = 0.3  # of the readings: of a job whose end was read before


class Load:
    """Clients of one cluster that note everything in `evidence`. `run` names this load's group and keys."""

    def __init__(self, cluster: Cluster, evidence: Evidence, seed: int, run: str, node_timeout_s: float) -> None:
        self._cluster = cluster
        self._evidence = evidence
        self._seed = seed
        self._run = run
        self._node_timeout_s = node_timeout_s
        self._over = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Clients read and watch inside."""
        async with trio.open_nursery() as nursery:
            for node in self._cluster.node_names:
                nursery.start_soon(self._read_all, node, self._chance(f"reader {node}"))
                nursery.start_soon(self._watch_all, node)
            yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def submitting(self) -> AsyncIterator[None]:
        """Clients submit inside; afterwards, whoever is in doubt and has a key has asked until it was not."""
        async with trio.open_nursery() as nursery:
            for node in self._cluster.node_names:
                for place in range(SUBMITTERS):
                    nursery.start_soon(self._submit_all, node, self._chance(f"submitter {node} {place}"))
            yield
            self._over = True
            nursery.cancel_scope.deadline = trio.current_time() + DOUBT_S_MAX

    def _chance(self, who: str) -> Random:
        return Random(f"{self._seed} {who}")

    # --- submitting --------------------------------------------------------------------------------------------

    async def _submit_all(self, home: str, chance: Random) -> None:
        client = _Client(self._cluster, home)
        async with client:
            while not self._over:
                await trio.sleep(SUBMIT_PAUSE_S)
                if len(self._evidence.open) < OPEN_MAX:
                    await self._submit(client, self._next_job(chance), chance)

    def _next_job(self, chance: Random) -> Job:
        """A new job, or one with a key that may be known already."""
        known = self._evidence.jobs
        if known and chance.random() < RESUBMITTED and (old := known[chance.randint(1, len(known))]).key:
            return old
        number = len(known) + 1
        known[number] = jobs.draw(
            chance, number, run=self._run, journal=self._cluster.journal, node_timeout_s=self._node_timeout_s
        )
        return known[number]

    async def _submit(self, client: "_Client", job: Job, chance: Random) -> None:
        """Until the job is acknowledged; one without a key, only until its fate is in doubt."""
        doubtful = False
        while doubtful or not self._over:
            try:
                reply = await client.ask(f"submit {job.line}", job.body)
            except Gone as gone:
                if gone.sent and not job.key:
                    self._evidence.in_doubt.add(job.number)
                    return
                doubtful = doubtful or gone.sent
                await client.move(chance.choice(self._cluster.node_names) if doubtful else client.home)
                await trio.sleep(AGAIN_S)
                continue
            if reply.ok:
                self._evidence.acknowledged(job.number, reply.ticket, client.node)
                break
            if not reply.later:
                self._evidence.refused.append(f"submit {job.line}: {reply.line}")
                break
            await trio.sleep(AGAIN_S)
        await client.move(client.home)

    # --- reading -----------------------------------------------------------------------------------------------

    async def _read_all(self, home: str, chance: Random) -> None:
        """Reads at one node: open jobs of its own, which it knows first, and those that had ended, of any node."""
        async with _Client(self._cluster, home) as client:
            while True:
                await trio.sleep(READ_PAUSE_S)
                if ticket := self._any_ticket(home, chance):
                    try:
                        self._evidence.read(ticket, await client.ask(f"result {ticket}"))
                    except Gone:
                        await trio.sleep(AGAIN_S)

    def _any_ticket(self, home: str, chance: Random) -> str:
        if chance.random() < ENDED_AGAIN:
            ended = self._evidence.acknowledgements
            return chance.choice(ended).ticket if ended else ""
        mine = [ticket for ticket, each in self._evidence.open.items() if each.node == home]
        return chance.choice(mine) if mine else ""

    # --- watching ----------------------------------------------------------------------------------------------

    async def _watch_all(self, home: str) -> None:
        """Watches the whole group at one node, with one cursor through all that happens to it."""
        cursor = ""
        async with _Client(self._cluster, home) as client:
            while True:
                since = f" since={cursor}" if cursor else ""
                try:
                    reply = await client.ask(f"watch timeout={WATCH_S}s{since} group={self._run}")
                except Gone:
                    await trio.sleep(AGAIN_S)
                    continue
                if reply.ok:
                    cursor = reply.field("cursor")
                    for line in reply.body.decode().splitlines():
                        self._evidence.heard(line.split()[0], fields(line)["state"])
                else:
                    await trio.sleep(AGAIN_S)


class _Client:
    """A client with a home node: it dials when it has to, and once only for each request."""

    def __init__(self, cluster: Cluster, home: str) -> None:
        self.home = home
        self.node = home
        self._cluster = cluster
        self._conversation: Conversation | None = None

    async def __aenter__(self) -> "_Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def ask(self, line: str, body: bytes | None = None) -> Reply:
        try:
            if self._conversation is None:
                self._conversation = await Conversation.dial(self._cluster.address(self.node))
            return await self._conversation.ask(line, body)
        except BaseException:
            await self._leave()
            raise

    async def move(self, node: str) -> None:
        if node != self.node:
            await self._leave()
            self.node = node

    async def _leave(self) -> None:
        if self._conversation is not None:
            conversation, self._conversation = self._conversation, None
            await conversation.__aexit__(None, None, None)


# --- afterwards ------------------------------------------------------------------------------------------------


async def read_all_ends(cluster: Cluster, evidence: Evidence, within_s: float, told: Callable[[bool], None]) -> None:
    """Reads the end of every acknowledged job at every node, as soon as it has one. `told` hears of each try."""
    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            tickets = list(dict.fromkeys(each.ticket for each in evidence.acknowledgements))
            for node in cluster.node_names:
                for place in range(FINAL_READERS):
                    some = tickets[place::FINAL_READERS]
                    nursery.start_soon(_read_ends, cluster, node, evidence, some, told)


async def _read_ends(
    cluster: Cluster, node: str, evidence: Evidence, tickets: Sequence[str], told: Callable[[bool], None]
) -> None:
    async with _Client(cluster, node) as client:
        while tickets:
            without = [ticket for ticket in tickets if not await _read_end(client, evidence, ticket, told)]
            if without:
                await trio.sleep(AGAIN_S)
            tickets = without


async def _read_end(client: _Client, evidence: Evidence, ticket: str, told: Callable[[bool], None]) -> bool:
    try:
        reply = await client.ask(f"result {ticket}")
    except Gone:
        return False
    evidence.read(ticket, reply)
    told(reply.ok)
    return reply.ok
