"""Forms of either kind as plain fields: a form says the same as the JSON body, plus files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Scope

from gateway.api.endpoint import JSON_TYPES, BodyReader, media_type
from gateway.api.routes import JSON, REFERENCE, BodySchema
from gateway.api.schemas import parse_json
from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedContentType

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
FORM_TYPES = frozenset({MULTIPART, URLENCODED})
_BODY_TYPES = JSON_TYPES | FORM_TYPES
# Each `%XX` costs the parser 80 bytes and a moment of the event loop; the longest text has 400,000.
MOST_ESCAPES = 500_000
MOST_FILES = 8
MOST_FIELDS = 64
JSON_FIELDS = ("voice", "voices", "references")  # may hold JSON in a form


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form.

    Attributes:
        field: The field's name.
        data: Its bytes.
        name: What the file is called; as hostile as the rest.
    """

    field: str
    data: bytes
    name: str


Form = tuple[dict[str, Any], tuple[FormFile, ...]]  # fields, JSON where they hold it; files


def file_of(files: Sequence[FormFile], field: str) -> FormFile | None:
    """The first file in a field of a form."""
    return next((file for file in files if file.field == field), None)


_TRUTH = {  # what pydantic takes for a truth value in a text
    "type": "string",
    "enum": ["true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"],
}


def form_schema(model: type[BaseModel], *files: str) -> dict[str, Any]:
    """The schema of a form: no null, text where an object would be, and files besides.

    Args:
        model: The JSON body that says the same.
        files: Names of the fields that hold a file.
    """
    schema = model.model_json_schema(ref_template=REFERENCE)
    named = schema.pop("$defs", {})
    fields: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        choices = [
            named[choice["$ref"].rsplit("/", 1)[-1]] if "$ref" in choice else choice
            for choice in field.get("anyOf", [field])
            if choice != {"type": "null"}
        ]
        told = {key: field[key] for key in ("title", "description") if key in field}
        if name in JSON_FIELDS:
            said = f"{told.get('description', '')} It may hold JSON.".strip()
            fields[name] = {**told, "type": "string", "description": said}
        else:
            fields[name] = {
                **(_TRUTH if choices[0].get("type") == "boolean" else choices[0]),
                **told,
            }
    fields |= {name: {"type": "string", "format": "binary"} for name in files}
    return {**schema, "properties": fields}


def form_bodies(model: type[BaseModel], *files: str) -> dict[str, BodySchema]:
    """A route's bodies in the OpenAPI document: JSON, or a form of either kind.

    Args:
        model: What each of them says.
        files: Names of the fields that hold a file, which multipart forms alone can bring.
    """
    return {
        JSON: model,
        MULTIPART: partial(form_schema, model, *files),
        URLENCODED: partial(form_schema, model),
    }


def is_form(scope: Scope) -> bool:
    """Whether a request's body is a form."""
    return media_type(scope) in FORM_TYPES


def require_json_or_form(scope: Scope) -> None:
    """Refuse a body that is neither JSON nor a form.

    Raises:
        UnsupportedContentType: With what is understood.
    """
    if media_type(scope) not in _BODY_TYPES:
        types = f"{JSON}, {MULTIPART} or {URLENCODED}"
        raise UnsupportedContentType(
            f"The request's content type must be {types}.", param="content-type"
        )


async def parse_form(body: bytes, scope: Scope) -> Form:
    """Read a form that is in memory already.

    Raises:
        InvalidRequest: It is no such form, or has too many parts.
        RequestTooLarge: Reading it would take long.
        UnsupportedContentType: It is JSON, which `curl -d` calls a form where no header is given.
    """
    if media_type(scope) == URLENCODED:
        if body.lstrip().startswith(b"{"):
            raise UnsupportedContentType(f"JSON needs the header 'Content-Type: {JSON}'.")
        if body.count(b"%") > MOST_ESCAPES:
            raise RequestTooLarge("The form has too many characters that are written as %XX.")
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            raise InvalidRequest("The request's body is not a form.") from None
        return {name: _value(name, text) for name, text in pairs}, ()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers(scope=scope),
        stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=len(body),
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError):
        raise InvalidRequest("The request's body is not a multipart form.") from None
    fields: dict[str, Any] = {}
    files = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.append(FormFile(name, await value.read(), value.filename or ""))
            else:
                fields[name] = _value(name, value)
    finally:
        await form.close()
    return fields, tuple(files)


async def parse_fields_and_files(body: bytes, scope: Scope) -> tuple[Any, tuple[FormFile, ...]]:
    """The fields of a body that is JSON or a form, and the form's files.

    Raises:
        GatewayError: It cannot be read.
    """
    return await parse_form(body, scope) if is_form(scope) else (parse_json(body), ())


async def read_upload(bodies: BodyReader, request: Request, limit_bytes: int) -> Form:
    """Read a form that brings files.

    Raises:
        UnsupportedContentType: It is something else.
        GatewayError: It cannot be read.
    """
    if media_type(request.scope) != MULTIPART:
        raise UnsupportedContentType(
            f"The request's content type must be {MULTIPART}.", param="content-type"
        )
    body = await bodies.read(request.scope, request.receive, limit_bytes)
    return await parse_form(body, request.scope)


def _value(name: str, text: str) -> Any:
    if name in JSON_FIELDS and text.lstrip()[:1] in {"{", "["}:
        try:
            return parse_json(text.encode(errors="replace"))
        except InvalidRequest as error:
            raise InvalidRequest(f"'{name}': {error.message}", param=name) from None
    return text
