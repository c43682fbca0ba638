"""The straight line: request, text, slot, upstream, audio, bytes. Orchestration only.

An `Answer` owns everything its request holds (slot, lease, upstream stream, encoder) and gives it
back in `close`, which is synchronous so that no cancellation can interrupt it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from gateway.admission import Admission
from gateway.audio.guard import RunawayGuard
from gateway.audio.pcm import silence
from gateway.audio.transcoder import BitRates, Transcoder
from gateway.audio.underrun import Player
from gateway.errors import QueueFull, UpstreamError, UpstreamTimeout
from gateway.metrics import Metrics
from gateway.request import ENGINE_SAMPLE_RATE_HZ, SpeechRequest
from gateway.settings import Settings
from gateway.text.estimate import looks_silent, max_tokens, speech_seconds
from gateway.text.sanitise import check_text, sanitise_text
from gateway.upstream.attempts import Attempts, Running, TooShort
from gateway.upstream.base import (
    BUFFERED,
    OVERHEAD_TOKENS,
    PROFILES,
    SAMPLES_PER_TOKEN,
    TOKENS_PER_SECOND,
    Chunking,
    Generation,
)
from gateway.upstream.connection import Timeouts
from gateway.upstream.pool import Pool

SILENT_TEXT_SECONDS = 0.3
BYTES_PER_SAMPLE = 2
BUFFERED_ATTEMPTS = 3


class Source(Protocol):
    """Where an answer's PCM comes from."""

    async def read(self) -> bytes:
        """The next PCM, whole samples; empty only at the end."""

    def close(self) -> None:
        """Stop and give back what it holds; idempotent, synchronous."""


class Recording:
    """A source whose PCM is there already."""

    def __init__(self, pcm: bytes) -> None:
        self._pcm = pcm

    async def read(self) -> bytes:
        """All of it, then the end."""
        pcm, self._pcm = self._pcm, b""
        return pcm

    def close(self) -> None:
        """Hold nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request's text allows its audio to be.

    Attributes:
        generation: The upstream call.
        timeouts: Bounds of an attempt.
        shortest_samples: Audio below this is no honest reading.
        longest_samples: Audio above this is a runaway.
        bounded_by_client: The client's own max_tokens is the tighter bound.
        deadline: End of the whole request, in loop time.
    """

    generation: Generation
    timeouts: Timeouts
    shortest_samples: int
    longest_samples: int
    bounded_by_client: bool
    deadline: float


def plan_timeouts(settings: Settings, chunking: Chunking) -> Timeouts:
    """Bounds of one attempt: larger chunks take longer to come, at the slowest accepted rate."""
    extra_tokens = max(0, chunking.size_tokens - PROFILES["standard"].size_tokens)
    extra_seconds = extra_tokens / settings.slowest_tokens_per_second
    return Timeouts(
        connect_seconds=settings.connect_timeout_seconds,
        first_audio_seconds=settings.first_audio_timeout_seconds + extra_seconds,
        idle_seconds=settings.idle_timeout_seconds + extra_seconds,
    )


def plan_seconds(settings: Settings, timeouts: Timeouts, longest_samples: int) -> float:
    """Bound of the whole request once it has a slot, by the length that its audio may have."""
    tokens = longest_samples / SAMPLES_PER_TOKEN
    slowest = timeouts.first_audio_seconds + tokens / settings.slowest_tokens_per_second
    return min(settings.request_timeout_seconds, slowest)


class Answer:
    """Audio in the response format, as it comes; closed by whoever sends it.

    Attributes:
        content_type: Of the bytes.
        queue_wait_seconds: What the request waited for its slot.
    """

    def __init__(
        self,
        request: SpeechRequest,
        source: Source,
        guard: RunawayGuard,
        transcoder: Transcoder,
        scope: ExitStack,
        executor: Executor,
        metrics: Metrics,
        *,
        arrived: float,
        plan: Plan | None,
        queue_wait_seconds: float,
    ) -> None:
        self.content_type = transcoder.content_type
        self.queue_wait_seconds = queue_wait_seconds
        self.sent_bytes = 0
        self.ended = False
        self._request = request
        self._source = source
        self._guard = guard
        self._transcoder = transcoder
        self._scope = scope
        self._executor = executor
        self._metrics = metrics
        self._arrived = arrived
        self._plan = plan
        self._player = Player()
        self._job: Future[bytes] | None = None
        self._encode_seconds = 0.0
        self._input_bytes = 0

    @property
    def audio_seconds(self) -> float:
        """Audio that has left the transcoder."""
        return self._transcoder.output_seconds

    @property
    def audio_tokens(self) -> int:
        """Audio tokens that the engine made for what was received."""
        return -(-self._input_bytes // (SAMPLES_PER_TOKEN * BYTES_PER_SAMPLE))

    async def read(self) -> bytes:
        """The next encoded bytes; empty only at the end.

        Raises:
            GatewayError: The generation failed; what was sent so far is incomplete.
        """
        if self.ended:
            return b""
        asked = time.monotonic()
        data = b""
        while not data and not self.ended:
            pcm = await self._pull()
            if pcm:
                data = await self._run(self._feed, pcm)
            if not pcm or self._guard.ended:
                self._finish_generation(complete=not pcm)
                data += await self._run(self._finish)
                self.ended = True
        if data:
            now = time.monotonic()
            if not self.sent_bytes:
                self._metrics.time_to_first_byte.observe(now - self._arrived)
            self.sent_bytes += len(data)
            self._player.deliver(asked, now, self.audio_seconds)
        return data

    async def read_all(self) -> bytes:
        """The whole answer."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    async def _pull(self) -> bytes:
        if self._plan is None:
            return await self._source.read()
        try:
            async with asyncio.timeout_at(self._plan.deadline):
                return await self._source.read()
        except TimeoutError:
            raise UpstreamTimeout("The whole request took too long.") from None

    def _finish_generation(self, *, complete: bool) -> None:
        """Look at a generation's length at its end, whatever ended it."""
        plan = self._plan
        samples = self._input_bytes // BYTES_PER_SAMPLE
        if plan is None:
            return
        if complete and samples < plan.shortest_samples:
            raise TooShort("The upstream's audio is far too short for its text.")
        at_bound = samples >= plan.longest_samples and not plan.bounded_by_client
        reason = self._guard.ended or ("too_long" if at_bound else None)
        if reason and not (reason == "too_long" and plan.bounded_by_client):
            self._metrics.runaway.labels(reason).inc()
        self._source.close()  # a runaway generation must leave the GPU now

    def _feed(self, pcm: bytes) -> bytes:
        self._input_bytes += len(pcm)
        return self._transcoder.feed(self._guard.feed(pcm))

    def _finish(self) -> bytes:
        return self._transcoder.feed(self._guard.finish()) + self._transcoder.finish()

    async def _run(self, step: Callable[..., bytes], *arguments: bytes) -> bytes:
        """Run one step of the codec: in a thread, unless a thread costs more than the step."""
        if not self._transcoder.needs_thread:
            return step(*arguments)

        def timed() -> bytes:
            started = time.thread_time()
            try:
                return step(*arguments)
            finally:
                self._encode_seconds += time.thread_time() - started

        self._job = self._executor.submit(timed)
        return await asyncio.wrap_future(self._job)

    def close(self) -> None:
        """Give everything back; idempotent. A codec at work in a thread is freed when it is done."""
        self._scope.close()
        if self._job is not None and not self._job.done():
            self._job.add_done_callback(lambda _: self._transcoder.close())
        else:
            self._transcoder.close()

    def observe(self, outcome: str, voice_label: str) -> None:
        """Count the answer as it ended."""
        metrics, request = self._metrics, self._request
        elapsed = time.monotonic() - self._arrived
        metrics.request_duration.observe(elapsed)
        metrics.response_bytes.inc(self.sent_bytes)
        metrics.audio_seconds.labels(request.surface, request.response_format, voice_label).inc(
            self.audio_seconds
        )
        metrics.audio_tokens.inc(self.audio_tokens)
        if self._encode_seconds:
            metrics.encode_seconds.labels(request.response_format).inc(self._encode_seconds)
        if outcome == "ok" and self.audio_seconds:
            metrics.real_time_factor.observe(elapsed / self.audio_seconds)
            if not request.buffered:
                metrics.underrun.observe(self._player.underrun_seconds)


class SpeechService:
    """Makes answers.

    Args:
        settings: Bounds and defaults.
        admission: The slots.
        pool: The upstreams, for the lists of voices and models.
        attempts: Starts generations.
        metrics: Where all is counted.
        executor: Bounded threads for codecs; at most one job a request is in them.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        pool: Pool,
        attempts: Attempts,
        metrics: Metrics,
        executor: Executor,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.metrics = metrics
        self._admission = admission
        self._attempts = attempts
        self._executor = executor
        self._bit_rates = BitRates(settings.mp3_kbps, settings.opus_kbps, settings.aac_kbps)

    def plan(self, request: SpeechRequest, text: str) -> Plan:
        """Decide what the upstream is asked for and how long it may take."""
        settings = self.settings
        chunking = BUFFERED if request.buffered else PROFILES[settings.stream_profile]
        tokens = max_tokens(text, seconds_per_character_factor=settings.plausible_length_factor)
        asked = request.sampling.max_tokens
        bounded_by_client = asked is not None and asked < tokens
        if asked is not None:
            tokens = min(tokens, asked)
        longest = max(1, tokens - OVERHEAD_TOKENS) * SAMPLES_PER_TOKEN
        shortest = int(speech_seconds(text).shortest_seconds * ENGINE_SAMPLE_RATE_HZ)
        timeouts = plan_timeouts(settings, chunking)
        return Plan(
            generation=Generation(
                text=text,
                voice=request.voice,
                system_prompt=request.system_prompt,
                references=request.references,
                sampling=request.sampling,
                max_tokens=tokens,
                chunking=chunking,
            ),
            timeouts=timeouts,
            shortest_samples=min(shortest, longest),
            longest_samples=longest,
            bounded_by_client=bounded_by_client,
            deadline=asyncio.get_running_loop().time()
            + plan_seconds(settings, timeouts, longest),
        )

    async def open(self, request: SpeechRequest, arrived: float) -> Answer:
        """Bring a request to its first audio.

        Args:
            request: What to say, as a surface understood it.
            arrived: When it came, `time.monotonic()`.

        Raises:
            GatewayError: Nothing was sent yet: an honest status.
        """
        check_text(request.text, self.settings.max_input_characters)
        text = sanitise_text(request.text)
        self.metrics.input_characters.inc(len(request.text))
        transcoder = Transcoder(
            request.response_format,
            speed=request.speed,
            sample_rate_hz=request.sample_rate_hz,
            buffered=request.buffered,
            bit_rates=self._bit_rates,
        )
        with ExitStack() as scope:
            scope.callback(transcoder.close)
            if looks_silent(text):
                source: Source = Recording(silence(SILENT_TEXT_SECONDS))
                plan, waited = None, 0.0
                longest, quiet = ENGINE_SAMPLE_RATE_HZ, 1.0
            else:
                self.pool.require_ready()
                waited = await self._admit(scope)
                plan = self.plan(request, text)
                longest, quiet = plan.longest_samples, self.settings.quiet_limit_seconds
                source = await self._start(plan, buffered=request.buffered)
                scope.callback(source.close)
                self.metrics.time_to_first_audio.observe(time.monotonic() - arrived)
            kept = scope.pop_all()
        return Answer(
            request,
            source,
            RunawayGuard(longest, quiet),
            transcoder,
            kept,
            self._executor,
            self.metrics,
            arrived=arrived,
            plan=plan,
            queue_wait_seconds=waited,
        )

    async def _admit(self, scope: ExitStack) -> float:
        """Wait for a slot that `scope` gives back."""
        metrics = self.metrics
        with metrics.queued.track_inprogress():
            try:
                waited = await self._admission.acquire()
            except QueueFull:
                metrics.rejections.labels("queue").inc()
                raise
        metrics.queue_wait.observe(waited)
        metrics.in_flight.inc()
        scope.callback(metrics.in_flight.dec)
        scope.callback(self._admission.release)
        return waited

    async def _start(self, plan: Plan, *, buffered: bool) -> Source:
        """The source of a plan; for a buffered answer only when all of it is there.

        A buffered answer has sent nothing yet, so a generation that breaks off is made again.
        """
        try:
            async with asyncio.timeout_at(plan.deadline):
                for attempt in range(BUFFERED_ATTEMPTS):
                    running = await self._attempts.start(
                        plan.generation, plan.timeouts, plan.shortest_samples
                    )
                    if not buffered:
                        return running
                    try:
                        return Recording(await self._collect(running, plan))
                    except UpstreamError as error:
                        if not error.retryable or attempt == BUFFERED_ATTEMPTS - 1:
                            raise
                        self.metrics.upstream_retries.labels(error.code).inc()
        except TimeoutError:
            raise UpstreamTimeout("The whole request took too long.") from None
        raise AssertionError("unreachable")

    async def _collect(self, running: Running, plan: Plan) -> bytes:
        """All PCM of a generation, up to a little more than its plausible length."""
        pcm = bytearray()
        try:
            while len(pcm) <= plan.longest_samples * BYTES_PER_SAMPLE:
                data = await running.read()
                if not data:
                    if len(pcm) < plan.shortest_samples * BYTES_PER_SAMPLE:
                        raise TooShort("The upstream's audio is far too short for its text.")
                    break
                pcm += data
        finally:
            running.close()
        return bytes(pcm)
