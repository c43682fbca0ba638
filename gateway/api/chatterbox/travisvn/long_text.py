"""Long texts of travisvn/chatterbox-tts-api: spoken in the background, fetched when done."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from gateway.api.chatterbox.fields import query_number, read_form, wrong
from gateway.api.chatterbox.travisvn.long_text_schemas import (
    Bulk,
    LongBody,
    Update,
    created_of,
    item_of,
    metadata_of,
    progress_of,
    status_of,
)
from gateway.api.chatterbox.travisvn.paths import paths_of
from gateway.api.chatterbox.travisvn.speech import TravisvnBody, TravisvnSpeech
from gateway.api.endpoint import STREAM_HEADERS, BodyReader
from gateway.api.multipart import Form
from gateway.audio.encoders import RESPONSE_FORMATS
from gateway.errors import GatewayError, InvalidRequest, WrongJobState
from gateway.speech.jobs.job import ACTIVE, FINAL, Job, State
from gateway.speech.jobs.jobs import LongJobs
from gateway.speech.service import SpeechService

LARGEST_BODY_BYTES = 1024 * 1024  # 100,000 characters, each escaped
LISTED, MOST_LISTED = 20, 100
READ_BYTES = 256 * 1024
EVENT_SECONDS = 1.0
JOB = "/audio/speech/long/{job_id}"


class TravisvnLong:
    """The routes of long texts.

    Args:
        service: The straight line.
        jobs: The jobs of this process.
        speech: Understands what is to be said.
        bodies: Reads requests.
        show_texts: Show the texts of jobs.
    """

    def __init__(
        self,
        service: SpeechService,
        jobs: LongJobs,
        speech: TravisvnSpeech,
        bodies: BodyReader,
        *,
        show_texts: bool,
    ) -> None:
        self._service = service
        self._jobs = jobs
        self._speech = speech
        self._bodies = bodies
        self._show_texts = show_texts

    def routes(self) -> list[BaseRoute]:
        """Under all their names; fixed names stand before the ones that are a job's."""
        table = (
            ("POST", "/audio/speech/long", self.create),
            ("GET", "/audio/speech/long", self.list_jobs),
            ("POST", "/audio/speech/long/bulk", self.bulk),
            ("GET", "/audio/speech/long-history", self.history),
            ("GET", "/audio/speech/long-history/stats", self.history_stats),
            ("GET", JOB, self.status),
            ("PATCH", JOB, self.update),
            ("DELETE", JOB, self.end),
            ("GET", f"{JOB}/download", self.download),
            ("GET", f"{JOB}/sse", self.events),
            ("GET", f"{JOB}/details", self.details),
            ("PUT", f"{JOB}/pause", self.pause),
            ("PUT", f"{JOB}/resume", self.resume),
            ("POST", f"{JOB}/retry", self.retry),
        )
        return [
            Route(path, endpoint, methods=[method])
            for method, primary, endpoint in table
            for path in paths_of(primary)
        ]

    def _job(self, request: Request) -> Job:
        return self._jobs.get(request.path_params["job_id"])

    async def create(self, request: Request) -> Response:
        """`POST …/long`."""
        jobs = self._jobs
        body, _ = await read_form(self._bodies, request, LongBody, LARGEST_BODY_BYTES)
        fields = TravisvnBody.model_construct(
            input=body.input,
            voice=body.voice,
            exaggeration=body.exaggeration,
            cfg_weight=body.cfg_weight,
            temperature=body.temperature,
        )
        understood, _ = await self._speech.understand(fields, Form({}, ()))
        asked = (body.response_format or "mp3").lower()
        response_format = asked if asked in RESPONSE_FORMATS else "mp3"
        said = replace(understood, response_format=response_format, buffered=False)
        job = jobs.submit(self._service.prepare(said), body.voice, session_id=body.session_id)
        return JSONResponse(created_of(job))

    async def list_jobs(self, request: Request) -> Response:
        """`GET …/long`: the newest first; `session_id`, `status` and `limit` choose."""
        chosen = self._jobs.owned()
        session, status = (request.query_params.get(name) for name in ("session_id", "status"))
        if session is not None:
            chosen = [job for job in chosen if job.session_id == session]
        return self._listed(request, chosen, status)

    async def history(self, request: Request) -> Response:
        """`GET …/long-history`: the jobs that are over."""
        chosen = [job for job in self._jobs.owned() if job.state in FINAL]
        return self._listed(request, chosen, request.query_params.get("status"))

    def _listed(self, request: Request, jobs: list[Job], status: str | None) -> Response:
        if status is not None:
            if status not in list(State):
                raise wrong("query", "status", f"Input should be one of {', '.join(State)}")
            jobs = [job for job in jobs if job.state == status]
        limit = query_number(request, "limit", LISTED, 1, MOST_LISTED)
        return JSONResponse(
            {
                "jobs": [item_of(job, show_texts=self._show_texts) for job in jobs[:limit]],
                "total_jobs": len(jobs),
                "active_jobs": sum(job.state in ACTIVE for job in jobs),
                "completed_jobs": sum(job.state is State.COMPLETED for job in jobs),
            }
        )

    async def history_stats(self, request: Request) -> Response:
        """`GET …/long-history/stats`."""
        del request
        jobs = self._jobs.owned()
        completed = [job for job in jobs if job.state is State.COMPLETED]
        failed = sum(job.state is State.FAILED for job in jobs)
        seconds = [(job.ended or 0.0) - (job.started or 0.0) for job in completed]
        voices = Counter(job.voice_name for job in completed if job.voice_name)
        return JSONResponse(
            {
                "total_jobs": len(jobs),
                "completed_jobs": len(completed),
                "failed_jobs": failed,
                "total_audio_duration_seconds": round(sum(j.made_seconds for j in completed), 3),
                "total_storage_bytes": sum(job.stored_bytes for job in completed),
                "average_processing_time_seconds": round(sum(seconds) / max(1, len(seconds)), 3),
                "success_rate_percentage": round(
                    100 * len(completed) / max(1, len(completed) + failed), 2
                ),
                "most_used_voice": voices.most_common(1)[0][0] if voices else None,
                "jobs_by_month": {},
            }
        )

    async def status(self, request: Request) -> Response:
        """`GET …/{id}`."""
        return JSONResponse(status_of(self._job(request)))

    async def details(self, request: Request) -> Response:
        """`GET …/{id}/details`; the text only where texts are shown."""
        job = self._job(request)
        return JSONResponse(
            {
                "metadata": metadata_of(job),
                "chunks": [],
                "input_text": job.request.text.written if self._show_texts else "[hidden]",
                "error_log": [job.error] if job.error else [],
                "performance_metrics": {"audio_seconds": round(job.made_seconds, 3)},
            }
        )

    async def update(self, request: Request) -> Response:
        """`PATCH …/{id}`: its name, tags, and whether it is archived."""
        job = self._job(request)
        fields, _ = await read_form(self._bodies, request, Update, LARGEST_BODY_BYTES)
        if "display_name" in fields.model_fields_set:
            job.display_name = fields.display_name
        if fields.is_archived is not None:
            job.archived = fields.is_archived
        if fields.tags is not None:
            job.tags = tuple(fields.tags)
        return JSONResponse(metadata_of(job))

    async def end(self, request: Request) -> Response:
        """`DELETE …/{id}`: `action=cancel` (or nothing) ends it, `action=delete` forgets it."""
        job = self._job(request)
        action = request.query_params.get("action", "cancel")
        if action == "cancel":
            self._jobs.cancel(job)
            return JSONResponse({"message": f"Job {job.id} cancelled successfully"})
        if action == "delete":
            self._jobs.delete(job)
            return JSONResponse({"message": f"Job {job.id} deleted successfully"})
        raise wrong("query", "action", "Input should be 'cancel' or 'delete'")

    async def pause(self, request: Request) -> Response:
        """`PUT …/{id}/pause`."""
        job = self._job(request)
        self._jobs.pause(job)
        return JSONResponse({"message": f"Job {job.id} paused successfully"})

    async def resume(self, request: Request) -> Response:
        """`PUT …/{id}/resume`: it begins again."""
        job = self._job(request)
        self._jobs.resume(job)
        return JSONResponse({"message": f"Job {job.id} resumed successfully"})

    async def retry(self, request: Request) -> Response:
        """`POST …/{id}/retry`: the same as a new job."""
        return JSONResponse(created_of(self._repeat(self._job(request))))

    def _repeat(self, job: Job) -> Job:
        if job.state not in FINAL:
            raise WrongJobState(f"A job that is {job.state} cannot be repeated.")
        return self._jobs.submit(job.speech, job.voice_name, session_id=job.session_id, repeats=job)

    async def bulk(self, request: Request) -> Response:
        """`POST …/bulk`: one action on many jobs; those that fail are named."""
        fields, _ = await read_form(self._bodies, request, Bulk, LARGEST_BODY_BYTES)
        jobs = self._jobs
        if not fields.confirm:
            raise InvalidRequest("Set confirm to true to proceed.")
        failed = []
        for job_id in fields.job_ids:
            try:
                job = jobs.get(job_id)
                if fields.action == "delete":
                    jobs.delete(job)
                elif fields.action == "retry":
                    self._repeat(job)
                else:
                    job.archived = fields.action == "archive"
            except GatewayError:
                failed.append(job_id)
        count = len(fields.job_ids)
        return JSONResponse(
            {
                "success_count": count - len(failed),
                "failed_count": len(failed),
                "total_count": count,
                "failed_jobs": failed,
                "message": f"{count - len(failed)} of {count} jobs: {fields.action}",
            }
        )

    async def download(self, request: Request) -> Response:
        """`GET …/{id}/download`: the whole file, 409 before it is complete."""
        job = self._job(request)
        if job.state is not State.COMPLETED:
            raise WrongJobState(f"The job is not completed: it is {job.state}.")
        name = f"long_text_{job.id}.{job.request.response_format}"
        return StreamingResponse(
            _pieces(self._jobs, job),
            media_type=job.content_type,
            headers={
                "Content-Length": str(job.stored_bytes),
                "Content-Disposition": f'attachment; filename="{name}"',
            },
        )

    async def events(self, request: Request) -> Response:
        """`GET …/{id}/sse`: `progress` until the job is `completed`, or an `error` says why not."""
        return StreamingResponse(
            _events(self._job(request)),
            media_type="text/event-stream",
            headers=STREAM_HEADERS,
        )


async def _pieces(jobs: LongJobs, job: Job) -> AsyncIterator[bytes]:
    """A file's bytes; it holds nothing between two of them."""
    start = 0
    while data := await jobs.read(job, start, READ_BYTES):
        start += len(data)
        yield data


async def _events(job: Job) -> AsyncIterator[bytes]:
    """A job's life as events; paused ones go on when it is resumed."""
    while job.state not in FINAL:
        yield _event("progress", progress_of(job))
        changed = job.changed
        try:
            await asyncio.wait_for(changed.wait(), EVENT_SECONDS)
        except TimeoutError:
            continue  # the event tells the client that the connection lives
    yield _event("completed" if job.state is State.COMPLETED else "error", status_of(job))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
