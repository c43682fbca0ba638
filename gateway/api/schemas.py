"""Bodies of OpenAI's speech API: read from hostile JSON, checked field by field.

The same models make the OpenAPI document, so what is checked and what is told cannot drift.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, Field, StringConstraints, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from gateway.api.error_bodies import UnprocessableRequest
from gateway.api.field_rules import LenientFields, SpokenFields
from gateway.audio.encoders import RESPONSE_FORMATS, ResponseFormat
from gateway.audio.pcm import SampleRate
from gateway.audio.tempo import SPEED_RANGE
from gateway.errors import InvalidRequest
from gateway.voices.references import MOST_REFERENCES

MOST_TOKENS = 8192  # docs/contract.md section 2: max_model_len
# Every value in JSON costs Python some 60 bytes and a moment, whatever its own size: 32 MiB of
# "[]," would be a gigabyte. Even the longest text has fewer of these, and base64 has none.
MOST_JSON_MARKS = 200_000
_JSON_MARKS = (b",", b"[", b"{")
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Model = TypeVar("Model", bound=BaseModel)


class VoiceId(LenientFields):
    """A voice by its id (OpenAI, custom voices)."""

    id: Name


class ReferenceBody(LenientFields):
    """A voice sample to imitate."""

    audio: str
    """An audio file, base64 or a data URL."""
    text: str = ""
    """What it says."""


class NormalisationOptions(LenientFields):
    """Kokoro's options, of which one counts here."""

    normalize: bool | None = None


class TextOptions(SpokenFields):
    """Whether the text is rewritten for speech, on every surface."""

    normalize: bool | None = None
    """false leaves the text as it is, Markdown and HTML included."""
    normalization_options: NormalisationOptions | None = None
    """Kokoro's spelling of the same."""

    @property
    def normalises(self) -> bool:
        """Whether neither spelling says no."""
        options = self.normalization_options
        return self.normalize is not False and (options is None or options.normalize is not False)


class SpeechBody(TextOptions):
    """The body of `POST /v1/audio/speech`."""

    input: str
    """The text to speak."""
    model: Name | None = None
    """A listed model; none means the served one."""
    voice: Name | VoiceId | None = None
    """A listed voice, or its id; none means the default voice."""
    instructions: str | None = Field(None, max_length=4096)
    """The scene: who speaks, where and how. It replaces the preset's own recording, so the voice is
    then described rather than copied."""
    response_format: ResponseFormat | None = None
    """Format of the audio."""
    speed: float = Field(1.0, ge=SPEED_RANGE[0], le=SPEED_RANGE[1])
    """Tempo; the pitch stays."""
    stream_format: Literal["audio", "sse"] = "audio"
    """Raw audio, or server-sent events that carry it."""
    stream: bool | None = None
    """false asks for one complete answer with exact sizes."""
    sample_rate: SampleRate = 24_000
    """Sample rate of the audio, in Hz."""
    system_prompt: str | None = Field(None, max_length=8192)
    """The engine's whole scene prompt."""
    references: list[ReferenceBody] | None = Field(None, max_length=MOST_REFERENCES)
    """Voice samples to imitate, one a speaker."""
    reference_audio_base64: str | None = Field(
        None, validation_alias=AliasChoices("reference_audio_base64", "ref_audio")
    )
    """One voice sample, base64 or a data URL; also as ref_audio."""
    reference_text: str = Field("", validation_alias=AliasChoices("reference_text", "ref_text"))
    """What that sample says; also as ref_text."""
    voices: dict[str, Name] | None = None
    """Speakers of a dialogue: {"SPEAKER0": "belinda", "SPEAKER1": "deep male"}."""
    temperature: float | None = Field(None, ge=0, le=2)
    """How freely the engine chooses; its default is 1."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Share of likely tokens to choose from; default 0.95."""
    top_k: int | None = Field(None, ge=-1, le=1024)
    """Number of tokens to choose from; 0 and -1 mean all."""
    max_tokens: int | None = Field(None, gt=11, le=MOST_TOKENS)
    """Bound of audio tokens, 25 a second."""
    exaggeration: Any = None
    """Chatterbox's: from 0.8 lively, to 0.3 calm; where no scene is given."""
    cfg_weight: Any = None
    """Chatterbox's: from 0.8 fast, to 0.3 slow; where no scene is given."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """For engines that have one; else ignored."""


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not a JSON number.")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(body: bytes) -> Any:
    """Read JSON from a hostile body.

    Of a key that comes twice, the last value holds, as with most readers.

    Raises:
        InvalidRequest: It is empty, not UTF-8, not JSON, too deep, of too many parts, or holds NaN
            or a number of thousands of digits.
    """
    if not body.strip():
        raise InvalidRequest("The request has no body; JSON is expected.")
    if len(body) > MOST_JSON_MARKS and sum(map(body.count, _JSON_MARKS)) > MOST_JSON_MARKS:
        raise InvalidRequest("The request's body has too many parts.")
    with suppress(ValueError):  # in half the time; what it refuses is read again, to say why
        return from_json(body, allow_inf_nan=False)
    try:
        return _JSON.decode(body.removeprefix(BOM_UTF8).decode())
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (line {error.lineno}, column {error.colno})"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:
        reason = "a number has too many digits"
    raise InvalidRequest(f"The request's body is not JSON: {reason}.")


def parse_fields(model: type[Model], value: Any) -> Model:
    """Check fields as OpenAI's server does.

    Raises:
        InvalidRequest: The first thing that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise validation_error(error) from None


def check_fields(model: type[Model], value: Any, where: str = "body") -> Model:
    """Check fields as FastAPI does.

    Args:
        model: What they must be.
        value: The fields.
        where: Where they stand in the request.

    Raises:
        UnprocessableRequest: With everything that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise UnprocessableRequest(
            [{**detail, "loc": [where, *detail["loc"]]} for detail in details]
        ) from None


def read_query(request: Request, model: type[Model]) -> Model:
    """Check a request's query.

    Raises:
        InvalidRequest: The first thing that is wrong.
    """
    return parse_fields(model, dict(request.query_params))


def validation_error(error: ValidationError) -> InvalidRequest:
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
