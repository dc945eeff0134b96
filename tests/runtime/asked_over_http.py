"""The HTTP side of a balancer in front of a whole cluster of pure machines: no socket, no disk, virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from balancer.web import site
from common.events import Inquired
from common.runtime.asking import Asking
from common.runtime.http_side import Site
from common.runtime.tally import Tally
from common.settings import load_balancer
from tests.machines.cluster import Cluster


class Yard:
    """A cluster, and what its balancer serves. `directory` is where the health file would be."""

    def __init__(self, directory: Path, *, nodes: int = 1, token: str | None = None, **more: Any) -> None:
        self.cluster = Cluster(nodes, **more)
        assert self.cluster.balancer is not None
        self.machine = self.cluster.balancer.machine
        self.asking = Asking(self._post, lambda: self.cluster.wall)
        self.tally = Tally(lambda: self.cluster.wall, self.machine.census)
        self.cluster.observers.append(self.tally)
        settings = load_balancer({} if token is None else {"JOBYARD_CLIENT_TOKEN": token})
        self.site: Site = site(settings, self.asking, self.tally, directory)
        self.deaf = False  # whether the machine answers nothing

    def _post(self, event: object) -> None:
        if self.deaf:
            return
        self.cluster._step_balancer(event)
        self.cluster.settle()
        if isinstance(event, Inquired):
            self.deliver()

    def deliver(self) -> None:
        """Hands over what the machine has answered."""
        shown = dict(self.cluster.shown)
        self.cluster.shown.clear()
        for id, reply in shown.items():
            self.asking.told(id, reply)

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.site.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8081", headers=headers) as client:
            yield client

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with self.client(**headers) as client:
            return await client.get(path)

    async def shown(self, path: str) -> Any:
        """What a path answers, which must be well."""
        response = await self.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, code and message of an error."""
        response = await self.get(path, **headers)
        told = response.json()["error"]
        return response.status_code, told["code"], told["message"]
