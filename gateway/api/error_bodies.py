"""Errors in the shapes of the surfaces: one renderer a family of clients.

A surface is a name in metrics and the log, and the renderer of everything that is refused on its
routes, whichever layer refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, RootModel
from starlette.responses import JSONResponse, Response

from gateway.errors import (
    AuthenticationFailed,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTimeout,
    ShuttingDown,
    VoiceExists,
    VoiceNotFound,
)

FIRST_SERVER_STATUS = 500
_OPENAI_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_TRAVISVN_CODES = {VoiceNotFound.code, VoiceExists.code}  # it has a type for each of these
_TRAVISVN_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class UnprocessableRequest(InvalidRequest, status=422):
    """A field is out of range: 422 with FastAPI's list of details."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__("The request is not valid.")
        self.details = details


class OpenAIErrorFields(BaseModel):
    """OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's error envelope."""

    error: OpenAIErrorFields


class FastAPIError(BaseModel):
    """FastAPI's: a text, or a list of field errors."""

    detail: str | list[Any]


class TravisvnErrorFields(BaseModel):
    """Travisvn's error."""

    message: str
    type: str


class TravisvnEnvelope(BaseModel):
    """Travisvn's error object."""

    error: TravisvnErrorFields


class TravisvnError(RootModel[TravisvnEnvelope | FastAPIError]):
    """Travisvn's error object, or FastAPI's for fields that are wrong."""


@dataclass(frozen=True, slots=True)
class Surface:
    """An API that clients speak.

    Attributes:
        name: In metrics and the log.
        render: Makes an answer of an error.
        error_body: What these answers are, for the OpenAPI document.
    """

    name: str
    render: Callable[[GatewayError], Response]
    error_body: type[BaseModel]


def openai_error(error: GatewayError) -> dict[str, Any]:
    """OpenAI's error envelope."""
    default = "server_error" if error.status >= FIRST_SERVER_STATUS else "invalid_request_error"
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(error.status, default),
            "param": error.param,
            "code": error.code,
        }
    }


def _render_openai(error: GatewayError) -> Response:
    return JSONResponse(openai_error(error), error.status, _headers(error))


def _render_fastapi(error: GatewayError) -> Response:
    """`{"detail": …}`: a text, or a list of field errors."""
    detail = error.details if isinstance(error, UnprocessableRequest) else error.message
    return JSONResponse({"detail": detail}, error.status, _headers(error))


def travisvn_error(error: GatewayError) -> dict[str, Any]:
    """Travisvn's error object."""
    default = "server_error" if error.status >= FIRST_SERVER_STATUS else "invalid_request_error"
    kind = _TRAVISVN_TYPES.get(error.status, default)
    if error.code in _TRAVISVN_CODES:
        kind = f"{error.code}_error"
    return {"error": {"message": error.message, "type": kind}}


def _render_travisvn(error: GatewayError) -> Response:
    """`{"error": {"message", "type"}}`, or 422 `{"detail": […]}`."""
    if isinstance(error, UnprocessableRequest):
        return _render_fastapi(error)
    return JSONResponse(travisvn_error(error), error.status, _headers(error))


def _headers(error: GatewayError) -> dict[str, str]:
    """Headers of an error answer: when to retry, how to authenticate, which methods are allowed."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_seconds * 1000))
    if isinstance(error, AuthenticationFailed):
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, (RequestTimeout, ShuttingDown)):
        headers["Connection"] = "close"
    return headers


OPENAI = Surface("openai", _render_openai, OpenAIError)
OPERATIONS = Surface("operations", _render_openai, OpenAIError)
GENERATE = Surface("generate", _render_fastapi, FastAPIError)
TRAVISVN = Surface("chatterbox", _render_travisvn, TravisvnError)
DEVNEN = Surface("chatterbox", _render_fastapi, FastAPIError)
