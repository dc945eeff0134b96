"""What a balancer sends at once, and what can wait for company: a receipt that nobody waits for, of a single job."""

from typing import Any

from common.effects import Send
from common.messages import Acknowledged, Dispatch, Result, Taken
from tests.machines.cluster import Cluster


def sent(cluster: Cluster) -> list[tuple[type, bool]]:
    """Kinds of messages from now on, and whether they can wait."""
    found: list[tuple[type, bool]] = []

    def look(action: Any) -> None:
        if isinstance(action, Send) and isinstance(action.message, Taken | Dispatch | Result | Acknowledged):
            found.append((type(action.message), action.can_wait))

    cluster.observers.append(lambda step: [look(action) for action in step.effects.actions])  # type: ignore[arg-type, func-returns-value]
    return found


def test_who_has_something_to_begin_is_told_first_and_receipts_can_wait() -> None:
    cluster = Cluster(2, slots=1)
    told = sent(cluster)
    at_both = [cluster.submit("n1") for _ in range(2)]
    (away,) = (ticket for ticket in at_both if (ticket, 1) in cluster.nodes["n2"].running)
    assert sorted(told, key=str) == sorted(
        [(Dispatch, False), (Taken, False), (Dispatch, False), (Taken, True)], key=str
    )
    assert told.index((Taken, True)) > told.index((Dispatch, False)), "n2 begins it; n1 has nothing to do"
    told.clear()
    cluster.finish("n2", (away, 1))
    assert told == [(Result, False), (Acknowledged, True)]


def test_a_receipt_that_a_client_waits_for_cannot_wait() -> None:
    cluster = Cluster(2, slots=1)
    cluster.submit("n1")
    told = sent(cluster)
    cluster.submit("n1", "key=a sh true")
    assert told == [(Dispatch, False), (Taken, False)], "to n2, and to n1, which has nothing to do"


def test_receipts_of_several_jobs_do_not_wait() -> None:
    """Under load a step is late enough; and who submits much has to hear what he may forget."""
    cluster = Cluster(3, slots=1)
    cluster.busy("balancer")
    told = sent(cluster)
    for _ in range(2):
        cluster.submit("n3")
    cluster.free("balancer")
    assert told == [(Dispatch, False), (Dispatch, False), (Taken, False)], "to n1, to n2, and to n3"
