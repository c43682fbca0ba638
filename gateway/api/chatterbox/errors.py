"""Errors in the two Chatterbox servers' shapes.

A wrong field is 422 with FastAPI's list in both; everything else is an object in the one and a
sentence in the other.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from gateway.api.endpoint import retry_headers
from gateway.api.generate import UnprocessableRequest
from gateway.api.generate import render_error as render_detail
from gateway.errors import (
    GatewayError,
    VoiceExists,
    VoiceNotFound,
)

NAME = "chatterbox"

_TYPES_BY_CLASS: tuple[tuple[type[GatewayError], str], ...] = (
    (VoiceNotFound, "voice_not_found_error"),
    (VoiceExists, "voice_exists_error"),
)
_TYPES_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_FIRST_SERVER_STATUS = 500


def error_type(error: GatewayError) -> str:
    """The word by which travisvn's clients tell errors apart."""
    for kind, name in _TYPES_BY_CLASS:
        if isinstance(error, kind):
            return name
    if error.status >= _FIRST_SERVER_STATUS:
        return "server_error"
    return _TYPES_BY_STATUS.get(error.status, "invalid_request_error")


def error_body(error: GatewayError) -> dict[str, dict[str, str]]:
    """Travisvn's error object."""
    return {"error": {"message": error.message, "type": error_type(error)}}


def render_travisvn(error: GatewayError) -> Response:
    """`{"error": {"message", "type"}}`, or 422 `{"detail": […]}`."""
    if isinstance(error, UnprocessableRequest):
        return render_detail(error)
    return JSONResponse(error_body(error), error.status, retry_headers(error))


class TravisvnShape:
    """Errors of travisvn's routes."""

    name = NAME

    def render_error(self, error: GatewayError) -> Response:
        """See `render_travisvn`."""
        return render_travisvn(error)


class DevnenShape:
    """Errors of devnen's routes: `{"detail": …}`."""

    name = NAME

    def render_error(self, error: GatewayError) -> Response:
        """A sentence, or the list of wrong fields."""
        return render_detail(error)
