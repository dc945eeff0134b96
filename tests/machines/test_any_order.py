"""Any order of events: Hypothesis drives a whole cluster of the pure machines through crashes, cuts and time, and an
auditor with a small model of its own looks on.

At every step: no acknowledged job is forgotten, an ended job never changes, an attempt starts at most once, one key is
one job. At the end, when the faults have stopped: every job has ended, and nothing is left over.
"""

from collections import defaultdict

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.codec import unpack
from common.effects import Table
from common.model import Ended, Outcome, Reason, Verdict, ticket_of
from tests.machines.cluster import PERIODS, Cluster
from tests.machines.sound import assert_all_sound

NAMES = ("n1", "n2", "n3")
LINES = ("sh true", "priority=5 sh true", "slots=2 sh true", "crash_limit=off sh true", "sleep 3", "timeout=4 sh true")


class AnyOrder(RuleBasedStateMachine):
    @initialize(eager=st.booleans(), backlog=st.sampled_from([0, 1, 1000]))
    def start(self, eager: bool, backlog: int) -> None:
        periods = attrs.evolve(PERIODS, eager=eager, backlog_max=backlog, jobs_per_round_max=3)
        self.cluster = Cluster(3, periods=periods)
        self.acknowledged: set[str] = set()
        self.ends: dict[str, Ended] = {}
        self.keys: dict[str, str] = {}
        self.keyed_apart = False  # a key was taken in while the balancer was away: its ticket may be a second name
        self.starts: dict[tuple[str, int], int] = defaultdict(int)
        self.ledger_was_lost = False

    # --- clients --------------------------------------------------------------------------------------------------

    def up(self) -> list[str]:
        return sorted(self.cluster.nodes)

    @rule(data=st.data(), line=st.sampled_from(LINES))
    def submit(self, data: st.DataObject, line: str) -> None:
        if not self.up():
            return
        reply = self.cluster.say(data.draw(st.sampled_from(self.up())), f"submit {line}")
        assert reply is not None
        assert reply.startswith("OK "), reply
        ticket = reply.split()[1]
        assert ticket not in self.acknowledged, "a ticket was issued twice"
        self.acknowledged.add(ticket)

    @rule(data=st.data(), key=st.sampled_from(["k1", "k2"]))
    def submit_with_key(self, data: st.DataObject, key: str) -> None:
        if not self.up():
            return
        name = data.draw(st.sampled_from(self.up()))
        linked = self.cluster.nodes[name].link is not None
        reply = self.cluster.say(name, f"submit key={key} sh true")
        if reply is None:
            return  # the ledger is being asked
        assert reply.startswith("OK "), reply
        ticket = reply.split()[1]
        if linked and key in self.keys and not self.keyed_apart and not self.ledger_was_lost:
            assert self.keys[key] == ticket, "one key, two jobs"
        self.keyed_apart |= not linked
        self.keys.setdefault(key, ticket)

    @rule(data=st.data())
    @precondition(lambda self: self.acknowledged)
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.acknowledged)))
        for name in self.up()[:1]:
            self.cluster.ask(name, f"cancel {ticket}")

    @rule(data=st.data())
    @precondition(lambda self: self.acknowledged)
    def wait(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.acknowledged)))
        for name in self.up()[-1:]:
            self.cluster.ask(name, f"wait timeout=7 {ticket}")

    # --- jobs -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), good=st.booleans())
    def finish_one(self, data: st.DataObject, good: bool) -> None:
        running = [(name, id) for name, node in sorted(self.cluster.nodes.items()) for id in sorted(node.running)]
        if not running:
            return
        name, id = data.draw(st.sampled_from(running))
        failed = Outcome(Verdict.FAILED, Reason.EXIT, 1, 0.1)
        self.cluster.finish(name, id, outcome=None if good else failed)

    # --- faults ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.2, 1.5, 6.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    @rule(name=st.sampled_from(NAMES))
    def kill_a_node(self, name: str) -> None:
        if name in self.cluster.nodes:
            self.cluster.kill_node(name)

    @rule(name=st.sampled_from(NAMES))
    def restart_a_node(self, name: str) -> None:
        if name not in self.cluster.nodes:
            self.cluster.restart_node(name, dial=self.cluster.balancer is not None)

    @rule(name=st.sampled_from(NAMES))
    def cut_a_link(self, name: str) -> None:
        node = self.cluster.nodes.get(name)
        if node is not None and node.link is not None:
            self.cluster.cut(node.link)

    @rule(name=st.sampled_from(NAMES))
    def dial_again(self, name: str) -> None:
        node = self.cluster.nodes.get(name)
        if node is not None and node.link is None and self.cluster.balancer is not None:
            self.cluster.dial(name)

    @rule()
    def kill_the_balancer(self) -> None:
        if self.cluster.balancer is not None:
            self.cluster.kill_balancer()

    @rule(lost=st.sampled_from([False, False, False, True]))
    def restart_the_balancer(self, lost: bool) -> None:
        if self.cluster.balancer is None:
            self.ledger_was_lost |= lost
            self.cluster.start_balancer(volume_lost=lost)

    # --- the auditor ----------------------------------------------------------------------------------------------

    @invariant()
    def an_ended_job_never_changes(self) -> None:
        if not hasattr(self, "cluster") or self.cluster.balancer is None:
            return
        for key, packed in self.cluster.balancer.disk.tables[Table.ENDED].items():
            ended = unpack(Ended, packed)
            if not self.ledger_was_lost:
                assert self.ends.setdefault(ticket_of(key), ended) == ended

    @invariant()
    def an_attempt_starts_at_most_once(self) -> None:
        if hasattr(self, "cluster") and not self.ledger_was_lost:
            assert all(count == 1 for count in self.cluster.starts.values()), self.cluster.starts

    @invariant()
    def no_acknowledged_job_is_forgotten(self) -> None:
        """Seen at the disks, up or down: the origin has it, live, ended, or as another name."""
        if not hasattr(self, "cluster"):
            return
        known: set[str] = set()
        for node in [*self.cluster.nodes.values(), *getattr(self.cluster, "_down", {}).values()]:
            for table in (Table.LIVE, Table.ENDED, Table.ALIASES):
                known |= {ticket_of(key) for key in node.disk.tables[table]}
        assert self.acknowledged <= known

    @invariant()
    def what_lies_on_the_disks_is_sound(self) -> None:
        if hasattr(self, "cluster"):
            assert_all_sound(self.cluster)

    def teardown(self) -> None:
        """The faults stop; under promise 3 every job ends."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        if cluster.balancer is None:
            cluster.start_balancer()
        for name in NAMES:
            if name not in cluster.nodes:
                cluster.restart_node(name)
            elif cluster.nodes[name].link is None:
                cluster.dial(name)
        for _ in range(200):
            cluster.advance(6.0)
            cluster.finish_all()
            if not any(node.disk.tables[Table.LIVE] for node in cluster.nodes.values()):
                break
        for ticket in sorted(self.acknowledged):
            for name in NAMES:
                reply = cluster.say(name, f"status {ticket}") or ""
                assert any(f"state={end}" in reply for end in ("succeeded", "failed", "cancelled")), reply
        assert cluster.balancer is not None
        assert cluster.balancer.disk.tables[Table.LIVE] == {}
        cluster.advance(10.0)
        for node in cluster.nodes.values():
            assert node.disk.tables[Table.OUTCOMES] == {}, "an outcome was never acknowledged"
            assert node.machine.statistics()["queries_open"] == 0, "somebody was never answered"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
