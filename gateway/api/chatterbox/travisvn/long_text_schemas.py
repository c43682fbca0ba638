"""Bodies and answers of travisvn's long texts."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.api.chatterbox.fields import Fields
from gateway.api.chatterbox.travisvn.speech import MOST_CHARACTERS, VoiceName
from gateway.speech.activity import HIDDEN, PREVIEW_CHARACTERS
from gateway.speech.jobs.job import ACTIVE, Job, State

LONGEST_CHARACTERS = 100_000
PATH = "/audio/speech/long"
ShortText = Annotated[str, StringConstraints(max_length=200)]
Tag = Annotated[str, StringConstraints(max_length=50, strip_whitespace=True)]


class LongBody(Fields):
    """The body of `POST /audio/speech/long`."""

    input: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=MOST_CHARACTERS + 1, max_length=LONGEST_CHARACTERS
        ),
    ]
    voice: VoiceName | None = None
    response_format: ShortText | None = "mp3"
    exaggeration: float | None = Field(None, ge=0.25, le=2)
    cfg_weight: float | None = Field(None, ge=0, le=1)
    temperature: float | None = Field(None, ge=0.05, le=5)
    session_id: ShortText | None = None


class Update(Fields):
    """The body of `PATCH`."""

    display_name: ShortText | None = None
    is_archived: bool | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] | None = None


class Bulk(Fields):
    """The body of `POST …/bulk`."""

    job_ids: Annotated[list[ShortText], Field(min_length=1, max_length=100)]
    action: Literal["delete", "archive", "unarchive", "retry"]
    confirm: bool


def time_of(seconds: float | None) -> str | None:
    """Unix time as ISO 8601."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()


def preview_of(job: Job, *, show_texts: bool) -> str:
    """The beginning of a job's text, or a mask."""
    return job.request.text.written[:PREVIEW_CHARACTERS] if show_texts else HIDDEN


def remaining_seconds(job: Job) -> int | None:
    """How long a job will probably still run; None where nothing tells."""
    if job.state is not State.PROCESSING or job.started is None or not job.made_seconds:
        return None
    return round((job.updated - job.started) * (1 / job.share - 1))


def download_url(job: Job) -> str | None:
    """Where its audio is, once there is any."""
    return f"{PATH}/{job.id}/download" if job.state is State.COMPLETED else None


def created_of(job: Job) -> dict[str, Any]:
    """The answer to a new job."""
    return {
        "job_id": job.id,
        "status": State.PENDING,
        "message": "Job submitted for processing",
        "estimated_processing_time_seconds": None,  # it depends on the engine and on who waits
        "total_chunks": job.total_chunks,
        "status_url": f"{PATH}/{job.id}",
        "sse_url": f"{PATH}/{job.id}/sse",
    }


def progress_of(job: Job) -> dict[str, Any]:
    """How far it is; chunks are segments of the text, told from the audio made."""
    return {
        "job_id": job.id,
        "overall_progress": round(100 * job.share, 1),
        "current_chunk": None,
        "completed_chunks": [],
        "completed_chunk_count": job.chunks_made,
        "total_chunks": job.total_chunks,
        "estimated_remaining_seconds": remaining_seconds(job),
        "status": job.state,
        "error": job.error,
    }


def metadata_of(job: Job) -> dict[str, Any]:
    """All that is known of it."""
    running = job.started is not None and job.ended is not None
    milliseconds = round(1000 * ((job.ended or 0) - (job.started or 0))) if running else 0
    return {
        "job_id": job.id,
        "created_at": time_of(job.created),
        "updated_at": time_of(job.updated),
        "status": job.state,
        "text_length": len(job.request.text.written),
        "total_chunks": job.total_chunks,
        "completed_chunks": job.chunks_made,
        "failed_chunks": [],
        "voice": job.voice_name,
        "parameters": {"temperature": job.request.sampling.temperature},
        "processing_started_at": time_of(job.started),
        "processing_completed_at": time_of(job.ended),
        "total_processing_time_ms": milliseconds,
        "output_format": job.request.response_format,
        "output_size_bytes": job.stored_bytes or None,
        "output_duration_seconds": round(job.made_seconds, 3) or None,
        "error": job.error,
        "user_session_id": job.session_id,
        "retry_count": job.retries,
        "original_job_id": job.original_id,
        "is_archived": job.archived,
        "display_name": job.display_name,
        "tags": list(job.tags),
    }


def status_of(job: Job) -> dict[str, Any]:
    """The answer of `GET …/{id}`."""
    return {
        "job_id": job.id,
        "status": job.state,
        "progress": progress_of(job),
        "metadata": metadata_of(job),
        "created_at": time_of(job.created),
        "updated_at": time_of(job.updated),
        "download_url": download_url(job),
        "can_pause": job.state in ACTIVE,
        "can_resume": job.state is State.PAUSED,
        "can_cancel": job.state in {*ACTIVE, State.PAUSED},
    }


def item_of(job: Job, *, show_texts: bool) -> dict[str, Any]:
    """A line of a list."""
    done = job.state is State.COMPLETED
    return {
        "job_id": job.id,
        "status": job.state,
        "text_preview": preview_of(job, show_texts=show_texts),
        "text_length": len(job.request.text.written),
        "progress_percentage": round(100 * job.share, 1),
        "created_at": time_of(job.created),
        "completed_at": time_of(job.ended) if done else None,
        "download_url": download_url(job),
        "can_resume": job.state is State.PAUSED,
        "voice": job.voice_name,
        "estimated_remaining_seconds": remaining_seconds(job),
        "total_duration_seconds": round(job.made_seconds, 3) if done else None,
        "audio_file_size": job.stored_bytes if done else None,
        "retry_count": job.retries,
        "is_archived": job.archived,
        "display_name": job.display_name,
        "tags": list(job.tags),
    }
