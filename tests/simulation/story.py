"""A story: one seed, from an empty cluster to the verdict.

    the span ....... clients do what they do, and the plan's faults happen
    the end of it .. everything is undone: promise 3 applies from here on
    the settling ... in bounded virtual time every job ends, and every client is answered
    the questions .. every node is asked for every job, and tells the same

Whatever comes of a seed comes of it again: a verdict has a digest of all that happened.
"""

import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.simulation import determinism, knobs, plan
from tests.simulation.auditor import Auditor
from tests.simulation.bounds import Bounds
from tests.simulation.clients import Client, Crowd
from tests.simulation.disk import SLOWER
from tests.simulation.ending import Ending
from tests.simulation.faults import DiskFull, Jump, Stop
from tests.simulation.journal import Journal
from tests.simulation.knobs import Setting
from tests.simulation.levelness import Levelness
from tests.simulation.plan import Plan
from tests.simulation.records import Violation, must
from tests.simulation.talk import Request
from tests.simulation.told import Told
from tests.simulation.world import World

_LOOK_EVERY_S: Final = 0.5
_QUESTIONS_AT_ONCE: Final = 50
_STORY_S_MAX: Final = 3600.0  # none is longer


@attrs.frozen
class Verdict:
    """What came of a seed. `violation` is None where all promises were kept."""

    seed: int
    setting: Setting
    plan: Plan
    jobs: int = 0
    crashes: int = 0
    restarts: int = 0
    level_looks: int = 0  # in how many quiet moments a job that waits on a node was compared
    virtual_s: float = 0.0
    digest: str = ""
    passed: Sequence[tuple[float, str, str]] = ()  # of a story with crash points: when, who and what
    violation: str | None = None
    tail: tuple[str, ...] = ()
    crash_at: Mapping[int, bool] = attrs.field(factory=dict)

    def __str__(self) -> str:
        how = "every promise kept" if self.violation is None else f"VIOLATION: {self.violation}"
        temper = ", ".join(self.setting.temper) or "nothing unusual"
        return (
            f"seed {self.seed} ({temper}): {self.jobs} jobs, {self.crashes} crashes, {self.restarts} restarts in "
            f"{self.virtual_s:.1f} virtual seconds, digest {self.digest[:16]}: {how}"
        )


def tell(
    seed: int,
    *,
    setting: Setting | None = None,
    faults: Plan | None = None,
    crash_at: Mapping[int, bool] | None = None,
    journal: Journal | None = None,
) -> Verdict:
    """The story of a seed; or of the same seed with another setting, other faults, or crashes at numbered points."""
    setting = knobs.draw(seed) if setting is None else setting
    faults = plan.draw(seed, setting) if faults is None else faults
    story = _Story(seed, setting, faults, crash_at, Journal() if journal is None else journal)
    return determinism.run(story.run, seed=seed)


class _Story:
    def __init__(
        self, seed: int, setting: Setting, faults: Plan, crash_at: Mapping[int, bool] | None, journal: Journal
    ) -> None:
        self._seed, self._setting, self._plan, self._journal = seed, setting, faults, journal
        self._auditor = Auditor(
            lambda process: self._world.tables(process),
            Bounds(setting.knobs.slots_of, clocks_agree=not any(isinstance(planned.fault, Jump) for planned in faults)),
            node_timeout_s=setting.knobs.node_timeout_s,
            expires=_may_expire(setting, faults),
        )
        self._levelness = Levelness(self._auditor, setting.knobs)
        self._world = World(seed, setting.knobs, [journal, self._auditor, self._levelness])
        self._is_numbered = crash_at is not None
        self._world.crash_at = dict(crash_at or {})
        self._told = Told(self._auditor, _explained(setting, faults))
        self._nodes = [f"n{number}" for number in range(1, setting.knobs.nodes + 1)]
        self._crowd = Crowd(
            self._world,
            self._told,
            setting.load,
            self._nodes,
            min(map(setting.knobs.slots_of, self._nodes)),
            setting.knobs.node_timeout_s,
            plan.gone(faults),
            self._auditor.boots.get,
            journal.say,
        )
        self._ending = Ending(self._auditor, self._told, self._nodes, plan.gone(faults))

    async def run(self) -> Verdict:
        try:
            violation = await self._world.run(self._tell)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever a watcher or a program raised
            violation = _first_cause(error)
        auditor = self._auditor
        return Verdict(
            self._seed,
            self._setting,
            self._plan,
            jobs=len(self._told.acknowledged),
            crashes=auditor.crashes,
            restarts=max(0, auditor.starts - len(self._nodes) - 1),
            level_looks=self._levelness.looks,
            virtual_s=trio.current_time(),
            digest=self._world.digest(),
            passed=tuple(self._world.passed) if self._is_numbered else (),
            violation=violation,
            tail=() if violation is None else tuple(self._journal.lines()),
            crash_at=dict(self._world.crash_at),
        )

    async def _tell(self, world: World) -> str | None:
        """What has ended the story before its own end, if anything has."""
        try:
            await self._tell_all(world)
        except Exception as error:  # noqa: BLE001 - whatever was wrong is told
            return _first_cause(error)
        return None

    async def _tell_all(self, world: World) -> None:
        load = self._setting.load
        clients = [
            Client(name, self._crowd, random.Random(f"{name} of {self._seed}"))
            for name in (f"c{number}" for number in range(1, load.clients + 1))
        ]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run)
            await self._play()
            await self._settle(nursery, clients)
        self._ending.audit()
        await self._ask_everybody()

    # --- the span ----------------------------------------------------------------------------------------------------

    async def _play(self) -> None:
        began_at = trio.current_time()
        for planned in self._plan:
            await trio.sleep_until(began_at + planned.at_s)
            self._journal.say(f"*** {planned}")
            self._auditor.fault(planned.fault)
            self._levelness.disturbed(began_at + planned.over_s)
            self._world.do(planned.fault)
        await trio.sleep_until(began_at + plan.over_s(self._plan))
        self._world.heal()
        self._levelness.disturbed(trio.current_time())
        self._journal.say("*** nothing breaks any more")

    # --- the settling ------------------------------------------------------------------------------------------------

    async def _settle(self, nursery: trio.Nursery, clients: Sequence[Client]) -> None:
        """Until every client has finished and nothing is unfinished: in bounded time, and never still for long."""
        give_up_at = trio.current_time() + self._patience_s()
        while nursery.child_tasks or self._is_unfinished():
            await trio.sleep(_LOOK_EVERY_S)
            now = trio.current_time()
            if now > give_up_at or now > self._auditor.changed_at + self._stillness_s():
                waiting = [
                    f"{client.name} waits for the answer to {client.doing}" for client in clients if client.doing
                ]
                raise Violation("; ".join(["this does not come to an end", *waiting, *self._ending.unfinished()]))

    def _is_unfinished(self) -> bool:
        return next(self._ending.unfinished(), None) is not None

    def _stillness_s(self) -> float:
        """For how long nothing may change while something is unfinished: longer than any job, any wait of a client,
        and all periods together."""
        knobs = self._setting.knobs
        periods_s = knobs.dispatch_period_s + knobs.result_period_s
        return 4 * knobs.node_timeout_s + 3 * periods_s + SLOWER * knobs.commit_s[1] + 30.0

    def _patience_s(self) -> float:
        """Time for what is still to be said, for a node to be given up and its jobs to be run again, one after the
        other on the fewest slots, and for every period to pass that can lie between."""
        knobs, load = self._setting.knobs, self._setting.load
        said_s = load.operations * (load.pause_s * 5 + knobs.node_timeout_s * 2) + load.span_s
        periods_s = knobs.node_timeout_s + knobs.dispatch_period_s + knobs.result_period_s + 10.0
        jobs = load.clients * load.operations * load.burst * 4
        rounds_s = jobs / knobs.jobs_per_round_max * knobs.dispatch_period_s * (not knobs.eager)
        return said_s + 10 * periods_s + 2 * jobs * (1.0 + load.long_jobs * knobs.node_timeout_s) + rounds_s

    # --- the questions -----------------------------------------------------------------------------------------------

    async def _ask_everybody(self) -> None:
        for node in self._nodes:
            if node not in plan.gone(self._plan):
                await self._ask_for_all(node)

    async def _ask_for_all(self, node: str) -> None:
        """RESULT of all that was acknowledged: it has ended, at whichever node one asks."""
        tickets = [ticket for ticket in self._told.acknowledged if not self._ending.is_excused(ticket)]
        examiner = Client("examiner", self._crowd, random.Random(0))
        for first in range(0, len(tickets), _QUESTIONS_AT_ONCE):
            asked = tickets[first : first + _QUESTIONS_AT_ONCE]
            requests = [Request(f"RESULT {ticket}", "RESULT", ticket) for ticket in asked]
            with trio.move_on_after(self._stillness_s()) as patience:
                while len(replies := await examiner.ask(requests, node)) < len(asked):  # noqa: ASYNC110 - it asks
                    await trio.sleep(_LOOK_EVERY_S)
            must(not patience.cancelled_caught, f"{node} does not answer {requests[0].line!r}")
            for ticket, reply in zip(asked, replies, strict=True):
                must(reply.code in self._last_words(ticket), f"in the end {node} says of {ticket}: {reply}")
                must(reply.word != "PENDING", f"{ticket} has ended, and {node} says {reply}")

    def _last_words(self, ticket: str) -> set[str | None]:
        """What may be said in the end. Of a job that has expired only its origin can tell that it was."""
        name = self._auditor.first_name(ticket)
        away = self._auditor.issued.get(name) in plan.gone(self._plan) and _may_expire(self._setting, self._plan)
        return {None, "EXPIRED", "UNKNOWN_TICKET", *(["UNAVAILABLE"] if away else [])}


def _first_cause(error: BaseException) -> str:
    """What was wrong first, in words, out of all that came apart because of it."""
    causes = list(_leaves(error))
    cause = next((one for one in causes if isinstance(one, Violation)), causes[0])
    if isinstance(cause, Violation):
        return str(cause)
    *_, last = traceback.extract_tb(cause.__traceback__)
    return f"{type(cause).__name__}: {cause} at {Path(last.filename).name}:{last.lineno}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for one in error.exceptions:
        yield from (leaf for leaf in _leaves(one) if not isinstance(leaf, trio.Cancelled))


def _may_expire(setting: Setting, faults: Plan) -> bool:
    """Whether what has ended may be older than the retention time, by some clock."""
    jumped_s = sum(abs(planned.fault.seconds) for planned in faults if isinstance(planned.fault, Jump))
    return jumped_s + _STORY_S_MAX > setting.knobs.retention_s


def _explained(setting: Setting, faults: Plan) -> set[str]:
    """The error codes that clients may be told in such a story."""
    kinds = {type(planned.fault) for planned in faults}
    codes = {"FULL": DiskFull in kinds, "DRAINING": Stop in kinds, "EXPIRED": _may_expire(setting, faults)}
    return {code for code, explained in codes.items() if explained}
