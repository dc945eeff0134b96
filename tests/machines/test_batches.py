"""Events that come in together: what a machine makes of a batch must not depend on where the batch was cut.

While a commit is under way events gather, so that under load an end, a lost link and a new one can be one step.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.machines.cluster import Cluster
from tests.machines.test_any_order import NAMES, AnyOrder


def test_an_attempt_that_ends_in_the_step_that_opens_a_link_is_not_begun_again() -> None:
    cluster = Cluster(1, slots=1)
    ticket = cluster.submit("n1")
    cluster.kill_balancer()
    cluster.start_balancer()
    cluster.busy("n1")
    cluster.finish("n1", (ticket, 1))
    cluster.dial("n1")
    cluster.free("n1")
    assert cluster.starts == {(ticket, 1): 1}
    assert "state=succeeded" in (cluster.say("n1", f"status {ticket}") or "")


class AnyBatch(AnyOrder):
    """Any order of events, in any batches: now and then a machine is busy for a while."""

    def up(self) -> list[str]:
        """Where a client is answered at once."""
        return [name for name in super().up() if name not in self.cluster.busy_ones()]

    @rule(name=st.sampled_from([*NAMES, "balancer"]))
    def be_busy(self, name: str) -> None:
        here = self.cluster.balancer is not None if name == "balancer" else name in self.cluster.nodes
        if here and name not in self.cluster.busy_ones():
            self.cluster.busy(name)

    @rule(data=st.data())
    def be_free(self, data: st.DataObject) -> None:
        if busy := sorted(self.cluster.busy_ones()):
            self.cluster.free(data.draw(st.sampled_from(busy)))

    @rule(
        data=st.data(),
        line=st.sampled_from(["submit sh true", "submit key=k1 sh true", "cancel aaaaab-1", "wait aaaaab-1"]),
    )
    def ask_one_that_is_busy(self, data: st.DataObject, line: str) -> None:
        if busy := sorted({*self.cluster.busy_ones()} - {"balancer"}):
            self.cluster.ask(data.draw(st.sampled_from(busy)), line)

    def teardown(self) -> None:
        for name in self.cluster.busy_ones() if hasattr(self, "cluster") else ():
            self.cluster.free(name)
        super().teardown()


TestAnyBatch = AnyBatch.TestCase
TestAnyBatch.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
