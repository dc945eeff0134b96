"""What a node answers over HTTP: whether it takes jobs, its numbers, its metrics."""

from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.events import Inquired
from common.runtime.asking import Asking
from common.runtime.tally import Tally
from common.settings import load_node
from node.openapi import DOCUMENT
from node.web import site
from tests.machines.cluster import Cluster


class Served:
    """A node of a cluster without a balancer, and what it serves."""

    def __init__(self, directory: Path, token: str | None = None) -> None:
        self.cluster = Cluster(1)
        self._node = self.cluster.nodes["n1"]
        self._asking = Asking(self._post, lambda: self.cluster.wall)
        settings = load_node({} if token is None else {"JOBYARD_CLIENT_TOKEN": token}, "127.0.0.1", 8080)
        clients = {"connections": 3, "queries_total": 9, "connections_refused_total": 1}
        self.app = site(settings, self._asking, Tally(lambda: 0.0), directory, lambda: clients).app

    def _post(self, event: object) -> None:
        self.cluster._step_node(self._node, event)
        if isinstance(event, Inquired):
            for inquiry in event.inquiries:
                self._asking.told(inquiry.id, self._node.replies.pop(inquiry.id))

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1", headers=headers
        ) as client:
            return await client.get(path)


async def test_its_numbers_are_those_of_stats(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.cluster.submit("n1")
    statistics = (await served.get("/api/v1/stats")).json()["statistics"]
    assert statistics["jobs_submitted_total"] == statistics["attempts_running"] == 1


async def test_its_metrics_are_well_formed_and_of_this_moment(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.cluster.submit("n1")
    found = {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families((await served.get("/metrics")).text)
        for sample in family.samples
    }
    assert found["jobyard_local_attemptsrunning"] == found["jobyard_local_jobs_submitted_total"] == 1
    assert found["jobyard_local_clients"] == 3
    assert found["jobyard_local_linked"] == 1


async def test_it_is_ready_while_it_takes_jobs_and_says_why_not(tmp_path: Path) -> None:
    served = Served(tmp_path)
    assert (await served.get("/readyz")).json() == {"ready": True, "why": "takes jobs"}
    served.cluster.say("n1", "drain")
    response = await served.get("/readyz")
    assert response.status_code == 503
    assert "UNDRAIN" in response.json()["why"]
    served.cluster.say("n1", "undrain")
    served.cluster.store_level("n1", 0.8)
    assert "JOBYARD_STORE_MAX" in (await served.get("/readyz")).json()["why"]


async def test_a_node_without_a_balancer_is_ready_because_it_takes_jobs(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.cluster.kill_balancer()
    assert (await served.get("/readyz")).status_code == 200


async def test_its_description_is_true(tmp_path: Path) -> None:
    served = Served(tmp_path)
    assert {route.path for route in served.app._app.routes} == set(DOCUMENT["paths"])
    for path, described in DOCUMENT["paths"].items():
        response = await served.get(path)
        told: Any = described["get"]["responses"][str(response.status_code)]["content"]
        schema = told[response.headers["content-type"].partition(";")[0]]["schema"]
        if path != "/metrics":
            jsonschema.Draft202012Validator(schema).validate(response.json())


@pytest.mark.parametrize(("path", "status"), [("/api/v1/stats", 401), ("/metrics", 401), ("/readyz", 200)])
async def test_the_token_of_its_clients_counts_here_too(tmp_path: Path, path: str, status: int) -> None:
    served = Served(tmp_path, token="hush")
    assert (await served.get(path)).status_code == status
    assert (await served.get(path, authorization="Bearer hush")).status_code == 200
