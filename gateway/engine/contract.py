"""Request bodies as the container reads them, and its refusals word for word.

Pure code after docs/contract.md sections 2 and 4: flat envelopes, 400 for what others call 422,
messages that echo the input.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.engine.base import DEFAULT_CHUNK_TOKENS, OVERHEAD_TOKENS, Job

MOST_AUDIOS = 50
CHARACTERS_PER_TOKEN = 4  # a stand-in for the tokenizer, which cannot be had without the weights
TEMPLATE_TOKENS = 40  # what the chat template and the default scene add
REFERENCE_TOKENS_PER_SECOND = 25
REFERENCE_OVERHEAD_TOKENS = 9
OPENAI_AUDIO_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)
ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


class ContractError(Exception):
    """A refusal with status and flat envelope.

    Args:
        status: HTTP status.
        message: As the container words it.
        param: Names the CPU engine's own refusals; null in the container.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def envelope(self) -> dict[str, Any]:
        """The flat body."""
        return {
            "object": "error",
            "message": self.message,
            "type": ERROR_TYPES.get(self.status, "BadRequestError"),
            "param": self.param,
            "code": self.status,
        }


class SpeechFields(BaseModel):
    """`POST /v1/audio/speech`."""

    model_config = ConfigDict(extra="allow")
    model: str
    input: str
    voice: str
    response_format: Literal["wav", "mp3", "pcm"] = "pcm"
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    speed: float = 1.0
    max_tokens: int | None = None
    audio_chunk_size: int | None = None
    audio_chunk_overlap_size: int | None = None


class AudioFields(BaseModel):
    """`audio` of a chat request."""

    model_config = ConfigDict(extra="allow")
    format: Literal["wav", "mp3", "flac", "opus", "pcm16"] = "wav"
    voice: str = "alloy"
    audio_chunk_size: int | None = None
    audio_chunk_overlap_size: int | None = None


class StreamOptions(BaseModel):
    """`stream_options` of a chat request."""

    include_usage: bool = False


class ChatFields(BaseModel):
    """`POST /v1/chat/completions`, as far as speech needs it."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    audio: AudioFields = Field(default_factory=AudioFields)
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1


def parse_json(body: bytes) -> Any:
    """The body as JSON, or the container's 400."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ContractError(400, f"[{{'type': 'json_invalid', 'msg': {str(error)!r}}}]") from None


def validate(model: type[Any], value: Any) -> Any:
    """A pydantic model of `value`, or the container's 400 with the errors' repr."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ContractError(400, repr(error.errors(include_url=False))) from None


def check_sampling(temperature: float, top_p: float, top_k: int) -> None:
    """The engine's own range checks; NaN passes, as it does there."""
    if temperature < 0:
        raise ContractError(400, f"temperature must be non-negative, got {temperature}.")
    if top_p <= 0 or top_p > 1:
        raise ContractError(400, f"top_p must be in (0, 1], got {top_p}.")
    if top_k < -1 or top_k == 0:
        raise ContractError(400, f"top_k must be -1 (disable), or at least 1, got {top_k}.")


def text_tokens(text: str) -> int:
    """Prompt tokens of a text."""
    return TEMPLATE_TOKENS + len(text) // CHARACTERS_PER_TOKEN


def bound_tokens(prompt_tokens: int, asked: int | None, context_tokens: int) -> int:
    """max_tokens of a generation, or the container's 400 where it does not fit."""
    if asked is not None and asked < 1:
        raise ContractError(400, f"max_tokens must be at least 1, got {asked}.")
    wanted = prompt_tokens + (asked or 0)
    if prompt_tokens >= context_tokens or wanted > context_tokens:
        raise ContractError(
            400,
            f"This model's maximum context length is {context_tokens} tokens. However, you "
            f"requested {wanted} tokens ({prompt_tokens} in the messages, {asked or 0} in the "
            "completion). Please reduce the length of the messages or completion.",
        )
    return asked if asked is not None else context_tokens - prompt_tokens


def check_model(asked: str | None, served: str) -> None:
    """404 for another model; empty and absent names pass."""
    if asked and asked != served:
        raise ContractError(404, f"The model `{asked}` does not exist.")


def speech_job(
    fields: SpeechFields, presets: tuple[str, ...], context_tokens: int, request_id: str
) -> Job:
    """The job of a speech request; an unknown voice is the first preset's, without a word."""
    check_sampling(fields.temperature, fields.top_p, fields.top_k)
    prompt_tokens = text_tokens(fields.input)
    return Job(
        text=fields.input,
        preset=fields.voice if fields.voice in presets else presets[0],
        system_prompt=None,
        references=(),
        max_tokens=bound_tokens(prompt_tokens, fields.max_tokens, context_tokens),
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        request_id=request_id,
        chunk_tokens=fields.audio_chunk_size or DEFAULT_CHUNK_TOKENS,
        overlap_tokens=fields.audio_chunk_overlap_size or DEFAULT_CHUNK_TOKENS,
        prompt_tokens=prompt_tokens,
    )


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _audio_of(content: Any) -> bytes | None:
    if not isinstance(content, list):
        return None
    for part in content:
        if isinstance(part, dict) and part.get("type") == "audio_url":
            raise ContractError(400, "This engine fetches no addresses: send input_audio.")
        if isinstance(part, dict) and part.get("type") == "input_audio":
            audio = part.get("input_audio")
            if not isinstance(audio, dict) or audio.get("format") not in {"wav", "mp3"}:
                raise ContractError(400, "4 validation errors for ValidatorIterator")
            try:
                return base64.b64decode(audio.get("data", ""))
            except (binascii.Error, ValueError, TypeError) as error:
                raise ContractError(400, str(error)) from None
    return None


def chat_job(fields: ChatFields, context_tokens: int, request_id: str) -> Job:
    """The job of a chat request: system prompt, (transcript, audio) pairs, the last user text.

    Raises:
        ContractError: Also for an unknown OpenAI voice name and more than 50 audios.
    """
    if not fields.messages:
        raise ContractError(500, "Internal Server Error")
    if fields.audio.voice not in OPENAI_AUDIO_VOICES:
        raise ContractError(400, f"Input should be an OpenAI voice, got {fields.audio.voice!r}")
    check_sampling(fields.temperature, fields.top_p, fields.top_k)
    system, pending, references = None, "", []
    for message in fields.messages:
        role, content = message.get("role"), message.get("content")
        audio = _audio_of(content)
        if role == "system":
            system = _content_text(content)
        elif audio is not None:
            references.append((pending, audio))
            pending = ""
        elif role == "user":
            pending = _content_text(content)
    if len(references) > MOST_AUDIOS:
        raise ContractError(400, f"At most {MOST_AUDIOS} audio(s) may be provided in one request.")
    prompt_tokens = text_tokens((system or "") + pending + "".join(t for t, _ in references))
    asked = fields.max_completion_tokens or fields.max_tokens
    return Job(
        text=pending,
        preset=None,
        system_prompt=system,
        references=tuple(references),
        max_tokens=bound_tokens(prompt_tokens, asked, context_tokens),
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        request_id=request_id,
        chunk_tokens=fields.audio.audio_chunk_size or DEFAULT_CHUNK_TOKENS,
        overlap_tokens=fields.audio.audio_chunk_overlap_size or DEFAULT_CHUNK_TOKENS,
        prompt_tokens=prompt_tokens,
    )


def in_stream_error(message: str) -> bytes:
    """An exception's text as it stands inside a 200 (docs/contract.md section 3)."""
    body = {
        "object": "error",
        "message": message,
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    return json.dumps({"error": body}).encode()


__all__ = ["OVERHEAD_TOKENS", "ContractError", "Job"]
