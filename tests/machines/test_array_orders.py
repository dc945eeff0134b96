"""Arrays under orders that cross: cancelled, retried and waited for, while some of their elements are under way."""

import attrs

from common.model import Outcome, Reason, Verdict
from tests.machines.asking import field, state_of, status
from tests.machines.cluster import PERIODS, Cluster

FAILED = Outcome(Verdict.FAILED, Reason.EXIT, 3, 0.5)
CANCELLED = Outcome(Verdict.FAILED, Reason.SIGNAL, 143, 0.5)
ONE_BY_ONE = attrs.evolve(PERIODS, backlog_max=0)


def test_an_element_that_is_retried_while_its_cancelled_array_is_ending_runs() -> None:
    cluster = Cluster(1, slots=1, periods=ONE_BY_ONE)
    ticket = cluster.submit("n1", "array=1-3 sh work {}")
    cluster.say("n1", f"cancel {ticket}")
    assert (cluster.say("n1", f"retry {ticket}_3") or "").startswith("OK")
    cluster.finish("n1", (f"{ticket}_1", 1), outcome=CANCELLED)
    assert cluster.where(f"{ticket}_3") == [("n1", (f"{ticket}_3", 1))]
    cluster.finish("n1", (f"{ticket}_3", 1))
    reply = status(cluster, ticket)
    assert [field(reply, name) for name in ("state", "succeeded", "cancelled")] == ["cancelled", "1", "2"]


def test_an_element_that_is_retried_while_its_array_is_blocked_goes_on_with_it() -> None:
    cluster = Cluster(1, slots=4)
    first = cluster.submit("n1", "sh first")
    ticket = cluster.submit("n1", f"array=1-2 after={first} sh work {{}}")
    cluster.say("n1", f"cancel {ticket}_2")
    assert cluster.say("n1", f"retry {ticket}_2") == f"OK {ticket}_2 state=queued\n"
    assert field(status(cluster, f"{ticket}_2"), "reason") == "blocked"
    cluster.finish("n1", (first, 1))
    assert cluster.finish_all() == 2
    assert state_of(cluster, ticket) == "succeeded"


def test_an_element_that_is_retried_while_its_array_is_scheduled_goes_on_with_it() -> None:
    cluster = Cluster(1, slots=4)
    ticket = cluster.submit("n1", "array=1-2 delay=10 sh work {}")
    cluster.say("n1", f"cancel {ticket}_2")
    cluster.advance(6)
    cluster.say("n1", f"retry {ticket}_2")
    cluster.advance(5)
    assert cluster.finish_all() == 2
    assert state_of(cluster, ticket) == "succeeded"
