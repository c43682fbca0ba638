"""The exception tree: every failure that an answer can report, with status and code.

Foreign errors are translated into one of these once, at the boundary where they arise; each
surface renders them in its own shape, and nothing decides by message text.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class InternalError(GatewayError):
    """A fault of the gateway's own; what it was is for the log alone."""

    def __init__(self) -> None:
        super().__init__("The gateway failed; its log says how.")


class ClientGone(Exception):
    """The client closed the connection: nothing is left to answer."""


class InvalidRequest(GatewayError):
    """The client's request is wrong; a repeat would fail the same way."""

    status = 400
    code = "invalid_request"


class UnspeakableText(InvalidRequest):
    """The engine has no sound for this text (a script that its voice does not know)."""

    code = "unspeakable_text"


class UnsupportedByEngine(InvalidRequest):
    """No engine at hand can do what is asked for, and the gateway cannot supply it."""

    code = "unsupported_by_engine"


class AuthenticationFailed(GatewayError):
    """No key, or none that is known."""

    status = 401
    code = "invalid_api_key"


class PermissionDenied(GatewayError):
    """The key is good, but not for this."""

    status = 403
    code = "insufficient_permissions"


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


class VoiceExists(GatewayError):
    """A name that another voice has already."""

    status = 409
    code = "voice_exists"


class JobNotFound(GatewayError):
    """No such job, or one of another caller."""

    status = 404
    code = "job_not_found"


class WrongJobState(GatewayError):
    """A job that cannot do this in its state."""

    status = 409
    code = "wrong_job_state"


class NoJobs(GatewayError):
    """Jobs cannot be had: the folder that would hold them cannot be used."""

    status = 503
    code = "no_jobs"


class JobStoreBusy(GatewayError):
    """Another process has held the store of jobs for too long."""

    status = 503
    code = "jobs_busy"
    retryable = True


class JobStoreFull(GatewayError):
    """There is no room for a job's audio."""

    status = 507
    code = "jobs_full"


class SegmentLost(GatewayError):
    """A stored part of a job's audio is gone."""

    status = 409
    code = "segment_lost"


class LibraryUnusable(GatewayError):
    """The voice library's folder cannot be changed: damaged, read-only, or locked for too long."""

    status = 503
    code = "voice_library_unusable"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(sorted(allowed))


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
    """The queue has no place left, or (subclasses) the wait would be too long."""

    status = 429
    code = "queue_full"
    retryable = True


class QueueTimeout(QueueFull):
    """No slot came free within the queue's deadline."""

    code = "queue_timeout"


class QueueTooSlow(QueueFull):
    """The estimated wait exceeds the deadline."""

    code = "queue_too_slow"


class RateLimited(GatewayError):
    """The caller's key has had its share of this minute."""

    status = 429
    code = "rate_limit_exceeded"
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


class UpstreamRouteUnknown(UpstreamProtocolError):
    """The upstream does not know the model or the route that it was asked for."""


class UpstreamBusy(UpstreamProtocolError):
    """The upstream answered 408, 429, 502, 503 or 504: what it was asked stays open."""


class UpstreamRejected(UpstreamProtocolError):
    """The upstream refused this very request (4xx): no other attempt can do better.

    Args:
        message: For clients.
        sentence: The upstream's own words, for the log alone: they may echo the input.
    """

    code = "upstream_rejected"
    retryable = False

    def __init__(self, message: str, sentence: str = "") -> None:
        super().__init__(message)
        self.sentence = sentence


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


class ShuttingDown(GatewayError):
    """This gateway is about to end; another one, or the next one, can do it."""

    status = 503
    code = "shutting_down"
    retryable = True

    def __init__(self) -> None:
        super().__init__("The gateway is shutting down; try again.", retry_after_seconds=1.0)


def outcome_of(error: Exception) -> str:
    """How a failed request counts in `gateway_requests_total`."""
    if not isinstance(error, GatewayError):
        error = InternalError()
    return "rejected" if isinstance(error, ShuttingDown) else outcome_of_status(error.status)


def outcome_of_status(status: int) -> str:
    """How a request counts that was answered with a status."""
    if status in {401, 403}:
        return "unauthorised"
    if status == 429:  # noqa: PLR2004
        return "rejected"
    if status < 400:  # noqa: PLR2004
        return "ok"
    return "upstream_error" if status >= 500 else "invalid"  # noqa: PLR2004
