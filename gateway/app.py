"""The application: wires the objects of a process and the routes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from gateway.access.control import AccessControl
from gateway.access.policy import HEALTH
from gateway.api.admin import AdminSurface
from gateway.api.chatterbox.devnen.tts import DevnenSpeech
from gateway.api.chatterbox.devnen.web_ui import DevnenServer
from gateway.api.chatterbox.travisvn.about import TravisvnAbout
from gateway.api.chatterbox.travisvn.long_text import TravisvnLong
from gateway.api.chatterbox.travisvn.memory import memory_routes
from gateway.api.chatterbox.travisvn.paths import named_routes
from gateway.api.chatterbox.travisvn.paths import routes as other_names
from gateway.api.chatterbox.travisvn.speech import TravisvnSpeech
from gateway.api.chatterbox.travisvn.status import TravisvnStatus
from gateway.api.chatterbox.travisvn.voices import TravisvnVoices
from gateway.api.dispatcher import Dispatcher
from gateway.api.endpoint import BodyReader
from gateway.api.error_bodies import DEVNEN, GENERATE, OPENAI, OPERATIONS
from gateway.api.generate import GenerateSurface
from gateway.api.jobs import JobsSurface
from gateway.api.modelless import AsChatterbox
from gateway.api.openai import OpenAISurface
from gateway.api.openai_voices import CustomVoices
from gateway.api.openapi import description_routes
from gateway.api.operations import OperationsSurface
from gateway.api.routes import Route, RouteTable, declared_routes
from gateway.api.web_page import WebPage
from gateway.audio.transcoder import BitRates
from gateway.server.engine_process import Supervisor, restart_when_stuck
from gateway.server.shutdown import Drain
from gateway.settings import Settings
from gateway.speech.activity import Activity
from gateway.speech.admission import Admission
from gateway.speech.jobs.jobs import Jobs
from gateway.speech.jobs.runner import Runner
from gateway.speech.jobs.store_thread import StoreThread
from gateway.speech.prepare import attempt_timeouts
from gateway.speech.service import SpeechService
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcomes import Outcomes
from gateway.upstream.client import UpstreamClient
from gateway.upstream.pool import Pool
from gateway.upstream.probes import Prober
from gateway.upstream.retry import Attempts
from gateway.upstream.retry_budget import RetryBudget
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.library.library import VoiceLibrary

LEAST_RETRIES = 10
CODEC_THREADS = max(2, os.cpu_count() or 2)


class Runtime:
    """The objects that live as long as the process: client, pool, probes, threads."""

    def __init__(self, settings: Settings, drain: Drain, engine: Supervisor | None) -> None:
        self.engine = engine
        self.settings = settings
        self.drain = drain
        self.metrics = Metrics()
        self.outcomes = Outcomes(self.metrics)
        self.access = AccessControl(
            settings.key_ring(),
            settings.access_policy,
            limits=settings.limits,
            replicas=settings.replicas,
            hosts=settings.hosts,
            metrics=self.metrics,
        )
        self.pool = Pool(settings.upstreams, settings.probe_speech)
        self.admission = Admission(
            settings.slots,
            settings.queue_places,
            settings.queue_timeout_seconds,
        )
        drain.at_begin = self.admission.close
        self.executor = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="codec")
        key = settings.upstream_api_key
        self.client = UpstreamClient(key.get_secret_value() if key else None)
        self.probers = {
            upstream: Prober(
                upstream,
                self.client,
                model=settings.upstream_model,
                admission=self.admission,
                interval_seconds=settings.probe_interval_seconds,
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
            timeouts=attempt_timeouts(settings),
        )
        self.activity = Activity(show_texts=settings.show_texts)
        self.catalogue = VoiceCatalogue(
            default=settings.default_voice,
            aliases=settings.voice_aliases,
            everywhere=self.pool.knows_everywhere,
            library=VoiceLibrary(settings.voices_folder, lambda: self.pool.voices),
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

    def job_runner(self, store: StoreThread) -> Runner:
        """What works on the jobs of an open store."""
        settings = self.settings
        return Runner(
            store,
            self.executor,
            self.service.make_segment,
            self.service.prepare,
            self.admission,
            self.metrics,
            BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps),
            most_segments=settings.job_slots,
            lease_seconds=settings.job_lease_seconds,
        )

    async def run_background(self) -> None:
        """Probe every upstream and work on jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.jobs.run())
            for prober in self.probers.values():
                group.create_task(prober.run())
            if self.engine is not None and self.settings.engine_restart_seconds:
                group.create_task(
                    restart_when_stuck(
                        self.engine,
                        lambda: any(upstream.healthy for upstream in self.pool.upstreams),
                        self.settings.engine_restart_seconds,
                    )
                )
            group.create_task(self.catalogue.run())

    async def aclose(self) -> None:
        """Give everything back."""
        await self.jobs.aclose()
        self.client.close()
        self.executor.shutdown(wait=False, cancel_futures=True)


def routes_of(runtime: Runtime) -> list[Route]:
    """Every route that is mounted; of two with one method and path, the first holds."""
    pool, catalogue, bodies = runtime.pool, runtime.catalogue, runtime.bodies
    parts = (runtime.service, runtime.outcomes, bodies, catalogue, runtime.executor)
    settings, chosen = runtime.settings, runtime.settings.surfaces
    operations = OperationsSurface(
        pool,
        runtime.metrics,
        runtime.activity,
        runtime.drain,
        default_voice=settings.default_voice,
        # Clients of the earlier proxy alone know another word.
        well="ok" if chosen == ("generate",) else "healthy",
    )
    admin = AdminSurface(pool, bodies)
    routes = [*declared_routes(operations, OPERATIONS), *declared_routes(admin, OPERATIONS)]
    if "page" in chosen:
        page = WebPage(operations.index, settings, pool)
        routes = [*declared_routes(page, OPERATIONS), *routes]
    routes += description_routes(routes)
    travisvn = TravisvnSpeech(*parts)
    if "openai" in chosen:
        as_chatterbox = "chatterbox" in chosen and settings.modelless == "chatterbox"
        openai = OpenAISurface(
            *parts,
            pool,
            default_response_format=settings.default_response_format,
            model_aliases=settings.model_aliases,
            modelless=AsChatterbox(travisvn.parse_fields) if as_chatterbox else None,
        )
        jobs = JobsSurface(runtime.jobs, openai, bodies, show_texts=settings.show_texts)
        voices = CustomVoices(catalogue, bodies)
        for surface in (openai, jobs, voices):
            routes += declared_routes(surface, OPENAI)
    if "generate" in chosen:
        routes += declared_routes(GenerateSurface(*parts), GENERATE)
    if "chatterbox" in chosen:
        aliases = settings.model_aliases
        routes += [
            # `/tts` of both servers stands first
            *declared_routes(DevnenSpeech(*parts, travisvn), DEVNEN),
            *named_routes(travisvn),
            *named_routes(TravisvnLong(runtime.jobs, travisvn, settings.show_texts)),
            *named_routes(TravisvnVoices(catalogue, bodies)),
            *named_routes(TravisvnStatus(runtime.activity)),
            *named_routes(TravisvnAbout(pool, catalogue.default, aliases, routes)),
            *declared_routes(DevnenServer(catalogue, pool, bodies), DEVNEN),
            *memory_routes(runtime.activity),
            *other_names("GET", "/health", operations.health, HEALTH, "Whether it lives"),
        ]
    return routes


class Application:
    """The gateway as an ASGI application.

    Its runtime is made when the lifespan begins, where there is an event loop to own it.

    Args:
        settings: All of them.
        drain: Whether it still takes requests, as its server knows; None is always.
        engine: What supervises the engine that this process started, or None.

    Attributes:
        runtime: While the application runs.
        routes: What is mounted, likewise.
    """

    runtime: Runtime
    routes: list[Route]

    def __init__(
        self, settings: Settings, drain: Drain | None = None, engine: Supervisor | None = None
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._drain = drain or Drain()
        self._lifespan = Router(lifespan=self._live)
        self._dispatcher: Dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live."""
        if scope["type"] == "http":
            await self._dispatcher(scope, receive, send)
        else:
            await self._lifespan(scope, receive, send)

    @asynccontextmanager
    async def _live(self, _: object) -> AsyncIterator[None]:
        runtime = self.runtime = Runtime(self._settings, self._drain, self._engine)
        self.routes = routes_of(runtime)
        await runtime.jobs.open(runtime.job_runner)  # the first request may be for one
        self._dispatcher = Dispatcher(
            RouteTable(self.routes),
            runtime.access,
            runtime.outcomes,
            self._drain,
            cors_origins=self._settings.cors_origins,
            guarded=self._settings.guarded,
        )
        probes = asyncio.create_task(runtime.run_background())
        try:
            yield
        finally:
            probes.cancel()
            await asyncio.wait([probes])
            await runtime.aclose()
