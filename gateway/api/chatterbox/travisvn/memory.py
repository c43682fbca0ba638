"""Memory routes of travisvn/chatterbox-tts-api: real figures of this process, and no levers.

There is no model here whose memory could be freed; requests to do so are answered politely.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.api.chatterbox.fields import query_flag
from gateway.api.chatterbox.travisvn.paths import paths_of
from gateway.speech.activity import Activity
from gateway.telemetry.process_memory import memory_info

NOTHING_TO_FREE = "The gateway holds no model: its memory needs no care, and nothing was changed."
CONFIG = {
    "memory_cleanup_interval": 0,
    "cuda_cache_clear_interval": 0,
    "enable_memory_monitoring": True,
}


class TravisvnMemory:
    """The memory routes.

    Args:
        activity: Its requests are counted.
    """

    def __init__(self, activity: Activity) -> None:
        self._activity = activity

    def routes(self) -> list[BaseRoute]:
        """Under all their names."""
        table = (
            ("GET", "/memory", self.show),
            ("GET", "/memory/config", self.config),
            ("POST", "/memory/config", self.configure),
            ("GET", "/memory/recommendations", self.recommendations),
            ("POST", "/memory/reset", self.reset),
        )
        return [
            Route(path, endpoint, methods=[method])
            for method, primary, endpoint in table
            for path in paths_of(primary)
        ]

    async def show(self, request: Request) -> Response:
        """`GET /memory`; `cleanup` and `force_cuda_clear` are understood and do nothing."""
        for flag in ("cleanup", "force_cuda_clear"):
            query_flag(request, flag)
        return JSONResponse(
            {
                "memory_info": memory_info(),
                "request_counter": self._activity.total,
                "cleanup_performed": False,
                "cuda_cache_cleared": False,
                "message": NOTHING_TO_FREE,
            }
        )

    async def config(self, request: Request) -> Response:
        """`GET /memory/config`."""
        del request
        return JSONResponse({**CONFIG, "memory_info": memory_info()})

    async def configure(self, request: Request) -> Response:
        """`POST /memory/config`: changes nothing, whatever it brings."""
        del request
        return JSONResponse({"status": "success", "message": NOTHING_TO_FREE, "config": CONFIG})

    async def recommendations(self, request: Request) -> Response:
        """`GET /memory/recommendations`: none."""
        del request
        return JSONResponse(
            {"memory_info": memory_info(), "recommendations": [], "message": NOTHING_TO_FREE}
        )

    async def reset(self, request: Request) -> Response:
        """`POST /memory/reset?confirm=true`."""
        if not query_flag(request, "confirm"):
            return JSONResponse(
                {
                    "message": "Memory reset requires confirmation. Set confirm=true to proceed.",
                    "warning": NOTHING_TO_FREE,
                }
            )
        return JSONResponse(
            {
                "status": "success",
                "message": NOTHING_TO_FREE,
                "previous_request_counter": self._activity.total,
                "collected_objects": 0,
                "memory_info": memory_info(),
                "cuda_stats_reset": False,
            }
        )
