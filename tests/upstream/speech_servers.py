"""Servers of OpenAI's speech API, as the real ones were seen to behave (docs/evidence).

Each makes the simulated waveform of its text and voice, so that every lost sample shows.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile as sf
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engines.simulator.waveform import expected_pcm
from engines.voice import PRESETS
from gateway.audio.encoders.wav import header
from gateway.text.sanitise import sanitise_text
from tests.engines.serving import serving

# Kinds, and what the gateway calls their engines.
ENGINES = {
    "higgs": "higgs-audio-vllm",  # its lists alone
    "travisvn": "chatterbox-tts-api",
    "devnen": "chatterbox-tts-server",
    "kokoro": "kokoro-fastapi",
    "vllm-omni": "vllm-omni",
    "vllm-omni higgs v2": "vllm-omni",
    "sglang-omni": "sglang-omni",
    "litellm": "litellm",
    "unknown": "openai-compatible",
    "mp3": "openai-compatible",
}
PIECE_BYTES = 9_600
FAILING = "explode"  # what a text says to make the model fail
# Those that stream a WAV, and the size in its header that says nothing.
WAV_KINDS, WAV_SIZE = ("travisvn", "vllm-omni", "vllm-omni higgs v2"), 0xFFFFFFFF - 36


def pcm_of(text: str, voice: str) -> bytes:
    """What a server says: another sound for each text and voice."""
    return expected_pcm(sanitise_text(text), PRESETS[zlib.crc32(voice.encode()) % len(PRESETS)])


@dataclass(slots=True)
class SpeechServer:
    """One server.

    Attributes:
        kind: Which of the known ones.
        rate_hz: Of its audio.
        voices: What it lists.
        pause_seconds: Between two pieces of a stream.
        asked: Bodies of the speech requests that came.
        left: Clients that went away before the end.
        failing: A path and how its GET fails: late, page or a status; None where all is well.
    """

    kind: str
    rate_hz: int = 24_000
    voices: tuple[str, ...] = ("one", "two")
    pause_seconds: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    failing: tuple[str, str] | None = None

    def models(self, request: Request) -> Response:
        """`/v1/models`; devnen's server has none."""
        del request
        owners = {
            "higgs": ("higgs-audio", "vllm"),
            "travisvn": ("chatterbox-tts-1", "resemble-ai"),
            "kokoro": ("kokoro", "kokoro"),
            "vllm-omni": ("Qwen/Qwen3-TTS", "vllm"),
            "vllm-omni higgs v2": ("bosonai/higgs-audio-v2", "vllm"),
            "sglang-omni": ("bosonai/higgs-audio-v3", "sglang-omni"),
            "litellm": ("tts-kokoro", "openai"),
            "unknown": ("some-tts", "somebody"),
            "mp3": ("some-tts", "somebody"),
        }
        name, owner = owners[self.kind]
        data = [{"id": name, "object": "model", "owned_by": owner}]
        return JSONResponse({"object": "list", "data": data})

    def list_voices(self, request: Request) -> Response:
        """The list of voices."""
        del request
        names: list[Any] = list(self.voices)
        match self.kind:
            case "higgs":
                return JSONResponse(names)
            case "kokoro":
                return JSONResponse({"voices": [{"id": n, "name": n} for n in names]})
            case "devnen":
                return JSONResponse({"status": "ok", "voices": names})
            case "vllm-omni" | "vllm-omni higgs v2" | "sglang-omni":
                return JSONResponse({"voices": names, "uploaded_voices": []})
            case "travisvn":
                return JSONResponse({"voices": [{"name": n} for n in names], "count": len(names)})
        return JSONResponse({"voices": names})

    def page(self, request: Request) -> Response:
        """The index of devnen's server, which is broken with a newer Starlette."""
        del request
        return PlainTextResponse("Internal Server Error", 500)

    def alive(self, request: Request) -> Response:
        """LiteLLM's own."""
        del request
        return JSONResponse("I'm alive!")

    async def speech(self, request: Request) -> Response:
        """The speech route."""
        body = await request.json()
        self.asked.append(body)
        text, voice = body["input"], str(body.get("voice", ""))
        if FAILING in text:
            return self._failure()
        pcm = self._resampled(pcm_of(text, voice))
        if self.kind in WAV_KINDS:
            return self._stream(header(self.rate_hz, WAV_SIZE) + pcm, "audio/wav", {})
        return self._answer(pcm)

    def _answer(self, pcm: bytes) -> Response:
        """The answer of servers that stream no WAV."""
        match self.kind:
            case "devnen":
                return Response(header(self.rate_hz, len(pcm)) + pcm, media_type="audio/wav")
            case "mp3":
                sink = io.BytesIO()
                sf.write(sink, np.frombuffer(pcm, "<i2"), self.rate_hz, format="MP3")
                return Response(sink.getvalue(), media_type="audio/mpeg")
            case "sglang-omni":
                rate = {"X-Sample-Rate": str(self.rate_hz)}
                return self._stream(pcm, "audio/pcm", rate)
            case "unknown":
                return StreamingResponse(self._events(pcm), media_type="text/event-stream")
        return self._stream(pcm, "audio/pcm", {})

    def _failure(self) -> Response:
        """How the model's failure looks."""
        match self.kind:
            case "vllm-omni":  # the headers are sent before its engine is asked
                return StreamingResponse(self._cut(b""), media_type="audio/wav")
            case "travisvn":
                start = header(self.rate_hz, WAV_SIZE)
                return StreamingResponse(self._cut(start), media_type="audio/wav")
            case "sglang-omni":
                error = {"message": "CUDA out of memory", "type": "server_error", "code": None}
                return JSONResponse({"error": error}, 500)
            case "kokoro" | "litellm" | "vllm-omni higgs v2":  # the last one where it stays silent
                return self._stream(b"", "audio/pcm", {})
            case "unknown":
                return PlainTextResponse("Something went wrong.")
        return JSONResponse({"detail": "CUDA out of memory"}, 500)

    def _resampled(self, pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, "<i2")
        count = len(samples) * self.rate_hz // 24_000
        at = np.linspace(0, len(samples) - 1, count)
        return bytes(np.interp(at, np.arange(len(samples)), samples).astype("<i2").tobytes())

    def _stream(self, data: bytes, kind: str, headers: Mapping[str, str]) -> Response:
        return StreamingResponse(self._pieces(data), media_type=kind, headers=dict(headers))

    async def _cut(self, start: bytes) -> AsyncIterator[bytes]:
        yield start
        raise ConnectionResetError  # the server's own: the connection ends without the last chunk

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        try:
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
                await asyncio.sleep(self.pause_seconds)
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise

    async def _events(self, pcm: bytes) -> AsyncIterator[str]:
        yield self._event(type="speech.audio.info", sample_rate=self.rate_hz)
        async for piece in self._pieces(pcm):
            audio = base64.b64encode(piece).decode()
            yield self._event(type="speech.audio.delta", audio=audio)
        yield self._event(type="speech.audio.done")

    def _event(self, **fields: Any) -> str:
        return f"data: {json.dumps(fields)}\n\n"

    def app(self) -> Starlette:
        """Its routes."""
        path = "/v1/audio/speech" + ("/stream" if self.kind == "travisvn" else "")
        routes = [Route(path, self.speech, methods=["POST"])]
        if self.kind == "devnen":
            routes.append(Route("/", self.page))
        else:
            routes.append(Route("/v1/models", self.models))
        if self.kind == "litellm":
            routes.append(Route("/health/liveliness", self.alive))
        else:
            listed = "/voices" if self.kind == "travisvn" else "/v1/audio/voices"
            routes.append(Route(listed, self.list_voices))
        return Starlette(routes=routes, middleware=[Middleware(_Failing, server=self)])


class _Failing:
    """Fails one question of a server as its `failing` says."""

    def __init__(self, app: ASGIApp, server: SpeechServer) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, how = self._server.failing or (None, "")
        if scope["type"] != "http" or scope["path"] != path:
            await self._app(scope, receive, send)
        elif how == "late":
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            answer = PlainTextResponse("<html>", 200 if how == "page" else int(how))
            await answer(scope, receive, send)


@contextmanager
def running_server(kind: str, **options: Any) -> Iterator[tuple[str, SpeechServer]]:
    """A server on a loopback port: its address and its state."""
    server = SpeechServer(kind, **options)
    with serving(server.app()) as address:
        yield address, server
