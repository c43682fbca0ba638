"""The exception tree: every failure that a client can be told about, with status and code.

Foreign errors are translated into one of these once, at the boundary where they arise; each
surface renders them in its own shape, and nothing decides by message text.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Root of all failures that have an HTTP status.

    Args:
        message: What went wrong, in words fit for a client (no secrets, no traceback).
        param: The request field at fault, in the surface's own name for it.
        retry_after_seconds: When a repeat may succeed; sent as Retry-After.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(GatewayError):
    """The client's request is wrong; a repeat would fail the same way."""

    status = 400
    code = "invalid_request"


class UnspeakableText(InvalidRequest):
    """The engine has no sound for this text (a script that its voice does not know)."""

    code = "unspeakable_text"


class RouteNotFound(GatewayError):
    """No such path."""

    status = 404
    code = "not_found"


class ModelNotFound(GatewayError):
    """A model name that is neither served nor a known alias."""

    status = 404
    code = "model_not_found"


class VoiceNotFound(GatewayError):
    """A voice name that is neither listed by the upstream nor an alias."""

    status = 404
    code = "voice_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The client did not send its body in time."""

    status = 408
    code = "request_timeout"
    retryable = True


class RequestTooLarge(GatewayError):
    """The body is over GATEWAY_MAX_BODY_BYTES."""

    status = 413
    code = "request_too_large"


class UnsupportedContentType(GatewayError):
    """The body is not of a content type that the route reads."""

    status = 415
    code = "unsupported_content_type"


class QueueFull(GatewayError):
    """No slot came free in time, or the queue itself was full."""

    status = 429
    code = "queue_full"
    retryable = True


class EncodingError(GatewayError):
    """An encoder or a filter failed on sound audio."""

    status = 500
    code = "encoding_error"


class UpstreamError(GatewayError):
    """The upstream failed; `retryable` says whether another attempt makes sense."""

    status = 502
    code = "upstream_error"
    retryable = True


class UpstreamProtocolError(UpstreamError):
    """The upstream answered with something else than speech: error text, no audio, a status."""

    code = "upstream_protocol_error"


class UpstreamRejected(UpstreamProtocolError):
    """The upstream refused this very request (4xx): no other attempt can do better."""

    code = "upstream_rejected"
    retryable = False


class UpstreamUnreachable(UpstreamError):
    """Connection refused, or reset without an answer: the only failures that eject an upstream."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The upstream did not connect, start or go on in time."""

    status = 504
    code = "upstream_timeout"


class NoHealthyUpstream(GatewayError):
    """No upstream has produced audio yet, or none is left."""

    status = 503
    code = "no_healthy_upstream"
    retryable = True


def outcome_of(error: GatewayError) -> str:
    """How a failed request counts in `gateway_requests_total`."""
    if error.status in {401, 403}:
        return "unauthorised"
    if error.status == 429:  # noqa: PLR2004
        return "rejected"
    return "upstream_error" if error.status >= 500 else "invalid"  # noqa: PLR2004
