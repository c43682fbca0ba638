"""The OpenAPI document of the routes that are mounted, and a page that shows it.

Everything comes from the declarations of the routes and the very models that validate requests, so
it cannot drift; the page needs no script and no foreign host.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from gateway import __version__
from gateway.access.policy import DOCS
from gateway.api.error_bodies import OPERATIONS
from gateway.api.multipart import form_schema
from gateway.api.routes import EVENTS_TYPE, JSON, REFERENCE, BodySchema, Route

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def description_routes(routes: Sequence[Route]) -> list[Route]:
    """The routes that describe all routes, themselves included.

    Args:
        routes: All that are mounted when the description is first asked for.
    """
    document = cache(partial(openapi_document, routes))

    async def openapi(_: Request) -> Response:
        return JSONResponse(document())

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


def _type_text(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type_text(part) for part in schema["anyOf"] if part != {"type": "null"})
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return " ".join([str(schema.get("type", "")), ", ".join(bounds)]).strip()


def _field_rows(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = []
    for name, field in schema["properties"].items():
        default = "required" if name in required else json.dumps(field.get("default"))
        cells = (_type_text(field), default, field.get("description", ""))
        columns = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        rows.append(f"<tr><td><code>{name}</code></td>{columns}</tr>")
    return "".join(rows)


def docs_page(document: Mapping[str, Any]) -> str:
    """The document as one self-contained HTML page."""
    sections = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            table = ""
            if "requestBody" in operation:
                schemas = document["components"]["schemas"]
                schema = next(iter(operation["requestBody"]["content"].values()))["schema"]
                while "$ref" in schema or "items" in schema:
                    schema = schema.get("items", schema)
                    if "$ref" in schema:
                        schema = schemas[schema["$ref"].rsplit("/", 1)[-1]]
                rows = _field_rows(schema)
                table = (
                    "<table><thead><tr><th>Field</th><th>Type</th><th>Default</th>"
                    f"<th>Meaning</th></tr></thead><tbody>{rows}</tbody></table>"
                )
            description = html.escape(operation.get("description", ""))
            sections.append(
                f"<section><h2><span>{method.upper()}</span> {html.escape(path)}</h2>"
                f"<p>{html.escape(operation['summary'])}. {description}</p>{table}</section>"
            )
    return _PAGE.format(version=document["info"]["version"], sections="".join(sections))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Speech gateway</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem; color: #1d2430; background: #fff }}
h2 {{ font: 600 1.1rem ui-monospace, monospace; margin: 0 }}
h2 span {{ color: #0a6b52; margin-right: .5rem }}
section {{ border-top: 1px solid #d8dde5; padding: 1.2rem 0 }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid #eceff3 }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e4e8ee; background: #14181f }} h2 span {{ color: #5fd1b0 }}
  section {{ border-color: #2c333e }} th, td {{ border-color: #232a34 }} }}
</style></head><body>
<h1>Speech gateway <small>{version}</small></h1>
<p>The same as <a href="openapi.json">openapi.json</a>.</p>
{sections}</body></html>
"""
