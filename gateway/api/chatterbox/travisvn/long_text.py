"""Long texts of travisvn/chatterbox-tts-api: spoken in the background, fetched when done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gateway.access.policy import JOBS
from gateway.api.chatterbox.fields import read_form, read_query
from gateway.api.chatterbox.travisvn.long_text_schemas import (
    Bulk,
    EndQuery,
    HistoryQuery,
    ListQuery,
    LongBody,
    Update,
    created_of,
    done,
    item_of,
    metadata_of,
    progress_of,
    statistics_of,
    status_of,
)
from gateway.api.chatterbox.travisvn.speech import TravisvnSpeech
from gateway.api.events import event, event_stream
from gateway.api.multipart import form_bodies
from gateway.api.routes import AUDIO_TYPES, EVENTS_TYPE, Json, delete, get, patch, post, put
from gateway.audio.encoders import ENCODERS, RESPONSE_FORMATS
from gateway.errors import GatewayError, InvalidRequest, JobNotFound
from gateway.speech.jobs.chapters import split_chapters
from gateway.speech.jobs.job import ACTIVE, FINAL, Job, Notes, State
from gateway.speech.jobs.jobs import Jobs

LARGEST_BODY_BYTES = 1024 * 1024  # 100,000 characters, each escaped
LONG, HISTORY = "/audio/speech/long", "/audio/speech/long-history"
JOB = f"{LONG}/{{job_id}}"


@dataclass(frozen=True, slots=True)
class TravisvnLong:
    """The routes of long texts.

    Attributes:
        jobs: The jobs.
        speech: Understands what is to be said.
        show_texts: Show the texts of jobs.
    """

    jobs: Jobs
    speech: TravisvnSpeech
    show_texts: bool

    @post(LONG, JOBS, "Begin a job", bodies=form_bodies(LongBody))
    async def create(self, request: Request) -> Json:
        """`POST …/long`."""
        body, _ = await read_form(self.speech.bodies, request, LongBody, LARGEST_BODY_BYTES)
        understood, _ = await self.speech.understand(body)
        if (body.response_format or "").lower() not in RESPONSE_FORMATS:
            understood = replace(understood, response_format="mp3")  # a day of WAV is 4 GB
        job = await self.jobs.submit(
            self.speech.service.prepare(understood),
            split_chapters(body.input, markdown=False),
            Notes(voice_name=body.voice, session_id=body.session_id),
        )
        return created_of(job)

    @get(LONG, JOBS, "List the jobs", query=ListQuery)
    async def list_jobs(self, request: Request) -> Json:
        """`GET …/long`: the newest first; `session_id`, `status` and `limit` choose."""
        query = read_query(request, ListQuery)
        jobs = [job for job in await self.jobs.owned() if query.chooses(job)]
        return self._listed(jobs, jobs[: query.limit])

    @get(HISTORY, JOBS, "List the jobs that are over", query=HistoryQuery)
    async def history(self, request: Request) -> Json:
        """`GET …/long-history`: filtered and sorted as that server does."""
        query = read_query(request, HistoryQuery)
        found = await self.jobs.search(query.search) if query.search else None
        jobs = [
            job
            for job in await self.jobs.owned()
            if query.chooses(job) and (found is None or job.id in found)
        ]
        jobs.sort(key=query.sort_key, reverse=query.descending)
        return self._listed(jobs, jobs[query.offset : query.offset + query.limit])

    def _listed(self, jobs: list[Job], page: list[Job]) -> Json:
        return {
            "jobs": [item_of(job, show_texts=self.show_texts) for job in page],
            "total_jobs": len(jobs),
            "active_jobs": sum(job.state in ACTIVE for job in jobs),
            "completed_jobs": sum(job.state is State.COMPLETED for job in jobs),
        }

    @get(f"{HISTORY}/stats", JOBS, "How jobs ended")
    async def history_stats(self, _: Request) -> Json:
        """`GET …/long-history/stats`."""
        return statistics_of(await self.jobs.owned())

    @get(JOB, JOBS, "Show a job")
    async def status(self, _: Request, job_id: str) -> Json:
        """`GET …/{id}`."""
        return status_of(await self.jobs.get(job_id))

    @get(f"{JOB}/details", JOBS, "Show all of a job")
    async def details(self, _: Request, job_id: str) -> Json:
        """`GET …/{id}/details`; the text only where texts are shown."""
        job = await self.jobs.get(job_id)
        return {
            "metadata": metadata_of(job),
            "chunks": [],
            "input_text": await self.jobs.text(job) if self.show_texts else "[hidden]",
            "error_log": [job.error] if job.error else [],
            "performance_metrics": {"audio_seconds": round(job.made_seconds, 3)},
        }

    @patch(JOB, JOBS, "Note on a job", bodies=form_bodies(Update))
    async def update(self, request: Request, job_id: str) -> Json:
        """`PATCH …/{id}`: its name, tags, and whether it is archived."""
        job = await self.jobs.get(job_id)
        fields, _ = await read_form(self.speech.bodies, request, Update, LARGEST_BODY_BYTES)
        changes = fields.model_dump(exclude_unset=True)
        job = await self.jobs.annotate(job, replace(job.notes, **changes))
        return done(job, "Job metadata updated successfully")

    @delete(JOB, JOBS, "Cancel or delete a job", query=EndQuery)
    async def end(self, request: Request, job_id: str) -> Json:
        """`DELETE …/{id}`: `action=cancel` (or nothing) ends it, `action=delete` forgets it."""
        job = await self.jobs.get(job_id)
        if read_query(request, EndQuery).action == "cancel":
            job = await self.jobs.cancel(job)
            return done(job, f"Job {job.id} cancelled successfully")
        await self.jobs.delete(job)
        return done(job, f"Job {job.id} deleted successfully")

    @put(f"{JOB}/pause", JOBS, "Pause a job")
    async def pause(self, _: Request, job_id: str) -> Json:
        """`PUT …/{id}/pause`: what it made stays."""
        job = await self.jobs.pause(await self.jobs.get(job_id))
        return done(job, f"Job {job.id} paused successfully")

    @put(f"{JOB}/resume", JOBS, "Resume a job")
    async def resume(self, _: Request, job_id: str) -> Json:
        """`PUT …/{id}/resume`: go on with it."""
        job = await self.jobs.resume(await self.jobs.get(job_id))
        return done(job, f"Job {job.id} resumed successfully")

    @post(f"{JOB}/retry", JOBS, "Repeat a job")
    async def retry(self, _: Request, job_id: str) -> Json:
        """`POST …/{id}/retry`: the same as a new job."""
        return created_of(await self.jobs.repeat(await self.jobs.get(job_id)))

    @post(f"{LONG}/bulk", JOBS, "Change jobs", bodies=form_bodies(Bulk))
    async def bulk(self, request: Request) -> Json:
        """`POST …/bulk`: one action on many jobs; those that fail are named."""
        fields, _ = await read_form(self.speech.bodies, request, Bulk, LARGEST_BODY_BYTES)
        if not fields.confirm:
            raise InvalidRequest("Set confirm to true to proceed.")
        failed = []
        for job_id in fields.job_ids:
            try:
                await self._act(fields.action, await self.jobs.get(job_id))
            except GatewayError:
                failed.append(job_id)
        count = len(fields.job_ids)
        return {
            "success_count": count - len(failed),
            "failed_count": len(failed),
            "total_count": count,
            "failed_jobs": failed,
            "message": f"{count - len(failed)} of {count} jobs: {fields.action}",
        }

    async def _act(self, action: str, job: Job) -> None:
        if action == "delete":
            await self.jobs.delete(job)
        elif action == "retry":
            await self.jobs.repeat(job)
        else:
            await self.jobs.annotate(job, replace(job.notes, archived=action == "archive"))

    @get(f"{JOB}/download", JOBS, "Fetch a job's audio", produces=AUDIO_TYPES)
    async def download(self, _: Request, job_id: str) -> Response:
        """`GET …/{id}/download`: the whole file or ranges of it, 409 before it is complete."""
        job = await self.jobs.get(job_id)
        return FileResponse(
            await self.jobs.audio(job),
            media_type=ENCODERS[job.response_format].content_type,
            filename=f"long_text_{job.id}.{job.response_format}",
        )

    @get(f"{JOB}/sse", JOBS, "Watch a job", produces=(EVENTS_TYPE,))
    async def events(self, _: Request, job_id: str) -> Response:
        """`GET …/{id}/sse`: `progress` until the job is `completed`, or an `error` says why not."""
        return event_stream(self._events(await self.jobs.get(job_id)))

    async def _events(self, job: Job) -> AsyncIterator[bytes]:
        """A job's life as events; paused ones go on when it is resumed."""
        with suppress(JobNotFound):  # deleted: the stream ends
            async for seen in self.jobs.watch(job):
                if seen.state not in FINAL:
                    yield event("progress", progress_of(seen))
                else:
                    name = "completed" if seen.state is State.COMPLETED else "error"
                    yield event(name, status_of(seen))
