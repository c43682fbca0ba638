"""Routes for operators of the upstreams: the state of each, and draining one.

The access check decides who may call them. No other route tells addresses.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints
from starlette.requests import Request

from gateway.access.policy import ADMIN
from gateway.api.endpoint import BodyReader, require_json
from gateway.api.routes import JSON, Json, get, post
from gateway.api.schemas import parse_fields, parse_json
from gateway.errors import InvalidRequest
from gateway.upstream.pool import Pool, Upstream

LONGEST_BODY_BYTES = 4096


class _Named(BaseModel):
    """Which upstream is meant."""

    upstream: Annotated[str, StringConstraints(min_length=1, max_length=2048)]


_changes = partial(post, group=ADMIN, bodies={JSON: _Named})


def describe(upstream: Upstream) -> dict[str, Any]:
    """The public state of an upstream."""
    waits = upstream.next_probe - time.monotonic()
    return {
        "upstream": upstream.address,
        "state": upstream.state,
        "in_flight": upstream.in_flight,
        "failures": upstream.failures,
        "next_probe_seconds": round(max(0.0, waits), 3),
        "fault": upstream.fault,
        "context_tokens": upstream.context_tokens,
        "models": list(upstream.models),
        "voices": list(upstream.voices),
    }


@dataclass(frozen=True, slots=True)
class AdminSurface:
    """The routes below /admin."""

    pool: Pool
    bodies: BodyReader

    @get("/admin/upstreams", ADMIN, "Show the upstreams")
    async def upstreams(self, _: Request) -> Json:
        """`GET /admin/upstreams`: the state of each, in the order of the settings."""
        return {"upstreams": [describe(u) for u in self.pool.upstreams]}

    @_changes("/admin/upstreams/drain", summary="Keep new work off an upstream")
    async def drain(self, request: Request) -> Json:
        """`POST /admin/upstreams/drain`: nothing new begins there; what runs goes on to its end."""
        return await self._set(request, drain=True)

    @_changes("/admin/upstreams/resume", summary="Let an upstream take part")
    async def resume(self, request: Request) -> Json:
        """`POST /admin/upstreams/resume`: it takes part again."""
        return await self._set(request, drain=False)

    async def _set(self, request: Request, *, drain: bool) -> Json:
        require_json(request.scope)
        body = await self.bodies.read(request.scope, request.receive, LONGEST_BODY_BYTES)
        named = parse_fields(_Named, parse_json(body))
        upstream = self.pool.find(named.upstream)
        if upstream is None:
            known = ", ".join(u.address for u in self.pool.upstreams)
            message = f"There is no such upstream. Upstreams: {known}."
            raise InvalidRequest(message, param="upstream")
        self.pool.drain(upstream, drain=drain)
        return describe(upstream)
