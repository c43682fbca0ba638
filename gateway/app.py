"""`create_app(settings)`: routes, lifespan, error handlers. Wiring only."""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from gateway.access.loopback import LOCAL_ORIGINS
from gateway.access.middleware import AccessMiddleware, Door
from gateway.api import error_bodies as shapes
from gateway.api.admin import AdminSurface
from gateway.api.chatterbox import ChatterboxSurface
from gateway.api.endpoint import BodyReader
from gateway.api.generate import GenerateSurface
from gateway.api.jobs import JobsSurface
from gateway.api.openai import OpenAISurface
from gateway.api.openai_voices import CustomVoices
from gateway.api.operations import OperationsSurface
from gateway.audio.transcoder import BitRates
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, RouteNotFound
from gateway.server.disconnect import ClientGone
from gateway.server.shutdown import Drain, DrainMiddleware
from gateway.settings import Settings
from gateway.speech.activity import Activity
from gateway.speech.admission import Admission
from gateway.speech.jobs.jobs import Jobs
from gateway.speech.jobs.runner import Runner
from gateway.speech.jobs.store import Store
from gateway.speech.service import SpeechService
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import RequestLogMiddleware
from gateway.upstream.client import UpstreamClient
from gateway.upstream.pool import Pool
from gateway.upstream.probes import Prober
from gateway.upstream.retry import Attempts
from gateway.upstream.retry_budget import RetryBudget
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.decode import decode_pcm

LEAST_RETRIES = 10
PROBE_CONNECTIONS = 4  # beside the slots, for each upstream


async def _handle_gateway_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, GatewayError):  # a bug: its text is for the log alone
        error = GatewayError("The gateway failed; its log says how.")
    return shapes.render(request.url.path, error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the surface's shape."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path[:256]
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        response = shapes.render(path, RouteNotFound(f"There is no route {path}."))
    elif error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        response = shapes.render(
            path, MethodNotAllowed(f"{path} does not take the method {request.method[:16]}.")
        )
    else:
        response = shapes.render(path, InvalidRequest(str(error.detail)))
    response.headers.update(error.headers or {})
    if "allow" in response.headers:
        response.headers["Allow"] = ", ".join(sorted(_methods_of(request)))
    return response


def _methods_of(request: Request) -> set[str]:
    """The methods of a path: Starlette tells those of the first of its routes alone."""
    return {
        method
        for route in request.app.router.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _handle_client_gone(request: Request, error: Exception) -> Response:
    """End a request that nobody waits for any more; what is answered goes nowhere."""
    del request, error
    return Response(status_code=http.HTTPStatus.BAD_REQUEST)


Result = TypeVar("Result")


class Runtime:
    """What lives as long as the process: client, pool, probes, threads."""

    def __init__(self, settings: Settings, drain: Drain) -> None:
        self.settings = settings
        self.drain = drain
        self.metrics = Metrics()
        self.door = Door(
            settings.key_ring(),
            settings.access_policy,
            limits=settings.limits,
            replicas=settings.replicas,
            hosts=settings.hosts,
            metrics=self.metrics,
        )
        self.pool = Pool(settings.upstreams, settings.probe_speech)
        self.library = VoiceLibrary(settings.voices_folder)
        self.admission = Admission(
            settings.slots,
            settings.queue_places,
            settings.queue_timeout_seconds,
        )
        drain.at_begin(self.admission.close)
        self.executor = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="codec")
        key = settings.upstream_api_key
        connections = settings.slots + PROBE_CONNECTIONS * len(settings.upstreams)
        self.client = UpstreamClient(key.get_secret_value() if key else None, connections)
        self.probers = {
            upstream: Prober(
                upstream,
                self.client,
                model=settings.upstream_model,
                admission=self.admission,
                interval_seconds=settings.probe_interval_seconds,
                decode=decode_pcm,
                aliases=settings.voice_aliases,
                changed=self._on_health(upstream.address),
            )
            for upstream in self.pool.upstreams
        }
        attempts = Attempts(
            self.pool,
            self.client,
            self.probers,
            model=settings.upstream_model,
            metrics=self.metrics,
            # All that can run on one upstream at once may be tried again elsewhere.
            budget=RetryBudget(max(LEAST_RETRIES, settings.slots)),
        )
        self.activity = Activity(show_texts=settings.show_texts)
        self.catalogue = VoiceCatalogue(
            lambda: self.pool.voices,
            default=settings.default_voice,
            aliases=settings.voice_aliases,
            library=self.library,
            threads=self.executor,
        )
        self.service = SpeechService(
            settings,
            self.admission,
            self.pool,
            attempts,
            self.metrics,
            self.executor,
            self.activity,
        )
        self.bodies = BodyReader(settings.max_body_bytes, settings.body_timeout_seconds)
        self.jobs = Jobs(
            settings.data_dir / "jobs",
            most_bytes=settings.jobs_max_bytes,
            retention_seconds=settings.jobs_retention_hours * 3600,
        )

    def _on_health(self, address: str) -> Callable[[bool], None]:
        tell = self.metrics.health_of(address)

        def changed(healthy: bool) -> None:  # noqa: FBT001
            tell(healthy)
            if healthy:
                self.catalogue.check_default()

        return changed

    def _job_runner(self, store: Store) -> Runner:
        settings = self.settings
        return Runner(
            store,
            self.jobs.in_store,
            self._in_thread,
            self.service.make_segment,
            self.service.prepare,
            self.admission,
            self.metrics,
            BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps),
            most_segments=settings.job_slots,
            lease_seconds=settings.job_lease_seconds,
        )

    async def _in_thread(self, work: Callable[[], Result], /) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def run_background(self) -> None:
        """Probe every upstream and work on jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.jobs.run(self._job_runner))
            for prober in self.probers.values():
                group.create_task(prober.run())
            group.create_task(self.catalogue.keeper.run())

    async def aclose(self) -> None:
        """Give everything back."""
        await self.jobs.aclose()
        await self.client.aclose()
        self.executor.shutdown(wait=False, cancel_futures=True)


class Mountable(Protocol):
    """A part of the application that has routes."""

    def routes(self) -> list[BaseRoute]:
        """What it answers."""


def _surfaces(runtime: Runtime) -> Iterator[Mountable]:
    """What is mounted, in order: of two routes with one path, the first holds."""
    service, metrics, bodies = runtime.service, runtime.metrics, runtime.bodies
    catalogue, pool, threads = runtime.catalogue, runtime.pool, runtime.executor
    settings, chosen = runtime.settings, runtime.settings.surfaces
    operations = OperationsSurface(
        pool,
        metrics,
        runtime.drain,
        default_voice=settings.default_voice,
        # Clients of the earlier proxy alone know another word.
        well="ok" if chosen == ("generate",) else "healthy",
    )
    yield operations
    yield AdminSurface(pool, bodies)
    if "openai" in chosen:
        openai = OpenAISurface(
            service,
            metrics,
            bodies,
            catalogue,
            pool,
            threads,
            default_response_format=settings.default_response_format,
        )
        yield openai
        yield JobsSurface(runtime.jobs, openai, bodies, show_texts=settings.show_texts)
        yield CustomVoices(catalogue, bodies)
    if "generate" in chosen:
        yield GenerateSurface(service, metrics, bodies, catalogue, threads)
    if "chatterbox" in chosen:
        yield ChatterboxSurface(
            service,
            metrics,
            bodies,
            catalogue,
            pool,
            threads,
            runtime.jobs,
            runtime.activity,
            operations.health,
            show_texts=settings.show_texts,
        )


def create_app(settings: Settings, drain: Drain | None = None) -> Starlette:
    """Build the ASGI application.

    Args:
        settings: All of them.
        drain: Whether it still takes requests, as its server knows; None is always.

    The runtime is made inside the lifespan, where there is an event loop to own it;
    `app.state.runtime` holds it while the application runs.
    """
    drain = drain or Drain()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        runtime = app.state.runtime = Runtime(settings, drain)
        app.router.routes[:] = [
            route for surface in _surfaces(runtime) for route in surface.routes()
        ]
        probes = asyncio.create_task(runtime.run_background())
        try:
            yield
        finally:
            probes.cancel()
            await asyncio.wait([probes])
            await runtime.aclose()

    middleware = [
        Middleware(
            RequestLogMiddleware,
            surface_of=lambda path: shapes.shape_of(path).surface,
            refuse=shapes.render,
        ),
        Middleware(DrainMiddleware, drain=drain, refuse=shapes.render),
    ]
    if settings.cors_origins != ():
        anywhere = ("*",) if settings.guarded else ()
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=anywhere if settings.cors_origins is None else settings.cors_origins,
                allow_origin_regex=LOCAL_ORIGINS if settings.cors_origins is None else None,
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,
                expose_headers=["*"],
            )
        )
    # Innermost: what it refuses goes out through the others, with an id and CORS headers.
    middleware.append(Middleware(AccessMiddleware))
    return Starlette(
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            GatewayError: _handle_gateway_error,
            ClientGone: _handle_client_gone,
            HTTPException: _handle_http_exception,
            Exception: _handle_gateway_error,
        },
    )
