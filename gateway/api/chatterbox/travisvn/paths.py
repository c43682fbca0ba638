"""Every path of travisvn/chatterbox-tts-api: the first of its names, and the others.

Routes are mounted from this table, and `/endpoints` shows it.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp

from gateway.api.error_bodies import TRAVISVN
from gateway.api.routes import Handler, Route

# Its own server has `/status` twice; it answers there as `/health`. The paths that other surfaces
# have, too, are answered for all of them: `/health`, `/stats`, `/v1/models`, `/v1/audio/speech`.
ALIASES: dict[str, tuple[str, ...]] = {
    "/audio/speech": ("/v1/audio/speech", "/tts"),
    "/audio/speech/upload": ("/v1/audio/speech/upload", "/tts/upload"),
    "/audio/speech/stream": ("/v1/audio/speech/stream", "/tts/stream"),
    "/audio/speech/stream/upload": ("/v1/audio/speech/stream/upload", "/tts/stream/upload"),
    "/audio/speech/long": ("/v1/audio/speech/long",),
    "/audio/speech/long/bulk": ("/v1/audio/speech/long/bulk",),
    "/audio/speech/long-history": ("/v1/audio/speech/long-history",),
    "/audio/speech/long-history/stats": ("/v1/audio/speech/long-history/stats",),
    "/audio/speech/long/{job_id}": ("/v1/audio/speech/long/{job_id}",),
    "/audio/speech/long/{job_id}/download": ("/v1/audio/speech/long/{job_id}/download",),
    "/audio/speech/long/{job_id}/sse": ("/v1/audio/speech/long/{job_id}/sse",),
    "/audio/speech/long/{job_id}/details": ("/v1/audio/speech/long/{job_id}/details",),
    "/audio/speech/long/{job_id}/pause": ("/v1/audio/speech/long/{job_id}/pause",),
    "/audio/speech/long/{job_id}/resume": ("/v1/audio/speech/long/{job_id}/resume",),
    "/audio/speech/long/{job_id}/retry": ("/v1/audio/speech/long/{job_id}/retry",),
    "/voices": ("/v1/voices", "/voice-library", "/voice_library"),
    "/voices/default": ("/v1/voices/default", "/default-voice"),
    "/voices/all-names": ("/v1/voices/all-names",),
    "/voices/cleanup": ("/v1/voices/cleanup",),
    "/voices/{voice_name}": ("/v1/voices/{voice_name}",),
    "/voices/{voice_name}/download": ("/v1/voices/{voice_name}/download",),
    "/voices/{voice_name}/aliases": ("/v1/voices/{voice_name}/aliases",),
    "/voices/{voice_name}/aliases/{alias}": ("/v1/voices/{voice_name}/aliases/{alias}",),
    "/languages": ("/v1/languages",),
    "/health": ("/v1/health", "/status"),
    "/ping": ("/v1/ping",),
    "/models": ("/v1/models",),
    "/config": ("/v1/config",),
    "/endpoints": ("/v1/endpoints", "/routes"),
    "/info": ("/v1/info", "/api/info"),
    "/v1/status": ("/processing", "/processing/status"),
    "/status/progress": ("/v1/status/progress", "/progress"),
    "/status/history": ("/v1/status/history", "/history"),
    "/status/statistics": ("/v1/status/statistics", "/stats"),
    "/status/history/clear": ("/v1/status/history/clear",),
    "/memory": ("/v1/memory",),
    "/memory/config": ("/v1/memory/config",),
    "/memory/recommendations": ("/v1/memory/recommendations",),
    "/memory/reset": ("/v1/memory/reset",),
}


def paths_of(primary: str) -> tuple[str, ...]:
    """All paths of a route, the primary first."""
    return (primary, *ALIASES[primary])


def routes(
    method: str, primary: str, endpoint: Handler | ASGIApp, group: str, summary: str, **more: Any
) -> list[Route]:
    """A route under all its paths; arguments as those of `Route`."""
    return [
        Route(method, path, endpoint, TRAVISVN, group, summary, **more)
        for path in paths_of(primary)
    ]
