"""Memory routes of travisvn/chatterbox-tts-api: no model is here whose memory can be freed."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request

from gateway.access.policy import SPEECH
from gateway.api.chatterbox.travisvn.paths import routes
from gateway.api.routes import Json, Route
from gateway.speech.activity import Activity
from gateway.telemetry.process_memory import memory_info

MESSAGE = "The gateway holds no model: its memory needs no care, and nothing was changed."
CONFIG = {
    "memory_cleanup_interval": 0,
    "cuda_cache_clear_interval": 0,
    "enable_memory_monitoring": True,
}
_ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/memory"): {"cleanup_performed": False, "cuda_cache_cleared": False},
    ("GET", "/memory/config"): CONFIG,
    ("POST", "/memory/config"): {"status": "success", "config": CONFIG},
    ("GET", "/memory/recommendations"): {"recommendations": []},
    ("POST", "/memory/reset"): {"status": "success", "warning": MESSAGE, "collected_objects": 0},
}


async def _answer(answer: dict[str, Any], activity: Activity, request: Request) -> Json:
    del request
    told = {"memory_info": memory_info(), "request_counter": activity.total, "message": MESSAGE}
    return {**answer, **told}


def memory_routes(activity: Activity) -> list[Route]:
    """The memory routes under all their names, each with one answer."""
    return [
        route
        for (method, primary), answer in _ANSWERS.items()
        for route in routes(method, primary, partial(_answer, answer, activity), SPEECH, "Memory")
    ]
