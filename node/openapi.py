"""The OpenAPI description of a node's HTTP side: `GET /api/v1/openapi.json`. Kept true by a test. Pure."""

from typing import Final

from common import __version__
from common.openapi import NUMBER, counts_of, document, get, record

DOCUMENT: Final = document(
    "Jobyard node",
    __version__,
    {
        "/api/v1/stats": get(
            "The numbers of this node, as STATS local=1 has them",
            record({"store_fraction": NUMBER, "statistics": counts_of(NUMBER, "by name")}),
        ),
    },
    {},
)
