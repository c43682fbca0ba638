"""The OpenAPI document as a page for people: no script, no foreign host."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any


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
    page = Template((files("gateway.api") / "docs_page.html").read_text("utf-8"))
    return page.substitute(version=document["info"]["version"], sections="".join(sections))
