"""A workload on a real cluster, measured from its event log: as it is foretold, but for what processes take."""

import pytest

from analysis import virtual
from analysis.measures import measure
from analysis.real import RealCluster
from analysis.story import read, slots_of
from jobyard.workload import Request

pytestmark = pytest.mark.system

WORK = [Request(0.0, (0.3, 0.5), (0.2,)), *(Request(0.1, (0.2,)) for _ in range(6))]


@pytest.mark.parametrize("policy", ["level", "random"])
def test_a_workload_is_played_and_measured_on_processes_as_in_virtual_time(policy: str) -> None:
    run = virtual.run((2, 1), policy, 1, WORK)
    foretold = measure(read(run.events, slots_of(run.events), run.name), WORK, None)
    with RealCluster((2, 1), policy) as cluster:
        assert cluster.slots == {"node1": 2, "node2": 1}
        stories = [cluster.run(WORK) for _ in range(2)]  # the second has a log behind it that is not its own
    for story in stories:
        assert [request.number for request in story.requests] == [1, 2, 3, 4, 5, 6, 7]
        assert story.jobs == 9
        assert max(moment.running for moment in story.moments) <= 3
        figures = measure(story, WORK, None)
        assert figures.over_bound >= 0.99
        assert foretold.makespan_s * 0.9 < figures.makespan_s < foretold.makespan_s + 2.0
