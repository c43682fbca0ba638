"""Request bodies as the container reads them, and its refusals word for word.

Pure code after docs/contract.md sections 2 and 4: flat envelopes, 400 for what others call 422,
messages that echo the input.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

TEMPLATE_TOKENS = 40  # what the chat template and the default scene add
# Template and transcript of the longest of the container's own presets, docs/contract.md section 2.
PRESET_TEXT_TOKENS = 92
REFERENCE_TOKENS_PER_SECOND = 25  # docs/contract.md section 4, also the next line
REFERENCE_OVERHEAD_TOKENS = 9
MOST_ECHOED_CHARACTERS = 10_000  # of an input in an error; the container echoes all of it
ERROR_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # vLLM's own range
# A reference of 12 s is 0.8 MB of JSON, and nothing else runs while it is read: pydantic's parsers
# take 0.6 ms, those of the standard library 2.1 (2-core machine, 2026-11-26).
_ANY_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))

OpenAiVoice = Literal[
    "alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"
]


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
    speed: float = 1.0  # parsed and ignored, as is stop
    stop: Annotated[list[str], Field(fail_fast=True)] | None = None
    max_tokens: int | None = None
    audio_chunk_size: int | None = None
    audio_chunk_overlap_size: int | None = None
    seed: Seed | None = None  # the container ignores it


class AudioFields(BaseModel):
    """`audio` of a chat request."""

    model_config = ConfigDict(extra="allow")
    format: Literal["wav", "mp3", "flac", "opus", "pcm16"] = "wav"
    voice: OpenAiVoice = "alloy"
    audio_chunk_size: int | None = None
    audio_chunk_overlap_size: int | None = None


class StreamOptions(BaseModel):
    """`stream_options` of a chat request."""

    include_usage: bool = False


class ChatFields(BaseModel):
    """`POST /v1/chat/completions`, as far as speech needs it."""

    model_config = ConfigDict(extra="allow")
    messages: Annotated[
        list[dict[str, Any]], Field(fail_fast=True)
    ]  # or each of a million has its error
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    audio: AudioFields = Field(default_factory=AudioFields)
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: Seed | None = None


def parse_json(body: bytes | bytearray) -> Any:
    """The body as JSON, or the container's 400."""
    if not body:
        missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
        raise ContractError(400, repr([missing]))
    try:
        return _ANY_JSON.validate_json(body)
    except ValidationError:
        return _parse_leniently(body)


def _parse_leniently(body: bytes | bytearray) -> Any:
    """What only the container's parser takes, as lone surrogates; its words for what it refuses."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        invalid = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise ContractError(400, repr([invalid])) from None
    except (ValueError, RecursionError):  # not UTF-8, or nested too deep
        raise ContractError(400, "There was an error parsing the body") from None


def decode_base64(text: str) -> bytes:
    """The bytes that a text stands for.

    Raises:
        ValueError: As the container words it.
    """
    # pydantic's decoder does without the padding, and takes the alphabet that is safe in addresses;
    # the container does neither.
    if len(text) % 4 == 0 and "-" not in text and "_" not in text:
        try:
            return _BASE64.validate_strings(text)
        except ValidationError:
            pass  # binascii passes over what is not of the alphabet
    return base64.b64decode(text)


def validate(model: type[Any], value: Any) -> Any:
    """A pydantic model of `value`, or the container's 400 with the errors' repr."""
    try:
        return model.model_validate(value, from_attributes=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for entry in errors:
            entry["loc"] = ("body", *entry["loc"])
        raise ContractError(400, repr(errors)[:MOST_ECHOED_CHARACTERS]) from None


def check_sampling(temperature: float, top_p: float, top_k: int) -> None:
    """The engine's own range checks; a NaN temperature passes, as it does there."""
    if temperature < 0:
        raise ContractError(400, f"temperature must be non-negative, got {temperature}.")
    if not 0 < top_p <= 1:
        raise ContractError(400, f"top_p must be in (0, 1], got {top_p}.")
    if top_k < -1 or top_k == 0:
        raise ContractError(400, f"top_k must be -1 (disable), or at least 1, got {top_k}.")


def check_model(asked: str | None, served: str) -> None:
    """404 for another model; empty and absent names pass."""
    if asked and asked != served:
        raise ContractError(404, f"The model `{asked}` does not exist.")


def check_encodable(text: str) -> None:
    """500 in plain text where a lone surrogate would reach the tokenizer."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ContractError(500, "Internal Server Error") from None


def most_tokens(text: str) -> int:
    """Tokens of a text where there is no tokenizer: its bytes, which byte-level BPE only merges."""
    return len(text.encode())


def reference_tokens(seconds: float) -> int:
    """Prompt tokens of one reference."""
    return int(seconds * REFERENCE_TOKENS_PER_SECOND) + REFERENCE_OVERHEAD_TOKENS


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


def prompt_too_long(prompt_tokens: int, context_tokens: int) -> str | None:
    """The message for a text that fits the context only without its references."""
    if prompt_tokens <= context_tokens:
        return None
    return (
        f"Prompt length of {prompt_tokens} is longer than the maximum model length of "
        f"{context_tokens}."
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
