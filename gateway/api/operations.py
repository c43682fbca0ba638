"""Routes of operation: health, readiness, statistics and metrics.

None of them touches an upstream: they answer from what the probes found last.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.access.policy import HEALTH, METRICS, STATS
from gateway.api.chatterbox.travisvn.about import health_fields
from gateway.api.chatterbox.travisvn.status import statistics_of
from gateway.api.error_bodies import GENERATE
from gateway.api.generate import statistics
from gateway.api.routes import Json, get
from gateway.server.shutdown import Drain
from gateway.speech.activity import Activity
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.process_memory import memory_info
from gateway.upstream.pool import Pool


@dataclass(frozen=True, slots=True)
class OperationsSurface:
    """Health, readiness and metrics.

    Attributes:
        pool: The engines.
        metrics: What was counted.
        activity: What runs and ran.
        drain: Whether the gateway is ending.
        default_voice: From the settings.
        well: The word for a good state.
    """

    pool: Pool
    metrics: Metrics
    activity: Activity
    drain: Drain
    default_voice: str
    well: str

    @get("/health", HEALTH, "Whether the process lives, and how its upstreams are")
    async def health(self, _: Request) -> Json:
        """`GET /health`: 200 while the process lives."""
        ready, models = self.pool.ready, self.pool.models
        return {
            "status": self.well if ready else "degraded",
            "version": __version__,
            # The next four are what clients of the earlier proxy read.
            "vllm_backend": f"{len(self.pool.upstreams)} upstream(s)",
            "vllm_healthy": ready,
            "model": models[0] if models else None,
            "stats": statistics(self.metrics),
            "upstreams": [
                {
                    # Never the address: who may ask for health may not know the inner network.
                    "index": index,
                    "healthy": upstream.healthy,
                    "in_flight": upstream.in_flight,
                }
                for index, upstream in enumerate(self.pool.upstreams)
            ],
            # The rest is what clients of Chatterbox read.
            **health_fields(ready=ready, default_voice=self.default_voice),
            "memory_info": memory_info(),
        }

    @get("/", HEALTH, "What this is")
    async def index(self, _: Request) -> Json:
        """`GET /`: what this is; clients also use it to open a connection early."""
        return {"name": "speech-gateway", "version": __version__, "docs": "/docs"}

    @get("/stats", STATS, "Counters under clients' names", surface=GENERATE)
    async def stats(self, _: Request) -> Json:
        """`GET /stats`: what was done, under the names of every client family."""
        return {**statistics_of(self.activity), **statistics(self.metrics)}

    @get("/ready", HEALTH, "Whether speech can be made now")
    async def ready(self, _: Request) -> Response | Json:
        """`GET /ready`: 200 once an upstream has produced audio and is still well, else 503.

        It is 503 from the moment at which the gateway is asked to stop, too. `faults` says why no
        upstream is ready, without addresses.
        """
        if self.pool.ready and not self.drain.begun:
            return {"ready": True}
        return JSONResponse(
            {"ready": False, "faults": list(self.pool.faults)}, 503, {"Retry-After": "1"}
        )

    @get("/metrics", METRICS, "Prometheus metrics", produces=("text/plain",))
    async def scrape(self, _: Request) -> Response:
        """`GET /metrics`: Prometheus' text format."""
        return Response(self.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
