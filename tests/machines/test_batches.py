"""Events that come in together: what a machine makes of a batch must not depend on where the batch was cut.

While a commit is under way events gather, so that under load an end, a lost link and a new one can be one step.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

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

    def a_member(self, data: st.DataObject) -> str | None:
        members = sorted(self.cluster.nodes) + ["balancer"] * (self.cluster.balancer is not None)
        return data.draw(st.sampled_from(members)) if members else None

    @rule(data=st.data())
    @precondition(lambda self: hasattr(self, "cluster"))
    def be_busy(self, data: st.DataObject) -> None:
        if (name := self.a_member(data)) is not None and name not in self.cluster.busy_ones():
            self.cluster.busy(name)

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.busy_ones())
    def be_free(self, data: st.DataObject) -> None:
        self.cluster.free(data.draw(st.sampled_from(sorted(self.cluster.busy_ones()))))
