"""OpenAI's speech API: the surface that SDKs, chat front ends and voice frameworks speak.

Fields, errors and streams follow OpenAI's API reference; engine fields travel as extra JSON keys.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from gateway.access.policy import SPEECH, VOICES
from gateway.api.endpoint import SpeechSurface, Spoken
from gateway.api.error_bodies import OPENAI, openai_error
from gateway.api.modelless import Modelless, is_modelless
from gateway.api.models import CHATTERBOX, list_models_of, model_names, model_of, resolve_model
from gateway.api.multipart import (
    FormFile,
    form_bodies,
    parse_fields_and_files,
    require_json_or_form,
)
from gateway.api.routes import AUDIO_TYPES, EVENTS_TYPE, Json, get, post
from gateway.api.schemas import SpeechBody, VoiceId, parse_fields
from gateway.api.speakers import Cast, cast_voices, voice_of_file
from gateway.errors import GatewayError, InvalidRequest
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.prepare import PreparedSpeech
from gateway.speech.request import SpeechRequest
from gateway.text.expression import Expression, chosen_temperature, expression_of, knob_of
from gateway.text.tokens import estimate_input_tokens
from gateway.upstream.dialect import Reference, Sampling
from gateway.upstream.pool import Pool
from gateway.voices.references import make_reference, reference_of


class EventFraming:
    """Audio as server-sent events (`stream_format: "sse"`)."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, text: str) -> None:
        self._input_tokens = estimate_input_tokens(text)

    def chunk(self, data: bytes) -> bytes:
        """A `speech.audio.delta` event."""
        audio = base64.b64encode(data)
        return b'data: {"type":"speech.audio.delta","audio":"' + audio + b'"}\n\n'

    def end(self, answer: EncodedStream) -> bytes:
        """The `speech.audio.done` event with usage: audio tokens are 25 a second."""
        usage = {
            "input_tokens": self._input_tokens,
            "output_tokens": answer.audio_tokens,
            "total_tokens": self._input_tokens + answer.audio_tokens,
        }
        return _event({"type": "speech.audio.done", "usage": usage})

    def failure(self, error: GatewayError) -> bytes:
        """An `error` event; the connection is aborted behind it."""
        return _event({"type": "error", **openai_error(error)})


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class OpenAISurface(SpeechSurface):
    """The routes of OpenAI's speech API.

    Attributes:
        pool: Lists the models.
        default_response_format: Of requests that name none.
        model_aliases: Further names for whatever model is served; `*` is any.
        modelless: Reads what has no model as another server would; None for as OpenAI.
    """

    pool: Pool
    default_response_format: str
    model_aliases: Sequence[str]
    modelless: Modelless | None

    @post(
        "/v1/audio/speech",
        SPEECH,
        "Speak a text",
        check=require_json_or_form,
        bodies=form_bodies(SpeechBody),
        produces=(*AUDIO_TYPES, EVENTS_TYPE),
        description="Streams audio as it is made. A failure after the first audio aborts the "
        "connection: a clean end means complete audio. Without `model`, Chatterbox's server "
        "answers where it is offered and GATEWAY_MODELLESS does not say otherwise.",
    )
    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a speech request.

        Raises:
            InvalidRequest, ModelNotFound, VoiceNotFound, NoHealthyUpstream.
        """
        value, files = await parse_fields_and_files(body, scope)
        if self.modelless is not None and not files and is_modelless(value):
            return await self.modelless(value, scope)
        fields = parse_fields(SpeechBody, value)
        whole = fields.stream is False and fields.stream_format == "audio"
        speech = await self.understand(fields, files, buffered=whole)
        framing = EventFraming(fields.input) if fields.stream_format == "sse" else None
        return Spoken(speech, headers={}, wrap=framing)

    async def understand(
        self,
        fields: SpeechBody,
        files: Sequence[FormFile] = (),
        most_characters: int | None = None,
        *,
        buffered: bool = False,
    ) -> PreparedSpeech:
        """What the fields of a request ask for.

        Args:
            fields: Of the body.
            files: Of a form: the request's voice samples.
            most_characters: Another bound of the text than that of a request.
            buffered: The answer is sent when it is whole.

        Raises:
            InvalidRequest, ModelNotFound, VoiceNotFound, NoHealthyUpstream.
        """
        if not fields.input.strip():
            raise InvalidRequest("'input' must not be empty.", param="input")
        text = await self.service.read_text(
            fields.input, most_characters, normalise=fields.normalises
        )
        model = resolve_model(fields.model, self.pool.models, self.model_aliases)
        expression, temperature = _expression(fields), fields.temperature
        if not fields.model or fields.model.lower().startswith(CHATTERBOX):
            temperature = chosen_temperature(temperature)
        request = SpeechRequest(
            surface=OPENAI.name,
            text=text,
            response_format=fields.response_format or self.default_response_format,
            speed=fields.speed,
            sample_rate_hz=fields.sample_rate,
            buffered=buffered,
            sampling=Sampling(
                temperature=expression.temperature if temperature is None else temperature,
                top_p=fields.top_p,
                top_k=-1 if fields.top_k == 0 else fields.top_k,  # the engine refuses 0
                max_tokens=fields.max_tokens,
                seed=fields.seed,
            ),
            model=model,
            **await self._cast(fields, text.speakers, files, expression.scene),
        )
        return self.service.prepare(request)

    async def _cast(
        self,
        fields: SpeechBody,
        speakers: tuple[int, ...],
        files: Sequence[FormFile],
        scene: str | None,
    ) -> Cast:
        """The voices of the request."""
        named = fields.voice.id if isinstance(fields.voice, VoiceId) else fields.voice
        named = voice_of_file(self.catalogue, fields.audio_prompt_path) or named
        samples: tuple[Reference, ...] = ()
        if fields.references or fields.reference_audio_base64 or files:
            samples = await self.in_thread(partial(self._samples, fields, files))
        return await cast_voices(
            self.catalogue,
            speakers,
            voice=named,
            voices=fields.voices or {},
            samples=samples,
            system_prompt=fields.system_prompt,
            instructions=fields.instructions or scene,
            directed=bool(fields.system_prompt or fields.instructions),
        )

    def _samples(self, fields: SpeechBody, files: Sequence[FormFile]) -> tuple[Reference, ...]:
        """The voice samples of a request; runs in a thread."""
        limit = self.bodies.most_bytes
        found = [
            make_reference(r.audio, r.text, limit_bytes=limit, param="references")
            for r in fields.references or ()
        ]
        if fields.reference_audio_base64:
            found.append(
                make_reference(
                    fields.reference_audio_base64,
                    fields.reference_text,
                    limit_bytes=limit,
                    param="reference_audio_base64",
                )
            )
        # The first file is what `reference_text` speaks of, when no other sample came with it.
        found += [
            reference_of(
                file.data, "" if number or found else fields.reference_text, param=file.field
            )
            for number, file in enumerate(files)
        ]
        return tuple(found)

    @get("/v1/models", VOICES, "List the models")
    async def list_models(self, _: Request) -> Json:
        """`GET /v1/models`: the served model first, then the names that mean it."""
        return list_models_of(self.pool.models, self.model_aliases)

    @get("/v1/models/{model:path}", VOICES, "Show a model")
    async def get_model(self, _: Request, model: str) -> Json:
        """`GET /v1/models/{id}`."""
        resolve_model(model, self.pool.models, self.model_aliases)
        return model_of(model)

    @get("/v1/audio/models", VOICES, "List the models, short")
    async def list_audio_models(self, _: Request) -> Json:
        """`GET /v1/audio/models`, as Open WebUI reads it."""
        names = model_names(self.pool.models, self.model_aliases)
        return {"models": [{"id": name} for name in names]}


def _expression(fields: SpeechBody) -> Expression:
    """What Chatterbox's knobs ask for; a client's own scene is stronger."""
    if fields.system_prompt or fields.instructions:
        return Expression()
    return expression_of(knob_of(fields.exaggeration), knob_of(fields.cfg_weight))
