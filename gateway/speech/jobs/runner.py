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
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from gateway.audio.encoders.wav import wav_file
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
from gateway.speech.jobs.output import Output
from gateway.speech.jobs.store import LeaseLost, Store
from gateway.speech.jobs.store_thread import StoreThread
from gateway.speech.prepare import PreparedSpeech
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


@dataclass(slots=True, eq=False)
class Runner:
    """Works on the jobs of a store, those of dead processes included.

    Attributes:
        store: The jobs.
        threads: Of the codecs.
        make: Makes the PCM of one segment, whole.
        prepare: Decides how a request is made.
        admission: The slots.
        metrics: Where segments are counted.
        bit_rates: Of the lossy formats.
        most_segments: Segments that are made at once, of all jobs of this process.
        lease_seconds: A holder whose heartbeat stands still for so long is taken for dead.
        holder: Names this process in the rows of its jobs.
    """

    store: StoreThread
    threads: Executor
    make: MakeSegment
    prepare: Callable[[SpeechRequest], PreparedSpeech]
    admission: Admission
    metrics: Metrics
    bit_rates: BitRates
    most_segments: int
    lease_seconds: float
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    _places: asyncio.Semaphore = field(init=False)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    # Heartbeats of other holders, and since when, by this process' monotonic clock.
    _seen: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    _poked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Bound the segments of all jobs together."""
        self._places = asyncio.Semaphore(self.most_segments)

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
                    async with asyncio.timeout(self.lease_seconds / BEATS_A_LEASE):
                        await self._poked.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self.store(Store.release, self.holder)
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("jobs stay leased until their lease is over: %s", error)

    async def _look(self) -> None:
        """Count a heartbeat, stop work on lost leases, and lease jobs that are free."""
        held = await self.store(Store.beat, self.holder)
        for job_id, task in self._tasks.items():
            if job_id not in held:
                task.cancel()
        if self.admission.closed:  # while requests drain, another process may go on
            if not self._tasks:
                await self.store(Store.release, self.holder)
            return
        jobs = await self.store(Store.jobs, ACTIVE)
        for job in sorted(jobs, key=lambda job: job.created):
            if len(self._tasks) >= self.most_segments:
                break
            wanted = job.id not in self._tasks and self._is_free(job)
            if wanted and await self.store(Store.take, job, self.holder):
                self._begin(job)
        self._count(jobs, await self.store(Store.counts))

    def _count(self, active: list[Job], counts: dict[str, int]) -> None:
        """Show how many jobs there are, and for how long the oldest has waited or run."""
        for state in State:
            self.metrics.jobs.labels(state).set(counts.get(state, 0))
        begun = [job.created for job in active]
        self.metrics.oldest_job.set(max(0.0, time.time() - min(begun)) if begun else 0.0)

    def _is_free(self, job: Job) -> bool:
        """Whether a job has no holder, or its holder's heartbeat stands still."""
        if job.holder is None or job.holder == self.holder:
            return True
        now = time.monotonic()
        holder, beat, since = self._seen.get(job.id, ("", -1, 0.0))
        if (holder, beat) != (job.holder, job.beat):
            self._seen[job.id] = (job.holder, job.beat, now)
            return False
        return now - since > self.lease_seconds

    def _begin(self, job: Job) -> None:
        self._seen.pop(job.id, None)
        task = self._tasks[job.id] = asyncio.create_task(self._work(job), name=f"job {job.id}")
        task.add_done_callback(lambda _: self._end(job.id))

    def _end(self, job_id: str) -> None:
        self._tasks.pop(job_id, None)
        self._poked.set()

    async def _work(self, job: Job) -> None:
        """Work on one job to its end; a failure is stored in it."""
        try:
            request = await self.store(Store.request, job.id)
            await self.store(Store.recover, job.id)
            await self._make_segments(job, self.prepare(request))
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
        try:
            await self.store(Store.fail, job.id, message, holder=self.holder)
        except GatewayError as error:  # the lease ends, and the job is tried again
            logger.warning("job %s: %s; its end could not be stored: %s", job.id, message, error)

    async def _make_segments(self, job: Job, prepared: PreparedSpeech) -> None:
        """Make what is not made, in order; several at once where none needs another's audio."""
        segments = await self.store(Store.segments, job.id)
        made = {segment.number: segment for segment in segments if segment.file}
        waiting = deque(segment for segment in segments if not segment.file)
        context = prepared.context
        running: set[asyncio.Task[SegmentRecord]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < self.most_segments:
                    needed = context.needed(waiting[0].number)
                    if not all(number in made for number in needed):
                        break
                    segment = waiting.popleft()
                    earlier = [made[number] for number in needed]
                    references = await self.store(_read_references, job.id, earlier)
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
                        partial(self.make, prepared, segment.text, references), asked
                    )
                    break
                except (NoHealthyUpstream, QueueFull):
                    if time.monotonic() - asked > OUTAGE_SECONDS:
                        raise
                except UpstreamError as error:
                    await self.store(Store.count_try, job.id, self.holder, segment.number)
                    segment = replace(segment, tries=segment.tries + 1)
                    self.metrics.job_segments.inc("retried")
                    if segment.tries % MOST_TRIES == 0 or not error.retryable:
                        raise
                await asyncio.sleep(RETRY_SECONDS)
        seconds = len(pcm) / (2 * ENGINE_SAMPLE_RATE_HZ)
        name = await self._patiently(
            lambda store: store.keep_segment(
                job.id, self.holder, segment.number, pcm, seconds=seconds
            )
        )
        self.metrics.job_segments.inc("made")
        return replace(segment, file=name, samples=len(pcm) // 2)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    async def _patiently(self, write: Callable[[Store], Result]) -> Result:
        """Write what took long to make; a store that is busy for a while loses nothing."""
        for _ in range(MOST_TRIES):
            try:
                return await self.store(write)
            except JobStoreBusy:
                await asyncio.sleep(RETRY_SECONDS)
        return await self.store(write)

    async def _in_spare_slot(self, make: Callable[[], Awaitable[bytes]], asked: float) -> bytes:
        """Make something in a spare slot, again when a live request needed the slot."""
        while True:
            patience_seconds = max(0.0, asked + PATIENCE_SECONDS - time.monotonic())
            async with self.admission.spare(patience_seconds) as slot:
                work = asyncio.ensure_future(make())
                slot.give_way = work.cancel
                try:
                    return await work
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    self.metrics.job_segments.inc("gave_way")

    async def _complete(self, job: Job, request: SpeechRequest) -> None:
        """Encode the stored segments into the job's file."""
        segments = await self.store(Store.segments, job.id)
        output = self._output(job, request, segments)
        path = output.folder / f"audio-{self.holder}.{request.response_format}"
        seconds, starts_seconds = await self._in_thread(partial(output.write, path))
        chapters = [
            replace(chapter, start_seconds=round(starts_seconds[chapter.segment], 3))
            for chapter in job.chapters
        ]
        await self._patiently(
            lambda store: store.finish(
                job.id, self.holder, path, seconds=seconds, chapters=chapters
            )
        )

    def _output(self, job: Job, request: SpeechRequest, segments: list[SegmentRecord]) -> Output:
        pauses_seconds = {
            Boundary.PARAGRAPH: job.paragraph_pause_seconds,
            Boundary.CHAPTER: job.chapter_pause_seconds,
        }
        folder = self.store.blocking.folder_of(job.id)
        return Output(folder, segments, request, pauses_seconds, self.bit_rates)

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
        found.append(Reference(wav_file(pcm), segment.text))
    return tuple(found)
