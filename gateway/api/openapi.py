"""The OpenAPI document of the routes that are mounted.

Everything comes from the declarations of the routes and the very models that validate requests, so
it cannot drift.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway import __version__
from gateway.access.policy import DOCS
from gateway.api.docs_page import docs_page
from gateway.api.error_bodies import OPERATIONS
from gateway.api.multipart import form_schema
from gateway.api.routes import EVENTS_TYPE, JSON, REFERENCE, BodySchema, Json, Route

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def description_routes(routes: Sequence[Route]) -> list[Route]:
    """The routes that describe all routes, themselves included.

    Args:
        routes: All that are mounted when the description is first asked for.
    """
    document = cache(partial(openapi_document, routes))

    async def openapi(_: Request) -> Json:
        return document()

    async def docs(_: Request) -> Response:
        return HTMLResponse(docs_page(document()))

    show = partial(Route, "GET", surface=OPERATIONS, group=DOCS)
    return [
        show("/openapi.json", openapi, summary="This description"),
        *(
            show(path, docs, summary="The same for people", produces=("text/html",))
            for path in ("/docs", "/redoc")  # FastAPI's two pages, which its servers' users know
        ),
    ]


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        operations.setdefault(route.method.lower(), _operation(route, schemas))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Speech gateway",
            "version": __version__,
            "description": "OpenAI's speech API in front of a Higgs Audio v2 engine.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    """One method of one path; schemas of its bodies go to `schemas`."""
    error = _body_schema(route.surface.error_body, schemas)
    operation: dict[str, Any] = {
        "tags": [route.surface.name],
        "summary": route.summary,
        "parameters": [
            *(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1},
                }
                for name in _PARAMETER.findall(route.path)
            ),
            *_query_parameters(route.query),
        ],
        "responses": {
            "2XX": {
                "description": "A good answer",
                "content": {kind: {"schema": _answer_schema(kind)} for kind in route.produces},
            },
            "default": {
                "description": "An error; its status says of which kind",
                "content": {JSON: {"schema": error}},
            },
        },
    }
    if route.description:
        operation["description"] = route.description
    if route.bodies:
        operation["requestBody"] = {
            "required": True,
            "content": {
                kind: {"schema": _body_schema(body, schemas)} for kind, body in route.bodies.items()
            },
        }
    return operation


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    fields = form_schema(model)["properties"] if model else {}
    return [{"name": name, "in": "query", "schema": field} for name, field in fields.items()]


def _answer_schema(kind: str) -> dict[str, Any]:
    if kind == JSON:
        return {}
    if kind == EVENTS_TYPE:
        return {"description": "Events, each a JSON object behind `data:`."}
    return (
        {"type": "string"} if kind.startswith("text/") else {"type": "string", "format": "binary"}
    )


def _body_schema(body: BodySchema, schemas: dict[str, Any]) -> Mapping[str, Any]:
    if isinstance(body, Mapping):
        return body
    if not isinstance(body, type):
        return body()
    model = cast("type[BaseModel]", body)
    if model.__name__ not in schemas:
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return {"$ref": REFERENCE.format(model=model.__name__)}
