"""The OpenAPI document and a page that shows it without any script or foreign host.

Request schemas come from the very models that validate requests, so they cannot drift.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from gateway import __version__
from gateway.api.generate import MOST_BATCH_ITEMS, GenerateBody
from gateway.api.multipart import JSON_FIELDS
from gateway.api.openai_voices import MOST_LISTED
from gateway.api.schemas import SpeechBody

AUDIO_TYPES = (
    "audio/mpeg",
    "audio/ogg",
    "audio/aac",
    "audio/flac",
    "audio/wav",
    "audio/pcm",
)
EVENTS_TYPE = "text/event-stream"
_DETAIL = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"anyOf": [{"type": "string"}, {"type": "array"}]}},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_FAILURES = {
    400: "The request is wrong",
    404: "No such model or voice",
    405: "Wrong method",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "No slot came free in time",
    500: "The gateway failed",
    502: "The upstream failed",
    503: "No upstream is ready",
    504: "The upstream did not answer in time",
}


def _json_response(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {}}}}


def _failure(description: str, schema_name: str = "Error") -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{schema_name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, *, status: Mapping[int, str], parameters: Any = ()) -> dict[str, Any]:
    responses = {
        str(code): _json_response(text) if code < 400 or code == 503 else _failure(text)  # noqa: PLR2004
        for code, text in status.items()
    }
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _generate(audio: Mapping[str, Any] | None, schema_name: str, summary: str) -> dict[str, Any]:
    """A route of the legacy proxy, whose errors are `{"detail": …}`."""
    ok = {"description": "OK", "content": audio} if audio else _json_response("OK")
    failures = {**_FAILURES, 422: "A field is out of range"}
    schema = {"$ref": f"#/components/schemas/{schema_name}"}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": ok,
            **{str(code): _failure(text, "Detail") for code, text in failures.items()},
        },
    }


_VOICE_ID = {
    "name": "voice_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_CREATE_VOICE = {
    "summary": "Make a voice from a recording",
    "description": "Its id or its name may stand as `voice` in every request.",
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/VoiceForm"}}},
    },
    "responses": {
        "200": _json_response("The voice"),
        **{
            str(code): _failure(text)
            for code, text in {
                **{code: _FAILURES[code] for code in (400, 408, 413, 429, 500)},
                404: "The gateway keeps no voices",
                409: "Another voice has this name",
                415: "The body is not a form",
                503: "The folder cannot be used",
            }.items()
        },
    },
}
_DELETE_VOICE = {
    "summary": "Take a voice out",
    "parameters": [_VOICE_ID],
    "responses": {
        "200": _json_response("It is gone"),
        "404": _failure("No such voice"),
        "429": _failure("Too many voices are being changed"),
        "503": _failure("The folder cannot be used"),
    },
}
_VOICE_FORM = {
    "type": "object",
    "required": ["name", "audio_sample"],
    "properties": {
        "name": {"type": "string", "description": "Letters, digits, spaces and . _ -"},
        "audio_sample": {
            "type": "string",
            "format": "binary",
            "description": "1 to 30 seconds as WAV, FLAC, MP3, OGG, M4A, AAC or WebM; at most "
            "10 MiB.",
        },
        "transcript": {"type": "string", "description": "What the recording says."},
        "language": {"type": "string", "default": "en", "description": "Its language tag."},
        "consent": {"type": "string", "description": "Stored with the voice, and not judged."},
    },
}


_TRUTH = {  # what pydantic takes for a truth value in a text
    "type": "string",
    "enum": ["true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"],
}


def _form_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a form may hold, of what a JSON body may: no null, and text where an object would be."""
    fields = {}
    for name, field in schema["properties"].items():
        choices = [choice for choice in field.get("anyOf", [field]) if choice != {"type": "null"}]
        told = {key: field[key] for key in ("title", "description") if key in field}
        if name in JSON_FIELDS:
            fields[name] = {**told, "type": "string", "description": f"{told['description']} JSON."}
        else:
            fields[name] = {
                **(_TRUTH if choices[0].get("type") == "boolean" else choices[0]),
                **told,
            }
    return {**schema, "properties": fields}


def openapi_document() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    template = "#/components/schemas/{model}"
    speech_schema = SpeechBody.model_json_schema(ref_template=template)
    generate_schema = GenerateBody.model_json_schema(ref_template=template)
    definitions = speech_schema.pop("$defs", {})
    audio: dict[str, Any] = {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in AUDIO_TYPES
    }
    audio[EVENTS_TYPE] = {"schema": {"description": "Events, each a JSON object behind `data:`."}}
    speech = {
        "summary": "Speak a text",
        "description": "Streams audio as it is made. A failure after the first audio aborts the "
        "connection: a clean end means complete audio.",
        "requestBody": {
            "required": True,
            "content": {
                kind: {
                    "schema": {"$ref": f"#/components/schemas/{name}"},
                    "example": {"input": "Hello.", "voice": "alloy", "response_format": "mp3"},
                }
                for kind, name in (
                    ("application/json", "SpeechBody"),
                    ("multipart/form-data", "SpeechForm"),
                )
            },
        },
        "responses": {
            "200": {"description": "Audio in the response format", "content": audio},
            **{str(code): _failure(text) for code, text in _FAILURES.items()},
        },
    }
    model_id = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    legacy = {
        "name": "legacy",
        "in": "query",
        "description": "`true` or `1` lists plain names; anything else is ignored.",
        "schema": {},
    }
    limit = {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED},
    }
    after = {"name": "after", "in": "query", "schema": {"type": "string"}}
    ok = {200: "OK"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Speech gateway",
            "version": __version__,
            "description": "OpenAI's speech API in front of a Higgs Audio v2 engine.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/audio/speech": {"post": speech},
            "/generate": {"post": _generate(audio, "GenerateBody", "Speak a text (legacy proxy)")},
            "/generate/batch": {
                "post": _generate(None, "GenerateBatch", "Speak many texts (legacy proxy)")
            },
            "/stats": _get("Counters under the legacy proxy's names", status=ok),
            "/v1/models": _get("List the models", status=ok),
            "/v1/models/{model}": _get(
                "Show a model", status={200: "OK", 404: "No such model"}, parameters=[model_id]
            ),
            "/v1/audio/models": _get("List the models, short", status=ok),
            "/v1/audio/voices": {
                **_get(
                    "List the voices",
                    status={200: "OK", 400: "No such page"},
                    parameters=[legacy, limit, after],
                ),
                "post": _CREATE_VOICE,
            },
            "/v1/audio/voices/{voice_id}": {"delete": _DELETE_VOICE},
            "/health": _get("Whether the process lives, and how its upstreams are", status=ok),
            "/ready": _get(
                "Whether speech can be made now",
                status={200: "Ready", 503: "No upstream has produced audio"},
            ),
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics",
                    "responses": {
                        "200": {
                            "description": "OK",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "SpeechBody": speech_schema,
                "SpeechForm": _form_schema(speech_schema),
                "GenerateBody": generate_schema,
                "GenerateBatch": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_BATCH_ITEMS,
                    "items": {"$ref": "#/components/schemas/GenerateBody"},
                },
                "VoiceForm": _VOICE_FORM,
                "Error": _ERROR,
                "Detail": _DETAIL,
                **definitions,
            },
        },
    }


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
            statuses = "".join(
                f"<li><code>{code}</code> {html.escape(response['description'])}</li>"
                for code, response in operation["responses"].items()
            )
            table = ""
            if "requestBody" in operation:
                schemas = document["components"]["schemas"]
                content = next(iter(operation["requestBody"]["content"].values()))["schema"]
                schema = schemas[content["$ref"].rsplit("/", 1)[-1]]
                while "items" in schema:
                    schema = schemas[schema["items"]["$ref"].rsplit("/", 1)[-1]]
                rows = _field_rows(schema)
                table = (
                    "<table><thead><tr><th>Field</th><th>Type</th><th>Default</th>"
                    f"<th>Meaning</th></tr></thead><tbody>{rows}</tbody></table>"
                )
            description = html.escape(operation.get("description", ""))
            sections.append(
                f"<section><h2><span>{method.upper()}</span> {html.escape(path)}</h2>"
                f"<p>{html.escape(operation['summary'])}. {description}</p>{table}"
                f"<ul>{statuses}</ul></section>"
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
ul {{ columns: 2; padding-left: 1.2rem; font-size: .9rem }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e4e8ee; background: #14181f }} h2 span {{ color: #5fd1b0 }}
  section {{ border-color: #2c333e }} th, td {{ border-color: #232a34 }} }}
</style></head><body>
<h1>Speech gateway <small>{version}</small></h1>
<p>The same as <a href="openapi.json">openapi.json</a>.</p>
{sections}</body></html>
"""
