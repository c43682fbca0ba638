"""What every request goes through: its id, its caller's rights, its route, its end, its log line.

This is the one layer between the HTTP server and the routes; whatever is raised below it is
answered here, in the shape of the route's surface.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import suppress

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.control import AccessControl
from gateway.access.loopback import LOCAL_ORIGINS
from gateway.access.rate_limits import CALLER
from gateway.api.routes import RouteTable
from gateway.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    RequestTimeout,
    ShuttingDown,
    outcome_of,
)
from gateway.server.http_heads import header_of
from gateway.server.shutdown import Drain
from gateway.telemetry.outcomes import Outcomes
from gateway.telemetry.request_log import log_request, name_request
from gateway.telemetry.request_record import current_record, new_record

logger = logging.getLogger("gateway.request")

DISCARD_SECONDS = 5.0  # a client that is refused mid-body gets this long to hear why
SMALL_BODY_BYTES = 64 * 1024


class Dispatcher:
    """The ASGI application of all routes.

    Args:
        routes: All of them.
        access: Who may do what.
        outcomes: Where refusals are counted.
        drain: Tells a request that is cut off at the gateway's end from any other cancellation.
        cors_origins: Origins of pages that may call; empty for no page. None allows pages of this
            machine, and all pages where keys are needed.
        guarded: Keys are needed.
    """

    def __init__(
        self,
        routes: RouteTable,
        access: AccessControl,
        outcomes: Outcomes,
        drain: Drain,
        *,
        cors_origins: tuple[str, ...] | None,
        guarded: bool,
    ) -> None:
        self._routes = routes
        self._access = access
        self._outcomes = outcomes
        self._drain = drain
        self._answer: ASGIApp = self._answer_or_refuse
        if cors_origins != ():
            anywhere = ("*",) if guarded else ()
            self._answer = CORSMiddleware(
                self._answer_or_refuse,
                allow_origins=anywhere if cors_origins is None else cors_origins,
                allow_origin_regex=LOCAL_ORIGINS if cors_origins is None else None,
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,
                expose_headers=["*"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and log it when it has ended."""
        arrived = time.monotonic()
        request_id = name_request(header_of(scope["headers"], b"x-request-id"))
        record = new_record()
        CALLER.set(None)
        answer = self._answer if b"origin" in dict(scope["headers"]) else self._answer_or_refuse

        def send_noted(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                added = {"x-request-id": request_id}
                if answer != self._answer:
                    added["vary"] = "Origin"  # what the answer to a page of another origin says
                if caller := CALLER.get():
                    added |= caller.headers()
                message["headers"] += [(n.encode(), v.encode()) for n, v in added.items()]
            return send(message)

        try:
            await answer(scope, receive, send_noted)
        finally:
            if caller := CALLER.get():
                record.key = caller.name
            log_request(scope["method"], scope["path"], record, time.monotonic() - arrived)

    async def _answer_or_refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.find(scope["method"], scope["path"])
        scope["surface"] = found.surface  # a route that serves two may choose by the body
        scope["path_params"] = found.path_params
        record = current_record()
        record.surface = found.surface.name
        received = _Received(receive)
        try:
            try:
                self._access.admit(scope, found.group)
            except GatewayError as error:
                self._outcomes.count(found.surface.name, outcome_of(error), record)
                raise
            await found.application(scope, received, send)
        except asyncio.CancelledError:
            if not self._drain.over:
                raise
            await _end(ShuttingDown(), scope, received, send)
        except ClientGone:
            pass
        except GatewayError as error:
            await _end(error, scope, received, send)
        except Exception:
            logger.exception("internal error")
            await _end(InternalError(), scope, received, send)


class _Received:
    """A request's `receive` that knows whether its body is complete."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def __call__(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.complete = not message.get("more_body", False)
        return message


async def _end(error: GatewayError, scope: Scope, receive: _Received, send: Send) -> None:
    """Abort a request's answer where that has begun, or refuse it at once, whatever is to come.

    A refusal is complete for the client; the connection is kept for a moment while the rest of the
    body is thrown away, as closing it on unread bytes would reset it under a client that has not
    read yet.
    """
    record = current_record()
    if record.started:
        # An ASGI call that returns without its last body chunk makes the HTTP server drop the
        # connection: that is the abort.
        record.outcome = "truncated"
        logger.warning("answer aborted: %s", error.message)
        return
    record.outcome = outcome_of(error)
    response = scope["surface"].render(error)
    if receive.complete or isinstance(error, RequestTimeout) or not _brings_much(scope):
        # The HTTP server reads past a small body.
        await response(scope, receive, send)
        return
    response.headers["Connection"] = "close"
    await send(
        {"type": "http.response.start", "status": error.status, "headers": response.raw_headers}
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while not receive.complete:
                await receive()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _brings_much(scope: Scope) -> bool:
    """Whether a request's body may be too long to read just to keep the connection."""
    declared = header_of(scope["headers"], b"content-length") or "0"
    small = declared.isdecimal() and int(declared[:20]) <= SMALL_BODY_BYTES
    return not small or b"transfer-encoding" in dict(scope["headers"])
