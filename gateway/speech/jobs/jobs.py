"""Long texts in the background: jobs of one process, their audio in temporary files.

A job goes the same straight line as every request and waits for its turn; what it made stays until
newer jobs need the room, or the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from concurrent.futures import Executor
from functools import partial
from typing import IO

from gateway.access.rate_limits import CALLER
from gateway.audio.encoders.wav import HEADER_BYTES, header
from gateway.errors import (
    EncodingError,
    GatewayError,
    JobNotFound,
    QueueFull,
    WrongJobState,
)
from gateway.speech.activity import chunks_in
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.jobs.job import ACTIVE, FINAL, Job, State
from gateway.speech.prepare import PreparedSpeech
from gateway.speech.service import SpeechService

logger = logging.getLogger("gateway.jobs")

MOST_JOBS = 64  # of one process, whatever their state
MOST_RUNNING = 2  # the rest of the slots are for people who wait
MOST_STORED_BYTES = 1024 * 1024 * 1024  # of all jobs: some six hours of WAV
WRITE_BYTES = 256 * 1024
RETRY_SECONDS = 5.0  # where no slot is free: a job has time
MOST_RETRIES = 120


class LongJobs:
    """The jobs of one process.

    Args:
        service: The straight line.
        threads: Where files are read and written.
    """

    def __init__(self, service: SpeechService, threads: Executor) -> None:
        self._service = service
        self._threads = threads
        self._jobs: dict[str, Job] = {}
        self._running = asyncio.Semaphore(MOST_RUNNING)

    def __repr__(self) -> str:
        """States, for tests."""
        return f"<LongJobs {[job.state.value for job in self._jobs.values()]}>"

    def owned(self) -> list[Job]:
        """The current caller's jobs, the newest first."""
        owner = _caller()
        return [job for job in reversed(self._jobs.values()) if job.owner == owner]

    def get(self, job_id: str) -> Job:
        """One of the current caller's jobs.

        Raises:
            JobNotFound: There is none of this id.
        """
        job = self._jobs.get(job_id)
        if job is None or job.owner != _caller():
            raise JobNotFound("There is no such job.")
        return job

    def submit(
        self,
        speech: PreparedSpeech,
        voice_name: str | None,
        *,
        session_id: str | None = None,
        repeats: Job | None = None,
    ) -> Job:
        """A new job; it starts when its turn comes.

        Raises:
            QueueFull: There are too many jobs that are not over.
        """
        self._make_room()
        request = speech.request
        job = Job(
            speech,
            voice_name,
            _caller(),
            session_id,
            original_id=repeats.id if repeats else None,
            retries=repeats.retries + 1 if repeats else 0,
            likely_seconds=request.text.likely_seconds / request.speed,
        )
        self._jobs[job.id] = job
        job.total_chunks = chunks_in(job.likely_seconds)
        self._start(job)
        return job

    def _make_room(self) -> None:
        if len(self._jobs) < MOST_JOBS:
            return
        oldest = next((job for job in self._jobs.values() if job.state in FINAL), None)
        if oldest is None:
            raise QueueFull(
                f"There are {MOST_JOBS} jobs that are not over.", retry_after_seconds=RETRY_SECONDS
            )
        self.delete(oldest)

    def _start(self, job: Job) -> None:
        job.enter(State.PENDING)
        job.task = asyncio.create_task(self._run(job), name=f"job {job.id}")

    def pause(self, job: Job) -> None:
        """Stop a job that runs or waits: its slot is free at once, what it made is dropped.

        Raises:
            WrongJobState: It does neither.
        """
        if job.state not in ACTIVE:
            raise WrongJobState(f"A job that is {job.state} cannot be paused.")
        self._stop(job, State.PAUSED)

    def resume(self, job: Job) -> None:
        """Begin a paused job again.

        Raises:
            WrongJobState: It is not paused.
        """
        if job.state is not State.PAUSED:
            raise WrongJobState(f"A job that is {job.state} cannot be resumed.")
        self._start(job)

    def cancel(self, job: Job) -> None:
        """End a job for good; one that is over stays as it is."""
        if job.state not in FINAL:
            self._stop(job, State.CANCELLED)

    def delete(self, job: Job) -> None:
        """Forget a job, whatever it does."""
        self.cancel(job)
        job.drop_audio()
        self._jobs.pop(job.id, None)

    def _stop(self, job: Job, state: State) -> None:
        job.enter(state)
        if job.task is not None:
            job.task.cancel()

    async def aclose(self) -> None:
        """End all jobs."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for job in list(self._jobs.values()):
            self.delete(job)
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: Job) -> None:
        """One job from its turn to its end."""
        try:
            async with self._running:
                job.started = time.time()
                job.enter(State.PROCESSING)
                await self._speak(job)
            job.enter(State.COMPLETED)
        except GatewayError as error:
            self._fail(job, error.message)
        except OSError as error:
            logger.warning("a job's file: %s", error)
            self._fail(job, "The audio could not be stored.")
        except Exception:
            logger.exception("internal error in a job")
            self._fail(job, "The gateway failed; its log says how.")
        finally:
            if job.state is not State.COMPLETED:
                job.drop_audio()

    def _fail(self, job: Job, message: str) -> None:
        job.error = message
        job.enter(State.FAILED)

    async def _speak(self, job: Job) -> None:
        """Speak a job's text into its file.

        Raises:
            GatewayError: There is no whole answer.
            OSError: It cannot be stored.
        """
        with self._service.counted(job.request) as held:
            held.answer = answer = await self._open(job)
            job.content_type = answer.content_type
            await self._store(job, answer)

    async def _open(self, job: Job) -> EncodedStream:
        """A job's answer at its first audio; it waits where others are first."""
        for _ in range(MOST_RETRIES):
            try:
                return await self._service.open(job.speech, time.monotonic())
            except QueueFull:
                await asyncio.sleep(RETRY_SECONDS)
        raise QueueFull("No slot came free for a long time.")

    async def _store(self, job: Job, answer: EncodedStream) -> None:
        in_thread = partial(asyncio.get_running_loop().run_in_executor, self._threads)
        file = job.file = await in_thread(tempfile.TemporaryFile)
        pending = bytearray()
        while True:
            data = await answer.read()
            pending += data
            if len(pending) >= WRITE_BYTES or not data:
                self._reserve(job, len(pending))
                await in_thread(_write_at, job, file, None, bytes(pending))
                answer.count_delivered(len(pending))
                pending.clear()
                job.made_seconds = answer.audio_seconds
                job.updated = time.time()
                job.tell()
            if not data:
                break
        if job.request.response_format == "wav":  # now the sizes are known
            front = header(job.request.sample_rate_hz, job.stored_bytes - HEADER_BYTES)
            await in_thread(_write_at, job, file, 0, front)

    def _reserve(self, job: Job, count_bytes: int) -> None:
        """Count bytes that are stored, and drop the oldest jobs that are over for them.

        Raises:
            EncodingError: The job alone is too large.
        """
        job.stored_bytes += count_bytes
        while sum(each.stored_bytes for each in self._jobs.values()) > MOST_STORED_BYTES:
            oldest = next((each for each in self._jobs.values() if each.state in FINAL), None)
            if oldest is None:
                raise EncodingError("There is no room for the audio.")
            self.delete(oldest)

    async def read(self, job: Job, start: int, count_bytes: int) -> bytes:
        """A part of a complete job's audio; empty behind its end, and when it was dropped."""
        if job.file is None:
            return b""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _read_at, job, job.file, start, count_bytes
        )


def _read_at(job: Job, file: IO[bytes], start: int, count_bytes: int) -> bytes:
    with job.lock:
        if file.closed:
            return b""
        file.seek(start)
        return file.read(count_bytes)


def _write_at(job: Job, file: IO[bytes], start: int | None, data: bytes) -> None:
    """Write at a place, or behind all that is there."""
    with job.lock:
        if not file.closed:  # else the job was ended in between
            if start is not None:
                file.seek(start)
            file.write(data)


def _caller() -> str | None:
    caller = CALLER.get()
    return caller.name if caller is not None else None
