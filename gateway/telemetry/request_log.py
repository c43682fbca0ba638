"""One log line a request: who asked, what came of it, and how long each part took.

Text and audio are never in it, unless the operator asks for the text's beginning; probes of health
and metrics are told at the level `debug` alone.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, fields

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.rate_limits import CALLER
from gateway.errors import GatewayError, outcome_of_status
from gateway.telemetry.logging import NO_REQUEST, REQUEST_ID, escaped

logger = logging.getLogger("gateway.request")

SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHOWN_PATH_CHARACTERS = 128
SHOWN_TEXT_CHARACTERS = 200
PROBE_PATHS = {"/", "/health", "/ready", "/metrics"}
STATUS_GONE = 499  # nginx' word for a client that left before its answer
STATUS_FAILED = 500


@dataclass(slots=True)
class Record:
    """What is known of a request when it ends; None where it never came to that.

    A request that speaks several texts sums up their characters and audio.

    Attributes:
        outcome: As in `gateway_requests_total`.
        queue_wait_seconds: Wait for a slot.
        first_audio_seconds: Until the first PCM from the upstream.
        first_byte_seconds: Until the first bytes for the client.
        audio_seconds: Audio made for the client.
        characters: Of the text.
        upstream: Address of the last engine that was asked.
        response_format: Of the answer.
        voice: A preset's name, or `library`.
        text: The text's beginning, where the operator wants it.
    """

    outcome: str | None = None
    queue_wait_seconds: float | None = None
    first_audio_seconds: float | None = None
    first_byte_seconds: float | None = None
    audio_seconds: float | None = None
    characters: int | None = None
    upstream: str | None = None
    response_format: str | None = None
    voice: str | None = None
    text: str | None = None

    def add_text(self, text: str, *, shown: bool) -> None:
        """Take note of a text that is to be spoken."""
        self.characters = (self.characters or 0) + len(text)
        if shown and self.text is None:
            self.text = escaped(text[:SHOWN_TEXT_CHARACTERS])

    def add_audio(self, seconds: float) -> None:
        """Take note of audio that was made."""
        self.audio_seconds = (self.audio_seconds or 0.0) + seconds


# The record of the current task's request; outside of one, a record that nobody reads.
_RECORD: ContextVar[Record | None] = ContextVar("record", default=None)


def current_record() -> Record:
    """The record of the request that the current task serves."""
    return _RECORD.get() or Record()


class RequestLogMiddleware:
    """Names each request, on its answer and in the log, and logs it when it has ended.

    `x-request-id` is the client's own if it is harmless, else a new one.

    Args:
        app: What is wrapped.
        surface_of: The name of the surface that a path belongs to.
        refuse: Answers with an error in the shape of the request's surface.
    """

    def __init__(
        self,
        app: ASGIApp,
        surface_of: Callable[[str], str],
        refuse: Callable[[str, GatewayError], ASGIApp],
    ) -> None:
        self._app = app
        self._surface_of = surface_of
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if SAFE_REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        REQUEST_ID.set(request_id)  # for ever: the task ends with the request
        record = Record()
        _RECORD.set(record)
        status = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("internal error")
            record.outcome = "upstream_error" if status is None else "truncated"
            if status is None:
                error = GatewayError("The gateway failed; its log says how.")
                await self._refuse(scope["path"], error)(scope, receive, send_with_id)
        finally:
            self._log(scope, record, status, time.monotonic() - started)

    def _log(self, scope: Scope, record: Record, status: int | None, seconds: float) -> None:
        path = scope["path"]
        level = logging.DEBUG if path in PROBE_PATHS else logging.INFO
        if not logger.isEnabledFor(level):
            return
        caller = CALLER.get()
        told = {
            "method": scope["method"],
            "path": escaped(path[:SHOWN_PATH_CHARACTERS]),
            "surface": self._surface_of(path),
            "key": caller.name if caller else NO_REQUEST,
            "status": status or STATUS_GONE,
            "total_seconds": seconds,
        }
        if record.outcome is None:
            record.outcome = outcome_of_status(status) if status else "cancelled"
        known = {field.name: getattr(record, field.name) for field in fields(record)}
        told |= {name: value for name, value in known.items() if value is not None}
        logger.log(level, "request", extra={"fields": told})
