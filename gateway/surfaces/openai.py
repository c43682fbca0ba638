"""OpenAI's speech API: the surface that SDKs, chat front ends and voice frameworks speak.

Fields, errors and streams follow OpenAI's API reference; engine fields travel as extra JSON keys.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from gateway.answer import Answer
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound, VoiceNotFound
from gateway.request import (
    RESPONSE_FORMATS,
    SPEED_RANGE,
    Reference,
    Sampling,
    SpeechRequest,
)
from gateway.settings import Settings
from gateway.speech import SpeechService
from gateway.surfaces.forms import is_form, parse_form, require_json_or_form
from gateway.surfaces.stream import SpeechEndpoint, Spoken, retry_headers
from gateway.text.dialogue import is_dialogue, speakers_of
from gateway.text.estimate import estimate_input_tokens
from gateway.text.prompt import describe_voice, system_prompt_for
from gateway.upstream.pool import Pool
from gateway.voices.cloning import MOST_REFERENCES, check_references, make_reference, reference_of
from gateway.voices.names import resolve_voice, voice_names

# Names that clients send although this gateway serves another model; all mean the served one.
MODEL_ALIASES = (
    "tts-1",
    "tts-1-hd",
    "gpt-4o-mini-tts",
    "chatterbox",
    "chatterbox-tts-1",
    "chatterbox-multilingual",
    "chatterbox-turbo",
)
_SPEAKER = re.compile(r"(?:SPEAKER)?(\d{1,3})")
_DATED = re.compile(r"-\d{4}-?(?:\d{2}-?\d{2})?$")  # gpt-4o-mini-tts-2025-12-15, tts-1-1106
MOST_TOKENS = 8192  # docs/contract.md section 2: max_model_len
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


class VoiceId(BaseModel):
    """A voice by its id (OpenAI, custom voices)."""

    model_config = ConfigDict(strict=True, extra="ignore")
    id: Name


class ReferenceField(BaseModel):
    """A voice sample to imitate."""

    model_config = ConfigDict(strict=True, extra="ignore")
    audio: str = Field(description="An audio file, base64 or a data URL.")
    text: str = Field("", description="What it says.")


class SpeechBody(BaseModel):
    """The body of `POST /v1/audio/speech`."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    input: str = Field(description="The text to speak.")
    model: Name | None = Field(None, description="A listed model; none means the served one.")
    voice: Name | VoiceId | None = Field(
        None, description="A listed voice, or its id; none means the default voice."
    )
    instructions: str | None = Field(
        None,
        max_length=4096,
        description="The scene: who speaks, where and how. It replaces the preset's own "
        "recording, so the voice is then described rather than copied.",
    )
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = Field(
        None, description="Format of the audio."
    )
    speed: float = Field(
        1.0, ge=SPEED_RANGE[0], le=SPEED_RANGE[1], description="Tempo; the pitch stays."
    )
    stream_format: Literal["audio", "sse"] = Field(
        "audio", description="Raw audio, or server-sent events that carry it."
    )
    stream: bool | None = Field(
        None, description="false asks for one complete answer with exact sizes."
    )
    sample_rate: Literal[8000, 16000, 22050, 24000, 44100, 48000] = Field(
        24000, description="Sample rate of the audio, in Hz."
    )
    system_prompt: str | None = Field(
        None, max_length=8192, description="The engine's whole scene prompt."
    )
    references: list[ReferenceField] | None = Field(
        None, max_length=MOST_REFERENCES, description="Voice samples to imitate, one a speaker."
    )
    reference_audio_base64: str | None = Field(
        None, description="One voice sample, base64 or a data URL."
    )
    reference_text: str = Field("", description="What that sample says.")
    voices: dict[str, Name] | None = Field(
        None,
        description='Speakers of a dialogue: {"SPEAKER0": "belinda", "SPEAKER1": "deep male"}.',
    )
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1024)
    max_tokens: int | None = Field(
        None, gt=11, le=MOST_TOKENS, description="Bound of audio tokens, 25 a second."
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


class EventFraming:
    """Audio as server-sent events (`stream_format: "sse"`)."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, text: str) -> None:
        self._input_tokens = estimate_input_tokens(text)

    def chunk(self, data: bytes) -> bytes:
        """A `speech.audio.delta` event."""
        audio = base64.b64encode(data)
        return b'data: {"type":"speech.audio.delta","audio":"' + audio + b'"}\n\n'

    def end(self, answer: Answer) -> bytes:
        """The `speech.audio.done` event with usage: audio tokens are 25 a second."""
        usage = {
            "input_tokens": self._input_tokens,
            "output_tokens": answer.audio_tokens,
            "total_tokens": self._input_tokens + answer.audio_tokens,
        }
        return _event({"type": "speech.audio.done", "usage": usage})

    def failure(self, error: GatewayError) -> bytes:
        """An `error` event; the connection is aborted behind it."""
        return _event({"type": "error", **error_body(error)})


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def error_body(error: GatewayError) -> dict[str, Any]:
    """OpenAI's error envelope."""
    return {
        "error": {
            "message": error.message,
            "type": ERROR_TYPES.get(error.status, "server_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def render_error(error: GatewayError) -> Response:
    """An error in OpenAI's shape, with the headers that its SDKs obey."""
    return JSONResponse(error_body(error), error.status, retry_headers(error))


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not a JSON number.")


def parse_json(body: bytes) -> Any:
    """Read JSON from a hostile body.

    Raises:
        InvalidRequest: It is empty, not UTF-8, not JSON, too deep, or holds NaN.
    """
    if not body.strip():
        raise InvalidRequest("The request has no body; JSON is expected.")
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("The request's body is not JSON.") from None


def _validation_error(error: ValidationError) -> InvalidRequest:
    """The first thing that is wrong, with the field's name and no echo of its value."""
    first = error.errors(include_input=False, include_url=False)[0]
    if not first["loc"]:
        return InvalidRequest("The request's body must be a JSON object.")
    param = str(first["loc"][0])
    if first["type"] == "missing":
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param)
    if param == "response_format":
        return InvalidRequest(
            f"Invalid 'response_format'; supported: {', '.join(RESPONSE_FORMATS)}.", param=param
        )
    return InvalidRequest(f"Invalid '{param}': {first['msg'][:200]}.", param=param)


def resolve_model(name: str | None, served: tuple[str, ...]) -> None:
    """Accept a model name that means the served model.

    Raises:
        ModelNotFound: With the list of names that work.
    """
    if name is None or name in served:
        return
    if _DATED.sub("", name).lower() in MODEL_ALIASES or name.lower() in MODEL_ALIASES:
        return
    known = ", ".join([*served, *MODEL_ALIASES])
    raise ModelNotFound(f"The model {name[:64]!r} does not exist. Models: {known}.", param="model")


class OpenAISurface:
    """The routes of OpenAI's speech API."""

    name = "openai"

    def __init__(self, service: SpeechService) -> None:
        self._service = service
        self._settings: Settings = service.settings
        self._pool: Pool = service.pool

    def render_error(self, error: GatewayError) -> Response:
        """An error in OpenAI's shape."""
        return render_error(error)

    def routes(self) -> list[BaseRoute]:
        """What this surface answers."""
        return [
            Route(
                "/v1/audio/speech",
                SpeechEndpoint(self._service, self, self.parse, require_json_or_form),
                methods=["POST"],
            ),
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model:path}", self.get_model),
            Route("/v1/audio/models", self.list_audio_models),
            Route("/v1/audio/voices", self.list_voices),
        ]

    async def parse(self, body: bytes, scope: Scope) -> Spoken:
        """Read a speech request.

        Raises:
            InvalidRequest, ModelNotFound, VoiceNotFound, NoHealthyUpstream.
        """
        form = await parse_form(body, scope) if is_form(scope) else None
        try:
            if form is None:
                fields = SpeechBody.model_validate(parse_json(body))
            else:  # a form's numbers are text
                fields = SpeechBody.model_validate(form.fields, strict=False)
        except ValidationError as error:
            raise _validation_error(error) from None
        if not fields.input.strip():
            raise InvalidRequest("'input' must not be empty.", param="input")
        self._pool.require_ready()
        resolve_model(fields.model, self._pool.models)
        named = fields.voice.id if isinstance(fields.voice, VoiceId) else fields.voice
        voice = resolve_voice(
            named or self._settings.default_voice, self._settings.voice_aliases, self._pool.voices
        )
        references: tuple[Reference, ...] = ()
        files = form.files if form else ()
        if fields.references or fields.reference_audio_base64 or files:
            references = await self._service.in_thread(partial(self._references, fields, files))
        request = SpeechRequest(
            surface=self.name,
            text=fields.input,
            # A sample is the voice: the chat route, which takes it, knows no presets.
            voice=None if references else voice,
            response_format=fields.response_format or self._settings.default_response_format,
            speed=fields.speed,
            sample_rate_hz=fields.sample_rate,
            # HTTP/1.0 has no chunks: its end of stream could not be told from an abort.
            buffered=fields.stream_format == "audio"
            and (fields.stream is False or scope.get("http_version") == "1.0"),
            system_prompt=system_prompt_for(
                fields.input,
                voice=None if references else voice,
                system_prompt=fields.system_prompt,
                instructions=fields.instructions,
                descriptions=self._descriptions(fields),
            ),
            references=references,
            sampling=Sampling(
                temperature=fields.temperature,
                top_p=fields.top_p,
                top_k=fields.top_k,
                max_tokens=fields.max_tokens,
                seed=fields.seed,
            ),
        )
        framing = EventFraming(fields.input) if fields.stream_format == "sse" else None
        label = "library" if references else voice
        return Spoken(request, voice_label=label, headers={}, wrap=framing)

    def _references(
        self, fields: SpeechBody, files: tuple[tuple[str, bytes], ...]
    ) -> tuple[Reference, ...]:
        """The voice samples of a request; runs in a thread."""
        limit = self._settings.max_body_bytes
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
            reference_of(data, "" if number or found else fields.reference_text, param=name)
            for number, (name, data) in enumerate(files)
        ]
        check_references(found, param="references")
        if is_dialogue(fields.input):
            # As the model's examples have it: each sample is introduced by its speaker's tag.
            speakers = sorted(speakers_of(fields.input))
            found = [
                replace(reference, transcript=f"[SPEAKER{speaker}] {reference.transcript}".strip())
                for speaker, reference in zip(speakers, found, strict=False)
            ]
        return tuple(found)

    def _descriptions(self, fields: SpeechBody) -> dict[int, str]:
        """Speakers' voices in words: a preset's character, or the client's own description."""
        descriptions = {}
        for speaker, given in (fields.voices or {}).items():
            number = _SPEAKER.fullmatch(speaker.strip().upper())
            if number is None:
                raise InvalidRequest("'voices' has keys like SPEAKER0, SPEAKER1.", param="voices")
            try:
                preset = resolve_voice(given, self._settings.voice_aliases, self._pool.voices)
            except VoiceNotFound:
                descriptions[int(number[1])] = given
            else:
                descriptions[int(number[1])] = describe_voice(preset) or ""
        return descriptions

    def _model_names(self) -> list[str]:
        return list(dict.fromkeys([*self._pool.models, *MODEL_ALIASES]))

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`: the served model first, then the names that mean it."""
        del request
        return JSONResponse(
            {"object": "list", "data": [_model(name) for name in self._model_names()]}
        )

    async def get_model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`."""
        name = request.path_params["model"]
        resolve_model(name, self._pool.models)
        return JSONResponse(_model(name))

    async def list_audio_models(self, request: Request) -> Response:
        """`GET /v1/audio/models`, as Open WebUI reads it."""
        del request
        return JSONResponse({"models": [{"id": name} for name in self._model_names()]})

    async def list_voices(self, request: Request) -> Response:
        """`GET /v1/audio/voices`: objects, or plain strings with `?legacy=true` (Kokoro)."""
        names = voice_names(self._settings.voice_aliases, self._pool.voices)
        if request.query_params.get("legacy", "").lower() in {"true", "1"}:
            return JSONResponse({"voices": names})
        voices = [{"id": name, "name": name, "object": "audio.voice"} for name in names]
        return JSONResponse({"voices": voices, "object": "list", "data": voices, "has_more": False})


def _model(name: str) -> dict[str, Any]:
    # A fixed date: the served model's own release, the same for its other names.
    return {"id": name, "object": "model", "created": 1753228800, "owned_by": "bosonai"}
