"""Jobs as surfaces use them: submit, look, steer, fetch."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.access.rate_limits import CALLER, charge_audio
from gateway.audio.join import PAUSES_SECONDS
from gateway.errors import GatewayError, JobNotFound, NoJobs, SegmentLost, WrongJobState
from gateway.speech.jobs.chapters import Part, plan_segments
from gateway.speech.jobs.job import ACTIVE, FINAL, Job, Notes, SegmentRecord, State
from gateway.speech.jobs.runner import Runner
from gateway.speech.jobs.store import NewJob, Store
from gateway.speech.jobs.store_thread import StoreThread, open_store
from gateway.speech.prepare import PreparedSpeech
from gateway.text.boundary import Boundary

logger = logging.getLogger("gateway.jobs")

MOST_OPEN = 64  # jobs of one folder that are not over
MOST_CHARACTERS = 2_000_000  # two long novels
LOOK_SECONDS = 1.0  # how often a watcher looks whether another process has changed a job
CLEAN_SECONDS = 600.0


@dataclass(slots=True)
class Jobs:
    """The jobs of one folder.

    Attributes:
        folder: Where they are stored; shared by all gateways of one data folder.
        most_bytes: Audio of all jobs together.
        retention_seconds: A job that is over is deleted after so long.
    """

    folder: Path
    most_bytes: int
    retention_seconds: float
    _runner: Runner | None = None

    async def open(self, runner_of: Callable[[StoreThread], Runner]) -> None:
        """Open the store, or log why there are no jobs.

        Args:
            runner_of: Makes the worker on an open store.
        """
        try:
            self._runner = runner_of(await open_store(self.folder, self.most_bytes))
        except (OSError, sqlite3.Error) as error:
            logger.warning("no jobs: %s: %s", self.folder, error)

    async def run(self) -> None:
        """Work on the store's jobs until cancelled; without a store there is nothing to do."""
        if self._runner is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.run())
            group.create_task(self._clean())

    async def aclose(self) -> None:
        """Close the store; the worker has been cancelled before."""
        if self._runner is not None:
            await self._runner.store.aclose()

    async def _clean(self) -> None:
        """Delete what is over for long, again and again."""
        while True:
            try:
                for job in await self._store(Store.jobs, FINAL):
                    if job.ended and time.time() - job.ended > self.retention_seconds:
                        await self._store(Store.delete, job.id)
            except GatewayError as error:
                logger.warning("old jobs stay for now: %s", error)
            await asyncio.sleep(CLEAN_SECONDS)

    @property
    def _worker(self) -> Runner:
        """What works on the open store.

        Raises:
            NoJobs: It could not be opened; the log says why.
        """
        if self._runner is None:
            raise NoJobs("Jobs cannot be had: their folder cannot be used.", retry_after_seconds=5)
        return self._runner

    @property
    def _store(self) -> StoreThread:
        return self._worker.store

    async def submit(
        self,
        prepared: PreparedSpeech,
        parts: Sequence[Part],
        notes: Notes,
        *,
        paragraph_pause_seconds: float | None = None,
        chapter_pause_seconds: float = PAUSES_SECONDS[Boundary.CHAPTER],
    ) -> Job:
        """Store a new job; it starts when its turn comes.

        Args:
            prepared: How it is said; its text is the whole text.
            parts: Its text, by chapters.
            notes: The client's own.
            paragraph_pause_seconds: At every paragraph; None leaves the pauses within a
                generation to the engine.
            chapter_pause_seconds: At every chapter.

        Raises:
            InvalidRequest: A text that cannot be spoken.
            QueueFull: There are too many jobs that are not over.
            JobStoreFull, JobStoreBusy, NoJobs: It cannot be stored.
            RateLimited: The caller has had its audio of this minute.
        """
        every_paragraph = paragraph_pause_seconds is not None
        segments, chapters = await asyncio.to_thread(
            plan_segments, parts, prepared.segments_of, every_paragraph=every_paragraph
        )
        new = NewJob(
            _caller(),
            prepared.request,
            notes,
            segments,
            chapters,
            likely_seconds=prepared.request.text.likely_seconds,
            paragraph_pause_seconds=paragraph_pause_seconds or PAUSES_SECONDS[Boundary.PARAGRAPH],
            chapter_pause_seconds=chapter_pause_seconds,
        )
        return await self._add(new)

    async def _add(self, new: NewJob) -> Job:
        settle, stored_seconds = charge_audio(new.likely_seconds), 0.0
        try:
            job = await self._store(Store.add, new, MOST_OPEN)
            stored_seconds = new.likely_seconds
        finally:
            settle(stored_seconds)
        self._worker.poke()
        return job

    async def owned(self) -> list[Job]:
        """The current caller's jobs, the newest first."""
        owner = _caller()
        return [job for job in await self._store(Store.jobs) if job.owner == owner]

    async def get(self, job_id: str) -> Job:
        """One of the current caller's jobs.

        Raises:
            JobNotFound: There is none of this id.
        """
        job = await self._store(Store.get, job_id)
        if job.owner != _caller():
            raise JobNotFound("There is no such job.")
        return job

    async def text(self, job: Job) -> str:
        """The whole text of a job."""
        return (await self._store(Store.request, job.id)).text.written

    async def search(self, text: str) -> set[str]:
        """Ids of the jobs whose text or name contains a text, in any letter case."""
        return await self._store(Store.search, text)

    async def annotate(self, job: Job, notes: Notes) -> Job:
        """Replace a job's notes."""
        await self._store(Store.annotate, job.id, notes)
        return replace(job, notes=notes)

    async def pause(self, job: Job) -> Job:
        """Stop a job that runs or waits: its slots are free at once, what it made stays.

        Raises:
            WrongJobState: It does neither.
        """
        return await self._enter(job, State.PAUSED, ACTIVE)

    async def resume(self, job: Job) -> Job:
        """Go on with a paused job.

        Raises:
            WrongJobState: It is not paused.
        """
        return await self._enter(job, State.PENDING, frozenset({State.PAUSED}))

    async def cancel(self, job: Job) -> Job:
        """End a job for good; one that is over stays as it is."""
        if job.state in FINAL:
            return job
        return await self._enter(job, State.CANCELLED, ACTIVE | {State.PAUSED})

    async def retry(self, job: Job) -> Job:
        """Go on with a failed or cancelled job; what it made is not made again.

        Raises:
            WrongJobState: It is neither.
        """
        return await self._enter(job, State.PENDING, frozenset({State.FAILED, State.CANCELLED}))

    async def repeat(self, job: Job) -> Job:
        """A new job that says the same.

        Raises:
            WrongJobState: The first one is not over.
        """
        if job.state not in FINAL:
            raise WrongJobState(f"A job that is {job.state} cannot be repeated.")
        request = await self._store(Store.request, job.id)
        segments = await self._store(Store.segments, job.id)
        new = NewJob(
            job.owner,
            request,
            replace(job.notes, original_id=job.id, retries=job.notes.retries + 1),
            tuple(SegmentRecord(each.number, each.text, each.before) for each in segments),
            tuple(replace(chapter, start_seconds=None) for chapter in job.chapters),
            likely_seconds=job.likely_seconds,
            paragraph_pause_seconds=job.paragraph_pause_seconds,
            chapter_pause_seconds=job.chapter_pause_seconds,
        )
        return await self._add(new)

    async def delete(self, job: Job) -> None:
        """Delete a job and its audio, in any state."""
        await self._store(Store.delete, job.id)
        self._worker.poke(job.id)

    async def _enter(self, job: Job, state: State, among: frozenset[State]) -> Job:
        changed = await self._store(Store.enter, job.id, state, among)
        self._worker.poke(job.id)
        return changed

    async def audio(self, job: Job) -> Path:
        """The file of a complete job.

        Raises:
            WrongJobState: It is not complete.
            SegmentLost: The file is gone; the job has failed now, and retry makes it again.
        """
        if job.state is not State.COMPLETED or job.stored_name is None:
            raise WrongJobState(f"The job is not completed: it is {job.state}.")
        path = self._store.blocking.folder_of(job.id) / job.stored_name
        if not path.exists():
            reason = "The stored audio is gone; retry makes it again."
            await self._store(Store.fail, job.id, reason)
            raise SegmentLost(reason)
        return path

    async def encoded(self, job: Job, response_format: str) -> AsyncIterator[bytes]:
        """A complete job's stored segments in another format, piece by piece.

        Raises:
            WrongJobState: It is not complete.
            JobStoreBusy: It cannot be read now.
        """
        if job.state is not State.COMPLETED:
            raise WrongJobState(f"The job is not completed: it is {job.state}.")
        request = await self._store(Store.request, job.id)
        segments = await self._store(Store.segments, job.id)
        return self._worker.encode(job, replace(request, response_format=response_format), segments)

    async def watch(self, job: Job) -> AsyncIterator[Job]:
        """A job whenever it has changed, and at least every second, until it is over."""
        yield job
        while job.state not in FINAL:
            await asyncio.sleep(LOOK_SECONDS)
            job = await self.get(job.id)
            yield job


def _caller() -> str | None:
    caller = CALLER.get()
    return caller.name if caller is not None else None
