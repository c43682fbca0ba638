"""The life of one speech request on the wire, for every surface: body, answer, end.

A raw ASGI response that owns its answer: Starlette's StreamingResponse leaves its generator open
when a client goes. A failure before the first audio is an honest status; one after it aborts the
connection, so that no client takes half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import (
    GatewayError,
    RequestTimeout,
    RequestTooLarge,
    ShuttingDown,
    UnsupportedContentType,
    outcome_of,
)
from gateway.server.disconnect import ClientGone, Disconnect, watch_disconnect
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.prepare import PreparedSpeech
from gateway.speech.service import SpeechService
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import current_record

logger = logging.getLogger("gateway.request")

LEAST_BODY_BYTES_PER_SECOND = 8192  # a modem's pace: slower is a slow attack, not a slow client
DISCARD_SECONDS = 5.0  # a client that is refused mid-body gets this long to hear why
# Every stream says so: reverse proxies would otherwise gather it before passing it on.
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class BodyReader:
    """Reads requests' bodies, bounded in size and in time.

    Args:
        most_bytes: The longest body of a speech request.
        pause_seconds: The longest time in which nothing of it comes.
    """

    def __init__(self, most_bytes: int, pause_seconds: float) -> None:
        self.most_bytes = most_bytes
        self._pause_seconds = pause_seconds

    async def read(self, scope: Scope, receive: Receive, limit_bytes: int | None = None) -> bytes:
        """Read a request's body.

        Args:
            scope: The request.
            receive: Where its body comes from.
            limit_bytes: Another bound than `most_bytes`.

        Raises:
            RequestTooLarge: It is longer than the limit; what the client still sends is discarded
                for a moment, so that it hears the answer.
            RequestTimeout: It did not come in time.
            ClientGone: The client left before it was complete.
        """
        limit_bytes = self.most_bytes if limit_bytes is None else limit_bytes
        declared = Headers(scope=scope).get("content-length", "")
        too_large = declared.isdecimal() and int(declared[:20]) > limit_bytes
        body = bytearray()
        now = asyncio.get_running_loop().time
        discard_until = now() + DISCARD_SECONDS if too_large else math.inf
        latest = now() + self._pause_seconds  # and more with every byte
        try:
            async with asyncio.timeout(None) as deadline:
                while True:
                    slowest = latest + len(body) / LEAST_BODY_BYTES_PER_SECOND
                    deadline.reschedule(min(now() + self._pause_seconds, slowest, discard_until))
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    if not too_large:
                        body += message.get("body", b"")
                        too_large = len(body) > limit_bytes
                        if too_large:
                            discard_until = now() + DISCARD_SECONDS
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            if not too_large:
                raise RequestTimeout("The request's body did not come in time.") from None
        if too_large:
            raise RequestTooLarge(f"The request's body is above {limit_bytes} bytes.")
        return bytes(body)


def media_type(scope: Scope) -> str:
    """The body's media type, lower case; JSON where none is said."""
    given: str = Headers(scope=scope).get("content-type", "application/json")
    return given.partition(";")[0].strip().lower()


def require_json(scope: Scope) -> None:
    """Refuse a body that says it is something else than JSON; none said is taken for JSON.

    Raises:
        UnsupportedContentType: With what is understood.
    """
    if media_type(scope) not in {"application/json", "text/json"}:
        raise UnsupportedContentType(
            "The request's content type must be application/json.", param="content-type"
        )


class Surface(Protocol):
    """What a surface gives to `serve`: its own shapes."""

    name: str

    def render_error(self, error: GatewayError) -> Response:
        """An error in the surface's own shape."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A surface's reading of one request.

    Attributes:
        speech: What to say, and how.
        headers: Further headers of the answer.
        duration_header: Name of a header that tells the seconds it took, or None.
        wrap: Turns the answer's bytes into the surface's own framing (SSE), or None.
    """

    speech: PreparedSpeech
    headers: Mapping[str, str]
    duration_header: str | None = None
    wrap: Framing | None = None


class Framing(Protocol):
    """A framing around the audio bytes of a streamed answer."""

    content_type: str

    def chunk(self, data: bytes) -> bytes:
        """Frame some bytes of audio."""

    def end(self, answer: EncodedStream) -> bytes:
        """What follows the last audio."""

    def failure(self, error: GatewayError) -> bytes:
        """What tells the client of a failure before the connection is aborted."""


def retry_headers(error: GatewayError) -> dict[str, str]:
    """Headers that tell a client when to come back, and that the connection ends here."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_seconds * 1000))
    if error.status in {408, 413} or isinstance(error, ShuttingDown):
        headers["Connection"] = "close"
    return headers


class SpeechEndpoint:
    """An ASGI endpoint that answers with speech.

    Args:
        service: The straight line.
        metrics: Where it is counted how requests end.
        bodies: Reads them.
        surface: Shapes of errors.
        parse: Reads a body into what to say; raises GatewayError.
        check: Looks at the scope before the body is read; raises GatewayError.
    """

    def __init__(
        self,
        service: SpeechService,
        metrics: Metrics,
        bodies: BodyReader,
        surface: Surface,
        parse: Callable[[bytes, Scope], Awaitable[Spoken]],
        check: Callable[[Scope], None] = require_json,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._bodies = bodies
        self._surface = surface
        self._parse = parse
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count how it ended exactly once."""
        arrived = time.monotonic()
        exchange = _Exchange(self._service, self._metrics, send, arrived)
        try:
            outcome = await self._serve(scope, receive, exchange)
        except ClientGone:
            outcome = "cancelled"
        except GatewayError as error:
            outcome = await self._fail(error, scope, receive, send, exchange)
        except asyncio.CancelledError:
            exchange.observe("cancelled", self._surface.name)
            raise
        except Exception:
            logger.exception("internal error")
            failure = GatewayError("The gateway failed; its log says how.")
            outcome = await self._fail(failure, scope, receive, send, exchange)
        exchange.observe(outcome, self._surface.name)

    async def _fail(
        self, error: GatewayError, scope: Scope, receive: Receive, send: Send, exchange: _Exchange
    ) -> str:
        """Tell the client of a failure in the way that is left; return the outcome."""
        if exchange.started:
            # An ASGI call that returns without its last body chunk makes the HTTP server drop
            # the connection: that is the abort.
            logger.warning("answer aborted: %s", error.message)
            return "truncated"
        await self._surface.render_error(error)(scope, receive, send)
        return outcome_of(error)

    async def _serve(self, scope: Scope, receive: Receive, exchange: _Exchange) -> str:
        self._check(scope)
        body = await self._bodies.read(scope, receive)
        async with watch_disconnect(receive) as watch:
            spoken = await self._parse(body, scope)
            del body  # an answer may take minutes: what it was read from need not
            await exchange.answer(spoken, watch)
        return "ok"


class _Exchange:
    """What has been sent of one answer."""

    def __init__(
        self, service: SpeechService, metrics: Metrics, send: Send, arrived: float
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._send = send
        self._arrived = arrived
        self._answer: EncodedStream | None = None
        self.started = False

    async def answer(self, spoken: Spoken, watch: Disconnect) -> None:
        """Open the answer, send it, and close it whatever happens."""
        answer = await self._service.open(spoken.speech, self._arrived)
        self._answer = answer
        try:
            if spoken.speech.request.buffered:
                await self._send_whole(answer, spoken, watch)
            else:
                await self._send_stream(answer, spoken, watch)
        except GatewayError as error:
            if self.started and spoken.wrap:
                await self._body(spoken.wrap.failure(error), more=True)
            raise
        finally:
            answer.close()

    async def _send_whole(self, answer: EncodedStream, spoken: Spoken, watch: Disconnect) -> None:
        body = await answer.read_all()
        await self._start(
            {
                "Content-Type": answer.content_type,
                "Content-Length": str(len(body)),
                "X-Audio-Duration-Seconds": f"{answer.audio_seconds:.3f}",
                "Cache-Control": "no-store",
            },
            answer,
            spoken,
        )
        watch.stop()
        await self._body(body, more=False)

    async def _send_stream(self, answer: EncodedStream, spoken: Spoken, watch: Disconnect) -> None:
        wrap = spoken.wrap
        data = await answer.read()  # whatever fails before this is an honest status
        await self._start(
            {
                "Content-Type": wrap.content_type if wrap else answer.content_type,
                **STREAM_HEADERS,
            },
            answer,
            spoken,
        )
        while data:
            await self._body(wrap.chunk(data) if wrap else data, more=True)
            data = await answer.read()
        watch.stop()
        await self._body(wrap.end(answer) if wrap else b"", more=False)

    async def _start(
        self, headers: Mapping[str, str], answer: EncodedStream, spoken: Spoken
    ) -> None:
        self.started = True
        pairs = {
            **headers,
            **spoken.headers,
            "X-Queue-Wait-Seconds": f"{answer.queue_wait_seconds:.3f}",
        }
        if spoken.duration_header:
            pairs[spoken.duration_header] = f"{time.monotonic() - self._arrived:.3f}"
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs.items()],
            }
        )

    async def _body(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        if self._answer is not None:
            self._answer.count_delivered(len(data))

    def observe(self, outcome: str, surface: str) -> None:
        """Count the request."""
        current_record().outcome = outcome
        self._metrics.requests.labels(surface, outcome).inc()
        if self._answer is not None:
            self._answer.observe(outcome)
