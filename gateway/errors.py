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

    def __init_subclass__(
        cls, status: int | None = None, code: str | None = None, *, retryable: bool | None = None
    ) -> None:
        """Note what a kind of failure says otherwise than the one that it is derived from."""
        super().__init_subclass__()
        if status is not None:
            cls.status = status
        if code is not None:
            cls.code = code
        if retryable is not None:
            cls.retryable = retryable

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


class InvalidRequest(GatewayError, status=400, code="invalid_request"):
    """The client's request is wrong; a repeat would fail the same way."""


class UnspeakableText(InvalidRequest, code="unspeakable_text"):
    """The engine has no sound for this text (a script that its voice does not know)."""


class UnsupportedByEngine(InvalidRequest, code="unsupported_by_engine"):
    """No engine at hand can do what is asked for, and the gateway cannot supply it."""


class AuthenticationFailed(GatewayError, status=401, code="invalid_api_key"):
    """No key, or none that is known."""


class PermissionDenied(GatewayError, status=403, code="insufficient_permissions"):
    """The key is good, but not for this."""


class RouteNotFound(GatewayError, status=404, code="not_found"):
    """No such path."""


class ModelNotFound(GatewayError, status=404, code="model_not_found"):
    """A model name that is neither served nor a known alias."""


class VoiceNotFound(GatewayError, status=404, code="voice_not_found"):
    """A voice name that is neither listed by the upstream nor an alias."""


class VoiceExists(GatewayError, status=409, code="voice_exists"):
    """A name that another voice has already."""


class JobNotFound(GatewayError, status=404, code="job_not_found"):
    """No such job, or one of another caller."""


class WrongJobState(GatewayError, status=409, code="wrong_job_state"):
    """A job that cannot do this in its state."""


class NoJobs(GatewayError, status=503, code="no_jobs"):
    """Jobs cannot be had: the folder that would hold them cannot be used."""


class JobStoreBusy(GatewayError, status=503, code="jobs_busy", retryable=True):
    """Another process has held the store of jobs for too long."""


class JobStoreFull(GatewayError, status=507, code="jobs_full"):
    """There is no room for a job's audio."""


class SegmentLost(GatewayError, status=409, code="segment_lost"):
    """A stored part of a job's audio is gone."""


class LibraryUnusable(GatewayError, status=503, code="voice_library_unusable"):
    """The voice library's folder cannot be changed: damaged, read-only, or locked for too long."""


class MethodNotAllowed(GatewayError, status=405, code="method_not_allowed"):
    """The path exists, the method does not."""

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(sorted(allowed))


class RequestTimeout(GatewayError, status=408, code="request_timeout", retryable=True):
    """The client did not send its body in time."""


class RequestTooLarge(GatewayError, status=413, code="request_too_large"):
    """The body is over GATEWAY_MAX_BODY_BYTES."""


class UnsupportedContentType(GatewayError, status=415, code="unsupported_content_type"):
    """The body is not of a content type that the route reads."""


class QueueFull(GatewayError, status=429, code="queue_full", retryable=True):
    """The queue has no place left, or (subclasses) the wait would be too long."""


class QueueTimeout(QueueFull, code="queue_timeout"):
    """No slot came free within the queue's deadline."""


class QueueTooSlow(QueueFull, code="queue_too_slow"):
    """The estimated wait exceeds the deadline."""


class RateLimited(GatewayError, status=429, code="rate_limit_exceeded", retryable=True):
    """The caller's key has had its share of this minute."""


class EncodingError(GatewayError, status=500, code="encoding_error"):
    """An encoder or a filter failed on sound audio."""


class UpstreamError(GatewayError, status=502, code="upstream_error", retryable=True):
    """The upstream failed; `retryable` says whether another attempt makes sense."""


class UpstreamProtocolError(UpstreamError, code="upstream_protocol_error"):
    """The upstream answered with something else than speech: error text, no audio, a status."""


class UpstreamRouteUnknown(UpstreamProtocolError):
    """The upstream does not know the model or the route that it was asked for."""


class UpstreamBusy(UpstreamProtocolError):
    """The upstream answered 408, 429, 502, 503 or 504: what it was asked stays open."""


class UpstreamRejected(UpstreamProtocolError, code="upstream_rejected", retryable=False):
    """The upstream refused this very request (4xx): no other attempt can do better.

    Args:
        message: For clients.
        sentence: The upstream's own words, for the log alone: they may echo the input.
    """

    def __init__(self, message: str, sentence: str = "") -> None:
        super().__init__(message)
        self.sentence = sentence


class UpstreamUnreachable(UpstreamError, code="upstream_unreachable"):
    """Connection refused, or reset without an answer: the only failures that eject an upstream."""


class UpstreamTimeout(UpstreamError, status=504, code="upstream_timeout"):
    """The upstream did not connect, start or go on in time."""


class NoHealthyUpstream(GatewayError, status=503, code="no_healthy_upstream", retryable=True):
    """No upstream has produced audio yet, or none is left."""


class ShuttingDown(GatewayError, status=503, code="shutting_down", retryable=True):
    """This gateway is about to end; another one, or the next one, can do it."""

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
