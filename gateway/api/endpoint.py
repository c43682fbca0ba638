"""The life of one speech request on the wire, for every surface: body, answer, end.

A raw ASGI response that owns its answer: Starlette's StreamingResponse leaves its generator open
when a client goes. A failure before the first audio is an honest status; one after it aborts the
connection, so that no client takes half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from gateway import value
from gateway.errors import (
    ClientGone,
    GatewayError,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedContentType,
)
from gateway.server.disconnect import Disconnect
from gateway.server.http_heads import header_of
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.prepare import PreparedSpeech
from gateway.speech.service import SpeechService
from gateway.telemetry.outcomes import Held, Outcomes
from gateway.telemetry.request_record import current_record
from gateway.upstream.wait_limit import WaitLimit
from gateway.voices.catalogue import VoiceCatalogue

JSON_TYPES = frozenset({"application/json", "text/json"})
LEAST_BODY_BYTES_PER_SECOND = 8192  # a modem's pace: slower is a slow attack, not a slow client
# Every stream says so: reverse proxies would otherwise gather it before passing it on.
Result = TypeVar("Result")
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads requests' bodies, bounded in size and in time.

    Attributes:
        most_bytes: The longest body of a speech request.
        pause_seconds: The longest time in which nothing of it comes.
    """

    most_bytes: int
    pause_seconds: float

    async def read(self, scope: Scope, receive: Receive, limit_bytes: int | None = None) -> bytes:
        """Read a request's body.

        Args:
            scope: The request.
            receive: Where its body comes from.
            limit_bytes: Another bound than `most_bytes`.

        Raises:
            RequestTooLarge: It is longer than the limit.
            RequestTimeout: It did not come in time.
            ClientGone: The client left before it was complete.
        """
        limit_bytes = self.most_bytes if limit_bytes is None else limit_bytes
        declared = header_of(scope["headers"], b"content-length")
        if declared.isdecimal() and int(declared[:20]) > limit_bytes:
            raise RequestTooLarge(f"The request's body is above {limit_bytes} bytes.")
        body = bytearray()
        now = asyncio.get_running_loop().time
        latest = now() + self.pause_seconds  # and more with every byte
        limit = WaitLimit(latest)
        try:
            while True:
                slowest = latest + len(body) / LEAST_BODY_BYTES_PER_SECOND
                limit.at = min(now() + self.pause_seconds, slowest)
                with limit:
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limit_bytes:
                    raise RequestTooLarge(f"The request's body is above {limit_bytes} bytes.")
                if not message.get("more_body", False):
                    return bytes(body)
        except TimeoutError:
            raise RequestTimeout("The request's body did not come in time.") from None
        finally:
            limit.close()


def media_type(scope: Scope) -> str:
    """The body's media type, lower case; JSON where none is said."""
    return _media_type(header_of(scope["headers"], b"content-type"))


@lru_cache(maxsize=64)  # clients are of a few kinds, and a head is bounded
def _media_type(given: str) -> str:
    return given.partition(";")[0].strip().lower() if given else "application/json"


def require_json(scope: Scope) -> None:
    """Refuse a body that says it is something else than JSON; none said is taken for JSON.

    Raises:
        UnsupportedContentType: With what is understood.
    """
    if media_type(scope) not in JSON_TYPES:
        raise UnsupportedContentType(
            "The request's content type must be application/json.", param="content-type"
        )


@value
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


Parse = Callable[[bytes, Scope], Awaitable[Spoken]]


class Framing(Protocol):
    """A framing around the audio bytes of a streamed answer."""

    content_type: str

    def chunk(self, data: bytes) -> bytes:
        """Frame some bytes of audio."""

    def end(self, answer: EncodedStream) -> bytes:
        """What follows the last audio."""

    def failure(self, error: GatewayError) -> bytes:
        """What tells the client of a failure before the connection is aborted."""


@dataclass(frozen=True, slots=True)
class SpeechEndpoint:
    """An ASGI endpoint that answers with speech; its errors are raised, not answered.

    Attributes:
        parts: What it has in common with its surface's other ones.
        parse: Reads a body into what to say; raises GatewayError.
        check: Looks at the scope before the body is read; raises GatewayError.
    """

    parts: SpeechSurface
    parse: Parse
    check: Callable[[Scope], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            GatewayError: There is no answer, or it broke off.
            ClientGone: The client left.
        """
        arrived = time.monotonic()
        with Held(self.parts.outcomes, scope["surface"].name, current_record()) as held:
            self.check(scope)
            body = await self.parts.bodies.read(scope, receive)
            async with Disconnect(receive, scope) as watch:
                spoken = await self.parse(body, scope)
                del body  # an answer may take minutes: what it was read from need not
                held.answer = answer = await self.parts.service.open(spoken.speech, arrived)
                exchange = _Exchange(answer, spoken, send, arrived)
                whole = spoken.speech.request.buffered
                await (exchange.send_whole(watch) if whole else exchange.send_stream(watch))


@dataclass(frozen=True, slots=True)
class SpeechSurface:
    """The parts that every surface of speech has.

    Attributes:
        service: The straight line.
        outcomes: Counts how requests end.
        bodies: Reads requests.
        catalogue: All voices.
        threads: Where voice samples are decoded.
    """

    service: SpeechService
    outcomes: Outcomes
    bodies: BodyReader
    catalogue: VoiceCatalogue
    threads: Executor

    def endpoint(self, parse: Parse, check: Callable[[Scope], None]) -> SpeechEndpoint:
        """The endpoint of a route; the arguments are those of `SpeechEndpoint`."""
        return SpeechEndpoint(self, parse, check)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Decode voice samples: work of up to a second."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


@value
class _Exchange:
    """The sending of one answer."""

    answer: EncodedStream
    spoken: Spoken
    send: Send
    arrived: float

    async def send_whole(self, watch: Disconnect) -> None:
        """Send the answer at once, when it is complete."""
        answer = self.answer
        body = await answer.read_all()
        await self._start(
            {
                "Content-Type": answer.transcoder.content_type,
                "Content-Length": str(len(body)),
                "X-Audio-Duration-Seconds": f"{answer.audio_seconds:.3f}",
                "Cache-Control": "no-store",
            }
        )
        watch.stop()
        await self._body(body, more=False)

    async def send_stream(self, watch: Disconnect) -> None:
        """Send the answer as it is made, or as much of it as there is."""
        answer, wrap = self.answer, self.spoken.wrap
        data = await answer.read()  # whatever fails before this is an honest status
        content_type = wrap.content_type if wrap else answer.transcoder.content_type
        await self._start({"Content-Type": content_type, **STREAM_HEADERS})
        try:
            while data:
                body = wrap.chunk(data) if wrap else data
                await self.send({"type": "http.response.body", "body": body, "more_body": True})
                answer.count_delivered(len(body))
                data = await answer.read()
        except GatewayError as error:
            if wrap:
                await self._body(wrap.failure(error), more=True)
            raise
        watch.stop()
        await self._body(wrap.end(answer) if wrap else b"", more=False)

    def _start(self, headers: Mapping[str, str]) -> Awaitable[None]:
        pairs = {
            **headers,
            **self.spoken.headers,
            "X-Queue-Wait-Seconds": f"{self.answer.queue_wait_seconds:.3f}",
        }
        if self.spoken.speech.request.text.left_out:
            pairs["X-Unspoken-Letters"] = str(self.spoken.speech.request.text.left_out)
        if self.spoken.duration_header:
            pairs[self.spoken.duration_header] = f"{time.monotonic() - self.arrived:.3f}"
        return self.send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs.items()],
            }
        )

    async def _body(self, data: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})
        self.answer.count_delivered(len(data))
