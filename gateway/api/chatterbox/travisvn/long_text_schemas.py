"""Bodies and answers of travisvn's long texts."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.api.chatterbox.travisvn.speech import MOST_CHARACTERS, TravisvnFields
from gateway.api.field_rules import LenientFields
from gateway.speech.activity import HIDDEN, PREVIEW_CHARACTERS
from gateway.speech.jobs.job import ACTIVE, Job, State

LONGEST_CHARACTERS = 100_000
PATH = "/audio/speech/long"
ShortText = Annotated[str, StringConstraints(max_length=200)]
Tag = Annotated[str, StringConstraints(max_length=50, strip_whitespace=True)]


class LongBody(TravisvnFields):
    """The body of `POST /audio/speech/long`."""

    input: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=MOST_CHARACTERS + 1, max_length=LONGEST_CHARACTERS
        ),
    ]
    response_format: ShortText | None = "mp3"
    session_id: ShortText | None = None


class Update(LenientFields):
    """The body of `PATCH`: the parts of a job's notes that are to change."""

    display_name: ShortText | None = None
    archived: bool | None = Field(None, validation_alias="is_archived")
    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] | None = None


class ListQuery(LenientFields):
    """The query of `GET /audio/speech/long`."""

    session_id: ShortText | None = None
    status: State | None = None
    limit: int = Field(20, ge=1, le=100)

    def chooses(self, job: Job) -> bool:
        """Whether a job is wanted."""
        return self.session_id in {None, job.notes.session_id} and self.status in {None, job.state}


SORT_KEYS: dict[str, Callable[[Job], Any]] = {
    "created": lambda job: job.created,
    "completed": lambda job: job.ended or 0.0,
    "duration": lambda job: job.made_seconds if job.state is State.COMPLETED else 0.0,
    "name": lambda job: (job.notes.display_name or job.preview).lower(),
    "size": lambda job: job.stored_bytes,
}


class HistoryQuery(LenientFields):
    """The query of `GET /audio/speech/long-history`, as that server filters and sorts."""

    session_id: ShortText | None = None  # that server takes it and does not filter by it
    status: State | None = None
    start_date: dt.datetime | None = None
    end_date: dt.datetime | None = None
    search: ShortText | None = None
    is_archived: bool | None = None
    sort: Annotated[str, StringConstraints(pattern=f"^({'|'.join(SORT_KEYS)})_(?:desc|asc)$")] = (
        "completed_desc"
    )
    limit: int = Field(50, ge=1, le=100)
    offset: int = Field(0, ge=0, lt=2**31)

    def chooses(self, job: Job) -> bool:
        """Whether a job is wanted."""
        when = dt.datetime.fromtimestamp(job.ended or job.created, dt.UTC)
        return (
            self.status in {None, job.state}
            and self.is_archived in {None, job.notes.archived}
            and (_aware(self.start_date) or when) <= when <= (_aware(self.end_date) or when)
        )

    @property
    def descending(self) -> bool:
        """Whether the largest comes first."""
        return self.sort.endswith("_desc")

    def sort_key(self, job: Job) -> Any:
        """What jobs are ordered by."""
        return SORT_KEYS[self.sort.rpartition("_")[0]](job)


def _aware(when: dt.datetime | None) -> dt.datetime | None:
    """A date without a zone is UTC."""
    return when if when is None or when.tzinfo else when.replace(tzinfo=dt.UTC)


class EndQuery(LenientFields):
    """The query of `DELETE /audio/speech/long/{job_id}`."""

    action: Literal["cancel", "delete"] = "cancel"


class Bulk(LenientFields):
    """The body of `POST …/bulk`."""

    job_ids: Annotated[list[ShortText], Field(min_length=1, max_length=100)]
    action: Literal["delete", "archive", "unarchive", "retry"]
    confirm: bool


def time_of(seconds: float | None) -> str | None:
    """Unix time as ISO 8601."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()


def remaining_seconds(job: Job) -> int | None:
    """Estimates the seconds until a job ends; None without an estimate."""
    if job.state is not State.PROCESSING or job.started is None or not job.made_seconds:
        return None
    return round((job.updated - job.started) * (1 / job.share - 1))


def download_url(job: Job) -> str | None:
    """Where its audio is, once there is any."""
    return f"{PATH}/{job.id}/download" if job.state is State.COMPLETED else None


def done(job: Job, message: str) -> dict[str, Any]:
    """The answer to an action."""
    return {"success": True, "message": message, "status": job.state}


def statistics_of(jobs: list[Job]) -> dict[str, Any]:
    """The answer of `GET …/long-history/stats`."""
    completed = [job for job in jobs if job.state is State.COMPLETED]
    failed = sum(job.state is State.FAILED for job in jobs)
    seconds = [(job.ended or 0.0) - (job.started or 0.0) for job in completed]
    voices = Counter(job.notes.voice_name for job in completed if job.notes.voice_name)
    months = Counter(f"{dt.datetime.fromtimestamp(job.created, dt.UTC):%Y-%m}" for job in jobs)
    return {
        "total_jobs": len(jobs),
        "completed_jobs": len(completed),
        "failed_jobs": failed,
        "total_audio_duration_seconds": round(sum(job.made_seconds for job in completed), 3),
        "total_storage_bytes": sum(job.stored_bytes for job in completed),
        "average_processing_time_seconds": round(sum(seconds) / max(1, len(seconds)), 3),
        "success_rate_percentage": round(100 * len(completed) / max(1, len(completed) + failed), 2),
        "most_used_voice": voices.most_common(1)[0][0] if voices else None,
        "jobs_by_month": dict(sorted(months.items())),
    }


def created_of(job: Job) -> dict[str, Any]:
    """The answer to a new job."""
    return {
        "job_id": job.id,
        "status": State.PENDING,
        "message": "Job submitted for processing",
        "estimated_processing_time_seconds": None,  # it depends on the engine and on who waits
        "total_chunks": job.segments,
        "status_url": f"{PATH}/{job.id}",
        "sse_url": f"{PATH}/{job.id}/sse",
    }


def progress_of(job: Job) -> dict[str, Any]:
    """The progress of a job; its chunks are segments of the text."""
    return {
        "job_id": job.id,
        "overall_progress": round(100 * job.share, 1),
        "current_chunk": None,
        "completed_chunks": [],
        "completed_chunk_count": job.segments_made,
        "total_chunks": job.segments,
        "estimated_remaining_seconds": remaining_seconds(job),
        "status": job.state,
        "error": job.error,
    }


def _facts_of(job: Job) -> dict[str, Any]:
    """What a line of a list and the metadata tell alike."""
    return {
        "job_id": job.id,
        "status": job.state,
        "text_length": job.text_characters,
        "created_at": time_of(job.created),
        "voice": job.notes.voice_name,
        "retry_count": job.notes.retries,
        "is_archived": job.notes.archived,
        "display_name": job.notes.display_name,
        "tags": list(job.notes.tags),
    }


def metadata_of(job: Job) -> dict[str, Any]:
    """All that is known of it."""
    running = job.started is not None and job.ended is not None
    milliseconds = round(1000 * ((job.ended or 0) - (job.started or 0))) if running else 0
    return {
        **_facts_of(job),
        "updated_at": time_of(job.updated),
        "total_chunks": job.segments,
        "completed_chunks": job.segments_made,
        "failed_chunks": [],
        "parameters": {"temperature": job.fields["sampling"]["temperature"]},
        "processing_started_at": time_of(job.started),
        "processing_completed_at": time_of(job.ended),
        "total_processing_time_ms": milliseconds,
        "output_format": job.response_format,
        "output_size_bytes": job.stored_bytes or None,
        "output_duration_seconds": round(job.made_seconds, 3) or None,
        "error": job.error,
        "user_session_id": job.notes.session_id,
        "original_job_id": job.notes.original_id,
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
        **_facts_of(job),
        "text_preview": job.preview[:PREVIEW_CHARACTERS] if show_texts else HIDDEN,
        "progress_percentage": round(100 * job.share, 1),
        "completed_at": time_of(job.ended) if done else None,
        "download_url": download_url(job),
        "can_resume": job.state is State.PAUSED,
        "estimated_remaining_seconds": remaining_seconds(job),
        "total_duration_seconds": round(job.made_seconds, 3) if done else None,
        "audio_file_size": job.stored_bytes if done else None,
    }
