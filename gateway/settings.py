"""Every variable of the gateway, its default, range and meaning, in one frozen class.

Values come from the environment (prefix GATEWAY_) or from the command line, never from a file of
code; a wrong value stops the start with one line that names the variable.
"""

from __future__ import annotations

import difflib
import os
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.access.keys import KeyRing, parse_file, parse_keys, read_key_file
from gateway.access.loopback import is_loopback
from gateway.access.policy import Policy
from gateway.access.rate_limits import Limits
from gateway.audio.encoders import ResponseFormat
from gateway.upstream.dialects import split_address
from gateway.voices.aliases import OPENAI_VOICES, fold

PREFIX = "GATEWAY_"
MEBIBYTE = 1024 * 1024
# Variables of earlier versions that no longer do anything, and what to do instead.
REMOVED = {
    "GATEWAY_WORKERS": "one process carries the audio of two GPUs; for more, start replicas "
    "(deploy/front.yml: HAProxy before them) with GATEWAY_REPLICAS=N",
    "GATEWAY_ADMIN_ROUTES": "where keys are set, every route that GATEWAY_PUBLIC_ROUTES does not "
    "name needs one; keep routes from users with other keys at a proxy",
    "GATEWAY_ENGINE_ADDRESS": "GATEWAY_UPSTREAMS says where the engine listens",
    "GATEWAY_CONTAINER": "the container's health check restarts the engine",
    "GATEWAY_WORKER_THREADS": "the number of threads that encode is fixed",
}
RENAMED = {
    "GATEWAY_UNAUTHENTICATED": "GATEWAY_PUBLIC_ROUTES",
    "GATEWAY_ADMIN_KEYS": "GATEWAY_API_KEYS, with ` admin` behind each of these keys",
}
# Variables with the prefix that other programs of this repository read.
CLIENT_VARIABLES = frozenset({"GATEWAY_KEY"})


class SettingsError(Exception):
    """A variable has a wrong value; the message is one line that names it."""


def _split(value: object) -> object:
    """Turn a comma-separated string into a tuple (pydantic-settings would read it as JSON)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _unset(value: object) -> object:
    """Take an empty value for none."""
    return None if value == "" else value


def _base_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError(f"{address!r} is not an address like http://127.0.0.1:8000")
    if parts.username or parts.password:  # addresses stand in logs, metrics and /admin
        raise ValueError("an address holds no password: GATEWAY_UPSTREAM_API_KEY is the key")
    # People paste the base address of an OpenAI client: the dialect adds /v1 itself.
    return address.rstrip("/").removesuffix("/v1")


def _upstream_address(entry: str) -> str:
    """An entry of GATEWAY_UPSTREAMS: an address, with its dialect's name before it or without."""
    name, address = split_address(entry)
    return f"{name}+{_base_address(address)}" if name else _base_address(address)


def _without_twins(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(addresses)) != len(addresses):
        raise ValueError("an address stands twice")
    return addresses


def _command(value: str) -> str:
    if not shlex.split(value):  # a quotation that has no end is a ValueError of its own
        raise ValueError("there is no command in it")
    return value


def _aliases(value: object) -> object:
    """Add `alias=voice,alias=voice` to OpenAI's names."""
    if not isinstance(value, str):
        return value
    aliases = dict(OPENAI_VOICES)
    for pair in filter(str.strip, value.split(",")):
        alias, equals, voice = pair.partition("=")
        if not equals or not alias.strip() or not voice.strip():
            raise ValueError(f"{pair.strip()!r} is not of the form alias=voice")
        aliases[fold(alias)] = voice.strip()
    return aliases


def _keys(value: SecretStr) -> SecretStr:
    parse_keys(value.get_secret_value())
    return value


def _keys_file(path: Path) -> Path:
    parse_file(read_key_file(path))
    return path


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    return path


Value = TypeVar("Value")
OrNone = Annotated[Value | None, BeforeValidator(_unset)]
Listed = Annotated[tuple[Value, ...], NoDecode, BeforeValidator(_split)]
Folder = Annotated[Path, AfterValidator(_folder)]
Upstreams = Annotated[
    Listed[Annotated[str, AfterValidator(_upstream_address)]], AfterValidator(_without_twins)
]


class Settings(BaseSettings):
    """The gateway's settings; see `docs/operations.md` for how they work together."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8888, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    published_address: OrNone[str] = None
    """Address on which clients reach the gateway where that is not GATEWAY_HOST, as with a
    container's published port; it decides whether keys are needed."""
    allow_anonymous: bool = False
    """Let the gateway start without keys on an address that other machines reach."""
    replicas: int = Field(1, ge=1, le=64)
    """Gateways that share the engines behind one proxy; each takes its part of slots, queue places
    and keys' limits."""
    upstreams: Upstreams = ()
    """Base addresses of engines, comma-separated, each as http://… (what speaks there is found
    out), higgs+http://… or openai+http://…; empty starts the CPU engine."""
    engine_command: OrNone[Annotated[str, AfterValidator(_command)]] = None
    """Command that starts an engine; `serve` runs it, starts it again when it dies, and ends it and
    all that it started. GATEWAY_UPSTREAMS says where it listens; default: http://127.0.0.1:8000."""
    engine_restart_seconds: float = Field(120, ge=0, le=86400)
    """Time after which an engine that `serve` started is started again when it has spoken and then
    stays ejected; 0 never does that."""
    upstream_api_key: OrNone[SecretStr] = None
    """Bearer key that the upstreams want."""
    upstream_model: OrNone[str] = None
    """Model name to ask the upstreams for; default: what they list first."""
    model_aliases: Listed[str] = ()
    """Further model names that clients may send for whatever model is served, comma-separated; `*`
    is any."""
    voice_aliases: Annotated[Mapping[str, str], NoDecode, BeforeValidator(_aliases)] = OPENAI_VOICES
    """Names that clients may use, as alias=voice,alias=voice; adds to the 13 OpenAI voices or moves
    them."""
    api_keys: OrNone[Annotated[SecretStr, AfterValidator(_keys)]] = None
    """Keys that clients must show, comma-separated, as `key` or `name=key`, with ` admin` behind
    those that may also change voices and use /admin."""
    api_keys_file: OrNone[Annotated[Path, AfterValidator(_keys_file)]] = None
    """File of hashed keys, as `speech-gateway keys new` makes them; read again when it changes."""
    public_routes: Listed[Literal["health", "metrics", "stats", "docs", "voices", "speech"]] = (
        "health",
    )
    """Routes that need no key where keys are set, comma-separated: health, metrics, stats, docs,
    voices (lists of voices and models), speech."""
    voice_changes: Literal["admin", "open", "off"] | None = None
    """Who may change voices: admin keys alone, every caller (without keys: no web page of another
    origin), or nobody; default: admin where keys are set, else open."""
    requests_per_minute: float = Field(0, ge=0, le=1_000_000)
    """Speech requests that one key may make a minute; 0 is no limit."""
    audio_seconds_per_minute: float = Field(0, ge=0, le=1_000_000)
    """Seconds of audio that may be made for one key a minute; 0 is no limit."""
    default_voice: str = "alloy"
    """Voice of requests that name none; a preset or an alias."""
    data_dir: Folder = Field(default_factory=lambda: user_data_path("speech-gateway"))
    """Folder of what the gateway keeps: voices, and the audio of jobs; made at the start. In the
    image it is /data."""
    voices_dir: OrNone[Folder] = None
    """Folder of the voice library, where an engine's container reads it too as its
    --voice-presets-dir; default: voices in GATEWAY_DATA_DIR."""
    job_slots: int = Field(2, ge=1)
    """Segments of jobs that are made at once, in slots that no request wants."""
    job_lease_seconds: float = Field(10.0, ge=0.5, le=600)
    """After so long without a sign of life of the gateway that works on a job, another one on the
    same data folder goes on with it."""
    jobs_max_bytes: int = Field(10 * 1024**3, ge=0)
    """Bound of the audio of all jobs together, on disk."""
    jobs_retention_hours: float = Field(168.0, ge=0)
    """A job that is over is deleted after so long."""
    default_response_format: ResponseFormat = "mp3"
    """Response format of requests that name none."""
    stream_profile: Literal["standard", "balanced", "low_latency"] = "standard"
    """Chunk sizes asked of the upstream for streamed answers: standard is the container's own,
    low_latency starts soonest."""
    max_in_flight: int = Field(64, ge=1, le=16_384)
    """Generations that run upstream at once."""
    max_queued: int = Field(256, ge=0, le=65536)
    """Requests that wait for a slot."""
    queue_timeout_seconds: float = Field(30, gt=0, le=3600)
    """Longest wait for a slot, then 429."""
    connect_timeout_seconds: float = Field(5, gt=0, le=60)
    """Longest wait for a connection to an upstream."""
    first_audio_timeout_seconds: float = Field(30, gt=0, le=600)
    """Longest wait of one attempt for its first audio."""
    idle_timeout_seconds: float = Field(15, gt=0, le=600)
    """Longest pause between two chunks from an upstream."""
    request_timeout_seconds: float = Field(600, gt=0, le=86400)
    """Longest life of a whole request once it has a slot, retries included, for each 4,096
    characters (begun) of its text."""
    slowest_tokens_per_second: float = Field(10, gt=0, le=1000)
    """Slowest generation that is still accepted; bounds the chunks that are asked of the upstream
    for whole answers, so that one comes within half of the timeouts."""
    drain_seconds: float = Field(30, ge=0, le=3600)
    """Time that running answers get at shutdown."""
    max_input_characters: int = Field(100_000, ge=1, le=1_000_000)
    """Longest input text, in characters."""
    normalise_text: bool = True
    """Read Markdown and HTML as the rendered page, and write text the way the model's official
    script does: event tags, temperatures, ASCII punctuation."""
    turn_pause_seconds: float = Field(0.4, ge=0, le=10)
    """Pause where a long dialogue is joined between two turns."""
    max_body_bytes: int = Field(32 * MEBIBYTE, ge=1024, le=1024 * MEBIBYTE)
    """Largest request body."""
    max_held_body_bytes: int = Field(512 * MEBIBYTE, ge=1024, le=1024 * 1024 * MEBIBYTE)
    """Bodies above 64 KiB of all requests that run or wait; above it, 503."""
    max_connections: int = Field(4096, ge=1, le=1_000_000)
    """Connections of clients; above it the longest idle one is closed, or the new one is told 503
    if none is idle."""
    head_timeout_seconds: float = Field(15, gt=0, le=600)
    """Longest time for a request's line and headers, then 408."""
    body_timeout_seconds: float = Field(15, gt=0, le=600)
    """Longest pause in a request's body, then 408; a body also needs 8 KiB in each second beyond
    the first of these times."""
    send_timeout_seconds: float = Field(60, gt=0, le=3600)
    """Time in which a client that is behind must take 16 KiB of its answer, or be cut off."""
    plausible_length_factor: float = Field(1.0, ge=0.25, le=10)
    """Stretches the longest plausible audio of a text, after which a generation counts as runaway
    and is ended."""
    quiet_limit_seconds: float = Field(8, ge=1, le=600)
    """Near-silence of this length ends a generation as runaway."""
    mp3_kbps: int = Field(96, ge=8, le=320)
    """Bit rate of MP3 answers."""
    opus_kbps: int = Field(48, ge=8, le=256)
    """Bit rate of Opus answers."""
    aac_kbps: int = Field(64, ge=8, le=320)
    """Bit rate of AAC answers."""
    surfaces: Listed[Literal["openai", "generate", "chatterbox", "page"]] = Field(
        ("openai", "generate", "chatterbox", "page"), min_length=1
    )
    """What clients are offered, comma-separated: openai, generate (the legacy proxy's), chatterbox
    (both Chatterbox servers'), page (the web page at `/`)."""
    grafana_url: str | None = None
    """Address that the page's status links to."""
    modelless: Literal["chatterbox", "openai"] = "chatterbox"
    """Whose client sends `/v1/audio/speech` no `model`: chatterbox (where that surface is on) or
    openai; it decides the answer's shape."""
    show_texts: bool = False
    """Show the first 100 characters of texts under /v1/status and its history, as Chatterbox
    servers do; a mask stands there otherwise."""
    # pydantic-settings looks for NoDecode at the top of an annotation alone.
    cors_origins: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = None
    """Origins whose web pages may call the gateway, comma-separated; `*` is any, empty is none.
    Default: any where keys are set, else this machine's own pages."""
    probe_speech: Literal["private", "always", "never"] = "private"
    """Where probes may ask for speech, which an upstream's owner may charge for: at addresses of
    private networks, always or never."""
    probe_interval_seconds: float = Field(5, gt=0, le=600)
    """Pause between two health probes of an upstream."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    log_format: Literal["console", "json"] = "console"
    """Log lines for people, or JSON objects for programs."""
    log_text: bool = False
    """Show the first 200 characters of each text in the log; off, no text is there."""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.replicas > self.max_in_flight:
            raise ValueError(
                "GATEWAY_REPLICAS is above GATEWAY_MAX_IN_FLIGHT: a replica would have no slot"
            )
        try:
            self.key_ring()
        except ValueError as error:
            raise ValueError(f"GATEWAY_API_KEYS and GATEWAY_API_KEYS_FILE: {error}") from None
        return self

    @property
    def guarded(self) -> bool:
        """Whether speech needs a key."""
        return self.api_keys is not None or self.api_keys_file is not None

    @property
    def voices_folder(self) -> Path:
        """The folder of the voice library."""
        return self.voices_dir or self.data_dir / "voices"

    @property
    def anonymous(self) -> bool:
        """Whether speech needs no key."""
        return not self.guarded or "speech" in self.public_routes

    @property
    def exposed(self) -> bool:
        """Whether clients on other machines can reach the gateway."""
        return not is_loopback(self.published_address or self.host)

    @property
    def limits(self) -> Limits:
        """What every key may have a minute, all replicas together."""
        return Limits(self.requests_per_minute, self.audio_seconds_per_minute)

    @property
    def access_policy(self) -> Policy:
        """What requests must show, before the keys file is read."""
        changes = self.voice_changes or ("admin" if self.guarded else "open")
        return Policy(self.guarded, False, frozenset(self.public_routes), changes)

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which this machine's own programs reach the gateway."""
        names = (self.host, self.published_address or "", socket.gethostname())
        return frozenset(name.lower() for name in names if name)

    def key_ring(self) -> KeyRing:
        """The keys in force.

        Raises:
            ValueError: The keys contradict each other.
        """
        text = self.api_keys.get_secret_value() if self.api_keys else ""
        return KeyRing(parse_keys(text), self.api_keys_file)

    @property
    def slots(self) -> int:
        """Generations that this replica may run at once."""
        return self.max_in_flight // self.replicas

    @property
    def queue_places(self) -> int:
        """Requests that may wait in this replica."""
        return -(-self.max_queued // self.replicas)


def variable_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, with `overrides` (from the command line) on top; None is no override.

    Raises:
        SettingsError: One line that names the variable and what is wrong with it.
    """
    check_names(os.environ)
    given = _renamed(os.environ)
    given |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = variable_name(str(first["loc"][0])) + ": " if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}{what[:1].lower()}{what[1:]}" if name else what) from None


def _renamed(environment: Mapping[str, str]) -> dict[str, Any]:
    """Values of variables under their old names, as fields; a new name goes before its old one."""
    values: dict[str, Any] = {}
    if "GATEWAY_PUBLIC_ROUTES" not in environment and "GATEWAY_UNAUTHENTICATED" in environment:
        values["public_routes"] = environment["GATEWAY_UNAUTHENTICATED"]
    admins = [key for key in environment.get("GATEWAY_ADMIN_KEYS", "").split(",") if key.strip()]
    if admins:
        users = environment.get("GATEWAY_API_KEYS", "")
        values["api_keys"] = ",".join([users, *(f"{key} admin" for key in admins)])
    return values


def old_names(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that still works under an old name."""
    return [
        f"{old} is read for the last time in this version: use {new}"
        for old, new in RENAMED.items()
        if old in environment
    ]


def check_names(environment: Mapping[str, str]) -> None:
    """Refuse variables with the prefix that no setting reads.

    Raises:
        SettingsError: The first of them, with the setting that was most likely meant.
    """
    known = (
        {variable_name(field) for field in Settings.model_fields}
        | CLIENT_VARIABLES
        | RENAMED.keys()
    )
    for name in sorted(map(str.upper, environment)):  # letter case does not matter
        if not name.startswith(PREFIX) or name in known:
            continue
        if name in REMOVED:
            raise SettingsError(f"{name} is no longer a setting: {REMOVED[name]}")
        nearest = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {nearest[0]}?" if nearest else ""
        raise SettingsError(f"{name} is not a setting of this version{meant}")
