"""Bodies, forms and queries of Chatterbox clients, read the way FastAPI reads them.

What is missing, of another type or out of range is told as 422 with the field's place.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from gateway.api.endpoint import JSON_TYPES, BodyReader, media_type
from gateway.api.error_bodies import UnprocessableRequest
from gateway.api.multipart import (
    MULTIPART,
    URLENCODED,
    FormFile,
    is_form,
    parse_fields_and_files,
)
from gateway.api.schemas import Model, check_fields
from gateway.errors import InvalidRequest


def require_fields(scope: Scope) -> None:
    """Refuse a body that is neither JSON nor a form.

    Raises:
        UnprocessableRequest: FastAPI takes it for a text, which has no fields.
    """
    if media_type(scope) not in {*JSON_TYPES, MULTIPART, URLENCODED}:
        types = f"application/json, {MULTIPART} or {URLENCODED}"
        message = f"Input should be an object; the request's content type must be {types}"
        raise UnprocessableRequest([{"type": "dict_type", "loc": ["body"], "msg": message}])


async def parse_fields(body: bytes, scope: Scope) -> tuple[Any, tuple[FormFile, ...]]:
    """A body's fields, and its files where it is a form.

    Raises:
        UnprocessableRequest: It is not JSON.
        InvalidRequest: It is not the form that it says.
    """
    try:
        return await parse_fields_and_files(body, scope)
    except InvalidRequest as error:
        if is_form(scope):
            raise
        detail = {"type": "json_invalid", "loc": ["body"], "msg": error.message}
        raise UnprocessableRequest([detail]) from None


def wrong(where: str, name: str, message: str) -> UnprocessableRequest:
    """One wrong field, as 422."""
    return UnprocessableRequest([{"type": "value_error", "loc": [where, name], "msg": message}])


async def read_form(
    bodies: BodyReader, request: Request, model: type[Model], limit_bytes: int
) -> tuple[Model, tuple[FormFile, ...]]:
    """Read and check a request's form (or JSON), and its files.

    Raises:
        GatewayError: It cannot be read, or a field is wrong.
    """
    require_fields(request.scope)
    body = await bodies.read(request.scope, request.receive, limit_bytes)
    value, files = await parse_fields(body, request.scope)
    return check_fields(model, value), files


def read_query(request: Request, model: type[Model]) -> Model:
    """Check a request's query.

    Raises:
        UnprocessableRequest: With everything that is wrong.
    """
    return check_fields(model, dict(request.query_params), "query")
