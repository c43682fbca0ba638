"""Every path of travisvn/chatterbox-tts-api: the first of its names, and the others."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp

from gateway.api.error_bodies import TRAVISVN
from gateway.api.routes import Handler, Route, declared_routes

# Beside the same path under /v1, which every route has. Its own server has `/status` twice; it
# answers there as `/health`. The paths that other surfaces have, too, are answered for all of
# them: `/health`, `/stats`, `/v1/models`, `/v1/audio/speech`.
ALIASES: dict[str, tuple[str, ...]] = {
    "/audio/speech": ("/tts",),
    "/audio/speech/upload": ("/tts/upload",),
    "/audio/speech/stream": ("/tts/stream",),
    "/audio/speech/stream/upload": ("/tts/stream/upload",),
    "/voices": ("/voice-library", "/voice_library"),
    "/voices/default": ("/default-voice",),
    "/health": ("/status",),
    "/endpoints": ("/routes",),
    "/info": ("/api/info",),
    "/v1/status": ("/processing", "/processing/status"),
    "/status/progress": ("/progress",),
    "/status/history": ("/history",),
    "/status/statistics": ("/stats",),
}


def paths_of(primary: str) -> tuple[str, ...]:
    """All paths of a route, the primary first."""
    under_v1 = () if primary.startswith("/v1/") else (f"/v1{primary}",)
    return (primary, *under_v1, *ALIASES.get(primary, ()))


def named_routes(owner: object) -> list[Route]:
    """The routes of an object's declared methods, under all their paths."""
    return declared_routes(owner, TRAVISVN, paths_of)


def routes(
    method: str, primary: str, endpoint: Handler | ASGIApp, group: str, summary: str, **more: Any
) -> list[Route]:
    """A route under all its paths; arguments as those of `Route`."""
    return [
        Route(method, path, endpoint, TRAVISVN, group, summary, **more)
        for path in paths_of(primary)
    ]
