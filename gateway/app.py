"""`create_app(settings)`: routes, lifespan, error handlers. Wiring only."""

from __future__ import annotations

import asyncio
import http
import re
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admission import Admission
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, RouteNotFound
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.speech import SpeechService
from gateway.surfaces import openai
from gateway.surfaces.generate import GenerateSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.operations import OperationsSurface
from gateway.upstream.attempts import Attempts
from gateway.upstream.connection import UpstreamClient
from gateway.upstream.health import Prober
from gateway.upstream.higgs import HiggsDialect
from gateway.upstream.pool import Pool

SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBE_CONNECTIONS = 4  # beside the slots, for each upstream


class RequestIdMiddleware:
    """Puts `x-request-id` on every answer: the client's own if it is harmless, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the header to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if SAFE_REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


async def _handle_gateway_error(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, GatewayError):  # a bug: its text is for the log alone
        error = GatewayError("The gateway failed; its log says how.")
    return openai.render_error(error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the surface's shape."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path[:256]
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        response = openai.render_error(RouteNotFound(f"There is no route {path}."))
    elif error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        response = openai.render_error(
            MethodNotAllowed(f"{path} does not take the method {request.method[:16]}.")
        )
    else:
        response = openai.render_error(InvalidRequest(str(error.detail)))
    response.headers.update(error.headers or {})
    return response


class Runtime:
    """What lives as long as the process: client, pool, probes, threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pool = Pool(settings.upstreams)
        self.admission = Admission(
            settings.slots_per_worker,
            settings.queued_per_worker,
            settings.queue_timeout_seconds,
        )
        self.executor = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="codec")
        key = settings.upstream_api_key
        dialect = HiggsDialect()
        connections = settings.slots_per_worker + PROBE_CONNECTIONS * len(settings.upstreams)
        self.client = UpstreamClient(key.get_secret_value() if key else None, connections)
        self.probers = {
            upstream: Prober(
                upstream,
                self.client,
                dialect,
                model=settings.upstream_model,
                admission=self.admission,
                interval_seconds=settings.probe_interval_seconds,
            )
            for upstream in self.pool.upstreams
        }
        attempts = Attempts(
            self.pool,
            self.client,
            dialect,
            self.probers,
            model=settings.upstream_model,
            metrics=self.metrics,
        )
        self.service = SpeechService(
            settings, self.admission, self.pool, attempts, self.metrics, self.executor
        )

    async def run_probes(self) -> None:
        """Probe every upstream until cancelled."""
        async with asyncio.TaskGroup() as group:
            for prober in self.probers.values():
                group.create_task(prober.run())

    async def aclose(self) -> None:
        """Give everything back."""
        await self.client.aclose()
        self.executor.shutdown(wait=False, cancel_futures=True)


def create_app(settings: Settings) -> Starlette:
    """Build the ASGI application of one worker process.

    The runtime is made inside the lifespan, where there is an event loop to own it;
    `app.state.runtime` holds it while the application runs.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        runtime = app.state.runtime = Runtime(settings)
        app.router.routes[:] = [
            *OpenAISurface(runtime.service).routes(),
            *GenerateSurface(runtime.service).routes(),
            *OperationsSurface(runtime.pool, runtime.metrics).routes(),
        ]
        probes = asyncio.create_task(runtime.run_probes())
        try:
            yield
        finally:
            probes.cancel()
            await asyncio.wait([probes])
            await runtime.aclose()

    middleware = [Middleware(RequestIdMiddleware)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["*"],
            )
        )
    return Starlette(
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            GatewayError: _handle_gateway_error,
            HTTPException: _handle_http_exception,
            Exception: _handle_gateway_error,
        },
    )
