"""What a node answers over HTTP: metrics, health, and its own numbers. Of jobs and of the cluster the balancer tells.

GET /metrics · /healthz · /readyz · /api/v1/stats · /api/v1/openapi.json
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from common.runtime import metrics, web
from common.runtime.asking import Asking
from common.runtime.http_side import Site
from common.runtime.tally import Tally
from common.settings import NodeSettings
from node.openapi import DOCUMENT


def site(
    settings: NodeSettings, asking: Asking, tally: Tally, directory: Path, clients: Callable[[], Mapping[str, float]]
) -> Site:
    """Everything that a node serves over HTTP; `clients` are the numbers of its clients' port."""

    async def scrape(request: Request) -> Response:
        figures = msgspec.json.decode(await asking.ask("figures"))
        text = metrics.exposition(metrics.node_families(figures, tally, settings.store_max_bytes, clients()))
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    async def stats(request: Request) -> Response:
        web.options(request, {})
        return web.json_of(await asking.ask("figures"))

    async def describe(request: Request) -> Response:
        return web.json(DOCUMENT)

    routes: dict[str, web.Endpoint] = {
        "/healthz": web.health(directory),
        "/readyz": web.readiness(asking),
        "/metrics": scrape,
        "/api/v1/stats": stats,
        "/api/v1/openapi.json": describe,
    }
    host = settings.http_listen[0] if settings.http_listen else ""
    return Site(web.application(routes, token=settings.client_token, listens_on=host))
