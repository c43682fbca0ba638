"""The container's HTTP surface around a `Voice`: what docs/contract.md describes, over raw ASGI.

The CPU voice and the simulated one are served alike, so the gateway has one path to an engine.
"""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile as sf
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.audio.encoders.wav import header
from gateway.disconnect import ClientGone, watch_disconnect
from gateway.engine.base import (
    BYTES_PER_TOKEN,
    OVERHEAD_TOKENS,
    SAMPLE_RATE_HZ,
    EngineFailureError,
    Job,
    UnspeakableError,
    Voice,
)
from gateway.engine.contract import (
    REFERENCE_OVERHEAD_TOKENS,
    REFERENCE_TOKENS_PER_SECOND,
    ChatFields,
    ContractError,
    SpeechFields,
    chat_job,
    check_model,
    in_stream_error,
    parse_json,
    speech_job,
    validate,
)

CONTEXT_TOKENS = 8192
SPEECH_HEADERS = [(b"content-type", b"audio/mpeg")]  # whatever the format
EVENT_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine process is set up.

    Attributes:
        model_id: Served model name; None takes the voice's.
        api_key: Bearer key of every `/v1` path, or None.
        context_tokens: max_model_len.
    """

    model_id: str | None = None
    api_key: str | None = None
    context_tokens: int = CONTEXT_TOKENS


@dataclass(slots=True)
class Counters:
    """What `/metrics` tells."""

    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    first_token_seconds_sum: float = 0.0
    first_token_seconds_count: int = 0


class Engine:
    """The routes of one engine process."""

    def __init__(self, voice: Voice, options: EngineOptions) -> None:
        self.voice = voice
        self.options = options
        self.model_id = options.model_id or voice.model_id
        self.counters = Counters()

    # -- small answers ---------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Live, and nothing more; HEAD is refused as there."""
        if request.method == "HEAD":
            return JSONResponse({"detail": "Method Not Allowed"}, 405)
        return Response()

    async def version(self, request: Request) -> Response:
        """`/version`."""
        del request
        return JSONResponse({"version": __version__})

    async def models(self, request: Request) -> Response:
        """`/v1/models`; `created` is the time of the request."""
        del request
        model = {
            "id": self.model_id,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.model_id,
            "parent": None,
            "max_model_len": self.options.context_tokens,
            "permission": [],
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def voices(self, request: Request) -> Response:
        """`/v1/audio/voices`: a bare array."""
        del request
        return JSONResponse(list(self.voice.presets))

    async def metrics(self, request: Request) -> Response:
        """`/metrics` with the container's names."""
        del request
        labels = f'engine="0",model_name="{self.model_id}"'
        waiting = getattr(self.voice, "waiting", 0)
        histogram = "vllm:time_to_first_token_seconds"
        lines = [
            f"vllm:num_requests_running{{{labels}}} {self.voice.running - waiting}",
            f"vllm:num_requests_waiting{{{labels}}} {waiting}",
            f"vllm:gpu_cache_usage_perc{{{labels}}} 0.0",
            f"vllm:generation_tokens_total{{{labels}}} {self.voice.audio_tokens_total}",
            f"{histogram}_sum{{{labels}}} {self.counters.first_token_seconds_sum:.6f}",
            f"{histogram}_count{{{labels}}} {self.counters.first_token_seconds_count}",
        ]
        lines += [
            f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {count}'
            for reason, count in self.counters.finished.items()
            if reason != "abort"
        ]
        return PlainTextResponse(
            "\n".join(lines) + "\n",
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    # -- speech ----------------------------------------------------------------------------

    async def speech(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/audio/speech`."""
        body = await _body(receive)
        fields = validate(SpeechFields, parse_json(body))
        check_model(fields.model, self.model_id)
        job = speech_job(
            fields, self.voice.presets, self.options.context_tokens, self._request_id(scope)
        )
        self.note(job, scope, fields)
        chunks = self._generate(job)
        async with watch_disconnect(receive) as watch:
            try:
                first = await anext(chunks, b"")
            except UnspeakableError as error:
                raise ContractError(400, str(error), "unspeakable_text") from None
            except EngineFailureError as error:
                await _start(send, SPEECH_HEADERS)
                await _send(send, in_stream_error(str(error)), more=False)
                return
            await _start(send, SPEECH_HEADERS)
            try:
                while first:
                    await _send(send, _encode(first, fields.response_format), more=True)
                    first = await anext(chunks, b"")
            except EngineFailureError as error:
                # The error's text stands inside the audio, and what was buffered follows.
                await _send(send, in_stream_error(str(error)), more=True)
                await _send(send, bytes(BYTES_PER_TOKEN * 20), more=True)
            finally:
                await chunks.aclose()
            watch.stop()
            await _send(send, b"", more=False)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/chat/completions`."""
        body = await _body(receive)
        value = parse_json(body)
        fields = validate(ChatFields, value)
        if fields.stream_options and not fields.stream:
            raise ContractError(400, "Stream options can only be defined when `stream=True`.")
        check_model(fields.model, self.model_id)
        job = chat_job(fields, self.options.context_tokens, self._request_id(scope))
        self.note(job, scope, fields)
        too_long = self._prompt_too_long(job)
        chunks = self._generate(job)
        async with watch_disconnect(receive):
            try:
                if fields.stream:
                    await self._chat_stream(fields, job, chunks, send, too_long)
                elif too_long:
                    raise ContractError(400, too_long)
                else:
                    await self._chat_whole(fields, job, chunks, scope, receive, send)
            finally:
                await chunks.aclose()

    def _prompt_too_long(self, job: Job) -> str | None:
        """The container's message when text fits but text and reference audio do not."""
        tokens = job.prompt_tokens
        for _, audio in job.references:
            seconds = _duration_seconds(audio)
            tokens += int(seconds * REFERENCE_TOKENS_PER_SECOND) + REFERENCE_OVERHEAD_TOKENS
        limit = self.options.context_tokens
        if tokens <= limit:
            return None
        return f"Prompt length of {tokens} is longer than the maximum model length of {limit}."

    async def _chat_stream(
        self,
        fields: ChatFields,
        job: Job,
        chunks: AsyncGenerator[bytes, None],
        send: Send,
        too_long: str | None,
    ) -> None:
        events = _ChatEvents(self.model_id)
        started = False
        tokens = finished = 0
        try:
            if too_long:
                raise EngineFailureError(too_long)
            async for chunk in chunks:
                if not started:
                    started = True
                    await _start(send, EVENT_HEADERS)
                    await _send(send, events.role(), more=True)
                count = len(chunk) // BYTES_PER_TOKEN
                tokens += count
                if job.ending.finish_reason == "length" and not finished:
                    # The tail of the audio comes after this event.
                    finished = 1
                    await _send(send, events.finish("length"), more=True)
                await _send(send, events.token() * count + events.audio(chunk), more=True)
        except UnspeakableError as error:
            raise ContractError(400, str(error), "unspeakable_text") from None
        except EngineFailureError as error:
            if not started:
                await _start(send, EVENT_HEADERS)
            await _send(send, b"data: " + in_stream_error(str(error)) + b"\n\n", more=True)
            await _send(send, b"data: [DONE]\n\n", more=False)
            return
        if not started:
            await _start(send, EVENT_HEADERS)
            await _send(send, events.role(), more=True)
        last = b"" if finished else events.finish(job.ending.finish_reason)
        if fields.stream_options and fields.stream_options.include_usage:
            last += events.usage(job.prompt_tokens, tokens + OVERHEAD_TOKENS + 1)
        await _send(send, last + b"data: [DONE]\n\n", more=False)

    async def _chat_whole(
        self,
        fields: ChatFields,
        job: Job,
        chunks: AsyncGenerator[bytes, None],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            pcm = b"".join([chunk async for chunk in chunks])
        except UnspeakableError as error:
            raise ContractError(400, str(error), "unspeakable_text") from None
        except EngineFailureError:
            await Response(status_code=500)(scope, receive, send)
            return
        if not pcm:
            raise ContractError(400, "need at least one array to concatenate")
        if fields.audio.format in {"opus", "pcm16"}:
            raise ContractError(400, f"Unknown format: {fields.audio.format}")
        tokens = len(pcm) // BYTES_PER_TOKEN + OVERHEAD_TOKENS + 1
        message: dict[str, Any] = {
            "role": "assistant",
            "reasoning_content": None,
            "content": "",
            "tool_calls": [],
            "audio": {
                "id": f"audio-{uuid.uuid4().hex}",
                "data": base64.b64encode(_encode(pcm, fields.audio.format)).decode(),
                "expires_at": 0,
                "transcript": "",
            },
        }
        reason = job.ending.finish_reason
        choice = {"index": 0, "message": message, "finish_reason": reason, "stop_reason": None}
        usage = {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": job.prompt_tokens + tokens,
        }
        answer = {
            "id": f"chatcmpl-{job.request_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model_id,
            "choices": [choice],
            "usage": usage,
        }
        await JSONResponse(answer)(scope, receive, send)

    # -- shared ----------------------------------------------------------------------------

    def note(self, job: Job, scope: Scope, fields: SpeechFields | ChatFields) -> None:
        """A place for the simulator to record what came; nothing here."""

    def _request_id(self, scope: Scope) -> str:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        return given or uuid.uuid4().hex

    async def _generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """The voice's chunks, counted."""
        began = time.monotonic()
        reason = "abort"
        chunks = self.voice.generate(job)
        try:
            async for chunk in chunks:
                if reason == "abort":
                    self.counters.first_token_seconds_sum += time.monotonic() - began
                    self.counters.first_token_seconds_count += 1
                    reason = ""
                yield chunk
            reason = job.ending.finish_reason
        finally:
            await chunks.aclose()
            self.counters.finished[reason or "abort"] += 1


class _ChatEvents:
    """Writes the events of one streamed chat answer."""

    def __init__(self, model_id: str) -> None:
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model_id,
        }
        self._head = json.dumps(head, separators=(",", ":")).encode()[:-1]
        self._token = self._event({"content": "", "audio": None}, None)

    def _event(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        body = json.dumps([choice], separators=(",", ":")).encode()
        return b"data: " + self._head + b',"choices":' + body + b"}\n\n"

    def role(self) -> bytes:
        return self._event({"role": "assistant", "content": ""}, None)

    def token(self) -> bytes:
        return self._token

    def audio(self, pcm: bytes) -> bytes:
        audio = {
            "id": f"audio-{uuid.uuid4().hex}",
            "data": base64.b64encode(pcm).decode(),
            "expires_at": 0,
            "transcript": "",
        }
        return self._event({"content": "", "audio": audio}, None)

    def finish(self, reason: str) -> bytes:
        return self._event({"content": "", "audio": None}, reason)

    def usage(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        body = json.dumps(usage, separators=(",", ":")).encode()
        return b"data: " + self._head + b',"choices":[],"usage":' + body + b"}\n\n"


def _encode(pcm: bytes, response_format: str) -> bytes:
    """One chunk in the asked format: each a complete file, as the container makes them."""
    if response_format == "pcm":
        return pcm
    if response_format == "wav":
        return header(SAMPLE_RATE_HZ, len(pcm)) + pcm
    samples = np.frombuffer(pcm, "<i2")
    sink = io.BytesIO()
    sf.write(sink, samples, SAMPLE_RATE_HZ, format=response_format.upper())
    return sink.getvalue()


def _duration_seconds(audio: bytes) -> float:
    """Length of a reference, or the container's 400."""
    try:
        return float(sf.info(io.BytesIO(audio)).duration)
    except (sf.LibsndfileError, ValueError) as error:
        raise ContractError(400, str(error)) from None


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


class _Endpoint:
    """An ASGI endpoint that renders the contract's refusals."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            detail = "Unsupported Media Type: Only 'application/json' is allowed"
            await JSONResponse({"detail": detail}, 415)(scope, receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        except ContractError as error:
            response: Response = JSONResponse(error.envelope(), error.status)
            if error.status == 500:  # noqa: PLR2004
                response = PlainTextResponse(error.message, 500)
            await response(scope, receive, send)
        except UnicodeEncodeError:  # a lone surrogate reaches the tokenizer
            await PlainTextResponse("Internal Server Error", 500)(scope, receive, send)
        except ClientGone:
            return


class _KeyMiddleware:
    """`--api-key`: every path below /v1 wants exactly this bearer key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization")
            if given != self._expected and scope["method"] != "OPTIONS":
                await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_engine_app(engine: Engine, routes: tuple[Route, ...] = ()) -> Starlette:
    """The application of an engine.

    Args:
        engine: The routes' state.
        routes: Further ones, for the simulator.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        await engine.voice.start()
        try:
            yield
        finally:
            await engine.voice.stop()

    async def not_found(request: Request, error: Exception) -> Response:
        del request
        status = getattr(error, "status_code", 404)
        return JSONResponse({"detail": getattr(error, "detail", "Not Found")}, status)

    middleware = [
        Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    ]
    if engine.options.api_key:
        middleware.append(Middleware(_KeyMiddleware, engine.options.api_key))
    return Starlette(
        routes=[
            Route("/health", engine.health),
            Route("/version", engine.version),
            Route("/metrics", engine.metrics),
            Route("/v1/models", engine.models),
            Route("/v1/audio/voices", engine.voices),
            Route("/v1/audio/speech", _Endpoint(engine.speech), methods=["POST"]),
            Route("/v1/chat/completions", _Endpoint(engine.chat), methods=["POST"]),
            *routes,
        ],
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={404: not_found, 405: not_found},
    )
