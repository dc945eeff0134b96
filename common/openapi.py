"""The parts of an OpenAPI 3.1 description, as plain values: what both programs' documents are put together from.

A test asks every route, and validates what comes back against its description, which is closed: a field that it does
not name is a failure. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

STRING: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0, "description": "seconds"}
TRUE_OR_FALSE: Final[Schema] = {"type": "boolean"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time", "description": "UTC, to the millisecond"}
TICKET: Final[Schema] = {"type": "string", "pattern": "^[a-z2-7]{6}-[0-9]+(_[0-9]+)?$"}


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, text: str = "") -> Schema:
    """An object with these fields, and no others."""
    described = {"description": text} if text else {}
    return {
        "type": "object",
        **described,
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def counts_of(values: Schema, text: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": text}


def enum(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str, schema: Schema, text: str, *, where: str = "query") -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": text}


def get(
    summary: str,
    schema: Schema | None,
    *parameters: Schema,
    media: str = "application/json",
    errors: tuple[int, ...] = (),
    unhealthy: Schema | None = None,
    open: bool = False,
) -> Schema:
    """A path that is asked with GET. `unhealthy`: what comes with 503 where that is an answer and no error; `open`:
    asked without the token."""
    content = {media: {"schema": schema or STRING}}
    wrong: dict[str, Schema] = {
        str(status): {"$ref": "#/components/responses/Error"} for status in (400, 401, 403, *errors, 503)
    }
    if unhealthy is not None:
        wrong = {"503": {"description": "not so", "content": {media: {"schema": unhealthy}}}}
    operation = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, "content": content}, **wrong},
    }
    return {"get": operation | ({"security": []} if open else {})}


HEALTH: Final = record({"healthy": TRUE_OR_FALSE, "why": STRING})
READY: Final = record({"ready": TRUE_OR_FALSE, "why": STRING})

COMMON_PATHS: Final[Mapping[str, Schema]] = {
    "/healthz": get("Whether the program makes progress", HEALTH, unhealthy=HEALTH, open=True),
    "/readyz": get("Whether the program takes jobs", READY, unhealthy=READY, open=True),
    "/metrics": get("Metrics in Prometheus' text format", None, media="text/plain"),
    "/api/v1/openapi.json": get("This document", {"type": "object"}),
}


def document(title: str, version: str, paths: Mapping[str, Schema], schemas: Mapping[str, Schema]) -> Schema:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Read-only. Where a client token is set, it is wanted as a bearer token.",
        },
        "paths": {**COMMON_PATHS, **paths},
        "security": [{"token": []}],
        "components": {
            "schemas": {"Error": _ERROR, **schemas},
            "responses": {
                "Error": {
                    "description": "What went wrong, and what is allowed",
                    "content": {"application/json": {"schema": named("Error")}},
                }
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "JOBYARD_CLIENT_TOKEN"}},
        },
    }


_ERROR: Final = record({"error": record({"code": STRING, "message": STRING})})
