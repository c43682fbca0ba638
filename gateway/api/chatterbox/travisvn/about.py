"""The descriptive routes of travisvn/chatterbox-tts-api: models, languages, settings, paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from starlette.requests import Request

from gateway import __version__
from gateway.access.policy import HEALTH, SPEECH, VOICES
from gateway.api.chatterbox.travisvn.memory import CONFIG as MEMORY_CONFIG
from gateway.api.chatterbox.travisvn.paths import paths_of
from gateway.api.chatterbox.travisvn.speech import MOST_CHARACTERS
from gateway.api.chatterbox.travisvn.status import API_NAME
from gateway.api.error_bodies import TRAVISVN
from gateway.api.models import list_models_of
from gateway.api.routes import Json, Route, get
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.upstream.pool import Pool

# Languages that the model card of higgs-audio-v2-generation-3B-base names.
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "ko": "Korean"}
NEUTRAL = {"exaggeration": 0.5, "cfg_weight": 0.5, "temperature": 1.0}
DEVICE = "upstream"  # the model is elsewhere; what it runs on is not known here


def health_fields(*, ready: bool, default_voice: str) -> dict[str, Any]:
    """The fields of `/health` that Chatterbox's clients read."""
    return {
        "model_loaded": ready,
        "device": DEVICE,
        "config": {
            "max_chunk_length": MOST_CHARACTERS,
            "max_total_length": MOST_CHARACTERS,
            "voice_sample_path": default_voice,
            **{f"default_{name}": value for name, value in NEUTRAL.items()},
        },
        "initialization_state": "ready" if ready else "initializing",
        "initialization_progress": "Ready" if ready else "No engine has produced audio yet",
        "initialization_error": None,
    }


@dataclass(frozen=True, slots=True)
class TravisvnAbout:
    """The routes that describe.

    Attributes:
        pool: Lists the models.
        default_voice: From the settings.
        model_aliases: Likewise.
        mounted: All routes, when the first request comes.
    """

    pool: Pool
    default_voice: str
    model_aliases: Sequence[str]
    mounted: Sequence[Route]

    @get("/languages", VOICES, "List the languages")
    async def languages(self, _: Request) -> Json:
        """`GET /languages`."""
        languages = [{"code": code, "name": name} for code, name in LANGUAGES.items()]
        return {"languages": languages, "count": len(languages), "model_type": "multilingual"}

    @get("/ping", HEALTH, "Whether the process lives")
    async def ping(self, _: Request) -> Json:
        """`GET /ping`."""
        return {"status": "ok", "message": "Server is running"}

    @get("/models", VOICES, "List the models")
    async def models(self, _: Request) -> Json:
        """`GET /models`: the same list as `/v1/models`."""
        return list_models_of(self.pool.models, self.model_aliases)

    @get("/config", SPEECH, "Show the settings")
    async def config(self, request: Request) -> Json:
        """`GET /config`: what their clients show; nothing of the inner network."""
        return {
            "api_info": {
                "name": API_NAME,
                "version": __version__,
                "api_version": __version__,
                "description": "Speech gateway with Chatterbox's API",
            },
            # As this client sees it, which need not be where the process listens.
            "server": {"host": request.url.hostname, "port": request.url.port},
            "model": {
                "device": DEVICE,
                "sample_rate": ENGINE_SAMPLE_RATE_HZ,
                "voice_sample_path": self.default_voice,
                "model_cache_dir": None,
            },
            "defaults": {
                **NEUTRAL,
                "max_chunk_length": MOST_CHARACTERS,
                "max_total_length": MOST_CHARACTERS,
            },
            "memory_management": MEMORY_CONFIG,
        }

    @get("/endpoints", SPEECH, "List the paths")
    async def endpoints(self, _: Request) -> Json:
        """`GET /endpoints`: every path of this surface and its other names."""
        aliases: dict[str, list[str]] = {}
        for route in self.mounted:  # each path's aliases stand behind it
            if route.surface is TRAVISVN and route.path not in chain(*aliases.values()):
                aliases[route.path] = list(paths_of(route.path)[1:])
        mappings = {
            path: {"primary": path, "aliases": others, "total_paths": 1 + len(others)}
            for path, others in aliases.items()
        }
        return {
            "total_endpoints": len(mappings),
            "total_aliases": sum(map(len, aliases.values())),
            "mappings": mappings,
            "description": "Every path of a row is answered alike.",
        }
