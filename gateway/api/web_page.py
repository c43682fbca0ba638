"""The page at `/` and its files: static, with no other host and no inline script."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.access.policy import HEALTH
from gateway.api.routes import Handler, Json, get
from gateway.errors import RouteNotFound
from gateway.settings import Settings
from gateway.upstream.pool import Pool

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    # Nothing of another origin is loaded or asked, and no script or style stands in the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again, and answered with 304 while it is the same
}


class WebPage:
    """The page's routes.

    Args:
        program_index: What `/` answers to programs.
        settings: What the page must know of them is public.
        pool: The engines.
    """

    def __init__(
        self,
        program_index: Handler,
        settings: Settings,
        pool: Pool,
    ) -> None:
        folder = files("gateway.api") / "page"
        self._files = {
            entry.name: entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name.rpartition(".")[2] in TYPES
        }
        self._tags = {
            name: f'"{hashlib.sha256(data).hexdigest()[:16]}"' for name, data in self._files.items()
        }
        self._program_index = program_index
        self._settings = settings
        self._pool = pool

    @get("/", HEALTH, "The page to browsers, JSON to programs")
    async def index(self, request: Request) -> Response | Json:
        """`GET /`: the page where a browser asks."""
        if "text/html" not in request.headers.get("accept", ""):
            return await self._program_index(request)
        return self._answer(request, "index.html")

    @get("/page/facts.json", HEALTH, "What the page must know")
    async def facts(self, _: Request) -> Response:
        """`GET /page/facts.json`."""
        settings = self._settings
        facts = {
            "version": __version__,
            "keys": settings.guarded,
            "default_voice": settings.default_voice,
            "openai": "openai" in settings.surfaces,
            "chatterbox": "chatterbox" in settings.surfaces,
            "seed": any(each.capabilities.seed for each in self._pool.upstreams),
            "grafana_url": settings.grafana_url,
        }
        return JSONResponse(facts, headers={"Cache-Control": "no-store"})

    @get("/page/{name}", HEALTH, "A file of the page")
    async def file(self, request: Request, name: str) -> Response:
        """`GET /page/{name}`: one of the files that were there at the start."""
        if name not in self._files:
            raise RouteNotFound("The page has no such file.")
        return self._answer(request, name)

    def _answer(self, request: Request, name: str) -> Response:
        headers = {**HEADERS, "ETag": self._tags[name], "Vary": "Accept"}
        if request.headers.get("if-none-match") == self._tags[name]:
            return Response(status_code=304, headers=headers)
        kind = TYPES[name.rpartition(".")[2]]
        return Response(self._files[name], headers={**headers, "Content-Type": kind})
