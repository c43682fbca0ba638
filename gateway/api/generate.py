"""The legacy proxy's API: `/generate`, `/generate/batch` and `/stats`.

Answers are complete WAV files by default, errors are `{"detail": …}`; clients of the earlier proxy
notice nothing but speed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import AliasChoices, Field
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.access.policy import SPEECH
from gateway.access.rate_limits import charge_more_requests
from gateway.api.endpoint import SpeechSurface, Spoken, require_json
from gateway.api.error_bodies import GENERATE, UnprocessableRequest
from gateway.api.routes import AUDIO_TYPES, JSON, post
from gateway.api.schemas import TextOptions, check_fields, parse_json
from gateway.api.speakers import Cast, cast_voices, voice_of_file
from gateway.audio.encoders import ResponseFormat
from gateway.errors import GatewayError, InvalidRequest, outcome_of
from gateway.server.disconnect import Disconnect
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcomes import Held
from gateway.text.prompt import system_prompt_for
from gateway.upstream.dialect import Reference, Sampling
from gateway.voices.references import make_reference

LEAST_TOP_P = 0.001  # the proxy took 0, which the engine refuses: one token is left by either
DEFAULT_REFERENCE_TEXT = "Please speak naturally."
MOST_BATCH_ITEMS = 64  # each answer is held in memory until the last one is there
BATCH_CONCURRENCY = 8


class GenerateBody(TextOptions):
    """The body of `POST /generate`."""

    text: str = Field(json_schema_extra={"pattern": r"\S"})
    """The text to speak; may hold [SPEAKERn] turns."""
    system_prompt: str | None = Field(None, max_length=8192)
    """Scene prompt."""
    reference_audio_base64: str | None = Field(
        None, validation_alias=AliasChoices("reference_audio_base64", "ref_audio")
    )
    """A voice sample to imitate; also as ref_audio."""
    reference_text: str = Field(
        DEFAULT_REFERENCE_TEXT, validation_alias=AliasChoices("reference_text", "ref_text")
    )
    """What the sample says; also as ref_text."""
    temperature: float = Field(1.0, ge=0.1, le=1.5)
    top_p: float = Field(0.95, ge=0, le=1)
    top_k: int = Field(50, ge=1, le=100)
    max_tokens: int = Field(2048, ge=256, le=8192)
    voice: str | None = Field(None, max_length=256)
    """A listed voice."""
    response_format: ResponseFormat = "wav"
    stream: bool = False
    """Send the audio as it is made."""


_BATCH = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_BATCH_ITEMS,
    "items": {"$ref": "#/components/schemas/GenerateBody"},
}


def statistics(metrics: Metrics) -> dict[str, float]:
    """The proxy's statistics from the gateway's counters."""
    sums, requests = defaultdict(float, metrics.sums()), "gateway_requests_total:"
    total = sum(value for name, value in sums.items() if name.startswith(requests))
    successful, duration = sums[f"{requests}ok"], "gateway_request_duration_seconds"
    seconds, answers = sums[f"{duration}_sum"], sums[f"{duration}_count"]
    return {
        "total_requests": int(total),
        "successful_requests": int(successful),
        "failed_requests": int(total - successful),
        "total_generation_time": round(seconds, 3),
        "concurrent_requests": int(sums["gateway_in_flight_requests"]),
        "peak_concurrent": int(sums["gateway_in_flight_requests_peak"]),
        "avg_generation_time": round(seconds / answers, 3) if answers else 0.0,
    }


class GenerateSurface(SpeechSurface):
    """The routes of the legacy proxy."""

    @post(
        "/generate",
        SPEECH,
        "Speak a text (legacy proxy)",
        check=require_json,
        bodies={JSON: GenerateBody},
        produces=AUDIO_TYPES,
    )
    async def parse(self, body: bytes, _: Scope) -> Spoken:
        """Read a `/generate` request."""
        return await self.understand(parse_json(body))

    async def understand(self, value: Any) -> Spoken:
        """Turn one JSON object into what to say; decodes its reference in a thread.

        Raises:
            InvalidRequest, UnprocessableRequest, VoiceNotFound, RequestTooLarge.
        """
        body = check_fields(GenerateBody, value)
        if not body.text.strip():
            raise InvalidRequest("Text cannot be empty")
        text = await self.service.read_text(body.text, normalise=body.normalises)
        references: tuple[Reference, ...] = ()
        if body.reference_audio_base64:
            references = (await self._reference(body),)
        scene, directed = body.system_prompt, bool(body.system_prompt)
        named = voice_of_file(self.catalogue, body.audio_prompt_path) or body.voice
        if named and not references:
            cast = await cast_voices(
                self.catalogue, text.speakers, voice=named, system_prompt=scene, directed=directed
            )
        else:
            scene = system_prompt_for(text.speakers, voice=None, system_prompt=scene)
            cast = Cast(system_prompt=scene, references=references, directed=directed)
        request = SpeechRequest(
            surface=GENERATE.name,
            text=text,
            response_format=body.response_format,
            buffered=not body.stream,
            sampling=Sampling(
                temperature=body.temperature,
                top_p=max(LEAST_TOP_P, body.top_p),
                top_k=body.top_k,
                # The proxy's default bounded every text at 82 s; here only a client's own bound
                # does, and the text's plausible length else.
                max_tokens=body.max_tokens if "max_tokens" in body.model_fields_set else None,
            ),
            **cast,
        )
        headers = {
            "X-Sample-Rate": str(request.sample_rate_hz),
            "X-Mode": "multi-speaker" if text.is_dialogue else "single",
            # This request has no slot yet, and counts as the proxy counted it.
            "X-Concurrent-Requests": str(self.service.in_flight + 1),
        }
        speech = self.service.prepare(request)
        if text.is_dialogue:
            headers["X-Chunks"] = str(sum(1 for _ in speech.segments()))
        return Spoken(speech, headers, duration_header="X-Generation-Time")

    async def _reference(self, body: GenerateBody) -> Reference:
        prepare = partial(
            make_reference,
            body.reference_audio_base64 or "",
            body.reference_text,
            limit_bytes=self.bodies.most_bytes,
            param="reference_audio_base64",
        )
        return await self.in_thread(prepare)

    @post("/generate/batch", SPEECH, "Speak many texts (legacy proxy)", bodies={JSON: _BATCH})
    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /generate/batch`: many texts at once, answered together and in order.

        A client that leaves stops all of it.

        Raises:
            GatewayError: It is no batch.
            ClientGone: The client left.
        """
        try:
            items = await self._read_batch(scope, receive)
        except GatewayError as error:
            self.outcomes.count(GENERATE.name, outcome_of(error))
            raise
        charge_more_requests(len(items) - 1)  # one is charged already
        async with Disconnect(receive, scope) as watch:
            results, waits = zip(*await self._run(items), strict=True)
            watch.stop()
            await _batch_answer(results, max(waits))(scope, receive, send)

    async def _read_batch(self, scope: Scope, receive: Receive) -> list[Any]:
        require_json(scope)
        items = parse_json(await self.bodies.read(scope, receive))
        if not isinstance(items, list):
            raise InvalidRequest("The request's body must be a JSON list.")
        if not 0 < len(items) <= MOST_BATCH_ITEMS:
            raise InvalidRequest(f"A batch holds 1 to {MOST_BATCH_ITEMS} items.")
        return items

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
                with Held(self.outcomes, GENERATE.name) as held:
                    spoken = await self.understand(item)
                    held.answer = answer = await self.service.open(spoken.speech, arrived)
                    audio = await answer.read_all()
                    answer.count_delivered(len(audio))
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
        return result, answer.queue_wait_seconds


def _batch_answer(results: Sequence[dict[str, Any]], longest_wait: float) -> Response:
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
