"""Works on jobs: takes leases, makes segments in spare slots, completes what is made.

Jobs give way to live requests: a segment takes a slot only while no request waits, and ends when
one has to wait; it is made again. One that has waited for PATIENCE_SECONDS goes to the head of the
queue and keeps its slot, so that a job is never starved.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from gateway.audio.encoders.wav import header
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.audio.transcoder import BitRates
from gateway.errors import (
    GatewayError,
    InternalError,
    JobStoreBusy,
    NoHealthyUpstream,
    QueueFull,
    SegmentLost,
    ShuttingDown,
    UpstreamError,
)
from gateway.speech.admission import Admission
from gateway.speech.jobs.job import ACTIVE, Job, SegmentRecord, State
from gateway.speech.jobs.output import Output, timed
from gateway.speech.jobs.store import LeaseLost, Store
from gateway.speech.prepare import Context, PreparedSpeech
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.text.boundary import Boundary
from gateway.upstream.dialect import Reference

logger = logging.getLogger("gateway.jobs")

PATIENCE_SECONDS = 30.0
MOST_TRIES = 3
RETRY_SECONDS = 2.0
OUTAGE_SECONDS = 3600.0  # with no engine for so long, a job fails; retry goes on with it
BEATS_A_LEASE = 5
Result = TypeVar("Result")
MakeSegment = Callable[[PreparedSpeech, str, tuple[Reference, ...]], Awaitable[bytes]]


class InThread(Protocol):
    """Runs blocking work in a thread."""

    async def __call__(self, work: Callable[[], Result], /) -> Result:
        """What the work returns."""


class Runner:
    """Works on the jobs of a store, those of dead processes included.

    Args:
        store: The jobs.
        in_store: Runs a function in the store's thread.
        in_thread: Runs a function in a codec's thread.
        make: Makes the PCM of one segment, whole.
        prepare: Decides how a request is made.
        admission: The slots.
        metrics: Where segments are counted.
        bit_rates: Of the lossy formats.
        most_segments: Segments that are made at once, of all jobs of this process.
        lease_seconds: A holder whose heartbeat stands still for so long is taken for dead.
    """

    def __init__(
        self,
        store: Store,
        in_store: InThread,
        in_thread: InThread,
        make: MakeSegment,
        prepare: Callable[[SpeechRequest], PreparedSpeech],
        admission: Admission,
        metrics: Metrics,
        bit_rates: BitRates,
        *,
        most_segments: int,
        lease_seconds: float,
    ) -> None:
        self.holder = uuid.uuid4().hex
        self._store = store
        self._in_store = in_store
        self._in_thread = in_thread
        self._make = make
        self._prepare = prepare
        self._admission = admission
        self._metrics = metrics
        self._bit_rates = bit_rates
        self._most_segments = most_segments
        self._places = asyncio.Semaphore(most_segments)
        self._lease_seconds = lease_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Heartbeats of other holders, and since when, by this process' monotonic clock.
        self._seen: dict[str, tuple[str, int, float]] = {}
        self._poked = asyncio.Event()

    def poke(self, job_id: str | None = None) -> None:
        """Look at the store soon; stop work on a job that was changed."""
        if job_id is not None and (task := self._tasks.get(job_id)) is not None:
            task.cancel()
        self._poked.set()

    async def run(self) -> None:
        """Work until cancelled; then give the jobs up, for another process to go on with."""
        try:
            while True:
                self._poked.clear()
                try:
                    await self._look()
                except (GatewayError, sqlite3.Error, OSError) as error:
                    logger.warning("the store of jobs cannot be used: %s", error)
                try:
                    async with asyncio.timeout(self._lease_seconds / BEATS_A_LEASE):
                        await self._poked.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._in_store(partial(self._store.release, self.holder))
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("jobs stay leased until their lease is over: %s", error)

    async def _look(self) -> None:
        """Count a heartbeat, drop what is lost, and take what nobody works on."""
        held = await self._in_store(partial(self._store.beat, self.holder))
        for job_id, task in self._tasks.items():
            if job_id not in held:
                task.cancel()
        jobs = await self._in_store(self._store.jobs)
        for job in sorted(jobs, key=lambda job: job.created):
            if len(self._tasks) >= self._most_segments:
                break
            wanted = job.state in ACTIVE and job.id not in self._tasks and self._is_free(job)
            if wanted and await self._in_store(partial(self._store.take, job, self.holder)):
                self._begin(job)
        self._count(jobs)

    def _count(self, jobs: list[Job]) -> None:
        """Show how many jobs there are, and for how long the oldest has waited or run."""
        for state in State:
            self._metrics.jobs.labels(state).set(sum(job.state is state for job in jobs))
        begun = [job.created for job in jobs if job.state in ACTIVE]
        self._metrics.oldest_job.set(max(0.0, time.time() - min(begun)) if begun else 0.0)

    def _is_free(self, job: Job) -> bool:
        """Whether nobody works on it, or its holder's heartbeat stands still."""
        if job.holder is None or job.holder == self.holder:
            return True
        now = time.monotonic()
        holder, beat, since = self._seen.get(job.id, ("", -1, 0.0))
        if (holder, beat) != (job.holder, job.beat):
            self._seen[job.id] = (job.holder, job.beat, now)
            return False
        return now - since > self._lease_seconds

    def _begin(self, job: Job) -> None:
        self._seen.pop(job.id, None)
        task = self._tasks[job.id] = asyncio.create_task(self._work(job), name=f"job {job.id}")
        task.add_done_callback(lambda _: self._end(job.id))

    def _end(self, job_id: str) -> None:
        self._tasks.pop(job_id, None)
        self._poked.set()

    async def _work(self, job: Job) -> None:
        """One job to its end; a failure is told in it."""
        try:
            request = await self._in_store(partial(self._store.request, job.id))
            await self._in_store(partial(self._store.recover, job.id))
            await self._make_segments(job, self._prepare(request))
            await self._complete(job, request)
        except (LeaseLost, ShuttingDown):
            return  # another process goes on with it
        except GatewayError as error:
            await self._fail(job, error.message)
        except (OSError, sqlite3.Error) as error:
            logger.warning("job %s: %s", job.id, error)
            await self._fail(job, "The job's files cannot be read or written.")
        except Exception:
            logger.exception("internal error in job %s", job.id)
            await self._fail(job, InternalError().message)

    async def _fail(self, job: Job, message: str) -> None:
        fail = partial(self._store.fail, job.id, message, holder=self.holder)
        try:
            await self._in_store(fail)
        except GatewayError as error:  # the lease ends, and the job is tried again
            logger.warning("job %s: %s; its end could not be stored: %s", job.id, message, error)

    async def _make_segments(self, job: Job, prepared: PreparedSpeech) -> None:
        """Make what is not made, in order; several at once where none needs another's audio."""
        segments = await self._in_store(partial(self._store.segments, job.id))
        made = {segment.number: segment for segment in segments if segment.file}
        waiting = deque(segment for segment in segments if not segment.file)
        context = prepared.context
        running: set[asyncio.Task[SegmentRecord]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < self._most_segments:
                    segment = waiting[0]
                    if not _context_is_made(context, segment.number, made):
                        break
                    waiting.popleft()
                    references = await self._references(job, context, segment.number, made)
                    work = self._make_segment(job, prepared, segment, references)
                    running.add(asyncio.create_task(work))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    kept = task.result()
                    made[kept.number] = kept
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _references(
        self, job: Job, context: Context, number: int, made: dict[int, SegmentRecord]
    ) -> tuple[Reference, ...]:
        """Earlier segments that go along in the prompt."""
        read = partial(
            _read_references, self._store, job.id, [made[n] for n in _needed(context, number)]
        )
        return await self._in_store(read)

    async def _make_segment(
        self,
        job: Job,
        prepared: PreparedSpeech,
        segment: SegmentRecord,
        references: tuple[Reference, ...],
    ) -> SegmentRecord:
        """One segment's audio, stored.

        Raises:
            GatewayError: It failed MOST_TRIES times, or cannot be stored.
            LeaseLost: The job is another's now.
        """
        async with self._places:
            asked = time.monotonic()
            while True:
                try:
                    pcm = await self._in_spare_slot(
                        partial(self._make, prepared, segment.text, references), asked
                    )
                    break
                except (NoHealthyUpstream, QueueFull):
                    if time.monotonic() - asked > OUTAGE_SECONDS:
                        raise
                except UpstreamError as error:
                    await self._in_store(
                        partial(self._store.count_try, job.id, self.holder, segment.number)
                    )
                    segment = replace(segment, tries=segment.tries + 1)
                    self._metrics.job_segments.labels("retried").inc()
                    if segment.tries % MOST_TRIES == 0 or not error.retryable:
                        raise
                await asyncio.sleep(RETRY_SECONDS)
        seconds = len(pcm) / (2 * ENGINE_SAMPLE_RATE_HZ)
        keep = partial(
            self._store.keep_segment, job.id, self.holder, segment.number, pcm, seconds=seconds
        )
        name = await self._patiently(keep)
        self._metrics.job_segments.labels("made").inc()
        return replace(segment, file=name, samples=len(pcm) // 2)

    async def _patiently(self, write: Callable[[], Result]) -> Result:
        """Write what took long to make; a store that is busy for a while loses nothing."""
        for _ in range(MOST_TRIES):
            try:
                return await self._in_store(write)
            except JobStoreBusy:
                await asyncio.sleep(RETRY_SECONDS)
        return await self._in_store(write)

    async def _in_spare_slot(self, make: Callable[[], Awaitable[bytes]], asked: float) -> bytes:
        """Make something in a slot that no live request wants; again when one wanted it."""
        while True:
            patience_seconds = max(0.0, asked + PATIENCE_SECONDS - time.monotonic())
            async with self._admission.spare(patience_seconds) as slot:
                work = asyncio.ensure_future(make())
                slot.give_way = work.cancel
                try:
                    return await work
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    self._metrics.job_segments.labels("gave_way").inc()
                finally:
                    work.cancel()

    async def _complete(self, job: Job, request: SpeechRequest) -> None:
        """Encode the stored segments into the job's file."""
        segments = await self._in_store(partial(self._store.segments, job.id))
        output = self._output(job, request, segments)
        path = output.folder / f"audio-{self.holder}.{request.response_format}"
        seconds, starts_seconds = await self._in_thread(partial(output.write, path))
        chapters = timed(job.chapters, starts_seconds)
        finish = partial(
            self._store.finish, job.id, self.holder, path, seconds=seconds, chapters=chapters
        )
        await self._patiently(finish)

    def _output(self, job: Job, request: SpeechRequest, segments: list[SegmentRecord]) -> Output:
        pauses = pauses_of(job)
        return Output(self._store.folder_of(job.id), segments, request, pauses, self._bit_rates)

    async def encode(
        self, job: Job, request: SpeechRequest, segments: list[SegmentRecord]
    ) -> AsyncIterator[bytes]:
        """Encode stored segments piece by piece, each in a thread.

        Raises:
            SegmentLost: A file is gone.
            EncodingError: The codec failed.
        """
        output = self._output(job, request, segments)
        pieces = output.pieces(output.transcoder(), {})
        try:
            while (data := await self._in_thread(partial(next, pieces, None))) is not None:
                if data:
                    yield data
        finally:
            await self._in_thread(pieces.close)


def pauses_of(job: Job) -> dict[Boundary, float]:
    """The silence that a job wants at its joins, in seconds."""
    return {
        Boundary.PARAGRAPH: job.paragraph_pause_seconds,
        Boundary.CHAPTER: job.chapter_pause_seconds,
    }


def _needed(context: Context, number: int) -> tuple[int, ...]:
    """Numbers of the segments whose audio goes along with one."""
    if context is Context.NONE or number == 0:
        return ()
    if context is Context.FIRST or number == 1:
        return (0,)
    return (0, number - 1)


def _context_is_made(context: Context, number: int, made: dict[int, SegmentRecord]) -> bool:
    return all(needed in made for needed in _needed(context, number))


def _read_references(
    store: Store, job_id: str, segments: list[SegmentRecord]
) -> tuple[Reference, ...]:
    """Stored segments as voice samples.

    Raises:
        SegmentLost: A file is gone.
    """
    found = []
    for segment in segments:
        try:
            pcm = (store.folder_of(job_id) / str(segment.file)).read_bytes()
        except OSError as error:
            raise SegmentLost(f"The stored audio of segment {segment.number} is gone.") from error
        found.append(Reference(header(ENGINE_SAMPLE_RATE_HZ, len(pcm)) + pcm, segment.text))
    return tuple(found)
