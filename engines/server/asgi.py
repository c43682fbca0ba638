"""The small ASGI pieces that the engine's routes share: bodies, chunks, keys, refusals."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import soundfile as sf
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engines.server.contract import ContractError
from engines.voice import SAMPLE_RATE_HZ, EngineFailureError
from gateway.audio.encoders.wav import wav_file
from gateway.errors import ClientGone

MOST_BODY_BYTES = 256 * 1024 * 1024  # the container has no bound; a process must
MOST_HELD_BYTES = 1024 * 1024 * 1024  # bodies of all requests that run or wait
STATUS_SERVER_ERROR = 500
STATUS_TOO_MANY = 429


async def read_body(receive: Receive) -> bytearray:
    """The whole request body, not copied once more into bytes.

    Raises:
        ClientGone: It ended in the middle.
        ContractError: Over MOST_BODY_BYTES.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            raise ContractError(413, "The request body is too large.")
        if not message.get("more_body", False):
            return body


async def start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    """The head of a 200."""
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_part(send: Send, data: bytes) -> None:
    """One HTTP chunk; an empty one would end the body on the wire, so it is left out."""
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def finish(send: Send, data: bytes = b"") -> None:
    """The clean end."""
    await send({"type": "http.response.body", "body": data, "more_body": False})


def encode(pcm: bytes, response_format: str) -> bytes:
    """One chunk in the asked format: each a complete file, as the container makes them.

    Args:
        pcm: s16le mono 24 kHz.
        response_format: pcm, wav, mp3 or flac.
    """
    if response_format == "pcm":
        return pcm
    if response_format == "wav":
        return wav_file(pcm)
    sink = io.BytesIO()
    samples = np.frombuffer(pcm, "<i2")
    sf.write(sink, samples, SAMPLE_RATE_HZ, format=response_format.upper())
    return sink.getvalue()


def get_route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """A GET route that, like the container's, refuses HEAD."""
    route = Route(path, endpoint, methods=["GET"])
    route.methods = {"GET"}
    return route


class AnswerCutError(Exception):
    """An answer broke off after its head was sent; the connection must not end cleanly."""


class JsonEndpoint:
    """A POST endpoint that renders the contract's refusals.

    Args:
        serve: The route's work, as an ASGI application.

    Attributes:
        held_bytes: Of the bodies of all requests of the process that run or wait.
    """

    held_bytes = 0

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            detail = "Unsupported Media Type: Only 'application/json' is allowed"
            await JSONResponse({"detail": detail}, 415)(scope, receive, send)
            return
        own_bytes = 0

        async def counted() -> Message:
            nonlocal own_bytes
            message = await receive()
            if size := len(message.get("body", b"")):
                own_bytes += size
                JsonEndpoint.held_bytes += size
                if JsonEndpoint.held_bytes > MOST_HELD_BYTES:
                    raise ContractError(STATUS_TOO_MANY, "Too many large requests at once.")
            return message

        try:
            await self._serve(scope, counted, send)
        except ContractError as error:
            await _refusal(error)(scope, receive, send)
        except (ClientGone, AnswerCutError):
            return  # without the last chunk: uvicorn closes the connection
        finally:
            JsonEndpoint.held_bytes -= own_bytes


def honest_error(error: EngineFailureError, *, started: bool) -> Exception:
    """What an engine of ours raises for a failure, where the container puts it into a 200.

    Args:
        error: The failure.
        started: Whether the head of a 200 has been sent.
    """
    if started:
        return AnswerCutError(str(error))
    return ContractError(error.status, str(error))


def _refusal(error: ContractError) -> Response:
    if error.status == STATUS_SERVER_ERROR:
        return PlainTextResponse(error.message, error.status)
    headers = {"Retry-After": "1"} if error.status == STATUS_TOO_MANY else None
    try:
        return JSONResponse(error.envelope(), error.status, headers)
    except UnicodeEncodeError:  # the echoed input holds a lone surrogate
        return PlainTextResponse("Internal Server Error", STATUS_SERVER_ERROR)


class OpenCors(CORSMiddleware):
    """Any origin may read, as by the container's default; nothing changes for other clients."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and b"origin" not in dict(scope["headers"]):
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


class KeyMiddleware:
    """`--api-key`: every path below /v1 wants exactly this bearer key.

    Args:
        app: What it guards.
        key: The key.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or 401."""
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization")
            if given != self._expected and scope["method"] != "OPTIONS":
                await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def http_error(request: Request, error: Exception) -> Response:
    """404 and 405 as the container words them."""
    del request
    detail: Any = getattr(error, "detail", "Not Found")
    headers = getattr(error, "headers", None)
    return JSONResponse({"detail": detail}, getattr(error, "status_code", 404), headers)
