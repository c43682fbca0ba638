"""The legacy proxy's API: `/generate`, `/generate/batch` and `/stats`.

Answers are complete WAV files by default, errors are `{"detail": …}`; clients of the earlier proxy
notice nothing but speed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.access.rate_limits import charge_more_requests
from gateway.api.endpoint import (
    BodyReader,
    SpeechEndpoint,
    Spoken,
    require_json,
    retry_headers,
)
from gateway.api.schemas import TextOptions, parse_json
from gateway.api.speakers import cast_voices
from gateway.errors import GatewayError, InvalidRequest, outcome_of
from gateway.server.disconnect import ClientGone, watch_disconnect
from gateway.speech.request import SpeechRequest
from gateway.speech.service import SpeechService
from gateway.telemetry.metrics import Metrics, Totals
from gateway.text.prompt import system_prompt_for
from gateway.upstream.dialect import Reference, Sampling
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.references import make_reference
from gateway.voices.resolve import LIBRARY_LABEL

MOST_BATCH_ITEMS = 64  # each answer is held in memory until the last one is there
BATCH_CONCURRENCY = 8
LEAST_TOP_P = 0.001  # the proxy took 0, which the engine refuses: one token is left by either
DEFAULT_REFERENCE_TEXT = "Please speak naturally."


class GenerateBody(TextOptions):
    """The body of `POST /generate`."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    text: str = Field(
        description="The text to speak; may hold [SPEAKERn] turns.",
        json_schema_extra={"pattern": r"\S"},
    )
    system_prompt: str | None = Field(None, max_length=8192, description="Scene prompt.")
    reference_audio_base64: str | None = Field(None, description="A voice sample to imitate.")
    reference_text: str = Field(DEFAULT_REFERENCE_TEXT, description="What the sample says.")
    temperature: float = Field(1.0, ge=0.1, le=1.5)
    top_p: float = Field(0.95, ge=0, le=1)
    top_k: int = Field(50, ge=1, le=100)
    max_tokens: int = Field(2048, ge=256, le=8192)
    voice: str | None = Field(None, max_length=256, description="A listed voice.")
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "wav"
    stream: bool = Field(False, description="Send the audio as it is made.")


class UnprocessableRequest(InvalidRequest):
    """A field is out of range: 422 with FastAPI's list of details."""

    status = 422

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__("The request is not valid.")
        self.details = details


def _parse(value: Any) -> GenerateBody:
    """Check one object.

    Raises:
        InvalidRequest: The text is blank.
        UnprocessableRequest: A field is missing, of the wrong type or out of range.
    """
    try:
        body = GenerateBody.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise UnprocessableRequest(
            [{**detail, "loc": ["body", *detail["loc"]]} for detail in details]
        ) from None
    if not body.text.strip():
        raise InvalidRequest("Text cannot be empty")
    return body


def render_error(error: GatewayError) -> Response:
    """FastAPI's shape: a text, or a list of field errors."""
    detail: Any = error.message
    if isinstance(error, UnprocessableRequest):
        detail = error.details
    return JSONResponse({"detail": detail}, error.status, retry_headers(error))


def statistics(totals: Totals) -> dict[str, float]:
    """The proxy's statistics from the gateway's counters."""
    return {
        "total_requests": int(totals.requests),
        "successful_requests": int(totals.ok),
        "failed_requests": int(totals.requests - totals.ok),
        "total_generation_time": round(totals.answer_seconds, 3),
        "concurrent_requests": int(totals.in_flight),
        "peak_concurrent": int(totals.in_flight_peak),
        "avg_generation_time": totals.mean_seconds,
    }


class GenerateSurface:
    """The routes of the legacy proxy."""

    name = "generate"

    def __init__(
        self,
        service: SpeechService,
        metrics: Metrics,
        bodies: BodyReader,
        catalogue: VoiceCatalogue,
        threads: Executor,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._bodies = bodies
        self._catalogue = catalogue
        self._threads = threads

    def routes(self) -> list[BaseRoute]:
        """What this surface answers."""
        return [
            Route(
                "/generate",
                SpeechEndpoint(self._service, self._metrics, self._bodies, self, self.parse),
                methods=["POST"],
            ),
            Route(
                "/generate/batch",
                BatchEndpoint(self._service, self._metrics, self._bodies, self),
                methods=["POST"],
            ),
        ]

    def render_error(self, error: GatewayError) -> Response:
        """An error in FastAPI's shape."""
        return render_error(error)

    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a `/generate` request."""
        del scope
        return await self.understand(parse_json(body))

    async def understand(self, value: Any) -> Spoken:
        """Turn one JSON object into what to say; decodes its reference in a thread.

        Raises:
            InvalidRequest, UnprocessableRequest, VoiceNotFound, RequestTooLarge.
        """
        body = _parse(value)
        text = await self._service.read_text(body.text, normalise=body.normalises)
        references: tuple[Reference, ...] = ()
        if body.reference_audio_base64:
            references = (await self._reference(body),)
        preset, label = None, LIBRARY_LABEL
        system_prompt = system_prompt_for(
            text.speakers, voice=None, system_prompt=body.system_prompt
        )
        if body.voice and not references:
            cast = await cast_voices(
                self._catalogue,
                text,
                voice=body.voice,
                voices={},
                system_prompt=body.system_prompt,
            )
            preset, label, references = cast.preset, cast.label, cast.references
            system_prompt = cast.system_prompt
        request = SpeechRequest(
            surface=self.name,
            text=text,
            voice=preset,
            voice_label=label,
            response_format=body.response_format,
            buffered=not body.stream,
            system_prompt=system_prompt,
            references=references,
            sampling=Sampling(
                temperature=body.temperature,
                top_p=max(LEAST_TOP_P, body.top_p),
                top_k=body.top_k,
                # The proxy's default bounded every text at 82 s; here only a client's own bound
                # does, and the text's plausible length else.
                max_tokens=body.max_tokens if "max_tokens" in body.model_fields_set else None,
            ),
        )
        headers = {
            "X-Sample-Rate": str(request.sample_rate_hz),
            "X-Mode": "multi-speaker" if text.is_dialogue else "single",
            # This request has no slot yet, and counts as the proxy counted it.
            "X-Concurrent-Requests": str(self._service.in_flight + 1),
        }
        speech = self._service.prepare(request)
        if text.is_dialogue:
            headers["X-Chunks"] = str(sum(1 for _ in speech.segments()))
        return Spoken(speech, headers, duration_header="X-Generation-Time")

    async def _reference(self, body: GenerateBody) -> Reference:
        limit = self._bodies.most_bytes
        encoded = body.reference_audio_base64 or ""

        def prepare() -> Reference:
            return make_reference(
                encoded, body.reference_text, limit_bytes=limit, param="reference_audio_base64"
            )

        return await asyncio.get_running_loop().run_in_executor(self._threads, prepare)


class BatchEndpoint:
    """`POST /generate/batch`: many texts at once, answered together and in order."""

    def __init__(
        self,
        service: SpeechService,
        metrics: Metrics,
        bodies: BodyReader,
        surface: GenerateSurface,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._bodies = bodies
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one batch; a client that leaves stops all of it."""
        try:
            require_json(scope)
            body = await self._bodies.read(scope, receive)
            items = parse_json(body)
            if not isinstance(items, list):
                raise InvalidRequest("The request's body must be a JSON list.")
            if not 0 < len(items) <= MOST_BATCH_ITEMS:
                raise InvalidRequest(f"A batch holds 1 to {MOST_BATCH_ITEMS} items.")
            charge_more_requests(len(items) - 1)  # one was charged at the door
            async with watch_disconnect(receive) as watch:
                results, waits = zip(*await self._run(items), strict=True)
                watch.stop()
                await self._response(results, max(waits))(scope, receive, send)
        except ClientGone:
            return
        except GatewayError as error:
            self._count(error)
            await self._surface.render_error(error)(scope, receive, send)

    async def _run(self, items: list[Any]) -> list[tuple[dict[str, Any], float]]:
        limit = asyncio.Semaphore(BATCH_CONCURRENCY)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one(index, item, limit)) for index, item in enumerate(items)
            ]
        return [task.result() for task in tasks]

    async def _one(
        self, index: int, item: Any, limit: asyncio.Semaphore
    ) -> tuple[dict[str, Any], float]:
        """An item's result, and the seconds that it waited for its slot."""
        async with limit:
            arrived = time.monotonic()
            try:
                spoken = await self._understand(item)
                audio, waited = await self._service.speak(spoken.speech, arrived)
            except GatewayError as error:
                message = error.message
                if isinstance(error, UnprocessableRequest):
                    message = json.dumps(error.details)
                return {"index": index, "success": False, "error": message}, 0.0
        result = {
            "index": index,
            "success": True,
            "audio_base64": base64.b64encode(audio).decode(),
            "generation_time": round(time.monotonic() - arrived, 3),
        }
        return result, waited

    async def _understand(self, item: Any) -> Spoken:
        """Read one item; one that cannot be read counts as a request of its own."""
        try:
            return await self._surface.understand(item)
        except GatewayError as error:
            self._count(error)
            raise

    def _count(self, error: GatewayError) -> None:
        self._metrics.requests.labels(self._surface.name, outcome_of(error)).inc()

    def _response(self, results: Sequence[dict[str, Any]], longest_wait: float) -> Response:
        successful = sum(result["success"] for result in results)
        return JSONResponse(
            {
                "results": results,
                "total": len(results),
                "successful": successful,
                "failed": len(results) - successful,
            },
            headers={"X-Queue-Wait-Seconds": f"{longest_wait:.3f}"},
        )
