"""The status routes of travisvn/chatterbox-tts-api: this process's current and past requests.

The activity of every surface is shown, as one engine speaks for them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from starlette.requests import Request

from gateway import __version__
from gateway.access.policy import SPEECH, VOICE_CHANGES
from gateway.api.chatterbox.fields import read_query
from gateway.api.field_rules import LenientFields
from gateway.api.routes import Json, get, post
from gateway.speech.activity import Activity, RequestProgress, Step
from gateway.telemetry.process_memory import memory_info

MOST_LISTED = 50
LISTED = 10
MOST_IN_STATUS = 20
LISTED_IN_STATUS = 5
LISTED_IN_INFO = 3
API_NAME = "Chatterbox TTS API"
# Their words for where a request is.
_STATUS: dict[Step, str] = {
    "waiting": "initializing",
    "speaking": "generating_audio",
    "completed": "completed",
    "cancelled": "error",
    "failed": "error",
}


class StatisticsQuery(LenientFields):
    """The query of `GET /status/statistics`."""

    include_memory: bool = False


class StatusQuery(StatisticsQuery):
    """The query of `GET /v1/status`."""

    include_history: bool = False
    include_stats: bool = False
    history_limit: int = Field(LISTED_IN_STATUS, ge=1, le=MOST_IN_STATUS)


class PastQuery(LenientFields):
    """The query of `GET /status/history`."""

    limit: int = Field(LISTED, ge=1, le=MOST_LISTED)


class ClearQuery(LenientFields):
    """The query of `POST /status/history/clear`."""

    confirm: bool = False


def progress_of(entry: RequestProgress) -> dict[str, Any]:
    """The progress of a request; its chunks are estimated from the text's likely length."""
    total, share = entry.chunks, entry.share
    current = min(total, 1 + int(share * total)) if share else 0
    if entry.step == "waiting":
        step = "Waiting for a slot"
    elif entry.step == "speaking":
        step = f"Generating audio for chunk {current}/{total}"
    else:
        step = entry.step
    return {
        "current_chunk": current,
        "total_chunks": total,
        "current_step": step,
        "progress_percentage": round(100 * share, 1),
        "estimated_completion": entry.likely_end if entry.step == "speaking" else None,
    }


def record_of(entry: RequestProgress) -> dict[str, Any]:
    """The record of a request."""
    error = entry.error or ("cancelled" if entry.step == "cancelled" else None)
    return {
        "request_id": entry.id,
        "status": _STATUS[entry.step],
        "start_time": round(entry.started, 3),
        "duration_seconds": round(entry.seconds, 3),
        "text_length": entry.text_length,
        "text_preview": entry.text_preview,
        "voice_source": entry.voice,
        "parameters": entry.parameters,
        "progress": progress_of(entry),
        "error_message": error,
        "memory_usage": {},
    }


def status_of(activity: Activity) -> dict[str, Any]:
    """The latest request that runs, or that none does."""
    running = activity.running
    common = {"total_requests": activity.total, "active_requests": len(running)}
    if not running:
        return {
            "status": "idle",
            "is_processing": False,
            **common,
            "message": "No active requests",
        }
    return {**record_of(running[-1]), "is_processing": True, **common, "message": None}


def statistics_of(activity: Activity) -> dict[str, Any]:
    """How the remembered requests ended."""
    completed = [entry for entry in activity.over if entry.step == "completed"]
    errors = sum(1 for entry in activity.over if entry.step == "failed")
    count = max(1, len(completed))
    return {
        "total_requests": activity.total,
        "completed_requests": len(completed),
        "error_requests": errors,
        "success_rate": round(100 * len(completed) / max(1, len(completed) + errors), 2),
        "average_duration_seconds": round(sum(e.seconds for e in completed) / count, 3),
        "average_text_length": round(sum(e.text_length for e in completed) / count, 1),
        "is_processing": bool(activity.running),
    }


@dataclass(frozen=True, slots=True)
class TravisvnStatus:
    """The routes of what runs and ran.

    Attributes:
        activity: What is told.
    """

    activity: Activity

    @get("/v1/status", SPEECH, "The latest request that runs", query=StatusQuery)
    async def status(self, request: Request) -> Json:
        """`GET /v1/status`, with what `include_memory` and the like ask for."""
        query = read_query(request, StatusQuery)
        body = status_of(self.activity)
        if query.include_memory:
            body["memory_info"] = body["memory_usage"] = memory_info()
        if query.include_history:
            body["request_history"] = self._history(query.history_limit)
        if query.include_stats:
            body["statistics"] = statistics_of(self.activity)
        return body

    @get("/status/progress", SPEECH, "How far it is")
    async def progress(self, _: Request) -> Json:
        """`GET /status/progress`: a short answer, for clients that poll every second."""
        running = self.activity.running
        if not running:
            return {"is_processing": False, "status": "idle", "message": "No active TTS requests"}
        record = record_of(running[-1])
        kept = ("status", "duration_seconds", "text_preview")
        return {
            "is_processing": True,
            **record["progress"],
            **{name: record[name] for name in kept},
        }

    @get("/status/history", SPEECH, "The latest ones", query=PastQuery)
    async def history(self, request: Request) -> Json:
        """`GET /status/history`: the latest first."""
        limit = read_query(request, PastQuery).limit
        records = self._history(limit)
        return {"request_history": records, "total_records": len(records), "limit": limit}

    def _history(self, limit: int) -> list[dict[str, Any]]:
        return [
            {**record_of(entry), "end_time": round(entry.started + entry.seconds, 3)}
            for entry in self.activity.over[:limit]
        ]

    @get("/status/statistics", SPEECH, "How they ended", query=StatisticsQuery)
    async def statistics(self, request: Request) -> Json:
        """`GET /status/statistics`."""
        body = statistics_of(self.activity)
        if read_query(request, StatisticsQuery).include_memory:
            body["current_memory"] = memory_info()
        return body

    @post("/status/history/clear", VOICE_CHANGES, "Forget the history", query=ClearQuery)
    async def clear(self, request: Request) -> Json:
        """`POST /status/history/clear?confirm=true`; what runs stays."""
        if not read_query(request, ClearQuery).confirm:
            return {
                "message": "History clear requires confirmation. Set confirm=true to proceed.",
                "warning": "This will clear all request history except what is running.",
            }
        count = self.activity.forget()
        message = "TTS request history cleared successfully"
        return {"success": True, "message": message, "cleared_records": count}

    @get("/info", SPEECH, "All of the status in one answer")
    async def info(self, _: Request) -> Json:
        """`GET /info`: the rest in one answer."""
        statistics = statistics_of(self.activity)
        uptime = ("total_requests", "success_rate", "is_processing")
        return {
            "api_name": API_NAME,
            "version": __version__,
            "api_version": __version__,
            "status": "operational",
            "tts_status": status_of(self.activity),
            "statistics": statistics,
            "memory_info": memory_info(),
            "recent_requests": self._history(LISTED_IN_INFO),
            "uptime_info": {name: statistics[name] for name in uptime},
        }
