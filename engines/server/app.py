"""The container's HTTP surface around a `Voice`: what docs/contract.md describes, over raw ASGI.

The CPU voice and the simulated one are served alike, so the gateway has one path to an engine.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engines.server.asgi import (
    JsonEndpoint,
    KeyMiddleware,
    OpenCors,
    encode,
    finish,
    get_route,
    honest_error,
    http_error,
    read_body,
    send_part,
    start,
)
from engines.server.chat import UNSPEAKABLE, ChatEvents, StreamedChat, whole_chat
from engines.server.contract import (
    ChatFields,
    ContractError,
    SpeechFields,
    check_model,
    in_stream_error,
    most_tokens,
    parse_json,
    prompt_too_long,
    reference_tokens,
    validate,
)
from engines.server.metrics import CONTENT_TYPE, Counters
from engines.server.presets import Preset, PresetFolder
from engines.server.requests import MOST_AUDIOS, EngineLimits, audio_seconds, chat_job, speech_job
from engines.voice import (
    SAMPLE_RATE_HZ,
    TOKENS_PER_SECOND,
    EngineFailureError,
    Job,
    PromptTooLongError,
    UnspeakableError,
    Voice,
)
from gateway import __version__
from gateway.server.disconnect import Disconnect

CONTEXT_TOKENS = 8192
SPEECH_HEADERS = [(b"content-type", b"audio/mpeg")]  # whatever the format


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine process is set up.

    Attributes:
        model_id: Served model name; None takes the voice's.
        api_key: Bearer key of every `/v1` path, or None.
        context_tokens: max_model_len.
        presets: A folder of voices that replaces the voice's own presets, or None.
        count_tokens: The tokenizer: how many tokens a text has.
    """

    model_id: str | None = None
    api_key: str | None = None
    context_tokens: int = CONTEXT_TOKENS
    presets: PresetFolder | None = None
    count_tokens: Callable[[str], int] = most_tokens


class Engine:
    """The routes of one engine process.

    Args:
        voice: What makes the sound.
        options: How the process is set up.

    Attributes:
        headers_first: Whether the 200 leaves before the generation begins, as the container's
            does. The CPU engine waits for the first sound: it can still refuse a text.
        preset_tokens: Prompt tokens of a preset's own reference.
    """

    headers_first = False
    preset_tokens = 0

    def __init__(self, voice: Voice, options: EngineOptions) -> None:
        self.voice = voice
        self.options = options
        self.model_id = options.model_id or voice.model_id
        self.limits = EngineLimits(options.context_tokens, self.preset_tokens, options.count_tokens)
        self.counters = Counters()

    # -- small answers ---------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """Live; 503 with the reason where the voice knows that it cannot generate."""
        del request
        failure = self.voice.failure()
        return PlainTextResponse(failure, 503) if failure else Response()

    async def capabilities(self, request: Request) -> Response:
        """`/capabilities`, which the container has not: what a gateway need not guess."""
        del request
        return JSONResponse(
            {
                "model": self.model_id,
                "version": __version__,
                "sample_rate_hz": SAMPLE_RATE_HZ,
                "tokens_per_second": TOKENS_PER_SECOND,
                "max_model_len": self.options.context_tokens,
                "languages": None,  # not restricted, or not known
                "seed": False,
                "references": True,
                "most_references": MOST_AUDIOS,
                **self.voice.capabilities(),
            }
        )

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
            "root": self.voice.model_id,
            "parent": None,
            "max_model_len": self.options.context_tokens,
            "permission": [],
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def voices(self, request: Request) -> Response:
        """`/v1/audio/voices`: a bare array."""
        del request
        folder = self.options.presets
        names = folder.names() if folder else self.voice.presets
        if folder and folder.may_be_empty and not names:
            names = self.voice.presets
        return JSONResponse(list(names))

    async def metrics(self, request: Request) -> Response:
        """`/metrics` with the container's names; chunked, as there."""
        del request
        waiting = self.voice.waiting
        text = self.counters.exposition(
            self.model_id,
            running=self.voice.running - waiting,
            waiting=waiting,
            tokens=self.voice.audio_tokens_total,
            cache_usage=self.voice.cache_usage,
            more=self.voice.metrics(),
        )
        return StreamingResponse(iter([text]), headers={"Content-Type": CONTENT_TYPE})

    # -- speech ----------------------------------------------------------------------------

    async def speech(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/audio/speech`."""
        fields: SpeechFields = validate(SpeechFields, parse_json(await read_body(receive)))
        check_model(fields.model, self.model_id)
        request_id = self._request_id(scope, "audiospeech")
        preset = load_preset(self.options.presets, fields.voice)
        text = preset.system_prompt or preset.transcript if preset else None
        job = speech_job(fields, self.voice.presets, self.limits, request_id, text)
        if preset is not None:
            job = with_preset(job, preset)
        async with Disconnect(receive) as watch:
            job = await self.admit(job, scope, fields)
            chunks = self.generate(job)
            try:
                await self._send_speech(chunks, fields.response_format, send)
            finally:
                await chunks.aclose()
            watch.stop()
            await finish(send)

    async def _send_speech(
        self, chunks: AsyncGenerator[bytes, None], response_format: str, send: Send
    ) -> None:
        started = self.headers_first
        if started:
            await start(send, SPEECH_HEADERS)
        try:
            async for chunk in chunks:
                if not started:
                    started = True
                    await start(send, SPEECH_HEADERS)
                if chunk:
                    await send_part(send, encode(chunk, response_format))
        except UnspeakableError as error:
            raise ContractError(400, str(error), UNSPEAKABLE) from None
        except EngineFailureError as error:
            if not self.headers_first:
                raise honest_error(error, started=started) from error
            await self._send_failure(error, response_format, send, started=started)
            return
        if not started:
            await start(send, SPEECH_HEADERS)

    async def _send_failure(
        self, error: EngineFailureError, response_format: str, send: Send, *, started: bool
    ) -> None:
        """As the container: the error's text inside the audio, then what was buffered."""
        if not started:
            await start(send, SPEECH_HEADERS)
        await send_part(send, in_stream_error(str(error)))
        if error.buffered:
            await send_part(send, encode(error.buffered, response_format))

    # -- chat ------------------------------------------------------------------------------

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/chat/completions`."""
        fields: ChatFields = validate(ChatFields, parse_json(await read_body(receive)))
        check_model(fields.model, self.model_id)
        job = chat_job(fields, self.limits, self._request_id(scope, "chatcmpl"))
        async with Disconnect(receive) as watch:
            job = await self.admit(job, scope, fields)
            chunks = self.generate(job)
            try:
                if fields.stream:
                    options = fields.stream_options
                    answer = StreamedChat(
                        ChatEvents(self.model_id, job.request_id),
                        job,
                        send,
                        include_usage=options is not None and options.include_usage,
                        headers_first=self.headers_first,
                    )
                    await answer.run(chunks)
                    return
                response = await whole_chat(
                    job, chunks, audio_format=fields.audio.format, model_id=self.model_id
                )
            finally:
                await chunks.aclose()
            watch.stop()
            await response(scope, receive, send)

    # -- shared ----------------------------------------------------------------------------

    async def admit(self, job: Job, scope: Scope, fields: SpeechFields | ChatFields) -> Job:
        """A place for the simulator to record what came and to misbehave before the headers."""
        del scope, fields
        return job

    def _request_id(self, scope: Scope, prefix: str) -> str:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        return f"{prefix}-{given or uuid.uuid4().hex}"

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """The voice's chunks, counted; a full context ends them like max_tokens.

        Raises:
            PromptTooLongError: Text and references together are over the context.
        """
        too_long = prompt_too_long(job.prompt_tokens, self.options.context_tokens)
        if too_long:
            raise PromptTooLongError(too_long)
        room = self.options.context_tokens - job.prompt_tokens
        bounded = replace(job, max_tokens=min(job.max_tokens, room))
        began: float | None = time.monotonic()
        chunks = self.voice.generate(bounded)
        try:
            async for chunk in chunks:
                if began is not None:
                    self.counters.observe_first_token(time.monotonic() - began)
                    began = None
                yield chunk
            self.counters.finished[job.ending.finish_reason] += 1
        finally:
            await chunks.aclose()


def load_preset(presets: PresetFolder | None, name: str) -> Preset | None:
    """A voice of the folder, or None where there is no folder.

    Raises:
        ContractError: 500, as from the container, where the folder is not sound.
    """
    try:
        if presets is None or (presets.may_be_empty and not presets.names()):
            return None
        return presets.load(name)
    except (LookupError, TypeError, OSError) as error:
        raise ContractError(500, "Internal Server Error") from error


def with_preset(job: Job, preset: Preset) -> Job:
    """The job spoken by a voice of a folder."""
    if preset.system_prompt:
        return replace(job, preset=None, system_prompt=preset.system_prompt)
    seconds = audio_seconds(preset.audio)
    return replace(
        job,
        preset=None,
        references=((preset.transcript, preset.audio),),
        prompt_tokens=job.prompt_tokens + reference_tokens(seconds),
        reference_seconds=seconds,
    )


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

    middleware = [Middleware(OpenCors)]
    if engine.options.api_key:
        middleware.append(Middleware(KeyMiddleware, engine.options.api_key))
    return Starlette(
        routes=[
            get_route("/health", engine.health),
            get_route("/capabilities", engine.capabilities),
            get_route("/version", engine.version),
            get_route("/metrics", engine.metrics),
            get_route("/v1/models", engine.models),
            get_route("/v1/audio/voices", engine.voices),
            Route("/v1/audio/speech", JsonEndpoint(engine.speech), methods=["POST"]),
            Route("/v1/chat/completions", JsonEndpoint(engine.chat), methods=["POST"]),
            *routes,
        ],
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={404: http_error, 405: http_error},
    )
