"""Long texts as jobs, plainly: submit, list, watch, pause, resume, retry, download, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from gateway.access.policy import JOBS
from gateway.api.endpoint import BodyReader
from gateway.api.events import event, event_stream
from gateway.api.field_rules import LenientFields
from gateway.api.multipart import (
    FormFile,
    file_of,
    form_bodies,
    parse_fields_and_files,
    require_json_or_form,
)
from gateway.api.openai import OpenAISurface
from gateway.api.routes import AUDIO_TYPES, EVENTS_TYPE, Json, delete, get, post
from gateway.api.schemas import Name, SpeechBody, parse_fields, read_query
from gateway.audio.encoders import ENCODERS, ResponseFormat
from gateway.audio.join import MOST_PAUSE_SECONDS, PAUSES_SECONDS
from gateway.errors import InvalidRequest, JobNotFound
from gateway.speech.jobs.chapters import split_chapters
from gateway.speech.jobs.job import FINAL, Job, Notes, State
from gateway.speech.jobs.jobs import MOST_CHARACTERS, Jobs
from gateway.text.boundary import Boundary

BASE = "/v1/audio/jobs"
ONE = f"{BASE}/{{job_id}}"
LISTED, MOST_LISTED = 20, 100
TEXT_FILE = "file"  # the part of a form that holds a text file instead of `input`
PING_EVERY = 15  # looks, about seconds: proxies close a stream that is silent for long


class JobBody(SpeechBody):
    """The body of `POST /v1/audio/jobs`: that of a speech request, and these."""

    title: Name | None = None
    """A name for lists."""
    input_format: Literal["text", "markdown"] = "text"
    """Where chapters are found: lines that name one, or headings."""
    paragraph_pause_seconds: float | None = Field(None, ge=0, le=MOST_PAUSE_SECONDS)
    """Pause at every paragraph, each of which is then made by itself; none leaves the pauses within
    a generation to the engine."""
    chapter_pause_seconds: float = Field(
        PAUSES_SECONDS[Boundary.CHAPTER], ge=0, le=MOST_PAUSE_SECONDS
    )
    """Pause at every chapter."""


class JobsQuery(LenientFields):
    """The query of a list of jobs."""

    state: State | None = None
    after: str | None = None
    limit: int = Field(LISTED, ge=1, le=MOST_LISTED)


class DownloadQuery(LenientFields):
    """The query of a job's audio."""

    response_format: ResponseFormat | None = None


@dataclass(frozen=True, slots=True)
class JobsSurface:
    """The routes below /v1/audio/jobs.

    Attributes:
        jobs: The jobs.
        speech: Reads what is to be said.
        bodies: Reads requests.
        show_texts: Show the beginnings of texts.
    """

    jobs: Jobs
    speech: OpenAISurface
    bodies: BodyReader
    show_texts: bool

    @post(BASE, JOBS, "Begin a job", bodies=form_bodies(JobBody, TEXT_FILE))
    async def submit(self, request: Request) -> Response:
        """`POST`: a new job, 202; as JSON, or as a form whose part `file` is the text."""
        require_json_or_form(request.scope)
        body = await self.bodies.read(request.scope, request.receive)
        fields, samples = await _read(body, request)
        understood = await self.speech.understand(fields, samples, MOST_CHARACTERS)
        parts = split_chapters(fields.input, markdown=fields.input_format == "markdown")
        voice = fields.voice if isinstance(fields.voice, str) else None
        job = await self.jobs.submit(
            understood,
            parts,
            Notes(voice_name=voice, display_name=fields.title),
            paragraph_pause_seconds=fields.paragraph_pause_seconds,
            chapter_pause_seconds=fields.chapter_pause_seconds,
        )
        return JSONResponse(self._shown(job), 202, {"Location": f"{BASE}/{job.id}"})

    @get(BASE, JOBS, "List the jobs", query=JobsQuery)
    async def list_jobs(self, request: Request) -> Json:
        """`GET`: the newest first; `limit`, `after` (an id) and `state` choose."""
        query = read_query(request, JobsQuery)
        jobs = [job for job in await self.jobs.owned() if query.state in {None, job.state}]
        if query.after is not None:
            ids = [job.id for job in jobs]
            jobs = jobs[ids.index(query.after) + 1 :] if query.after in ids else []
        return {
            "object": "list",
            "data": [self._shown(job) for job in jobs[: query.limit]],
            "has_more": len(jobs) > query.limit,
        }

    @get(ONE, JOBS, "Show a job")
    async def show(self, _: Request, job_id: str) -> Json:
        """`GET /{id}`."""
        return self._shown(await self.jobs.get(job_id))

    @delete(ONE, JOBS, "Delete a job and its audio")
    async def delete(self, _: Request, job_id: str) -> Json:
        """`DELETE /{id}`: removes the job and its audio, in any state."""
        job = await self.jobs.get(job_id)
        await self.jobs.delete(job)
        return {"id": job.id, "object": "audio.job.deleted", "deleted": True}

    @post(f"{ONE}/pause", JOBS, "Pause a job; what it made stays")
    async def pause(self, _: Request, job_id: str) -> Json:
        """`POST /{id}/pause`."""
        return self._shown(await self.jobs.pause(await self.jobs.get(job_id)))

    @post(f"{ONE}/resume", JOBS, "Go on with a paused job")
    async def resume(self, _: Request, job_id: str) -> Json:
        """`POST /{id}/resume`."""
        return self._shown(await self.jobs.resume(await self.jobs.get(job_id)))

    @post(f"{ONE}/cancel", JOBS, "End a job")
    async def cancel(self, _: Request, job_id: str) -> Json:
        """`POST /{id}/cancel`."""
        return self._shown(await self.jobs.cancel(await self.jobs.get(job_id)))

    @post(f"{ONE}/retry", JOBS, "Go on with a job that failed")
    async def retry(self, _: Request, job_id: str) -> Json:
        """`POST /{id}/retry`."""
        return self._shown(await self.jobs.retry(await self.jobs.get(job_id)))

    @get(f"{ONE}/download", JOBS, "Fetch a job's audio", query=DownloadQuery, produces=AUDIO_TYPES)
    async def download(self, request: Request, job_id: str) -> Response:
        """`GET /{id}/download`: the file, or ranges of it; 409 before the job is complete.

        With `response_format`, the stored audio in another format, encoded while it is sent.
        """
        job = await self.jobs.get(job_id)
        wanted = read_query(request, DownloadQuery).response_format or job.response_format
        name = f"{job.notes.display_name or job.id}.{wanted}"
        if wanted == job.response_format:
            path = await self.jobs.audio(job)
            media_type = ENCODERS[wanted].content_type
            return FileResponse(path, media_type=media_type, filename=name)
        pieces = await self.jobs.encoded(job, wanted)
        return StreamingResponse(pieces, media_type=ENCODERS[wanted].content_type)

    @get(f"{ONE}/events", JOBS, "Watch a job", produces=(EVENTS_TYPE,))
    async def events(self, _: Request, job_id: str) -> Response:
        """`GET /{id}/events`: server-sent events `progress` until one names the job's end."""
        return event_stream(self._events(await self.jobs.get(job_id)))

    async def _events(self, job: Job) -> AsyncIterator[bytes]:
        version, silent = -1, 0
        try:
            async for seen in self.jobs.watch(job):
                silent += 1
                if seen.version != version or seen.state in FINAL:
                    version, silent = seen.version, 0
                    name = seen.state if seen.state in FINAL else "progress"
                    yield event(name, self._shown(seen))
                elif silent >= PING_EVERY:
                    silent = 0
                    yield b": the job goes on\n\n"
        except JobNotFound:
            yield event("deleted", {})

    def _shown(self, job: Job) -> dict[str, Any]:
        """The JSON of a job; times are Unix seconds."""
        complete = job.state is State.COMPLETED
        return {
            "id": job.id,
            "object": "audio.job",
            "title": job.notes.display_name,
            "state": job.state,
            "error": job.error,
            "created_at": round(job.created),
            "started_at": job.started and round(job.started),
            "ended_at": job.ended and round(job.ended),
            "voice": job.notes.voice_name,
            "response_format": job.response_format,
            "text_preview": job.preview if self.show_texts else None,
            "text_characters": job.text_characters,
            "segments": job.segments,
            "segments_made": job.segments_made,
            "progress": round(job.share, 4),
            "likely_seconds": round(job.likely_seconds, 1),
            "audio_seconds": round(job.made_seconds, 3),
            "bytes": job.stored_bytes or None,
            "chapters": [
                {"title": chapter.title, "start_seconds": chapter.start_seconds}
                for chapter in job.chapters
            ],
            "events_url": f"{BASE}/{job.id}/events",
            "download_url": f"{BASE}/{job.id}/download" if complete else None,
        }


async def _read(body: bytes, request: Request) -> tuple[JobBody, Sequence[FormFile]]:
    """The fields of a request, and the files that are its voice samples.

    Raises:
        InvalidRequest: It cannot be read, or a field is wrong.
    """
    fields, files = await parse_fields_and_files(body, request.scope)
    if text := file_of(files, TEXT_FILE):
        try:
            fields["input"] = text.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidRequest("The text file is not UTF-8.", param=TEXT_FILE) from None
    samples = [file for file in files if file.field != TEXT_FILE]
    return parse_fields(JobBody, fields), samples
