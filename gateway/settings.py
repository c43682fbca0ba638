"""Every variable of the gateway, its default, range and meaning, in one frozen class.

Values come from the environment (prefix GATEWAY_) or from the command line, never from a file of
code; a wrong value stops the start with one line that names the variable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.voices.names import OPENAI_VOICES

PREFIX = "GATEWAY_"
MEBIBYTE = 1024 * 1024


class SettingsError(Exception):
    """A variable has a wrong value; the message is one line that names it."""


def _split(value: object) -> object:
    """Turn a comma-separated string into a tuple (pydantic-settings would read it as JSON)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class Settings(BaseSettings):
    """The gateway's settings; see `docs/operations.md` for how they work together."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8888, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Worker processes; slots and queue places are divided among them.",
    )
    upstreams: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Base addresses of engines, comma-separated; empty starts the CPU engine.",
    )
    upstream_api_key: SecretStr | None = Field(
        None, description="Bearer key that the upstreams want."
    )
    upstream_model: str | None = Field(
        None, description="Model name to ask the upstreams for; default: what they list first."
    )
    voice_aliases: Annotated[Mapping[str, str], NoDecode] = Field(
        OPENAI_VOICES,
        description="Names that clients may use, as alias=voice,alias=voice; adds to the 13 "
        "OpenAI voices or moves them.",
    )
    default_voice: str = Field(
        "alloy", description="Voice of requests that name none; a preset or an alias."
    )
    default_response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = Field(
        "mp3", description="Response format of requests that name none."
    )
    stream_profile: Literal["standard", "balanced", "low_latency"] = Field(
        "standard",
        description="Chunk sizes asked of the upstream for streamed answers: standard is the "
        "container's own, low_latency starts soonest.",
    )
    max_in_flight: int = Field(
        64, ge=1, le=4096, description="Generations that run upstream at once."
    )
    max_queued: int = Field(256, ge=0, le=65536, description="Requests that wait for a slot.")
    queue_timeout_seconds: float = Field(
        30, gt=0, le=3600, description="Longest wait for a slot, then 429."
    )
    connect_timeout_seconds: float = Field(
        5, gt=0, le=60, description="Longest wait for a connection to an upstream."
    )
    first_audio_timeout_seconds: float = Field(
        30, gt=0, le=600, description="Longest wait of one attempt for its first audio."
    )
    idle_timeout_seconds: float = Field(
        15, gt=0, le=600, description="Longest pause between two chunks from an upstream."
    )
    request_timeout_seconds: float = Field(
        600,
        gt=0,
        le=86400,
        description="Longest life of a whole request once it has a slot, retries included, for "
        "each 4,096 characters (begun) of its text.",
    )
    slowest_tokens_per_second: float = Field(
        10,
        gt=0,
        le=1000,
        description="Slowest generation that is still accepted; stretches the first-audio and "
        "idle timeouts when large chunks are asked for.",
    )
    drain_seconds: float = Field(
        30, ge=0, le=3600, description="Time that running answers get at shutdown."
    )
    max_input_characters: int = Field(
        100_000, ge=1, le=1_000_000, description="Longest input text, in characters."
    )
    normalise_text: bool = Field(
        True,
        description="Write text the way the model's official script does: event tags, "
        "temperatures, ASCII punctuation.",
    )
    turn_pause_seconds: float = Field(
        0.4, ge=0, le=10, description="Pause where a long dialogue is joined between two turns."
    )
    max_body_bytes: int = Field(
        32 * MEBIBYTE, ge=1024, le=1024 * MEBIBYTE, description="Largest request body."
    )
    plausible_length_factor: float = Field(
        1.0,
        ge=0.25,
        le=10,
        description="Stretches the longest plausible audio of a text, after which a generation "
        "counts as runaway and is ended.",
    )
    quiet_limit_seconds: float = Field(
        8, ge=1, le=600, description="Near-silence of this length ends a generation as runaway."
    )
    mp3_kbps: int = Field(96, ge=8, le=320, description="Bit rate of MP3 answers.")
    opus_kbps: int = Field(48, ge=8, le=256, description="Bit rate of Opus answers.")
    aac_kbps: int = Field(64, ge=8, le=320, description="Bit rate of AAC answers.")
    worker_threads: int = Field(
        default_factory=lambda: max(2, os.cpu_count() or 2),
        ge=1,
        le=256,
        description="Threads of one worker process that encode audio; default: one a core, at "
        "least two.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",),
        description="Origins whose web pages may call the gateway, comma-separated; `*` is any, "
        "empty is none.",
    )
    probe_interval_seconds: float = Field(
        5, gt=0, le=600, description="Pause between two health probes of an upstream."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    @field_validator("upstreams", "cors_origins", mode="before")
    @classmethod
    def _split_lists(cls, value: object) -> object:
        return _split(value)

    @field_validator("upstreams")
    @classmethod
    def _check_upstreams(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        checked = []
        for address in value:
            parts = urlsplit(address)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
                raise ValueError(f"{address!r} is not an address like http://127.0.0.1:8000")
            # People paste the base address of an OpenAI client: the dialect adds /v1 itself.
            checked.append(address.rstrip("/").removesuffix("/v1"))
        if len(set(checked)) != len(checked):
            raise ValueError("an address stands twice")
        return tuple(checked)

    @field_validator("voice_aliases", mode="before")
    @classmethod
    def _parse_aliases(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        aliases = dict(OPENAI_VOICES)
        for pair in _split(value):  # type: ignore[attr-defined]
            alias, equals, voice = pair.partition("=")
            if not equals or not alias.strip() or not voice.strip():
                raise ValueError(f"{pair!r} is not of the form alias=voice")
            aliases[alias.strip().lower()] = voice.strip()
        return aliases

    @field_validator("upstream_model", "upstream_api_key", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _check_workers(self) -> Settings:
        if self.workers > self.max_in_flight:
            raise ValueError(
                "GATEWAY_WORKERS is above GATEWAY_MAX_IN_FLIGHT: a worker would have no slot"
            )
        return self

    @property
    def slots_per_worker(self) -> int:
        """Generations that one worker process may run at once."""
        return self.max_in_flight // self.workers

    @property
    def queued_per_worker(self) -> int:
        """Requests that may wait in one worker process."""
        return -(-self.max_queued // self.workers)


def variable_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, with `overrides` (from the command line) on top; None is no override.

    Raises:
        SettingsError: One line that names the variable and what is wrong with it.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = variable_name(str(first["loc"][0])) + ": " if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}{what[:1].lower()}{what[1:]}" if name else what) from None


def unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables with the prefix that no setting reads: most likely misspelt."""
    known = {variable_name(field) for field in Settings.model_fields}
    return tuple(
        sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    )


def as_text(value: object) -> str:
    """A setting's value as it would stand in the environment, secrets masked."""
    if isinstance(value, SecretStr):
        return "********"
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{alias}={voice}" for alias, voice in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def default_text(field: str) -> str:
    """The default of a field as text, for tables."""
    info = Settings.model_fields[field]
    if info.default_factory is not None:
        return "(cores)"
    return as_text(info.default)


def describe(settings: Settings) -> dict[str, str]:
    """Variable name to value, secrets masked, in the order of the class."""
    return {
        variable_name(field): as_text(getattr(settings, field)) for field in Settings.model_fields
    }


def describe_json(settings: Settings) -> str:
    """The same as JSON text."""
    return json.dumps(describe(settings), indent=2)
